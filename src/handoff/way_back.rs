//! Back to the previous image, in the same process, from a new one that fails.
//!
//! The previous image leaves its own open file under the number in [`PREVIOUS_VARIABLE`]. Until the new image has
//! consumed anything the way back leads to the very state that was handed over: the memfd and every fd under its
//! number. From then on ([`WayBack::by_recovery`]) it leads to the fds alone, under their names in
//! [`RECOVERY_VARIABLE`], from which the previous image goes on as if the service manager had started it.
//!
//! **Invariants**
//! - An image that came back ([`came_back`]) has no way back: no two images can take turns at failing. The count of
//!   attempts is in the environment, since the memfd is sealed.
//! - The deadline is the kernel's (ITIMER_REAL): it comes although the event loop stands still, and even before `main`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::adopt::{EXEC_AT_VARIABLE, STATE_FD_VARIABLE};
use super::reexec::kept_environment;
use super::registry::FdName;
use crate::clock::MonoNanos;
use crate::report::Chain;
use crate::sys::inherit;
use crate::sys::rescue::{self, Way};

/// Names the number of the previous image's open file.
pub const PREVIOUS_VARIABLE: &str = "HERMES_HANDOFF_PREVIOUS_FD";
/// Says why the image after this one did not stay. Set for the image that comes back.
pub const REASON_VARIABLE: &str = "HERMES_HANDOFF_CAME_BACK";
/// The fds that a crashed image left to the one that comes back: `name=number`, with `:` between.
pub const RECOVERY_VARIABLE: &str = "HERMES_RECOVERY_FDS";

/// The previous image, while this one may still fail. Dropping it takes nothing down: it must outlive a failure that
/// unwinds.
#[derive(Debug)]
pub struct WayBack {
    previous: ManuallyDrop<File>,
    /// The numbers of what was handed over, until something was consumed.
    kept: Vec<RawFd>,
}

/// To be called first thing in `main`: from here on a crash, an exit or the deadline leads back, if the previous image
/// left a way.
pub fn install() {
    let Some(number) = previous() else {
        if came_back().is_some() {
            // It was the deadline of the image that failed. This one has the watchdog's.
            let _is_not_refused = rescue::set_deadline(None);
        }
        return;
    };
    let mut environment = kept_environment();
    if let Some(state) = std::env::var_os(STATE_FD_VARIABLE) {
        environment.push((STATE_FD_VARIABLE.into(), state));
        environment.push((EXEC_AT_VARIABLE.into(), MonoNanos::now().0.to_string().into()));
    }
    // Nobody could be told yet. Without a way back the service manager is what is left.
    let _without = arm(number, Vec::new(), environment);
}

/// Why the image after this one did not stay, if this one came back.
pub fn came_back() -> Option<String> {
    std::env::var_os(REASON_VARIABLE).map(|reason| reason.to_string_lossy().into_owned())
}

