//! A handoff from request to execve: the one way for `/restart`, `/update`, the CLI and signals.

use std::ffi::OsString;
use std::fs::File;
use std::time::Duration;

use semver::Version;

use super::probation::Probation;
use super::quiesce::{FreezeError, Waiting};
use super::releases;
use super::rollback::put_note;
use super::run::Daemon;
use super::state::{CheckFor, Origin, PASSPORT, Passport, VERSION};
use crate::clock::UnixMillis;
use crate::control::proto::{self, HandoffKind, HandoffReport, Image};
use crate::fault::{self, Point};
use crate::handoff::preflight::{self, CheckReport, PreflightError};
use crate::handoff::reexec::reexec;
use crate::handoff::{Phase, Sealed, Timeline};
use crate::id::{Generation, TraceId};
use crate::jsonrpc::ErrorObject;
use crate::report::Chain;
use crate::store::{Glance, HandoffRecord};
use crate::telemetry::{self, lifecycle};
use crate::update::known::want;
use crate::update::{Look, StageProgress, StagedImage, UpdateError, Versions};
use crate::words::{Busy, Language};

/// The kind of a handoff that leads back from an update that did not prove itself.
pub(super) const ROLLBACK: &str = "rollback";

/// The image that runs, opened when the process or this image started.
pub(super) struct RunningImage {
    pub(super) file: File,
    pub(super) id: Image,
}

impl RunningImage {
    /// Opens it. Its digest is known after a handoff only.
    pub(super) fn open(passport: Option<&Passport>, came_back: bool) -> std::io::Result<Self> {
        let file = File::open("/proc/self/exe")?;
        let version = crate::version::version().to_owned();
        let image = |passport: &Passport| {
            if came_back { passport.note.from.sha256.clone() } else { passport.note.to.sha256.clone() }
        };
        let sha256 = passport.map_or_else(String::new, image);
        Ok(Self { file, id: Image { version, sha256 } })
    }
}

/// Whether a handoff is under way.
pub(super) enum Swap {
    Idle,
    Preparing(Box<Pending>),
}

/// A handoff that has not come to the execve yet.
pub(super) struct Pending {
    pub(super) kind: HandoffKind,
    /// It leads back to the proven image, whatever `kind` says.
    pub(super) rollback: bool,
    pub(super) force: bool,
    pub(super) reason: Option<String>,
    pub(super) origin: Origin,
    pub(super) trace: TraceId,
    pub(super) started_at: UnixMillis,
    pub(super) timeline: Timeline,
    /// What is to run next, once that is known.
    pub(super) to: Option<Image>,
    /// What this handoff put into `versions/`, to be removed again if it does not come about.
    pub(super) staged: Option<Version>,
    /// Who holds it up, once that takes longer than it should.
    pub(super) waiting: Option<Waiting>,
    /// What was asked for is itself refused, so that the same would fail again.
    pub(super) is_refused: bool,
}

/// Bytes that may be run: verified, or those that run already.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) file: File,
    pub(super) id: Image,
}

/// What tasks beside the loop report.
#[derive(Debug)]
pub(super) enum Step {
    /// A download goes on.
    Progress(StageProgress),
    /// A release is staged and verified, or was refused.
    Staged(Result<StagedImage, UpdateError>),
    /// The preflight is over.
    Checked(Candidate, Result<CheckReport, PreflightError>),
    /// An agent was started for a trial.
    Probed(Result<(), String>),
    /// The digest of the running image is known.
    Hashed(std::io::Result<String>),
    /// A look for newer releases that nobody asked for is over.
    Looked(Result<Look, UpdateError>),
    /// A look for newer releases is over.
    UpdateChecked(CheckFor, Result<Look, UpdateError>),
    /// The database was looked at for the pages.
    Glanced(Option<Box<Glance>>),
}

impl Pending {
    pub(super) fn kind_name(&self) -> &'static str {
        if self.rollback { ROLLBACK } else { self.kind.name() }
    }

    fn is_dry_run(&self) -> bool {
        self.kind.is_dry_run()
    }

    fn wants_newest(&self) -> bool {
        matches!(self.kind, HandoffKind::Update { version: None, .. })
    }
}

