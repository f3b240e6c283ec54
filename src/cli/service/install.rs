//! `hermes gateway install` and `adopt`.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::User;
use serde::Serialize;

use super::args::{InstallArgs, ScopeArgs};
use super::error::ServiceError;
use super::image::{self, Placed};
use super::target::Target;
use crate::cli::args::JsonArgs;
use crate::cli::error::CliError;
use crate::cli::{ctl, files, screen};
use crate::control::proto::{HandoffKind, HandoffParams, Status};
use crate::service::layout::{LAUNCHER, SYSTEM_HOME, SYSTEM_USER};
use crate::service::manager::{Scope, UNIT};
use crate::service::package::PACKAGE_LAUNCHER;
use crate::service::unit_file::{self, UnitFile, UnitKind};

/// What an installation has done.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Report {
    scope: &'static str,
    home: PathBuf,
    unit: PathBuf,
    /// What the unit file was before.
    unit_was: UnitFile,
    version: String,
    /// The gateway's process; nothing with `--no-start`.
    pid: Option<u32>,
    /// How the gateway got its image: `started`, `handed_off`, `unchanged`, or `not_started`.
    outcome: &'static str,
    /// Whether a user's service goes on after they log out; nothing for the system's.
    linger: Option<bool>,
    /// Enabled socket units that do not listen before the gateway's next start: systemd gives none to one that runs.
    sockets_at_next_start: Vec<&'static str>,
}

/// Installs or refreshes the service, and waits until the gateway is well.
pub(super) async fn run(home: Option<PathBuf>, args: InstallArgs) -> Result<(), CliError> {
    let target = Target::of(args.scope, home, args.run_as_user.as_deref()).map_err(CliError::Service)?;
    let report = into(&target, &args).await?;
    if args.json.json { screen::print_json(&report) } else { screen::print(&report.text(&target)) }
}

/// As [`run`], for a service whose places are known; tells nothing but how a handoff goes.
pub(super) async fn into(target: &Target, args: &InstallArgs) -> Result<Report, CliError> {
    target.check_rights("install").map_err(CliError::Service)?;
    // Everything that may refuse comes before anything is written.
    let state = target.state(UNIT).await.map_err(CliError::Service)?;
    target.check_unit_home().map_err(CliError::Service)?;
    let kinds = kinds(args);
    check_files(target, &kinds, args.force).map_err(CliError::Service)?;
    // A package's file is what is loaded, and nothing is written to where an operator's would be.
    let loaded = state.file.clone().filter(|_| target.package.is_some());
    let unit_was = match &loaded {
        Some(_) => target.loaded_file(&state),
        None => target.unit_file(UnitKind::Gateway),
    };
    let unit_was = unit_was.map_err(CliError::Service)?;
    let launcher = find_launcher(target).map_err(CliError::Service)?;
    let running = target.running().await?;

    let placed = prepare(target, launcher.as_deref(), &kinds).await.map_err(CliError::Service)?;
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let manager = |error| CliError::Service(ServiceError::Manager(error));
    target.manager.reload_units().await.map_err(manager)?;
    target.manager.order("enable", &names).await.map_err(manager)?;
    let (status, outcome) = match running {
        Some(status) => take_over(target, status, &placed, args.json).await?,
        None if args.no_start => (None, "not_started"),
        None => (Some(target.start().await.map_err(CliError::Service)?), "started"),
    };
    let sockets_at_next_start = match status {
        Some(_) => target.closed_sockets().await.map_err(CliError::Service)?,
        None => Vec::new(),
    };
    Ok(Report {
        scope: target.layout.scope.name(),
        home: target.layout.home.clone(),
        unit: loaded.unwrap_or_else(|| UnitKind::Gateway.path(&target.layout)),
        unit_was,
        version: placed.version,
        pid: status.map(|status| status.pid),
        outcome,
        linger: (target.layout.scope == Scope::User).then(lingers),
        sockets_at_next_start,
    })
}

