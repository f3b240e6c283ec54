//! Files that nobody needs any more are cleared away: those of messages and of answers that the store has forgotten, and
//! of messages that are dealt with the oldest where there is too much.
//!
//! **Invariant:** nothing but directories of turns in `attachments` and `attachments/out` of the home is touched, and no
//! link is followed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::id::TurnId;
use crate::platform::turn_of;
use crate::report::Chain;
use crate::store::Store;

/// Before the first look: not while an image is busy with its start.
const FIRST: Duration = Duration::from_secs(60);
/// Between two looks.
const EVERY: Duration = Duration::from_secs(3600);
/// What the files of all messages may take after a look, in bytes.
const BYTES_MAX: u64 = 4 << 30;

/// Looks a while after a start and then every hour. It is never over.
pub(super) async fn keep_cleared(store: Store, messages: PathBuf, answers: PathBuf) {
    let mut wait = FIRST;
    loop {
        tokio::time::sleep(wait).await;
        clear(&store, Shelf::messages(messages.clone())).await;
        clear(&store, Shelf::answers(answers.clone())).await;
        wait = EVERY;
    }
}

/// A directory with one for each turn.
#[derive(Clone)]
struct Shelf {
    root: PathBuf,
    /// The turn of a directory there, by its name; `None` if it is none of ours.
    turn_of: fn(&str) -> Option<TurnId>,
    /// What all may take together, but for what is still needed.
    bytes_max: u64,
}

impl Shelf {
    /// What people sent.
    fn messages(root: PathBuf) -> Self {
        Self { root, turn_of, bytes_max: BYTES_MAX }
    }

    /// What agents sent. It may wait to be shown when its turn is long over, and is bounded when it is kept.
    fn answers(root: PathBuf) -> Self {
        Self { root, turn_of: |name| name.parse().ok().map(TurnId), bytes_max: u64::MAX }
    }
}

async fn clear(store: &Store, shelf: Shelf) {
    let bytes_max = shelf.bytes_max;
    let found = match tokio::task::spawn_blocking(move || list(&shelf)).await {
        Ok(Ok(found)) if !found.is_empty() => found,
        // A panic in it was told by the hook, and nothing else depends on it.
        Ok(Ok(_)) | Err(_) => return,
        Ok(Err(error)) => return tracing::warn!(%error, "files that are kept cannot be looked at"),
    };
    match store.known_turns(found.iter().map(|directory| directory.turn).collect()).await {
        Ok(known) => {
            let unneeded = unneeded(found, &known, bytes_max);
            let _done = tokio::task::spawn_blocking(move || remove(&unneeded)).await;
        }
        Err(error) => tracing::warn!(error = %Chain(&error), "which files are needed cannot be looked up"),
    }
}

/// The files of one turn.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Directory {
    turn: TurnId,
    path: PathBuf,
    bytes: u64,
}

/// The directories of turns; none if there is nothing that is kept.
fn list(shelf: &Shelf) -> io::Result<Vec<Directory>> {
    match fs::symlink_metadata(&shelf.root) {
        Ok(there) if there.is_dir() => {}
        Ok(_) => return Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&shelf.root)? {
        let entry = entry?;
        let turn = entry.file_name().to_str().and_then(shelf.turn_of);
        // This does not follow a link.
        if let Some(turn) = turn.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let path = entry.path();
            found.push(Directory { turn, bytes: size(&path), path });
        }
    }
    Ok(found)
}

fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

/// Those that nobody needs, by the turns that are known and whether they are over.
fn unneeded(mut found: Vec<Directory>, known: &BTreeMap<TurnId, bool>, bytes_max: u64) -> Vec<PathBuf> {
    found.sort_by_key(|directory| directory.turn);
    let (mut kept_dirs, gone): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|directory| known.contains_key(&directory.turn));
    let mut bytes: u64 = kept_dirs.iter().map(|directory| directory.bytes).sum();
    kept_dirs.retain(|directory| {
        let goes = bytes > bytes_max && known.get(&directory.turn) == Some(&true);
        bytes -= if goes { directory.bytes } else { 0 };
        goes
    });
    gone.into_iter().chain(kept_dirs).map(|directory| directory.path).collect()
}

