//! Making a [`Daemon`]: of nothing, or of what the previous image of this process left.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::advice::advice;
use super::outlet::Outlet;
use super::pulse::Pulse;
use super::releases::{mark_abandoned, raise_floor, sha256_hex};
use super::run::{Daemon, Event, Events, ticks};
use super::state::{
    AGENTS, AgentEntry, CONTROL, ControlEntry, GATEWAY, LOCAL, PASSPORT, PLATFORMS, Passport, PlatformEntry, SECTIONS,
    STASH, Stash, agent_fds, client_fd, listener_fd, lock_fd,
};
use super::swap::{FIRST, RunningImage, Step, Swap};
use super::{DaemonError, RunOptions, report};
use crate::agent::{self, AgentCommand, AgentEvent, AgentFds, AgentHandle, AgentSnapshot, AgentSpec};
use crate::chat::LinkState;
use crate::clock::{MonoNanos, UnixMillis};
use crate::config::{Config, Environment, Home};
use crate::control::proto::Image;
use crate::control::server::{self, ControlHandle};
use crate::control::{ControlEvent, ControlSnapshot};
use crate::gateway::{Access, Allowed, Gateway, GatewayState};
use crate::handoff::adopt::{AdoptError, EXEC_AT_VARIABLE, STATE_FD_VARIABLE};
use crate::handoff::{Inherited, Phase};
use crate::id::{AgentName, PlatformName};
use crate::platform::local::{Local, PLATFORM as LOCAL_PLATFORM};
use crate::platform::{PlatformEvent, PlatformHandle, telegram};
use crate::report::Chain;
use crate::service::listen::{activated_control, bind_control};
use crate::service::lock::Lock;
use crate::service::notify::Notifier;
use crate::service::state_file;
use crate::store::{Opening, Store};
use crate::sys::signals::{Request, Signals};
use crate::telemetry::{self, TelemetryOptions, lifecycle};

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
    /// The control socket, if systemd listens on it.
    activated: Option<UnixListener>,
    inherited: Option<(Inherited, Passport)>,
}

/// A home that is this process's own. From here on what goes wrong is written into its `gateway_state.json`.
pub(super) struct Claimed {
    options: RunOptions,
    environment: Environment,
    pub(super) home: Home,
    /// Shared, so that it is held until a failed start has been written down.
    pub(super) lock: Rc<Lock>,
    inherited: Option<(Inherited, Passport)>,
}

/// Finds the home and takes its lock, or takes it over from the previous image.
pub(super) fn claim(options: RunOptions) -> Result<Claimed, DaemonError> {
    let environment = environment(options.home.as_deref())?;
    let claimed = Inherited::claim(environment.text(STATE_FD_VARIABLE), SECTIONS);
    let logging = TelemetryOptions {
        format: options.log_format,
        filter: environment.text("HERMES_LOG").map(str::to_owned),
        journal_stream: environment.text("JOURNAL_STREAM").map(str::to_owned),
        no_color: environment.get("NO_COLOR").is_some(),
    };
    telemetry::init(&logging).map_err(DaemonError::Telemetry)?;
    let inherited = match claimed.map_err(DaemonError::Adopt)? {
        Some(mut inherited) => {
            let passport = take::<Passport>(&mut inherited, PASSPORT)?;
            if passport.timeline.phase() >= Phase::Exec {
                let source = "its handoff is over already".into();
                return Err(DaemonError::AdoptPart { part: "the passport".into(), source });
            }
            Some((inherited, arrived_at(passport, &environment, options.main_at)))
        }
        None => None,
    };
    let home = Home::resolve(&environment, options.config.as_deref()).map_err(DaemonError::Home)?;
    home.create().map_err(DaemonError::Home)?;
    let mut inherited = inherited;
    let lock = match inherited.as_mut().and_then(|(inherited, _)| inherited.take_fd(&lock_fd())) {
        Some(fd) => Lock::from_fd(fd),
        None => Lock::acquire(&home.lock()).map_err(DaemonError::Lock)?,
    };
    Ok(Claimed { options, environment, home, lock: Rc::new(lock), inherited })
}

