//! Where the gateway of this command line lives.

use std::env;
use std::path::{Path, PathBuf};

use super::error::CliError;
use crate::control::client::{Client, ClientError};

/// The control socket's name.
const SOCKET: &str = "control.sock";
/// The home of the system service, and where its unit's RuntimeDirectory= puts the socket.
const SYSTEM_SERVICE: (&str, &str) = ("/var/lib/hermes", "/run/hermes");

/// The gateway's home directory and the places its control socket may be in.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) path: PathBuf,
    sockets: Vec<PathBuf>,
}

impl Home {
    /// `named` (by `--home`), else `$HERMES_HOME`, else `~/.hermes`; an empty variable counts as unset.
    ///
    /// # Errors
    /// [`CliError::NoHome`].
    pub(super) fn find(named: Option<PathBuf>) -> Result<Self, CliError> {
        let non_empty = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = named
            .or_else(|| non_empty("HERMES_HOME"))
            .or_else(|| non_empty("HOME").map(|home| home.join(".hermes")))
            .ok_or(CliError::NoHome)?;
        Ok(Self::at(path, non_empty("RUNTIME_DIRECTORY")))
    }

    fn at(path: PathBuf, runtime_directory: Option<PathBuf>) -> Self {
        let system = (path == Path::new(SYSTEM_SERVICE.0)).then(|| PathBuf::from(SYSTEM_SERVICE.1));
        // An agent of the gateway inherits RUNTIME_DIRECTORY from its unit.
        let dirs = [runtime_directory, Some(path.clone()), system];
        let sockets = dirs.into_iter().flatten().map(|dir| dir.join(SOCKET)).collect();
        Self { path, sockets }
    }

    /// Connects to the first socket that a gateway listens on.
    ///
    /// # Errors
    /// Any error of [`Client::connect`], of the first socket that gives another reason than that nothing listens.
    pub(super) async fn connect(&self) -> Result<Client, ClientError> {
        let mut missing = ClientError::NotRunning { path: self.path.join(SOCKET) };
        for path in &self.sockets {
            match Client::connect(path).await {
                Err(error @ ClientError::NotRunning { .. }) => missing = error,
                other => return other,
            }
        }
        Err(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_looked_for_where_the_gateway_may_have_put_it() {
        let home = Home::at("/var/lib/hermes".into(), Some("/run/x".into()));
        let expected = ["/run/x/control.sock", "/var/lib/hermes/control.sock", "/run/hermes/control.sock"];
        assert_eq!(home.sockets, expected.map(PathBuf::from));
        assert_eq!(Home::at("/h".into(), None).sockets, [PathBuf::from("/h/control.sock")]);
    }
}
