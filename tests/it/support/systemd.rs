//! Runs a test inside a real systemd: a boot of its own in namespaces, made by `scripts/systemd-boot`.
//!
//! ```text
//! #[test]
//! fn the_unit_starts() {
//!     let Some(systemd) = systemd::inside("service::the_unit_starts", Duration::from_secs(60)) else { return };
//!     systemd.install("x.service", "[Service]\nType=notify\n…");
//!     systemd.systemctl(&["start", "x.service"]);
//!     assert_eq!(systemd.show("x.service", "ActiveState"), "active");
//! }
//! ```
//!
//! The same test function runs twice: outside, where [`inside`] boots, runs the function again in there and passes
//! its outcome on; and inside, where [`inside`] returns the [`Systemd`] to work with. There the test is root, `/tmp`,
//! `/var` and `/run` are empty and its own, and `/etc` is a copy: it may write anywhere in them and clean up nothing.
//!
//! **Invariant:** a boot that cannot be made is never taken for a pass in CI (`CI=true`): there it fails.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Set inside a boot.
const INSIDE: &str = "HERMES_TEST_INSIDE_SYSTEMD";

/// Names the directory that [`inside_debian`] prepared.
const DIRECTORY: &str = "HERMES_TEST_DIRECTORY";

/// `scripts/systemd-boot` says with this code that it cannot run here.
const CANNOT_RUN: i32 = 77;

/// Where units of a test go.
const UNITS: &str = "/etc/systemd/system";

/// The pause between two looks at a state that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A systemd that runs for this test alone.
pub struct Systemd(());

/// Gives the test named `name` (as `cargo nextest list` shows it) its systemd, or runs it in one and returns nothing.
///
/// Panics if the test fails inside, is not done within `deadline`, or does not exist by that name.
#[must_use = "nothing means that the test has already run inside"]
pub fn inside(name: &str, deadline: Duration) -> Option<Systemd> {
    if env::var_os(INSIDE).is_some() {
        return Some(Systemd(()));
    }
    if can_boot(name) {
        run_inside(name, deadline, &[], &[]);
    }
    None
}

/// As [`inside`], in a Debian of its own (`scripts/debian-root`), with all of its units: the test may install packages
/// and log users in. `prepare` fills a directory before the boot, which is also seen inside.
#[must_use = "nothing means that the test has already run inside"]
pub fn inside_debian(name: &str, deadline: Duration, prepare: impl FnOnce(&Path)) -> Option<(Systemd, PathBuf)> {
    if env::var_os(INSIDE).is_some() {
        let directory = env::var_os(DIRECTORY).expect("it was set outside");
        return Some((Systemd(()), directory.into()));
    }
    if !can_boot(name) {
        return None;
    }
    let root = Command::new(script("debian-root")).stderr(std::process::Stdio::inherit()).output();
    let root = root.expect("scripts/debian-root is there and executable");
    if root.status.code() == Some(CANNOT_RUN) {
        assert!(env::var("CI").as_deref() != Ok("true"), "{name} must run in CI, but there is no Debian to boot");
        eprintln!("SKIPPED {name}: there is no Debian to boot");
        return None;
    }
    assert!(root.status.success(), "scripts/debian-root: {}", root.status);
    let root = String::from_utf8(root.stdout).expect("a plain path");
    // Beside the test, because /tmp is not seen inside.
    let test = env::current_exe().expect("a test binary has a path");
    let directory = tempfile::tempdir_in(test.parent().expect("a directory")).expect("it can be written to");
    prepare(directory.path());
    let seen = format!("{DIRECTORY}={}", directory.path().display());
    run_inside(name, deadline, &["--root", root.trim()], &[&seen]);
    None
}

fn run_inside(name: &str, deadline: Duration, options: &[&str], variables: &[&str]) {
    let test = env::current_exe().expect("a test binary has a path");
    let test = test.to_str().expect("cargo makes plain paths");
    let deadline = deadline.as_secs().to_string();
    let inside = format!("{INSIDE}=1");
    let command = ["--timeout", &deadline, "--", "env", &inside];
    let output = boot(&[options, &command, variables, &[test, "--exact", name, "--nocapture"]].concat());
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    // With a wrong name the test binary runs no test, and succeeds.
    let passed = output.status.success() && stdout.contains("test result: ok. 1 passed");
    assert!(passed, "{name} inside systemd: {}\n{stdout}\n{stderr}", output.status);
    println!("{stdout}");
}

