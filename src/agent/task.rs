//! The task that drives one agent: it moves bytes between the pipes and the [`Connection`], and processes between
//! their births and deaths.
//!
//! **Invariants**
//! - Between two awaits everything is in [`Task`]: that is the safe point at which it can be frozen.
//! - Events are sent before the next command is taken, so a freeze finds none waiting.
//! - The output of a process is read to its end before its death is told.

use std::time::Duration;

use tokio::sync::mpsc;

use super::connection::Connection;
use super::handle::{AgentHandle, Mailbox};
use super::limits::{Backoff, after};
use super::log::AgentLog;
use super::process::{self, Process};
use super::running::{Ending, EndingStep, Life, Running};
use super::snapshot::{self, AdoptError};
use super::{AgentCommand, AgentEvent, AgentFds, AgentSnapshot, AgentSpec, Limits, RecoveredTurn, TurnUpdate};
use crate::clock::MonoNanos;
use crate::fault::{self, Point};
use crate::jsonrpc::LineBuffer;
use crate::report::Chain;

/// Starts the agent and the task that drives it, with the default limits. Needs a tokio runtime.
pub fn spawn(spec: AgentSpec, events: mpsc::Sender<AgentEvent>) -> AgentHandle {
    spawn_with(spec, Limits::default(), events)
}

/// As [`spawn`], with other limits.
pub fn spawn_with(spec: AgentSpec, limits: Limits, events: mpsc::Sender<AgentEvent>) -> AgentHandle {
    let connection = Connection::new(spec.name.clone(), limits);
    let life = Life::Down { start_at: MonoNanos::now() };
    run(spec, limits, events, connection, life, Backoff::default(), AgentLog::create())
}

/// Goes on with an agent whose gateway was killed, from its fds and its recovery log, with the default limits. Returns
/// the turns that it had and that were not settled; what happens to them from here on is told as events, and how one
/// ended that had ended is not told again. Needs a tokio runtime.
///
/// # Errors
/// When there is no log, or it does not hold together with the fds; they are closed then, which ends the agent.
pub fn recover(
    spec: AgentSpec,
    mut fds: AgentFds,
    events: mpsc::Sender<AgentEvent>,
) -> Result<(AgentHandle, Vec<RecoveredTurn>), AdoptError> {
    let limits = Limits::default();
    let log = AgentLog::open(fds.log.take());
    let folded = log.folded().map_err(AdoptError::Log)?;
    let state = folded.state.as_deref().ok_or(AdoptError::LogEmpty)?;
    let state = serde_json::from_str(state.get()).map_err(AdoptError::State)?;
    let snapshot = AgentSnapshot { state, fds: Some(fds), turns: 0 };
    let (mut connection, backoff, mut life) = snapshot::restore(snapshot, &limits)?;
    if let (Life::Up(running), Some(partial)) = (&mut life, &folded.partial) {
        running.lines = LineBuffer::with_partial(limits.line_bytes_max, partial.clone());
    }
    connection.adopted(spec.name.clone(), limits);
    if folded.writing {
        connection.write_is_doubtful();
    }
    let mut turns = folded.turns();
    // One in which nothing was said yet has no other record than the state.
    for turn in connection.open_turns() {
        if turns.iter().all(|known| known.turn != turn) {
            turns.push(RecoveredTurn { turn, text: String::new(), outcome: None });
        }
    }
    Ok((run(spec, limits, events, connection, life, backoff, log), turns))
}

/// Goes on with an agent where the previous image froze it, with the default limits. Tells [`AgentEvent::Ready`] again
/// if the agent was ready. `spec` counts for the next start of the process. Needs a tokio runtime.
///
/// # Errors
/// When the snapshot does not hold together; its fds are closed then, which ends the agent.
pub fn adopt(
    spec: AgentSpec,
    snapshot: AgentSnapshot,
    events: mpsc::Sender<AgentEvent>,
) -> Result<AgentHandle, AdoptError> {
    adopt_with(spec, Limits::default(), snapshot, events)
}

