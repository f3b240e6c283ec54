//! Replacing the running image and taking over from the previous one.
//!
//! ```text
//!  serving ─► stage ─► preflight ─► drain ─► quiesce ─► seal ─► exec ─┬─► adopt ─► serving, on probation ─► committed
//!     ▲         │          │          │         │         │       │   │
//!     └─────────┴──────────┴──────────┴─────────┴─────────┴───────┘   └ the same process, the next generation
//!       whatever fails here: nothing was closed, go on
//! ```
//!
//! The old image puts named fds and versioned sections into a [`Registry`], seals it into a memfd ([`codec`]) and
//! replaces itself ([`reexec`]). The new image finds an [`Inherited`] ([`adopt`]) and takes them out one by one.
//! Before that, [`preflight`] lets the very same bytes read the very same state as a child process.
//!
//! **Invariants**
//! - This module moves opaque sections and fds; it knows no chat, no agent and no socket by meaning.
//! - Nothing is closed before the execve. What must survive it is *duplicated* without CLOEXEC, so that an execve
//!   that returns is undone by dropping the duplicates.
//! - The new image claims exactly the fds that the sealed table names, once.
//! - Sections are JSON and evolve by addition. One that the reader does not know is skipped with a log line; a
//!   required one that is missing, or of a version the reader does not know, is refused in preflight.
//!
//! Deliberately absent: whatever the store holds already.

pub mod adopt;
pub mod codec;
mod descendants;
pub mod phase;
pub mod preflight;
pub mod reexec;
mod registry;
pub mod way_back;

pub use adopt::Inherited;
pub use phase::{Phase, Timeline};
pub use registry::{FdName, Registry, SealError, Sealed, SectionSpec};
