//! Verified software updates: which release there is, and how its bytes come into `HERMES_HOME/versions`.
//!
//! ```text
//! manifest ─► select ─► download ─► verify ─► unpack ─► sync ─► versions/<version>/hermes
//! ```
//!
//! A release is `hermes-<version>-<target>.tar.gz`, signed with ed25519 in zipsign's format, and listed in a
//! `manifest.json` of `self_update`'s schema 1; `scripts/release` makes both.
//!
//! `self_update` gives the manifest's schema, the model of a release and the digest's notation. The rest of its way is
//! not used: it installs by replacing the path of the running executable, verifies a path instead of an open file, has
//! no limit on the time between two bytes, no `file:` source, and syncs nothing. Downloading ([`Limits`]) and staging
//! ([`Versions`]) are done here therefore, and `zipsign-api` verifies the open file.
//!
//! **Invariants**
//! - Bytes are executed by nobody here, and unpacked only after their signature was verified with a configured key.
//! - The [`StagedImage`] handed out holds the open file whose content was hashed after it was written and compared
//!   with what came out of the verified archive. Whoever executes it, executes that file, not its path.
//! - Any failure leaves `versions/` as it was: no new version, the same `current`, no file left behind. Only where the
//!   disk refuses the very last sync is there a new version, complete and verified, that is not used.
//! - A release must be newer than what runs, and not older than what was ever accepted ([`Have`]): a signature does
//!   not age, so an old signed release could be replayed.
//!
//! What happens by itself is decided in [`schedule`]: a release may have a channel and a stage of its roll-out in the
//! manifest, and whoever asks for a release takes it whatever its stage.
//!
//! Deliberately absent: executing, restarting, deciding whether a new image is good.

mod archive;
mod date;
mod error;
mod fetch;
pub mod hold;
mod install;
pub mod known;
mod manifest;
mod rollout;
pub mod schedule;
mod versions;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use reqwest::Url;
use semver::Version;
use tokio::io::AsyncWriteExt;
use zipsign_api::VerifyingKey;

pub use self::archive::ContentsError;
pub use self::date::parse_rfc3339;
pub use self::error::{Item, UpdateError, Wait};
pub use self::fetch::Limits;
pub use self::manifest::{Have, Want, archive_name};
pub use self::rollout::Rollout;
pub use self::versions::{StagedImage, Versions, VersionsError};

use self::archive::{Binary, CopyError};
use self::fetch::{Fetch, Timer};
use self::manifest::{Candidate, Manifest};
use self::schedule::Offer;
use self::versions::{Staging, hash};
use crate::clock::UnixMillis;
use crate::config::{UpdateConfig, verifying_key};
use crate::hex;

/// The publisher's key, if this image was built by `scripts/release`.
const BUILT_IN_KEY: Option<&str> = option_env!("HERMES_RELEASE_KEY");

/// The target triple of this image, such as `x86_64-unknown-linux-gnu`.
pub fn target() -> &'static str {
    self_update::get_target()
}

/// Where releases come from and who may sign them.
#[derive(Clone)]
pub struct Source {
    manifest_url: Url,
    keys: Vec<VerifyingKey>,
    limits: Limits,
}

impl Source {
    /// Reads `[update]`; the key built in counts too.
    ///
    /// # Errors
    /// [`UpdateError::NoManifestUrl`], [`UpdateError::BadUrl`], [`UpdateError::InsecureUrl`], [`UpdateError::NoKey`]
    /// and [`UpdateError::BadKey`].
    pub fn new(config: &UpdateConfig) -> Result<Self, UpdateError> {
        let text = config.manifest_url.as_deref().ok_or(UpdateError::NoManifestUrl)?;
        let what = "[update] manifest_url";
        let manifest_url = Url::parse(text).map_err(|_| UpdateError::BadUrl { what: what.to_owned() })?;
        fetch::check_allowed(&manifest_url, None)?;
        let built_in = BUILT_IN_KEY.map(|key| ("the key built in".to_owned(), key));
        let configured = config.verifying_keys.iter().enumerate();
        let configured = configured.map(|(index, key)| (format!("[update] verifying_keys[{index}]"), key.as_str()));
        let keys = built_in
            .into_iter()
            .chain(configured)
            .map(|(which, key)| verifying_key(key).ok_or(UpdateError::BadKey { which }))
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(UpdateError::NoKey);
        }
        Ok(Self { manifest_url, keys, limits: Limits::default() })
    }

    /// The same source with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manifest_url = fetch::shown(&self.manifest_url);
        f.debug_struct("Source").field("manifest_url", &manifest_url).finish_non_exhaustive()
    }
}

