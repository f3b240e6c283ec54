//! `gateway.toml`: what the operator wrote, checked.
//!
//! Durations are strings (`"30s"`). Unknown keys are an error that names the nearest known key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::id::AgentName;

/// The whole configuration, with its defaults filled in and its secrets read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[gateway]`.
    pub gateway: GatewayConfig,
    /// `[agents.<name>]`; `default` is there even when the file names no agent (then it is `hermes agent echo`).
    pub agents: BTreeMap<AgentName, AgentConfig>,
    /// `[platforms.telegram]`.
    pub telegram: Option<TelegramConfig>,
    /// `[update]`.
    pub update: UpdateConfig,
}

/// `[gateway]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The longest wait for sends in flight before a handoff.
    pub restart_drain_timeout: Duration,
    /// How long a new image is on probation.
    pub probation: Duration,
}

/// `[agents.<name>]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Working directory; absolute. Default: the home directory of the gateway's user.
    pub cwd: PathBuf,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
}

/// `[platforms.telegram]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelegramConfig {
    /// The bot token.
    pub token: Secret,
    /// Base of the Bot API, without a slash at the end.
    pub api_url: String,
    /// Who may talk, by user id; empty means nobody.
    pub allow_from: Vec<String>,
    /// Who may use the admin commands.
    pub allow_admin_from: Vec<String>,
    /// Whether chats are told about a restart.
    pub gateway_restart_notification: bool,
}

/// `[update]`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct UpdateConfig {
    /// Where releases are listed: https, http on loopback, or file.
    pub manifest_url: Option<String>,
    /// Base64 ed25519 public keys, added to the one built in.
    pub verifying_keys: Vec<String>,
}

/// A value that is never shown: neither by `Debug` nor in any log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret over from where it was read.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
