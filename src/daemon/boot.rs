//! Making a [`Daemon`]: of nothing, or of what the previous image of this process left.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::advice::advice;
use super::auto::Auto;
use super::disk::Disk;
use super::keeper::Keeper;
use super::kept::Kept;
use super::outlet::Outlet;
use super::platforms::platforms;
use super::pulse::Pulse;
use super::recovery::{self, Recovered};
use super::releases::{mark_abandoned, raise_floor, sha256_hex};
use super::rollback::note;
use super::run::{Daemon, Event, Events, ticks};
use super::specs::Specs;
use super::state::{
    AGENTS, AgentEntry, CONTROL, ControlEntry, GATEWAY, LOCAL, PASSPORT, Passport, SECTIONS, STASH, Stash, TRACES,
    agent_fds, agent_log_fd, client_fd, listener_fd, lock_fd, proven_fd,
};
use super::status::LinkView;
use super::swap::{FIRST, RunningImage, Step, Swap};
use super::{DaemonError, RunOptions, report, settings};
use crate::agent::{self, AgentCommand, AgentEvent, AgentFds, AgentHandle, AgentSnapshot};
use crate::clock::{MonoNanos, UnixMillis};
use crate::config::{Config, Environment, Home};
use crate::control::server::{self, ControlHandle};
use crate::control::{ControlEvent, ControlSnapshot};
use crate::fault::{self, Point};
use crate::handoff::adopt::{AdoptError, EXEC_AT_VARIABLE, STATE_FD_VARIABLE};
use crate::handoff::way_back::{self, RECOVERY_VARIABLE, WayBack};
use crate::handoff::{FdName, Inherited, Phase};
use crate::id::{AgentName, PlatformName};
use crate::platform::PlatformEvent;
use crate::service::fdstore::{self, FdStore, Restored};
use crate::service::listen::{bind_control, restored_control};
use crate::service::lock::Lock;
use crate::service::notify::Notifier;
use crate::service::state_file;
use crate::service::unit::UnitFiles;
use crate::store::{Opening, Store};
use crate::sys::signals::{Request, Signals};
use crate::telemetry::otlp::{Exporter, Span};
use crate::telemetry::{self, LogFormat, TelemetryOptions, lifecycle};

/// How long a database that is being opened may hold up the orderly stop of what was taken over.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Events that may wait in each queue.
const EVENTS: usize = 256;

/// What is there before the runtime: everything that claims inherited things.
pub(super) struct Ground {
    options: RunOptions,
    home: Home,
    config: Config,
    lock: Rc<Lock>,
    store: Store,
    opening: Opening,
    notifier: Notifier,
    unit: UnitFiles,
    fd_store: FdStore,
    /// The control socket, if systemd listens on it.
    activated: Option<UnixListener>,
    inherited: Left,
    way_back: Option<WayBack>,
}

/// What was there before this image.
enum Left {
    /// Nothing: this is a first start, or one after everything was closed.
    Nothing,
    /// The fds of a process or image that died, under their names.
    Fds(Inherited),
    /// Everything, by an image that handed over.
    Everything(Inherited, Box<Passport>),
}

impl Left {
    fn open(self) -> (Option<Inherited>, Option<Passport>) {
        match self {
            Self::Nothing => (None, None),
            Self::Fds(inherited) => (Some(inherited), None),
            Self::Everything(inherited, passport) => (Some(inherited), Some(*passport)),
        }
    }

    fn fds(&mut self) -> Option<&mut Inherited> {
        match self {
            Self::Nothing => None,
            Self::Fds(inherited) | Self::Everything(inherited, _) => Some(inherited),
        }
    }
}

/// A home that is this process's own. From here on what goes wrong is written into its `gateway_state.json`.
pub(super) struct Claimed {
    options: RunOptions,
    environment: Environment,
    pub(super) home: Home,
    /// Shared, so that it is held until a failed start has been written down.
    pub(super) lock: Rc<Lock>,
    inherited: Left,
    way_back: Option<WayBack>,
}

