//! One agent process: start it, watch it, signal it, reap it.
//!
//! **Invariants**
//! - The process leads its own process group, so that what it started can be ended with it.
//! - It is reaped through its pidfd and nowhere else. Until then its PID cannot name anything else, so the group is
//!   signalled before.
//! - The fds kept here are close-on-exec; a handoff carries duplicates.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use super::stream::{Input, Output};
use super::{AgentFds, AgentSpec};
use crate::fault::{self, Call};
use crate::handoff::reexec::HANDOFF_VARIABLES;
use crate::sys::readiness;

/// Variables by which systemd (sd_notify(3), sd_listen_fds(3)) and the previous image speak to the daemon alone.
const DAEMON_VARIABLES: [&str; 5] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY", "FDSTORE"];

/// Why an agent process could not be started.
#[derive(Debug, Error)]
pub(super) enum SpawnError {
    #[error("its command is empty; set `command` in [agents.{0}]")]
    NoCommand(String),
    #[error("its working directory {cwd} is not there; check `cwd` in [agents.{agent}]")]
    NoCwd { cwd: PathBuf, agent: String },
    #[error("cannot start {program}; check `command` in [agents.{agent}]")]
    Start {
        program: PathBuf,
        agent: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot make the sockets of its input and output")]
    Sockets(#[source] io::Error),
    #[error("cannot watch the process")]
    Watch(#[source] io::Error),
}

impl AgentSpec {
    /// The program to execute. `hermes` is the running image; its file may have been replaced since it was started,
    /// and then only `/proc/self/exe` still leads to it (proc_pid_exe(5)).
    pub fn program(&self) -> PathBuf {
        match self.command.first().map(String::as_str) {
            Some("hermes") => match std::env::current_exe() {
                Ok(path) if !path.to_string_lossy().ends_with(" (deleted)") => path,
                _ => PathBuf::from("/proc/self/exe"),
            },
            program => PathBuf::from(program.unwrap_or_default()),
        }
    }
}

/// A running agent process with its input and output.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    /// `None` once it was closed to end the process.
    pub(super) stdin: Option<Input>,
    pub(super) stdout: Output,
    pidfd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Starts `spec`'s program. Its stderr is the daemon's.
    pub(super) fn spawn(spec: &AgentSpec) -> Result<Self, SpawnError> {
        let agent = spec.name.to_string();
        let Some(name) = spec.command.first() else { return Err(SpawnError::NoCommand(agent)) };
        // The kernel reports both as ENOENT; only this tells them apart.
        if !spec.cwd.is_dir() {
            return Err(SpawnError::NoCwd { cwd: spec.cwd.clone(), agent });
        }
        let program = spec.program();
        let mut command = Command::new(&program);
        command.arg0(name).args(&spec.command[1..]).current_dir(&spec.cwd).process_group(0);
        DAEMON_VARIABLES.iter().chain(&HANDOFF_VARIABLES).for_each(|name| {
            command.env_remove(name);
        });
        // A pair each: one that carried both ways would lose output when the agent leaves input unread.
        let (stdin, its_stdin) = UnixStream::pair().map_err(SpawnError::Sockets)?;
        let (stdout, its_stdout) = UnixStream::pair().map_err(SpawnError::Sockets)?;
        command.envs(&spec.env).stdin(OwnedFd::from(its_stdin)).stdout(OwnedFd::from(its_stdout));
        command.stderr(Stdio::inherit());
        let child = fault::io(Call::Spawn).and_then(|()| command.spawn());
        let child = child.map_err(|source| SpawnError::Start { program, agent, source })?;
        let pid = Pid::from_child(&child);
        // Neither waits nor kills when dropped: the pidfd does the one and this module the other. The command holds the
        // agent's ends, whose closing by the agent must be seen.
        drop((child, command));
        let watched = || -> io::Result<Self> {
            let fds = AgentFds {
                stdin: stdin.into(),
                stdout: stdout.into(),
                pidfd: rustix::process::pidfd_open(pid, PidfdFlags::empty())?,
                log: None,
            };
            Self::from_fds(pid, fds)
        };
        watched().map_err(|error| {
            kill_unwatched(pid);
            SpawnError::Watch(error)
        })
    }

    /// Takes over a process that the previous image started. The log is not looked at.
    ///
    /// # Errors
    /// The streams are neither pipes nor sockets, or the pidfd is none or that of another process.
    pub(super) fn adopt(pid: i32, fds: AgentFds) -> io::Result<Self> {
        let watched = watched_process(&fds.pidfd)?;
        // A process that somebody else has reaped (after a crash of the daemon, init does) has no number any more.
        if pid <= 0 || watched.is_some_and(|watched| watched != pid) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the pidfd is that of another process"));
        }
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        Self::from_fds(pid, fds)
    }

    fn from_fds(pid: Pid, fds: AgentFds) -> io::Result<Self> {
        let AgentFds { stdin, stdout, pidfd, log: _ } = fds;
        for fd in [&stdin, &stdout, &pidfd] {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
        }
        Ok(Self {
            pid,
            stdin: Some(Input::new(stdin)?),
            stdout: Output::new(stdout)?,
            pidfd: readiness::readable(pidfd)?,
        })
    }

    /// The process id.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Duplicates of the fds but the log's. `None` if stdin was closed: then the process is being stopped.
    pub(super) fn duplicate(&self) -> io::Result<Option<AgentFds>> {
        let Some(stdin) = &self.stdin else { return Ok(None) };
        Ok(Some(AgentFds {
            stdin: stdin.as_fd().try_clone_to_owned()?,
            stdout: self.stdout.as_fd().try_clone_to_owned()?,
            pidfd: self.pidfd.get_ref().try_clone()?,
            log: None,
        }))
    }

    /// Waits until stdin takes something.
    pub(super) async fn writable(&self) {
        match &self.stdin {
            Some(stdin) => stdin.writable().await,
            None => std::future::pending().await,
        }
    }

    /// Ends its stdin.
    pub(super) fn end_input(&mut self) {
        if let Some(stdin) = self.stdin.take() {
            stdin.end();
        }
    }

    /// Waits until the process has ended.
    pub(super) async fn exited(&self) {
        // An error would mean that the runtime is shutting down; then nothing is waited for any more.
        let _ready = self.pidfd.readable().await;
    }

    /// Signals the whole process group, unless the process was reaped: then its number may be another's.
    pub(super) fn signal(&self, signal: Signal) {
        if watched_process(self.pidfd.get_ref()).ok().flatten() != Some(self.pid()) {
            return;
        }
        if let Err(error) = rustix::process::kill_process_group(self.pid, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid = self.pid(), %error, "cannot signal an agent's process group");
        }
    }

