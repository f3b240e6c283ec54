//! What the pages of the platform `web` are told: the status, every second, and the steps of handoffs.
//!
//! **Invariant:** nobody waits for it: the database is asked beside the loop, and who looks takes what is there. While the
//! database does not answer that is what it said last.

use std::sync::Arc;

use tokio::sync::watch;

use super::run::Daemon;
use super::status::{History, glance};
use super::swap::{Step, Swap};
use crate::platform::web::Shown;
use crate::store::Glance;

/// Handoffs that pages show.
const HISTORY: u32 = 20;
/// The daemon's end.
#[derive(Debug, Default)]
pub(super) struct Pages {
    shown: watch::Sender<Arc<Shown>>,
    /// The database is being asked.
    is_asking: bool,
    /// What it said last.
    history: History,
}

impl Pages {
    /// The pages' end.
    pub(super) fn receiver(&self) -> watch::Receiver<Arc<Shown>> {
        self.shown.subscribe()
    }

    fn is_looked_at(&self) -> bool {
        self.shown.receiver_count() > 0
    }

    /// Tells a step of a handoff: its phase, what it does, and how many bytes of how many are done.
    pub(super) fn step(&self, phase: &str, message: String, bytes: (Option<u64>, Option<u64>)) {
        if self.is_looked_at() {
            self.shown.send_modify(|shown| Arc::make_mut(shown).push_step(phase, message, bytes));
        }
    }
}

impl Daemon {
    /// Asks for what the status needs of the database; [`Daemon::glanced`] goes on.
    pub(super) fn look_again(&mut self) {
        if !self.pages.is_looked_at() || std::mem::replace(&mut self.pages.is_asking, true) {
            return;
        }
        let (store, steps) = (self.store.clone(), self.steps.clone());
        tokio::spawn(async move {
            let glance = glance(&store, HISTORY).await;
            drop(steps.send(Step::Glanced(glance.map(Box::new))).await);
        });
    }

    pub(super) fn glanced(&mut self, glance: Option<Glance>) {
        self.pages.is_asking = false;
        self.show_status(glance);
    }

    /// Shows how things are, with what the database tells.
    pub(super) fn show_status(&mut self, glance: Option<Glance>) {
        let outbox = glance.as_ref().map(|glance| glance.outbox);
        if let Some(glance) = glance {
            self.pages.history = History::from(glance);
        }
        let status = self.status_with(outbox, self.pages.history.clone());
        self.pages.shown.send_if_modified(|shown| Arc::make_mut(shown).take_status(status));
    }

    /// The phase that the handoff under way has come to.
    pub(super) fn show_phase(&self) {
        if let Swap::Preparing(pending) = &self.swap {
            self.pages.step(pending.timeline.phase().as_str(), String::new(), (None, None));
        }
    }
}
