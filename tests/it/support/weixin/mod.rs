//! An iLink server for tests: what a bot can see of Weixin, and what a test wants to know of a bot.
//!
//! - `state`: messages, the log of calls, files, the script of a login; plain data.
//! - `rules`: what every request must look like.
//! - `methods`: the methods of `ilink/bot/…`.
//! - `cdn`: encrypted files up and down.
//! - `crypto`: AES-128-ECB and MD5.
//! - `control`: the test's side over HTTP, under `/control/`.
//! - `main.rs`: the server as a process (`cargo run --example weixin-server`).
//!
//! It is stricter than the service: whatever breaks the protocol is refused with HTTP 400 and kept in
//! [`state::State::complaints`]. Everything after the cursor of a poll comes again, for ever. `sendmessage` carries out a repeat of a
//! `client_id` once more, because it is not known what the service does, and notes it. A wrong bearer token is answered
//! like a stale one. `scripts/check-weixin-server` compares it with an independent client.

mod cdn;
pub mod control;
pub mod crypto;
mod methods;
mod rules;
pub mod state;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get, post};
use serde_json::Value;
use tokio::net::TcpListener;

use super::faults::Fault;
use state::State;

/// The largest request: a file of 25 MiB, encrypted.
const BODY_BYTES_MAX: usize = 32 << 20;

/// What the server knows.
pub type Shared = super::shared::Shared<State>;

impl Shared {
    /// Serves the API, the CDN and the control endpoints until the task is dropped.
    pub async fn serve(self, listener: TcpListener) {
        let router = Router::new()
            .route("/control/say", post(control::say))
            .route("/control/put", post(control::put))
            .route("/control/file", post(control::file))
            .route("/control/fault", post(control::fault))
            .route("/control/set", post(control::set))
            .route("/control/state", get(control::state))
            .route("/ilink/bot/{method}", any(methods::call))
            .route("/ilink/bot/msg/{method}", any(methods::call))
            .route("/c2c/upload", post(cdn::upload))
            .route("/c2c/download", get(cdn::download))
            .fallback(methods::not_found)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(self);
        axum::serve(listener, router).await.expect("a bound listener serves");
    }
}

/// A server in the process of the test.
pub struct WeixinServer {
    shared: Shared,
    url: String,
    task: tokio::task::JoinHandle<()>,
}

impl WeixinServer {
    /// Starts one on a free port of the loopback.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let shared = Shared::new(State::new("secret-token-of-the-test-bot", "testbot@im.bot"));
        let task = tokio::spawn(shared.clone().serve(listener));
        Self { shared, url, task }
    }

    /// The base URL for `base_url`.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The base URL for `cdn_url`.
    pub fn cdn_url(&self) -> String {
        format!("{}/c2c", self.url)
    }

    /// The bot token.
    pub fn token(&self) -> String {
        self.look(|state| state.token.clone())
    }

    /// `user` writes `text`. Returns the id of the message.
    pub fn say(&self, user: &str, text: &str) -> u64 {
        self.shared.change(|state| state.say(user, text))
    }

    /// `user` sends these items. Returns the id of the message.
    pub fn say_items(&self, user: &str, items: Value) -> u64 {
        self.shared.change(|state| state.say_items(user, items))
    }

    /// The next `times` calls of `method` go wrong.
    pub fn fault(&self, method: &str, times: u32, fault: Fault) {
        self.shared.change(|state| state.add_fault(method, times, fault));
    }

    /// Changes anything.
    pub fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        self.shared.change(change)
    }

    /// Looks at the state.
    pub fn look<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.shared.lock())
    }

    /// What `user` sees of the bot, oldest first.
    pub fn texts(&self, user: &str) -> Vec<String> {
        self.look(|state| state.texts(user))
    }

    /// Waits until `look` finds what it looks for.
    ///
    /// # Panics
    /// After 30 s, with `what` and the state.
    pub async fn until<R>(&self, what: &str, look: impl FnMut(&State) -> Option<R>) -> R {
        self.shared.until(what, look).await
    }
}

impl Drop for WeixinServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
