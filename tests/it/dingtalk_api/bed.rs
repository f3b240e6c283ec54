//! The platform's task between a test and the test server. Its conduit is a process of the real program.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use hermes_gateway::chat::{Conversation, Inbound, LinkState, OutFile, Outbound, OutboundContent, ReplyEnd, ReplyStep};
use hermes_gateway::config::{DingTalkConfig, PlatformAccess, Secret};
use hermes_gateway::id::TurnId;
use hermes_gateway::platform::dingtalk::{PLATFORM, spawn};
use hermes_gateway::platform::{Left, PlatformCommand, PlatformEvent, PlatformHandle};
use hermes_gateway::store::{Change, EntryId, Store};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::dingtalk::DingTalkServer;
use crate::support::dingtalk::state::State;

pub const DEADLINE: Duration = Duration::from_secs(90);
const DRAIN: Duration = Duration::from_secs(10);
const HERMES: &str = env!("CARGO_BIN_EXE_hermes");

/// A member of the organisation.
pub const ANN: &str = "manager1";
/// A group.
pub const GROUP: &str = "cid-a-group";

/// The entry of a turn, and what was said in it.
type Said = (Option<EntryId>, String, Vec<OutFile>);

/// The platform's task, its store, and the server it talks to.
pub struct Bed {
    pub server: DingTalkServer,
    pub store: Store,
    pub handle: PlatformHandle,
    pub events: mpsc::Receiver<PlatformEvent>,
    /// The entries of turns that are answered, and what was said in each.
    turns: Mutex<BTreeMap<TurnId, Said>>,
    config: DingTalkConfig,
    /// What is kept for a process that is killed, by the platform's names.
    kept_fds: BTreeMap<String, OwnedFd>,
    /// What came in and nobody has asked for.
    pub heard: Vec<Inbound>,
    _dir: tempfile::TempDir,
}

impl Bed {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With changes to the configuration. It is connected.
    pub async fn start_with(change: impl FnOnce(&mut DingTalkConfig)) -> Self {
        let server = DingTalkServer::start().await;
        let mut config = config(&server);
        change(&mut config);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        let (sender, events) = mpsc::channel(16);
        let handle = spawn(&config, Path::new(HERMES), Left::default(), store.clone(), sender);
        let turns = Mutex::default();
        let (kept_fds, heard) = (BTreeMap::new(), Vec::new());
        let mut bed = Self { server, store, handle, events, turns, config, kept_fds, heard, _dir: dir };
        bed.connected().await;
        bed
    }

    pub async fn connected(&mut self) {
        self.link(LinkState::Connected).await;
    }

    pub async fn link(&mut self, wanted: LinkState) {
        let is_it = |event| matches!(event, PlatformEvent::Link { state, .. } if state == wanted).then_some(());
        self.event("a state of the link", is_it).await;
    }

    /// Puts a new task in the place of this one, as an execve does.
    pub async fn hand_off(&mut self) {
        self.command(PlatformCommand::Freeze { drain: DRAIN }).await;
        let (state, fds) = self
            .event("frozen", |event| match event {
                PlatformEvent::Frozen { state, fds, .. } => Some((state, fds)),
                _ => None,
            })
            .await;
        assert!(self.events.try_recv().is_err(), "an event after the marker");
        self.launch(Left { state: Some(state), fds, paused: false });
    }

    /// The same for a process that was killed: all there is is what was kept.
    pub fn kill(&mut self) {
        let fds = self.kept_fds.iter().map(|(name, fd)| (name.clone(), fd.try_clone().expect("duplicates"))).collect();
        self.launch(Left { state: None, fds, paused: false });
    }

    fn launch(&mut self, left: Left) {
        let (sender, events) = mpsc::channel(16);
        self.handle = spawn(&self.config, Path::new(HERMES), left, self.store.clone(), sender);
        self.events = events;
    }

    /// The processes of conduits that are kept.
    pub fn conduits(&self) -> usize {
        self.kept_fds.keys().filter(|name| name.ends_with(".pidfd")).count()
    }

