//! One item: what it wants next, and what is left of it.

use proptest::prelude::*;

use super::*;
use crate::chat::Conversation;
use crate::clock::UnixMillis;
use crate::store::{Entry, Part};

const NOW: MonoNanos = MonoNanos(1_000_000_000);

fn reply() -> Item {
    Item::reply(1, Shape::default(), TurnId(7), None, NOW)
}

fn restore(entry: Entry) -> Item {
    Item::restore(1, Shape::default(), entry, NOW)
}

fn recovered() -> &'static str {
    Shape::default().language.words().recovered()
}

fn units(text: &str) -> usize {
    Shape::default().message_max.len(text)
}

/// Shows the page that can still change as `message_id`.
fn show(item: &mut Item, message_id: i64) {
    let text = text_of(item);
    item.showed(message_id.into(), text, None);
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
    assert!(matches!(item.want(), Want::Show { due, how: How::Send, .. } if due == after(NOW, FIRST_WAIT)));
    item.push(&"x".repeat(FIRST_UNITS), NOW);
    assert!(matches!(item.want(), Want::Show { due: NOW, .. }));
}

#[test]
fn a_card_is_told_that_it_is_complete_also_where_its_text_is() {
    for growth in [Growth::Edit, Growth::Card] {
        let mut item = Item::reply(1, Shape { growth, ..Shape::default() }, TurnId(7), None, NOW);
        item.push("all of it", NOW);
        show(&mut item, 5);
        assert_eq!(item.want(), Want::Nothing);
        item.end(&ReplyEnd::Complete, NOW);
        if growth == Growth::Card {
            assert!(matches!(item.want(), Want::Show { how: How::Edit(_), settled: true, urgent: true, .. }));
            let text = text_of(&item);
            item.showed(5.into(), text, Some("all of it".len()));
        }
        assert!(item.is_done(), "{growth:?}");
    }
}

#[test]
fn typing_is_shown_until_there_is_text() {
    let mut item = reply();
    assert_eq!(item.want(), Want::Typing { due: after(NOW, TYPING_WAIT) });
    item.typed(NOW);
    item.push("\n", NOW);
    assert_eq!(item.want(), Want::Typing { due: after(NOW, Shape::default().typing.expect("it is shown")) });
    item.push("text", NOW);
    show(&mut item, 5);
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
    show(&mut item, 5);
    item.end(&ReplyEnd::Complete, NOW);
    assert_eq!(text_of(&item), "Let me see.");
    show(&mut item, 5);
    assert!(item.is_done());
}