/// Finds the home and takes its lock, or takes it over from the previous image.
pub(super) fn claim(options: RunOptions) -> Result<Claimed, DaemonError> {
    let environment = settings::environment(options.home.as_deref());
    let environment = environment.map_err(|source| DaemonError::System { what: "find the home", source })?;
    let way_back = WayBack::claim();
    let keep = matches!(way_back, Ok(Some(_)));
    let claimed = Inherited::claim(environment.text(STATE_FD_VARIABLE), SECTIONS, keep);
    init_logging(&environment, options.log_format)?;
    let mut way_back = way_back.map_err(AdoptError::Claim).map_err(DaemonError::Adopt)?;
    let mut inherited = match claimed.map_err(DaemonError::Adopt)? {
        Some(mut inherited) => {
            if let Some(way_back) = &mut way_back {
                let numbers = inherited.kept().to_vec();
                way_back.by_state(numbers).map_err(|source| DaemonError::System { what: "keep a way back", source })?;
            }
            let passport = take::<Passport>(&mut inherited, PASSPORT)?;
            if passport.timeline.phase() >= Phase::Exec {
                let source = "its handoff is over already".into();
                return Err(DaemonError::AdoptPart { part: "the passport".into(), source });
            }
            telemetry::set_generation(passport.generation);
            telemetry::follow(passport.note.trace.as_ref());
            Left::Everything(inherited, Box::new(arrived_at(passport, &environment, options.main_at)))
        }
        None => {
            telemetry::set_generation(FIRST);
            left_behind(&environment)?
        }
    };
    let home = Home::resolve(&environment, options.config.as_deref()).map_err(DaemonError::Home)?;
    home.create().map_err(DaemonError::Home)?;
    let lock = match inherited.fds().and_then(|inherited| inherited.take_fd(&lock_fd())) {
        Some(fd) => Lock::from_fd(fd),
        None => Lock::acquire(&home.lock()).map_err(DaemonError::Lock)?,
    };
    fault::at(Point::Claimed);
    Ok(Claimed { options, environment, home, lock: Rc::new(lock), inherited, way_back })
}

/// Logs from here on, as the environment says.
///
/// # Errors
/// [`DaemonError::Telemetry`].
pub fn init_logging(environment: &Environment, format: Option<LogFormat>) -> Result<(), DaemonError> {
    let logging = TelemetryOptions {
        format,
        filter: environment.text("HERMES_LOG").map(str::to_owned),
        journal_stream: environment.text("JOURNAL_STREAM").map(str::to_owned),
        no_color: environment.get("NO_COLOR").is_some(),
    };
    telemetry::init(&logging).map(drop).map_err(DaemonError::Telemetry)
}

/// Everything else that must happen before there are threads, and all that can fail for the operator's sake.
pub(super) fn ground(claimed: Claimed) -> Result<Ground, DaemonError> {
    let Claimed { options, environment, home, lock, inherited, way_back } = claimed;
    if !matches!(inherited, Left::Everything(..)) {
        report::write_start(&home, state_file::Phase::Starting, None);
    }
    let config = Config::load(home.config_file(), &environment).map_err(DaemonError::Config)?;
    if !matches!(inherited, Left::Everything(..))
        && let Some(advice) = advice(&environment, std::process::id())
    {
        advice.log();
    }
    let notifier = Notifier::from_env(&environment);
    let unit = UnitFiles::from_env(&environment);
    let fd_store = FdStore::from_env(&environment);
    let mut inherited = inherited;
    let activated = match &inherited {
        Left::Everything(..) => None,
        Left::Nothing | Left::Fds(_) => {
            let passed = fdstore::take_over(&environment, &fd_store).map_err(DaemonError::Listen)?;
            if let Left::Nothing = inherited {
                inherited = restored(passed.restored);
            }
            passed.control
        }
    };
    // The first thread.
    let (store, opening) = Store::open_beside(&home.state_db(), !matches!(inherited, Left::Everything(..)));
    Ok(Ground { options, home, config, lock, store, opening, notifier, unit, fd_store, activated, inherited, way_back })
}

