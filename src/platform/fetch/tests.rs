use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::{Arc, Mutex};

use super::*;
use crate::chat::AttachmentKind;
use crate::platform::delivery::{MessageId, Request};
use crate::platform::link::Unsent;

const CHAT: &str = "7";

/// What becomes of each try of a file, by its source, from the last on; then it is given.
type Script = BTreeMap<&'static str, Vec<Trouble>>;

#[derive(Clone, Copy, Debug)]
enum Trouble {
    ForGood,
    ForNow,
    AskedFor(Duration),
    /// Half of it comes, and then nothing.
    Hang,
}

/// Gives each file its own source as its bytes.
#[derive(Clone)]
struct Fake {
    script: Arc<Mutex<Script>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn new(script: Script) -> Self {
        Self { script: Arc::new(Mutex::new(script)), asked: Arc::default() }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

impl Sender for Fake {
    async fn perform(&self, _request: &Request, _store: &Store) -> Result<Option<MessageId>, Unsent> {
        Ok(None)
    }

    async fn fetch(&self, chat: &str, file: &Attachment, path: &Path, _store: &Store) -> Result<(), Unfetched> {
        assert_eq!(chat, CHAT);
        assert_eq!(fs::metadata(path).expect("it is there").permissions().mode() & 0o777, 0o600);
        self.asked.lock().expect("not poisoned").push(file.source.clone());
        let trouble = self.script.lock().expect("not poisoned").get_mut(file.source.as_str()).and_then(Vec::pop);
        let failed = |again| Err(Unfetched { why: "no luck".to_owned(), again });
        match trouble {
            None => fs::write(path, &file.source).map_err(|error| Unfetched::for_good(&error)),
            Some(Trouble::ForGood) => failed(None),
            Some(Trouble::ForNow) => failed(Some(None)),
            Some(Trouble::AskedFor(wait)) => failed(Some(Some(wait))),
            Some(Trouble::Hang) => {
                fs::write(path, &file.source[..1]).expect("writes");
                std::future::pending().await
            }
        }
    }
}

struct Bed {
    home: tempfile::TempDir,
    store: Store,
}

impl Bed {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let store = Store::open(&home.path().join("state.db")).expect("opens");
        Self { home, store }
    }

    fn order(&self, turn: i64, sources: &[&str], of: Option<i64>) -> Order {
        let attachment = |source: &&str| Attachment {
            kind: AttachmentKind::File,
            name: Some("a.txt".to_owned()),
            mime: None,
            size_bytes: None,
            source: (*source).to_owned(),
        };
        Order {
            turn: TurnId(turn),
            chat: CHAT.to_owned(),
            attachments: sources.iter().map(attachment).collect(),
            of: of.map(TurnId),
            root: self.home.path().join("attachments"),
        }
    }

    async fn fetch(&self, fake: &Fake, order: &Order) -> Vec<Fetched> {
        all(fake, &self.store, order).await
    }
}

fn content(file: &Fetched) -> String {
    fs::read_to_string(&file.as_ref().expect("it is there").path).expect("reads")
}

#[tokio::test]
async fn what_is_there_is_taken_as_it_is_also_from_a_turn_before() {
    let bed = Bed::new();
    let fake = Fake::new(Script::new());
    let first = bed.order(1, &["one", "two"], None);
    let files = bed.fetch(&fake, &first).await;
    assert_eq!(files.iter().map(content).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(bed.fetch(&fake, &first).await, files);
    let again = bed.fetch(&fake, &bed.order(2, &["one", "two"], Some(1))).await;
    assert_eq!(fake.asked(), ["one", "two"], "each was asked for once");
    // They are of the second alone once those of the first are gone.
    fs::remove_dir_all(first.directory(TurnId(1))).expect("removes");
    assert_eq!(again.iter().map(content).collect::<Vec<_>>(), ["one", "two"]);
    // Another database has other messages by the same numbers.
    assert_eq!(
        bed.fetch(&fake, &bed.order(2, &["three"], None)).await.iter().map(content).collect::<Vec<_>>(),
        ["three"]
    );
}

#[tokio::test]
async fn what_a_kill_or_a_power_cut_has_left_is_no_file() {
    let bed = Bed::new();
    let order = bed.order(1, &["one"], None);
    let directory = order.directory(TurnId(1));
    fs::create_dir_all(&directory).expect("makes");
    symlink("/etc/passwd", directory.join(".1.part")).expect("links");
    fs::write(directory.join("1-a.txt"), "").expect("writes");
    assert_eq!(content(&bed.fetch(&Fake::new(Script::new()), &order).await[0]), "one");
    fs::remove_file(directory.join("1-a.txt")).expect("removes");
    symlink("/etc/passwd", directory.join("1-a.txt")).expect("links");
    let files = bed.fetch(&Fake::new(Script::new()), &order).await;
    let is_file = fs::symlink_metadata(&files[0].as_ref().expect("there").path).expect("there").is_file();
    assert!(is_file && content(&files[0]) == "one", "a link is replaced");
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_costs_the_files_alone() {
    let bed = Bed::new();
    let order = bed.order(1, &["one", "two"], None);
    symlink("/tmp", &order.root).expect("links");
    let files = bed.fetch(&Fake::new(Script::new()), &order).await;
    assert_eq!(files, vec![Err("the gateway cannot store it".to_owned()); 2]);
}

#[tokio::test(start_paused = true)]
async fn a_file_is_tried_again_as_long_as_that_is_of_use() {
    let bed = Bed::new();
    let script = Script::from([
        ("now", vec![Trouble::ForNow; 3]),
        ("never", vec![Trouble::ForNow; 9]),
        ("good", vec![Trouble::ForGood]),
        ("late", vec![Trouble::AskedFor(Duration::from_secs(3600))]),
    ]);
    let fake = Fake::new(script);
    let sources = ["now", "never", "good", "late", "plain"];
    let begun = Instant::now();
    let files = bed.fetch(&fake, &bed.order(1, &sources, None)).await;
    let there: Vec<bool> = files.iter().map(Result::is_ok).collect();
    assert_eq!(there, [true, false, false, false, true]);
    let tries = sources.map(|source| fake.asked().iter().filter(|asked| *asked == source).count());
    assert_eq!(tries, [4, 4, 1, 1, 1]);
    assert!(begun.elapsed() < Order::DEADLINE, "nobody waits for longer than it may take");
}

#[tokio::test(start_paused = true)]
async fn what_hangs_costs_what_comes_after_it_no_more_than_the_deadline() {
    let bed = Bed::new();
    let fake = Fake::new(Script::from([("two", vec![Trouble::Hang])]));
    let begun = Instant::now();
    let files = bed.fetch(&fake, &bed.order(1, &["one", "two", "three"], None)).await;
    assert!(begun.elapsed() >= Order::DEADLINE && begun.elapsed() < 2 * Order::DEADLINE);
    assert_eq!(content(&files[0]), "one");
    assert_eq!(files[1..], vec![Err("it took too long".to_owned()); 2]);
    // Half of it is no file.
    let later = bed.fetch(&fake, &bed.order(1, &["one", "two", "three"], None)).await;
    assert_eq!(later.iter().map(content).collect::<Vec<_>>(), ["one", "two", "three"]);
}

#[tokio::test]
async fn an_order_waits_for_the_platform_no_longer_than_its_patience() {
    let bed = Bed::new();
    let (mut fetches, now, mut over) = (Fetches::default(), MonoNanos(1), Vec::new());
    fetches.push(bed.order(1, &["one"], None), now);
    fetches.push(bed.order(2, &["one", "two"], None), after(now, Duration::from_secs(5)));
    let closed: Way<Fake> = Way::Closed;
    let until = fetches.advance(now, &closed, &bed.store, &mut over).expect("it has an end");
    assert_eq!((until, over.len()), (after(now, Order::DEADLINE), 0));
    fetches.advance(until, &Way::Soon::<Fake>, &bed.store, &mut over);
    assert_eq!(over, [(TurnId(1), vec![Err("the platform could not be asked".to_owned())])]);
    fetches.advance(until, &Way::Open(Fake::new(Script::new())), &bed.store, &mut over);
    assert!(fetches.is_idle() && over.len() == 1);
    let (turn, files) = fetches.done().await;
    assert_eq!((turn, files.iter().map(content).collect::<Vec<_>>()), (TurnId(2), vec!["one".into(), "two".into()]));
}

#[test]
fn only_the_name_of_a_directory_of_ours_names_a_turn() {
    let bed = Bed::new();
    let directory = bed.order(12, &["one"], None).directory(TurnId(12));
    assert_eq!(turn_of(directory.file_name().and_then(|name| name.to_str()).expect("text")), Some(TurnId(12)));
    for name in [
        "",
        "12",
        "12-",
        "12-0123456",
        "12-0123456g",
        "-12-01234567",
        "x-01234567",
        "12-01234567-",
        "99999999999999999999-01234567",
    ] {
        assert_eq!(turn_of(name), None, "{name}");
    }
}
