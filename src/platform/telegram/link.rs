//! How updates come in: by long polling, or by a webhook ([`super::webhook`]).
//!
//! **Invariants**
//! - Never both: a webhook that is configured is set before anything comes, and one that was is taken away before
//!   anything is polled for.
//! - An update is confirmed only after the store has it; a poll may be dropped at any time, because dropping it
//!   confirms nothing.
//! - Nothing is polled for while the task has no room for what may come.

use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::task::JoinHandle;

use super::PLATFORM;
use super::api::{Api, Disposition, Me, TelegramError, WebhookInfo};
use super::chores::{Chores, Ended};
use super::fences::Fences;
use super::intake::{self, Account};
use super::sender::TelegramSender;
use super::webhook::{Posted, Webhook};
use crate::chat::{Inbound, LinkState};
use crate::clock::{MonoNanos, UnixMillis};
use crate::config::TelegramConfig;
use crate::fault::{self, Point};
use crate::id::TurnId;
use crate::platform::delivery::pace::{after, back_off};
use crate::platform::link::{Kept, Link, NamedFd, Unsent, Way, retrying};
use crate::platform::pending::{outcome, under_way};
use crate::report::Chain;
use crate::store::Store;

/// How long the server holds a poll; Telegram's own limit.
const HOLD: Duration = Duration::from_secs(50);
/// A held poll that is answered sooner with nothing is not repeated at once: something between does not hold it.
const HOLD_MIN: Duration = Duration::from_secs(1);

/// What the next image needs to poll on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Saved {
    /// The bot's name, so that it need not be asked for.
    #[serde(default)]
    username: Option<String>,
    /// Polls that failed in a row.
    #[serde(default)]
    poll_failures: u32,
    /// Telegram asked not to be polled before.
    #[serde(default)]
    poll_asked_until: MonoNanos,
    /// The menu that Telegram has, as a hash.
    #[serde(default)]
    menu: Option<String>,
    /// The webhook that Telegram knows, as a hash.
    #[serde(default)]
    webhook: Option<String>,
    /// Blocks of code that go on over pages.
    #[serde(default)]
    fences: serde_json::Value,
}

/// How a poll ended.
enum Polled {
    Me(Result<Me, TelegramError>),
    Updates(Result<Vec<Box<RawValue>>, TelegramError>),
    /// 409, with whether a webhook is set, if that could be found out.
    Conflict(TelegramError, Option<bool>),
    /// Telegram was told of the webhook.
    HookSet(Result<(), TelegramError>),
    /// What Telegram knows of a webhook.
    HookSeen(Result<WebhookInfo, TelegramError>),
    /// The former webhook was taken away.
    HookGone(Result<(), TelegramError>),
}

/// What [`TelegramLink::heard`] brings.
pub(super) struct Heard(Event);

enum Event {
    Built(Result<Api, TelegramError>),
    Polled(Polled),
    Chore(Ended),
    Posted(Posted),
}

type PollFuture = Pin<Box<dyn Future<Output = Polled> + Send>>;

/// The HTTP client, or how far it is from being one.
enum Client {
    /// Being built: loading the root certificates would hold up the runtime.
    Building(JoinHandle<Result<Api, TelegramError>>),
    /// It could not be built.
    Broken {
        /// When it is tried again.
        again_at: MonoNanos,
    },
    /// To be used.
    Ready(Api),
}

impl Client {
    fn build(config: &TelegramConfig) -> Self {
        let config = config.clone();
        Self::Building(tokio::task::spawn_blocking(move || Api::new(&config)))
    }

    /// Waits for a client that is being built; for ever if none is.
    async fn built(&mut self) -> Result<Api, TelegramError> {
        match self {
            Self::Building(handle) => outcome(handle.await),
            Self::Broken { .. } | Self::Ready(_) => std::future::pending().await,
        }
    }
}

#[derive(Default)]
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

/// See the module's documentation.
pub(super) struct TelegramLink {
    config: TelegramConfig,
    account: Account,
    client: Client,
    poll: Poll,
    chores: Chores,
    webhook: Webhook,
    fences: Fences,
    state: LinkState,
}

