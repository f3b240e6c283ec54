//! The service manager's fd store (sd_pid_notify_with_fds(3), systemd.service(5) `FileDescriptorStoreMax=`): fds that
//! systemd keeps while the unit runs or restarts, and passes to the next process of the unit.
//!
//! **Invariants**
//! - Without `NOTIFY_SOCKET`, and where `FDSTORE=0` says that there is no store, nothing is sent.
//! - A message that fails is never an error of the caller: the store is a net, and it is logged, the first time only,
//!   that it has a hole.
//! - Whatever an earlier version stored, a start does not fail for it: what has no known kind of name is closed and
//!   taken out of the store.
//!
//! Deliberately absent: which fds are worth keeping, and what is done with those that come back.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::sync::atomic::{AtomicBool, Ordering};

use listenfd::ListenFd;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};

use super::listen::{self, ListenError};
use super::notify::{self, SEND_TIMEOUT};
use crate::config::Environment;
use crate::sys::inherit;

/// The name under which the control socket is stored.
pub const CONTROL: &str = "listen.control";
/// The name of a socket that systemd passes for Telegram's webhook (`FileDescriptorName=` in
/// `dist/hermes-gateway-webhook.socket`).
pub const WEBHOOK: &str = "telegram-webhook";
/// The name of a socket that systemd passes for the web page (`dist/hermes-gateway-web.socket`).
pub const WEB: &str = "web";
/// How the names of all other stored fds begin.
const PREFIXES: [&str; 2] = ["agent.", "platform."];
/// The longest name that systemd takes, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// The way to the fd store.
#[derive(Debug)]
pub struct FdStore {
    address: Option<SocketAddr>,
    failed: AtomicBool,
}

impl FdStore {
    /// Reads `NOTIFY_SOCKET` and `FDSTORE`. systemd sets the latter from version 254 on; where it is unset there may be
    /// a store, so it is tried.
    pub fn from_env(env: &Environment) -> Self {
        let none = env.text("FDSTORE") == Some("0");
        // A bad address is logged by the notifier already.
        let address = env.get("NOTIFY_SOCKET").filter(|_| !none);
        let address = address.and_then(|value| notify::parse_address(value).ok());
        Self { address, failed: AtomicBool::new(false) }
    }

    /// Whether there is anyone to give fds to. It may still refuse them, silently: `FileDescriptorStoreMax=` is zero
    /// unless it is set.
    pub fn is_there(&self) -> bool {
        self.address.is_some()
    }

    /// Stores a duplicate of `fd` as `name`, until [`FdStore::remove`], the unit's stop, or for ever more: systemd does
    /// not watch it (`FDPOLL=0`), because an agent's pipe that hangs up still holds what was not read.
    ///
    /// systemd keeps an fd that it has already only once, but two different ones of the same name: remove the name
    /// first when it is to mean another file. `name` has 1 to 255 bytes of printable ASCII without a colon.
    pub fn put(&self, name: &str, fd: BorrowedFd<'_>) {
        self.send("FDSTORE=1", name, "FDPOLL=0\n", &[fd]);
    }

    /// Forgets all that is stored as `name`.
    pub fn remove(&self, name: &str) {
        self.send("FDSTOREREMOVE=1", name, "", &[]);
    }

    fn send(&self, what: &str, name: &str, more: &str, fds: &[BorrowedFd<'_>]) {
        let Some(address) = &self.address else { return };
        let sent = if is_name(name) {
            send(address, &format!("{what}\nFDNAME={name}\n{more}"), fds)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "the name is none that systemd takes"))
        };
        if let Err(error) = sent
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, name, "cannot use the service manager's fd store: a kill of the gateway may cost turns");
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