/// As [`adopt`], with other limits.
///
/// # Errors
/// As [`adopt`].
pub fn adopt_with(
    spec: AgentSpec,
    limits: Limits,
    mut snapshot: AgentSnapshot,
    events: mpsc::Sender<AgentEvent>,
) -> Result<AgentHandle, AdoptError> {
    let log = AgentLog::open(snapshot.fds.as_mut().and_then(|fds| fds.log.take()));
    let (mut connection, backoff, life) = snapshot::restore(snapshot, &limits)?;
    connection.adopted(spec.name.clone(), limits);
    Ok(run(spec, limits, events, connection, life, backoff, log))
}

fn run(
    spec: AgentSpec,
    limits: Limits,
    events: mpsc::Sender<AgentEvent>,
    connection: Connection,
    life: Life,
    backoff: Backoff,
    log: AgentLog,
) -> AgentHandle {
    let (handle, mailbox) = AgentHandle::new(spec.name.clone());
    // Whoever carried it wrote no log, or another one.
    let task = Task {
        spec,
        limits,
        events,
        mailbox,
        connection,
        life,
        backoff,
        log,
        changed: true,
        was_read: false,
        logged: (0, 0),
    };
    // Nothing waits for the task: it tells its end as an event, and an execve replaces it.
    drop(tokio::spawn(task.run()));
    handle
}

/// What the task has woken up for.
enum Wake {
    /// `None`: nobody is left who could command.
    Command(Option<AgentCommand>),
    Readable,
    Writable,
    Exited,
    Deadline,
}

/// Whether the task goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    Continue,
    End,
}

struct Task {
    spec: AgentSpec,
    limits: Limits,
    events: mpsc::Sender<AgentEvent>,
    mailbox: Mailbox,
    connection: Connection,
    life: Life,
    backoff: Backoff,
    log: AgentLog,
    /// More has changed than what was said, since the log was written.
    changed: bool,
    /// Something was read since.
    was_read: bool,
    /// How much of a line that is not whole the log has, and how many were taken out then.
    logged: (usize, u64),
}

impl Task {
    async fn run(mut self) {
        let mut flow = Flow::Continue;
        // The events are told before the task ends, too.
        while self.tell().await == Flow::Continue && flow == Flow::Continue {
            let now = MonoNanos::now();
            flow = match &self.life {
                Life::Down { start_at } if *start_at <= now => self.start(now),
                Life::Up(running) if running.is_over(now) => self.finish(now),
                Life::Down { .. } | Life::Up(_) => {
                    let wake = self.wake(now).await;
                    self.handle(wake).await
                }
            };
        }
    }

    /// Tells all events. Ends if nobody listens any more.
    async fn tell(&mut self) -> Flow {
        self.record();
        while let Some(event) = self.connection.next_event() {
            if self.events.send(event).await.is_err() {
                return Flow::End;
            }
        }
        Flow::Continue
    }

    /// Writes down what has happened, before anyone is told.
    fn record(&mut self) {
        let mut texts = Vec::new();
        for event in self.connection.events() {
            match event {
                AgentEvent::Update { turn, update: TurnUpdate::Text(text) } => texts.push((*turn, text.clone())),
                AgentEvent::Update { update: TurnUpdate::Thought(_), .. } => {}
                AgentEvent::TurnEnded { turn, outcome } => {
                    self.log.ended(*turn, outcome);
                    self.changed = true;
                }
                _ => self.changed = true,
            }
        }
        let (partial, taken) = match &self.life {
            Life::Up(running) => (running.lines.partial(), running.taken),
            Life::Down { .. } => (&[][..], 0),
        };
        let was_read = std::mem::take(&mut self.was_read);
        let (logged, logged_taken) = std::mem::replace(&mut self.logged, (partial.len(), taken));
        if was_read && taken == logged_taken && logged <= partial.len() && texts.is_empty() && !self.changed {
            self.log.more(&partial[logged..]);
        } else if !texts.is_empty() || (was_read && !self.changed) {
            self.log.read(partial, texts);
        }
        if std::mem::take(&mut self.changed) {
            self.log.state(&snapshot::raw(&self.connection, self.backoff, &self.life));
        }
    }

