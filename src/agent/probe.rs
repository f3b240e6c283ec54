//! Whether an agent can be started here: one process for a trial, for judging a new image.

use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::{AgentCommand, AgentEvent, AgentHandle, AgentSpec, TurnOutcome, spawn};
use crate::id::TurnId;

/// Events of the trial that may wait.
const EVENTS: usize = 64;
/// The turn of the trial. It has a connection of its own, so it meets no other.
const TURN: TurnId = TurnId(0);
/// How long the process may take to end, beyond the agent's own limits.
const STOP: Duration = Duration::from_secs(15);

/// Why the trial failed.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The process could not be started, or ended before it answered.
    #[error("{0}")]
    Start(String),
    /// It did not answer in time.
    #[error("it did not answer within {} s", after.as_secs())]
    Late {
        /// The longest wait.
        after: Duration,
    },
    /// It answered `initialize`, and the turn did not end well.
    #[error("its turn ended with {0}")]
    Turn(String),
}

/// Starts a process of `spec`, waits for its answer to `initialize` and, with a `prompt`, for the end of one turn. The
/// process is ended in any case. Needs a tokio runtime.
///
/// # Errors
/// [`ProbeError`].
pub async fn probe(spec: AgentSpec, prompt: Option<String>, longest: Duration) -> Result<(), ProbeError> {
    let (events, mut told) = mpsc::channel(EVENTS);
    let handle = spawn(spec, events);
    let outcome = match timeout_at(Instant::now() + longest, answers(&handle, &mut told, prompt)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ProbeError::Late { after: longest }),
    };
    drop(handle.send(AgentCommand::Stop).await);
    let stopped = async { while !matches!(told.recv().await, Some(AgentEvent::Stopped { .. }) | None) {} };
    if timeout_at(Instant::now() + STOP, stopped).await.is_err() {
        tracing::warn!("the agent that was started for a trial does not end");
    }
    outcome
}

async fn answers(
    handle: &AgentHandle,
    told: &mut mpsc::Receiver<AgentEvent>,
    prompt: Option<String>,
) -> Result<(), ProbeError> {
    let mut prompt = prompt;
    while let Some(event) = told.recv().await {
        match event {
            AgentEvent::Ready { .. } => {
                let Some(text) = prompt.take() else { return Ok(()) };
                drop(handle.send(AgentCommand::Prompt { turn: TURN, session: None, text }).await);
            }
            AgentEvent::TurnEnded { outcome: TurnOutcome::Ended { stop_reason }, .. } if stop_reason == "end_turn" => {
                return Ok(());
            }
            AgentEvent::TurnEnded { outcome, .. } => return Err(ProbeError::Turn(format!("{outcome:?}"))),
            AgentEvent::StartFailed { reason, .. } | AgentEvent::Died { how: reason, .. } => {
                return Err(ProbeError::Start(reason));
            }
            _ => {}
        }
    }
    Err(ProbeError::Start("its task has ended".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn spec(script: &str) -> AgentSpec {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).into();
        AgentSpec { name: "probed".into(), command, cwd: "/".into(), env: BTreeMap::new() }
    }

    const LONG: Duration = Duration::from_secs(30);
    const ANSWER: &str = r#"read line; echo '{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":1}}'; "#;

    #[tokio::test]
    async fn an_agent_that_answers_is_fine_and_is_ended() {
        probe(spec(&format!("{ANSWER} cat")), None, LONG).await.expect("it answers");
    }

    #[tokio::test]
    async fn one_that_ends_or_is_silent_or_ends_its_turn_badly_is_told() {
        assert!(matches!(probe(spec("exit 3"), None, LONG).await, Err(ProbeError::Start(_))));
        let silent = probe(spec("exec cat >/dev/null"), None, Duration::from_millis(200)).await;
        assert!(matches!(silent, Err(ProbeError::Late { .. })), "{silent:?}");
        let leaves = probe(spec(&format!("{ANSWER} read line; exit 0")), Some("hello".into()), LONG).await;
        assert!(matches!(leaves, Err(ProbeError::Turn(_) | ProbeError::Start(_))), "{leaves:?}");
    }
}