/// The fds that a process or image left which could hand over nothing else.
fn left_behind(environment: &Environment) -> Result<Left, DaemonError> {
    let fds = way_back::recovered(environment.get(RECOVERY_VARIABLE)).map_err(AdoptError::Claim);
    let fds = fds.map_err(DaemonError::Adopt)?;
    Ok(if fds.is_empty() { Left::Nothing } else { Left::Fds(Inherited::without_state(fds)) })
}

/// What the service manager kept while the process was started anew.
fn restored(mut restored: Restored) -> Left {
    let names: Vec<String> = restored.names().map(str::to_owned).collect();
    let fds: Vec<_> = names.iter().filter_map(|name| Some((FdName::new(name), restored.take(name)?))).collect();
    if fds.is_empty() { Left::Nothing } else { Left::Fds(Inherited::without_state(fds)) }
}

fn arrived_at(mut passport: Passport, environment: &Environment, main_at: MonoNanos) -> Passport {
    let exec_at = environment.text(EXEC_AT_VARIABLE).and_then(|nanos| nanos.parse().ok()).map_or(main_at, MonoNanos);
    passport.timeline.enter_at(Phase::Exec, exec_at);
    passport.timeline.enter_at(Phase::Adopt, main_at);
    passport
}

/// Brings everything up, says READY=1, and tells whoever asked for the handoff.
pub(super) async fn boot(ground: Ground) -> Result<Daemon, DaemonError> {
    let system = |what| move |source| DaemonError::System { what, source };
    let mut signals = Signals::open().map_err(system("listen for signals"))?;
    let (mut inherited, passport) = ground.inherited.open();
    // Nothing is started, or taken over, without a database.
    let (early, aside) = opened(ground.opening, &mut signals, inherited.is_some()).await?;
    let mut kept = Kept::read(&ground.store).await;
    // From here to the first word to the service manager nothing is awaited, so no part runs and nothing is consumed:
    // until then the way back leads to the same state.
    fault::at(Point::Adopting);
    let (ports, events) = queues();
    let mut keeper = Keeper::new(ground.fd_store, passport.as_ref(), inherited.as_ref());
    let control = control(&ground.home, ground.activated, inherited.as_mut(), ports.control, &mut keeper)?;
    let specs = Specs { config: &ground.config, home: &ground.home };
    let TakenAgents { agents, removed, recovered, recovered_names } =
        agents(specs, inherited.as_mut(), &ports.agents, &mut keeper, passport.is_none())?;
    let (platforms, pages) = platforms(specs, &ground.store, inherited.as_mut(), &ports.platforms, &mut keeper, &kept)?;
    let (local, stash) = (optional(inherited.as_mut(), LOCAL)?, optional::<Stash>(inherited.as_mut(), STASH)?);
    let gateway = kept.gateway(&ground.config, agents.keys().cloned(), optional(inherited.as_mut(), GATEWAY)?);
    let exporter = exporter(&ground.config, optional(inherited.as_mut(), TRACES)?);
    let proven = last_of(inherited, &mut keeper);
    let (now, came_back) = (UnixMillis::now(), way_back::came_back());
    let image = RunningImage::open(passport.as_ref(), came_back.is_some()).map_err(system("open the running image"))?;
    let links = links(platforms.keys(), passport.as_ref());
    let mut daemon = Daemon {
        ticks: ticks(&ground.notifier),
        auto: Auto::new(&ground.config.update, std::mem::take(&mut kept.versions)),
        options: ground.options,
        home: ground.home,
        config: ground.config,
        store: ground.store,
        lock: ground.lock,
        notifier: ground.notifier,
        unit: ground.unit,
        signals,
        image,
        generation: passport.as_ref().map_or(FIRST, |passport| passport.generation),
        process_started_at: passport.as_ref().map_or(now, |passport| passport.process_started_at),
        image_started_at: now,
        gateway,
        local,
        links,
        kept,
        agents,
        platforms,
        control: Outlet::new(control),
        events,
        steps: ports.steps,
        swap: Swap::Idle,
        probation: None,
        proven,
        keeper,
        pages,
        recovered_agents: recovered_names,
        dead_agents: BTreeSet::new(),
        turn_agents: BTreeMap::new(),
        books: None,
        exporter,
        // Nothing is handled before everything is there.
        held: true,
        stash,
        shown: Cell::new(None),
        disk: Disk::default(),
        pulse: Pulse::default(),
        checks: Vec::new(),
        held_steps: Vec::new(),
        stopping: None,
        died: None,
    };
    removed.into_iter().for_each(|outlet| daemon.dismiss(outlet));
    daemon.begin(passport, came_back, ground.way_back, recovered).await;
    daemon.heed(early, aside).await;
    Ok(daemon)
}

