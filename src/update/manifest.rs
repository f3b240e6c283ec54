//! The manifest: which releases there are, and which of them this image may become.
//!
//! `self_update` defines the format and reads it; four members are read here beside it, which it ignores: `expires` of
//! the manifest, `channel` and `rollout` of a release, and `size` of an asset.
//!
//! **Invariants**
//! - The manifest is not signed. Nothing in it is trusted further than to choose what to download: version, target
//!   and product are bound by the archive's signature, whose context is the file name built here, and replays of old
//!   releases are stopped by the highest version ever accepted.
//! - The archive's name is computed, never taken from the manifest: an asset only counts if it has exactly that name.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use semver::Version;
use serde::Deserialize;
use serde_json::Value;

use super::date::parse_rfc3339;
use super::error::{Item, UpdateError};
use super::rollout::Rollout;
use crate::clock::UnixMillis;
use crate::config::Channel;
use crate::version::VERSION_LEN_MAX;

/// The only schema there is so far.
const SCHEMA: u64 = 1;
/// Versions or names that an error lists at most.
const LISTED_MAX: usize = 5;
const PRODUCT: &str = "hermes";
const SUFFIX: &str = ".tar.gz";

/// Which release is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// The newest that is acceptable, of the channel that is followed; a version that was accepted before, so one that
    /// was reverted, does not count. If the newest failed here before, none is taken.
    Newest,
    /// This one. It may be the highest that was accepted before: that is how a rejected version is tried again.
    Exact(Version),
}

/// The versions a release is measured against.
#[derive(Clone, Copy, Debug)]
pub struct Have<'a> {
    /// What runs.
    pub running: &'a Version,
    /// The highest version ever accepted; at first what runs.
    pub floor: &'a Version,
    /// Versions that failed here, and how. They are only taken when they are named.
    pub failed: &'a BTreeMap<Version, String>,
    /// Which releases are followed; at least beta where a pre-release runs. Others are only taken when they are named.
    pub channel: Channel,
}

impl<'a> Have<'a> {
    /// Where no version has failed yet.
    pub fn new(running: &'a Version, floor: &'a Version) -> Self {
        static NONE: BTreeMap<Version, String> = BTreeMap::new();
        Self { running, floor, failed: &NONE, channel: Channel::Stable }
    }

    fn followed(&self) -> Channel {
        if self.running.pre.is_empty() { self.channel } else { self.channel.max(Channel::Beta) }
    }
}

/// A release that may be downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub version: Version,
    pub date: Option<String>,
    pub notes_url: Option<String>,
    /// The archive's file name, which is the signature's context.
    pub name: String,
    pub url: String,
    pub digest: Option<[u8; 32]>,
    pub size_bytes: Option<u64>,
    /// To how many of 100 installations it goes, if not to all.
    pub rollout: Option<u8>,
}

/// A manifest that was read.
#[derive(Debug)]
pub(super) struct Manifest {
    releases: Vec<(Version, self_update::Release)>,
    /// What is said of a release beside the schema, by its version as it is written.
    terms: BTreeMap<String, Terms>,
    sizes: BTreeMap<String, u64>,
}

/// For whom a release is.
#[derive(Clone, Copy, Debug, Default)]
struct Terms {
    /// None: only for those who name it, because its channel is not known here.
    channel: Option<Channel>,
    rollout: Option<u8>,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    expires: Option<String>,
    #[serde(default)]
    releases: Vec<EnvelopeRelease>,
}

#[derive(Deserialize)]
struct EnvelopeRelease {
    #[serde(default)]
    version: String,
    #[serde(default)]
    channel: Option<Value>,
    #[serde(default)]
    rollout: Option<Value>,
    #[serde(default)]
    assets: Vec<EnvelopeAsset>,
}

#[derive(Deserialize)]
struct EnvelopeAsset {
    name: String,
    #[serde(default)]
    size: Option<u64>,
}

/// The name of a release's archive for a target, such as `hermes-1.0.0-x86_64-unknown-linux-gnu.tar.gz`.
pub fn archive_name(version: &Version, target: &str) -> String {
    format!("{PRODUCT}-{version}-{target}{SUFFIX}")
}

