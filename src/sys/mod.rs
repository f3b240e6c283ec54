//! The kernel: inherited fds, memfds, signals, execveat, peek offsets of sockets, random bytes, core dumps. The only place with `unsafe`.
//!
//! **Invariants**
//! - An fd number becomes an [`std::os::fd::OwnedFd`] in one place, [`inherit::claim`], once per image and before
//!   there are threads.
//! - Every fd of the process is CLOEXEC, but the duplicates made for an execve, which live from just before it to
//!   its return.
//! - The signals the daemon reacts to are blocked from the first statement on and read from a signalfd
//!   ([`signals`]): one that arrives while the image is being replaced stays pending and is read by the next image.

pub mod child;
pub mod dumpable;
pub mod exec;
pub mod inherit;
pub mod memfd;
pub mod peek;
pub mod random;
pub mod readiness;
pub mod rescue;
pub mod signals;
