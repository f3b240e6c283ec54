//! What every chat says now: the last messages of those that somebody looks at, and the text of those that grow.
//!
//! **Invariants**
//! - A message that is complete is in the store before it is here. The text of one that grows is only here, and crosses a
//!   handoff; after a kill the delivery says it again.
//! - Messages of a chat appear in the order of their numbers, so whoever has one has all before it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::message::Message;
use crate::chat::Inbound;
use crate::report::Chain;
use crate::store::{Accepted, Line, Span, Store, StoreError};

/// Messages of a chat that are held; older ones are read from the store.
const HELD_MAX: usize = 100;
/// Chats that are held.
const CHATS_MAX: usize = 64;
/// Messages that grow, over all chats: those that have not for the longest time are left to the store.
const GROWING_MAX: usize = 64;

/// The chats.
pub(super) struct Board {
    store: Store,
    held: Mutex<Held>,
    changed: watch::Sender<u64>,
    /// Who has it gives numbers, and shows what got them before somebody else does.
    numbers: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    chats: BTreeMap<String, Chat>,
    /// The last message that was let go of with its chat.
    gone: i64,
}

/// What is held of a chat.
#[derive(Default)]
pub(super) struct Chat {
    pub(super) messages: BTreeMap<i64, Arc<Message>>,
    /// The last that was let go of.
    pub(super) gone: i64,
    /// How often the agent was seen at work.
    pub(super) typing: u64,
}

/// A message and its number.
pub(super) type Numbered = (i64, Arc<Message>);

/// A message that grows, as it crosses a handoff.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Growing {
    chat: String,
    number: i64,
    message: Message,
}

impl Board {
    pub(super) fn new(store: Store) -> Self {
        let changed = watch::Sender::new(0);
        Self { store, held: Mutex::default(), changed, numbers: tokio::sync::Mutex::default() }
    }

    /// Told whenever something changes in any chat.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // What panics while it is held ends the process.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at a chat. All its messages are there behind the last one that is gone.
    pub(super) fn look<T>(&self, chat: &str, look: impl FnOnce(&Chat) -> T) -> T {
        let mut held = self.held();
        let gone = held.gone;
        match held.chats.get_mut(chat) {
            Some(chat) => {
                chat.gone = chat.gone.max(gone);
                look(chat)
            }
            // Looking costs no memory, whatever name somebody makes up.
            None => look(&Chat { gone, ..Chat::default() }),
        }
    }

    /// Shows what somebody says, once it is stored. Returns its number.
    pub(super) async fn say(&self, inbound: &Inbound, message: Message) -> Result<(Accepted, i64), StoreError> {
        let _numbers = self.numbers.lock().await;
        let (accepted, number) = self.store.accept_line(inbound, message.body()).await?;
        if let Accepted::New(_) = accepted {
            self.show(&inbound.conversation.chat, number, message);
        }
        Ok((accepted, number))
    }

    /// Shows a message, in the place of the one of the same key. Returns its number.
    pub(super) async fn put(&self, chat: &str, key: Option<String>, message: Message) -> Result<i64, StoreError> {
        let _numbers = self.numbers.lock().await;
        let number = self.store.put_line(chat, key, message.body()).await?;
        self.show(chat, number, message);
        Ok(number)
    }

    /// Changes a message. Says whether there is one.
    pub(super) async fn change(
        &self,
        chat: &str,
        number: i64,
        change: impl FnOnce(&mut Message),
    ) -> Result<bool, StoreError> {
        let mut message = match self.look(chat, |held| held.messages.get(&number).cloned()) {
            Some(message) => Message::clone(&message),
            None => match self.read(chat, number).await? {
                Some(message) => message,
                None => return Ok(false),
            },
        };
        change(&mut message);
        if message.is_final {
            self.store.change_line(number, message.body()).await?;
        }
        self.show(chat, number, message);
        Ok(true)
    }

