//! Telegram over the Bot API, by long polling.
//!
//! ```text
//!  commands ─► ┌──────────────────────── task ───────────────────────┐ ─► events
//!              │ poll: one getUpdates ─► intake ─► store ─► Inbound  │
//!              │ delivery (what is to be shown) ─► up to 16 requests │
//!              └──────────────────────── api ────────────────────────┘
//! ```
//!
//! `api` speaks HTTP, `intake` reads updates, `item` is one reply and how it is split over messages, `delivery` the
//! queues of all chats, `failure` what an error means to them, `limiter` how often anything may be sent; `task` drives
//! them, `ledger` has what they found out recorded, and `saved` is what is handed over besides.
//!
//! **Invariants**
//! - An update is confirmed only after the store has it; a poll may be dropped at any time, because dropping it
//!   confirms nothing.
//! - The task never waits for its events to be taken: they queue inside, and no update is asked for meanwhile.
//! - The token is in no event, no error and no log.
//!
//! Deliberately absent: webhooks (they need a public address), and any decision on who may talk (the gateway's gate).

pub mod api;
mod client;
mod delivery;
mod failure;
mod intake;
mod item;
mod ledger;
mod limiter;
mod pace;
mod saved;
mod split;
mod task;

use serde_json::Value;
use tokio::sync::mpsc;

use super::{PlatformEvent, PlatformHandle};
use crate::config::TelegramConfig;
use crate::store::Store;
pub use saved::check_state;
use task::Task;

/// The key in `[platforms.<name>]`, and the platform of every conversation here.
pub const PLATFORM: &str = "telegram";

/// Commands that may wait for the task. It always takes them promptly, so a full queue is a burst.
const COMMANDS: usize = 256;

/// Starts the task of the platform; `restored` is the state in an earlier [`PlatformEvent::Frozen`]. What is to be
/// shown is taken from the store in any case. A reply of which neither has the text waits until its turn goes on
/// ([`crate::chat::ReplyStep::SoFar`]) or ends.
///
/// It returns at once: the task connects on its own and tells how that goes as
/// [`PlatformEvent::Link`]. The task ends by [`super::PlatformCommand::Stop`], or when the handle or the receiver of
/// `events` is gone.
pub fn spawn(
    config: TelegramConfig,
    restored: Option<Value>,
    store: Store,
    events: mpsc::Sender<PlatformEvent>,
) -> PlatformHandle {
    let (sender, commands) = mpsc::channel(COMMANDS);
    let task = Task::new(config, restored, store, commands, events);
    tokio::spawn(task.run());
    PlatformHandle::new(PLATFORM.into(), sender)
}
