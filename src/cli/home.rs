//! Where the gateway of this command line lives.

use std::path::{Path, PathBuf};

use super::error::CliError;
use crate::config::Environment;
use crate::control::client::{Client, ClientError};
use crate::service::layout::{SYSTEM_HOME, control_sockets};

/// Whether a command means the machine's service: for root, unless another home is named (by `--home` or
/// `HERMES_HOME`), or root has one of its own.
pub(super) fn means_the_machine(named: Option<&Path>, env: &Environment) -> bool {
    nix::unistd::geteuid().is_root()
        && match named {
            Some(home) => home == Path::new(SYSTEM_HOME),
            None => !env.user_home().join(".hermes").is_dir(),
        }
}

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
        let named = named.or_else(|| env.get("HERMES_HOME").map(PathBuf::from));
        let own = || env.get("HOME").map(|home| Path::new(home).join(".hermes"));
        let of_machine = || Path::new(SYSTEM_HOME).is_dir() && means_the_machine(None, env);
        let path = named.or_else(|| of_machine().then(|| PathBuf::from(SYSTEM_HOME))).or_else(own);
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
