//! Weixin (personal WeChat) over Tencent's iLink bot API, by long polling.
//!
//! `api` speaks HTTP, `error` says what a failure means, `message` reads what people write, `intake` brings it into the
//! store, `media` has their files, and `login` the requests of a login by QR code. `link` and `sender` are what the
//! platform's task ([`super`]) drives.
//!
//! **Invariants**
//! - A cursor is confirmed only after the store has what is before it.
//! - No token, ticket, context or key is in any event, error or log.
//!
//! Deliberately absent: changing or deleting a message, which the API has not, and any decision on who may talk (the
//! gateway's gate).

pub mod api;
pub mod error;
mod intake;
mod link;
pub mod login;
pub mod media;
pub mod message;
mod sender;

use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use super::delivery::limiter::Rate;
use super::delivery::medium::{Growth, Measure, Medium};
use super::{Left, PlatformEvent, PlatformHandle, saved, task};
use crate::config::WeixinConfig;
use crate::store::Store;
use link::WeixinLink;

/// The key in `[platforms.<name>]`, and the platform of every conversation here.
pub const PLATFORM: &str = "weixin";

/// The longest text of a message. The service states no limit; hermes-agent has used this one.
const MESSAGE_CHARS_MAX: usize = 2000;
/// Typing is shown anew so often, and ended when it is not.
const TYPING_PERIOD: Duration = Duration::from_secs(5);
/// Messages that are sent in a second in all chats together. The service states no limit, and answers -2 beyond it.
const PER_SECOND: u32 = 5;

/// Starts the task of the platform, see [`super`]. A reply of which neither `left` nor the store has the text waits until
/// its turn goes on ([`crate::chat::ReplyStep::SoFar`]) or ends.
pub fn spawn(config: WeixinConfig, left: Left, store: Store, events: mpsc::Sender<PlatformEvent>) -> PlatformHandle {
    let medium = medium(&config);
    task::spawn(WeixinLink::new(config), medium, left, store, events)
}

fn medium(config: &WeixinConfig) -> Medium {
    Medium {
        platform: PLATFORM,
        message_max: Measure::Chars(MESSAGE_CHARS_MAX),
        growth: |_| Growth::Blocks,
        typing: Some(TYPING_PERIOD),
        language: config.access.language,
        chat_rate: |_| Rate::CHAT,
        overall: Rate { period: Duration::from_millis(1000 / u64::from(PER_SECOND)), burst: PER_SECOND },
        replaces: false,
    }
}

/// Whether this image understands the platform's state, for the preflight child.
///
/// # Errors
/// What is not understood.
pub fn check_state(state: &Value) -> Result<(), serde_json::Error> {
    saved::check::<WeixinLink>(state)
}
