//! What an installation knows of versions, as the store has it: single values, each readable by itself.
//!
//! **Invariant:** a value that cannot be read counts as none, with a line in the log: then a version may fail a second
//! time or a hold be forgotten, which is better than no update at all.

use std::collections::BTreeMap;
use std::path::Path;

use semver::Version;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::hold::Hold;
use super::schedule::Agenda;
use super::versions::{StagedImage, Versions};
use super::{Have, Look, Source, StageProgress, UpdateError, Want, look, stage};
use crate::clock::UnixMillis;
use crate::config::Channel;
use crate::store::{Store, StoreError};

/// Where the store keeps the highest version that ever ran here: nothing older is accepted as an update.
pub const HIGHEST_VERSION: &str = "highest_version";
/// Where the store keeps which versions failed here: a JSON object of [`Failure`]s by version.
pub const FAILED_VERSIONS: &str = "failed_versions";
/// Where the store keeps the [`Hold`].
pub const HOLD: &str = "update_hold";
/// Where the store keeps the [`Agenda`].
pub const AGENDA: &str = "update_agenda";
/// Where the store keeps the name of this installation, which is drawn once.
pub const INSTALLATION: &str = "installation";
/// All of them.
pub const KEYS: [&str; 5] = [HIGHEST_VERSION, FAILED_VERSIONS, HOLD, AGENDA, INSTALLATION];

/// How a version failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For people, in one line.
    #[serde(default)]
    pub reason: String,
    /// When.
    #[serde(default)]
    pub at: UnixMillis,
}

/// Which versions failed here.
pub type Failures = BTreeMap<Version, Failure>;

/// All that the store has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The highest version that ever ran here.
    pub floor: Option<Version>,
    /// Versions that failed here.
    pub failures: Failures,
    /// Who holds updates.
    pub hold: Option<Hold>,
    /// What is known of releases.
    pub agenda: Agenda,
    /// The name of this installation.
    pub installation: Option<String>,
}

impl Known {
    /// Reads the values of [`KEYS`].
    pub fn read(mut value: impl FnMut(&'static str) -> Option<String>) -> Self {
        Self {
            floor: value(HIGHEST_VERSION).and_then(|version| Version::parse(&version).ok()),
            failures: read_json(FAILED_VERSIONS, value(FAILED_VERSIONS)),
            hold: read_json(HOLD, value(HOLD)),
            agenda: read_json(AGENDA, value(AGENDA)),
            installation: value(INSTALLATION).filter(|name| !name.is_empty()),
        }
    }

    /// Reads the database of a gateway that may not run, and writes nothing to it.
    ///
    /// # Errors
    /// As [`Store::peek`].
    pub fn peek(state_db: &Path) -> Result<Self, StoreError> {
        let mut values = Store::peek(state_db, &KEYS)?;
        Ok(Self::read(|key| values.remove(key)))
    }

    /// What an update to a release of `source` must know, where `running` runs.
    pub fn releases(&self, source: Source, versions: Versions, running: Version, channel: Channel) -> Releases {
        Releases {
            source,
            versions,
            floor: self.floor.clone().unwrap_or_else(|| running.clone()),
            running,
            channel,
            failed: self.failed(),
            installation: self.installation.clone(),
        }
    }

    /// What the way back must know, where `running` runs.
    pub fn revertible(&self, versions: Versions, running: Version) -> Revertible {
        Revertible { versions, running, failed: self.failed() }
    }

    fn failed(&self) -> BTreeMap<Version, String> {
        self.failures.iter().map(|(version, failure)| (version.clone(), failure.reason.clone())).collect()
    }
}

fn read_json<T: DeserializeOwned + Default>(what: &'static str, text: Option<String>) -> T {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return T::default() };
    serde_json::from_str(&text).unwrap_or_else(|error| {
        tracing::error!(%error, what, "what the store has of updates is not readable");
        T::default()
    })
}

/// Everything that a look for releases or an update needs to know.
#[derive(Debug)]
pub struct Releases {
    source: Source,
    versions: Versions,
    running: Version,
    floor: Version,
    channel: Channel,
    failed: BTreeMap<Version, String>,
    installation: Option<String>,
}

impl Releases {
    /// See [`look()`].
    ///
    /// # Errors
    /// As [`look()`].
    pub async fn look(&self) -> Result<Look, UpdateError> {
        look(&self.source, self.have(), self.installation.as_deref()).await
    }

    /// See [`stage()`].
    ///
    /// # Errors
    /// As [`stage()`].
    pub async fn stage(&self, want: &Want, progress: impl FnMut(StageProgress)) -> Result<StagedImage, UpdateError> {
        stage(&self.source, &self.versions, want, self.have(), progress).await
    }

    fn have(&self) -> Have<'_> {
        Have { running: &self.running, floor: &self.floor, failed: &self.failed, channel: self.channel }
    }
}

/// Everything that is needed to go back to the version before, which asks no server.
#[derive(Debug)]
pub struct Revertible {
    versions: Versions,
    running: Version,
    failed: BTreeMap<Version, String>,
}

impl Revertible {
    /// Opens and hashes the version to go back to: the highest below the running one that has not failed. The highest
    /// version that ever ran does not count: an operator goes back knowingly, and these bytes were verified when they
    /// came. Reads the disk, so it is to be called beside an event loop.
    ///
    /// # Errors
    /// [`UpdateError::NothingBefore`] and [`UpdateError::Versions`].
    pub fn revert_target(&self) -> Result<StagedImage, UpdateError> {
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

/// Which release is asked for.
///
/// # Errors
/// A sentence for the user.
pub fn want(version: Option<&str>) -> Result<Want, String> {
    let Some(text) = version else { return Ok(Want::Newest) };
    let version = Version::parse(text.strip_prefix('v').unwrap_or(text));
    version.map(Want::Exact).map_err(|_| format!("'{text}' is not a version; one looks like 1.5.0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        text.parse().expect("a version")
    }

    #[test]
    fn what_cannot_be_read_counts_as_none() {
        let known = Known::read(|_| Some("{\"x\":".to_owned()));
        assert_eq!(Known { installation: None, ..known }, Known::default());
        let known = Known::read(|key| (key == FAILED_VERSIONS).then(|| r#"{"1.0.1":{"reason":"r","later":1}}"#.into()));
        assert_eq!(known.failed()[&v("1.0.1")], "r", "a later version may say more");
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
