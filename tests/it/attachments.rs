//! Files that people send: from a platform's server to the agent, whatever happens on the way.

mod dingtalk;
mod telegram;
mod weixin;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hermes_gateway::chat::{Attachment, AttachmentKind, Fetched};
use hermes_gateway::control::proto::HandoffKind;
use hermes_gateway::id::TurnId;
use hermes_gateway::platform::{self, PlatformCommand, PlatformEvent};
use nix::sys::signal::Signal;
use sha2::{Digest as _, Sha256};

use crate::support::gateway::Gateway;

/// A picture as far as anybody looks: its first bytes are those of one.
fn png(bytes: usize) -> Vec<u8> {
    let mut picture = b"\x89PNG\r\n\x1a\n".to_vec();
    picture.extend((picture.len()..bytes).map(|at| u8::try_from(at % 251).expect("below 251")));
    picture
}

/// What the echo agent says of a picture that stands in its prompt.
fn told(picture: &[u8]) -> String {
    let digest: String = Sha256::digest(picture).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("[image image/png {} bytes sha256 {digest}]", picture.len())
}

/// The file that the echo agent was told of, whose line is the last.
fn linked(answer: &str, mime: &str, bytes: usize) -> PathBuf {
    let line = answer.lines().last().expect("a line");
    let uri =
        line.strip_prefix(&format!("[resource_link {mime} {bytes} bytes file://")).and_then(|l| l.strip_suffix(']'));
    PathBuf::from(uri.unwrap_or_else(|| panic!("no such link: {answer:?}")))
}

/// The files of all messages.
fn fetched(home: &Path) -> Vec<PathBuf> {
    let list = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).into_iter().flatten();
        entries.map(|entry| entry.expect("an entry").path()).collect()
    };
    let is_whole = |path: &PathBuf| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    list(&home.join("attachments")).iter().flat_map(|directory| list(directory)).filter(is_whole).collect()
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").permissions().mode() & 0o777
}

/// What comes between two steps of a message.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Handoff,
    Kill,
}

async fn cut(gateway: &mut Gateway, cut: Cut) {
    match cut {
        Cut::Handoff => drop(gateway.handoff(HandoffKind::Restart).await.expect("another image serves")),
        Cut::Kill => {
            gateway.signal(Signal::SIGKILL);
            gateway.wait();
            gateway.start_again().await;
        }
    }
}

/// An agent that is there, and does not take anything before there is a file `go` in the home.
fn late_agent() -> String {
    let hermes = env!("CARGO_BIN_EXE_hermes");
    let wait = format!(r#"until [ -e "$HERMES_HOME/go" ]; do sleep 0.02; done; exec {hermes} agent echo"#);
    format!("[agents.default]\ncommand = ['sh', '-c', '{wait}']\n")
}

fn let_go(gateway: &Gateway) {
    std::fs::write(gateway.home().join("go"), "").expect("writes");
}

const ECHO: &str = "[agents.default]\ncommand = ['hermes', 'agent', 'echo']\n";

fn attachment(name: &str, source: &str) -> Attachment {
    let (name, source) = (Some(name.to_owned()), source.to_owned());
    Attachment { kind: AttachmentKind::Image, name, mime: None, size_bytes: None, source }
}

fn root() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Files to be fetched by the task of a platform.
struct Order(platform::Order);

impl Order {
    fn new(turn: i64, chat: &str, attachments: Vec<Attachment>, root: &tempfile::TempDir) -> Self {
        let root = root.path().join("attachments");
        Self(platform::Order { turn: TurnId(turn), chat: chat.to_owned(), attachments, of: None, root })
    }

    fn command(self) -> PlatformCommand {
        PlatformCommand::Fetch(Box::new(self.0))
    }
}

/// What became of the files of a message.
fn file_of(event: PlatformEvent, wanted: i64) -> Option<Vec<Fetched>> {
    match event {
        PlatformEvent::Fetched { turn, files } if turn.0 == wanted => Some(files),
        _ => None,
    }
}

/// The one file is there as a whole, or it is told why it is not and nothing of it is there.
fn check(files: &[Fetched], bytes: &[u8], told: Option<&str>, root: &tempfile::TempDir, what: &str) {
    let before = fetched(root.path());
    match (files, told) {
        ([Ok(file)], None) => {
            assert_eq!(std::fs::read(&file.path).expect("it is there"), bytes, "{what}");
            assert_eq!((file.size_bytes, mode(&file.path)), (bytes.len() as u64, 0o600), "{what}");
            assert!(before.contains(&file.path), "{what}");
        }
        ([Err(why)], Some(told)) => {
            assert!(why.contains(told) && !why.contains("127.0.0.1"), "{what}: {why}");
        }
        _ => panic!("{what}: {files:?}"),
    }
    let half: Vec<_> = std::fs::read_dir(root.path().join("attachments"))
        .expect("it is there")
        .flat_map(|entry| std::fs::read_dir(entry.expect("an entry").path()).expect("a directory"))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "part"))
        .collect();
    assert_eq!(half, Vec::<PathBuf>::new(), "{what}");
}