    /// The next event that `pick` wants; those before it are dropped.
    pub async fn event<R>(&mut self, what: &str, mut pick: impl FnMut(PlatformEvent) -> Option<R>) -> R {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the task runs");
                let event = match event {
                    PlatformEvent::Keep { name, fd: Some(fd), .. } => {
                        self.kept_fds.insert(name, fd);
                        continue;
                    }
                    PlatformEvent::Keep { name, fd: None, .. } => {
                        self.kept_fds.remove(&name);
                        continue;
                    }
                    event => event,
                };
                if let PlatformEvent::Inbound { inbound, .. } = &event {
                    self.heard.push(inbound.clone());
                }
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("no event: {what}"))
    }

    /// The next message that comes in, and its turn.
    pub async fn inbound(&mut self) -> (TurnId, Inbound) {
        self.event("a message", |event| match event {
            PlatformEvent::Inbound { turn, inbound } => Some((turn, inbound)),
            _ => None,
        })
        .await
    }

    /// Ann says something to the bot alone. Returns the turn and the chat.
    pub async fn asked(&mut self) -> (TurnId, String) {
        self.server.say(ANN, "a question");
        let (turn, inbound) = self.inbound().await;
        (turn, inbound.conversation.chat)
    }

    /// The same in the group.
    pub async fn asked_in_group(&mut self) -> TurnId {
        self.server.say_in(GROUP, ANN, "a question");
        self.inbound().await.0
    }

    /// Records it and then has it shown, as the daemon does.
    pub async fn notice(&self, chat: &str, text: &str) {
        let conversation = Conversation::new(PLATFORM, chat);
        let entry = self.change(Change::Notice(conversation.clone(), text.into())).await;
        let content = OutboundContent::Notice(text.into());
        self.deliver(Outbound { conversation, content }, entry).await;
    }

    /// The same for a step of a reply; its first step begins it.
    pub async fn step(&self, chat: &str, turn: TurnId, step: ReplyStep) {
        let conversation = Conversation::new(PLATFORM, chat);
        let known = self.turns.lock().expect("not poisoned").get(&turn).cloned();
        let (entry, mut said, mut files) = match known {
            Some(known) => known,
            None => {
                let entry = self.change(Change::Start(turn, Some(conversation.clone()))).await;
                self.deliver(Outbound::reply(conversation.clone(), turn, ReplyStep::Begin), entry).await;
                (entry, String::new(), Vec::new())
            }
        };
        match &step {
            ReplyStep::Delta(text) => said.push_str(text),
            ReplyStep::SoFar(text) => said.clone_from(text),
            ReplyStep::End(end) => {
                let (text, files, end) = (Some(said.clone()), files.clone(), end.clone());
                self.change(Change::Finish { turn, conversation: Some(conversation.clone()), text, files, end }).await;
            }
            ReplyStep::File(file) => files.push(file.clone()),
            ReplyStep::Begin | ReplyStep::Activity(_) => {}
        }
        self.deliver(Outbound::reply(conversation, turn, step), entry).await;
        self.turns.lock().expect("not poisoned").insert(turn, (entry, said, files));
    }

    /// A whole reply.
    pub async fn reply(&self, chat: &str, turn: TurnId, text: &str) {
        self.step(chat, turn, ReplyStep::Delta(text.to_owned())).await;
        self.step(chat, turn, ReplyStep::End(ReplyEnd::Complete)).await;
    }

    async fn change(&self, change: Change) -> Option<EntryId> {
        self.store.change(vec![change]).await.expect("records").pop()?
    }

    async fn deliver(&self, outbound: Outbound, entry: Option<EntryId>) {
        self.command(PlatformCommand::Deliver { outbound: Box::new(outbound), entry }).await;
    }

    pub async fn command(&self, command: PlatformCommand) {
        timeout(DEADLINE, self.handle.send(command)).await.expect("the task takes commands").expect("the task runs");
    }

    pub async fn until<R>(&self, what: &str, look: impl FnMut(&State) -> Option<R>) -> R {
        self.server.until(what, look).await
    }

    pub async fn until_shown(&self, chat: &str, texts: &[&str]) {
        self.until(&format!("{texts:?} in {chat}"), |state| (state.texts(chat) == texts).then_some(())).await;
    }

    /// Until everything was delivered or given up.
    pub async fn all_over(&self) {
        let over = async {
            while !self.store.outbox(PLATFORM).await.expect("reads").entries.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, over).await.expect("it is over in time");
    }

    /// What waits to be delivered, after everything in flight has ended.
    pub async fn kept(&mut self) -> usize {
        self.command(PlatformCommand::Drain { drain: DRAIN }).await;
        self.event("drained", |event| matches!(event, PlatformEvent::Drained { .. }).then_some(())).await;
        self.store.outbox(PLATFORM).await.expect("reads").entries.len()
    }

    /// How each message to `chat` went there: `session`, `single`, `group` or `card`.
    pub fn ways(&self, chat: &str) -> Vec<String> {
        self.server.look(|state| state.sent.iter().filter(|s| s.chat == chat).map(|s| s.way.clone()).collect())
    }

    /// Nothing that the app has done broke the protocol.
    pub fn no_complaints(&self) {
        assert_eq!(self.server.look(|state| state.complaints.clone()), Vec::<String>::new());
    }
}

pub fn config(server: &DingTalkServer) -> DingTalkConfig {
    let (client_id, secret) = server.look(|state| (state.client_id.clone(), state.client_secret.clone()));
    DingTalkConfig {
        client_id,
        client_secret: Secret::new(secret),
        api_url: server.url(),
        oapi_url: server.url(),
        webhook_hosts: Vec::new(),
        card_template_id: None,
        access: PlatformAccess::default(),
    }
}
