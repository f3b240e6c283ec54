//! Joins chats and agents: who may talk, which session a conversation has, which turn runs, what is shown.
//!
//! [`Gateway`] is a state machine without I/O: events go in, [`Effect`]s come out, and the daemon carries these out in
//! order. Its whole state is plain data ([`GatewayState`]), which is what a handoff carries.
//!
//! **Invariants**
//! - A conversation has at most one turn in flight; the others wait in their order of arrival.
//! - A turn is recorded as running before its prompt goes to the agent, and as over together with all of its reply.
//! - Every path to an admin command passes [`Access::is_admin`].
//! - While [`Gateway::hold`] is on, nothing is asked of an agent.
//! - A message with files is asked only once it is known of each what became of it.
//! - Every turn ends: one whose agent is no longer configured is ended or given to the default agent.

mod access;
mod ask;
mod command;
mod conversation;
mod effect;
mod files;
pub mod pairing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use access::{Access, Allowed};
pub use ask::ASKS_KEY;
pub use command::ChatCommand;
use conversation::{Question, Running, Talk, Waiting};
pub use effect::{Describe, Effect, Requester};
use files::Files;
use pairing::Knock;

use crate::agent::{AgentCommand, AgentEvent, RecoveredPermission, RecoveredTurn, TurnOutcome, TurnUpdate};
use crate::chat::{Conversation, Inbound, Notice, OutFile, Outbound, ReplyEnd, ReplyStep, so_far};
use crate::clock::UnixMillis;
use crate::config::DEFAULT_AGENT;
use crate::id::{AgentName, TurnId};
use crate::store::{OpenTurn, SessionRow};
use crate::sys::random;
use crate::words::{Expired, Languages, Words};

/// Messages that may wait behind the running turn of one conversation.
const QUEUE_LIMIT: usize = 32;
/// Conversations kept in memory; idle ones beyond that are dropped, their sessions stay in the store.
const TALKS_LIMIT: usize = 10_000;
/// How old a message may be that is asked only after the gateway was killed or stopped. Nobody expects an answer to
/// last week's question.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// How long the agent waits for an answer to a permission request, and its chat's other messages with it.
const ASK_MAX: Duration = Duration::from_secs(3600);
/// Strangers who were told that they may not talk; beyond that they are ignored.
const STRANGERS_LIMIT: usize = 1_000;

/// What is known of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum AgentView {
    /// Its process is being started.
    Starting,
    /// It takes turns.
    Ready {
        /// Its process.
        pid: i32,
        /// What it calls itself.
        title: Option<String>,
    },
    /// It does not run.
    Down {
        /// Why, for people.
        reason: String,
        /// When it is started again.
        until: UnixMillis,
    },
}

/// The state of a [`Gateway`], as it is carried over a handoff.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct GatewayState {
    talks: Vec<Talk>,
    agents: BTreeMap<AgentName, AgentView>,
    #[serde(default)]
    strangers: BTreeSet<Conversation>,
    #[serde(default)]
    last_ask: u64,
}

impl GatewayState {
    /// The version of the form that this image writes and the highest it reads.
    pub const VERSION: u32 = 1;
}

/// The state machine; see the module's documentation.
#[derive(Debug)]
pub struct Gateway {
    access: Access,
    talks: BTreeMap<Conversation, Talk>,
    /// Which conversation a turn in flight belongs to.
    turns: BTreeMap<TurnId, Conversation>,
    agents: BTreeMap<AgentName, AgentView>,
    strangers: BTreeSet<Conversation>,
    languages: Languages,
    /// The number of the permission request that came last.
    last_ask: u64,
    hold: bool,
}

impl Gateway {
    /// A gateway for these agents, of which the one named `default` serves conversations that chose none.
    pub fn new(access: Access, agents: impl IntoIterator<Item = AgentName>) -> Self {
        Self::restore(access, agents, GatewayState::default())
    }

    /// Goes on where a previous image stopped. Agents that are no longer configured are forgotten; their conversations
    /// fall back to the default agent once the turn that runs is over.
    pub fn restore(access: Access, agents: impl IntoIterator<Item = AgentName>, state: GatewayState) -> Self {
        let agents: BTreeMap<_, _> = agents
            .into_iter()
            .map(|name| {
                let view = state.agents.get(&name).cloned().unwrap_or(AgentView::Starting);
                (name, view)
            })
            .collect();
        let talks: BTreeMap<_, _> = state.talks.into_iter().map(|talk| (talk.conversation.clone(), talk)).collect();
        let turns =
            talks.values().filter_map(|talk| Some((talk.running.as_ref()?.turn, talk.conversation.clone()))).collect();
        Self {
            access,
            talks,
            turns,
            agents,
            strangers: state.strangers,
            languages: Languages::default(),
            last_ask: state.last_ask,
            hold: false,
        }
    }

