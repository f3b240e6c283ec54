//! The task that drives a network platform: one loop over commands, what comes in, the requests in flight and the clock.
//! How the platform is spoken to is its [`Link`]'s.
//!
//! **Invariants**
//! - Whatever happens, a command is taken promptly: nothing in the loop waits but for the store, to make a batch of
//!   messages durable.
//! - A message is recorded in the outbox before it is sent and when it was, by the request itself.
//! - The task never waits for its events to be taken: they queue inside, and no message is taken in meanwhile.
//! - After a freeze no request is started, and [`PlatformEvent::Frozen`] is the last event until the thaw. Requests
//!   that end later still change the state here, so a thaw goes on as if nothing had been.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::delivery::ledger::{Booked, Ledger};
use super::delivery::medium::Medium;
use super::delivery::pace::after;
use super::delivery::{Action, Delivery, MessageId, Next, Pace, Request};
use super::fetch::Fetches;
use super::link::{Kept, Link, Sender, Unsent, Way};
use super::{Left, Load, PlatformCommand, PlatformEvent, PlatformHandle, saved};
use crate::chat::{Fetched, Inbound, LinkState};
use crate::clock::{MonoNanos, UnixMillis};
use crate::fault::{self, Point};
use crate::id::TurnId;
use crate::report::Chain;
use crate::store::{Attempt, Seen, Store, StoreError};

/// Commands that may wait for the task. It always takes them promptly, so a full queue is a burst.
const COMMANDS: usize = 256;
/// Requests in flight at once, in as many chats.
const SENDS_MAX: usize = 16;
/// What the last events, and before them the good-bye, may take after the deadline of a stop.
const FAREWELL: Duration = Duration::from_secs(1);
/// A longer sleep is taken in parts.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Waits for the requests in flight.
    Freezing {
        until: MonoNanos,
    },
    /// No request is started, and those in flight are waited for until then, or are over if that is told.
    Draining {
        until: MonoNanos,
        told: bool,
    },
    /// `Frozen` is queued or sent.
    Frozen,
    /// Shows what it can.
    Stopping {
        until: MonoNanos,
    },
    /// Everything is shown that could be.
    Parting,
    /// Only the last events are left to be taken.
    Leaving {
        until: MonoNanos,
    },
}

/// What one turn of the loop saw.
enum Step<H> {
    EventTaken,
    ReceiverGone,
    Command(Option<PlatformCommand>),
    Heard(H),
    Sent(String, Result<Option<MessageId>, Unsent>),
    Fetched(TurnId, Vec<Fetched>),
    Booked(Booked),
    Woke,
}

/// The state of a platform.
struct Task<L: Link> {
    link: L,
    store: Store,
    commands: mpsc::Receiver<PlatformCommand>,
    events: mpsc::Sender<PlatformEvent>,
    /// Events that wait to be taken.
    outbox: VecDeque<PlatformEvent>,
    delivery: Delivery,
    ledger: Ledger,
    sends: JoinSet<(String, Result<Option<MessageId>, Unsent>)>,
    /// When they were begun, by their chats: there is one for a chat at the most.
    begun: BTreeMap<String, UnixMillis>,
    /// What was told last of all that is to be done.
    load: watch::Sender<Load>,
    /// A freeze does not wait for them: they are lost with the image, and asked for again.
    fetches: Fetches,
    /// The state of the link that was told last.
    told: Option<LinkState>,
    phase: Phase,
    paused: bool,
    /// Whoever is started next goes on with what was kept for the link.
    stays: bool,
}

