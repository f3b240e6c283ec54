//! What is known of releases, and what becomes of them by themselves.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::{UPDATE_CHECK, UPDATE_HOLD};
use crate::clock::UnixMillis;

/// Answer to [`UPDATE_CHECK`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UpdateCheck {
    /// The version that runs.
    pub running: String,
    /// The newest release for this target that would be accepted, if there is one.
    pub available: Option<String>,
    /// Its release date, where the manifest says.
    #[serde(default)]
    pub date: Option<String>,
    /// Its notes, where the manifest says.
    #[serde(default)]
    pub notes_url: Option<String>,
    /// A newer release that failed here before, so that it is only taken when it is named.
    #[serde(default)]
    pub failed_before: Option<FailedBefore>,
    /// Which releases are followed.
    #[serde(default)]
    pub channel: String,
    /// How far the available release is rolled out, if not to all.
    #[serde(default)]
    pub rollout: Option<RolloutStatus>,
    /// Who holds updates.
    #[serde(default)]
    pub held: Option<HoldStatus>,
    /// When updates are installed by themselves.
    #[serde(default)]
    pub window: Option<String>,
    /// No gateway runs: `running` is what is started next.
    #[serde(default)]
    pub offline: bool,
}

/// How far a release is rolled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RolloutStatus {
    /// To how many of 100 installations.
    pub percent: u8,
    /// Whether this one is among them; `null` where that is not known yet. Whoever asks gets the release all the same.
    #[serde(default)]
    pub included: Option<bool>,
}

/// Updates are held: nothing is installed by itself, and nobody is told of releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HoldStatus {
    /// Since when.
    pub since: UnixMillis,
    /// Until when; `null` until it is lifted.
    #[serde(default)]
    pub until: Option<UnixMillis>,
    /// Who asked for it.
    #[serde(default)]
    pub by: String,
}

/// Parameters of [`UPDATE_HOLD`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldParams {
    /// A time like `7d` or a date like `2026-12-24`, which begins in the gateway's time zone. Without it there is no end.
    #[serde(default)]
    pub until: Option<String>,
}

/// What happens with updates by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UpdateStatus {
    /// `off`, `notify` or `apply`; empty if the gateway does not say.
    pub auto: String,
    /// Which releases are followed.
    pub channel: String,
    /// When updates are installed, in local time; `null` for at any time.
    pub window: Option<String>,
    /// When releases were looked for last.
    pub last_check_at: Option<UnixMillis>,
    /// Why that failed.
    pub last_error: Option<String>,
    /// When they are looked for next.
    pub next_check_at: Option<UnixMillis>,
    /// A release that is newer than what runs.
    pub available: Option<String>,
    /// How far it is rolled out, if this installation has to wait for that.
    pub deferred: Option<RolloutStatus>,
    /// When it, or the newest that need not wait, is installed by itself.
    pub apply_at: Option<UnixMillis>,
    /// Who holds updates.
    pub held: Option<HoldStatus>,
    /// A version that is not installed by itself, because it failed.
    pub failed: Option<FailedBefore>,
}

/// A version that is not tried again unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailedBefore {
    /// The version.
    pub version: String,
    /// How it failed.
    pub reason: String,
}