/// Everything else that must happen before there are threads, and all that can fail for the operator's sake.
pub(super) fn ground(claimed: Claimed) -> Result<Ground, DaemonError> {
    let Claimed { options, environment, home, lock, inherited } = claimed;
    if inherited.is_none() {
        report::write_start(&home, state_file::Phase::Starting, None);
    }
    let config = Config::load(home.config_file(), &environment).map_err(DaemonError::Config)?;
    if inherited.is_none()
        && let Some(advice) = advice(&environment, std::process::id())
    {
        advice.log();
    }
    let notifier = Notifier::from_env(&environment);
    let activated = match &inherited {
        Some(_) => None,
        None => activated_control().map_err(DaemonError::Listen)?,
    };
    // The first thread.
    let (store, opening) = Store::open_beside(&home.state_db());
    Ok(Ground { options, home, config, lock, store, opening, notifier, activated, inherited })
}

/// The environment with the home that was asked for.
pub(super) fn environment(home: Option<&Path>) -> Result<Environment, DaemonError> {
    let environment = Environment::from_process();
    let Some(home) = home else { return Ok(environment) };
    let home = std::path::absolute(home).map_err(|source| DaemonError::System { what: "find the home", source })?;
    Ok(environment.with("HERMES_HOME", home))
}

fn arrived_at(mut passport: Passport, environment: &Environment, main_at: MonoNanos) -> Passport {
    let exec_at = environment.text(EXEC_AT_VARIABLE).and_then(|nanos| nanos.parse().ok()).map_or(main_at, MonoNanos);
    passport.timeline.enter_at(Phase::Exec, exec_at);
    passport.timeline.enter_at(Phase::Adopt, main_at);
    passport
}

/// Brings everything up, says READY=1, and tells whoever asked for the handoff.
pub(super) async fn boot(ground: Ground) -> Result<Daemon, DaemonError> {
    let Ground { options, home, config, lock, store, opening, notifier, activated, inherited } = ground;
    let system = |what| move |source| DaemonError::System { what, source };
    let mut signals = Signals::open().map_err(system("listen for signals"))?;
    let (mut inherited, passport) = inherited.unzip();
    // Nothing is started without a database. What runs already is taken over meanwhile.
    let mut opening = Some(opening);
    let mut early = None;
    if inherited.is_none() {
        early = opened(&mut opening, &mut signals, Duration::ZERO).await?;
    }
    let (ports, events) = queues();
    let control = control(&home, activated, inherited.as_mut(), ports.control)?;
    let (agents, removed) = agents(&config, inherited.as_mut(), &ports.agents)?;
    let platforms = platforms(&config, inherited.as_mut(), &store, &ports.platforms)?;
    let local = optional::<Local>(inherited.as_mut(), LOCAL)?;
    let state = optional::<GatewayState>(inherited.as_mut(), GATEWAY)?;
    let gateway = Gateway::restore(access(&config), agents.keys().cloned(), state);
    let stash = optional::<Stash>(inherited.as_mut(), STASH)?;
    if let Some(inherited) = inherited {
        inherited.close_unclaimed();
    }
    let image = running_image(passport.as_ref()).map_err(system("open the running image"))?;
    let now = UnixMillis::now();
    let ticks = ticks(&notifier);
    let links = platforms.keys().map(|name| (name.clone(), (LinkState::Connecting, now))).collect();
    let mut daemon = Daemon {
        options,
        home,
        config,
        store,
        lock,
        notifier,
        signals,
        image,
        generation: passport.as_ref().map_or(FIRST, |passport| passport.generation),
        process_started_at: passport.as_ref().map_or(now, |passport| passport.process_started_at),
        image_started_at: now,
        gateway,
        local,
        links,
        agents,
        platforms,
        control: Outlet::new(control),
        events,
        steps: ports.steps,
        swap: Swap::Idle,
        probation: None,
        books: None,
        // Nothing is handled before everything is there.
        held: true,
        stash,
        shown: Cell::new(None),
        ticks,
        pulse: Pulse::default(),
        checks: Vec::new(),
        held_steps: Vec::new(),
        stopping: None,
        died: None,
    };
    for outlet in removed {
        daemon.dismiss(outlet);
    }
    early = opened(&mut opening, &mut daemon.signals, STOP_GRACE).await?.or(early);
    daemon.begin(passport).await;
    if let Some(request) = early {
        daemon.handle(Event::Signal(request)).await;
    }
    Ok(daemon)
}