    /// Ends what is left of the process group and reaps the process. `None` if it was not a child any more (after a
    /// crash of the daemon its agents belong to init) or has not ended.
    pub(super) fn reap(self) -> Option<ExitStatus> {
        self.signal(Signal::KILL);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options).ok()??;
        let raw = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => (code & 0xff) << 8,
            (None, Some(signal)) => signal,
            (None, None) => return None,
        };
        Some(ExitStatus::from_raw(raw))
    }
}

/// Says how a process ended: `exit code 1`, `killed by signal 9`.
pub(super) fn describe(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("exit code {code}"),
        Some((None, Some(signal))) => format!("killed by signal {signal}"),
        Some((None, None)) | None => "exit status unknown".to_owned(),
    }
}

/// The process that a pidfd stands for; `None` once it was reaped (proc_pid_fdinfo(5)).
fn watched_process(pidfd: &OwnedFd) -> io::Result<Option<i32>> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    let pid: i32 = pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a pidfd"))?;
    Ok((pid > 0).then_some(pid))
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
    fn hermes_is_the_running_image_and_other_programs_are_themselves() {
        let program = |name: &str| {
            let spec = AgentSpec {
                name: "a".into(),
                command: vec![name.to_owned()],
                cwd: "/".into(),
                env: std::collections::BTreeMap::new(),
            };
            spec.program()
        };
        assert_eq!(program("hermes"), std::env::current_exe().expect("procfs"));
        assert_eq!(program("hermes-acp"), PathBuf::from("hermes-acp"));
    }

    #[test]
    fn ends_are_told_in_words() {
        assert_eq!(describe(Some(ExitStatus::from_raw(3 << 8))), "exit code 3");
        assert_eq!(describe(Some(ExitStatus::from_raw(9))), "killed by signal 9");
        assert_eq!(describe(None), "exit status unknown");
    }
}
