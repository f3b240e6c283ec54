//! Composes and runs everything.

use std::path::PathBuf;
use std::process::ExitCode;

/// What `hermes gateway run` was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// The home directory.
    pub home: PathBuf,
    /// The configuration file, if another than `gateway.toml` in the home directory.
    pub config: Option<PathBuf>,
}

/// Runs the gateway until it is stopped, and gives the process's exit code.
pub fn run(options: RunOptions) -> ExitCode {
    drop(options);
    ExitCode::FAILURE
}
