use proptest::prelude::*;

use super::*;

/// The text, and what each entity covers.
fn shown(markdown: &str) -> (String, Vec<(&'static str, String)>) {
    let Rendered { text, entities, .. } = render(markdown, None);
    let units: Vec<u16> = text.encode_utf16().collect();
    let covered = |entity: &Entity| {
        let covered = &units[entity.offset..entity.offset + entity.length];
        let mut covered = String::from_utf16(covered).expect("whole characters");
        for more in [&entity.url, &entity.language].into_iter().flatten() {
            covered.push_str(&format!(" <{more}>"));
        }
        (entity.kind, covered)
    };
    let entities = entities.iter().map(covered).collect();
    (text, entities)
}

/// Markdown, its text, and what each entity covers.
type Example = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

#[test]
fn each_construct_has_its_text_and_entities() {
    let table: &[Example] = &[
        ("plain", "plain", &[]),
        ("**b** *i* ~~s~~ `c`", "b i s c", &[("bold", "b"), ("italic", "i"), ("strikethrough", "s"), ("code", "c")]),
        ("😀 **fett**", "😀 fett", &[("bold", "fett")]),
        ("**a *b* c**", "a b c", &[("bold", "a b c"), ("italic", "b")]),
        ("**a `b` c**", "a b c", &[("bold", "a "), ("code", "b"), ("bold", " c")]),
        ("# One\ntwo", "One\n\ntwo", &[("bold", "One")]),
        ("# A **b**", "A b", &[("bold", "A b")]),
        ("```rust\nfn a() {}\n```", "fn a() {}", &[("pre", "fn a() {} <rust>")]),
        ("a\n```\nb\n\nc\n```\nd", "a\n\nb\n\nc\n\nd", &[("pre", "b\n\nc")]),
        ("[x](https://a.org/?q=1)", "x", &[("text_link", "x <https://a.org/?q=1>")]),
        ("[x](javascript:alert(1))", "x (javascript:alert(1))", &[]),
        ("[x](/etc/passwd)", "x (/etc/passwd)", &[]),
        ("[](https://a.org)", "https://a.org", &[("text_link", "https://a.org <https://a.org>")]),
        ("[`c`](https://a.org)", "c", &[("text_link", "c <https://a.org>")]),
        ("![alt](https://a.org/p.png)", "alt", &[("text_link", "alt <https://a.org/p.png>")]),
        (
            "<https://a.org> <me@a.org>",
            "https://a.org me@a.org",
            &[("text_link", "https://a.org <https://a.org>"), ("text_link", "me@a.org <mailto:me@a.org>")],
        ),
        ("> a\n> b\n\nc", "a\nb\n\nc", &[("blockquote", "a\nb")]),
        ("> a\n> > b", "a\n\nb", &[("blockquote", "a\n\nb")]),
        ("- a\n- **b**\n  - c\n\nd", "• a\n• b\n  • c\n\nd", &[("bold", "b")]),
        ("3. a\n4. b", "3. a\n4. b", &[]),
        ("1. a\n\n   more\n2. b", "1. a\nmore\n2. b", &[]),
        ("- [ ] a\n- [x] b", "• ☐ a\n• ☑ b", &[]),
        ("|a|bb|\n|-|-|\n|ccc|**d**|", "a   │ bb\n────┼───\nccc │ d", &[("pre", "a   │ bb\n────┼───\nccc │ d")]),
        ("a\n\n---\n\nb", "a\n\n———\n\nb", &[]),
        ("<b>no</b> &amp; <!-- x -->", "<b>no</b> & <!-- x -->", &[]),
        ("[x]: https://a.org\n\nsee [x]", "[x]: https://a.org\n\nsee [x]", &[]),
        ("2 * 3 * 4, snake_case_name", "2 * 3 * 4, snake_case_name", &[]),
    ];
    for (markdown, text, entities) in table {
        let entities: Vec<_> = entities.iter().map(|(kind, covered)| (*kind, (*covered).to_owned())).collect();
        assert_eq!(shown(markdown), ((*text).to_owned(), entities), "{markdown}");
    }
}

#[test]
fn what_is_not_finished_is_shown() {
    assert_eq!(shown("**bo").0, "**bo");
    assert_eq!(shown("[text](https://a").0, "[text](https://a");
    assert_eq!(shown("`co").0, "`co");
    assert_eq!(shown("```py\nprint(").1, [("pre", "print( <py>".to_owned())]);
    // Nothing can be seen of it yet, and Telegram takes no empty text.
    assert_eq!(shown("```").0, "```");
    assert_eq!(shown("```py\n").0, "```py\n");
}

#[test]
fn a_block_of_code_goes_on_over_pages() {
    let fence = |mark: &str, language: &str| Some(Fence { mark: mark.to_owned(), language: language.to_owned() });
    let first = render("see\n````rust\nlet a = 1;\n```\n", None);
    assert_eq!(first.open, fence("````", "rust"));
    let second = render("let b = 2;\n", first.open.as_ref());
    assert_eq!((second.text.as_str(), &second.open), ("let b = 2;\n", &first.open));
    assert_eq!(second.entities[0].language.as_deref(), Some("rust"));
    let third = render("let c = 3;\n````\n**end**", second.open.as_ref());
    assert_eq!((third.text.as_str(), third.open), ("let c = 3;\n\nend", None));
    assert_eq!(third.entities.iter().map(|entity| entity.kind).collect::<Vec<_>>(), ["pre", "bold"]);
    for closed in ["```\na\n```", "~~~\na\n~~~  \n\n", "```\na\n```\nb", "text"] {
        assert_eq!(render(closed, None).open, None, "{closed}");
    }
    assert_eq!(render("~~~\n```", None).open, fence("~~~", ""));
}

#[test]
fn bullets_do_not_make_a_message_too_long() {
    let items = "-\n".repeat(MESSAGE_UNITS_MAX / 2);
    let rendered = render(&items, None);
    assert!(rendered.text.encode_utf16().count() <= MESSAGE_UNITS_MAX);
    assert_eq!(rendered.text, items);
    assert_eq!(render(&"`a` ".repeat(1000), None).entities.len(), ENTITIES_MAX);
}

/// Telegram's rules for entities.
fn check(rendered: &Rendered) -> Result<(), TestCaseError> {
    let units: Vec<u16> = rendered.text.encode_utf16().collect();
    prop_assert!(units.len() <= MESSAGE_UNITS_MAX);
    let range = |entity: &Entity| (entity.offset, entity.offset + entity.length);
    for entity in &rendered.entities {
        let (from, to) = range(entity);
        prop_assert!(from < to && to <= units.len());
        prop_assert!(String::from_utf16(&units[from..to]).is_ok());
        for other in &rendered.entities {
            let (start, end) = range(other);
            prop_assert!(end <= from || to <= start || (from <= start && end <= to) || (start <= from && to <= end));
            let is_apart = end <= from || to <= start || std::ptr::eq(entity, other);
            let holds = from <= start && end <= to;
            prop_assert!(is_apart || !holds || !matches!(entity.kind, "code" | "pre") || (start, end) == (from, to));
        }
    }
    Ok(())
}

/// Lines of anything that is a mark somewhere.
fn marked() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-c😀ü ]{1,4}",
        prop::sample::select(vec![
            "*",
            "**",
            "_",
            "~~",
            "`",
            "```",
            "````",
            "~~~",
            "\n",
            "\n\n",
            "\n- ",
            "\n1. ",
            "\n> ",
            "\n    ",
            "# ",
            "[",
            "]",
            "(",
            ")",
            "](https://a.b)",
            "![",
            "<b>",
            "<!--",
            "|",
            "\n|-|-|\n",
            "&amp;",
            "\\",
            "[a]: b\n",
            "---\n",
            "===\n",
            "- [x] ",
            "<a@b.c>",
            "\r\n",
            "\t",
            "\0",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_markdown_is_rendered_by_the_rules(text in marked(), is_open in any::<bool>()) {
        let fence = Fence { mark: "```".to_owned(), language: "rust".to_owned() };
        check(&render(&text, is_open.then_some(&fence)))?;
        // A growing reply is a row of its beginnings.
        for (at, _) in text.char_indices().step_by(7) {
            check(&render(&text[..at], None))?;
        }
    }

    #[test]
    fn any_text_is_rendered_by_the_rules(text in any::<String>()) {
        check(&render(&text, None))?;
    }

    #[test]
    fn no_letter_is_lost(text in "([a-z]{1,3}|[*_~`#>|\\[\\]!-]|[ \n])*") {
        let letters = |text: &str| text.chars().filter(char::is_ascii_lowercase).collect::<String>();
        let rendered = render(&text, None);
        // The word behind a fence is the language of the block.
        let has_fence = text.contains("```") || text.contains("~~~");
        prop_assert!(has_fence || letters(&rendered.text) == letters(&text), "{:?}", rendered.text);
    }
}
