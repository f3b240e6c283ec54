//! Turns whose process died before it had answered: the next process is asked what has become of them.
//!
//! ```text
//! Running ──process dies──► no process ──ready──► session/load ──answered──► ended
//!                               └─ deadline ─────────┴─ deadline, dies again ──►┘
//! ```
//!
//! `session/load` replays the history of the session. What the agent says in it after the prompt of the turn is what is
//! left of the answer: what is missing of it is shown. Nobody can tell whether it is the whole answer, so the turn has
//! failed in any case, with a word on what was found. The prompt is never sent again, since the agent has it.
//!
//! The same prompt twice in a row cannot be told apart: if the agent died before it had kept the second, the answer to
//! the first is taken for it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stage::Loading;
use super::{Call, Connection, Phase, Stage, Turn, after};
use crate::agent::acp::{self, SessionEvent};
use crate::agent::{AgentEvent, TurnOutcome, TurnUpdate};
use crate::clock::MonoNanos;
use crate::id::{SessionId, TurnId};
use crate::jsonrpc::ErrorObject;

/// So much of the end of a prompt is remembered, in bytes, to find it in the history.
const PROMPT_BYTES_MAX: usize = 4096;

/// What to do once the agent has the message: its model sees it before whatever comes next.
const GO_ON: &str = "Say `continue`, or /retry to ask again";

/// A prompt, to be known again. White space does not count: agents trim what they keep. Empty if it was given by an
/// image that did not note it; then any message is taken for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Prompt {
    text: String,
    /// It is the end of a longer one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

impl Prompt {
    pub(super) fn of(text: &str) -> Self {
        let end = tail(text, PROMPT_BYTES_MAX);
        Self { text: without_space(end), cut: end.len() < text.len() }
    }

    /// One that comes after files, which an agent may keep with it in one piece.
    pub(super) fn after_files(text: &str) -> Self {
        Self { cut: true, ..Self::of(text) }
    }

    /// Whether it is the end of these pieces, and begins where one of them does.
    fn ends<'a>(&self, pieces: impl DoubleEndedIterator<Item = &'a String>) -> bool {
        let mut missing = self.text.as_str();
        for piece in pieces.rev().map(|piece| without_space(piece)) {
            match missing.strip_suffix(&piece) {
                Some("") => return true,
                Some(rest) => missing = rest,
                None => return self.cut && piece.ends_with(missing),
            }
        }
        false
    }
}

/// A turn that waits for what the next process has kept of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Resume {
    pub(super) session: SessionId,
    prompt: Prompt,
    /// All that was said in the turn.
    said: String,
    /// How the process ended, for people.
    how: String,
    /// For a process to be ready; once one is, for its answer to `session/load`.
    deadline: MonoNanos,
    /// `session/load` was sent.
    #[serde(default)]
    pub(super) loading: bool,
    /// The gateway was killed since then, so that part of the replay may be missing: it is asked for once more.
    #[serde(default)]
    again: bool,
    #[serde(default)]
    history: History,
}

/// The end of a history that is replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct History {
    /// What the user said since the agent did, by piece: an agent may keep a message in one piece or in many, and
    /// messages that it has not answered follow each other. No more of it than is needed to find a prompt.
    user: VecDeque<String>,
    user_bytes: usize,
    /// What the agent has said since.
    answer: String,
}

impl History {
    fn add(&mut self, event: SessionEvent, answer_bytes_max: usize) {
        match event {
            SessionEvent::User(text) if !text.is_empty() => {
                if !self.answer.is_empty() {
                    *self = Self::default();
                }
                let piece = tail(&text, 2 * PROMPT_BYTES_MAX).to_owned();
                self.user_bytes += piece.len();
                self.user.push_back(piece);
                while self.user_bytes > 2 * PROMPT_BYTES_MAX
                    && let Some(oldest) = self.user.pop_front()
                {
                    self.user_bytes -= oldest.len();
                }
            }
            // What comes before any message answers none.
            SessionEvent::Text(text) if !self.user.is_empty() => {
                let room = answer_bytes_max.saturating_sub(self.answer.len());
                self.answer.push_str(&text[..text.floor_char_boundary(room)]);
            }
            _ => {}
        }
    }

    /// Whether the last thing that the user said is the prompt.
    fn ends_with(&self, prompt: &Prompt) -> bool {
        if prompt.text.is_empty() { !self.user.is_empty() } else { prompt.ends(self.user.iter()) }
    }
}

impl Resume {
    pub(super) fn new(session: SessionId, prompt: Prompt, said: String, how: &str, deadline: MonoNanos) -> Self {
        let (how, history) = (how.to_owned(), History::default());
        Self { session, prompt, said, how, deadline, loading: false, again: false, history }
    }

