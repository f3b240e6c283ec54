//! The fds that must outlive this image if it dies: where they are kept besides.
//!
//! **Invariants**
//! - What is kept here is a duplicate of what a part owns, under the name it has in a handoff. So a part's fd that is
//!   closed ends nothing by itself: an agent's pipes are shut down, and a dead agent's fds are forgotten by name.
//! - While there is a way back to the previous image, it leads to exactly what is kept here.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::state::{Passport, agent_fds, agent_log_fd, lock_fd};
use crate::agent::AgentFds;
use crate::handoff::way_back::WayBack;
use crate::handoff::{FdName, Inherited};
use crate::id::AgentName;
use crate::report::Chain;
use crate::service::fdstore::FdStore;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Keeper {
    fds: BTreeMap<FdName, OwnedFd>,
    fd_store: FdStore,
    /// What the service manager has.
    stored: BTreeSet<FdName>,
    /// The way back, once something was consumed.
    way_back: Option<WayBack>,
}

impl Keeper {
    /// Keeps nothing yet, though the service manager may have what `passport` says, or after a crash what is left.
    pub(super) fn new(fd_store: FdStore, passport: Option<&Passport>, left: Option<&Inherited>) -> Self {
        let stored = match (passport, left) {
            (Some(passport), _) => passport.stored.clone(),
            (None, Some(left)) => left.names().filter(|name| **name != lock_fd()).cloned().collect(),
            (None, None) => BTreeSet::new(),
        };
        Self { fds: BTreeMap::new(), fd_store, stored, way_back: None }
    }

    /// Whether a service manager may keep fds.
    pub(super) fn has_fd_store(&self) -> bool {
        self.fd_store.is_there()
    }

    /// What the service manager has.
    pub(super) fn stored(&self) -> &BTreeSet<FdName> {
        &self.stored
    }

    /// Keeps a duplicate of `fd` for an image of this process.
    pub(super) fn keep(&mut self, name: FdName, fd: BorrowedFd<'_>) {
        match fd.try_clone_to_owned() {
            Ok(fd) => {
                self.fds.insert(name, fd);
            }
            Err(error) => tracing::warn!(%name, %error, "an fd is not kept and would be lost with this process"),
        }
    }

    /// Keeps a duplicate of `fd` for the next process as well. One that the service manager has is the same as before.
    pub(super) fn store(&mut self, name: FdName, fd: BorrowedFd<'_>) {
        if self.stored.insert(name.clone()) {
            self.fd_store.put(name.as_str(), fd);
        }
        self.keep(name, fd);
    }

    /// Keeps a duplicate of `fd` in the place of what had this name before.
    pub(super) fn renew(&mut self, name: FdName, fd: BorrowedFd<'_>) {
        self.forget([name.clone()]);
        self.store(name, fd);
        self.lead_back();
    }

    /// Nobody needs these any more.
    pub(super) fn forget(&mut self, names: impl IntoIterator<Item = FdName>) {
        for name in names {
            self.fds.remove(&name);
            if self.stored.remove(&name) {
                self.fd_store.remove(name.as_str());
            }
        }
        self.lead_back();
    }

    /// Keeps the fds of an agent's process that goes on.
    pub(super) fn keep_agent(&mut self, agent: &AgentName, fds: &AgentFds) {
        for (name, fd) in agent_fds(agent).into_iter().zip([&fds.stdin, &fds.stdout, &fds.pidfd]) {
            self.store(name, fd.as_fd());
        }
        if let Some(log) = &fds.log {
            self.store(agent_log_fd(agent), log.as_fd());
        }
        self.lead_back();
    }

    /// The agent's process has ended or is being ended.
    pub(super) fn forget_agent(&mut self, agent: &AgentName) {
        self.forget(agent_fds(agent).into_iter().chain([agent_log_fd(agent)]));
    }

    /// No process may outlive this one.
    pub(super) fn forget_all(&mut self) {
        let names: Vec<FdName> = self.fds.keys().chain(&self.stored).cloned().collect();
        self.forget(names);
    }

    /// From here on what was handed over is consumed: the way back leads here.
    pub(super) fn watch(&mut self, way_back: WayBack) {
        self.way_back = Some(way_back);
        self.lead_back();
    }

    /// The image that would come back, while there is one.
    pub(super) fn way_back(&self) -> Option<&WayBack> {
        self.way_back.as_ref()
    }

    /// This image has proven itself, or is to end for good.
    pub(super) fn take_down(&mut self) {
        if let Some(way_back) = self.way_back.take() {
            way_back.take_down();
        }
    }

    fn lead_back(&mut self) {
        let Some(way_back) = &mut self.way_back else { return };
        let fds = self.fds.iter().map(|(name, fd)| (name, fd.as_raw_fd()));
        if let Err(error) = way_back.by_recovery(fds) {
            tracing::error!(error = %Chain(&error), "cannot prepare the way back to the previous image");
        }
    }
}
