//! Looking for releases and staging them, with what this gateway knows of versions.

use std::fs::File;
use std::io::Read;

use semver::Version;
use sha2::{Digest, Sha256};

use super::run::Daemon;
use crate::clock::UnixMillis;
use crate::config::{Config, Home};
use crate::hex;
use crate::report::Chain;
use crate::service::package;
use crate::store::{Store, StoreError};
use crate::update::known::{FAILED_VERSIONS, Failure, Failures, HIGHEST_VERSION, KEYS, Known, Releases, Revertible};
use crate::update::{Source, StageProgress, UpdateError, Versions};
use crate::words::Step;

/// Failed versions that are remembered; the oldest failure is forgotten first.
const FAILED_VERSIONS_MAX: usize = 32;
/// Handoffs that are looked at for one that was not committed; only the latest can be such a one.
const LATEST: u32 = 10;
/// The outcome of a handoff whose image serves and has not proven itself yet.
pub(super) const SERVING: &str = "serving";
/// What is kept of a reason, in characters: it is told in one line.
const REASON_CHARS_MAX: usize = 300;

/// Where releases come from, unless they are a package manager's to install.
pub(super) fn source(config: &Config, home: &Home) -> Result<Source, UpdateError> {
    let program = std::env::current_exe().unwrap_or_default();
    if let Some(package::Package { name, update }) = package::owner(home.path(), &program) {
        return Err(UpdateError::Packaged { name, update });
    }
    Source::new(&config.update)
}

impl Daemon {
    pub(super) async fn releases(&self) -> Result<Releases, UpdateError> {
        let source = source(&self.config, &self.home)?;
        let versions = Versions::new(self.home.path());
        let known = known(&self.store).await.map_err(UpdateError::Known)?;
        Ok(known.releases(source, versions, running_version(), self.config.update.channel))
    }

    pub(super) async fn revertible(&self) -> Result<Revertible, UpdateError> {
        let known = known(&self.store).await.map_err(UpdateError::Known)?;
        Ok(known.revertible(Versions::new(self.home.path()), running_version()))
    }
}

/// What the store has of versions.
async fn known(store: &Store) -> Result<Known, StoreError> {
    let mut values = store.metas(&KEYS).await?;
    Ok(Known::read(|key| values.remove(key)))
}

/// Remembers that a version failed here, so that it is not tried again unless it is named. `reason` is one line for
/// people. Must be called when the version was taken back, whoever did it.
pub(super) async fn mark_failed(store: &Store, version: &Version, reason: &str) {
    let reason = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS_MAX).collect();
    let failure = Failure { reason, at: UnixMillis::now() };
    let version = version.clone();
    change_failures(store, move |failures| {
        failures.insert(version, failure);
        while failures.len() > FAILED_VERSIONS_MAX {
            let oldest = failures.iter().min_by_key(|(_, failure)| failure.at.0).map(|(version, _)| version.clone());
            failures.remove(&oldest.expect("there are more than the bound"));
        }
        true
    })
    .await;
}

/// Marks versions that were being tried when their process ended, where another one runs now: whatever started this one
/// went back. To be called at a start that is no handoff, before the history is closed.
pub(super) async fn mark_abandoned(store: &Store) {
    let running = running_version();
    let latest = store.handoffs(LATEST).await.unwrap_or_else(|error| {
        tracing::error!(error = %Chain(&error), "cannot read the history");
        Vec::new()
    });
    for tried in latest.iter().filter(|record| record.outcome == SERVING) {
        let Ok(version) = Version::parse(&tried.to_version) else { continue };
        // Who took it back may have said why already.
        if version != running && matches!(failed(store, &version).await, Ok(None)) {
            tracing::warn!(%version, %running, "a version did not prove itself before its process ended");
            mark_failed(store, &version, "its process ended before it had proven itself").await;
        }
    }
}

/// How a version failed here, if it did.
pub(super) async fn failed(store: &Store, version: &Version) -> Result<Option<String>, StoreError> {
    Ok(known(store).await?.failures.remove(version).map(|failure| failure.reason))
}

/// Forgets that a version failed: it was tried again and has proven itself.
pub(super) async fn clear_failed(store: &Store, version: &Version) {
    let version = version.clone();
    change_failures(store, move |failures| failures.remove(&version).is_some()).await;
}

