//! The one gate: who may talk and who may command.

use std::collections::{BTreeMap, BTreeSet};

use crate::chat::Inbound;
use crate::id::PlatformName;

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
    },
}

/// Who may do what, by platform. A platform that is not in it lets nobody in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access(BTreeMap<PlatformName, Allowed>);

impl Access {
    /// Makes the gate of its rules.
    pub fn new(rules: impl IntoIterator<Item = (PlatformName, Allowed)>) -> Self {
        Self(rules.into_iter().collect())
    }

    /// Whether the sender may talk here. Admins may.
    pub fn may_talk(&self, inbound: &Inbound) -> bool {
        match self.0.get(&inbound.conversation.platform) {
            Some(Allowed::Everyone) => true,
            Some(Allowed::Listed { talk, admin }) => {
                talk.contains(&inbound.sender.id) || admin.contains(&inbound.sender.id)
            }
            None => false,
        }
    }

    /// Whether the sender may use the admin commands.
    pub fn is_admin(&self, inbound: &Inbound) -> bool {
        match self.0.get(&inbound.conversation.platform) {
            Some(Allowed::Everyone) => true,
            Some(Allowed::Listed { admin, .. }) => admin.contains(&inbound.sender.id),
            None => false,
        }
    }
}
