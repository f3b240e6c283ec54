//! What is to be shown, chat by chat, as a state machine without input or output: it is told what came and how
//! requests ended, and it says which request is next.
//!
//! **Invariants**
//! - At most one request is in flight for a chat, so the messages of a chat keep their order. A notice may overtake
//!   the end of a reply that is still growing, never the end of one that is complete.
//! - No chat waits for another, beyond the limits of the bot as a whole.
//! - What it is told is shown, or given up with a line in the log; [`Delivery::done`] and [`Delivery::push`] name
//!   each turn whose reply is over exactly once, and again to whoever goes on with a turn that is over.
//! - The whole state is plain data. What was in flight when it was saved is *ambiguous*: a message is then sent
//!   again with [`RECOVERED`](super::item::RECOVERED) before it, an edit is just repeated.
//! - After a kill a reply waits until its turn goes on, no longer than [`CLAIM_WAIT`].
//!
//! Bounds: [`CHAT_ITEMS_MAX`] items in a chat and [`ITEMS_MAX`] in all (beyond, notices run together and at last are
//! refused; replies never are, since the gateway runs one turn in a conversation at a time), 256 KiB of text in an
//! item.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::api::TelegramError;
use super::failure::Failure;
use super::item::{Item, Want};
use super::limiter::{Haste, Limiter};
use super::pace::{after, back_off};
use crate::chat::{Outbound, OutboundContent, ReplyStep};
use crate::clock::MonoNanos;
use crate::id::TurnId;
use crate::report::Chain;

/// Items that may wait in one chat.
pub(super) const CHAT_ITEMS_MAX: usize = 64;
/// Items that may wait in all chats.
const ITEMS_MAX: usize = 1024;
/// Groups that became supergroups and are remembered.
const MIGRATIONS_MAX: usize = 256;
/// Turns that are remembered as over: more than can be under way when the process is killed.
const OVER_MAX: usize = 256;
/// How long after a kill a reply waits for its turn to go on, which it does as soon as the gateway serves again.
const CLAIM_WAIT: Duration = Duration::from_secs(60);
/// What could not be delivered for so long is given up.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A request to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The chat, by which [`Delivery::done`] knows the request.
    pub(super) chat: String,
    /// The forum topic.
    pub(super) thread: Option<String>,
    /// What to do there.
    pub(super) action: Action,
}

/// The kinds of [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    /// Show that the agent works.
    Typing,
    /// Send a new message.
    Send {
        /// Its text.
        text: String,
    },
    /// Replace the text of a message.
    Edit {
        /// Which.
        message_id: i64,
        /// The whole text.
        text: String,
    },
}

/// What [`Delivery::next`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Make this request, and tell [`Delivery::done`] how it ended.
    Start(Request),
    /// Nothing before this instant.
    At(MonoNanos),
    /// Nothing until something comes or a request ends.
    Idle,
}

/// How urgently it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// A growing reply is shown about once a second.
    Streaming,
    /// Everything there is, at once: the process ends.
    Flushing,
}

/// A request in flight.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct InFlight {
    item: u64,
    action: Action,
    /// How much of the item's text it shows, in bytes.
    #[serde(default)]
    body: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Chat {
    #[serde(default)]
    items: VecDeque<Item>,
    /// Its place in the line for what the bot may send in all: lower is earlier. It goes to the end when it had
    /// nothing to show before, and whenever it is served.
    #[serde(default)]
    place: u64,
    #[serde(default)]
    in_flight: Option<InFlight>,
    /// Failures in a row.
    #[serde(default)]
    failures: u32,
    /// Nothing is sent before.
    #[serde(default)]
    retry_at: MonoNanos,
    /// When a growing reply may be edited again.
    #[serde(default)]
    edit_at: MonoNanos,
    /// It was told in the log that nobody can be reached here.
    #[serde(default)]
    unreachable: bool,
}

impl Chat {
    /// Takes the last place in line, unless it waits already.
    fn line_up(&mut self, place: u64) {
        if self.items.is_empty() {
            self.place = place;
        }
    }
}

/// All chats.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Delivery {
    #[serde(default)]
    chats: BTreeMap<String, Chat>,
    #[serde(default)]
    limiter: Limiter,
    #[serde(default)]
    next_id: u64,
    /// Groups by the id that they had before.
    #[serde(default)]
    migrated: BTreeMap<String, String>,
    /// The last turns whose replies are over, oldest first. The store may not know it of them.
    #[serde(default)]
    over: VecDeque<TurnId>,
    /// After a kill: when replies whose turns have not gone on end where they are.
    #[serde(default)]
    claim_until: Option<MonoNanos>,
}

