//! The very bytes that are to be run read the very state they would be handed, as a child process.
//!
//! The child is `hermes handoff-check` with the state memfd as its standard input. It prints one [`CheckReport`] as
//! JSON and exits 0, or says on standard error why it cannot take over. Failing, hanging and crashing there cost
//! nothing: no truncated file, missing library or unreadable state gets as far as the execve.
//!
//! **Invariants**
//! - When [`run`] returns, the child is gone, and with it everything that it started and that stayed in its process
//!   group. After a check that failed this also holds for what left the group (setsid(2)), as far as it can be found
//!   (`descendants`); only what the kernel does not let die within 5 s is left, with a word in the log.
//! - The event loop never waits for a process to die.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{Errno, FdFlags, fcntl_getfd};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, pidfd_open, waitid, waitpid,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::descendants::Mark;
use super::registry::Sealed;
use super::way_back::{PREVIOUS_VARIABLE, RECOVERY_VARIABLE};
use crate::fault::{self, Call};
use crate::sys::child::{describe, exit_status};
use crate::sys::readiness;

/// The hidden command that the child runs.
pub const CHECK_COMMAND: &str = "handoff-check";
/// The product name a report must carry.
pub const PRODUCT: &str = "hermes-gateway";
/// The longest time a check may take. A healthy one takes milliseconds.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// How long the end of a check that was killed is waited for.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// The pause between two looks for what is left of it.
const KILL_PAUSE: Duration = Duration::from_millis(2);
/// What is read of the child's output at most, in bytes.
const OUTPUT_LIMIT: u64 = 64 << 10;
/// The exit code of the child if the configuration is to blame: EX_CONFIG (sysexits.h).
const REFUSES_CONFIG: i32 = 78;
/// How the kernel ends what it has no memory for.
const OUT_OF_MEMORY: i32 = Signal::KILL.as_raw();

/// What the child says when it could take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// [`PRODUCT`].
    pub product: String,
    /// Its version.
    pub version: String,
    /// The sections it read, with the range of versions it can read of each.
    pub reads: Vec<(String, u32, u32)>,
    /// The schema it found in the store and the newest it knows.
    pub schema: (i64, i64),
}

