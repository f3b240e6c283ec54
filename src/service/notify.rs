//! Notifications to systemd (sd_notify(3)).
//!
//! **Invariants**
//! - The environment is never changed: the image after a handoff finds `NOTIFY_SOCKET` and `WATCHDOG_USEC` as this
//!   one did.
//! - Without `NOTIFY_SOCKET` everything here does nothing.
//! - A notification that fails is never an error of the caller: it is logged, the first time only.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock::MonoNanos;
use crate::config::Environment;

/// How long systemd may take to accept a notification. Its socket is only ever full when it hangs.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_millis(250);

/// Sends notifications to the service manager.
#[derive(Debug)]
pub struct Notifier {
    address: Option<SocketAddr>,
    watchdog: Option<Duration>,
    failed: AtomicBool,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    ///
    /// A socket address that cannot be one, or of a kind other than a path or an abstract `@name`, is logged and then
    /// counts as none.
    pub fn from_env(env: &Environment) -> Self {
        let address = env.get("NOTIFY_SOCKET").and_then(|value| match parse_address(value) {
            Ok(address) => Some(address),
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET cannot be used");
                None
            }
        });
        let watchdog = parse_watchdog(env.get("WATCHDOG_USEC"), env.get("WATCHDOG_PID"), std::process::id());
        Self { address, watchdog, failed: AtomicBool::new(false) }
    }

    /// Tells that the gateway serves: at the end of a start and of a reload.
    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// Tells that a handoff begins. [`Notifier::ready`] must follow, from this image or the next. One datagram with
    /// the time in it, as `Type=notify-reload` demands (systemd.service(5)).
    pub fn reloading(&self, status: &str) {
        let now = NotifyState::MonotonicUsec(i128::from(MonoNanos::now().0 / 1000));
        self.send(&[NotifyState::Reloading, now, NotifyState::Status(&one_line(status))]);
    }

    /// Shows a line in `systemctl status`.
    pub fn status(&self, text: &str) {
        self.send(&[NotifyState::Status(&one_line(text))]);
    }

    /// Tells that the gateway is about to end.
    pub fn stopping(&self, status: &str) {
        self.send(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
    }

    /// Tells that the gateway is alive; due every [`Notifier::watchdog_interval`].
    pub fn watchdog_ping(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// Asks for this much more time, from now, for the start, reload or stop that is going on.
    pub fn extend_timeout(&self, more: Duration) {
        let usec = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
        self.send(&[NotifyState::ExtendTimeoutUsec(usec)]);
    }

    /// How often [`Notifier::watchdog_ping`] is due: half of `WatchdogSec=`. Nothing if systemd does not watch this
    /// process.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|timeout| timeout / 2)
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(address) = &self.address else { return };
        let mut datagram = String::new();
        for state in states {
            // Writing to a String cannot fail.
            let _ = writeln!(datagram, "{state}");
        }
        if let Err(error) = send(address, datagram.as_bytes())
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "cannot notify the service manager");
        }
    }
}

/// The crate `sd-notify` knows the words; its own sending fails for abstract sockets and may wait forever.
fn send(address: &SocketAddr, datagram: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    socket.send_to_addr(datagram, address).map(|_| ())
}

pub(super) fn parse_address(value: &OsStr) -> io::Result<SocketAddr> {
    match value.as_bytes() {
        [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(value),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a path nor an abstract name")),
    }
}

/// sd_watchdog_enabled(3): the time is only for the process that `WATCHDOG_PID` names, if it is set.
fn parse_watchdog(usec: Option<&OsStr>, pid: Option<&OsStr>, own_pid: u32) -> Option<Duration> {
    let number = |value: &OsStr| value.to_str().and_then(|text| text.parse::<u64>().ok());
    let usec = number(usec?).filter(|&usec| usec > 0)?;
    let ours = pid.is_none_or(|pid| number(pid) == Some(u64::from(own_pid)));
    ours.then(|| Duration::from_micros(usec))
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn notifier(variables: &[(&str, &str)]) -> Notifier {
        Notifier::from_env(&variables.iter().copied().collect())
    }

    fn received(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("a datagram");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    #[test]
    fn each_notification_is_one_datagram() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        let notifier = notifier(&[("NOTIFY_SOCKET", path.to_str().expect("text"))]);
        notifier.ready("serving\nMAINPID=1");
        assert_eq!(received(&socket), "READY=1\nSTATUS=serving MAINPID=1\n");
        notifier.status("busy");
        assert_eq!(received(&socket), "STATUS=busy\n");
        notifier.stopping("stopped by a signal");
        assert_eq!(received(&socket), "STOPPING=1\nSTATUS=stopped by a signal\n");
        notifier.watchdog_ping();
        assert_eq!(received(&socket), "WATCHDOG=1\n");
        notifier.extend_timeout(Duration::from_millis(1500));
        assert_eq!(received(&socket), "EXTEND_TIMEOUT_USEC=1500000\n");

        let before = MonoNanos::now().0 / 1000;
        notifier.reloading("handing off");
        let text = received(&socket);
        let usec = text
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .and_then(|rest| rest.strip_suffix("\nSTATUS=handing off\n"));
        let usec: u64 = usec.expect("the form that notify-reload needs").parse().expect("a number");
        assert!((before..=MonoNanos::now().0 / 1000).contains(&usec));
    }

    #[test]
    fn an_abstract_socket_is_reached() {
        let name = format!("hermes-test-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let socket = UnixDatagram::bind_addr(&address).expect("bound");
        notifier(&[("NOTIFY_SOCKET", &format!("@{name}"))]).status("heard");
        assert_eq!(received(&socket), "STATUS=heard\n");
    }

    #[test]
    fn without_anyone_to_tell_nothing_happens() {
        for socket in ["", "relative", "@", "vsock:2:1", "/no/such/socket"] {
            notifier(&[("NOTIFY_SOCKET", socket)]).ready("serving");
        }
        let silent = notifier(&[]);
        silent.ready("serving");
        assert!(!silent.failed.load(Ordering::Relaxed));
        let deaf = notifier(&[("NOTIFY_SOCKET", "/no/such/socket")]);
        deaf.ready("serving");
        assert!(deaf.failed.load(Ordering::Relaxed));
    }

    #[test]
    fn the_watchdog_is_pinged_at_half_its_time_by_its_process_alone() {
        let own = std::process::id().to_string();
        let interval = |variables: &[(&str, &str)]| notifier(variables).watchdog_interval();
        let half = Some(Duration::from_secs(15));
        assert_eq!(interval(&[("WATCHDOG_USEC", "30000000")]), half);
        assert_eq!(interval(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", &own)]), half);
        assert_eq!(interval(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "1")]), None);
        assert_eq!(interval(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "x")]), None);
        assert_eq!(interval(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(interval(&[("WATCHDOG_USEC", "soon")]), None);
        assert_eq!(interval(&[("WATCHDOG_PID", &own)]), None);
    }

    proptest! {
        #[test]
        fn any_environment_is_read_without_a_panic(socket in ".*", usec in ".*", pid in ".*") {
            let notifier = notifier(&[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", &usec), ("WATCHDOG_PID", &pid)]);
            prop_assert!(notifier.watchdog_interval().is_none_or(|interval| interval <= Duration::from_micros(u64::MAX / 2)));
        }
    }
}
