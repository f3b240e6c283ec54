//! Files of messages that nobody needs any more are cleared away: those of messages that are not kept, and of messages that
//! are over the oldest where there is too much.
//!
//! **Invariant:** nothing but directories of messages in `attachments` of the home is touched, and no link is followed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::run::Daemon;
use crate::clock::MonoNanos;
use crate::id::TurnId;
use crate::platform::turn_of;
use crate::report::Chain;
use crate::store::Store;

/// Before the first look: not while an image is busy with its start.
const FIRST: Duration = Duration::from_secs(60);
/// Between two looks.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// What the files of all messages may take after a look, in bytes.
const BYTES_MAX: u64 = 4 << 30;

impl Daemon {
    /// Looks a while after a start and then once a day, aside.
    pub(super) fn clear_attachments(&mut self) {
        let now = MonoNanos::now();
        match self.clear_at {
            None => return self.clear_at = Some(later(now, FIRST)),
            Some(at) if now < at => return,
            Some(_) => self.clear_at = Some(later(now, EVERY)),
        }
        // Nobody waits for it: what it leaves is found by the next look.
        drop(tokio::spawn(clear(self.home.attachments(), self.store.clone())));
    }
}

fn later(now: MonoNanos, wait: Duration) -> MonoNanos {
    MonoNanos(now.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
}

async fn clear(root: PathBuf, store: Store) {
    let listed = {
        let root = root.clone();
        tokio::task::spawn_blocking(move || list(&root)).await
    };
    let found = match listed {
        Ok(Ok(found)) if !found.is_empty() => found,
        Ok(Ok(_)) | Err(_) => return,
        Ok(Err(error)) => return tracing::warn!(%error, "the files of messages cannot be looked at"),
    };
    match store.kept_turns(found.iter().map(|directory| directory.turn).collect()).await {
        Ok(kept) => {
            let unneeded = unneeded(found, &kept, BYTES_MAX);
            let _done = tokio::task::spawn_blocking(move || remove(&unneeded)).await;
        }
        Err(error) => tracing::warn!(error = %Chain(&error), "which files of messages are needed cannot be looked up"),
    }
}

/// The files of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Directory {
    turn: TurnId,
    path: PathBuf,
    bytes: u64,
}

/// The directories of messages; none if there is no directory of attachments.
fn list(root: &Path) -> io::Result<Vec<Directory>> {
    match fs::symlink_metadata(root) {
        Ok(there) if there.is_dir() => {}
        Ok(_) => return Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let turn = entry.file_name().to_str().and_then(turn_of);
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

/// Those that nobody needs, by the messages that are kept and whether they are over.
fn unneeded(mut found: Vec<Directory>, kept: &BTreeMap<TurnId, bool>, bytes_max: u64) -> Vec<PathBuf> {
    found.sort_by_key(|directory| directory.turn);
    let (mut kept_dirs, gone): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|directory| kept.contains_key(&directory.turn));
    let mut bytes: u64 = kept_dirs.iter().map(|directory| directory.bytes).sum();
    kept_dirs.retain(|directory| {
        let goes = bytes > bytes_max && kept.get(&directory.turn) == Some(&true);
        bytes -= if goes { directory.bytes } else { 0 };
        goes
    });
    gone.into_iter().chain(kept_dirs).map(|directory| directory.path).collect()
}

fn remove(directories: &[PathBuf]) {
    for path in directories {
        // This does not follow links either.
        if let Err(error) = fs::remove_dir_all(path) {
            tracing::warn!(path = %path.display(), %error, "files of a message cannot be cleared away");
        }
    }
    if !directories.is_empty() {
        tracing::info!(messages = directories.len(), "files of messages that nobody needs are cleared away");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

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
        let (root, outside) = (home.path().join("attachments"), home.path().join("outside"));
        clear(root.clone(), store.clone()).await;
        for path in [outside.clone(), root.join("7-01234567"), root.join("8-nothex00"), root.join("mine")] {
            fs::create_dir_all(&path).expect("makes");
            fs::write(path.join("1-a"), "a").expect("writes");
        }
        symlink(&outside, root.join("7-01234567/inner")).expect("links");
        symlink(&outside, root.join("9-01234567")).expect("links");
        fs::write(root.join("10-01234567"), "a file").expect("writes");
        clear(root.clone(), store.clone()).await;
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
        clear(root, store).await;
        assert!(outside.join("7-01234567").exists());
    }
}
