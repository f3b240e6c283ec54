//! Where a look into a socket's queue begins (SO_PEEK_OFF in socket(7)), for AF_UNIX sockets.
//!
//! The kernel keeps this number with the socket, not with an fd or a process: whoever else holds the socket reads what
//! a process that was killed has set. A `recv` without MSG_PEEK lowers it, in the same step, by the bytes that it takes
//! away, down to 0; -1 switches it off.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

const LENGTH: libc::socklen_t = 4;

/// Sets the offset, in bytes; -1 switches it off, so that a look begins at the front and moves nothing.
///
/// # Errors
/// `EOPNOTSUPP` for a kind of socket that has none; the kernel's reason.
#[expect(unsafe_code, reason = "neither rustix nor nix has SO_PEEK_OFF")]
pub fn set_offset(socket: BorrowedFd<'_>, offset: c_int) -> io::Result<()> {
    // SAFETY: `socket` is open while it is borrowed; the option's value is an int that lives through the call, and
    // `LENGTH` is its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            std::ptr::from_ref(&offset).cast(),
            LENGTH,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The offset, in bytes; -1 if it is switched off.
///
/// # Errors
/// As [`set_offset`].
#[expect(unsafe_code, reason = "neither rustix nor nix has SO_PEEK_OFF")]
pub fn offset(socket: BorrowedFd<'_>) -> io::Result<c_int> {
    let (mut offset, mut length): (c_int, _) = (-1, LENGTH);
    // SAFETY: `socket` is open while it is borrowed; the kernel writes at most `length` bytes, which is the size of the
    // int, into it, and both live through the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            std::ptr::from_mut(&mut offset).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(offset) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_socket_keeps_the_offset_and_a_read_lowers_it() {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
        assert_eq!(offset(ours.as_fd()).expect("has one"), -1);
        theirs.write_all(b"abcdef").expect("writes");
        set_offset(ours.as_fd(), 1000).expect("sets");
        let other = ours.try_clone().expect("duplicates");
        ours.read_exact(&mut [0; 4]).expect("reads");
        assert_eq!(offset(other.as_fd()).expect("has one"), 996);
        set_offset(ours.as_fd(), 1).expect("sets");
        ours.read_exact(&mut [0; 2]).expect("reads");
        assert_eq!(offset(other.as_fd()).expect("has one"), 0);
    }

    #[test]
    fn what_is_no_socket_has_none() {
        let file = tempfile::tempfile().expect("a file");
        assert!(offset(file.as_fd()).is_err());
        assert!(set_offset(file.as_fd(), 0).is_err());
    }
}
