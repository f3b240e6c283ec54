//! Agents that others wrote, installed by `scripts/third-party-agent`. Needs a Python package index, so it is not part of
//! the test suite: `scripts/check-third-party-agent` runs it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

#[path = "it/support/gateway.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod gateway;
#[path = "it/support/release.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod release;

use gateway::{Chat, Gateway};
use hermes_gateway::agent::{
    AgentCommand, AgentEvent, AgentHandle, AgentSnapshot, AgentSpec, TurnOutcome, TurnUpdate, adopt, spawn,
};
use hermes_gateway::chat::ReplyEnd;
use hermes_gateway::control::proto::{HandoffKind, Status};
use hermes_gateway::id::{SessionId, TurnId};
use release::Publisher;
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
    AgentSpec {
        name: name.into(),
        command: agent.command,
        cwd: std::env::temp_dir(),
        env: agent.env,
        withheld: std::collections::BTreeSet::new(),
        outgoing: "/nonexistent".into(),
    }
}

async fn next(events: &mut mpsc::Receiver<AgentEvent>) -> AgentEvent {
    let next = tokio::time::timeout(PATIENCE, events.recv()).await;
    next.expect("the agent says something in time").expect("the task runs")
}

async fn prompt(handle: &AgentHandle, turn: i64, session: Option<SessionId>, text: &str) {
    let command = AgentCommand::Prompt { turn: TurnId(turn), session, text: text.to_owned(), files: Vec::new() };
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
            AgentEvent::Started { .. } | AgentEvent::Ready { .. } | AgentEvent::Update { .. } => {}
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
            AgentEvent::Started { .. } | AgentEvent::Update { .. } | AgentEvent::Ready { .. } => {}
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

/// How often the model of the agent with this home was asked this.
fn asked(home: &Path, prompt: &str) -> usize {
    let prompts = std::fs::read_to_string(home.join("prompts")).expect("the model was asked");
    let prompts = prompts.lines().map(|line| serde_json::from_str::<Option<String>>(line).expect("JSON"));
    prompts.filter(|asked| asked.as_deref() == Some(prompt)).count()
}

/// The agent keeps what the user said, and no part of an answer that its death cut off.
#[tokio::test]
async fn a_turn_whose_real_agent_is_killed_is_looked_up_in_its_history_and_not_asked_again() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut spec = installed("hermes-agent");
    spec.env.insert("THIRD_PARTY_HOME".to_owned(), home.path().to_string_lossy().into_owned());
    let (sender, mut events) = mpsc::channel(4);
    let handle = spawn(spec, sender);
    let pid = loop {
        if let AgentEvent::Ready { pid, .. } = next(&mut events).await {
            break rustix::process::Pid::from_raw(pid).expect("a process");
        }
    };
    let story = "stream chunks=50 delay=50ms";
    prompt(&handle, 1, None, story).await;
    let mut text = String::new();
    let (opened, _) = read(&mut events, &mut text, 10).await;
    let (session, _) = opened.expect("a new session");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    let reason = loop {
        match next(&mut events).await {
            AgentEvent::TurnEnded { outcome: TurnOutcome::Failed { reason }, .. } => break reason,
            AgentEvent::TurnEnded { outcome, .. } => panic!("{outcome:?}"),
            AgentEvent::Update { update: TurnUpdate::SoFar(all), .. } => panic!("it has kept {all}"),
            _ => {}
        }
    };
    println!("\nhermes-agent, killed in the middle of an answer: {reason}");
    assert_eq!(
        reason,
        "the agent ended (killed by signal 9) before it had answered in full, and the rest of the answer is lost: its \
         history has your message, but nothing of the answer. Say `continue`, or /retry to ask again"
    );
    assert_eq!(asked(home.path(), story), 1, "the model is not asked again");
    prompt(&handle, 2, Some(session), "hello").await;
    let mut text = String::new();
    let (opened, outcome) = read(&mut events, &mut text, usize::MAX).await;
    assert_eq!((opened, outcome), (None, end_turn()), "the session was loaded already");
    // Its model sees both messages, and answers the one that it has not answered.
    assert!(text.starts_with("0,1,"), "{text}");
    stop(handle, events).await;
}

