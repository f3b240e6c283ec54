//! One conversation: its agent, its session, its turns.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::files::{Files, with_attachments};
use crate::agent::PermissionOption;
use crate::chat::{Conversation, Inbound};
use crate::clock::UnixMillis;
use crate::id::{AgentName, SessionId, TurnId};
use crate::store::SessionRow;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Talk {
    pub(super) conversation: Conversation,
    pub(super) agent: AgentName,
    pub(super) session: Option<SessionId>,
    pub(super) queue: VecDeque<Waiting>,
    pub(super) running: Option<Running>,
    /// Permission requests of the running turn, in the order in which they came.
    pub(super) asks: VecDeque<Ask>,
    /// What `/retry` asks again.
    #[serde(default)]
    last_text: Option<String>,
    /// The files that belong to it, and the turn that had them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_files: Option<(TurnId, Files)>,
    /// Whether the chat was told that its agent is down, since its last turn began: once is enough.
    #[serde(default)]
    pub(super) told_down: bool,
}

/// A turn that waits for the one before it, or for its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) turn: TurnId,
    /// With a line for each file: what is asked by an image that knows nothing of files.
    pub(super) text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) files: Option<Files>,
}

/// What a turn is to ask.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// As in [`Waiting::text`].
    pub(super) text: String,
    pub(super) files: Option<Files>,
}

impl Question {
    pub(super) fn of(inbound: &Inbound) -> Self {
        Self { text: with_attachments(inbound), files: Files::of(inbound) }
    }
}

/// The turn that the agent has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    pub(super) turn: TurnId,
    pub(super) started_at: UnixMillis,
    pub(super) answer_bytes: u64,
}

/// A permission request that was not answered yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ask {
    /// What people know it by; 0 if it was asked before requests had numbers.
    #[serde(default)]
    pub(super) number: u64,
    /// What its agent knows it by.
    pub(super) request: u64,
    pub(super) title: String,
    pub(super) options: Vec<PermissionOption>,
    /// When the chat was told.
    #[serde(default = "UnixMillis::now")]
    pub(super) asked_at: UnixMillis,
}

impl Ask {
    pub(super) fn new(number: u64, request: u64, title: String, options: Vec<PermissionOption>) -> Self {
        Self { number, request, title, options, asked_at: UnixMillis::now() }
    }
}

impl Talk {
    pub(super) fn new(conversation: Conversation, agent: AgentName) -> Self {
        Self {
            conversation,
            agent,
            session: None,
            queue: VecDeque::new(),
            running: None,
            asks: VecDeque::new(),
            last_text: None,
            last_files: None,
            told_down: false,
        }
    }

    /// A turn asks this, so `/retry` does.
    pub(super) fn asked_last(&mut self, turn: TurnId, question: Question) {
        let Question { text, files } = question;
        (self.last_text, self.last_files) = (Some(text), files.map(|files| (turn, files)));
    }

    /// What `/retry` asks.
    pub(super) fn last_question(&self) -> Option<Question> {
        let text = self.last_text.clone()?;
        Some(Question { text, files: self.last_files.as_ref().map(|(turn, files)| files.again(*turn)) })
    }

    pub(super) fn forget_question(&mut self) {
        (self.last_text, self.last_files) = (None, None);
    }

    pub(super) fn has_turns(&self) -> bool {
        self.running.is_some() || !self.queue.is_empty()
    }

    /// Whether all there is to know of it is in the store.
    pub(super) fn is_in_store(&self) -> bool {
        !self.has_turns() && self.last_text.is_none()
    }

    pub(super) fn runs(&self, turn: TurnId) -> bool {
        self.running.as_ref().is_some_and(|running| running.turn == turn)
    }

    pub(super) fn is_waiting(&self, turn: TurnId) -> bool {
        self.queue.iter().any(|waiting| waiting.turn == turn)
    }

    pub(super) fn row(&self) -> SessionRow {
        SessionRow { conversation: self.conversation.clone(), agent: self.agent.clone(), session: self.session.clone() }
    }
}
