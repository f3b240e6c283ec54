use std::os::unix::fs::symlink;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::chat::file_name::BYTES_MAX;

const TURN: TurnId = TurnId(7);

/// A working directory beside a secret, and a place for copies.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        for directory in ["work", "work/below", "outside", "out"] {
            fs::create_dir(root.path().join(directory)).expect("creates");
        }
        fs::write(root.path().join("outside/secret"), "secret").expect("writes");
        fs::write(root.path().join("work/below/plan.txt"), "plan").expect("writes");
        Self { root }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    fn cwd(&self) -> PathBuf {
        self.path("work")
    }

    fn keep(&self, block: Value, before: &[OutFile]) -> Option<OutFile> {
        let offer = Offer::read(&block).expect("a file");
        let (outgoing, cwd) = (self.path("out"), self.cwd());
        let shelf = Shelf { outgoing: &outgoing, cwd: &cwd, turn: TURN };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(shelf.keep(offer, 5, before))
    }

    fn link(&self, path: &Path) -> OutFile {
        let uri = format!("file://{}", path.display());
        self.keep(json!({"type": "resource_link", "uri": uri, "name": "named.txt"}), &[]).expect("few")
    }
}

fn kept(file: &OutFile) -> Vec<u8> {
    let Content::Kept { path, bytes } = &file.content else { panic!("{file:?}") };
    let found = fs::read(path).expect("it is there");
    assert_eq!(found.len() as u64, *bytes);
    found
}

fn why(file: &OutFile) -> &NotSent {
    let Content::Missing { why, .. } = &file.content else { panic!("{file:?}") };
    why
}

fn embedded(bytes: &[u8]) -> Value {
    json!({"type": "resource", "resource": {"uri": "x:/a/data.bin", "blob": STANDARD.encode(bytes)}})
}

#[test]
fn what_is_embedded_is_kept_byte_by_byte_under_its_number_and_again_in_its_own_place() {
    let place = Place::new();
    let bytes: Vec<u8> = (0..=255).collect();
    for _again in 0..2 {
        let file = place.keep(embedded(&bytes), &[]).expect("few");
        assert_eq!((file.number, file.at, file.name.as_str(), kept(&file)), (0, 5, "data.bin", bytes.clone()));
    }
    let first = place.keep(embedded(b"x"), &[]).expect("few");
    let second = place.keep(embedded(b"y"), &[first]).expect("few");
    assert_eq!(second.number, 1);
    let mut names: Vec<_> =
        fs::read_dir(place.path("out/7")).expect("lists").map(|f| f.expect("lists").file_name()).collect();
    names.sort();
    assert_eq!(names, ["0-data.bin", "1-data.bin"], "nothing else is left");
    let text = place.keep(json!({"type": "resource", "resource": {"uri": "x:/a.txt", "text": "é"}}), &[]).expect("few");
    assert_eq!(kept(&text), "é".as_bytes());
}

#[test]
fn a_picture_is_known_by_its_first_bytes_whatever_is_said_of_it() {
    let place = Place::new();
    let picture = |bytes: &[u8]| json!({"type": "image", "data": STANDARD.encode(bytes), "mimeType": "image/bmp"});
    let table: [(&[u8], &str, &str); 4] = [
        (b"\x89PNG\r\n\x1a\n....", "image/png", "picture.png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg", "picture.jpg"),
        (b"RIFF....WEBPVP8 ", "image/webp", "picture.webp"),
        (b"BM", "image/bmp", "file.bin"),
    ];
    for (bytes, mime, name) in table {
        let file = place.keep(picture(bytes), &[]).expect("few");
        assert_eq!((file.mime.as_deref(), file.name.as_str()), (Some(mime), name));
    }
}