#[test]
fn each_end_is_told() {
    let table = [
        ("", ReplyEnd::Complete, "(no answer)"),
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
    let mut item = Item::notice(1, Shape::default(), "word ".repeat(1000).into(), None, NOW);
    item.doubt();
    let first = text_of(&item);
    assert!(first.starts_with(recovered()) && units(&first) <= Shape::default().message_max.limit());
    show(&mut item, 1);
    let rest = text_of(&item);
    assert_eq!(format!("{}{rest}", &first[recovered().len()..]), "word ".repeat(1000));
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

/// An entry of a reply that runs, or has ended with `text`.
fn entry(text: Option<&str>, end: Option<ReplyEnd>, parts: Vec<Part>) -> Entry {
    Entry {
        id: EntryId(1),
        turn: Some(TurnId(7)),
        conversation: Conversation::new("telegram", "1"),
        text: text.map(str::to_owned),
        files: Vec::new(),
        choices: Vec::new(),
        end,
        created_at: UnixMillis(0),
        parts,
    }
}

fn part(number: u32, start: usize, message_id: Option<i64>) -> Part {
    Part { number, start, length: None, is_marked: false, message_id: message_id.map(|id| id.to_string()), file: None }
}

#[test]
fn a_reply_that_runs_waits_for_its_text_and_goes_on_where_it_was() {
    let mut item = restore(entry(None, None, vec![part(0, 0, Some(5)), part(1, 4000, Some(6))]));
    assert_eq!(item.want(), Want::Nothing);
    item.so_far(&format!("{}tail", "x".repeat(4000)), NOW);
    let Want::Show { how, text, .. } = item.want() else { panic!("something to show") };
    assert_eq!((how, text.as_str()), (How::Edit(6.into()), "tail"));
}

#[test]
fn an_ended_reply_is_told_from_its_last_part_on() {
    let text = "word ".repeat(1000);
    let whole = restore(entry(Some(&text), Some(ReplyEnd::Stopped), Vec::new()));
    let Want::Show { how: How::Send, body, .. } = whole.want() else { panic!("something to show") };
    let parts = vec![part(0, 0, Some(5)), part(1, body, None)];
    let item = restore(entry(Some(&text), Some(ReplyEnd::Stopped), parts));
    let Want::Show { how: How::Send, text: shown, .. } = item.want() else { panic!("something to show") };
    assert_eq!(shown, format!("{}{}\n\n⚡ Stopped.", recovered(), &text[body..]), "it may have been shown");
}

#[test]
fn what_is_shown_of_a_lost_text_stays_and_its_end_is_a_message_of_its_own() {
    let end = || Some(ReplyEnd::Failed("killed".into()));
    let shown = part(0, 0, Some(5));
    let mut item = restore(entry(None, None, vec![shown.clone()]));
    item.end(&end().expect("an end"), NOW);
    let restored = restore(entry(None, end(), vec![shown.clone()]));
    for item in [item, restored] {
        let attempt = item.attempt(None).expect("it has an entry");
        let Want::Show { how: How::Send, text, .. } = item.want() else { panic!("a message of its own") };
        assert_eq!(text.trim(), "❌ killed");
        // That it was sent is known to whoever finds the entry next.
        let parts = vec![shown.clone(), part(attempt.number, attempt.start, Some(6))];
        let again = restore(entry(None, end(), parts));
        assert!(matches!(again.want(), Want::Show { how: How::Edit(id), .. } if id == 6.into()));
    }
}

proptest! {
    #[test]
    fn an_item_made_of_its_entry_anew_goes_on_with_the_same_messages(
        text in "[a-c \n😀]{0,300}", blank in 0..9000usize, cuts in 0..6usize
    ) {
        let text = format!("{}{text}{}", " ".repeat(blank % 5000), "word\n".repeat(blank / 3));
        let end = ReplyEnd::Failed("x".into());
        let mut item = restore(entry(Some(&text), Some(end.clone()), Vec::new()));
        let mut parts = Vec::new();
        for message_id in 0..i64::try_from(cuts).expect("few") {
            let Want::Show { text: page, .. } = item.want() else { break };
            let attempt = item.attempt(None).expect("it has an entry");
            parts.push(part(attempt.number, attempt.start, Some(message_id)));
            let restored = restore(entry(Some(&text), Some(end.clone()), parts.clone()));
            let Want::Show { how, text: again, .. } = restored.want() else { panic!("the same page") };
            prop_assert_eq!((how, &again), (How::Edit(message_id.into()), &page));
            item.showed(message_id.into(), page, None);
        }
    }
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
    assert!(Item::notice(1, Shape::default(), " \n ".into(), None, NOW).is_done());
}

proptest! {
    #[test]
    fn an_item_goes_on_behind_what_is_shown_for_good(
        text in "[a-c \n😀]{0,300}", blank in 0..9000usize, cuts in 0..6usize, is_known in any::<bool>()
    ) {
        let text = format!("{}{text}{}", "word\n\n".repeat(blank / 3), "x".repeat(blank % 5000));
        let shape = Shape { growth: Growth::Blocks, ..Shape::default() };
        let end = ReplyEnd::Failed("x".into());
        let ended = |parts| Item::restore(1, shape, entry(Some(&text), Some(end.clone()), parts), NOW);
        let mut item = ended(Vec::new());
        let mut parts = Vec::new();
        for _ in 0..cuts {
            let Want::Show { how, text: page, body, settled, .. } = item.want() else { break };
            prop_assert_eq!((how, settled), (How::Send, true));
            let Attempt { number, start, length, .. } = item.attempt(Some(body)).expect("it has an entry");
            let message_id = is_known.then(String::new);
            parts.push(Part { number, start, length, is_marked: false, message_id, file: None });
            let restored = ended(parts.clone());
            if is_known {
                item.showed(MessageId(String::new()), page, Some(body));
                prop_assert_eq!(restored.want(), item.want());
            } else {
                item.doubt();
                prop_assert_eq!(text_of(&restored), text_of(&item));
                break;
            }
        }
    }
}
