//! Updates of a gateway that does not run: a version is staged, verified and tried as ever, and becomes the trial that
//! `hermes-launch` starts next.
//!
//! **Invariants**
//! - A version is downloaded and tried without the gateway's lock, so that a gateway may be started meanwhile. What it is
//!   measured against, the store and the slots, is written and what was staged in vain is removed under that lock, so never
//!   beside a gateway, and as its user; and only if everything that was read is as it was.
//! - Going back from a trial that has not proven itself takes the trial away, and leads to what is proven.
//! - The note of the trial is in the store before the trial is in the slots: whoever serves next watches it as after any
//!   update, and the launcher goes back from it as from any trial.
//! - A look writes nothing.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use semver::Version;
use serde_json::json;
use thiserror::Error;

use super::releases::{progress, source};
use super::requests::found;
use super::rollback::put_note;
use super::settings::{self, SettingsError};
use super::state::{
    AGENTS, AgentEntry, CONTROL, ControlEntry, GATEWAY, NOBODY, Note, Origin, PASSPORT, Passport, VERSION,
};
use super::swap::FIRST;
use crate::agent::AgentSnapshot;
use crate::clock::UnixMillis;
use crate::config::{Config, Home, Reader};
use crate::control::ControlSnapshot;
use crate::control::proto::{HandoffKind, HoldStatus, Image, Progress, UpdateCheck};
use crate::gateway::GatewayState;
use crate::handoff::preflight::{self, PreflightError};
use crate::handoff::{Phase, Registry, SealError, Sealed, Timeline};
use crate::id::TraceId;
use crate::jsonrpc::RequestId;
use crate::report::Chain;
use crate::service::lock::{Lock, LockError};
use crate::slots::{Slots, SlotsError, Trial};
use crate::store::{Store, StoreError};
use crate::update::hold::{Hold, parse_until};
use crate::update::known::{HOLD, Known, Releases, want};
use crate::update::{StagedImage, UpdateError, Versions, VersionsError, Want};
use crate::words::Language;

/// Starts that the trial is granted: the next one, and one more because a power cut is not its fault.
const TRIAL_BOOTS: u32 = 2;

