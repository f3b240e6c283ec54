//! Looking for releases and staging them, with what this gateway knows of versions.

use std::fs::File;
use std::io::Read;

use semver::Version;
use sha2::{Digest, Sha256};

use super::run::Daemon;
use crate::control::proto::Progress;
use crate::report::Chain;
use crate::store::Store;
use crate::update::{self, Check, Have, Source, StageProgress, StagedImage, UpdateError, Versions, Want};

/// Where the store keeps the highest version that ever ran here: nothing older is accepted as an update.
const HIGHEST_VERSION: &str = "highest_version";

/// Everything that a look for releases or an update needs to know.
pub(super) struct Releases {
    source: Source,
    versions: Versions,
    running: Version,
    floor: Version,
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
        Have { running: &self.running, floor: &self.floor }
    }
}

impl Daemon {
    pub(super) async fn releases(&self) -> Result<Releases, UpdateError> {
        let running = running_version();
        let floor = highest_version(&self.store).await.unwrap_or_else(|| running.clone());
        let source = Source::new(&self.config.update)?;
        Ok(Releases { source, versions: Versions::new(self.home.path()), running, floor })
    }
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

/// Remembers that a version was tried here and did not stay.
pub(super) async fn mark_failed(store: &Store, version: &str, reason: &str) {
    let _ = (store, version, reason);
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

/// A step of staging, as clients and chats are told it.
pub(super) fn progress(at: StageProgress) -> Progress {
    let (message, done_bytes, total_bytes) = match at {
        StageProgress::Manifest => ("Looking for releases".to_owned(), None, None),
        StageProgress::Download { done_bytes, total_bytes } => {
            let size = total_bytes.map_or(String::new(), |total| format!(" ({} kB)", total.div_ceil(1000)));
            (format!("Downloading{size}"), Some(done_bytes), total_bytes)
        }
        StageProgress::Verify => ("Verifying digest and signature".to_owned(), None, None),
        StageProgress::Extract => ("Unpacking".to_owned(), None, None),
        StageProgress::Staged => ("Verified and staged; replacing the running image".to_owned(), None, None),
    };
    Progress { phase: at.phase().to_owned(), message, done_bytes, total_bytes }
}

/// SHA-256 of a file from where it stands to its end, lower-case hex.
pub(super) fn sha256_hex(file: &mut File) -> std::io::Result<String> {
    use std::fmt::Write;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hasher.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _infallible = write!(hex, "{byte:02x}");
        hex
    }))
}
