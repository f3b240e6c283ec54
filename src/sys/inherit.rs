//! Taking over fds that the previous image left open.

use std::collections::BTreeSet;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};
use thiserror::Error;

/// Why an inherited fd number cannot be taken over.
#[derive(Debug, Error)]
pub enum ClaimError {
    /// The number is not open, or not one that may be claimed (0 to 2 are the standard streams).
    #[error("inherited fd {fd} is not open")]
    NotOpen {
        /// The number.
        fd: RawFd,
    },
    /// The number was named twice.
    #[error("inherited fd {fd} is claimed twice")]
    Twice {
        /// The number.
        fd: RawFd,
    },
    /// There is no room for a duplicate.
    #[error("inherited fd {fd} cannot be duplicated")]
    Duplicate {
        /// The number.
        fd: RawFd,
        /// The kernel's reason.
        #[source]
        source: std::io::Error,
    },
}

/// Turns inherited fd numbers into owned fds with CLOEXEC set, in the order given.
///
/// Must be called at most once for a number in the life of an image, before anything else could have opened an fd
/// under it: the previous image wrote the numbers down and left exactly those open.
///
/// # Errors
/// [`ClaimError`]; nothing is claimed then.
#[expect(unsafe_code, reason = "the one claim that an inherited number is ours; see the SAFETY comment")]
pub fn claim(numbers: &[RawFd]) -> Result<Vec<OwnedFd>, ClaimError> {
    check(numbers)?;
    numbers
        .iter()
        .map(|&fd| {
            // SAFETY: `fd` is open (checked above), named once, and was left open for this image by the previous
            // one. The caller calls this once, before anything in this image could own the number.
            let owned = unsafe { OwnedFd::from_raw_fd(fd) };
            fcntl_setfd(&owned, FdFlags::CLOEXEC).map_err(|_| ClaimError::NotOpen { fd })?;
            Ok(owned)
        })
        .collect()
}

/// Duplicates of inherited fd numbers, in the order given. The numbers stay as they are until they are claimed:
/// nothing that goes wrong in between closes them.
///
/// # Errors
/// [`ClaimError`].
#[expect(unsafe_code, reason = "a duplicate is made of a borrowed number")]
pub fn duplicate(numbers: &[RawFd]) -> Result<Vec<OwnedFd>, ClaimError> {
    check(numbers)?;
    numbers
        .iter()
        .map(|&fd| {
            // SAFETY: `fd` is open (checked above), and nothing in this image owns the number, so nothing closes it
            // during this borrow.
            let original = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
            let failed = |error: rustix::io::Errno| ClaimError::Duplicate { fd, source: error.into() };
            fcntl_dupfd_cloexec(original, 3).map_err(failed)
        })
        .collect()
}

/// Sets CLOEXEC on inherited numbers that nothing owns, so that no child gets them. One that is closed is passed over.
#[expect(unsafe_code, reason = "a flag is set by a borrowed number")]
pub fn keep_from_children(numbers: &[RawFd]) {
    for &fd in numbers {
        // SAFETY: nothing in this image owns the number, so nothing closes it during this borrow; on one that is not
        // open F_SETFD fails with EBADF and does nothing else (fcntl(2)).
        let original = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        let _closed_already = fcntl_setfd(original, FdFlags::CLOEXEC);
    }
}

fn check(numbers: &[RawFd]) -> Result<(), ClaimError> {
    let mut seen = BTreeSet::new();
    for &fd in numbers {
        if fd <= 2 || !is_open(fd) {
            return Err(ClaimError::NotOpen { fd });
        }
        if !seen.insert(fd) {
            return Err(ClaimError::Twice { fd });
        }
    }
    Ok(())
}

#[expect(unsafe_code, reason = "asking whether a number is open takes a borrowed fd made of it")]
fn is_open(fd: RawFd) -> bool {
    // SAFETY: the borrow is used for one F_GETFD, which on a number that is not open fails with EBADF and does
    // nothing else (fcntl(2)).
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl_getfd(borrowed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn a_number_that_is_closed_standard_or_named_twice_is_refused() {
        assert!(matches!(claim(&[1]), Err(ClaimError::NotOpen { fd: 1 })));
        assert!(matches!(claim(&[-1]), Err(ClaimError::NotOpen { fd: -1 })));
        assert!(matches!(claim(&[1_000_000]), Err(ClaimError::NotOpen { .. })));
        let file = std::fs::File::open("/dev/null").expect("opens");
        let fd = file.as_raw_fd();
        assert!(matches!(claim(&[fd, fd]), Err(ClaimError::Twice { .. })));
        drop(file);
    }

    #[test]
    fn a_duplicate_leaves_the_number_open_for_a_later_claim() {
        let file = std::fs::File::open("/dev/null").expect("opens");
        let open = rustix::io::dup(&file).expect("duplicates").into_raw_fd();
        let duplicate = duplicate(&[open]).expect("duplicates").remove(0);
        assert_ne!(duplicate.as_raw_fd(), open);
        drop(duplicate);
        let owned = claim(&[open]).expect("still open");
        assert!(fcntl_getfd(&owned[0]).expect("open").contains(FdFlags::CLOEXEC));
    }

    #[test]
    fn a_claimed_fd_is_cloexec() {
        let file = std::fs::File::open("/dev/null").expect("opens");
        let open = rustix::io::dup(&file).expect("duplicates").into_raw_fd();
        let owned = claim(&[open]).expect("claims");
        assert!(fcntl_getfd(&owned[0]).expect("open").contains(FdFlags::CLOEXEC));
    }
}
