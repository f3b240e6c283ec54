//! The platform's task between a test and the test server.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use hermes_gateway::chat::{Conversation, Inbound, LinkState, OutFile, Outbound, OutboundContent, ReplyStep, Sender};
use hermes_gateway::clock::UnixMillis;
use hermes_gateway::config::{PlatformAccess, Secret, TelegramConfig, WebhookConfig};
use hermes_gateway::id::TurnId;
use hermes_gateway::platform::telegram::{PLATFORM, spawn};
use hermes_gateway::platform::{Left, NamedFd, PlatformCommand, PlatformEvent, PlatformHandle};
use hermes_gateway::store::{Accepted, Change, EntryId, Store};
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
    /// The turns of the tests' replies, by the tests' numbers.
    turns: Mutex<BTreeMap<i64, Turn>>,
    /// What runs the task since the first kill.
    process: Option<Process>,
    /// Set before a handoff or a kill, it is what the next task is configured with.
    pub webhook: Option<WebhookConfig>,
    /// What the task wants kept for a kill.
    kept: BTreeMap<String, OwnedFd>,
}

/// A turn that is answered.
#[derive(Clone)]
struct Turn {
    id: TurnId,
    entry: Option<EntryId>,
    said: String,
    /// The files in it.
    files: Vec<OutFile>,
}