/// Puts this program into the home, and lets a gateway that runs there become it. What a package does when it was
/// upgraded.
pub(super) async fn adopt(home: Option<PathBuf>, json: JsonArgs) -> Result<(), CliError> {
    let target = Target::of(ScopeArgs::default(), home, None).map_err(CliError::Service)?;
    let home = &target.layout.home;
    make_home(&target).map_err(CliError::Service)?;
    let placed = image::place(home).await.map_err(CliError::Service)?;
    if !placed.is_running {
        let told = format!("{} is what starts next on {}\n", placed.version, home.display());
        return if json.json { screen::print_json(&placed) } else { screen::print(&told) };
    }
    let (_, outcome) = take_over_running(&target, &placed, json).await?;
    if json.json { screen::print_json(&placed) } else { screen::print(&format!("{} {outcome}\n", placed.version)) }
}

async fn take_over_running(
    target: &Target,
    placed: &Placed,
    json: JsonArgs,
) -> Result<(Option<Status>, &'static str), CliError> {
    let home = target.home();
    let mut client = ctl::connect(&home).await?;
    let status = crate::cli::handoff::status(&mut client).await;
    let status = status.map_err(|error| CliError::client(error, &home.path))?;
    take_over(target, status, placed, json).await
}

/// Lets the running gateway become the placed image, in place.
async fn take_over(
    target: &Target,
    status: Status,
    placed: &Placed,
    json: JsonArgs,
) -> Result<(Option<Status>, &'static str), CliError> {
    let status = target.measured(status).await?;
    if status.image.sha256 == placed.sha256 {
        return Ok((Some(status), "unchanged"));
    }
    let kind = HandoffKind::Installed { version: placed.version.clone() };
    let params = HandoffParams { kind, force: false, reason: Some("installed".to_owned()) };
    let (report, _) = ctl::hand_off(&target.home(), &params, json).await?;
    Ok((Some(Status { pid: report.pid, ..status }), "handed_off"))
}

fn kinds(args: &InstallArgs) -> Vec<UnitKind> {
    let is_asked_for = |kind: &UnitKind| match kind {
        UnitKind::Gateway => true,
        UnitKind::Socket => args.socket,
        UnitKind::Webhook => args.webhook,
        UnitKind::Web => args.web,
    };
    UnitKind::ALL.into_iter().filter(is_asked_for).collect()
}

/// Refuses files that are not ours to replace.
fn check_files(target: &Target, kinds: &[UnitKind], force: bool) -> Result<(), ServiceError> {
    for &kind in kinds {
        let refused = match target.unit_file(kind)? {
            UnitFile::Edited => Some("was changed by hand"),
            UnitFile::Foreign => Some("was not written by hermes"),
            UnitFile::Missing | UnitFile::Current | UnitFile::Outdated => None,
        };
        if let Some(what) = refused.filter(|_| !force) {
            return Err(ServiceError::NotOurs { path: kind.path(&target.layout), what });
        }
    }
    Ok(())
}

/// The launcher beside this program; nothing if one is installed and there is none here, or a package has it.
fn find_launcher(target: &Target) -> Result<Option<PathBuf>, ServiceError> {
    if target.package.is_some() {
        return Ok(None);
    }
    let program = std::env::current_exe().map_err(ServiceError::io("find", "this program"))?;
    let beside = program.with_file_name(LAUNCHER);
    let found = [beside.as_path(), Path::new(PACKAGE_LAUNCHER)].into_iter().find(|path| path.is_file());
    match found {
        None if target.layout.launcher.is_file() => Ok(None),
        None => Err(ServiceError::NoLauncher { looked: beside }),
        Some(path) => Ok(Some(path.to_owned())),
    }
}

/// User, home, launcher, image and unit files, in the order in which one needs the other.
async fn prepare(target: &Target, launcher: Option<&Path>, kinds: &[UnitKind]) -> Result<Placed, ServiceError> {
    make_home(target)?;
    if let Some(from) = launcher {
        let bytes = fs::read(from).map_err(ServiceError::io("read", from))?;
        replace(&target.layout.launcher, &bytes, 0o755)?;
    }
    let placed = image::place(&target.layout.home).await?;
    if target.package.is_none() {
        for &kind in kinds {
            let text = unit_file::text(kind, &target.layout, &target.env);
            replace(&kind.path(&target.layout), text.as_bytes(), 0o644)?;
        }
    }
    Ok(placed)
}

