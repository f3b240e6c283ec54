//! What the server knows, as plain data.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::faults::{self, Fault, Planned};
use super::crypto;

/// Ids of messages begin here: beyond what an f64 can tell apart.
const FIRST_MESSAGE_ID: u64 = (1 << 63) + 1;

/// The person who scans the QR code.
pub const SCANNER: &str = "scanner@im.wechat";

/// A `sendmessage` that was carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// The peer.
    pub to: String,
    /// The bot's name of the message.
    pub client_id: String,
    /// Whether an earlier one had the same.
    pub is_repeat: bool,
    /// As sent.
    pub context_token: Option<String>,
    /// Whether it is the latest one that the peer's messages had.
    pub is_latest_context: bool,
    /// The one item.
    pub item: Value,
}

impl Sent {
    /// Its text; empty if it is of another kind.
    pub fn text(&self) -> &str {
        self.item["text_item"]["text"].as_str().unwrap_or_default()
    }
}

/// A request of the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// The last part of the path.
    pub method: String,
    /// Its JSON, or the query of a GET.
    pub body: Value,
    /// The HTTP status; none while it is served, or when it was cut off.
    pub status: Option<u16>,
}

/// A `sendtyping`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typing {
    /// Whom it is shown to.
    pub user: String,
    /// 1 shown, 2 over.
    pub status: u64,
}

/// What `getuploadurl` allowed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upload {
    /// The name in the upload's query.
    pub filekey: String,
    /// 1 image, 2 video, 3 file, 4 voice.
    pub media_type: u64,
    /// Bytes of plaintext.
    pub rawsize: u64,
    /// MD5 of it, in hex.
    pub rawfilemd5: String,
    /// Bytes of ciphertext.
    pub filesize: u64,
    /// The key, in hex.
    pub aeskey: String,
}

/// A file on the CDN.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    /// Ciphertext, in base64.
    pub ciphertext: String,
    /// The key, in hex.
    pub aeskey: String,
    /// What allowed it, if the client sent it.
    pub upload: Option<Upload>,
}

/// What the QR login answers to one poll.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QrStep {
    /// The answer; `confirmed` is completed with the credentials.
    pub answer: Value,
    /// The digits on the phone: until a poll brings them, it is answered with `need_verifycode` instead.
    #[serde(default)]
    pub code: Option<String>,
}

/// One bot account and its chats.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The bot token.
    pub token: String,
    /// The bot's id.
    pub account: String,
    /// How long a poll is held.
    pub hold_ms: u64,
    /// `longpolling_timeout_ms` of every answer.
    pub longpolling_timeout_ms: Option<u64>,
    /// Everything that was said to the bot. A cursor counts them.
    pub msgs: Vec<Value>,
    /// The highest cursor that a poll came with.
    pub confirmed: usize,
    /// Every cursor that a poll came with, as it was.
    pub cursors: Vec<String>,
    /// Everything the bot has sent.
    pub sent: Vec<Sent>,
    /// Everything the bot has called.
    pub calls: Vec<Call>,
    /// Requests that break the protocol, and how.
    pub complaints: Vec<String>,
    /// What goes wrong next.
    pub faults: Vec<Planned>,
    /// Whether the bot token is stale: every answer is -14.
    pub is_stale: bool,
    /// The latest context of each peer.
    pub contexts: BTreeMap<String, String>,
    /// Contexts that are not taken any more: -14.
    pub stale_contexts: BTreeSet<String>,
    /// Typing tickets, and whose they are.
    pub tickets: BTreeMap<String, String>,
    /// What was shown of typing.
    pub typing: Vec<Typing>,
    /// Uploads that may come.
    pub uploads: BTreeMap<String, Upload>,
    /// The CDN.
    pub files: BTreeMap<String, Stored>,
    /// Where `upload_full_url` leads to; without it there is only `upload_param`.
    pub upload_base: Option<String>,
    /// What the QR login answers next; when it is empty, a poll is held and answered with `wait`.
    pub qr_script: VecDeque<QrStep>,
    /// Every QR code that was given out.
    pub qr_codes: Vec<String>,
    /// `baseurl` of the credentials.
    pub qr_base_url: String,
    /// How often `notifystart` came.
    pub started: u32,
    /// How often `notifystop` came.
    pub stopped: u32,
    /// Every `X-WECHAT-UIN`, because each is for one request.
    pub uins: BTreeSet<String>,
    next: u64,
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).expect("a date before the year 500 million")
}

