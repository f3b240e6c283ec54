//! A handoff that does not end well: what is written down before it, who tells of it, and the way back.
//!
//! Before the execve the store has a [`Note`] of the handoff, and an update is a trial in `versions/slots`. Whoever
//! serves next finds both, however it came to that: the new image, the previous one that came back in the same
//! process, or a process that was started anew.
//!
//! **Invariants**
//! - Whoever asked is told how it ended, by whichever image knows; again only by a process that was started anew, since
//!   the word may have died with the one before.
//! - A trial is in the slots after its note is in the store and before its first instruction runs, and proven there
//!   only after its probation.

use std::fs::File;

use super::probation::Probation;
use super::releases::{SERVING, mark_named_failed};
use super::run::Daemon;
use super::state::{Note, Origin, Passport};
use super::swap::{Candidate, Pending, Swap};
use crate::clock::UnixMillis;
use crate::control::proto::{self, HandoffKind, Image};
use crate::handoff::{Phase, Timeline, way_back};
use crate::id::TraceId;
use crate::jsonrpc::ErrorObject;
use crate::report::Chain;
use crate::store::{HandoffRecord, Store};
use crate::telemetry::{self, lifecycle};
use crate::words::{Back, Language, Words};

/// Where the store keeps the [`Note`].
const NOTE: &str = "handoff";

/// Writes a note, or that there is none.
pub(super) async fn put_note(store: &Store, note: Option<&Note>) -> Result<(), String> {
    let text = note.map_or_else(String::new, |note| serde_json::to_string(note).expect("plain data serialises"));
    store.set_meta(NOTE, text).await.map_err(|error| Chain(&error).to_string())
}

pub(super) async fn note(store: &Store) -> Option<Note> {
    match store.meta(NOTE).await {
        Ok(text) => text.filter(|text| !text.is_empty()).and_then(|text| match serde_json::from_str(&text) {
            Ok(note) => Some(note),
            Err(error) => {
                tracing::error!(%error, "cannot read the note of a handoff");
                None
            }
        }),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "cannot read the note of a handoff");
            None
        }
    }
}

impl Daemon {
    /// The handoff that is about to happen.
    pub(super) fn note_of(&self, pending: &Pending, to: &Image) -> Note {
        Note {
            kind: pending.kind_name().to_owned(),
            origin: pending.origin.clone(),
            reason: pending.reason.clone(),
            from: self.image.id.clone(),
            to: to.clone(),
            started_at: pending.started_at,
            trace: Some(pending.trace.clone()),
            told: false,
            stopped: false,
        }
    }

    /// Whoever asked must be told also if the process is killed before it is known what is to run next.
    pub(super) async fn note_early(&self, pending: &Pending) {
        // While an update is on probation, its note is what must not be lost.
        if self.probation.is_some() {
            return;
        }
        if let Err(error) = put_note(&self.store, Some(&self.note_of(pending, &self.image.id))).await {
            tracing::error!(error, "cannot note that a handoff was asked for");
        }
    }

