//! Readers that are cut off at any moment, and boards that are lost.

use proptest::prelude::*;

use super::*;
use crate::chat::Choice;
use crate::clock::UnixMillis;
use crate::platform::web::message::{Author, Format};
use crate::store::Store;

const CHAT: &str = "owner";

fn message(text: &str, is_final: bool) -> Message {
    Message {
        from: Author::Agent,
        name: String::new(),
        at: UnixMillis(5),
        text: text.to_owned(),
        format: Format::Markdown,
        is_final,
        id: None,
        choices: Vec::new(),
        file: None,
    }
}

/// What a page makes of events, as `chat.js` does.
#[derive(Default)]
struct Page {
    messages: BTreeMap<i64, Value>,
    bytes: usize,
}

impl Page {
    fn take(&mut self, Told { event, data }: Told) {
        self.bytes += data.to_string().len();
        let number = data["number"].as_i64().expect("a number");
        if event == "message" {
            self.messages.insert(number, data);
            return;
        }
        let message = self.messages.get_mut(&number).expect("a text is of a message that the page has");
        let had: Vec<u16> = message["text"].as_str().expect("a text").encode_utf16().collect();
        let at = usize::try_from(data["at"].as_u64().expect("a place")).expect("small");
        let kept = String::from_utf16(&had[..at]).expect("cut between characters");
        message["text"] = format!("{kept}{}", data["text"].as_str().expect("a text")).into();
        message["final"] = data["final"].clone();
    }

    async fn read(&mut self, reader: &mut Reader, board: &Board) {
        while let Some(told) = reader.next(board).await.expect("reads") {
            if told.event != "typing" {
                self.take(told);
            }
        }
    }
}

/// The reader of a page that comes again with what it was told last.
fn again(reader: &Reader) -> Reader {
    let id = reader.cursor().to_string();
    Reader::new(CHAT.to_owned(), Some(id.parse().expect("what was told is understood")))
}

#[derive(Clone, Debug)]
enum Op {
    Say(String),
    Grow(String),
    /// A line below the text, which the next text takes the place of.
    Activity,
    End,
    Read,
    Cut,
    Handoff,
    Kill,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let text = "[a-cé🙂]{0,12}";
    let op = prop_oneof![
        2 => text.prop_map(Op::Say),
        6 => text.prop_map(Op::Grow),
        1 => Just(Op::Activity),
        2 => Just(Op::End),
        4 => Just(Op::Read),
        2 => Just(Op::Cut),
        1 => Just(Op::Handoff),
        1 => Just(Op::Kill),
    ];
    prop::collection::vec(op, 1..60)
}

/// Does as a delivery does: one message grows at a time.
async fn play(ops: Vec<Op>) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(&dir.path().join("state.db")).expect("opens");
    let mut board = Board::new(store.clone());
    let (mut page, mut reader) = (Page::default(), Reader::new(CHAT.to_owned(), None));
    let mut growing: Option<(i64, String)> = None;
    let show = async |board: &Board, growing: &(i64, String), more: &str, is_final: bool| {
        let text = format!("{}{more}", growing.1);
        let changed = board.change(CHAT, growing.0, |message| {
            message.text = text;
            message.is_final = is_final;
        });
        assert!(changed.await.expect("changes"));
    };
    for op in ops.into_iter().chain([Op::End, Op::Read]) {
        match op {
            Op::Say(text) => drop(board.put(CHAT, None, message(&text, true)).await.expect("puts")),
            Op::Grow(text) => match &mut growing {
                Some(growing) => {
                    growing.1.push_str(&text);
                    show(&board, growing, "", false).await;
                }
                None => {
                    let number = board.put(CHAT, None, message(&text, false)).await.expect("puts");
                    growing = Some((number, text));
                }
            },
            Op::Activity => {
                if let Some(growing) = &growing {
                    show(&board, growing, "\n\n… works", false).await;
                }
            }
            Op::End => {
                if let Some(growing) = growing.take() {
                    show(&board, &growing, "", true).await;
                }
            }
            Op::Read => page.read(&mut reader, &board).await,
            Op::Cut => reader = again(&reader),
            Op::Handoff => {
                let carried = serde_json::to_string(&board.growing()).expect("plain data serialises");
                board = Board::new(store.clone());
                board.restore(serde_json::from_str(&carried).expect("what was written is read"));
                reader = again(&reader);
            }
            Op::Kill => {
                board = Board::new(store.clone());
                reader = again(&reader);
            }
        }
    }
    let lines = store.lines(CHAT, Span::Behind(0), 999).await.expect("reads");
    let kept: BTreeMap<i64, Value> = lines
        .iter()
        .map(|line| (line.number, serde_json::from_str::<Message>(&line.body).expect("reads back").told(line.number)))
        .collect();
    // A page that was opened late has the last ones.
    let shown = kept.iter().filter(|(number, _)| page.messages.contains_key(number));
    assert_eq!(page.messages, shown.map(|(number, value)| (*number, value.clone())).collect());
    assert!(page.messages.len() == kept.len() || page.messages.len() >= 50);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_page_has_in_the_end_what_the_store_has(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(play(ops));
    }

    #[test]
    fn anything_may_be_said_to_be_a_cursor(text in ".{0,80}") {
        if let Ok(cursor) = text.parse::<Cursor>() {
            prop_assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
        }
    }
}