/// gateway.toml with the echo example as the default agent and the real one as `real`.
fn config(publisher: &Publisher, agent_home: &Path) -> String {
    let table = |name: &str, spec: &AgentSpec| {
        let env: BTreeMap<_, _> = spec.env.iter().filter(|(key, _)| *key != "THIRD_PARTY_HOME").collect();
        assert!(env.is_empty(), "only the agent's home is set");
        let env = format!("{{ THIRD_PARTY_HOME = {agent_home:?} }}");
        format!("[agents.{name}]\ncommand = {:?}\nenv = {env}\n", spec.command)
    };
    let (echo, real) = (table("default", &installed("echo-agent")), table("real", &installed("hermes-agent")));
    let (manifest, key) = (publisher.path("manifest.json"), publisher.public_key());
    format!("{echo}{real}[update]\nmanifest_url = \"file://{}\"\nverifying_keys = [\"{key}\"]\n", manifest.display())
}

async fn ask(chat: &mut Chat, text: &str) -> String {
    chat.say(text).await;
    let answer = chat.answer(async |_, _| {}).await;
    assert_eq!(answer.end, ReplyEnd::Complete);
    answer.text
}

fn pid(status: &Status, agent: &str) -> i32 {
    let agent = status.agents.iter().find(|status| status.name == agent).expect("it is configured");
    agent.pid.expect("it runs")
}

#[tokio::test]
async fn a_gateway_carries_them_over_a_restart_and_an_update() {
    let binary = Path::new(env!("CARGO_BIN_EXE_hermes"));
    let publisher = Publisher::new();
    publisher.release("99.0.0", &std::fs::read(binary).expect("the binary is built"));
    let agent_home = tempfile::tempdir().expect("a temporary directory");
    let gateway = Gateway::start(binary, &config(&publisher, agent_home.path())).await;
    let before = gateway.status().await;
    let (mut echo, mut real) = (gateway.chat("echo").await, gateway.chat("real").await);
    real.say("/new real").await;
    real.notice("New session").await;
    assert_eq!(ask(&mut echo, "hello").await, "hello");
    assert!(ask(&mut real, "hello").await.contains("You said: "));

    let (chunks, update) = (250, HandoffKind::Update { version: None, dry_run: false });
    let expected: String = (0..chunks).map(|piece| format!("{piece},")).collect();
    let mut handoffs = vec![update, HandoffKind::Restart];
    let mut carried = Vec::new();
    real.say(&format!("stream chunks={chunks} delay=20ms")).await;
    let answer = real
        .answer(async |_, bytes| {
            // At a third and at two thirds of the answer.
            if bytes * 3 > expected.len() * (carried.len() + 1)
                && let Some(kind) = handoffs.pop()
            {
                let report = gateway.handoff(kind).await.expect("a handoff succeeds");
                carried.push((report.kind, report.to.version, report.turns_carried, report.agents_carried));
            }
        })
        .await;
    assert_eq!((answer.text.as_str(), answer.end), (expected.as_str(), ReplyEnd::Complete));
    let running = before.image.version.clone();
    assert_eq!(carried, [("restart".to_owned(), running, 1, 2), ("update".to_owned(), "99.0.0".to_owned(), 1, 2)]);
    assert_eq!(ask(&mut echo, "hello again").await, "hello again");

    let after = gateway.status().await;
    assert_eq!((after.pid, after.generation, &*after.image.version), (before.pid, 2, "99.0.0"));
    println!("\ngateway       PID {} → {}, {} → {}", before.pid, after.pid, before.image.version, after.image.version);
    for (agent, title) in [("default", "echo-agent"), ("real", "hermes-agent")] {
        assert_eq!(pid(&before, agent), pid(&after, agent), "{title} is the same process");
        println!("{title:12}  PID {} → {}", pid(&before, agent), pid(&after, agent));
    }
    println!("answer of hermes-agent: {} of {} bytes, byte-identical", answer.text.len(), expected.len());
    for (kind, version, turns, agents) in carried {
        println!("{kind} to {version} in the middle of it: {turns} turn and {agents} agents carried");
    }
}