/// What there is for whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// There is a release to update to.
    Available {
        /// Its version.
        version: Version,
        /// Its date, as the manifest says.
        date: Option<String>,
        /// Where its notes are, as the manifest says.
        notes_url: Option<String>,
        /// How far it is rolled out, if not to all.
        rollout: Option<Rollout>,
    },
    /// The newest failed here before, and is only taken when it is named.
    FailedBefore {
        /// Its version.
        version: Version,
        /// How it failed.
        reason: String,
    },
    /// There is none.
    UpToDate {
        /// The newest one that is listed: what runs, an older one, or one that was rejected before.
        newest_listed: Option<Version>,
    },
}

/// What came of a look for releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// For whoever asks.
    pub check: Check,
    /// What may be installed by itself.
    pub offer: Option<Offer>,
    /// A newer release that is not rolled out to this installation yet.
    pub deferred: Option<Offer>,
}

/// A step of [`stage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageProgress {
    /// The manifest is being fetched.
    Manifest,
    /// The archive is being fetched.
    Download {
        /// Bytes that have come.
        done_bytes: u64,
        /// Bytes in all, where known.
        total_bytes: Option<u64>,
    },
    /// Digest and signature are being verified.
    Verify,
    /// The binary is being unpacked and made durable.
    Extract,
    /// It is in its place.
    Staged,
}

impl StageProgress {
    /// The step's name for status and history.
    pub fn phase(&self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Download { .. } => "download",
            Self::Verify => "verify",
            Self::Extract => "extract",
            Self::Staged => "staged",
        }
    }
}

/// Asks which release there is, and downloads nothing but the manifest.
///
/// # Errors
/// Any [`UpdateError`] of fetching and reading the manifest, and [`UpdateError::OtherTarget`] or
/// [`UpdateError::OtherProduct`] if there are newer releases but none for this image. Nothing newer is no error.
pub async fn look(source: &Source, have: Have<'_>, installation: Option<&str>) -> Result<Look, UpdateError> {
    let manifest = fetch_manifest(source, Timer::start(source.limits)).await?;
    let offer = |candidate: &Candidate| {
        let Candidate { version, rollout, notes_url, .. } = candidate.clone();
        Offer { version, rollout, notes_url }
    };
    let newest = manifest.select(&Want::Newest, have, target());
    let open = manifest.offer(have, target(), installation);
    let deferred =
        newest.as_ref().ok().filter(|newest| open.as_ref().is_none_or(|open| open.version != newest.version));
    let (deferred, open) = (deferred.map(offer), open.as_ref().map(offer));
    let check = check(&manifest, newest, have, installation)?;
    Ok(Look { check, offer: open, deferred })
}

fn check(
    manifest: &Manifest,
    newest: Result<Candidate, UpdateError>,
    have: Have<'_>,
    installation: Option<&str>,
) -> Result<Check, UpdateError> {
    match newest {
        Ok(Candidate { version, date, notes_url, rollout, .. }) => {
            let rollout = rollout.map(|percent| Rollout::of(installation, &version, percent));
            Ok(Check::Available { version, date, notes_url, rollout })
        }
        Err(
            UpdateError::NoRelease
            | UpdateError::SameVersion { .. }
            | UpdateError::OlderThanRunning { .. }
            | UpdateError::OlderThanAccepted { .. },
        ) => Ok(Check::UpToDate { newest_listed: manifest.newest_listed(have).cloned() }),
        Err(UpdateError::FailedBefore { version, reason }) => Ok(Check::FailedBefore { version, reason }),
        Err(error) => Err(error),
    }
}

