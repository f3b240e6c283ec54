//! What the pages of the platform `web` are told: the status, every second, and the steps of handoffs.
//!
//! **Invariant:** nobody waits for it: the database is asked beside the loop, and who looks takes what is there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::run::Daemon;
use super::swap::{Step, Swap};
use crate::platform::web::Shown;
use crate::report::Chain;
use crate::store::Glance;

/// Handoffs that pages show.
const HISTORY: u32 = 20;
/// How long the database may take to tell them.
const GLANCE: Duration = Duration::from_secs(2);

/// The daemon's end.
#[derive(Debug, Default)]
pub(super) struct Pages {
    shown: watch::Sender<Arc<Shown>>,
    /// The database is being asked.
    is_asking: bool,
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
            let glance = match tokio::time::timeout(GLANCE, store.glance(HISTORY)).await {
                Ok(Ok(glance)) => Some(glance),
                Ok(Err(error)) => {
                    tracing::error!(error = %Chain(&error), "cannot read the history");
                    None
                }
                // That it hangs is told by the pulse.
                Err(_) => None,
            };
            drop(steps.send(Step::Glanced(glance.map(Box::new))).await);
        });
    }

    pub(super) fn glanced(&mut self, glance: Option<Glance>) {
        self.pages.is_asking = false;
        let status = self.status_with(glance);
        self.pages.shown.send_if_modified(|shown| Arc::make_mut(shown).take_status(status));
    }

    /// The phase that the handoff under way has come to.
    pub(super) fn show_phase(&self) {
        if let Swap::Preparing(pending) = &self.swap {
            self.pages.step(pending.timeline.phase().as_str(), String::new(), (None, None));
        }
    }
}
