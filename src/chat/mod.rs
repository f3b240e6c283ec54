//! The platform-neutral vocabulary of a chat: what comes in, what goes out, and where.
//!
//! **Invariant:** nothing here knows a platform's wire format or an agent's.

pub mod file_name;
mod outgoing;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;
use crate::id::{PlatformName, TurnId};
pub use outgoing::{Content, NotSent, OutFile, so_far};

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
    /// What was said; may be empty beside attachments.
    pub text: String,
    /// Whether the chat is one with this person alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_direct: bool,
    /// What came with the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// What the platform needs to answer in this chat, for itself alone to read. It may hold secrets: not for logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// A file in a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// What it is.
    pub kind: AttachmentKind,
    /// Its file name, where it has one. Chosen by whoever sent it, so no path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its media type (RFC 6838), where the platform says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
    /// Its size, where the platform says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Where the platform has it, for itself alone to read. It may hold keys: not for logs.
    pub source: String,
}

/// The kinds of [`Attachment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachmentKind {
    /// A picture.
    Image,
    /// Speech or music.
    Audio,
    /// Moving pictures.
    Video,
    /// Anything else.
    File,
}

impl AttachmentKind {
    /// As agents are told of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::File => "file",
        }
    }
}

/// A file of a message that was fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalFile {
    /// What it is said to be.
    pub kind: AttachmentKind,
    /// What it is called; safe as the name of a file.
    pub name: String,
    /// Its media type, where the platform said so. Nobody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
    /// Where it is; absolute.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
}

/// What became of a file of a message: it is there, or the reason why it is not to be had, in short and without secrets.
pub type Fetched = Result<LocalFile, String>;

/// One complete message: the answer to a command, a word of the gateway's own. Delivered once, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Plain text.
    pub text: String,
    /// What may be answered by a press, where the platform has buttons. The text says the same in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
}

impl<T: Into<String>> From<T> for Notice {
    fn from(text: T) -> Self {
        Self { text: text.into(), choices: Vec::new() }
    }
}

/// A button below a [`Notice`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What stands on it.
    pub label: String,
    /// What is said by pressing it: a chat command of at most [`Choice::COMMAND_BYTES_MAX`].
    pub command: String,
}

impl Choice {
    /// The longest command, in bytes: what Telegram lets a button carry.
    pub const COMMAND_BYTES_MAX: usize = 64;
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
    /// A message of its own.
    Notice(Notice),
    /// A step of the streamed reply to a turn.
    Reply {
        /// The turn answered.
        turn: TurnId,
        /// The step.
        step: ReplyStep,
    },
}

/// The steps of a streamed reply, in order: one `Begin`, any number of `Delta`, `File` and `Activity`, one `End`. When the turn
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
    /// A file that stands behind the text so far. One that is known by its number is not shown again.
    File(OutFile),
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LinkState {
    /// Trying for the first time.
    #[default]
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
