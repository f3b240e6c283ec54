//! What the gateway and a conduit say to each other: JSON, one message a packet.
//!
//! The two may be of different versions: an update leaves the conduit as it is until it has proven itself. So fields and
//! kinds are only ever added, and what is unknown is passed over.

use serde::{Deserialize, Serialize};

use crate::chat::LinkState;
use crate::config::{DingTalkConfig, Secret};

/// The longest piece of a frame in one packet, in bytes. Escaped it is six times as long at the most, which is well
/// below what a socket takes as one packet (net.core.wmem_default, socket(7)).
pub(super) const PIECE_BYTES_MAX: usize = 16 * 1024;
/// The longest packet.
pub(super) const PACKET_BYTES_MAX: usize = 8 * PIECE_BYTES_MAX;

/// What the gateway says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum ToConduit {
    /// Somebody new listens: say who you are, and all that is not acknowledged from the beginning.
    Hello(Account),
    /// The frame is durable, and this is the answer to DingTalk.
    Ack {
        /// The frame.
        id: u64,
        /// The text to send.
        reply: String,
    },
    /// Take in nothing more, and end once everything is acknowledged.
    Close,
    /// Something that only later versions know.
    #[serde(other)]
    Unknown,
}

/// Whom the conduit speaks for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::platform::dingtalk) struct Account {
    pub(in crate::platform::dingtalk) client_id: String,
    client_secret: String,
    pub(super) api_url: String,
}

impl Account {
    pub(in crate::platform::dingtalk) fn of(config: &DingTalkConfig) -> Self {
        Self {
            client_id: config.client_id.clone(),
            client_secret: config.client_secret.expose().to_owned(),
            api_url: config.api_url.clone(),
        }
    }

    pub(super) fn secret(&self) -> Secret {
        Secret::new(self.client_secret.clone())
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// What a conduit says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum FromConduit {
    /// The answer to a greeting.
    Welcome {
        /// Its program's version.
        version: String,
        /// Its process.
        pid: i32,
        /// It was told to close.
        closing: bool,
        /// How its connection is.
        link: LinkState,
    },
    /// The connection changed.
    Link {
        /// How it is.
        link: LinkState,
    },
    /// A piece of a frame; pieces of two frames are never mixed.
    Frame {
        /// Names the frame.
        id: u64,
        /// More of it follows.
        more: bool,
        /// The piece.
        text: String,
    },
    /// Something that only later versions know.
    #[serde(other)]
    Unknown,
}

/// The packet of a message.
pub(super) fn pack(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("plain data serialises")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_piece_fits_in_a_packet_however_it_is_escaped() {
        let frame = FromConduit::Frame { id: u64::MAX, more: false, text: "\u{1}".repeat(PIECE_BYTES_MAX) };
        assert!(pack(&frame).len() <= PACKET_BYTES_MAX);
    }

    #[test]
    fn what_a_later_version_says_is_passed_over() {
        let said = serde_json::from_str::<FromConduit>(r#"{"say":"mood","of":[1]}"#).expect("reads");
        assert!(matches!(said, FromConduit::Unknown));
        let said = serde_json::from_str::<ToConduit>(r#"{"say":"close","because":"x"}"#).expect("reads");
        assert!(matches!(said, ToConduit::Close));
    }

    #[test]
    fn a_greeting_shows_no_secret() {
        let account = Account { client_id: "id".into(), client_secret: "hidden".into(), api_url: "https://x".into() };
        assert!(!format!("{:?}", ToConduit::Hello(account)).contains("hidden"));
    }
}