/// Waits for the database, unless that was done. Returns what signals asked for meanwhile: a stop, else the latest.
///
/// # Errors
/// [`DaemonError::Store`]; [`DaemonError::Stopped`] if the database does not open within `grace` of a stop, because it
/// may hang for as long as its disk does.
async fn opened(
    opening: &mut Option<Opening>,
    signals: &mut Signals,
    grace: Duration,
) -> Result<Option<Request>, DaemonError> {
    let Some(opening) = opening.take() else { return Ok(None) };
    let done = opening.done();
    tokio::pin!(done);
    let mut asked = None;
    let signal = loop {
        tokio::select! {
            opened = &mut done => return opened.map(|()| asked).map_err(DaemonError::Store),
            request = signals.next() => match request {
                Request::Stop(name) => break name,
                Request::Restart | Request::Reload => asked = Some(request),
            },
        }
    };
    tracing::info!(signal, "asked to stop before the database is open");
    match tokio::time::timeout(grace, done).await {
        Ok(opened) => opened.map(|()| Some(Request::Stop(signal))).map_err(DaemonError::Store),
        Err(_) => Err(DaemonError::Stopped { signal }),
    }
}

impl Daemon {
    /// From here on the gateway serves.
    async fn begin(&mut self, passport: Option<Passport>) {
        self.notifier.ready(&self.status_line());
        let ready = MonoNanos::now();
        match passport {
            Some(passport) => self.arrived(passport, ready).await,
            None => {
                tracing::info!(name: lifecycle::READY, version = self.image.id.version, "serving");
                self.recover().await;
                raise_floor(&self.store).await;
            }
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
        for check in std::mem::take(&mut self.stash.checks) {
            self.check(check).await;
        }
        self.write_state_file();
    }

    /// Takes up what a process that was killed left in the store.
    async fn recover(&mut self) {
        mark_abandoned(&self.store).await;
        // An update that had not proven itself when its process ended; which version runs now is another matter.
        if let Err(error) = self.store.close_handoffs("ended before it was committed").await {
            tracing::error!(error = %Chain(&error), "cannot record how a handoff ended");
        }
        let open = match self.store.open_turns().await {
            Ok(open) => open,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "cannot read the open turns");
                return;
            }
        };
        for turn in open {
            if let Ok(Some(row)) = self.store.session(&turn.inbound.conversation).await {
                self.gateway.learn(row);
            }
            let mut effects = Vec::new();
            self.gateway.recover(turn, &mut effects);
            self.carry_out(effects).await;
        }
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

fn optional<T: serde::de::DeserializeOwned + Default>(
    inherited: Option<&mut Inherited>,
    section: &'static str,
) -> Result<T, DaemonError> {
    match inherited {
        Some(inherited) => Ok(inherited.sections.take(section).map_err(DaemonError::Adopt)?.unwrap_or_default()),
        None => Ok(T::default()),
    }
}

fn fd(inherited: &mut Inherited, name: &crate::handoff::FdName) -> Result<OwnedFd, DaemonError> {
    inherited
        .take_fd(name)
        .ok_or_else(|| DaemonError::AdoptPart { part: format!("fd '{name}'"), source: "it was not handed over".into() })
}

fn control(
    home: &Home,
    activated: Option<UnixListener>,
    inherited: Option<&mut Inherited>,
    events: mpsc::Sender<ControlEvent>,
) -> Result<ControlHandle, DaemonError> {
    let failed = |source| DaemonError::AdoptPart { part: "the control socket".into(), source };
    let Some(inherited) = inherited else {
        let listener = match activated {
            Some(listener) => listener,
            None => bind_control(home.control_sock()).map_err(DaemonError::Listen)?,
        };
        return server::spawn(listener, events).map_err(|source| failed(source.into()));
    };
    let entry: ControlEntry = take(inherited, CONTROL)?;
    let listener = fd(inherited, &listener_fd())?;
    let clients = entry
        .clients
        .into_iter()
        .map(|client| Ok((client, fd(inherited, &client_fd(client))?)))
        .collect::<Result<_, DaemonError>>()?;
    let snapshot = ControlSnapshot { state: entry.state, listener, clients };
    server::adopt(snapshot, events).map_err(|source| failed(source.into()))
}

type Agents = BTreeMap<AgentName, Outlet<AgentHandle>>;
/// Agents that run and are no longer configured.
type Removed = Vec<(AgentName, Outlet<AgentHandle>)>;

/// The configured agents, taken over where they run already, and those that run and are no longer configured.
fn agents(
    config: &Config,
    mut inherited: Option<&mut Inherited>,
    events: &mpsc::Sender<AgentEvent>,
) -> Result<(Agents, Removed), DaemonError> {
    let mut agents = Agents::new();
    let mut removed = Removed::new();
    let entries: Vec<AgentEntry> = match inherited.as_deref_mut() {
        Some(inherited) => take(inherited, AGENTS)?,
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
            })
        } else {
            None
        };
        let configured = config.agents.get(&name);
        // One that is no longer configured is stopped and never started again. So it ends the turns that it has.
        let gone = || AgentSpec { name: name.clone(), command: Vec::new(), cwd: "/".into(), env: BTreeMap::new() };
        let spec = configured.map_or_else(gone, |agent| spec(&name, agent));
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
    for (name, agent) in &config.agents {
        if !agents.contains_key(name) {
            agents.insert(name.clone(), Outlet::new(agent::spawn(spec(name, agent), events.clone())));
        }
    }
    Ok((agents, removed))
}

