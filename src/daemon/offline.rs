//! Updates of a gateway that does not run: a version is staged, verified and tried as ever, and becomes the trial that
//! `hermes-launch` starts next.
//!
//! **Invariants**
//! - Everything that is written is written under the gateway's lock, so never beside a gateway, and as its user.
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
use super::state::{AGENTS, AgentEntry, CONTROL, ControlEntry, GATEWAY, Note, Origin, PASSPORT, Passport, VERSION};
use super::swap::FIRST;
use crate::agent::AgentSnapshot;
use crate::clock::UnixMillis;
use crate::config::{Config, Home};
use crate::control::proto::{HandoffKind, HoldStatus, Image, Progress, UpdateCheck};
use crate::control::{ClientId, ControlSnapshot};
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
use crate::update::{StagedImage, UpdateError, Versions, VersionsError};
use crate::words::Language;

/// Starts that the trial is granted: the next one, and one more because a power cut is not its fault.
const TRIAL_BOOTS: u32 = 2;
/// The client that asked, for the note: ids of real ones begin at 1, and nobody waits for an answer.
const NOBODY: ClientId = ClientId(0);

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
}

/// A gateway that does not run.
#[derive(Debug)]
pub struct Offline {
    home: Home,
    config: Config,
    known: Known,
    versions: Versions,
    /// What is started next.
    next: Option<Version>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// What was started next before.
    pub from: Image,
    /// What is started next now.
    pub to: Image,
}

