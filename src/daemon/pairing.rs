//! Letting people in by pairing, for control clients.
//!
//! **Invariant:** nobody is told that somebody was let in, or is no longer, before the store says so; without it
//! nothing has changed.

use super::run::Daemon;
use crate::clock::UnixMillis;
use crate::control::proto::{self, ApproveParams, PairingEntry, RevokeParams};
use crate::gateway::notice;
use crate::gateway::pairing::Refused;
use crate::id::PlatformName;
use crate::jsonrpc::ErrorObject;
use crate::report::Chain;
use crate::store::{Change, Pairing};

impl Daemon {
    /// Who was let in, and who has asked to be.
    pub(super) fn pairings(&mut self) -> Vec<PairingEntry> {
        self.gateway.access().pairings(UnixMillis::now()).map(PairingEntry::from).collect()
    }

    /// Lets in whom a code was given to, and tells them.
    pub(super) async fn approve(&mut self, params: ApproveParams) -> Result<PairingEntry, ErrorObject> {
        let platform = PlatformName::new(params.platform);
        let before = self.gateway.access().clone();
        let mut changes = Vec::new();
        let outcome = self.gateway.access().approve(&platform, &params.code, UnixMillis::now(), &mut changes);
        if let Err(error) = self.record_pairing(changes).await {
            *self.gateway.access() = before;
            return Err(error);
        }
        let pairing = outcome.map_err(|refused| {
            tracing::warn!(%platform, %refused, "a pairing code was refused");
            let code = match refused {
                Refused::Wrong { .. } => ErrorObject::INVALID_PARAMS,
                Refused::Locked { .. } => proto::FORBIDDEN,
            };
            ErrorObject::new(code, refused.to_string())
        })?;
        tracing::info!(%platform, user = pairing.user, "somebody was let in by pairing");
        let told = self.gateway.words(&pairing.conversation).pairing_approved();
        self.carry_out(vec![notice(&pairing.conversation, told)]).await;
        Ok(PairingEntry::from(&pairing))
    }

    /// Takes back that somebody was let in.
    pub(super) async fn revoke(&mut self, params: RevokeParams) -> Result<PairingEntry, ErrorObject> {
        let platform = PlatformName::new(params.platform);
        let before = self.gateway.access().clone();
        let mut changes = Vec::new();
        let revoked: Option<Pairing> = self.gateway.access().revoke(&platform, &params.user, &mut changes);
        if let Err(error) = self.record_pairing(changes).await {
            *self.gateway.access() = before;
            return Err(error);
        }
        let is_named = before.names(&platform, &params.user);
        let Some(pairing) = revoked else {
            let told = match is_named {
                true => format!("{} is named in the configuration of {platform}, and is let in by that", params.user),
                false => format!("nobody with the id {} was let in on {platform} by pairing", params.user),
            };
            return Err(ErrorObject::new(ErrorObject::INVALID_PARAMS, told));
        };
        tracing::info!(%platform, user = pairing.user, is_named, "a pairing was revoked");
        Ok(PairingEntry::from(&pairing))
    }

    async fn record_pairing(&self, changes: Vec<Change>) -> Result<(), ErrorObject> {
        if changes.is_empty() {
            return Ok(());
        }
        let recorded = self.store.change(changes).await.map(drop);
        recorded.map_err(|error| ErrorObject::new(ErrorObject::INTERNAL, Chain(&error).to_string()))
    }
}
