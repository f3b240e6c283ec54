//! The client's side of one ACP connection, without any I/O: lines and commands in, bytes and events out.
//!
//! ```text
//! turn:  Waiting ──initialize──► Opening ──session/new | session/load──► Running ──────────► ended
//!           │                       │                                     │ │ cancel            ▲
//!           └── cancel, no process ─┴────────────► ended                  │ └► Cancelling ──────┤
//!                                                                  process │                    │
//!                                                                  died    └► Resuming ─────────┘
//! ```
//!
//! **Invariants**
//! - All state between two calls is plain data: it can be serialised at any such moment and go on elsewhere, given the
//!   same stream of bytes.
//! - A turn that was opened ends with exactly one [`AgentEvent::TurnEnded`].
//! - Nothing an agent sends panics or grows the state without a limit.
//! - Between Opening and Running the files of a turn are read, if it has any (`reading`).
//! - A prompt is sent once. One that was sent may be in the agent's history already, so what has become of it is looked
//!   up there (`resume`).

mod inbound;
mod outgoing;
mod permission;
mod reading;
mod recovered;
mod resume;
mod stage;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files::Offer;
use super::given::Takes;
use super::limits::after;
use super::{AgentEvent, AgentSpec, Limits, TurnOutcome, acp};
use crate::clock::MonoNanos;
use crate::id::{AgentName, SessionId, TurnId};
use crate::jsonrpc::{Message, RequestId};
pub(super) use outgoing::{Outgoing, bytes_as_base64};
use permission::Permissions;
pub(super) use reading::Reading;
pub(super) use stage::Question;
use stage::Stage;

/// How far the connection has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// No process.
    #[default]
    Closed,
    /// `initialize` was sent.
    Initialising,
    /// `initialize` was answered.
    Ready {
        can_load: bool,
        title: Option<String>,
        #[serde(default)]
        takes: Takes,
    },
}

/// A request of ours that was not answered yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Initialize { deadline: MonoNanos },
    NewSession { turn: TurnId, kept: bool, deadline: MonoNanos },
    LoadSession { turn: TurnId, session: SessionId, replayed: bool, deadline: MonoNanos },
    Prompt { turn: TurnId },
}

/// What was last said of a tool call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Tool {
    title: String,
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Turn {
    stage: Stage,
    /// By `toolCallId`.
    #[serde(default)]
    tools: BTreeMap<String, Tool>,
}

impl Turn {
    /// The session, once the turn has it.
    fn session(&self) -> Option<&SessionId> {
        match &self.stage {
            Stage::Running { session, .. } | Stage::Cancelling { session, .. } => Some(session),
            Stage::Resuming(resume) => Some(&resume.session),
            Stage::Loading(loading) => Some(&loading.session),
            Stage::Waiting { .. } | Stage::Opening { .. } => None,
        }
    }
}

/// One connection; it outlives the processes it is connected to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Connection {
    agent: AgentName,
    #[serde(default)]
    pid: i32,
    #[serde(default)]
    cwd: PathBuf,
    #[serde(default)]
    phase: Phase,
    #[serde(default)]
    auth_methods: Vec<String>,
    #[serde(default)]
    next_call: i64,
    #[serde(default)]
    calls: BTreeMap<i64, Call>,
    /// Those that the present process knows.
    #[serde(default)]
    sessions: BTreeSet<SessionId>,
    #[serde(default)]
    turns: BTreeMap<TurnId, Turn>,
    #[serde(default)]
    permissions: Permissions,
    /// The process is on its way out: new turns wait for the next.
    #[serde(default)]
    leaving: bool,
    /// What waits to be written.
    #[serde(default)]
    pub(super) outgoing: Outgoing,
    #[serde(skip)]
    limits: Limits,
    /// The turns whose files are being read.
    #[serde(skip)]
    readings: BTreeSet<TurnId>,
    #[serde(skip)]
    events: VecDeque<AgentEvent>,
    /// The files that events speak of, as they were said, in order.
    #[serde(skip)]
    offers: VecDeque<Offer>,
    /// Why the process must be ended.
    #[serde(default)]
    fault: Option<String>,
    /// Lines that were no use; for the log only.
    #[serde(skip)]
    skipped: u64,
    /// Something else than events has come since [`Connection::take_changed`].
    #[serde(skip)]
    changed: bool,
}