    /// Takes the note away beside the loop: the handoff is over.
    pub(super) fn forget_note(&self) {
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(error) = put_note(&store, None).await {
                tracing::error!(error, "the note of a handoff that is over stays");
            }
        });
    }

    /// A stop in order while an update is on probation is no failure of it, whichever version is started next.
    pub(super) async fn note_stopped(&self) {
        if self.probation.is_none() {
            return;
        }
        let Some(note) = note(&self.store).await else { return };
        if let Err(error) = put_note(&self.store, Some(&Note { stopped: true, ..note })).await {
            tracing::error!(error, "cannot note that an update was stopped in its probation");
        }
    }

    /// This image handed over, and is back in the same process with everything it had: the next one failed before it
    /// consumed anything.
    pub(super) async fn came_back(&mut self, passport: Passport, reason: String) {
        self.generation = passport.generation.next();
        telemetry::set_generation(self.generation);
        let note = passport.note;
        if let Some(carried) = passport.probation {
            self.probation = Some(Probation::resumed(carried));
            self.probe();
        }
        self.blame(&note, &reason).await;
        self.failed(note, &reason, passport.timeline.durations_us()).await;
    }

    /// Finds out how the handoff ended that the process before did not live to tell.
    pub(super) async fn read_note(&mut self, note: Option<Note>, came_back: Option<String>) {
        let slot_reason = self.settle_slots(note.as_ref()).await;
        telemetry::follow(note.as_ref().and_then(|note| note.trace.as_ref()));
        let Some(note) = note else {
            if let Some(reason) = came_back {
                tracing::error!(reason, "back from an image that failed");
            }
            return self.close_history("ended before it was committed").await;
        };
        let same = note.from == note.to;
        if !same && came_back.is_none() && note.to.version == self.image.id.version {
            return self.go_on_with_trial(note).await;
        }
        let reason = came_back.or(slot_reason);
        if same && reason.is_none() {
            let told = |words: &dyn Words| words.restarted_anew(&note.kind, std::process::id());
            self.record_note(&note, "the process was killed on the way and started anew", Vec::new()).await;
            self.tell_origin(&note.origin, &note.kind, false, told).await;
            return self.forget_note();
        }
        if note.stopped && reason.is_none() {
            return self.forget_note();
        }
        let how = if note.told {
            "its process ended before it had proven itself"
        } else {
            "the process was killed on the way"
        };
        // Otherwise it never ran: the launcher would go on with its trial.
        let has_run = reason.is_some() || note.told;
        let reason = reason.unwrap_or_else(|| how.to_owned());
        if has_run {
            self.blame(&note, &reason).await;
        }
        self.failed(note, &reason, Vec::new()).await;
    }

    /// The version that `note` is about has failed, if it was another one.
    async fn blame(&self, note: &Note, reason: &str) {
        if note.to.version != note.from.version {
            self.distrust(&note.to.version, reason).await;
        }
    }

    /// A version that failed is not tried again by itself, neither here nor by the launcher.
    pub(super) async fn distrust(&self, version: &str, reason: &str) {
        mark_named_failed(&self.store, version, reason).await;
        self.slot_failed(version, reason).await;
    }

    /// The image that was asked for did not stay; this one serves.
    async fn failed(&mut self, note: Note, reason: &str, phases_us: Vec<(String, u64)>) {
        tracing::error!(
            name: lifecycle::HANDOFF_FAILED,
            kind = note.kind,
            to = note.to.version,
            reason,
            "the new image did not stay, the previous one is back"
        );
        self.record_note(&note, &format!("rolled back: {reason}"), phases_us).await;
        let (turns, running) = (self.gateway.turns_in_flight(), self.image.id.version.clone());
        let (failed, pid) = (&note.to.version, std::process::id());
        let back = Back { kind: &note.kind, failed, reason, running: &running, pid, turns };
        self.tell_origin(&note.origin, &note.kind, false, |words| words.came_back(&back)).await;
        self.forget_note();
    }

    /// The process died while this image was on trial, and was started anew.
    async fn go_on_with_trial(&mut self, note: Note) {
        tracing::warn!(version = note.to.version, "an update goes on in a new process");
        // Also if it was told that the update is done: that word may have died with the process. A stop is no failure.
        if !(note.told && note.stopped) {
            let (from, to) = (&note.from.version, &note.to.version);
            let told = |words: &dyn Words| words.updated_anew(from, to, std::process::id());
            self.tell_origin(&note.origin, &note.kind, true, told).await;
        }
        // The process before has recorded it, unless it was prepared while no gateway ran.
        if matches!(self.store.close_handoffs(SERVING.to_owned()).await, Ok(0)) {
            let record = note.record(self.generation, SERVING.to_owned());
            if let Err(error) = self.store.record_handoff(&record).await {
                tracing::error!(error = %Chain(&error), "cannot record a handoff");
            }
        }
        self.probation = Some(Probation::anew(&note, self.config.gateway.probation));
        self.probe();
        let note = Note { told: true, stopped: false, ..note };
        if let Err(error) = put_note(&self.store, Some(&note)).await {
            tracing::error!(error, "cannot record a handoff");
        }
    }

    /// The handoffs that the history has as `serving` are over.
    pub(super) async fn close_history(&self, outcome: &str) {
        if let Err(error) = self.store.close_handoffs(outcome.to_owned()).await {
            tracing::error!(error = %Chain(&error), "cannot record how a handoff ended");
        }
    }

    /// In the history, in the row that says `serving` if there is one.
    async fn record_note(&self, note: &Note, outcome: &str, phases_us: Vec<(String, u64)>) {
        let record = HandoffRecord {
            turns_carried: self.gateway.turns_in_flight(),
            phases_us,
            ..note.record(self.generation, outcome.to_owned())
        };
        let closed = self.store.close_handoffs(outcome.to_owned()).await;
        let recorded = match closed {
            Ok(0) => {
                self.trace_handoff(&record);
                self.store.record_handoff(&record).await.map(drop)
            }
            // The whole was told by the image that is gone, on its probation.
            Ok(_) => {
                self.trace_probation(note.trace.as_ref(), note.started_at, Some(outcome.to_owned()));
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = recorded {
            tracing::error!(error = %Chain(&error), "cannot record how a handoff ended");
        }
    }

    /// The last word to whoever asked: a control client that is still there, or the chat.
    async fn tell_origin(&mut self, origin: &Origin, kind: &str, went_well: bool, told: impl Fn(&dyn Words) -> String) {
        match origin {
            // Who updated successfully was not carried, or was answered.
            Origin::Control { client, id, .. } if !went_well => {
                let told = told(Language::En.words());
                self.respond(*client, id.clone(), Err(ErrorObject::new(proto::HANDOFF_FAILED, told)));
            }
            Origin::Chat(by) => {
                let told = told(self.gateway.words(&by.conversation));
                self.tell_chat(by, kind, told).await;
            }
            Origin::Automatic => self.tell_admins(|words| words.by_itself(&told(words))).await,
            Origin::Control { .. } | Origin::Signal { .. } => {}
        }
    }

    /// Leaves an image that did not prove itself for the one before, by a handoff as any other: everything is carried.
    pub(super) async fn roll_back(&mut self, why: String) {
        let Some(probation) = &self.probation else { return };
        let (version, origin) = (probation.previous().to_owned(), probation.origin().clone());
        let trace = probation.trace().cloned().unwrap_or_else(TraceId::random);
        tracing::error!(why, to = version, "the update did not prove itself, going back");
        let file = match self.proven_image(&version).await {
            Ok(file) => file,
            Err(error) => return self.leave_at_once(&format!("{why}; {error}")).await,
        };
        let pending = Pending {
            kind: HandoffKind::Restart,
            rollback: true,
            force: false,
            reason: Some(why),
            origin,
            trace,
            started_at: UnixMillis::now(),
            timeline: Timeline::start(Phase::Preflight),
            to: Some(file.id.clone()),
            staged: None,
            waiting: None,
            is_refused: false,
        };
        self.swap = Swap::Preparing(Box::new(pending));
        self.preflight(file).await;
    }

    /// The way back that needs nothing but the fds: when the orderly one is barred.
    pub(super) async fn leave_at_once(&mut self, why: &str) {
        if self.keeper.way_back().is_some() {
            let error = way_back::go(why);
            tracing::error!(%error, why, "cannot go back to the previous image");
        }
        // The launcher would run this version again otherwise.
        let version = self.image.id.version.clone();
        self.slot_failed(&version, why).await;
    }

    async fn proven_image(&self, version: &str) -> Result<Candidate, String> {
        let file = match &self.proven {
            Some(file) => file.try_clone().map_err(|error| error.to_string())?,
            None => self.version_file(version)?,
        };
        let mut read = file.try_clone().map_err(|error| error.to_string())?;
        let digest = tokio::task::spawn_blocking(move || {
            use std::io::Seek;
            read.rewind()?;
            super::releases::sha256_hex(&mut read)
        });
        let sha256 = digest.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        Ok(Candidate { file, id: Image { version: version.to_owned(), sha256 } })
    }

    fn version_file(&self, version: &str) -> Result<File, String> {
        let version = semver::Version::parse(version).map_err(|error| error.to_string())?;
        let staged = crate::update::Versions::new(self.home.path()).open(&version);
        staged.map(|staged| staged.file).map_err(|error| Chain(&error).to_string())
    }
}
