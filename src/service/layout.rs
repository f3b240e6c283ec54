//! Where everything of an installed gateway lies, in each scope.
//!
//! | | system | user |
//! |---|---|---|
//! | unit files | `/etc/systemd/system` | `~/.config/systemd/user` |
//! | launcher | `/usr/local/lib/hermes/hermes-launch` | `<home>/bin/hermes-launch` |
//! | home | `/var/lib/hermes` | `~/.hermes`, or `HERMES_HOME` |
//! | runtime directory | `/run/hermes` | `$XDG_RUNTIME_DIR/hermes` |
//!
//! A package has its own places for the unit files and the launcher, see [`super::package`].

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User, geteuid, getuid};
use thiserror::Error;

use super::manager::Scope;
use crate::config::Environment;

/// The home of the system service.
pub const SYSTEM_HOME: &str = "/var/lib/hermes";
/// The user of the system service, unless another one is named.
pub const SYSTEM_USER: &str = "hermes";
/// The launcher's name.
pub const LAUNCHER: &str = "hermes-launch";

const SYSTEM_UNITS: &str = "/etc/systemd/system";
const SYSTEM_LAUNCHER: &str = "/usr/local/lib/hermes/hermes-launch";
const SYSTEM_RUNTIME: &str = "/run/hermes";
/// Where `dist/hermes-gateway.socket` listens.
const SYSTEM_SOCKET: &str = "/run/hermes-gateway.sock";
const CONTROL_SOCKET: &str = "control.sock";
/// The runtime directory of the default home, below `$XDG_RUNTIME_DIR`.
const RUNTIME: &str = "hermes";

/// Why there is no layout.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// A path would have to be quoted in a unit file.
    #[error("{} cannot stand in a unit file: only A-Z, a-z, 0-9 and /._@+- can", path.display())]
    Characters {
        /// The path.
        path: PathBuf,
    },
    /// The home of the system service is where its unit says.
    #[error("the system service has its home in {SYSTEM_HOME}, and not in {}", home.display())]
    OtherHome {
        /// The home that was asked for.
        home: PathBuf,
    },
}

/// The places of one installed gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whose service manager runs it.
    pub scope: Scope,
    /// The gateway's home.
    pub home: PathBuf,
    /// Where unit files of the operator are.
    pub units: PathBuf,
    /// What the unit starts.
    pub launcher: PathBuf,
    /// The user it runs as, if the unit says so.
    pub user: Option<String>,
    /// `RuntimeDirectory=` of the unit.
    pub runtime: String,
}

impl Layout {
    /// The system service that runs as `user`; without one as whose its home is, or as [`SYSTEM_USER`] where it has none.
    /// `home`, if named, must be its own.
    ///
    /// # Errors
    /// [`LayoutError::OtherHome`].
    pub fn system(user: Option<&str>, home: Option<&Path>) -> Result<Self, LayoutError> {
        match home {
            Some(home) if home != Path::new(SYSTEM_HOME) => Err(LayoutError::OtherHome { home: home.to_owned() }),
            _ => Ok(Self {
                scope: Scope::System,
                home: PathBuf::from(SYSTEM_HOME),
                units: PathBuf::from(SYSTEM_UNITS),
                launcher: PathBuf::from(SYSTEM_LAUNCHER),
                user: Some(user.map_or_else(|| owner(Path::new(SYSTEM_HOME)), str::to_owned)),
                runtime: RUNTIME.to_owned(),
            }),
        }
    }

    /// The service of this user, with that home.
    ///
    /// # Errors
    /// [`LayoutError::Characters`].
    pub fn user(env: &Environment, home: &Path) -> Result<Self, LayoutError> {
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._@+-".contains(byte);
        if !home.as_os_str().as_bytes().iter().all(legal) {
            return Err(LayoutError::Characters { path: home.to_owned() });
        }
        let config = env.directory("XDG_CONFIG_HOME").unwrap_or_else(|| env.user_home().join(".config"));
        Ok(Self {
            scope: Scope::User,
            home: home.to_owned(),
            units: config.join("systemd/user"),
            launcher: home.join("bin").join(LAUNCHER),
            user: None,
            runtime: user_runtime(env.user_home(), home),
        })
    }
}

/// `RuntimeDirectory=` of the service of a user: each home has its own.
fn user_runtime(user_home: &Path, home: &Path) -> String {
    if home == user_home.join(".hermes") {
        return RUNTIME.to_owned();
    }
    // The same in every version, so no hasher of the standard library: FNV-1a.
    let fold = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let sum = home.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fold);
    format!("{RUNTIME}-{sum:016x}")
}

