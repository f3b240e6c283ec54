//! Fault points: where tests let the gateway fail.
//!
//! Without the cargo feature `fault-points`, which no release has, [`at`] and [`io()`] are empty and compile to nothing.
//! With it they read the file that `HERMES_FAULTS` names, anew at every point, so that whoever runs a drill can change
//! it at any moment:
//!
//! ```text
//! # [VERSION] POINT ACTION [always]     a point of the code is reached
//! 1.0.1 after_exec hang
//! before_exec kill
//! # [VERSION] CALL ERRNO [always]       a system call fails
//! memfd_create ENOMEM always
//! # [VERSION] clock SECONDS             the wall clock is wrong by so much
//! clock -31536000
//! ```
//!
//! Only an image of VERSION heeds a line that names one.
//!
//! **Invariants**
//! - A line without `always` is taken out of the file before it is acted upon, by rename(2) and under a lock: it acts
//!   once, whatever it does to the process, and whichever image comes next.
//! - Every [`Point`] is at one place of the code (`tests/it/fault.rs` checks it), and `scripts/drill` fails at each.

use std::io;

#[cfg(feature = "fault-points")]
mod file;

macro_rules! names {
    ($(#[$meta:meta])* $enum:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $enum { $($(#[$doc])* $variant,)* }

        impl $enum {
            /// All of them, in the order of time where there is one.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name in the file of faults.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

names! {
    /// A point of the code, in the order in which an update passes them.
    Point {
        /// Messages came from a platform, and are nowhere but in memory.
        Received = "received",
        /// A message is in the store, and its platform was not told yet.
        Stored = "stored",
        /// The platform was told that messages arrived, and has forgotten them.
        Confirmed = "confirmed",
        /// A prompt is on its way to an agent.
        Started = "started",
        /// Output of an agent was read, and nobody was told yet.
        Streaming = "streaming",
        /// A turn is over in the store.
        Done = "done",
        /// A message to a chat is about to be sent.
        Sending = "sending",
        /// A chat's platform has said that it has a message, and nothing here knows it yet.
        Acknowledged = "acknowledged",
        /// A handoff was asked for, and whoever asked was told that it begins.
        Requested = "requested",
        /// A release is about to be downloaded.
        Staging = "staging",
        /// A release is in `versions/`.
        Staged = "staged",
        /// All parts are frozen, for the state that the preflight reads.
        RehearsalFrozen = "rehearsal_frozen",
        /// The preflight's child is about to be started.
        PreflightRunning = "preflight_running",
        /// In the preflight's child.
        Checking = "checking",
        /// The candidate may be run.
        PreflightPassed = "preflight_passed",
        /// An update is noted in the store, and about to be a trial in the slots.
        Noted = "noted",
        /// What the launcher is to try is in the slots.
        Slotted = "slotted",
        /// The platforms were told to finish what they send.
        Draining = "draining",
        /// All parts are frozen.
        Frozen = "frozen",
        /// The state is in a sealed memfd.
        Sealed = "sealed",
        /// The service manager was told RELOADING=1.
        ReloadingSent = "reloading_sent",
        /// execve is the next thing.
        BeforeExec = "before_exec",
        /// The new image has read its command line.
        AfterExec = "after_exec",
        /// The home is this image's own, and inherited fds are claimed.
        Claimed = "claimed",
        /// Parts are about to be taken over.
        Adopting = "adopting",
        /// Everything was taken over, and READY=1 is the next thing.
        Adopted = "adopted",
        /// READY=1 was said.
        Ready = "ready",
        /// What was held back is handled.
        Unheld = "unheld",
        /// An image on probation has lived for a moment.
        OnProbation = "on_probation",
        /// The time of probation is over, and the version is about to become the current one.
        Committing = "committing",
        /// It is the current one.
        Committed = "committed",
    }
}

impl Point {
    /// Its number in the order of time, from 1.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|point| *point == self).map_or(0, |index| index + 1)
    }

    /// The phase of a handoff that it is in (the names of `handoff::Phase`); `serving` outside of one.
    pub fn phase(self) -> &'static str {
        match self {
            Self::Received
            | Self::Stored
            | Self::Confirmed
            | Self::Started
            | Self::Streaming
            | Self::Done
            | Self::Sending
            | Self::Acknowledged => "serving",
            Self::Requested | Self::Staging | Self::Staged => "stage",
            Self::RehearsalFrozen | Self::PreflightRunning | Self::Checking | Self::PreflightPassed => "preflight",
            Self::Noted | Self::Slotted | Self::Draining => "drain",
            Self::Frozen => "quiesce",
            Self::Sealed | Self::ReloadingSent => "seal",
            Self::BeforeExec | Self::AfterExec => "exec",
            Self::Claimed | Self::Adopting | Self::Adopted => "adopt",
            Self::Ready | Self::Unheld | Self::OnProbation | Self::Committing => "probation",
            Self::Committed => "committed",
        }
    }
}

names! {
    /// System calls that fail for reasons outside of this program.
    Call {
        /// memfd_create(2).
        MemfdCreate = "memfd_create",
        /// fork(2) with the execve of the child: agents and the preflight.
        Spawn = "fork",
        /// The execve(2) of a handoff.
        Execve = "execve",
        /// dup(2) of the fds that are handed over.
        Dup = "dup",
        /// Reading the state that the previous image left; not in the preflight.
        ReadState = "read_state",
        /// Writes in `versions/`.
        Versions = "versions",
        /// Commits of `state.db`.
        StateDb = "state_db",
        /// Replacements of `gateway_state.json`.
        StateFile = "state_file",
        /// fsync(2) in `versions/`.
        Fsync = "fsync",
    }
}

/// The code has come to `point`. Nothing happens without the feature `fault-points`.
#[inline(always)]
pub fn at(point: Point) {
    #[cfg(feature = "fault-points")]
    file::at(point);
    #[cfg(not(feature = "fault-points"))]
    let _ = point;
}

/// Stands before a system call that can fail.
///
/// # Errors
/// The error that the system call is to have failed with. There is none without the feature `fault-points`.
#[inline(always)]
pub fn io(call: Call) -> io::Result<()> {
    #[cfg(feature = "fault-points")]
    return file::io(call);
    #[cfg(not(feature = "fault-points"))]
    {
        let _ = call;
        Ok(())
    }
}

/// By how many milliseconds the wall clock is wrong: 0 without the feature `fault-points`.
#[inline(always)]
pub fn clock_error_ms() -> i64 {
    #[cfg(feature = "fault-points")]
    return file::clock_error_ms();
    #[cfg(not(feature = "fault-points"))]
    0
}
