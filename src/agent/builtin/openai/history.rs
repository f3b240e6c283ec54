//! Conversations on disk: one file of JSON lines each, named after its session.
//!
//! **Invariant:** an entry is on disk when [`History::append`] returns, and one that was cut short by a power failure
//! is skipped and does not spoil the next.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a conversation cannot be read or written.
#[derive(Debug, Error)]
pub(super) enum HistoryError {
    #[error("there is no session {session:?}")]
    Unknown { session: String },
    #[error("cannot use the history in {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    User,
    Assistant,
}

/// Something said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) role: Role,
    pub(super) content: String,
    /// Pictures that came with it, as `data:` URLs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) images: Vec<String>,
    /// The answer broke off or was cancelled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) partial: bool,
}

impl Entry {
    pub(super) fn new(role: Role, content: String) -> Self {
        Self { role, content, images: Vec::new(), partial: false }
    }
}

/// The folder of all conversations.
pub(super) struct History {
    folder: PathBuf,
}

impl History {
    /// Makes the folder if needed.
    pub(super) fn open(folder: PathBuf) -> Result<Self, HistoryError> {
        match std::fs::create_dir_all(&folder) {
            Ok(()) => Ok(Self { folder }),
            Err(source) => Err(HistoryError::Io { path: folder, source }),
        }
    }

    /// Begins a conversation under a name that nobody else has.
    pub(super) fn create(&self) -> Result<String, HistoryError> {
        let io = |source| HistoryError::Io { path: self.folder.clone(), source };
        let file = tempfile::Builder::new().prefix("s").rand_bytes(16).suffix(".jsonl").tempfile_in(&self.folder);
        let (_, path) = file.map_err(io)?.keep().map_err(|e| io(e.error))?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        Ok(stem.expect("the name was made of letters and digits").to_owned())
    }

    /// Everything said in a conversation.
    pub(super) fn load(&self, session: &str) -> Result<Vec<Entry>, HistoryError> {
        let path = self.path(session)?;
        let bytes = std::fs::read(&path).map_err(|source| Self::error(session, path, source))?;
        Ok(bytes.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Adds to a conversation.
    pub(super) fn append(&self, session: &str, entry: &Entry) -> Result<(), HistoryError> {
        let path = self.path(session)?;
        self.append_to(&path, entry).map_err(|source| Self::error(session, path, source))
    }

    fn append_to(&self, path: &PathBuf, entry: &Entry) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).append(true).open(path)?;
        let mut line = Vec::new();
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            // What was cut short ends here.
            line.extend((last != *b"\n").then_some(b'\n'));
        }
        serde_json::to_writer(&mut line, entry)?;
        line.push(b'\n');
        file.write_all(&line)?;
        file.sync_data()
    }

    /// The name comes from the client: it must not lead out of the folder.
    fn path(&self, session: &str) -> Result<PathBuf, HistoryError> {
        if session.is_empty() || session.len() > 64 || !session.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(HistoryError::Unknown { session: session.to_owned() });
        }
        Ok(self.folder.join(format!("{session}.jsonl")))
    }

    fn error(session: &str, path: PathBuf, source: io::Error) -> HistoryError {
        if source.kind() == io::ErrorKind::NotFound {
            HistoryError::Unknown { session: session.to_owned() }
        } else {
            HistoryError::Io { path, source }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(content: &str) -> Entry {
        Entry::new(Role::User, content.to_owned())
    }

    #[test]
    fn a_name_from_outside_stays_inside() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::open(folder.path().join("in")).expect("made");
        std::fs::write(folder.path().join("x.jsonl"), "").expect("written");
        for name in ["../x", "", ".", "a/b", "nobody"] {
            assert!(matches!(history.load(name), Err(HistoryError::Unknown { .. })), "{name}");
            assert!(matches!(history.append(name, &said("a")), Err(HistoryError::Unknown { .. })), "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Wherever the last line is cut, the lines before it and the one after it are read.
        #[test]
        fn an_entry_cut_short_costs_only_itself(texts in prop::collection::vec(".{0,20}", 1..5), cut in 1usize..30) {
            let folder = tempfile::tempdir().expect("a folder");
            let history = History::open(folder.path().to_owned()).expect("made");
            let session = history.create().expect("made");
            for text in &texts {
                history.append(&session, &said(text)).expect("written");
            }
            let path = folder.path().join(format!("{session}.jsonl"));
            let bytes = std::fs::read(&path).expect("read");
            let line = bytes[..bytes.len() - 1].iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
            std::fs::write(&path, &bytes[..line.max(bytes.len().saturating_sub(cut))]).expect("written");
            history.append(&session, &said("after")).expect("written");
            let loaded = history.load(&session).expect("loaded");
            let mut expected: Vec<Entry> = texts.iter().map(|text| said(text)).collect();
            // Without its newline alone the entry is whole.
            if cut > 1 {
                expected.pop();
            }
            expected.push(said("after"));
            prop_assert_eq!(loaded, expected);
        }
    }
}
