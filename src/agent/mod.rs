//! ACP agents as child processes: spawn, talk, watch, restart, and carry over an execve.
//!
//! One task drives one agent process ([`spawn`] or [`adopt`]). It takes [`AgentCommand`]s and tells what happens as
//! [`AgentEvent`]s, both through bounded queues.
//!
//! **Invariants**
//! - *Marker rule.* After [`AgentCommand::Freeze`] the task touches neither pipe nor process, and
//!   [`AgentEvent::Frozen`] is the last event it sends until [`AgentCommand::Thaw`]: whoever has received it has
//!   received everything the agent said before.
//! - The task owns its fds until the process ends; what it hands out in a [`AgentSnapshot`] are duplicates, so a
//!   handoff that does not happen costs nothing.
//! - An agent process is ended by its task alone, with its whole process group, and is reaped once.
//! - An agent outlives a kill of the gateway together with its fds and its log, if somebody keeps them
//!   ([`AgentEvent::Started`]); whoever has them goes on exactly where the log ends ([`recover`]).
//! - This module knows no chat platform.
//!
//! Where things are: `connection` is the protocol without I/O, `process` the kernel's side of a child, `stream` its
//! input and output, `running` reads, writes and ends one, `task` joins them, `snapshot` is what crosses a handoff,
//! `journal` what outlives a kill, `given` reads what goes along with a prompt, `files` keeps what is sent, `acp` the
//! wire, [`builtin`] the agents that come with the gateway.

mod acp;
pub mod builtin;
mod connection;
mod files;
mod given;
mod handle;
mod journal;
mod limits;
mod magic;
mod probe;
mod process;
mod running;
mod snapshot;
mod stream;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::chat::{LocalFile, OutFile};
use crate::id::{AgentName, SessionId, TurnId};
pub use handle::AgentHandle;
pub use limits::Limits;
pub use probe::{ProbeError, probe, probe_with};
pub use snapshot::{AdoptError, check_state};
pub use task::{adopt, adopt_with, recover, recover_with, spawn, spawn_with};

/// How to start an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSpec {
    /// Its name in the configuration.
    pub name: AgentName,
    /// Program and arguments. The program `hermes` means the running image itself.
    pub command: Vec<String>,
    /// Working directory, of the process and of its sessions; absolute.
    pub cwd: PathBuf,
    /// Added to the daemon's environment.
    pub env: BTreeMap<String, String>,
    /// Taken out of the daemon's environment: they hold its secrets.
    #[serde(default)]
    pub withheld: BTreeSet<String>,
    /// Where copies of the files in its answers are kept, a directory for each turn; absolute.
    #[serde(default)]
    pub outgoing: PathBuf,
}

impl AgentSpec {
    /// That of an agent that is no longer configured: it is stopped and never started again, so it ends the turns that
    /// it has.
    pub fn gone(name: &AgentName) -> Self {
        Self {
            name: name.clone(),
            command: Vec::new(),
            cwd: "/".into(),
            env: BTreeMap::new(),
            withheld: BTreeSet::new(),
            outgoing: PathBuf::new(),
        }
    }
}

/// What the gateway wants of an agent.
#[derive(Debug)]
pub enum AgentCommand {
    /// Run a turn. The gateway has at most one turn per session in flight.
    Prompt {
        /// The turn, named in every event about it.
        turn: TurnId,
        /// The session to use: loaded first if this process does not have it; a new one is made if there is none or
        /// it cannot be loaded.
        session: Option<SessionId>,
        /// What the user said.
        text: String,
        /// What came with it. Read when the prompt is given, so that nothing of it waits in memory.
        files: Vec<LocalFile>,
    },
    /// End a running turn early; it still ends with [`AgentEvent::TurnEnded`].
    Cancel {
        /// The turn.
        turn: TurnId,
    },
    /// Answer a permission request.
    Permission {
        /// As in [`AgentEvent::Permission`].
        request: u64,
        /// The option chosen; `None` means cancelled.
        option: Option<String>,
    },
    /// The whole reply of a turn that has ended is in the store: nothing of it is needed any more.
    Settled {
        /// The turn.
        turn: TurnId,
    },
    /// Stop at the next safe point and send [`AgentEvent::Frozen`].
    Freeze,
    /// Go on after a handoff that did not happen.
    Thaw,
    /// End the process: stdin closed, then SIGTERM, then SIGKILL, each after a grace; then the task ends with
    /// [`AgentEvent::Stopped`].
    Stop,
}

