//! The task that drives one agent: it moves bytes between the pipes and the [`Connection`], and processes between
//! their births and deaths.
//!
//! **Invariants**
//! - Between two awaits everything is in [`Task`]: that is the safe point at which it can be frozen.
//! - Events are sent before the next command is taken, so a freeze finds none waiting.
//! - They are recorded before they are sent, and the state is recorded before anything of it is written to the agent.
//! - The output of a process is read to its end before its death is told.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connection::{Connection, Question, Reading};
use super::files::Shelf;
use super::given::{self, Given};
use super::handle::{AgentHandle, Mailbox};
use super::journal::Journal;
use super::limits::{Backoff, after};
use super::process::Process;
use super::running::{Ending, EndingStep, Heard, Life, Running};
use super::snapshot::{self, AdoptError, Restored};
use super::{AgentCommand, AgentEvent, AgentFds, AgentSnapshot, AgentSpec, Limits, RecoveredTurn, TurnUpdate};
use crate::clock::MonoNanos;
use crate::fault::{self, Point};
use crate::id::TurnId;
use crate::report::Chain;
use crate::sys::child;

/// Starts the agent and the task that drives it, with the default limits. Needs a tokio runtime.
pub fn spawn(spec: AgentSpec, events: mpsc::Sender<AgentEvent>) -> AgentHandle {
    spawn_with(spec, Limits::default(), events)
}

/// As [`spawn`], with other limits.
pub fn spawn_with(spec: AgentSpec, limits: Limits, events: mpsc::Sender<AgentEvent>) -> AgentHandle {
    let connection = Connection::new(spec.name.clone(), limits);
    let life = Life::Down { start_at: MonoNanos::now() };
    let restored = Restored { connection, backoff: Backoff::default(), life, journal: Journal::default() };
    run(spec, limits, events, restored)
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
    snapshot: AgentSnapshot,
    events: mpsc::Sender<AgentEvent>,
) -> Result<AgentHandle, AdoptError> {
    let mut restored = snapshot::restore(snapshot, &limits)?;
    restored.connection.adopted(spec.name.clone(), limits);
    Ok(run(spec, limits, events, restored))
}

/// Goes on with an agent whose gateway was killed, from its fds and its log alone, with the default limits. Returns what
/// its turns have come to: their ends are not told again, and all that follows is. Tells [`AgentEvent::Ready`] if the
/// agent was ready. A prompt that is not among the turns never reached the agent. Needs a tokio runtime.
///
/// A prompt that was being written when the gateway was killed is not sent again: its turn has failed.
///
/// # Errors
/// When fds and log do not hold together, or there is no log; the fds are closed then. An agent whose fds nobody else
/// keeps ends by that.
pub fn recover(
    spec: AgentSpec,
    fds: AgentFds,
    events: mpsc::Sender<AgentEvent>,
) -> Result<(AgentHandle, Vec<RecoveredTurn>), AdoptError> {
    recover_with(spec, Limits::default(), fds, events)
}

/// As [`recover`], with other limits.
///
/// # Errors
/// As [`recover`].
pub fn recover_with(
    spec: AgentSpec,
    limits: Limits,
    fds: AgentFds,
    events: mpsc::Sender<AgentEvent>,
) -> Result<(AgentHandle, Vec<RecoveredTurn>), AdoptError> {
    let (restored, turns) = recovered(&spec, limits, fds)?;
    Ok((run(spec, limits, events, restored), turns))
}

fn recovered(spec: &AgentSpec, limits: Limits, fds: AgentFds) -> Result<(Restored, Vec<RecoveredTurn>), AdoptError> {
    let mut restored = snapshot::recover(fds, &limits)?;
    let Restored { connection, backoff, life, journal } = &mut restored;
    // These are told by what is returned.
    while let Some(event) = connection.next_event() {
        journal.note(event);
    }
    connection.adopted(spec.name.clone(), limits);
    let turns = journal.recovered(connection);
    journal.compact(snapshot::state(connection, *backoff, life));
    Ok((restored, turns))
}

