//! ACP agents as real processes: turns, handoffs in the middle of them, deaths, and agents that break every rule.

use std::collections::BTreeMap;
use std::time::Duration;

use hermes_gateway::agent::builtin::echo::expected_output;
use hermes_gateway::agent::{
    AgentCommand, AgentEvent, AgentHandle, AgentSnapshot, AgentSpec, Limits, TurnOutcome, TurnUpdate, adopt_with,
    spawn_with,
};
use hermes_gateway::id::{SessionId, TurnId};
use tokio::sync::mpsc;

use crate::support::openai::{Answer, FakeOpenai, Then, deltas, whole};

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
        env: BTreeMap::new(),
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
        Self { spec, limits, handle, events }
    }

    async fn next(&mut self) -> AgentEvent {
        let next = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        next.expect("the agent says something in time").expect("the task runs")
    }

    async fn send(&self, command: AgentCommand) {
        let sent = tokio::time::timeout(PATIENCE, self.handle.send(command)).await;
        sent.expect("there is room in time").expect("the task runs");
    }

    async fn prompt(&self, turn: i64, session: Option<&SessionId>, text: &str) {
        let command = AgentCommand::Prompt { turn: TurnId(turn), session: session.cloned(), text: text.to_owned() };
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
                if let TurnUpdate::Text(text) = &update {
                    turn.text.push_str(text);
                }
                turn.updates.push(update);
            }
            AgentEvent::TurnEnded { turn, outcome } => {
                let before = told.entry(turn.0).or_default().outcome.replace(outcome);
                assert_eq!(before, None, "a turn ends once");
            }
            AgentEvent::Ready { .. } => {}
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

