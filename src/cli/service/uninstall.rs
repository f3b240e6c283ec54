//! `hermes gateway uninstall`.

use std::fs;
use std::io::{self, ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::UninstallArgs;
use super::error::ServiceError;
use super::target::Target;
use crate::cli::error::CliError;
use crate::cli::{screen, update};
use crate::service::layout::{LAUNCHER, SYSTEM_USER};
use crate::service::lock::{Holder, Lock};
use crate::service::manager::{ManagerError, Scope};
use crate::service::unit_file::{UnitFile, UnitKind};

/// What a gateway's home has, by which it is known; each of them is enough.
const OF_A_HOME: [&str; 4] = ["versions", "state.db", "gateway.lock", "gateway.toml"];

/// What was removed, and what was not.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Report {
    scope: &'static str,
    removed: Vec<PathBuf>,
    kept: Vec<PathBuf>,
}

/// Stops the service and removes what `install` has put there; with `--purge` the home, too.
pub(super) async fn run(home: Option<PathBuf>, args: UninstallArgs) -> Result<(), CliError> {
    let target = Target::of(args.scope, home, None).map_err(CliError::Service)?;
    target.check_rights("remove").map_err(CliError::Service)?;
    target.check_unit_home().map_err(CliError::Service)?;
    let files = files(&target, args.force).map_err(CliError::Service)?;
    if let Some(package) = &target.package {
        if files.is_empty() || args.purge {
            return Err(CliError::Service(ServiceError::Packaged { package: package.name.clone() }));
        }
        let report = uncover(&target, &files).await.map_err(CliError::Service)?;
        return tell(&target, &report, args);
    }
    let home = target.layout.home.clone();
    if files.is_empty() && !(args.purge && home.is_dir()) {
        return Err(CliError::Service(ServiceError::NotInstalled { scope: target.layout.scope.name() }));
    }
    if args.purge {
        check_home(&target).map_err(CliError::Service)?;
        if !args.yes && io::stdin().is_terminal() && io::stderr().is_terminal() {
            update::confirm(&format!("Remove {} with everything in it? [Y/n] ", home.display()))?;
        } else if !args.yes {
            return Err(CliError::Usage("--purge removes all data: say --yes, too".to_owned()));
        }
    }
    let mut report = Report { scope: target.layout.scope.name(), ..Report::default() };
    stop(&target, &files).await.map_err(CliError::Service)?;
    if args.purge {
        check_unused(&home).map_err(CliError::Service)?;
    }
    remove(&target, &files, args.purge, &mut report).map_err(CliError::Service)?;
    match target.manager.reload_units().await {
        Ok(()) | Err(ManagerError::None { .. }) => {}
        Err(error) => return Err(CliError::Service(ServiceError::Manager(error))),
    }
    tell(&target, &report, args)
}

/// The installed unit files. Somebody else's are refused.
fn files(target: &Target, force: bool) -> Result<Vec<UnitKind>, ServiceError> {
    let mut files = Vec::new();
    for kind in UnitKind::ALL {
        match target.unit_file(kind)? {
            UnitFile::Missing => {}
            // Who overrides a package's unit by hand has a reason.
            UnitFile::Foreign if target.package.is_some() => {}
            UnitFile::Foreign if !force => {
                return Err(ServiceError::NotOurs {
                    path: kind.path(&target.layout),
                    what: "was not written by hermes",
                });
            }
            _ => files.push(kind),
        }
    }
    Ok(files)
}

/// Stops the sockets first, or they would start the gateway again, and takes all out of what starts by itself.
async fn stop(target: &Target, files: &[UnitKind]) -> Result<(), ServiceError> {
    let names: Vec<&str> = files.iter().rev().map(|kind| kind.name()).collect();
    for verb in ["stop", "disable"] {
        match target.manager.order(verb, &names).await {
            Ok(()) | Err(ManagerError::None { .. }) => {}
            Err(error) => return Err(ServiceError::Manager(error)),
        }
    }
    Ok(())
}

/// A gateway in the foreground is none of the service's, and would go on without its files.
fn check_unused(home: &Path) -> Result<(), ServiceError> {
    let lock = home.join("gateway.lock");
    match Lock::holder(&lock) {
        Ok(None) => Ok(()),
        Ok(Some(Holder { pid })) => Err(ServiceError::InUse { home: home.to_owned(), pid }),
        Err(error) => Err(ServiceError::io("look at", lock)(io::Error::other(error))),
    }
}