/// Starts the task of a platform, which goes on with what was left and with what the store's outbox has.
///
/// It returns at once: the link connects on its own and how that goes is told as [`PlatformEvent::Link`]. The task ends by
/// [`PlatformCommand::Stop`], or when the handle or the receiver of `events` is gone.
pub(super) fn spawn<L: Link>(
    mut link: L,
    medium: Medium,
    left: Left,
    store: Store,
    events: mpsc::Sender<PlatformEvent>,
) -> PlatformHandle {
    let (sender, commands) = mpsc::channel(COMMANDS);
    let (load, told_load) = watch::channel(Load::default());
    let saved = saved::read::<L>(left.state, link.account());
    link.restore(saved.link, left.fds);
    if left.paused {
        link.pause();
    }
    let task = Task {
        link,
        delivery: saved.delivery.on(medium),
        ledger: Ledger::open(store.clone(), L::PLATFORM),
        store,
        commands,
        events,
        outbox: VecDeque::new(),
        sends: JoinSet::new(),
        begun: BTreeMap::new(),
        load,
        fetches: Fetches::default(),
        told: None,
        phase: Phase::Running,
        paused: left.paused,
        stays: false,
    };
    tokio::spawn(task.run());
    PlatformHandle::new(L::PLATFORM.into(), sender, told_load)
}

impl<L: Link> Task<L> {
    async fn run(mut self) {
        self.link.load(&self.store).await;
        loop {
            let wake = self.advance();
            self.tell_changes();
            self.tell_load();
            if matches!(self.phase, Phase::Leaving { until } if self.outbox.is_empty() || MonoNanos::now() >= until) {
                return;
            }
            if self.phase == Phase::Parting {
                self.part().await;
                continue;
            }
            match self.step(wake).await {
                Step::EventTaken | Step::Woke => {}
                Step::ReceiverGone | Step::Command(None) => return,
                Step::Command(Some(command)) => self.obey(command),
                Step::Heard(heard) => {
                    let new = self.link.take(heard, &self.store).await;
                    // That the link works is told before what came over it.
                    self.tell_changes();
                    self.heard(new);
                }
                Step::Sent(chat, outcome) => self.sent(&chat, outcome),
                Step::Fetched(turn, files) => self.outbox.push_back(PlatformEvent::Fetched { turn, files }),
                Step::Booked(Booked::Read(outbox)) => self.delivery.take_up(*outbox, MonoNanos::now()),
                Step::Booked(Booked::Other) => {}
            }
        }
    }

    /// Says good-bye, before whoever waits for the end hears of it and ends the process.
    async fn part(&mut self) {
        if !self.stays {
            let _late = tokio::time::timeout(FAREWELL, self.link.leave(&self.store)).await;
        }
        self.outbox.push_back(PlatformEvent::Stopped { platform: L::PLATFORM.into() });
        self.phase = Phase::Leaving { until: after(MonoNanos::now(), FAREWELL) };
    }

    /// What is stored is told, also beside a failure: it comes again as a duplicate only.
    fn heard(&mut self, new: Vec<(TurnId, Inbound)>) {
        new.iter().for_each(|(_, inbound)| self.delivery.heard(&inbound.conversation.chat));
        self.outbox.extend(new.into_iter().map(|(turn, inbound)| PlatformEvent::Inbound { turn, inbound }));
    }

    /// Tells how the link is, and what is to be kept for it, if that has changed.
    fn tell_changes(&mut self) {
        for Kept { name, fd } in self.link.take_kept() {
            self.outbox.push_back(PlatformEvent::Keep { platform: L::PLATFORM.into(), name, fd });
        }
        let state = if self.paused { &LinkState::Paused } else { self.link.state() };
        if self.told.as_ref() != Some(state) {
            if *state == LinkState::Connected {
                tracing::info!(platform = L::PLATFORM, "connected");
            }
            self.told = Some(state.clone());
            self.outbox.push_back(PlatformEvent::Link { platform: L::PLATFORM.into(), state: state.clone() });
        }
    }

    fn tell_load(&self) {
        let load = Load {
            waiting: self.delivery.waiting(),
            sending: self.sends.len(),
            sending_since: self.begun.values().min().copied(),
        };
        self.load.send_if_modified(|told| std::mem::replace(told, load) != load);
    }

    /// Once the marker is sent, later events wait for the thaw.
    fn may_tell(&self) -> bool {
        let is_answer =
            |event: &PlatformEvent| matches!(event, PlatformEvent::Frozen { .. } | PlatformEvent::FreezeFailed { .. });
        match self.phase {
            Phase::Frozen => self.outbox.iter().any(is_answer),
            _ => !self.outbox.is_empty(),
        }
    }

