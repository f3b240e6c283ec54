//! What the store has for this gateway from one image or process to the next, and is read before anything is started.
//!
//! **Invariant:** what cannot be read counts as nothing, with a line in the log: a gateway that serves without it is
//! better than none.

use std::collections::BTreeSet;

use tokio::task::JoinHandle;

use super::notices::{STOPPED, UNTOLD, Untold};
use super::platforms::{access, languages};
use crate::config::Config;
use crate::gateway::pairing::{Pairings, WRONG_KEY};
use crate::gateway::{ASKS_KEY, Gateway, GatewayState};
use crate::hex;
use crate::id::{AgentName, PlatformName};
use crate::report::Chain;
use crate::store::{Store, StoreError};
use crate::sys::random;
use crate::update::known::{INSTALLATION, KEYS, Known};

/// The key in the store of the paused platforms: a JSON list of names.
pub(super) const PAUSED: &str = "paused_platforms";

/// Random bytes in the name of an installation.
const INSTALLATION_BYTES: usize = 16;

/// How often it is tried to read it.
const ATTEMPTS: usize = 3;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The platforms that are held back, configured or not.
    pub(super) paused: BTreeSet<PlatformName>,
    /// Who was let in, or has asked to be; the gateway has it.
    pairings: Pairings,
    /// Who is to be told of a restart.
    pub(super) untold: Vec<Untold>,
    /// What it knows of versions.
    pub(super) versions: Known,
    /// The number that was given last to a permission request; the gateway has it.
    last_ask: u64,
    /// The gateway was stopped in order.
    pub(super) was_stopped: bool,
    /// What is being written of the last two, in order.
    pub(super) notes: Option<JoinHandle<()>>,
}

impl Kept {
    /// Reads it. A disk that fails once is asked again.
    pub(super) async fn read(store: &Store) -> Self {
        for _ in 0..ATTEMPTS {
            match Self::attempt(store).await {
                Ok(kept) => return kept,
                Err(error) => tracing::error!(error = %Chain(&error), "cannot read what the store has of people"),
            }
        }
        Self::default()
    }

    /// Together, so that it is one look at the database.
    async fn attempt(store: &Store) -> Result<Self, StoreError> {
        let (paused, pairings, wrong, untold, asks, stopped, mut versions) = tokio::try_join!(
            store.meta(PAUSED),
            store.pairings(),
            store.meta(WRONG_KEY),
            store.meta(UNTOLD),
            store.meta(ASKS_KEY),
            store.meta(STOPPED),
            store.metas(&KEYS),
        )?;
        let mut versions = Known::read(|key| versions.remove(key));
        if versions.installation.is_none() {
            let name = hex::encode(&random::some::<INSTALLATION_BYTES>());
            versions.installation = Some(store.meta_or(INSTALLATION, name).await?);
        }
        Ok(Self {
            paused: read_json(PAUSED, paused),
            pairings: Pairings::new(pairings, wrong.as_deref()),
            untold: read_json(UNTOLD, untold),
            versions,
            last_ask: read_json(ASKS_KEY, asks),
            was_stopped: stopped.is_some_and(|value| !value.is_empty()),
            notes: None,
        })
    }

    /// A gateway with what is its own of this.
    pub(super) fn gateway(
        &mut self,
        config: &Config,
        agents: impl IntoIterator<Item = AgentName>,
        state: GatewayState,
    ) -> Gateway {
        let access = access(config).with(std::mem::take(&mut self.pairings));
        let mut gateway = Gateway::restore(access, agents, state).speaking(languages(config));
        gateway.count_asks_from(self.last_ask);
        gateway
    }
}

/// A value that is not there, or empty, is the default.
fn read_json<T: serde::de::DeserializeOwned + Default>(what: &'static str, text: Option<String>) -> T {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return T::default() };
    serde_json::from_str(&text).unwrap_or_else(|error| {
        tracing::error!(%error, what, "what the store has is not readable");
        T::default()
    })
}
