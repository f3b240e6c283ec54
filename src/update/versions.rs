//! `HERMES_HOME/versions`: the images on disk.
//!
//! ```text
//! versions/.lock                       flock(2): one update at a time
//! versions/.staging-<version>-<pid>/   an update under way, or what is left of one that was interrupted
//! versions/<version>/hermes            complete, verified, durable
//! versions/current -> <version>        what starts next
//! ```
//!
//! **Invariants**
//! - `versions/<version>/hermes` is complete and durable from the moment it is there: it is written and synced under
//!   another name, then renamed, then the directory is synced.
//! - `current` is replaced by rename(2), so a power cut leaves the old link or the new one.
//! - Nothing is executed here, and an image is opened once: its hash was computed from the file that is handed out.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use semver::Version;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::fault::{self, Call};
use crate::hex;

const BINARY: &str = "hermes";
const CURRENT: &str = "current";
const CURRENT_NEW: &str = ".current.new";
const LOCK: &str = ".lock";
const STAGING_PREFIX: &str = ".staging-";

/// Why an operation on `HERMES_HOME/versions` failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VersionsError {
    /// Another process, or another task of this one, is staging or pruning.
    #[error("another update is under way: wait until it is over ({} is locked)", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// There is no such image.
    #[error("version {version} is not in {}", dir.display())]
    NotThere {
        /// The version.
        version: Version,
        /// Where it is not.
        dir: PathBuf,
    },
    /// Something is there that this program did not put there.
    #[error("{} is not what it should be ({expected}): move it away", path.display())]
    Unexpected {
        /// What is in the way.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// The file system refuses.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An image in `versions/`, opened once.
#[derive(Debug)]
pub struct StagedImage {
    /// Its version.
    pub version: Version,
    /// SHA-256 of its bytes, lower-case hex, computed from `file`.
    pub sha256: String,
    /// Where it lies; for people and for the next start, not for this exec.
    pub path: PathBuf,
    /// The file itself, open for reading only, at its start, close-on-exec.
    pub file: File,
    /// Whether `versions/` did not have this version before it was staged.
    pub is_new: bool,
}

/// `HERMES_HOME/versions`.
#[derive(Clone, Debug)]
pub struct Versions {
    dir: PathBuf,
}

impl Versions {
    /// The images of a home directory. Nothing is touched yet.
    pub fn new(home: &Path) -> Self {
        Self { dir: home.join("versions") }
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the binary of a version lies or would lie.
    pub fn path(&self, version: &Version) -> PathBuf {
        self.dir.join(version.to_string()).join(BINARY)
    }

    /// The versions that are there, oldest first.
    ///
    /// # Errors
    /// [`VersionsError::Io`].
    pub fn list(&self) -> Result<Vec<Version>, VersionsError> {
        let mut versions = Vec::new();
        for name in entries(&self.dir)? {
            let Some(version) = parse_name(&name) else { continue };
            if fs::symlink_metadata(self.path(&version)).is_ok_and(|meta| meta.is_file()) {
                versions.push(version);
            }
        }
        versions.sort();
        Ok(versions)
    }

    /// What `current` points to, whether that is there or not; `None` without the link.
    ///
    /// # Errors
    /// [`VersionsError::Unexpected`] if it is not a link to a version, [`VersionsError::Io`].
    pub fn current(&self) -> Result<Option<Version>, VersionsError> {
        let link = self.dir.join(CURRENT);
        match fs::read_link(&link) {
            Ok(target) => match parse_name(target.as_os_str()) {
                Some(version) => Ok(Some(version)),
                None => Err(VersionsError::Unexpected { path: link, expected: "a link to a version" }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(VersionsError::Unexpected { path: link, expected: "a link to a version" })
            }
            Err(error) => Err(io_error("read", link)(error)),
        }
    }

    /// Makes `current` point to a version, atomically and durably.
    ///
    /// # Errors
    /// [`VersionsError::NotThere`] if the version is not there, [`VersionsError::Io`].
    pub fn set_current(&self, version: &Version) -> Result<(), VersionsError> {
        if !fs::symlink_metadata(self.path(version)).is_ok_and(|meta| meta.is_file()) {
            return Err(VersionsError::NotThere { version: version.clone(), dir: self.dir.clone() });
        }
        let new = self.dir.join(CURRENT_NEW);
        let current = self.dir.join(CURRENT);
        // What a power cut left under this name is of no use.
        ignore_missing(fs::remove_file(&new)).map_err(io_error("remove", &new))?;
        fault::io(Call::Versions)
            .and_then(|()| std::os::unix::fs::symlink(version.to_string(), &new))
            .map_err(io_error("make the link", &new))?;
        fs::rename(&new, &current).map_err(io_error("replace", &current))?;
        sync_dir(&self.dir)
    }

    /// Opens an image and hashes what was opened: the way back to a version that is still there.
    ///
    /// # Errors
    /// [`VersionsError::NotThere`] if the version is not there, [`VersionsError::Unexpected`] if it is not a regular
    /// file, [`VersionsError::Io`].
    pub fn open(&self, version: &Version) -> Result<StagedImage, VersionsError> {
        let path = self.path(version);
        let mut file = match open_image(&path) {
            Err(VersionsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(VersionsError::NotThere { version: version.clone(), dir: self.dir.clone() });
            }
            other => other?,
        };
        let sha256 = hex::encode(&hash(&mut file).map_err(io_error("read", &path))?);
        Ok(StagedImage { version: version.clone(), sha256, path, file, is_new: false })
    }

    /// Removes every version that is neither in `keep` nor `current`, and returns which.
    ///
    /// # Errors
    /// [`VersionsError::Busy`] while an update is staged, and as [`Versions::current`].
    pub fn prune(&self, keep: &[Version]) -> Result<Vec<Version>, VersionsError> {
        let lock = self.lock()?;
        let current = self.current()?;
        let mut removed = Vec::new();
        for version in self.list()? {
            if keep.contains(&version) || current.as_ref() == Some(&version) {
                continue;
            }
            self.take_away(&version)?;
            removed.push(version);
        }
        sync_dir(&self.dir)?;
        drop(lock);
        Ok(removed)
    }

    /// Removes a version that was staged and must not be run, unless it is `current`.
    ///
    /// # Errors
    /// [`VersionsError::Busy`] while an update is staged, [`VersionsError::Io`], and as [`Versions::current`].
    pub fn remove(&self, version: &Version) -> Result<(), VersionsError> {
        let lock = self.lock()?;
        if self.current()?.as_ref() != Some(version) {
            self.take_away(version)?;
            sync_dir(&self.dir)?;
        }
        drop(lock);
        Ok(())
    }

    fn take_away(&self, version: &Version) -> Result<(), VersionsError> {
        let dir = self.dir.join(version.to_string());
        // Under this name a power cut half-way leaves nothing that looks like a version, and the next update clears
        // it.
        let doomed = self.dir.join(staging_name(version));
        fs::rename(&dir, &doomed).map_err(io_error("remove", &dir))?;
        fs::remove_dir_all(&doomed).map_err(io_error("remove", &doomed))
    }

    /// Takes the lock of an update and removes what interrupted ones left.
    pub(super) fn lock(&self) -> Result<Lock, VersionsError> {
        DirBuilder::new().recursive(true).mode(0o755).create(&self.dir).map_err(io_error("create", &self.dir))?;
        if let Some(home) = self.dir.parent() {
            sync_dir(home)?;
        }
        let path = self.dir.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(VersionsError::Busy { path }),
            Err(error) => return Err(io_error("lock", path)(error.into())),
        }
        // Whoever holds the lock is the only one that stages, so every staging directory is a leftover.
        for name in entries(&self.dir)? {
            if name.as_encoded_bytes().starts_with(STAGING_PREFIX.as_bytes()) {
                let leftover = self.dir.join(&name);
                ignore_missing(fs::remove_dir_all(&leftover)).map_err(io_error("remove", &leftover))?;
            }
        }
        Ok(Lock { versions: self.clone(), _file: file })
    }
}

/// The right to stage; given up when dropped.
#[derive(Debug)]
pub(super) struct Lock {
    versions: Versions,
    _file: File,
}

impl Lock {
    /// Makes the directory in which a version is staged.
    pub(super) fn begin(self, version: &Version) -> Result<Staging, VersionsError> {
        let dir = self.versions.dir.join(staging_name(version));
        DirBuilder::new().mode(0o700).create(&dir).map_err(io_error("create", &dir))?;
        Ok(Staging { dir, version: version.clone(), lock: self })
    }
}

/// A version that is being staged; what is there of it is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Staging {
    dir: PathBuf,
    version: Version,
    lock: Lock,
}

impl Staging {
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory that messages name: the other one is gone when they are read.
    pub(super) fn versions_dir(&self) -> &Path {
        &self.lock.versions.dir
    }

    /// A file without a name, so that what was verified cannot be changed by path, and goes away by itself.
    pub(super) fn create_archive(&self) -> Result<File, VersionsError> {
        tempfile::tempfile_in(&self.dir).map_err(io_error("create a file in", &self.dir))
    }

    /// Where the binary is written to.
    pub(super) fn create_binary(&self) -> Result<File, VersionsError> {
        let path = self.dir.join(BINARY);
        fault::io(Call::Versions).map_err(io_error("write", &path))?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(io_error("create", path))
    }

    /// Makes a written binary durable and executable, and opens it anew for reading.
    ///
    /// The writing end has to be closed before: execve(2) refuses a file that is open for writing.
    pub(super) fn seal(&self, written: File) -> Result<File, VersionsError> {
        let path = self.dir.join(BINARY);
        written.set_permissions(Permissions::from_mode(0o755)).map_err(io_error("make executable", &path))?;
        written.sync_all().map_err(io_error("sync", &path))?;
        drop(written);
        let file = open_image(&path)?;
        fs::set_permissions(&self.dir, Permissions::from_mode(0o755)).map_err(io_error("open up", &self.dir))?;
        sync_dir(&self.dir)?;
        Ok(file)
    }

    /// Gives the sealed binary its place under `versions/<version>`, in the place of one that is there already.
    pub(super) fn publish(self) -> Result<PathBuf, VersionsError> {
        let versions = &self.lock.versions;
        let dir = versions.dir.join(self.version.to_string());
        match fs::symlink_metadata(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::rename(&self.dir, &dir).map_err(io_error("create", &dir))?;
            }
            Err(error) => return Err(io_error("look at", dir)(error)),
            Ok(meta) if meta.is_dir() => {
                let path = versions.path(&self.version);
                fs::rename(self.dir.join(BINARY), &path).map_err(io_error("replace", &path))?;
                sync_dir(&dir)?;
            }
            Ok(_) => return Err(VersionsError::Unexpected { path: dir, expected: "a directory" }),
        }
        sync_dir(&versions.dir)?;
        Ok(versions.path(&self.version))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = ignore_missing(fs::remove_dir_all(&self.dir)) {
            tracing::warn!(%error, dir = %self.dir.display(), "a staging directory stays behind");
        }
    }
}