impl Delivery {
    /// From now on at most `per_second` messages are sent in a second, in all chats together.
    pub(super) fn limited_to(&mut self, per_second: u32) {
        self.limiter.limited_to(per_second);
    }

    /// Takes up what another image left: whatever was in flight is ambiguous.
    pub(super) fn adopt(mut self) -> Self {
        for chat in self.chats.values_mut() {
            let Some(ambiguous) = chat.in_flight.take() else { continue };
            let item = chat.items.iter_mut().find(|item| item.id == ambiguous.item);
            if let (Some(item), Action::Send { .. }) = (item, ambiguous.action) {
                item.doubt();
            }
        }
        self
    }

    /// Takes up what a process that was killed left. Replies wait until their turns go on.
    pub(super) fn recover(self, now: MonoNanos) -> Self {
        let mut this = self.adopt();
        this.chats.values_mut().flat_map(|chat| &mut chat.items).for_each(Item::unclaim);
        this.claim_until = Some(after(now, CLAIM_WAIT));
        this
    }

    /// Takes something to show. Returns the turn whose reply is over with it, if there is nothing left to show.
    pub(super) fn push(&mut self, outbound: Outbound, now: MonoNanos) -> Option<TurnId> {
        let thread = outbound.conversation.thread;
        let key = self.migrated.get(&outbound.conversation.chat).cloned().unwrap_or(outbound.conversation.chat);
        match outbound.content {
            OutboundContent::Notice { text } => {
                self.push_notice(key, thread, &text, now);
                None
            }
            OutboundContent::Reply { turn, step } => self.push_step(key, thread, turn, &step, now),
        }
    }

    fn push_notice(&mut self, key: String, thread: Option<String>, text: &str, now: MonoNanos) {
        let in_all: usize = self.chats.values().map(|chat| chat.items.len()).sum();
        let id = self.new_id();
        let chat = self.chats.entry(key).or_default();
        chat.line_up(id);
        if chat.items.len() < CHAT_ITEMS_MAX && in_all < ITEMS_MAX {
            let item = Item::notice(id, text, thread, now);
            if !item.is_done() {
                chat.items.push_back(item);
            }
            return;
        }
        let busy = chat.in_flight.as_ref().map(|in_flight| in_flight.item);
        let last = chat.items.back_mut().filter(|item| item.thread == thread && Some(item.id) != busy);
        if !last.is_some_and(|item| item.merge(text)) {
            tracing::error!("too much waits to be shown in a chat: a notice was dropped");
        }
    }

