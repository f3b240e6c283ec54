//! What is to be shown, chat by chat, as a state machine without input or output: it is told what came and how
//! requests ended, and it says which request is next. It is the same on every network platform, but for what their
//! messages are like ([`Medium`]).
//!
//! `item` is one reply or notice and how it is split over messages, `limiter` how often anything may be sent, `ledger`
//! has what was found out recorded.
//!
//! **Invariants**
//! - At most one request is in flight for a chat, so the messages of a chat keep their order. A notice may overtake
//!   the end of a reply that is still growing, never the end of one that is complete.
//! - No chat waits for another, beyond the limits of the bot as a whole.
//! - What it is told is shown, or given up with a line in the log, and found over, which is recorded in the outbox.
//! - The whole state is plain data, and all of it that matters is in the outbox: [`Delivery::take_up`] goes on from
//!   there, with or without what another image handed over. What was in flight then is *ambiguous*: a message is sent
//!   again with a word on that before it ([`crate::words::Words::recovered`]), an edit is just repeated. A message whose answer did
//!   not arrive is ambiguous, too.
//! - A reply whose text is with its agent waits until that is told.
//! - A file is a message of its own, between the texts that stand around it. One that its platform does not take becomes
//!   a line of text that says so.
//!
//! Bounds: 256 KiB of text in an item. From [`ITEMS_MAX`] items on no messages are taken in, so what can still come
//! is what was asked before: the gateway runs one turn in a conversation at a time, and 32 may wait.

mod anchors;
mod chat;
mod item;
pub(super) mod ledger;
pub(super) mod limiter;
pub(super) mod medium;
pub(super) mod pace;
mod request;
pub(super) mod split;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::link::Unsent;
use crate::chat::{Notice, Outbound, OutboundContent, ReplyStep};
use crate::clock::{MonoNanos, UnixMillis};
use crate::id::TurnId;
use crate::store::{Entry, EntryId, Finding, Outbox, Target};
use chat::{Chat, Discovery, InFlight};
use item::{How, Item, Want};
use limiter::{Haste, Limiter};
use medium::{Growth, Medium};
use pace::after;
pub(super) use request::{Action, Attached, Format, MessageId, Next, Pace, Post, Request};

/// Items that may wait before no more messages are taken in; their texts are up to 256 KiB each.
const ITEMS_MAX: usize = 1024;
/// Chats among which idle ones are not looked for.
const CHATS_KEPT: usize = 64;
/// Groups that became supergroups and are remembered.
const MIGRATIONS_MAX: usize = 256;
/// Why what waits for a chat is given up.
const NOBODY_THERE: &str = "nobody can be reached there";
const TOO_OLD: &str = "it could not be delivered for a day";
/// What could not be delivered for so long is given up.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Between two messages of paragraphs of a growing reply: each of them notifies people.
const BLOCK_PERIOD: Duration = Duration::from_secs(10);

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
    /// The last entry that the outbox had when it was taken up.
    #[serde(skip)]
    known: Option<EntryId>,
    /// What was found out and is not recorded.
    #[serde(skip)]
    findings: Vec<Finding>,
    /// How many chats there must be before idle ones are looked for.
    #[serde(skip)]
    forget_at: usize,
    #[serde(skip)]
    medium: Medium,
}

impl Delivery {
    /// Goes on with what another image handed over, or with nothing: what was in flight is ambiguous until the outbox is
    /// known.
    pub(super) fn on(mut self, medium: Medium) -> Self {
        self.medium = medium;
        self.limiter.limited_to(medium.chat_rate, medium.overall);
        for (key, chat) in &mut self.chats {
            // The template may be another one now.
            chat.draftless &= (medium.growth)(key) != Growth::Card;
            let shape = chat.shape(medium, key);
            chat.items.iter_mut().for_each(|item| item.shape = shape);
            let Some(ambiguous) = chat.in_flight.take() else { continue };
            let item = chat.items.iter_mut().find(|item| item.id == ambiguous.item);
            if let (Some(item), Action::Send(_) | Action::Attach(_)) = (item, ambiguous.action) {
                item.doubt();
            }
        }
        self
    }

