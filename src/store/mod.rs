//! `state.db`: what must outlive the process. SQLite in WAL mode, written by one thread.
//!
//! **Invariants**
//! - Only this module holds SQL.
//! - When a method returns `Ok`, what it wrote is on disk (`synchronous=FULL`): a caller may then tell the outside
//!   world so, for example confirm a message to its platform.
//! - Jobs are carried out in the order in which they were queued; jobs that wait together share one commit.
//! - Schema changes are additive, so that the previous image can read what this one wrote.
//!
//! Deliberately absent: anything volatile. That is the handoff's memfd.

mod change;
mod damage;
mod history;
mod inbox;
mod meta;
mod outbox;
mod pairings;
mod retention;
mod schema;
mod sessions;
mod transcript;
mod writer;

use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::sync::oneshot;

pub use change::Change;
pub use history::{Glance, HandoffEnd, HandoffRecord, HandoffTotals};
pub use inbox::{Accepted, OpenTurn};
pub use outbox::{Attempt, Entry, EntryId, Finding, Outbox, Outcome, Part, Seen, Target};
pub use pairings::{Pairing, Standing};
pub use schema::SCHEMA_VERSION;
pub use sessions::SessionRow;
pub use transcript::{Line, Span};
use writer::Writer;

/// Why the store could not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database could not be opened or brought to this schema.
    #[error("cannot open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
    /// The database was written by a later schema than this image can read.
    #[error("{path} has schema {found}, and this version reads up to {known}")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest schema version known here.
        known: i64,
    },
    /// The database is damaged.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// SQLite's finding.
        problem: String,
    },
    /// A damaged database cannot be set aside.
    #[error("{path} is damaged and cannot be renamed; move it away by hand")]
    SetAside {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: std::io::Error,
    },
    /// A statement failed.
    #[error("the database refused to {what}")]
    Sql {
        /// What was being done.
        what: &'static str,
        /// SQLite's reason.
        #[source]
        source: rusqlite::Error,
    },
    /// The commit that the job was part of failed.
    #[error("the database could not commit: {reason}")]
    Commit {
        /// SQLite's reason.
        reason: String,
    },
    /// The writer thread is gone, which only happens when it panicked.
    #[error("the database writer has stopped")]
    Stopped,
    /// A stored value cannot be read.
    #[error("cannot read back {what}")]
    Corrupt {
        /// Which value.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// A handle to the database. Clones share one writer thread and one bounded queue.
#[derive(Clone, Debug)]
pub struct Store {
    writer: Writer,
}

/// A database that is being opened.
#[derive(Debug)]
pub struct Opening {
    opened: oneshot::Receiver<Result<Option<PathBuf>, StoreError>>,
}

impl Opening {
    /// Waits until the database is open. Returns where a damaged one is that was set aside.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn done(self) -> Result<Option<PathBuf>, StoreError> {
        self.opened.await.unwrap_or(Err(StoreError::Stopped))
    }
}

impl Store {
    /// Opens or creates the database and brings it to [`SCHEMA_VERSION`].
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::TooNew`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = schema::open(path)?;
        Ok(Self { writer: Writer::start(|| Ok((connection, None))).0 })
    }

    /// As [`Store::open`], but beside the caller, who must not count on the store until [`Opening::done`] says that it
    /// is open. What is asked of it before waits. If it is to be checked, a database that is damaged is set aside and a
    /// new one takes its place; an image that takes over while people wait does not check what the one before used.
    pub fn open_beside(path: &Path, check: bool) -> (Self, Opening) {
        let path = path.to_owned();
        let open = move || if check { damage::open(&path) } else { schema::open(&path).map(|db| (db, None)) };
        let (writer, opened) = Writer::start(open);
        (Self { writer }, Opening { opened })
    }

    /// Checks that this image can read the database at `path`, without writing to it; a missing file is fine.
    /// For the preflight child.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::TooNew`].
    pub fn inspect(path: &Path) -> Result<i64, StoreError> {
        schema::inspect(path)
    }

    /// Checks the database at `path` as a whole, without writing to it. Reads all of it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Open`], [`StoreError::TooNew`].
    pub fn check(path: &Path) -> Result<(), StoreError> {
        damage::look(path)
    }

    /// Whether the writer thread has ended, which it does by itself only when it panics.
    pub fn is_over(&self) -> bool {
        self.writer.is_over()
    }

    /// Lets the writer hang until the returned end is dropped, as a disk does that does not answer.
    #[cfg(test)]
    pub(crate) async fn hang(&self) -> std::sync::mpsc::Sender<()> {
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let (hangs, seen) = oneshot::channel();
        let store = self.clone();
        tokio::spawn(async move {
            let job = move |_: &rusqlite::Connection| {
                let _the_test_has_ended = hangs.send(());
                let _dropped = wait.recv();
                Ok(())
            };
            drop(store.writer.run("hang", job).await);
        });
        seen.await.expect("the writer takes the job");
        go_on
    }

    /// Waits until everything queued so far is committed.
    ///
    /// # Errors
    /// [`StoreError::Stopped`].
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.writer.run("flush", |_| Ok(())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_asked_while_the_database_is_being_opened_is_answered() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (store, opening) = Store::open_beside(&dir.path().join("state.db"), true);
        store.set_meta("k", "v".into()).await.expect("writes");
        opening.done().await.expect("it is open");
        assert_eq!(store.meta("k").await.expect("reads").as_deref(), Some("v"));
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_opened_says_why_and_does_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (store, opening) = Store::open_beside(dir.path(), true);
        assert!(matches!(opening.done().await, Err(StoreError::Open { .. })));
        assert!(matches!(store.meta("k").await, Err(StoreError::Stopped)));
    }
}
