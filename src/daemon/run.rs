//! The loop: one event at a time, and the orderly end.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::auto::Auto;
use super::boot::Claimed;
use super::disk::Disk;
use super::keeper::Keeper;
use super::kept::Kept;
use super::notices::STOPPED;
use super::outlet::Outlet;
use super::pages::Pages;
use super::probation::Probation;
use super::pulse::Pulse;
use super::state::{CheckFor, ControlRequest, Stash, platform_fd};
use super::status::LinkView;
use super::swap::{RunningImage, Step, Swap};
use super::{DaemonError, RunOptions, attachments, boot, report};
use crate::agent::{AgentCommand, AgentEvent, AgentHandle};
use crate::chat::LinkState;
use crate::clock::UnixMillis;
use crate::config::{Config, Home};
use crate::control::server::ControlHandle;
use crate::control::{ControlCommand, ControlEvent, proto};
use crate::gateway::{Effect, Gateway};
use crate::handoff::way_back;
use crate::id::{AgentName, Generation, PlatformName, TraceId, TurnId};
use crate::platform::local::Local;
use crate::platform::{PlatformCommand, PlatformEvent, PlatformHandle};
use crate::report::Chain;
use crate::service::lock::Lock;
use crate::service::notify::Notifier;
use crate::service::state_file::Phase;
use crate::service::unit::UnitFiles;
use crate::store::Store;
use crate::sys::dumpable;
use crate::sys::signals::{self, Signals};
use crate::telemetry::otlp::Exporter;
use crate::telemetry::{self, lifecycle};

/// The longest wait for agents at a stop, beyond what the platforms are given: stdin closed, SIGTERM, SIGKILL.
const AGENT_STOP: Duration = Duration::from_secs(15);

/// The longest wait for the database at a stop.
const STORE_STOP: Duration = Duration::from_secs(10);

/// The longest wait for the collector of spans at a stop.
const TRACES_STOP: Duration = Duration::from_secs(2);

/// How long blocking calls that nobody waits for any more may hold up the end of the process.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// Events that are handled together at the most, so that those of other kinds do not wait for long.
const BATCH: usize = 128;

/// Everything that runs.
pub(super) struct Daemon {
    pub(super) options: RunOptions,
    pub(super) home: Home,
    pub(super) config: Config,
    pub(super) store: Store,
    pub(super) lock: Rc<Lock>,
    pub(super) notifier: Notifier,
    pub(super) unit: UnitFiles,
    pub(super) signals: Signals,
    pub(super) image: RunningImage,
    pub(super) generation: Generation,
    pub(super) process_started_at: UnixMillis,
    pub(super) image_started_at: UnixMillis,
    pub(super) gateway: Gateway,
    pub(super) local: Local,
    /// What the store has for whoever comes next.
    pub(super) kept: Kept,
    pub(super) links: BTreeMap<PlatformName, LinkView>,
    pub(super) agents: BTreeMap<AgentName, Outlet<AgentHandle>>,
    pub(super) platforms: BTreeMap<PlatformName, Outlet<PlatformHandle>>,
    pub(super) control: Outlet<ControlHandle>,
    pub(super) events: Events,
    pub(super) steps: mpsc::Sender<Step>,
    pub(super) swap: Swap,
    pub(super) probation: Option<Probation>,
    /// The image that was proven last, while the one that runs is on probation.
    pub(super) proven: Option<File>,
    pub(super) keeper: Keeper,
    /// What the pages of the platform `web` are told.
    pub(super) pages: Pages,
    /// The agents that outlived a process that was killed.
    pub(super) recovered_agents: BTreeSet<AgentName>,
    /// The agents that have died, as long as what is kept of them may be needed.
    pub(super) dead_agents: BTreeSet<AgentName>,
    /// Which agent was given a turn, until its whole reply is in the store.
    pub(super) turn_agents: BTreeMap<TurnId, AgentName>,
    /// The record of the handoff that led here, while it is being written; yields its row.
    pub(super) books: Option<JoinHandle<Option<i64>>>,
    /// Whether everything is held: what arrives is stashed.
    pub(super) held: bool,
    /// Where spans go, if they are asked for.
    pub(super) exporter: Option<Exporter>,
    /// What other programs were told last, in short.
    pub(super) shown: Cell<Option<(Phase, usize)>>,
    /// What arrived while everything was held and was not handled yet.
    pub(super) stash: Stash,
    pub(super) ticks: Interval,
    /// The files that a restart would use.
    pub(super) disk: Disk,
    /// Whether the database goes on, too.
    pub(super) pulse: Pulse,
    /// Updates that nobody asks for.
    pub(super) auto: Auto,
    /// Looks for releases that are under way.
    pub(super) checks: Vec<CheckFor>,
    /// What tasks beside the loop reported while everything was held.
    pub(super) held_steps: Vec<Step>,
    /// Set once a stop was asked for; the loop ends.
    pub(super) stopping: Option<String>,
    /// A part that has ended although nobody asked it to. Without it the gateway would be deaf on one side, so it stops.
    pub(super) died: Option<String>,
}