impl Connection {
    /// A connection that waits for its first process.
    pub(super) fn new(agent: AgentName, limits: Limits) -> Self {
        Self {
            agent,
            pid: 0,
            cwd: PathBuf::new(),
            phase: Phase::Closed,
            auth_methods: Vec::new(),
            next_call: 0,
            calls: BTreeMap::new(),
            sessions: BTreeSet::new(),
            turns: BTreeMap::new(),
            permissions: Permissions::default(),
            leaving: false,
            outgoing: Outgoing::default(),
            limits,
            readings: BTreeSet::new(),
            events: VecDeque::new(),
            offers: VecDeque::new(),
            fault: None,
            skipped: 0,
            changed: true,
        }
    }

    /// Goes on after it was deserialised: limits are not carried, and who adopts has not heard of a ready agent yet.
    pub(super) fn adopted(&mut self, agent: AgentName, limits: Limits) {
        self.agent = agent;
        self.limits = limits;
        if matches!(self.phase, Phase::Ready { .. }) {
            self.tell_ready();
        }
    }

    /// A process was started: introduces itself to it.
    pub(super) fn start(&mut self, now: MonoNanos, pid: i32, spec: &AgentSpec) {
        self.changed = true;
        self.pid = pid;
        self.cwd.clone_from(&spec.cwd);
        self.phase = Phase::Initialising;
        let deadline = after(now, self.limits.initialize_timeout);
        self.call(acp::INITIALIZE, acp::initialize_params(), Call::Initialize { deadline });
    }

    /// The process is on its way out: what it says still counts, but it gets no new turns.
    pub(super) fn leave(&mut self) {
        self.changed |= !self.leaving;
        self.leaving = true;
    }

    /// A process did not come to be ready: ends every turn with `reason` but those that are taken up, which wait for
    /// another until their deadlines.
    pub(super) fn not_started(&mut self, reason: &str) {
        self.end_turns(reason, |turn| !matches!(turn.stage, Stage::Resuming(_)));
        self.reset();
    }

    /// There is no process, nor will there be one soon: ends every turn with `reason`.
    pub(super) fn close(&mut self, reason: &str) {
        self.end_turns(reason, |_| true);
        self.reset();
    }

    fn end_turns(&mut self, reason: &str, which: impl Fn(&Turn) -> bool) {
        let turns: Vec<TurnId> = self.turns.iter().filter(|(_, turn)| which(turn)).map(|(id, _)| *id).collect();
        for turn in turns {
            // This says more of a turn that has lost its process before.
            self.end_lost(turn, reason);
            self.end_turn(turn, TurnOutcome::Failed { reason: reason.to_owned() });
        }
    }

    fn reset(&mut self) {
        self.changed = true;
        self.phase = Phase::Closed;
        self.pid = 0;
        self.leaving = false;
        self.calls.clear();
        self.sessions.clear();
        self.permissions.clear();
        self.outgoing.clear();
        self.auth_methods.clear();
        self.fault = None;
    }

