//! A child process that outlives an execve of its parent: started, watched, signalled and reaped through its pidfd.
//!
//! **Invariants**
//! - The process leads its own process group, so that what it started can be ended with it.
//! - It is reaped through its pidfd and nowhere else. Until then its PID cannot name anything else, so the group is
//!   signalled before.
//! - The pidfd is close-on-exec; a handoff carries a duplicate.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use tokio::io::unix::AsyncFd;

use super::{readiness, signals};

/// A running process, or one that nobody has reaped.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
}

/// Why a process could not be started.
#[derive(Debug)]
pub enum SpawnError {
    /// It did not start.
    Start(io::Error),
    /// It started, cannot be watched, and was ended.
    Watch(io::Error),
}

impl Child {
    /// Starts `command` in a process group of its own with no signal blocked. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`SpawnError`].
    pub fn spawn(command: &mut Command) -> Result<Self, SpawnError> {
        command.process_group(0);
        signals::unblock_in(command);
        // Neither waits nor kills when dropped: the pidfd does the one and this module the other.
        let child = command.spawn().map_err(SpawnError::Start)?;
        let pid = Pid::from_child(&child);
        let watched = || -> io::Result<Self> {
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
            Ok(Self { pid, pidfd: readiness::readable(pidfd)? })
        };
        watched().map_err(|error| {
            kill_unwatched(pid);
            SpawnError::Watch(error)
        })
    }

    /// Takes over a process that an image before this one started. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The pidfd is none, or that of another process than `pid`.
    pub fn adopt(pid: i32, pidfd: OwnedFd) -> io::Result<Self> {
        let watched = watched_process(&pidfd)?;
        // A process that somebody else has reaped (after a crash of the daemon, init does) has no number any more.
        if pid <= 0 || watched.is_some_and(|watched| watched != pid) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the pidfd is that of another process"));
        }
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        rustix::io::fcntl_setfd(&pidfd, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self { pid, pidfd: readiness::readable(pidfd)? })
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Its pidfd (pidfd_open(2)).
    pub fn pidfd(&self) -> &OwnedFd {
        self.pidfd.get_ref()
    }

    /// Waits until the process has ended.
    pub async fn exited(&self) {
        // An error would mean that the runtime is shutting down; then nothing is waited for any more.
        let _ready = self.pidfd.readable().await;
    }

    /// Signals the whole process group, unless the process was reaped: then its number may be another's.
    pub fn signal(&self, signal: Signal) {
        if watched_process(self.pidfd.get_ref()).ok().flatten() != Some(self.pid()) {
            return;
        }
        if let Err(error) = rustix::process::kill_process_group(self.pid, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid = self.pid(), %error, "cannot signal a process group");
        }
    }

    /// Ends what is left of the process group and reaps the process. `None` if it was not a child any more (after a
    /// crash of the daemon its children belong to init) or has not ended.
    pub fn reap(self) -> Option<ExitStatus> {
        self.signal(Signal::KILL);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options).ok()??;
        exit_status(&status)
    }
}

/// How a process ended, by waitid(2). `None` if it has not.
pub fn exit_status(status: &WaitIdStatus) -> Option<ExitStatus> {
    let raw = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) => signal,
        (None, None) => return None,
    };
    Some(ExitStatus::from_raw(raw))
}

/// The process that a pidfd stands for; `None` once it was reaped (proc_pid_fdinfo(5)).
///
/// # Errors
/// It is no pidfd.
pub fn watched_process(pidfd: &OwnedFd) -> io::Result<Option<i32>> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    let pid: i32 = pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a pidfd"))?;
    Ok((pid > 0).then_some(pid))
}

/// Says how a process ended: `exit code 1`, `killed by signal 9`.
pub fn describe(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("exit code {code}"),
        Some((None, Some(signal))) => format!("killed by signal {signal}"),
        Some((None, None)) | None => "exit status unknown".to_owned(),
    }
}

/// Ends a process that was started and cannot be watched. It is killed, so the wait is short.
fn kill_unwatched(pid: Pid) {
    let _gone = rustix::process::kill_process_group(pid, Signal::KILL);
    let _status = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_words() {
        assert_eq!(describe(Some(ExitStatus::from_raw(3 << 8))), "exit code 3");
        assert_eq!(describe(Some(ExitStatus::from_raw(9))), "killed by signal 9");
        assert_eq!(describe(None), "exit status unknown");
    }

    #[tokio::test]
    async fn a_process_is_adopted_by_its_own_pidfd_only_and_reaped_once_it_has_ended() {
        let mut command = Command::new("/bin/sh");
        let child = Child::spawn(command.args(["-c", "exit 7"])).map_err(|_| "it starts").expect("it starts");
        let (pid, pidfd) = (child.pid(), child.pidfd().try_clone().expect("duplicates"));
        assert!(Child::adopt(pid + 1, pidfd.try_clone().expect("duplicates")).is_err());
        let adopted = Child::adopt(pid, pidfd).expect("its own");
        adopted.exited().await;
        assert_eq!(describe(adopted.reap()), "exit code 7");
        assert_eq!(child.reap(), None);
    }
}