/// Removes what an earlier `install` has left in front of a package's files. The gateway goes on, and the package's unit
/// is what it is of; the operator's drop-ins are for that, too.
async fn uncover(target: &Target, files: &[UnitKind]) -> Result<Report, ServiceError> {
    let mut report = Report { scope: target.layout.scope.name(), ..Report::default() };
    for kind in files {
        remove_file(&kind.path(&target.layout), &mut report)?;
    }
    remove_launcher(target, &mut report)?;
    target.manager.reload_units().await.map_err(ServiceError::Manager)?;
    // What starts them with the machine were links to the files that are gone.
    let names: Vec<&str> = files.iter().map(|kind| kind.name()).collect();
    target.manager.order("reenable", &names).await.map_err(ServiceError::Manager)?;
    Ok(report)
}

fn remove_launcher(target: &Target, report: &mut Report) -> Result<(), ServiceError> {
    let launcher = &target.layout.launcher;
    remove_file(launcher, report)?;
    if let Some(directory) = launcher.parent() {
        // One that others use is not empty, and stays.
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

fn remove(target: &Target, files: &[UnitKind], purge: bool, report: &mut Report) -> Result<(), ServiceError> {
    for kind in files {
        let path = kind.path(&target.layout);
        remove_file(&path, report)?;
        // What the operator added is kept as their data are.
        let mut drop_ins = path.into_os_string();
        drop_ins.push(".d");
        let drop_ins = PathBuf::from(drop_ins);
        if drop_ins.is_dir() {
            if purge { remove_tree(&drop_ins, report)? } else { report.kept.push(drop_ins) }
        }
    }
    remove_launcher(target, report)?;
    // Directories that were made for these files; one that others use is not empty, and stays.
    let of_user = target.layout.units.ancestors().filter(|path| *path != target.env.user_home());
    let of_user = of_user.filter(|path| path.starts_with(target.env.user_home()) && target.layout.scope == Scope::User);
    for directory in of_user {
        let _ = fs::remove_dir(directory);
    }
    let home = &target.layout.home;
    if home.is_dir() {
        if purge { remove_tree(home, report)? } else { report.kept.push(home.clone()) }
    }
    Ok(())
}

/// A slip in `HERMES_HOME` must not cost anybody their files.
fn check_home(target: &Target) -> Result<(), ServiceError> {
    let home = &target.layout.home;
    let known = OF_A_HOME.iter().any(|name| home.join(name).exists());
    let somebodys = home == Path::new("/") || target.env.user_home().starts_with(home);
    if !home.exists() || (known && !somebodys) { Ok(()) } else { Err(ServiceError::NotAHome { home: home.clone() }) }
}

fn remove_file(path: &Path, report: &mut Report) -> Result<(), ServiceError> {
    match fs::remove_file(path) {
        Ok(()) => report.removed.push(path.to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(ServiceError::io("remove", path)(error)),
    }
    Ok(())
}

fn remove_tree(path: &Path, report: &mut Report) -> Result<(), ServiceError> {
    fs::remove_dir_all(path).map_err(ServiceError::io("remove", path))?;
    report.removed.push(path.to_owned());
    Ok(())
}

fn tell(target: &Target, report: &Report, args: UninstallArgs) -> Result<(), CliError> {
    if args.json.json {
        return screen::print_json(report);
    }
    let mut text = String::new();
    for path in &report.removed {
        text += &format!("removed {}\n", path.display());
    }
    for path in &report.kept {
        text += &format!("kept {} (--purge removes it)\n", path.display());
    }
    let program = std::env::current_exe().unwrap_or_default();
    text += &format!("this program stays: {}", program.display());
    let beside = program.with_file_name(LAUNCHER);
    if beside.exists() {
        text += &format!(" and {}", beside.display());
    }
    text.push('\n');
    // Another user is somebody's.
    if args.purge && target.layout.user.as_deref() == Some(SYSTEM_USER) {
        text +=
            &format!("the user {SYSTEM_USER} stays, because files elsewhere may be theirs: userdel {SYSTEM_USER}\n");
    }
    screen::print(&text)
}
