//! How messages come in: by long polling, after the service was told that somebody listens.
//!
//! **Invariants**
//! - A cursor is used only after the store has what is before it; a poll may be dropped at any time, because dropping it
//!   confirms nothing.
//! - "Connected" means that the service has answered: `notifystart`, or a poll. A poll that it held for its whole time is as
//!   good as an answer a few times in a row, no more.
//! - A stale token stops the account for an hour, and is not carried into the next image: that may have a new one.

use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::PLATFORM;
use super::api::{Api, POLL_DEADLINE, Updates};
use super::error::{Disposition, STALE_PAUSE, WeixinError};
use super::intake::{self, Recent};
use super::sender::WeixinSender;
use crate::chat::{Inbound, LinkState};
use crate::clock::MonoNanos;
use crate::config::WeixinConfig;
use crate::id::TurnId;
use crate::platform::delivery::pace::after;
use crate::platform::link::{Link, NamedFd, Unsent, Way, retrying};
use crate::platform::pending::{outcome, under_way};
use crate::report::Chain;
use crate::store::Store;
use crate::sys::random;

/// Between two attempts.
const RETRY_WAIT: Duration = Duration::from_secs(2);
/// The same after [`FAILURES_MAX`] failures in a row.
const LONG_RETRY_WAIT: Duration = Duration::from_secs(30);
const FAILURES_MAX: u32 = 3;
/// A poll that is answered sooner with nothing new is not repeated at once: something between does not hold it.
const HOLD_MIN: Duration = Duration::from_secs(1);
/// How long a poll is held whose end shows that the link works, where `notifystart` cannot.
const PROBE_HOLD: Duration = Duration::from_secs(2);
/// Polls in a row that the service did not answer before it is asked whether it is there.
const SILENT_MAX: u32 = 5;

/// Where the store keeps what the names of messages begin with.
const NAMES: &str = "weixin.names";

/// What the next image needs to poll on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Saved {
    /// How long a poll may be held, in milliseconds, if the service has said so.
    #[serde(default)]
    hold_ms: Option<u64>,
    /// The service asked not to be polled before.
    #[serde(default)]
    asked_until: MonoNanos,
}

/// What [`WeixinLink::heard`] brings.
pub(super) struct Heard(Event);

enum Event {
    Built(Result<Api, WeixinError>),
    Started(Result<(), WeixinError>),
    Polled(Result<Updates, WeixinError>),
}

type Call = Pin<Box<dyn Future<Output = Event> + Send>>;

/// The HTTP client, or how far it is from being one.
enum Client {
    /// Being built: loading the root certificates would hold up the runtime.
    Building(JoinHandle<Result<Api, WeixinError>>),
    /// It could not be built.
    Broken {
        /// When it is tried again.
        again_at: MonoNanos,
    },
    /// To be used.
    Ready(WeixinSender, Api),
}

impl Client {
    fn build(config: &WeixinConfig) -> Self {
        let config = config.clone();
        let build = move || Api::new(&config.base_url, &config.cdn_url, Some(config.token));
        Self::Building(tokio::task::spawn_blocking(build))
    }

    /// Waits for a client that is being built; for ever if none is.
    async fn built(&mut self) -> Result<Api, WeixinError> {
        match self {
            Self::Building(handle) => outcome(handle.await),
            Self::Broken { .. } | Self::Ready(..) => std::future::pending().await,
        }
    }
}

/// The poll, or the word before it.
#[derive(Default)]
struct Poll {
    call: Option<Call>,
    opened_at: MonoNanos,
    cursor: String,
    hold: Option<Duration>,
    /// The service does not know `notifystart`.
    mute: bool,
    /// Polls in a row that were not answered.
    silent: u32,
    failures: u32,
    not_before: MonoNanos,
    /// The part of `not_before` that the service asked for.
    asked_until: MonoNanos,
    recent: Recent,
}

/// See the module's documentation.
pub(super) struct WeixinLink {
    config: WeixinConfig,
    /// What the names of messages begin with.
    names: String,
    client: Client,
    poll: Poll,
    /// The token is stale until then.
    stale_until: Option<MonoNanos>,
    state: LinkState,
}

impl WeixinLink {
    pub(super) fn new(config: WeixinConfig) -> Self {
        Self {
            client: Client::build(&config),
            config,
            names: format!("{:016x}", u64::from_le_bytes(random::some())),
            poll: Poll::default(),
            stale_until: None,
            state: LinkState::Connecting,
        }
    }

