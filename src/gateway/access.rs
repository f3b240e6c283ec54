//! The one gate: who may talk and who may command.
//!
//! The configuration names people, and pairing lets in others ([`super::pairing`]), who are never admins.

use std::collections::{BTreeMap, BTreeSet};

use super::pairing::{Knock, Pairings, Refused};
use crate::chat::Inbound;
use crate::clock::UnixMillis;
use crate::id::PlatformName;
use crate::store::{Change, Pairing};

/// Who may do what on one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Everyone who gets through to the platform at all may do everything: the control socket lets only the
    /// gateway's own user and root in.
    Everyone,
    /// Those named, by the platform's user ids.
    Listed {
        /// May talk.
        talk: BTreeSet<String>,
        /// May also use the admin commands.
        admin: BTreeSet<String>,
        /// Whether others are given codes. Who was let in before stays.
        pairing: bool,
    },
}

/// Who may do what, by platform. A platform that is not in it lets nobody in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    rules: BTreeMap<PlatformName, Allowed>,
    pairings: Pairings,
}

impl Access {
    /// Makes the gate of its rules.
    pub fn new(rules: impl IntoIterator<Item = (PlatformName, Allowed)>) -> Self {
        Self { rules: rules.into_iter().collect(), pairings: Pairings::default() }
    }

    /// With those who were let in, or have asked to be.
    pub fn with(self, pairings: Pairings) -> Self {
        Self { pairings, ..self }
    }

    /// Whether the sender may talk here. Admins may.
    pub fn may_talk(&self, inbound: &Inbound) -> bool {
        let (platform, user) = (&inbound.conversation.platform, &inbound.sender.id);
        match self.rules.get(platform) {
            Some(Allowed::Everyone) => true,
            Some(Allowed::Listed { talk, admin, .. }) => {
                talk.contains(user) || admin.contains(user) || self.pairings.is_approved(platform, user)
            }
            None => false,
        }
    }

    /// Whether the sender may use the admin commands.
    pub fn is_admin(&self, inbound: &Inbound) -> bool {
        match self.rules.get(&inbound.conversation.platform) {
            Some(Allowed::Everyone) => true,
            Some(Allowed::Listed { admin, .. }) => admin.contains(&inbound.sender.id),
            None => false,
        }
    }

    /// Whether a platform's configuration names somebody, so that it cannot be taken back by pairing.
    pub fn names(&self, platform: &PlatformName, user: &str) -> bool {
        let rule = self.rules.get(platform);
        matches!(rule, Some(Allowed::Listed { talk, admin, .. }) if talk.contains(user) || admin.contains(user))
    }

    /// Somebody who may not talk says something in a direct chat; as [`Pairings::knock`]. None where nobody is let in
    /// by pairing.
    pub fn knock(
        &mut self,
        inbound: &Inbound,
        now: UnixMillis,
        make: impl FnMut() -> Option<String>,
        changes: &mut Vec<Change>,
    ) -> Option<Knock> {
        match self.rules.get(&inbound.conversation.platform) {
            Some(Allowed::Listed { pairing: true, .. }) => Some(self.pairings.knock(inbound, now, make, changes)),
            _ => None,
        }
    }

    /// As [`Pairings::list`].
    pub fn pairings(&self, now: UnixMillis) -> impl Iterator<Item = &Pairing> {
        self.pairings.list(now)
    }

    /// As [`Pairings::approve`].
    ///
    /// # Errors
    /// [`Refused`].
    pub fn approve(
        &mut self,
        platform: &PlatformName,
        code: &str,
        now: UnixMillis,
        changes: &mut Vec<Change>,
    ) -> Result<Pairing, Refused> {
        self.pairings.approve(platform, code, now, changes)
    }

    /// As [`Pairings::revoke`].
    pub fn revoke(&mut self, platform: &PlatformName, user: &str, changes: &mut Vec<Change>) -> Option<Pairing> {
        self.pairings.revoke(platform, user, changes)
    }
}