/// `change` says whether there is something to write. The daemon is the only one that writes this value, one change
/// after the other. What cannot be read is not written either: that would forget the others.
async fn change_failures(store: &Store, change: impl FnOnce(&mut Failures) -> bool) {
    let changed = async {
        let mut failures = known(store).await?.failures;
        if !change(&mut failures) {
            return Ok(());
        }
        store.set_meta(FAILED_VERSIONS, serde_json::to_string(&failures).expect("plain data serialises")).await
    };
    if let Err(error) = changed.await {
        tracing::error!(error = %Chain(&error), "cannot record which versions failed");
    }
}

/// Remembers the highest version that ever ran, so that no older release is accepted again.
pub(super) async fn raise_floor(store: &Store) {
    let running = running_version();
    let raised = async {
        match known(store).await?.floor {
            Some(known) if known >= running => Ok(()),
            _ => store.set_meta(HIGHEST_VERSION, running.to_string()).await,
        }
    };
    if let Err(error) = raised.await {
        tracing::error!(error = %Chain(&error), "cannot record the highest version that ran");
    }
}

/// As [`mark_failed`], of a version as text. What is no version is not marked.
pub(super) async fn mark_named_failed(store: &Store, version: &str, reason: &str) {
    if let Ok(version) = Version::parse(version) {
        mark_failed(store, &version, reason).await;
    }
}

pub(super) fn running_version() -> Version {
    Version::parse(crate::version::version()).expect("the version stamp holds a semantic version")
}

/// A step of staging, as clients and chats are told it, and how many bytes are done.
pub(super) fn progress(at: &StageProgress) -> (Step, Option<u64>) {
    match at {
        StageProgress::Manifest => (Step::Looking, None),
        StageProgress::Download { done_bytes, total_bytes } => (Step::Downloading(*total_bytes), Some(*done_bytes)),
        StageProgress::Verify => (Step::Verifying, None),
        StageProgress::Extract => (Step::Unpacking, None),
        StageProgress::Staged => (Step::Staged, None),
    }
}

/// SHA-256 of a file from where it stands to its end, lower-case hex.
pub(super) fn sha256_hex(file: &mut File) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hex::encode(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        text.parse().expect("a version")
    }

    fn store(dir: &tempfile::TempDir) -> Store {
        Store::open(&dir.path().join("state.db")).expect("opens")
    }

    #[tokio::test]
    async fn a_failure_is_remembered_until_the_version_has_proven_itself() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = store(&dir);
        assert_eq!(failed(&store, &v("1.0.1")).await.expect("reads"), None);
        mark_failed(&store, &v("1.0.1"), "it crashed\nbadly").await;
        mark_failed(&store, &v("1.0.2"), "it hung").await;
        assert_eq!(failed(&store, &v("1.0.1")).await.expect("reads").as_deref(), Some("it crashed badly"));
        clear_failed(&store, &v("1.0.1")).await;
        clear_failed(&store, &v("9.9.9")).await;
        assert_eq!(failed(&store, &v("1.0.1")).await.expect("reads"), None);
        assert_eq!(failed(&store, &v("1.0.2")).await.expect("reads").as_deref(), Some("it hung"));
    }

    #[tokio::test]
    async fn the_record_of_failures_is_bounded_and_may_be_damaged() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = store(&dir);
        for patch in 0..40 {
            mark_failed(&store, &Version::new(1, 0, patch), &"x".repeat(1000)).await;
        }
        let failures = known(&store).await.expect("reads").failures;
        assert_eq!(failures.len(), FAILED_VERSIONS_MAX);
        assert!(failures[&v("1.0.39")].reason.len() == REASON_CHARS_MAX);
        for damaged in ["", "[]", "{\"x\":1}"] {
            store.set_meta(FAILED_VERSIONS, damaged.to_owned()).await.expect("writes");
            assert_eq!(failed(&store, &v("1.0.39")).await.expect("reads"), None, "{damaged:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_not_written_either() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = store(&dir);
        store.set_meta(HIGHEST_VERSION, "999.0.0".to_owned()).await.expect("writes");
        mark_failed(&store, &v("1.0.1"), "it crashed").await;
        let db = rusqlite::Connection::open(dir.path().join("state.db")).expect("opens");
        db.execute("INSERT INTO meta (key, value) VALUES ('update_hold', x'ff')", []).expect("damages it");
        known(&store).await.expect_err("no text");
        raise_floor(&store).await;
        mark_failed(&store, &v("1.0.2"), "it hung").await;
        db.execute("DELETE FROM meta WHERE key = 'update_hold'", []).expect("mends it");
        let known = known(&store).await.expect("reads");
        assert_eq!(known.floor, Some(v("999.0.0")));
        assert_eq!(known.failures.into_keys().collect::<Vec<_>>(), [v("1.0.1")]);
    }
}
