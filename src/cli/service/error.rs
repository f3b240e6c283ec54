//! Why a gateway is not installed, started or removed.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::service::layout::LayoutError;
use crate::service::manager::ManagerError;
use crate::update::VersionsError;

/// Why a command of this module failed.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The system service is root's.
    #[error("only root can {what} the system service")]
    NotRoot {
        /// What was asked for.
        what: &'static str,
    },
    /// The places cannot be used.
    #[error(transparent)]
    Layout(LayoutError),
    /// The service manager.
    #[error(transparent)]
    Manager(ManagerError),
    /// A unit file that is not ours to replace.
    #[error("{} {what}", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The user to run as does not exist.
    #[error("there is no user '{user}'")]
    NoUser {
        /// Its name.
        user: String,
    },
    /// The service could not use the home that is there.
    #[error("{} does not belong to '{user}', as whom the service is to run", home.display())]
    OtherHome {
        /// The home.
        home: PathBuf,
        /// The user.
        user: String,
    },
    /// There is no launcher to install.
    #[error("the launcher is not beside this program: there is no {}", looked.display())]
    NoLauncher {
        /// Where it should be.
        looked: PathBuf,
    },
    /// A gateway runs on this home that the unit has not started.
    #[error("a gateway runs on {} as PID {pid}, and {} has not started it", home.display(), crate::service::manager::UNIT)]
    Outside {
        /// The home.
        home: PathBuf,
        /// The gateway.
        pid: u32,
    },
    /// A process has the home, whatever it is.
    #[error("{} is still in use{}", home.display(), pid.map(|pid| format!(", by PID {pid}")).unwrap_or_default())]
    InUse {
        /// The home.
        home: PathBuf,
        /// The process, where it says so.
        pid: Option<u32>,
    },
    /// All homes of a user share one unit.
    #[error("the service of this user is that of another home, {}", serves.display())]
    OtherUnit {
        /// The home that it serves.
        serves: PathBuf,
    },
    /// There is no unit.
    #[error("no service is installed for {scope}")]
    NotInstalled {
        /// For whom.
        scope: &'static str,
    },
    /// A package owns it.
    #[error("the package {package} owns the system service")]
    Packaged {
        /// Its name.
        package: String,
    },
    /// The unit does not come up.
    #[error("the gateway does not come up: {why}{}", shown(journal))]
    NotUp {
        /// What was seen.
        why: String,
        /// The last lines of its journal.
        journal: Vec<String>,
        /// What shows more of it.
        look: String,
    },
    /// The image cannot be put into the home.
    #[error("cannot put this program into {}: {why}", home.display())]
    Place {
        /// The home.
        home: PathBuf,
        /// Why.
        why: String,
    },
    /// The image cannot be put into the home, in this process.
    #[error("cannot put this program into the home")]
    Versions(#[source] VersionsError),
    /// A directory that is not a gateway's home is not removed.
    #[error("{} does not look like the home of a gateway, so it is not removed", home.display())]
    NotAHome {
        /// The directory.
        home: PathBuf,
    },
    /// A file or directory.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn shown(journal: &[String]) -> String {
    journal.iter().fold(String::new(), |text, line| text + "\n  | " + line)
}

impl ServiceError {
    /// What a failed operation on a file is.
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// The kind of failure, for programs.
    pub(in crate::cli) fn code(&self) -> &'static str {
        match self {
            Self::NotRoot { .. } => "not_root",
            Self::Manager(ManagerError::None { .. }) => "no_service_manager",
            Self::Manager(_) => "service_manager",
            Self::NotOurs { .. } => "not_ours",
            Self::NoUser { .. } => "no_user",
            Self::OtherHome { .. } => "other_home",
            Self::NoLauncher { .. } => "no_launcher",
            Self::Outside { .. } => "running_outside",
            Self::InUse { .. } => "in_use",
            Self::OtherUnit { .. } => "other_unit",
            Self::NotInstalled { .. } => "not_installed",
            Self::Packaged { .. } => "packaged",
            Self::NotUp { .. } => "not_up",
            Self::NotAHome { .. } => "not_a_home",
            Self::Layout(_) | Self::Place { .. } | Self::Versions(_) | Self::Io { .. } => "io",
        }
    }

    /// What to do about it.
    pub(in crate::cli) fn hint(&self) -> Option<Cow<'static, str>> {
        let hint = match self {
            Self::NotRoot { .. } => "run it with sudo, or leave out --system for a service of your own",
            Self::Manager(ManagerError::None { .. }) => {
                "`hermes gateway run` runs it in the foreground; a user's manager needs a login, or `loginctl \
                 enable-linger`"
            }
            Self::NotOurs { .. } => {
                "keep your changes in a drop-in (`systemctl edit hermes-gateway`), and replace the file with --force"
            }
            Self::NoUser { .. } => "create it first, or leave out --run-as-user",
            Self::OtherHome { home, user } => {
                return Some(format!("stop the gateway, then: chown -R {user}: {}", home.display()).into());
            }
            Self::NoLauncher { .. } => "take both programs out of the release's archive, or build with `cargo build`",
            Self::Outside { .. } => "`hermes gateway stop` ends it; then run this again",
            Self::InUse { .. } => "`hermes gateway stop` ends a gateway in the foreground; then run this again",
            Self::OtherUnit { serves } => {
                return Some(
                    format!(
                        "`hermes --home {} gateway uninstall` makes room; `hermes gateway run` runs this one in the \
                         foreground",
                        serves.display()
                    )
                    .into(),
                );
            }
            Self::NotInstalled { .. } => {
                "`hermes gateway install` installs it; `hermes gateway run` runs it in the foreground"
            }
            Self::Packaged { package } => return Some(format!("apt-get remove {package} (or purge)").into()),
            Self::NotUp { look, .. } => return Some(format!("`{look}` shows more").into()),
            Self::Manager(_) | Self::Layout(_) | Self::Place { .. } | Self::Versions(_) => return None,
            Self::NotAHome { .. } | Self::Io { .. } => return None,
        };
        Some(hint.into())
    }
}