impl TelegramLink {
    pub(super) fn new(config: TelegramConfig) -> Self {
        // A token without a colon is none; Telegram will say so.
        let id = config.token.expose().split_once(':').map_or("unknown", |(id, _)| id).to_owned();
        Self {
            client: Client::build(&config),
            webhook: Webhook::new(config.webhook.clone()),
            config,
            account: Account { id, username: None },
            poll: Poll::default(),
            chores: Chores::default(),
            fences: Fences::default(),
            state: LinkState::Connecting,
        }
    }

    fn is_refused(&self) -> bool {
        matches!(self.state, LinkState::Fatal { .. })
    }

    /// Opens a poll, or asks what comes before one, if nothing is asked and it is time; says when it is.
    fn open_poll(&mut self, now: MonoNanos) -> Option<MonoNanos> {
        let Client::Ready(api) = &self.client else { return None };
        if self.poll.future.is_some() || self.is_refused() {
            return None;
        }
        if self.poll.not_before > now {
            return Some(self.poll.not_before);
        }
        let api = api.clone();
        self.poll.opened_at = now;
        self.poll.held = false;
        self.poll.future = Some(if self.account.username.is_none() {
            Box::pin(async move { Polled::Me(api.get_me().await) })
        } else if self.webhook.is_configured() {
            return self.open_hook(api, now);
        } else if let Some(former) = self.webhook.former() {
            Box::pin(async move { Polled::HookGone(api.forget_webhook(&former).await) })
        } else {
            // Until the link is known to work the poll is short, so that this is known within a round trip.
            self.poll.held = self.state == LinkState::Connected;
            let hold = if self.poll.held { HOLD } else { Duration::ZERO };
            Box::pin(poll(api, self.poll.offset, hold))
        });
        None
    }

