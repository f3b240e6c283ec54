//! Looking for releases and staging them, with what this gateway knows of versions.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use semver::Version;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::run::Daemon;
use crate::clock::UnixMillis;
use crate::hex;
use crate::report::Chain;
use crate::service::package;
use crate::store::Store;
use crate::update::{self, Check, Have, Source, StageProgress, StagedImage, UpdateError, Versions, Want};
use crate::words::Step;

/// Where the store keeps the highest version that ever ran here: nothing older is accepted as an update.
const HIGHEST_VERSION: &str = "highest_version";
/// Where the store keeps which versions failed here: a JSON object of [`Failure`]s by version.
const FAILED_VERSIONS: &str = "failed_versions";
/// Failed versions that are remembered; the oldest failure is forgotten first.
const FAILED_VERSIONS_MAX: usize = 32;
/// Handoffs that are looked at for one that was not committed; only the latest can be such a one.
const LATEST: u32 = 10;
/// The outcome of a handoff whose image serves and has not proven itself yet.
const SERVING: &str = "serving";
/// What is kept of a reason, in characters: it is told in one line.
const REASON_CHARS_MAX: usize = 300;

/// Everything that a look for releases or an update needs to know.
pub(super) struct Releases {
    source: Source,
    versions: Versions,
    running: Version,
    floor: Version,
    failed: BTreeMap<Version, String>,
}

/// Everything that is needed to go back to the version before, which asks no server.
pub(super) struct Revertible {
    versions: Versions,
    running: Version,
    failed: BTreeMap<Version, String>,
}

impl Revertible {
    /// Opens and hashes the version to go back to: the highest below the running one that has not failed. The floor
    /// of [`raise_floor`] does not count: an operator goes back knowingly, and these bytes were verified when they came.
    /// Reads the disk, so it is to be called beside the loop.
    pub(super) fn revert_target(&self) -> Result<StagedImage, UpdateError> {
        let below = |version: &Version| version.cmp_precedence(&self.running).is_lt();
        let listed = self.versions.list().map_err(UpdateError::Versions)?;
        let target = listed.iter().rev().find(|version| below(version) && !self.failed.contains_key(version));
        match target {
            Some(version) => self.versions.open(version).map_err(UpdateError::Versions),
            None => {
                Err(UpdateError::NothingBefore { running: self.running.clone(), dir: self.versions.dir().to_owned() })
            }
        }
    }
}

impl Releases {
    pub(super) async fn check(&self) -> Result<Check, UpdateError> {
        update::check(&self.source, self.have()).await
    }

    pub(super) async fn stage(
        &self,
        want: &Want,
        progress: impl FnMut(StageProgress),
    ) -> Result<StagedImage, UpdateError> {
        update::stage(&self.source, &self.versions, want, self.have(), progress).await
    }

    fn have(&self) -> Have<'_> {
        Have { running: &self.running, floor: &self.floor, failed: &self.failed }
    }
}

impl Daemon {
    pub(super) async fn releases(&self) -> Result<Releases, UpdateError> {
        let running = running_version();
        let floor = highest_version(&self.store).await.unwrap_or_else(|| running.clone());
        let program = std::env::current_exe().unwrap_or_default();
        if let Some(package::Package { name, update }) = package::owner(self.home.path(), &program) {
            return Err(UpdateError::Packaged { name, update });
        }
        let source = Source::new(&self.config.update)?;
        let failed = failed_versions(&self.store).await;
        Ok(Releases { source, versions: Versions::new(self.home.path()), running, floor, failed })
    }

    pub(super) async fn revertible(&self) -> Revertible {
        let failed = failed_versions(&self.store).await;
        Revertible { versions: Versions::new(self.home.path()), running: running_version(), failed }
    }
}

/// One entry of [`FAILED_VERSIONS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Failure {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    at: UnixMillis,
}

type Failures = BTreeMap<Version, Failure>;

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
        if version != running && failed(store, &version).await.is_none() {
            tracing::warn!(%version, %running, "a version did not prove itself before its process ended");
            mark_failed(store, &version, "its process ended before it had proven itself").await;
        }
    }
}

/// How a version failed here, if it did.
pub(super) async fn failed(store: &Store, version: &Version) -> Option<String> {
    failed_versions(store).await.remove(version)
}

/// Forgets that a version failed: it was tried again and has proven itself.
pub(super) async fn clear_failed(store: &Store, version: &Version) {
    let version = version.clone();
    change_failures(store, move |failures| failures.remove(&version).is_some()).await;
}

/// `change` says whether there is something to write. The daemon is the only one that writes this value, one change
/// after the other.
async fn change_failures(store: &Store, change: impl FnOnce(&mut Failures) -> bool) {
    let mut failures = failures(store).await;
    if !change(&mut failures) {
        return;
    }
    let text = serde_json::to_string(&failures).expect("plain data serialises");
    if let Err(error) = store.set_meta(FAILED_VERSIONS, text).await {
        tracing::error!(error = %Chain(&error), "cannot record which versions failed");
    }
}