/// Downloads a release, verifies it and puts it into `versions/`. `current` is not touched.
///
/// A caller that drops the future leaves nothing behind but, at the very end, a complete version.
///
/// # Errors
/// Any [`UpdateError`]; [`VersionsError::Busy`] in it if another process or task is staging.
pub async fn stage(
    source: &Source,
    versions: &Versions,
    want: &Want,
    have: Have<'_>,
    mut progress: impl FnMut(StageProgress),
) -> Result<StagedImage, UpdateError> {
    let lock = versions.lock().map_err(|error| disk_error(versions, 0, error))?;
    progress(StageProgress::Manifest);
    let timer = Timer::start(source.limits);
    let release = fetch_manifest(source, timer).await?.select(want, have, target())?;
    let staging = lock.begin(&release.version).map_err(|error| disk_error(versions, 0, error))?;
    let mut archive = download(source, &release, &staging, timer, &mut progress).await?;

    progress(StageProgress::Verify);
    let (keys, name, digest) = (source.keys.clone(), release.name.clone(), release.digest);
    let archive = blocking(move || archive::verify(&mut archive, &name, digest, &keys).map(|()| archive)).await?;

    progress(StageProgress::Extract);
    let (limits, versions) = (source.limits, versions.clone());
    let image = blocking(move || extract(archive, &release, staging, &versions, limits)).await?;
    progress(StageProgress::Staged);
    Ok(image)
}

async fn fetch_manifest(source: &Source, timer: Timer) -> Result<Manifest, UpdateError> {
    let url = &source.manifest_url;
    let limit = source.limits.manifest_bytes_max;
    let body = Fetch::open(url, None, Item::Manifest, limit, timer).await?.bytes().await?;
    // `self_update` takes everything up to the last slash for the directory, even if that slash is in the query.
    let mut base = url.clone();
    base.set_query(None);
    base.set_fragment(None);
    Manifest::parse(&body, base.as_str(), UnixMillis::now())
}

/// Fetches the archive into a file without a name.
async fn download(
    source: &Source,
    release: &Candidate,
    staging: &Staging,
    timer: Timer,
    progress: &mut impl FnMut(StageProgress),
) -> Result<File, UpdateError> {
    let url = Url::parse(&release.url)
        .map_err(|_| UpdateError::BadUrl { what: format!("the manifest's url of {}", release.name) })?;
    let limit = release.size_bytes.unwrap_or(u64::MAX).min(source.limits.archive_bytes_max);
    let mut body = Fetch::open(&url, Some(&source.manifest_url), Item::Archive, limit, timer).await?;
    let total_bytes = release.size_bytes.or(body.length_bytes());
    // The binary is at least as large as the archive it is packed in.
    let needed_bytes = total_bytes.unwrap_or(0).saturating_mul(2);
    check_space(staging, needed_bytes)?;

    let scratch = |what, source: io::Error, done: u64| {
        let dir = staging.versions_dir().to_owned();
        no_space(&source, &dir, needed_bytes.max(done)).unwrap_or(UpdateError::Scratch { what, dir, source })
    };
    let file = staging.create_archive().map_err(|error| disk_error_in(staging.versions_dir(), needed_bytes, error))?;
    let mut file = tokio::fs::File::from_std(file);
    progress(StageProgress::Download { done_bytes: 0, total_bytes });
    while let Some(chunk) = body.chunk().await? {
        let done_bytes = body.done_bytes();
        file.write_all(&chunk).await.map_err(|source| scratch("write", source, done_bytes))?;
        progress(StageProgress::Download { done_bytes, total_bytes });
    }
    let got_bytes = body.done_bytes();
    file.flush().await.map_err(|source| scratch("write", source, got_bytes))?;
    match release.size_bytes {
        Some(expected_bytes) if got_bytes < expected_bytes => Err(UpdateError::Truncated { expected_bytes, got_bytes }),
        _ => Ok(file.into_std().await),
    }
}

