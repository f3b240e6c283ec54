//! What the unit's commands around its main process do.
//!
//! The unit has `KillMode=process`, so that agents outlive a kill of the gateway. Then nobody but these commands ends
//! what is left when the unit is not started again.
//!
//! **Invariant:** processes are spared only if it is certain that the unit is started again. When in doubt they are
//! ended: a turn that is lost is told to its chat, and an agent that nobody reads is not.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::cgroup::{self, Unit};
use crate::{runtime, say, systemctl};

/// How long processes have after SIGTERM, and again after SIGKILL. Both and the questions to the service manager are
/// less than the unit's TimeoutStopSec=.
const TERM_WAIT: Duration = Duration::from_secs(5);
const KILL_WAIT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// `ExecStartPre=`: leaves the unit's settings for the gateway, and forgets how it ended last time.
pub fn unit_facts() -> Result<(), String> {
    let directory = runtime::directory()?;
    for name in [runtime::STOP, runtime::UNIT] {
        let path = directory.join(name);
        runtime::remove(&path).map_err(|error| format!("cannot remove {}: {error}", path.display()))?;
    }
    let settings = systemctl::settings(&cgroup::own_unit()?)?;
    runtime::write(&directory, runtime::UNIT, &settings)
}

/// `ExecStop=`: leaves word whether the unit is stopped or restarted, before the gateway gets its SIGTERM.
pub fn announce() -> Result<(), String> {
    let directory = runtime::directory()?;
    let word = match cgroup::own_unit().and_then(|unit| systemctl::job(&unit)) {
        Ok(job) => match job.as_deref().map(starts_again) {
            Some(true) => "restart",
            Some(false) => "stop",
            // A gateway that ended on purpose, though not by a job, has said so.
            None if runtime::read(&directory, runtime::STOP).is_some_and(|word| word.trim() == "stop") => "stop",
            None => "none",
        },
        Err(why) => {
            say(format_args!("{why}: taking it for a stop"));
            "stop"
        }
    };
    runtime::write(&directory, runtime::STOP, &format!("{word}\n"))
}

/// `ExecStopPost=`: ends what is left in the unit, unless it is started again.
pub fn stop_post() -> Result<(), String> {
    let Ok(result) = env::var("SERVICE_RESULT") else {
        return Err("SERVICE_RESULT is not set: only ExecStopPost= of the unit may call this".to_owned());
    };
    let unit = cgroup::own_unit()?;
    let directory = runtime::directory().ok();
    let left_word = |name| directory.as_deref().and_then(|directory| runtime::read(directory, name));
    let end = End {
        job: systemctl::job(&unit),
        announced: left_word(runtime::STOP),
        settings: systemctl::settings(&unit).ok().or_else(|| left_word(runtime::UNIT)),
        result,
        status: env::var("EXIT_STATUS").unwrap_or_default(),
    };
    if end.is_unasked() {
        // The unit fails by this, and so it is started again.
        return Err("the gateway ended although nobody asked it to".to_owned());
    }
    match end.is_over() {
        None => Ok(()),
        Some(why) => end_all(&unit, why),
    }
}

/// Whether a job of this type ends with the unit started; systemd calls a `try-restart` by the type it became.
fn starts_again(job: &str) -> bool {
    ["restart", "start", "try-restart", "reload-or-start"].contains(&job)
}

/// How the main process ended, and what is known of what comes next.
struct End {
    /// The job of the service manager, if the question was answered.
    job: Result<Option<String>, String>,
    /// What [`announce`] wrote.
    announced: Option<String>,
    /// The settings of the unit.
    settings: Option<String>,
    /// `$SERVICE_RESULT`, systemd.exec(5).
    result: String,
    /// `$EXIT_STATUS`: a number, or the name of a signal.
    status: String,
}