/// The links of platforms that are started, which are made anew.
fn links<'a>(
    platforms: impl Iterator<Item = &'a PlatformName>,
    passport: Option<&Passport>,
) -> BTreeMap<PlatformName, LinkView> {
    let last_error = |name| passport.and_then(|passport| passport.link_errors.get(name)).cloned();
    platforms.map(|name| (name.clone(), LinkView::anew(last_error(name)))).collect()
}

/// What the image before could not export is exported first.
fn exporter(config: &Config, left: Vec<Span>) -> Option<Exporter> {
    let endpoint = config.telemetry.otlp_endpoint.as_deref()?;
    Some(Exporter::start(endpoint, crate::version::version(), left))
}

/// The image that was proven last; what else nobody has claimed is closed.
fn last_of(inherited: Option<Inherited>, keeper: &mut Keeper) -> Option<File> {
    let mut inherited = inherited?;
    let proven = inherited.take_fd(&proven_fd()).map(File::from);
    keeper.forget(inherited.close_unclaimed());
    proven
}

/// Waits for the database. Returns what signals asked for meanwhile: a stop, else the latest; and where a damaged
/// database is that was set aside.
///
/// # Errors
/// [`DaemonError::Store`]; [`DaemonError::Stopped`] if the database does not open within a grace of a stop, because it
/// may hang for as long as its disk does.
async fn opened(
    opening: Opening,
    signals: &mut Signals,
    something_runs: bool,
) -> Result<(Option<Request>, Option<PathBuf>), DaemonError> {
    // What runs already is stopped in order, and that takes a database.
    let grace = if something_runs { STOP_GRACE } else { Duration::ZERO };
    let done = opening.done();
    tokio::pin!(done);
    let mut asked = None;
    let signal = loop {
        tokio::select! {
            opened = &mut done => return opened.map(|aside| (asked, aside)).map_err(DaemonError::Store),
            request = signals.next() => match request {
                Request::Stop(name) => break name,
                Request::Restart | Request::Reload => asked = Some(request),
            },
        }
    };
    tracing::info!(signal, "asked to stop before the database is open");
    match tokio::time::timeout(grace, done).await {
        Ok(opened) => opened.map(|aside| (Some(Request::Stop(signal)), aside)).map_err(DaemonError::Store),
        Err(_) => Err(DaemonError::Stopped { signal }),
    }
}

impl Daemon {
    /// What a signal asked for, and what came of the database, while nothing could be done about it.
    async fn heed(&mut self, early: Option<Request>, aside: Option<PathBuf>) {
        if let Some(aside) = aside {
            self.tell_damage(&aside).await;
        }
        if let Some(request) = early {
            self.handle(Event::Signal(request)).await;
        }
    }

