//! The directory of one gateway and the paths in it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::environment::Environment;

/// The most bytes in the path of a Unix socket: `sun_path` has 108 with the NUL at its end (unix(7)).
pub const SOCKET_PATH_MAX: usize = 107;

/// The file of the token that the gateway made for `[platforms.web]`, in its home.
pub const WEB_TOKEN_FILE: &str = "web-token";

/// Why there is no home.
#[derive(Debug, Error)]
pub enum HomeError {
    /// `HERMES_HOME` is relative, and would mean another directory for every caller.
    #[error("HERMES_HOME must be an absolute path, not '{path}'")]
    Relative {
        /// What it is set to.
        path: PathBuf,
    },
    /// The file of `--config` is not there. Only the file in the home may be missing.
    #[error("cannot find the configuration file {path}")]
    ConfigMissing {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The path of the control socket does not fit.
    #[error(
        "the path of the control socket, {path}, has {} bytes, and a Unix socket allows {SOCKET_PATH_MAX}; \
         choose a shorter HERMES_HOME",
        path.as_os_str().len()
    )]
    SocketPathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// The directory cannot be made.
    #[error("cannot create {path}")]
    Create {
        /// The directory.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

/// Where everything of one gateway lies. Paths only; nothing is created before [`Home::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
    config: PathBuf,
    control_sock: PathBuf,
}

impl Home {
    /// Finds the home: `HERMES_HOME`, else `.hermes` in the user's home directory. `config` is the file of
    /// `--config`, if given; it must be there. A relative one is made absolute, because the image after a handoff
    /// must find the same file.
    ///
    /// The control socket is in `$RUNTIME_DIRECTORY` under systemd, else in the home. Who looks for the socket of a
    /// running gateway asks `gateway_state.json` first, since the client does not have the variables of the service.
    ///
    /// # Errors
    /// [`HomeError::Relative`], [`HomeError::ConfigMissing`], [`HomeError::SocketPathTooLong`].
    pub fn resolve(env: &Environment, config: Option<&Path>) -> Result<Self, HomeError> {
        let root = env.get("HERMES_HOME").map_or_else(|| env.user_home().join(".hermes"), PathBuf::from);
        if !root.is_absolute() {
            return Err(HomeError::Relative { path: root });
        }
        let config = match config {
            Some(path) => std::path::absolute(path)
                .and_then(|absolute| absolute.metadata().map(|_| absolute))
                .map_err(|source| HomeError::ConfigMissing { path: path.to_owned(), source })?,
            None => root.join("gateway.toml"),
        };
        let control_sock = env.directory("RUNTIME_DIRECTORY").unwrap_or_else(|| root.clone()).join("control.sock");
        if control_sock.as_os_str().as_bytes().len() > SOCKET_PATH_MAX {
            return Err(HomeError::SocketPathTooLong { path: control_sock });
        }
        Ok(Self { root, config, control_sock })
    }

    /// Makes the directory, for its user alone (mode 0700). One that is there already is left as it is.
    ///
    /// # Errors
    /// [`HomeError::Create`].
    pub fn create(&self) -> Result<(), HomeError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(|source| HomeError::Create { path: self.root.clone(), source })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// `gateway.toml`, or the file of `--config`.
    pub fn config_file(&self) -> &Path {
        &self.config
    }

    /// The database.
    pub fn state_db(&self) -> PathBuf {
        self.root.join("state.db")
    }

    /// The files in the answers of agents, a directory for each turn.
    pub fn outgoing(&self) -> PathBuf {
        self.root.join("attachments").join("out")
    }

    /// What the gateway says about itself to other programs.
    pub fn state_json(&self) -> PathBuf {
        self.root.join("gateway_state.json")
    }

    /// Which process the gateway is, for other programs. The [lock](Home::lock) says whether it runs.
    pub fn pid_file(&self) -> PathBuf {
        self.root.join("gateway.pid")
    }

    /// The lock that makes the gateway the only one on this home.
    pub fn lock(&self) -> PathBuf {
        self.root.join("gateway.lock")
    }

    /// The installed images, `versions/<version>/hermes`.
    pub fn versions(&self) -> PathBuf {
        self.root.join("versions")
    }

    /// Files that people sent, `attachments/<message>/<file>`.
    pub fn attachments(&self) -> PathBuf {
        self.root.join("attachments")
    }

    /// The token of `[platforms.web]` that the gateway made.
    pub fn web_token(&self) -> PathBuf {
        self.root.join(WEB_TOKEN_FILE)
    }

    /// Where the gateway listens for `hermes gateway …`; at most [`SOCKET_PATH_MAX`] bytes.
    pub fn control_sock(&self) -> &Path {
        &self.control_sock
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::report::Chain;

    fn resolve(variables: &[(&str, &str)]) -> Result<Home, HomeError> {
        Home::resolve(&variables.iter().copied().collect(), None)
    }

    #[test]
    fn the_home_is_hermes_home_or_below_the_users() {
        let home = resolve(&[("HOME", "/u/kim")]).expect("a home");
        assert_eq!(home.path(), Path::new("/u/kim/.hermes"));
        assert_eq!(home.config_file(), Path::new("/u/kim/.hermes/gateway.toml"));
        assert_eq!(home.control_sock(), Path::new("/u/kim/.hermes/control.sock"));
        let home = resolve(&[("HOME", "/u/kim"), ("HERMES_HOME", "/srv/h")]).expect("a home");
        assert_eq!(home.state_db(), Path::new("/srv/h/state.db"));
        assert_eq!(home.state_json(), Path::new("/srv/h/gateway_state.json"));
        assert_eq!(home.lock(), Path::new("/srv/h/gateway.lock"));
        assert_eq!(home.versions(), Path::new("/srv/h/versions"));
    }

    #[test]
    fn under_systemd_the_socket_is_in_the_runtime_directory() {
        let home = resolve(&[("HERMES_HOME", "/var/lib/hermes"), ("RUNTIME_DIRECTORY", "/run/hermes:/run/other")]);
        assert_eq!(home.expect("a home").control_sock(), Path::new("/run/hermes/control.sock"));
    }

    #[test]
    fn what_cannot_be_a_home_is_told() {
        let told = |result: Result<Home, HomeError>| Chain(&result.expect_err("no home")).to_string();
        assert_eq!(told(resolve(&[("HERMES_HOME", "h")])), "HERMES_HOME must be an absolute path, not 'h'");
        let fits = format!("/{}", "x".repeat(SOCKET_PATH_MAX - "//control.sock".len()));
        assert!(resolve(&[("HERMES_HOME", &fits)]).is_ok());
        let long = format!("{fits}x");
        let message = told(resolve(&[("HERMES_HOME", &long)]));
        assert!(
            message.ends_with("has 108 bytes, and a Unix socket allows 107; choose a shorter HERMES_HOME"),
            "{message}"
        );
        let missing = Home::resolve(&[("HOME", "/")].into_iter().collect(), Some(Path::new("/no/such.toml")));
        assert_eq!(
            told(missing),
            "cannot find the configuration file /no/such.toml: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn the_directory_is_for_its_user_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("a/b");
        let home = resolve(&[("HERMES_HOME", root.to_str().expect("text"))]).expect("a home");
        home.create().expect("made");
        home.create().expect("already there");
        assert_eq!(root.metadata().expect("there").permissions().mode() & 0o7777, 0o700);
    }
}
