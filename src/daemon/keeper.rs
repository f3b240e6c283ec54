//! The fds that must outlive this image if it dies: where they are kept besides.
//!
//! **Invariants**
//! - What is kept here is a duplicate of what a part owns, under the name it has in a handoff. So a part's fd that is
//!   closed ends nothing by itself: an agent's pipes are shut down, and a dead agent's fds are forgotten by name.
//! - While there is a way back to the previous image, it leads to exactly what is kept here.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::agent::AgentFds;
use crate::handoff::FdName;
use crate::handoff::way_back::WayBack;
use crate::id::AgentName;
use crate::report::Chain;

use super::state::agent_fds;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    fds: BTreeMap<FdName, OwnedFd>,
    /// The way back, once something was consumed.
    way_back: Option<WayBack>,
}

impl Keeper {
    /// Keeps a duplicate of `fd`, in the place of one of the same name.
    pub(super) fn keep(&mut self, name: FdName, fd: BorrowedFd<'_>) {
        match fd.try_clone_to_owned() {
            Ok(fd) => {
                self.fds.insert(name, fd);
            }
            Err(error) => tracing::warn!(%name, %error, "an fd is not kept and would be lost with this process"),
        }
    }

    /// Keeps the fds of an agent's process, in the place of those of the process before.
    pub(super) fn keep_agent(&mut self, agent: &AgentName, fds: &AgentFds) {
        use std::os::fd::AsFd;
        for (name, fd) in agent_fds(agent).into_iter().zip([&fds.stdin, &fds.stdout, &fds.pidfd]) {
            self.keep(name, fd.as_fd());
        }
        self.lead_back();
    }

    /// The agent's process has ended or is being ended.
    pub(super) fn forget_agent(&mut self, agent: &AgentName) {
        for name in agent_fds(agent) {
            self.fds.remove(&name);
        }
        self.lead_back();
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
