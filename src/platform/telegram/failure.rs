//! What a failed request means for the message in it. Telegram has no code for most of this, so its words are read.

use std::time::Duration;

use super::api::{Disposition, TelegramError};

/// A [`TelegramError`] as delivery sees it.
pub(super) enum Failure {
    /// It is tried again.
    Again {
        /// The wait that Telegram asked for.
        asked: Option<Duration>,
    },
    /// The message says that already.
    Unchanged,
    /// The chat has this id now.
    Moved(String),
    /// Nobody can be reached there.
    Unreachable,
    /// The message is gone.
    NoMessage,
    /// The forum topic is gone.
    NoThread,
    /// This message is not taken.
    Refused,
}

impl Failure {
    /// What this error means for a message.
    pub(super) fn of(error: &TelegramError) -> Self {
        let TelegramError::Refused { code, description, migrate_to, .. } = error else {
            return Self::Again { asked: None };
        };
        if let Some(new) = migrate_to {
            return Self::Moved(new.to_string());
        }
        match error.disposition() {
            Disposition::Retry { after } => return Self::Again { asked: after },
            // The task stops sending; the message stays for a time with a good token.
            Disposition::Fatal => return Self::Again { asked: None },
            Disposition::GiveUp => {}
        }
        let says = |words: &str| description.to_ascii_lowercase().contains(words);
        if says("message is not modified") {
            Self::Unchanged
        } else if says("message to edit not found") || says("message can't be edited") {
            Self::NoMessage
        } else if says("message thread not found") {
            Self::NoThread
        } else if *code == 403 || says("chat not found") || says("user is deactivated") || says("peer_id_invalid") {
            Self::Unreachable
        } else {
            Self::Refused
        }
    }
}
