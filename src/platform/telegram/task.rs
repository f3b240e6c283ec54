//! The task that drives the platform: one loop over commands, the poll, the requests in flight and the clock.
//!
//! **Invariants**
//! - Whatever happens, a command is taken promptly: nothing in the loop waits but for the store, to make a batch of
//!   messages durable.
//! - A message is recorded in the outbox before it is sent and when it was, by the request itself.
//! - After a freeze no request is started, and [`PlatformEvent::Frozen`] is the last event until the thaw. Requests
//!   that end later still change the state here, so a thaw goes on as if nothing had been.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::PLATFORM;
use super::api::{Api, Disposition, Me, TelegramError};
use super::client::{Client, perform};
use super::delivery::{Delivery, Next, Pace};
use super::intake::{self, Account};
use super::ledger::{Booked, Ledger};
use super::pace::{after, back_off};
use super::saved::{Saved, VERSION};
use crate::chat::LinkState;
use crate::clock::{MonoNanos, UnixMillis};
use crate::config::TelegramConfig;
use crate::fault::{self, Point};
use crate::platform::{PlatformCommand, PlatformEvent};
use crate::report::Chain;
use crate::store::Store;

/// Requests in flight at once, in as many chats.
const SENDS_MAX: usize = 16;
/// How long the server holds a poll; Telegram's own limit.
const HOLD: Duration = Duration::from_secs(50);
/// A held poll that is answered sooner with nothing is not repeated at once: something between does not hold it.
const HOLD_MIN: Duration = Duration::from_secs(1);
/// What the last events may take after the deadline of a stop.
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
    /// Only the last events are left to be taken.
    Leaving {
        until: MonoNanos,
    },
}

/// How a poll ended.
enum Polled {
    Me(Result<Me, TelegramError>),
    Updates(Result<Vec<Box<RawValue>>, TelegramError>),
    /// 409, with whether a webhook is set, if that could be found out.
    Conflict(TelegramError, Option<bool>),
}

type PollFuture = Pin<Box<dyn Future<Output = Polled> + Send>>;

struct Poll {
    future: Option<PollFuture>,
    opened_at: MonoNanos,
    held: bool,
    offset: Option<i64>,
    /// The offset confirms more than the server is known to have heard of.
    unconfirmed: bool,
    failures: u32,
    not_before: MonoNanos,
    /// The part of `not_before` that Telegram asked for.
    asked_until: MonoNanos,
}

/// What one turn of the loop saw.
enum Step {
    EventTaken,
    ReceiverGone,
    Command(Option<PlatformCommand>),
    Built(Result<Api, TelegramError>),
    Polled(Polled),
    Sent(String, Result<Option<i64>, TelegramError>),
    Booked(Booked),
    Woke,
}

/// The state of the platform.
pub(super) struct Task {
    config: TelegramConfig,
    store: Store,
    commands: mpsc::Receiver<PlatformCommand>,
    events: mpsc::Sender<PlatformEvent>,
    /// Events that wait to be taken.
    outbox: VecDeque<PlatformEvent>,
    account: Account,
    client: Client,
    poll: Poll,
    delivery: Delivery,
    ledger: Ledger,
    sends: JoinSet<(String, Result<Option<i64>, TelegramError>)>,
    link: LinkState,
    phase: Phase,
}

impl Task {
    /// A task that has not run yet. `restored` is what the image before handed over.
    pub(super) fn new(
        config: TelegramConfig,
        restored: Option<Value>,
        store: Store,
        commands: mpsc::Receiver<PlatformCommand>,
        events: mpsc::Sender<PlatformEvent>,
    ) -> Self {
        // A token without a colon is none; Telegram will say so.
        let id = config.token.expose().split_once(':').map_or("unknown", |(id, _)| id).to_owned();
        let mut saved = Saved::restore(restored, &id);
        let mut delivery = std::mem::take(&mut saved.delivery).adopt();
        delivery.limited_to(config.messages_per_second);
        Self {
            client: Client::build(&config),
            config,
            ledger: Ledger::open(store.clone()),
            store,
            commands,
            events,
            outbox: VecDeque::new(),
            account: Account { id, username: saved.username },
            poll: Poll {
                future: None,
                opened_at: MonoNanos::default(),
                held: false,
                offset: None,
                unconfirmed: false,
                failures: saved.poll_failures,
                not_before: saved.poll_asked_until,
                asked_until: saved.poll_asked_until,
            },
            delivery,
            sends: JoinSet::new(),
            link: LinkState::Connecting,
            phase: Phase::Running,
        }
    }

