//! What the server knows, as plain data.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::faults::{self, Fault, Planned};
use super::card::Card;

/// The app, its people and its connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The app. Its bot has the same code.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// The server's own address.
    pub base: String,
    /// Where session webhooks are; none is `base`.
    pub webhook_base: Option<String>,
    /// How long a ticket is good.
    pub ticket_ms: u64,
    /// `expireIn` of access tokens.
    pub token_secs: u64,
    /// How long a session webhook is good.
    pub webhook_ms: u64,
    /// An event that is not acknowledged comes again after this time.
    pub event_retry_ms: u64,
    /// `time` in the headers of frames is a number and not a text.
    pub has_number_times: bool,
    /// How many messages a group takes in a minute; none is any number.
    pub group_per_minute: Option<usize>,
    /// Members that there are not.
    pub invalid_staff: BTreeSet<String>,
    /// Members who have had too many messages.
    pub flow_controlled: BTreeSet<String>,
    /// Groups that there are not.
    pub unknown_groups: BTreeSet<String>,
    /// Tickets that were given out.
    pub tickets: BTreeMap<String, Ticket>,
    /// All connections that were ever opened, oldest first.
    pub connections: Vec<Connection>,
    /// Everything that was pushed.
    pub pushes: Vec<Push>,
    /// Access tokens, and until when they are good, in milliseconds since 1970.
    pub tokens: BTreeMap<String, u64>,
    /// Session webhooks by their `session`.
    pub webhooks: BTreeMap<String, Webhook>,
    /// Everything the bot has sent that chats show.
    pub sent: Vec<Sent>,
    /// Cards by their `outTrackId`.
    pub cards: BTreeMap<String, Card>,
    /// Files by their `downloadCode`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What download links lead to.
    pub links: BTreeMap<String, String>,
    /// Every call, webhooks included.
    pub calls: Vec<Call>,
    /// What breaks the protocol without a refusal that would tell, and how.
    pub complaints: Vec<String>,
    /// What goes wrong next.
    pub faults: Vec<Planned>,
    /// Names are made of it.
    fresh: u64,
    /// Which connection a push goes to is made of it.
    seed: u64,
}

/// Lets its holder connect, once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ticket {
    /// Until when, in milliseconds since 1970.
    pub until_ms: u64,
    /// Whether it was used.
    pub is_used: bool,
    /// What its connection is pushed.
    pub subscriptions: Vec<Subscription>,
}

/// What a connection is pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// `EVENT` or `CALLBACK`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `*` is any.
    pub topic: String,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It may be pushed to.
    Open,
    /// One side has said that it goes: it is pushed nothing more.
    Going,
    /// It is over.
    Closed,
}

/// One WebSocket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// Counts them from 1.
    pub id: u64,
    /// What it is pushed.
    pub subscriptions: Vec<Subscription>,
    /// How far it is.
    pub phase: Phase,
    /// What is to be written to it.
    pub queue: VecDeque<Outgoing>,
    /// When the server breaks it off, in milliseconds since 1970.
    pub leave_at_ms: Option<u64>,
    /// The server neither reads nor writes.
    pub is_stalled: bool,
    /// WebSocket pings of the client.
    pub pings: u64,
}

/// A text that is to be written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outgoing {
    /// The frame.
    pub text: String,
    /// Its index in [`State::pushes`].
    pub push: Option<usize>,
}

/// A frame that was pushed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Push {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// `SYSTEM`, `EVENT` or `CALLBACK`.
    pub kind: String,
    /// What it is about.
    pub topic: String,
    /// `messageId` of its headers; empty if it has none.
    pub message_id: String,
    /// What was said in it, if it is a message.
    pub text: Option<String>,
    /// The text of its `data`.
    pub data: String,
    /// The connection; none if none was open.
    pub to: Option<u64>,
    /// Whether it was written there.
    pub is_written: bool,
    /// Answers to it.
    pub acks: Vec<Ack>,
}

impl Push {
    /// Whether the client has said that it has it.
    pub fn is_acked(&self) -> bool {
        self.acks.iter().any(|ack| ack.code == 200 && !ack.data.contains("LATER"))
    }
}

/// An answer to a push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Where it came.
    pub connection: u64,
    /// 200 is good.
    pub code: i64,
    /// The text of its `data`.
    pub data: String,
}

