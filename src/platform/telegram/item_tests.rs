//! One item: what it wants next, and what is left of it.

use proptest::prelude::*;

use super::*;

const NOW: MonoNanos = MonoNanos(1_000_000_000);

fn reply() -> Item {
    Item::reply(1, TurnId(7), None, NOW)
}

fn text_of(item: &Item) -> String {
    match item.want() {
        Want::Show { text, .. } => text,
        other => panic!("wants {other:?}"),
    }
}

#[test]
fn a_first_word_waits_for_more_and_a_paragraph_does_not() {
    let mut item = reply();
    item.push("Hi", NOW);
    assert!(matches!(item.want(), Want::Show { due, edit: None, .. } if due == after(NOW, FIRST_WAIT)));
    item.push(&"x".repeat(FIRST_UNITS), NOW);
    assert!(matches!(item.want(), Want::Show { due: NOW, .. }));
}

#[test]
fn typing_is_shown_until_there_is_text() {
    let mut item = reply();
    assert_eq!(item.want(), Want::Typing { due: NOW });
    item.typed(NOW);
    item.push("\n", NOW);
    assert_eq!(item.want(), Want::Typing { due: after(NOW, TYPING_PERIOD) });
    item.push("text", NOW);
    item.showed(5, text_of(&item));
    assert_eq!(item.want(), Want::Nothing);
}

#[test]
fn an_activity_is_shown_below_the_text_and_never_in_the_final_one() {
    let mut item = reply();
    item.set_activity("Read\n a file");
    assert!(matches!(item.want(), Want::Typing { .. }));
    item.push("Let me see.", NOW);
    item.set_activity("Read\n a file");
    assert_eq!(text_of(&item), "Let me see.\n\n… Read a file");
    item.showed(5, text_of(&item));
    item.end(&ReplyEnd::Complete, NOW);
    assert_eq!(text_of(&item), "Let me see.");
    item.showed(5, text_of(&item));
    assert!(item.is_done());
}

#[test]
fn each_end_is_told() {
    let table = [
        ("", ReplyEnd::Complete, NO_ANSWER),
        (" \n", ReplyEnd::Complete, " \n(no answer)"),
        ("so", ReplyEnd::Complete, "so"),
        ("", ReplyEnd::Stopped, "⚡ Stopped."),
        ("so", ReplyEnd::Stopped, "so\n\n⚡ Stopped."),
        ("so", ReplyEnd::Failed("agent died".into()), "so\n\n❌ agent died"),
    ];
    for (text, end, wanted) in table {
        let mut item = reply();
        item.push(text, NOW);
        item.end(&end, NOW);
        assert_eq!(text_of(&item), wanted);
    }
}

#[test]
fn a_doubtful_page_is_marked_once_and_still_fits() {
    let mut item = Item::notice(1, &"word ".repeat(1000), None, NOW);
    item.doubt();
    let first = text_of(&item);
    assert!(first.starts_with(RECOVERED) && units(&first) <= MESSAGE_UNITS_MAX);
    item.showed(1, first.clone());
    let rest = text_of(&item);
    assert_eq!(format!("{}{rest}", &first[RECOVERED.len()..]), "word ".repeat(1000));
}

#[test]
fn an_endless_text_is_cut_off_and_its_end_still_told() {
    let mut item = reply();
    for _ in 0..5000 {
        item.push(&"é".repeat(50), NOW);
    }
    item.end(&ReplyEnd::Stopped, NOW);
    assert!(item.tail.len() < TEXT_BYTES_MAX + 200);
    assert!(item.tail.contains("cut off") && item.tail.ends_with("⚡ Stopped."));
}

#[test]
fn a_reply_whose_turn_does_not_go_on_ends_where_it_is() {
    let mut item = reply();
    item.push("So far", NOW);
    item.set_activity("Read");
    item.unclaim();
    assert_eq!(item.want(), Want::Nothing);
    item.expire();
    assert_eq!(text_of(&item), "So far");
    let mut silent = reply();
    silent.unclaim();
    silent.expire();
    assert!(silent.is_done());
    let mut claimed = reply();
    claimed.unclaim();
    claimed.claim();
    claimed.expire();
    assert!(!claimed.is_done());
}

proptest! {
    #[test]
    fn the_text_so_far_adds_what_is_missing(text in any::<String>(), before in 0..200usize) {
        let mut item = reply();
        let before = text.floor_char_boundary(before);
        item.push(&text[..before], NOW);
        item.so_far(&text, NOW);
        item.so_far(&text[..before], NOW);
        prop_assert_eq!(&item.tail, &text);
    }
}

#[test]
fn a_blank_text_is_nothing_to_show() {
    assert!(Item::notice(1, " \n ", None, NOW).is_done());
}
