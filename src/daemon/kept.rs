//! What the store has for this gateway from one image or process to the next, and is read before anything is started.
//!
//! **Invariant:** what cannot be read counts as nothing, with a line in the log: a gateway that serves without it is
//! better than none.

use std::collections::BTreeSet;

use super::notices::{STOPPED, UNTOLD, Untold};
use crate::gateway::ASKS_KEY;
use crate::gateway::pairing::{Pairings, WRONG_KEY};
use crate::id::PlatformName;
use crate::report::Chain;
use crate::store::{Store, StoreError};

/// The key in the store of the paused platforms: a JSON list of names.
pub(super) const PAUSED: &str = "paused_platforms";

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The platforms that are held back, configured or not.
    pub(super) paused: BTreeSet<PlatformName>,
    /// Who was let in, or has asked to be.
    pub(super) pairings: Pairings,
    /// Who is to be told of a restart.
    pub(super) untold: Vec<Untold>,
    /// The number that was given last to a permission request.
    pub(super) last_ask: u64,
    /// The gateway was stopped in order.
    pub(super) was_stopped: bool,
}

impl Kept {
    /// Reads it; together, so that it is one look at the database.
    pub(super) async fn read(store: &Store) -> Self {
        let (paused, pairings, wrong, untold, asks, stopped) = tokio::join!(
            store.meta(PAUSED),
            store.pairings(),
            store.meta(WRONG_KEY),
            store.meta(UNTOLD),
            store.meta(ASKS_KEY),
            store.meta(STOPPED),
        );
        Self {
            paused: read_json(PAUSED, known(PAUSED, paused)),
            pairings: Pairings::new(known("pairings", pairings), known(WRONG_KEY, wrong).as_deref()),
            untold: read_json(UNTOLD, known(UNTOLD, untold)),
            last_ask: read_json(ASKS_KEY, known(ASKS_KEY, asks)),
            was_stopped: known(STOPPED, stopped).is_some_and(|value| !value.is_empty()),
        }
    }
}

fn known<T: Default>(what: &'static str, read: Result<T, StoreError>) -> T {
    read.unwrap_or_else(|error| {
        tracing::error!(error = %Chain(&error), what, "cannot read what the store has");
        T::default()
    })
}

/// A value that is not there, or empty, is the default.
fn read_json<T: serde::de::DeserializeOwned + Default>(what: &'static str, text: Option<String>) -> T {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return T::default() };
    serde_json::from_str(&text).unwrap_or_else(|error| {
        tracing::error!(%error, what, "what the store has is not readable");
        T::default()
    })
}