    /// The agent works.
    pub(super) fn typing(&self, chat: &str) {
        self.held().chats.entry(chat.to_owned()).or_default().typing += 1;
        self.tell();
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn show(&self, chat: &str, number: i64, message: Message) {
        let mut held = self.held();
        held.make_room(chat);
        let chat = held.chats.entry(chat.to_owned()).or_default();
        chat.messages.insert(number, Arc::new(message));
        chat.trim();
        drop(held);
        self.tell();
    }

    async fn read(&self, chat: &str, number: i64) -> Result<Option<Message>, StoreError> {
        let line = self.store.line(number).await?.filter(|line| line.chat == chat);
        Ok(line.and_then(|line| read(&line)))
    }

    /// Messages of a chat from the store, in order, as they are now.
    pub(super) async fn lines(&self, chat: &str, span: Span, limit: u32) -> Result<Vec<Numbered>, StoreError> {
        let lines = self.store.lines(chat, span, limit).await?;
        Ok(self.look(chat, |held| {
            let now = |line: &Line| {
                let live = held.messages.get(&line.number).cloned();
                Some((line.number, live.or_else(|| read(line).map(Arc::new))?))
            };
            lines.iter().filter_map(now).collect()
        }))
    }

    /// Holds a message that a reader has and that may have changed since. Says whether there is one.
    pub(super) async fn hold(&self, chat: &str, number: i64) -> Result<bool, StoreError> {
        if self.look(chat, |held| held.messages.contains_key(&number)) {
            return Ok(true);
        }
        let Some(message) = self.read(chat, number).await? else { return Ok(false) };
        let mut held = self.held();
        let chat = held.chats.entry(chat.to_owned()).or_default();
        chat.messages.entry(number).or_insert_with(|| Arc::new(message));
        Ok(true)
    }

    /// The message of a number in a chat of `user`.
    pub(super) async fn message_of(&self, user: &str, number: i64) -> Result<Option<Message>, StoreError> {
        let line = self.store.line(number).await?;
        Ok(line.filter(|line| super::is_chat_of(user, &line.chat)).and_then(|line| read(&line)))
    }

    /// What grows, for the next image.
    pub(super) fn growing(&self) -> Vec<Growing> {
        let held = self.held();
        let mut growing: Vec<Growing> = held
            .chats
            .iter()
            .flat_map(|(chat, held)| held.messages.iter().map(move |(number, message)| (chat, number, message)))
            .filter(|(.., message)| !message.is_final)
            .map(|(chat, number, message)| Growing {
                chat: chat.clone(),
                number: *number,
                message: Message::clone(message),
            })
            .collect();
        growing.sort_by_key(|growing| growing.number);
        growing.split_off(growing.len().saturating_sub(GROWING_MAX))
    }

    /// Goes on with what grew in another image.
    pub(super) fn restore(&self, growing: Vec<Growing>) {
        let mut held = self.held();
        for Growing { chat, number, message } in growing {
            held.chats.entry(chat).or_default().messages.insert(number, Arc::new(message));
        }
    }
}

impl Held {
    /// Lets go of other chats, if there are too many.
    fn make_room(&mut self, chat: &str) {
        if self.chats.len() < CHATS_MAX || self.chats.contains_key(chat) {
            return;
        }
        self.chats.values_mut().for_each(Chat::let_go);
        let gone = self.chats.values().map(|chat| chat.gone).max();
        self.gone = self.gone.max(gone.unwrap_or(0));
        self.chats.retain(|_, chat| !chat.messages.is_empty());
    }
}

impl Chat {
    /// Lets go of what does not change: whoever looks for it finds it in the store.
    fn let_go(&mut self) {
        let last = self.messages.keys().next_back().copied();
        self.gone = self.gone.max(last.unwrap_or(0));
        self.messages.retain(|_, message| !message.is_final);
    }

    /// Lets go of the oldest that does not change; of one that does only where all do.
    fn trim(&mut self) {
        while self.messages.len() > HELD_MAX {
            let steady = self.messages.iter().find(|(_, message)| message.is_final).map(|(number, _)| *number);
            let Some(number) = steady.or_else(|| self.messages.keys().next().copied()) else { return };
            self.messages.remove(&number);
            self.gone = self.gone.max(number);
        }
    }
}

fn read(line: &Line) -> Option<Message> {
    serde_json::from_str(&line.body)
        .inspect_err(
            |error| tracing::error!(number = line.number, error = %Chain(error), "a message cannot be read back"),
        )
        .ok()
}
