//! Telegram over the Bot API, by long polling or a webhook.
//!
//! `api` speaks HTTP, with `methods` and `words`; `link` polls, or listens by `webhook`, `intake` reads updates and `media` the files in them, `sender`
//! sends and reads what failures mean, `markdown` makes entities of an agent's Markdown, over pages by `fences`; the rest is every platform's (`task`, `delivery`).
//!
//! **Invariant:** the token is in no event, no error and no log.
//!
//! Deliberately absent: any decision on who may talk (the gateway's gate).

pub mod api;
mod chores;
mod fences;
mod intake;
mod link;
mod markdown;
mod media;
pub mod methods;
mod sender;
mod upload;
mod webhook;
pub mod words;

use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use super::delivery::limiter::Rate;
use super::delivery::medium::{Growth, Measure, Medium};
use super::delivery::split::MESSAGE_UNITS_MAX;
use super::{Left, PlatformEvent, PlatformHandle, saved, task};
use crate::config::TelegramConfig;
use crate::store::Store;
use link::TelegramLink;
pub use webhook::LISTENER;

/// The key in `[platforms.<name>]`, and the platform of every conversation here.
pub const PLATFORM: &str = "telegram";

/// A client shows "typing" for 5 s (<https://core.telegram.org/bots/api#sendchataction>).
const TYPING_PERIOD: Duration = Duration::from_secs(4);

/// Starts the task of the platform, see [`super`]. A reply of which neither `left` nor the store has the text waits until
/// its turn goes on ([`crate::chat::ReplyStep::SoFar`]) or ends.
pub fn spawn(config: TelegramConfig, left: Left, store: Store, events: mpsc::Sender<PlatformEvent>) -> PlatformHandle {
    let medium = medium(&config);
    task::spawn(TelegramLink::new(config), medium, left, store, events)
}

/// About one message a second in a chat, 20 a minute in a group, and in all as many a second as the configuration says
/// (<https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this>).
fn medium(config: &TelegramConfig) -> Medium {
    Medium {
        platform: PLATFORM,
        message_max: Measure::Utf16(MESSAGE_UNITS_MAX),
        growth: |chat| if is_group(chat) { Growth::Edit } else { Growth::Draft },
        typing: Some(TYPING_PERIOD),
        language: config.access.language,
        chat_rate: |chat| if is_group(chat) { Rate::GROUP } else { Rate::CHAT },
        overall: Rate::overall(config.messages_per_second),
        replaces: false,
    }
}

/// Groups, supergroups and channels have negative ids.
fn is_group(chat: &str) -> bool {
    chat.starts_with('-')
}

/// Whether this image understands the platform's state, for the preflight child.
///
/// # Errors
/// What is not understood.
pub fn check_state(state: &Value) -> Result<(), serde_json::Error> {
    saved::check::<TelegramLink>(state)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::link::Saved;
    use super::*;
    use crate::platform::link::Link;

    fn username(left: Value) -> Option<String> {
        let saved: Saved = saved::read::<TelegramLink>(Some(left), "42").link;
        let again = serde_json::to_value(saved).expect("plain data");
        again["username"].as_str().map(str::to_owned)
    }

    #[test]
    fn a_state_of_any_version_is_read_by_its_fields() {
        assert_eq!(TelegramLink::PLATFORM, PLATFORM);
        let later = json!({ "version": 9, "account": "42", "username": "HermesBot", "mood": {}, "delivery": {} });
        assert_eq!(username(later).as_deref(), Some("HermesBot"));
        assert!(check_state(&json!({ "version": 1, "account": "42" })).is_ok());
    }

    #[test]
    fn a_state_of_another_bot_or_of_no_sense_is_dropped() {
        for state in [json!({ "version": 1, "account": "43", "username": "Other" }), json!([1]), json!(null)] {
            assert_eq!(username(state), None);
        }
    }
}