/// What ends with a kill: the task and all its requests.
struct Process {
    runtime: Option<Runtime>,
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
        Self::start_in(server, dir, store, None)
    }

    /// With a webhook.
    pub fn start_hooked(server: TelegramServer, webhook: WebhookConfig) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        Self::start_in(server, dir, store, Some(webhook))
    }

    pub fn start_in(
        server: TelegramServer,
        dir: tempfile::TempDir,
        store: Store,
        webhook: Option<WebhookConfig>,
    ) -> Self {
        let (handle, events) = launch_as(hooked(&server, webhook.clone()), &store, Left::default());
        let (turns, kept) = (Mutex::default(), BTreeMap::new());
        Self { server, store, dir, handle, events, turns, process: None, webhook, kept }
    }

    pub fn database(&self) -> PathBuf {
        self.dir.path().join("state.db")
    }

    /// The next event that `pick` wants; those before it are dropped.
    pub async fn event<R>(&mut self, what: &str, mut pick: impl FnMut(PlatformEvent) -> Option<R>) -> R {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the task runs");
                if let PlatformEvent::Keep { name, fd: Some(fd), .. } = event {
                    self.kept.insert(name, fd);
                    continue;
                }
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

    /// Waits until the outbox has nothing of a reply any more.
    pub async fn delivered(&self, turn: i64) {
        let turn = self.turns.lock().expect("not poisoned")[&turn].id;
        let over = async {
            while self.store.outbox(PLATFORM).await.expect("reads").entries.iter().any(|e| e.turn == Some(turn)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(DEADLINE, over).await.expect("it is delivered in time");
    }

    /// Records it and then has it shown, as the daemon does.
    pub async fn notice(&self, chat: i64, text: &str) {
        let conversation = Conversation::new(PLATFORM, chat.to_string());
        let entry = self.change(Change::Notice(conversation.clone(), text.into())).await;
        let content = OutboundContent::Notice(text.into());
        self.deliver(Outbound { conversation, content }, entry).await;
    }

    /// The same for a step of a reply; its first step begins it.
    pub async fn reply(&self, chat: i64, turn: i64, step: ReplyStep) {
        let conversation = Conversation::new(PLATFORM, chat.to_string());
        let known = self.turns.lock().expect("not poisoned").get(&turn).cloned();
        let mut of = match known {
            Some(of) => of,
            None => {
                let id = self.asked(&conversation, turn).await;
                let entry = self.change(Change::Start(id, Some(conversation.clone()))).await;
                self.deliver(Outbound::reply(conversation.clone(), id, ReplyStep::Begin), entry).await;
                Turn { id, entry, said: String::new(), files: Vec::new() }
            }
        };
        match &step {
            ReplyStep::Delta(text) => of.said.push_str(text),
            ReplyStep::SoFar(text) => of.said.clone_from(text),
            ReplyStep::End(end) => {
                let (text, files, end) = (Some(of.said.clone()), of.files.clone(), end.clone());
                self.change(Change::Finish { turn: of.id, conversation: Some(conversation.clone()), text, files, end })
                    .await;
            }
            ReplyStep::File(file) => of.files.push(file.clone()),
            ReplyStep::Begin | ReplyStep::Activity(_) => {}
        }
        self.deliver(Outbound::reply(conversation, of.id, step), of.entry).await;
        self.turns.lock().expect("not poisoned").insert(turn, of);
    }

    /// The message that a turn answers.
    async fn asked(&self, conversation: &Conversation, turn: i64) -> TurnId {
        let inbound = Inbound {
            conversation: conversation.clone(),
            account: "bed".to_owned(),
            message_id: turn.to_string(),
            sender: Sender { id: "1".to_owned(), name: "Ann".to_owned() },
            sent_at: UnixMillis(0),
            text: "asked".to_owned(),
            is_direct: true,
            attachments: Vec::new(),
            context: None,
        };
        match self.store.accept(&inbound).await.expect("accepts") {
            Accepted::New(turn) => turn,
            Accepted::Duplicate => panic!("asked twice"),
        }
    }

    /// A store that fails for a moment is a part of some tests.
    async fn change(&self, change: Change) -> Option<EntryId> {
        self.store.change(vec![change]).await.ok()?.pop()?
    }

    async fn deliver(&self, outbound: Outbound, entry: Option<EntryId>) {
        self.command(PlatformCommand::Deliver { outbound: Box::new(outbound), entry }).await;
    }

    pub async fn command(&self, command: PlatformCommand) {
        timeout(DEADLINE, self.handle.send(command)).await.expect("the task takes commands").expect("the task runs");
    }

    /// Freezes; the events before the marker are dropped.
    pub async fn freeze(&mut self, drain: Duration) -> Value {
        self.freeze_with_fds(drain).await.0
    }

    async fn freeze_with_fds(&mut self, drain: Duration) -> (Value, Vec<NamedFd>) {
        self.command(PlatformCommand::Freeze { drain }).await;
        let state = self
            .event("frozen", |event| match event {
                PlatformEvent::Frozen { state, fds, .. } => Some((state, fds)),
                _ => None,
            })
            .await;
        assert!(self.events.try_recv().is_err(), "an event after the marker");
        state
    }

    /// Puts a new task in the place of this one, as an execve does.
    pub async fn hand_off(&mut self, drain: Duration) {
        let (state, fds) = self.freeze_with_fds(drain).await;
        let left = Left { state: Some(state), fds, ..Left::default() };
        (self.handle, self.events) = launch_as(hooked(&self.server, self.webhook.clone()), &self.store, left);
    }

    /// The same in a process that can be killed.
    pub async fn start_killable() -> Self {
        let mut bed = Self::start().await;
        bed.kill().await;
        bed.connected().await;
        bed
    }

    /// Kills the process of the task, and begins another with what the store has.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let runtime = process.runtime.take().expect("it runs until it is killed");
            let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE));
            ended.await.expect("ends");
        }
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let entered = runtime.enter();
        let duplicate =
            |(name, fd): (&String, &OwnedFd)| (name.clone(), fd.try_clone().expect("an fd can be duplicated"));
        let left = Left { fds: self.kept.iter().map(duplicate).collect(), ..Left::default() };
        (self.handle, self.events) = launch_as(hooked(&self.server, self.webhook.clone()), &self.store, left);
        drop(entered);
        self.process = Some(Process { runtime: Some(runtime) });
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
    launch_as(config(server.url(), token), store, Left { state: restored, ..Left::default() })
}

fn launch_as(config: TelegramConfig, store: &Store, left: Left) -> (PlatformHandle, mpsc::Receiver<PlatformEvent>) {
    let (sender, events) = mpsc::channel(16);
    (spawn(config, left, store.clone(), sender), events)
}

fn hooked(server: &TelegramServer, webhook: Option<WebhookConfig>) -> TelegramConfig {
    TelegramConfig { webhook, ..config(server.url(), server.token()) }
}

pub fn config(api_url: String, token: String) -> TelegramConfig {
    TelegramConfig {
        token: Secret::new(token),
        api_url,
        access: PlatformAccess::default(),
        messages_per_second: TelegramConfig::FREE_PER_SECOND,
        webhook: None,
    }
}
