//! A word to the chats that had a turn running or waiting when the gateway was started anew.
//!
//! It waits until the link of its platform is up, in the store and here, and then goes to the outbox, in the transaction
//! that takes it from here. Terminals get none: they are with whoever runs the gateway.
//!
//! **Invariants**
//! - A chat is told once, of the last restart, however many came before its link was up.
//! - Whoever asked for the restart in a chat is told otherwise how it went, and not here.
//! - What this began to write is on disk before the next handoff ([`Daemon::close_books`]).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::run::Daemon;
use super::state::{Note, Origin};
use crate::chat::Conversation;
use crate::gateway::{Effect, notice};
use crate::id::PlatformName;
use crate::report::Chain;
use crate::store::Change;
use crate::words::Restart;

/// The key in the store of the words that wait: a JSON list of [`Untold`].
pub(super) const UNTOLD: &str = "restart_notices";
/// The key in the store that says that the gateway was stopped in order.
pub(super) const STOPPED: &str = "stopped_in_order";

/// Words that wait at the most; beyond that the newest chats are not told.
const UNTOLD_MAX: usize = 1_000;

/// A word that waits for its platform's link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Untold {
    conversation: Conversation,
    why: Restart,
    /// Whether what the chat waits for goes on.
    goes_on: bool,
}

impl Daemon {
    /// After a handoff: everything goes on.
    pub(super) fn note_handoff(&mut self, note: &Note, went_back: bool) {
        let (from, to) = (note.from.version.clone(), note.to.version.clone());
        let why = match went_back {
            true => Restart::WentBack { from, to },
            false => Restart::Asked { kind: note.kind.clone(), from, to },
        };
        let chats: Vec<_> = self.gateway.waiting_chats().map(|chat| (chat.clone(), true)).collect();
        self.note_restart(&why, asker(note), chats);
    }

    /// After a kill or a stop. `lost` are the chats whose turns have ended with it.
    pub(super) fn note_start(&mut self, note: Option<&Note>, came_back: bool, lost: BTreeSet<Conversation>) {
        let why = match note {
            Some(note) if came_back => {
                Restart::WentBack { from: note.to.version.clone(), to: self.image.id.version.clone() }
            }
            _ if self.kept.was_stopped => Restart::Stopped,
            _ => Restart::Crashed,
        };
        if std::mem::take(&mut self.kept.was_stopped) {
            self.write_beside(STOPPED, String::new());
        }
        let waiting: BTreeSet<Conversation> = self.gateway.waiting_chats().cloned().collect();
        let lost = lost.into_iter().filter(|chat| !waiting.contains(chat)).map(|chat| (chat, false));
        let chats = lost.collect::<Vec<_>>().into_iter().chain(waiting.iter().map(|chat| (chat.clone(), true)));
        self.note_restart(&why, note.and_then(asker), chats.collect());
    }

    fn note_restart(&mut self, why: &Restart, except: Option<&Conversation>, chats: Vec<(Conversation, bool)>) {
        let before = self.kept.untold.clone();
        self.kept.untold.retain(|untold| Some(&untold.conversation) != except);
        for (conversation, goes_on) in chats {
            if Some(&conversation) == except || !self.is_to_be_told(&conversation.platform) {
                continue;
            }
            self.kept.untold.retain(|untold| untold.conversation != conversation);
            if self.kept.untold.len() < UNTOLD_MAX {
                self.kept.untold.push(Untold { conversation, why: why.clone(), goes_on });
            }
        }
        if self.kept.untold != before {
            self.write_beside(UNTOLD, self.untold_json());
        }
    }

    fn is_to_be_told(&self, platform: &PlatformName) -> bool {
        let mut configured = self.config.platforms();
        configured.any(|(name, access)| name == platform.as_str() && access.gateway_restart_notification)
    }

    /// The link of a platform is up: its chats are told.
    pub(super) async fn tell_restart(&mut self, platform: &PlatformName) {
        let due: Vec<Untold> =
            self.kept.untold.extract_if(.., |untold| untold.conversation.platform == *platform).collect();
        if due.is_empty() {
            return;
        }
        self.await_notes().await;
        let mut effects = vec![Effect::Record(Change::Meta(UNTOLD, self.untold_json()))];
        effects.extend(due.into_iter().filter(|_| self.is_to_be_told(platform)).map(|untold| {
            let told = self.gateway.words(&untold.conversation).restarted(&untold.why, untold.goes_on);
            notice(&untold.conversation, told)
        }));
        self.carry_out(effects).await;
    }

    fn untold_json(&self) -> String {
        serde_json::to_string(&self.kept.untold).expect("plain data serialises")
    }

    /// Writes a value beside the loop, in order.
    fn write_beside(&mut self, key: &'static str, value: String) {
        let (store, before) = (self.store.clone(), self.kept.notes.take());
        self.kept.notes = Some(tokio::spawn(async move {
            if let Some(before) = before
                && let Err(error) = before.await
            {
                tracing::error!(%error, "cannot write a note");
            }
            if let Err(error) = store.set_meta(key, value).await {
                tracing::error!(error = %Chain(&error), key, "cannot write a note");
            }
        }));
    }

    /// Waits until everything that this module began to write is on disk.
    pub(super) async fn await_notes(&mut self) {
        if let Some(notes) = self.kept.notes.take()
            && let Err(error) = notes.await
        {
            tracing::error!(%error, "cannot write a note");
        }
    }
}

/// The chat that asked.
fn asker(note: &Note) -> Option<&Conversation> {
    match &note.origin {
        Origin::Chat(by) => Some(&by.conversation),
        Origin::Control { .. } | Origin::Signal { .. } | Origin::Automatic => None,
    }
}
