//! Cutting a text into messages of at most so many units, in which a platform counts.
//!
//! **Invariants**
//! - The pieces of a text, joined, are the text.
//! - No piece is empty or over the limit, and a border is never inside a character.

use super::medium::Measure;

/// The longest text of a message of Telegram, in UTF-16 code units (<https://core.telegram.org/bots/api#sendmessage>).
pub(in crate::platform) const MESSAGE_UNITS_MAX: usize = 4096;

/// A border at a newline or a space is taken only if the piece keeps at least this share of the limit; otherwise one
/// early newline would make many short messages.
const SHORTEST_SHARE: usize = 2;

/// The first piece of a text longer than `max`; `None` if the text is one piece.
///
/// It looks at no more than `max`, however long the text is. `max` must be at least 4, the length of the longest
/// character.
pub(super) fn head(text: &str, max: Measure) -> Option<&str> {
    let limit = max.limit();
    if text.len() <= limit {
        return None; // No character takes fewer bytes than units.
    }
    let (mut used, mut space, mut newline) = (0, 0, 0);
    for (at, c) in text.char_indices() {
        used += max.of(c);
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

/// The end of the last whole paragraph of a growing text, behind its blank line; none inside a fenced block of code.
pub(super) fn paragraphs(text: &str) -> Option<usize> {
    let (mut end, mut at, mut fenced, mut said) = (None, 0, false, false);
    for line in text.split_inclusive('\n') {
        at += line.len();
        let bare = line.trim();
        if bare.starts_with("```") || bare.starts_with("~~~") {
            fenced = !fenced;
        }
        said |= !bare.is_empty();
        if bare.is_empty() && said && !fenced && line.ends_with('\n') {
            end = Some(at);
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(text: &str, limit: usize) -> Vec<&str> {
        pieces_of(text, Measure::Utf16(limit))
    }

    fn pieces_of(mut text: &str, max: Measure) -> Vec<&str> {
        let mut pieces = Vec::new();
        while let Some(piece) = head(text, max) {
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
        assert_eq!(head("😀", Measure::Utf16(2)), None);
    }

    #[test]
    fn each_platform_counts_in_its_own_unit() {
        assert_eq!(pieces_of("ßßß", Measure::Bytes(4)), ["ßß", "ß"]);
        assert_eq!(pieces_of("😀😀😀", Measure::Chars(2)), ["😀😀", "😀"]);
    }

    #[test]
    fn a_paragraph_is_whole_behind_its_blank_line() {
        let table = [
            ("one", None),
            ("one\n", None),
            ("one\n\n", Some(5)),
            ("one\n\ntwo", Some(5)),
            ("one\n\ntwo\n\nth", Some(10)),
            ("\n\none", None),
            ("```\na\n\nb", None),
            ("```\na\n\nb\n```\n\nc", Some(14)),
        ];
        for (text, wanted) in table {
            assert_eq!(paragraphs(text), wanted, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn joined_pieces_are_the_text_and_each_fits(text in "[a-c \n😀ß]{0,80}", limit in 2usize..20) {
            let pieces = pieces(&text, limit);
            prop_assert_eq!(&pieces.concat(), &text);
            for piece in pieces {
                prop_assert!(!piece.is_empty() && Measure::Utf16(limit).len(piece) <= limit);
            }
        }

        #[test]
        fn any_unicode_splits(text in any::<String>(), limit in 4usize..9) {
            for max in [Measure::Utf16(limit), Measure::Bytes(limit), Measure::Chars(limit)] {
                let pieces = pieces_of(&text, max);
                prop_assert_eq!(&pieces.concat(), &text);
                prop_assert!(pieces.iter().all(|piece| !piece.is_empty() && max.len(piece) <= limit));
            }
        }

        #[test]
        fn the_end_of_a_paragraph_is_within_the_text(text in "[a` \n]{0,60}") {
            let end = paragraphs(&text);
            prop_assert!(end.is_none_or(|end| text.is_char_boundary(end) && text[..end].ends_with('\n')));
        }
    }
}