impl Manifest {
    /// Reads a manifest that came from `url`, at the time `now`.
    pub(super) fn parse(body: &[u8], url: &str, now: UnixMillis) -> Result<Self, UpdateError> {
        let value: Value = serde_json::from_slice(body).map_err(|source| UpdateError::ManifestNotJson { source })?;
        match value.get("schema") {
            Some(schema) if schema.as_u64() == Some(SCHEMA) => {}
            other => {
                let found = other.map_or_else(|| "none".to_owned(), |schema| shortened(&schema.to_string()));
                return Err(UpdateError::ManifestSchema { found });
            }
        }
        let malformed = |source: Box<dyn std::error::Error + Send + Sync>| UpdateError::ManifestMalformed { source };
        let envelope = Envelope::deserialize(&value).map_err(|source| malformed(Box::new(source)))?;
        if let Some(expires) = &envelope.expires {
            check_expiry(Item::Manifest, expires, now)?;
        }
        let text = std::str::from_utf8(body).map_err(|source| malformed(Box::new(source)))?;
        let releases = self_update::backends::manifest::parse_manifest(text, url)
            .map_err(|source| malformed(Box::new(source)))?
            .into_iter()
            .filter_map(|release| Some((Version::parse(release.version()).ok()?, release)))
            .filter(|(version, _)| version.to_string().len() <= VERSION_LEN_MAX)
            .collect();
        let terms = envelope.releases.iter().map(|release| (release.version.clone(), release.terms())).collect();
        let sizes = envelope
            .releases
            .into_iter()
            .flat_map(|release| release.assets)
            .filter_map(|asset| Some((asset.name, asset.size?)))
            .collect();
        Ok(Self { releases, terms, sizes })
    }

    /// Chooses the release that is wanted, or says why none may be taken.
    pub(super) fn select(&self, want: &Want, have: Have<'_>, target: &'static str) -> Result<Candidate, UpdateError> {
        match want {
            Want::Exact(version) => {
                if version.cmp_precedence(have.running) != Ordering::Greater
                    || version.cmp_precedence(have.floor) == Ordering::Less
                {
                    return Err(not_newer(version, have));
                }
                let (_, release) =
                    self.releases.iter().find(|(listed, _)| listed == version).ok_or_else(|| {
                        UpdateError::VersionNotListed { wanted: version.clone(), listed: self.newest() }
                    })?;
                self.candidate(version, release, target)
            }
            Want::Newest => self.select_newest(have, target, |_| true),
        }
    }

    /// The newest listed version that may be taken unasked, whether it is newer than what runs or not.
    pub(super) fn newest_listed(&self, have: Have<'_>) -> Option<&Version> {
        self.unasked(have).next().map(|(version, _)| version)
    }

    /// What may be taken by itself: the newest that is rolled out to the installation of this name.
    pub(super) fn offer(&self, have: Have<'_>, target: &'static str, installation: Option<&str>) -> Option<Candidate> {
        let is_open = |version: &Version| {
            let rollout = self.terms(version).rollout;
            rollout.is_none_or(|percent| Rollout::of(installation, version, percent).is_open())
        };
        self.select_newest(have, target, is_open).ok()
    }

    fn select_newest(
        &self,
        have: Have<'_>,
        target: &'static str,
        is_open: impl Fn(&Version) -> bool,
    ) -> Result<Candidate, UpdateError> {
        let mut first_refusal = None;
        for (version, release) in self.unasked(have).filter(|(version, _)| is_open(version)) {
            // No older one is taken in its place: whoever asks for the newest is to hear that it is not what it gets.
            if version.cmp_precedence(have.running) == Ordering::Greater
                && let Some(reason) = have.failed.get(version)
            {
                return Err(UpdateError::FailedBefore { version: version.clone(), reason: reason.clone() });
            }
            let outcome = if is_newer(version, have) {
                self.candidate(version, release, target)
            } else {
                Err(not_newer(version, have))
            };
            match outcome {
                Ok(candidate) => return Ok(candidate),
                Err(refusal) => first_refusal = first_refusal.or(Some(refusal)),
            }
        }
        Err(first_refusal.unwrap_or(UpdateError::NoRelease))
    }

    /// Releases that may be taken unasked, newest first.
    fn unasked(&self, have: Have<'_>) -> impl Iterator<Item = &(Version, self_update::Release)> {
        let is_followed = |version: &Version| self.terms(version).channel.is_some_and(|of| of <= have.followed());
        let mut releases: Vec<_> = self.releases.iter().filter(|(version, _)| is_followed(version)).collect();
        releases.sort_by(|(a, _), (b, _)| b.cmp_precedence(a));
        releases.into_iter()
    }

