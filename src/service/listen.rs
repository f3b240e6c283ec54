//! The control socket: passed by systemd, or made here.
//!
//! **Invariant:** the socket of a gateway that runs is never taken away. A socket file is only removed when nobody
//! listens on it; and who makes one holds the home's [lock](super::lock).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;

/// The variables of socket activation (sd_listen_fds(3)). They are about the image that systemd started; the next
/// image must not get them, or it would take other fds for those sockets.
pub const LISTEN_VARIABLES: [&str; 3] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// Connections that may wait to be accepted. Their clients are people and scripts of one user.
const BACKLOG: i32 = 64;

/// Why there is no control socket.
#[derive(Debug, Error)]
pub enum ListenError {
    /// systemd passed something else than one listening Unix stream socket.
    #[error(
        "systemd passed {what}, and the gateway takes one listening Unix stream socket; check hermes-gateway.socket"
    )]
    Activation {
        /// What it passed.
        what: String,
    },
    /// Somebody listens at the path.
    #[error("another program listens on {path}")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no socket is at the path. It is left alone.
    #[error("{path} is in the way: it is not a socket; move it away")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot {what} {path}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

/// The socket that systemd passed by socket activation; nothing without it. It does not block. `sockets` says which of
/// the fds passed are of socket activation.
///
/// # Errors
/// [`ListenError::Activation`].
pub(super) fn take_control(passed: &mut ListenFd, sockets: &[usize]) -> Result<Option<UnixListener>, ListenError> {
    let wrong = |what: String| ListenError::Activation { what };
    let index = match *sockets {
        [] => return Ok(None),
        [index] => index,
        _ => return Err(wrong(format!("{} sockets", sockets.len()))),
    };
    let listener = passed.take_unix_listener(index).map_err(|_| wrong("one of another kind".to_owned()))?;
    let Some(listener) = listener else { return Ok(None) };
    let listening = rustix::net::sockopt::socket_acceptconn(&listener).unwrap_or(false);
    if !listening {
        return Err(wrong("a connected one (Accept=yes)".to_owned()));
    }
    listener.set_nonblocking(true).map_err(|error| wrong(format!("one that cannot be used ({error})")))?;
    Ok(Some(listener))
}

/// The control socket that an earlier process listened on, if it still does for who connects to `path`: the socket's
/// file is gone when the runtime directory was made anew. It does not block.
pub fn restored_control(fd: OwnedFd, path: &Path) -> Option<UnixListener> {
    let listener = UnixListener::from(fd);
    let bound = listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(path));
    let listening = rustix::net::sockopt::socket_acceptconn(&listener).unwrap_or(false);
    let there = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    (bound && listening && there && listener.set_nonblocking(true).is_ok()).then_some(listener)
}

/// Listens at `path`, for the user of this process alone (mode 0600). Replaces a socket file on which nobody listens
/// any more. The listener does not block.
///
/// # Errors
/// [`ListenError::InUse`], [`ListenError::NotASocket`], [`ListenError::Io`].
pub fn bind_control(path: &Path) -> Result<UnixListener, ListenError> {
    remove_stale(path)?;
    bind(path).map_err(|errno| ListenError::Io { what: "listen on", path: path.to_owned(), source: errno.into() })
}

fn bind(path: &Path) -> Result<UnixListener, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the file the mode of the unbound socket: so there is no moment in which others may connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let io = |what| move |source| ListenError::Io { what, path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("look at")(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ListenError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(io("remove")),
        Err(error) => Err(io("connect to")(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("control.sock");
        let first = bind_control(&path).expect("free");
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o7777, 0o600);
        assert!(matches!(bind_control(&path), Err(ListenError::InUse { .. })));
        drop(first);
        let second = bind_control(&path).expect("stale");
        assert_eq!(second.accept().expect_err("nobody is there").kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("control.sock");
        fs::write(&path, "precious").expect("written");
        assert!(matches!(bind_control(&path), Err(ListenError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
        let missing = bind_control(&dir.path().join("no/control.sock"));
        assert!(matches!(missing, Err(ListenError::Io { what: "listen on", .. })));
    }

    #[test]
    fn without_activation_there_is_no_socket() {
        assert!(take_control(&mut ListenFd::empty(), &[]).expect("nothing is no error").is_none());
    }
}
