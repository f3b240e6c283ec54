//! Cutting a text into messages of at most 4096 UTF-16 code units, as the Bot API counts them
//! (<https://core.telegram.org/bots/api#sendmessage>).
//!
//! **Invariants**
//! - The pieces of a text, joined, are the text.
//! - No piece is empty or over the limit, and a border is never inside a character.

/// The longest text of a message, in UTF-16 code units.
pub(super) const MESSAGE_UNITS_MAX: usize = 4096;

/// A border at a newline or a space is taken only if the piece keeps at least this share of the limit; otherwise one
/// early newline would make many short messages.
const SHORTEST_SHARE: usize = 2;

/// Length in UTF-16 code units.
pub(super) fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// The first piece of a text longer than `limit` UTF-16 code units; `None` if the text is one piece.
///
/// It looks at no more than `limit` units, however long the text is. `limit` must be at least 2, the length of the
/// longest character.
pub(super) fn head(text: &str, limit: usize) -> Option<&str> {
    if text.len() <= limit {
        return None; // No character takes fewer bytes than units.
    }
    let (mut used, mut space, mut newline) = (0, 0, 0);
    for (at, c) in text.char_indices() {
        used += c.len_utf16();
        if used > limit {
            let border = [newline, space].into_iter().find(|&border| border > 0).unwrap_or(at);
            return Some(&text[..border]);
        }
        let late_enough = used * SHORTEST_SHARE >= limit;
        if c == '\n' && late_enough {
            newline = at + c.len_utf8();
        } else if c == ' ' && late_enough {
            space = at + c.len_utf8();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(mut text: &str, limit: usize) -> Vec<&str> {
        let mut pieces = Vec::new();
        while let Some(piece) = head(text, limit) {
            pieces.push(piece);
            text = &text[piece.len()..];
        }
        if !text.is_empty() {
            pieces.push(text);
        }
        pieces
    }

    #[test]
    fn a_border_is_a_newline_before_a_space_before_anything() {
        assert_eq!(pieces("one two\nthree four", 12), ["one two\n", "three four"]);
        assert_eq!(pieces("onetwo three four", 10), ["onetwo ", "three four"]);
        assert_eq!(pieces("abcdefghij", 4), ["abcd", "efgh", "ij"]);
    }

    #[test]
    fn an_early_newline_is_no_border() {
        assert_eq!(pieces("a\nbcdefghij", 8), ["a\nbcdefg", "hij"]);
    }

    #[test]
    fn a_surrogate_pair_stays_whole() {
        assert_eq!(pieces("a😀😀", 2), ["a", "😀", "😀"]);
        assert_eq!(head("😀", 2), None);
    }

    proptest! {
        #[test]
        fn joined_pieces_are_the_text_and_each_fits(text in "[a-c \n😀ß]{0,80}", limit in 2usize..20) {
            let pieces = pieces(&text, limit);
            prop_assert_eq!(&pieces.concat(), &text);
            for piece in pieces {
                prop_assert!(!piece.is_empty() && units(piece) <= limit);
            }
        }

        #[test]
        fn any_unicode_splits(text in any::<String>(), limit in 2usize..9) {
            let pieces = pieces(&text, limit);
            prop_assert_eq!(&pieces.concat(), &text);
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty() && units(piece) <= limit));
        }
    }
}
