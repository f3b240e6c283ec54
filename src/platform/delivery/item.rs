//! One thing to show in a chat: a notice, or the reply to a turn that grows while it is shown.
//!
//! Its text is shown as a row of messages. Only the last of them, the *page*, can still change: what stands in the
//! messages before it is final, and is no longer held here. How a page that grows is shown is the platform's
//! ([`Growth`]): by edits of its message, as a draft, or not before a paragraph of it is whole.
//!
//! **Invariants**
//! - The final messages of an item, joined, are its text (but for white space at their ends, for messages of white
//!   space only, which platforms refuse, and for what was cut off at [`TEXT_BYTES_MAX`]).
//! - Pages are counted as the parts of the item's entry in the outbox, and a page begins where its part says: so an
//!   item that is made of its entry anew ([`Item::restore`]) goes on with the same messages.
//! - An item that is done has shown everything, or was given up.

mod taken_up;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::anchors::{Anchor, Anchors};
use super::medium::{Growth, Shape};
use super::pace::after;
use super::split::{head, paragraphs};
use super::{Attached, MessageId};
use crate::chat::{Choice, NotSent, Notice, OutFile, ReplyEnd};
use crate::clock::MonoNanos;
use crate::id::TurnId;
use crate::store::{Attempt, EntryId, Outcome};
use crate::words::Words;

/// The longest text of one item, in bytes: at least 64 messages.
pub(super) const TEXT_BYTES_MAX: usize = 256 * 1024;

/// A reply is first shown when it has this many UTF-16 code units or has waited [`FIRST_WAIT`], so that the message
/// that notifies people is more than a word.
const FIRST_UNITS: usize = 200;
const FIRST_WAIT: Duration = Duration::from_millis(300);
/// An agent that answers at once is not shown as typing: that would cost a request, and a place in the bot's limit.
const TYPING_WAIT: Duration = Duration::from_millis(300);
/// A draft that did not change is shown again, since it is only shown for 30 s
/// (<https://core.telegram.org/bots/api#sendmessagedraft>).
const DRAFT_PERIOD: Duration = Duration::from_secs(20);
/// Paragraphs that come one after the other go into one message.
const BLOCK_WAIT: Duration = Duration::from_secs(1);
const ACTIVITY_CHARS_MAX: usize = 200;
/// Where the page begins that ends a reply whose text is lost: beyond any text.
const AFTER_LOST_TEXT: usize = 2 * TEXT_BYTES_MAX;

/// A message that is shown and may still be edited.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Shown {
    message_id: MessageId,
    /// What it says; empty if that is unknown.
    text: String,
}

/// What an item wants next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Nothing until it changes.
    Nothing,
    /// To show that the agent works, from `due` on.
    Typing {
        /// When.
        due: MonoNanos,
    },
    /// To send a file from `due` on.
    Attach {
        /// Which.
        file: Attached,
        /// When.
        due: MonoNanos,
    },
    /// To show `text` from `due` on.
    Show {
        /// In which way.
        how: How,
        /// The whole text of the message.
        text: String,
        /// How much of the item's text this shows, in bytes.
        body: usize,
        /// Whether the message is final with it.
        settled: bool,
        /// Whether it is worth the last token of the limit: nothing that comes can make it longer.
        urgent: bool,
        /// It is a word of the gateway's own in a reply.
        is_word: bool,
        /// When.
        due: MonoNanos,
    },
}

/// How a text is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// As a new message.
    Send,
    /// In the place of what this message says.
    Edit(MessageId),
    /// As the draft of a message.
    Draft,
}

/// A notice or a streamed reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Item {
    /// Names the item in its [`super::Delivery`].
    pub(super) id: u64,
    /// Its entry in the outbox, where it has one.
    #[serde(default)]
    pub(super) entry: Option<EntryId>,
    /// The turn that is answered; none for a notice.
    #[serde(default)]
    pub(super) turn: Option<TurnId>,
    /// The thread.
    #[serde(default)]
    pub(super) thread: Option<String>,
    /// What may be answered by a press.
    #[serde(default)]
    pub(super) choices: Vec<Choice>,
    /// What its messages are like; not carried, because whoever goes on with it knows.
    #[serde(skip)]
    pub(super) shape: Shape,
    /// When it was queued.
    #[serde(default)]
    pub(super) queued_at: MonoNanos,
    /// The number of the page, from 0.
    #[serde(default)]
    page: u32,
    /// Where in the text the page begins, in bytes.
    #[serde(default)]
    start: usize,
    /// The text from the start of the page on.
    #[serde(default)]
    tail: String,
    /// The files that stand in the text from there on.
    #[serde(default)]
    files: Anchors,
    /// The message of the page.
    #[serde(default)]
    shown: Option<Shown>,
    /// The page is redelivered: it may be in the chat already.
    #[serde(default)]
    doubtful: bool,
    /// Because of the connection, not of a kill or a handoff.
    #[serde(default)]
    unanswered: bool,
    #[serde(default)]
    activity: Option<String>,
    /// Text taken so far, in bytes.
    #[serde(default)]
    taken: usize,
    /// Whether any of it was more than white space.
    #[serde(default)]
    said: bool,
    /// When the first text came.
    #[serde(default)]
    text_since: Option<MonoNanos>,
    /// When typing was last shown.
    #[serde(default)]
    typed_at: Option<MonoNanos>,
    /// The draft that is shown, and since when.
    #[serde(skip)]
    drafted: Option<(String, MonoNanos)>,
    /// Whether some message of it was shown.
    #[serde(default)]
    seen: bool,
    /// No more text comes.
    #[serde(default)]
    ended: bool,
    /// Its text is dropped.
    #[serde(default)]
    given_up: bool,
    /// Why it counts as not delivered, and how.
    #[serde(default)]
    fate: Option<(Outcome, String)>,
    /// The process that streamed it was killed, and nobody has said yet how its text goes on.
    #[serde(default)]
    unclaimed: bool,
}

