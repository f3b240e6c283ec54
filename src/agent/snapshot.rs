//! An agent's state on its way from one image to the next.
//!
//! **Invariant:** the state together with the fds is everything: what can be found out again from the fds (that the
//! process has ended, that its output is over) is not in it, and neither is what the configuration says: an agent's
//! environment may hold keys.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use super::connection::Connection;
use super::limits::Backoff;
use super::log::AgentLog;
use super::process::Process;
use super::running::{Ending, Life, Running};
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
    /// There is no log, or it cannot be read.
    #[error("the agent's recovery log cannot be read")]
    Log(#[source] io::Error),
    /// The log says nothing.
    #[error("the agent's recovery log has no state")]
    LogEmpty,
    /// The fds are not the pipes and the pidfd of a process.
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

#[derive(Serialize)]
struct StateRef<'a> {
    version: u32,
    connection: &'a Connection,
    backoff: Backoff,
    process: Option<ProcessState>,
    start_at: MonoNanos,
}

#[derive(Deserialize)]
struct State {
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

/// Takes the state, and duplicates of the fds.
pub(super) fn take(
    connection: &Connection,
    backoff: Backoff,
    life: &Life,
    log: &AgentLog,
) -> Result<AgentSnapshot, FreezeError> {
    let fds = match life {
        Life::Down { .. } => None,
        Life::Up(running) => {
            let fds = running.process.duplicate().map_err(FreezeError::Duplicate)?.ok_or(FreezeError::Stopping)?;
            Some(AgentFds { log: log.fd().map_err(FreezeError::Duplicate)?, ..fds })
        }
    };
    let state = serde_json::to_value(state(connection, backoff, life)).map_err(FreezeError::State)?;
    Ok(AgentSnapshot { state, fds, turns: connection.turns() })
}

/// The state as the recovery log has it.
pub(super) fn raw(connection: &Connection, backoff: Backoff, life: &Life) -> Box<RawValue> {
    serde_json::value::to_raw_value(&state(connection, backoff, life)).expect("plain data serialises")
}

fn state<'a>(connection: &'a Connection, backoff: Backoff, life: &Life) -> StateRef<'a> {
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
    StateRef { version: AgentSnapshot::VERSION, connection, backoff, process, start_at }
}

/// Whether this image understands the state of an agent, for the preflight child.
///
/// # Errors
/// What is not understood.
pub fn check_state(state: &serde_json::Value) -> Result<(), serde_json::Error> {
    State::deserialize(state).map(drop)
}

/// The reverse. A newer version is read as far as it is understood.
pub(super) fn restore(snapshot: AgentSnapshot, limits: &Limits) -> Result<(Connection, Backoff, Life), AdoptError> {
    let state: State = serde_json::from_value(snapshot.state).map_err(AdoptError::State)?;
    if state.version > AgentSnapshot::VERSION {
        tracing::warn!(
            version = state.version,
            "the agent's state is of a newer version; what is new in it is ignored"
        );
    }
    let Some(ProcessState { pid, started, partial, ending }) = state.process else {
        return Ok((state.connection, state.backoff, Life::Down { start_at: state.start_at }));
    };
    let fds = snapshot.fds.ok_or(AdoptError::FdsMissing { pid })?;
    let process = Process::adopt(pid, fds).map_err(|source| AdoptError::Fds { pid, source })?;
    let mut running = Running::new(process, started, limits);
    running.lines = LineBuffer::with_partial(limits.line_bytes_max, partial);
    running.ending = ending;
    Ok((state.connection, state.backoff, Life::Up(Box::new(running))))
}