/// Why the image must not be run.
#[derive(Debug, Error)]
pub enum PreflightError {
    /// The kernel did not even start it.
    #[error("the new image does not start")]
    Start(#[source] io::Error),
    /// It is a script: its interpreter would look for it by a number that is closed by then, in preflight as after an
    /// execveat(2).
    #[error("the new image is a script, not a program")]
    Script,
    /// The check could not be watched.
    #[error("cannot watch the check of the new image")]
    Watch(#[source] io::Error),
    /// It took too long and was killed.
    #[error("the new image was still checking after {} s and was killed", after.as_secs())]
    Hung {
        /// The deadline.
        after: Duration,
    },
    /// It ended badly: a crash, a missing library, or it said why.
    #[error("the new image cannot take over ({}){}{said}", describe(*how), if said.is_empty() { "" } else { ": " })]
    Refused {
        /// How it ended.
        how: Option<ExitStatus>,
        /// The last line it wrote on standard error.
        said: String,
    },
    /// It ended well without a report: another program.
    #[error("the new image is not a hermes gateway: it printed no report")]
    NoReport,
    /// It is another product or another version than was verified.
    #[error("the new image says that it is {found}, and {expected} was asked for")]
    Identity {
        /// What it says.
        found: String,
        /// What was asked for.
        expected: String,
    },
}

impl PreflightError {
    /// Whether it says something of the image. It does not if the machine was too busy, out of memory or out of processes,
    /// or if the image refuses the configuration, which the running one would refuse as well.
    pub fn is_of_image(&self) -> bool {
        match self {
            Self::Script | Self::NoReport | Self::Identity { .. } => true,
            Self::Start(source) => {
                matches!(Errno::from_io_error(source), Some(Errno::NOEXEC | Errno::NOENT | Errno::LIBBAD))
            }
            Self::Refused { how, .. } => {
                !how.is_some_and(|how| how.code() == Some(REFUSES_CONFIG) || how.signal() == Some(OUT_OF_MEMORY))
            }
            Self::Watch(_) | Self::Hung { .. } => false,
        }
    }
}

/// Runs the check and returns what the child reported.
///
/// `arguments` follow [`CHECK_COMMAND`]: the home and configuration to use. Must be called within a tokio runtime.
///
/// # Errors
/// [`PreflightError`]; the image must then not be run.
pub async fn run(
    image: &File,
    sealed: &Sealed,
    arguments: &[std::ffi::OsString],
    expected_version: &str,
    deadline: Duration,
) -> Result<CheckReport, PreflightError> {
    if is_script(image).map_err(PreflightError::Watch)? {
        return Err(PreflightError::Script);
    }
    let (output_read, output_write) = io::pipe().map_err(PreflightError::Watch)?;
    let (error_read, error_write) = io::pipe().map_err(PreflightError::Watch)?;
    let state = sealed.state().map_err(PreflightError::Watch)?;
    // The magic link leads to the open file itself, whatever its path names by now (proc_pid_fd(5)).
    let mark = Mark::new();
    let (name, value) = mark.variable();
    let mut command = std::process::Command::new(format!("/proc/self/fd/{}", image.as_raw_fd()));
    command
        .arg0("hermes")
        .arg(CHECK_COMMAND)
        .args(arguments)
        .env_remove("NOTIFY_SOCKET")
        .env_remove(PREVIOUS_VARIABLE)
        .env_remove(RECOVERY_VARIABLE)
        .env(name, value)
        .stdin(Stdio::from(state))
        .stdout(output_write)
        .stderr(error_write)
        .process_group(0);
    let child = fault::io(Call::Spawn).and_then(|()| command.spawn()).map_err(PreflightError::Start)?;
    drop(command); // It holds the write ends of the pipes.
    let mut child = Child::watch(child, mark).map_err(PreflightError::Watch)?;
    let outcome = match tokio::time::timeout(deadline, child.finish(output_read.into(), error_read.into())).await {
        Ok(ended) => ended.and_then(|ended| accept(ended, expected_version)),
        Err(_) => Err(PreflightError::Hung { after: deadline }),
    };
    match outcome {
        // Nothing that hermes would do itself leaves the group, so all of /proc need not be looked at.
        Ok(_) => child.over = true,
        Err(_) => child.end().await,
    }
    outcome
}

fn is_script(image: &File) -> io::Result<bool> {
    let closed = fcntl_getfd(image)?.contains(FdFlags::CLOEXEC);
    let mut start = [0; 2];
    Ok(closed && image.read_at(&mut start, 0)? == start.len() && start == *b"#!")
}

fn accept(ended: Ended, expected_version: &str) -> Result<CheckReport, PreflightError> {
    if !ended.how.is_some_and(|how| how.success()) {
        let said = String::from_utf8_lossy(&ended.error);
        let error = said.lines().rev().find_map(|line| line.strip_prefix("error: "));
        let last = || said.lines().rfind(|line| !line.trim().is_empty());
        let said = error.or_else(last).unwrap_or("").trim();
        // What this error says itself.
        let said = said.strip_prefix("cannot take over: ").unwrap_or(said).to_owned();
        return Err(PreflightError::Refused { how: ended.how, said });
    }
    let report: CheckReport = serde_json::from_slice(&ended.output).map_err(|_| PreflightError::NoReport)?;
    if report.product != PRODUCT || report.version != expected_version {
        return Err(PreflightError::Identity {
            found: format!("{} {}", report.product, report.version),
            expected: format!("{PRODUCT} {expected_version}"),
        });
    }
    Ok(report)
}

struct Ended {
    how: Option<ExitStatus>,
    output: Vec<u8>,
    error: Vec<u8>,
}

/// The child process; dropping it kills it and what it started, and does not wait.
struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    mark: Mark,
    reaped: bool,
    /// There is nothing left to kill.
    over: bool,
}

impl Child {
    fn watch(child: std::process::Child, mark: Mark) -> io::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a child has a positive pid");
        // Reaped by us through the pidfd, never by std.
        drop(child);
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { pid, pidfd, mark, reaped: false, over: false }),
            Err(error) => {
                let _gone = kill_process_group(pid, Signal::KILL);
                // It is killed, so the wait is short; but how short is up to the kernel.
                tokio::task::spawn_blocking(move || waitpid(Some(pid), WaitOptions::empty()));
                Err(error.into())
            }
        }
    }

    async fn finish(&mut self, output: OwnedFd, error: OwnedFd) -> Result<Ended, PreflightError> {
        let ended = readiness::readable(self.pidfd.try_clone().map_err(PreflightError::Watch)?)
            .map_err(PreflightError::Watch)?;
        let (output, error, exited) =
            tokio::join!(read_all(output), read_all(error), async { ended.readable().await.map(drop) });
        exited.map_err(PreflightError::Watch)?;
        // Before it is reaped: then the number may be another group's.
        self.kill_group();
        let how = self.reap(WaitIdOptions::EXITED).map_err(PreflightError::Watch)?;
        Ok(Ended { how, output: output.map_err(PreflightError::Watch)?, error: error.map_err(PreflightError::Watch)? })
    }

    /// Kills it and what it started, and waits no longer than [`KILL_LIMIT`] for their end, beside the event loop.
    async fn end(mut self) {
        let killing = tokio::task::spawn_blocking(move || self.end_blocking(KILL_LIMIT));
        if let Err(error) = killing.await {
            tracing::warn!(%error, "cannot end the check of a new image");
        }
    }

    fn end_blocking(&mut self, limit: Duration) {
        let start = Instant::now();
        let mut clean = 0;
        // Twice in a row, because one may start another, with a lower pid, between two looks.
        while clean < 2 {
            self.kill_group();
            let left = self.mark.kill_all();
            self.try_reap();
            clean = if left == 0 && self.reaped { clean + 1 } else { 0 };
            if start.elapsed() > limit {
                tracing::warn!(left, pid = ?self.pid, "the check of a new image was killed and does not end");
                break;
            }
            std::thread::sleep(KILL_PAUSE);
        }
        self.over = true;
    }

    fn kill_group(&self) {
        // Once it is reaped, the number may be another group's.
        if !self.reaped {
            let _nothing_left_to_kill = kill_process_group(self.pid, Signal::KILL);
        }
    }

    fn try_reap(&mut self) {
        if !self.reaped
            && let Err(error) = self.reap(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
        {
            tracing::warn!(%error, "cannot reap the check of a new image");
        }
    }

    /// How it ended, if it has.
    fn reap(&mut self, options: WaitIdOptions) -> io::Result<Option<ExitStatus>> {
        use std::os::fd::AsFd;
        let Some(status) = waitid(WaitId::PidFd(self.pidfd.as_fd()), options)? else { return Ok(None) };
        self.reaped = true;
        Ok(exit_status(&status))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Only when the check itself is dropped, at the end of the runtime.
        if !self.over {
            self.kill_group();
            self.mark.kill_all();
            self.try_reap();
        }
    }
}