/// The message that should be shown now.
struct Page {
    text: String,
    body: usize,
    settled: bool,
    /// It is settled because paragraphs of it are whole, and could be longer.
    is_block: bool,
}

impl Item {
    /// A reply without text yet.
    pub(super) fn reply(id: u64, shape: Shape, turn: TurnId, thread: Option<String>, now: MonoNanos) -> Self {
        Self {
            id,
            entry: None,
            turn: Some(turn),
            thread,
            choices: Vec::new(),
            shape,
            queued_at: now,
            page: 0,
            start: 0,
            tail: String::new(),
            files: Anchors::default(),
            shown: None,
            doubtful: false,
            unanswered: false,
            activity: None,
            taken: 0,
            said: false,
            text_since: None,
            typed_at: None,
            drafted: None,
            seen: false,
            ended: false,
            given_up: false,
            fate: None,
            unclaimed: false,
        }
    }

    /// Names its entry in the outbox.
    pub(super) fn of(mut self, entry: Option<EntryId>) -> Self {
        self.entry = entry;
        self
    }

    /// Appends a file, unless it is known already.
    pub(super) fn push_file(&mut self, file: OutFile, now: MonoNanos) {
        if self.ended || self.given_up {
            return;
        }
        self.unclaimed = false;
        if self.files.push(self.start + self.tail.len(), file) {
            self.said = true;
            self.text_since.get_or_insert(now);
            self.activity = None;
        }
        self.advance();
    }

    /// The platform does not take the file that is the page: a word is shown instead.
    pub(super) fn file_refused(&mut self, why: NotSent) {
        self.files.refuse(self.start, why);
    }

    /// What to record before the page is sent as a new message that shows `length` bytes of the text for good.
    pub(super) fn attempt(&self, length: Option<usize>) -> Option<Attempt> {
        let is_marked = self.doubtful;
        let file = self.files.at(self.start).map(|anchor| anchor.number());
        self.entry.map(|entry| Attempt { entry, number: self.page, start: self.start, length, is_marked, file })
    }

    /// A complete text.
    pub(super) fn notice(id: u64, shape: Shape, notice: Notice, thread: Option<String>, now: MonoNanos) -> Self {
        let mut item = Self { turn: None, ..Self::reply(id, shape, TurnId(0), thread, now) };
        item.choices = notice.choices;
        item.push(&notice.text, now);
        item.ended = true;
        item.advance();
        item
    }

    /// Appends text.
    pub(super) fn push(&mut self, text: &str, now: MonoNanos) {
        if self.ended || self.given_up || self.taken > TEXT_BYTES_MAX {
            return;
        }
        self.unclaimed = false;
        let room = TEXT_BYTES_MAX - self.taken;
        self.taken += text.len();
        self.said |= !text.trim().is_empty();
        if text.len() <= room {
            self.tail.push_str(text);
        } else {
            self.tail.push_str(&text[..text.floor_char_boundary(room)]);
            self.tail.push_str(self.words().cut());
            tracing::warn!(item = self.id, "a reply is too long and was cut off");
        }
        if self.said {
            self.text_since.get_or_insert(now);
            self.activity = None;
        }
        self.advance();
    }

    /// Takes the whole text of the reply up to here, and appends what is not there yet.
    pub(super) fn so_far(&mut self, text: &str, now: MonoNanos) {
        // Earlier text is not held any more, so its length alone says how far it is the same.
        let taken = text.ceil_char_boundary(self.taken);
        self.unclaimed = false;
        self.push(&text[taken..], now);
    }