/// Where events come from.
pub(super) struct Events {
    pub(super) agents: mpsc::Receiver<AgentEvent>,
    pub(super) platforms: mpsc::Receiver<PlatformEvent>,
    pub(super) control: mpsc::Receiver<ControlEvent>,
    pub(super) steps: mpsc::Receiver<Step>,
}

/// What can happen.
pub(super) enum Event {
    Signal(signals::Request),
    Agent(AgentEvent),
    Platform(PlatformEvent),
    Control(ControlEvent),
    Step(Step),
    Tick,
}

/// Runs the gateway until it is asked to stop. Replaces the image of the process any number of times meanwhile.
///
/// # Errors
/// [`DaemonError`] when it cannot start, or when a part of it has died. Once the home is claimed this is also in
/// `gateway_state.json`.
pub fn run(options: RunOptions) -> Result<(), DaemonError> {
    signals::take_over().map_err(|source| DaemonError::System { what: "set up signals", source })?;
    dumpable::forbid().map_err(|source| DaemonError::System { what: "keep its memory to itself", source })?;
    go_back_on_panic();
    let claimed = boot::claim(options).map_err(go_back)?;
    let (home, lock) = (claimed.home.clone(), Rc::clone(&claimed.lock));
    let outcome = match start_and_serve(claimed).map_err(go_back) {
        Err(DaemonError::Stopped { signal }) => {
            tracing::info!(name: lifecycle::STOPPED, why = signal, "stopped before it was up");
            report::write_start(&home, Phase::Stopped, Some(&DaemonError::Stopped { signal }));
            Ok(())
        }
        other => other,
    };
    match &outcome {
        // It did start; its end is written down already.
        Ok(()) | Err(DaemonError::PartDied { .. }) => {}
        Err(error) => report::write_start(&home, Phase::StartupFailed, Some(error)),
    }
    drop(lock);
    outcome
}

/// If there is a previous image to go back to, this does not return.
fn go_back(error: DaemonError) -> DaemonError {
    if matches!(error, DaemonError::Stopped { .. }) {
        way_back::give_up();
        return error;
    }
    drop(way_back::go(&Chain(&error).to_string()));
    error
}

/// A panic anywhere leads to the previous image while there is one, before it unwinds and closes what that one needs.
fn go_back_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        let said = panic.payload_as_str().unwrap_or("for no stated reason");
        drop(way_back::go(&format!("it panicked: {said}")));
    }));
}

fn start_and_serve(claimed: Claimed) -> Result<(), DaemonError> {
    let ground = boot::ground(claimed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| DaemonError::System { what: "start the event loop", source })?;
    let outcome = runtime.block_on(async {
        let mut daemon = boot::boot(ground).await?;
        let clearing = tokio::spawn(attachments::keep_cleared(
            daemon.store.clone(),
            daemon.home.attachments(),
            daemon.home.outgoing(),
        ));
        daemon.serve().await;
        clearing.abort();
        if let Some(part) = &daemon.died {
            // Before anything is closed.
            drop(way_back::go(&format!("{part} has died")));
        }
        daemon.wind_down().await;
        daemon.died.map_or(Ok(()), |part| Err(DaemonError::PartDied { part }))
    });
    // A look-up of a name that hangs would hold up the end for as long as it hangs.
    runtime.shutdown_timeout(LEFT_BEHIND);
    outcome
}

impl Daemon {
    async fn serve(&mut self) {
        while self.stopping.is_none() {
            match self.next_event().await {
                Event::Agent(event) => self.agent_events(event).await,
                Event::Platform(event) => self.platform_events(event).await,
                event => self.handle(event).await,
            }
            telemetry::follow(self.trace());
        }
    }

    /// The trace of the handoff under way, until what it led to is proven.
    fn trace(&self) -> Option<&TraceId> {
        match &self.swap {
            Swap::Preparing(pending) => Some(&pending.trace),
            Swap::Idle => self.probation.as_ref().and_then(Probation::trace),
        }
    }

