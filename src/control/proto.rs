//! The methods of the control socket and their parameters: what `--json` prints is these types.
//!
//! Additions only: a client of one version talks to a gateway of another while an update is under way. Fields that
//! were added later have a default, and unknown ones are ignored.

mod updates;

use serde::{Deserialize, Serialize};

use crate::chat::{LinkState, OutboundContent};
use crate::clock::UnixMillis;
use crate::store::{HandoffRecord, Pairing, Standing};

pub use self::updates::{FailedBefore, HoldParams, HoldStatus, RolloutStatus, UpdateCheck, UpdateStatus};

/// `status` → [`Status`].
pub const STATUS: &str = "status";
/// `handoff` [`HandoffParams`] → [`HandoffReport`], sent by the image that serves when the handoff is over.
pub const HANDOFF: &str = "handoff";
/// `stop` → `null`, sent when the gateway has begun to stop.
pub const STOP: &str = "stop";
/// `history` [`HistoryParams`] → [`History`].
pub const HISTORY: &str = "history";
/// `update_check` → [`UpdateCheck`].
pub const UPDATE_CHECK: &str = "update_check";
/// `update_hold` [`HoldParams`] → [`UpdateStatus`]: nothing is updated by itself.
pub const UPDATE_HOLD: &str = "update_hold";
/// `update_unhold` → [`UpdateStatus`]: updates by itself go on.
pub const UPDATE_UNHOLD: &str = "update_unhold";
/// `platform_pause` [`PlatformParams`] → [`PlatformChange`]: holds a platform back until it is let go on.
pub const PLATFORM_PAUSE: &str = "platform_pause";
/// `platform_resume` [`PlatformParams`] → [`PlatformChange`].
pub const PLATFORM_RESUME: &str = "platform_resume";
/// `pairing_list` → a list of [`PairingEntry`].
pub const PAIRING_LIST: &str = "pairing_list";
/// `pairing_approve` [`ApproveParams`] → [`PairingEntry`]: lets somebody in.
pub const PAIRING_APPROVE: &str = "pairing_approve";
/// `pairing_revoke` [`RevokeParams`] → [`PairingEntry`], as it was.
pub const PAIRING_REVOKE: &str = "pairing_revoke";
/// `chat_open` [`ChatOpenParams`] → [`ChatOpened`]: subscribes the client to a conversation of platform `local`.
pub const CHAT_OPEN: &str = "chat_open";
/// `chat_send` [`ChatSendParams`] → [`ChatSent`]: says something in the conversation opened before.
pub const CHAT_SEND: &str = "chat_send";
/// Notification to the client of a running `handoff` request: [`Progress`].
pub const PROGRESS: &str = "progress";
/// Notification to the subscribers of a conversation: [`ChatOutput`].
pub const CHAT_OUTPUT: &str = "chat_output";

/// Error code: another handoff is under way.
pub const BUSY: i64 = 1;
/// Error code: the handoff failed and the image that ran before goes on serving.
pub const HANDOFF_FAILED: i64 = 2;
/// Error code: there is nothing newer to update to.
pub const UP_TO_DATE: i64 = 3;
/// Error code: the caller may not do this.
pub const FORBIDDEN: i64 = 4;
/// Error code: a bound is reached; try again later.
pub const OVERLOADED: i64 = 5;
/// Error code: the gateway stops, so the handoff does not come about.
pub const STOPPING: i64 = 6;

/// A version of the program and its exact bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Image {
    /// The version.
    pub version: String,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
}

/// Why the image is to be replaced, and by which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum HandoffKind {
    /// The running image again.
    Restart,
    /// The running image again, to read the configuration anew.
    Reload,
    /// A verified release.
    Update {
        /// This version instead of the newest.
        #[serde(default)]
        version: Option<String>,
        /// Stage, verify and preflight, but do not replace anything; `versions/` is left as it was.
        #[serde(default)]
        dry_run: bool,
    },
    /// The version that served before, from `versions/` and without network.
    Revert {
        /// Look for it and preflight it, but do not replace anything.
        #[serde(default)]
        dry_run: bool,
    },
    /// A version that the caller has put into `versions/`: an update whose bytes a package or an operator brings.
    Installed {
        /// The version.
        version: String,
    },
}

impl HandoffKind {
    /// Its name in reports, in the history and in messages: `restart`, `reload`, `update` or `revert`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::Update { .. } | Self::Installed { .. } => "update",
            Self::Revert { .. } => "revert",
        }
    }

    /// Whether it only tries what it would do.
    pub fn is_dry_run(&self) -> bool {
        matches!(self, Self::Update { dry_run: true, .. } | Self::Revert { dry_run: true })
    }
}

/// Parameters of [`HANDOFF`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoffParams {
    /// What to do.
    #[serde(flatten)]
    pub kind: HandoffKind,
    /// Do not wait for sends in flight.
    #[serde(default)]
    pub force: bool,
    /// Why, for the history.
    #[serde(default)]
    pub reason: Option<String>,
}

