//! Waiting for an fd to become readable, for kinds of fd that tokio has no type for (pidfd, signalfd).

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `fd` with the runtime for read readiness. A pidfd becomes readable when its process ends
/// (pidfd_open(2)). Must be called within a tokio runtime.
///
/// # Errors
/// The kernel's reason, for example an fd that cannot be polled.
#[expect(unsafe_code, reason = "tokio's contract for AsyncFd is met by every OwnedFd")]
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, always returns the same number, and is owned by the `AsyncFd` from here on, so
    // it stays open and the same until that is dropped or gives it back.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