    /// What is there together is recorded together.
    async fn agent_events(&mut self, first: AgentEvent) {
        let mut effects = Vec::new();
        self.hear_agent(first, &mut effects);
        for _ in 1..BATCH {
            let Ok(event) = self.events.agents.try_recv() else { break };
            self.hear_agent(event, &mut effects);
        }
        self.carry_out(effects).await;
        self.forget_dead();
    }

    async fn platform_events(&mut self, first: PlatformEvent) {
        let mut links = Vec::new();
        let mut hear = |stash: &mut Stash, event| match event {
            PlatformEvent::Inbound { turn, inbound } => stash.messages.push_back((turn, inbound)),
            event => links.push(event),
        };
        hear(&mut self.stash, first);
        for _ in 1..BATCH {
            let Ok(event) = self.events.platforms.try_recv() else { break };
            hear(&mut self.stash, event);
        }
        for event in links {
            self.platform_event(event).await;
        }
        self.replay().await;
    }

    /// Waits for the next event. Cancel-safe: an event is returned or stays where it is.
    ///
    /// What does not fit into a part's queue is kept here, and bounded by what makes it: messages wait while any
    /// command does, and agents' events wait while a command for a chat does. They do not wait for a command to an
    /// agent: its task may be waiting to tell an event before it takes another command, and nobody would go on. What
    /// agents' events make for agents is at most one prompt for each conversation.
    pub(super) async fn next_event(&mut self) -> Event {
        self.flush();
        let chats_take = !self.control.is_backlogged() && !self.platforms.values().any(Outlet::is_backlogged);
        let all_take = chats_take && !self.agents.values().any(Outlet::is_backlogged);
        tokio::select! {
            request = self.signals.next() => Event::Signal(request),
            Some(step) = self.events.steps.recv() => Event::Step(step),
            Some(event) = self.events.control.recv() => Event::Control(event),
            Some(event) = self.events.platforms.recv(), if all_take => Event::Platform(event),
            Some(event) = self.events.agents.recv(), if chats_take => Event::Agent(event),
            // Room in a full queue is looked for again soon.
            () = tokio::time::sleep(Duration::from_millis(2)), if !all_take => Event::Tick,
            _ = self.ticks.tick() => Event::Tick,
        }
    }

    pub(super) async fn handle(&mut self, event: Event) {
        match event {
            Event::Signal(request) => self.signal(request).await,
            Event::Step(step) => self.step(step).await,
            Event::Control(event) => self.control_event(event).await,
            Event::Platform(event) => self.platform_event(event).await,
            Event::Agent(event) => self.agent_event(event).await,
            Event::Tick => self.tick().await,
        }
    }

    async fn signal(&mut self, request: signals::Request) {
        match request {
            signals::Request::Stop(name) => {
                tracing::info!(signal = name, "asked to stop");
                self.stopping = Some(name.to_owned());
            }
            signals::Request::Restart => self.request_by_signal("SIGUSR1").await,
            signals::Request::Reload => self.request_by_signal("SIGHUP").await,
        }
    }

    pub(super) async fn agent_event(&mut self, event: AgentEvent) {
        let mut effects = Vec::new();
        self.hear_agent(event, &mut effects);
        self.carry_out(effects).await;
        self.forget_dead();
    }

    /// Of agents that have died what was kept is given up once none of their turns is open: those are looked for in the
    /// log by who comes next.
    fn forget_dead(&mut self) {
        if self.dead_agents.is_empty() {
            return;
        }
        let open: BTreeSet<AgentName> =
            self.gateway.agents().filter(|agent| !agent.turns.is_empty()).map(|agent| agent.name.clone()).collect();
        for agent in self.dead_agents.extract_if(.., |agent| !open.contains(agent)) {
            self.keeper.forget_agent(&agent);
        }
    }

    fn hear_agent(&mut self, event: AgentEvent, effects: &mut Vec<Effect>) {
        log_agent(&event);
        match &event {
            // One that was dismissed has stopped.
            AgentEvent::Stopped { agent } => {
                self.keeper.forget_agent(agent);
                self.agents.remove(agent);
            }
            AgentEvent::Died { agent, .. } | AgentEvent::StartFailed { agent, .. } => {
                self.dead_agents.insert(agent.clone());
            }
            AgentEvent::Started { agent, fds } => {
                self.dead_agents.remove(agent);
                self.keeper.forget_agent(agent);
                self.keeper.keep_agent(agent, fds);
            }
            _ => {}
        }
        self.gateway.agent_event(event, effects);
    }