#[test]
fn a_link_leads_to_a_copy_of_a_file_below_the_working_directory() {
    let place = Place::new();
    let plan = place.path("work/below/plan.txt");
    let file = place.link(&plan);
    assert_eq!((kept(&file), file.name.as_str()), (b"plan".to_vec(), "named.txt"));
    fs::write(&plan, "another").expect("writes");
    assert_eq!(kept(&file), b"plan", "what is sent is what was said");
    // Where it is in the end is what counts.
    symlink(&plan, place.path("outside/way-in")).expect("links");
    kept(&place.link(&place.path("outside/way-in")));
    kept(&place.link(&place.path("outside/../work/below/plan.txt")));
    fs::hard_link(&plan, place.path("work/hard")).expect("links");
    kept(&place.link(&place.path("work/hard")));
    fs::write(place.path("work/a b"), "x").expect("writes");
    let encoded = format!("file://localhost{}/a%20b", place.cwd().display());
    kept(&place.keep(json!({"type": "resource_link", "uri": encoded}), &[]).expect("few"));
    // A file that was kept for the turn before.
    let own = place.keep(embedded(b"own"), &[]).expect("few");
    let Content::Kept { path, .. } = own.content else { panic!("it is kept") };
    kept(&place.link(&path));
}

#[test]
fn a_link_that_leads_elsewhere_leads_to_nothing() {
    let place = Place::new();
    symlink(place.path("outside/secret"), place.path("work/link")).expect("links");
    symlink(place.path("outside"), place.path("work/dir")).expect("links");
    symlink("/proc/self/environ", place.path("work/environ")).expect("links");
    rustix::fs::mkfifoat(rustix::fs::CWD, place.path("work/fifo"), Mode::RWXU).expect("makes");
    fs::create_dir(place.path("work-beside")).expect("creates");
    fs::write(place.path("work-beside/secret"), "secret").expect("writes");
    fs::create_dir_all(place.path("out/8")).expect("creates");
    fs::write(place.path("out/8/0-secret"), "secret").expect("writes");
    let outside = [
        "outside/secret",
        "work/link",
        "work/dir/secret",
        "work/../outside/secret",
        "work/environ",
        "work/fifo",
        "work/below",
        "work",
        "work-beside/secret",
        "out/8/0-secret",
    ];
    for path in outside {
        let file = place.link(&place.path(path));
        assert_eq!(why(&file), &NotSent::Outside, "{path}");
        let Content::Missing { link, .. } = &file.content else { panic!("{file:?}") };
        assert!(link.as_ref().is_some_and(|link| link.contains(path)), "people are told where");
    }
    for path in ["/proc/self/environ", "/dev/null", "/etc/passwd"] {
        assert_eq!(why(&place.link(Path::new(path))), &NotSent::Outside, "{path}");
    }
    assert_eq!(why(&place.link(&place.path("work/missing"))), &NotSent::Unreadable);
    fs::write(place.path("work/empty"), "").expect("writes");
    assert_eq!(why(&place.link(&place.path("work/empty"))), &NotSent::Unreadable);
    for uri in ["file://another.host/etc/passwd", "file:///%00"] {
        let file = place.keep(json!({"type": "resource_link", "uri": uri}), &[]).expect("few");
        assert!(matches!(file.content, Content::Missing { .. }), "{uri}");
    }
}

#[test]
fn where_all_is_below_the_working_directory_what_is_made_up_is_not() {
    let place = Place::new();
    let offer = Offer::read(&json!({"type": "resource_link", "uri": "file:///proc/self/environ"})).expect("a file");
    assert_eq!(copy(&offer, &place.path("out/7"), Path::new("/"), 10).err(), Some(NotSent::Outside));
}