    /// Waits until there is something to do. Takes nothing but a command, so nothing is lost if it is dropped.
    async fn wake(&mut self, now: MonoNanos) -> Wake {
        let deadline = self.next_deadline();
        let timer = async {
            match deadline {
                Some(deadline) => tokio::time::sleep(deadline.since(now)).await,
                None => std::future::pending().await,
            }
        };
        let commands = &mut self.mailbox.commands;
        let running = match &self.life {
            Life::Down { .. } => {
                return tokio::select! {
                    command = commands.recv() => Wake::Command(command),
                    () = timer => Wake::Deadline,
                };
            }
            Life::Up(running) => running,
        };
        tokio::select! {
            command = commands.recv(), if !running.is_stopping() => Wake::Command(command),
            _ = running.process.stdout.readable(), if !running.output_over => Wake::Readable,
            () = running.process.writable(), if running.ending.is_none() && !self.connection.outgoing.is_empty() => {
                Wake::Writable
            }
            () = running.process.exited(), if running.drain_until.is_none() => Wake::Exited,
            () = timer => Wake::Deadline,
        }
    }

    fn next_deadline(&self) -> Option<MonoNanos> {
        let of_life = match &self.life {
            Life::Down { start_at } => Some(*start_at),
            Life::Up(running) => running.next_deadline(),
        };
        of_life.into_iter().chain(self.connection.next_deadline()).min()
    }

    async fn handle(&mut self, wake: Wake) -> Flow {
        let now = MonoNanos::now();
        match wake {
            Wake::Readable => self.was_read = true,
            _ => self.changed = true,
        }
        match wake {
            Wake::Command(Some(AgentCommand::Freeze)) => return self.freeze().await,
            Wake::Command(command) => return self.command(now, command),
            Wake::Deadline => self.connection.expire(now),
            Wake::Readable | Wake::Writable | Wake::Exited => {}
        }
        if let Life::Up(running) = &mut self.life {
            match wake {
                Wake::Readable => running.read(now, &self.limits, &mut self.connection),
                Wake::Writable => {
                    self.log.writing();
                    running.write(now, &self.limits, &mut self.connection);
                }
                Wake::Exited => running.drain_until = Some(after(now, self.limits.drain_timeout)),
                Wake::Deadline | Wake::Command(_) => {}
            }
            running.advance_ending(now, &self.limits);
            if running.is_leaving() {
                self.connection.leave();
            }
        }
        self.heed_fault(now);
        Flow::Continue
    }

    fn command(&mut self, now: MonoNanos, command: Option<AgentCommand>) -> Flow {
        match command {
            Some(AgentCommand::Prompt { turn, session, text }) => {
                self.connection.prompt(now, turn, session, text);
                fault::at(Point::PromptSent);
            }
            Some(AgentCommand::Cancel { turn }) => self.connection.cancel(now, turn),
            Some(AgentCommand::Permission { request, option }) => self.connection.answer(request, option),
            Some(AgentCommand::Settled { turn }) => self.log.settled(turn),
            // A freeze is taken by the caller, and a thaw does not come this way.
            Some(AgentCommand::Freeze | AgentCommand::Thaw) => {}
            Some(AgentCommand::Stop) | None => return self.stop(now),
        }
        self.heed_fault(now);
        Flow::Continue
    }

    fn stop(&mut self, now: MonoNanos) -> Flow {
        match &mut self.life {
            Life::Down { .. } => {
                self.stopped();
                Flow::End
            }
            Life::Up(running) => {
                running.stop(after(now, self.limits.stop_grace));
                Flow::Continue
            }
        }
    }

