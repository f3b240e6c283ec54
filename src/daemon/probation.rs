//! What follows a handoff in the new image: it is told, watched, and committed.

use std::time::Duration;

use semver::Version;
use tokio::time::Instant;

use super::releases::{clear_failed, raise_floor, running_version};
use super::rollback::put_note;
use super::run::Daemon;
use super::specs::Specs;
use super::state::{CarriedProbation, Note, Origin, Passport};
use super::swap::{ROLLBACK, Step, Swap};
use crate::agent;
use crate::chat::LinkState;
use crate::clock::{MonoNanos, UnixMillis};
use crate::config::DEFAULT_AGENT;
use crate::fault::{self, Point};
use crate::gateway::AgentView;
use crate::handoff::Phase;
use crate::id::TraceId;
use crate::platform::PlatformCommand;
use crate::report::Chain;
use crate::store::{HandoffRecord, Store};
use crate::telemetry::lifecycle;
use crate::update::Versions;
use crate::words::Back;

/// The least time for an agent to start in, however short the probation is.
const PROBE_MIN: Duration = Duration::from_secs(5);

/// An update that has not proven itself yet.
pub(super) struct Probation {
    /// Its row in the history, once that is written.
    row: Option<i64>,
    version: String,
    /// What was committed last.
    previous: String,
    until: Instant,
    /// Who asked for it.
    origin: Origin,
    trace: Option<TraceId>,
    begun_at: UnixMillis,
    /// How the trial of an agent's start went, once that is known.
    probe: Option<Result<(), String>>,
}

impl Probation {
    /// One that is carried from the image before.
    pub(super) fn resumed(carried: CarriedProbation) -> Self {
        let CarriedProbation { row, version, previous, left_ms, origin, trace, begun_at } = carried;
        let until = Instant::now() + Duration::from_millis(left_ms);
        let origin = origin.unwrap_or_else(|| Origin::Signal { name: "an earlier version".to_owned() });
        Self { row, version, previous, until, origin, trace, begun_at, probe: None }
    }

    /// One whose process was killed and started anew.
    pub(super) fn anew(note: &Note, time: Duration) -> Self {
        let (version, previous) = (note.to.version.clone(), note.from.version.clone());
        let (origin, trace) = (note.origin.clone(), note.trace.clone());
        let (until, begun_at) = (Instant::now() + time, UnixMillis::now());
        Self { row: None, version, previous, until, origin, trace, begun_at, probe: None }
    }

    /// The version that was committed last.
    pub(super) fn previous(&self) -> &str {
        &self.previous
    }

    /// Who asked for the update.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The trace of the handoff that led to it.
    pub(super) fn trace(&self) -> Option<&TraceId> {
        self.trace.as_ref()
    }

    pub(super) fn carried(&self) -> CarriedProbation {
        let left = self.until.saturating_duration_since(Instant::now());
        CarriedProbation {
            row: self.row,
            version: self.version.clone(),
            previous: self.previous.clone(),
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            origin: Some(self.origin.clone()),
            trace: self.trace.clone(),
            begun_at: self.begun_at,
        }
    }
}

impl Daemon {
    /// The new image serves: tells everyone, records it, and begins the probation of an update.
    pub(super) async fn arrived(&mut self, mut passport: Passport, ready: MonoNanos) {
        passport.timeline.enter_at(Phase::Probation, ready);
        let report = passport.report(ready);
        tracing::info!(
            name: lifecycle::HANDOFF_DONE,
            kind = report.kind,
            from = report.from.version,
            to = report.to.version,
            generation = report.generation,
            turns_carried = report.turns_carried,
            agents_carried = report.agents_carried,
            blackout_us = report.blackout_us,
            duration_us = report.duration_us,
            phases_us = ?report.phases_us,
            "handoff done"
        );
        if passport.note.kind == ROLLBACK {
            self.tell_rolled_back(&passport).await;
        } else {
            self.tell_done(&passport.note.origin, &report).await;
        }
        self.note_handoff(&passport.note, passport.note.kind == ROLLBACK);
        // To go back is to run other bytes, too.
        let is_update = matches!(passport.note.kind.as_str(), "update" | "revert");
        let outcome = if is_update { "serving" } else { "committed" };
        let record = HandoffRecord {
            turns_carried: passport.turns_carried,
            agents_carried: passport.agents_carried,
            phases_us: report.phases_us.clone(),
            ..passport.note.record(passport.generation, outcome.to_owned())
        };
        self.trace_handoff(&record);
        let note = is_update.then(|| Note { told: true, ..passport.note.clone() });
        self.books = Some(tokio::spawn(keep_books(self.store.clone(), record, note)));
        if passport.note.kind == ROLLBACK {
            let reason = passport.note.reason.clone().unwrap_or_default();
            self.rolled_back(&passport, &reason).await;
        } else {
            self.begin_probation(passport, is_update).await;
        }
    }

