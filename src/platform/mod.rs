//! Chat platforms: each takes messages in, stores them durably, and delivers what the gateway wants shown.
//!
//! One task drives one platform. It takes [`PlatformCommand`]s and tells what happens as [`PlatformEvent`]s, both
//! through bounded queues.
//!
//! ```text
//!  commands ─► ┌───────────────────────── task ──────────────────────────┐ ─► events
//!              │ link: a poll, a socket ─► store ─► Inbound              │
//!              │ delivery (what is to be shown) ─► up to 16 requests     │
//!              │ fetches (files of messages) ─► up to 4 at once          │
//!              └─────────────────────────────────────────────────────────┘
//! ```
//!
//! `task` and `delivery` are the same for all network platforms; a platform is a `link::Link` and a `link::Sender`.
//!
//! **Invariants**
//! - A message is confirmed to the platform only after [`crate::store::Store::accept`] returned.
//! - What is to be shown is in the store's outbox, where the platform finds it when it starts, whatever became of the
//!   process before. A handoff carries what is volatile besides.
//! - *Marker rule.* After [`PlatformCommand::Freeze`] the task starts nothing new on the network, waits for the
//!   sends in flight no longer than the deadline in it, and [`PlatformEvent::Frozen`] is the last event it sends
//!   until [`PlatformCommand::Thaw`]. Commands queued before the marker are part of the snapshot.
//! - A platform's trouble is its own: it is told as [`LinkState`] and never ends the daemon.
//! - This module knows no agent.

mod account;
mod delivery;
pub mod dingtalk;
mod fetch;
mod fingerprint;
mod http;
mod link;
mod listener;
pub mod local;
mod names;
mod pending;
mod saved;
mod task;
pub mod telegram;
mod uploads;
pub mod web;
pub mod weixin;

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{SendError, TrySendError};
use tokio::sync::watch;

use crate::chat::{Fetched, Inbound, LinkState, Outbound};
use crate::clock::UnixMillis;
use crate::id::{PlatformName, TurnId};
use crate::store::EntryId;
pub use account::{Account, account};
pub use fetch::{Order, turn_of};
pub use link::NamedFd;

/// What the gateway wants of a platform.
#[derive(Debug)]
pub enum PlatformCommand {
    /// Show something.
    Deliver {
        /// What, and where.
        outbound: Box<Outbound>,
        /// Its entry in the outbox: of a notice, and with the first and the last step of a reply. Without one a kill
        /// costs it.
        entry: Option<EntryId>,
    },
    /// Fetch the files of a message, and send [`PlatformEvent::Fetched`] within [`Order::DEADLINE`] of being able to begin
    /// and twice that in all. What is under way at a freeze goes on, and is lost with the image.
    Fetch(Box<Order>),
    /// Take in nothing more and start no send, finish the sends in flight no later than this, and send
    /// [`PlatformEvent::Drained`]. Commands are still taken. So a handoff waits for the network while everything else
    /// goes on.
    Drain {
        /// The longest wait.
        drain: Duration,
    },
    /// Stop at the next safe point and send [`PlatformEvent::Frozen`].
    Freeze {
        /// The longest wait for sends in flight. One that is still in flight then is redelivered by the next image
        /// with the marker for possible repeats.
        drain: Duration,
    },
    /// Go on after a handoff that did not happen.
    Thaw,
    /// Take in nothing and send nothing until [`PlatformCommand::Resume`]: an admin wants it so.
    Pause,
    /// Go on.
    Resume,
    /// The image that runs has proven itself: what still is the one's before may be replaced.
    Proven,
    /// Deliver what is queued, no longer than this, then end the task with [`PlatformEvent::Stopped`].
    Stop {
        /// The longest wait.
        drain: Duration,
        /// Whoever is started next goes on with what was kept ([`PlatformEvent::Keep`]).
        for_a_restart: bool,
    },
}

/// What happens on a platform.
#[derive(Debug)]
pub enum PlatformEvent {
    /// A message was stored for the first time.
    Inbound {
        /// Its id in the store.
        turn: TurnId,
        /// The message.
        inbound: Inbound,
    },
    /// The answer to [`PlatformCommand::Fetch`].
    Fetched {
        /// The message.
        turn: TurnId,
        /// What became of each file, in the order in which they were asked for.
        files: Vec<Fetched>,
    },
    /// The state of the link changed.
    Link {
        /// Which platform.
        platform: PlatformName,
        /// Its state now.
        state: LinkState,
    },
    /// The answer to [`PlatformCommand::Drain`].
    Drained {
        /// Which platform.
        platform: PlatformName,
    },
    /// The answer to [`PlatformCommand::Freeze`].
    Frozen {
        /// Which platform.
        platform: PlatformName,
        /// Everything the next image needs, self-describing.
        state: serde_json::Value,
        /// Duplicates of the fds that it needs, by the platform's names for them.
        fds: Vec<NamedFd>,
    },
    /// The answer to [`PlatformCommand::Freeze`] when the state cannot be taken, for example for want of fds: the handoff
    /// must not happen. The task waits for the thaw all the same.
    FreezeFailed {
        /// Which platform.
        platform: PlatformName,
        /// Why, for people.
        reason: String,
    },
    /// An fd is to outlive a process that is killed, or no longer.
    Keep {
        /// Which platform.
        platform: PlatformName,
        /// The platform's name for it.
        name: String,
        /// A duplicate; none if it is no longer needed.
        fd: Option<OwnedFd>,
    },
    /// The answer to [`PlatformCommand::Stop`].
    Stopped {
        /// Which platform.
        platform: PlatformName,
    },
}

/// What was there before a platform's task.
#[derive(Debug, Default)]
pub struct Left {
    /// The state in an earlier [`PlatformEvent::Frozen`].
    pub state: Option<serde_json::Value>,
    /// The fds of an earlier [`PlatformEvent::Frozen`], or those that were kept for it when its process was killed.
    pub fds: Vec<NamedFd>,
    /// An admin has paused it.
    pub paused: bool,
}

/// What a platform has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Replies and notices that are not shown in full.
    pub waiting: usize,
    /// Requests that have not been answered.
    pub sending: usize,
    /// When the oldest of these was begun.
    pub sending_since: Option<UnixMillis>,
}

/// The way to the task of a platform.
#[derive(Clone, Debug)]
pub struct PlatformHandle {
    name: PlatformName,
    commands: mpsc::Sender<PlatformCommand>,
    load: watch::Receiver<Load>,
}

impl PlatformHandle {
    /// The handle of the platform `name`, whose task takes its commands from the other end of `commands` and tells what
    /// it has to do over `load`.
    pub fn new(name: PlatformName, commands: mpsc::Sender<PlatformCommand>, load: watch::Receiver<Load>) -> Self {
        Self { name, commands, load }
    }

    /// What it has to do now.
    pub fn load(&self) -> Load {
        *self.load.borrow()
    }

    /// Which platform.
    pub fn name(&self) -> &PlatformName {
        &self.name
    }

    /// Queues a command, and waits for room in the queue.
    ///
    /// # Errors
    /// The command, if the task is gone.
    pub async fn send(&self, command: PlatformCommand) -> Result<(), SendError<PlatformCommand>> {
        self.commands.send(command).await
    }

    /// Queues a command if there is room.
    ///
    /// # Errors
    /// The command, if the queue is full or the task is gone.
    pub fn try_send(&self, command: PlatformCommand) -> Result<(), TrySendError<PlatformCommand>> {
        self.commands.try_send(command)
    }

    /// Whether the task has ended and takes no command any more.
    pub fn is_over(&self) -> bool {
        self.commands.is_closed()
    }
}
