//! Waiting for an fd to become readable or writable, for kinds of fd that tokio has no type for (pidfd, signalfd, a socket
//! of packets).

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `fd` with the runtime for read readiness. A pidfd becomes readable when its process ends
/// (pidfd_open(2)). Must be called within a tokio runtime.
///
/// # Errors
/// The kernel's reason, for example an fd that cannot be polled.
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd, Interest::READABLE)
}

/// The same for both ways.
///
/// # Errors
/// As [`readable`].
pub fn both_ways(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd, Interest::READABLE | Interest::WRITABLE)
}

#[expect(unsafe_code, reason = "tokio's contract for AsyncFd is met by every OwnedFd")]
fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, always returns the same number, and is owned by the `AsyncFd` from here on, so
    // it stays open and the same until that is dropped or gives it back.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