    /// Listens, tells Telegram of the webhook, and looks from time to time whether it still knows.
    fn open_hook(&mut self, api: Api, now: MonoNanos) -> Option<MonoNanos> {
        if let Err(error) = self.webhook.listen() {
            self.poll_failed("listen", format!("cannot listen for the webhook: {error}"), None);
            return Some(self.poll.not_before);
        }
        self.webhook.set_open(true);
        let is_told = self.webhook.is_told(intake::KINDS);
        if is_told && self.webhook.look_at > now {
            return Some(self.webhook.look_at);
        }
        let (url, secret) = self.webhook.address()?;
        self.poll.future = Some(if is_told {
            Box::pin(async move { Polled::HookSeen(api.get_webhook_info().await) })
        } else {
            Box::pin(async move { Polled::HookSet(api.set_webhook(&url, &secret, intake::KINDS).await) })
        });
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

    async fn polled(&mut self, polled: Polled, store: &Store) -> Vec<(TurnId, Inbound)> {
        match polled {
            Polled::Me(Ok(me)) => {
                self.account.username = Some(me.username.unwrap_or_default());
                // With a webhook nothing comes in before Telegram was told of it.
                if !self.webhook.is_configured() {
                    self.poll_worked();
                }
            }
            Polled::Updates(Ok(updates)) => {
                if std::mem::replace(&mut self.poll.unconfirmed, false) {
                    fault::at(Point::Confirmed);
                }
                return self.take_updates(updates, store).await;
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
            Polled::HookSet(Ok(())) => {
                self.webhook.was_told(intake::KINDS, store).await;
                self.hook_worked();
            }
            Polled::HookSeen(Ok(info)) => self.hook_seen(&info),
            Polled::HookGone(Ok(())) => self.webhook.was_forgotten(store).await,
            Polled::Me(Err(error))
            | Polled::Updates(Err(error))
            | Polled::HookSet(Err(error))
            | Polled::HookSeen(Err(error))
            | Polled::HookGone(Err(error)) => match error.disposition() {
                Disposition::Fatal => self.token_refused(&error.code(), &Chain(&error).to_string()),
                Disposition::Retry { after } => self.poll_failed(&error.code(), Chain(&error).to_string(), after),
                Disposition::GiveUp => self.poll_failed(&error.code(), Chain(&error).to_string(), None),
            },
        }
        Vec::new()
    }

    async fn take_updates(&mut self, updates: Vec<Box<RawValue>>, store: &Store) -> Vec<(TurnId, Inbound)> {
        if !updates.is_empty() {
            fault::at(Point::Received);
        }
        let mut batch = intake::take(&updates, &self.account, store).await;
        self.chores.pressed(std::mem::take(&mut batch.presses));
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
        batch.new
    }

    /// Whoever else took the webhook away, it is set again.
    fn hook_seen(&mut self, info: &WebhookInfo) {
        let is_ours = self.webhook.address().is_some_and(|(url, _)| url.expose() == info.url);
        if !is_ours {
            tracing::warn!("the webhook of the bot was changed by somebody else and is set again");
            self.webhook.told = None;
        } else if let Some(why) = self.webhook.trouble(info) {
            let message = format!(
                "Telegram cannot post to webhook_url: {why}; see to the address, its certificate and the proxy, which \
                 passes it on to webhook_listen"
            );
            self.poll_failed("webhook", message, None);
        } else {
            self.hook_worked();
        }
    }

    fn hook_worked(&mut self) {
        self.webhook.look_at = after(MonoNanos::now(), self.webhook.look_every());
        self.poll_worked();
    }

    /// An update that was posted. It is answered only after it is stored, or can never be.
    async fn posted(&mut self, Posted { update, answer }: Posted, store: &Store) -> Vec<(TurnId, Inbound)> {
        let batch = intake::take_posted(&[update], &self.account, store).await;
        self.chores.pressed(batch.presses);
        if let Some(error) = &batch.failure {
            self.poll_failed("store", Chain(error).to_string(), None);
        } else if self.webhook.is_told(intake::KINDS) {
            self.webhook.heard_at = UnixMillis::now();
            self.poll_worked();
        }
        // Whoever posted it may have hung up: then it comes again, as a duplicate.
        let _heard = answer.send(batch.failure.is_none());
        batch.new
    }

    fn poll_worked(&mut self) {
        self.poll.failures = 0;
        self.poll.asked_until = MonoNanos::default();
        self.state = LinkState::Connected;
        self.chores.linked();
    }

    fn poll_failed(&mut self, code: &str, message: String, asked: Option<Duration>) {
        // Telegram may quote what it was told.
        let message = match self.webhook.address() {
            Some((url, secret)) => message.replace(url.expose(), "[webhook]").replace(secret.expose(), "[secret]"),
            None => message,
        };
        self.poll.failures = self.poll.failures.saturating_add(1);
        let wait = asked.unwrap_or_else(|| back_off(self.poll.failures));
        let now = MonoNanos::now();
        self.poll.not_before = after(now, wait);
        self.poll.asked_until = if asked.is_some() { self.poll.not_before } else { MonoNanos::default() };
        let known = matches!(&self.state, LinkState::Retrying { error_code, .. } if error_code == code);
        if !known {
            tracing::warn!(code, error = %message, "Telegram cannot be polled and is tried again");
        }
        self.state = retrying(code, message, wait);
    }

    fn token_refused(&mut self, code: &str, why: &str) {
        if self.is_refused() {
            return;
        }
        tracing::error!(error = why, "Telegram refuses the token: nothing is received or sent");
        self.poll.future = None;
        self.state = LinkState::Fatal {
            error_code: code.to_owned(),
            error_message: format!("{why}; check the token in [platforms.telegram] and the api_url, then reload"),
        };
    }
}

impl Link for TelegramLink {
    const PLATFORM: &'static str = PLATFORM;
    type Heard = Heard;
    type Sender = TelegramSender;
    type Saved = Saved;

    fn account(&self) -> &str {
        &self.account.id
    }

    fn restore(&mut self, saved: Saved, fds: Vec<NamedFd>) {
        self.webhook.told = saved.webhook;
        self.fences.restore(saved.fences);
        self.webhook.restore(fds);
        self.account.username = saved.username;
        self.chores.menu = saved.menu;
        self.poll.failures = saved.poll_failures;
        (self.poll.not_before, self.poll.asked_until) = (saved.poll_asked_until, saved.poll_asked_until);
    }

    /// Without a stored offset Telegram sends again what was never confirmed, and the store drops what it has.
    async fn load(&mut self, store: &Store) {
        match store.cursor(PLATFORM, &self.account.id).await {
            Ok(cursor) => self.poll.offset = cursor.and_then(|cursor| cursor.parse().ok()),
            Err(error) => tracing::warn!(error = %Chain(&error), "the position in the updates cannot be read"),
        }
        self.webhook.load(store).await;
    }

    fn advance(&mut self, now: MonoNanos, may_hear: bool) -> Option<MonoNanos> {
        if let Client::Broken { again_at } = self.client {
            if again_at > now {
                return Some(again_at);
            }
            self.client = Client::build(&self.config);
        }
        if !may_hear {
            return None;
        }
        if let Client::Ready(api) = &self.client
            && !self.is_refused()
        {
            self.chores.begin(api);
        }
        self.open_poll(now)
    }

    async fn heard(&mut self) -> Heard {
        tokio::select! {
            outcome = self.client.built() => Heard(Event::Built(outcome)),
            polled = under_way(&mut self.poll.future) => {
                self.poll.future = None;
                Heard(Event::Polled(polled))
            }
            ended = self.chores.ended() => Heard(Event::Chore(ended)),
            posted = self.webhook.posted() => Heard(Event::Posted(posted)),
        }
    }

    async fn take(&mut self, Heard(event): Heard, store: &Store) -> Vec<(TurnId, Inbound)> {
        match event {
            Event::Built(outcome) => {
                self.built(outcome);
                Vec::new()
            }
            Event::Polled(polled) => self.polled(polled, store).await,
            Event::Posted(posted) => self.posted(posted, store).await,
            Event::Chore(ended) => {
                self.chores.take(ended);
                Vec::new()
            }
        }
    }

    fn hush(&mut self) {
        // It has confirmed nothing, so it may be dropped.
        self.poll.future = None;
        self.chores.hush();
        self.webhook.set_open(false);
    }

    fn way(&self) -> Way<TelegramSender> {
        match &self.client {
            Client::Ready(api) if !self.is_refused() => {
                Way::Open(TelegramSender::new(api.clone(), self.fences.clone()))
            }
            Client::Building(_) => Way::Soon,
            Client::Ready(_) | Client::Broken { .. } => Way::Closed,
        }
    }

    fn sent(&mut self) {
        if self.state == LinkState::Connecting && !self.webhook.is_configured() {
            self.state = LinkState::Connected;
        }
    }

    fn refused(&mut self, why: &Unsent) {
        self.token_refused(&why.code, &why.why);
    }

    fn state(&self) -> &LinkState {
        &self.state
    }

    fn save(&self) -> Saved {
        Saved {
            username: self.account.username.clone(),
            poll_failures: self.poll.failures,
            poll_asked_until: self.poll.asked_until,
            menu: self.chores.menu.clone(),
            webhook: self.webhook.told.clone(),
            fences: self.fences.save(),
        }
    }

    fn fds(&self) -> std::io::Result<Vec<NamedFd>> {
        self.webhook.fds()
    }

    fn take_kept(&mut self) -> Vec<Kept> {
        self.webhook.take_kept()
    }
}

/// Asks for updates, and what else takes them if nothing else may.
async fn poll(api: Api, offset: Option<i64>, hold: Duration) -> Polled {
    match api.get_updates(offset, hold, intake::KINDS).await {
        Err(error @ TelegramError::Refused { code: 409, .. }) => {
            let webhook = api.get_webhook_info().await.ok().map(|info| !info.url.is_empty());
            Polled::Conflict(error, webhook)
        }
        outcome => Polled::Updates(outcome),
    }
}