impl Daemon {
    pub(super) async fn request_by_signal(&mut self, name: &str) {
        let kind = if name == "SIGHUP" { HandoffKind::Reload } else { HandoffKind::Restart };
        self.request_handoff(kind, false, None, Origin::Signal { name: name.to_owned() }).await;
    }

    /// Begins a handoff, unless one is under way.
    pub(super) async fn request_handoff(
        &mut self,
        kind: HandoffKind,
        force: bool,
        reason: Option<String>,
        origin: Origin,
    ) {
        if let Swap::Preparing(pending) = &mut self.swap {
            // Whoever is told what it waits for may have no patience. `drain` looks at it.
            let hurries = force && pending.timeline.phase() == Phase::Drain;
            pending.force |= hurries;
            let busy = Busy::UnderWay {
                kind: pending.kind_name(),
                who: pending.origin.who(),
                phase: pending.timeline.phase().as_str(),
                secs: UnixMillis::now().since(pending.started_at).as_secs(),
                hurries,
            };
            self.refuse(&origin, &busy).await;
            return;
        }
        // So that no execve comes before the record of the last one is on disk.
        self.close_books().await;
        // It cannot be frozen any more; it has seconds.
        if let Some(agent) = self.agents.keys().find(|agent| !self.config.agents.contains_key(agent)) {
            let busy = Busy::AgentLeaves(agent.to_string());
            self.refuse(&origin, &busy).await;
            return;
        }
        self.settle_probation().await;
        let stages = match kind {
            HandoffKind::Update { .. } | HandoffKind::Revert { .. } | HandoffKind::Installed { .. } => true,
            HandoffKind::Restart | HandoffKind::Reload => false,
        };
        let first = if stages { Phase::Stage } else { Phase::Preflight };
        let timeline = Timeline::start(first);
        let started_at = UnixMillis::now();
        let pending = Pending {
            kind,
            rollback: false,
            force,
            reason,
            origin,
            trace: TraceId::random(),
            started_at,
            timeline,
            to: None,
            staged: None,
            waiting: None,
            is_refused: false,
        };
        telemetry::follow(Some(&pending.trace));
        tracing::info!(
            name: lifecycle::HANDOFF_BEGIN,
            kind = pending.kind_name(),
            who = pending.origin.who(),
            via = pending.origin.way(),
            reason = pending.reason,
            generation = self.generation.0,
            "handoff begins"
        );
        self.note_early(&pending).await;
        self.tell_begin(&pending).await;
        fault::at(Point::Requested);
        self.swap = Swap::Preparing(Box::new(pending));
        if stages {
            self.stage().await;
        } else {
            match self.image.file.try_clone() {
                Ok(file) => self.preflight(Candidate { file, id: self.image.id.clone() }).await,
                Err(error) => self.fail(format!("cannot open the running image: {error}")).await,
            }
        }
    }

    pub(super) async fn step(&mut self, step: Step) {
        match step {
            Step::Progress(at) => {
                let (step, done_bytes) = releases::progress(&at);
                self.tell_progress(at.phase(), &step, done_bytes).await;
            }
            Step::Staged(Ok(StagedImage { version, sha256, file, is_new, .. })) => {
                fault::at(Point::Staged);
                let id = Image { version: version.to_string(), sha256 };
                if let Swap::Preparing(pending) = &mut self.swap {
                    pending.to = Some(id.clone());
                    pending.staged = is_new.then_some(version);
                    pending.timeline.enter(Phase::Preflight);
                }
                self.show_phase();
                self.preflight(Candidate { file, id }).await;
            }
            Step::Staged(Err(UpdateError::SameVersion { .. })) if self.wants_newest() => self.end_up_to_date().await,
            Step::Staged(Err(error)) => {
                tracing::error!(error = %Chain(&error), "a release was refused");
                self.refused(error.is_of_release());
                self.fail(Chain(&error).to_string()).await;
            }
            Step::Checked(candidate, Ok(report)) => {
                tracing::debug!(?report, "preflight passed");
                fault::at(Point::PreflightPassed);
                self.swap(candidate).await;
            }
            Step::Checked(_, Err(error)) => {
                self.refused(error.is_of_image());
                self.fail(Chain(&error).to_string()).await;
            }
            Step::Probed(outcome) => self.probed(outcome),
            Step::Hashed(Ok(sha256)) => {
                self.image.id.sha256 = sha256;
                self.write_state_file();
            }
            Step::Hashed(Err(error)) => tracing::warn!(%error, "cannot hash the running image"),
            Step::Looked(outcome) => self.looked(outcome).await,
            Step::UpdateChecked(to, outcome) => self.update_checked(to, outcome).await,
            Step::Glanced(glance) => self.glanced(glance.map(|glance| *glance)),
        }
    }

