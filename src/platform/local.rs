//! The `local` platform: people at a terminal, over the control socket.
//!
//! It has no task and no I/O: the daemon owns a [`Local`], stores what [`Local::inbound`] makes of a request, and
//! sends what [`Local::deliver`] returns as notifications.
//!
//! **Invariants**
//! - A client is in at most one chat; opening another one leaves the first.
//! - What is said in a chat goes to every client in it; while there is none it waits in a backlog, in order, and the
//!   next client that opens the chat gets it and empties it.
//! - A backlog has a bound, and what fell out of it is said where it is missing.

use std::collections::BTreeMap;

use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chat::{Content, Conversation, Inbound, Outbound, OutboundContent, ReplyEnd, ReplyStep, Sender};
use crate::clock::UnixMillis;
use crate::control::proto::{ChatOpenParams, ChatOpened, ChatOutput, ChatSendParams};
use crate::control::{ClientId, Peer};
use crate::id::TurnId;
use crate::jsonrpc::ErrorObject;
use crate::words::Language;

/// The name of the platform.
pub const PLATFORM: &str = "local";
/// The account that hears all local messages: the other part of their de-duplication key.
pub const ACCOUNT: &str = "local";
/// The chat that is opened when none is named.
pub const DEFAULT_CHAT: &str = "main";