    /// Takes in what the outbox has, which is all that was to be shown, whatever became of those who were to show it.
    /// What is here already goes on as it is, unless the outbox knows that it is over.
    pub(super) fn take_up(&mut self, outbox: Outbox, now: MonoNanos) {
        self.known = outbox.last;
        for target in outbox.targets {
            match target {
                Target::Unreachable(chat) => self.chats.entry(chat).or_default().unreachable = true,
                Target::Moved(chat, to) => drop(self.migrated.insert(chat, to)),
            }
        }
        let mut left: BTreeMap<EntryId, Entry> = outbox.entries.into_iter().map(|entry| (entry.id, entry)).collect();
        for chat in self.chats.values_mut() {
            let busy = chat.in_flight.as_ref().map(|in_flight| in_flight.item);
            chat.items.retain_mut(|item| match item.entry.map(|id| (id, left.remove(&id))) {
                Some((_, Some(entry))) if Some(item.id) != busy => {
                    item.reconcile(&entry);
                    true
                }
                Some((id, None)) => Some(item.id) == busy || Some(id) > outbox.last,
                Some((_, Some(_))) | None => true,
            });
        }
        left.into_values().for_each(|entry| self.restore(entry, now));
        let keys: Vec<String> = self.chats.keys().cloned().collect();
        keys.iter().for_each(|key| self.settle(key, now));
    }

