//! One agent process with its input and output.
//!
//! **Invariant:** the fds kept here are close-on-exec; a handoff carries duplicates.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::Signal;
use thiserror::Error;

use super::stream::{Input, Output};
use super::{AgentFds, AgentSpec};
use crate::fault::{self, Call};
use crate::handoff::reexec;
use crate::sys::child::{self, Child};

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
    child: Child,
    /// `None` once it was closed to end the process.
    pub(super) stdin: Option<Input>,
    pub(super) stdout: Output,
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
        command.arg0(name).args(&spec.command[1..]).current_dir(&spec.cwd);
        reexec::keep_to_ourselves(&mut command);
        // A pair each: one that carried both ways would lose output when the agent leaves input unread.
        let (stdin, its_stdin) = UnixStream::pair().map_err(SpawnError::Sockets)?;
        let (stdout, its_stdout) = UnixStream::pair().map_err(SpawnError::Sockets)?;
        for name in &spec.withheld {
            command.env_remove(name);
        }
        command.envs(&spec.env).stdin(OwnedFd::from(its_stdin)).stdout(OwnedFd::from(its_stdout));
        command.stderr(Stdio::inherit());
        let start = |source| SpawnError::Start { program: program.clone(), agent: agent.clone(), source };
        fault::io(Call::Spawn).map_err(start)?;
        let child = Child::spawn(&mut command).map_err(|error| match error {
            child::SpawnError::Start(source) => start(source),
            child::SpawnError::Watch(source) => SpawnError::Watch(source),
        })?;
        // It holds the agent's ends, whose closing by the agent must be seen.
        drop(command);
        let pid = child.pid();
        Self::with(child, stdin.into(), stdout.into()).map_err(|(child, error)| {
            tracing::warn!(pid, "an agent was started and cannot be spoken to: it is ended");
            let _status = child.reap();
            SpawnError::Watch(error)
        })
    }

    /// Takes over a process that the previous image started. The log is not looked at.
    ///
    /// # Errors
    /// The streams are neither pipes nor sockets, or the pidfd is none or that of another process.
    pub(super) fn adopt(pid: i32, fds: AgentFds) -> io::Result<Self> {
        let AgentFds { stdin, stdout, pidfd, log: _ } = fds;
        Self::with(Child::adopt(pid, pidfd)?, stdin, stdout).map_err(|(_, error)| error)
    }

    fn with(child: Child, stdin: OwnedFd, stdout: OwnedFd) -> Result<Self, (Child, io::Error)> {
        let streams = || -> io::Result<(Input, Output)> {
            for fd in [&stdin, &stdout] {
                rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
            }
            Ok((Input::new(stdin)?, Output::new(stdout)?))
        };
        match streams() {
            Ok((stdin, stdout)) => Ok(Self { child, stdin: Some(stdin), stdout }),
            Err(error) => Err((child, error)),
        }
    }

    /// The process id.
    pub(super) fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Duplicates of the fds but the log's. `None` if stdin was closed: then the process is being stopped.
    pub(super) fn duplicate(&self) -> io::Result<Option<AgentFds>> {
        let Some(stdin) = &self.stdin else { return Ok(None) };
        Ok(Some(AgentFds {
            stdin: stdin.as_fd().try_clone_to_owned()?,
            stdout: self.stdout.as_fd().try_clone_to_owned()?,
            pidfd: self.child.pidfd().try_clone()?,
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
        self.child.exited().await;
    }

    /// Signals the whole process group, unless the process was reaped.
    pub(super) fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    /// Ends what is left of the process group and reaps the process. `None` if it was not a child any more (after a
    /// crash of the daemon its agents belong to init) or has not ended.
    pub(super) fn reap(self) -> Option<ExitStatus> {
        self.child.reap()
    }
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
                withheld: std::collections::BTreeSet::new(),
                outgoing: "/nonexistent".into(),
            };
            spec.program()
        };
        assert_eq!(program("hermes"), std::env::current_exe().expect("procfs"));
        assert_eq!(program("hermes-acp"), PathBuf::from("hermes-acp"));
    }
}