    fn refused(&mut self, is_refused: bool) {
        if let Swap::Preparing(pending) = &mut self.swap {
            pending.is_refused = is_refused;
        }
    }

    /// Gets the image that is to run, beside the loop.
    async fn stage(&mut self) {
        let Swap::Preparing(pending) = &self.swap else { return };
        match pending.kind.clone() {
            HandoffKind::Update { version, .. } => self.stage_release(version.as_deref()).await,
            HandoffKind::Revert { .. } => self.stage_way_back().await,
            HandoffKind::Installed { version } => self.stage_installed(&version).await,
            HandoffKind::Restart | HandoffKind::Reload => {}
        }
    }

    /// Opens and hashes the version before, beside the loop.
    async fn stage_way_back(&mut self) {
        let way_back = match self.revertible().await {
            Ok(way_back) => way_back,
            Err(error) => return self.fail(Chain(&error).to_string()).await,
        };
        self.write_state_file();
        let steps = self.steps.clone();
        tokio::task::spawn_blocking(move || drop(steps.blocking_send(Step::Staged(way_back.revert_target()))));
    }

    /// Opens and hashes a version that somebody has put into `versions/`, beside the loop.
    async fn stage_installed(&mut self, version: &str) {
        let Ok(version) = Version::parse(version) else {
            return self.fail(format!("'{version}' is not a version")).await;
        };
        self.write_state_file();
        let (versions, steps) = (Versions::new(self.home.path()), self.steps.clone());
        let open = move || versions.open(&version).map_err(UpdateError::Versions);
        tokio::task::spawn_blocking(move || drop(steps.blocking_send(Step::Staged(open()))));
    }

    /// Downloads and verifies a release beside the loop.
    async fn stage_release(&mut self, version: Option<&str>) {
        let want = match want(version) {
            Ok(want) => want,
            Err(reason) => return self.fail(reason).await,
        };
        let releases = match self.releases().await {
            Ok(releases) => releases,
            Err(error) => return self.fail(Chain(&error).to_string()).await,
        };
        self.write_state_file();
        fault::at(Point::Staging);
        let steps = self.steps.clone();
        tokio::spawn(async move {
            let progress = steps.clone();
            // A report that finds no room is superseded by the next one.
            let tell = |at: StageProgress| drop(progress.try_send(Step::Progress(at)));
            let staged = releases.stage(&want, tell).await;
            drop(steps.send(Step::Staged(staged)).await);
        });
    }