async fn read_all(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    pipe::Receiver::from_owned_fd(fd)?.take(OUTPUT_LIMIT).read_to_end(&mut read).await?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::Registry;

    /// Checks an image that is the shell script `script`.
    async fn check(script: &str, deadline: Duration) -> Result<CheckReport, PreflightError> {
        use std::io::Write;
        use std::os::unix::fs::PermissionsExt;
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        write!(file, "#!/bin/sh\n{script}\n").expect("writes");
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o755)).expect("permits");
        let path = file.into_temp_path();
        let image = File::open(&path).expect("opens");
        // A script is opened by number a second time, by its interpreter: it must stay open over the exec.
        let image = File::from(rustix::io::dup(&image).expect("duplicates"));
        let sealed = Registry::default().seal().expect("seals");
        run(&image, &sealed, &[], "1.2.3", deadline).await
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_report_of_the_right_product_and_version_is_accepted() {
        let json = r#"{"product":"hermes-gateway","version":"1.2.3","reads":[],"schema":[1,1]}"#;
        assert_eq!(check(&format!("echo '{json}'"), LONG).await.expect("accepted").version, "1.2.3");
        let older = json.replace("1.2.3", "1.2.2");
        assert!(matches!(check(&format!("echo '{older}'"), LONG).await, Err(PreflightError::Identity { .. })));
        let other = json.replace("hermes-gateway", "something");
        assert!(matches!(check(&format!("echo '{other}'"), LONG).await, Err(PreflightError::Identity { .. })));
    }

    #[tokio::test]
    async fn whatever_else_the_image_does_is_refused() {
        assert!(matches!(check("true", LONG).await, Err(PreflightError::NoReport)));
        let refused = check("echo one >&2; echo 'error: two' >&2; exit 3", LONG).await;
        assert!(
            matches!(&refused, Err(PreflightError::Refused { how, said }) if describe(*how) == "exit code 3" && said == "two"),
            "{refused:?}"
        );
        let crashed = check("kill -SEGV $$", LONG).await;
        assert!(
            matches!(&crashed, Err(PreflightError::Refused { how, .. }) if describe(*how) == "killed by signal 11"),
            "{crashed:?}"
        );
    }

    #[test]
    fn what_says_nothing_of_the_image_is_told_from_what_does() {
        let refused = |how: i32| PreflightError::Refused { how: Some(ExitStatus::from_raw(how)), said: String::new() };
        let exited = |code: i32| refused(code << 8);
        let start = |errno: Errno| PreflightError::Start(errno.into());
        for of_image in [exited(1), refused(11), start(Errno::NOEXEC)] {
            assert!(of_image.is_of_image(), "{of_image:?}");
        }
        let hung = PreflightError::Hung { after: LONG };
        for of_machine in [exited(78), refused(9), start(Errno::AGAIN), hung] {
            assert!(!of_machine.is_of_image(), "{of_machine:?}");
        }
    }

    #[tokio::test]
    async fn a_hanging_image_is_killed_with_its_descendants() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let fifo = dir.path().join("alive");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("makes a fifo");
        let mut alive = pipe::OpenOptions::new().open_receiver(&fifo).expect("opens the fifo");
        let script = format!("sleep 1000 > {} & wait", fifo.display());
        let hung = check(&script, Duration::from_millis(300)).await;
        assert!(matches!(hung, Err(PreflightError::Hung { .. })), "{hung:?}");
        // The descendant held the fifo open; its end shows here as the end of the stream.
        let ended = tokio::time::timeout(LONG, alive.read(&mut [0; 1])).await.expect("the descendant is gone");
        assert_eq!(ended.expect("reads"), 0);
    }

    #[tokio::test]
    async fn what_left_the_process_group_ends_too() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (number, (ending, deadline)) in [("wait", Duration::from_secs(3)), ("exit 3", LONG)].iter().enumerate() {
            let (fifo, up) = (dir.path().join(format!("alive{number}")), dir.path().join(format!("up{number}")));
            nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("makes a fifo");
            let mut alive = pipe::OpenOptions::new().open_receiver(&fifo).expect("opens the fifo");
            let script = format!(
                "setsid sh -c ': > {up}; sleep 1000 & wait' > {fifo} 2>&1 &\nuntil [ -e {up} ]; do :; done; {ending}",
                up = up.display(),
                fifo = fifo.display()
            );
            let refused = check(&script, *deadline).await;
            assert!(up.exists(), "the descendant was there: {refused:?}");
            match *ending {
                "wait" => assert!(matches!(refused, Err(PreflightError::Hung { .. })), "{refused:?}"),
                _ => assert!(matches!(refused, Err(PreflightError::Refused { .. })), "{refused:?}"),
            }
            let ended = tokio::time::timeout(LONG, alive.read(&mut [0; 1])).await.expect("the descendant is gone");
            assert_eq!(ended.expect("reads"), 0);
        }
    }

    #[tokio::test]
    async fn a_script_is_told_as_such() {
        let mut image = tempfile::tempfile().expect("a temporary file");
        io::Write::write_all(&mut image, b"#!/bin/sh\ntrue\n").expect("writes");
        let sealed = Registry::default().seal().expect("seals");
        let refused = run(&image, &sealed, &[], "1.2.3", LONG).await;
        assert!(matches!(refused, Err(PreflightError::Script)), "{refused:?}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_program_does_not_start() {
        let image = File::open("/dev/null").expect("opens");
        let sealed = Registry::default().seal().expect("seals");
        let refused = run(&image, &sealed, &[], "1.2.3", LONG).await;
        assert!(matches!(refused, Err(PreflightError::Start(_))), "{refused:?}");
    }
}
