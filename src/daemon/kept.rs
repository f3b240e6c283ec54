//! What the store has for this gateway from one image or process to the next, and is read before anything is started.
//!
//! **Invariant:** what cannot be read counts as nothing, with a line in the log: a gateway that serves without it is
//! better than none.

use std::collections::BTreeSet;

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
}

impl Kept {
    /// Reads it; together, so that it is one look at the database.
    pub(super) async fn read(store: &Store) -> Self {
        let (paused, pairings, wrong) = tokio::join!(store.meta(PAUSED), store.pairings(), store.meta(WRONG_KEY));
        let pairings = Pairings::new(known("the pairings", pairings), known("the wrong codes", wrong).as_deref());
        Self { paused: read_json("the paused platforms", known("the paused platforms", paused)), pairings }
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
