//! What the gateway tells the pages of itself.

use std::sync::{Arc, OnceLock};

use serde::Serialize;

use super::pages;
use crate::clock::UnixMillis;
use crate::control::proto::Status;

/// Steps that are remembered.
const STEPS_MAX: usize = 64;

/// The state of the gateway, for pages.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    status: Option<Arc<Rendered>>,
    /// Counts the statuses.
    revision: u64,
    steps: Vec<Arc<ProgressStep>>,
}

/// A status and what the page's script makes of it, made once for all that look.
#[derive(Debug)]
struct Rendered {
    status: Status,
    live: OnceLock<String>,
    live_for_guests: OnceLock<String>,
}

/// Who may know how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    Admins,
    Guests,
}

/// One step of a handoff.
#[derive(Debug, PartialEq, Serialize)]
pub struct ProgressStep {
    /// Grows with every step, over images and processes: it is never before its time in milliseconds.
    pub seq: i64,
    /// When.
    pub at: UnixMillis,
    /// A phase of the handoff, or `done` or `failed` at its end, or [`REFUSED`].
    pub phase: String,
    /// One sentence for people.
    pub message: String,
    /// Bytes done, while downloading.
    pub done_bytes: Option<u64>,
    /// Bytes in all, where known.
    pub total_bytes: Option<u64>,
}

/// The phase of a step that is none: a page asked for a handoff while another was under way.
pub const REFUSED: &str = "refused";

impl ProgressStep {
    /// Why nothing is begun now says who is before.
    pub(super) fn is_for(&self, audience: Audience) -> bool {
        audience == Audience::Admins || self.phase != REFUSED
    }
}

impl Shown {
    /// Takes a new status. Says whether it is another than before, whatever its time.
    pub fn take_status(&mut self, status: Status) -> bool {
        let is_same =
            self.status.as_ref().is_some_and(|known| Status { at: status.at, ..known.status.clone() } == status);
        if !is_same {
            self.status = Some(Arc::new(Rendered { status, live: OnceLock::new(), live_for_guests: OnceLock::new() }));
            self.revision += 1;
        }
        !is_same
    }

    /// Takes a step.
    pub fn push_step(&mut self, phase: &str, message: String, bytes: (Option<u64>, Option<u64>)) {
        let at = UnixMillis::now();
        let seq = self.steps.last().map_or(at.0, |last| at.0.max(last.seq + 1));
        let (done_bytes, total_bytes) = bytes;
        if self.steps.len() >= STEPS_MAX {
            self.steps.remove(0);
        }
        let phase = phase.to_owned();
        self.steps.push(Arc::new(ProgressStep { seq, at, phase, message, done_bytes, total_bytes }));
    }

    /// The latest status; none in the first moments.
    pub(super) fn status(&self) -> Option<&Status> {
        self.status.as_ref().map(|rendered| &rendered.status)
    }

    /// The data of the event `status`, if it is another than that of the revision `had`, which is then this one's.
    pub(super) fn live(&self, audience: Audience, had: &mut u64) -> Option<&str> {
        let rendered = self.status.as_ref()?;
        if std::mem::replace(had, self.revision) == self.revision {
            return None;
        }
        let status = &rendered.status;
        Some(match audience {
            Audience::Admins => rendered.live.get_or_init(|| pages::live(status).to_string()),
            Audience::Guests => {
                rendered.live_for_guests.get_or_init(|| pages::live(&pages::for_guests(status.clone())).to_string())
            }
        })
    }

    /// Whether there is a status since the revision `had`.
    pub(super) fn is_newer(&self, had: u64) -> bool {
        self.status.is_some() && self.revision != had
    }

    /// The first step behind `seq`.
    pub(super) fn step_behind(&self, seq: i64) -> Option<&Arc<ProgressStep>> {
        self.steps.iter().find(|step| step.seq > seq)
    }

    /// The last step's number, or 0.
    pub(super) fn last_step(&self) -> i64 {
        self.steps.last().map_or(0, |step| step.seq)
    }
}
