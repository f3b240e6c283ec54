//! What the messages of a platform are like: how long, how often, and whether one can still change.

use std::time::Duration;

use super::limiter::Rate;
use super::split;
use crate::words::Language;

/// What [`super::Delivery`] knows of its platform.
#[derive(Clone, Copy, Debug)]
pub(in crate::platform) struct Medium {
    /// Its name, for the log.
    pub(in crate::platform) platform: &'static str,
    /// The longest message.
    pub(in crate::platform) message_max: Measure,
    /// How the text of a growing reply is shown in a chat.
    pub(in crate::platform) growth: fn(&str) -> Growth,
    /// How often typing is shown again; none where there is no such thing.
    pub(in crate::platform) typing: Option<Duration>,
    /// What is spoken in its chats.
    pub(in crate::platform) language: Language,
    /// How often a chat takes a message.
    pub(in crate::platform) chat_rate: fn(&str) -> Rate,
    /// How often all chats together do.
    pub(in crate::platform) overall: Rate,
    /// A message that is sent again takes the place of itself, so nobody sees a repeat.
    pub(in crate::platform) replaces: bool,
}

impl Medium {
    /// What an item in `chat` has to know.
    pub(super) fn shape(&self, chat: &str) -> Shape {
        Shape {
            message_max: self.message_max,
            growth: (self.growth)(chat),
            typing: self.typing,
            language: self.language,
            replaces: self.replaces,
        }
    }
}

/// A medium that is not known yet: nothing can be sent through it without being corrected by [`super::Delivery::on`].
impl Default for Medium {
    fn default() -> Self {
        Self {
            platform: "unknown",
            message_max: Measure::Utf16(split::MESSAGE_UNITS_MAX),
            growth: |_| Growth::Edit,
            typing: Some(Duration::from_secs(4)),
            language: Language::default(),
            chat_rate: |_| Rate::CHAT,
            overall: Rate::default(),
            replaces: false,
        }
    }
}

/// The part of a [`Medium`] that is the same for all messages of a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) message_max: Measure,
    pub(super) growth: Growth,
    pub(super) typing: Option<Duration>,
    pub(super) language: Language,
    pub(super) replaces: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Medium::default().shape("")
    }
}

/// How the text of a growing reply is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::platform) enum Growth {
    /// In a message that is edited.
    Edit,
    /// The same, and the message must be told that it is complete, also where its text is.
    Card,
    /// As a draft that the platform shows for a time, until the message is sent as a whole.
    Draft,
    /// In messages of whole paragraphs, since none can be edited.
    Blocks,
}

/// A length in the unit that a platform counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::platform) enum Measure {
    /// UTF-16 code units.
    Utf16(usize),
    /// Bytes of UTF-8.
    Bytes(usize),
    /// Unicode scalar values.
    Chars(usize),
}

impl Measure {
    /// How many units.
    pub(super) fn limit(self) -> usize {
        match self {
            Self::Utf16(limit) | Self::Bytes(limit) | Self::Chars(limit) => limit,
        }
    }

    /// The length of a character in this unit.
    pub(super) fn of(self, c: char) -> usize {
        match self {
            Self::Utf16(_) => c.len_utf16(),
            Self::Bytes(_) => c.len_utf8(),
            Self::Chars(_) => 1,
        }
    }

    /// The length of a text in this unit.
    pub(super) fn len(self, text: &str) -> usize {
        match self {
            Self::Bytes(_) => text.len(),
            _ => text.chars().map(|c| self.of(c)).sum(),
        }
    }

    /// What is left beside `used` units.
    pub(super) fn less(self, used: usize) -> Self {
        match self {
            Self::Utf16(limit) => Self::Utf16(limit.saturating_sub(used)),
            Self::Bytes(limit) => Self::Bytes(limit.saturating_sub(used)),
            Self::Chars(limit) => Self::Chars(limit.saturating_sub(used)),
        }
    }
}
