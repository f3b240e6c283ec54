//! The execve itself, and its undoing when the kernel refuses.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use thiserror::Error;

use super::adopt::{EXEC_AT_VARIABLE, STATE_FD_VARIABLE};
use super::registry::Sealed;
use super::way_back::{PREVIOUS_VARIABLE, REASON_VARIABLE, RECOVERY_VARIABLE};
use crate::clock::MonoNanos;
use crate::fault::{self, Point};
use crate::sys::{exec, rescue};

/// Variables of the previous start that must not reach the next image, nor an agent: what they speak of is over, and
/// the fds are carried by name.
const HANDOFF_VARIABLES: [&str; 8] = [
    STATE_FD_VARIABLE,
    EXEC_AT_VARIABLE,
    PREVIOUS_VARIABLE,
    REASON_VARIABLE,
    RECOVERY_VARIABLE,
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// Variables that are for the daemon alone: by which systemd (sd_notify(3), sd_listen_fds(3)) speaks to it, and which may
/// hold the token of a collector of spans.
const DAEMON_VARIABLES: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "CREDENTIALS_DIRECTORY",
    "FDSTORE",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
];

/// Keeps from a child what is for the daemon alone, and what the previous image has told it.
pub fn keep_to_ourselves(command: &mut Command) {
    DAEMON_VARIABLES.iter().chain(&HANDOFF_VARIABLES).for_each(|name| {
        command.env_remove(name);
    });
}

/// Why the image was not replaced. The process is as it was.
#[derive(Debug, Error)]
#[error("the kernel did not run the new image")]
pub struct ReexecError {
    /// The kernel's reason.
    #[source]
    pub source: io::Error,
}

/// Replaces this image by `image` and leaves `sealed` for it. Same arguments, same environment. If the new image does
/// not serve within `time`, or fails, it goes back to `previous` ([`super::way_back`]).
///
/// Returns only on failure; dropping `sealed` on that way has then closed all that had been opened.
pub fn reexec(image: &File, sealed: Sealed, previous: &File, time: Duration) -> ReexecError {
    let source = match attempt(image, &sealed, previous, time) {
        Ok(never) => match never {},
        Err(source) => source,
    };
    if let Err(error) = rescue::set_deadline(None) {
        tracing::error!(%error, "the deadline of an image that does not run stays set");
    }
    ReexecError { source }
}

fn attempt(image: &File, sealed: &Sealed, previous: &File, time: Duration) -> io::Result<std::convert::Infallible> {
    // Without CLOEXEC, and closed again when execveat returns.
    let state = rustix::io::dup(&sealed.state)?;
    let previous = rustix::io::dup(previous)?;
    let mut environment = kept_environment();
    environment.push((STATE_FD_VARIABLE.into(), state.as_raw_fd().to_string().into()));
    environment.push((PREVIOUS_VARIABLE.into(), previous.as_raw_fd().to_string().into()));
    rescue::set_deadline(Some(time))?;
    environment.push((EXEC_AT_VARIABLE.into(), MonoNanos::now().0.to_string().into()));
    fault::at(Point::BeforeExec);
    exec::replace_image(image, std::env::args_os().collect(), environment)
}

/// The environment that every image of the process has.
pub(super) fn kept_environment() -> Vec<(OsString, OsString)> {
    std::env::vars_os().filter(|(key, _)| !HANDOFF_VARIABLES.iter().any(|dropped| key == dropped)).collect()
}
