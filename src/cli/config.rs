//! `hermes config check`.

use std::path::PathBuf;

use serde::Serialize;

use super::args::ConfigCheckArgs;
use super::error::CliError;
use super::{owner, render, screen};
use crate::config::{Config, ConfigError, Environment, Home, Problem, Reader};

/// What is wrong with a file.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Checked {
    /// The file.
    pub(super) file: PathBuf,
    /// Whether it is there; if not, the defaults hold.
    pub(super) exists: bool,
    /// Whether the gateway would use it.
    pub(super) ok: bool,
    /// What is wrong, in the order of the file.
    pub(super) problems: Vec<Problem>,
}

/// Loads a configuration as the gateway would, with the environment of this process, and prints every problem.
///
/// # Errors
/// [`CliError::ConfigRefused`] if the gateway would refuse it; [`CliError::Config`] if it cannot be read at all.
pub(super) fn check(home: Option<PathBuf>, args: ConfigCheckArgs) -> Result<(), CliError> {
    let environment = Environment::from_process();
    let named = home.map(std::path::absolute).transpose();
    let named = named.map_err(|source| CliError::Io { what: "find the home", source })?;
    let home = super::home::Home::find(named, &environment)?.path;
    if args.file.is_none() {
        // What root may read tells nothing of what the gateway may.
        owner::step_down(&home)?;
    }
    let environment = environment.with("HERMES_HOME", home);
    let home = Home::resolve(&environment, args.file.as_deref()).map_err(CliError::ConfigHome)?;
    let file = home.config_file().to_owned();
    // What systemd starts has what the unit gives the gateway; whoever types this has not.
    let pid = std::process::id().to_string();
    let is_of_unit = environment.text("SYSTEMD_EXEC_PID") == Some(&pid);
    let reader = if is_of_unit { Reader::Gateway } else { Reader::Other };
    let (ok, problems) = match Config::check(&file, &environment, reader) {
        Ok((_, warnings)) => (true, warnings),
        Err(ConfigError::Invalid { problems, .. }) => (false, problems),
        Err(error) => return Err(CliError::Config(error)),
    };
    let checked = Checked { exists: file.exists(), file, ok, problems };
    if args.json.json {
        screen::print_json(&checked)?;
    } else {
        screen::print(&render::config_check(&checked))?;
    }
    if ok { Ok(()) } else { Err(CliError::ConfigRefused) }
}
