//! What a reader of a chat has, and what it does not have yet.
//!
//! **Invariants**
//! - A [`Cursor`] says all that a reader has: up to which number it has all messages, and of those that may still change
//!   how much. So whoever gets one, in whatever image or process, goes on where the reader is.
//! - Of a text that is another than what the reader has, the whole message is told.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::board::{Board, Numbered};
use super::message::Message;
use crate::store::{Span, StoreError};

/// How many messages a new reader gets, and how many are read at a time.
pub(super) const PAGE: u32 = 50;
/// Messages that may change and are followed; a chat has one or two at a time.
const OPEN_MAX: usize = 8;

/// Where a reader is. Written as `17.15-1043-0a1b2c3d`: it has all up to message 17, but of 15 the first 1043 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    top: i64,
    open: BTreeMap<i64, Seen>,
}

/// How much of a text somebody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    bytes: usize,
    digest: u32,
}

impl Seen {
    fn of(text: &str) -> Self {
        let digest = Sha256::digest(text);
        Self { bytes: text.len(), digest: u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.top)?;
        self.open.iter().try_for_each(|(number, seen)| write!(f, ".{number}-{}-{:08x}", seen.bytes, seen.digest))
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut pieces = text.split('.');
        let top = pieces.next().ok_or(())?.parse().map_err(drop)?;
        let open = pieces.map(|piece| {
            let mut fields = piece.split('-');
            let (Some(number), Some(bytes), Some(digest), None) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                return Err(());
            };
            let digest = u32::from_str_radix(digest, 16).map_err(drop)?;
            Ok((number.parse().map_err(drop)?, Seen { bytes: bytes.parse().map_err(drop)?, digest }))
        });
        let open: BTreeMap<i64, Seen> = open.collect::<Result<_, ()>>()?;
        if open.len() > OPEN_MAX { Err(()) } else { Ok(Self { top, open }) }
    }
}

/// What the reader has of a message that may change.
enum Open {
    /// As its cursor says.
    Seen(Seen),
    /// This.
    All(Arc<Message>),
}

/// A reader of one chat.
pub(super) struct Reader {
    chat: String,
    top: i64,
    open: BTreeMap<i64, Open>,
    /// What was read from the store and is not told yet.
    backlog: VecDeque<Numbered>,
    /// The store has no more than is held, or in the backlog, behind this one that is not held any more.
    caught_up: Option<i64>,
    is_new: bool,
    /// Nothing was looked for yet.
    is_first: bool,
    typing: u64,
}

/// An event for a reader.
pub(super) struct Told {
    pub(super) event: &'static str,
    pub(super) data: Value,
}

impl Reader {
    pub(super) fn new(chat: String, cursor: Option<Cursor>) -> Self {
        let is_new = cursor.is_none();
        let Cursor { top, open } = cursor.unwrap_or_default();
        let open = open.into_iter().map(|(number, seen)| (number, Open::Seen(seen))).collect();
        Self { chat, top, open, backlog: VecDeque::new(), caught_up: None, is_new, is_first: true, typing: 0 }
    }

    /// Where it is.
    pub(super) fn cursor(&self) -> Cursor {
        let seen = |open: &Open| match open {
            Open::Seen(seen) => *seen,
            Open::All(message) => Seen::of(&message.text),
        };
        Cursor { top: self.top, open: self.open.iter().map(|(number, open)| (*number, seen(open))).collect() }
    }

    /// The next event, if there is something that the reader does not have.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub(super) async fn next(&mut self, board: &Board) -> Result<Option<Told>, StoreError> {
        if self.is_first {
            self.typing = board.look(&self.chat, |chat| chat.typing);
            self.doubt(board).await?;
            self.is_first = false;
        }
        for number in self.open.keys().copied().collect::<Vec<_>>() {
            if !board.hold(&self.chat, number).await? {
                self.open.remove(&number);
            }
        }
        loop {
            if let Some(told) = self.changed(board) {
                return Ok(Some(told));
            }
            if let Some((number, message)) = self.backlog.pop_front() {
                return Ok(Some(self.whole(number, message)));
            }
            let gone = board.look(&self.chat, |chat| chat.gone);
            if self.caught_up.is_some_and(|known| known >= gone || self.top >= gone) {
                break;
            }
            let span = if self.is_new { Span::Before(i64::MAX) } else { Span::Behind(self.top) };
            self.backlog = board.lines(&self.chat, span, PAGE).await?.into();
            if self.is_new || self.backlog.is_empty() {
                self.caught_up = Some(gone);
            }
            self.is_new = false;
        }
        let next = board.look(&self.chat, |chat| {
            let next = chat.messages.range((Bound::Excluded(self.top), Bound::Unbounded)).next();
            next.map(|(number, message)| (*number, Arc::clone(message)))
        });
        if let Some((number, message)) = next {
            return Ok(Some(self.whole(number, message)));
        }
        let typing = board.look(&self.chat, |chat| chat.typing);
        let is_typing = std::mem::replace(&mut self.typing, typing) < typing;
        Ok(is_typing.then(|| Told { event: "typing", data: json!({}) }))
    }

    /// Whoever has more than there is, has it of another database: that one was lost, and numbers began anew.
    async fn doubt(&mut self, board: &Board) -> Result<(), StoreError> {
        let last = board.lines(&self.chat, Span::Before(i64::MAX), 1).await?;
        if !self.is_new && self.top > last.last().map_or(0, |(number, _)| *number) {
            (self.is_new, self.top) = (true, 0);
            self.open.clear();
        }
        Ok(())
    }

    /// What has changed of a message that the reader has.
    fn changed(&mut self, board: &Board) -> Option<Told> {
        let numbers: Vec<i64> = self.open.keys().copied().collect();
        numbers.into_iter().find_map(|number| {
            let message = board.look(&self.chat, |chat| chat.messages.get(&number).cloned())?;
            let at = match self.open.get(&number)? {
                Open::All(had) if Arc::ptr_eq(had, &message) || **had == *message => return None,
                Open::All(had) if had.differs_in_text_only(&message) => Some(common(&had.text, &message.text)),
                Open::All(_) => None,
                Open::Seen(seen) => {
                    let is_same = message.text.get(..seen.bytes).is_some_and(|text| Seen::of(text) == *seen);
                    // It was said before, and will be again.
                    if seen.bytes > message.text.len() && !message.is_final
                        || is_same && seen.bytes == message.text.len() && !message.is_final
                    {
                        return None;
                    }
                    is_same.then_some(seen.bytes)
                }
            };
            Some(match at {
                Some(at) => self.rest(number, message, at),
                None => self.whole(number, message),
            })
        })
    }

    fn whole(&mut self, number: i64, message: Arc<Message>) -> Told {
        let data = message.told(number);
        self.has(number, message);
        Told { event: "message", data }
    }

    fn rest(&mut self, number: i64, message: Arc<Message>, at: usize) -> Told {
        let (had, text) = message.text.split_at(at);
        let data = json!({
            "number": number, "at": had.encode_utf16().count(), "text": text, "final": message.is_final
        });
        self.has(number, message);
        Told { event: "text", data }
    }

    fn has(&mut self, number: i64, message: Arc<Message>) {
        self.top = self.top.max(number);
        if message.is_final {
            self.open.remove(&number);
        } else {
            self.open.insert(number, Open::All(message));
            while self.open.len() > OPEN_MAX {
                self.open.pop_first();
            }
        }
    }
}

/// How many bytes two texts have in common at their beginning.
fn common(a: &str, b: &str) -> usize {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    b.floor_char_boundary(same)
}

#[cfg(test)]
mod tests;