/// The user of the system service. Only the usual one is created: another one is somebody's.
fn make_user(name: &str) -> Result<User, ServiceError> {
    let known = || User::from_name(name).ok().flatten();
    if let Some(user) = known() {
        return Ok(user);
    }
    if name == SYSTEM_USER {
        let line = format!("u {SYSTEM_USER} - \"Hermes Agent Gateway\" {SYSTEM_HOME}");
        let sysusers = Command::new("systemd-sysusers").args(["--inline", &line]).output();
        if !sysusers.is_ok_and(|output| output.status.success()) {
            let words = ["--system", "--user-group", "--home-dir", SYSTEM_HOME, "--shell", "/usr/sbin/nologin", name];
            let made = Command::new("useradd").args(words).output();
            made.map_err(ServiceError::io("run", "useradd"))?;
        }
    }
    known().ok_or_else(|| ServiceError::NoUser { user: name.to_owned() })
}

/// The user and the home, for that user alone. What is there is left as it is, and must be that user's.
pub(in crate::cli) fn make_home(target: &Target) -> Result<(), ServiceError> {
    let home = &target.layout.home;
    let Some(name) = &target.layout.user else {
        return files::make_home(home).map_err(ServiceError::io("create", home));
    };
    let user = make_user(name)?;
    if home.is_dir() {
        let owner = fs::metadata(home).map_err(ServiceError::io("look at", home))?.uid();
        if owner != user.uid.as_raw() {
            return Err(ServiceError::OtherHome { home: home.clone(), user: user.name });
        }
        return Ok(());
    }
    files::make_home(home).map_err(ServiceError::io("create", home))?;
    chown(home, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(ServiceError::io("give away", home))
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ServiceError> {
    files::install(path, bytes, mode).map_err(ServiceError::io("write", path))
}

/// Whether the user's manager goes on without a login (loginctl(1), `enable-linger`).
fn lingers() -> bool {
    let user = User::from_uid(nix::unistd::getuid()).ok().flatten();
    user.is_some_and(|user| Path::new("/var/lib/systemd/linger").join(user.name).exists())
}

impl Report {
    /// For people.
    pub(super) fn text(&self, target: &Target) -> String {
        let unit = self.unit.display();
        let mut text = match self.unit_was {
            _ if target.package.is_some() && self.unit.starts_with(&target.layout.units) => {
                format!(
                    "{unit} of an earlier installation hides the package's: `hermes gateway uninstall` removes it\n"
                )
            }
            _ if target.package.is_some() => format!("{UNIT} is the package's\n"),
            UnitFile::Missing => format!("{UNIT} installed as {unit}\n"),
            UnitFile::Current => format!("{UNIT} was already {unit}\n"),
            UnitFile::Outdated | UnitFile::Edited | UnitFile::Foreign => format!("{UNIT} refreshed in {unit}\n"),
        };
        let pid = self.pid.map(|pid| format!(" (PID {pid})")).unwrap_or_default();
        let version = &self.version;
        text += &match self.outcome {
            "started" => format!("the gateway runs {version}{pid}\n"),
            "handed_off" => format!("the running gateway has become {version}, in the same process{pid}\n"),
            "unchanged" => format!("the gateway runs {version} already{pid}\n"),
            _ => format!("{version} is what starts next: `hermes gateway start`\n"),
        };
        let home = self.home.display();
        text += &format!("its home is {home}, its configuration {home}/gateway.toml\n");
        for socket in &self.sockets_at_next_start {
            text +=
                &format!("{socket} listens from the gateway's next start on: `hermes gateway stop`, then `start`\n");
        }
        if self.linger == Some(false) {
            text += "it ends when you log out: `loginctl enable-linger` keeps it running\n";
        }
        text
    }
}
