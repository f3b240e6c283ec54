//! `gateway_state.json`: what the gateway says about itself to other programs, also when it does not answer; and
//! `gateway.pid`, which process it is.
//!
//! **Invariants**
//! - The file is replaced as a whole: a reader sees the state before or the state after, never half of one.
//! - It is rewritten at every start, before anything can fail but the home itself, so that `draining` never outlives
//!   the process that drained.
//! - It is never read back to decide anything: the [lock](super::lock) says whether a gateway runs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use thiserror::Error;

use crate::clock::UnixMillis;
use crate::fault::{self, Call};
use crate::id::{Generation, PlatformName};

/// The value of [`GatewayState::kind`].
pub const KIND: &str = "hermes-gateway";

/// The most bytes that are read of a state file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why the state file was not written or read.
#[derive(Debug, Error)]
pub enum StateFileError {
    /// It could not be replaced; the one before is still there.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// It could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// It is not a state file.
    #[error("{path} is not a gateway state")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The content of the file. Fields that are not there read as their defaults, so that any version can read what any
/// other wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GatewayState {
    /// The process that wrote it.
    pub pid: u32,
    /// Always [`KIND`].
    pub kind: String,
    /// The command line of the process.
    pub argv: Vec<String>,
    /// When the process started. A handoff keeps it.
    pub start_time: UnixMillis,
    /// What the gateway does.
    pub gateway_state: Phase,
    /// Why it ended or could not start.
    pub exit_reason: Option<String>,
    /// Whether a restart was asked for and has not happened yet.
    pub restart_requested: bool,
    /// Turns that agents run, as of the last second.
    pub active_agents: u32,
    /// Each platform's link.
    pub platforms: BTreeMap<PlatformName, PlatformState>,
    /// When this was written.
    pub updated_at: UnixMillis,
    /// The version of the running image.
    pub version: String,
    /// The SHA-256 of the running image, in hex.
    pub sha256: String,
    /// How many times the process has replaced its image.
    pub generation: Generation,
    /// The handoff that is going on.
    pub handoff: Option<HandoffState>,
    /// Where the gateway listens for `hermes gateway …`. Who looks for it has not the variables of the service.
    pub control_sock: Option<PathBuf>,
}

/// What the gateway does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It starts, and does not serve yet.
    #[default]
    Starting,
    /// It serves.
    Running,
    /// It serves, but something is not as it should be: a platform is down, or an agent cannot be started.
    Degraded,
    /// It takes no new work, for a handoff or a stop.
    Draining,
    /// It has ended in order; `exit_reason` says why.
    Stopped,
    /// It has ended because it could not start.
    StartupFailed,
    /// A later version's word.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::StartupFailed => "startup_failed",
            Self::Unknown => "unknown",
        })
    }
}

/// The link to one platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlatformState {
    /// How the link is.
    pub state: LinkPhase,
    /// The platform's code for what is wrong.
    pub error_code: Option<i64>,
    /// What is wrong, without secrets.
    pub error_message: Option<String>,
    /// When it became so.
    pub updated_at: UnixMillis,
}

/// How a link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkPhase {
    /// No answer has come yet.
    #[default]
    Connecting,
    /// It works.
    Connected,
    /// It does not work, and is tried again.
    Retrying,
    /// An operator has stopped it.
    Paused,
    /// It does not work, and trying again would not help.
    Fatal,
    /// A later version's word.
    #[serde(other)]
    Unknown,
}

/// A handoff that is going on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandoffState {
    /// The step it is at.
    pub phase: String,
    /// The version that takes over.
    pub to_version: String,
    /// When it began.
    pub started_at: UnixMillis,
}

impl GatewayState {
    /// Replaces the file (tmp file in the same directory, then rename(2)). It is not synced to disk: after a power
    /// cut no gateway runs, whatever the file says.
    ///
    /// # Errors
    /// [`StateFileError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), StateFileError> {
        replace(path, self)
    }

    /// Reads the file; nothing if there is none.
    ///
    /// # Errors
    /// [`StateFileError::Read`], [`StateFileError::Parse`].
    pub fn read(path: &Path) -> Result<Option<Self>, StateFileError> {
        let error = |source| StateFileError::Read { path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(other) => return Err(error(other)),
        };
        let text = io::read_to_string(io::Read::take(file, FILE_BYTES_MAX)).map_err(error)?;
        let state = serde_json::from_str(&text);
        state.map(Some).map_err(|source| StateFileError::Parse { path: path.to_owned(), source })
    }
}

