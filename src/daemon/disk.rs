//! Files that a restart would use, looked at again only when they have changed: the image in `versions/current`, and
//! gateway.toml.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use super::releases::sha256_hex;
use super::run::Daemon;
use super::settings;
use crate::config::Config;
use crate::control::proto::DiskImage;
use crate::report::Chain;
use crate::update::Versions;

/// Which bytes a path leads to: device, inode, length, and when they were changed.
type Stamp = (u64, u64, u64, i64, i64);

fn stamp(of: &Metadata) -> Stamp {
    (of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec())
}

/// What is known of these files.
#[derive(Debug, Default)]
pub(super) struct Disk {
    image: Option<(Stamp, Digest)>,
    config: Option<(Stamp, Option<String>)>,
}

/// The digest of a file, which takes a while.
#[derive(Debug)]
enum Digest {
    UnderWay(JoinHandle<std::io::Result<String>>),
    /// None if the file cannot be read.
    Known(Option<String>),
}

impl Daemon {
    /// The image in `versions/current`. The digest of one that does not run is computed beside the loop.
    pub(super) fn image_on_disk(&mut self) -> Option<DiskImage> {
        let versions = Versions::new(self.home.path());
        // One that cannot be read is what `hermes doctor` tells.
        let version = versions.current().ok().flatten()?;
        let path = versions.path(&version);
        let Ok(found) = fs::metadata(&path) else {
            return Some(DiskImage { version: version.to_string(), sha256: None });
        };
        let runs = self.image.file.metadata().is_ok_and(|running| stamp(&running) == stamp(&found));
        let sha256 = if runs {
            (!self.image.id.sha256.is_empty()).then(|| self.image.id.sha256.clone())
        } else {
            self.disk.digest(&path, stamp(&found))
        };
        Some(DiskImage { version: version.to_string(), sha256 })
    }

    /// Why gateway.toml would be refused by the next image.
    pub(super) fn refused_config(&mut self) -> Option<String> {
        let path = self.home.config_file();
        let found = stamp(&fs::metadata(path).ok()?);
        if let Some((of, refused)) = &self.disk.config
            && *of == found
        {
            return refused.clone();
        }
        let environment = settings::environment(self.options.home.as_deref()).ok()?;
        let refused = Config::load(path, &environment).err().map(|error| Chain(&error).to_string());
        self.disk.config = Some((found, refused.clone()));
        refused
    }
}

impl Disk {
    fn digest(&mut self, path: &Path, found: Stamp) -> Option<String> {
        let (of, digest) = self.image.get_or_insert_with(|| (found, begin(path)));
        if *of != found {
            (*of, *digest) = (found, begin(path));
        }
        if let Digest::UnderWay(job) = digest
            && let Some(ended) = job.now_or_never()
        {
            *digest = Digest::Known(ended.ok().and_then(Result::ok));
        }
        match digest {
            Digest::Known(sha256) => sha256.clone(),
            Digest::UnderWay(_) => None,
        }
    }
}

fn begin(path: &Path) -> Digest {
    let path = path.to_owned();
    Digest::UnderWay(tokio::task::spawn_blocking(move || sha256_hex(&mut File::open(path)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_digested_once_and_again_when_it_has_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("hermes");
        let mut disk = Disk::default();
        for (text, digest) in [("a", "ca978112ca1b"), ("ab", "fb8e20fc2e4c")] {
            fs::write(&path, text).expect("writes");
            let found = stamp(&fs::metadata(&path).expect("is there"));
            let known = tokio::time::timeout(std::time::Duration::from_secs(30), async {
                loop {
                    if let Some(known) = disk.digest(&path, found) {
                        return known;
                    }
                    tokio::task::yield_now().await;
                }
            });
            assert!(known.await.expect("in time").starts_with(digest));
        }
        let gone = dir.path().join("gone");
        let mut disk = Disk { image: Some(((1, 1, 1, 1, 1), begin(&gone))), config: None };
        if let Some((_, Digest::UnderWay(job))) = &mut disk.image {
            job.await.expect("no panic").expect_err("there is no such file");
        }
    }
}