/// The chat behind a session webhook.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Webhook {
    /// The conversation.
    pub chat: String,
    /// Until when it is good, in milliseconds since 1970.
    pub until_ms: u64,
}

/// Something that a chat shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// `session`, `single`, `group` or `card`.
    pub way: String,
    /// The conversation.
    pub chat: String,
    /// `text`, `markdown`, or the `outTrackId` of a card.
    pub format: String,
    /// Where only one line is shown.
    pub title: String,
    /// What it says; of a card see [`State::cards`].
    pub text: String,
    /// Who is called.
    pub at: Vec<String>,
}

/// A call of the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Its path behind `/v1.0/`, or its last part.
    pub method: String,
    /// Its JSON.
    pub body: Value,
    /// The HTTP status; none while it is served, or when it was cut off.
    pub status: Option<u16>,
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("some time to go")
}

impl State {
    /// An app without connections, at `base`.
    pub fn new(client_id: &str, client_secret: &str, base: &str) -> Self {
        Self {
            client_id: client_id.to_owned(),
            client_secret: client_secret.to_owned(),
            base: base.to_owned(),
            webhook_base: None,
            ticket_ms: 90_000,
            token_secs: 7200,
            webhook_ms: 5_400_000,
            event_retry_ms: 1000,
            has_number_times: false,
            group_per_minute: None,
            invalid_staff: BTreeSet::new(),
            flow_controlled: BTreeSet::new(),
            unknown_groups: BTreeSet::new(),
            tickets: BTreeMap::new(),
            connections: Vec::new(),
            pushes: Vec::new(),
            tokens: BTreeMap::new(),
            webhooks: BTreeMap::new(),
            sent: Vec::new(),
            cards: BTreeMap::new(),
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            calls: Vec::new(),
            complaints: Vec::new(),
            faults: Vec::new(),
            fresh: 0,
            seed: now_ms() | 1,
        }
    }