/// Chats that keep a backlog at a time.
const BACKLOGS_MAX: usize = 32;
/// What one backlog holds, in bytes of text; each step counts for [`STEP_BYTES`] more.
const BACKLOG_BYTES_MAX: usize = 64 << 10;
/// What a step costs beside its text, so that steps without text are bounded too.
const STEP_BYTES: usize = 64;
/// Deltas are joined in the backlog up to this size, so that the oldest text can be dropped piece by piece.
const JOINED_BYTES_MAX: usize = 4 << 10;
/// Replies whose length is remembered: more than agents can give at a time.
const OPEN_MAX: usize = 256;
/// The longest chat name and message id, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// The clients in local chats, and what waits for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    #[serde(default)]
    subscribers: BTreeMap<ClientId, Subscriber>,
    #[serde(default)]
    backlogs: BTreeMap<String, Backlog>,
    /// Numbers the backlogs in the order they were begun.
    #[serde(default)]
    next_backlog: u64,
    /// How much of each open reply was said, in bytes.
    #[serde(default)]
    said: BTreeMap<TurnId, usize>,
    /// The number of the next file of each open reply that has any.
    #[serde(default)]
    files: BTreeMap<TurnId, u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Subscriber {
    chat: String,
    /// The user's name, looked up once because it can mean asking the network (nsswitch.conf(5)).
    name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Backlog {
    begun: u64,
    steps: Vec<OutboundContent>,
    /// True once something fell out.
    #[serde(default)]
    cut: bool,
}

impl Local {
    /// Puts a client into a chat and gives it what was said there while nobody listened.
    ///
    /// # Errors
    /// Invalid parameters: the chat's name is empty, too long, or has other characters than ASCII letters, digits,
    /// `.`, `-` and `_`.
    pub fn open(&mut self, client: ClientId, peer: Peer, params: ChatOpenParams) -> Result<ChatOpened, ErrorObject> {
        let chat = params.chat.unwrap_or_else(|| DEFAULT_CHAT.to_owned());
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if chat.is_empty() || chat.len() > NAME_BYTES_MAX || !chat.chars().all(plain) {
            return Err(invalid("a chat is named by up to 128 letters, digits, `.`, `-` and `_`"));
        }
        let conversation = Conversation::new(PLATFORM, chat.clone()).to_string();
        let backlog = self.backlogs.remove(&chat).map(Backlog::into_steps).unwrap_or_default();
        self.subscribers.insert(client, Subscriber { chat, name: user_name(peer.uid) });
        Ok(ChatOpened { conversation, backlog })
    }

    /// What a client says in the chat it has opened, as a message to be stored.
    ///
    /// # Errors
    /// Invalid parameters: no chat is open, the text is empty, or the message id is empty or too long.
    pub fn inbound(&self, client: ClientId, peer: Peer, params: ChatSendParams) -> Result<Inbound, ErrorObject> {
        let subscriber = self.subscribers.get(&client).ok_or_else(|| invalid("open a chat first"))?;
        if params.text.trim().is_empty() {
            return Err(invalid("the message is empty"));
        }
        if params.message_id.is_empty() || params.message_id.len() > NAME_BYTES_MAX {
            return Err(invalid("a message id has 1 to 128 bytes"));
        }
        Ok(Inbound {
            conversation: Conversation::new(PLATFORM, subscriber.chat.clone()),
            account: ACCOUNT.to_owned(),
            message_id: params.message_id,
            sender: Sender { id: peer.uid.to_string(), name: subscriber.name.clone() },
            sent_at: UnixMillis::now(),
            text: params.text,
            is_direct: true,
            attachments: Vec::new(),
            context: None,
        })
    }

    /// The notifications that show `outbound`, one for each client in the chat; without any it waits for one.
    ///
    /// A [`ReplyStep::SoFar`] is shown as the text that is missing, so clients need not know of it.
    pub fn deliver(&mut self, outbound: Outbound) -> Vec<(ClientId, Value)> {
        let Outbound { conversation, content } = outbound;
        let OutboundContent::Reply { turn, step } = content else { return self.say(conversation, content) };
        let steps = self.count(turn, step).into_iter();
        let steps = steps.map(|step| OutboundContent::Reply { turn, step });
        steps.flat_map(|content| self.say(conversation.clone(), content)).collect()
    }

    fn say(&mut self, conversation: Conversation, content: OutboundContent) -> Vec<(ClientId, Value)> {
        let listening: Vec<ClientId> = self
            .subscribers
            .iter()
            .filter(|(_, subscriber)| subscriber.chat == conversation.chat)
            .map(|(client, _)| *client)
            .collect();
        if listening.is_empty() {
            self.keep(conversation.chat, content);
            return Vec::new();
        }
        let output = ChatOutput { conversation: conversation.to_string(), content };
        let params = serde_json::to_value(output).expect("plain data serialises");
        listening.into_iter().map(|client| (client, params.clone())).collect()
    }

    /// Forgets a client that is gone.
    pub fn gone(&mut self, client: ClientId) {
        self.subscribers.remove(&client);
    }

    /// Counts what is said with `step`, and returns the steps that say it.
    fn count(&mut self, turn: TurnId, step: ReplyStep) -> Vec<ReplyStep> {
        let steps = match step {
            ReplyStep::SoFar(mut text) => match self.said.get(&turn) {
                Some(&said) => {
                    let missing = text.split_off(text.ceil_char_boundary(said));
                    if missing.is_empty() { Vec::new() } else { vec![ReplyStep::Delta(missing)] }
                }
                None => vec![ReplyStep::Begin, ReplyStep::Delta(text)],
            },
            step => vec![step],
        };
        for step in &steps {
            match step {
                ReplyStep::Begin => drop(self.said.insert(turn, 0)),
                ReplyStep::Delta(text) => *self.said.entry(turn).or_default() += text.len(),
                ReplyStep::SoFar(_) | ReplyStep::File(_) | ReplyStep::Activity(_) => {}
                ReplyStep::End(_) => {
                    self.said.remove(&turn);
                    self.files.remove(&turn);
                }
            }
        }
        while self.said.len() > OPEN_MAX {
            self.said.pop_first();
        }
        while self.files.len() > OPEN_MAX {
            self.files.pop_first();
        }
        steps.into_iter().filter_map(|step| self.in_words(turn, step)).collect()
    }

    /// A file is a line of text, which is no part of the reply's text; one that was shown is nothing.
    fn in_words(&mut self, turn: TurnId, step: ReplyStep) -> Option<ReplyStep> {
        let ReplyStep::File(file) = step else { return Some(step) };
        let next = self.files.entry(turn).or_default();
        if file.number < *next {
            return None;
        }
        *next = file.number.saturating_add(1);
        let line = match &file.content {
            Content::Kept { path, .. } => format!("[file: {}]", path.display()),
            Content::Missing { why, link } => {
                Language::default().words().file_not_sent(&file.name, why, link.as_deref())
            }
        };
        Some(ReplyStep::Delta(format!("\n{line}\n")))
    }

    fn keep(&mut self, chat: String, content: OutboundContent) {
        if !self.backlogs.contains_key(&chat) && self.backlogs.len() >= BACKLOGS_MAX {
            let oldest = self.backlogs.iter().min_by_key(|(_, backlog)| backlog.begun).map(|(name, _)| name.clone());
            if let Some(oldest) = oldest {
                tracing::warn!(chat = oldest, "what nobody has read in a local chat is dropped for want of room");
                self.backlogs.remove(&oldest);
            }
        }
        let begun = self.next_backlog;
        let backlog = self.backlogs.entry(chat).or_insert_with(|| {
            self.next_backlog += 1;
            Backlog { begun, ..Backlog::default() }
        });
        backlog.push(content);
    }
}

impl Backlog {
    fn push(&mut self, content: OutboundContent) {
        match (self.steps.last_mut(), content) {
            // An activity is of the moment; nobody wants to read it later.
            (_, OutboundContent::Reply { step: ReplyStep::Activity(_), .. }) => {}
            (
                Some(OutboundContent::Reply { turn: last, step: ReplyStep::Delta(text) }),
                OutboundContent::Reply { turn, step: ReplyStep::Delta(more) },
            ) if *last == turn && text.len() + more.len() <= JOINED_BYTES_MAX => text.push_str(&more),
            (_, content) => self.steps.push(content),
        }
        let mut size: usize = self.steps.iter().map(size_bytes).sum();
        let dropped = self
            .steps
            .iter()
            .take_while(|step| {
                let over = size > BACKLOG_BYTES_MAX;
                size = size.saturating_sub(if over { size_bytes(step) } else { 0 });
                over
            })
            .count();
        self.steps.drain(..dropped);
        self.cut |= dropped > 0;
    }

    fn into_steps(self) -> Vec<OutboundContent> {
        let text = "(More was said here while nobody listened than could be kept.)".to_owned();
        let notice = self.cut.then_some(OutboundContent::Notice(text.into()));
        notice.into_iter().chain(self.steps).collect()
    }
}

fn size_bytes(content: &OutboundContent) -> usize {
    let text = match content {
        OutboundContent::Notice(notice) => notice.text.len(),
        OutboundContent::Reply {
            step: ReplyStep::Delta(text) | ReplyStep::SoFar(text) | ReplyStep::Activity(text),
            ..
        } => text.len(),
        OutboundContent::Reply { step: ReplyStep::End(ReplyEnd::Failed(text)), .. } => text.len(),
        OutboundContent::Reply { step: ReplyStep::Begin | ReplyStep::File(_) | ReplyStep::End(_), .. } => 0,
    };
    text + STEP_BYTES
}

fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

fn invalid(message: &str) -> ErrorObject {
    ErrorObject::new(ErrorObject::INVALID_PARAMS, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{NotSent, OutFile};

    /// What the next image makes of it.
    fn carried(local: &Local) -> Local {
        let state = serde_json::to_string(local).expect("plain data serialises");
        serde_json::from_str(&state).expect("what was written is read")
    }

    use proptest::prelude::*;

    const ROOT: Peer = Peer { uid: 0, gid: 0, pid: 1 };

    fn open(local: &mut Local, client: u64, chat: &str) -> Vec<OutboundContent> {
        let params = ChatOpenParams { chat: Some(chat.to_owned()) };
        local.open(ClientId(client), ROOT, params).expect("a good name").backlog
    }

    fn reply(chat: &str, turn: i64, step: ReplyStep) -> Outbound {
        let content = OutboundContent::Reply { turn: TurnId(turn), step };
        Outbound { conversation: Conversation::new(PLATFORM, chat), content }
    }

    fn delta(chat: &str, text: &str) -> Outbound {
        reply(chat, 1, ReplyStep::Delta(text.to_owned()))
    }

    fn text_of(steps: &[OutboundContent]) -> String {
        steps
            .iter()
            .filter_map(|step| match step {
                OutboundContent::Reply { step: ReplyStep::Delta(text), .. } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn every_client_in_the_chat_gets_what_is_said_there() {
        let mut local = Local::default();
        for (client, chat) in [(1, "main"), (2, "main"), (3, "other")] {
            assert_eq!(open(&mut local, client, chat), []);
        }
        let shown = local.deliver(delta("main", "hi"));
        assert_eq!(shown.iter().map(|(client, _)| client.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(
            shown[0].1,
            serde_json::json!({
                "conversation": "local:main", "content": { "reply": { "turn": 1, "step": { "delta": "hi" } } }
            })
        );
    }

    #[test]
    fn a_message_needs_an_open_chat_a_text_and_an_id() {
        let mut local = Local::default();
        let send = |text: &str, id: &str| ChatSendParams { text: text.to_owned(), message_id: id.to_owned() };
        assert!(local.inbound(ClientId(1), ROOT, send("hi", "a")).is_err());
        local.open(ClientId(1), ROOT, ChatOpenParams::default()).expect("the default name is good");
        assert!(local.inbound(ClientId(1), ROOT, send(" \n", "a")).is_err());
        assert!(local.inbound(ClientId(1), ROOT, send("hi", "")).is_err());
        let inbound = local.inbound(ClientId(1), ROOT, send("hi", "a")).expect("complete");
        assert_eq!(inbound.conversation.to_string(), "local:main");
        assert_eq!((inbound.account.as_str(), inbound.sender.id.as_str()), ("local", "0"));
        for chat in ["", "a b", "a:b", "a/b", &"x".repeat(129)] {
            assert!(local.open(ClientId(1), ROOT, ChatOpenParams { chat: Some(chat.to_owned()) }).is_err(), "{chat}");
        }
    }

    #[test]
    fn what_nobody_heard_is_given_once_in_order_and_without_activities() {
        let mut local = Local::default();
        open(&mut local, 1, "main");
        local.gone(ClientId(1));
        local.deliver(reply("main", 1, ReplyStep::Begin));
        for text in ["a", "b"] {
            local.deliver(delta("main", text));
            local.deliver(reply("main", 1, ReplyStep::Activity("reads".into())));
        }
        local.deliver(reply("main", 1, ReplyStep::End(ReplyEnd::Complete)));
        let mut local = carried(&local);
        let given = open(&mut local, 2, "main");
        assert_eq!((given.len(), text_of(&given).as_str()), (3, "ab"));
        assert_eq!(open(&mut local, 3, "main"), []);
    }

    #[test]
    fn a_reply_taken_up_after_a_kill_is_said_once() {
        let so_far = |text: &str| reply("main", 1, ReplyStep::SoFar(text.to_owned()));
        let mut local = Local::default();
        local.deliver(so_far("on"));
        local.deliver(delta("main", "é"));
        local.deliver(so_far("oné two"));
        local.deliver(so_far("oné two"));
        let given = open(&mut local, 1, "main");
        assert!(matches!(given[0], OutboundContent::Reply { step: ReplyStep::Begin, .. }));
        assert_eq!(text_of(&given), "oné two");
        assert_eq!(local.deliver(so_far("oné two")), []);
        assert_eq!(local.deliver(so_far("oné two three"))[0].1["content"]["reply"]["step"]["delta"], " three");
        local.deliver(reply("main", 1, ReplyStep::End(ReplyEnd::Complete)));
        assert!(local.said.is_empty());
    }

    #[test]
    fn a_file_is_a_line_with_its_path_that_is_said_once() {
        let file = |number, content| {
            let file = OutFile { number, at: 2, name: "a.txt".into(), mime: None, content };
            reply("main", 1, ReplyStep::File(file))
        };
        let kept = || file(0, Content::Kept { path: "/srv/0-a.txt".into(), bytes: 3 });
        let missing = || file(1, Content::Missing { why: NotSent::Outside, link: Some("file:///x".into()) });
        let so_far = |text: &str| reply("main", 1, ReplyStep::SoFar(text.to_owned()));
        let mut local = Local::default();
        for said in [so_far("on"), kept(), so_far("on"), kept(), so_far("one"), missing()] {
            local.deliver(said);
        }
        let mut local = carried(&local);
        for said in [kept(), missing(), so_far("one two")] {
            local.deliver(said);
        }
        let word = "📎 a.txt (not sent: it is no file in the agent's working directory)\nfile:///x";
        let said = format!("on\n[file: /srv/0-a.txt]\ne\n{word}\n two");
        assert_eq!(text_of(&open(&mut local, 1, "main")), said);
        local.deliver(reply("main", 1, ReplyStep::End(ReplyEnd::Complete)));
        assert!(local.files.is_empty());
    }

    #[test]
    fn the_oldest_backlog_makes_room_for_a_new_one() {
        let mut local = Local::default();
        for n in 0..=BACKLOGS_MAX {
            local.deliver(delta(&format!("c{n}"), "x"));
        }
        assert_eq!(local.backlogs.len(), BACKLOGS_MAX);
        assert_eq!(open(&mut local, 1, "c0"), []);
        assert_eq!(text_of(&open(&mut local, 1, "c1")), "x");
    }

    proptest! {
        /// A backlog gives all that was said, or says that something is missing and gives the rest of it.
        #[test]
        fn a_backlog_is_bounded_and_gives_a_suffix(
            sizes in prop::collection::vec(0..20_000_usize, 1..40),
            carry_every in 1..9_usize,
        ) {
            let (mut local, mut said) = (Local::default(), String::new());
            for (n, size) in sizes.iter().enumerate() {
                let text = char::from(b'a' + u8::try_from(n % 26).expect("below 26")).to_string().repeat(*size);
                local.deliver(delta("main", &text));
                said.push_str(&text);
                if n % carry_every == 0 {
                    let carried = carried(&local);
                    prop_assert_eq!(&carried, &local);
                    local = carried;
                }
            }
            let given = open(&mut local, 1, "main");
            let text = text_of(&given);
            prop_assert!(text.len() <= BACKLOG_BYTES_MAX);
            prop_assert!(said.ends_with(&text));
            let cut = matches!(given.first(), Some(OutboundContent::Notice(_)));
            prop_assert_eq!(cut, text.len() < said.len());
        }
    }
}
