//! The files in the text of an item, each in its place.
//!
//! **Invariant:** a file is here from when it was said until it, or a word in its place, was shown. One that was shown is
//! known by its number, which only grows.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Attached;
use crate::chat::{Content, NotSent, OutFile};
use crate::store::Part;
use crate::words::Words;

/// A file and where it stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Anchor {
    /// In the item's text, in bytes.
    at: usize,
    file: OutFile,
    /// Why it cannot be sent.
    #[serde(default)]
    why_not: Option<NotSent>,
}

impl Anchor {
    /// The number of its file in the turn.
    pub(super) fn number(&self) -> u32 {
        self.file.number
    }

    /// The file, if it can be sent.
    pub(super) fn sendable(&self) -> Option<Attached> {
        let Content::Kept { path, .. } = &self.file.content else { return None };
        let OutFile { name, mime, .. } = &self.file;
        let file = || Attached { path: path.clone(), name: name.clone(), mime: mime.clone(), word: None };
        self.why_not.is_none().then(file)
    }

    /// What is said in the place of the file.
    pub(super) fn word(&self, words: &dyn Words) -> String {
        let (why, link) = match &self.file.content {
            Content::Missing { why, link } => (why, link.as_deref()),
            Content::Kept { .. } => (self.why_not.as_ref().unwrap_or(&NotSent::Unreadable), None),
        };
        words.file_not_sent(&self.file.name, why, link)
    }
}

/// All files of an item that were not shown, in their order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Anchors {
    #[serde(default)]
    waiting: VecDeque<Anchor>,
    /// The lowest number that is not known yet.
    #[serde(default)]
    next: u32,
}

impl Anchors {
    /// Takes a file that stands at `at`; false if it is known.
    pub(super) fn push(&mut self, at: usize, file: OutFile) -> bool {
        if file.number < self.next {
            return false;
        }
        self.next = file.number.saturating_add(1);
        self.waiting.push_back(Anchor { at, file, why_not: None });
        true
    }

    /// Forgets what these parts show for good, and what stands before them.
    pub(super) fn shown(&mut self, parts: &[Part]) {
        let Some(last) = parts.last() else { return };
        let is_known = |part: &&Part| part.message_id.is_some() || part.number < last.number;
        let shown = parts.iter().filter(is_known).filter_map(|part| part.file).map(|file| file.saturating_add(1)).max();
        let next = shown.unwrap_or(0).max(last.file.unwrap_or(0));
        self.next = self.next.max(next);
        // A text comes after the files that stand where it begins.
        let passed = |anchor: &Anchor| match last.file {
            Some(_) => anchor.number() < next,
            None => anchor.number() < next || anchor.at <= last.start,
        };
        self.waiting.retain(|anchor| !passed(anchor));
    }

    /// Where the next file stands.
    pub(super) fn next_at(&self) -> Option<usize> {
        self.waiting.front().map(|anchor| anchor.at)
    }

    /// The file that stands at `start`, or before.
    pub(super) fn at(&self, start: usize) -> Option<&Anchor> {
        self.waiting.front().filter(|anchor| anchor.at <= start)
    }

    /// The file that stands at `start` cannot be sent.
    pub(super) fn refuse(&mut self, start: usize, why: NotSent) {
        if let Some(anchor) = self.waiting.front_mut().filter(|anchor| anchor.at <= start) {
            anchor.why_not = Some(why);
        }
    }

    /// The file that stands at `start` is dealt with. Whether there was one.
    pub(super) fn pass(&mut self, start: usize) -> bool {
        let is_there = self.at(start).is_some();
        if is_there {
            self.waiting.pop_front();
        }
        is_there
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}
