//! The platform's task between a test and the test server.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use hermes_gateway::chat::{Conversation, Inbound, LinkState, Outbound, OutboundContent, ReplyStep};
use hermes_gateway::config::{Secret, TelegramConfig};
use hermes_gateway::id::TurnId;
use hermes_gateway::platform::telegram::{PLATFORM, spawn};
use hermes_gateway::platform::{PlatformCommand, PlatformEvent, PlatformHandle};
use hermes_gateway::store::Store;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::telegram::TelegramServer;
use crate::support::telegram::state::State;

pub const DEADLINE: Duration = Duration::from_secs(30);
/// A drain that no honest request outlasts.
pub const DRAIN: Duration = Duration::from_secs(10);

/// The platform's task, its store, and the server it talks to.
pub struct Bed {
    pub server: TelegramServer,
    pub store: Store,
    dir: tempfile::TempDir,
    pub handle: PlatformHandle,
    pub events: mpsc::Receiver<PlatformEvent>,
    /// What runs the task since the first kill.
    process: Option<Process>,
}

/// What ends with a kill: the task and all its requests; and the fd of the log, which does not.
struct Process {
    runtime: Option<Runtime>,
    log: Option<OwnedFd>,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Bed {
    pub async fn start() -> Self {
        Self::start_with(TelegramServer::start().await)
    }

    pub fn start_with(server: TelegramServer) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        let (handle, events) = launch(&server, server.token(), &store, None);
        Self { server, store, dir, handle, events, process: None }
    }

    pub fn database(&self) -> PathBuf {
        self.dir.path().join("state.db")
    }

    /// The next event that `pick` wants; those before it are dropped.
    pub async fn event<R>(&mut self, what: &str, mut pick: impl FnMut(PlatformEvent) -> Option<R>) -> R {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the task runs");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("no event: {what}"))
    }

    pub async fn connected(&mut self) {
        self.event("connected", |event| {
            matches!(event, PlatformEvent::Link { state: LinkState::Connected, .. }).then_some(())
        })
        .await;
    }

    /// The next trouble of the link: code and message.
    pub async fn trouble(&mut self) -> (String, String) {
        self.event("trouble", |event| match event {
            PlatformEvent::Link {
                state:
                    LinkState::Retrying { error_code, error_message, .. } | LinkState::Fatal { error_code, error_message },
                ..
            } => Some((error_code, error_message)),
            _ => None,
        })
        .await
    }

    pub async fn inbound(&mut self) -> Inbound {
        self.event("a message", |event| match event {
            PlatformEvent::Inbound { inbound, .. } => Some(inbound),
            _ => None,
        })
        .await
    }

    pub async fn delivered(&mut self) -> TurnId {
        self.event("a delivered reply", |event| match event {
            PlatformEvent::ReplyDelivered { turn } => Some(turn),
            _ => None,
        })
        .await
    }

    pub async fn show(&self, chat: i64, content: OutboundContent) {
        let conversation = Conversation::new(PLATFORM, chat.to_string());
        self.command(PlatformCommand::Deliver(Outbound { conversation, content })).await;
    }

    pub async fn notice(&self, chat: i64, text: &str) {
        self.show(chat, OutboundContent::Notice { text: text.to_owned() }).await;
    }

    pub async fn reply(&self, chat: i64, turn: i64, step: ReplyStep) {
        self.show(chat, OutboundContent::Reply { turn: TurnId(turn), step }).await;
    }

    pub async fn command(&self, command: PlatformCommand) {
        timeout(DEADLINE, self.handle.send(command)).await.expect("the task takes commands").expect("the task runs");
    }

    /// Freezes; the events before the marker are dropped.
    pub async fn freeze(&mut self, drain: Duration) -> Value {
        self.command(PlatformCommand::Freeze { drain }).await;
        let state = self
            .event("frozen", |event| match event {
                PlatformEvent::Frozen { state, .. } => Some(state),
                _ => None,
            })
            .await;
        assert!(self.events.try_recv().is_err(), "an event after the marker");
        state
    }

    /// Puts a new task in the place of this one, as an execve does.
    pub async fn hand_off(&mut self, drain: Duration) {
        let state = self.freeze(drain).await;
        (self.handle, self.events) = launch(&self.server, self.server.token(), &self.store, Some(state));
    }

    /// The same in a process that can be killed.
    pub async fn start_killable() -> Self {
        let mut bed = Self::start().await;
        bed.kill().await;
        bed.connected().await;
        bed
    }

    /// Kills the process of the task, and begins another with the recovery log alone.
    pub async fn kill(&mut self) {
        let log = match self.process.take() {
            Some(mut process) => {
                let runtime = process.runtime.take().expect("it runs until it is killed");
                let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE));
                ended.await.expect("ends");
                Some(process.log.take().expect("the kernel gives one"))
            }
            None => None,
        };
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let config = config(self.server.url(), self.server.token());
        let (sender, events) = mpsc::channel(16);
        let entered = runtime.enter();
        let (handle, log) = spawn(config, None, self.store.clone(), sender, log);
        drop(entered);
        (self.handle, self.events) = (handle, events);
        self.process = Some(Process { runtime: Some(runtime), log });
    }

    pub async fn until<R>(&self, what: &str, look: impl FnMut(&State) -> Option<R>) -> R {
        self.server.until(what, look).await
    }

    pub async fn until_shown(&self, chat: i64, texts: &[&str]) {
        self.until(&format!("{texts:?} in chat {chat}"), |state| (state.texts(chat) == texts).then_some(())).await;
    }

    /// Until the server holds a poll that has confirmed everything.
    pub async fn until_idle(&self) {
        self.until("a held poll", |state| (state.updates.is_empty() && holds_poll(state)).then_some(())).await;
    }
}

fn holds_poll(state: &State) -> bool {
    let last = state.calls.iter().rev().find(|call| call.method == "getUpdates");
    last.is_some_and(|call| call.status.is_none() && call.params["timeout"] == 50)
}

pub fn launch(
    server: &TelegramServer,
    token: String,
    store: &Store,
    restored: Option<Value>,
) -> (PlatformHandle, mpsc::Receiver<PlatformEvent>) {
    let config = config(server.url(), token);
    let (sender, events) = mpsc::channel(16);
    (spawn(config, restored, store.clone(), sender, None).0, events)
}

pub fn config(api_url: String, token: String) -> TelegramConfig {
    TelegramConfig {
        token: Secret::new(token),
        api_url,
        allow_from: Vec::new(),
        allow_admin_from: Vec::new(),
        gateway_restart_notification: true,
        messages_per_second: TelegramConfig::FREE_PER_SECOND,
    }
}
