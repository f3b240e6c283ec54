//! What may be read of this process's memory, which holds tokens.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// From here on the kernel writes no core of this process, and lets no other process of its user read its memory or trace
/// it: not agents, which are of the same user (PR_SET_DUMPABLE in prctl(2), ptrace(2)). An execve ends it, so each image
/// and each child decides for itself.
///
/// # Errors
/// The kernel's reason; there is none in practice.
pub fn forbid() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