impl End {
    /// Whether the main process ended well and nobody asked it to, with Restart=on-failure: what the service manager
    /// takes for a success is a gateway that is dead on every channel.
    fn is_unasked(&self) -> bool {
        let on_failure =
            self.settings.as_ref().is_some_and(|text| text.lines().any(|line| line == "Restart=on-failure"));
        let announced = self.announced.as_deref().map(str::trim);
        on_failure && self.result == "success" && matches!(self.job, Ok(None)) && announced == Some("none")
    }

    /// Why the unit is not started again, or not certainly; nothing if it is.
    fn is_over(&self) -> Option<&'static str> {
        match (&self.job, self.announced.as_deref().map(str::trim)) {
            (Ok(Some(job)), _) if starts_again(job) => return None,
            (Ok(Some(job)), _) if job == "stop" => return Some("it is stopped"),
            (Err(_), Some("restart")) => return None,
            // With a job of another kind, or none, Restart= decides.
            (Ok(_), None | Some("none" | "restart")) | (Err(_), Some("none")) => {}
            (Err(_), None) => return Some("the service manager does not say what comes next"),
            (_, Some(_)) => return Some("it was stopped"),
        }
        let Some(settings) = &self.settings else { return Some("its settings are not known") };
        if self.policy_starts_again(settings) { None } else { Some("its Restart= does not start it again") }
    }

    /// systemd.service(5): RestartPreventExitStatus= comes before RestartForceExitStatus=, and that before Restart=.
    fn policy_starts_again(&self, settings: &str) -> bool {
        let setting = |name: &str| {
            let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned());
            settings.lines().find_map(value).unwrap_or_default()
        };
        let lists = |name: &str| {
            let matches = |word: &str| !word.is_empty() && word.strip_prefix("SIG").unwrap_or(word) == self.status;
            setting(name).split(|c: char| !c.is_ascii_alphanumeric()).any(matches)
        };
        if lists("RestartPreventExitStatus") || ["exec-condition", "start-limit-hit"].contains(&self.result.as_str()) {
            return false;
        }
        if lists("RestartForceExitStatus") {
            return true;
        }
        match (setting("Restart").as_str(), self.result.as_str()) {
            ("always", _) | ("on-success", "success") => true,
            ("on-failure", result) => result != "success",
            ("on-abnormal", result) => !["success", "exit-code"].contains(&result),
            ("on-abort", result) => ["signal", "core-dump"].contains(&result),
            ("on-watchdog", result) => result == "watchdog",
            _ => false,
        }
    }
}