    fn terms(&self, version: &Version) -> Terms {
        self.terms.get(&version.to_string()).copied().unwrap_or_default()
    }

    fn newest(&self) -> Vec<String> {
        let mut versions: Vec<&Version> = self.releases.iter().map(|(version, _)| version).collect();
        versions.sort_by(|a, b| b.cmp(a));
        versions.into_iter().take(LISTED_MAX).map(Version::to_string).collect()
    }

    fn candidate(
        &self,
        version: &Version,
        release: &self_update::Release,
        target: &'static str,
    ) -> Result<Candidate, UpdateError> {
        let name = archive_name(version, target);
        let Some(asset) = release.assets().iter().find(|asset| asset.name() == name) else {
            return Err(no_asset(version, release, target));
        };
        let digest = asset.digest().map(|text| parse_digest(text).ok_or(UpdateError::BadDigest { name: name.clone() }));
        Ok(Candidate {
            version: version.clone(),
            date: Some(release.date()).filter(|date| !date.is_empty()).map(str::to_owned),
            notes_url: release.release_notes_url().map(str::to_owned),
            url: asset.download_url().to_owned(),
            digest: digest.transpose()?,
            size_bytes: self.sizes.get(&name).copied(),
            rollout: self.terms(version).rollout,
            name,
        })
    }
}

impl EnvelopeRelease {
    fn terms(&self) -> Terms {
        let channel = match &self.channel {
            Some(channel) => channel.as_str().and_then(Channel::parse),
            // As it was before there were channels.
            None if Version::parse(&self.version).is_ok_and(|version| !version.pre.is_empty()) => Some(Channel::Beta),
            None => Some(Channel::Stable),
        };
        // What is not understood is for nobody.
        let percent =
            |value: &Value| value.as_u64().and_then(|value| u8::try_from(value).ok()).filter(|value| *value <= 100);
        Terms { channel, rollout: self.rollout.as_ref().map(|value| percent(value).unwrap_or(0)) }
    }
}

/// Refuses what is past its date of expiry.
pub(super) fn check_expiry(item: Item, expires: &str, now: UnixMillis) -> Result<(), UpdateError> {
    match parse_rfc3339(expires) {
        Some(at) if now < at => Ok(()),
        Some(_) => Err(UpdateError::Expired { item, expires: expires.to_owned() }),
        None => Err(UpdateError::BadExpiry { item, expires: shortened(expires) }),
    }
}

fn is_newer(version: &Version, have: Have<'_>) -> bool {
    version.cmp_precedence(have.running) == Ordering::Greater && version.cmp_precedence(have.floor) == Ordering::Greater
}

fn not_newer(version: &Version, have: Have<'_>) -> UpdateError {
    let version = version.clone();
    match version.cmp_precedence(have.running) {
        Ordering::Equal => UpdateError::SameVersion { version },
        Ordering::Less => UpdateError::OlderThanRunning { version, running: have.running.clone() },
        Ordering::Greater => UpdateError::OlderThanAccepted { version, floor: have.floor.clone() },
    }
}

/// Tells a release of this product for other targets from one of another product.
fn no_asset(version: &Version, release: &self_update::Release, target: &'static str) -> UpdateError {
    let prefix = format!("{PRODUCT}-{version}-");
    let names = || release.assets().iter().map(self_update::ReleaseAsset::name);
    let targets: Vec<String> = names()
        .filter_map(|name| name.strip_prefix(&prefix)?.strip_suffix(SUFFIX))
        .take(LISTED_MAX)
        .map(shortened)
        .collect();
    if targets.is_empty() && names().next().is_some() {
        let found = names().take(LISTED_MAX).map(shortened).collect();
        UpdateError::OtherProduct { version: version.clone(), found }
    } else {
        UpdateError::OtherTarget { version: version.clone(), target, found: targets }
    }
}

fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let self_update::Checksum::Sha256(hex) = self_update::Checksum::parse_digest(text).ok()? else { return None };
    let hex = hex.trim();
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(digest)
}

/// The beginning of a text from a server, for an error.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    text.chars().take(CHARS_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}