    /// A number that was not used before.
    pub fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh
    }

    /// The conversation of a member with the bot alone.
    pub fn direct_chat(user: &str) -> String {
        format!("cid-of-{user}==")
    }

    /// The connections that may be pushed to.
    pub fn open_connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(|connection| connection.phase == Phase::Open)
    }

    /// The connection `id`.
    pub fn connection(&mut self, id: u64) -> &mut Connection {
        self.connections.iter_mut().find(|connection| connection.id == id).expect("connections are kept for ever")
    }

    /// Pushes a frame to one connection that is open, chosen at random; never again, whatever becomes of it. Returns its
    /// `messageId`.
    pub fn push(&mut self, kind: &str, topic: &str, more: &Value, data: &Value, text: Option<&str>) -> String {
        let wants = |wanted: &Subscription| wanted.kind == kind && (wanted.topic == "*" || wanted.topic == topic);
        let open: Vec<u64> = self
            .open_connections()
            .filter(|connection| kind == "SYSTEM" || connection.subscriptions.iter().any(wants))
            .map(|connection| connection.id)
            .collect();
        let chosen = match u64::try_from(open.len()) {
            Ok(n @ 1..) => usize::try_from(self.random() % n).ok().and_then(|at| open.get(at).copied()),
            _ => None,
        };
        self.push_to(chosen, kind, topic, more, data, text)
    }

    /// Pushes a frame to one connection, or to none at all. `messageId` in `more` takes the place of a fresh one; null
    /// leaves it out.
    pub fn push_to(
        &mut self,
        to: Option<u64>,
        kind: &str,
        topic: &str,
        more: &Value,
        data: &Value,
        text: Option<&str>,
    ) -> String {
        let mut message_id = format!("message-{}", self.fresh());
        let time = if self.has_number_times { json!(now_ms()) } else { json!(now_ms().to_string()) };
        let mut headers = json!({
            "appId": "app-of-the-test",
            "connectionId": to.map(|to| format!("connection-{to}")).unwrap_or_default(),
            "contentType": "application/json",
            "messageId": message_id,
            "time": time,
            "topic": topic,
        });
        merge(&mut headers, more);
        if headers.get("messageId").is_none() {
            message_id.clear();
        }
        let data = data.to_string();
        let frame = json!({ "specVersion": "1.0", "type": kind, "headers": headers, "data": data });
        let (kind, topic, at_ms) = (kind.to_owned(), topic.to_owned(), now_ms());
        let (text, returned) = (text.map(str::to_owned), message_id.clone());
        self.pushes.push(Push { at_ms, kind, topic, message_id, text, data, to, is_written: false, acks: Vec::new() });
        if let Some(to) = to {
            let push = Some(self.pushes.len() - 1);
            self.connection(to).queue.push_back(Outgoing { text: frame.to_string(), push });
        }
        returned
    }

    /// The client has closed a connection: what is not written there goes to another one, if one is open. That a push was
    /// just being lined up is no more than how this server's threads took turns.
    pub fn move_unwritten(&mut self, from: u64) {
        let Some(to) = self.open_connections().next().map(|connection| connection.id) else { return };
        let unwritten = std::mem::take(&mut self.connection(from).queue);
        for outgoing in &unwritten {
            if let Some(push) = outgoing.push {
                self.pushes[push].to = Some(to);
            }
        }
        self.connection(to).queue.extend(unwritten);
    }

    /// Messages to the bot that the client never said it has: none was connected, the connection broke, or it was not
    /// answered.
    pub fn lost(&self) -> Vec<&Push> {
        self.pushes.iter().filter(|push| push.text.is_some() && !push.is_acked()).collect()
    }

    /// Tells a connection to go, which the server breaks off after `after_ms`.
    pub fn disconnect(&mut self, id: u64, has_message_id: bool, after_ms: u64) {
        let more = if has_message_id { json!({}) } else { json!({ "messageId": null }) };
        self.push_to(Some(id), "SYSTEM", "disconnect", &more, &json!({ "reason": "the connection is too old" }), None);
        let connection = self.connection(id);
        if connection.phase == Phase::Open {
            connection.phase = Phase::Going;
        }
        connection.leave_at_ms = Some(now_ms() + after_ms);
    }

    /// Breaks off all connections without a word.
    pub fn break_all(&mut self) {
        for connection in self.connections.iter_mut().filter(|connection| connection.phase != Phase::Closed) {
            (connection.phase, connection.leave_at_ms) = (Phase::Going, Some(0));
            connection.queue.clear();
        }
    }

    /// The next `times` calls of `method` go wrong.
    pub fn add_fault(&mut self, method: &str, times: u32, fault: Fault) {
        self.faults.push(Planned { method: method.to_owned(), times, fault });
    }

    /// What goes wrong with this call.
    pub fn take_fault(&mut self, method: &str) -> Option<Fault> {
        faults::take(&mut self.faults, method)
    }

    /// Makes all access tokens stale.
    pub fn expire_tokens(&mut self) {
        self.tokens.values_mut().for_each(|until_ms| *until_ms = 0);
    }

    /// Ends all session webhooks before the time that was told.
    pub fn expire_webhooks(&mut self) {
        self.webhooks.values_mut().for_each(|webhook| webhook.until_ms = 0);
    }

    /// Keeps a file that somebody has sent. Returns its `downloadCode`.
    pub fn put_file(&mut self, bytes: Vec<u8>) -> String {
        let code = format!("download/code+{}=", self.fresh());
        self.files.insert(code.clone(), bytes);
        code
    }

    /// What a chat shows of the bot, oldest first.
    pub fn texts(&self, chat: &str) -> Vec<String> {
        let said = |sent: &Sent| match sent.way.as_str() {
            "card" => self.cards.get(&sent.format).map(|card| card.text().to_owned()).unwrap_or_default(),
            _ => sent.text.clone(),
        };
        self.sent.iter().filter(|sent| sent.chat == chat).map(said).collect()
    }

    /// How often `method` was called.
    pub fn calls_of(&self, method: &str) -> usize {
        self.calls.iter().filter(|call| call.method == method).count()
    }

    /// What breaks the protocol.
    pub fn complain(&mut self, what: String) {
        self.complaints.push(what);
    }

    /// xorshift64.
    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }
}

/// Takes over the fields of `more`; one that is null goes.
pub fn merge(into: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        if value.is_null() {
            into.as_object_mut().expect("an object").remove(key);
        } else {
            into[key] = value.clone();
        }
    }
}
