//! Updates that Telegram posts, instead of being polled: the listener, the secret, and what Telegram was told.
//!
//! **Invariants**
//! - The listener outlives the image and the process: it is handed over, and kept for a process that is killed. So nobody
//!   who connects is refused.
//! - Telegram is told of the webhook only while the gateway listens. A webhook that is no longer configured is taken away if
//!   it is the gateway's own, by the address that the store remembers; another's never is.
//! - No address of a webhook and no secret is logged.

mod server;

use std::io;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::api::WebhookInfo;
use crate::clock::{MonoNanos, UnixMillis};
use crate::config::{Secret, WebhookConfig};
use crate::hex;
use crate::platform::link::{Kept, NamedFd};
use crate::platform::listener::Listener;
use crate::report::Chain;
use crate::store::Store;
use crate::sys::random;
pub(super) use server::Posted;
use server::Server;

/// A failure of a post that is older says nothing of now; Telegram tries again within a minute or so.
const TROUBLE_AGE_MAX: Duration = Duration::from_secs(600);
/// What the listener is called among the fds of the platform.
pub const LISTENER: &str = "webhook";
/// Where the store keeps the secret that the gateway made.
const SECRET_KEY: &str = "telegram.webhook_secret";
/// Where the store keeps the address that Telegram was told.
const URL_KEY: &str = "telegram.webhook_url";

/// The webhook, if one is configured, or was.
pub(super) struct Webhook {
    config: Option<WebhookConfig>,
    listener: Listener,
    server: Option<Server>,
    /// Either as configured, or as it was made.
    secret: Option<Secret>,
    /// What Telegram was told, as a hash.
    pub(super) told: Option<String>,
    /// When Telegram is asked whether it still knows.
    pub(super) look_at: MonoNanos,
    /// When an update was posted and stored the last time.
    pub(super) heard_at: UnixMillis,
    /// The address of an earlier configuration, which Telegram is to forget.
    former: Option<Secret>,
}

impl Webhook {
    pub(super) fn new(config: Option<WebhookConfig>) -> Self {
        let secret = config.as_ref().and_then(|config| config.secret.clone());
        let (listener, server, told, former) = (Listener::new(LISTENER), None, None, None);
        let (look_at, heard_at) = (MonoNanos::default(), UnixMillis::default());
        Self { config, listener, server, secret, told, look_at, heard_at, former }
    }

    /// Whether updates come by it.
    pub(super) fn is_configured(&self) -> bool {
        self.config.is_some()
    }

    /// How often Telegram is asked about it.
    pub(super) fn look_every(&self) -> Duration {
        self.config.as_ref().map_or(WebhookConfig::LOOK_EVERY, |config| config.look_every)
    }

    /// Where Telegram is to post to, and the secret.
    pub(super) fn address(&self) -> Option<(Secret, Secret)> {
        Some((self.config.as_ref()?.url.clone(), self.secret.clone()?))
    }

    /// A webhook that was the gateway's and is no longer configured.
    pub(super) fn former(&self) -> Option<Secret> {
        self.former.clone()
    }

    /// Takes over the listener of another image or process, or of systemd, if it is where the gateway is to listen.
    pub(super) fn restore(&mut self, fds: Vec<NamedFd>) {
        self.listener.restore(fds, self.config.as_ref().map(|config| config.listen));
    }

    /// Reads what the store remembers, and makes the secret if there is none.
    pub(super) async fn load(&mut self, store: &Store) {
        let url = store.meta(URL_KEY).await.unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "the webhook that was set cannot be read");
            None
        });
        if self.config.is_none() {
            self.former = url.filter(|url| !url.is_empty()).map(Secret::new);
        } else if self.secret.is_none() {
            self.secret = match store.meta(SECRET_KEY).await {
                Ok(Some(secret)) => Some(Secret::new(secret)),
                Ok(None) => made(store).await,
                // Telegram is told the new one, so it is no harm that it is another.
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "the secret of the webhook cannot be read");
                    made(store).await
                }
            };
        }
    }

    /// Listens, if it does not.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) fn listen(&mut self) -> io::Result<()> {
        let Some(config) = &self.config else { return Ok(()) };
        let secret = self.secret.as_ref().ok_or_else(|| io::Error::other("there is no secret for the webhook"))?;
        if self.server.is_some() {
            return Ok(());
        }
        let listener = self.listener.listen(config.listen)?;
        self.server = Some(Server::start(listener, secret)?);
        Ok(())
    }

    /// Whether updates are taken in.
    pub(super) fn set_open(&self, is_open: bool) {
        if let Some(server) = &self.server {
            server.set_open(is_open);
        }
    }

    /// The next update; waits for ever if none is taken in.
    pub(super) async fn posted(&mut self) -> Posted {
        match &mut self.server {
            Some(server) => server.posted().await,
            None => std::future::pending().await,
        }
    }

    /// Whether Telegram was told of just this webhook for these kinds of update.
    pub(super) fn is_told(&self, kinds: &[&str]) -> bool {
        self.told.is_some() && self.told == self.fingerprint(kinds)
    }

    fn fingerprint(&self, kinds: &[&str]) -> Option<String> {
        let (url, secret) = self.address()?;
        let digest = Sha256::digest(format!("{}\n{}\n{kinds:?}", url.expose(), secret.expose()));
        Some(hex::encode(&digest[..16]))
    }

    /// Why Telegram cannot post, in its words: updates wait, and the last try failed a short time ago, after whatever
    /// has come through.
    pub(super) fn trouble<'a>(&self, info: &'a WebhookInfo) -> Option<&'a str> {
        let failed_at = UnixMillis(info.last_error_date?.saturating_mul(1000));
        let is_recent = UnixMillis::now().since(failed_at) < TROUBLE_AGE_MAX && failed_at > self.heard_at;
        (info.pending_update_count > 0 && is_recent)
            .then(|| info.last_error_message.as_deref().unwrap_or("no reason told"))
    }

    /// Telegram knows: so it is to forget, should the configuration change.
    pub(super) async fn was_told(&mut self, kinds: &[&str], store: &Store) {
        self.told = self.fingerprint(kinds);
        if let Some((url, _)) = self.address() {
            remember(store, url.expose().to_owned()).await;
        }
    }

    /// Telegram has forgotten the former webhook, or never knew it.
    pub(super) async fn was_forgotten(&mut self, store: &Store) {
        self.former = None;
        remember(store, String::new()).await;
    }

    /// Duplicates of the fds that the next image needs.
    ///
    /// # Errors
    /// Why they cannot be duplicated.
    pub(super) fn fds(&self) -> io::Result<Vec<NamedFd>> {
        self.listener.fds()
    }

    pub(super) fn take_kept(&mut self) -> Vec<Kept> {
        self.listener.take_kept()
    }
}

async fn made(store: &Store) -> Option<Secret> {
    let bytes = match random::bytes::<32>() {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(%error, "the kernel gives no secret for the webhook");
            return None;
        }
    };
    let secret = hex::encode(&bytes);
    if let Err(error) = store.set_meta(SECRET_KEY, secret.clone()).await {
        tracing::warn!(error = %Chain(&error), "the secret of the webhook is not recorded: the next process makes another");
    }
    Some(Secret::new(secret))
}

async fn remember(store: &Store, url: String) {
    if let Err(error) = store.set_meta(URL_KEY, url).await {
        tracing::warn!(error = %Chain(&error), "the webhook is not recorded: it may have to be taken away by hand");
    }
}
