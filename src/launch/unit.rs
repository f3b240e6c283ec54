//! What the launcher does for the unit around the life of the main process.
//!
//! Agents outlive the gateway's process (`KillMode=process`), so that one that was killed can be followed by another
//! that goes on with them. So somebody must end them when the unit is not to be started again: [`stop_post`].
//!
//! In `$RUNTIME_DIRECTORY`, `unit` has what the unit says (lines of `systemctl show`), and `stop` has the word `stop`
//! or `restart` while the unit is being stopped on purpose.
//!
//! **Invariant:** when in doubt, what is left is ended, and a main process that ended well although nobody asked it to
//! is taken for one that failed.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::say;

/// What is asked of the unit.
const PROPERTIES: &str = "Restart,RestartUSec,KillMode,FileDescriptorStoreMax,RestartPreventExitStatus";
/// The longest wait for systemctl.
const ASK: Duration = Duration::from_secs(5);
/// The longest wait for processes to end after SIGTERM, and again after SIGKILL.
const GRACE: Duration = Duration::from_secs(3);
/// The pause between two looks: cgroups(7) has no call that waits for the last process.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The exit code of a gateway whose configuration is wrong: `RestartPreventExitStatus=`.
const CONFIGURATION: &str = "78";

/// Notes what the unit says, for the gateway and for [`stop_post`].
pub fn note_facts() -> ExitCode {
    let Some(directory) = runtime_directory() else { return ExitCode::SUCCESS };
    drop(fs::remove_file(directory.join("stop")));
    let facts = unit_name().and_then(|unit| systemctl(&["show", "--property", PROPERTIES, &unit]));
    match facts {
        Some(facts) => put(&directory.join("unit"), &facts),
        None => say("cannot ask the service manager about this unit"),
    }
    ExitCode::SUCCESS
}

/// Notes whether the unit is being stopped for good or to be started again.
pub fn note_stop() -> ExitCode {
    let Some(directory) = runtime_directory() else { return ExitCode::SUCCESS };
    match job() {
        Some(job) => put(&directory.join("stop"), &job),
        // The main process has ended by itself: nobody asked for a stop.
        None => say("the main process has ended"),
    }
    ExitCode::SUCCESS
}