async fn failed_versions(store: &Store) -> BTreeMap<Version, String> {
    failures(store).await.into_iter().map(|(version, failure)| (version, failure.reason)).collect()
}

/// What cannot be read counts as nothing: then a version may fail a second time, which is better than no update.
async fn failures(store: &Store) -> Failures {
    let text = match store.meta(FAILED_VERSIONS).await {
        Ok(text) => text,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "cannot read which versions failed");
            None
        }
    };
    text.and_then(|text| {
        serde_json::from_str(&text)
            .inspect_err(|error| tracing::error!(%error, "the record of failed versions is not readable"))
            .ok()
    })
    .unwrap_or_default()
}

/// Remembers the highest version that ever ran, so that no older release is accepted again.
pub(super) async fn raise_floor(store: &Store) {
    let running = running_version();
    if highest_version(store).await.is_some_and(|known| known >= running) {
        return;
    }
    if let Err(error) = store.set_meta(HIGHEST_VERSION, running.to_string()).await {
        tracing::error!(error = %Chain(&error), "cannot record the highest version that ran");
    }
}

/// As [`mark_failed`], of a version as text. What is no version is not marked.
pub(super) async fn mark_named_failed(store: &Store, version: &str, reason: &str) {
    if let Ok(version) = Version::parse(version) {
        mark_failed(store, &version, reason).await;
    }
}

async fn highest_version(store: &Store) -> Option<Version> {
    match store.meta(HIGHEST_VERSION).await {
        Ok(known) => known.and_then(|version| Version::parse(&version).ok()),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "cannot read the highest version that ran");
            None
        }
    }
}

pub(super) fn running_version() -> Version {
    Version::parse(crate::version::version()).expect("the version stamp holds a semantic version")
}

/// Which release is asked for.
///
/// # Errors
/// A sentence for the user.
pub(super) fn want(version: Option<&str>) -> Result<Want, String> {
    let Some(text) = version else { return Ok(Want::Newest) };
    let version = Version::parse(text.strip_prefix('v').unwrap_or(text));
    version.map(Want::Exact).map_err(|_| format!("'{text}' is not a version; one looks like 1.5.0"))
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
        assert_eq!(failed(&store, &v("1.0.1")).await, None);
        mark_failed(&store, &v("1.0.1"), "it crashed\nbadly").await;
        mark_failed(&store, &v("1.0.2"), "it hung").await;
        assert_eq!(failed(&store, &v("1.0.1")).await.as_deref(), Some("it crashed badly"));
        clear_failed(&store, &v("1.0.1")).await;
        clear_failed(&store, &v("9.9.9")).await;
        assert_eq!(failed(&store, &v("1.0.1")).await, None);
        assert_eq!(failed(&store, &v("1.0.2")).await.as_deref(), Some("it hung"));
    }

    #[tokio::test]
    async fn the_record_of_failures_is_bounded_and_may_be_damaged() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = store(&dir);
        for patch in 0..40 {
            mark_failed(&store, &Version::new(1, 0, patch), &"x".repeat(1000)).await;
        }
        let failures = failed_versions(&store).await;
        assert_eq!(failures.len(), FAILED_VERSIONS_MAX);
        assert!(failures.contains_key(&v("1.0.39")) && failures[&v("1.0.39")].len() == REASON_CHARS_MAX);
        for damaged in ["", "[]", "{\"x\":1}"] {
            store.set_meta(FAILED_VERSIONS, damaged.to_owned()).await.expect("writes");
            assert_eq!(failed(&store, &v("1.0.39")).await, None, "{damaged:?}");
        }
        store.set_meta(FAILED_VERSIONS, r#"{"1.0.1":{"reason":"r","later":1}}"#.to_owned()).await.expect("writes");
        assert_eq!(failed(&store, &v("1.0.1")).await.as_deref(), Some("r"), "a later version may say more");
    }

    #[test]
    fn the_way_back_leads_to_the_highest_version_below_that_has_not_failed() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let versions = Versions::new(home.path());
        let way = |running: &str, failed: &[&str]| {
            let failed = failed.iter().map(|version| (v(version), "it crashed".to_owned())).collect();
            let way = Revertible { versions: versions.clone(), running: v(running), failed };
            way.revert_target().map(|image| (image.version.to_string(), image.is_new))
        };
        let told = way("1.4.0", &[]).expect_err("there is nothing yet").to_string();
        assert!(told.contains("no version below 1.4.0") && told.contains("<version>/hermes"), "{told}");
        for version in ["1.2.0", "1.3.0", "1.4.0-rc.1", "1.4.0", "1.5.0"] {
            let path = versions.path(&v(version));
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
            std::fs::write(&path, version).expect("writes");
        }
        assert_eq!(way("1.5.0", &[]).expect("found"), ("1.4.0".to_owned(), false));
        assert_eq!(way("1.4.0", &["1.4.0-rc.1"]).expect("found").0, "1.3.0");
        assert_eq!(way("1.4.0", &["1.4.0-rc.1", "1.3.0"]).expect("found").0, "1.2.0");
        assert!(matches!(way("1.2.0", &[]), Err(UpdateError::NothingBefore { .. })));
    }
}
