//! Questions and orders to the service manager: systemctl(1) and journalctl(1), each with a deadline.
//!
//! Both programs are what an operator would type, so that an error of theirs can be looked into by hand, and both work
//! where no D-Bus runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::process::Command;

use super::layout::SYSTEM_HOME;
use crate::config::Environment;

/// The gateway's unit, in either scope.
pub const UNIT: &str = "hermes-gateway.service";
/// Its control socket's unit, which is optional.
pub const SOCKET_UNIT: &str = "hermes-gateway.socket";
/// The unit of Telegram's webhook, which is optional.
pub const WEBHOOK_UNIT: &str = "hermes-gateway-webhook.socket";
/// The unit of the web pages' listener, which is optional.
pub const WEB_UNIT: &str = "hermes-gateway-web.socket";

/// How long a question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a start or a stop may take: TimeoutStartSec= of the unit, and some more. Twice TimeoutStopSec= is less.
const JOB_TIMEOUT: Duration = Duration::from_secs(150);

/// Whose service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The machine's.
    System,
    /// The user's own.
    User,
}

impl Scope {
    /// Its name, as `--json` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
        }
    }
}

/// Why the service manager did not do what it was asked.
#[derive(Debug, Error)]
pub enum ManagerError {
    /// There is none, or it is not systemd.
    #[error("systemd does not run here: {why}")]
    None {
        /// What its client says.
        why: String,
    },
    /// Its client cannot be run.
    #[error("cannot run {program}")]
    Spawn {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It refuses, or the job failed.
    #[error("`{command}` failed: {why}")]
    Failed {
        /// What was run, as it can be typed.
        command: String,
        /// What was said.
        why: String,
    },
    /// There was no answer in time.
    #[error("`{command}` did not end within {} s", after.as_secs())]
    Timeout {
        /// What was run, as it can be typed.
        command: String,
        /// The longest wait.
        after: Duration,
    },
}

/// A service manager.
#[derive(Clone, Debug)]
pub struct Manager {
    scope: Scope,
    runtime_dir: Option<PathBuf>,
}

/// What the service manager says about a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnitState {
    /// `loaded`, `not-found`, `masked`, …
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating`, …
    pub active: String,
    /// `running`, `dead`, `auto-restart`, …
    pub sub: String,
    /// `success`, or how it ended.
    pub result: String,
    /// `enabled`, `disabled`, `static`, …; empty where it is not known.
    pub enabled: String,
    /// The main process.
    pub main_pid: Option<u32>,
    /// How often Restart= has started it.
    pub restarts: u32,
    /// The file it was loaded from.
    pub file: Option<PathBuf>,
    /// Files of the operator that add to it.
    pub drop_ins: Vec<PathBuf>,
    /// Whether a file has changed since it was loaded.
    pub needs_reload: bool,
}

impl UnitState {
    /// Whether there is such a unit.
    pub fn is_installed(&self) -> bool {
        self.load != "not-found" && self.file.is_some()
    }

    /// Whether it runs, or is about to.
    pub fn is_up(&self) -> bool {
        matches!(self.active.as_str(), "active" | "activating" | "reloading")
    }
}

impl Manager {
    /// The manager of a scope, for the user of this process.
    pub fn new(scope: Scope, env: &Environment) -> Self {
        let given = env.directory("XDG_RUNTIME_DIR");
        // A shell of su(1) or cron(8) has no XDG_RUNTIME_DIR, and the user's manager is there all the same.
        let usual = || PathBuf::from(format!("/run/user/{}", nix::unistd::getuid()));
        let runtime_dir = (scope == Scope::User).then(|| given.unwrap_or_else(usual));
        Self { scope, runtime_dir }
    }

    /// The one that runs the gateway of a home.
    pub fn of_home(home: &Path, env: &Environment) -> Self {
        Self::new(if home == Path::new(SYSTEM_HOME) { Scope::System } else { Scope::User }, env)
    }

    /// Which one it is.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// What it says about a unit; a unit that does not exist is no error.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn state(&self, unit: &str) -> Result<UnitState, ManagerError> {
        const NAMES: &str = "--property=LoadState,ActiveState,SubState,Result,UnitFileState,MainPID,NRestarts,\
                             FragmentPath,DropInPaths,NeedDaemonReload";
        Ok(parse_state(&self.systemctl(&["show", NAMES, "--", unit], ASK_TIMEOUT).await?))
    }

    /// Any properties of a unit by their names (systemctl(1), `show`).
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn properties(&self, unit: &str, names: &[&str]) -> Result<BTreeMap<String, String>, ManagerError> {
        let names = format!("--property={}", names.join(","));
        Ok(parse_properties(&self.systemctl(&["show", &names, "--", unit], ASK_TIMEOUT).await?))
    }

    /// Reads unit files anew.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn reload_units(&self) -> Result<(), ManagerError> {
        self.systemctl(&["daemon-reload"], JOB_TIMEOUT).await.map(drop)
    }

    /// Runs `enable`, `disable`, `reenable`, `start` or `stop` for units, which may be none, and returns when it is done.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn order(&self, verb: &str, units: &[&str]) -> Result<(), ManagerError> {
        if units.is_empty() {
            return Ok(());
        }
        let words: Vec<&str> = [verb, "--"].into_iter().chain(units.iter().copied()).collect();
        self.systemctl(&words, JOB_TIMEOUT).await.map(drop)
    }

    /// The last lines of a unit in the journal, oldest first; none if it cannot be read.
    pub async fn journal(&self, unit: &str, lines: u16) -> Vec<String> {
        let kind = if self.scope == Scope::User { "--user-unit" } else { "--unit" };
        let lines = lines.to_string();
        let words = [kind, unit, "--lines", &lines, "--no-pager", "--quiet", "--output", "cat"];
        let read = self.run("journalctl", &words, ASK_TIMEOUT).await;
        read.map(|text| text.lines().map(str::to_owned).collect()).unwrap_or_default()
    }

    /// The command as it can be typed.
    pub fn command(&self, words: &[&str]) -> String {
        let user = if self.scope == Scope::User { "--user " } else { "" };
        format!("systemctl {user}{}", words.join(" "))
    }

    async fn systemctl(&self, words: &[&str], deadline: Duration) -> Result<String, ManagerError> {
        let mut all = vec!["--no-pager", "--no-ask-password"];
        if self.scope == Scope::User {
            all.push("--user");
        }
        all.extend(words);
        self.run("systemctl", &all, deadline).await
    }

    async fn run(&self, program: &'static str, words: &[&str], deadline: Duration) -> Result<String, ManagerError> {
        let told = || format!("{program} {}", words.join(" "));
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).kill_on_drop(true).env("LC_ALL", "C");
        if let Some(directory) = &self.runtime_dir {
            command.env("XDG_RUNTIME_DIR", directory);
        }
        let output = match tokio::time::timeout(deadline, command.output()).await {
            Err(_) => return Err(ManagerError::Timeout { command: told(), after: deadline }),
            Ok(Err(source)) => return Err(ManagerError::Spawn { program, source }),
            Ok(Ok(output)) => output,
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let why = said(&output);
        if why.contains("Failed to connect to") || why.contains("not been booted with systemd") {
            return Err(ManagerError::None { why });
        }
        Err(ManagerError::Failed { command: told(), why })
    }
}

/// What a program that failed has said, on one line.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { output.status.to_string() } else { lines.join(" ") }
}

fn parse_properties(text: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    text.lines().filter_map(pair).collect()
}

fn parse_state(text: &str) -> UnitState {
    let mut properties = parse_properties(text);
    let mut take = |name: &str| properties.remove(name).unwrap_or_default();
    UnitState {
        load: take("LoadState"),
        active: take("ActiveState"),
        sub: take("SubState"),
        result: take("Result"),
        enabled: take("UnitFileState"),
        main_pid: take("MainPID").parse().ok().filter(|pid| *pid != 0),
        restarts: take("NRestarts").parse().unwrap_or(0),
        file: Some(take("FragmentPath")).filter(|path| !path.is_empty()).map(PathBuf::from),
        drop_ins: take("DropInPaths").split_whitespace().map(PathBuf::from).collect(),
        needs_reload: take("NeedDaemonReload") == "yes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemctl_shows_is_read_by_its_names() {
        let state = parse_state(
            "Result=success\nNRestarts=2\nMainPID=41\nLoadState=loaded\nActiveState=active\nSubState=running\n\
             FragmentPath=/etc/systemd/system/hermes-gateway.service\nUnitFileState=enabled\n\
             DropInPaths=/etc/systemd/system/hermes-gateway.service.d/a.conf /run/b.conf\nNeedDaemonReload=yes\n",
        );
        assert!(state.is_installed() && state.is_up() && state.needs_reload);
        assert_eq!((state.main_pid, state.restarts, state.enabled.as_str()), (Some(41), 2, "enabled"));
        assert_eq!(state.drop_ins.len(), 2);
    }

    #[test]
    fn a_unit_that_is_not_there_is_not_installed() {
        let state = parse_state("LoadState=not-found\nActiveState=inactive\nMainPID=0\nFragmentPath=\n");
        assert!(!state.is_installed() && !state.is_up());
        assert_eq!(state.main_pid, None);
        assert!(!parse_state("").is_installed());
    }

    #[test]
    fn an_order_is_told_as_it_can_be_typed() {
        let env = Environment::from_iter([("HOME", "/u")]);
        assert_eq!(
            Manager::new(Scope::User, &env).command(&["start", UNIT]),
            "systemctl --user start hermes-gateway.service"
        );
        assert_eq!(Manager::new(Scope::System, &env).command(&["stop", UNIT]), "systemctl stop hermes-gateway.service");
    }
}