    /// Whether the process has answered `initialize`.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. })
    }

    /// Whether the state has changed since the last time, other than by text that was passed on.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Turns in flight.
    pub(super) fn turns(&self) -> usize {
        self.turns.len()
    }

    /// The next event to tell.
    pub(super) fn next_event(&mut self) -> Option<AgentEvent> {
        self.events.pop_front()
    }

    /// What was said of the file of an event: for each event of a file there is one, in order.
    pub(super) fn next_offer(&mut self) -> Option<Offer> {
        self.offers.pop_front()
    }

    /// The directory in which the process works.
    pub(super) fn cwd(&self) -> &Path {
        &self.cwd
    }

    /// Adds an event after those that wait.
    pub(super) fn push_event(&mut self, event: AgentEvent) {
        self.events.push_back(event);
    }

    /// Why the process must be ended, once.
    pub(super) fn take_fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    /// Starts a turn, now or when the process is ready.
    pub(super) fn prompt(&mut self, now: MonoNanos, turn: TurnId, session: Option<SessionId>, question: Question) {
        if self.turns.contains_key(&turn) {
            tracing::warn!(agent = %self.agent, %turn, "a turn was asked for twice");
            return;
        }
        self.changed = true;
        // The rest of the room is for the messages that keep the connection going.
        if question.text.len() > self.limits.outgoing_bytes_max / 4 {
            self.turns.insert(turn, Turn::new(Stage::Opening { question: Question::default() }));
            self.end_turn(turn, TurnOutcome::Failed { reason: "the message is too long for an agent".to_owned() });
            return;
        }
        self.turns.insert(turn, Turn::new(Stage::Waiting { session, question }));
        self.open(now, turn);
    }

    /// Ends a turn early.
    pub(super) fn cancel(&mut self, now: MonoNanos, turn: TurnId) {
        let Some(open) = self.turns.get_mut(&turn) else { return };
        self.changed = true;
        match &open.stage {
            Stage::Waiting { .. } | Stage::Opening { .. } | Stage::Loading(_) | Stage::Resuming(_) => {
                self.end_turn(turn, TurnOutcome::Cancelled);
            }
            Stage::Running { session, .. } => {
                let session = session.clone();
                let deadline = after(now, self.limits.cancel_timeout);
                open.stage = Stage::Cancelling { session: session.clone(), deadline };
                self.cancel_permissions(turn);
                self.notify(acp::SESSION_CANCEL, acp::cancel_params(&session));
            }
            Stage::Cancelling { .. } => {}
        }
    }

    /// The moment at which [`Connection::expire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<MonoNanos> {
        let calls = self.calls.values().filter_map(Call::deadline);
        calls.chain(self.turns.values().filter_map(Turn::deadline)).min()
    }

    /// Gives up what has taken too long.
    pub(super) fn expire(&mut self, now: MonoNanos) {
        let late = |call: &Call| call.deadline().is_some_and(|deadline| deadline <= now);
        for (_, call) in self.calls.extract_if(.., |_, call| late(call)).collect::<Vec<_>>() {
            self.changed = true;
            match call {
                Call::Initialize { .. } => {
                    let waited = self.limits.initialize_timeout.as_secs_f32();
                    self.fault = Some(format!("it did not answer initialize within {waited} s"));
                }
                Call::NewSession { turn, .. } | Call::LoadSession { turn, .. } => {
                    self.end_late(turn);
                    let reason = "the agent did not open the session in time".to_owned();
                    self.end_turn(turn, TurnOutcome::Failed { reason });
                }
                Call::Prompt { .. } => {}
            }
        }
        let late = |turn: &Turn| turn.deadline().is_some_and(|deadline| deadline <= now);
        let turns: Vec<TurnId> = self.turns.iter().filter(|(_, turn)| late(turn)).map(|(id, _)| *id).collect();
        for turn in turns {
            if self.give_up_reading(turn) {
                continue;
            }
            self.end_late(turn);
            if !self.turns.contains_key(&turn) {
                continue;
            }
            tracing::warn!(agent = %self.agent, %turn, "the agent did not end a cancelled turn");
            self.calls.retain(|_, call| *call != Call::Prompt { turn });
            self.end_turn(turn, TurnOutcome::Cancelled);
        }
    }

    /// Takes a waiting turn as far as the connection allows.
    fn open(&mut self, now: MonoNanos, turn: TurnId) {
        let Phase::Ready { can_load, .. } = self.phase else { return };
        if self.leaving {
            return;
        }
        let Some(open) = self.turns.get_mut(&turn) else { return };
        let Stage::Waiting { session, question } = &mut open.stage else { return };
        let (session, question) = (session.take(), std::mem::take(question));
        let deadline = after(now, self.limits.session_timeout);
        match session {
            Some(session) if self.turns.values().any(|turn| turn.session() == Some(&session)) => {
                let reason = "the session is busy with another turn".to_owned();
                self.end_turn(turn, TurnOutcome::Failed { reason });
            }
            Some(session) if self.sessions.contains(&session) => self.put(now, turn, session, question),
            Some(session) if can_load => {
                self.set_stage(turn, Stage::Opening { question });
                let params = acp::load_session_params(&session, &self.cwd);
                let call = Call::LoadSession { turn, session, replayed: false, deadline };
                self.call(acp::SESSION_LOAD, params, call);
            }
            session => {
                self.set_stage(turn, Stage::Opening { question });
                self.new_session(now, turn, session.is_none());
            }
        }
    }

    fn new_session(&mut self, now: MonoNanos, turn: TurnId, kept: bool) {
        let deadline = after(now, self.limits.session_timeout);
        let params = acp::new_session_params(&self.cwd);
        self.call(acp::SESSION_NEW, params, Call::NewSession { turn, kept, deadline });
    }

    /// The session of an opening turn is there: tells so and prompts. A turn that was cancelled meanwhile is not there.
    fn opened(&mut self, now: MonoNanos, turn: TurnId, session: SessionId, kept: bool) {
        self.sessions.insert(session.clone());
        let Some(Turn { stage: Stage::Opening { question }, .. }) = self.turns.get_mut(&turn) else { return };
        let question = std::mem::take(question);
        self.events.push_back(AgentEvent::Session { turn, session: session.clone(), kept });
        self.put(now, turn, session, question);
    }

    fn set_stage(&mut self, turn: TurnId, stage: Stage) {
        if let Some(open) = self.turns.get_mut(&turn) {
            open.stage = stage;
        }
    }

    /// Ends a turn, if it is open still, with what belongs to it.
    fn end_turn(&mut self, turn: TurnId, outcome: TurnOutcome) {
        if self.turns.contains_key(&turn) {
            self.changed = true;
            self.cancel_permissions(turn);
            self.turns.remove(&turn);
            self.events.push_back(AgentEvent::TurnEnded { turn, outcome, text: String::new(), files: Vec::new() });
        }
    }

    fn tell_ready(&mut self) {
        if let Phase::Ready { title, .. } = &self.phase {
            let (agent, title) = (self.agent.clone(), title.clone());
            self.events.push_back(AgentEvent::Ready { agent, pid: self.pid, title });
        }
    }

    fn call(&mut self, method: &str, params: Value, call: Call) {
        let id = self.next_call;
        self.next_call = self.next_call.wrapping_add(1);
        self.calls.insert(id, call);
        self.push(&Message::Request { id: RequestId::Number(id), method: method.to_owned(), params }, Some(id));
    }

    fn notify(&mut self, method: &str, params: Value) {
        self.send(&Message::Notification { method: method.to_owned(), params });
    }

    fn send(&mut self, message: &Message) {
        self.push(message, None);
    }

    fn push(&mut self, message: &Message, call: Option<i64>) {
        self.changed = true;
        let line = message.to_line();
        if self.outgoing.len() + line.len() > self.limits.outgoing_bytes_max {
            self.fault = Some("it does not read its input".to_owned());
        } else {
            self.outgoing.push(&line, call);
        }
    }
}

impl Turn {
    fn new(stage: Stage) -> Self {
        Self { stage, tools: BTreeMap::new() }
    }

    fn deadline(&self) -> Option<MonoNanos> {
        match &self.stage {
            Stage::Cancelling { deadline, .. } => Some(*deadline),
            Stage::Resuming(resume) => Some(resume.deadline()),
            Stage::Loading(loading) => Some(loading.deadline),
            Stage::Waiting { .. } | Stage::Opening { .. } | Stage::Running { .. } => None,
        }
    }
}

impl Call {
    fn deadline(&self) -> Option<MonoNanos> {
        match self {
            Self::Initialize { deadline } | Self::NewSession { deadline, .. } | Self::LoadSession { deadline, .. } => {
                Some(*deadline)
            }
            // A turn takes as long as it takes; its user can cancel it.
            Self::Prompt { .. } => None,
        }
    }
}
