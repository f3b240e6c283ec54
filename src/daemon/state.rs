//! What crosses a handoff, by section.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agent::AgentSnapshot;
use crate::chat::{Conversation, Inbound};
use crate::clock::{MonoNanos, UnixMillis};
use crate::control::proto::{HandoffReport, Image, LinkError};
use crate::control::{ClientId, ControlSnapshot, Peer};
use crate::gateway::{GatewayState, Requester};
use crate::handoff::{FdName, Phase, SectionSpec, Timeline};
use crate::id::{AgentName, Generation, PlatformName, TraceId, TurnId};
use crate::jsonrpc::RequestId;
use crate::store::HandoffRecord;

pub(super) const PASSPORT: &str = "passport";
pub(super) const GATEWAY: &str = "gateway";
pub(super) const AGENTS: &str = "agents";
pub(super) const CONTROL: &str = "control";
pub(super) const PLATFORMS: &str = "platforms";
pub(super) const LOCAL: &str = "local";
pub(super) const STASH: &str = "stash";
pub(super) const TRACES: &str = "traces";

/// The version of the sections that are this module's own.
pub(super) const VERSION: u32 = 1;

/// The sections that this image reads.
pub(super) const SECTIONS: &[SectionSpec] = &[
    SectionSpec { name: PASSPORT, reads: 1..=VERSION, required: true },
    SectionSpec { name: GATEWAY, reads: 1..=GatewayState::VERSION, required: true },
    SectionSpec { name: AGENTS, reads: 1..=AgentSnapshot::VERSION, required: true },
    SectionSpec { name: CONTROL, reads: 1..=ControlSnapshot::VERSION, required: true },
    SectionSpec { name: PLATFORMS, reads: 1..=VERSION, required: false },
    SectionSpec { name: LOCAL, reads: 1..=VERSION, required: false },
    SectionSpec { name: STASH, reads: 1..=VERSION, required: false },
    SectionSpec { name: TRACES, reads: 1..=VERSION, required: false },
];

/// Who asked for a handoff, and how to tell them how it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    /// A signal; there is nobody to tell.
    Signal {
        /// Its name.
        name: String,
    },
    /// A client of the control socket that waits for the answer.
    Control {
        /// The client.
        client: ClientId,
        /// Its request.
        id: RequestId,
        /// Its user.
        uid: u32,
    },
    /// A message in a chat.
    Chat(Requester),
    /// Nobody: an update by itself. The admins are told.
    Automatic,
}

/// The client of what was asked for while no gateway ran: ids of real ones begin at 1, and nobody waits for an answer.
pub(super) const NOBODY: ClientId = ClientId(0);

impl Origin {
    /// Whether it was asked for while no gateway ran.
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self, Self::Control { client: NOBODY, .. })
    }

    /// Who asked, for people.
    pub(super) fn who(&self) -> String {
        match self {
            Self::Signal { name } => name.clone(),
            Self::Control { uid, .. } => format!("uid {uid}"),
            Self::Chat(by) => format!("{} (id {})", by.sender.name, by.sender.id),
            Self::Automatic => "automatic".to_owned(),
        }
    }

    /// Over which way.
    pub(super) fn way(&self) -> String {
        match self {
            Self::Signal { .. } => "signal".to_owned(),
            Self::Control { .. } => "control".to_owned(),
            Self::Chat(by) => by.conversation.to_string(),
            Self::Automatic => "schedule".to_owned(),
        }
    }
}

/// The handoff itself, as the old image tells the new one about it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Passport {
    /// The generation of the new image.
    pub(super) generation: Generation,
    #[serde(flatten)]
    pub(super) note: Note,
    /// Ends with [`Phase::Seal`]; when execve was called comes by the environment.
    pub(super) timeline: Timeline,
    pub(super) process_started_at: UnixMillis,
    pub(super) turns_carried: usize,
    pub(super) agents_carried: usize,
    /// What the service manager's fd store has.
    #[serde(default)]
    pub(super) stored: BTreeSet<FdName>,
    /// What the old image had not proven yet, if it is the new one again.
    #[serde(default)]
    pub(super) probation: Option<CarriedProbation>,
    /// The last trouble of each platform.
    #[serde(default)]
    pub(super) link_errors: BTreeMap<PlatformName, LinkError>,
}

/// A handoff as the store knows it from before the execve until it is over: for whoever serves next, if the process
/// does not live to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// `restart`, `reload`, `update`, `revert` or `rollback`.
    pub(super) kind: String,
    pub(super) origin: Origin,
    #[serde(default)]
    pub(super) reason: Option<String>,
    pub(super) from: Image,
    pub(super) to: Image,
    pub(super) started_at: UnixMillis,
    /// Its trace; an image before there were traces has none.
    #[serde(default)]
    pub(super) trace: Option<TraceId>,
    /// Who asked was told that the new image serves.
    #[serde(default)]
    pub(super) told: bool,
    /// The gateway was stopped in order before the new image had proven itself: that is no failure of it.
    #[serde(default)]
    pub(super) stopped: bool,
}

