//! How messages come in from browsers, and the state of the listener.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, watch};

use super::auth::Auth;
use super::board::{Board, Growing};
use super::message::{Author, Format, Message};
use super::sender::WebSender;
use super::server::Server;
use super::shown::Shown;
use super::site::{Hosts, Post, STREAMS_MAX, Site};
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
    /// An admin has paused the chat; also for [`Site`].
    is_paused: Arc<AtomicBool>,
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
            is_paused: Arc::default(),
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
        let place = self.config.listen;
        let told =
            |error: std::io::Error| format!("cannot listen at {place}: {error}; change 'listen' in [platforms.web]");
        let listener = self.listener.listen(place).map_err(told)?;
        let address = listener.local_addr().map_err(told)?;
        let auth = Auth::new(&token, self.config.guest_token.as_ref());
        let hosts = Hosts::new(self.config.hosts.clone(), address);
        let site = Arc::new(Site {
            auth,
            hosts,
            board: Arc::clone(&self.board),
            posts: self.post.clone(),
            shown: self.shown.clone(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            is_paused: Arc::clone(&self.is_paused),
            leave: watch::Sender::default(),
        });
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
        if may_hear {
            self.is_paused.store(false, Ordering::Relaxed);
        }
        if self.server.is_some() {
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
        // Who sent it was told to come again, or has gone.
        if stored.is_closed() {
            return Vec::new();
        }
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
        // Held for a rehearsal, the image stays. Whoever comes again meanwhile is not sent away with every command.
        if !self.is_frozen && !std::mem::replace(&mut self.is_leaving, true) {
            self.end_streams();
        }
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
        self.is_paused.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::sync::oneshot;

    use super::*;
    use crate::chat::{Conversation, Sender};
    use crate::clock::UnixMillis;
    use crate::store::Span;

    /// A link, its store, and the directory of both.
    fn link(listen: SocketAddr) -> (WebLink, Store, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        let config = WebConfig {
            listen,
            hosts: Vec::new(),
            token: Some(Secret::new("the token of the owner")),
            guest_token: None,
            access: WebConfig::access(false, false, crate::words::Language::En),
        };
        let (_, shown) = watch::channel(Arc::new(Shown::default()));
        (WebLink::new(config, dir.path().join("web-token"), store.clone(), shown), store, dir)
    }

    #[tokio::test]
    async fn streams_are_ended_once_at_a_drain_and_once_at_the_freeze_and_never_at_a_rehearsal() {
        let (mut link, ..) = link("127.0.0.1:0".parse().expect("an address"));
        assert!(link.advance(MonoNanos::now(), true).is_none());
        let mut leave = link.server.as_ref().expect("it listens").1.leave.subscribe();
        let mut is_told = || {
            let is_told = leave.has_changed().expect("it is there");
            leave.mark_unchanged();
            is_told
        };
        link.freeze();
        link.hush();
        assert!(!is_told(), "a rehearsal");
        link.thaw();
        for (wanted, what) in [(true, "the drain begins"), (false, "another command"), (false, "and another")] {
            link.hush();
            assert_eq!(is_told(), wanted, "{what}");
        }
        link.freeze();
        assert!(is_told(), "who has come again meanwhile");
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_said() {
        let (mut link, store, _dir) = link(WebConfig::LISTEN);
        let inbound = Inbound {
            conversation: Conversation::new(PLATFORM, "owner"),
            account: "owner".to_owned(),
            message_id: "1".to_owned(),
            sender: Sender { id: "owner".to_owned(), name: "owner".to_owned() },
            sent_at: UnixMillis(1),
            text: "late".to_owned(),
            is_direct: true,
            attachments: Vec::new(),
            context: None,
        };
        let (stored, gone) = oneshot::channel();
        drop(gone);
        assert!(link.take(Post { inbound: inbound.clone(), stored }, &store).await.is_empty());
        assert!(store.lines("owner", Span::Behind(0), 9).await.expect("reads").is_empty());
        let (stored, number) = oneshot::channel();
        assert_eq!(link.take(Post { inbound, stored }, &store).await.len(), 1);
        assert!(number.await.expect("an answer").is_some());
    }

    #[tokio::test]
    async fn a_listener_elsewhere_is_not_taken_over_when_no_place_is_configured() {
        let (mut link, ..) = link(WebConfig::LISTEN);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        link.restore(SavedLink::default(), vec![(LISTENER.to_owned(), listener.into())]);
        let kept = link.take_kept();
        assert!(kept.iter().all(|kept| kept.fd.is_none()) && kept.len() == 1, "it is closed");
    }
}