    fn push_step(
        &mut self,
        key: String,
        thread: Option<String>,
        turn: TurnId,
        step: &ReplyStep,
        now: MonoNanos,
    ) -> Option<TurnId> {
        if let Some(at) = self.over.iter().position(|over| *over == turn) {
            match step {
                ReplyStep::Begin => drop(self.over.remove(at)),
                ReplyStep::Delta(_) | ReplyStep::Activity(_) => return None,
                ReplyStep::SoFar(_) | ReplyStep::End(_) => return Some(turn),
            }
        }
        let id = self.new_id();
        let chat = self.chats.entry(key).or_default();
        chat.line_up(id);
        let at = chat.items.iter().position(|item| item.turn == Some(turn)).unwrap_or_else(|| {
            chat.items.push_back(Item::reply(id, turn, thread, now));
            chat.items.len() - 1
        });
        let item = &mut chat.items[at];
        item.claim();
        match step {
            ReplyStep::Begin => {}
            ReplyStep::Delta(text) => item.push(text, now),
            ReplyStep::SoFar(text) => item.so_far(text, now),
            ReplyStep::Activity(title) => item.set_activity(title),
            ReplyStep::End(end) => {
                item.end(end, now);
                return self.sweep(now).pop();
            }
        }
        None
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The next request, which then counts as in flight. Of the chats that may send now it is the first in
    /// line: under the bot's overall limit no chat waits behind those that began to talk later, or were served since.
    pub(super) fn next(&mut self, now: MonoNanos, pace: Pace) -> Next {
        if self.claim_until.is_some_and(|until| until <= now || pace == Pace::Flushing) {
            self.claim_until = None;
            self.chats.values_mut().flat_map(|chat| &mut chat.items).for_each(Item::expire);
            // Nobody waits for these turns.
            self.sweep(now);
        }
        let mut at: Option<MonoNanos> = self.claim_until;
        let mut found: Option<(u64, &String, InFlight)> = None;
        for (key, chat) in self.chats.iter().filter(|(_, chat)| chat.in_flight.is_none()) {
            match self.next_of(key, chat, now, pace) {
                Ok(ready) if found.as_ref().is_none_or(|(first, ..)| chat.place < *first) => {
                    found = Some((chat.place, key, ready));
                }
                Ok(_) => {}
                Err(Some(due)) => at = Some(at.map_or(due, |at| at.min(due))),
                Err(None) => {}
            }
        }
        match found {
            Some((_, key, in_flight)) => {
                let key = key.clone();
                Next::Start(self.start(key, in_flight, now))
            }
            None => at.map_or(Next::Idle, Next::At),
        }
    }

    /// What `chat` may send now, or when it may. All that is complete waits for the same token, so the oldest gets it.
    fn next_of(&self, key: &str, chat: &Chat, now: MonoNanos, pace: Pace) -> Result<InFlight, Option<MonoNanos>> {
        let mut at: Option<MonoNanos> = None;
        for item in &chat.items {
            let flushing = pace == Pace::Flushing;
            let (action, body, ready) = match item.want() {
                Want::Nothing => continue,
                Want::Typing { .. } if flushing => continue,
                Want::Typing { due } => (Action::Typing, 0, due.max(self.limiter.global_ready())),
                Want::Show { edit, text, body, settled, due } => {
                    let hurried = settled || flushing;
                    let haste = if hurried || edit.is_none() { Haste::Urgent } else { Haste::Spare };
                    let mut ready = self.limiter.ready(key, haste);
                    if !hurried {
                        ready = ready.max(due);
                        if edit.is_some() {
                            ready = ready.max(chat.edit_at);
                        }
                    }
                    let action = match edit {
                        Some(message_id) => Action::Edit { message_id, text },
                        None => Action::Send { text },
                    };
                    (action, body, ready)
                }
            };
            let ready = ready.max(chat.retry_at);
            if ready <= now {
                return Ok(InFlight { item: item.id, action, body });
            }
            at = Some(at.map_or(ready, |at| at.min(ready)));
        }
        Err(at)
    }

    fn start(&mut self, key: String, in_flight: InFlight, now: MonoNanos) -> Request {
        let place = self.new_id();
        let chat = self.chats.get_mut(&key).expect("the key was found in the map");
        chat.place = place;
        let item =
            chat.items.iter_mut().find(|item| item.id == in_flight.item).expect("the item was found in the chat");
        match in_flight.action {
            Action::Typing => item.typed(now),
            Action::Send { .. } => {}
            Action::Edit { .. } => item.editing(),
        }
        if in_flight.action == Action::Typing {
            self.limiter.sent_global(now);
        } else {
            self.limiter.sent(&key, now);
        }
        let request = Request { chat: key.clone(), thread: item.thread.clone(), action: in_flight.action.clone() };
        chat.in_flight = Some(in_flight);
        request
    }

    /// Takes how the request in flight for `key` ended: the message's id if it was a new one. Returns the turns whose
    /// replies are over with it.
    pub(super) fn done(
        &mut self,
        key: &str,
        outcome: Result<Option<i64>, &TelegramError>,
        now: MonoNanos,
    ) -> Vec<TurnId> {
        let Some(chat) = self.chats.get_mut(key) else { return Vec::new() };
        let Some(in_flight) = chat.in_flight.take() else { return Vec::new() };
        match outcome {
            Ok(sent) => {
                chat.failures = 0;
                chat.unreachable = false;
                chat.edit_at = after(now, Limiter::period(key));
                chat.showed(in_flight, sent);
            }
            Err(error) => {
                if let Some(new) = chat.failed(key, in_flight, error, now) {
                    self.migrate(key, new);
                }
            }
        }
        self.sweep(now)
    }

    /// The group `key` has become the supergroup `new`.
    fn migrate(&mut self, key: &str, new: String) {
        let Some(old) = self.chats.remove(key) else { return };
        let chat = self.chats.entry(new.clone()).or_default();
        for mut item in old.items.into_iter().rev() {
            // Messages of the group have no id in the supergroup.
            item.lost_message();
            chat.items.push_front(item);
        }
        if self.migrated.len() >= MIGRATIONS_MAX {
            self.migrated.pop_first();
        }
        self.migrated.insert(key.to_owned(), new);
    }

    /// Forgets what is done, and names the turns among it.
    fn sweep(&mut self, now: MonoNanos) -> Vec<TurnId> {
        let mut over = Vec::new();
        let crowded = self.chats.len() > ITEMS_MAX;
        self.chats.retain(|_, chat| {
            chat.items.retain(|item| {
                if item.is_done() {
                    over.extend(item.turn);
                }
                !item.is_done()
            });
            let rests = chat.items.is_empty() && chat.in_flight.is_none();
            let remembered = chat.unreachable || chat.retry_at > now || chat.edit_at > now;
            !rests || (remembered && !crowded)
        });
        self.over.extend(&over);
        self.over.drain(..self.over.len().saturating_sub(OVER_MAX));
        over
    }
}

impl Chat {
    fn item(&mut self, id: u64) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.id == id)
    }

    fn showed(&mut self, in_flight: InFlight, sent: Option<i64>) {
        let Some(item) = self.item(in_flight.item) else { return };
        match (in_flight.action, sent) {
            (Action::Typing, _) => {}
            (Action::Edit { message_id, text }, _) | (Action::Send { text }, Some(message_id)) => {
                item.showed(message_id, text);
            }
            (Action::Send { .. }, None) => item.skip(in_flight.body),
        }
    }

    /// Takes a failure. Returns the new id of a chat that has moved.
    fn failed(&mut self, key: &str, in_flight: InFlight, error: &TelegramError, now: MonoNanos) -> Option<String> {
        match Failure::of(error) {
            Failure::Again { asked } => self.again(key, &in_flight, error, asked, now),
            Failure::Unchanged => self.showed(in_flight, None),
            Failure::Moved(new) => return Some(new),
            Failure::Unreachable => self.unreachable(key, error),
            Failure::NoMessage if matches!(in_flight.action, Action::Edit { .. }) => {
                if let Some(item) = self.item(in_flight.item) {
                    item.lost_message();
                }
            }
            Failure::NoThread if self.item(in_flight.item).is_some_and(|item| item.thread.is_some()) => {
                if let Some(item) = self.item(in_flight.item) {
                    item.thread = None;
                }
            }
            Failure::NoThread | Failure::NoMessage | Failure::Refused => self.refused(key, in_flight, error),
        }
        None
    }

    fn again(
        &mut self,
        key: &str,
        in_flight: &InFlight,
        error: &TelegramError,
        asked: Option<Duration>,
        now: MonoNanos,
    ) {
        if in_flight.action == Action::Typing && asked.is_none() {
            return; // It is shown again in a few seconds anyway, and must not hold back text.
        }
        self.failures = self.failures.saturating_add(1);
        let wait = asked.unwrap_or_else(|| back_off(self.failures));
        self.retry_at = after(now, wait);
        tracing::warn!(
            chat = key,
            failures = self.failures,
            wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            error = %Chain(error),
            "a message was not delivered and is tried again"
        );
        if let Some(item) = self.item(in_flight.item)
            && now.since(item.queued_at) > AGE_MAX
        {
            tracing::error!(chat = key, "a message was not delivered for a day and is given up");
            item.give_up();
        }
    }

    fn unreachable(&mut self, key: &str, error: &TelegramError) {
        if !self.unreachable {
            tracing::warn!(chat = key, error = %Chain(error), "a chat is out of reach: what waits for it is given up");
        }
        self.unreachable = true;
        self.items.iter_mut().for_each(Item::give_up);
    }

    fn refused(&mut self, key: &str, in_flight: InFlight, error: &TelegramError) {
        if in_flight.action == Action::Typing {
            return;
        }
        tracing::error!(chat = key, error = %Chain(error), "Telegram refuses a message: this part of it is given up");
        let Some(item) = self.item(in_flight.item) else { return };
        match in_flight.action {
            // What is shown stays; it counts as the wanted text, so that what follows goes on.
            Action::Edit { message_id, text } => item.showed(message_id, text),
            _ => item.skip(in_flight.body),
        }
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
