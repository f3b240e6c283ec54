//! A DingTalk server for tests: what an app in stream mode can see of DingTalk, and what a test wants to know of the app.
//!
//! - `state`: connections, pushes and their answers, messages, the log of calls; plain data.
//! - `people`: messages to the bot.
//! - `pusher`: messages to the bot, again and again.
//! - `stream`: tickets and WebSockets.
//! - `methods`: the HTTP API; `robot` has messages and files, `card` cards.
//! - `control`: the test's side over HTTP, under `/control/`.
//! - `main.rs`: the server as a process (`cargo run --example dingtalk-server`).
//!
//! As of DingTalk, a message to the bot is pushed once, to one of the open connections, chosen at random; if none is open,
//! or the connection breaks before it is read, it is lost. A WebSocket is closed by a Close frame, or broken off.
//!
//! It differs from DingTalk where a test needs it: every member and every group exists unless the test says otherwise, and
//! nothing is rate limited unless the test asks for it. What breaks the protocol is kept in [`state::State::complaints`].
//! `scripts/check-dingtalk-server` compares the rest with an independent client.

pub mod card;
pub mod control;
pub mod media;
mod methods;
pub mod people;
pub mod pusher;
mod robot;
pub mod state;
mod stream;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get, post};
use serde_json::Value;
use tokio::net::TcpListener;

use super::faults::Fault;
use people::Say;
use pusher::{Plan, Pusher};
use state::State;

/// What the server knows.
pub type Shared = super::shared::Shared<State>;

impl Shared {
    /// Serves everything until the task is dropped.
    pub async fn serve(self, listener: TcpListener) {
        let router = Router::new()
            .route("/control/say", post(control::say))
            .route("/control/pusher", post(control::pusher))
            .route("/control/lost", get(control::lost))
            .route("/control/push", post(control::push))
            .route("/control/event", post(control::event))
            .route("/control/disconnect", post(control::disconnect))
            .route("/control/break", post(control::break_all))
            .route("/control/file", post(control::file))
            .route("/control/expire-webhooks", post(control::expire_webhooks))
            .route("/control/expire-tokens", post(control::expire_tokens))
            .route("/control/fault", post(control::fault))
            .route("/control/set", post(control::set))
            .route("/control/state", get(control::state))
            .route("/connect", get(stream::connect))
            .route("/files/{link}", get(methods::file))
            .route("/robot/sendBySession", post(methods::call))
            .route("/media/upload", post(media::upload).layer(DefaultBodyLimit::max(media::BODY_BYTES_MAX)))
            .route("/v1.0/{*path}", any(methods::call))
            .fallback(methods::not_found)
            .with_state(self);
        axum::serve(listener, router).await.expect("a bound listener serves");
    }
}

/// A server in the process of the test.
pub struct DingTalkServer {
    shared: Shared,
    url: String,
    task: tokio::task::JoinHandle<()>,
}

impl DingTalkServer {
    /// Starts one on a free port of the loopback.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let shared = Shared::new(State::new("ding-the-test-app", "the-secret-of-the-test-app", &url));
        let task = tokio::spawn(shared.clone().serve(listener));
        Self { shared, url, task }
    }

    /// The base URL for `api_url` and `oapi_url`.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// `user` says `text` to the bot alone. Returns its `msgId`.
    pub fn say(&self, user: &str, text: &str) -> String {
        let say = Say { user: user.to_owned(), text: text.to_owned(), ..Say::default() };
        self.shared.change(|state| state.say(&say))
    }

    /// `user` says `text` to the bot in a group. Returns its `msgId`.
    pub fn say_in(&self, group: &str, user: &str, text: &str) -> String {
        let (user, group, text) = (user.to_owned(), Some(group.to_owned()), text.to_owned());
        self.shared.change(|state| state.say(&Say { user, group, text, ..Say::default() }))
    }

    /// Somebody says something again and again, until the pusher is dropped.
    pub fn pusher(&self, plan: Plan) -> Pusher {
        Pusher::start(self.shared.clone(), plan)
    }

    /// Something happens in the organisation. It is told until it is acknowledged. Returns its `eventId`.
    pub fn event(&self, kind: &str, data: Value) -> String {
        self.shared.event(kind, data)
    }

    /// The next `times` calls of `method` go wrong: a path behind `/v1.0/`, `sendBySession`, `connect` or `file`.
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

    /// What a chat shows of the bot, oldest first.
    pub fn texts(&self, chat: &str) -> Vec<String> {
        self.look(|state| state.texts(chat))
    }

    /// Waits until `look` finds what it looks for.
    ///
    /// # Panics
    /// After 30 s, with `what` and the state.
    pub async fn until<R>(&self, what: &str, look: impl FnMut(&State) -> Option<R>) -> R {
        self.shared.until(what, look).await
    }
}

impl Drop for DingTalkServer {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.change(State::break_all);
    }
}