fn remove(directories: &[PathBuf]) {
    for path in directories {
        // This does not follow links either.
        if let Err(error) = fs::remove_dir_all(path) {
            tracing::warn!(path = %path.display(), %error, "files of a turn cannot be cleared away");
        }
    }
    if !directories.is_empty() {
        tracing::info!(turns = directories.len(), "files that nobody needs are cleared away");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::chat::{Conversation, Inbound, Sender};
    use crate::clock::UnixMillis;
    use crate::store::{Accepted, Change};

    fn directory(turn: i64, bytes: u64) -> Directory {
        Directory { turn: TurnId(turn), path: format!("/{turn}").into(), bytes }
    }

    #[test]
    fn what_is_not_kept_goes_and_the_oldest_of_what_is_over_where_there_is_too_much() {
        let found = || vec![directory(4, 10), directory(2, 10), directory(3, 10), directory(1, 10)];
        let kept = BTreeMap::from([(TurnId(2), false), (TurnId(3), true), (TurnId(4), true)]);
        let goes = |bytes_max| {
            let paths = unneeded(found(), &kept, bytes_max);
            paths.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(goes(30), ["/1"]);
        assert_eq!(goes(29), ["/1", "/3"]);
        assert_eq!(goes(0), ["/1", "/3", "/4"], "what waits keeps its files");
    }

    #[tokio::test]
    async fn nothing_else_is_touched_and_no_link_followed() {
        let home = tempfile::tempdir().expect("a directory");
        let store = Store::open(&home.path().join("state.db")).expect("opens");
        let shelf = Shelf::messages(home.path().join("attachments"));
        let (root, outside) = (shelf.root.clone(), home.path().join("outside"));
        clear(&store, shelf.clone()).await;
        for path in [outside.clone(), root.join("7-01234567"), root.join("8-nothex00"), root.join("mine")] {
            fs::create_dir_all(&path).expect("makes");
            fs::write(path.join("1-a"), "a").expect("writes");
        }
        symlink(&outside, root.join("7-01234567/inner")).expect("links");
        symlink(&outside, root.join("9-01234567")).expect("links");
        fs::write(root.join("10-01234567"), "a file").expect("writes");
        clear(&store, shelf.clone()).await;
        let mut left: Vec<String> = fs::read_dir(&root)
            .expect("is there")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["10-01234567", "8-nothex00", "9-01234567", "mine"]);
        assert!(outside.join("1-a").exists());
        // A directory of attachments that is a link is somebody else's.
        fs::create_dir(outside.join("7-01234567")).expect("makes");
        fs::remove_dir_all(&root).expect("removes");
        symlink(&outside, &root).expect("links");
        clear(&store, shelf).await;
        assert!(outside.join("7-01234567").exists());
    }

    #[tokio::test]
    async fn files_are_kept_as_long_as_their_turn_is_known_and_no_longer() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        let inbound = Inbound {
            conversation: Conversation::new("telegram", "1"),
            account: "bot".into(),
            message_id: "1".into(),
            sender: Sender { id: "1".into(), name: "Ann".into() },
            sent_at: UnixMillis(5),
            text: "hello".into(),
            is_direct: true,
            attachments: Vec::new(),
            context: None,
        };
        let Accepted::New(known) = store.accept(&inbound).await.expect("accepts") else { panic!("a new message") };
        let outgoing = dir.path().join("out");
        let shelf = Shelf::answers(outgoing.clone());
        clear(&store, shelf.clone()).await;
        for name in [known.0.to_string().as_str(), "77", "notes"] {
            fs::create_dir_all(outgoing.join(name)).expect("creates");
            fs::write(outgoing.join(name).join("0-a"), "a").expect("writes");
        }
        let left = || {
            let mut names: Vec<_> =
                fs::read_dir(&outgoing).expect("lists").map(|e| e.expect("lists").file_name()).collect();
            names.sort();
            names
        };
        store.change(vec![Change::Close(known)]).await.expect("records");
        clear(&store, shelf).await;
        assert_eq!(left(), [known.0.to_string().as_str(), "notes"]);
    }
}