    pub(super) fn deadline(&self) -> MonoNanos {
        self.deadline
    }

    /// What the user is told if nothing more of the answer is to be had.
    fn lost(&self, why: &str) -> TurnOutcome {
        lost(&self.how, !self.said.is_empty(), why)
    }

    /// What has become of the turn: the whole text of it, if the history has more than was said, and its end.
    fn judge(&self) -> (Option<String>, TurnOutcome) {
        let Self { how, history, .. } = self;
        if !history.ends_with(&self.prompt) {
            return (None, self.lost("its history does not have your message"));
        }
        if history.answer.trim().is_empty() {
            let lost = loss(how, !self.said.is_empty());
            let reason = format!("{lost}: its history has your message, but nothing of the answer. {GO_ON}");
            return (None, TurnOutcome::Failed { reason });
        }
        let whole = join(&self.said, &history.answer);
        let found = match whole {
            Some(_) => "while it answered; this is what it has kept of its answer",
            None => "before it had answered in full; your message is in its history",
        };
        let reason = format!("the agent ended ({how}) {found}. {GO_ON}");
        (whole, TurnOutcome::Failed { reason })
    }
}

/// How a turn ends of which nothing more is to be had. `begun`: something was said in it.
fn lost(how: &str, begun: bool, why: &str) -> TurnOutcome {
    TurnOutcome::Failed { reason: format!("{}: {why}; /retry asks again", loss(how, begun)) }
}

fn loss(how: &str, begun: bool) -> String {
    let what = if begun {
        "before it had answered in full, and the rest of the answer is lost"
    } else {
        "before it answered, and the answer is lost"
    };
    format!("the agent ended ({how}) {what}")
}

impl Connection {
    /// The process has ended and said its last, `how` for people. Turns whose prompts it had are taken up by the next
    /// process if the agent can load a session, and end if it cannot; turns that it had not begun wait for the next.
    /// `said` has what was said in a turn.
    pub(in crate::agent) fn break_off(&mut self, now: MonoNanos, how: &str, said: impl Fn(TurnId) -> String) {
        let can_load = matches!(self.phase, Phase::Ready { can_load: true, .. });
        for id in self.turns.keys().copied().collect::<Vec<_>>() {
            let Some(turn) = self.turns.get_mut(&id) else { continue };
            let outcome = match &turn.stage {
                Stage::Waiting { .. } => continue,
                // Nothing was sent.
                Stage::Loading(Loading { session, question, .. }) => {
                    let (session, question) = (Some(session.clone()), question.clone());
                    turn.stage = Stage::Waiting { session, question };
                    continue;
                }
                Stage::Resuming(resume) if !resume.loading => continue,
                Stage::Resuming(resume) => resume.lost(&format!("it ended again ({how}) while it loaded the session")),
                Stage::Opening { .. } => {
                    let reason = format!("the agent ended ({how}) before it was given your message; /retry asks again");
                    TurnOutcome::Failed { reason }
                }
                Stage::Cancelling { .. } => TurnOutcome::Cancelled,
                Stage::Running { session, prompt } if can_load => {
                    let deadline = after(now, self.limits.resume_timeout);
                    let resume = Resume::new(session.clone(), prompt.clone(), said(id), how, deadline);
                    *turn = Turn::new(Stage::Resuming(resume));
                    continue;
                }
                Stage::Running { .. } => lost(how, !said(id).is_empty(), "it cannot load a session again"),
            };
            self.end_turn(id, outcome);
        }
        self.reset();
    }

    /// Asks the process, if it is ready, what it has kept of a turn.
    pub(super) fn resume(&mut self, now: MonoNanos, turn: TurnId) {
        let Phase::Ready { can_load, .. } = self.phase else { return };
        if self.leaving {
            return;
        }
        let Some(Turn { stage: Stage::Resuming(resume), .. }) = self.turns.get_mut(&turn) else { return };
        if !can_load {
            return self.end_lost(turn, "it cannot load a session any more");
        }
        let deadline = after(now, self.limits.session_timeout);
        (resume.loading, resume.again) = (true, false);
        (resume.deadline, resume.history) = (deadline, History::default());
        let session = resume.session.clone();
        let params = acp::load_session_params(&session, &self.cwd);
        self.call(acp::SESSION_LOAD, params, Call::LoadSession { turn, session, replayed: false, deadline });
    }

