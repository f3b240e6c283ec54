//! Bytes that wait to be written to an agent.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A queue of bytes. It may begin in the middle of a message: what was written already is gone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::agent) struct Outgoing(VecDeque<u8>);

impl Outgoing {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub(super) fn clear(&mut self) {
        self.0 = VecDeque::new();
    }

    /// The whole lines that wait.
    pub(super) fn lines(&self) -> Vec<Vec<u8>> {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing waits.
    pub(in crate::agent) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What to write next; empty only if nothing waits.
    pub(in crate::agent) fn front(&self) -> &[u8] {
        self.0.as_slices().0
    }

    /// The first `count` bytes were written.
    pub(in crate::agent) fn written(&mut self, count: usize) {
        self.0.drain(..count);
    }
}

impl Serialize for Outgoing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        bytes_as_base64::serialize(&bytes, serializer)
    }
}

impl<'de> Deserialize<'de> for Outgoing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bytes_as_base64::deserialize(deserializer).map(|bytes| Self(bytes.into()))
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
