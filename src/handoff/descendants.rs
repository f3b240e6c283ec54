//! Finding and killing what a child process has started, also where it left the child's process group.
//!
//! The child gets a mark into its environment, and whatever it starts inherits that: `/proc/<pid>/environ`
//! (proc_pid_environ(5)) shows it. What clears its environment or may not be looked at (another user, a set-user-ID
//! program) is not found; nothing short of a cgroup of its own would find that, and a service may not make one.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};

use crate::clock::MonoNanos;

/// The variable that carries the mark.
const VARIABLE: &str = "HERMES_PREFLIGHT";
/// What is read of an environment at most, in bytes; the kernel takes up to a quarter of the stack limit, 2 MiB.
const ENVIRON_BYTES_MAX: u64 = 8 << 20;

/// The mark of one child.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// `HERMES_PREFLIGHT=<nonce>`.
    assignment: String,
}

impl Mark {
    /// A mark that no process has yet: no process can have the same pid at the same time since boot.
    pub(super) fn new() -> Self {
        Self { assignment: format!("{VARIABLE}={}-{}", std::process::id(), MonoNanos::now().0) }
    }

    /// Name and value for the child's environment.
    pub(super) fn variable(&self) -> (&str, &str) {
        self.assignment.split_once('=').expect("it was made with one")
    }

    /// Sends SIGKILL to every process of this user that has the mark, and returns how many there were. One that is
    /// dying may be counted again. Reads all of /proc, so it is not for the event loop.
    pub(super) fn kill_all(&self) -> usize {
        let Ok(listing) = fs::read_dir("/proc") else { return 0 };
        let pids = listing.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(Pid::from_raw).filter(|pid| self.kill(*pid)).count()
    }

    fn kill(&self, pid: Pid) -> bool {
        let directory = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
        if !fs::metadata(&directory).is_ok_and(|meta| meta.uid() == geteuid().as_raw()) {
            return false;
        }
        // Opened before the look, so that the signal goes to what was looked at and not to who has its pid by then.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        let mut environ = Vec::new();
        let read = File::open(directory.join("environ"))
            .and_then(|file| file.take(ENVIRON_BYTES_MAX).read_to_end(&mut environ));
        let marked = read.is_ok() && environ.split(|byte| *byte == 0).any(|it| it == self.assignment.as_bytes());
        marked && pidfd_send_signal(pidfd, Signal::KILL).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn only_what_has_the_mark_is_killed() {
        let start = |mark: &Mark| {
            let (name, value) = mark.variable();
            let child = Command::new("sleep").arg("1000").env(name, value).spawn().expect("sleep starts");
            // spawn(3) may return before execve is done with the memory, and then /proc shows no environment yet.
            let environ = format!("/proc/{}/environ", child.id());
            let begun = Instant::now();
            while fs::read(&environ).expect("it is there").is_empty() {
                assert!(begun.elapsed() < Duration::from_secs(30), "execve does not end");
                std::thread::yield_now();
            }
            child
        };
        let (one, other) = (Mark::new(), Mark::new());
        let (mut of_one, mut of_other) = (start(&one), start(&other));
        assert_eq!(one.kill_all(), 1);
        assert_eq!(of_one.wait().expect("reaped").signal(), Some(9));
        assert_eq!(one.kill_all(), 0);
        assert!(of_other.try_wait().expect("looked at").is_none(), "it goes on");
        assert_eq!(other.kill_all(), 1);
        assert_eq!(of_other.wait().expect("reaped").signal(), Some(9));
    }
}