fn send(address: &SocketAddr, datagram: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    let address = match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => SocketAddrUnix::new(path)?,
        (None, Some(name)) => SocketAddrUnix::new_abstract_name(name)?,
        (None, None) => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg_addr(socket, &address, &[IoSlice::new(datagram.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// What systemd passed to this process.
#[derive(Debug)]
pub struct Passed {
    /// The control socket of socket activation. It does not block.
    pub control: Option<UnixListener>,
    /// What was in the fd store, and what a socket unit gave a name of its own.
    pub restored: Restored,
}

/// Takes what systemd passed to this process (sd_listen_fds(3)): sockets of socket activation come first, then the fd
/// store's. All of it is CLOEXEC then.
///
/// Removes `LISTEN_FDS` and `LISTEN_PID` from the environment of the process; `env` is that environment, read before.
/// So it must be called once, before any thread is started, and only by an image that systemd or a shell started: not
/// after a handoff.
///
/// # Errors
/// [`ListenError::Activation`]. Nothing was taken out of the store then.
pub fn take_over(env: &Environment, store: &FdStore) -> Result<Passed, ListenError> {
    let mut passed = ListenFd::from_env();
    if !is_for(env.text("LISTEN_PID"), std::process::id()) {
        // They were meant for another process, and their numbers are anything here.
        passed = ListenFd::empty();
    }
    let kinds = kinds(passed.len(), env.text("LISTEN_FDNAMES"));
    let sockets: Vec<usize> = (0..kinds.len()).filter(|&index| kinds[index] == Kind::Socket).collect();
    let control = listen::take_control(&mut passed, &sockets)?;
    let mut restored = Restored::default();
    for (index, kind) in kinds.into_iter().enumerate() {
        let Kind::Stored(name) = kind else { continue };
        if let Ok(Some(number)) = passed.take_raw_fd(index) {
            restored.claim(name, number, store);
        }
    }
    Ok(Passed { control, restored })
}

/// The fds that came back from the store, and the webhook's socket of socket activation.
#[derive(Debug, Default)]
pub struct Restored {
    fds: Vec<(String, OwnedFd)>,
}

impl Restored {
    /// The fd that was stored as `name`. It stays in the store.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.fds.iter().position(|(known, _)| known == name)?;
        Some(self.fds.swap_remove(at).1)
    }

    /// The names of those not taken yet, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fds.iter().map(|(name, _)| name.as_str())
    }

    /// Closes what nobody has taken and takes it out of the store.
    pub fn discard(self, store: &FdStore) {
        for (name, _) in self.fds {
            tracing::info!(name, "a stored fd that nothing goes on with is closed");
            store.remove(&name);
        }
    }

    fn claim(&mut self, name: String, number: RawFd, store: &FdStore) {
        let fd = match inherit::claim(&[number]).map(|mut fds| fds.pop()) {
            Ok(Some(fd)) => fd,
            Ok(None) => return,
            Err(error) => return tracing::error!(%error, name, "a stored fd cannot be taken over"),
        };
        if !is_ours(&name) {
            tracing::warn!(name, "a stored fd of unknown meaning is closed");
            store.remove(&name);
        } else if let Some((_, kept)) = self.fds.iter().find(|(known, _)| *known == name) {
            tracing::warn!(name, "two fds were stored under one name: the older one is closed");
            store.remove(&name);
            store.put(&name, kept.as_fd());
        } else {
            self.fds.push((name, fd));
        }
    }
}

/// What an fd passed by systemd is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A socket of socket activation.
    Socket,
    /// From the fd store.
    Stored(String),
}

/// systemd 252 passes the store's fds in the order newest first; that decides between two of one name.
fn kinds(count: usize, names: Option<&str>) -> Vec<Kind> {
    let mut names = names.unwrap_or_default().split(':');
    (0..count)
        .map(|_| match names.next().unwrap_or_default() {
            // Without a name, and as a socket unit names it. Everything else can only be from the store, perhaps put
            // there by a later version; taken for a socket it would keep this one from starting.
            "" | "unknown" | "connection" | "control" => Kind::Socket,
            name if name.ends_with(".socket") && !is_ours(name) => Kind::Socket,
            name => Kind::Stored(name.to_owned()),
        })
        .collect()
}

fn is_ours(name: &str) -> bool {
    [CONTROL, WEBHOOK, WEB].contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn is_for(listen_pid: Option<&str>, own_pid: u32) -> bool {
    listen_pid.and_then(|pid| pid.parse().ok()) == Some(own_pid)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{IoSliceMut, Read, Write};
    use std::time::Duration;

    use proptest::prelude::*;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;

    fn store(variables: &[(&str, &str)]) -> FdStore {
        FdStore::from_env(&variables.iter().copied().collect())
    }

    fn received(socket: &UnixDatagram) -> (String, Vec<OwnedFd>) {
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [0; 4096];
        let got = recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let length = got.expect("a datagram").bytes;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        (String::from_utf8(buffer[..length].to_vec()).expect("text"), fds)
    }

    #[test]
    fn what_is_stored_is_one_datagram_with_its_fd() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let name = format!("hermes-test-fdstore-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).expect("an address");
        for (socket, value) in [
            (UnixDatagram::bind(&path), path.to_str().expect("text").to_owned()),
            (UnixDatagram::bind_addr(&abstract_name), format!("@{name}")),
        ] {
            let socket = socket.expect("bound");
            let store = store(&[("NOTIFY_SOCKET", &value), ("FDSTORE", "512")]);
            let (reader, mut writer) = io::pipe().expect("a pipe");
            store.put("agent.default.stdout", reader.as_fd());
            let (text, mut fds) = received(&socket);
            assert_eq!(text, "FDSTORE=1\nFDNAME=agent.default.stdout\nFDPOLL=0\n");
            writer.write_all(b"said").expect("written");
            drop((writer, reader));
            let mut said = String::new();
            File::from(fds.remove(0)).read_to_string(&mut said).expect("read");
            assert_eq!((said.as_str(), fds.len()), ("said", 0));
            store.remove("agent.default.stdout");
            let (text, fds) = received(&socket);
            assert_eq!((text.as_str(), fds.len()), ("FDSTOREREMOVE=1\nFDNAME=agent.default.stdout\n", 0));
        }
    }

    #[test]
    fn where_there_is_no_store_nothing_is_sent() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        socket.set_nonblocking(true).expect("set");
        let path = path.to_str().expect("text");
        let none = store(&[("NOTIFY_SOCKET", path), ("FDSTORE", "0")]);
        none.put(CONTROL, socket.as_fd());
        assert!(!none.is_there() && socket.recv(&mut [0; 1]).is_err());
        assert!(!store(&[]).is_there());
        let deaf = store(&[("NOTIFY_SOCKET", "/no/such/socket")]);
        deaf.put(CONTROL, socket.as_fd());
        assert!(deaf.failed.load(Ordering::Relaxed));
    }

    #[test]
    fn a_name_that_says_something_else_to_systemd_is_not_sent() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        socket.set_nonblocking(true).expect("set");
        let store = store(&[("NOTIFY_SOCKET", path.to_str().expect("text"))]);
        for name in ["", "a:b", "a\nMAINPID=1", "é", &"x".repeat(256)] {
            store.put(name, socket.as_fd());
            store.remove(name);
        }
        assert!(socket.recv(&mut [0; 1]).is_err());
        store.put(&"x".repeat(255), socket.as_fd());
        assert!(socket.recv(&mut [0; 1]).is_ok());
    }

    fn inherited() -> RawFd {
        std::os::fd::IntoRawFd::into_raw_fd(File::open("/dev/null").expect("opens"))
    }

    #[test]
    fn what_comes_back_is_taken_by_name_and_the_rest_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        let store = store(&[("NOTIFY_SOCKET", path.to_str().expect("text"))]);
        let mut restored = Restored::default();
        restored.claim("agent.a.stdin".into(), inherited(), &store);
        restored.claim("agent.a.stdin".into(), inherited(), &store);
        assert_eq!(received(&socket).0, "FDSTOREREMOVE=1\nFDNAME=agent.a.stdin\n");
        assert_eq!(received(&socket).1.len(), 1, "the first of them is stored again");
        restored.claim("of.the.future".into(), inherited(), &store);
        assert_eq!(received(&socket).0, "FDSTOREREMOVE=1\nFDNAME=of.the.future\n");
        restored.claim("platform.telegram.log".into(), inherited(), &store);
        restored.claim("agent.b.stdin".into(), 1_000_000, &store);
        restored.claim(WEBHOOK.into(), inherited(), &store);
        let names = ["agent.a.stdin", "platform.telegram.log", WEBHOOK];
        assert_eq!(restored.names().collect::<Vec<_>>(), names);
        assert!(restored.take(WEBHOOK).is_some());
        assert!(restored.take("agent.a.stdin").is_some() && restored.take("agent.a.stdin").is_none());
        restored.discard(&store);
        assert_eq!(received(&socket).0, "FDSTOREREMOVE=1\nFDNAME=platform.telegram.log\n");
    }

    #[test]
    fn sockets_and_stored_fds_are_told_apart_by_their_names() {
        let stored = |name: &str| Kind::Stored(name.to_owned());
        assert_eq!(
            kinds(4, Some("hermes-gateway.socket:agent.a.pidfd:listen.control:stored")),
            [Kind::Socket, stored("agent.a.pidfd"), stored("listen.control"), stored("stored")]
        );
        assert_eq!(kinds(2, None), [Kind::Socket, Kind::Socket]);
        assert_eq!(kinds(2, Some("agent.a.log")), [stored("agent.a.log"), Kind::Socket]);
        assert_eq!(kinds(0, Some("agent.a.log")), []);
        assert!(is_for(Some("7"), 7) && !is_for(Some("7"), 8) && !is_for(Some("x"), 7) && !is_for(None, 7));
    }

    proptest! {
        #[test]
        fn any_names_are_read_one_for_each_fd(count in 0..50usize, names in proptest::option::of(".*"), pid in ".*") {
            let kinds = kinds(count, names.as_deref());
            prop_assert_eq!(kinds.len(), count);
            prop_assert!(!kinds.contains(&Kind::Stored(String::new())));
            prop_assert!(!is_for(Some(&pid), 7) || pid.trim_start_matches(['+', '0']) == "7");
        }

        #[test]
        fn names_that_were_stored_come_back_whole(
            names in proptest::collection::vec("(agent|platform)\\.[!-9;-~]{1,40}", 0..20)
        ) {
            prop_assert!(names.iter().all(|name| is_name(name) && is_ours(name)));
            let kinds = kinds(names.len(), Some(&names.join(":")));
            for (kind, name) in kinds.iter().zip(&names) {
                prop_assert_eq!(kind, &Kind::Stored(name.clone()));
            }
        }
    }
}