    pub(super) async fn control_event(&mut self, event: ControlEvent) {
        match event {
            ControlEvent::Request { client, peer, id, method, params } => {
                let request = ControlRequest { client, peer, id, method, params };
                self.stash.requests.push_back(request);
                self.replay().await;
            }
            ControlEvent::Gone { client } => {
                self.local.gone(client);
                // Or it would be in a chat for good.
                self.stash.requests.retain(|r| r.client != client || r.method != proto::CHAT_OPEN);
            }
            // Of a freeze that was given up.
            ControlEvent::Frozen(_) | ControlEvent::FreezeFailed(_) | ControlEvent::Stopped => {}
        }
    }

    pub(super) async fn platform_event(&mut self, event: PlatformEvent) {
        match event {
            PlatformEvent::Inbound { turn, inbound } => {
                self.stash.messages.push_back((turn, inbound));
                self.replay().await;
            }
            PlatformEvent::Link { platform, state } => {
                tracing::info!(%platform, ?state, "link changed");
                let is_up = state == LinkState::Connected;
                self.links.entry(platform.clone()).or_insert_with(|| LinkView::anew(None)).becomes(state);
                self.write_state_file();
                if is_up {
                    self.tell_restart(&platform).await;
                }
            }
            PlatformEvent::Fetched { turn, files } => {
                let mut effects = Vec::new();
                self.gateway.fetched(turn, files, &mut effects);
                self.carry_out(effects).await;
            }
            PlatformEvent::Keep { platform, name, fd } => {
                let name = platform_fd(&platform, &name);
                match fd {
                    Some(fd) => self.keeper.renew(name, fd.as_fd()),
                    None => self.keeper.forget([name]),
                }
            }
            // Of a freeze that was given up.
            PlatformEvent::Drained { .. }
            | PlatformEvent::Frozen { .. }
            | PlatformEvent::FreezeFailed { .. }
            | PlatformEvent::Stopped { .. } => {}
        }
    }

    async fn tick(&mut self) {
        self.show_life();
        self.watch_parts();
        if self.shown.get() != Some(self.in_short()) {
            self.write_state_file();
        }
        self.look_again();
        self.watch_probation().await;
        self.watch_updates().await;
        let mut effects = Vec::new();
        self.gateway.expire(UnixMillis::now(), &mut effects);
        self.carry_out(effects).await;
    }

    /// Tells systemd that the gateway is alive, if it is.
    pub(super) fn show_life(&mut self) {
        if self.pulse.beat(&self.store) {
            self.notifier.watchdog_ping();
        }
    }

    /// A part's task ends by itself only when it panics, which tokio keeps to itself.
    fn watch_parts(&mut self) {
        let agent = self.agents.iter().find(|(name, outlet)| outlet.is_over() && self.config.agents.contains_key(name));
        let platform = self.platforms.iter().find(|(_, outlet)| outlet.is_over());
        let part = agent
            .map(|(name, _)| format!("agent '{name}'"))
            .or_else(|| platform.map(|(name, _)| format!("platform '{name}'")))
            .or_else(|| self.control.is_over().then(|| "the control socket".to_owned()))
            .or_else(|| self.store.is_over().then(|| "the database writer".to_owned()));
        if let Some(part) = part {
            tracing::error!(part, "a part of the gateway has died, so the gateway stops to be started anew");
            self.stopping = Some(format!("{part} has died"));
            self.died = Some(part);
        }
    }

    /// Stops everything in order, each wait with a deadline.
    async fn wind_down(&mut self) {
        let why = self.stopping.clone().unwrap_or_default();
        tracing::info!(why, "stopping");
        // An end that was asked for must not bring anyone back.
        self.keeper.take_down();
        self.notifier.stopping(&format!("stopping: {why}"));
        if self.died.is_none() {
            self.unit.note_stop();
        }
        self.fail(format!("the gateway stops ({why})")).await;
        self.write_state_file();
        // No tick does it any more.
        self.show_status(None);
        // Their stop would never be told.
        self.agents.retain(|_, outlet| !outlet.is_over());
        self.platforms.retain(|_, outlet| !outlet.is_over());
        let drain = self.config.gateway.restart_drain_timeout;
        self.notifier.extend_timeout(drain + 2 * AGENT_STOP + STORE_STOP + TRACES_STOP);
        let for_a_restart = self.died.is_none() && self.unit.stops_for_a_restart();
        if for_a_restart {
            self.leave_agents().await;
        } else {
            self.stop_agents().await;
        }
        for outlet in self.platforms.values_mut() {
            outlet.put(PlatformCommand::Stop { drain, for_a_restart });
        }
        self.control.put(ControlCommand::Stop { drain });
        self.held = true;
        self.await_stopped(Instant::now() + drain + AGENT_STOP).await;
        if tokio::time::timeout(STORE_STOP, self.last_writes()).await.is_err() {
            tracing::error!("the database writer does not answer; the last writes may be lost");
        }
        if let Some(exporter) = self.exporter.take() {
            exporter.flush(TRACES_STOP).await;
        }
        self.write_state_file_stopped(&why);
        report::remove_pid_file(&self.home);
        tracing::info!(name: lifecycle::STOPPED, why, "stopped");
    }

