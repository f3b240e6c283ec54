//! Stopping all parts at a safe point, and letting them go on.
//!
//! Before that the platforms finish what they are sending ([`Daemon::drain`]), which may take as long as the network
//! does and stops nobody.
//!
//! The order is agents first, then platforms and the control socket: what an agent said before its marker has then
//! been given to the chats before theirs, so nothing is under way between two parts when the last marker is back.

use std::collections::BTreeSet;
use std::fs::File;
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

use super::run::{Daemon, Event};
use super::state::{
    AGENTS, AgentEntry, CONTROL, ControlEntry, GATEWAY, LOCAL, PLATFORMS, PlatformEntry, STASH, Stash, TRACES, VERSION,
    agent_fds, agent_log_fd, client_fd, listener_fd, lock_fd, platform_fd, proven_fd,
};
use super::swap::Swap;
use crate::agent::{AgentCommand, AgentEvent, AgentSnapshot};
use crate::control::{ControlCommand, ControlEvent, ControlSnapshot};
use crate::gateway::GatewayState;
use crate::handoff::{Phase, Registry, SealError};
use crate::id::{AgentName, PlatformName};
use crate::platform::{NamedFd, PlatformCommand, PlatformEvent};
use crate::sys::signals;
use crate::words::{Step, Wait};

/// The longest wait for a part to reach a safe point. They need microseconds.
const MARKER_DEADLINE: Duration = Duration::from_secs(5);

/// A drain that takes longer than this is told, with who holds it up.
const LONG_DRAIN: Duration = Duration::from_secs(2);

/// Who holds a drain up, and for how long.
#[derive(Debug)]
pub(super) struct Waiting {
    platforms: Vec<String>,
    since: Instant,
    /// How long sends in flight are given.
    drain: Duration,
    /// How long the platforms are given to say that they gave up.
    limit: Duration,
}

impl Waiting {
    /// For people.
    pub(super) fn wait(&self) -> Wait {
        let waited = self.since.elapsed();
        let left = self.drain.checked_sub(waited).unwrap_or_else(|| self.limit.saturating_sub(waited));
        let left = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Wait { platforms: self.platforms.clone(), waited: waited.as_secs(), left }
    }
}