    fn restore(&mut self, entry: Entry, now: MonoNanos) {
        let age = UnixMillis::now().since(entry.created_at);
        let made_at = MonoNanos(now.0.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)));
        let id = self.new_id();
        let key = self.current(&entry.conversation.chat);
        let chat = self.chats.entry(key.clone()).or_default();
        chat.line_up(id);
        let at = chat.items.iter().position(|item| item.entry > Some(entry.id)).unwrap_or(chat.items.len());
        let mut item = Item::restore(id, chat.shape(self.medium, &key), entry, made_at);
        // A word on what was is no use to anybody; an answer is wanted all the same.
        match item.turn {
            None if chat.unreachable => item.give_up(NOBODY_THERE),
            None if age > AGE_MAX => item.give_up(TOO_OLD),
            _ => {}
        }
        chat.items.insert(at, item);
    }

    /// The id that a chat has now.
    fn current(&self, chat: &str) -> String {
        self.migrated.get(chat).cloned().unwrap_or_else(|| chat.to_owned())
    }

    /// Takes something to show. What the outbox has had when it was taken up is no news.
    pub(super) fn push(&mut self, outbound: Outbound, entry: Option<EntryId>, now: MonoNanos) {
        let is_news = entry.is_none() || entry > self.known;
        let thread = outbound.conversation.thread;
        let key = self.current(&outbound.conversation.chat);
        match outbound.content {
            OutboundContent::Notice(notice) if is_news => self.push_notice(&key, thread, notice, entry, now),
            OutboundContent::Notice(_) => {}
            OutboundContent::Reply { turn, step: ReplyStep::Begin } if is_news => {
                self.begin(&key, thread, turn, entry, now);
            }
            OutboundContent::Reply { turn, step } => {
                if entry.is_some() && is_news && matches!(step, ReplyStep::End(_)) {
                    // Its begin could not be recorded.
                    self.begin(&key, thread, turn, entry, now);
                }
                self.push_step(&key, turn, &step, now);
            }
        }
        self.settle(&key, now);
    }

    fn push_notice(
        &mut self,
        key: &str,
        thread: Option<String>,
        notice: Notice,
        entry: Option<EntryId>,
        now: MonoNanos,
    ) {
        let id = self.new_id();
        let chat = self.chats.entry(key.to_owned()).or_default();
        chat.line_up(id);
        let mut item = Item::notice(id, chat.shape(self.medium, key), notice, thread, now).of(entry);
        if chat.unreachable {
            item.give_up(NOBODY_THERE);
        }
        chat.items.push_back(item);
    }

    fn begin(&mut self, key: &str, thread: Option<String>, turn: TurnId, entry: Option<EntryId>, now: MonoNanos) {
        let id = self.new_id();
        let chat = self.chats.entry(key.to_owned()).or_default();
        chat.line_up(id);
        let shape = chat.shape(self.medium, key);
        match chat.items.iter_mut().find(|item| item.turn == Some(turn)) {
            Some(item) => item.entry = item.entry.or(entry),
            None => chat.items.push_back(Item::reply(id, shape, turn, thread, now).of(entry)),
        }
    }

    /// A reply that is over already takes no more steps.
    fn push_step(&mut self, key: &str, turn: TurnId, step: &ReplyStep, now: MonoNanos) {
        let items = self.chats.get_mut(key).into_iter().flat_map(|chat| &mut chat.items);
        let Some(item) = items.into_iter().find(|item| item.turn == Some(turn)) else { return };
        match step {
            ReplyStep::Begin => {}
            ReplyStep::Delta(text) => item.push(text, now),
            ReplyStep::SoFar(text) => item.so_far(text, now),
            ReplyStep::File(file) => item.push_file(file.clone(), now),
            ReplyStep::Activity(title) => item.set_activity(title),
            ReplyStep::End(end) => item.end(end, now),
        }
    }

    /// Somebody wrote in a chat, so somebody can be reached there.
    pub(super) fn heard(&mut self, chat: &str) {
        let key = self.current(chat);
        if let Some(chat) = self.chats.get_mut(&key).filter(|chat| chat.unreachable) {
            chat.unreachable = false;
            self.findings.push(Finding::Reachable { chat: key });
        }
    }

    /// Replies and notices that are not shown in full.
    pub(super) fn waiting(&self) -> usize {
        self.chats.values().map(|chat| chat.items.len()).sum()
    }

    /// Whether so much waits that no more should be taken in.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting() >= ITEMS_MAX
    }

    /// What was found out and is to be recorded.
    pub(super) fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The next request, which then counts as in flight. Of the chats that may send now it is the first in
    /// line: under the bot's overall limit no chat waits behind those that began to talk later, or were served since.
    pub(super) fn next(&mut self, now: MonoNanos, pace: Pace) -> Next {
        let mut at: Option<MonoNanos> = None;
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
                Want::Attach { file, due } => {
                    let ready = self.limiter.ready(key, Haste::Urgent);
                    (Action::Attach(file), 0, if flushing { ready } else { ready.max(due) })
                }
                Want::Show { how, text, body, settled, urgent, is_word, due } => {
                    let hurried = urgent || flushing;
                    // The first message of a reply, which is edited later, does not wait for spare room.
                    let is_first = how == How::Send && !settled;
                    let haste = if hurried || is_first { Haste::Urgent } else { Haste::Spare };
                    let mut ready = self.limiter.ready(key, haste);
                    if !hurried {
                        ready = ready.max(due);
                        if !is_first {
                            ready = ready.max(chat.edit_at);
                        }
                    }
                    let format = if item.turn.is_some() && !is_word { Format::Markdown } else { Format::Plain };
                    let choices = if settled { item.choices_below(body) } else { Vec::new() };
                    let post = Post { text, format, choices, is_final: settled };
                    let action = match how {
                        How::Send => Action::Send(post),
                        How::Edit(message_id) => Action::Edit { message_id, post },
                        // A draft fades with the process: what was said stays as a message, and grows by edits.
                        How::Draft if flushing => Action::Send(post),
                        How::Draft => Action::Draft { draft_id: item.id, post },
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
        let attempt = match &in_flight.action {
            Action::Send(post) => item.attempt(post.is_final.then_some(in_flight.body)),
            Action::Attach(_) => item.attempt(Some(0)),
            Action::Typing | Action::Edit { .. } | Action::Draft { .. } => None,
        };
        match &in_flight.action {
            Action::Typing => item.typed(now),
            Action::Send(_) | Action::Attach(_) => {}
            Action::Edit { .. } => item.editing(),
            Action::Draft { post, .. } => item.drafting(post.text.clone(), now),
        }
        if in_flight.action == Action::Typing {
            self.limiter.sent_global(now);
        } else {
            self.limiter.sent(&key, now);
        }
        let action = in_flight.action.clone();
        let (thread, draftless) = (item.thread.clone(), chat.draftless);
        let request = Request { chat: key.clone(), thread, action, draftless, attempt };
        chat.in_flight = Some(in_flight);
        request
    }

    /// Takes how the request in flight for `key` ended: the message's id if it was a new one.
    pub(super) fn done(&mut self, key: &str, outcome: Result<Option<MessageId>, Unsent>, now: MonoNanos) {
        let Some(chat) = self.chats.get_mut(key) else { return };
        let Some(in_flight) = chat.in_flight.take() else { return };
        match outcome {
            Ok(sent) => {
                chat.failures = 0;
                if std::mem::take(&mut chat.unreachable) {
                    self.findings.push(Finding::Reachable { chat: key.to_owned() });
                }
                let period = self.limiter.period(key);
                let is_block = chat.shape(self.medium, key).growth == Growth::Blocks;
                chat.edit_at = after(now, if is_block { period.max(BLOCK_PERIOD) } else { period });
                chat.showed(in_flight, sent);
            }
            Err(error) => match chat.failed(key, in_flight, &error, self.medium, now) {
                Some(Discovery::Moved(new)) => {
                    self.migrate(key, new.clone());
                    return self.settle(&new, now);
                }
                Some(Discovery::Unreachable) => {
                    let error = error.why;
                    self.findings.push(Finding::Unreachable { chat: key.to_owned(), error });
                }
                None => {}
            },
        }
        self.settle(key, now);
    }

    /// The group `key` has become the supergroup `new`.
    fn migrate(&mut self, key: &str, new: String) {
        let Some(old) = self.chats.remove(key) else { return };
        let chat = self.chats.entry(new.clone()).or_default();
        for mut item in old.items.into_iter().rev() {
            // Messages of the group have no id in the supergroup.
            item.lost_message();
            item.shape = chat.shape(self.medium, &new);
            chat.items.push_front(item);
        }
        if self.migrated.len() >= MIGRATIONS_MAX {
            self.migrated.pop_first();
        }
        self.findings.push(Finding::Moved { chat: key.to_owned(), to: new.clone() });
        self.migrated.insert(key.to_owned(), new);
    }

    /// Forgets what is done in a chat, and finds its entries over.
    fn settle(&mut self, key: &str, now: MonoNanos) {
        let chat = self.chats.get_mut(key);
        // Most steps of a reply end nothing.
        if let Some(chat) = chat.filter(|chat| chat.items.iter().any(Item::is_done)) {
            let (done, open) = chat.items.drain(..).partition(Item::is_done);
            chat.items = open;
            self.findings.extend(done.into_iter().filter_map(|item: Item| {
                let entry = item.entry?;
                let (outcome, error) = item.fate();
                Some(Finding::Over { entry, outcome, error })
            }));
        }
        self.forget_idle(now);
    }

    /// Forgets chats of which nothing is to be remembered, once there are many more than were left the last time.
    fn forget_idle(&mut self, now: MonoNanos) {
        if self.chats.len() < self.forget_at.max(CHATS_KEPT) {
            return;
        }
        self.chats.retain(|_, chat| !chat.items.is_empty() || chat.in_flight.is_some() || chat.is_remembered(now));
        if self.chats.len() > ITEMS_MAX {
            self.chats.retain(|_, chat| !chat.items.is_empty() || chat.in_flight.is_some());
        }
        self.forget_at = 2 * self.chats.len();
    }
}

#[cfg(test)]
mod tests;
