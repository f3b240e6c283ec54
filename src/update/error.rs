//! Why a release was not staged: one variant for each reason, with what to do about it where that is known.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use semver::Version;
use thiserror::Error;

use super::archive::ContentsError;
use super::versions::VersionsError;
use crate::store::StoreError;

/// What was being fetched or unpacked when something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// `manifest.json`.
    Manifest,
    /// The signed archive of a release.
    Archive,
    /// The binary in the archive.
    Binary,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Archive => "archive",
            Self::Binary => "binary",
        })
    }
}

/// Which wait came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// For the connection.
    Connect,
    /// For the next byte.
    Idle,
    /// For everything that is fetched for one update.
    Total,
}

/// Why there is no update. The running image and `versions/current` are as they were.
///
/// URLs in it have lost their user, password and query, because those may be secret.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// `[update] manifest_url` is not set.
    #[error("no release source is configured: set [update] manifest_url")]
    NoManifestUrl,
    /// A package manager owns this gateway.
    #[error(
        "the package {name} owns this gateway, so it does not update itself: run `{update}`, which hands over in place"
    )]
    Packaged {
        /// The package.
        name: String,
        /// What updates it.
        update: String,
    },
    /// A URL cannot be read.
    #[error("{what} is not a URL")]
    BadUrl {
        /// Whose URL.
        what: String,
    },
    /// Neither a key built in nor one in the configuration.
    #[error(
        "no verifying key is configured, so no release can be trusted: \
             add the publisher's public key to [update] verifying_keys"
    )]
    NoKey,
    /// A verifying key cannot be read.
    #[error("{which} is not an ed25519 public key in base64 (32 bytes): copy it anew from the publisher")]
    BadKey {
        /// Which key.
        which: String,
    },
    /// A URL, or where the server redirects to, would leave https.
    #[error(
        "{url} is refused: only https is allowed, http on a loopback address, and file for a manifest on this \
             machine; an https source may not lead to http"
    )]
    InsecureUrl {
        /// The URL.
        url: String,
    },
    /// The server redirects on and on.
    #[error("{url} redirects more than {limit} times")]
    TooManyRedirects {
        /// The URL.
        url: String,
        /// Redirects that are followed.
        limit: usize,
    },

    /// The server cannot be asked.
    #[error("cannot fetch {url}")]
    Unreachable {
        /// The URL.
        url: String,
        /// What the HTTP client says.
        #[source]
        source: reqwest::Error,
    },
    /// The server refuses.
    #[error("the server answers {status} for {url}")]
    Status {
        /// The URL.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// A wait came to its end.
    #[error("{}", timed_out(*wait, url, *limit))]
    TimedOut {
        /// The URL.
        url: String,
        /// Which wait.
        wait: Wait,
        /// How long it was.
        limit: Duration,
    },
    /// The connection broke in the middle of a body.
    #[error("the connection broke after {done_bytes} bytes of {url}: try again")]
    Interrupted {
        /// The URL.
        url: String,
        /// Bytes that had come.
        done_bytes: u64,
        /// What the HTTP client says.
        #[source]
        source: reqwest::Error,
    },
    /// A `file:` URL cannot be read.
    #[error("cannot read {}", path.display())]
    ReadFile {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More bytes than allowed.
    #[error("the {item} is larger than the limit of {limit_bytes} bytes")]
    TooLarge {
        /// What.
        item: Item,
        /// The limit.
        limit_bytes: u64,
    },

    /// The manifest is not JSON.
    #[error("the manifest is not JSON: does manifest_url lead to a web page?")]
    ManifestNotJson {
        /// Where it is not.
        #[source]
        source: serde_json::Error,
    },
    /// The manifest has another schema.
    #[error("the manifest has schema {found}, and this version reads schema 1: update by hand once")]
    ManifestSchema {
        /// What stands there; `none` if nothing does.
        found: String,
    },
    /// The manifest is JSON of this schema and yet not a manifest.
    #[error("the manifest is malformed")]
    ManifestMalformed {
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The manifest or the release is past its `expires`.
    #[error("the {item} expired on {expires}: the publisher has to renew it, or a mirror serves old files")]
    Expired {
        /// What.
        item: Item,
        /// The date that is past.
        expires: String,
    },
    /// `expires` is no date.
    #[error("the {item} expires on {expires:?}, which is no RFC 3339 date")]
    BadExpiry {
        /// What.
        item: Item,
        /// What stands there.
        expires: String,
    },

    /// The manifest lists no release that may be taken unasked.
    #[error("the manifest lists no release")]
    NoRelease,
    /// The version asked for is not listed.
    #[error("version {wanted} is not in the manifest, which lists {}", list(listed))]
    VersionNotListed {
        /// What was asked for.
        wanted: Version,
        /// The newest ones that are listed.
        listed: Vec<String>,
    },
    /// The release is the version that runs.
    #[error("version {version} already runs")]
    SameVersion {
        /// The version.
        version: Version,
    },
    /// The release is older than the version that runs.
    #[error("version {version} is older than {running}, which runs: to go back use the revert command")]
    OlderThanRunning {
        /// The release.
        version: Version,
        /// What runs.
        running: Version,
    },
    /// The release is newer than what runs, but a newer one was accepted before.
    #[error("{}", older_than_accepted(version, floor))]
    OlderThanAccepted {
        /// The release.
        version: Version,
        /// The highest version ever accepted.
        floor: Version,
    },
    /// The newest release failed here before, and was not named.
    #[error("{version} failed here before ({reason}); /update {version} tries it again")]
    FailedBefore {
        /// The release.
        version: Version,
        /// How it failed.
        reason: String,
    },
    /// There is no version to go back to.
    #[error(
        "there is nothing to go back to: {} holds no version below {running} that has not failed; to go back all the \
         same, put the older release's program there as <version>/hermes",
        dir.display()
    )]
    NothingBefore {
        /// What runs.
        running: Version,
        /// Where versions are kept.
        dir: PathBuf,
    },
    /// The release is not there for this target.
    #[error("version {version} is not available for {target}, only for {}", list(found))]
    OtherTarget {
        /// The release.
        version: Version,
        /// The target of this image.
        target: &'static str,
        /// The targets it is there for.
        found: Vec<String>,
    },
    /// The release is of another product.
    #[error("release {version} is not a hermes release, it holds {}: check manifest_url", list(found))]
    OtherProduct {
        /// The release.
        version: Version,
        /// The names of its files.
        found: Vec<String>,
    },

    /// Fewer bytes came than the manifest says.
    #[error("the archive is cut short: {got_bytes} bytes of {expected_bytes}: try again")]
    Truncated {
        /// What the manifest says.
        expected_bytes: u64,
        /// What came.
        got_bytes: u64,
    },
    /// The manifest's digest cannot be read.
    #[error("the manifest's digest of {name} is not `sha256:` and 64 hex digits")]
    BadDigest {
        /// The archive.
        name: String,
    },
    /// The archive is not the one the manifest means.
    #[error("the archive {name} has SHA-256 {found}, and the manifest says {expected}: it was damaged or changed")]
    DigestMismatch {
        /// The archive.
        name: String,
        /// What the manifest says, hex.
        expected: String,
        /// What it is, hex.
        found: String,
    },
    /// The archive has no signature in it.
    #[error("the archive {name} is not signed, or cut short: sign it with scripts/release or zipsign")]
    NotSigned {
        /// The archive.
        name: String,
        /// What the verifier says.
        #[source]
        source: zipsign_api::verify::VerifyTarError,
    },
    /// The archive is signed, but not these bytes under this name by a key that is trusted.
    #[error(
        "no trusted key signed the archive {name}: it was changed or renamed after signing, or the publisher's key \
             is missing from [update] verifying_keys"
    )]
    SignatureMismatch {
        /// The archive.
        name: String,
    },
    /// What was signed is not a release archive.
    #[error("the archive {name} is not a hermes release")]
    Contents {
        /// The archive.
        name: String,
        /// What is wrong with it.
        #[source]
        source: ContentsError,
    },

    /// The disk is full.
    #[error(
        "no space left in {}: at least {needed_bytes} bytes are needed and {available_bytes} are free",
        dir.display()
    )]
    NoSpace {
        /// Where.
        dir: PathBuf,
        /// What staging takes, as far as it is known.
        needed_bytes: u64,
        /// What is free for this user.
        available_bytes: u64,
    },
    /// The bytes read back are not those that were written.
    #[error("{} does not read back as it was written: check the disk", path.display())]
    ReadBack {
        /// The file.
        path: PathBuf,
    },
    /// The temporary file of the archive fails.
    #[error("cannot {what} the downloaded archive in {}", dir.display())]
    Scratch {
        /// The operation.
        what: &'static str,
        /// Where it lies.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store does not say what ran and failed here, so nobody can know whether a release may be taken.
    #[error("cannot read which versions ran and failed here")]
    Known(#[source] StoreError),
    /// `HERMES_HOME/versions` fails, or another update is under way ([`VersionsError::Busy`]).
    #[error(transparent)]
    Versions(VersionsError),
}

fn older_than_accepted(version: &Version, floor: &Version) -> String {
    if version.cmp_precedence(floor).is_eq() {
        return format!("{version} ran here before and is not taken unasked; /update {version} takes it again");
    }
    format!("version {version} is refused, because {floor} was accepted before: wait for a newer release")
}

impl UpdateError {
    /// Whether the release itself is refused: the same bytes will be refused again, whatever becomes of this machine, its
    /// configuration, the network and the server.
    pub fn is_of_release(&self) -> bool {
        match self {
            Self::BadDigest { .. }
            | Self::DigestMismatch { .. }
            | Self::NotSigned { .. }
            | Self::SignatureMismatch { .. }
            | Self::Contents { .. }
            | Self::SameVersion { .. }
            | Self::OlderThanRunning { .. }
            | Self::OlderThanAccepted { .. }
            | Self::FailedBefore { .. }
            | Self::OtherTarget { .. }
            | Self::OtherProduct { .. } => true,
            Self::TooLarge { item, .. } | Self::Expired { item, .. } | Self::BadExpiry { item, .. } => {
                *item != Item::Manifest
            }
            _ => false,
        }
    }
}

fn timed_out(wait: Wait, url: &str, limit: Duration) -> String {
    match wait {
        Wait::Connect => format!("no connection to {url} within {limit:?}"),
        Wait::Idle => format!("{url} sent nothing for {limit:?}: try again"),
        Wait::Total => format!("the update was not fetched within {limit:?}; last from {url}: try again"),
    }
}

/// Joins names for a sentence; nothing is `nothing`.
fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_with_the_release_itself_is_its_fault() {
        let name = || "hermes-1.1.0-x.tar.gz".to_owned();
        let of_release = [
            UpdateError::SignatureMismatch { name: name() },
            UpdateError::DigestMismatch { name: name(), expected: String::new(), found: String::new() },
            UpdateError::TooLarge { item: Item::Binary, limit_bytes: 1 },
        ];
        assert!(of_release.iter().all(UpdateError::is_of_release), "{of_release:?}");
        let of_others = [
            UpdateError::Status { url: String::new(), status: 404 },
            UpdateError::Truncated { expected_bytes: 2, got_bytes: 1 },
            UpdateError::TooLarge { item: Item::Manifest, limit_bytes: 1 },
            UpdateError::Versions(VersionsError::Io {
                what: "write",
                path: PathBuf::new(),
                source: io::ErrorKind::Other.into(),
            }),
            UpdateError::NoKey,
        ];
        assert!(!of_others.iter().any(UpdateError::is_of_release), "{of_others:?}");
    }
}