/// Whose a home is: another user than [`SYSTEM_USER`] was named when it was made.
fn owner(home: &Path) -> String {
    user_of(home).map_or_else(|| SYSTEM_USER.to_owned(), |user| user.name)
}

/// Whose a directory is. Root's is nobody's yet.
fn user_of(home: &Path) -> Option<User> {
    let uid = fs::metadata(home).ok().map(|meta| Uid::from_raw(meta.uid())).filter(|uid| !uid.is_root());
    uid.and_then(|uid| User::from_uid(uid).ok().flatten())
}

/// Where the control socket of the gateway of a home may be, likeliest first: in the runtime directory of this process
/// (an agent has its gateway's), in the home, and where the unit of either scope puts it.
pub fn control_sockets(env: &Environment, home: &Path) -> Vec<PathBuf> {
    let mut sockets = vec![home.join(CONTROL_SOCKET)];
    if let Some(directory) = env.directory("RUNTIME_DIRECTORY") {
        sockets.insert(0, directory.join(CONTROL_SOCKET));
    }
    if home == Path::new(SYSTEM_HOME) {
        sockets.push(Path::new(SYSTEM_RUNTIME).join(CONTROL_SOCKET));
        sockets.push(PathBuf::from(SYSTEM_SOCKET));
    } else {
        let of = |uid: Uid| PathBuf::from(format!("/run/user/{uid}"));
        // Root looks for the service of whose the home is.
        let (runtime, name) = match user_of(home).filter(|_| geteuid().is_root()) {
            Some(user) => (of(user.uid), user_runtime(&user.dir, home)),
            None => {
                let given = env.directory("XDG_RUNTIME_DIR");
                (given.unwrap_or_else(|| of(getuid())), user_runtime(env.user_home(), home))
            }
        };
        sockets.push(runtime.join(&name).join(CONTROL_SOCKET));
        sockets.push(runtime.join(format!("{name}-gateway.sock")));
    }
    sockets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Environment {
        Environment::from_iter([("HOME", "/u/kim"), ("XDG_RUNTIME_DIR", "/run/user/7")])
    }

    #[test]
    fn each_scope_has_its_places() {
        let system = Layout::system(Some("hermes"), None).expect("there");
        assert_eq!(system.home, Path::new("/var/lib/hermes"));
        assert!(Layout::system(None, Some(Path::new("/srv/h"))).is_err());
        let user = Layout::user(&env(), Path::new("/u/kim/.hermes")).expect("plain");
        assert_eq!(user.units, Path::new("/u/kim/.config/systemd/user"));
        assert_eq!(user.launcher, Path::new("/u/kim/.hermes/bin/hermes-launch"));
        assert_eq!(user.runtime, "hermes");
        let other = env().with("XDG_CONFIG_HOME", "/u/kim/cfg");
        assert_eq!(Layout::user(&other, Path::new("/x")).expect("plain").units, Path::new("/u/kim/cfg/systemd/user"));
        for odd in ["/u/k m", "/u/%h", "/u/k\"m", "/u/käm"] {
            assert!(matches!(Layout::user(&env(), Path::new(odd)), Err(LayoutError::Characters { .. })), "{odd}");
        }
    }

    #[test]
    fn two_homes_of_a_user_do_not_share_a_runtime_directory() {
        let name = |home: &str| Layout::user(&env(), Path::new(home)).expect("plain").runtime;
        assert_eq!(name("/srv/a"), name("/srv/a"));
        assert_ne!(name("/srv/a"), name("/srv/b"));
        assert!(name("/srv/a").starts_with("hermes-"));
    }

    #[test]
    fn the_socket_is_looked_for_where_the_gateway_may_have_put_it() {
        let paths = |env: &Environment, home: &str| {
            control_sockets(env, Path::new(home)).iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        let agent = env().with("RUNTIME_DIRECTORY", "/run/x");
        let sockets = ["/run/x/control.sock", "/var/lib/hermes/control.sock", "/run/hermes/control.sock"];
        assert_eq!(paths(&agent, "/var/lib/hermes")[..3], sockets);
        let sockets =
            ["/u/kim/.hermes/control.sock", "/run/user/7/hermes/control.sock", "/run/user/7/hermes-gateway.sock"];
        assert_eq!(paths(&env(), "/u/kim/.hermes"), sockets);
    }
}