/// How a handoff went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HandoffReport {
    /// `restart`, `reload`, `update` or `revert`.
    pub kind: String,
    /// The image that ran before.
    pub from: Image,
    /// The image that runs now.
    pub to: Image,
    /// The process, the same as before.
    pub pid: u32,
    /// How many times it has replaced its image.
    pub generation: u64,
    /// Agents carried over.
    pub agents_carried: usize,
    /// Running turns carried over.
    pub turns_carried: usize,
    /// From the last moment the old image served to the first of the new one, in microseconds.
    pub blackout_us: u64,
    /// From the request to READY=1, in microseconds; downloads are not in it.
    pub duration_us: u64,
    /// Each phase and how long it took, in microseconds.
    pub phases_us: Vec<(String, u64)>,
    /// True when nothing was replaced because `dry_run` was asked for.
    #[serde(default)]
    pub dry_run: bool,
}

/// A step of a long request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The phase, by its name in the handoff's state machine: `download`, `verify`, `preflight`, …
    pub phase: String,
    /// One sentence for people.
    pub message: String,
    /// Bytes done, while downloading.
    #[serde(default)]
    pub done_bytes: Option<u64>,
    /// Bytes in all, where known.
    #[serde(default)]
    pub total_bytes: Option<u64>,
}

/// Answer to [`STATUS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// `starting`, `running`, `degraded`, `draining` or `stopped`.
    pub gateway_state: String,
    /// The image that runs.
    pub image: Image,
    /// The process.
    pub pid: u32,
    /// How many times it has replaced its image.
    pub generation: u64,
    /// When the process started.
    pub started_at: UnixMillis,
    /// When this image began to serve.
    pub image_started_at: UnixMillis,
    /// `serving`, or the phase of the handoff under way, or `probation`.
    pub phase: String,
    /// What the handoff under way waits for, with the time it has waited and the time left.
    #[serde(default)]
    pub waiting_for: Option<String>,
    /// The home directory.
    pub home: String,
    /// The platforms.
    pub platforms: Vec<PlatformStatus>,
    /// The agents.
    pub agents: Vec<AgentStatus>,
    /// Turns that wait for an agent.
    pub queued_turns: usize,
    /// The latest handoffs, newest first.
    #[serde(default)]
    pub handoffs: Vec<HandoffRecord>,
    /// What happens with updates by itself.
    #[serde(default)]
    pub update: UpdateStatus,
    /// When all of this was so: ages are counted up to here.
    #[serde(default)]
    pub at: UnixMillis,
    /// What `versions/current` has, which the next start would run; none where nothing was installed there.
    #[serde(default)]
    pub on_disk: Option<DiskImage>,
    /// What waits, and where.
    #[serde(default)]
    pub queues: Queues,
    /// Handoffs that are over, counted since the database was made: unlike the history, nothing is dropped from it.
    #[serde(default)]
    pub handoff_totals: Vec<HandoffTotal>,
    /// What would hold up or refuse a restart now, the worst first.
    #[serde(default)]
    pub blockers: Vec<Blocker>,
}

/// The image in `versions/current`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiskImage {
    /// Its version, by the name of its directory.
    pub version: String,
    /// SHA-256 of the file, lower-case hex; none while it is being computed, and if the file is not there.
    #[serde(default)]
    pub sha256: Option<String>,
}

impl DiskImage {
    /// Whether it may be this image: nothing differs that is known of both. An image that has just begun to serve has no
    /// digest yet.
    pub fn may_be(&self, image: &Image) -> bool {
        let digests = self.sha256.as_ref().filter(|_| !image.sha256.is_empty());
        self.version == image.version && digests.is_none_or(|sha256| *sha256 == image.sha256)
    }
}

/// How much waits in the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Queues {
    /// Messages that are stored and whose turn has not begun; those of `stash` are among them.
    pub inbox: usize,
    /// Replies and notices that are stored and not delivered; none while the database does not answer.
    #[serde(default)]
    pub outbox: Option<usize>,
    /// Messages and requests that arrived while everything was held and were not handled yet.
    pub stash: usize,
}

/// How often a kind of handoff ended in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HandoffTotal {
    /// `restart`, `reload`, `update`, `revert` or `rollback`.
    pub kind: String,
    /// `committed`, `rolled_back`, `unproven` (stopped or replaced before that was known) or `failed`. One that still
    /// has to prove itself is not counted.
    pub outcome: String,
    /// How often.
    pub count: u64,
}

/// Something that would be in the way of a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Blocker {
    /// `refuses`: a restart would not come about. `delays`: it would wait. `risks`: it would work, and a crash would
    /// cost more than it should.
    pub effect: String,
    /// What it is, in words.
    pub what: String,
    /// Since when, where that is known.
    #[serde(default)]
    pub since: Option<UnixMillis>,
}

/// One platform in [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PlatformStatus {
    /// Its name.
    pub name: String,
    /// Its link.
    #[serde(flatten)]
    pub link: LinkState,
    /// When the link last changed.
    pub updated_at: UnixMillis,
    /// The last trouble, which may be over.
    #[serde(default)]
    pub last_error: Option<LinkError>,
    /// Replies and notices that wait to be sent.
    #[serde(default)]
    pub waiting: usize,
    /// Requests to the platform that have not been answered yet.
    #[serde(default)]
    pub sending: usize,
    /// When the oldest of these was begun.
    #[serde(default)]
    pub sending_since: Option<UnixMillis>,
}

