//! Newtypes for the names that cross module borders.
//!
//! **Invariant:** a name is made where its owner makes the thing (an agent's session id by the agent, a turn id by
//! the store) and is only passed on elsewhere.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes a name over from its owner.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.to_owned())
            }
        }
    };
}

string_id! {
    /// The key of an agent in `[agents.<name>]`.
    AgentName
}
string_id! {
    /// The key of a platform in `[platforms.<name>]`, or `local`.
    PlatformName
}
string_id! {
    /// An ACP session id, as the agent gave it.
    SessionId
}

string_id! {
    /// One handoff, in the journal, in the history and in traces: 32 lower-case hexadecimal digits, not all 0, as W3C Trace
    /// Context has them.
    TraceId
}

impl TraceId {
    /// One that no other handoff has.
    pub fn random() -> Self {
        Self(crate::hex::encode(&crate::sys::random::some::<16>()))
    }
}

/// One prompt turn. It is the row id of the inbox message that asked for it, so it is unique for the life of the
/// store and increases with arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TurnId(pub i64);

impl fmt::Display for TurnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How many times this process has replaced its image: 0 for the image that systemd or a shell started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