    /// Opens a poll if none is open and it is time; says when it is.
    fn open_poll(&mut self, now: MonoNanos) -> Option<MonoNanos> {
        let Client::Ready(_, api) = &self.client else { return None };
        if self.poll.call.is_some() {
            return None;
        }
        if self.poll.not_before > now {
            return Some(self.poll.not_before);
        }
        let api = api.clone();
        let is_known = self.state == LinkState::Connected && (self.poll.mute || self.poll.silent < SILENT_MAX);
        self.poll.opened_at = now;
        self.poll.call = Some(if is_known || self.poll.mute {
            let (cursor, hold) = (self.poll.cursor.clone(), self.poll.hold.unwrap_or(POLL_DEADLINE));
            let hold = if is_known { hold } else { PROBE_HOLD };
            Box::pin(async move { Event::Polled(api.get_updates(&cursor, hold).await) })
        } else {
            Box::pin(async move { Event::Started(api.notify_start().await) })
        });
        None
    }

    fn built(&mut self, outcome: Result<Api, WeixinError>) {
        match outcome {
            Ok(api) => {
                let sender = WeixinSender::new(api.clone(), &self.config.account_id, &self.names);
                self.client = Client::Ready(sender, api);
            }
            Err(error) => {
                self.failed(&error.code(), Chain(&error).to_string(), None);
                self.client = Client::Broken { again_at: self.poll.not_before };
            }
        }
    }

    fn started(&mut self, outcome: Result<(), WeixinError>) {
        match outcome {
            Ok(()) => self.worked(),
            Err(error) => match error.disposition() {
                // The service can do without it, so the poll will say whether the link works.
                Disposition::GiveUp => self.poll.mute = true,
                _ => self.trouble(&error),
            },
        }
    }

    async fn polled(&mut self, outcome: Result<Updates, WeixinError>, store: &Store) -> Vec<(TurnId, Inbound)> {
        let updates = match outcome {
            Ok(updates) => updates,
            Err(error) => {
                self.trouble(&error);
                return Vec::new();
            }
        };
        let is_answer = updates.cursor.is_some() || !updates.messages.is_empty();
        self.poll.silent = if is_answer { 0 } else { self.poll.silent.saturating_add(1) };
        self.poll.hold = updates.hold.or(self.poll.hold);
        let cursor = updates.cursor.as_deref().filter(|cursor| *cursor != self.poll.cursor);
        let account = &self.config.account_id;
        let batch = intake::take(&updates.messages, cursor, account, &mut self.poll.recent, store).await;
        if let Some(error) = batch.failure {
            // It is not the service that is to be spared: once there is room again, messages must not wait for long.
            self.poll.failures = 0;
            self.failed("store", Chain(&error).to_string(), None);
        } else {
            self.worked();
            match cursor {
                Some(cursor) => self.poll.cursor = cursor.to_owned(),
                // The same would come again at once, for ever.
                None if MonoNanos::now().since(self.poll.opened_at) < HOLD_MIN => {
                    self.poll.not_before = after(self.poll.opened_at, HOLD_MIN);
                }
                None => {}
            }
        }
        batch.new
    }

    fn worked(&mut self) {
        self.poll.failures = 0;
        self.poll.asked_until = MonoNanos::default();
        self.state = LinkState::Connected;
    }

    fn trouble(&mut self, error: &WeixinError) {
        match error.disposition() {
            Disposition::Stale => self.stale(&error.code(), &Chain(error).to_string()),
            Disposition::Retry { after } => self.failed(&error.code(), Chain(error).to_string(), after),
            Disposition::GiveUp => self.failed(&error.code(), Chain(error).to_string(), None),
        }
    }

    fn failed(&mut self, code: &str, message: String, asked: Option<Duration>) {
        self.poll.failures = self.poll.failures.saturating_add(1);
        let own = if self.poll.failures < FAILURES_MAX { RETRY_WAIT } else { LONG_RETRY_WAIT };
        let wait = asked.unwrap_or(own);
        self.poll.not_before = after(MonoNanos::now(), wait);
        self.poll.asked_until = if asked.is_some() { self.poll.not_before } else { MonoNanos::default() };
        let known = matches!(&self.state, LinkState::Retrying { error_code, .. } if error_code == code);
        if !known {
            tracing::warn!(code, error = %message, "Weixin cannot be polled and is tried again");
        }
        self.state = retrying(code, message, wait);
    }

