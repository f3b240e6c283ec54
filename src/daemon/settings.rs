//! What a command that does the gateway's work without being one has to know first: whose it is, and how it is set up.

use std::io;
use std::path::Path;

use thiserror::Error;

use crate::config::{Config, ConfigError, Environment, Home, HomeError, Reader};

/// Why it is not known.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The path that was given means nothing: there is no working directory.
    #[error("no home directory")]
    NoHome(#[source] io::Error),
    /// The home is not usable.
    #[error("no usable home directory")]
    Home(#[source] HomeError),
    /// The configuration is wrong.
    #[error("cannot use the configuration")]
    Config(#[source] ConfigError),
}

/// The home and the configuration as a gateway with these options would have them, as far as `reader` knows.
///
/// # Errors
/// [`SettingsError`].
pub(super) fn read(
    home: Option<&Path>,
    config: Option<&Path>,
    reader: Reader,
) -> Result<(Home, Config), SettingsError> {
    let environment = environment(home).map_err(SettingsError::NoHome)?;
    let home = Home::resolve(&environment, config).map_err(SettingsError::Home)?;
    let (config, _) = Config::check(home.config_file(), &environment, reader).map_err(SettingsError::Config)?;
    Ok((home, config))
}

/// The environment of this process with the home that was asked for.
///
/// # Errors
/// As [`std::path::absolute`].
pub(super) fn environment(home: Option<&Path>) -> io::Result<Environment> {
    let environment = Environment::from_process();
    let Some(home) = home else { return Ok(environment) };
    Ok(environment.with("HERMES_HOME", std::path::absolute(home)?))
}