fn is_running(pid: i32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_turn_streams_in_a_new_session_and_the_next_uses_it() {
    let mut rig = Rig::new(echo());
    let pid = rig.ready().await;
    let first = rig.turn(1, None, "stream chunks=300 bytes=100").await;
    assert_eq!(first.text, expected_output(300, 100));
    assert_eq!(first.outcome, ended("end_turn"));
    let (session, kept) = first.session.expect("the session is told");
    assert!(kept);
    let second = rig.turn(2, Some(&session), "pid").await;
    assert_eq!(second.text, pid.to_string());
    assert_eq!(second.session, None);
    rig.stop().await;
    assert!(!is_running(pid));
}

#[tokio::test]
async fn two_sessions_run_side_by_side() {
    let mut rig = Rig::new(echo());
    rig.prompt(1, None, "ask first").await;
    rig.prompt(2, None, "stream chunks=20").await;
    let mut told = BTreeMap::new();
    let mut request = None;
    // The second ends while the first waits for an answer.
    while request.is_none() || told.get(&2).is_none_or(|turn: &Told| turn.outcome.is_none()) {
        match rig.next().await {
            AgentEvent::Permission { request: number, .. } => request = Some(number),
            event => rig.note(&mut told, event),
        }
    }
    assert_eq!(told[&2].text, expected_output(20, 64));
    let request = request.expect("the loop ended with it");
    rig.send(AgentCommand::Permission { request, option: Some("no".to_owned()) }).await;
    let first = rig.tell(1).await.remove(&1).expect("the first turn ends");
    assert_eq!(first.text, "chosen: no");
    rig.stop().await;
}

#[tokio::test]
async fn the_kinds_of_update_and_of_end_are_told() {
    let mut rig = Rig::new(echo());
    let tool = |status: &str| TurnUpdate::Tool { title: "list files".to_owned(), status: status.to_owned() };
    let told = rig.turn(1, None, "tool list files").await;
    assert_eq!(told.updates, [tool("in_progress"), tool("completed"), TurnUpdate::Text("done".to_owned())]);
    let told = rig.turn(2, None, "think deeply").await;
    assert_eq!(told.updates[0], TurnUpdate::Thought("deeply".to_owned()));
    assert_eq!(rig.turn(3, None, "refuse").await.outcome, ended("refusal"));
    let told = rig.turn(4, None, "error no credit").await;
    let reason = "the agent answered with an error: no credit (-32603)".to_owned();
    assert_eq!(told.outcome, Some(TurnOutcome::Failed { reason }));
    let told = rig.turn(5, Some(&"gone".into()), "hello").await;
    assert!(matches!(told.session, Some((_, false))), "a session that cannot be loaded is replaced");
    rig.stop().await;
}

#[tokio::test]
async fn a_cancelled_turn_ends_and_its_permission_request_with_it() {
    let mut rig = Rig::new(echo());
    rig.prompt(1, None, "ask something").await;
    let request = loop {
        if let AgentEvent::Permission { request, .. } = rig.next().await {
            break request;
        }
    };
    rig.send(AgentCommand::Cancel { turn: TurnId(1) }).await;
    assert_eq!(rig.tell(1).await[&1].outcome, Some(TurnOutcome::Cancelled));
    // A late answer meets nothing.
    rig.send(AgentCommand::Permission { request, option: Some("yes".to_owned()) }).await;
    rig.prompt(2, None, "sleep 10m").await;
    while !matches!(rig.next().await, AgentEvent::Session { .. }) {}
    rig.send(AgentCommand::Cancel { turn: TurnId(2) }).await;
    assert_eq!(rig.tell(1).await[&2].outcome, Some(TurnOutcome::Cancelled));
    rig.stop().await;
}

#[tokio::test]
async fn a_stream_is_byte_identical_over_fifty_handoffs() {
    let mut rig = Rig::new(echo());
    let pid = rig.ready().await;
    rig.prompt(1, None, "stream chunks=2000 bytes=200 delay=1ms").await;
    let mut told = BTreeMap::new();
    let mut handoffs = 0;
    for round in 0..50_usize {
        // Some events first, so that the cuts fall everywhere.
        for _ in 0..round % 7 {
            let event = rig.next().await;
            rig.note(&mut told, event);
        }
        let snapshot = rig.freeze(&mut told).await;
        handoffs += usize::from(snapshot.turns == 1);
        rig.adopt(snapshot);
        assert_eq!(rig.ready().await, pid);
    }
    while told[&1].outcome.is_none() {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    assert_eq!(told[&1].text, expected_output(2000, 200));
    assert!(handoffs == 50, "all handoffs fell into the turn, {handoffs} did");
    let after = rig.turn(2, None, "pid").await;
    assert_eq!(after.text, pid.to_string());
    rig.stop().await;
    assert!(!is_running(pid));
}

#[tokio::test]
async fn an_agent_that_writes_as_fast_as_it_can_loses_nothing_in_handoffs() {
    let mut rig = Rig::new(echo());
    rig.prompt(1, None, "stream chunks=30000 bytes=300").await;
    let mut told = BTreeMap::new();
    for _ in 0..20 {
        let snapshot = rig.freeze(&mut told).await;
        rig.adopt(snapshot);
    }
    while told.get(&1).is_none_or(|turn: &Told| turn.outcome.is_none()) {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    assert!(told[&1].text == expected_output(30_000, 300), "the output is byte-identical");
    rig.stop().await;
}

#[tokio::test]
async fn a_thawed_agent_goes_on_and_takes_what_was_queued_meanwhile() {
    let mut rig = Rig::new(echo());
    rig.prompt(1, None, "stream chunks=200 delay=1ms").await;
    let mut told = BTreeMap::new();
    let snapshot = rig.freeze(&mut told).await;
    rig.prompt(2, None, "hello").await;
    drop(snapshot);
    rig.send(AgentCommand::Thaw).await;
    // A thaw that meets no freeze must not undo a later one.
    rig.send(AgentCommand::Thaw).await;
    while told.values().filter(|turn| turn.outcome.is_some()).count() < 2 {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    assert_eq!((told[&1].text.as_str(), told[&2].text.as_str()), (expected_output(200, 64).as_str(), "hello"));
    rig.freeze(&mut told).await;
    rig.prompt(3, None, "hello").await;
    let silence = tokio::time::timeout(Duration::from_millis(50), rig.events.recv()).await;
    assert!(silence.is_err(), "a frozen agent says nothing");
    rig.send(AgentCommand::Thaw).await;
    assert_eq!(rig.tell(1).await[&3].text, "hello");
    rig.stop().await;
}

#[tokio::test]
async fn a_pending_permission_and_a_waiting_prompt_are_carried() {
    let mut rig = Rig::new(echo());
    rig.prompt(1, None, "ask something").await;
    let request = loop {
        if let AgentEvent::Permission { request, .. } = rig.next().await {
            break request;
        }
    };
    // Queued before the freeze, so it belongs to the snapshot.
    rig.prompt(2, None, "hello").await;
    let mut told = BTreeMap::new();
    let snapshot = rig.freeze(&mut told).await;
    assert_eq!(snapshot.turns, 2);
    rig.adopt(snapshot);
    rig.send(AgentCommand::Permission { request, option: Some("always".to_owned()) }).await;
    let told = rig.tell(2).await;
    assert_eq!((told[&1].text.as_str(), told[&2].text.as_str()), ("chosen: always", "hello"));
    rig.stop().await;
}

#[tokio::test]
async fn what_an_agent_said_before_it_died_is_told_before_its_death() {
    let mut rig = Rig::new(echo());
    let first = rig.ready().await;
    let told = rig.turn(1, None, "crash chunks=500 bytes=200 code=7").await;
    assert_eq!(told.text, expected_output(500, 200));
    assert!(
        matches!(&told.outcome, Some(TurnOutcome::Failed { reason }) if reason.contains("exit code 7")),
        "{told:?}"
    );
    match rig.next().await {
        AgentEvent::Died { how, .. } => assert_eq!(how, "exit code 7"),
        other => panic!("{other:?}"),
    }
    let second = rig.ready().await;
    assert_ne!(first, second);
    assert_eq!(rig.turn(2, None, "hello").await.text, "hello");
    rig.stop().await;
}

#[tokio::test]
async fn an_agent_that_died_during_a_handoff_is_found_dead_with_its_last_words() {
    let mut rig = Rig::new(echo());
    let pid = rig.ready().await;
    // All of it fits into the pipe, so the agent can end while nobody reads.
    rig.prompt(1, None, "crash chunks=100 bytes=64 delay=1ms").await;
    let mut told: BTreeMap<i64, Told> = BTreeMap::new();
    while told.get(&1).is_none_or(|turn| turn.text.is_empty()) {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    let snapshot = rig.freeze(&mut told).await;
    wait_for_zombie(pid).await;
    rig.adopt(snapshot);
    assert_eq!(rig.ready().await, pid);
    while told.get(&1).is_none_or(|turn: &Told| turn.outcome.is_none()) {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    assert_eq!(told[&1].text, expected_output(100, 64));
    assert!(matches!(rig.next().await, AgentEvent::Died { how, .. } if how == "exit code 1"));
    rig.ready().await;
    assert!(!is_running(pid), "it was reaped");
    rig.stop().await;
}

/// Waits until the process has ended, which nobody has reaped.
async fn wait_for_zombie(pid: i32) {
    let ended = async {
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("nobody has reaped it");
            if stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z')) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("it ends in time");
}

#[tokio::test]
async fn an_agent_that_is_down_is_carried_too() {
    let limits = Limits { backoff_min: Duration::from_millis(300), ..quick() };
    let mut rig = Rig::with(spec(&["false"]), limits);
    assert!(matches!(rig.next().await, AgentEvent::StartFailed { .. }));
    rig.prompt(1, None, "hello").await;
    let snapshot = rig.freeze(&mut BTreeMap::new()).await;
    assert!(snapshot.fds.is_none());
    rig.spec = echo();
    rig.adopt(snapshot);
    // The new command counts from the next start on, and the prompt has waited for it.
    assert_eq!(rig.tell(1).await[&1].text, "hello");
    rig.stop().await;
}

#[tokio::test]
async fn a_state_that_makes_no_sense_is_refused_and_a_newer_one_is_read() {
    let mut rig = Rig::new(echo());
    rig.ready().await;
    let mut told = BTreeMap::new();
    let mut snapshot = rig.freeze(&mut told).await;
    let refused = |state: serde_json::Value| {
        let (events, _unheard) = mpsc::channel(1);
        let snapshot = AgentSnapshot { state, fds: None, turns: 0 };
        adopt_with(echo(), quick(), snapshot, events).expect_err("refused").to_string()
    };
    assert_eq!(refused(serde_json::json!("nonsense")), "the agent's state cannot be read");
    assert!(refused(snapshot.state.clone()).ends_with("are missing"), "a process without its fds");
    snapshot.state["version"] = 99.into();
    snapshot.state["novelty"] = true.into();
    snapshot.state["connection"]["novelty"] = true.into();
    rig.adopt(snapshot);
    rig.ready().await;
    assert_eq!(rig.turn(1, None, "hello").await.text, "hello");
    rig.stop().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named_with_the_fix_and_tried_again() {
    let mut rig = Rig::new(spec(&["/nonexistent/agent"]));
    rig.prompt(1, None, "hello").await;
    for _ in 0..3 {
        loop {
            match rig.next().await {
                AgentEvent::StartFailed { reason, .. } => {
                    assert!(reason.contains("/nonexistent/agent; check `command` in [agents.default]"), "{reason}");
                    break;
                }
                AgentEvent::TurnEnded { outcome: TurnOutcome::Failed { .. }, .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    rig.stop().await;
    let nowhere = AgentSpec { cwd: "/nonexistent".into(), ..echo() };
    let mut rig = Rig::new(nowhere);
    match rig.next().await {
        AgentEvent::StartFailed { reason, .. } => assert!(reason.contains("check `cwd`"), "{reason}"),
        other => panic!("{other:?}"),
    }
    rig.stop().await;
}

#[tokio::test]
async fn waits_between_restarts_double() {
    let mut rig = Rig::with(spec(&["false"]), Limits { backoff_max: Duration::from_millis(5), ..quick() });
    let mut waits = Vec::new();
    while waits.len() < 5 {
        match rig.next().await {
            AgentEvent::StartFailed { restart_in, reason, .. } => {
                assert!(reason.contains("exit code 1"), "{reason}");
                waits.push(restart_in.as_millis());
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waits, [1, 2, 4, 5, 5]);
    rig.stop().await;
}

#[tokio::test]
async fn a_stop_kills_what_ignores_it_with_all_its_children() {
    let mut rig =
        Rig::new(script("trap '' TERM; hello; sleep 1000 & session; update $!; while :; do sleep 1000; done"));
    let pid = rig.ready().await;
    rig.prompt(1, None, "hello").await;
    let child = loop {
        if let AgentEvent::Update { update: TurnUpdate::Text(text), .. } = rig.next().await {
            break text.parse().expect("a process id");
        }
    };
    rig.send(AgentCommand::Stop).await;
    let told = rig.tell(1).await;
    assert_eq!(told[&1].outcome, Some(TurnOutcome::Failed { reason: "the agent was stopped".to_owned() }));
    assert!(matches!(rig.next().await, AgentEvent::Stopped { .. }));
    assert!(!is_running(pid));
    let gone = async {
        while is_alive(child) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("its child is killed");
}

/// Whether a process that is not our child runs: nobody may be there to reap it.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[tokio::test]
async fn noise_between_the_messages_is_skipped() {
    let mut rig = Rig::new(script(
        r#"hello; echo 'Loading plugins...'; echo '[]'; echo '{"jsonrpc":"2.0","id":99,"result":1}'
        echo '{"jsonrpc":"2.0","id":"x","error":{"code":1,"message":"m"}}'; printf '\377\376\n\n'
        session; echo '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":7}}'
        echo '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s","update":{"sessionUpdate":"novelty"}}}'
        echo '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"elsewhere","update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"no"}}}}'
        echo '{"jsonrpc":"2.0","method":"session/update","params":[]}'
        line; prompt=$message
        echo '{"jsonrpc":"2.0","id":1,"method":"fs/read_text_file","params":{}}'; line; update "$(printf '%s' "$message" | tr -d '\134"')"
        echo '{"jsonrpc":"2.0","id":"p","method":"session/request_permission","params":3}'; line
        message=$prompt; answer '{"stopReason":"end_turn","usage":{}}'; line"#,
    ));
    let told = rig.turn(1, None, "hello").await;
    assert!(told.text.contains("code:-32601"), "{told:?}");
    assert_eq!(told.outcome, ended("end_turn"));
    rig.stop().await;
}

#[tokio::test]
async fn an_endless_line_costs_its_agent_the_process_and_little_memory() {
    let mut rig = Rig::new(script(r"hello; session; line; head -c 100000000 /dev/zero | tr '\0' a; line"));
    let told = rig.turn(1, None, "hello").await;
    match told.outcome {
        Some(TurnOutcome::Failed { reason }) => assert!(reason.contains("more than 8388608 bytes"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(rig.next().await, AgentEvent::Died { .. }));
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak_kib < 90_000, "{peak_kib} KiB at the peak");
    rig.stop().await;
}

#[tokio::test]
async fn an_agent_that_never_answers_initialize_is_ended_and_tried_again() {
    let limits = Limits { initialize_timeout: Duration::from_millis(50), ..quick() };
    let mut rig = Rig::with(spec(&["sleep", "1000"]), limits);
    for _ in 0..2 {
        match rig.next().await {
            AgentEvent::StartFailed { reason, .. } => assert!(reason.contains("did not answer initialize"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn wrong_answers_to_initialize_are_told_apart() {
    for (answer, expected) in [
        (r#"{"protocolVersion":2}"#, "speaks version 2"),
        (r#"{"protocolVersion":"one"}"#, "is not one of ACP"),
        ("null", "is not one of ACP"),
        (r#"0,"error":{"code":-32000,"message":"no"}"#, "wants a login"),
    ] {
        let mut rig = Rig::new(script(&format!("line; answer '{answer}'; line")));
        match rig.next().await {
            AgentEvent::StartFailed { reason, .. } => assert!(reason.contains(expected), "{answer}: {reason}"),
            other => panic!("{answer}: {other:?}"),
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn an_agent_that_closes_its_input_or_its_output_ends_with_its_turns() {
    for body in ["hello; session; exec <&-; sleep 1000", "hello; session; line; exec >&-; sleep 1000"] {
        let mut rig = Rig::new(script(body));
        let told = rig.turn(1, None, &"a".repeat(200_000)).await;
        assert!(matches!(told.outcome, Some(TurnOutcome::Failed { .. })), "{told:?}");
        match rig.next().await {
            AgentEvent::Died { how, .. } => assert!(how.contains("it closed its"), "{how}"),
            other => panic!("{other:?}"),
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn an_agent_that_does_not_read_is_still_heard_and_can_be_frozen() {
    // Far more than the pipe holds is on its way to the agent while it speaks.
    let folder = tempfile::tempdir().expect("a folder");
    let mut spec = script(
        r#"hello; session; for i in 1 2 3 4 5; do update $i; done; while [ ! -e "$GO" ]; do sleep 0.01; done; line
        update x; answer '{"stopReason":"end_turn"}'; line"#,
    );
    spec.env.insert("GO".to_owned(), folder.path().join("go").to_string_lossy().into_owned());
    let mut rig = Rig::new(spec);
    rig.prompt(1, None, &"a".repeat(1_000_000)).await;
    let mut told: BTreeMap<i64, Told> = BTreeMap::new();
    while told.get(&1).is_none_or(|turn| turn.text != "12345") {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    let snapshot = rig.freeze(&mut told).await;
    rig.adopt(snapshot);
    std::fs::write(folder.path().join("go"), "").expect("a file");
    let rest = rig.tell(1).await;
    assert_eq!((rest[&1].text.as_str(), &rest[&1].outcome), ("x", &ended("end_turn")));
    rig.stop().await;
}

#[tokio::test]
async fn a_flood_of_requests_that_nobody_reads_the_answers_of_ends_the_agent() {
    let limits = Limits { outgoing_bytes_max: 1 << 20, ..quick() };
    let mut rig = Rig::with(
        script(r#"hello; session; line; yes '{"jsonrpc":"2.0","id":1,"method":"terminal/create","params":{}}'"#),
        limits,
    );
    let told = rig.turn(1, None, "hello").await;
    match told.outcome {
        Some(TurnOutcome::Failed { reason }) => assert!(reason.contains("does not read its input"), "{reason}"),
        other => panic!("{other:?}"),
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_cancel_that_the_agent_ignores_ends_the_turn_at_its_deadline() {
    let limits = Limits { cancel_timeout: Duration::from_millis(50), ..quick() };
    let mut rig = Rig::with(
        script(r#"hello; session; line; update a; line; line; answer '{"stopReason":"end_turn"}'; line"#),
        limits,
    );
    rig.prompt(1, None, "hello").await;
    while !matches!(rig.next().await, AgentEvent::Update { .. }) {}
    rig.send(AgentCommand::Cancel { turn: TurnId(1) }).await;
    assert_eq!(rig.tell(1).await[&1].outcome, Some(TurnOutcome::Cancelled));
    rig.stop().await;
}

#[tokio::test]
async fn a_dropped_handle_stops_the_agent() {
    let mut rig = Rig::new(echo());
    let pid = rig.ready().await;
    let Rig { handle, mut events, .. } = rig;
    drop(handle);
    let last = tokio::time::timeout(PATIENCE, events.recv()).await.expect("in time");
    assert!(matches!(last, Some(AgentEvent::Stopped { .. })));
    assert!(!is_running(pid));
}

fn openai(base_url: &str, home: &std::path::Path) -> AgentSpec {
    let program = env!("CARGO_BIN_EXE_hermes");
    let mut spec = spec(&[program, "agent", "openai", "--base-url", base_url, "--model", "m", "--system", "be brief"]);
    spec.env.insert("HERMES_HOME".to_owned(), home.to_string_lossy().into_owned());
    spec.env.insert("OPENAI_API_KEY".to_owned(), "key-of-the-test".to_owned());
    spec
}

fn contents(body: &serde_json::Value) -> Vec<&str> {
    let messages = body["messages"].as_array().expect("a list");
    messages.iter().map(|message| message["content"].as_str().expect("text")).collect()
}

#[tokio::test]
async fn a_conversation_with_a_model_goes_on_in_another_process() {
    let server = FakeOpenai::start([whole(&["Hello ", "there"]), whole(&["Yes"])]).await;
    let home = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::new(openai(&server.base_url, home.path()));
    let first = rig.turn(1, None, "hi").await;
    assert_eq!((first.text.as_str(), &first.outcome), ("Hello there", &ended("end_turn")));
    let (session, _) = first.session.expect("a new session");
    rig.stop().await;
    let mut rig = Rig::new(openai(&server.base_url, home.path()));
    let second = rig.turn(2, Some(&session), "still there?").await;
    assert_eq!(second.session, Some((session, true)));
    assert_eq!(second.text, "Yes", "the replayed history is not told");
    rig.stop().await;
    let asked = server.asked();
    assert_eq!(asked[0].authorization, "Bearer key-of-the-test");
    assert_eq!(asked[1].body["stream"], true);
    assert_eq!(contents(&asked[1].body), ["be brief", "hi", "Hello there", "still there?"]);
}

#[tokio::test]
async fn a_cancelled_answer_is_kept_as_far_as_it_came() {
    let server = FakeOpenai::start([Answer::Stream(deltas(&["On", "ce"]), Then::Hang), whole(&["Ok"])]).await;
    let home = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::new(openai(&server.base_url, home.path()));
    rig.prompt(1, None, "a story").await;
    let mut told: BTreeMap<i64, Told> = BTreeMap::new();
    while told.get(&1).is_none_or(|turn| turn.text != "Once") {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    rig.send(AgentCommand::Cancel { turn: TurnId(1) }).await;
    assert_eq!(rig.tell(1).await[&1].outcome, Some(TurnOutcome::Cancelled));
    let (session, _) = told.remove(&1).and_then(|turn| turn.session).expect("a session");
    assert_eq!(rig.turn(2, Some(&session), "another").await.text, "Ok");
    assert_eq!(contents(&server.asked()[1].body), ["be brief", "a story", "Once", "another"]);
    rig.stop().await;
}

#[tokio::test]
async fn a_model_that_is_busy_is_asked_again() {
    let busy = |status| Answer::Refuse(status, String::new());
    let server = FakeOpenai::start([busy(429), busy(503), whole(&["at last"])]).await;
    let home = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::new(openai(&server.base_url, home.path()));
    assert_eq!(rig.turn(1, None, "hi").await.text, "at last");
    assert_eq!(server.asked().len(), 3);
    rig.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_model_is_said_in_words() {
    let refuse = |status| Answer::Refuse(status, r#"{"error":{"message":"because"}}"#.to_owned());
    let cases = [
        (vec![refuse(401)], "refused the API key (401 Unauthorized): because"),
        (vec![refuse(400)], "refused the request (400 Bad Request): because"),
        (vec![refuse(500), refuse(500), refuse(500)], "too busy or broken (500 Internal Server Error, 3 attempts)"),
        (vec![Answer::Stream("data: <html>\n\n".to_owned(), Then::End)], "does not stream chat completions"),
        (vec![Answer::Stream(deltas(&["half"]), Then::End)], "broke off before its end"),
        (vec![Answer::Stream(deltas(&["half"]), Then::Break)], "connection to the model's server broke off"),
        (
            vec![Answer::Stream("data: {\"error\":{\"message\":\"full\"}}".to_owned(), Then::End)],
            "reports an error: full",
        ),
    ];
    let home = tempfile::tempdir().expect("a folder");
    for (answers, expected) in cases {
        let server = FakeOpenai::start(answers).await;
        let mut rig = Rig::new(openai(&server.base_url, home.path()));
        match rig.turn(1, None, "hi").await.outcome {
            Some(TurnOutcome::Failed { reason }) => {
                assert!(reason.contains(expected), "{expected}: {reason}");
                assert!(!reason.contains("127.0.0.1"), "the address is not told: {reason}");
            }
            other => panic!("{expected}: {other:?}"),
        }
        rig.stop().await;
    }
    let mut rig = Rig::new(openai("http://127.0.0.1:1/v1", home.path()));
    let told = rig.turn(1, None, "hi").await;
    assert!(
        matches!(&told.outcome, Some(TurnOutcome::Failed { reason }) if reason.contains("cannot reach")),
        "{told:?}"
    );
    rig.stop().await;
}
