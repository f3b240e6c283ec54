//! Bytes that wait to be written to an agent.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A write of up to so many bytes reaches a socket as a whole or not at all: the kernel puts it into one buffer.
const WHOLE_BYTES_MAX: usize = 4096;

/// A queue of bytes. It may begin in the middle of a message: what was written already is gone.
///
/// **Invariant:** the lines add up to the bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::agent) struct Outgoing {
    bytes: VecDeque<u8>,
    lines: VecDeque<Line>,
}

/// A message that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    /// Its bytes that were not written.
    left: usize,
    /// The request of ours that it is, if it is one.
    call: Option<i64>,
    /// Some of it was written.
    begun: bool,
}

impl Outgoing {
    pub(super) fn push(&mut self, bytes: &[u8], call: Option<i64>) {
        self.bytes.extend(bytes);
        self.lines.push_back(Line { left: bytes.len(), call, begun: false });
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Bytes that wait.
    pub(in crate::agent) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing waits.
    pub(in crate::agent) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What to write next; empty only if nothing waits.
    pub(in crate::agent) fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    /// The first `count` bytes were written, or all if that is less.
    pub(in crate::agent) fn written(&mut self, count: usize) {
        let mut count = count.min(self.bytes.len());
        self.bytes.drain(..count);
        while count > 0
            && let Some(line) = self.lines.front_mut()
        {
            let part = count.min(line.left);
            count -= part;
            line.left -= part;
            line.begun = true;
            if line.left == 0 {
                self.lines.pop_front();
            }
        }
    }

    /// Nobody knows which of the first `count` bytes were written. Takes their requests out and returns them; answers
    /// and notifications stay to be written again, behind the end of a line that may have been torn.
    pub(super) fn doubt(&mut self, count: usize) -> Vec<i64> {
        let count = count.min(self.bytes.len());
        if count == 0 {
            return Vec::new();
        }
        let torn = count > WHOLE_BYTES_MAX || self.lines.front().is_some_and(|line| line.begun);
        let (mut doubted, mut again, mut calls) = (0, Self::default(), Vec::new());
        if torn {
            again.push(b"\n", None);
        }
        while doubted < count
            && let Some(line) = self.lines.pop_front()
        {
            doubted += line.left;
            let bytes: Vec<u8> = self.bytes.drain(..line.left).collect();
            match line.call {
                Some(call) => calls.push(call),
                None if line.begun => tracing::warn!("an answer that was half given to an agent is lost"),
                None => again.push(&bytes, None),
            }
        }
        again.bytes.append(&mut self.bytes);
        again.lines.append(&mut self.lines);
        *self = again;
        calls
    }
}

/// How it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(with = "bytes_as_base64")]
    bytes: Vec<u8>,
    #[serde(default)]
    lines: VecDeque<Line>,
}

/// What can be read: version 1 of the state had the bytes alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Readable {
    Stored(Stored),
    Bytes(#[serde(with = "bytes_as_base64")] Vec<u8>),
}

impl Serialize for Outgoing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored { bytes: self.bytes.iter().copied().collect(), lines: self.lines.clone() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Outgoing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Stored { bytes, mut lines } = match Readable::deserialize(deserializer)? {
            Readable::Stored(stored) => stored,
            Readable::Bytes(bytes) => Stored { bytes, lines: VecDeque::new() },
        };
        let left = lines.iter().try_fold(0_usize, |sum, line| sum.checked_add(line.left));
        if left != Some(bytes.len()) {
            // Where its lines are is not known, so it is one that may have been begun.
            lines = VecDeque::from([Line { left: bytes.len(), call: None, begun: true }]);
        }
        Ok(Self { bytes: bytes.into(), lines })
    }
}

/// For `#[serde(with)]`: bytes as base64, because JSON has no other short form for them.
pub(in crate::agent) mod bytes_as_base64 {
    use super::{Deserialize, Deserializer, Engine, STANDARD, Serializer, de};

    pub(in crate::agent) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(in crate::agent) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(lines: &[(&str, Option<i64>)]) -> Outgoing {
        let mut queue = Outgoing::default();
        lines.iter().for_each(|(line, call)| queue.push(line.as_bytes(), *call));
        queue
    }

    fn text(queue: &Outgoing) -> String {
        String::from_utf8(queue.bytes.iter().copied().collect()).expect("text")
    }

    #[test]
    fn in_doubt_requests_are_taken_out_and_answers_written_again() {
        let mut queue = queue(&[("a\n", None), ("b\n", Some(1)), ("c\n", None), ("d\n", Some(2))]);
        assert_eq!(queue.doubt(5), [1]);
        assert_eq!(text(&queue), "a\nc\nd\n");
        assert_eq!(queue.doubt(0), Vec::<i64>::new());
    }

    #[test]
    fn a_line_that_may_be_torn_is_ended_before_anything_follows() {
        let mut queue = queue(&[("abc\n", Some(1)), ("d\n", None)]);
        queue.written(2);
        assert_eq!(queue.doubt(1), [1]);
        assert_eq!(text(&queue), "\nd\n");
        let mut long = Outgoing::default();
        long.push(&[b'x'; 2 * WHOLE_BYTES_MAX], Some(1));
        assert_eq!(long.doubt(2 * WHOLE_BYTES_MAX), [1]);
        assert_eq!(text(&long), "\n");
    }

    #[test]
    fn the_form_of_version_1_is_read() {
        let old: Outgoing = serde_json::from_str(r#""YWJj""#).expect("reads");
        assert_eq!(text(&old), "abc");
        let mut now: Outgoing = serde_json::from_str(&serde_json::to_string(&old).expect("writes")).expect("reads");
        assert_eq!(now, old);
        now.written(3);
        assert!(now.is_empty() && now.lines.is_empty());
    }
}
