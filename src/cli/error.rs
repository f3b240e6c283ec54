//! What can go wrong on the command line: how it is told, and the exit code.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use super::screen;
use super::service::error::ServiceError;
use crate::config::{ConfigError, HomeError};
use crate::control::client::ClientError;
use crate::control::proto;
use crate::daemon::{CheckError, DaemonError, OfflineError, SettingsError};
use crate::gateway::pairing::Refused;
use crate::jsonrpc::ErrorObject;
use crate::platform::weixin::error::WeixinError;
use crate::report::Chain;
use crate::service::lock::LockError;
use crate::store::StoreError;
use crate::update::UpdateError;

/// Exit code: it did not work.
const FAILURE: u8 = 1;
/// Exit code of `status`: the gateway does not run (as LSB's init scripts and systemctl(1) have it).
const NOT_SERVING: u8 = 3;
/// Exit code: it was asked in a wrong way; clap's errors have it too.
pub(super) const USAGE: u8 = 2;
/// Exit code: the configuration or the environment must be changed first (EX_CONFIG of sysexits.h(3)).
const CONFIG: u8 = 78;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CliError {
    /// There is no home directory to look in.
    #[error("no home directory: neither --home nor HERMES_HOME nor HOME is set")]
    NoHome,
    /// The gateway could not start.
    #[error("the gateway cannot run")]
    Daemon(#[source] DaemonError),
    /// This image could not take over.
    #[error("cannot take over")]
    Check(#[source] CheckError),
    /// Nothing listens on the control socket.
    #[error("no gateway is running on {}", home.display())]
    NotRunning {
        /// The home directory.
        home: PathBuf,
    },
    /// The gateway answered with an error.
    #[error("{}", .0.message)]
    Gateway(ErrorObject),
    /// The gateway cannot be talked to.
    #[error("cannot talk to the gateway")]
    Client(#[source] ClientError),
    /// A gateway that does not run is not updated.
    #[error("cannot update the gateway that does not run")]
    Offline(#[source] OfflineError),
    /// The configuration cannot be read.
    #[error("cannot use the configuration")]
    Config(#[source] ConfigError),
    /// The configuration cannot be found.
    #[error("cannot use the configuration")]
    ConfigHome(#[source] HomeError),
    /// The gateway would refuse the configuration; what is wrong with it was printed.
    #[error("the gateway would refuse this configuration")]
    ConfigRefused,
    /// A gateway is being started, or another command writes.
    #[error("the gateway neither answers nor is it down")]
    Lock(#[source] LockError),
    /// The database of a gateway that does not run cannot be used.
    #[error("cannot use the gateway's database")]
    Store(#[source] StoreError),
    /// A pairing code was refused.
    #[error("{0}")]
    Pairing(Refused),
    /// The service cannot be installed, started or removed.
    #[error(transparent)]
    Service(ServiceError),
    /// An archive is not to be trusted.
    #[error("this is no release to be trusted")]
    Release(#[source] UpdateError),
    /// What is to be written would be refused.
    #[error("nothing was changed, because the gateway would refuse it")]
    WouldBeRefused(#[source] ConfigError),
    /// A platform does not take a secret.
    #[error("{platform} refuses it: {why}")]
    Refused {
        /// The platform.
        platform: String,
        /// Its words.
        why: String,
    },
    /// Weixin cannot be talked to.
    #[error("cannot log in to Weixin")]
    Weixin(#[source] WeixinError),
    /// A login to Weixin came to nothing.
    #[error("the login came to nothing: {why}")]
    Login {
        /// The kind of failure.
        code: &'static str,
        /// Why.
        why: String,
    },
    /// The connection broke during a handoff, and the new image does not serve.
    #[error("the connection broke during the handoff, and {0}")]
    HandoffLost(String),
    /// The gateway has begun to stop and does not end.
    #[error("PID {pid} has not stopped within {} s", after.as_secs())]
    StillStopping {
        /// The gateway.
        pid: u32,
        /// How long it was waited for.
        after: Duration,
    },
    /// The answer to `--once` did not come or is not complete.
    #[error("{0}")]
    NoAnswer(String),
    /// The gateway does not run, which is the answer to a question and was told as such.
    #[error("the gateway does not run")]
    NotServing,
    /// `hermes doctor` has told what is wrong.
    #[error("something is wrong")]
    Unwell,
    /// There is no journal to read.
    #[error("there is no log to show: {0}")]
    NoJournal(String),
    /// The user said no.
    #[error("nothing was changed")]
    Declined,
    /// The parameter cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The terminal or pipe cannot be used.
    #[error("cannot {what}")]
    Io {
        /// What failed.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl CliError {
    /// What a failed write to standard output is.
    pub(super) fn stdout(source: io::Error) -> Self {
        Self::Io { what: "write to standard output", source }
    }

    /// A client's error, told as of the gateway on `home`.
    pub(super) fn client(error: ClientError, home: &std::path::Path) -> Self {
        match error {
            ClientError::NotRunning { .. } => Self::NotRunning { home: home.to_owned() },
            ClientError::Rpc(error) => Self::Gateway(error),
            error => Self::Client(error),
        }
    }

    /// Whether the reader of standard output has gone, which is nobody's mistake.
    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NoHome
            | Self::Daemon(DaemonError::Config(_) | DaemonError::Home(_))
            | Self::Check(CheckError::Settings(SettingsError::Config(_) | SettingsError::Home(_)))
            | Self::Offline(OfflineError::Settings(SettingsError::Config(_) | SettingsError::Home(_)))
            | Self::Config(_)
            | Self::WouldBeRefused(_)
            | Self::ConfigHome(_)
            | Self::ConfigRefused => CONFIG,
            Self::NotServing => NOT_SERVING,
            Self::Usage(_) | Self::Offline(OfflineError::Usage(_)) => USAGE,
            _ => FAILURE,
        }
    }

    /// The kind of failure, for programs.
    fn code(&self) -> &'static str {
        match self {
            Self::NoHome => "no_home",
            Self::Daemon(_) => "startup_failed",
            Self::Check(_) => "cannot_take_over",
            Self::Lock(_) | Self::Offline(OfflineError::Lock(_)) => "busy",
            Self::Offline(_) => "update_failed",
            Self::Config(_) | Self::WouldBeRefused(_) | Self::ConfigHome(_) | Self::ConfigRefused => "config",
            Self::NotRunning { .. } | Self::NotServing => "not_running",
            Self::Unwell => "unwell",
            Self::NoJournal(_) => "no_journal",
            Self::Store(_) => "internal",
            Self::Pairing(Refused::Wrong { .. }) => "invalid",
            Self::Pairing(Refused::Locked { .. }) => "forbidden",
            Self::Gateway(error) => match error.code {
                proto::BUSY => "busy",
                proto::HANDOFF_FAILED => "handoff_failed",
                proto::UP_TO_DATE => "up_to_date",
                proto::FORBIDDEN => "forbidden",
                proto::OVERLOADED => "overloaded",
                proto::STOPPING => "stopping",
                ErrorObject::METHOD_NOT_FOUND => "unsupported",
                ErrorObject::INVALID_PARAMS => "invalid",
                _ => "internal",
            },
            Self::Client(ClientError::PermissionDenied { .. }) => "permission_denied",
            Self::StillStopping { .. } | Self::Client(ClientError::Timeout { .. }) => "timeout",
            Self::Client(ClientError::Protocol(_)) => "protocol",
            Self::Client(_) => "disconnected",
            Self::HandoffLost(_) => "handoff_failed",
            Self::Service(error) => error.code(),
            Self::Release(_) => "release",
            Self::Refused { .. } => "refused",
            Self::Weixin(_) => "weixin",
            Self::Login { code, .. } => code,
            Self::NoAnswer(_) => "no_answer",
            Self::Declined => "declined",
            Self::Usage(_) => "usage",
            Self::Io { .. } => "io",
        }
    }

    /// What to do about it, where that is known.
    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Service(error) => error.hint(),
            _ => self.known_hint().map(Cow::Borrowed),
        }
    }

    fn known_hint(&self) -> Option<&'static str> {
        match self {
            Self::NoHome => Some("name the gateway's home with --home DIR"),
            Self::NotRunning { .. } => {
                Some("start it with `hermes gateway start` or `run`, or name its home with --home DIR")
            }
            Self::Gateway(error) => match error.code {
                proto::BUSY => Some("`hermes gateway status` shows how far the other one is"),
                proto::HANDOFF_FAILED => Some("the gateway goes on as before; its journal has the details"),
                ErrorObject::METHOD_NOT_FOUND => Some("the running gateway is older than this command; update it"),
                _ => None,
            },
            Self::Client(ClientError::PermissionDenied { .. }) => Some("run this as the gateway's user or as root"),
            Self::Client(ClientError::Timeout { .. }) => Some("`hermes gateway status` shows what it is busy with"),
            Self::Client(ClientError::Protocol(_)) => Some("this command and the gateway may be of different versions"),
            Self::Offline(OfflineError::OtherUser { .. }) => Some("run this as that user, or start the gateway first"),
            Self::Offline(OfflineError::NotInstalled { .. }) => Some(
                "start the gateway and run this again, or install the binary as versions/VERSION/hermes of its home",
            ),
            Self::Refused { .. } => Some("give another one, or leave the trial out with --no-check"),
            Self::StillStopping { .. } => Some("its journal shows what it waits for"),
            Self::Login { code: "timeout" | "expired", .. } => {
                Some("run it again, and scan the code while it is shown")
            }
            Self::NoJournal(_) => {
                Some("a gateway that systemd does not run logs to the standard error of `hermes gateway run`")
            }
            Self::HandoffLost(_) => Some("`hermes gateway status` shows what runs, its journal why"),
            _ => None,
        }
    }
}

/// What `--json` prints of a command that did not work.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ErrorDocument {
    error: Told,
}

/// The error in [`ErrorDocument`].
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Told {
    /// The kind of failure, for programs: `not_running`, `busy`, …
    code: &'static str,
    /// What went wrong, for people.
    message: String,
}

impl From<&CliError> for Told {
    fn from(error: &CliError) -> Self {
        Self { code: error.code(), message: Chain(error).to_string() }
    }
}

/// Tells the error once and gives the exit code. With `json` it is a document on standard output, where a program
/// looks for the answer.
pub(super) fn tell(error: &CliError, json: bool) -> ExitCode {
    if error.is_broken_pipe() {
        return ExitCode::SUCCESS;
    }
    // What was printed is what was asked for.
    if matches!(error, CliError::NotServing | CliError::Unwell) || json && matches!(error, CliError::ConfigRefused) {
        return ExitCode::from(error.exit_code());
    }
    if json {
        // If standard output is what is broken, there is nobody left to tell.
        let _ = screen::print_json(&ErrorDocument { error: error.into() });
    } else {
        screen::complain(&format!("error: {}", Chain(error)));
        if let Some(hint) = error.hint() {
            screen::complain(&format!("hint: {hint}"));
        }
    }
    ExitCode::from(error.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_is_told_with_what_to_do() {
        let gateway = |code, message: &str| CliError::Gateway(ErrorObject::new(code, message));
        let home = PathBuf::from("/h");
        let method = "status".to_owned();
        let errors = [
            CliError::NoHome,
            CliError::NotRunning { home: home.clone() },
            gateway(proto::BUSY, "an update is under way"),
            gateway(proto::HANDOFF_FAILED, "the new image crashed"),
            gateway(ErrorObject::METHOD_NOT_FOUND, "there is no method 'history'"),
            CliError::Client(ClientError::PermissionDenied { path: home.clone() }),
            CliError::Client(ClientError::Timeout { method, after: Duration::from_secs(10) }),
            CliError::Client(ClientError::Protocol("a number".into())),
            CliError::StillStopping { pid: 42, after: Duration::from_secs(90) },
            CliError::HandoffLost("1.4.0 runs".into()),
            CliError::NoJournal("no unit hermes-gateway.service is installed (user scope)".into()),
            CliError::Login { code: "timeout", why: "nobody scanned the code".into() },
            CliError::Declined,
        ];
        let told = errors.iter().map(|error| {
            let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            format!("error: {}{hint}\nexit code {}, {}", Chain(error), error.exit_code(), error.code())
        });
        insta::assert_snapshot!(told.collect::<Vec<_>>().join("\n\n"));
    }

    #[test]
    fn each_kind_has_its_exit_code() {
        assert_eq!(CliError::NoHome.exit_code(), 78);
        assert_eq!(CliError::Usage(String::new()).exit_code(), 2);
        assert_eq!(CliError::Declined.exit_code(), 1);
        assert_eq!(CliError::Gateway(ErrorObject::new(proto::BUSY, "x")).code(), "busy");
    }
}
