//! The execve itself, and its undoing when the kernel refuses.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd;

use thiserror::Error;

use super::adopt::{EXEC_AT_VARIABLE, STATE_FD_VARIABLE};
use super::registry::Sealed;
use crate::clock::MonoNanos;
use crate::fault::{self, Point};
use crate::sys::exec;

/// Variables of the previous start that must not reach the next image: the fds they speak of are carried by name.
const DROPPED: [&str; 5] = [STATE_FD_VARIABLE, EXEC_AT_VARIABLE, "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// Why the image was not replaced. The process is as it was.
#[derive(Debug, Error)]
#[error("the kernel did not run the new image")]
pub struct ReexecError {
    /// The kernel's reason.
    #[source]
    pub source: std::io::Error,
}

/// Replaces this image by `image` and leaves `sealed` for it. Same arguments, same environment.
///
/// Returns only on failure; dropping `sealed` on that way has then closed all that had been opened.
pub fn reexec(image: &File, sealed: Sealed) -> ReexecError {
    match attempt(image, &sealed) {
        Ok(never) => match never {},
        Err(source) => ReexecError { source },
    }
}

fn attempt(image: &File, sealed: &Sealed) -> Result<std::convert::Infallible, std::io::Error> {
    // Without CLOEXEC, and closed again when execveat returns.
    let state = rustix::io::dup(&sealed.state)?;
    let mut environment: Vec<(OsString, OsString)> =
        std::env::vars_os().filter(|(key, _)| !DROPPED.iter().any(|dropped| key == dropped)).collect();
    environment.push((STATE_FD_VARIABLE.into(), state.as_raw_fd().to_string().into()));
    environment.push((EXEC_AT_VARIABLE.into(), MonoNanos::now().0.to_string().into()));
    fault::at(Point::BeforeExec);
    exec::replace_image(image, std::env::args_os().collect(), environment)
}
