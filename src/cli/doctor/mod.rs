//! `hermes doctor`: looks at everything that a gateway depends on, and says how to put right what is wrong.
//!
//! Each [`Check`] is one function that returns what it found. A check looks and changes nothing; it never fails itself:
//! what it cannot look at is a finding, too.
//!
//! **Invariant:** root looks at the home of somebody else through a child that has given up root: it starts the agents,
//! whose commands their owner may have written. What only root may see, the unit and its journal, root looks at itself.

mod agents;
mod files;
mod gateway;
mod network;
mod system;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use self::system::Seen;
use super::args::DoctorArgs;
use super::error::CliError;
use super::handoff;
use super::home::Home;
use super::owner::Owner;
use super::page::{Cell, Look, Page, Row, Tone, row};
use super::screen;
use crate::config::{self, Config, Environment, Reader};
use crate::control::client::ClientError;
use crate::control::proto::Status;
use crate::service::manager::{Manager, Scope, UnitState};
use crate::units::count;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Check {
    /// gateway.toml can be used.
    Configuration,
    /// Nobody else can read secrets or the state.
    Permissions,
    /// `versions/` and its slots hold images that can be started.
    Versions,
    /// What runs is what is on disk.
    Image,
    /// Nobody wrote over the database.
    Database,
    /// There is room on the disk.
    Disk,
    /// The kernel lets an image be replaced.
    Kernel,
    /// Enough files may be open.
    Limits,
    /// The lock and what the last process wrote fit together.
    Lock,
    /// The gateway answers, and its platforms and agents do.
    Gateway,
    /// The unit lets a gateway survive what may happen.
    Unit,
    /// A user's service runs without a login.
    Linger,
    /// The log can be read.
    Journal,
    /// Each agent starts and answers.
    Agents,
    /// Platforms and releases can be reached.
    Network,
    /// The clock is right.
    Clock,
    /// Platforms take the tokens.
    Tokens,
    /// Updates can be found and verified.
    Updates,
}

impl Check {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 18] = [
        Self::Configuration,
        Self::Permissions,
        Self::Versions,
        Self::Image,
        Self::Database,
        Self::Disk,
        Self::Kernel,
        Self::Limits,
        Self::Lock,
        Self::Gateway,
        Self::Unit,
        Self::Linger,
        Self::Journal,
        Self::Agents,
        Self::Network,
        Self::Clock,
        Self::Tokens,
        Self::Updates,
    ];

    /// Its name, as `--json` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Permissions => "permissions",
            Self::Versions => "versions",
            Self::Image => "image",
            Self::Database => "database",
            Self::Disk => "disk",
            Self::Kernel => "kernel",
            Self::Limits => "limits",
            Self::Lock => "lock",
            Self::Gateway => "gateway",
            Self::Unit => "unit",
            Self::Linger => "linger",
            Self::Journal => "journal",
            Self::Agents => "agents",
            Self::Network => "network",
            Self::Clock => "clock",
            Self::Tokens => "tokens",
            Self::Updates => "updates",
        }
    }

    async fn run(self, patient: &Patient) -> Vec<Finding> {
        match self {
            Self::Configuration => files::configuration(patient),
            Self::Permissions => files::permissions(patient),
            Self::Versions => files::versions(patient),
            Self::Image => gateway::image(patient),
            Self::Database => files::database(patient).await,
            Self::Disk => files::disk(patient),
            Self::Kernel => files::kernel(patient),
            Self::Limits => system::limits(patient),
            Self::Lock => gateway::lock(patient),
            Self::Gateway => gateway::gateway(patient),
            Self::Unit => system::unit(patient),
            Self::Linger => system::linger(patient),
            Self::Journal => system::journal(patient),
            Self::Agents => agents::agents(patient).await,
            Self::Network => network::network(patient).await,
            Self::Clock => network::clock(patient).await,
            Self::Tokens => network::tokens(patient).await,
            Self::Updates => network::updates(patient).await,
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is to be done.
    Note,
    /// It works, and something will hurt.
    Warn,
    /// It does not work.
    Fail,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// By which check.
    pub check: Check,
    /// How bad it is.
    pub level: Level,
    /// What it is, in a sentence.
    pub what: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Finding {
    fn ok(check: Check, what: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, what: what.into(), fix: None }
    }

    fn note(check: Check, what: impl Into<String>) -> Self {
        Self { check, level: Level::Note, what: what.into(), fix: None }
    }

    fn warn(check: Check, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, what: what.into(), fix: Some(fix.into()) }
    }

    fn fail(check: Check, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Fail, what: what.into(), fix: Some(fix.into()) }
    }
}

/// What `hermes doctor --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Diagnosis {
    /// The version of the program that looked.
    pub version: String,
    /// The home that it looked at.
    pub home: String,
    /// The worst of what it found.
    pub level: Level,
    /// All that it found.
    pub findings: Vec<Finding>,
}

/// What the checks look at.
struct Patient {
    /// Where it is looked for.
    home: Home,
    env: Environment,
    /// The paths in it; none if they cannot be told.
    paths: Result<config::Home, String>,
    config: Result<Config, String>,
    manager: Manager,
    unit: Seen,
    /// What the gateway says of itself.
    status: Result<Status, ClientError>,
    offline: bool,
}