    /// From here on the gateway serves.
    async fn begin(
        &mut self,
        passport: Option<Passport>,
        came_back: Option<String>,
        way_back: Option<WayBack>,
        recovered: Recovered,
    ) {
        fault::at(Point::Adopted);
        self.keeper.keep(lock_fd(), self.lock.as_fd());
        self.notifier.ready(&self.status_line());
        fault::at(Point::Ready);
        let ready = MonoNanos::now();
        if let Some(way_back) = way_back {
            self.keeper.watch(way_back);
        }
        match (passport, came_back) {
            (Some(passport), None) => self.arrived(passport, ready).await,
            (Some(passport), Some(reason)) => self.came_back(passport, reason).await,
            (None, came_back) => {
                tracing::info!(name: lifecycle::READY, version = self.image.id.version, "serving");
                mark_abandoned(&self.store).await;
                let (note, is_back) = (note(&self.store).await, came_back.is_some());
                self.read_note(note.clone(), came_back).await;
                let lost = self.recover(recovered).await;
                self.note_start(note.as_ref(), is_back, lost);
                raise_floor(&self.store).await;
            }
        }
        // A restart has no more to prove than that it serves.
        if self.probation.is_none() {
            self.keeper.take_down();
        }
        // Known after a handoff, unless that came before the first image had read itself.
        if self.image.id.sha256.is_empty() {
            self.hash_image();
        }
        // What was held back by the previous image.
        let mut effects = Vec::new();
        self.gateway.hold(false, &mut effects);
        self.carry_out(effects).await;
        self.held = false;
        self.replay().await;
        fault::at(Point::Unheld);
        for check in std::mem::take(&mut self.stash.checks) {
            self.check(check).await;
        }
        self.write_state_file();
    }

    /// Digests the image beside the loop.
    fn hash_image(&self) {
        let steps = self.steps.clone();
        tokio::task::spawn_blocking(move || {
            let digest = File::open("/proc/self/exe").and_then(|mut file| sha256_hex(&mut file));
            drop(steps.blocking_send(Step::Hashed(digest)));
        });
    }

    /// Stops an agent that the configuration no longer has.
    fn dismiss(&mut self, (name, mut outlet): (AgentName, Outlet<AgentHandle>)) {
        tracing::info!(agent = %name, "agent is no longer configured, stopping it");
        self.keeper.forget_agent(&name);
        outlet.put(AgentCommand::Stop);
        self.agents.insert(name, outlet);
    }
}

struct Ports {
    agents: mpsc::Sender<AgentEvent>,
    platforms: mpsc::Sender<PlatformEvent>,
    control: mpsc::Sender<ControlEvent>,
    steps: mpsc::Sender<Step>,
}

fn queues() -> (Ports, Events) {
    let (agents, agent_events) = mpsc::channel(EVENTS);
    let (platforms, platform_events) = mpsc::channel(EVENTS);
    let (control, control_events) = mpsc::channel(EVENTS);
    let (steps, step_events) = mpsc::channel(EVENTS);
    let events =
        Events { agents: agent_events, platforms: platform_events, control: control_events, steps: step_events };
    (Ports { agents, platforms, control, steps }, events)
}

fn take<T: serde::de::DeserializeOwned>(inherited: &mut Inherited, section: &'static str) -> Result<T, DaemonError> {
    inherited
        .sections
        .take(section)
        .and_then(|found| found.ok_or(AdoptError::Missing { section }))
        .map_err(DaemonError::Adopt)
}

pub(super) fn optional<T: serde::de::DeserializeOwned + Default>(
    inherited: Option<&mut Inherited>,
    section: &'static str,
) -> Result<T, DaemonError> {
    match inherited {
        Some(inherited) => Ok(inherited.sections.take(section).map_err(DaemonError::Adopt)?.unwrap_or_default()),
        None => Ok(T::default()),
    }
}

fn fd(inherited: &mut Inherited, name: &FdName) -> Result<OwnedFd, DaemonError> {
    inherited.take_fd(name).ok_or_else(|| missing_fd(name))
}

fn missing_fd(name: &FdName) -> DaemonError {
    DaemonError::AdoptPart { part: format!("fd '{name}'"), source: "it was not handed over".into() }
}