    /// Runs until it is told to stop.
    pub(super) async fn run(mut self) {
        self.outbox.push_back(PlatformEvent::Link { platform: PLATFORM.into(), state: LinkState::Connecting });
        self.load_offset().await;
        loop {
            let wake = self.advance();
            if matches!(self.phase, Phase::Leaving { until } if self.outbox.is_empty() || MonoNanos::now() >= until) {
                return;
            }
            match self.step(wake).await {
                Step::EventTaken | Step::Woke => {}
                Step::ReceiverGone | Step::Command(None) => return,
                Step::Command(Some(command)) => self.obey(command),
                Step::Built(outcome) => self.built(outcome),
                Step::Polled(polled) => self.polled(polled).await,
                Step::Sent(chat, outcome) => self.sent(&chat, &outcome),
                Step::Booked(Booked::Read(outbox)) => self.delivery.take_up(*outbox, MonoNanos::now()),
                Step::Booked(Booked::Other) => {}
            }
        }
    }

    /// Without a stored offset Telegram sends again what was never confirmed, and the store drops what it has.
    async fn load_offset(&mut self) {
        match self.store.cursor(PLATFORM, &self.account.id).await {
            Ok(cursor) => self.poll.offset = cursor.and_then(|cursor| cursor.parse().ok()),
            Err(error) => tracing::warn!(error = %Chain(&error), "the position in the updates cannot be read"),
        }
    }

    /// Once the marker is sent, later events wait for the thaw.
    fn may_tell(&self) -> bool {
        match self.phase {
            Phase::Frozen => self.outbox.iter().any(|event| matches!(event, PlatformEvent::Frozen { .. })),
            _ => !self.outbox.is_empty(),
        }
    }

