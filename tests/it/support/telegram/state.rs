//! What the server knows, as plain data.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::draft::Draft;
use super::faults::Fault;
use super::files::StoredFile;
use super::keyboard::Press;
use super::webhook::Webhook;

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
    /// As the bot sent it, before Telegram trims it; without marks, if it came with `parse_mode`. Of a file, the caption.
    pub text: String,
    /// Its `MessageEntity` list.
    #[serde(default)]
    pub entities: Vec<Value>,
}

/// A file that a message shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attached {
    /// `photo` or `document`.
    pub kind: String,
    /// In [`State::files`].
    pub file_id: String,
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
    /// The message that it answers.
    #[serde(default)]
    pub reply_to: Option<i64>,
    /// Its `InlineKeyboardMarkup`.
    #[serde(default)]
    pub keyboard: Option<Value>,
    /// Its file.
    #[serde(default)]
    pub attached: Option<Attached>,
}

impl Message {
    /// The text it shows.
    pub fn text(&self) -> &str {
        &self.last().text
    }

    /// Its newest text.
    pub fn last(&self) -> &Version {
        self.versions.last().expect("a message has a text")
    }

    /// What each entity covers, as `(type, text)`.
    pub fn marked(&self) -> Vec<(String, String)> {
        let Version { text, entities, .. } = self.last();
        entities
            .iter()
            .map(|entity| (entity["type"].as_str().unwrap_or("").to_owned(), covered(text, entity)))
            .collect()
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
    /// What the bot offers in the menu, by scope and language.
    pub commands: BTreeMap<String, Value>,
    /// Where updates are posted to.
    pub webhook: Webhook,
    /// The kinds of update that the bot has asked for; none: all.
    #[serde(default)]
    pub wanted: Option<Vec<String>>,
    /// Previews of answers that are being written, by chat.
    #[serde(default)]
    pub drafts: BTreeMap<i64, Draft>,
    /// Buttons that were pressed, by the id of the query.
    #[serde(default)]
    pub presses: BTreeMap<String, Press>,
    /// Files, by `file_id`.
    #[serde(default)]
    pub files: BTreeMap<String, StoredFile>,
    /// Messages of users that are deleted, as chat and message.
    #[serde(default)]
    pub gone: BTreeSet<(i64, i64)>,
    /// Topics that are deleted, as chat and thread.
    #[serde(default)]
    pub gone_threads: BTreeSet<(i64, i64)>,
    /// Methods that this server is too old to know, in lower case.
    #[serde(default)]
    pub unknown_methods: BTreeSet<String>,
    /// Counts the calls of getUpdates: only the newest is served.
    pub poller: u64,
    /// Chats that are not [`Reach::Open`].
    pub reach: BTreeMap<i64, Reach>,
    pub(super) next_update: i64,
    next_message: BTreeMap<i64, i64>,
}

/// The part of `text` that an entity covers.
fn covered(text: &str, entity: &Value) -> String {
    let number = |name: &str| entity[name].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let units: Vec<u16> = text.encode_utf16().skip(number("offset")).take(number("length")).collect();
    String::from_utf16_lossy(&units)
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
            commands: BTreeMap::new(),
            webhook: Webhook::default(),
            wanted: None,
            drafts: BTreeMap::new(),
            presses: BTreeMap::new(),
            files: BTreeMap::new(),
            gone: BTreeSet::new(),
            gone_threads: BTreeSet::new(),
            // What most tests look at is messages that grow.
            unknown_methods: BTreeSet::from(["sendmessagedraft".to_owned()]),
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

    /// Forgets all messages of the bot but the last `remembered`, and returns them.
    pub fn forget(&mut self, remembered: usize) -> Vec<Message> {
        self.messages.drain(..self.messages.len().saturating_sub(remembered)).collect()
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

    /// Whether `chat` has a message of this id, of the bot or of anyone.
    pub fn has_message(&self, chat: i64, message_id: i64) -> bool {
        let sent = 0 < message_id && message_id <= self.next_message.get(&chat).copied().unwrap_or(0);
        let deleted = |message: &Message| message.chat == chat && message.message_id == message_id && message.deleted;
        sent && !self.gone.contains(&(chat, message_id)) && !self.messages.iter().any(deleted)
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
