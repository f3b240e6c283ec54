//! Trying an agent out, with a process of its own.
//!
//! **Invariant:** the process is ended with its group, whatever came of it, also if the future is dropped.

use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::{AgentCommand, AgentEvent, AgentHandle, AgentSpec, Limits, TurnOutcome, spawn_with};
use crate::id::TurnId;

/// Events that may wait.
const EVENTS: usize = 16;
/// The only turn of the process.
const TURN: TurnId = TurnId(0);
/// The steps of ending a process, each of which takes a grace at most, and one more to tell so.
const ENDING_STEPS: u32 = 4;

/// Why an agent did not pass.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// It did not start, or died.
    #[error("{0}")]
    Process(String),
    /// Its answer was none to be content with.
    #[error("the turn did not end well: {0}")]
    Turn(String),
    /// It was too slow.
    #[error("it did not {what} within {} s", after.as_secs_f32())]
    TimedOut {
        /// `answer initialize` or `end the turn`.
        what: &'static str,
        /// How long was waited in all.
        after: Duration,
    },
}

/// Starts a process for `spec`, waits for its answer to `initialize` and, if there is a `prompt`, for a turn that ends
/// with `end_turn`; no longer than `deadline` in all, and a few seconds more to end the process. Permission requests are
/// answered `cancelled`. Needs a tokio runtime.
///
/// # Errors
/// [`ProbeError`].
pub async fn probe(spec: AgentSpec, prompt: Option<String>, deadline: Duration) -> Result<(), ProbeError> {
    probe_with(spec, Limits::default(), prompt, deadline).await
}

/// As [`probe`], with other limits.
///
/// # Errors
/// As [`probe`].
pub async fn probe_with(
    spec: AgentSpec,
    limits: Limits,
    prompt: Option<String>,
    deadline: Duration,
) -> Result<(), ProbeError> {
    let (sender, mut events) = mpsc::channel(EVENTS);
    let handle = spawn_with(spec, limits, sender);
    let until = Instant::now() + deadline;
    let slow = |what| move |_| ProbeError::TimedOut { what, after: deadline };
    let ready = timeout_at(until, ready(&mut events)).await.map_err(slow("answer initialize")).flatten();
    let result = match (ready, prompt) {
        (Ok(()), Some(prompt)) => {
            let turn = timeout_at(until, turn(&handle, &mut events, prompt)).await;
            turn.map_err(slow("end the turn")).flatten()
        }
        (ready, _) => ready,
    };
    let ended = async {
        // One that has stopped already takes no command.
        let _over = handle.send(AgentCommand::Stop).await;
        while events.recv().await.is_some() {}
    };
    if timeout(limits.stop_grace.saturating_mul(ENDING_STEPS), ended).await.is_err() {
        tracing::warn!(agent = %handle.name(), "a probed agent is still being ended");
    }
    result
}

async fn ready(events: &mut mpsc::Receiver<AgentEvent>) -> Result<(), ProbeError> {
    loop {
        match events.recv().await {
            Some(AgentEvent::Ready { .. }) => return Ok(()),
            Some(event) => broken(event)?,
            None => return Err(ProbeError::Process("its task ended".to_owned())),
        }
    }
}

async fn turn(handle: &AgentHandle, events: &mut mpsc::Receiver<AgentEvent>, text: String) -> Result<(), ProbeError> {
    let over = || ProbeError::Process("its task ended".to_owned());
    let prompt = AgentCommand::Prompt { turn: TURN, session: None, text, files: Vec::new() };
    handle.send(prompt).await.map_err(|_| over())?;
    loop {
        match events.recv().await.ok_or_else(over)? {
            AgentEvent::TurnEnded { outcome: TurnOutcome::Ended { stop_reason }, .. } if stop_reason == "end_turn" => {
                return Ok(());
            }
            AgentEvent::TurnEnded { outcome, .. } => {
                return Err(ProbeError::Turn(match outcome {
                    TurnOutcome::Ended { stop_reason } => format!("stop reason {stop_reason}"),
                    TurnOutcome::Cancelled => "it was cancelled".to_owned(),
                    TurnOutcome::Failed { reason } => reason,
                }));
            }
            AgentEvent::Permission { request, .. } => {
                let answer = AgentCommand::Permission { request, option: None };
                handle.send(answer).await.map_err(|_| over())?;
            }
            event => broken(event)?,
        }
    }
}

/// Whether the event is the end of the process.
fn broken(event: AgentEvent) -> Result<(), ProbeError> {
    match event {
        AgentEvent::StartFailed { reason, .. } => Err(ProbeError::Process(reason)),
        AgentEvent::Died { how, .. } => Err(ProbeError::Process(format!("it ended: {how}"))),
        _ => Ok(()),
    }
}