/// An update that is on probation, as it crosses a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CarriedProbation {
    /// Its row in the history.
    pub(super) row: Option<i64>,
    pub(super) version: String,
    /// The version that was committed last.
    pub(super) previous: String,
    pub(super) left_ms: u64,
    /// Who asked for it.
    #[serde(default)]
    pub(super) origin: Option<Origin>,
    #[serde(default)]
    pub(super) trace: Option<TraceId>,
    /// When it began.
    #[serde(default = "UnixMillis::now")]
    pub(super) begun_at: UnixMillis,
}

impl Note {
    /// For the history; nothing was carried and no phase measured, unless whoever records it knows better.
    pub(super) fn record(&self, generation: Generation, outcome: String) -> HandoffRecord {
        HandoffRecord {
            kind: self.kind.clone(),
            requested_by: self.origin.who(),
            requested_via: self.origin.way(),
            reason: self.reason.clone(),
            from_version: self.from.version.clone(),
            from_sha256: self.from.sha256.clone(),
            to_version: self.to.version.clone(),
            to_sha256: self.to.sha256.clone(),
            generation: generation.0,
            turns_carried: 0,
            agents_carried: 0,
            started_at: self.started_at,
            phases_us: Vec::new(),
            outcome,
            trace_id: self.trace.clone(),
        }
    }
}

impl Passport {
    /// How it went, once the new image serves.
    pub(super) fn report(&self, ready: MonoNanos) -> HandoffReport {
        let micros = |from: Option<MonoNanos>| {
            from.map_or(0, |from| u64::try_from(ready.since(from).as_micros()).unwrap_or(u64::MAX))
        };
        HandoffReport {
            kind: self.note.kind.clone(),
            from: self.note.from.clone(),
            to: self.note.to.clone(),
            pid: std::process::id(),
            generation: self.generation.0,
            agents_carried: self.agents_carried,
            turns_carried: self.turns_carried,
            blackout_us: micros(self.timeline.entered(Phase::Quiesce)),
            duration_us: micros(self.timeline.entered(Phase::Preflight)),
            phases_us: self.timeline.durations_us(),
            dry_run: false,
        }
    }
}

/// One agent in the section [`AGENTS`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AgentEntry {
    pub(super) name: AgentName,
    pub(super) state: Value,
    /// Whether its three fds come along, under [`agent_fds`].
    pub(super) running: bool,
    pub(super) turns: usize,
}

/// The control socket in the section [`CONTROL`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ControlEntry {
    pub(super) state: Value,
    /// The clients whose sockets come along, under [`client_fd`].
    pub(super) clients: Vec<ClientId>,
}

/// One platform in the section [`PLATFORMS`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PlatformEntry {
    pub(super) name: PlatformName,
    pub(super) state: Value,
    /// What comes along, under [`platform_fd`].
    #[serde(default)]
    pub(super) fds: Vec<String>,
}

/// What arrived while everything was held, to be handled by whoever serves next, each kind in its order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stash {
    pub(super) messages: VecDeque<(TurnId, Inbound)>,
    pub(super) requests: VecDeque<ControlRequest>,
    /// Looks for releases that have not been answered.
    #[serde(default)]
    pub(super) checks: Vec<CheckFor>,
}

/// Whom a look for newer releases is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CheckFor {
    Client(ClientId, RequestId),
    Chat(Conversation),
}

/// A request of a control client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ControlRequest {
    pub(super) client: ClientId,
    pub(super) peer: Peer,
    pub(super) id: RequestId,
    pub(super) method: String,
    pub(super) params: Value,
}

/// The lock on the home.
pub(super) fn lock_fd() -> FdName {
    FdName::new("lock")
}

/// The image that was proven last, while the one that runs is not.
pub(super) fn proven_fd() -> FdName {
    FdName::new("image.proven")
}

/// The listening control socket.
pub(super) fn listener_fd() -> FdName {
    FdName::new("listen.control")
}

/// The socket of a control client.
pub(super) fn client_fd(client: ClientId) -> FdName {
    FdName::new(&format!("control.client.{client}"))
}

/// The recovery log of an agent.
pub(super) fn agent_log_fd(agent: &AgentName) -> FdName {
    FdName::new(&format!("agent.{agent}.log"))
}

/// What a platform calls `what`.
pub(super) fn platform_fd(platform: &PlatformName, what: &str) -> FdName {
    FdName::new(&format!("platform.{platform}.{what}"))
}

/// The stdin, stdout and pidfd of an agent.
pub(super) fn agent_fds(agent: &AgentName) -> [FdName; 3] {
    ["stdin", "stdout", "pidfd"].map(|end| FdName::new(&format!("agent.{agent}.{end}")))
}