fn spec(name: &AgentName, agent: &crate::config::AgentConfig) -> AgentSpec {
    AgentSpec { name: name.clone(), command: agent.command.clone(), cwd: agent.cwd.clone(), env: agent.env.clone() }
}

fn platforms(
    config: &Config,
    inherited: Option<&mut Inherited>,
    store: &Store,
    events: &mpsc::Sender<PlatformEvent>,
) -> Result<BTreeMap<PlatformName, Outlet<PlatformHandle>>, DaemonError> {
    let entries: Vec<PlatformEntry> = optional(inherited, PLATFORMS)?;
    let mut states: BTreeMap<_, _> = entries.into_iter().map(|entry| (entry.name, entry.state)).collect();
    let mut platforms = BTreeMap::new();
    if let Some(telegram) = &config.telegram {
        let name = PlatformName::from("telegram");
        let handle = telegram::spawn(telegram.clone(), states.remove(&name), store.clone(), events.clone());
        platforms.insert(name, Outlet::new(handle));
    }
    for platform in states.keys() {
        tracing::info!(%platform, "platform is no longer configured, its open deliveries are dropped");
    }
    Ok(platforms)
}

fn access(config: &Config) -> Access {
    let listed = |ids: &[String]| ids.iter().cloned().collect();
    let telegram = config.telegram.as_ref().map(|telegram| {
        let allowed = Allowed::Listed { talk: listed(&telegram.allow_from), admin: listed(&telegram.allow_admin_from) };
        (PlatformName::from("telegram"), allowed)
    });
    Access::new(telegram.into_iter().chain([(PlatformName::from(LOCAL_PLATFORM), Allowed::Everyone)]))
}

fn running_image(passport: Option<&Passport>) -> std::io::Result<RunningImage> {
    let file = File::open("/proc/self/exe")?;
    let version = crate::version::version().to_owned();
    let sha256 = passport.map_or_else(String::new, |passport| passport.to.sha256.clone());
    Ok(RunningImage { file, id: Image { version, sha256 } })
}
