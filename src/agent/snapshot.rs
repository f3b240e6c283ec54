//! An agent's state on its way from one image to the next.
//!
//! **Invariant:** the state together with the fds is everything: what can be found out again from the fds (that the
//! process has ended, that its output is over) is not in it, and neither is what the configuration says: an agent's
//! environment may hold keys.

use std::io;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::connection::Connection;
use super::journal::{CarriedJournal, Found, Journal};
use super::limits::Backoff;
use super::process::Process;
use super::running::{Ending, Life, Running};
use super::stream::READ_BYTES;
use super::{AgentFds, AgentSnapshot, Limits};
use crate::clock::MonoNanos;
use crate::jsonrpc::LineBuffer;

/// Why an agent cannot be taken over.
#[derive(Debug, Error)]
pub enum AdoptError {
    /// The state is not one that this image understands.
    #[error("the agent's state cannot be read")]
    State(#[source] serde_json::Error),
    /// The state speaks of a process whose fds are not there.
    #[error("the fds of the agent process {pid} are missing")]
    FdsMissing {
        /// The process.
        pid: i32,
    },
    /// The log cannot be read.
    #[error("the agent's recovery log cannot be read")]
    Log(#[source] io::Error),
    /// There is no log, or the process that wrote it gave it up.
    #[error("the agent has no recovery log")]
    LogEmpty,
    /// The fds are not the streams and the pidfd of a process.
    #[error("the fds of the agent process {pid} are of no use")]
    Fds {
        /// The process.
        pid: i32,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

/// Why an agent cannot be frozen.
#[derive(Debug, Error)]
pub(super) enum FreezeError {
    #[error("cannot duplicate the fds of the agent process")]
    Duplicate(#[source] io::Error),
    #[error("the agent is being stopped")]
    Stopping,
    #[error("cannot write the state")]
    State(#[source] serde_json::Error),
}

/// The state, to be written.
#[derive(Serialize)]
pub(super) struct StateRef<'a> {
    version: u32,
    connection: &'a Connection,
    backoff: Backoff,
    process: Option<ProcessState>,
    start_at: MonoNanos,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<CarriedJournal>,
}

/// The state, as it was read.
#[derive(Deserialize)]
pub(super) struct State {
    #[serde(default)]
    version: u32,
    connection: Connection,
    #[serde(default)]
    backoff: Backoff,
    #[serde(default)]
    process: Option<ProcessState>,
    /// When the next process is started, if there is none.
    #[serde(default)]
    start_at: MonoNanos,
    /// Only in what is handed over: the log itself need not say it.
    #[serde(default)]
    journal: Option<CarriedJournal>,
}

#[derive(Serialize, Deserialize)]
struct ProcessState {
    pid: i32,
    started: MonoNanos,
    /// Output that was read and is not a whole line yet.
    #[serde(default, with = "super::connection::bytes_as_base64")]
    partial: Vec<u8>,
    #[serde(default)]
    ending: Option<Ending>,
}

impl State {
    /// So many bytes were given to the agent.
    pub(super) fn written(&mut self, bytes: usize) {
        self.connection.outgoing.written(bytes);
    }

    /// A read has left `rest` of a line that has not ended, in the place of what was left before if that line has.
    pub(super) fn push_partial(&mut self, rest: &[u8], ended_line: bool) {
        if let Some(process) = &mut self.process {
            if ended_line {
                process.partial.clear();
            }
            process.partial.extend_from_slice(rest);
        }
    }
}

/// What the state is at this moment.
pub(super) fn state<'a>(connection: &'a Connection, backoff: Backoff, life: &Life) -> StateRef<'a> {
    let (process, start_at) = match life {
        Life::Down { start_at } => (None, *start_at),
        Life::Up(running) => {
            let process = ProcessState {
                pid: running.process.pid(),
                started: running.started,
                partial: running.lines.partial().to_vec(),
                ending: running.ending.clone(),
            };
            (Some(process), MonoNanos::default())
        }
    };
    StateRef { version: AgentSnapshot::VERSION, connection, backoff, process, start_at, journal: None }
}

/// Takes the state, and duplicates of the fds.
pub(super) fn take(
    connection: &Connection,
    backoff: Backoff,
    life: &Life,
    journal: &Journal,
) -> Result<AgentSnapshot, FreezeError> {
    let fds = match life {
        Life::Down { .. } => None,
        Life::Up(running) => Some(duplicates(running, journal).map_err(FreezeError::Duplicate)?),
    };
    let fds = fds.map(|fds| fds.ok_or(FreezeError::Stopping)).transpose()?;
    // Without a process there is no log either, but turns that wait for the next one have been told of.
    let kept = fds.as_ref().is_none_or(|fds| fds.log.is_some());
    let journal = kept.then(|| journal.carried());
    let state = StateRef { journal, ..state(connection, backoff, life) };
    let state = serde_json::to_value(state).map_err(FreezeError::State)?;
    Ok(AgentSnapshot { state, fds, turns: connection.turns() })
}

/// Duplicates of all fds. `None` if the process is being stopped.
pub(super) fn duplicates(running: &Running, journal: &Journal) -> io::Result<Option<AgentFds>> {
    let Some(fds) = running.process.duplicate()? else { return Ok(None) };
    Ok(Some(AgentFds { log: journal.duplicate()?, ..fds }))
}

/// Whether this image understands the state of an agent, for the preflight child.
///
/// # Errors
/// What is not understood.
pub fn check_state(state: &serde_json::Value) -> Result<(), serde_json::Error> {
    State::deserialize(state).map(drop)
}

/// What an agent is made of again.
pub(super) struct Restored {
    pub(super) connection: Connection,
    pub(super) backoff: Backoff,
    pub(super) life: Life,
    pub(super) journal: Journal,
}

/// The reverse of [`take`]. A newer version is read as far as it is understood.
pub(super) fn restore(snapshot: AgentSnapshot, limits: &Limits) -> Result<Restored, AdoptError> {
    let mut state: State = serde_json::from_value(snapshot.state).map_err(AdoptError::State)?;
    let fds = snapshot.fds;
    if state.process.is_none() {
        let State { connection, backoff, start_at, journal, .. } = warned(state);
        let journal = journal.map(Journal::without_log).unwrap_or_default();
        return Ok(Restored { connection, backoff, life: Life::Down { start_at }, journal });
    }
    let pid = state.process.as_ref().map_or(0, |process| process.pid);
    let mut fds = fds.ok_or(AdoptError::FdsMissing { pid })?;
    let journal = fds.log.take().map(|log| Journal::adopt(log, state.journal.take())).unwrap_or_default();
    running(state, fds, journal, limits)
}

/// Makes an agent of what the log says and takes the output that it has recorded out of the queue.
///
/// # Errors
/// [`AdoptError`].
pub(super) fn recover(mut fds: AgentFds, limits: &Limits) -> Result<Restored, AdoptError> {
    let log = fds.log.take().ok_or(AdoptError::LogEmpty)?;
    let Found { journal, state, last, writing } = Journal::find(log)?;
    let mut restored = running(state, fds, journal, limits)?;
    let Life::Up(up) = &mut restored.life else { return Ok(restored) };
    if let Some(last) = last {
        let stdout = &up.process.stdout;
        let take = |count| stdout.consume(count, &mut vec![0; READ_BYTES]);
        let taken = stdout.unconsumed(last.number, last.bytes).and_then(take);
        taken.map_err(|source| AdoptError::Fds { pid: up.process.pid(), source })?;
    }
    if let Some(ending) = &mut up.ending {
        ending.forget_who_asked();
    }
    restored.connection.settle_doubt(MonoNanos::now(), writing);
    Ok(restored)
}

fn warned(state: State) -> State {
    if state.version > AgentSnapshot::VERSION {
        tracing::warn!(
            version = state.version,
            "the agent's state is of a newer version; what is new in it is ignored"
        );
    }
    state
}

fn running(state: State, fds: AgentFds, journal: Journal, limits: &Limits) -> Result<Restored, AdoptError> {
    let State { connection, backoff, process, .. } = warned(state);
    let ProcessState { pid, started, partial, ending } = process.ok_or(AdoptError::LogEmpty)?;
    let process = Process::adopt(pid, fds).map_err(|source| AdoptError::Fds { pid, source })?;
    let mut running = Running::new(process, started, limits);
    running.lines = LineBuffer::with_partial(limits.line_bytes_max, partial);
    running.ending = ending;
    Ok(Restored { connection, backoff, life: Life::Up(Box::new(running)), journal })
}
