//! Which image starts, and the boots of one on trial.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::candidates::{Candidate, candidates};
use crate::slots::{Failed, Slots, Trial};
use crate::{chain, home, image, say};

/// Becomes the image that is to run. Returns only if there is none.
pub fn start(args: &[OsString]) -> ExitCode {
    let Some(home) = home::home(|name| env::var_os(name)) else {
        say(format_args!("neither HERMES_HOME nor HOME is an absolute path, so there is nothing to start"));
        return ExitCode::FAILURE;
    };
    let versions = home.join("versions");
    let mut slots = read(&versions);
    let unwanted = try_trial(&versions, &mut slots, args);
    let mut tried = Vec::new();
    for candidate in candidates(&versions, &slots, unwanted.as_deref()) {
        let why = become_image(&versions, &candidate, args);
        say(format_args!("{} is not started: {why}", candidate.name));
        tried.push(candidate.name);
    }
    let tried = if tried.is_empty() { "no version is there".to_owned() } else { format!("tried {}", tried.join(", ")) };
    say(format_args!("no image in {} can be started ({tried}): install one there", versions.display()));
    ExitCode::FAILURE
}

/// The slots, or none: then everything that is there is a candidate.
fn read(versions: &Path) -> Slots {
    match Slots::read(versions) {
        Ok(Some(slots)) => slots,
        Ok(None) => {
            say(format_args!("there are no slots in {}: starting what is current", versions.display()));
            Slots::default()
        }
        Err(error) => {
            say(format_args!("{}: starting what is current", chain(&error)));
            Slots::default()
        }
    }
}

/// Becomes the image on trial, if there is one with boots left and the boot can be counted. Otherwise returns its
/// version, which is to come last, and the slots say whether it failed.
fn try_trial(versions: &Path, slots: &mut Slots, args: &[OsString]) -> Option<String> {
    let trial = slots.trial.take()?;
    let version = trial.version.clone();
    let Some(boots_left) = trial.boots_left.checked_sub(1) else {
        fail(versions, slots, &version, "it was started as often as a trial may be, and did not come up to stay");
        return Some(version);
    };
    // Counted before, or an image that crashes at once would be started for ever.
    slots.trial = Some(Trial { version: version.clone(), boots_left });
    if let Err(error) = slots.write(versions) {
        say(format_args!("{version}, on trial, is not started, because its boot cannot be counted: {}", chain(&error)));
        return Some(version);
    }
    say(format_args!("{version} is on trial and may be started {boots_left} more times"));
    let why = become_image(versions, &Candidate { name: version.clone(), why: "on trial" }, args);
    slots.trial = None;
    fail(versions, slots, &version, &format!("it cannot be executed: {why}"));
    Some(version)
}

/// Notes that a trial failed, if it can be noted.
fn fail(versions: &Path, slots: &mut Slots, version: &str, reason: &str) {
    say(format_args!("{version} failed its trial: {reason}"));
    slots.failed = Some(Failed { version: version.to_owned(), reason: reason.to_owned() });
    if let Err(error) = slots.write(versions) {
        say(format_args!("it cannot be noted that {version} failed: {}", chain(&error)));
    }
}

/// Executes an image in this process. Returns why it cannot be.
fn become_image(versions: &Path, candidate: &Candidate, args: &[OsString]) -> String {
    let path = candidate.path(versions);
    if let Some(defect) = image::defect(&path) {
        return defect.to_owned();
    }
    say(format_args!("starting {} ({})", candidate.name, candidate.why));
    Command::new(&path).arg0("hermes").args(args).exec().to_string()
}
