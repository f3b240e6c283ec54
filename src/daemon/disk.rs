//! Files that a restart would use: the image in `versions/current`, which is looked at again only when it has changed, and
//! gateway.toml, which is judged anew every few seconds, because the files and variables with its secrets count, too.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use super::releases::sha256_hex;
use super::run::Daemon;
use super::settings;
use crate::clock::MonoNanos;
use crate::config::{Config, Environment, Reader};
use crate::control::proto::DiskImage;
use crate::report::Chain;
use crate::update::Versions;

/// Which bytes a path leads to: device, inode, length, and when they were changed.
type Stamp = (u64, u64, u64, i64, i64);

fn stamp(of: &Metadata) -> Stamp {
    (of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec())
}

/// How long a verdict on gateway.toml holds while the file itself is the same.
const VERDICT: Duration = Duration::from_secs(2);

/// What is known of these files.
#[derive(Debug, Default)]
pub(super) struct Disk {
    image: Option<(Stamp, Digest)>,
    config: Option<Verdict>,
}

/// Why gateway.toml is refused, if it is.
#[derive(Debug)]
struct Verdict {
    of: Stamp,
    at: MonoNanos,
    refused: Option<String>,
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
        let environment = settings::environment(self.options.home.as_deref()).ok()?;
        self.disk.refused_config(self.home.config_file(), &environment, MonoNanos::now())
    }
}

impl Disk {
    fn refused_config(&mut self, path: &Path, environment: &Environment, now: MonoNanos) -> Option<String> {
        let of = stamp(&fs::metadata(path).ok()?);
        let verdict = self.config.take().filter(|verdict| verdict.of == of && now.since(verdict.at) < VERDICT);
        let judge = || {
            let read = Config::check(path, environment, Reader::Gateway);
            Verdict { of, at: now, refused: read.err().map(|error| Chain(&error).to_string()) }
        };
        self.config.insert(verdict.unwrap_or_else(judge)).refused.clone()
    }

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

    #[test]
    fn a_secret_file_that_is_mended_or_lost_changes_the_verdict() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, token) = (dir.path().join("gateway.toml"), dir.path().join("token"));
        fs::write(&path, "[platforms.telegram]\ntoken_file = 'token'\n").expect("writes");
        let environment = Environment::from_iter::<[(&str, &str); 0]>([]);
        let mut disk = Disk::default();
        let mut at = |secs: u64| disk.refused_config(&path, &environment, MonoNanos(secs * 1_000_000_000));
        assert!(at(100).is_some_and(|why| why.contains("'token_file' cannot be used")));
        fs::write(&token, "123:abc").expect("writes");
        assert!(at(101).is_some(), "not at every look");
        assert_eq!(at(102), None);
        fs::remove_file(&token).expect("removes");
        assert!(at(104).is_some());
        fs::write(&path, "[platforms.telegram]\ntoken = '123:abc'\n").expect("writes");
        assert_eq!(at(104), None, "the file itself is looked at each time");
    }

    #[tokio::test]
    async fn a_file_is_digested_once_and_again_when_it_has_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("hermes");
        let mut disk = Disk::default();
        for (text, digest) in [("a", "ca978112ca1b"), ("ab", "fb8e20fc2e4c")] {
            fs::write(&path, text).expect("writes");
            let found = stamp(&fs::metadata(&path).expect("is there"));
            let known = tokio::time::timeout(Duration::from_secs(30), async {
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