/// Why a gateway that does not run is not updated. Nothing has changed then.
#[derive(Debug, Error)]
pub enum OfflineError {
    /// The home or the configuration cannot be used.
    #[error(transparent)]
    Settings(SettingsError),
    /// A gateway is being started, or another command writes.
    #[error("the gateway neither answers nor is it down")]
    Lock(#[source] LockError),
    /// The database cannot be used.
    #[error("cannot use the gateway's database")]
    Store(#[source] StoreError),
    /// What this writes would not be the gateway's own.
    #[error("{} belongs to another user (uid {owner}), whose files this would take over", home.display())]
    OtherUser {
        /// The home.
        home: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// The launcher starts nothing from here.
    #[error("no version is installed in {}, so no update of it would be started", dir.display())]
    NotInstalled {
        /// Where versions are installed.
        dir: PathBuf,
    },
    /// What is asked for is no version, or no time.
    #[error("{0}")]
    Usage(String),
    /// There is no release to take, or it is refused.
    #[error("{}", Chain(.0))]
    Update(#[source] UpdateError),
    /// The versions cannot be read or written.
    #[error("cannot use the installed versions")]
    Versions(#[source] VersionsError),
    /// The trial cannot be written down.
    #[error("cannot write down which version is tried")]
    Slots(#[source] SlotsError),
    /// The state of a gateway that begins cannot be made.
    #[error("cannot try the new version")]
    Seal(#[source] SealError),
    /// It could not take over.
    #[error("the new version is refused")]
    Preflight(#[source] PreflightError),
    /// It cannot be noted what is tried.
    #[error("cannot note what is tried: {0}")]
    Note(String),
    /// A gateway was started and stopped meanwhile, or another command wrote.
    #[error("what is started next, or what is known of versions, has changed meanwhile: run this again")]
    Meanwhile,
}

/// A gateway that does not run.
#[derive(Debug)]
pub struct Offline {
    home: Home,
    config: Config,
    known: Known,
    versions: Versions,
    marks: Marks,
    next: Next,
}

/// What says which version is started next.
#[derive(Debug, PartialEq, Eq)]
struct Marks {
    /// Torn slots are none for the launcher, too.
    slots: Slots,
    current: Option<Version>,
}

/// What the launcher starts next.
#[derive(Debug)]
struct Next {
    /// What has proven itself, or counts as if it had: what a trial leads back to. None where nothing is installed.
    proven: Option<Version>,
    /// What is on trial and is started before it.
    trial: Option<Version>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// What was started next before.
    pub from: Image,
    /// What is started next now.
    pub to: Image,
    /// Whether it is on trial then.
    pub on_trial: bool,
}

impl Offline {
    /// Reads the configuration, the store and the slots, and writes nothing.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub fn open(home: &Path, config: Option<&Path>) -> Result<Self, OfflineError> {
        let (home, config) = settings::read(Some(home), config, Reader::Other).map_err(OfflineError::Settings)?;
        let known = known(&home)?;
        let versions = Versions::new(home.path());
        let marks = Marks::read(&versions);
        let next = marks.next(&versions.list().map_err(OfflineError::Versions)?);
        Ok(Self { home, config, known, versions, marks, next })
    }

    /// Looks for releases. Where nothing is installed, what runs this counts as what is.
    ///
    /// # Errors
    /// [`OfflineError::Update`].
    pub async fn check(&self) -> Result<UpdateCheck, OfflineError> {
        let running = self.next.first().cloned().unwrap_or_else(super::releases::running_version);
        let look = self.releases(&running).map_err(OfflineError::Update)?.look().await.map_err(OfflineError::Update)?;
        let held = self.known.hold.clone().filter(|hold| hold.holds(UnixMillis::now()));
        let found = found(running.to_string(), look.check, &self.config.update, held.map(HoldStatus::from));
        Ok(UpdateCheck { offline: true, ..found })
    }

    /// Gets the version that `kind` asks for, tries it, and makes it what is started next; or makes that what is proven
    /// again, if it is asked to go back from a trial.
    ///
    /// # Errors
    /// [`OfflineError`]; [`UpdateError::SameVersion`] in it if the newest is started next already.
    pub async fn prepare(&self, kind: &HandoffKind, tell: impl FnMut(&Progress)) -> Result<Prepared, OfflineError> {
        // Not for as long as the download takes: a gateway that is started meanwhile needs it.
        drop(self.claim()?);
        let Some(from) = self.next.proven.clone() else {
            return Err(OfflineError::NotInstalled { dir: self.versions.dir().to_owned() });
        };
        let want = match kind {
            HandoffKind::Update { version, .. } => Some(want(version.as_deref()).map_err(OfflineError::Usage)?),
            _ => None,
        };
        let goes_back = want.as_ref().is_none_or(|want| *want == Want::Exact(from.clone()));
        if let (true, Some(trial)) = (goes_back, self.next.trial.clone()) {
            return self.end_trial(&trial, &from, kind.is_dry_run()).await;
        }
        let staged = match &want {
            Some(want) => self.stage(want, &from, tell).await,
            None => self.known.revertible(self.versions.clone(), from.clone()).revert_target(),
        };
        let staged = staged.map_err(OfflineError::Update)?;
        let note = self.note(kind, &from, &staged)?;
        let tried = self.preflight(&note, &staged).await;
        let _alone = match self.claim_unchanged() {
            Ok(alone) => alone,
            // What was staged stays: a gateway that has been started meanwhile may run it.
            Err(error) => return Err(tried.err().unwrap_or(error)),
        };
        let outcome = match tried {
            Ok(()) if kind.is_dry_run() => Ok(()),
            Ok(()) => self.begin_trial(&note).await,
            Err(error) => Err(error),
        };
        if staged.is_new && (outcome.is_err() || kind.is_dry_run()) {
            self.versions.remove(&staged.version).map_err(OfflineError::Versions)?;
        }
        let before = self.next.first().unwrap_or(&from);
        outcome.and_then(|()| Ok(Prepared { from: self.image(before)?, to: note.to, on_trial: true }))
    }

    /// The newest release is newer than what is on trial; one that is named may be anything that is newer than `proven`.
    async fn stage(
        &self,
        want: &Want,
        proven: &Version,
        mut tell: impl FnMut(&Progress),
    ) -> Result<StagedImage, UpdateError> {
        let shown = |at| {
            let (step, done_bytes) = progress(&at);
            let total_bytes = if let crate::words::Step::Downloading(total) = step { total } else { None };
            let message = Language::En.words().step(&step);
            tell(&Progress { phase: at.phase().to_owned(), message, done_bytes, total_bytes });
        };
        let running = match want {
            Want::Newest => self.next.first().unwrap_or(proven),
            Want::Exact(_) => proven,
        };
        self.releases(running)?.stage(want, shown).await
    }

    /// Takes the trial away: what is proven is started next, and needs no trial.
    async fn end_trial(&self, trial: &Version, proven: &Version, dry_run: bool) -> Result<Prepared, OfflineError> {
        let prepared = Prepared { from: self.image(trial)?, to: self.image(proven)?, on_trial: false };
        if dry_run {
            return Ok(prepared);
        }
        let _alone = self.claim_unchanged()?;
        let slots = Slots { trial: None, ..self.marks.slots.clone() };
        // In this order: without its note nobody would watch a trial, and without a trial its note says nothing.
        slots.write(self.versions.dir()).map_err(OfflineError::Slots)?;
        let store = Store::open(&self.home.state_db()).map_err(OfflineError::Store)?;
        put_note(&store, None).await.map_err(OfflineError::Note)?;
        Ok(prepared)
    }

    /// The trial of what `note` is about is what is started next.
    async fn begin_trial(&self, note: &Note) -> Result<(), OfflineError> {
        let store = Store::open(&self.home.state_db()).map_err(OfflineError::Store)?;
        put_note(&store, Some(note)).await.map_err(OfflineError::Note)?;
        let slots = self.marks.slots.clone();
        let trial = Trial { version: note.to.version.clone(), boots_left: TRIAL_BOOTS };
        let proven = slots.proven.clone().or_else(|| Some(note.from.version.clone()));
        Slots { proven, trial: Some(trial), ..slots }.write(self.versions.dir()).map_err(OfflineError::Slots)
    }

    fn image(&self, version: &Version) -> Result<Image, OfflineError> {
        self.versions.open(version).map(|image| id(&image)).map_err(OfflineError::Versions)
    }

    fn note(&self, kind: &HandoffKind, from: &Version, staged: &StagedImage) -> Result<Note, OfflineError> {
        Ok(Note {
            kind: kind.name().to_owned(),
            origin: Origin::Control {
                client: NOBODY,
                id: RequestId::Number(0),
                uid: rustix::process::geteuid().as_raw(),
            },
            reason: Some("prepared while no gateway ran".to_owned()),
            from: self.image(from)?,
            to: id(staged),
            started_at: UnixMillis::now(),
            trace: Some(TraceId::random()),
            told: false,
            // That it is not what is started next is no failure of it.
            stopped: true,
        })
    }

    /// The version reads the configuration, the database, and the state of a gateway that has just begun.
    async fn preflight(&self, note: &Note, staged: &StagedImage) -> Result<(), OfflineError> {
        let sealed = first_state(note).map_err(OfflineError::Seal)?;
        let arguments: [OsString; 4] =
            ["--home".into(), self.home.path().into(), "--config".into(), self.home.config_file().into()];
        // Without a file the defaults hold, and one that is named must be there.
        let arguments = if self.home.config_file().exists() { &arguments[..] } else { &arguments[..2] };
        let version = staged.version.to_string();
        preflight::run(&staged.file, &sealed, arguments, &version, preflight::DEADLINE)
            .await
            .map(drop)
            .map_err(OfflineError::Preflight)
    }

    /// Lets nothing be updated by itself, or lets it again.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub async fn hold(&self, hold: bool, until: Option<&str>) -> Result<Option<HoldStatus>, OfflineError> {
        let _alone = self.claim()?;
        let now = UnixMillis::now();
        let until = until.map(|text| parse_until(text, now, &TimeZone::system())).transpose();
        let until = until.map_err(|error| OfflineError::Usage(error.to_string()))?;
        let by = format!("uid {}", rustix::process::geteuid().as_raw());
        let hold = hold.then_some(Hold { since: now, until, by });
        let store = Store::open(&self.home.state_db()).map_err(OfflineError::Store)?;
        store.set_meta(HOLD, Hold::stored(hold.as_ref())).await.map_err(OfflineError::Store)?;
        Ok(hold.map(HoldStatus::from))
    }

    /// The right to write.
    fn claim(&self) -> Result<Lock, OfflineError> {
        let owner = fs::metadata(self.home.path()).map_or(0, |meta| meta.uid());
        if owner != rustix::process::geteuid().as_raw() {
            return Err(OfflineError::OtherUser { home: self.home.path().to_owned(), owner });
        }
        Lock::acquire(&self.home.lock()).map_err(OfflineError::Lock)
    }

    /// The same, if everything that an update depends on is as it was read.
    fn claim_unchanged(&self) -> Result<Lock, OfflineError> {
        let lock = self.claim()?;
        let known = known(&self.home)?;
        let is_same = known.floor == self.known.floor
            && known.failures == self.known.failures
            && Marks::read(&self.versions) == self.marks;
        if is_same { Ok(lock) } else { Err(OfflineError::Meanwhile) }
    }

    fn releases(&self, running: &Version) -> Result<Releases, UpdateError> {
        let source = source(&self.config, &self.home)?;
        let channel = self.config.update.channel;
        Ok(self.known.releases(source, self.versions.clone(), running.clone(), channel))
    }
}

fn known(home: &Home) -> Result<Known, OfflineError> {
    Known::peek(&home.state_db()).map_err(OfflineError::Store)
}

fn id(image: &StagedImage) -> Image {
    Image { version: image.version.to_string(), sha256: image.sha256.clone() }
}

impl Next {
    fn first(&self) -> Option<&Version> {
        self.trial.as_ref().or(self.proven.as_ref())
    }
}

impl Marks {
    fn read(versions: &Versions) -> Self {
        let slots = Slots::read(versions.dir()).unwrap_or_default().unwrap_or_default();
        Self { slots, current: versions.current().ok().flatten() }
    }

    /// Where these versions are installed, oldest first.
    fn next(&self, listed: &[Version]) -> Next {
        let is_there = |version: &Version| listed.contains(version);
        let trial = self.slots.trial.as_ref().filter(|trial| trial.boots_left > 0);
        let trial = trial.and_then(|trial| trial.version.parse().ok()).filter(is_there);
        let proven = self.slots.proven.as_ref().and_then(|version| version.parse().ok());
        let first = proven.or_else(|| self.current.clone()).filter(is_there);
        let newest = || listed.iter().rev().find(|version| Some(*version) != trial.as_ref()).or(listed.last()).cloned();
        let proven = first.or_else(newest);
        let trial = trial.filter(|trial| Some(trial) != proven.as_ref());
        Next { proven, trial }
    }
}

/// What a gateway without agents and clients would hand over.
fn first_state(note: &Note) -> Result<Sealed, SealError> {
    let passport = Passport {
        generation: FIRST,
        note: note.clone(),
        timeline: Timeline::start(Phase::Preflight),
        process_started_at: note.started_at,
        turns_carried: 0,
        agents_carried: 0,
        stored: Default::default(),
        probation: None,
        link_errors: Default::default(),
    };
    let control = json!({ "version": ControlSnapshot::VERSION, "next_client": 1, "clients": [] });
    let mut registry = Registry::default();
    registry.put_section(PASSPORT, VERSION, &passport)?;
    registry.put_section(GATEWAY, GatewayState::VERSION, &GatewayState::default())?;
    registry.put_section(AGENTS, AgentSnapshot::VERSION, &Vec::<AgentEntry>::new())?;
    registry.put_section(CONTROL, ControlSnapshot::VERSION, &ControlEntry { state: control, clients: Vec::new() })?;
    registry.seal_for_preflight()
}
