//! Agents that others wrote, installed by `scripts/third-party-agent`. Needs a Python package index, so it is not part of
//! the test suite: `cargo nextest run --test third-party`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hermes_gateway::agent::{
    AgentCommand, AgentEvent, AgentHandle, AgentSnapshot, AgentSpec, TurnOutcome, TurnUpdate, adopt, spawn,
};
use hermes_gateway::id::{SessionId, TurnId};
use serde::Deserialize;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Installed {
    name: String,
    command: Vec<String>,
    env: BTreeMap<String, String>,
}

fn installed(name: &str) -> AgentSpec {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = Command::new(root.join("scripts/third-party-agent")).stderr(Stdio::inherit()).output();
    let script = script.expect("the script starts");
    assert!(script.status.success(), "the script installs the agents");
    let agents: Vec<Installed> = serde_json::from_slice(&script.stdout).expect("the script prints JSON");
    let agent = agents.into_iter().find(|agent| agent.name == name).expect("the script installs it");
    AgentSpec { name: name.into(), command: agent.command, cwd: std::env::temp_dir(), env: agent.env }
}

async fn next(events: &mut mpsc::Receiver<AgentEvent>) -> AgentEvent {
    let next = tokio::time::timeout(PATIENCE, events.recv()).await;
    next.expect("the agent says something in time").expect("the task runs")
}

async fn prompt(handle: &AgentHandle, turn: i64, session: Option<SessionId>, text: &str) {
    let command = AgentCommand::Prompt { turn: TurnId(turn), session, text: text.to_owned() };
    handle.send(command).await.expect("the task runs");
}

/// Reads on until the turn has ended or `enough` of it was said; adds to `text`, and tells its session if it is new.
async fn read(
    events: &mut mpsc::Receiver<AgentEvent>,
    text: &mut String,
    enough: usize,
) -> (Option<(SessionId, bool)>, Option<TurnOutcome>) {
    let mut opened = None;
    while text.len() < enough {
        match next(events).await {
            AgentEvent::Session { session, kept, .. } => opened = Some((session, kept)),
            AgentEvent::Update { update: TurnUpdate::Text(piece), .. } => text.push_str(&piece),
            AgentEvent::TurnEnded { outcome, .. } => return (opened, Some(outcome)),
            AgentEvent::Ready { .. } | AgentEvent::Update { .. } => {}
            other => panic!("not expected in a turn: {other:?}"),
        }
    }
    (opened, None)
}

async fn freeze(handle: &AgentHandle, events: &mut mpsc::Receiver<AgentEvent>, text: &mut String) -> AgentSnapshot {
    handle.send(AgentCommand::Freeze).await.expect("the task runs");
    loop {
        match next(events).await {
            AgentEvent::Frozen { snapshot, .. } => return snapshot,
            AgentEvent::Update { update: TurnUpdate::Text(piece), .. } => text.push_str(&piece),
            AgentEvent::Update { .. } | AgentEvent::Ready { .. } => {}
            other => panic!("not expected before the freeze: {other:?}"),
        }
    }
}

async fn stop(handle: AgentHandle, mut events: mpsc::Receiver<AgentEvent>) {
    handle.send(AgentCommand::Stop).await.expect("the task runs");
    while !matches!(next(&mut events).await, AgentEvent::Stopped { .. }) {}
}

fn end_turn() -> Option<TurnOutcome> {
    Some(TurnOutcome::Ended { stop_reason: "end_turn".to_owned() })
}

#[tokio::test]
async fn the_echo_example_answers() {
    let (sender, mut events) = mpsc::channel(4);
    let handle = spawn(installed("echo-agent"), sender);
    prompt(&handle, 1, None, "hello").await;
    let mut text = String::new();
    let (_, outcome) = read(&mut events, &mut text, usize::MAX).await;
    assert_eq!((text.as_str(), outcome), ("hello", end_turn()));
    stop(handle, events).await;
}

#[tokio::test]
async fn a_real_agent_is_carried_in_the_middle_of_a_turn_and_loads_its_session_later() {
    let spec = installed("hermes-agent");
    let (sender, mut events) = mpsc::channel(4);
    let mut handle = spawn(spec.clone(), sender);
    prompt(&handle, 1, None, "stream chunks=100 delay=20ms").await;
    let mut text = String::new();
    let (opened, _) = read(&mut events, &mut text, 1).await;
    let (session, _) = opened.expect("a new session");
    for handoff in 1..=5 {
        let snapshot = freeze(&handle, &mut events, &mut text).await;
        assert_eq!(snapshot.turns, 1, "the turn is under way in handoff {handoff}");
        let (sender, adopted) = mpsc::channel(4);
        handle = adopt(spec.clone(), snapshot, sender).expect("a snapshot just taken can be adopted");
        events = adopted;
        let enough = text.len() + 10;
        read(&mut events, &mut text, enough).await;
    }
    let (_, outcome) = read(&mut events, &mut text, usize::MAX).await;
    let expected: String = (0..100).map(|piece| format!("{piece},")).collect();
    assert_eq!((text.as_str(), outcome), (expected.as_str(), end_turn()));
    stop(handle, events).await;

    let (sender, mut events) = mpsc::channel(4);
    let handle = spawn(spec, sender);
    prompt(&handle, 2, Some(session.clone()), "hello").await;
    let mut text = String::new();
    let (opened, outcome) = read(&mut events, &mut text, usize::MAX).await;
    assert_eq!(opened, Some((session, true)), "the session is kept");
    assert_eq!(outcome, end_turn());
    assert!(text.contains("You said: "), "{text}");
    prompt(&handle, 3, Some("no-such-session".into()), "hello").await;
    let (opened, _) = read(&mut events, &mut String::new(), usize::MAX).await;
    assert!(matches!(opened, Some((_, false))), "an unknown session is replaced: {opened:?}");
    stop(handle, events).await;
}