#[tokio::test]
async fn only_what_is_missing_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let board = Board::new(Store::open(&dir.path().join("state.db")).expect("opens"));
    let mut reader = Reader::new(CHAT.to_owned(), None);
    let mut text = "é".repeat(10_000);
    let number = board.put(CHAT, None, message(&text, false)).await.expect("puts");
    let mut page = Page::default();
    page.read(&mut reader, &board).await;
    let before = page.bytes;
    for _ in 0..20 {
        text.push_str("more");
        let said = text.clone();
        board.change(CHAT, number, |message| message.text = said).await.expect("changes");
        reader = again(&reader);
        page.read(&mut reader, &board).await;
    }
    assert_eq!(page.messages[&number]["text"], text);
    assert!(page.bytes - before < 2_000, "{} bytes for 80", page.bytes - before);
    // Whoever has another text gets all of it, and so does everybody if there are buttons.
    let mut other =
        Reader::new(CHAT.to_owned(), Some(format!("{number}.{number}-7-00000000").parse().expect("a cursor")));
    assert_eq!(other.next(&board).await.expect("reads").expect("an event").event, "message");
    let choice = Choice { label: "Yes".into(), command: "/approve 1.1".into() };
    board.change(CHAT, number, |message| message.choices.push(choice)).await.expect("changes");
    assert_eq!(reader.next(&board).await.expect("reads").expect("an event").event, "message");
    board.typing(CHAT);
    assert_eq!(reader.next(&board).await.expect("reads").expect("an event").event, "typing");
    assert!(reader.next(&board).await.expect("reads").is_none());
}

#[tokio::test]
async fn a_reader_that_is_far_behind_gets_all_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let board = Board::new(Store::open(&dir.path().join("state.db")).expect("opens"));
    let mut reader = Reader::new(CHAT.to_owned(), None);
    assert!(reader.next(&board).await.expect("reads").is_none());
    for n in 0..250 {
        board.put(CHAT, None, message(&n.to_string(), true)).await.expect("puts");
        // Other chats take the room.
        board.put(&format!("guest.{n}"), None, message("x", true)).await.expect("puts");
    }
    let mut page = Page::default();
    page.read(&mut reader, &board).await;
    let texts: Vec<_> = page.messages.values().map(|message| message["text"].as_str().expect("a text")).collect();
    assert_eq!(texts, (0..250).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_answer_grows_and_ends_however_much_is_said_meanwhile() {
    let dir = tempfile::tempdir().expect("a directory");
    let board = Board::new(Store::open(&dir.path().join("state.db")).expect("opens"));
    let (mut page, mut reader) = (Page::default(), Reader::new(CHAT.to_owned(), None));
    let number = board.put(CHAT, None, message("a", false)).await.expect("puts");
    page.read(&mut reader, &board).await;
    let say = async |count: usize| {
        for _ in 0..count {
            board.put(CHAT, None, message("x", true)).await.expect("puts");
        }
    };
    say(150).await;
    board.change(CHAT, number, |message| message.text = "ab".to_owned()).await.expect("changes");
    page.read(&mut reader, &board).await;
    assert_eq!(page.messages[&number]["text"], "ab");
    let end = |message: &mut Message| (message.text, message.is_final) = ("abc".to_owned(), true);
    board.change(CHAT, number, end).await.expect("changes");
    // It is let go of before the page looks.
    say(150).await;
    page.read(&mut reader, &board).await;
    assert_eq!((&page.messages[&number]["text"], &page.messages[&number]["final"]), (&json!("abc"), &json!(true)));
    assert!(board.look(CHAT, |chat| chat.messages.len()) <= 101, "memory is bounded");
}

#[tokio::test]
async fn a_page_of_a_database_that_was_lost_begins_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let board = Board::new(Store::open(&dir.path().join("state.db")).expect("opens"));
    let first = board.put(CHAT, None, message("first", true)).await.expect("puts");
    for cursor in ["500", "500.499-3-00000000", "9223372036854775807"] {
        let mut reader = Reader::new(CHAT.to_owned(), Some(cursor.parse().expect("a cursor")));
        let mut page = Page::default();
        page.read(&mut reader, &board).await;
        assert_eq!(page.messages.keys().copied().collect::<Vec<_>>(), [first], "{cursor}");
        assert_eq!(reader.cursor().to_string(), first.to_string());
    }
    // What is there no more is not looked for for ever.
    let second = board.put(CHAT, None, message("second", true)).await.expect("puts");
    let cursor = format!("{first}.{}-3-00000000", first - 1);
    let mut reader = Reader::new(CHAT.to_owned(), Some(cursor.parse().expect("a cursor")));
    let mut page = Page::default();
    page.read(&mut reader, &board).await;
    assert_eq!(reader.cursor().to_string(), second.to_string());
}