#[test]
fn what_a_turn_sends_is_bounded_in_bytes_and_in_files() {
    let place = Place::new();
    let large = File::create(place.path("work/large")).expect("creates");
    large.set_len(LINKED_BYTES_MAX).expect("grows");
    let file = place.link(&place.path("work/large"));
    assert!(matches!(file.content, Content::Kept { bytes: LINKED_BYTES_MAX, .. }));
    large.set_len(LINKED_BYTES_MAX + 1).expect("grows");
    assert_eq!(why(&place.link(&place.path("work/large"))), &NotSent::TooLarge { bytes_max: LINKED_BYTES_MAX });
    let too_much = embedded(&vec![0; usize::try_from(EMBEDDED_BYTES_MAX).expect("fits") + 1]);
    let file = place.keep(too_much, &[]).expect("few");
    assert_eq!(why(&file), &NotSent::TooLarge { bytes_max: EMBEDDED_BYTES_MAX });
    let path = place.path("out/7/0-x");
    let content = Content::Kept { path, bytes: TURN_BYTES_MAX / 4 };
    let before = OutFile { number: 0, at: 0, name: "x".into(), mime: None, content };
    let keep = |count: usize, bytes| {
        let mut before = vec![before.clone(); count];
        before.iter_mut().for_each(|file| file.content = Content::Kept { path: "/x".into(), bytes });
        place.keep(embedded(b"xy"), &before)
    };
    assert_eq!(why(&keep(4, TURN_BYTES_MAX / 4).expect("told")), &NotSent::TooMany);
    assert_eq!(why(&keep(1, TURN_BYTES_MAX - 1).expect("told")), &NotSent::TooMany);
    kept(&keep(1, TURN_BYTES_MAX - 2).expect("told"));
    assert_eq!(why(&keep(TURN_FILES_MAX, 0).expect("told")), &NotSent::TooMany);
    assert_eq!(keep(TURN_FILES_MAX + 1, 0), None, "once is enough");
}

#[test]
fn what_an_agent_says_of_a_file_is_short_and_reads_as_it_is() {
    let uri = format!("file:///{}", "é".repeat(1000));
    let block = json!({"type": "resource_link", "uri": uri, "name": "gpj.\u{202e}exe", "mimeType": "x".repeat(256)});
    let file = Offer::read(&block).expect("a file").unkept();
    let Content::Missing { link: Some(link), .. } = &file.content else { panic!("{file:?}") };
    assert!(link.len() <= LINK_BYTES_MAX && uri.starts_with(link.as_str()));
    assert_eq!((file.name.as_str(), file.mime), ("gpj.exe", None));
}

#[test]
fn what_is_no_base64_or_cannot_be_written_is_told() {
    let place = Place::new();
    let bad = json!({"type": "image", "data": "!", "mimeType": "image/png"});
    assert_eq!(why(&place.keep(bad, &[]).expect("few")), &NotSent::Unreadable);
    fs::remove_dir_all(place.path("out")).expect("removes");
    fs::write(place.path("out"), "in the way").expect("writes");
    assert_eq!(why(&place.keep(embedded(b"x"), &[]).expect("few")), &NotSent::Unreadable);
}

proptest! {
    #[test]
    fn any_name_is_one_that_stays_where_it_is(name in any::<String>(), long in 0..400_usize) {
        let name = format!("{name}{}", "ß".repeat(long));
        let block = json!({"type": "resource_link", "uri": "file:///x", "name": name});
        let name = Offer::read(&block).expect("a file").name(None);
        prop_assert!(!name.is_empty() && name.len() <= BYTES_MAX && !name.starts_with('.'), "{name:?}");
        prop_assert!(!name.contains('/') && !name.contains(char::is_control), "{name:?}");
    }

    #[test]
    fn any_address_is_read_or_is_none_of_a_file(uri in any::<String>(), kind in 0..4_usize) {
        let block = match kind {
            0 => json!({"type": "resource_link", "uri": uri}),
            1 => json!({"type": "resource_link", "uri": format!("file:{uri}")}),
            2 => json!({"type": "resource", "resource": {"uri": uri, "blob": ""}}),
            _ => json!({"type": "image", "data": uri, "uri": uri}),
        };
        if let Some(offer) = Offer::read(&block) {
            let _name = offer.unkept();
        }
    }
}