/// Hashes a file from its start and leaves it at its start.
pub(super) fn hash(file: &mut File) -> io::Result<[u8; 32]> {
    file.rewind()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    file.rewind()?;
    Ok(hasher.finalize().into())
}

fn open_image(path: &Path) -> Result<File, VersionsError> {
    // NONBLOCK, so that a pipe in this place does not stop the gateway; it means nothing for a file.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).expect("open flags are small numbers");
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(io_error("open", path))?;
    if !file.metadata().map_err(io_error("look at", path))?.is_file() {
        return Err(VersionsError::Unexpected { path: path.to_owned(), expected: "a regular file" });
    }
    Ok(file)
}

/// The names in a directory; none if it is not there.
fn entries(dir: &Path) -> Result<Vec<std::ffi::OsString>, VersionsError> {
    let listing = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io_error("list", dir))?,
    };
    listing.map(|entry| entry.map(|entry| entry.file_name()).map_err(io_error("list", dir))).collect()
}

fn parse_name(name: &OsStr) -> Option<Version> {
    let name = name.to_str()?;
    Version::parse(name).ok().filter(|version| version.to_string() == name)
}

fn staging_name(version: &Version) -> String {
    format!("{STAGING_PREFIX}{version}-{}", std::process::id())
}

fn sync_dir(dir: &Path) -> Result<(), VersionsError> {
    fault::io(Call::Fsync)
        .and_then(|()| File::open(dir))
        .and_then(|opened| opened.sync_all())
        .map_err(io_error("sync", dir))
}

fn ignore_missing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn io_error(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> VersionsError {
    let path = path.into();
    move |source| VersionsError::Io { what, path, source }
}

#[cfg(test)]
mod tests;
