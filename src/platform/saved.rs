//! What the next image needs to go on, besides the outbox.
//!
//! **Invariants**
//! - It is self-describing JSON: additions have a default, and what is unknown is passed over, so that the image
//!   before this one and the one after it read it.
//! - Where the messages that came in stand is not in it: that is in the store. What is to be shown is there as well, so
//!   without this only the limits and what was said of growing replies are missing, and the latter comes again.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::delivery::Delivery;
use super::link::Link;

/// The version written here. Additions with a default do not change it.
const VERSION: u32 = 1;

/// The volatile state of a platform; to write it the delivery is only borrowed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved<L, D = Delivery> {
    version: u32,
    /// The account that the rest is about.
    account: String,
    /// The link's own.
    #[serde(flatten)]
    pub(super) link: L,
    /// Notices and replies that are not delivered.
    #[serde(default)]
    pub(super) delivery: D,
}

impl<L: Default> Saved<L> {
    /// Nothing to go on from.
    fn fresh(account: &str) -> Self {
        Self { version: VERSION, account: account.to_owned(), link: L::default(), delivery: Delivery::default() }
    }
}

/// The state of a link and its delivery.
pub(super) fn write<L: Link>(link: &L, delivery: &Delivery) -> Value {
    let saved = Saved { version: VERSION, account: link.account().to_owned(), link: link.save(), delivery };
    serde_json::to_value(saved).expect("plain data with text keys serialises")
}

/// Reads what another image left. What cannot be read is told and dropped.
pub(super) fn read<L: Link>(left: Option<Value>, account: &str) -> Saved<L::Saved> {
    let Some(left) = left else { return Saved::fresh(account) };
    match serde_json::from_value::<Saved<L::Saved>>(left) {
        Ok(saved) if saved.account == account => saved,
        Ok(_) => {
            tracing::warn!(platform = L::PLATFORM, "the state that was left is of another account and is dropped");
            Saved::fresh(account)
        }
        // The error's own text could quote a reply.
        Err(error) => {
            let problem = error.classify();
            tracing::error!(
                platform = L::PLATFORM,
                ?problem,
                "the state that was left cannot be read: the outbox is gone on from"
            );
            Saved::fresh(account)
        }
    }
}

/// Whether this image understands a platform's state, for the preflight child. At a handoff what is not understood is
/// lost, so it must not come to one.
///
/// # Errors
/// What is not understood.
pub(super) fn check<L: Link>(state: &Value) -> Result<(), serde_json::Error> {
    Saved::<L::Saved, Delivery>::deserialize(state).map(drop)
}