fn control(
    home: &Home,
    activated: Option<UnixListener>,
    mut inherited: Option<&mut Inherited>,
    events: mpsc::Sender<ControlEvent>,
    keeper: &mut Keeper,
) -> Result<ControlHandle, DaemonError> {
    let failed = |source| DaemonError::AdoptPart { part: "the control socket".into(), source };
    let entry: Option<ControlEntry> = match inherited.as_deref_mut() {
        Some(inherited) => inherited.sections.take(CONTROL).map_err(DaemonError::Adopt)?,
        None => None,
    };
    let kept = inherited.as_deref_mut().and_then(|inherited| inherited.take_fd(&listener_fd()));
    let (Some(entry), Some(inherited)) = (entry, inherited) else {
        let restored = kept.and_then(|fd| restored_control(fd, home.control_sock()));
        if restored.is_none() {
            keeper.forget([listener_fd()]);
        }
        let listener = match activated.or(restored) {
            Some(listener) => listener,
            None => bind_control(home.control_sock()).map_err(DaemonError::Listen)?,
        };
        keeper.store(listener_fd(), listener.as_fd());
        return server::spawn(listener, events).map_err(|source| failed(source.into()));
    };
    let listener = kept.ok_or_else(|| missing_fd(&listener_fd()))?;
    keeper.store(listener_fd(), listener.as_fd());
    let clients = entry
        .clients
        .into_iter()
        .map(|client| Ok((client, fd(inherited, &client_fd(client))?)))
        .collect::<Result<_, DaemonError>>()?;
    let snapshot = ControlSnapshot { state: entry.state, listener, clients };
    server::adopt(snapshot, events).map_err(|source| failed(source.into()))
}

/// All agents at a start.
struct TakenAgents {
    agents: Agents,
    removed: Removed,
    /// What the agents had that outlived a gateway.
    recovered: Recovered,
    /// Those whose processes outlived a gateway.
    recovered_names: BTreeSet<AgentName>,
}

type Agents = BTreeMap<AgentName, Outlet<AgentHandle>>;
/// Agents that run and are no longer configured.
type Removed = Vec<(AgentName, Outlet<AgentHandle>)>;

/// The configured agents, taken over where they run already, and those that run and are no longer configured.
fn agents(
    specs: Specs<'_>,
    mut inherited: Option<&mut Inherited>,
    events: &mpsc::Sender<AgentEvent>,
    keeper: &mut Keeper,
    is_recovery: bool,
) -> Result<TakenAgents, DaemonError> {
    let mut recovered = Recovered::default();
    let mut agents = Agents::new();
    let mut removed = Removed::new();
    let entries: Vec<AgentEntry> = match inherited.as_deref_mut() {
        Some(inherited) => inherited.sections.take(AGENTS).map_err(DaemonError::Adopt)?.unwrap_or_default(),
        None => Vec::new(),
    };
    for AgentEntry { name, state, running, turns } in entries {
        let Some(inherited) = inherited.as_deref_mut() else { break };
        let fds = if running {
            let [stdin, stdout, pidfd] = agent_fds(&name);
            Some(AgentFds {
                stdin: fd(inherited, &stdin)?,
                stdout: fd(inherited, &stdout)?,
                pidfd: fd(inherited, &pidfd)?,
                // An image before there were logs has none.
                log: inherited.take_fd(&agent_log_fd(&name)),
            })
        } else {
            None
        };
        if let Some(fds) = &fds {
            keeper.keep_agent(&name, fds);
        }
        let (configured, spec) = (specs.config.agents.get(&name), specs.of(&name));
        let snapshot = AgentSnapshot { state, fds, turns };
        let handle = agent::adopt(spec, snapshot, events.clone())
            .map_err(|source| DaemonError::AdoptPart { part: format!("agent '{name}'"), source: source.into() })?;
        let outlet = Outlet::new(handle);
        if configured.is_some() {
            agents.insert(name, outlet);
        } else {
            removed.push((name, outlet));
        }
    }
    if let Some(inherited) = inherited.filter(|_| is_recovery) {
        recovered = recovery::agents(specs, inherited, events, keeper);
        for (name, outlet) in std::mem::take(&mut recovered.agents) {
            if specs.config.agents.contains_key(&name) {
                agents.insert(name, outlet);
            } else {
                removed.push((name, outlet));
            }
        }
    }
    let recovered_names = if is_recovery { agents.keys().cloned().collect() } else { BTreeSet::new() };
    for name in specs.config.agents.keys() {
        if !agents.contains_key(name) {
            agents.insert(name.clone(), Outlet::new(agent::spawn(specs.of(name), events.clone())));
        }
    }
    Ok(TakenAgents { agents, removed, recovered, recovered_names })
}