    async fn step(&mut self, wake: Duration) -> Step<L::Heard> {
        let may_tell = self.may_tell();
        tokio::select! {
            permit = self.events.reserve(), if may_tell => {
                let Ok(permit) = permit else { return Step::ReceiverGone };
                permit.send(self.outbox.pop_front().expect("the branch is open only with an event"));
                Step::EventTaken
            }
            // What goes on with a reply must find it.
            command = self.commands.recv(), if self.ledger.is_open() => Step::Command(command),
            heard = self.link.heard() => Step::Heard(heard),
            Some(done) = self.sends.join_next() => match done {
                Ok((chat, outcome)) => Step::Sent(chat, outcome),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            (turn, files) = self.fetches.done() => Step::Fetched(turn, files),
            booked = self.ledger.booked() => Step::Booked(booked),
            () = tokio::time::sleep(wake) => Step::Woke,
        }
    }

    /// Starts whatever is due, and says how long nothing else is.
    fn advance(&mut self) -> Duration {
        let now = MonoNanos::now();
        let mut wake = after(now, SLEEP_MAX);
        let found = self.delivery.take_findings();
        wake = wake.min(self.ledger.advance(found, now).unwrap_or(wake));
        let is_running = self.phase == Phase::Running && !self.paused;
        // What is not taken in waits at the platform.
        let may_hear = is_running && self.outbox.is_empty() && !self.delivery.is_crowded();
        wake = wake.min(self.link.advance(now, may_hear).unwrap_or(wake).max(now));
        match self.phase {
            Phase::Running if self.paused => wake = wake.min(self.start_fetches(now).unwrap_or(wake)),
            Phase::Running => {
                wake = wake.min(self.start_sends(now, Pace::Streaming).unwrap_or(wake));
                wake = wake.min(self.start_fetches(now).unwrap_or(wake));
            }
            Phase::Freezing { until } => {
                if self.sends.is_empty() || until <= now {
                    self.freeze();
                }
                wake = wake.min(until);
            }
            Phase::Draining { until, told: false } => {
                if (self.sends.is_empty() && self.ledger.is_settled()) || until <= now {
                    self.outbox.push_back(PlatformEvent::Drained { platform: L::PLATFORM.into() });
                    self.phase = Phase::Draining { until, told: true };
                } else {
                    wake = wake.min(until);
                }
            }
            Phase::Draining { told: true, .. } | Phase::Frozen => {}
            Phase::Stopping { until } => {
                let due = if self.paused { None } else { self.start_sends(now, Pace::Flushing) };
                let is_done = due.is_none() && self.sends.is_empty() && self.ledger.is_settled();
                if until <= now || is_done {
                    self.phase = Phase::Parting;
                }
                wake = wake.min(due.unwrap_or(until)).min(until);
            }
            Phase::Parting => {}
            Phase::Leaving { until } => wake = wake.min(until),
        }
        wake.since(now)
    }

    /// Starts the requests that may start now; says when the next may.
    fn start_sends(&mut self, now: MonoNanos, pace: Pace) -> Option<MonoNanos> {
        let sender = match self.link.way() {
            // Who waits for the outbox is woken by it.
            _ if !self.ledger.is_open() => return Some(after(now, SLEEP_MAX)),
            Way::Open(sender) => sender,
            Way::Soon => return Some(after(now, SLEEP_MAX)),
            Way::Closed => return None,
        };
        let mut requests = Vec::new();
        let due = loop {
            if self.sends.len() + requests.len() >= SENDS_MAX {
                break None; // The end of a request opens the way.
            }
            match self.delivery.next(now, pace) {
                Next::Start(request) => requests.push(request),
                Next::At(at) => break Some(at),
                Next::Idle => break None,
            }
        };
        for request in requests {
            let (sender, store) = (sender.clone(), self.store.clone());
            self.begun.insert(request.chat.clone(), UnixMillis::now());
            self.sends.spawn(async move {
                let outcome = perform(&sender, &store, &request).await;
                (request.chat, outcome)
            });
        }
        due
    }

    /// Starts what may start now of files to be fetched; says when something is given up.
    fn start_fetches(&mut self, now: MonoNanos) -> Option<MonoNanos> {
        if self.fetches.is_idle() {
            return None;
        }
        let way = if self.paused { Way::Closed } else { self.link.way() };
        let mut over = Vec::new();
        let wake = self.fetches.advance(now, &way, &self.store, &mut over);
        if over.is_empty() {
            return wake;
        }
        self.outbox.extend(over.into_iter().map(|(turn, files)| PlatformEvent::Fetched { turn, files }));
        // There is something to tell at once.
        Some(now)
    }

    fn obey(&mut self, command: PlatformCommand) {
        let now = MonoNanos::now();
        match command {
            PlatformCommand::Deliver { outbound, entry } => self.delivery.push(*outbound, entry, now),
            PlatformCommand::Fetch(order) => self.fetches.push(*order, now),
            PlatformCommand::Pause => self.pause(true),
            PlatformCommand::Resume => self.pause(false),
            PlatformCommand::Proven => self.link.proven(),
            PlatformCommand::Stop { drain, for_a_restart } => {
                self.phase = Phase::Stopping { until: after(now, drain) };
                self.stays = for_a_restart;
            }
            _ if matches!(self.phase, Phase::Stopping { .. } | Phase::Parting | Phase::Leaving { .. }) => {}
            PlatformCommand::Drain { drain } => self.phase = Phase::Draining { until: after(now, drain), told: false },
            PlatformCommand::Freeze { drain } => {
                self.phase = Phase::Freezing { until: after(now, drain) };
                self.link.freeze();
            }
            PlatformCommand::Thaw => {
                self.phase = Phase::Running;
                self.link.thaw();
            }
        }
        if self.phase != Phase::Running {
            self.link.hush();
        }
    }

    fn pause(&mut self, paused: bool) {
        if std::mem::replace(&mut self.paused, paused) != paused {
            tracing::info!(platform = L::PLATFORM, paused, "an admin has paused the platform or let it go on");
        }
        if paused {
            self.link.pause();
        }
    }

    fn freeze(&mut self) {
        let platform = L::PLATFORM.into();
        self.outbox.push_back(match self.link.fds() {
            Ok(fds) => PlatformEvent::Frozen { platform, state: saved::write(&self.link, &self.delivery), fds },
            Err(error) => PlatformEvent::FreezeFailed { platform, reason: Chain(&error).to_string() },
        });
        self.phase = Phase::Frozen;
    }

    fn sent(&mut self, chat: &str, outcome: Result<Option<MessageId>, Unsent>) {
        self.begun.remove(chat);
        if outcome.is_ok() {
            self.link.sent();
        }
        let refused = outcome.as_ref().err().filter(|error| error.is_fatal).cloned();
        self.delivery.done(chat, outcome, MonoNanos::now());
        if let Some(why) = refused {
            self.link.refused(&why);
        }
    }
}

/// Makes a request, and records a new message before it is sent and after. Returns the id of it.
///
/// A store that cannot record does not keep anything from being sent: it would be without an answer for as long.
async fn perform<S: Sender>(sender: &S, store: &Store, request: &Request) -> Result<Option<MessageId>, Unsent> {
    let untold = |error: StoreError| {
        tracing::error!(error = %Chain(&error), "a delivery cannot be recorded: a kill may repeat it without a word");
    };
    if !matches!(request.action, Action::Send(_) | Action::Attach(_)) {
        return sender.perform(request, store).await;
    }
    if let Some(attempt) = request.attempt.clone() {
        store.attempt(attempt).await.unwrap_or_else(untold);
    }
    fault::at(Point::Sending);
    let outcome = sender.perform(request, store).await;
    fault::at(Point::Acknowledged);
    let seen = match &outcome {
        Ok(sent) => sent.clone().map(|MessageId(message_id)| Seen::Shown { message_id }),
        Err(error) => (!error.is_ambiguous).then_some(Seen::Refused),
    };
    if let (Some(Attempt { entry, number, .. }), Some(seen)) = (&request.attempt, seen) {
        store.attempted(*entry, *number, seen).await.unwrap_or_else(untold);
    }
    outcome
}
