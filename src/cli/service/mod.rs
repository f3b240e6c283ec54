//! `hermes gateway install|uninstall|start|list|adopt`: the gateway as a service of systemd.
//!
//! **Invariants**
//! - A gateway that runs is never restarted by its service manager here: it gets another image in place.
//! - A unit file that somebody changed, or that is somebody else's, is not touched without `--force`.
//! - What refuses does so before anything is written; and whatever was done may be done again.

pub(super) mod args;
pub(super) mod error;
mod image;
mod install;
mod target;
mod uninstall;

use std::path::PathBuf;

use serde::Serialize;

use self::args::{InstallArgs, StartArgs, UninstallArgs};
use self::error::ServiceError;
use super::args::JsonArgs;
use super::error::CliError;
use super::home::Home;
use super::screen;
use crate::config::Environment;
use crate::control::proto::Status;
use crate::service::manager::{Manager, Scope, UNIT, UnitState};
use crate::service::unit_file::{UnitFile, UnitKind};

pub(super) use self::image::run_child as install_image;
pub(super) use self::install::make_home as prepare_home;
pub(super) use self::target::Target;

#[cfg(test)]
pub(super) use self::{image::Placed, install::Report as Installed, uninstall::Report as Uninstalled};

/// What `hermes gateway start --json` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Started {
    pid: u32,
    version: String,
    unit_file: UnitFile,
}

/// A gateway of this machine: an installed service, or one in the foreground.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Listed {
    /// `system` or `user`; none in the foreground.
    scope: Option<&'static str>,
    home: PathBuf,
    /// The service's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<UnitState>,
    /// Of one in the foreground.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// Of one in the foreground.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

/// `hermes gateway install`.
pub(super) async fn install(home: Option<PathBuf>, args: InstallArgs) -> Result<(), CliError> {
    install::run(home, args).await
}

/// As [`install()`], of a service whose places are known, with the defaults of everything. Says nothing with `json`.
pub(super) async fn install_for(target: &Target, json: JsonArgs) -> Result<(), CliError> {
    let report = install::into(target, &InstallArgs { json, ..InstallArgs::default() }).await?;
    if json.json { Ok(()) } else { screen::print(&report.text(target)) }
}

/// `hermes gateway uninstall`.
pub(super) async fn uninstall(home: Option<PathBuf>, args: UninstallArgs) -> Result<(), CliError> {
    uninstall::run(home, args).await
}

/// `hermes gateway adopt`.
pub(super) async fn adopt(home: Option<PathBuf>, args: JsonArgs) -> Result<(), CliError> {
    install::adopt(home, args).await
}

/// `hermes gateway start`: starts the installed service, and waits until the gateway is well.
pub(super) async fn start(home: Option<PathBuf>, args: StartArgs) -> Result<(), CliError> {
    let target = Target::of(args.scope, home, None).map_err(CliError::Service)?;
    let state = target.state(UNIT).await.map_err(CliError::Service)?;
    if !state.is_installed() {
        return Err(CliError::Service(ServiceError::NotInstalled { scope: target.layout.scope.name() }));
    }
    target.check_rights("start").map_err(CliError::Service)?;
    target.check_unit_home().map_err(CliError::Service)?;
    let file = target.loaded_file(&state).map_err(CliError::Service)?;
    if file == UnitFile::Outdated && !args.json.json {
        screen::complain("hint: the unit is of another version; `hermes gateway install` refreshes it");
    }
    let status = target.start().await.map_err(CliError::Service)?;
    if args.json.json {
        return screen::print_json(&Started { pid: status.pid, version: status.image.version, unit_file: file });
    }
    screen::print(&format!("the gateway runs {} (PID {})\n", status.image.version, status.pid))
}

/// Stops the unit that has started this gateway; nothing if none has, or it may not be stopped: then the gateway is
/// asked itself. With the unit, `Restart=always` does not start it again.
pub(super) async fn stop_unit_of(status: &Status) -> Option<()> {
    let env = Environment::from_process();
    for scope in [Scope::System, Scope::User] {
        let manager = Manager::new(scope, &env);
        let state = manager.state(UNIT).await;
        if state.is_ok_and(|state| state.main_pid == Some(status.pid)) {
            manager.order("stop", &[UNIT]).await.ok()?;
            for socket in UnitKind::SOCKETS.map(UnitKind::name) {
                if manager.state(socket).await.is_ok_and(|socket| socket.is_up()) {
                    let whose = if scope == Scope::User { " --user" } else { "" };
                    screen::complain(&format!(
                        "hint: {socket} is still open and starts it: `systemctl{whose} stop {socket}`"
                    ));
                }
            }
            return Some(());
        }
    }
    None
}

/// `hermes gateway list`: the services of this machine and this user, and the gateway on this home.
pub(super) async fn list(home: &Home, args: JsonArgs) -> Result<(), CliError> {
    let mut rows = Vec::new();
    for scope in [Scope::System, Scope::User] {
        let Ok(target) = Target::new(scope, None, None) else { continue };
        let Ok(state) = target.manager.state(UNIT).await else { continue };
        if state.is_installed() {
            let home = target.unit_home().ok().flatten().unwrap_or_else(|| target.layout.home.clone());
            rows.push(Listed { scope: Some(scope.name()), home, unit: Some(state), pid: None, version: None });
        }
    }
    let here = match home.connect().await {
        Ok(mut client) => super::handoff::status(&mut client).await.ok(),
        Err(_) => None,
    };
    let runs = |row: &Listed, pid| row.unit.as_ref().is_some_and(|unit| unit.main_pid == Some(pid));
    let here = here.filter(|status| !rows.iter().any(|row| runs(row, status.pid)));
    rows.extend(here.map(|status| Listed {
        scope: None,
        home: status.home.into(),
        unit: None,
        pid: Some(status.pid),
        version: Some(status.image.version),
    }));
    if args.json {
        return screen::print_json(&rows);
    }
    let text: String = rows.iter().map(list_row).collect();
    screen::print(if text.is_empty() { "no gateway is installed, and none runs here\n" } else { &text })
}

fn list_row(row: &Listed) -> String {
    let home = row.home.display();
    match (row.scope, &row.unit) {
        (Some(scope), Some(unit)) => {
            let pid = unit.main_pid.map(|pid| format!("  PID {pid}")).unwrap_or_default();
            format!("{scope} service  {home}  {}, {}{pid}\n", unit.active, unit.enabled)
        }
        _ => {
            let (pid, version) = (row.pid.unwrap_or_default(), row.version.as_deref().unwrap_or_default());
            format!("in the foreground  {home}  PID {pid} ({version})\n")
        }
    }
}