    /// A piece of history that is replayed, or news outside of any turn.
    pub(super) fn replayed(&mut self, session: &SessionId, event: SessionEvent) {
        for call in self.calls.values_mut() {
            if let Call::LoadSession { session: loading, replayed, .. } = call
                && loading == session
            {
                self.changed |= !*replayed;
                *replayed = true;
            }
        }
        let resuming = self.turns.values_mut().find_map(|turn| match &mut turn.stage {
            Stage::Resuming(resume) if resume.loading && resume.session == *session => Some(resume),
            _ => None,
        });
        if let Some(resume) = resuming {
            // Not recorded for each piece: after a kill of the gateway the history is asked for once more.
            resume.history.add(event, self.limits.resumed_bytes_max);
        }
    }

    /// `session/load` of a turn that is taken up was answered.
    pub(super) fn resumed(
        &mut self,
        now: MonoNanos,
        turn: TurnId,
        session: SessionId,
        replayed: bool,
        outcome: Result<Value, ErrorObject>,
    ) {
        match outcome {
            Ok(result) if replayed || !acp::is_empty_result(&result) => {}
            Ok(_) => return self.end_lost(turn, "it does not know the session any more"),
            Err(error) => return self.end_lost(turn, &acp::error_text(&error, &self.auth_methods)),
        }
        self.sessions.insert(session);
        let Some(Turn { stage: Stage::Resuming(resume), .. }) = self.turns.get(&turn) else { return };
        if resume.again {
            return self.resume(now, turn);
        }
        let (whole, outcome) = resume.judge();
        if let Some(text) = whole {
            self.events.push_back(AgentEvent::Update { turn, update: TurnUpdate::SoFar(text) });
        }
        self.end_turn(turn, outcome);
    }

    /// Ends a turn that waits for what is left of it with `why` nothing is to be had.
    pub(super) fn end_lost(&mut self, turn: TurnId, why: &str) {
        if let Some(Turn { stage: Stage::Resuming(resume), .. }) = self.turns.get(&turn) {
            let outcome = resume.lost(why);
            self.end_turn(turn, outcome);
        }
    }

    /// A turn that is taken up has taken too long.
    pub(super) fn end_late(&mut self, turn: TurnId) {
        let Some(Turn { stage: Stage::Resuming(resume), .. }) = self.turns.get(&turn) else { return };
        let why = if resume.loading {
            "it did not load the session in time".to_owned()
        } else {
            format!("no new process of it was ready within {} s", self.limits.resume_timeout.as_secs_f32())
        };
        self.end_lost(turn, &why);
    }

    /// The gateway was killed: what was replayed since the last record is not known.
    pub(super) fn replay_again(&mut self) {
        for turn in self.turns.values_mut() {
            if let Stage::Resuming(resume) = &mut turn.stage {
                resume.again = resume.loading;
            }
        }
    }

    /// Nobody knows whether the agent was asked to load the session of a turn that is taken up: asks once more, which
    /// does no harm. Whether it is such a turn.
    pub(super) fn resume_again(&mut self, now: MonoNanos, turn: TurnId) -> bool {
        let Some(Turn { stage: Stage::Resuming(resume), .. }) = self.turns.get_mut(&turn) else { return false };
        resume.loading = false;
        self.resume(now, turn);
        true
    }
}

/// The text of a turn in which `said` was said, and of whose answer a history has `kept`. It always begins with `said`,
/// because that is shown already. `None` if there is nothing new in it. White space need not agree.
fn join(said: &str, kept: &str) -> Option<String> {
    if let Some(rest) = kept.strip_prefix(said) {
        return (!rest.trim().is_empty()).then(|| kept.to_owned());
    }
    match rest(said, kept) {
        Some(rest) if rest.trim().is_empty() => None,
        Some(rest) if said.ends_with(char::is_whitespace) => Some(format!("{said}{}", rest.trim_start())),
        Some(rest) => Some(format!("{said}{rest}")),
        None if without_space(said).contains(&without_space(kept)) => None,
        // It has kept something else than it said, for example only what followed a tool call.
        None => Some(format!("{said}\n\n{kept}")),
    }
}

/// What follows `said` in `kept`; `None` if that does not begin with it.
fn rest<'a>(said: &str, kept: &'a str) -> Option<&'a str> {
    let mut kept = kept.chars();
    for wanted in said.chars().filter(|char| !char.is_whitespace()) {
        if kept.find(|char| !char.is_whitespace()) != Some(wanted) {
            return None;
        }
    }
    Some(kept.as_str())
}

fn without_space(text: &str) -> String {
    text.chars().filter(|char| !char.is_whitespace()).collect()
}

/// The last `bytes_max` bytes of a text, or a few less to keep characters whole.
fn tail(text: &str, bytes_max: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(bytes_max))..]
}