    /// Whoever is started next goes on with them.
    async fn leave_agents(&mut self) {
        tracing::info!("the unit is started again: the agents and their turns stay");
        // The tasks of frozen agents end without ending the processes.
        if let Err(error) = self.freeze_agents().await {
            tracing::warn!(error = %Chain(&error), "an agent may be ended with this process");
        }
        self.agents.clear();
    }

    /// Ends them, with a word to the chats whose turns run.
    async fn stop_agents(&mut self) {
        let mut effects = Vec::new();
        self.gateway.hold(true, &mut effects);
        self.gateway.stop(&mut effects);
        self.carry_out(effects).await;
        // What is kept elsewhere would keep their stdin open.
        self.keeper.forget_all();
        for outlet in self.agents.values_mut() {
            outlet.put(AgentCommand::Stop);
        }
    }

    async fn last_writes(&mut self) {
        self.close_books().await;
        // An orderly stop is no failure of a version that is being tried.
        if self.died.is_none() {
            if let Err(error) = self.store.set_meta(STOPPED, "yes".to_owned()).await {
                tracing::error!(error = %Chain(&error), "the next start will take this stop for a crash");
            }
            self.note_stopped().await;
            self.close_history("the gateway was stopped before it was committed").await;
        }
        if let Err(error) = self.store.flush().await {
            tracing::error!(error = %Chain(&error), "the last writes may be lost");
        }
    }

    async fn await_stopped(&mut self, deadline: Instant) {
        let mut control_open = !self.control.is_over();
        while control_open || !self.agents.is_empty() || !self.platforms.is_empty() {
            let Ok(event) = tokio::time::timeout_at(deadline, self.next_event()).await else {
                let agents: Vec<_> = self.agents.keys().map(AgentName::as_str).collect();
                let platforms: Vec<_> = self.platforms.keys().map(PlatformName::as_str).collect();
                tracing::warn!(?agents, ?platforms, control_open, "did not stop in time and is left behind");
                return;
            };
            match event {
                Event::Agent(AgentEvent::Stopped { agent }) => drop(self.agents.remove(&agent)),
                Event::Platform(PlatformEvent::Stopped { platform }) => drop(self.platforms.remove(&platform)),
                Event::Control(ControlEvent::Stopped) => control_open = false,
                Event::Platform(event) => self.platform_event(event).await,
                Event::Agent(event) => {
                    // Its turns were ended above; only what it says last is of interest.
                    log_agent(&event);
                }
                Event::Control(_) | Event::Signal(_) | Event::Step(_) | Event::Tick => {}
            }
        }
    }

    pub(super) fn flush(&mut self) {
        self.agents.values_mut().for_each(Outlet::flush);
        self.platforms.values_mut().for_each(Outlet::flush);
        self.control.flush();
    }
}

/// How often the loop shows that it is alive: twice per watchdog period, and at least once a second.
pub(super) fn ticks(notifier: &Notifier) -> Interval {
    let period = notifier.watchdog_interval().unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(1));
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

fn log_agent(event: &AgentEvent) {
    match event {
        AgentEvent::Ready { agent, pid, title } => tracing::info!(%agent, pid, title, "agent is ready"),
        AgentEvent::Died { agent, how, restart_in } => {
            let restart_in_ms = u64::try_from(restart_in.as_millis()).unwrap_or(u64::MAX);
            tracing::error!(name: lifecycle::AGENT_DIED, %agent, how, restart_in_ms, "agent died");
        }
        AgentEvent::StartFailed { agent, reason, restart_in } => {
            let restart_in_ms = u64::try_from(restart_in.as_millis()).unwrap_or(u64::MAX);
            tracing::error!(name: lifecycle::AGENT_DIED, %agent, reason, restart_in_ms, "agent does not start");
        }
        _ => {}
    }
}