/// Why not everything came to a stop. Whatever did is let go again by [`Daemon::thaw`].
#[derive(Debug, Error)]
pub(super) enum FreezeError {
    /// Parts that did not answer.
    #[error("{} did not come to a safe point within {} s", holders.join(", "), after.as_secs())]
    Stuck { holders: Vec<String>, after: Duration },
    /// An agent's state could not be taken, for example for want of fds.
    #[error("agent '{agent}' cannot be frozen: {reason}")]
    Agent { agent: AgentName, reason: String },
    /// A platform's state could not be taken, likewise.
    #[error("platform '{platform}' cannot be frozen: {reason}")]
    Platform { platform: PlatformName, reason: String },
    /// An fd could not be duplicated.
    #[error("the sockets of the control clients cannot be duplicated")]
    Duplicate(#[source] std::io::Error),
    /// The gateway is to stop, which wins.
    #[error("the gateway is to stop ({0})")]
    Stop(&'static str),
}

/// What the frozen parts gave.
pub(super) struct Frozen {
    agents: Vec<(AgentName, AgentSnapshot)>,
    platforms: Vec<FrozenPlatform>,
    control: ControlSnapshot,
}

struct FrozenPlatform {
    name: PlatformName,
    state: serde_json::Value,
    fds: Vec<NamedFd>,
}

impl Frozen {
    pub(super) fn agents_running(&self) -> usize {
        self.agents.iter().filter(|(_, snapshot)| snapshot.fds.is_some()).count()
    }

    pub(super) fn turns(&self) -> usize {
        self.agents.iter().map(|(_, snapshot)| snapshot.turns).sum()
    }
}

impl Daemon {
    /// Lets the platforms finish what they are sending, no longer than `drain`. Meanwhile everything else goes on, and
    /// who holds it up for long is told.
    pub(super) async fn drain(&mut self, drain: Duration) -> Result<(), FreezeError> {
        let mut waiting: BTreeSet<PlatformName> = self.platforms.keys().cloned().collect();
        for outlet in self.platforms.values_mut() {
            outlet.put(PlatformCommand::Drain { drain });
        }
        let limit = drain + MARKER_DEADLINE;
        let since = Instant::now();
        let (mut told, mut forced) = (false, drain.is_zero());
        while !waiting.is_empty() {
            let holders = || waiting.iter().map(|platform| format!("platform '{platform}'")).collect();
            let event = self.event_until(since + limit, limit, holders);
            let event = if told {
                event.await?
            } else if let Ok(event) = tokio::time::timeout_at(since + LONG_DRAIN, event).await {
                event?
            } else {
                told = true;
                let platforms = waiting.iter().map(PlatformName::to_string).collect();
                self.tell_waiting(Waiting { platforms, since, drain, limit }).await;
                continue;
            };
            match event {
                Event::Platform(PlatformEvent::Drained { platform }) => {
                    waiting.remove(&platform);
                    let left: Vec<_> = waiting.iter().map(PlatformName::to_string).collect();
                    if let Some(waiting) = self.waiting() {
                        waiting.platforms = left;
                    }
                }
                other => Box::pin(self.handle(other)).await,
            }
            // Somebody asked not to wait any more.
            if !forced && matches!(&self.swap, Swap::Preparing(pending) if pending.force) {
                forced = true;
                let left = self.platforms.iter_mut().filter(|(platform, _)| waiting.contains(*platform));
                left.for_each(|(_, outlet)| outlet.put(PlatformCommand::Drain { drain: Duration::ZERO }));
            }
        }
        if let Swap::Preparing(pending) = &mut self.swap {
            pending.waiting = None;
        }
        Ok(())
    }

    fn waiting(&mut self) -> Option<&mut Waiting> {
        match &mut self.swap {
            Swap::Preparing(pending) => pending.waiting.as_mut(),
            Swap::Idle => None,
        }
    }

    /// In the journal, to whoever asked, and until the drain ends in the status.
    async fn tell_waiting(&mut self, waiting: Waiting) {
        let wait = waiting.wait();
        tracing::warn!(holders = wait.platforms.join(", "), "the handoff waits for sends in flight: {wait}");
        if let Swap::Preparing(pending) = &mut self.swap {
            pending.waiting = Some(waiting);
        }
        self.notifier.status(&self.status_line());
        self.tell_progress(Phase::Drain.as_str(), &Step::Waiting(wait), None).await;
    }

    /// Brings every part to a safe point. From here to [`Daemon::thaw`] or execve nothing is acted upon.
    ///
    /// A part that cannot be frozen does not end this before the others have answered: an answer that came later would
    /// be taken for that to the next freeze.
    pub(super) async fn freeze(&mut self) -> Result<Frozen, FreezeError> {
        self.gateway.hold(true, &mut Vec::new());
        self.held = true;
        let agents = self.freeze_agents().await?;
        let (platforms, control) = self.freeze_chats().await?;
        Ok(Frozen { agents, platforms, control })
    }

    pub(super) async fn freeze_agents(&mut self) -> Result<Vec<(AgentName, AgentSnapshot)>, FreezeError> {
        let mut waiting: BTreeSet<AgentName> = self.agents.keys().cloned().collect();
        for outlet in self.agents.values_mut() {
            outlet.put(AgentCommand::Freeze);
        }
        let mut frozen = Ok(Vec::new());
        let deadline = Instant::now() + MARKER_DEADLINE;
        while !waiting.is_empty() {
            let holders = || waiting.iter().map(|agent| format!("agent '{agent}'")).collect();
            match self.event_until(deadline, MARKER_DEADLINE, holders).await? {
                Event::Agent(AgentEvent::Frozen { agent, snapshot }) => {
                    waiting.remove(&agent);
                    if let Ok(frozen) = &mut frozen {
                        frozen.push((agent, snapshot));
                    }
                }
                Event::Agent(AgentEvent::FreezeFailed { agent, reason }) => {
                    waiting.remove(&agent);
                    frozen = Err(FreezeError::Agent { agent, reason });
                }
                other => {
                    if let Event::Agent(AgentEvent::Stopped { agent }) = &other {
                        waiting.remove(agent);
                    }
                    self.handle_held(other).await;
                }
            }
        }
        frozen
    }

    async fn freeze_chats(&mut self) -> Result<(Vec<FrozenPlatform>, ControlSnapshot), FreezeError> {
        let mut waiting: BTreeSet<PlatformName> = self.platforms.keys().cloned().collect();
        for outlet in self.platforms.values_mut() {
            // What could be waited for was waited for by `drain`, while everything else went on.
            outlet.put(PlatformCommand::Freeze { drain: Duration::ZERO });
        }
        self.control.put(ControlCommand::Freeze);
        let (mut platforms, mut control) = (Ok(Vec::new()), None);
        let deadline = Instant::now() + MARKER_DEADLINE;
        loop {
            if waiting.is_empty()
                && let Some(control) = control
            {
                return Ok((platforms?, control?));
            }
            let holders = || {
                let control = control.is_none().then(|| "the control socket".to_owned());
                waiting.iter().map(|platform| format!("platform '{platform}'")).chain(control).collect()
            };
            match self.event_until(deadline, MARKER_DEADLINE, holders).await? {
                Event::Platform(PlatformEvent::Frozen { platform, state, fds }) => {
                    waiting.remove(&platform);
                    if let Ok(platforms) = &mut platforms {
                        platforms.push(FrozenPlatform { name: platform, state, fds });
                    }
                }
                Event::Platform(PlatformEvent::FreezeFailed { platform, reason }) => {
                    waiting.remove(&platform);
                    platforms = Err(FreezeError::Platform { platform, reason });
                }
                Event::Control(ControlEvent::Frozen(snapshot)) => control = Some(Ok(snapshot)),
                Event::Control(ControlEvent::FreezeFailed(source)) => {
                    control = Some(Err(FreezeError::Duplicate(source)));
                }
                other => self.handle_held(other).await,
            }
        }
    }

    /// What happens while parts come to their safe points. Nothing new is begun.
    async fn handle_held(&mut self, event: Event) {
        match event {
            Event::Agent(event) => self.agent_event(event).await,
            Event::Platform(event) => self.platform_event(event).await,
            Event::Control(event) => self.control_event(event).await,
            Event::Step(step) => self.held_steps.push(step),
            Event::Signal(signal) => tracing::warn!(?signal, "a handoff is under way already"),
            Event::Tick => self.show_life(),
        }
    }

    /// Lets every part go on, and handles what arrived meanwhile.
    pub(super) async fn thaw(&mut self) {
        for outlet in self.agents.values_mut() {
            outlet.put(AgentCommand::Thaw);
        }
        for outlet in self.platforms.values_mut() {
            outlet.put(PlatformCommand::Thaw);
        }
        self.control.put(ControlCommand::Thaw);
        let mut effects = Vec::new();
        self.gateway.hold(false, &mut effects);
        self.carry_out(effects).await;
        self.held = false;
        self.replay().await;
        for step in std::mem::take(&mut self.held_steps) {
            Box::pin(self.step(step)).await;
        }
    }

    /// Handles what is stashed, unless everything is held. What is handled may itself ask for a handoff, which holds
    /// everything for a moment and comes here again: so what is handled is taken out first, and what comes meanwhile goes
    /// behind what is there.
    pub(super) async fn replay(&mut self) {
        while !self.held {
            if !self.stash.messages.is_empty() {
                let messages = self.stash.messages.drain(..).collect();
                Box::pin(self.messages(messages)).await;
            } else if let Some(request) = self.stash.requests.pop_front() {
                Box::pin(self.control_request(request)).await;
            } else {
                return;
            }
        }
    }

    /// Puts everything but the passport into a registry.
    pub(super) fn register(&mut self, frozen: Frozen) -> Result<Registry, SealError> {
        let mut registry = Registry::default();
        registry.put_section(GATEWAY, GatewayState::VERSION, &self.gateway.state())?;
        let mut agents = Vec::new();
        for (name, AgentSnapshot { state, fds, turns }) in frozen.agents {
            let running = fds.is_some();
            if let Some(fds) = fds {
                if let Some(log) = fds.log {
                    registry.put_fd(agent_log_fd(&name), log);
                }
                for (fd_name, fd) in agent_fds(&name).into_iter().zip([fds.stdin, fds.stdout, fds.pidfd]) {
                    registry.put_fd(fd_name, fd);
                }
            }
            agents.push(AgentEntry { name, state, running, turns });
        }
        registry.put_section(AGENTS, AgentSnapshot::VERSION, &agents)?;
        let ControlSnapshot { state, listener, clients } = frozen.control;
        let ids = clients.iter().map(|(client, _)| *client).collect();
        registry.put_fd(listener_fd(), listener);
        for (client, fd) in clients {
            registry.put_fd(client_fd(client), fd);
        }
        registry.put_section(CONTROL, ControlSnapshot::VERSION, &ControlEntry { state, clients: ids })?;
        let mut platforms = Vec::new();
        for FrozenPlatform { name, state, fds } in frozen.platforms {
            let names = fds.iter().map(|(what, _)| what.clone()).collect();
            for (what, fd) in fds {
                registry.put_fd(platform_fd(&name, &what), fd);
            }
            platforms.push(PlatformEntry { name, state, fds: names });
        }
        registry.put_section(PLATFORMS, VERSION, &platforms)?;
        registry.put_section(LOCAL, VERSION, &self.local)?;
        // A look for releases that is under way is made again by the next image; by this one it goes on.
        let stash = Stash { checks: self.checks.clone(), ..self.stash.clone() };
        registry.put_section(STASH, VERSION, &stash)?;
        if let Some(exporter) = &self.exporter {
            registry.put_section(TRACES, VERSION, &exporter.waiting())?;
        }
        // One that is on probation itself is no image to go back to for good.
        let proven = match (&self.probation, &self.proven) {
            (None, _) => Some(self.image.file.try_clone()),
            (Some(_), proven) => proven.as_ref().map(File::try_clone),
        };
        if let Some(proven) = proven {
            let proven = proven.map_err(|source| SealError::Duplicate { name: proven_fd(), source })?;
            registry.put_fd(proven_fd(), proven.into());
        }
        let lock = self.lock.as_fd().try_clone_to_owned();
        registry.put_fd(lock_fd(), lock.map_err(|source| SealError::Duplicate { name: lock_fd(), source })?);
        Ok(registry)
    }

    async fn event_until(
        &mut self,
        deadline: Instant,
        limit: Duration,
        holders: impl FnOnce() -> Vec<String>,
    ) -> Result<Event, FreezeError> {
        match tokio::time::timeout_at(deadline, self.next_event()).await {
            Ok(Event::Signal(signals::Request::Stop(name))) => {
                self.stopping = Some(name.to_owned());
                Err(FreezeError::Stop(name))
            }
            Ok(event) => Ok(event),
            Err(_) => Err(FreezeError::Stuck { holders: holders(), after: limit }),
        }
    }
}