/// What an agent does.
#[derive(Debug)]
pub enum AgentEvent {
    /// A process was started; comes before [`AgentEvent::Ready`]. Not told after [`adopt`] and [`recover`]. Whoever keeps
    /// the fds lets the agent outlive a kill of the gateway ([`recover`]), and gives them up when there are others or the
    /// agent has stopped.
    Started {
        /// Who.
        agent: AgentName,
        /// Duplicates.
        fds: AgentFds,
    },
    /// The process answered `initialize`: it can take turns. Told once more after [`adopt`], which has not heard it.
    Ready {
        /// Who.
        agent: AgentName,
        /// Its process id.
        pid: i32,
        /// What it calls itself, where it says so.
        title: Option<String>,
    },
    /// The turn's session is known; comes before the first update of a turn whose session is new to the gateway.
    Session {
        /// The turn that needed it.
        turn: TurnId,
        /// Its session.
        session: SessionId,
        /// False when a session was asked for and could not be loaded, so that its history is lost.
        kept: bool,
    },
    /// The agent said or did something in a turn.
    Update {
        /// The turn.
        turn: TurnId,
        /// What.
        update: TurnUpdate,
    },
    /// The agent asks before it does something; the turn waits.
    Permission {
        /// The turn.
        turn: TurnId,
        /// Names the request in [`AgentCommand::Permission`]; unique within the agent, also across handoffs.
        request: u64,
        /// What it wants to do.
        title: String,
        /// What may be answered.
        options: Vec<PermissionOption>,
    },
    /// The turn is over; nothing about it follows.
    TurnEnded {
        /// The turn.
        turn: TurnId,
        /// How.
        outcome: TurnOutcome,
        /// All that was said in it. The connection leaves it out; the journal has it.
        text: String,
        /// The files in it, likewise.
        files: Vec<OutFile>,
    },
    /// The process ended without being asked to. [`AgentEvent::TurnEnded`] was sent for each of its turns, but for those
    /// that the next process is asked about: they go on with a [`TurnUpdate::SoFar`] if there is more to show, and end
    /// then.
    Died {
        /// Who.
        agent: AgentName,
        /// How, for people: `exit code 1`, `killed by signal 9`.
        how: String,
        /// When it will be started again.
        restart_in: Duration,
    },
    /// The process could not be started, or did not answer `initialize`.
    StartFailed {
        /// Who.
        agent: AgentName,
        /// Why, for people, with the fix where one is known.
        reason: String,
        /// When it will be tried again.
        restart_in: Duration,
    },
    /// The answer to [`AgentCommand::Freeze`].
    Frozen {
        /// Who.
        agent: AgentName,
        /// Everything the next image needs; without fds while no process runs.
        snapshot: AgentSnapshot,
    },
    /// The answer to [`AgentCommand::Freeze`] when the state cannot be taken, for example for want of fds: the handoff
    /// must not happen. The task waits for the thaw all the same.
    FreezeFailed {
        /// Who.
        agent: AgentName,
        /// Why, for people.
        reason: String,
    },
    /// The answer to [`AgentCommand::Stop`].
    Stopped {
        /// Who.
        agent: AgentName,
    },
}

/// The parts of a turn that are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnUpdate {
    /// A piece of the answer, to be appended.
    Text(String),
    /// All that was said in the turn, in the place of what was told before: its process died, and the next one has kept
    /// more of the answer. It begins with what was told.
    SoFar(String),
    /// A file, behind what was said before it.
    File(OutFile),
    /// A piece of the agent's reasoning.
    Thought(String),
    /// A tool call began or changed.
    Tool {
        /// Its title.
        title: String,
        /// `pending`, `in_progress`, `completed` or `failed`.
        status: String,
    },
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnOutcome {
    /// The agent ended it: ACP's stop reasons but `cancelled`.
    Ended {
        /// `end_turn`, `max_tokens`, `max_turn_requests` or `refusal`.
        stop_reason: String,
    },
    /// It was cancelled.
    Cancelled,
    /// It broke off: the agent answered with an error or died. The text is for the user.
    Failed {
        /// Why.
        reason: String,
    },
}

/// One answer to a permission request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionOption {
    /// The agent's id of the option.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// `allow_once`, `allow_always`, `reject_once` or `reject_always`.
    pub kind: String,
}

impl PermissionOption {
    /// Whether choosing it lets the agent go on. ACP: kinds are what to choose by, ids and positions mean nothing.
    pub fn allows(&self) -> bool {
        self.kind.starts_with("allow")
    }
}

/// What the next image needs to take an agent over in the middle of everything.
#[derive(Debug)]
pub struct AgentSnapshot {
    /// The connection's state; versioned by [`AgentSnapshot::VERSION`].
    pub state: serde_json::Value,
    /// The process's pipes and pidfd, while one runs.
    pub fds: Option<AgentFds>,
    /// Turns in flight, for the count that is shown.
    pub turns: usize,
}

impl AgentSnapshot {
    /// The version of `state` that this image writes and the highest it reads.
    /// Version 2 may come with sockets where version 1 had pipes, and with a log.
    pub const VERSION: u32 = 2;
}

/// The fds of an agent process.
#[derive(Debug)]
pub struct AgentFds {
    /// Our end of its stdin: an AF_UNIX stream socket, or the write end of a pipe if an earlier image started it.
    pub stdin: OwnedFd,
    /// Our end of its stdout, likewise.
    pub stdout: OwnedFd,
    /// Its pidfd (pidfd_open(2)).
    pub pidfd: OwnedFd,
    /// Its recovery log ([`crate::recovery`]). Without one it can be handed over, but not recovered.
    pub log: Option<OwnedFd>,
}

/// A turn that was found in the log of an agent whose gateway was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredTurn {
    /// The turn.
    pub turn: TurnId,
    /// Its session, as far as it is known.
    pub session: Option<SessionId>,
    /// All of its text so far; what follows comes as [`AgentEvent::Update`].
    pub text: String,
    /// The files in it so far.
    pub files: Vec<OutFile>,
    /// How it ended, if it has; this is not told again.
    pub outcome: Option<TurnOutcome>,
    /// What the agent has asked and nobody has answered.
    pub permissions: Vec<RecoveredPermission>,
}

/// An open permission request, as in [`AgentEvent::Permission`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredPermission {
    /// Names it in [`AgentCommand::Permission`].
    pub request: u64,
    /// What the agent wants to do.
    pub title: String,
    /// What may be answered.
    pub options: Vec<PermissionOption>,
}

impl RecoveredTurn {
    /// A turn of which nothing but its prompt is known.
    fn new(turn: TurnId) -> Self {
        Self { turn, session: None, text: String::new(), files: Vec::new(), outcome: None, permissions: Vec::new() }
    }
}
