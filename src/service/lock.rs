//! `gateway.lock`: one gateway for one home.
//!
//! The lock is flock(2) on the open file. It belongs to the open file description, so it survives an execve that
//! carries the fd and is held without a gap; and the kernel gives it up when the process dies, however it dies. The
//! file's content, the pid of the holder, is for messages only and never trusted.
//!
//! **Invariant:** the file is never removed: whoever removed it could leave two processes with locks on two files of
//! the same name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use thiserror::Error;

/// Agents of the gateway may write in its home: no link is followed to the file, and nothing else is waited for.
const HONEST: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

/// Why the lock was not taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{}", Held { path, pid: *holder_pid })]
    Held {
        /// The file.
        path: PathBuf,
        /// The process that has it, if it has written its pid.
        holder_pid: Option<u32>,
    },
    /// The file cannot be opened, locked or written.
    #[error("cannot lock {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

struct Held<'a> {
    path: &'a Path,
    pid: Option<u32>,
}

impl std::fmt::Display for Held<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.display();
        match self.pid {
            Some(pid) => write!(f, "a gateway already runs on this home: process {pid} holds {path}"),
            None => write!(f, "a gateway already runs on this home: another process holds {path}"),
        }
    }
}

/// The lock, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock and writes the pid of this process into the file. Does not wait for another holder.
    ///
    /// # Errors
    /// [`LockError::Held`], [`LockError::Io`].
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(HONEST.bits().cast_signed())
            .open(path)
            .map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(LockError::Held { path: path.to_owned(), holder_pid: read_pid(&mut file) });
            }
            Err(error) => return Err(io(error.into())),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io)?;
        Ok(Self { file })
    }

    /// Takes over the lock that the image before this one held. Its pid is still that of this process.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { file: File::from(fd) }
    }

    /// The fd to carry to the next image. The lock is held as long as any duplicate of it is open.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The process that holds the lock of a home now; nothing if none does. Does not take the lock for longer than
    /// the question.
    ///
    /// # Errors
    /// [`LockError::Io`], but not for a missing file.
    pub fn holder(path: &Path) -> Result<Option<Holder>, LockError> {
        let io = |source| LockError::Io { path: path.to_owned(), source };
        let opened = File::options().read(true).custom_flags(HONEST.bits().cast_signed()).open(path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        // Shared, so that two who ask do not find each other.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(Errno::WOULDBLOCK) => Ok(Some(Holder { pid: read_pid(&mut file) })),
            Err(error) => Err(io(error.into())),
        }
    }
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process, unless it has not written its pid yet.
    pub pid: Option<u32>,
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(dir: &tempfile::TempDir) -> PathBuf {
        dir.path().join("gateway.lock")
    }

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = path(&dir);
        assert_eq!(Lock::holder(&path).expect("asked"), None, "no file");
        let lock = Lock::acquire(&path).expect("free");
        let error = Lock::acquire(&path).expect_err("held");
        assert_eq!(
            error.to_string(),
            format!("a gateway already runs on this home: process {} holds {}", std::process::id(), path.display())
        );
        assert_eq!(Lock::holder(&path).expect("asked"), Some(Holder { pid: Some(std::process::id()) }));
        drop(lock);
        assert_eq!(Lock::holder(&path).expect("asked"), None, "given up");
        Lock::acquire(&path).expect("free again, with a pid in it");
    }

    #[test]
    fn a_carried_fd_carries_the_lock() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = path(&dir);
        let first = Lock::acquire(&path).expect("free");
        let carried = first.as_fd().try_clone_to_owned().expect("a duplicate");
        drop(first);
        let second = Lock::from_fd(carried);
        assert!(matches!(Lock::acquire(&path), Err(LockError::Held { .. })));
        drop(second);
        assert!(Lock::acquire(&path).is_ok());
    }

    #[test]
    fn what_is_in_the_file_is_not_trusted() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = path(&dir);
        std::fs::write(&path, "not a pid, and far longer than one").expect("written");
        let lock = Lock::acquire(&path).expect("nobody holds it");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), format!("{}\n", std::process::id()));
        lock.file.set_len(0).expect("emptied");
        let error = Lock::acquire(&path).expect_err("held").to_string();
        assert!(error.contains("another process holds"), "{error}");
    }

    #[test]
    fn no_link_is_followed_and_no_fifo_is_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, other) = (path(&dir), dir.path().join("other"));
        std::fs::write(&other, "precious").expect("written");
        std::os::unix::fs::symlink(&other, &path).expect("linked");
        assert!(matches!(Lock::acquire(&path), Err(LockError::Io { .. })));
        assert!(matches!(Lock::holder(&path), Err(LockError::Io { .. })));
        assert_eq!(std::fs::read_to_string(&other).expect("read"), "precious");
        std::fs::remove_file(&path).expect("removed");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made");
        assert_eq!(Lock::holder(&path).expect("asked"), None);
        assert!(Lock::acquire(&path).is_err());
    }

    #[test]
    fn a_lock_that_cannot_be_made_is_told() {
        assert!(matches!(Lock::acquire(Path::new("/no/such/dir/lock")), Err(LockError::Io { .. })));
    }
}