/// Whether a boot can be made here. If not, says so, and in CI fails.
fn can_boot(name: &str) -> bool {
    let output = boot(&["--check"]);
    if output.status.code() != Some(CANNOT_RUN) {
        return true;
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert!(env::var("CI").as_deref() != Ok("true"), "{name} must run in CI, but: {reason}");
    eprintln!("SKIPPED {name}: {reason}");
    false
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

fn boot(arguments: &[&str]) -> Output {
    Command::new(script("systemd-boot")).args(arguments).output().expect("scripts/systemd-boot is there and executable")
}

impl Systemd {
    /// Writes a unit file, or replaces it, and makes it known.
    pub fn install(&self, unit: &str, text: &str) {
        fs::write(Path::new(UNITS).join(unit), text).expect("the boot's own directory");
        self.systemctl(&["daemon-reload"]);
    }

    /// Runs `systemctl`, which must succeed, and returns what it prints. `start`, `stop` and `reload` return when the
    /// job is done.
    pub fn systemctl(&self, arguments: &[&str]) -> String {
        let output = self.try_systemctl(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "systemctl {}: {}\n{stderr}", arguments.join(" "), output.status);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs `systemctl`, which may fail.
    pub fn try_systemctl(&self, arguments: &[&str]) -> Output {
        Command::new("systemctl").arg("--no-pager").args(arguments).output().expect("systemctl is installed")
    }

    /// One property of a unit, for example `MainPID`.
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.systemctl(&["show", "--value", "--property", property, unit])
    }

    /// The messages of a unit and of systemd about it, oldest first, one a line.
    pub fn journal(&self, unit: &str) -> String {
        self.journalctl(&["--unit", unit, "--output", "cat"])
    }

    /// Runs `journalctl`, after everything that was sent to journald so far has been written.
    pub fn journalctl(&self, arguments: &[&str]) -> String {
        let run = |arguments: &[&str]| {
            let output = Command::new("journalctl").args(arguments).output().expect("journalctl is installed");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        run(&["--sync"]);
        run(&[&["--no-pager", "--quiet"], arguments].concat())
    }

    /// The processes in a unit's cgroup.
    pub fn processes(&self, unit: &str) -> Vec<u32> {
        let cgroup = self.show(unit, "ControlGroup");
        if cgroup.is_empty() {
            return Vec::new();
        }
        let path = format!("/sys/fs/cgroup{cgroup}/cgroup.procs");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| line.parse().expect("a pid a line, cgroups(7)")).collect()
    }

    /// Looks at a state until it is as wanted; panics at the deadline.
    pub fn wait_until(&self, what: &str, deadline: Duration, mut reached: impl FnMut() -> bool) {
        let start = Instant::now();
        while !reached() {
            assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
            // Nothing is awaited here but the next look; systemd has no call that waits for a property.
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }
}

impl Drop for Systemd {
    /// The journal goes with the boot, so a failure takes it along.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the journal\n{}", self.journalctl(&["--lines", "300", "--output", "short-precise"]));
        }
    }
}

mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    #[test]
    fn units_start_and_speak_to_the_journal() {
        let name = "support::systemd::tests::units_start_and_speak_to_the_journal";
        let Some(systemd) = inside(name, DEADLINE) else { return };
        assert_eq!(systemd.systemctl(&["is-system-running"]), "running");
        systemd.install(
            "hello.service",
            "[Service]\nType=notify\nNotifyAccess=all\n\
             ExecStart=/bin/sh -c 'echo spoken; systemd-notify --ready --status=serving; exec sleep infinity'\n",
        );
        systemd.systemctl(&["start", "hello.service"]);
        assert_eq!(systemd.show("hello.service", "StatusText"), "serving");
        let pid = systemd.show("hello.service", "MainPID");
        assert_eq!(systemd.processes("hello.service"), [pid.parse::<u32>().expect("a pid")]);
        assert!(systemd.journal("hello.service").contains("spoken"));
        systemd.systemctl(&["kill", "--signal=KILL", "hello.service"]);
        let failed = || systemd.show("hello.service", "ActiveState") == "failed";
        systemd.wait_until("the unit fails when it is killed", DEADLINE, failed);
        assert_eq!(systemd.processes("hello.service"), Vec::<u32>::new());
    }

    /// What is in the machine's /tmp and /etc is out of reach.
    #[test]
    fn the_machine_is_left_alone() {
        if !can_boot("support::systemd::tests::the_machine_is_left_alone") {
            return;
        }
        let canary = tempfile::Builder::new().tempfile_in("/tmp").expect("a file in /tmp");
        let name = canary.path().file_name().and_then(|name| name.to_str()).expect("a plain name");
        let output = boot(&["--", "sh", "-c", "ls -A /tmp; touch /etc/hermes-was-here /var/hermes-was-here"]);
        assert!(output.status.success(), "{output:?}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains(name), "the boot sees the machine's /tmp");
        assert!(canary.path().exists(), "the boot emptied the machine's /tmp");
        assert!(!Path::new("/etc/hermes-was-here").exists(), "the boot wrote to the machine's /etc");
        assert!(!Path::new("/var/hermes-was-here").exists(), "the boot wrote to the machine's /var");
    }

    #[test]
    fn the_exit_code_of_the_command_is_passed_on() {
        if !can_boot("support::systemd::tests::the_exit_code_of_the_command_is_passed_on") {
            return;
        }
        let code = |arguments: &[&str]| boot(arguments).status.code().expect("the script exits");
        assert_eq!(code(&["--", "sh", "-c", "exit 42"]), 42);
        assert_eq!(code(&["--", "sh", "-c", "kill -9 $$"]), 128 + 9);
        assert_eq!(code(&["--timeout", "1", "--", "sleep", "60"]), 124);
        assert_eq!(code(&["--", "/no/such/program"]), 127);
        assert_eq!(code(&["--unit", "/no/such.service", "--", "true"]), 1);
    }

    #[test]
    fn a_test_that_does_not_exist_is_not_taken_for_a_pass() {
        if can_boot("support::systemd::tests::a_test_that_does_not_exist_is_not_taken_for_a_pass") {
            let missing = std::panic::catch_unwind(|| inside("no_such_test", DEADLINE));
            assert!(missing.is_err());
        }
    }
}
