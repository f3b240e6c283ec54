//! What the service manager says about the unit.
//!
//! **Invariant:** it has five seconds to say it: the unit does not wait for an answer that does not come.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::cgroup::Unit;

const DEADLINE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 1 << 20;
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Settings of the unit, as `systemctl show` prints them: `Name=value` lines.
///
/// # Errors
/// Why there is no answer.
pub fn settings(unit: &Unit) -> Result<String, String> {
    const NAMES: &str = "--property=Restart,KillMode,FileDescriptorStoreMax,RestartUSec,\
                         RestartPreventExitStatus,RestartForceExitStatus";
    ask(unit, &["show", NAMES, "--", &unit.name])
}

/// The type of the unit's job, for example `stop` or `restart`, if it has one: systemctl(1), list-jobs.
///
/// # Errors
/// Why there is no answer.
pub fn job(unit: &Unit) -> Result<Option<String>, String> {
    // All of them: in a pattern the backslashes of a unit's name would be taken for something else.
    ask(unit, &["list-jobs", "--no-legend", "--full", "--plain"]).map(|jobs| job_of(&jobs, &unit.name))
}

/// Finds the unit among lines of number, unit, type and state.
fn job_of(jobs: &str, unit: &str) -> Option<String> {
    jobs.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        (words.next() == Some(unit)).then(|| words.next().map(str::to_owned))?
    })
}

fn ask(unit: &Unit, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("systemctl");
    if unit.of_user {
        command.arg("--user");
    }
    command.args(["--no-pager", "--no-ask-password"]).args(arguments);
    answer(command, DEADLINE)
}

/// What a command prints, if it ends well and in time.
fn answer(mut command: Command, deadline: Duration) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("cannot run {name}: {error}"))?;
    let stdout = child.stdout.take().expect("it was asked for");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.take(ANSWER_BYTES_MAX).read_to_string(&mut text);
        // Nobody waits any more after the deadline.
        let _ = sender.send(read.map(|_| text));
    });
    let text = receiver.recv_timeout(deadline);
    let ended = ended(&mut child, start + deadline);
    match (text, ended) {
        (Ok(Ok(text)), Some(true)) => Ok(text),
        (Ok(_), Some(_)) => Err(format!("{name} failed")),
        _ => Err(format!("{name} did not answer within {} s", deadline.as_secs())),
    }
}

/// Whether it ended well by the deadline; if it did not end, it is killed.
fn ended(child: &mut Child, deadline: Instant) -> Option<bool> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK_AGAIN),
            _ => {
                // It may have ended just now. Reaping it is left to whoever reaps this process, which ends soon.
                let _ = child.kill();
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, deadline: Duration) -> Result<String, String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        answer(command, deadline)
    }

    #[test]
    fn an_answer_is_what_was_printed_by_a_command_that_ended_well() {
        assert_eq!(shell("echo yes", DEADLINE), Ok("yes\n".to_owned()));
        assert_eq!(shell("echo yes; exit 1", DEADLINE), Err("/bin/sh failed".to_owned()));
        let missing = answer(Command::new("/no/such/program"), DEADLINE).expect_err("it is not there");
        assert!(missing.starts_with("cannot run /no/such/program: "), "{missing}");
    }

    #[test]
    fn nobody_waits_for_a_command_that_hangs() {
        let hangs = Err("/bin/sh did not answer within 0 s".to_owned());
        assert_eq!(shell("exec sleep 60", Duration::from_millis(50)), hangs);
        assert_eq!(shell("exec >&-; exec sleep 60", Duration::from_millis(50)), hangs);
    }

    #[test]
    fn the_job_is_that_of_the_unit() {
        let jobs = "12 other.service stop  running\n 7 x.service     restart waiting\n";
        assert_eq!(job_of(jobs, "x.service").as_deref(), Some("restart"));
        assert_eq!(job_of(jobs, "y.service"), None);
        assert_eq!(job_of("No jobs running.\n", "y.service"), None);
        assert_eq!(job_of("", "y.service"), None);
    }
}
