//! Where the gateway of this command line lives.

use std::path::{Path, PathBuf};

use super::error::CliError;
use crate::config::Environment;
use crate::control::client::{Client, ClientError};
use crate::service::layout::{SYSTEM_HOME, control_sockets};

/// The gateway's home directory and the places its control socket may be in.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) path: PathBuf,
    sockets: Vec<PathBuf>,
}

impl Home {
    /// `named` (by `--home`), else `$HERMES_HOME`, else `~/.hermes`; an empty variable counts as unset. For root without
    /// a home of its own it is that of the system service, where there is one.
    ///
    /// # Errors
    /// [`CliError::NoHome`].
    pub(super) fn find(named: Option<PathBuf>, env: &Environment) -> Result<Self, CliError> {
        let path = named.or_else(|| env.get("HERMES_HOME").map(PathBuf::from));
        let own = || env.get("HOME").map(|home| Path::new(home).join(".hermes"));
        let path = path.or_else(|| {
            let of_system = nix::unistd::geteuid().is_root() && Path::new(SYSTEM_HOME).is_dir();
            own().filter(|own| !of_system || own.is_dir()).or_else(|| of_system.then(|| PathBuf::from(SYSTEM_HOME)))
        });
        Ok(Self::at(path.ok_or(CliError::NoHome)?, env))
    }

    /// The gateway of this home.
    pub(super) fn at(path: PathBuf, env: &Environment) -> Self {
        let sockets = control_sockets(env, &path);
        Self { path, sockets }
    }

    /// Connects to the first socket that a gateway listens on.
    ///
    /// # Errors
    /// Any error of [`Client::connect`], of the first socket that gives another reason than that nothing listens.
    pub(super) async fn connect(&self) -> Result<Client, ClientError> {
        let mut missing = ClientError::NotRunning { path: self.path.clone() };
        for path in &self.sockets {
            match Client::connect(path).await {
                Err(error @ ClientError::NotRunning { .. }) => missing = error,
                other => return other,
            }
        }
        Err(missing)
    }
}