    /// Lets the candidate read the real state as a child, beside the loop. All parts are brought to a safe point for
    /// the moment that it takes to write their state down, which also shows that the real thing will work.
    pub(super) async fn preflight(&mut self, candidate: Candidate) {
        let frozen = match self.freeze().await {
            Ok(frozen) => frozen,
            Err(error) => {
                self.thaw().await;
                return self.fail(Chain(&error).to_string()).await;
            }
        };
        fault::at(Point::RehearsalFrozen);
        let passport = self.passport(&candidate.id, frozen.turns(), frozen.agents_running());
        let sealed = self.register(frozen).and_then(|mut registry| {
            registry.put_section(PASSPORT, VERSION, &passport)?;
            registry.seal_for_preflight()
        });
        self.thaw().await;
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(error) => return self.fail(Chain(&error).to_string()).await,
        };
        let mut arguments: Vec<OsString> = vec!["--home".into(), self.home.path().into()];
        if let Some(config) = &self.options.config {
            arguments.extend(["--config".into(), config.into()]);
        }
        let steps = self.steps.clone();
        tokio::spawn(async move {
            fault::at(Point::PreflightRunning);
            let version = &candidate.id.version;
            let outcome = preflight::run(&candidate.file, &sealed, &arguments, version, preflight::DEADLINE).await;
            drop(steps.send(Step::Checked(candidate, outcome)).await);
        });
    }

    /// The point of no return, but for a kernel that refuses: drain, quiesce, seal, execve.
    async fn swap(&mut self, candidate: Candidate) {
        let drain = match &mut self.swap {
            Swap::Preparing(pending) if pending.is_dry_run() => return self.end_dry_run(candidate.id).await,
            Swap::Preparing(pending) => {
                pending.timeline.enter(Phase::Drain);
                if pending.force { Duration::ZERO } else { self.config.gateway.restart_drain_timeout }
            }
            Swap::Idle => return,
        };
        if let Err(reason) = self.write_down(&candidate.id).await {
            return self.fail(reason).await;
        }
        match self.freeze_and_seal(&candidate.id, drain).await {
            Ok(sealed) => {
                tracing::info!(
                    version = candidate.id.version,
                    state_bytes = sealed.size_bytes(),
                    fds = sealed.fd_count(),
                    "replacing the image"
                );
                // No word of this in gateway_state.json: the next image writes it in a few milliseconds, and a
                // `draining` must not be left behind by a process that dies in between.
                self.notifier.reloading(&self.status_line());
                fault::at(Point::ReloadingSent);
                self.notifier.watchdog_ping();
                let time = self.config.gateway.handoff_timeout;
                let error = reexec(&candidate.file, sealed, &self.image.file, time);
                self.notifier.ready(&self.status_line());
                self.thaw().await;
                self.fail(Chain(&error).to_string()).await;
            }
            Err(reason) => {
                self.thaw().await;
                self.fail(reason).await;
            }
        }
    }

    /// Whoever serves next must know of this handoff, however the process gets there.
    async fn write_down(&self, to: &Image) -> Result<(), String> {
        let Swap::Preparing(pending) = &self.swap else { return Ok(()) };
        // In this order: a trial that is started by the launcher must know of its probation.
        put_note(&self.store, Some(&self.note_of(pending, to))).await?;
        fault::at(Point::Noted);
        if to.version != self.image.id.version && !pending.rollback {
            self.slot_trial(to.version.clone()).await?;
        }
        fault::at(Point::Slotted);
        Ok(())
    }

    async fn freeze_and_seal(&mut self, to: &Image, drain: Duration) -> Result<Sealed, String> {
        let told = |error: FreezeError| Chain(&error).to_string();
        fault::at(Point::Draining);
        self.show_phase();
        self.drain(drain).await.map_err(told)?;
        if let Swap::Preparing(pending) = &mut self.swap {
            pending.timeline.enter(Phase::Quiesce);
        }
        let frozen = self.freeze().await.map_err(told)?;
        fault::at(Point::Frozen);
        if let Swap::Preparing(pending) = &mut self.swap {
            pending.timeline.enter(Phase::Seal);
        }
        let passport = self.passport(to, frozen.turns(), frozen.agents_running());
        let sealed = self.register(frozen).and_then(|mut registry| {
            registry.put_section(PASSPORT, VERSION, &passport)?;
            registry.seal()
        });
        fault::at(Point::Sealed);
        // A stop that is pending wins; one that comes from here on is read by the next image.
        if let Some(crate::sys::signals::Request::Stop(name)) = self.signals.stop_pending() {
            self.stopping = Some(name.to_owned());
            return Err(Chain(&FreezeError::Stop(name)).to_string());
        }
        sealed.map_err(|error| Chain(&error).to_string())
    }

    fn passport(&self, to: &Image, turns_carried: usize, agents_carried: usize) -> Passport {
        let Swap::Preparing(pending) = &self.swap else {
            unreachable!("a passport is made for a handoff that is being prepared")
        };
        Passport {
            generation: self.generation.next(),
            note: self.note_of(pending, to),
            timeline: pending.timeline.clone(),
            process_started_at: self.process_started_at,
            turns_carried,
            agents_carried,
            stored: self.keeper.stored().clone(),
            probation: self.probation.as_ref().map(Probation::carried),
            link_errors: self
                .links
                .iter()
                .filter_map(|(name, link)| Some((name.clone(), link.last_error.clone()?)))
                .collect(),
        }
    }

    /// A handoff that did not come about: everything goes on, and it is told.
    pub(super) async fn fail(&mut self, reason: String) {
        let Swap::Preparing(pending) = std::mem::replace(&mut self.swap, Swap::Idle) else { return };
        if pending.rollback && self.stopping.is_none() {
            let why = pending.reason.as_deref().unwrap_or_default();
            self.leave_at_once(&format!("{why}; {reason}")).await;
        }
        self.forget_note();
        if pending.timeline.phase() >= Phase::Drain {
            self.slot_no_trial().await;
        }
        tracing::error!(
            name: lifecycle::HANDOFF_FAILED,
            kind = pending.kind_name(),
            phase = %pending.timeline.phase(),
            reason,
            "handoff failed"
        );
        self.unstage(&pending).await;
        self.write_state_file();
        self.record(&pending, format!("failed in {}: {reason}", pending.timeline.phase())).await;
        self.tell_failed(&pending, &reason).await;
    }

    /// Leaves `versions/` as it was before the handoff.
    async fn unstage(&self, pending: &Pending) {
        let Some(version) = pending.staged.clone() else { return };
        let versions = Versions::new(self.home.path());
        match tokio::task::spawn_blocking(move || versions.remove(&version)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %Chain(&error), "a staged version stays behind"),
            Err(error) => tracing::warn!(%error, "a staged version stays behind"),
        }
    }

    fn wants_newest(&self) -> bool {
        matches!(&self.swap, Swap::Preparing(pending) if pending.wants_newest())
    }

    /// The newest release was asked for, and it runs.
    async fn end_up_to_date(&mut self) {
        let Swap::Preparing(pending) = std::mem::replace(&mut self.swap, Swap::Idle) else { return };
        self.forget_note();
        tracing::info!(version = self.image.id.version, "there is nothing newer");
        let (running, kind) = (self.image.id.version.clone(), pending.kind_name());
        self.pages.step("done", Language::En.words().is_newest(&running), (None, None));
        match pending.origin {
            Origin::Control { client, id, .. } => {
                let told = Language::En.words().is_newest(&running);
                self.respond(client, id, Err(ErrorObject::new(proto::UP_TO_DATE, told)));
            }
            Origin::Chat(by) => {
                let told = self.gateway.words(&by.conversation).is_newest(&running);
                self.tell_chat(&by, kind, told).await;
            }
            Origin::Signal { .. } | Origin::Automatic => {}
        }
        self.write_state_file();
    }

    async fn end_dry_run(&mut self, to: Image) {
        let Swap::Preparing(pending) = std::mem::replace(&mut self.swap, Swap::Idle) else { return };
        self.forget_note();
        self.unstage(&pending).await;
        let report = HandoffReport {
            kind: pending.kind_name().to_owned(),
            from: self.image.id.clone(),
            to,
            pid: std::process::id(),
            generation: self.generation.0,
            agents_carried: 0,
            turns_carried: 0,
            blackout_us: 0,
            duration_us: 0,
            phases_us: pending.timeline.durations_us(),
            dry_run: true,
        };
        tracing::info!(to = report.to.version, "a dry run went well, nothing was replaced");
        self.write_state_file();
        self.tell_done(&pending.origin, &report).await;
    }

    async fn record(&self, pending: &Pending, outcome: String) {
        let to = pending.to.clone().unwrap_or_else(|| self.image.id.clone());
        let record = HandoffRecord {
            phases_us: pending.timeline.durations_us(),
            ..self.note_of(pending, &to).record(self.generation, outcome)
        };
        self.trace_handoff(&record);
        if let Err(error) = self.store.record_handoff(&record).await {
            tracing::error!(error = %Chain(&error), "cannot record a handoff");
        }
    }
}

/// The generation of an image that no other one made.
pub(super) const FIRST: Generation = Generation(0);