    async fn step(&mut self, wake: Duration) -> Step {
        let may_tell = self.may_tell();
        tokio::select! {
            permit = self.events.reserve(), if may_tell => {
                let Ok(permit) = permit else { return Step::ReceiverGone };
                permit.send(self.outbox.pop_front().expect("the branch is open only with an event"));
                Step::EventTaken
            }
            // What goes on with a reply must find it.
            command = self.commands.recv(), if self.ledger.is_open() => Step::Command(command),
            outcome = self.client.built() => Step::Built(outcome),
            polled = next_poll(&mut self.poll.future) => {
                self.poll.future = None;
                Step::Polled(polled)
            }
            Some(done) = self.sends.join_next() => match done {
                Ok((chat, outcome)) => Step::Sent(chat, outcome),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            booked = self.ledger.booked() => Step::Booked(booked),
            () = tokio::time::sleep(wake) => Step::Woke,
        }
    }

    /// Starts whatever is due, and says how long nothing else is.
    fn advance(&mut self) -> Duration {
        let now = MonoNanos::now();
        let mut wake = after(now, SLEEP_MAX);
        if let Client::Broken { again_at } = self.client {
            if again_at <= now {
                self.client = Client::build(&self.config);
            }
            wake = wake.min(again_at.max(now));
        }
        let found = self.delivery.take_findings();
        wake = wake.min(self.ledger.advance(found, now).unwrap_or(wake));
        match self.phase {
            Phase::Running => {
                wake = wake.min(self.start_sends(now, Pace::Streaming).unwrap_or(wake));
                wake = wake.min(self.open_poll(now).unwrap_or(wake));
            }
            Phase::Freezing { until } => {
                if self.sends.is_empty() || until <= now {
                    self.freeze();
                }
                wake = wake.min(until);
            }
            Phase::Draining { until, told: false } => {
                if (self.sends.is_empty() && self.ledger.is_settled()) || until <= now {
                    self.outbox.push_back(PlatformEvent::Drained { platform: PLATFORM.into() });
                    self.phase = Phase::Draining { until, told: true };
                } else {
                    wake = wake.min(until);
                }
            }
            Phase::Draining { told: true, .. } | Phase::Frozen => {}
            Phase::Stopping { until } => {
                let due = self.start_sends(now, Pace::Flushing);
                let is_done = due.is_none() && self.sends.is_empty() && self.ledger.is_settled();
                if until <= now || is_done {
                    self.outbox.push_back(PlatformEvent::Stopped { platform: PLATFORM.into() });
                    self.phase = Phase::Leaving { until: after(now, FAREWELL) };
                }
                wake = wake.min(due.unwrap_or(until)).min(until);
            }
            Phase::Leaving { until } => wake = wake.min(until),
        }
        wake.since(now)
    }

    fn state<'a>(account: &Account, poll: &Poll, delivery: &'a Delivery) -> Saved<&'a Delivery> {
        Saved {
            version: VERSION,
            account: account.id.clone(),
            username: account.username.clone(),
            poll_failures: poll.failures,
            poll_asked_until: poll.asked_until,
            delivery,
        }
    }

    fn refused(&self) -> bool {
        matches!(self.link, LinkState::Fatal { .. })
    }

    /// Starts the requests that may start now; says when the next may.
    fn start_sends(&mut self, now: MonoNanos, pace: Pace) -> Option<MonoNanos> {
        let api = match &self.client {
            // Who waits for the outbox is woken by it.
            _ if !self.ledger.is_open() => return Some(after(now, SLEEP_MAX)),
            Client::Ready(api) if !self.refused() => api.clone(),
            // Worth waiting for, also when stopping.
            Client::Building(_) => return Some(after(now, SLEEP_MAX)),
            Client::Ready(_) | Client::Broken { .. } => return None,
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
            let (api, store) = (api.clone(), self.store.clone());
            self.sends.spawn(async move {
                let outcome = perform(&api, &store, &request).await;
                (request.chat, outcome)
            });
        }
        due
    }

    /// Opens a poll if none is open and it is time; says when it is.
    fn open_poll(&mut self, now: MonoNanos) -> Option<MonoNanos> {
        let Client::Ready(api) = &self.client else { return None };
        // What is not taken in waits at Telegram.
        let has_room = self.outbox.is_empty() && !self.delivery.is_crowded();
        if self.poll.future.is_some() || self.refused() || !has_room {
            return None;
        }
        if self.poll.not_before > now {
            return Some(self.poll.not_before);
        }
        // Until the link is known to work the poll is short, so that this is known within a round trip.
        self.poll.held = self.link == LinkState::Connected;
        self.poll.opened_at = now;
        let hold = if self.poll.held { HOLD } else { Duration::ZERO };
        let (api, offset, known) = (api.clone(), self.poll.offset, self.account.username.is_some());
        self.poll.future = Some(Box::pin(async move {
            if !known {
                return Polled::Me(api.get_me().await);
            }
            match api.get_updates(offset, hold, intake::KINDS).await {
                Err(error @ TelegramError::Refused { code: 409, .. }) => {
                    let webhook = api.get_webhook_info().await.ok().map(|info| !info.url.is_empty());
                    Polled::Conflict(error, webhook)
                }
                outcome => Polled::Updates(outcome),
            }
        }));
        None
    }

    fn built(&mut self, outcome: Result<Api, TelegramError>) {
        match outcome {
            Ok(api) => self.client = Client::Ready(api),
            Err(error) => {
                self.poll_failed(&error.code(), Chain(&error).to_string(), None);
                self.client = Client::Broken { again_at: self.poll.not_before };
            }
        }
    }

    fn obey(&mut self, command: PlatformCommand) {
        let now = MonoNanos::now();
        match command {
            PlatformCommand::Deliver { outbound, entry } => self.delivery.push(*outbound, entry, now),
            PlatformCommand::Stop { drain } => self.phase = Phase::Stopping { until: after(now, drain) },
            _ if matches!(self.phase, Phase::Stopping { .. } | Phase::Leaving { .. }) => {}
            PlatformCommand::Drain { drain } => self.phase = Phase::Draining { until: after(now, drain), told: false },
            PlatformCommand::Freeze { drain } => self.phase = Phase::Freezing { until: after(now, drain) },
            PlatformCommand::Thaw => self.phase = Phase::Running,
        }
        if self.phase != Phase::Running {
            // It has confirmed nothing, so it may be dropped.
            self.poll.future = None;
        }
    }

    fn freeze(&mut self) {
        let saved = Self::state(&self.account, &self.poll, &self.delivery);
        let state = serde_json::to_value(saved).expect("plain data with text keys serialises");
        self.outbox.push_back(PlatformEvent::Frozen { platform: PLATFORM.into(), state });
        self.phase = Phase::Frozen;
    }

    fn sent(&mut self, chat: &str, outcome: &Result<Option<i64>, TelegramError>) {
        self.delivery.done(chat, outcome.as_ref().map(|id| *id), MonoNanos::now());
        if let Err(error) = outcome
            && error.disposition() == Disposition::Fatal
        {
            self.token_refused(error);
        }
    }

    async fn polled(&mut self, polled: Polled) {
        match polled {
            Polled::Me(Ok(me)) => {
                self.account.username = Some(me.username.unwrap_or_default());
                self.poll_worked();
            }
            Polled::Updates(Ok(updates)) => {
                if std::mem::replace(&mut self.poll.unconfirmed, false) {
                    fault::at(Point::Confirmed);
                }
                self.take(updates).await;
            }
            Polled::Conflict(error, webhook) => {
                let message = match webhook {
                    Some(true) => {
                        "a webhook is set for this bot, and while it is, nothing can be polled; remove it \
                                   with the method deleteWebhook, or use another bot"
                    }
                    Some(false) => "another process polls with this token; stop it, or use another bot",
                    None => "another process polls with this token, or a webhook is set for this bot",
                };
                self.poll_failed(&error.code(), message.to_owned(), None);
            }
            Polled::Me(Err(error)) | Polled::Updates(Err(error)) => match error.disposition() {
                Disposition::Fatal => self.token_refused(&error),
                Disposition::Retry { after } => self.poll_failed(&error.code(), Chain(&error).to_string(), after),
                Disposition::GiveUp => self.poll_failed(&error.code(), Chain(&error).to_string(), None),
            },
        }
    }

    async fn take(&mut self, updates: Vec<Box<RawValue>>) {
        if !updates.is_empty() {
            fault::at(Point::Received);
        }
        let batch = intake::take(&updates, &self.account, &self.store).await;
        self.poll.unconfirmed = batch.offset.is_some();
        self.poll.offset = batch.offset.or(self.poll.offset);
        if let Some(error) = batch.failure {
            // It is not the server that is to be spared: once there is room again, messages must not wait for long.
            self.poll.failures = 0;
            self.poll_failed("store", Chain(&error).to_string(), None);
        } else if batch.offset.is_none() && !updates.is_empty() {
            // It would be sent again at once, for ever.
            self.poll_failed("malformed", "the answer holds updates without an id".to_owned(), None);
        } else {
            self.poll_worked();
            let now = MonoNanos::now();
            if updates.is_empty() && self.poll.held && now.since(self.poll.opened_at) < HOLD_MIN {
                self.poll.not_before = after(self.poll.opened_at, HOLD_MIN);
            }
        }
        batch.new.iter().for_each(|(_, inbound)| self.delivery.heard(&inbound.conversation.chat));
        // What is stored is told, also beside a failure: it comes again as a duplicate only.
        self.outbox.extend(batch.new.into_iter().map(|(turn, inbound)| PlatformEvent::Inbound { turn, inbound }));
    }

    fn poll_worked(&mut self) {
        self.poll.failures = 0;
        self.poll.asked_until = MonoNanos::default();
        self.set_link(LinkState::Connected);
    }

    fn poll_failed(&mut self, code: &str, message: String, asked: Option<Duration>) {
        self.poll.failures = self.poll.failures.saturating_add(1);
        let wait = asked.unwrap_or_else(|| back_off(self.poll.failures));
        let now = MonoNanos::now();
        self.poll.not_before = after(now, wait);
        self.poll.asked_until = if asked.is_some() { self.poll.not_before } else { MonoNanos::default() };
        let known = matches!(&self.link, LinkState::Retrying { error_code, .. } if error_code == code);
        if !known {
            tracing::warn!(code, error = %message, "Telegram cannot be polled and is tried again");
        }
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        self.set_link(LinkState::Retrying {
            error_code: code.to_owned(),
            error_message: message,
            next_attempt_at: UnixMillis(UnixMillis::now().0.saturating_add(wait_ms)),
        });
    }

    fn token_refused(&mut self, error: &TelegramError) {
        if self.refused() {
            return;
        }
        tracing::error!(error = %Chain(error), "Telegram refuses the token: nothing is received or sent");
        self.poll.future = None;
        self.set_link(LinkState::Fatal {
            error_code: error.code(),
            error_message: format!("{error}; check the token in [platforms.telegram] and the api_url, then reload"),
        });
    }

    fn set_link(&mut self, state: LinkState) {
        if state == self.link {
            return;
        }
        if state == LinkState::Connected {
            tracing::info!("Telegram is connected");
        }
        self.link = state.clone();
        self.outbox.push_back(PlatformEvent::Link { platform: PLATFORM.into(), state });
    }
}

async fn next_poll(future: &mut Option<PollFuture>) -> Polled {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