/// Ends every process of the unit but this one: asks, waits, kills. New ones that appear meanwhile are ended as well.
fn end_all(unit: &Unit, why: &str) -> Result<(), String> {
    let start = Instant::now();
    let mut asked = BTreeSet::new();
    loop {
        let left = unit.others();
        if left.is_empty() {
            return Ok(());
        }
        let elapsed = start.elapsed();
        if elapsed > TERM_WAIT + KILL_WAIT {
            return Err(format!("{} is left in {}: not even SIGKILL ends it", names(&left), unit.name));
        }
        if elapsed > TERM_WAIT {
            signal("KILL", &left);
        } else {
            let new: Vec<u32> = left.into_iter().filter(|pid| asked.insert(*pid)).collect();
            if !new.is_empty() {
                say(format_args!("ending {}, left in {}: {why}", names(&new), unit.name));
                signal("TERM", &new);
            }
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// kill(1), because std has no kill(2). One that is gone already is as well.
fn signal(signal: &str, pids: &[u32]) {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "kill -s \"$@\"", "sh", signal]).args(pids.iter().map(u32::to_string));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = command.status() {
        say(format_args!("cannot run /bin/sh: {error}"));
    }
}

/// Processes, for people: the first few.
fn names(pids: &[u32]) -> String {
    const FEW: usize = 5;
    let name = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{} ({pid})", name.trim())
    };
    let mut text = pids.iter().take(FEW).map(name).collect::<Vec<_>>().join(", ");
    if pids.len() > FEW {
        text.push_str(&format!(" and {} more", pids.len() - FEW));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(job: Result<Option<&str>, ()>, announced: &str, restart: &str, result: &str, status: &str) -> End {
        let settings = format!("Restart={restart}\nRestartPreventExitStatus=78\nRestartForceExitStatus=75 SIGUSR1\n");
        End {
            job: job.map(|job| job.map(str::to_owned)).map_err(|()| "no answer".to_owned()),
            announced: (!announced.is_empty()).then(|| format!("{announced}\n")),
            settings: (!restart.is_empty()).then_some(settings),
            result: result.to_owned(),
            status: status.to_owned(),
        }
    }

    /// Every combination of Restart= and result of the table in systemd.service(5).
    #[test]
    fn the_policy_is_that_of_the_service_manager() {
        let results = ["success", "exit-code", "signal", "core-dump", "timeout", "oom-kill", "watchdog", "protocol"];
        let table = [
            ("no", [false; 8]),
            ("always", [true; 8]),
            ("on-success", [true, false, false, false, false, false, false, false]),
            ("on-failure", [false, true, true, true, true, true, true, true]),
            ("on-abnormal", [false, false, true, true, true, true, true, true]),
            ("on-abort", [false, false, true, true, false, false, false, false]),
            ("on-watchdog", [false, false, false, false, false, false, true, false]),
        ];
        for (restart, again) in table {
            for (result, again) in results.iter().zip(again) {
                let over = end(Ok(None), "", restart, result, "1").is_over();
                assert_eq!(over.is_none(), again, "Restart={restart} after {result}: {over:?}");
            }
        }
    }

    #[test]
    fn exit_codes_come_before_the_policy() {
        let over = |restart, result, status| end(Ok(None), "", restart, result, status).is_over().is_some();
        assert!(over("always", "exit-code", "78"));
        assert!(!over("no", "exit-code", "75"));
        assert!(!over("no", "signal", "USR1"));
        assert!(over("no", "exit-code", "7"), "it is neither 75 nor 78");
        assert!(over("no", "success", ""));
        assert!(over("always", "start-limit-hit", "0"));
    }

    #[test]
    fn a_job_of_the_service_manager_comes_before_the_policy() {
        let over = |job, announced, restart| end(job, announced, restart, "signal", "KILL").is_over().is_some();
        assert!(over(Ok(Some("stop")), "", "always"));
        assert!(over(Ok(Some("stop")), "restart", "always"));
        assert!(!over(Ok(Some("restart")), "", "no"));
        assert!(!over(Ok(Some("restart")), "stop", "no"));
        assert!(!over(Ok(Some("start")), "stop", "no"));
        assert!(!over(Ok(Some("reload")), "", "always"), "the gateway died while it was reloaded");
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_a_failure_although_it_looks_well() {
        let unasked = |job, announced, restart, result| end(job, announced, restart, result, "0").is_unasked();
        assert!(unasked(Ok(None), "none", "on-failure", "success"));
        assert!(!unasked(Ok(None), "stop", "on-failure", "success"), "the gateway said so");
        assert!(!unasked(Ok(Some("stop")), "stop", "on-failure", "success"));
        assert!(!unasked(Ok(None), "none", "always", "success"), "it is started again anyway");
        assert!(!unasked(Ok(None), "none", "on-failure", "signal"), "it is a failure already");
    }

    #[test]
    fn without_an_answer_word_that_was_left_counts_and_doubt_is_the_end() {
        let over = |job, announced, restart| end(job, announced, restart, "signal", "KILL").is_over().is_some();
        assert!(!over(Err(()), "restart", "no"));
        assert!(!over(Err(()), "none", "always"));
        assert!(over(Err(()), "stop", "always"));
        assert!(over(Err(()), "", "always"));
        assert!(over(Ok(None), "stop", "always"), "it was a stop, and its job is gone");
        assert!(over(Ok(None), "nonsense", "always"));
        assert!(over(Ok(None), "", ""), "its settings are not known");
    }
}
