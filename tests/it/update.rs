//! Which releases are staged and which are refused, and what is left on disk either way.

#![expect(clippy::unwrap_used, reason = "these are tests, and clippy.toml only knows those marked as such")]

mod refused;
mod release;
mod staged;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use hermes_gateway::update::{Have, Limits, Source, StageProgress, StagedImage, UpdateError, Versions, Want, stage};
use semver::Version;

use crate::support::release::{Publisher, ReleaseServer};

/// The version that runs in these tests.
const RUNNING: &str = "1.0.0";

fn v(text: &str) -> Version {
    Version::parse(text).unwrap()
}

/// A home in which [`RUNNING`] is installed, a publisher, and a server of what it publishes.
struct Setup {
    home: tempfile::TempDir,
    versions: Versions,
    publisher: Publisher,
    server: ReleaseServer,
    want: Want,
    floor: Version,
    limits: Limits,
}

impl Setup {
    async fn new() -> Self {
        let publisher = Publisher::new();
        let server = ReleaseServer::start(publisher.dir.path()).await;
        let home = tempfile::tempdir().unwrap();
        let versions = install_running(home.path());
        Self { home, versions, publisher, server, want: Want::Newest, floor: v(RUNNING), limits: Limits::default() }
    }

    fn source(&self) -> Source {
        let config = self.publisher.config(&self.server.url("manifest.json"));
        Source::new(&config).unwrap().with_limits(self.limits)
    }

    async fn stage_from(&self, source: &Source) -> Result<StagedImage, UpdateError> {
        self.stage_telling(source, |_| {}).await
    }

    async fn stage_telling(
        &self,
        source: &Source,
        progress: impl FnMut(StageProgress),
    ) -> Result<StagedImage, UpdateError> {
        let running = v(RUNNING);
        let have = Have::new(&running, &self.floor);
        stage(source, &self.versions, &self.want, have, progress).await
    }

    /// Everything under `versions/` but the lock: path to content, or to what a link says.
    fn disk(&self) -> BTreeMap<String, String> {
        disk(self.versions.dir())
    }
}

/// Puts [`RUNNING`] into a home as it would be after an earlier update.
fn install_running(home: &Path) -> Versions {
    let versions = Versions::new(home);
    let path = versions.path(&v(RUNNING));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "the image that runs").unwrap();
    versions.set_current(&v(RUNNING)).unwrap();
    versions
}

fn disk(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            let kind = entry.file_type().unwrap();
            let what = if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_dir() {
                open.push(path);
                "dir".to_owned()
            } else {
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
            };
            if name != ".lock" {
                found.insert(name, what);
            }
        }
    }
    found
}
