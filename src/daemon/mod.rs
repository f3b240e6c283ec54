//! Composes everything, runs it, and hands it off.
//!
//! One task owns all state (`Daemon`) and takes one event at a time; the parts that touch the outside (agents,
//! platforms, the control socket) are tasks of their own behind bounded queues. Everything runs on the main thread,
//! beside the store's writer thread and tokio's blocking pool.
//!
//! - `boot` makes a `Daemon`, of nothing or of what the previous image left.
//! - [`run`](self::run()) is the loop; `effects` carries out what the gateway decides; `requests` serves the control
//!   socket.
//! - `swap` is the handoff from request to execve; `quiesce` stops and resumes all parts; `probation` is what follows
//!   in the new image;
//!   `rollback` what follows if it fails, `recovery` if the process
//!   was killed; `keeper` has the fds that must outlive this image, `slots` tells the launcher.
//! - `pause` holds platforms back, `pairing` lets people in; `notices` tells chats of a
//!   restart; `kept` is what the store has of all three.
//! - `pulse` says whether the gateway is alive, for the watchdog; `advice` what an operator should know at the start.
//! - `releases` looks for releases, `auto` does so by itself; `offline` updates a gateway that does not run; `check` is the preflight child, `report` what is told about it all.
//! - `status` is what can be seen of a gateway that runs, with `blockers`, which would be in the way of a restart, and
//!   `disk`, the files that one would use.
//!
//! **Invariants**
//! - Only this module binds listeners, reads the environment and chooses paths.
//! - There is one way to a handoff, `Daemon::request_handoff`, whoever asks.
//! - Between freezing the parts and execve (or thawing them) nothing is acted upon; what arrives is stashed.

mod advice;
mod attachments;
mod auto;
mod blockers;
mod boot;
mod check;
mod disk;
mod effects;
mod keeper;
mod kept;
mod notices;
mod offline;
mod outlet;
mod pages;
mod pairing;
mod pause;
mod platforms;
mod probation;
mod pulse;
mod quiesce;
mod recovery;
mod releases;
mod report;
mod requests;
mod rollback;
mod run;
mod settings;
mod slots;
mod specs;
mod state;
mod status;
mod swap;
mod traces;

use std::path::PathBuf;

use thiserror::Error;

pub use boot::init_logging;
pub use check::{CheckError, handoff_check};
pub use offline::{Offline, OfflineError, Prepared};
pub use run::run;
pub use settings::SettingsError;
pub(crate) use specs::Specs;

use crate::clock::MonoNanos;
use crate::config::{ConfigError, HomeError};
use crate::handoff::adopt::AdoptError;
use crate::service::listen::ListenError;
use crate::service::lock::LockError;
use crate::store::StoreError;
use crate::telemetry::{LogFormat, TelemetryError};

/// How to run the gateway.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// `--home` or `HERMES_HOME`; by default what [`crate::config::Home`] says.
    pub home: Option<PathBuf>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--log-format`.
    pub log_format: Option<LogFormat>,
    /// When `main` began, which is when a new image came alive.
    pub main_at: MonoNanos,
}

/// Why the gateway could not start or had to end.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Logging cannot be set up as asked.
    #[error("cannot set up logging")]
    Telemetry(#[source] TelemetryError),
    /// The home is not usable.
    #[error("no usable home directory")]
    Home(#[source] HomeError),
    /// The configuration is wrong.
    #[error("cannot use the configuration")]
    Config(#[source] ConfigError),
    /// Another gateway runs on this home.
    #[error("cannot be the only gateway on this home")]
    Lock(#[source] LockError),
    /// The database cannot be used.
    #[error("cannot use the database")]
    Store(#[source] StoreError),
    /// The control socket cannot be used.
    #[error("cannot listen on the control socket")]
    Listen(#[source] ListenError),
    /// What the previous image left cannot be taken over.
    #[error("cannot take over from the previous image")]
    Adopt(#[source] AdoptError),
    /// A part of it cannot.
    #[error("cannot take over {part} from the previous image")]
    AdoptPart {
        /// Which part.
        part: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It was asked to stop before it was up, which is no failure.
    #[error("stopped by {signal} before it was up")]
    Stopped {
        /// The signal.
        signal: &'static str,
    },
    /// A part of the gateway has ended by itself.
    #[error("{part} has died; the log says why")]
    PartDied {
        /// Which.
        part: String,
    },
    /// The kernel refused something basic.
    #[error("cannot {what}")]
    System {
        /// What.
        what: &'static str,
        /// Its reason.
        #[source]
        source: std::io::Error,
    },
}