/// Trouble with a platform's link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LinkError {
    /// The platform's error code, or the kind of failure.
    pub code: String,
    /// What went wrong, without secrets.
    pub message: String,
    /// When.
    pub at: UnixMillis,
}

/// One agent in [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AgentStatus {
    /// Its name.
    pub name: String,
    /// `starting`, `ready` or `down`.
    pub state: String,
    /// Its process.
    pub pid: Option<i32>,
    /// What it calls itself.
    #[serde(default)]
    pub title: Option<String>,
    /// Why it is down.
    #[serde(default)]
    pub error: Option<String>,
    /// The turns it runs.
    pub turns: Vec<TurnStatus>,
    /// Since when it is in this state.
    #[serde(default)]
    pub since: Option<UnixMillis>,
    /// When it is started again, if it is down.
    #[serde(default)]
    pub next_attempt_at: Option<UnixMillis>,
    /// What it asked and nobody has answered.
    #[serde(default)]
    pub permissions: Vec<PermissionStatus>,
}

/// An open permission request in [`AgentStatus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PermissionStatus {
    /// What people know it by: `/approve NUMBER.OPTION`.
    pub number: u64,
    /// Where it was asked.
    pub conversation: String,
    /// What the agent wants to do, in its own words.
    pub title: String,
    /// When the chat was told.
    pub asked_at: UnixMillis,
}

/// One running turn in [`AgentStatus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TurnStatus {
    /// Its id.
    pub turn: i64,
    /// Where it was asked for.
    pub conversation: String,
    /// When it was given to the agent.
    pub started_at: UnixMillis,
    /// Bytes of the answer so far.
    pub answer_bytes: u64,
}

/// Parameters of [`HISTORY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryParams {
    /// How many handoffs, the newest first; the store keeps 1000.
    pub limit: u32,
}

/// Answer to [`HISTORY`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct History {
    /// The handoffs, newest first.
    pub handoffs: Vec<HandoffRecord>,
}

/// Parameters of [`PLATFORM_PAUSE`] and [`PLATFORM_RESUME`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformParams {
    /// Its name.
    pub platform: String,
}

/// Answer to [`PLATFORM_PAUSE`] and [`PLATFORM_RESUME`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PlatformChange {
    /// Its name.
    pub platform: String,
    /// Whether it is held back now.
    pub paused: bool,
    /// Whether that was otherwise before.
    pub changed: bool,
}

/// Parameters of [`PAIRING_APPROVE`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproveParams {
    /// The platform's name.
    pub platform: String,
    /// The code that somebody was given there.
    pub code: String,
}

/// Parameters of [`PAIRING_REVOKE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeParams {
    /// The platform's name.
    pub platform: String,
    /// The platform's id of the person.
    pub user: String,
}

/// Somebody who was let in by pairing, or has asked to be.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PairingEntry {
    /// The platform's name.
    pub platform: String,
    /// The platform's id of the person.
    pub user: String,
    /// The person's display name.
    pub name: String,
    /// `asked` or `approved`.
    pub state: String,
    /// Since when.
    pub since: UnixMillis,
    /// The code that the person was given and that was not approved.
    #[serde(default)]
    pub code: Option<String>,
}

impl From<&Pairing> for PairingEntry {
    fn from(pairing: &Pairing) -> Self {
        let (state, since, code) = match &pairing.standing {
            Standing::Asked { code, asked_at, .. } => ("asked", *asked_at, Some(code.clone())),
            Standing::Approved { at } => ("approved", *at, None),
        };
        Self {
            platform: pairing.platform().to_string(),
            user: pairing.user.clone(),
            name: pairing.name.clone(),
            state: state.to_owned(),
            since,
            code,
        }
    }
}

/// Parameters of [`CHAT_OPEN`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatOpenParams {
    /// The chat's name; `main` by default. Clients that open the same chat share it.
    #[serde(default)]
    pub chat: Option<String>,
}

/// Answer to [`CHAT_OPEN`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatOpened {
    /// The conversation, as other commands name it: `local:main`.
    pub conversation: String,
    /// What was said there while no client had it open, oldest first.
    #[serde(default)]
    pub backlog: Vec<OutboundContent>,
}

/// Parameters of [`CHAT_OUTPUT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatOutput {
    /// Where it is said, as in [`ChatOpened::conversation`].
    pub conversation: String,
    /// What is said.
    pub content: OutboundContent,
}

/// Parameters of [`CHAT_SEND`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatSendParams {
    /// The text.
    pub text: String,
    /// The client's own unique id of the message, so that one sent again is recognised.
    pub message_id: String,
}

/// Answer to [`CHAT_SEND`], sent when the message is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatSent {
    /// Its id in the store; `null` when it had been sent before.
    pub turn: Option<i64>,
}
