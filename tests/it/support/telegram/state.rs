//! What the server knows, as plain data.

use std::collections::{BTreeMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::faults::Fault;

/// The bot's name.
pub const USERNAME: &str = "HermesTestBot";

/// Supergroups have ids below this.
const SUPERGROUP_IDS: i64 = -1_000_000_000_000;

/// Whether a bot can write to a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// It can.
    Open,
    /// The user has blocked the bot.
    Blocked,
    /// There is no such chat.
    NotFound,
    /// The group has become this supergroup.
    Moved(i64),
}

/// A text of a message, and when it got it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// As the bot sent it, before Telegram trims it.
    pub text: String,
}

/// A message of the bot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    /// The chat.
    pub chat: i64,
    /// The topic.
    pub thread: Option<i64>,
    /// Unique in the chat.
    pub message_id: i64,
    /// Every text it had, oldest first; never empty.
    pub versions: Vec<Version>,
    /// The bot has deleted it.
    pub deleted: bool,
}

impl Message {
    /// The text it shows.
    pub fn text(&self) -> &str {
        &self.versions.last().expect("a message has a text").text
    }
}

/// A call of the bot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// As it stood in the URL.
    pub method: String,
    /// As the bot sent them.
    pub params: Map<String, Value>,
    /// The HTTP status; none while it is served, or when it was cut off.
    pub status: Option<u16>,
}

/// Calls of `method` (`*` is any) that go wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Planned {
    /// Which method.
    pub method: String,
    /// How many calls more.
    pub times: u32,
    /// How.
    pub fault: Fault,
}

/// One bot and its chats.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The bot's token.
    pub token: String,
    /// Updates that are not confirmed.
    pub updates: VecDeque<Value>,
    /// Everything the bot has sent.
    pub messages: Vec<Message>,
    /// Everything the bot has called.
    pub calls: Vec<Call>,
    /// What goes wrong next.
    pub faults: Vec<Planned>,
    /// What the bot offers in the menu.
    pub commands: Value,
    /// Where updates are posted to. Nothing is posted: only the conflict with getUpdates is shown.
    pub webhook: String,
    /// Counts the calls of getUpdates: only the newest is served.
    pub poller: u64,
    /// Chats that are not [`Reach::Open`].
    pub reach: BTreeMap<i64, Reach>,
    next_update: i64,
    next_message: BTreeMap<i64, i64>,
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).expect("a date before the year 500 million")
}

impl State {
    /// A bot nobody has written to.
    pub fn new(token: &str) -> Self {
        Self {
            token: token.to_owned(),
            updates: VecDeque::new(),
            messages: Vec::new(),
            calls: Vec::new(),
            faults: Vec::new(),
            commands: json!([]),
            webhook: String::new(),
            poller: 0,
            reach: BTreeMap::new(),
            next_update: 1000,
            next_message: BTreeMap::new(),
        }
    }

    /// The bot's id, the first part of its token.
    pub fn bot_id(&self) -> i64 {
        self.token.split(':').next().and_then(|id| id.parse().ok()).unwrap_or(1)
    }

    /// The bot as a `User`.
    pub fn bot(&self) -> Value {
        json!({ "id": self.bot_id(), "is_bot": true, "first_name": "Hermes", "username": USERNAME })
    }

    /// A chat as a `Chat`: negative ids are groups.
    pub fn chat(chat: i64) -> Value {
        if chat > 0 {
            json!({ "id": chat, "type": "private", "first_name": "User" })
        } else if chat > SUPERGROUP_IDS {
            json!({ "id": chat, "type": "group", "title": "Group" })
        } else {
            json!({ "id": chat, "type": "supergroup", "title": "Group", "is_forum": true })
        }
    }

    /// The next message id of a chat.
    pub fn new_message_id(&mut self, chat: i64) -> i64 {
        let id = self.next_message.entry(chat).or_insert(0);
        *id += 1;
        *id
    }

    /// `user` writes `text` in `chat`. Returns the id of the update.
    pub fn say(&mut self, user: i64, chat: i64, thread: Option<i64>, text: &str) -> i64 {
        let message_id = self.new_message_id(chat);
        let mut message = json!({
            "message_id": message_id,
            "date": now_ms() / 1000,
            "chat": Self::chat(chat),
            "from": { "id": user, "is_bot": false, "first_name": format!("User {user}") },
            "text": text,
        });
        if let Some(thread) = thread {
            message["message_thread_id"] = thread.into();
            message["is_topic_message"] = true.into();
        }
        self.queue(json!({ "message": message }))
    }

    /// Queues an update. Returns its id, also if the bot did not want the kind.
    pub fn queue(&mut self, mut update: Value) -> i64 {
        let id = self.next_update;
        self.next_update += 1;
        update["update_id"] = id.into();
        self.updates.push_back(update);
        id
    }

    /// Drops the updates that `offset` confirms. A negative one keeps that many from the end.
    pub fn confirm(&mut self, offset: i64) {
        if offset > 0 {
            // Their ids ascend, so what is confirmed is a head of the queue, as long as there may be.
            let confirmed = |update: &Value| update["update_id"].as_i64().is_some_and(|id| id < offset);
            while self.updates.front().is_some_and(confirmed) {
                self.updates.pop_front();
            }
        } else if let Ok(keep @ 1..) = usize::try_from(offset.unsigned_abs()) {
            let drop = self.updates.len().saturating_sub(keep);
            self.updates.drain(..drop);
        }
    }

    /// Forgets all messages of the bot but the last `remembered`, and returns them.
    pub fn forget(&mut self, remembered: usize) -> Vec<Message> {
        self.messages.drain(..self.messages.len().saturating_sub(remembered)).collect()
    }

    /// The oldest updates that are not confirmed.
    pub fn batch(&self, limit: usize) -> Vec<Value> {
        self.updates.iter().take(limit).cloned().collect()
    }

    /// The next `times` calls of `method` go wrong.
    pub fn add_fault(&mut self, method: &str, times: u32, fault: Fault) {
        self.faults.push(Planned { method: method.to_owned(), times, fault });
    }

    /// What goes wrong with this call.
    pub fn take_fault(&mut self, method: &str) -> Option<Fault> {
        let fits = |planned: &&mut Planned| planned.method == "*" || planned.method.eq_ignore_ascii_case(method);
        let planned = self.faults.iter_mut().find(fits)?;
        planned.times -= 1;
        let fault = planned.fault.clone();
        self.faults.retain(|planned| planned.times > 0);
        Some(fault)
    }

    /// Makes a chat unreachable, or reachable again.
    pub fn set_reach(&mut self, chat: i64, reach: Reach) {
        self.reach.insert(chat, reach);
    }

    /// The bot's messages in `chat` that are not deleted, oldest first.
    pub fn in_chat(&self, chat: i64) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(move |message| message.chat == chat && !message.deleted)
    }

    /// What they say.
    pub fn texts(&self, chat: i64) -> Vec<String> {
        self.in_chat(chat).map(|message| message.text().to_owned()).collect()
    }

    /// How often the bot has called `method`.
    pub fn calls_of(&self, method: &str) -> usize {
        self.calls.iter().filter(|call| call.method == method).count()
    }
}
