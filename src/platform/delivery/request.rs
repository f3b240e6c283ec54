//! What the delivery asks of a platform.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::chat::Choice;
use crate::clock::MonoNanos;
use crate::store::Attempt;

/// A platform's id of a message, unique in its chat; empty where the platform gives none. A number stays one in a
/// state, as earlier images wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "NumberOrText", into = "NumberOrText")]
pub(in crate::platform) struct MessageId(pub(in crate::platform) String);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(i64),
    Text(String),
}

impl From<NumberOrText> for MessageId {
    fn from(id: NumberOrText) -> Self {
        match id {
            NumberOrText::Number(number) => Self(number.to_string()),
            NumberOrText::Text(text) => Self(text),
        }
    }
}

impl From<MessageId> for NumberOrText {
    fn from(MessageId(text): MessageId) -> Self {
        match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => Self::Number(number),
            _ => Self::Text(text),
        }
    }
}

impl From<i64> for MessageId {
    fn from(id: i64) -> Self {
        Self(id.to_string())
    }
}

/// A request to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::platform) struct Request {
    /// The chat, by which [`super::Delivery::done`] knows the request.
    pub(in crate::platform) chat: String,
    /// The thread in it.
    pub(in crate::platform) thread: Option<String>,
    /// What to do there.
    pub(in crate::platform) action: Action,
    /// Drafts, or cards, were refused in the chat.
    pub(in crate::platform) draftless: bool,
    /// What to record before.
    pub(in crate::platform) attempt: Option<Attempt>,
}

/// The kinds of [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::platform) enum Action {
    /// Show that the agent works.
    Typing,
    /// Send a new message.
    Send(Post),
    /// Send a file as a new message.
    Attach(Attached),
    /// Replace the text of a message.
    Edit {
        /// Which.
        message_id: MessageId,
        /// What it says then.
        #[serde(flatten)]
        post: Post,
    },
    /// Show the draft of a message.
    Draft {
        /// The draft that this is a newer state of; not 0.
        draft_id: u64,
        /// What it says.
        #[serde(flatten)]
        post: Post,
    },
}

/// A file that is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::platform) struct Attached {
    /// Where it is.
    pub(in crate::platform) path: PathBuf,
    /// What it is called.
    pub(in crate::platform) name: String,
    /// Its media type, where it is known.
    #[serde(default)]
    pub(in crate::platform) mime: Option<String>,
    /// A word that goes with it: that it may be a repeat.
    #[serde(default)]
    pub(in crate::platform) word: Option<String>,
}

impl Attached {
    /// Whether it is a picture that is shown as such: of a kind that every platform knows, by its first bytes or by what
    /// its agent says.
    pub(in crate::platform) fn is_picture(&self) -> bool {
        matches!(self.mime.as_deref(), Some("image/png" | "image/jpeg" | "image/webp"))
    }

    /// Its size, if it is still there.
    pub(in crate::platform) async fn bytes(&self) -> Option<u64> {
        tokio::fs::metadata(&self.path).await.ok().filter(|found| found.is_file()).map(|found| found.len())
    }
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::platform) struct Post {
    /// The whole text.
    pub(in crate::platform) text: String,
    /// What the text is.
    #[serde(default)]
    pub(in crate::platform) format: Format,
    /// What may be answered by a press.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::platform) choices: Vec<Choice>,
    /// Nothing will be changed about it.
    #[serde(default)]
    pub(in crate::platform) is_final: bool,
}

/// What a text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::platform) enum Format {
    /// Characters that are shown as they are: the gateway's own words.
    #[default]
    Plain,
    /// Markdown as agents write it.
    Markdown,
}

/// What [`super::Delivery::next`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::platform) enum Next {
    /// Make this request, and tell [`super::Delivery::done`] how it ended.
    Start(Request),
    /// Nothing before this instant.
    At(MonoNanos),
    /// Nothing until something comes or a request ends.
    Idle,
}

/// How urgently it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::platform) enum Pace {
    /// A growing reply is shown about once a second.
    Streaming,
    /// Everything there is, at once: the process ends.
    Flushing,
}
