//! What the next image needs to go on, besides the outbox.
//!
//! **Invariants**
//! - It is self-describing JSON: additions have a default, and what is unknown is passed over, so that the image
//!   before this one and the one after it read it.
//! - Where the updates stand is not in it: that is in the store. What is to be shown is there as well, so without this
//!   only the limits and what was said of growing replies are missing, and the latter comes again.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::delivery::Delivery;
use crate::clock::MonoNanos;

/// The version written here. Additions with a default do not change it.
pub(super) const VERSION: u32 = 1;

/// The volatile state of the platform; to write it the delivery is only borrowed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved<D = Delivery> {
    pub(super) version: u32,
    /// The bot that the rest is about.
    pub(super) account: String,
    /// The bot's name, so that it need not be asked for.
    #[serde(default)]
    pub(super) username: Option<String>,
    /// Polls that failed in a row.
    #[serde(default)]
    pub(super) poll_failures: u32,
    /// Telegram asked not to be polled before.
    #[serde(default)]
    pub(super) poll_asked_until: MonoNanos,
    /// Notices and replies that are not delivered.
    #[serde(default)]
    pub(super) delivery: D,
}

impl Saved {
    /// Nothing to go on from.
    fn fresh(account: &str) -> Self {
        Self {
            version: VERSION,
            account: account.to_owned(),
            username: None,
            poll_failures: 0,
            poll_asked_until: MonoNanos::default(),
            delivery: Delivery::default(),
        }
    }

    /// Reads what another image left. What cannot be read is told and dropped.
    pub(super) fn restore(left: Option<Value>, account: &str) -> Self {
        let Some(left) = left else { return Self::fresh(account) };
        match serde_json::from_value::<Self>(left) {
            Ok(saved) if saved.account == account => saved,
            Ok(_) => {
                tracing::warn!("the state that was left is of another bot and is dropped");
                Self::fresh(account)
            }
            // The error's own text could quote a reply.
            Err(error) => {
                let problem = error.classify();
                tracing::error!(?problem, "the state that was left cannot be read: the outbox is gone on from");
                Self::fresh(account)
            }
        }
    }
}

/// Whether this image understands the platform's state, for the preflight child. At a handoff what is not understood
/// is lost, so it must not come to one.
///
/// # Errors
/// What is not understood.
pub fn check_state(state: &Value) -> Result<(), serde_json::Error> {
    Saved::<Delivery>::deserialize(state).map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_of_any_version_is_read_by_its_fields() {
        let later = json!({ "version": 9, "account": "42", "username": "HermesBot", "mood": {}, "delivery": {} });
        assert_eq!(Saved::restore(Some(later), "42").username.as_deref(), Some("HermesBot"));
        let earlier = json!({ "version": 1, "account": "42" });
        assert_eq!(Saved::restore(Some(earlier), "42").poll_failures, 0);
    }

    #[test]
    fn a_state_of_another_bot_or_of_no_sense_is_dropped() {
        for state in [json!({ "version": 1, "account": "43", "username": "Other" }), json!([1]), json!(null)] {
            assert_eq!(Saved::restore(Some(state), "42").username, None);
        }
    }
}