    /// Shows what the agent does below the text, until more text comes.
    pub(super) fn set_activity(&mut self, title: &str) {
        let line = title.split_whitespace().collect::<Vec<_>>().join(" ");
        self.activity = Some(line.chars().take(ACTIVITY_CHARS_MAX).collect()).filter(|line: &String| !line.is_empty());
    }

    /// Takes the end of the reply.
    pub(super) fn end(&mut self, end: &ReplyEnd, now: MonoNanos) {
        if self.ended {
            return;
        }
        if std::mem::take(&mut self.unclaimed) && self.seen {
            // What is shown was said by a process that is gone, and nobody knows it any more: it stays.
            (self.page, self.start) = (self.page + 1, AFTER_LOST_TEXT);
            (self.shown, self.doubtful) = (None, false);
        }
        let trailer = match end {
            ReplyEnd::Complete if self.said => String::new(),
            ReplyEnd::Complete => self.words().no_answer().to_owned(),
            ReplyEnd::Stopped => self.words().reply_stopped().to_owned(),
            ReplyEnd::Failed(reason) => self.words().reply_failed(reason),
        };
        if !trailer.is_empty() {
            let gap = if self.said { "\n\n" } else { "" };
            // The end is told even where the text was cut off.
            self.taken = self.taken.min(TEXT_BYTES_MAX);
            if !self.given_up {
                self.tail.push_str(gap);
                self.tail.push_str(&trailer);
            }
            self.text_since.get_or_insert(now);
        }
        self.activity = None;
        self.ended = true;
        self.advance();
    }

    /// Drops its text. It is done as soon as it has ended.
    pub(super) fn give_up(&mut self, why: &str) {
        self.given_up = true;
        self.fate = Some((Outcome::Abandoned, why.to_owned()));
        self.tail.clear();
        self.files.clear();
        self.shown = None;
    }

    /// How it ended once it is done, and why, if it was not delivered.
    pub(super) fn fate(self) -> (Outcome, Option<String>) {
        self.fate.map_or((Outcome::Delivered, None), |(outcome, why)| (outcome, Some(why)))
    }

