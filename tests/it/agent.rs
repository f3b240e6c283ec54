//! ACP agents as real processes: turns, handoffs and kills of the gateway in the middle of them, deaths, and agents that break every rule.

mod handoff;
mod hostile;
mod kill;
mod life;
mod openai;
mod probe;
mod resume;
mod turns;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use hermes_gateway::agent::builtin::echo::expected_output;
use hermes_gateway::agent::{
    AgentCommand, AgentEvent, AgentFds, AgentHandle, AgentSnapshot, AgentSpec, Limits, TurnOutcome, TurnUpdate,
    adopt_with, spawn_with,
};
use hermes_gateway::id::{SessionId, TurnId};
use tokio::sync::mpsc;

/// Longer than anything here takes, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// As small as a gateway's queue may be, so that back-pressure is at work in every test.
const EVENTS_MAX: usize = 4;

/// An agent under test and what it says.
struct Rig {
    spec: AgentSpec,
    limits: Limits,
    handle: AgentHandle,
    events: mpsc::Receiver<AgentEvent>,
    /// Of the last process that was started.
    fds: Option<AgentFds>,
}

/// A whole turn, as it was told.
#[derive(Debug, Default)]
struct Told {
    text: String,
    updates: Vec<TurnUpdate>,
    session: Option<(SessionId, bool)>,
    outcome: Option<TurnOutcome>,
}

fn spec(command: &[&str]) -> AgentSpec {
    AgentSpec {
        name: "default".into(),
        command: command.iter().map(|part| (*part).to_owned()).collect(),
        cwd: std::env::temp_dir(),
        withheld: std::collections::BTreeSet::new(),
        env: BTreeMap::new(),
        outgoing: "/nonexistent".into(),
    }
}

fn echo() -> AgentSpec {
    spec(&[env!("CARGO_BIN_EXE_hermes"), "agent", "echo"])
}

/// An agent written in shell. `line` reads one message; `answer RESULT` answers it.
fn script(body: &str) -> AgentSpec {
    let prelude = r#"
        line() { IFS= read -r message || exit 0; }
        answer() {
            id=$(printf '%s' "$message" | sed 's/.*"id":\([0-9]*\).*/\1/')
            printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"
        }
        update() {
            printf '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s","update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"%s"}}}}\n' "$1"
        }
        hello() { line; answer '{"protocolVersion":1}'; }
        session() { line; answer '{"sessionId":"s"}'; }
    "#;
    spec(&["sh", "-c", &format!("{prelude}\n{body}")])
}

fn quick() -> Limits {
    Limits {
        backoff_min: Duration::from_millis(1),
        stop_grace: Duration::from_millis(200),
        drain_timeout: Duration::from_secs(5),
        ..Limits::default()
    }
}

impl Rig {
    fn new(spec: AgentSpec) -> Self {
        Self::with(spec, quick())
    }

    fn with(spec: AgentSpec, limits: Limits) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let handle = spawn_with(spec.clone(), limits, sender);
        Self { spec, limits, handle, events, fds: None }
    }

    /// The next event; the fds of a process that was started are kept aside.
    async fn next(&mut self) -> AgentEvent {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.events.recv()).await;
            match next.expect("the agent says something in time").expect("the task runs") {
                AgentEvent::Started { fds, .. } => self.fds = Some(fds),
                event => return event,
            }
        }
    }

    async fn send(&self, command: AgentCommand) {
        let sent = tokio::time::timeout(PATIENCE, self.handle.send(command)).await;
        sent.expect("there is room in time").expect("the task runs");
    }

    async fn prompt(&self, turn: i64, session: Option<&SessionId>, text: &str) {
        let (session, text, files) = (session.cloned(), text.to_owned(), Vec::new());
        let command = AgentCommand::Prompt { turn: TurnId(turn), session, text, files };
        self.send(command).await;
    }

    async fn ready(&mut self) -> i32 {
        match self.next().await {
            AgentEvent::Ready { pid, .. } => pid,
            other => panic!("not ready: {other:?}"),
        }
    }

    /// Everything told until the turns are over.
    async fn tell(&mut self, turns: usize) -> BTreeMap<i64, Told> {
        let mut told: BTreeMap<i64, Told> = BTreeMap::new();
        while told.values().filter(|turn| turn.outcome.is_some()).count() < turns {
            let event = self.next().await;
            self.note(&mut told, event);
        }
        told
    }

    fn note(&self, told: &mut BTreeMap<i64, Told>, event: AgentEvent) {
        match event {
            AgentEvent::Session { turn, session, kept } => {
                told.entry(turn.0).or_default().session = Some((session, kept));
            }
            AgentEvent::Update { turn, update } => {
                let turn = told.entry(turn.0).or_default();
                assert_eq!(turn.outcome, None, "nothing follows the end of a turn");
                match &update {
                    TurnUpdate::Text(text) => turn.text.push_str(text),
                    TurnUpdate::SoFar(text) => {
                        assert!(text.starts_with(&turn.text), "it has all that was told");
                        turn.text.clone_from(text);
                    }
                    TurnUpdate::File(_) | TurnUpdate::Thought(_) | TurnUpdate::Tool { .. } => {}
                }
                turn.updates.push(update);
            }
            AgentEvent::TurnEnded { turn, outcome, text, .. } => {
                let turn = told.entry(turn.0).or_default();
                assert!(text.ends_with(&turn.text), "the end has all that was said");
                let before = turn.outcome.replace(outcome);
                assert_eq!(before, None, "a turn ends once");
            }
            AgentEvent::Ready { .. } | AgentEvent::Died { .. } => {}
            other => panic!("not expected in a turn: {other:?}"),
        }
    }

    /// One turn from prompt to end.
    async fn turn(&mut self, turn: i64, session: Option<&SessionId>, text: &str) -> Told {
        self.prompt(turn, session, text).await;
        self.tell(1).await.remove(&turn).expect("the turn was told")
    }

    /// Freezes the agent; returns what was told before.
    async fn freeze(&mut self, told: &mut BTreeMap<i64, Told>) -> AgentSnapshot {
        self.send(AgentCommand::Freeze).await;
        loop {
            match self.next().await {
                AgentEvent::Frozen { snapshot, .. } => return snapshot,
                event => self.note(told, event),
            }
        }
    }

    /// Takes the frozen agent over with a new task, as the next image does.
    fn adopt(&mut self, snapshot: AgentSnapshot) {
        // The memfd of a handoff holds text.
        let text = serde_json::to_string(&snapshot.state).expect("the state is JSON");
        let snapshot = AgentSnapshot { state: serde_json::from_str(&text).expect("just written"), ..snapshot };
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let adopted = adopt_with(self.spec.clone(), self.limits, snapshot, sender);
        self.handle = adopted.expect("a snapshot just taken can be adopted");
        self.events = events;
    }

    async fn stop(mut self) {
        self.send(AgentCommand::Stop).await;
        while !matches!(self.next().await, AgentEvent::Stopped { .. }) {}
        let end = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        assert!(end.expect("the task ends").is_none(), "Stopped is the last event");
    }
}

fn ended(stop_reason: &str) -> Option<TurnOutcome> {
    Some(TurnOutcome::Ended { stop_reason: stop_reason.to_owned() })
}

fn duplicates(fds: &AgentFds) -> AgentFds {
    let clone = |fd: &OwnedFd| fd.try_clone().expect("room for a few fds");
    AgentFds {
        stdin: clone(&fds.stdin),
        stdout: clone(&fds.stdout),
        pidfd: clone(&fds.pidfd),
        log: fds.log.as_ref().map(clone),
    }
}

fn is_running(pid: i32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}
