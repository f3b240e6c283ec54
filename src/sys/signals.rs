//! The signals the daemon reacts to, read from a signalfd (signalfd(2)).
//!
//! **Invariant:** they are blocked in every thread for the whole life of the process, so that none can be lost or
//! kill it while one image gives way to the next. A child process would inherit that, and be deaf to SIGTERM: it is
//! started with [`unblock_in`], or calls [`unblock`] itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::unix::AsyncFd;

use super::{readiness, rescue};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT: stop.
    Stop(&'static str),
    /// SIGUSR1: hand off to the same image.
    Restart,
    /// SIGHUP: hand off to the same image, to read the configuration anew.
    Reload,
}

fn watched() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGHUP])
}

/// Puts signals into the one state the daemon is written for, whatever the previous image, the shell or the manager
/// left (mask and ignored signals survive execve(2)): every signal at its default, SIGPIPE ignored, exactly the
/// watched ones blocked. Those that lead back to a previous image ([`rescue`]) keep doing so. To be called first thing, before there are threads.
///
/// # Errors
/// The kernel's reason; there is none in practice.
#[expect(unsafe_code, reason = "sigaction is unsafe for its handlers, and none is set here")]
pub fn take_over() -> io::Result<()> {
    watched().thread_set_mask()?;
    for signal in Signal::iterator() {
        if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) || rescue::takes(signal) {
            continue;
        }
        let handler = if signal == Signal::SIGPIPE { SigHandler::SigIgn } else { SigHandler::SigDfl };
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: neither SIG_DFL nor SIG_IGN runs code of ours in signal context.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Unblocks everything in this thread: for a command that was started by the gateway and is to end when it is told to.
/// To be called before there are threads.
///
/// # Errors
/// The kernel's reason; there is none in practice.
pub fn unblock() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Lets the process that `command` starts begin with no signal blocked. std leaves it the mask of the thread that
/// starts it.
#[expect(unsafe_code, reason = "pre_exec runs code between fork and execve")]
pub fn unblock_in(command: &mut Command) {
    // SAFETY: `unblock` owns nothing and makes one system call, pthread_sigmask(3), which is async-signal-safe.
    unsafe { command.pre_exec(unblock) };
}

/// Where the watched signals arrive.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    /// A duplicate that the runtime polls; both are the same open signalfd.
    ready: AsyncFd<OwnedFd>,
}

impl Signals {
    /// Opens a signalfd for the watched signals; it is CLOEXEC. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel's reason, for example no free fd.
    pub fn open() -> io::Result<Self> {
        let fd = SignalFd::with_flags(&watched(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let ready = readiness::readable(fd.as_fd().try_clone_to_owned()?)?;
        Ok(Self { fd, ready })
    }

    /// Waits for the next signal. Cancel-safe: a signal is taken or stays pending.
    pub async fn next(&mut self) -> Request {
        loop {
            let Ok(mut ready) = self.ready.readable().await else {
                // The runtime is going down; nothing can arrive any more.
                return std::future::pending().await;
            };
            match self.fd.read_signal() {
                Ok(Some(info)) => {
                    if let Some(request) = i32::try_from(info.ssi_signo).ok().and_then(classify) {
                        return request;
                    }
                }
                Ok(None) => ready.clear_ready(),
                Err(error) => {
                    tracing::error!(%error, "cannot read the signalfd");
                    return std::future::pending().await;
                }
            }
        }
    }

    /// A stop that is already pending, without waiting.
    pub fn stop_pending(&self) -> Option<Request> {
        while let Ok(Some(info)) = self.fd.read_signal() {
            if let Some(stop @ Request::Stop(_)) = i32::try_from(info.ssi_signo).ok().and_then(classify) {
                return Some(stop);
            }
        }
        None
    }
}

fn classify(number: i32) -> Option<Request> {
    match Signal::try_from(number).ok()? {
        Signal::SIGTERM => Some(Request::Stop("SIGTERM")),
        Signal::SIGINT => Some(Request::Stop("SIGINT")),
        Signal::SIGUSR1 => Some(Request::Restart),
        Signal::SIGHUP => Some(Request::Reload),
        _ => None,
    }
}
