//! A Bot API server for tests: what a bot can see of Telegram, and what a test wants to know of a bot.
//!
//! - `state`: chats, messages, the log of calls; plain data. `updates`: what users do, as updates in the queue.
//! - `methods`: the Bot API methods, with Telegram's checks and error texts; `messages`, `draft`, `keyboard`, `files`,
//!   `menu` and `webhook` are one part of them each, `entities` is formatted text.
//! - `params`: parameters from the query, JSON, form or multipart.
//! - `faults`: answers that go wrong on purpose.
//! - `control`: the test's side over HTTP, under `/control/`.
//! - `main.rs`: the server as a process (`cargo run --example telegram-server`).
//!
//! It differs from Telegram where a test needs it: every chat exists unless the test says otherwise, nothing is rate
//! limited unless the test asks for 429, and updates are kept for ever. `scripts/check-telegram-server` compares the rest
//! with an independent client.

pub mod control;
mod draft;
mod entities;
pub mod faults;
pub mod files;
mod keyboard;
mod menu;
mod messages;
mod methods;
mod params;
pub mod state;
pub mod updates;
mod webhook;

use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::{any, get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use faults::Fault;
use state::State;

/// How long [`TelegramServer::until`] waits.
const DEADLINE: Duration = Duration::from_secs(30);

/// A call of the bot, told as it comes.
pub struct Told {
    /// When it had been read.
    pub at: Instant,
    /// As it stood in the URL.
    pub method: String,
    /// `text`, if it has one.
    pub text: Option<String>,
}

/// The state, and a signal for each change of it.
#[derive(Clone)]
pub struct Shared {
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
    listener: Option<mpsc::Sender<Told>>,
}

impl Shared {
    /// Serves `state`.
    pub fn new(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)), changes: watch::Sender::new(0), listener: None }
    }

    /// Tells `listener` of each call instead of keeping it in [`State::calls`]: for so many that memory would grow.
    pub fn tell(self, listener: mpsc::Sender<Told>) -> Self {
        Self { listener: Some(listener), ..self }
    }

    /// Looks at the state or changes it. Not across an await.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no handler panics with the state locked")
    }

    /// Changes the state and tells everyone who waits.
    pub fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.lock());
        self.changes.send_modify(|n| *n += 1);
        result
    }

    /// Sees every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Serves the Bot API and the control endpoints until the task is dropped.
    pub async fn serve(self, listener: TcpListener) {
        let router = Router::new()
            .route("/control/say", post(control::say))
            .route("/control/inject", post(control::inject))
            .route("/control/fault", post(control::fault))
            .route("/control/reach", post(control::reach))
            .route("/control/press", post(control::press))
            .route("/control/media", post(control::media))
            .route("/control/gone", post(control::gone))
            .route("/control/draft", get(control::draft))
            .route("/control/state", get(control::state))
            .route("/control/messages", get(control::messages))
            .route("/{bot}/{method}", any(methods::call))
            .route("/file/{bot}/{*path}", get(files::download))
            .fallback(methods::not_found)
            .with_state(self.clone());
        tokio::select! {
            served = axum::serve(listener, router) => served.expect("a bound listener serves"),
            () = webhook::post_updates(self) => {}
        }
    }
}

/// A server in the process of the test.
pub struct TelegramServer {
    shared: Shared,
    url: String,
    task: tokio::task::JoinHandle<()>,
}

impl TelegramServer {
    /// Starts one on a free port of the loopback.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let shared = Shared::new(State::new("4242:the-token-of-the-test-bot"));
        let task = tokio::spawn(shared.clone().serve(listener));
        Self { shared, url, task }
    }

    /// The base URL for `api_url`.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The bot's token.
    pub fn token(&self) -> String {
        self.look(|state| state.token.clone())
    }

    /// `user` writes `text` in `chat`. Returns the id of the update.
    pub fn say(&self, user: i64, chat: i64, text: &str) -> i64 {
        self.shared.change(|state| state.say(user, chat, None, text))
    }

    /// `user` presses a button. Returns the id of the query.
    pub fn press(&self, user: i64, chat: i64, message_id: i64, data: &str) -> String {
        self.shared.change(|state| state.press(user, chat, message_id, data))
    }

    /// Queues an update as it is, but for its id, which is returned.
    pub fn inject(&self, update: Value) -> i64 {
        self.shared.change(|state| state.queue(update))
    }

    /// The next `times` calls of `method` go wrong.
    pub fn fault(&self, method: &str, times: u32, fault: Fault) {
        self.shared.change(|state| state.add_fault(method, times, fault));
    }

    /// Makes a chat unreachable, or reachable again.
    pub fn reach(&self, chat: i64, reach: state::Reach) {
        self.shared.change(|state| state.set_reach(chat, reach));
    }

    /// Changes anything.
    pub fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        self.shared.change(change)
    }

    /// Looks at the state.
    pub fn look<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.shared.lock())
    }

    /// What a member of `chat` sees of the bot, oldest first.
    pub fn texts(&self, chat: i64) -> Vec<String> {
        self.look(|state| state.texts(chat))
    }

    /// Waits until `look` finds what it looks for.
    ///
    /// # Panics
    /// After 30 s, with `what` and the state.
    pub async fn until<R>(&self, what: &str, mut look: impl FnMut(&State) -> Option<R>) -> R {
        let mut changes = self.shared.subscribe();
        let wait = async {
            loop {
                if let Some(found) = look(&self.shared.lock()) {
                    return found;
                }
                changes.changed().await.expect("the server lives as long as its handle");
            }
        };
        match tokio::time::timeout(DEADLINE, wait).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain: {what}\n{}", self.look(|state| format!("{:#}", json!(state)))),
        }
    }
}

impl Drop for TelegramServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