/// Ends what is left of the unit's processes, unless the unit is about to be started again. Fails if the main process
/// ended well without being asked to: `Restart=on-failure` starts it again then.
pub fn stop_post() -> ExitCode {
    let directory = runtime_directory();
    let read = |name| directory.as_ref().and_then(|directory| fs::read_to_string(directory.join(name)).ok());
    let end = End {
        asked: read("stop").map(|word| word.trim().to_owned()),
        restart: read("unit").map(|facts| parse(&facts)).unwrap_or_default().remove("Restart"),
        result: env::var("SERVICE_RESULT").unwrap_or_default(),
        status: env::var("EXIT_STATUS").unwrap_or_default(),
    };
    let verdict = end.judge();
    if verdict.is_over {
        end_all();
    }
    if verdict.is_failure {
        say("the gateway ended although nobody asked it to");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// How the main process ended.
#[derive(Debug, Default)]
struct End {
    /// `stop` or `restart`, if the end was asked for.
    asked: Option<String>,
    /// `Restart=`.
    restart: Option<String>,
    /// `$SERVICE_RESULT` (systemd.exec(5)).
    result: String,
    /// `$EXIT_STATUS`.
    status: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    /// The unit is not started again.
    is_over: bool,
    /// The end was none that anyone asked for, though it looks like one.
    is_failure: bool,
}

impl End {
    fn judge(&self) -> Verdict {
        match self.asked.as_deref() {
            Some("restart") => return Verdict { is_over: false, is_failure: false },
            Some(_) => return Verdict { is_over: true, is_failure: false },
            None => {}
        }
        let is_failure = self.result == "success";
        let again = matches!(
            self.restart.as_deref(),
            Some("always" | "on-failure" | "on-abnormal" | "on-abort" | "on-watchdog" | "on-success")
        );
        Verdict { is_over: !again || self.status == CONFIGURATION, is_failure }
    }
}

/// Ends every process of the unit's cgroup but this one.
fn end_all() {
    for (signal, grace) in [("TERM", GRACE), ("KILL", GRACE)] {
        let start = Instant::now();
        let mut told = Vec::new();
        loop {
            let left = others();
            if left.is_empty() {
                return;
            }
            if start.elapsed() > grace {
                break;
            }
            let new: Vec<String> = left.into_iter().filter(|pid| !told.contains(pid)).collect();
            if !new.is_empty() {
                // std cannot signal a process.
                let script = format!("kill -{signal} {}", new.join(" "));
                drop(Command::new("/bin/sh").args(["-c", &script]).stderr(Stdio::null()).status());
                told.extend(new);
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
    say(&format!("cannot end {}", others().join(", ")));
}

/// The processes of this unit's cgroup but this one.
fn others() -> Vec<String> {
    let own = std::process::id().to_string();
    let Some(cgroup) = cgroup() else { return Vec::new() };
    let processes = fs::read_to_string(format!("/sys/fs/cgroup{cgroup}/cgroup.procs")).unwrap_or_default();
    processes.lines().filter(|pid| *pid != own && *pid != "0").map(str::to_owned).collect()
}

/// The type of the job of this unit: `stop`, `restart`.
fn job() -> Option<String> {
    let unit = unit_name()?;
    let jobs = systemctl(&["list-jobs", "--no-legend", "--plain", "--full"])?;
    jobs.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (_number, named, job) = (words.next()?, words.next()?, words.next()?);
        (named == unit).then(|| if job == "restart" || job == "try-restart" { "restart" } else { "stop" }.to_owned())
    })
}

fn cgroup() -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned).filter(|path| path != "/")
}

fn unit_name() -> Option<String> {
    let cgroup = cgroup()?;
    cgroup.rsplit('/').find(|part| part.ends_with(".service")).map(str::to_owned)
}

/// What systemctl prints, if it does so in time.
fn systemctl(arguments: &[&str]) -> Option<String> {
    let of_user = cgroup()?.contains("/user@");
    let mut command = Command::new("systemctl");
    if of_user {
        command.arg("--user");
    }
    command.arg("--no-pager").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let start = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if start.elapsed() > ASK {
            drop(child.kill());
            drop(child.wait());
            return None;
        }
        thread::sleep(LOOK_AGAIN);
    }
    let output = child.wait_with_output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn parse(facts: &str) -> BTreeMap<String, String> {
    let pairs = facts.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn runtime_directory() -> Option<PathBuf> {
    // Several would be separated by colons (systemd.exec(5)); the unit has one.
    let directories = env::var("RUNTIME_DIRECTORY").ok()?;
    directories.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
}

fn put(path: &Path, text: &str) {
    // The unit's UMask= would keep it from the gateway, which is not root.
    let readable = || fs::set_permissions(path, fs::Permissions::from_mode(0o644));
    if let Err(error) = fs::write(path, text).and_then(|()| readable()) {
        say(&format!("cannot write {}: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(asked: Option<&str>, restart: Option<&str>, result: &str, status: &str) -> (bool, bool) {
        let end = End {
            asked: asked.map(str::to_owned),
            restart: restart.map(str::to_owned),
            result: result.to_owned(),
            status: status.to_owned(),
        };
        let Verdict { is_over, is_failure } = end.judge();
        (is_over, is_failure)
    }

    #[test]
    fn what_is_left_is_spared_only_if_the_unit_is_started_again() {
        assert_eq!(verdict(Some("stop"), Some("always"), "success", "0"), (true, false));
        assert_eq!(verdict(Some("restart"), Some("no"), "success", "0"), (false, false));
        assert_eq!(verdict(None, Some("on-failure"), "signal", "KILL"), (false, false));
        assert_eq!(verdict(None, Some("no"), "signal", "KILL"), (true, false));
        assert_eq!(verdict(None, None, "signal", "KILL"), (true, false), "in doubt");
        assert_eq!(verdict(None, Some("on-failure"), "exit-code", "78"), (true, false));
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_a_failure_even_if_it_looks_well() {
        assert_eq!(verdict(None, Some("on-failure"), "success", "0"), (false, true));
        assert_eq!(verdict(None, Some("no"), "success", "0"), (true, true));
    }
}