    /// Waits until what [`Self::arrived`] began to write is on disk: before anything that reads it or depends on it.
    pub(super) async fn close_books(&mut self) {
        self.await_notes().await;
        let Some(books) = self.books.take() else { return };
        let row = books.await.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot record a handoff");
            None
        });
        // One that goes on from an earlier handoff has its row.
        if let Some(probation @ Probation { row: None, .. }) = &mut self.probation {
            probation.row = row;
        }
    }

    /// An update is put on probation; one that was on probation before goes on with it, unless it was replaced.
    async fn begin_probation(&mut self, passport: Passport, is_update: bool) {
        let carried = passport.probation;
        if !is_update {
            self.probation = carried.map(Probation::resumed);
            return self.probe();
        }
        if let Some(CarriedProbation { row: Some(row), .. }) = carried {
            self.set_outcome(row, "replaced before it was healthy").await;
        }
        let previous = carried.map_or(passport.note.from.version, |carried| carried.previous);
        let until = Instant::now() + self.config.gateway.probation;
        let Note { to, origin, trace, .. } = passport.note;
        let (version, begun_at) = (to.version, UnixMillis::now());
        self.probation = Some(Probation { row: None, version, previous, until, origin, trace, begun_at, probe: None });
        self.probe();
    }

    /// The chat that asked for the update; a control client was told long ago that it serves.
    async fn tell_rolled_back(&mut self, passport: &Passport) {
        let Origin::Chat(by) = &passport.note.origin else { return };
        let reason = passport.note.reason.as_deref().unwrap_or_default();
        let (failed, running) = (&passport.note.from.version, &passport.note.to.version);
        let (pid, turns) = (std::process::id(), passport.turns_carried);
        let back = Back { kind: "update", failed, reason, running, pid, turns };
        let told = self.gateway.words(&by.conversation).came_back(&back);
        self.tell_chat(by, "update", told).await;
    }

    /// Back from an update that did not prove itself.
    async fn rolled_back(&mut self, passport: &Passport, reason: &str) {
        if let Some(CarriedProbation { row, trace, begun_at, .. }) = &passport.probation {
            self.trace_probation(trace.as_ref(), *begun_at, Some(reason.to_owned()));
            if let Some(row) = row {
                self.set_outcome(*row, &format!("rolled back: {reason}")).await;
            }
        }
        self.distrust(&passport.note.from.version, reason).await;
    }

    /// Finds out beside the loop whether this image can start an agent.
    pub(super) fn probe(&mut self) {
        let Some(probation) = &mut self.probation else { return };
        if !self.config.agents.contains_key(&DEFAULT_AGENT.into()) {
            probation.probe = Some(Ok(()));
            return;
        }
        let specs = Specs { config: &self.config, home: &self.home };
        let (spec, prompt) = (specs.of(&DEFAULT_AGENT.into()), self.config.gateway.probe.clone());
        let time = self.config.gateway.probation.max(PROBE_MIN);
        let steps = self.steps.clone();
        tokio::spawn(async move {
            let probed = agent::probe(spec, prompt, time).await.map_err(|error| Chain(&error).to_string());
            drop(steps.send(Step::Probed(probed)).await);
        });
    }

    /// The trial of an agent's start is over.
    pub(super) fn probed(&mut self, outcome: Result<(), String>) {
        if let Err(why) = &outcome {
            tracing::warn!(why, "an agent does not start on probation");
        }
        if let Some(probation) = &mut self.probation {
            probation.probe = Some(outcome);
        }
    }

    async fn set_outcome(&self, row: i64, outcome: &str) {
        if let Err(error) = self.store.set_handoff_outcome(row, outcome).await {
            tracing::error!(error = %Chain(&error), "cannot record how a handoff ended");
        }
    }

    /// Commits an update whose time of probation is over, or goes back. The event loop has shown that it is alive.
    pub(super) async fn watch_probation(&mut self) {
        if let Some(way_back) = self.keeper.way_back() {
            way_back.set_deadline(self.config.gateway.handoff_timeout);
        }
        let Some(probation) = &self.probation else { return };
        fault::at(Point::OnProbation);
        if Instant::now() < probation.until || !matches!(self.swap, Swap::Idle) {
            return;
        }
        // Its own deadline ends it, however short the probation is.
        if probation.probe.is_none() {
            return;
        }
        match self.healthy() {
            Ok(()) => self.commit().await,
            Err(why) => self.roll_back(why).await,
        }
    }

    /// Ends a probation early because another handoff is asked for and the image is healthy. One that is not goes on
    /// with it: to reload a better configuration or to update may be what makes it healthy.
    pub(super) async fn settle_probation(&mut self) {
        if self.probation.is_some() && self.healthy().is_ok() {
            self.commit().await;
        }
    }

    /// The links are up or in an orderly retry, the default agent takes turns, and this image can start another one. A
    /// platform that is out of reach says nothing about an image.
    fn healthy(&self) -> Result<(), String> {
        match self.probation.as_ref().and_then(|probation| probation.probe.as_ref()) {
            Some(Ok(())) => {}
            Some(Err(why)) => return Err(format!("agent '{DEFAULT_AGENT}' does not start: {why}")),
            None => return Err(format!("agent '{DEFAULT_AGENT}' has not answered yet")),
        }
        for (platform, (link, _)) in &self.links {
            if matches!(link, LinkState::Connecting) {
                return Err(format!("platform '{platform}' has not answered yet"));
            }
        }
        for (name, view, _) in self.gateway.agents() {
            if name.as_str() == "default" && !matches!(view, AgentView::Ready { .. }) {
                return Err(format!("agent '{name}' does not take turns"));
            }
        }
        Ok(())
    }

    async fn commit(&mut self) {
        self.close_books().await;
        let Some(probation) = self.probation.take() else { return };
        fault::at(Point::Committing);
        self.keeper.take_down();
        self.platforms.values_mut().for_each(|outlet| outlet.put(PlatformCommand::Proven));
        self.proven = None;
        self.forget_note();
        self.slot_proven(self.image.id.version.clone()).await;
        let versions = Versions::new(self.home.path());
        // This image read its own version when it began to serve.
        let version = running_version();
        let kept: Vec<Version> = Version::parse(&probation.previous).into_iter().chain([version.clone()]).collect();
        let set = tokio::task::spawn_blocking(move || {
            versions.set_current(&version)?;
            versions.prune(&kept)
        })
        .await;
        match set {
            Ok(Ok(pruned)) => {
                fault::at(Point::Committed);
                tracing::info!(version = probation.version, pruned = pruned.len(), "update committed");
            }
            Ok(Err(error)) => tracing::error!(error = %Chain(&error), "cannot make the update the current version"),
            Err(error) => tracing::error!(%error, "cannot make the update the current version"),
        }
        clear_failed(&self.store, &running_version()).await;
        self.trace_probation(probation.trace(), probation.begun_at, None);
        match probation.row {
            Some(row) => self.set_outcome(row, "committed").await,
            // It was recorded by a process that is gone.
            None => self.close_history("committed").await,
        }
        self.write_state_file();
    }
}

/// Writes down that a handoff is over, and that this version ran. Beside the loop: the disk may take its time, and
/// nobody who is served waits for this.
async fn keep_books(store: Store, record: HandoffRecord, note: Option<Note>) -> Option<i64> {
    if let Err(error) = put_note(&store, note.as_ref()).await {
        tracing::error!(error, "cannot record that a handoff went well");
    }
    let row = store.record_handoff(&record).await;
    raise_floor(&store).await;
    match row {
        Ok(row) => Some(row),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "cannot record a handoff");
            None
        }
    }
}
