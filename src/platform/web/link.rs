//! How messages come in from browsers, and the state of the listener.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::auth::Auth;
use super::board::{Board, Growing};
use super::message::{Author, Format, Message};
use super::sender::WebSender;
use super::server::Server;
use super::shown::Shown;
use super::site::{Hosts, Post, Site};
use super::{PLATFORM, token};
use crate::chat::{Inbound, LinkState};
use crate::clock::MonoNanos;
use crate::config::{Secret, WebConfig};
use crate::id::TurnId;
use crate::platform::delivery::pace::after;
use crate::platform::link::{Kept, Link, NamedFd, Unsent, Way, retrying};
use crate::platform::listener::Listener;
use crate::report::Chain;
use crate::store::{Accepted, Store};

/// What the listener is called among the fds of the platform.
pub const LISTENER: &str = "listener";
/// Messages that wait to be stored.
const POSTS_MAX: usize = 16;
/// Between two attempts to listen.
const RETRY: Duration = Duration::from_secs(5);

/// What the next image needs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct SavedLink {
    #[serde(default)]
    growing: Vec<Growing>,
}

/// See the module's documentation.
pub(super) struct WebLink {
    config: WebConfig,
    /// Where the token is that the gateway makes.
    token_file: PathBuf,
    token: Option<Secret>,
    board: Arc<Board>,
    shown: watch::Receiver<Arc<Shown>>,
    listener: Listener,
    /// Both once the gateway listens.
    server: Option<(Server, Arc<Site>)>,
    posts: mpsc::Receiver<Post>,
    post: mpsc::Sender<Post>,
    may_hear: bool,
    is_frozen: bool,
    /// A handoff is under way, or a stop, and no rehearsal.
    is_leaving: bool,
    not_before: MonoNanos,
    state: LinkState,
}

impl WebLink {
    pub(super) fn new(
        config: WebConfig,
        token_file: PathBuf,
        store: Store,
        shown: watch::Receiver<Arc<Shown>>,
    ) -> Self {
        let (post, posts) = mpsc::channel(POSTS_MAX);
        Self {
            token: config.token.clone(),
            config,
            token_file,
            board: Arc::new(Board::new(store)),
            shown,
            listener: Listener::new(LISTENER),
            server: None,
            posts,
            post,
            may_hear: false,
            is_frozen: false,
            is_leaving: false,
            not_before: MonoNanos::default(),
            state: LinkState::Connecting,
        }
    }

    /// Listens, if it does not.
    fn listen(&mut self) -> Result<(), String> {
        let token = match &self.token {
            Some(token) => token.clone(),
            None => token::kept_or_made(&self.token_file).map_err(|error| Chain(&error).to_string())?,
        };
        let place = self.config.listen.unwrap_or(WebConfig::LISTEN);
        let told =
            |error: std::io::Error| format!("cannot listen at {place}: {error}; change 'listen' in [platforms.web]");
        let listener = self.listener.listen(place).map_err(told)?;
        let address = listener.local_addr().map_err(told)?;
        let auth = Auth::new(&token, self.config.guest_token.as_ref());
        let hosts = Hosts::new(self.config.hosts.clone(), address);
        let site = Site::new(auth, hosts, Arc::clone(&self.board), self.post.clone(), self.shown.clone());
        let site = Arc::new(site);
        let server = Server::start(listener, Arc::clone(&site)).map_err(told)?;
        tracing::info!(%address, "the web page is there");
        self.token = Some(token);
        self.server = Some((server, site));
        Ok(())
    }

    /// Lets event streams end in order if the image leaves. Browsers come again, and nothing waits for them.
    fn end_streams(&self) {
        if self.is_leaving
            && let Some((_, site)) = &self.server
        {
            site.leave.send_replace(());
        }
    }

    async fn store(&self, inbound: Inbound) -> Result<(Option<(TurnId, Inbound)>, i64), crate::store::StoreError> {
        let message = Message {
            from: Author::User,
            name: inbound.sender.name.clone(),
            at: inbound.sent_at,
            text: inbound.text.clone(),
            format: Format::Plain,
            is_final: true,
            id: Some(inbound.message_id.clone()),
            choices: Vec::new(),
            file: None,
        };
        let (accepted, number) = self.board.say(&inbound, message).await?;
        Ok(match accepted {
            Accepted::New(turn) => (Some((turn, inbound)), number),
            Accepted::Duplicate => (None, number),
        })
    }
}

impl Link for WebLink {
    const PLATFORM: &'static str = PLATFORM;
    type Heard = Post;
    type Sender = WebSender;
    type Saved = SavedLink;

    fn account(&self) -> &str {
        PLATFORM
    }

    fn restore(&mut self, saved: SavedLink, fds: Vec<NamedFd>) {
        self.board.restore(saved.growing);
        self.listener.restore(fds, Some(self.config.listen));
    }

    async fn load(&mut self, _: &Store) {}

    fn advance(&mut self, now: MonoNanos, may_hear: bool) -> Option<MonoNanos> {
        self.may_hear = may_hear;
        if let Some((_, site)) = &self.server {
            if may_hear {
                site.is_paused.store(false, Ordering::Relaxed);
            }
            return None;
        }
        if self.not_before > now {
            return Some(self.not_before);
        }
        match self.listen() {
            Ok(()) => {
                self.state = LinkState::Connected;
                None
            }
            Err(why) => {
                self.state = retrying("listen", why, RETRY);
                self.not_before = after(now, RETRY);
                Some(self.not_before)
            }
        }
    }

    async fn heard(&mut self) -> Post {
        if self.may_hear
            && let Some(post) = self.posts.recv().await
        {
            return post;
        }
        std::future::pending().await
    }

    async fn take(&mut self, Post { inbound, stored }: Post, _: &Store) -> Vec<(TurnId, Inbound)> {
        let (new, number) = match self.store(inbound).await {
            Ok((new, number)) => (new, Some(number)),
            Err(error) => {
                tracing::error!(error = %Chain(&error), "cannot store a message");
                (None, None)
            }
        };
        // Whoever has gone away sends it again.
        let _gone = stored.send(number);
        new.into_iter().collect()
    }

    fn hush(&mut self) {
        self.may_hear = false;
        // Held for a rehearsal, the image stays.
        self.is_leaving |= !self.is_frozen;
        self.end_streams();
    }

    fn freeze(&mut self) {
        self.is_frozen = true;
        self.end_streams();
        if let Some((server, _)) = &self.server {
            server.set_open(false);
        }
    }

    fn thaw(&mut self) {
        (self.is_frozen, self.is_leaving) = (false, false);
        if let Some((server, _)) = &self.server {
            server.set_open(true);
        }
    }

    fn way(&self) -> Way<WebSender> {
        // Nobody needs to be there.
        Way::Open(WebSender { board: Arc::clone(&self.board) })
    }

    fn refused(&mut self, _: &Unsent) {}

    fn state(&self) -> &LinkState {
        &self.state
    }

    fn save(&self) -> SavedLink {
        SavedLink { growing: self.board.growing() }
    }

    fn fds(&self) -> std::io::Result<Vec<NamedFd>> {
        self.listener.fds()
    }

    fn take_kept(&mut self) -> Vec<Kept> {
        self.listener.take_kept()
    }

    /// The pages stay; who writes is told.
    fn pause(&mut self) {
        self.may_hear = false;
        if let Some((_, site)) = &self.server {
            site.is_paused.store(true, Ordering::Relaxed);
        }
    }
}