/// Unpacks a verified archive, makes the binary durable, reads it back, and gives it its place.
fn extract(
    mut archive: File,
    release: &Candidate,
    staging: Staging,
    versions: &Versions,
    limits: Limits,
) -> Result<StagedImage, UpdateError> {
    let archive_bytes = archive.metadata().map_or(0, |meta| meta.len());
    let dir = staging.dir().to_owned();
    let disk = |needed, error| disk_error_in(versions.dir(), needed, error);
    let binary = Binary::open(&mut archive, &release.name, UnixMillis::now())?;
    let mut out = staging.create_binary().map_err(|error| disk(archive_bytes * 2, error))?;
    let unpacked = binary.copy_to(&mut out, limits.binary_bytes_max).map_err(|error| match error {
        CopyError::Refused(error) => error,
        CopyError::Write { size_bytes, source } => {
            let io = VersionsError::Io { what: "write", path: dir.join("hermes"), source };
            disk(archive_bytes.saturating_add(size_bytes), io)
        }
    })?;
    let size_bytes = out.metadata().map_or(0, |meta| meta.len());
    let needed_bytes = archive_bytes.saturating_add(size_bytes);
    let mut file = staging.seal(out).map_err(|error| disk(needed_bytes, error))?;
    let path = versions.path(&release.version);
    let on_disk = hash(&mut file)
        .map_err(|source| UpdateError::Versions(VersionsError::Io { what: "read back", path: path.clone(), source }))?;
    if on_disk != unpacked {
        return Err(UpdateError::ReadBack { path });
    }
    // Nobody else stages while this one holds the lock.
    let is_new = !path.exists();
    let path = staging.publish().map_err(|error| disk(needed_bytes, error))?;
    Ok(StagedImage { version: release.version.clone(), sha256: hex::encode(&on_disk), path, file, is_new })
}

/// Verifies that an archive on disk is a release signed with one of these base64 keys, under the name that its file has.
///
/// # Errors
/// [`UpdateError::BadKey`], [`UpdateError::ReadFile`], and those of an archive that is not to be trusted.
pub fn verify_file(path: &Path, keys: &[String]) -> Result<(), UpdateError> {
    let bad = |key: &String| UpdateError::BadKey { which: format!("'{key}'") };
    let keys = keys.iter().map(|key| verifying_key(key).ok_or_else(|| bad(key))).collect::<Result<Vec<_>, _>>()?;
    let read = |source| UpdateError::ReadFile { path: path.to_owned(), source };
    let mut archive = File::open(path).map_err(read)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    archive::verify(&mut archive, &name, None, &keys)?;
    Binary::open(&mut archive, &name, UnixMillis::now()).map(drop)
}

/// Runs what waits for the disk away from the runtime's thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UpdateError> + Send + 'static,
) -> Result<T, UpdateError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        // Cancelled it can only be by the runtime's end, and then nobody polls this.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Refuses early what is sure not to fit.
fn check_space(staging: &Staging, needed_bytes: u64) -> Result<(), UpdateError> {
    let dir = staging.versions_dir().to_owned();
    match available(&dir) {
        Some(available_bytes) if available_bytes < needed_bytes => {
            Err(UpdateError::NoSpace { dir, needed_bytes, available_bytes })
        }
        // A file system that does not say how much is free says so when it is full.
        _ => Ok(()),
    }
}

fn disk_error(versions: &Versions, needed_bytes: u64, error: VersionsError) -> UpdateError {
    disk_error_in(versions.dir(), needed_bytes, error)
}

fn disk_error_in(dir: &Path, needed_bytes: u64, error: VersionsError) -> UpdateError {
    let full = match &error {
        VersionsError::Io { source, .. } => no_space(source, dir, needed_bytes),
        _ => None,
    };
    full.unwrap_or(UpdateError::Versions(error))
}

/// Tells a full disk or quota from other failures.
fn no_space(error: &io::Error, dir: &Path, needed_bytes: u64) -> Option<UpdateError> {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded).then(|| UpdateError::NoSpace {
        dir: dir.to_owned(),
        needed_bytes,
        available_bytes: available(dir).unwrap_or(0),
    })
}

fn available(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}