    /// Nothing is asked of the account for an hour.
    fn stale(&mut self, code: &str, why: &str) {
        tracing::error!(error = why, "Weixin says that the token is stale: nothing is received or sent for an hour");
        self.poll.call = None;
        let until = after(MonoNanos::now(), STALE_PAUSE);
        (self.poll.not_before, self.stale_until) = (until, Some(until));
        let told = format!(
            "the login has expired ({why}): run `hermes weixin login`, then `hermes gateway reload`; until then it is \
             tried once an hour"
        );
        self.state = retrying(code, told, STALE_PAUSE);
    }
}

impl Link for WeixinLink {
    const PLATFORM: &'static str = PLATFORM;
    type Heard = Heard;
    type Sender = WeixinSender;
    type Saved = Saved;

    fn account(&self) -> &str {
        &self.config.account_id
    }

    fn restore(&mut self, saved: Saved, _fds: Vec<NamedFd>) {
        self.poll.hold = saved.hold_ms.map(Duration::from_millis);
        (self.poll.not_before, self.poll.asked_until) = (saved.asked_until, saved.asked_until);
    }

    /// Without a stored cursor the service sends again what it still has, and the store drops what it knows.
    async fn load(&mut self, store: &Store) {
        let account = &self.config.account_id;
        match store.cursor(PLATFORM, account).await {
            Ok(cursor) => self.poll.cursor = cursor.unwrap_or_default(),
            Err(error) => tracing::warn!(error = %Chain(&error), "the position in the messages cannot be read"),
        }
        // A new database counts its entries anew and needs other names.
        match store.meta_or(NAMES, self.names.clone()).await {
            Ok(names) => self.names = names,
            Err(error) => tracing::warn!(error = %Chain(&error), "what messages are called cannot be read"),
        }
    }

    fn advance(&mut self, now: MonoNanos, may_hear: bool) -> Option<MonoNanos> {
        if let Client::Broken { again_at } = self.client {
            if again_at > now {
                return Some(again_at);
            }
            self.client = Client::build(&self.config);
        }
        self.stale_until = self.stale_until.filter(|until| *until > now);
        let lapse = match &self.client {
            Client::Ready(sender, _) => sender.lapse(now),
            Client::Building(_) | Client::Broken { .. } => None,
        };
        let poll = if may_hear { self.open_poll(now) } else { None };
        [lapse, poll, self.stale_until].into_iter().flatten().min()
    }

    async fn heard(&mut self) -> Heard {
        tokio::select! {
            outcome = self.client.built() => Heard(Event::Built(outcome)),
            event = under_way(&mut self.poll.call) => {
                self.poll.call = None;
                Heard(event)
            }
        }
    }

    async fn take(&mut self, Heard(event): Heard, store: &Store) -> Vec<(TurnId, Inbound)> {
        match event {
            Event::Built(outcome) => self.built(outcome),
            Event::Started(outcome) => {
                self.poll.silent = 0;
                self.started(outcome);
            }
            Event::Polled(outcome) => return self.polled(outcome, store).await,
        }
        Vec::new()
    }

    fn hush(&mut self) {
        // It has confirmed nothing, so it may be dropped.
        self.poll.call = None;
    }

    fn way(&self) -> Way<WeixinSender> {
        match &self.client {
            Client::Ready(sender, _) if self.stale_until.is_none() => Way::Open(sender.clone()),
            Client::Building(_) => Way::Soon,
            Client::Ready(..) | Client::Broken { .. } => Way::Closed,
        }
    }

    fn sent(&mut self) {
        if self.state == LinkState::Connecting {
            self.state = LinkState::Connected;
        }
    }

    fn refused(&mut self, why: &Unsent) {
        if self.stale_until.is_none() {
            self.stale(&why.code, &why.why);
        }
    }

    fn state(&self) -> &LinkState {
        &self.state
    }

    fn save(&self) -> Saved {
        let hold_ms = self.poll.hold.and_then(|hold| u64::try_from(hold.as_millis()).ok());
        Saved { hold_ms, asked_until: self.poll.asked_until }
    }

    async fn leave(&mut self, _store: &Store) {
        if let Client::Ready(_, api) = &self.client
            && !self.poll.mute
            && self.stale_until.is_none()
            && let Err(error) = api.notify_stop().await
        {
            tracing::debug!(error = %Chain(&error), "the service does not know that nobody listens any more");
        }
    }
}