impl Offline {
    /// Reads the configuration, the store and the slots, and writes nothing.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub fn open(home: &Path, config: Option<&Path>) -> Result<Self, OfflineError> {
        let (home, config) = settings::read(Some(home), config).map_err(OfflineError::Settings)?;
        let known = known(&home)?;
        let versions = Versions::new(home.path());
        let next = next_start(&versions)?;
        Ok(Self { home, config, known, versions, next })
    }

    /// Looks for releases. Where nothing is installed, what runs this counts as what is.
    ///
    /// # Errors
    /// [`OfflineError::Update`].
    pub async fn check(&self) -> Result<UpdateCheck, OfflineError> {
        let running = self.next.clone().unwrap_or_else(super::releases::running_version);
        let look = self.releases(&running)?.look().await.map_err(OfflineError::Update)?;
        let held = self.known.hold.clone().filter(|hold| hold.holds(UnixMillis::now()));
        let held = held.map(|Hold { since, until, by }| HoldStatus { since, until, by });
        let found = found(running.to_string(), look.check, &self.config.update, held);
        Ok(UpdateCheck { offline: true, ..found })
    }

    /// Gets the version that `kind` asks for, tries it, and makes it what is started next.
    ///
    /// # Errors
    /// [`OfflineError`]; [`UpdateError::SameVersion`] in it if the newest is started next already.
    pub async fn prepare(
        &mut self,
        kind: &HandoffKind,
        mut tell: impl FnMut(&Progress),
    ) -> Result<Prepared, OfflineError> {
        let _alone = self.claim()?;
        let Some(from) = self.next.clone() else {
            return Err(OfflineError::NotInstalled { dir: self.versions.dir().to_owned() });
        };
        let staged = match kind {
            HandoffKind::Update { version, .. } => {
                let want = want(version.as_deref()).map_err(OfflineError::Usage)?;
                let shown = |at| {
                    let (step, done_bytes) = progress(&at);
                    let total_bytes = if let crate::words::Step::Downloading(total) = step { total } else { None };
                    let message = Language::En.words().step(&step);
                    tell(&Progress { phase: at.phase().to_owned(), message, done_bytes, total_bytes });
                };
                self.releases(&from)?.stage(&want, shown).await
            }
            _ => self.known.revertible(self.versions.clone(), from.clone()).revert_target(),
        };
        let staged = staged.map_err(OfflineError::Update)?;
        let outcome = self.try_and_note(kind, &from, &staged).await;
        if staged.is_new && (outcome.is_err() || kind.is_dry_run()) {
            self.versions.remove(&staged.version).map_err(OfflineError::Versions)?;
        }
        outcome
    }

    async fn try_and_note(
        &self,
        kind: &HandoffKind,
        from: &Version,
        staged: &StagedImage,
    ) -> Result<Prepared, OfflineError> {
        let image = |staged: &StagedImage| Image { version: staged.version.to_string(), sha256: staged.sha256.clone() };
        let before = self.versions.open(from).map_err(OfflineError::Versions)?;
        let note = Note {
            kind: kind.name().to_owned(),
            origin: Origin::Control {
                client: NOBODY,
                id: RequestId::Number(0),
                uid: rustix::process::geteuid().as_raw(),
            },
            reason: Some("prepared while no gateway ran".to_owned()),
            from: image(&before),
            to: image(staged),
            started_at: UnixMillis::now(),
            trace: Some(TraceId::random()),
            told: false,
            // That it is not what is started next is no failure of it.
            stopped: true,
        };
        let prepared = Prepared { from: note.from.clone(), to: note.to.clone() };
        self.preflight(&note, staged).await?;
        if kind.is_dry_run() {
            return Ok(prepared);
        }
        let store = Store::open(&self.home.state_db()).map_err(OfflineError::Store)?;
        put_note(&store, Some(&note)).await.map_err(OfflineError::Note)?;
        let dir = self.versions.dir();
        let slots = Slots::read(dir).unwrap_or_default().unwrap_or_default();
        let trial = Trial { version: staged.version.to_string(), boots_left: TRIAL_BOOTS };
        let proven = slots.proven.clone().or_else(|| Some(from.to_string()));
        Slots { proven, trial: Some(trial), ..slots }.write(dir).map_err(OfflineError::Slots)?;
        Ok(prepared)
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
    pub async fn hold(&mut self, hold: bool, until: Option<&str>) -> Result<Option<HoldStatus>, OfflineError> {
        let _alone = self.claim()?;
        let now = UnixMillis::now();
        let until = until.map(|text| parse_until(text, now, &TimeZone::system())).transpose();
        let until = until.map_err(|error| OfflineError::Usage(error.to_string()))?;
        let by = format!("uid {}", rustix::process::geteuid().as_raw());
        let hold = hold.then_some(Hold { since: now, until, by });
        let text =
            hold.as_ref().map_or_else(String::new, |hold| serde_json::to_string(hold).expect("plain data serialises"));
        let store = Store::open(&self.home.state_db()).map_err(OfflineError::Store)?;
        store.set_meta(HOLD, text).await.map_err(OfflineError::Store)?;
        Ok(hold.map(|Hold { since, until, by }| HoldStatus { since, until, by }))
    }

    /// The right to write; what was read is read again under it.
    fn claim(&mut self) -> Result<Lock, OfflineError> {
        let owner = fs::metadata(self.home.path()).map_or(0, |meta| meta.uid());
        if owner != rustix::process::geteuid().as_raw() {
            return Err(OfflineError::OtherUser { home: self.home.path().to_owned(), owner });
        }
        let lock = Lock::acquire(&self.home.lock()).map_err(OfflineError::Lock)?;
        self.known = known(&self.home)?;
        self.next = next_start(&self.versions)?;
        Ok(lock)
    }

    fn releases(&self, running: &Version) -> Result<Releases, OfflineError> {
        let source = source(&self.config, &self.home).map_err(OfflineError::Update)?;
        let channel = self.config.update.channel;
        Ok(self.known.releases(source, self.versions.clone(), running.clone(), channel))
    }
}

fn known(home: &Home) -> Result<Known, OfflineError> {
    Known::peek(&home.state_db()).map_err(OfflineError::Store)
}

/// What the launcher starts next, but for a trial: that is not what an update is measured against.
fn next_start(versions: &Versions) -> Result<Option<Version>, OfflineError> {
    let listed = versions.list().map_err(OfflineError::Versions)?;
    // Torn slots are none for the launcher, too.
    let slots = Slots::read(versions.dir()).unwrap_or_default().unwrap_or_default();
    let proven = slots.proven.and_then(|version| version.parse().ok());
    let current = || versions.current().ok().flatten();
    let first = proven.or_else(current).filter(|version| listed.contains(version));
    Ok(first.or_else(|| listed.last().cloned()))
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