/// The content of `gateway.pid`. It is there while the gateway runs, and also after it was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// The process.
    pub pid: u32,
    /// Always [`KIND`].
    pub kind: String,
    /// Its command line.
    pub argv: Vec<String>,
    /// When it started.
    pub start_time: UnixMillis,
}

impl ProcessRecord {
    /// Replaces the file, as [`GatewayState::write`] does.
    ///
    /// # Errors
    /// [`StateFileError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), StateFileError> {
        replace(path, self)
    }
}

fn replace(path: &Path, content: &impl Serialize) -> Result<(), StateFileError> {
    let error = |source| StateFileError::Write { path: path.to_owned(), source };
    let directory = path.parent().unwrap_or(Path::new("."));
    // In one write: a handoff waits for it, and the serialiser alone would make one of every token.
    let text = serde_json::to_vec_pretty(content).map_err(|source| error(source.into()))?;
    let mut file = NamedTempFile::with_prefix_in(".gateway_state.", directory).map_err(error)?;
    fault::io(Call::StateFile).and_then(|()| file.write_all(&text)).map_err(error)?;
    file.persist(path).map_err(|persist| error(persist.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use insta::assert_snapshot;

    use super::*;

    fn state() -> GatewayState {
        let telegram = PlatformState {
            state: LinkPhase::Retrying,
            error_code: Some(502),
            error_message: Some("bad gateway".to_owned()),
            updated_at: UnixMillis(1_700_000_000_500),
        };
        GatewayState {
            pid: 4242,
            kind: KIND.to_owned(),
            argv: vec!["hermes".to_owned(), "gateway".to_owned(), "run".to_owned()],
            start_time: UnixMillis(1_700_000_000_000),
            gateway_state: Phase::Degraded,
            platforms: BTreeMap::from([(PlatformName::from("telegram"), telegram)]),
            updated_at: UnixMillis(1_700_000_001_000),
            version: "1.0.0".to_owned(),
            sha256: "00".repeat(32),
            generation: Generation(3),
            control_sock: Some(PathBuf::from("/run/hermes/control.sock")),
            ..GatewayState::default()
        }
    }

    /// Others read this file, so its form is a promise.
    #[test]
    fn the_form_of_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("gateway_state.json");
        state().write(&path).expect("written");
        assert_snapshot!(fs::read_to_string(&path).expect("read"), @r#"
        {
          "pid": 4242,
          "kind": "hermes-gateway",
          "argv": [
            "hermes",
            "gateway",
            "run"
          ],
          "start_time": 1700000000000,
          "gateway_state": "degraded",
          "exit_reason": null,
          "restart_requested": false,
          "active_agents": 0,
          "platforms": {
            "telegram": {
              "state": "retrying",
              "error_code": 502,
              "error_message": "bad gateway",
              "updated_at": 1700000000500
            }
          },
          "updated_at": 1700000001000,
          "version": "1.0.0",
          "sha256": "0000000000000000000000000000000000000000000000000000000000000000",
          "generation": 3,
          "handoff": null,
          "control_sock": "/run/hermes/control.sock"
        }
        "#);
    }

    #[test]
    fn what_was_written_is_read_and_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("gateway_state.json");
        assert_eq!(GatewayState::read(&path).expect("no file is no error"), None);
        state().write(&path).expect("written");
        let handoff = HandoffState { phase: "quiesce".to_owned(), ..HandoffState::default() };
        let next = GatewayState { gateway_state: Phase::Draining, handoff: Some(handoff), ..state() };
        next.write(&path).expect("replaced");
        assert_eq!(GatewayState::read(&path).expect("read"), Some(next));
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1, "no temporary file is left");
    }

    #[test]
    fn other_versions_files_are_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("gateway_state.json");
        fs::write(&path, r#"{"pid":7,"gateway_state":"hibernating","later":{},"platforms":{"x":{"state":"asleep"}}}"#)
            .expect("written");
        let read = GatewayState::read(&path).expect("read").expect("there");
        assert_eq!((read.pid, read.gateway_state), (7, Phase::Unknown));
        assert_eq!(read.platforms[&PlatformName::from("x")].state, LinkPhase::Unknown);
        fs::write(&path, "{").expect("written");
        assert!(matches!(GatewayState::read(&path), Err(StateFileError::Parse { .. })));
        let nowhere = state().write(Path::new("/no/such/dir/gateway_state.json"));
        assert!(matches!(nowhere, Err(StateFileError::Write { .. })));
    }
}