    /// Whether everything was shown or given up.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.tail.is_empty() && self.files.is_empty()
    }

    /// What it wants next.
    pub(super) fn want(&self) -> Want {
        if self.given_up || self.unclaimed || self.is_done() {
            return Want::Nothing;
        }
        if let Some(anchor) = self.files.at(self.start) {
            return self.want_file(anchor);
        }
        let page = self.page();
        if page.body == 0 || self.tail[..page.body].trim().is_empty() {
            // Open, as an ended item whose rest is blank is done. An edit shows that something goes on.
            let shows_life = self.seen && matches!(self.shape.growth, Growth::Edit | Growth::Card);
            return if shows_life { Want::Nothing } else { self.typing() };
        }
        let how = match &self.shown {
            Some(shown) if self.is_over(shown, &page) => return Want::Nothing,
            Some(shown) => How::Edit(shown.message_id.clone()),
            None if self.shape.growth == Growth::Draft && !page.settled => How::Draft,
            None => How::Send,
        };
        let again = self.drafted.as_ref().filter(|(text, _)| how == How::Draft && same(text, &page.text));
        Want::Show {
            due: again.map_or_else(|| self.due(&page), |(_, since)| after(*since, DRAFT_PERIOD)),
            how,
            text: page.text,
            body: page.body,
            settled: page.settled,
            urgent: page.settled && !page.is_block,
            is_word: false,
        }
    }

    /// The file that is the page, or the word in the place of it.
    fn want_file(&self, anchor: &Anchor) -> Want {
        let due = self.text_since.unwrap_or(self.queued_at);
        let prefix = self.prefix();
        match anchor.sendable() {
            Some(file) => {
                let word = (!prefix.is_empty()).then(|| prefix.trim().trim_end_matches([':', '：']).to_owned());
                Want::Attach { file: Attached { word, ..file }, due }
            }
            None => {
                let text = format!("{prefix}{}", anchor.word(self.words()));
                Want::Show { how: How::Send, text, body: 0, settled: true, urgent: true, is_word: true, due }
            }
        }
    }

    /// What goes before a page that may be a repeat.
    fn prefix(&self) -> &'static str {
        match (self.doubtful, self.unanswered) {
            (false, _) => "",
            (true, false) => self.words().recovered(),
            (true, true) => self.words().sent_again(),
        }
    }

    fn words(&self) -> &'static dyn Words {
        self.shape.language.words()
    }

    fn typing(&self) -> Want {
        let Some(period) = self.shape.typing else { return Want::Nothing };
        let first = after(self.queued_at, TYPING_WAIT);
        Want::Typing { due: self.typed_at.map_or(first, |last| after(last, period)) }
    }

    fn due(&self, page: &Page) -> MonoNanos {
        let since = self.text_since.unwrap_or(self.queued_at);
        if page.is_block {
            return after(since, BLOCK_WAIT);
        }
        let long_enough = page.settled || self.seen || self.shape.message_max.len(&page.text) >= FIRST_UNITS;
        if long_enough { since } else { after(since, FIRST_WAIT) }
    }

    fn page(&self) -> Page {
        let prefix = self.prefix();
        // A file is a message of its own, so what stands before it is.
        let before_file = self.files.next_at().map(|at| at.saturating_sub(self.start).min(self.tail.len()));
        let tail = &self.tail[..before_file.unwrap_or(self.tail.len())];
        let is_over = self.ended || before_file.is_some();
        let max = self.shape.message_max;
        let room = max.less(max.len(prefix));
        if let Some(full) = head(tail, room) {
            return Page { text: format!("{prefix}{full}"), body: full.len(), settled: true, is_block: false };
        }
        if self.shape.growth == Growth::Blocks && !is_over {
            let body = paragraphs(tail).unwrap_or(0);
            let text = format!("{prefix}{}", tail[..body].trim_end());
            return Page { text, body, settled: true, is_block: true };
        }
        let mut text = format!("{prefix}{tail}");
        if let Some(activity) = &self.activity
            && !is_over
        {
            let line = format!("\n\n… {activity}");
            if max.len(&text) + max.len(&line) <= max.limit() {
                text.push_str(&line);
            }
        }
        Page { text, body: tail.len(), settled: is_over, is_block: false }
    }

    /// Whether nothing more is to be done about a page that shows this.
    fn is_over(&self, shown: &Shown, page: &Page) -> bool {
        let wants_end = self.shape.growth == Growth::Card && page.settled;
        same(&shown.text, &page.text) && !wants_end
    }

    /// Lets go of every page that is final and shown, or blank.
    fn advance(&mut self) {
        loop {
            let page = self.page();
            let blank = self.tail[..page.body].trim().is_empty();
            let shown = self.shown.as_ref().is_some_and(|shown| self.is_over(shown, &page));
            if page.body == 0 || !page.settled || !(blank || shown) {
                return;
            }
            self.next_page(page.body);
        }
    }

    fn next_page(&mut self, body: usize) {
        // A page that is a file has no text.
        let body = if self.files.pass(self.start) { 0 } else { body.min(self.tail.len()) };
        self.tail.drain(..body);
        (self.page, self.start) = (self.page + 1, self.start + body);
        self.shown = None;
        self.drafted = None;
        (self.doubtful, self.unanswered) = (false, false);
    }

    /// `text` is shown as `message_id` now, for good if that is `body` bytes of the item's text.
    pub(super) fn showed(&mut self, message_id: MessageId, text: String, body: Option<usize>) {
        if self.given_up {
            return;
        }
        self.seen = true;
        match body {
            Some(body) => self.next_page(body),
            None => self.shown = Some(Shown { message_id, text }),
        }
        self.advance();
    }

    /// `text` is on its way as a draft.
    pub(super) fn drafting(&mut self, text: String, now: MonoNanos) {
        self.drafted = Some((text, now));
    }

    /// What `choices` stand below a message that ends with the item, or not.
    pub(super) fn choices_below(&self, body: usize) -> Vec<Choice> {
        if body >= self.tail.len() { self.choices.clone() } else { Vec::new() }
    }

    /// The message of the page cannot be edited any more: it is sent anew.
    pub(super) fn lost_message(&mut self) {
        self.shown = None;
    }

    /// The platform refuses this part of the text: it goes on behind it.
    pub(super) fn skip(&mut self, body: usize, why: &str) {
        self.fate = Some((Outcome::Failed, why.to_owned()));
        self.next_page(body);
        self.advance();
    }

    /// An edit of the page is on its way: until it is known to have arrived, nobody knows what is shown.
    pub(super) fn editing(&mut self) {
        if let Some(shown) = &mut self.shown {
            shown.text.clear();
        }
    }

    /// Typing was asked for.
    pub(super) fn typed(&mut self, now: MonoNanos) {
        self.typed_at = Some(now);
    }

    /// The page was being sent when the image was replaced: nobody knows whether it arrived.
    pub(super) fn doubt(&mut self) {
        if self.shape.replaces {
            return;
        }
        (self.doubtful, self.unanswered) = (true, false);
    }

    /// The page was sent, and the platform's answer did not arrive: nobody knows whether the page did.
    pub(super) fn unanswered(&mut self) {
        self.unanswered |= !self.doubtful;
        self.doubtful = true;
    }
}

/// Platforms trim what they show.
fn same(a: &str, b: &str) -> bool {
    a.trim() == b.trim()
}

#[cfg(test)]
mod tests;