    fn stopped(&mut self) {
        self.connection.close("the agent was stopped");
        self.connection.push_event(AgentEvent::Stopped { agent: self.spec.name.clone() });
    }

    /// Ends the process if it has broken the rules.
    fn heed_fault(&mut self, now: MonoNanos) {
        if let Some(fault) = self.connection.take_fault()
            && let Life::Up(running) = &mut self.life
        {
            self.connection.leave();
            running.end(EndingStep::Terminate, now, fault);
            running.advance_ending(now, &self.limits);
        }
    }

    /// Tells the state and touches nothing until it is thawed or replaced.
    async fn freeze(&mut self) -> Flow {
        let agent = self.spec.name.clone();
        let answer = match snapshot::take(&self.connection, self.backoff, &self.life, &self.log) {
            Ok(snapshot) => AgentEvent::Frozen { agent, snapshot },
            // A snapshot without fds would end the agent.
            Err(error) => AgentEvent::FreezeFailed { agent, reason: Chain(&error).to_string() },
        };
        if self.events.send(answer).await.is_err() {
            return Flow::End;
        }
        if self.mailbox.thaw().await { Flow::Continue } else { Flow::End }
    }

    fn start(&mut self, now: MonoNanos) -> Flow {
        match Process::spawn(&self.spec) {
            Ok(process) => {
                tracing::info!(agent = %self.spec.name, pid = process.pid(), "agent started");
                self.connection.start(now, process.pid(), &self.spec);
                self.changed = true;
                self.tell_started(&process);
                self.life = Life::Up(Box::new(Running::new(process, now, &self.limits)));
            }
            Err(error) => {
                let reason = Chain(&error).to_string();
                self.fail_start(now, Duration::ZERO, reason);
            }
        }
        Flow::Continue
    }

    fn tell_started(&mut self, process: &Process) {
        let agent = self.spec.name.clone();
        let fds = process.duplicate().and_then(|fds| Ok(fds.zip(Some(self.log.fd()?))));
        match fds {
            Ok(Some((fds, log))) => {
                let fds = AgentFds { log, ..fds };
                self.connection.push_event(AgentEvent::Started { agent, fds });
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%agent, %error, "the agent would be lost with this process"),
        }
    }

    /// The process is gone and its output is read: tells so and plans the next.
    fn finish(&mut self, now: MonoNanos) -> Flow {
        let Life::Up(running) = std::mem::replace(&mut self.life, Life::Down { start_at: now }) else {
            return Flow::Continue;
        };
        let lived = now.since(running.started);
        let how = process::describe(running.process.reap());
        if running.ending.as_ref().is_some_and(Ending::was_asked_for) {
            self.stopped();
            return Flow::End;
        }
        let how = match running.ending.and_then(Ending::into_fault) {
            Some(fault) => format!("{how}; the gateway ended it because {fault}"),
            None => how,
        };
        if !self.connection.is_ready() {
            self.fail_start(now, lived, format!("it ended before it answered initialize: {how}"));
            return Flow::Continue;
        }
        self.connection.break_off(&format!("the agent ended before the turn did: {how}"));
        let restart_in = self.plan_restart(now, lived);
        tracing::warn!(agent = %self.spec.name, how, ?restart_in, "agent died");
        self.connection.push_event(AgentEvent::Died { agent: self.spec.name.clone(), how, restart_in });
        Flow::Continue
    }

    fn fail_start(&mut self, now: MonoNanos, lived: Duration, reason: String) {
        self.connection.close(&format!("the agent could not be started: {reason}"));
        let restart_in = self.plan_restart(now, lived);
        tracing::warn!(agent = %self.spec.name, reason, ?restart_in, "agent did not start");
        self.connection.push_event(AgentEvent::StartFailed { agent: self.spec.name.clone(), reason, restart_in });
    }

    fn plan_restart(&mut self, now: MonoNanos, lived: Duration) -> Duration {
        let wait = self.backoff.next(lived, &self.limits);
        self.life = Life::Down { start_at: after(now, wait) };
        wait
    }
}