impl State {
    /// A bot nobody has written to.
    pub fn new(token: &str, account: &str) -> Self {
        Self {
            token: token.to_owned(),
            account: account.to_owned(),
            hold_ms: 30_000,
            longpolling_timeout_ms: None,
            msgs: Vec::new(),
            confirmed: 0,
            cursors: Vec::new(),
            sent: Vec::new(),
            calls: Vec::new(),
            complaints: Vec::new(),
            faults: Vec::new(),
            is_stale: false,
            contexts: BTreeMap::new(),
            stale_contexts: BTreeSet::new(),
            tickets: BTreeMap::new(),
            typing: Vec::new(),
            uploads: BTreeMap::new(),
            files: BTreeMap::new(),
            upload_base: None,
            qr_script: VecDeque::new(),
            qr_codes: Vec::new(),
            qr_base_url: String::new(),
            started: 0,
            stopped: 0,
            uins: BTreeSet::new(),
            next: 0,
        }
    }

    /// A number that was not there before.
    pub fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// `user` writes `text`. Returns the id of the message.
    pub fn say(&mut self, user: &str, text: &str) -> u64 {
        self.say_items(user, json!([{ "type": 1, "text_item": { "text": text } }]))
    }

    /// `user` sends these items.
    pub fn say_items(&mut self, user: &str, items: Value) -> u64 {
        let fresh = self.fresh();
        let id = FIRST_MESSAGE_ID + fresh;
        let context = format!("context-{fresh}-of-{user}");
        self.contexts.insert(user.to_owned(), context.clone());
        let message = json!({
            "seq": fresh,
            "message_id": id,
            "from_user_id": user,
            "to_user_id": self.account,
            "client_id": format!("phone-{fresh}"),
            "create_time_ms": now_ms(),
            "session_id": format!("session-of-{user}"),
            "message_type": 1,
            "message_state": 2,
            "item_list": items,
            "context_token": context,
        });
        self.msgs.push(message);
        id
    }

    /// Puts a file on the CDN for the bot to fetch. Returns its `encrypt_query_param`.
    pub fn put(&mut self, plaintext: &[u8], key: [u8; 16]) -> String {
        let param = format!("file+{}/=", self.fresh());
        let ciphertext = STANDARD.encode(crypto::encrypt(key, plaintext));
        let stored = Stored { ciphertext, aeskey: crypto::hex(&key), upload: None };
        self.files.insert(param.clone(), stored);
        param
    }

    /// The plaintext of a file that is on the CDN.
    pub fn plaintext(&self, param: &str) -> Option<Vec<u8>> {
        let stored = self.files.get(param)?;
        let ciphertext = STANDARD.decode(&stored.ciphertext).expect("encoded here");
        crypto::decrypt(crypto::unhex(&stored.aeskey)?, &ciphertext)
    }

    /// The cursor after `count` messages.
    pub fn cursor(count: usize) -> String {
        STANDARD.encode(format!("after {count}"))
    }

    /// How many messages are before a cursor.
    pub fn count(cursor: &str) -> Option<usize> {
        if cursor.is_empty() {
            return Some(0);
        }
        let text = String::from_utf8(STANDARD.decode(cursor).ok()?).ok()?;
        text.strip_prefix("after ")?.parse().ok()
    }

    /// The next `times` calls of `method` go wrong.
    pub fn add_fault(&mut self, method: &str, times: u32, fault: Fault) {
        self.faults.push(Planned { method: method.to_owned(), times, fault });
    }

    /// What goes wrong with this call.
    pub fn take_fault(&mut self, method: &str) -> Option<Fault> {
        faults::take(&mut self.faults, method)
    }

    /// What `user` sees of the bot, repeats included, oldest first.
    pub fn texts(&self, user: &str) -> Vec<String> {
        let texts = self.sent.iter().filter(|sent| sent.to == user).map(Sent::text);
        texts.filter(|text| !text.is_empty()).map(str::to_owned).collect()
    }

    /// How often the bot has called `method`.
    pub fn calls_of(&self, method: &str) -> usize {
        self.calls.iter().filter(|call| call.method == method).count()
    }

    /// Whether a poll is held that has confirmed everything.
    pub fn is_idle(&self) -> bool {
        let last = self.calls.iter().rev().find(|call| call.method == "getupdates");
        self.confirmed == self.msgs.len() && last.is_some_and(|call| call.status.is_none())
    }
}
