//! Making an item anew of what the outbox has of it.

use super::{AFTER_LOST_TEXT, Item, Shown};
use crate::clock::MonoNanos;
use crate::id::TurnId;
use crate::platform::delivery::MessageId;
use crate::platform::delivery::medium::Shape;
use crate::store::{Entry, Part};

impl Item {
    /// What an entry of the outbox says is to be shown, as far as it was not. `queued_at` is when the entry was made.
    pub(in super::super) fn restore(id: u64, shape: Shape, entry: Entry, queued_at: MonoNanos) -> Self {
        let thread = entry.conversation.thread;
        let mut item = Self { turn: entry.turn, ..Self::reply(id, shape, TurnId(0), thread, queued_at) };
        item.entry = Some(entry.id);
        item.choices = entry.choices;
        let is_lost = entry.text.is_none() && entry.end.is_some() && !entry.parts.is_empty();
        if let Some(text) = &entry.text {
            let mut pushed = 0;
            for file in entry.files {
                let at = text.floor_char_boundary(file.at).max(pushed);
                item.push(&text[pushed..at], queued_at);
                item.push_file(file, queued_at);
                pushed = at;
            }
            item.push(&text[pushed..], queued_at);
        }
        item.files.shown(&entry.parts);
        item.said |= !entry.parts.is_empty();
        match (&entry.end, entry.turn) {
            (Some(end), _) => item.end(end, queued_at),
            (None, None) => item.ended = true,
            (None, Some(_)) => item.unclaimed = true,
        }
        match entry.parts.last() {
            Some(last) if is_lost && last.start < AFTER_LOST_TEXT => {
                (item.page, item.start) = (last.number + 1, AFTER_LOST_TEXT);
            }
            Some(last) => item.go_on(last, is_lost),
            None => {}
        }
        item.seen = !entry.parts.is_empty();
        item.advance();
        item
    }

    /// Makes `part` the page, or goes on behind it if it is shown for good.
    fn go_on(&mut self, part: &Part, is_lost: bool) {
        let behind = part.length.filter(|_| part.message_id.is_some());
        // What is blank behind it may have been let go of already.
        let start = (part.start + behind.unwrap_or(0)).max(self.start);
        let cut = if is_lost { behind.unwrap_or(0) } else { start.saturating_sub(self.start) };
        self.tail.drain(..self.tail.floor_char_boundary(cut));
        (self.page, self.start) = (part.number + u32::from(behind.is_some()), start);
        if self.unclaimed {
            self.taken = start;
        }
        if behind.is_none() {
            self.learn(part);
        }
    }

    /// Takes in what is known of the message of the page.
    fn learn(&mut self, part: &Part) {
        let message_id = part.message_id.clone().map(MessageId);
        self.shown = message_id.map(|message_id| Shown { message_id, text: String::new() });
        self.doubtful = part.is_marked || self.shown.is_none() && !self.shape.replaces;
    }

    /// Takes in what the outbox knows of the page that another image was sending.
    pub(in super::super) fn reconcile(&mut self, entry: &Entry) {
        if let Some(part) = entry.parts.last()
            && part.number == self.page
            && part.message_id.is_some()
            && self.shown.is_none()
        {
            match part.length {
                Some(length) => self.next_page(length),
                None => self.learn(part),
            }
            self.seen = true;
            self.advance();
        }
    }
}