    /// Speaks these languages from now on.
    pub fn speaking(self, languages: Languages) -> Self {
        Self { languages, ..self }
    }

    /// What is said in a conversation.
    pub fn words(&self, conversation: &Conversation) -> &'static dyn Words {
        self.languages.on(&conversation.platform)
    }

    /// Everything that must be carried over a handoff.
    pub fn state(&self) -> GatewayState {
        GatewayState {
            talks: self.talks.values().filter(|talk| !talk.is_in_store()).cloned().collect(),
            agents: self.agents.clone(),
            strangers: self.strangers.clone(),
            last_ask: self.last_ask,
        }
    }

    /// Turns held back (`true`) during a handoff, or let go again.
    pub fn hold(&mut self, hold: bool, effects: &mut Vec<Effect>) {
        self.hold = hold;
        if !hold {
            self.ask_for_files(effects);
            self.start_all(effects);
        }
    }

    /// Whether the conversation is in memory; otherwise [`Gateway::learn`] its stored session before its message is
    /// handled.
    pub fn knows(&self, conversation: &Conversation) -> bool {
        self.talks.contains_key(conversation)
    }

    /// Takes the stored session of a conversation in.
    pub fn learn(&mut self, row: SessionRow) {
        let talk = self.talk(&row.conversation);
        talk.agent = row.agent;
        talk.session = row.session;
    }

    /// The chats that wait for an answer.
    pub fn waiting_chats(&self) -> impl Iterator<Item = &Conversation> {
        self.talks.values().filter(|talk| talk.has_turns()).map(|talk| &talk.conversation)
    }

    /// Turns given to agents and not over.
    pub fn turns_in_flight(&self) -> usize {
        self.turns.len()
    }

    /// Turns that wait.
    pub fn turns_queued(&self) -> usize {
        self.talks.values().map(|talk| talk.queue.len()).sum()
    }

    /// The agents and what is known of them, with their running turns: turn, conversation, start, answer bytes.
    pub fn agents(&self) -> impl Iterator<Item = (&AgentName, &AgentView, Vec<RunningTurn<'_>>)> {
        self.agents.iter().map(|(name, view)| {
            let turns = self
                .talks
                .values()
                .filter(|talk| &talk.agent == name)
                .filter_map(|talk| {
                    let running = talk.running.as_ref()?;
                    Some(RunningTurn {
                        turn: running.turn,
                        conversation: &talk.conversation,
                        started_at: running.started_at,
                        answer_bytes: running.answer_bytes,
                    })
                })
                .collect();
            (name, view, turns)
        })
    }

    /// A message that the store accepted for the first time.
    pub fn inbound(&mut self, turn: TurnId, inbound: Inbound, effects: &mut Vec<Effect>) {
        let conversation = inbound.conversation.clone();
        if !self.access.may_talk(&inbound) {
            effects.push(Effect::Close(turn));
            return self.turn_away(&inbound, effects);
        }
        match ChatCommand::parse(&inbound.text) {
            Some(command) => {
                let at = effects.len();
                self.command(command, turn, &inbound, effects);
                if !matches!(effects.last(), Some(Effect::Handoff { .. } | Effect::Pause { .. })) {
                    // Before what is to be done: `/retry` makes it wait again.
                    effects.insert(at, Effect::Close(turn));
                }
            }
            None => {
                let question = Question::of(&inbound);
                self.enqueue(turn, &conversation, question, effects);
            }
        }
    }

    /// Somebody may not talk. In a group nothing is said of it: that would be a word to everyone there.
    fn turn_away(&mut self, inbound: &Inbound, effects: &mut Vec<Effect>) {
        if !inbound.is_direct {
            return;
        }
        let (conversation, words) = (&inbound.conversation, self.words(&inbound.conversation));
        let make = || random::bytes().ok().map(pairing::code);
        let mut changes = Vec::new();
        let knock = self.access.knock(inbound, UnixMillis::now(), make, &mut changes);
        effects.extend(changes.into_iter().map(Effect::Record));
        match knock {
            Some(Knock::Code(code)) => {
                effects.push(notice(conversation, words.pairing_code(&code, conversation.platform.as_str())));
            }
            Some(Knock::Told) => {}
            Some(Knock::Full) | None => {
                if self.strangers.len() < STRANGERS_LIMIT && self.strangers.insert(conversation.clone()) {
                    effects.push(notice(conversation, words.stranger(&inbound.sender.id)));
                }
            }
        }
    }

    /// The gate, for whoever lets people in.
    pub fn access(&mut self) -> &mut Access {
        &mut self.access
    }

    /// A turn that the store has as not over although no image carried it: the previous process was killed.
    /// What waited is asked now; what an agent had is not asked again by itself, since the agent has the prompt
    /// already: its reply ends where it is. The chat is told as well when a message is too old to be answered without
    /// being asked again (`STALE`), and of a command, which might no longer be meant.
    pub fn recover(&mut self, open: OpenTurn, effects: &mut Vec<Effect>) {
        if self.turns.contains_key(&open.turn) || self.talks.values().any(|talk| talk.is_waiting(open.turn)) {
            return;
        }
        let conversation = open.inbound.conversation.clone();
        let words = self.words(&conversation);
        let stale = UnixMillis::now().since(open.received_at) > STALE;
        let told = if !self.access.may_talk(&open.inbound) {
            return effects.push(Effect::Close(open.turn));
        } else if open.running {
            let end = ReplyEnd::Failed(words.interrupted().to_owned());
            self.talk(&conversation).asked_last(open.turn, Question::of(&open.inbound));
            effects.push(Effect::Finish {
                turn: open.turn,
                conversation,
                started_at: None,
                text: None,
                files: Vec::new(),
                end,
            });
            return;
        } else if ChatCommand::parse(&open.inbound.text).is_some() {
            words.command_lost(&open.inbound.text)
        } else if stale {
            words.stale().to_owned()
        } else {
            return self.inbound(open.turn, open.inbound, effects);
        };
        effects.push(Effect::Close(open.turn));
        effects.push(notice(&conversation, told));
        if ChatCommand::parse(&open.inbound.text).is_none() {
            self.talk(&conversation).asked_last(open.turn, Question::of(&open.inbound));
        }
    }

    /// A turn that an agent has and that outlived the process which gave it. Shows what is missing of what was said, and
    /// goes on. What the agent asked is asked once more: nobody knows whether the chat was told, and the agent waits.
    pub fn take_up(&mut self, open: OpenTurn, agent: AgentName, said: RecoveredTurn, effects: &mut Vec<Effect>) {
        let question = Question::of(&open.inbound);
        let conversation = open.inbound.conversation;
        let talk = self.talk(&conversation);
        talk.agent = agent;
        let answer_bytes = said.text.len() as u64;
        talk.running = Some(Running { turn: open.turn, started_at: open.received_at, answer_bytes });
        talk.asked_last(open.turn, question);
        effects.push(Effect::Start(open.turn, conversation.clone()));
        // Once a turn has ended, its chat may have gone on to another session.
        if said.outcome.is_none() && said.session.is_some() && said.session != talk.session {
            talk.session = said.session;
            effects.push(Effect::Session(talk.row()));
        }
        effects.extend(so_far(&said.text, &said.files).into_iter().map(|step| reply(&conversation, open.turn, step)));
        for asked in said.permissions {
            self.ask(&conversation, asked, true, effects);
        }
        self.turns.insert(open.turn, conversation);
        if let Some(outcome) = said.outcome {
            self.turn_ended(open.turn, outcome, (said.text, said.files), effects);
        }
    }

    /// The agent that serves a conversation, if the conversation is known.
    pub fn agent_of(&self, conversation: &Conversation) -> Option<&AgentName> {
        self.talks.get(conversation).map(|talk| &talk.agent)
    }

    /// Something an agent did. `Frozen`, `FreezeFailed` and `Stopped` are the daemon's and ignored here, and so is the coming and going
    /// of an agent that is not configured (any more): it gets no turns.
    pub fn agent_event(&mut self, event: AgentEvent, effects: &mut Vec<Effect>) {
        match event {
            AgentEvent::Ready { agent, pid, title } => {
                let Some(view) = self.agents.get_mut(&agent) else { return };
                *view = AgentView::Ready { pid, title };
                self.start_all(effects);
            }
            AgentEvent::Session { turn, session, kept } => {
                let Some(talk) = self.talk_of(turn) else { return };
                talk.session = Some(session);
                effects.push(Effect::Session(talk.row()));
                if !kept {
                    let conversation = talk.conversation.clone();
                    effects.push(notice(&conversation, self.words(&conversation).session_lost()));
                }
            }
            AgentEvent::Update { turn, update } => self.turn_update(turn, update, effects),
            AgentEvent::Permission { turn, request, title, options } => {
                let Some(conversation) = self.turns.get(&turn).cloned() else { return };
                self.ask(&conversation, RecoveredPermission { request, title, options }, false, effects);
            }
            AgentEvent::TurnEnded { turn, outcome, text, files } => {
                self.turn_ended(turn, outcome, (text, files), effects);
            }
            AgentEvent::Died { agent, how, restart_in }
            | AgentEvent::StartFailed { agent, reason: how, restart_in } => {
                self.agent_down(agent, how, restart_in, effects);
            }
            AgentEvent::Started { .. }
            | AgentEvent::Frozen { .. }
            | AgentEvent::FreezeFailed { .. }
            | AgentEvent::Stopped { .. } => {}
        }
    }

    /// Ends every turn in flight with a word to its chat, for a stop of the gateway.
    pub fn stop(&mut self, effects: &mut Vec<Effect>) {
        for turn in std::mem::take(&mut self.turns).into_keys() {
            let Some(talk) = self.talks.values_mut().find(|talk| talk.runs(turn)) else { continue };
            let started_at = talk.running.take().map(|running| running.started_at);
            talk.asks.clear();
            let conversation = talk.conversation.clone();
            let end = ReplyEnd::Failed(self.languages.on(&conversation.platform).stopping().to_owned());
            effects.push(Effect::Finish { turn, conversation, started_at, text: None, files: Vec::new(), end });
        }
    }

    fn turn_update(&mut self, turn: TurnId, update: TurnUpdate, effects: &mut Vec<Effect>) {
        let Some(talk) = self.talk_of(turn) else { return };
        match update {
            TurnUpdate::Text(text) => {
                if let Some(running) = &mut talk.running {
                    running.answer_bytes += text.len() as u64;
                }
                effects.push(reply(&talk.conversation, turn, ReplyStep::Delta(text)));
            }
            TurnUpdate::SoFar(text) => {
                if let Some(running) = &mut talk.running {
                    running.answer_bytes = text.len() as u64;
                }
                effects.push(reply(&talk.conversation, turn, ReplyStep::SoFar(text)));
            }
            TurnUpdate::File(file) => effects.push(reply(&talk.conversation, turn, ReplyStep::File(file))),
            TurnUpdate::Tool { title, status } if status != "completed" => {
                effects.push(reply(&talk.conversation, turn, ReplyStep::Activity(title)));
            }
            TurnUpdate::Tool { .. } | TurnUpdate::Thought(_) => {}
        }
    }

    fn turn_ended(
        &mut self,
        turn: TurnId,
        outcome: TurnOutcome,
        (text, files): (String, Vec<OutFile>),
        effects: &mut Vec<Effect>,
    ) {
        let Some(conversation) = self.turns.remove(&turn) else { return };
        let words = self.words(&conversation);
        let talk = self.talk(&conversation);
        let started_at = talk.running.take().map(|running| running.started_at);
        for ask in std::mem::take(&mut talk.asks) {
            effects.push(notice(&conversation, words.permission_expired(&ask.title, Expired::TurnOver)));
        }
        let end = match outcome {
            TurnOutcome::Ended { stop_reason } if stop_reason == "end_turn" => ReplyEnd::Complete,
            TurnOutcome::Ended { stop_reason } => ReplyEnd::Failed(words.stop_reason(&stop_reason)),
            TurnOutcome::Cancelled => ReplyEnd::Stopped,
            TurnOutcome::Failed { reason } => ReplyEnd::Failed(reason),
        };
        let (text, to) = (Some(text), conversation.clone());
        effects.push(Effect::Finish { turn, conversation: to, started_at, text, files, end });
        self.start(&conversation, effects);
    }

    fn agent_down(&mut self, agent: AgentName, reason: String, restart_in: Duration, effects: &mut Vec<Effect>) {
        let Some(view) = self.agents.get_mut(&agent) else { return };
        for talk in self.talks.values_mut().filter(|talk| talk.agent == agent) {
            let words = self.languages.on(&talk.conversation.platform);
            // Its turn may go on with the next process.
            for ask in std::mem::take(&mut talk.asks) {
                effects.push(notice(&talk.conversation, words.permission_expired(&ask.title, Expired::AgentEnded)));
            }
            if !talk.queue.is_empty() && !std::mem::replace(&mut talk.told_down, true) {
                effects.push(notice(&talk.conversation, words.agent_down(agent.as_str(), &reason, restart_in)));
            }
        }
        let wait_ms = i64::try_from(restart_in.as_millis()).unwrap_or(i64::MAX);
        let until = UnixMillis(UnixMillis::now().0.saturating_add(wait_ms));
        *view = AgentView::Down { reason, until };
    }

    fn enqueue(&mut self, turn: TurnId, conversation: &Conversation, question: Question, effects: &mut Vec<Effect>) {
        let words = self.words(conversation);
        let talk = self.talk(conversation);
        if talk.queue.len() >= QUEUE_LIMIT {
            effects.push(Effect::Close(turn));
            effects.push(notice(conversation, words.queue_full(QUEUE_LIMIT)));
            return;
        }
        let Question { text, files } = question;
        talk.queue.push_back(Waiting { turn, text, files });
        let (agent, told) = (talk.agent.clone(), talk.told_down);
        if let Some(AgentView::Down { reason, until }) = self.agents.get(&agent)
            && !told
        {
            let wait = until.since(UnixMillis::now());
            effects.push(notice(conversation, words.agent_down(agent.as_str(), reason, wait)));
            self.talk(conversation).told_down = true;
        }
        if !self.hold {
            files::ask(self.talk(conversation), effects);
        }
        self.start(conversation, effects);
    }

    fn start_all(&mut self, effects: &mut Vec<Effect>) {
        let waiting: Vec<Conversation> =
            self.talks.values().filter(|talk| !talk.queue.is_empty()).map(|talk| talk.conversation.clone()).collect();
        for conversation in waiting {
            self.start(&conversation, effects);
        }
    }

    /// Gives the next waiting turn of a conversation to its agent, if all allows it.
    fn start(&mut self, conversation: &Conversation, effects: &mut Vec<Effect>) {
        if self.hold {
            return;
        }
        let Some(talk) = self.talks.get_mut(conversation) else { return };
        let is_known = |waiting: &Waiting| waiting.files.as_ref().is_none_or(Files::are_known);
        if talk.running.is_some() || !talk.queue.front().is_some_and(is_known) {
            return;
        }
        if !self.agents.contains_key(&talk.agent) {
            let gone = std::mem::replace(&mut talk.agent, DEFAULT_AGENT.into());
            // Its session is that agent's own.
            talk.session = None;
            effects.push(Effect::Session(talk.row()));
            effects.push(notice(
                conversation,
                self.languages.on(&conversation.platform).agent_gone(gone.as_str(), talk.agent.as_str()),
            ));
        }
        if !matches!(self.agents.get(&talk.agent), Some(AgentView::Ready { .. })) {
            return;
        }
        let Some(Waiting { turn, text, files }) = talk.queue.pop_front() else { return };
        talk.told_down = false;
        talk.running = Some(Running { turn, started_at: UnixMillis::now(), answer_bytes: 0 });
        let (asked, given) = files.as_ref().map_or_else(|| (text.clone(), Vec::new()), Files::question);
        talk.asked_last(turn, Question { text, files });
        self.turns.insert(turn, conversation.clone());
        effects.push(Effect::Start(turn, conversation.clone()));
        let prompt = AgentCommand::Prompt { turn, session: talk.session.clone(), text: asked, files: given };
        effects.push(Effect::Agent(talk.agent.clone(), prompt));
    }

    fn talk_of(&mut self, turn: TurnId) -> Option<&mut Talk> {
        self.talks.get_mut(self.turns.get(&turn)?)
    }

    fn talk(&mut self, conversation: &Conversation) -> &mut Talk {
        if self.talks.len() >= TALKS_LIMIT && !self.talks.contains_key(conversation) {
            self.talks.retain(|_, talk| talk.has_turns());
        }
        let new = || Talk::new(conversation.clone(), DEFAULT_AGENT.into());
        self.talks.entry(conversation.clone()).or_insert_with(new)
    }
}

/// A turn that an agent has, as `status` shows it.
#[derive(Debug)]
pub struct RunningTurn<'a> {
    /// Its id.
    pub turn: TurnId,
    /// Where it was asked for.
    pub conversation: &'a Conversation,
    /// When the agent got it.
    pub started_at: UnixMillis,
    /// Bytes of the answer so far.
    pub answer_bytes: u64,
}

pub(crate) fn notice(conversation: &Conversation, notice: impl Into<Notice>) -> Effect {
    Effect::Notice(conversation.clone(), notice.into())
}

fn reply(conversation: &Conversation, turn: TurnId, step: ReplyStep) -> Effect {
    Effect::Show(Outbound::reply(conversation.clone(), turn, step))
}

#[cfg(test)]
mod tests;