fn run(spec: AgentSpec, limits: Limits, events: mpsc::Sender<AgentEvent>, restored: Restored) -> AgentHandle {
    let Restored { connection, backoff, life, journal } = restored;
    let (handle, mailbox) = AgentHandle::new(spec.name.clone());
    let told = VecDeque::new();
    let task =
        Task { spec, limits, events, mailbox, connection, life, backoff, journal, told, readings: JoinSet::new() };
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
    /// The files of a turn were read.
    Read(TurnId, Vec<Given>),
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
    journal: Journal,
    /// Events that are noted and not sent.
    told: VecDeque<AgentEvent>,
    /// Files of prompts that are being read. Whoever goes on elsewhere reads them again.
    readings: JoinSet<(TurnId, Vec<Given>)>,
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

    /// Records what is new and tells all events. Ends if nobody listens any more.
    async fn tell(&mut self) -> Flow {
        self.note_events().await;
        self.record(None);
        // What was read is consumed by now, as the log written anew says.
        if self.journal.wants_compaction(self.connection.outgoing.len()) {
            self.journal.compact(snapshot::state(&self.connection, self.backoff, &self.life));
        }
        while let Some(event) = self.told.pop_front() {
            if self.events.send(event).await.is_err() {
                return Flow::End;
            }
        }
        Flow::Continue
    }

    async fn note_events(&mut self) {
        while let Some(mut event) = self.connection.next_event() {
            if let AgentEvent::Update { turn, update: TurnUpdate::File(file) } = &mut event
                && let Some(offer) = self.connection.next_offer()
            {
                let (at, before) = self.journal.place(*turn);
                let shelf = Shelf { outgoing: &self.spec.outgoing, cwd: self.connection.cwd(), turn: *turn };
                match shelf.keep(offer, at, before).await {
                    Some(kept) => *file = kept,
                    // People were told that there are too many.
                    None => continue,
                }
            }
            let event = self.journal.note(event);
            self.told.push_back(event);
        }
    }

    /// Records what is new, and what a read has brought about.
    fn record(&mut self, heard: Option<Heard>) {
        let mut changed = self.connection.take_changed();
        if let Life::Up(running) = &mut self.life {
            changed |= running.take_changed();
        }
        if !changed && heard.is_none() && !self.journal.has_news() {
            return;
        }
        let state = changed.then(|| snapshot::state(&self.connection, self.backoff, &self.life));
        match (&self.life, heard) {
            (Life::Up(running), Some(heard)) => {
                let read = self.journal.next_read(heard.bytes, heard.line_end.is_some());
                self.journal.record(Some((read, running.rest(heard))), state);
            }
            _ => self.journal.record(None, state),
        }
    }

    /// Reads once; see [`super::stream`] for the order of things.
    async fn read(&mut self, now: MonoNanos) {
        let Life::Up(running) = &mut self.life else { return };
        let keep = self.journal.is_kept() && running.process.stdout.keeps_what_was_read();
        let Some(heard) = running.read(now, &self.limits, &mut self.connection, keep) else { return };
        if !keep {
            return;
        }
        self.note_events().await;
        self.mark(heard);
        self.record(Some(heard));
        self.consume(now, heard);
    }

    fn mark(&mut self, heard: Heard) {
        let Life::Up(running) = &self.life else { return };
        let read = self.journal.next_read(heard.bytes, heard.line_end.is_some());
        if let Err(error) = running.process.stdout.mark(read.number, read.bytes) {
            self.journal.give_up(&error);
        }
    }

    fn consume(&mut self, now: MonoNanos, heard: Heard) {
        if let Life::Up(running) = &mut self.life {
            running.consume(now, &self.limits, heard.bytes);
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
        while let Some(Reading { turn, files, takes }) = self.connection.next_reading() {
            self.readings.spawn_blocking(move || (turn, given::read(&files, takes)));
        }
        let read = async {
            match self.readings.join_next().await {
                Some(Ok((turn, given))) => Wake::Read(turn, given),
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => std::future::pending().await,
            }
        };
        let commands = &mut self.mailbox.commands;
        let running = match &self.life {
            Life::Down { .. } => {
                return tokio::select! {
                    command = commands.recv() => Wake::Command(command),
                    read = read => read,
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
            read = read => read,
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
            Wake::Command(Some(AgentCommand::Freeze)) => return self.freeze().await,
            Wake::Command(command) => return self.command(now, command),
            Wake::Deadline => self.connection.expire(now),
            Wake::Readable => self.read(now).await,
            Wake::Read(turn, given) => {
                self.connection.read(turn, given);
                self.heed_fault(now);
                return Flow::Continue;
            }
            Wake::Writable | Wake::Exited => {}
        }
        if let Life::Up(running) = &mut self.life {
            match wake {
                Wake::Writable => running.write(now, &self.limits, &mut self.connection, &mut self.journal),
                Wake::Exited => running.drain_until = Some(after(now, self.limits.drain_timeout)),
                Wake::Readable | Wake::Read(..) | Wake::Deadline | Wake::Command(_) => {}
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
            Some(AgentCommand::Prompt { turn, session, text, files }) => {
                self.connection.prompt(now, turn, session, Question { text, files });
                fault::at(Point::Started);
            }
            Some(AgentCommand::Cancel { turn }) => self.connection.cancel(now, turn),
            Some(AgentCommand::Permission { request, option }) => self.connection.answer(request, option),
            Some(AgentCommand::Settled { turn }) => self.journal.settle(turn),
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
        let answer = match snapshot::take(&self.connection, self.backoff, &self.life, &self.journal) {
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
                let running = Running::new(process, now, &self.limits);
                self.begin(&running);
                self.life = Life::Up(Box::new(running));
            }
            Err(error) => {
                let reason = Chain(&error).to_string();
                self.fail_start(now, Duration::ZERO, reason);
            }
        }
        Flow::Continue
    }

    /// Begins the log of a new process and tells who it is.
    fn begin(&mut self, running: &Running) {
        let agent = self.spec.name.clone();
        self.journal.begin(&agent);
        // Without the offset nobody could tell what was read.
        if let Err(error) = running.process.stdout.unconsumed(0, 0) {
            self.journal.give_up(&error);
        }
        match snapshot::duplicates(running, &self.journal) {
            Ok(Some(fds)) => self.connection.push_event(AgentEvent::Started { agent, fds }),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%agent, %error, "an agent's fds cannot be kept elsewhere: a kill of the gateway will end it");
            }
        }
    }

    /// The process is gone and its output is read: tells so and plans the next.
    fn finish(&mut self, now: MonoNanos) -> Flow {
        let Life::Up(running) = std::mem::replace(&mut self.life, Life::Down { start_at: now }) else {
            return Flow::Continue;
        };
        let lived = now.since(running.started);
        let how = child::describe(running.process.reap());
        self.journal.end();
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
        self.connection.break_off(now, &how, |turn| self.journal.said(turn));
        let restart_in = self.plan_restart(now, lived);
        tracing::warn!(agent = %self.spec.name, how, ?restart_in, "agent died");
        self.connection.push_event(AgentEvent::Died { agent: self.spec.name.clone(), how, restart_in });
        Flow::Continue
    }

    fn fail_start(&mut self, now: MonoNanos, lived: Duration, reason: String) {
        self.connection.not_started(&format!("the agent could not be started: {reason}"));
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