impl Patient {
    async fn admit(home: &Home, args: &DoctorArgs, seen: Option<Seen>) -> Self {
        let env = Environment::from_process().with("HERMES_HOME", &home.path);
        let paths = config::Home::resolve(&env, args.config.as_deref());
        let paths = paths.map_err(|error| crate::report::Chain(&error).to_string());
        let config = match &paths {
            Ok(paths) => {
                let read = Config::check(paths.config_file(), &env, Reader::Other);
                read.map(|(config, _)| config).map_err(|error| crate::report::Chain(&error).to_string())
            }
            Err(why) => Err(why.clone()),
        };
        let manager = Manager::of_home(&home.path, &env);
        let unit = async {
            match seen {
                Some(seen) => seen,
                None => Seen::look(&manager).await,
            }
        };
        let (unit, status) = tokio::join!(unit, handoff::status_of(home));
        Self { home: home.clone(), env, paths, config, manager, unit, status, offline: args.offline }
    }

    /// The configuration; none if it cannot be used, which its own check tells.
    fn config(&self) -> Option<&Config> {
        self.config.as_ref().ok()
    }

    /// The unit, if one is installed.
    fn installed(&self) -> Option<&UnitState> {
        if let Seen::Installed { state, .. } = &self.unit { Some(state) } else { None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path.join(name)
    }
}

/// `hermes doctor`.
pub(super) async fn run(home: &Home, args: &DoctorArgs) -> Result<(), CliError> {
    let diagnosis = match (Owner::of(&home.path), &args.seen) {
        (Some(owner), None) => through_child(&owner, home, args).await?,
        (owner, seen) => {
            if let Some(owner) = owner {
                owner.step_down_apart()?;
            }
            let seen = seen.as_deref().map(serde_json::from_str).transpose();
            let seen: Option<Option<Seen>> = seen.map_err(|error| CliError::Usage(error.to_string()))?;
            examine(home, args, seen.flatten()).await
        }
    };
    if args.json.json {
        screen::print_json(&diagnosis)?;
    } else {
        screen::print(&page(&diagnosis, Look::of_stdout()))?;
    }
    if diagnosis.level == Level::Fail { Err(CliError::Unwell) } else { Ok(()) }
}

async fn examine(home: &Home, args: &DoctorArgs, seen: Option<Seen>) -> Diagnosis {
    let patient = Patient::admit(home, args, seen).await;
    let mut findings = Vec::new();
    for check in Check::ALL {
        findings.extend(check.run(&patient).await);
    }
    let level = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    let version = crate::version::version().to_owned();
    Diagnosis { version, home: home.path.display().to_string(), level, findings }
}

/// As [`examine`], in a process of the home's owner.
async fn through_child(owner: &Owner, home: &Home, args: &DoctorArgs) -> Result<Diagnosis, CliError> {
    let manager = Manager::of_home(&home.path, &Environment::from_process());
    // The manager of another user is theirs to ask.
    let seen = if manager.scope() == Scope::System { Some(Seen::look(&manager).await) } else { None };
    let failed = |source| CliError::Io { what: "look as the owner of the home", source };
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(failed);
    let mut child = owner.child();
    child.arg("--home").arg(absolute(&home.path)?).args(["doctor", "--json", "--seen"]);
    child.arg(serde_json::to_string(&seen).expect("plain data serialises"));
    if let Some(config) = &args.config {
        child.arg("--config").arg(absolute(config)?);
    }
    if args.offline {
        child.arg("--offline");
    }
    let output = child.output().await.map_err(failed)?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| failed(std::io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())))
}

fn page(diagnosis: &Diagnosis, look: Look) -> String {
    let mut page = Page::new(look);
    let mut rows: Vec<Row> = Vec::new();
    for finding in &diagnosis.findings {
        rows.push(row![Cell::state(&finding.level.to_string()), finding.check.name(), &finding.what]);
        if let Some(fix) = &finding.fix {
            rows.push(row!["", "", Cell::toned(format!("→ {fix}"), Tone::Title)]);
        }
    }
    page.rows(&rows);
    let number = |level| diagnosis.findings.iter().filter(|finding| finding.level == level).count();
    let (fails, warns) = (number(Level::Fail), number(Level::Warn));
    let summary = match (fails, warns) {
        (0, 0) => "nothing is wrong".to_owned(),
        (0, _) => format!("it works; {}", count(warns, "warning")),
        _ => format!("{}, {}", count(fails, "failure"), count(warns, "warning")),
    };
    page.headline(&[Cell::toned(summary, Tone::of(&diagnosis.level.to_string()))]);
    page.text()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_is_in_the_list_once_and_named_as_in_json() {
        let names: BTreeSet<&str> = Check::ALL.iter().map(|check| check.name()).collect();
        assert_eq!(names.len(), Check::ALL.len());
        for check in Check::ALL {
            assert_eq!(serde_json::to_value(check).expect("plain data"), check.name());
        }
    }

    #[test]
    fn a_page_has_what_was_found_with_what_to_do() {
        let findings = vec![
            Finding::ok(Check::Configuration, "gateway.toml is usable"),
            Finding::note(Check::Network, "not looked at (--offline)"),
            Finding::warn(Check::Unit, "Restart=no: a gateway that is killed stays dead", "set Restart=on-failure"),
            Finding::fail(Check::Tokens, "telegram refuses the token", "get a new one from @BotFather"),
        ];
        let diagnosis = Diagnosis { version: "1.0.0".into(), home: "/h".into(), level: Level::Fail, findings };
        insta::assert_snapshot!(page(&diagnosis, Look::PLAIN), @r"
          ok    configuration  gateway.toml is usable
          note  network        not looked at (--offline)
          warn  unit           Restart=no: a gateway that is killed stays dead
                               → set Restart=on-failure
          fail  tokens         telegram refuses the token
                               → get a new one from @BotFather
        1 failure, 1 warning
        ");
        let well = Diagnosis { level: Level::Ok, findings: diagnosis.findings[..1].to_vec(), ..diagnosis };
        assert!(page(&well, Look::PLAIN).ends_with("nothing is wrong\n"));
    }
}
