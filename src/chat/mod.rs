//! The platform-neutral vocabulary of a chat: what comes in, what goes out, and where.
//!
//! **Invariant:** nothing here knows a platform's wire format or an agent's.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;
use crate::id::{PlatformName, TurnId};

/// Where people talk: a direct chat, a group, or a topic of a group. Sessions belong to conversations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Conversation {
    /// The platform the chat is on.
    pub platform: PlatformName,
    /// The platform's own id of the chat.
    pub chat: String,
    /// A topic or thread inside the chat, where the platform has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
}

impl Conversation {
    /// The conversation of `chat` on `platform`, outside any thread.
    pub fn new(platform: impl Into<PlatformName>, chat: impl Into<String>) -> Self {
        Self { platform: platform.into(), chat: chat.into(), thread: None }
    }
}

impl fmt::Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.platform, self.chat)?;
        match &self.thread {
            Some(thread) => write!(f, "/{thread}"),
            None => Ok(()),
        }
    }
}

/// Who wrote a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The platform's stable id of the person; what `allow_from` names.
    pub id: String,
    /// A display name, for people only.
    pub name: String,
}

/// A message as a platform delivered it, before any gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbound {
    /// Where it was said.
    pub conversation: Conversation,
    /// The bot account that heard it; with the platform and `message_id` the de-duplication key.
    pub account: String,
    /// The platform's id of the message; unique within (platform, account).
    pub message_id: String,
    /// Who said it.
    pub sender: Sender,
    /// When it was sent, by the platform's clock.
    pub sent_at: UnixMillis,
    /// What was said.
    pub text: String,
}

/// What the gateway wants shown in a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbound {
    /// Where.
    pub conversation: Conversation,
    /// What.
    pub content: OutboundContent,
}

impl Outbound {
    /// A step of the reply to a turn.
    pub fn reply(conversation: Conversation, turn: TurnId, step: ReplyStep) -> Self {
        Self { conversation, content: OutboundContent::Reply { turn, step } }
    }
}

/// The kinds of [`Outbound`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutboundContent {
    /// One complete message: the answer to a command, a notice. Delivered once, in order.
    Notice {
        /// Plain text.
        text: String,
    },
    /// A step of the streamed reply to a turn.
    Reply {
        /// The turn answered.
        turn: TurnId,
        /// The step.
        step: ReplyStep,
    },
}

/// The steps of a streamed reply, in order: one `Begin`, any number of `Delta` and `Activity`, one `End`. When the turn
/// outlived the process that streamed it, a `SoFar` comes in the place of all that was streamed before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyStep {
    /// The turn started; a platform may show that the agent is typing.
    Begin,
    /// Text to append.
    Delta(String),
    /// The whole text of the reply up to here, of a turn that is taken up after the gateway or its agent died. A platform
    /// shows what of it is missing. A reply that is delivered already is not shown again.
    SoFar(String),
    /// What the agent is doing, replacing the previous activity (a tool's title); not part of the answer.
    Activity(String),
    /// The reply is complete.
    End(ReplyEnd),
}

/// How a reply ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyEnd {
    /// The agent finished its turn.
    Complete,
    /// The user stopped it.
    Stopped,
    /// It broke off; the text says why, for the user.
    Failed(String),
}

/// The state of a platform's link, as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LinkState {
    /// Trying for the first time.
    Connecting,
    /// Messages flow.
    Connected,
    /// In trouble, and trying again.
    Retrying {
        /// The platform's error code, or the kind of failure.
        error_code: String,
        /// What went wrong, without secrets.
        error_message: String,
        /// When it is tried again.
        next_attempt_at: UnixMillis,
    },
    /// Held back by an admin.
    Paused,
    /// Given up until the configuration changes, for example a refused token.
    Fatal {
        /// The platform's error code, or the kind of failure.
        error_code: String,
        /// What went wrong and what to do, without secrets.
        error_message: String,
    },
}