/// Goes back for `reason`. Returns if there is no way back.
///
/// # Errors
/// `NotFound` if there is none; the kernel's reason.
pub fn go(reason: &str) -> io::Error {
    match rescue::go(reason) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// This image ends on purpose, and nobody is to come back.
pub fn give_up() {
    if let Err(error) = rescue::disarm() {
        tracing::warn!(%error, "cannot take down the way back");
    }
}

/// The fds that a crashed image left, by name. To be called once, before there are threads.
///
/// # Errors
/// What cannot be claimed.
pub fn recovered(variable: Option<&OsStr>) -> Result<Vec<(FdName, OwnedFd)>, inherit::ClaimError> {
    let table = variable.map(parse).unwrap_or_default();
    let numbers: Vec<RawFd> = table.iter().map(|(_, number)| *number).collect();
    let fds = inherit::claim(&numbers)?;
    Ok(table.into_iter().map(|(name, _)| name).zip(fds).collect())
}

impl WayBack {
    /// Takes over the previous image's file. To be called once, before there are threads. Nothing if there is none.
    ///
    /// # Errors
    /// What cannot be claimed.
    pub fn claim() -> Result<Option<Self>, inherit::ClaimError> {
        if !rescue::is_armed() {
            return Ok(None);
        }
        let Some(number) = previous() else { return Ok(None) };
        let file = inherit::claim(&[number])?.remove(0);
        Ok(Some(Self { previous: ManuallyDrop::new(File::from(file)), kept: Vec::new() }))
    }

    /// The previous image's file.
    pub fn previous(&self) -> &File {
        &self.previous
    }

    /// While nothing was consumed: `numbers`, which stay open and nobody owns, are what was handed over.
    ///
    /// # Errors
    /// As [`WayBack::by_recovery`].
    pub fn by_state(&mut self, numbers: Vec<RawFd>) -> io::Result<()> {
        self.kept.clone_from(&numbers);
        inherit::keep_from_children(&numbers);
        let mut environment = kept_environment();
        if let Some(state) = std::env::var_os(STATE_FD_VARIABLE) {
            environment.push((STATE_FD_VARIABLE.into(), state));
            environment.push((EXEC_AT_VARIABLE.into(), MonoNanos::now().0.to_string().into()));
        }
        arm(self.previous.as_raw_fd(), numbers, environment)
    }

    /// Once something was consumed: the previous image is to go on from these fds, which must stay open under their
    /// numbers until this is called anew.
    ///
    /// # Errors
    /// The kernel's reason for not setting a handler; there is none in practice.
    pub fn by_recovery<'a>(&mut self, fds: impl IntoIterator<Item = (&'a FdName, RawFd)>) -> io::Result<()> {
        let (names, numbers): (Vec<_>, Vec<_>) =
            fds.into_iter().map(|(name, number)| (format!("{name}={number}"), number)).unzip();
        let mut environment = kept_environment();
        environment.push((RECOVERY_VARIABLE.into(), names.join(":").into()));
        arm(self.previous.as_raw_fd(), numbers, environment)?;
        // What was handed over leads nowhere any more.
        match inherit::claim(&std::mem::take(&mut self.kept)) {
            Ok(closed) => drop(closed),
            Err(error) => tracing::warn!(error = %Chain(&error), "cannot close what was handed over"),
        }
        Ok(())
    }

    /// The new image has proven itself, or is to end for good: nothing leads back any more.
    pub fn take_down(self) {
        if let Err(error) = rescue::disarm() {
            tracing::warn!(%error, "cannot take down the way back");
        }
        drop(inherit::claim(&self.kept));
        drop(ManuallyDrop::into_inner(self.previous));
    }

    /// The new image has `time` from now on, in the place of what it had before.
    pub fn set_deadline(&self, time: Duration) {
        if let Err(error) = rescue::set_deadline(Some(time)) {
            tracing::warn!(%error, "cannot set the deadline of the new image");
        }
    }
}

fn previous() -> Option<RawFd> {
    std::env::var(PREVIOUS_VARIABLE).ok()?.parse().ok()
}

fn arm(image: RawFd, keep: Vec<RawFd>, environment: Vec<(OsString, OsString)>) -> io::Result<()> {
    let arguments = std::env::args_os().collect();
    rescue::arm(Way { image, keep, arguments, environment, reason_variable: REASON_VARIABLE })
}

/// What is no pair of a name and a number is passed over: an image must start with what is there.
fn parse(text: &OsStr) -> Vec<(FdName, RawFd)> {
    let text = text.to_string_lossy();
    let pair = |pair: &str| {
        let (name, number) = pair.rsplit_once('=')?;
        Some((FdName::new(name), number.parse().ok()?))
    };
    text.split(':').filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_table_is_read_as_it_was_written(names in proptest::collection::vec("[!-9;-~]{1,40}", 0..20)) {
            let table: Vec<_> = names.iter().zip(3..).map(|(name, number)| (FdName::new(name), number)).collect();
            let text: Vec<_> = table.iter().map(|(name, number)| format!("{name}={number}")).collect();
            prop_assert_eq!(parse(OsStr::new(&text.join(":"))), table);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".*") {
            drop(parse(OsStr::new(&text)));
        }
    }
}
