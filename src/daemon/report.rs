//! What is told: to chats, to control clients, to systemd, in `gateway_state.json`.

use std::path::Path;

use serde_json::Value;

use super::DaemonError;
use super::run::Daemon;
use super::state::Origin;
use super::swap::{Pending, Swap};
use crate::chat::{Conversation, LinkState, Outbound, ReplyEnd, ReplyStep};
use crate::clock::UnixMillis;
use crate::config::{Home, PlatformAccess};
use crate::control::ControlCommand;
use crate::control::proto::{self, AgentStatus, HandoffReport, PlatformStatus, Progress, Status, TurnStatus};
use crate::gateway::{AgentView, Describe, Effect, Requester, notice, text};
use crate::handoff::Phase;
use crate::jsonrpc::ErrorObject;
use crate::platform::local;
use crate::report::Chain;
use crate::service::state_file::{self, GatewayState, HandoffState, LinkPhase, PlatformState, ProcessRecord};

/// The kind of handoff that takes time before it begins.
const UPDATE: &str = "update";

impl Daemon {
    /// In a chat an update is one message that shows the step it is at ([`is_live`]), so that it costs the chat's rate
    /// limit little and the last word, which is a message of its own, comes at once.
    pub(super) async fn tell_begin(&mut self, pending: &Pending) {
        let Origin::Chat(by) = &pending.origin else { return };
        let begins = text::handoff_begins(pending.kind_name());
        let effects = if is_live(by, pending.kind_name()) {
            [ReplyStep::Begin, ReplyStep::Delta(begins.to_owned())].map(|step| step_of(by, step)).into()
        } else {
            vec![notice(&by.conversation, begins)]
        };
        self.carry_out(effects).await;
    }

    /// Control clients see every step; a chat sees each phase once.
    pub(super) async fn tell_progress(&mut self, progress: Progress) {
        let Swap::Preparing(pending) = &self.swap else { return };
        match &pending.origin {
            Origin::Control { client, .. } => {
                let (client, params) = (*client, serde_json::to_value(progress).expect("plain data serialises"));
                self.control.put(ControlCommand::Notify { client, method: proto::PROGRESS, params });
            }
            Origin::Chat(by) if progress.done_bytes.is_none_or(|done| done == 0) => {
                let told = match is_live(by, pending.kind_name()) {
                    true => step_of(by, ReplyStep::Activity(progress.message)),
                    false => notice(&by.conversation, progress.message),
                };
                self.carry_out(vec![told]).await;
            }
            Origin::Chat(_) | Origin::Signal { .. } => {}
        }
    }

    /// The last word to the chat that asked.
    pub(super) async fn tell_chat(&mut self, by: &Requester, kind: &str, told: String) {
        let mut effects = vec![notice(&by.conversation, told)];
        if is_live(by, kind) {
            effects.push(step_of(by, ReplyStep::End(ReplyEnd::Complete)));
        }
        self.carry_out(effects).await;
    }

    /// Tells the admins that a damaged database was set aside, where a direct chat has the id of its user.
    pub(super) async fn tell_damage(&mut self, aside: &Path) {
        let told = text::database_damaged(aside);
        let of = |(platform, access): (&'static str, &PlatformAccess)| {
            let tell = |admin: &String| notice(&Conversation::new(platform, admin.clone()), told.clone());
            access.allow_admin_from.iter().map(tell).collect::<Vec<_>>()
        };
        // A direct chat on DingTalk has an id of its own.
        let platforms = self.config.platforms().filter(|(platform, _)| *platform != "dingtalk");
        let notices = platforms.flat_map(of).collect();
        self.carry_out(notices).await;
    }

    pub(super) async fn tell_done(&mut self, origin: &Origin, report: &HandoffReport) {
        match origin {
            Origin::Control { client, id, .. } => {
                let report = serde_json::to_value(report).expect("plain data serialises");
                self.respond(*client, id.clone(), Ok(report));
            }
            Origin::Chat(by) => {
                let done = text::handoff_done(report);
                self.tell_chat(by, &report.kind, done).await;
            }
            Origin::Signal { .. } => {}
        }
    }

    pub(super) async fn tell_failed(&mut self, pending: &Pending, reason: &str) {
        if let Some(why) = self.stopping.clone() {
            return self.tell_stopped(pending, &why).await;
        }
        match &pending.origin {
            Origin::Control { client, id, .. } => {
                let error = ErrorObject::new(proto::HANDOFF_FAILED, reason);
                self.respond(*client, id.clone(), Err(error));
            }
            Origin::Chat(by) => {
                let told = text::handoff_failed(pending.kind_name(), reason, &self.image.id);
                self.tell_chat(by, pending.kind_name(), told).await;
            }
            Origin::Signal { .. } => {}
        }
    }

    async fn tell_stopped(&mut self, pending: &Pending, why: &str) {
        match &pending.origin {
            Origin::Control { client, id, .. } => {
                let error = ErrorObject::new(proto::STOPPING, format!("the gateway stops ({why})"));
                self.respond(*client, id.clone(), Err(error));
            }
            Origin::Chat(by) => {
                let told = text::handoff_stopped(pending.kind_name(), why);
                self.tell_chat(by, pending.kind_name(), told).await;
            }
            Origin::Signal { .. } => {}
        }
    }

    /// A request that was not taken up at all.
    pub(super) async fn refuse(&mut self, origin: &Origin, code: i64, why: String) {
        tracing::warn!(who = origin.who(), via = origin.way(), why, "refused a handoff");
        match origin {
            Origin::Control { client, id, .. } => {
                self.respond(*client, id.clone(), Err(ErrorObject::new(code, why)));
            }
            Origin::Chat(by) => self.carry_out(vec![notice(&by.conversation, format!("⏳ Not now: {why}."))]).await,
            Origin::Signal { .. } => {}
        }
    }

    pub(super) async fn status(&self, history: u32) -> Result<Value, ErrorObject> {
        let handoffs = self.store.handoffs(history).await.unwrap_or_else(|error| {
            tracing::error!(error = %Chain(&error), "cannot read the history");
            Vec::new()
        });
        let status = Status {
            gateway_state: self.gateway_state().to_string(),
            image: self.image.id.clone(),
            pid: std::process::id(),
            generation: self.generation.0,
            started_at: self.process_started_at,
            image_started_at: self.image_started_at,
            phase: self.phase(),
            waiting_for: self.waiting_for(),
            home: self.home.path().display().to_string(),
            platforms: self
                .links
                .iter()
                .map(|(name, (link, updated_at))| PlatformStatus {
                    name: name.to_string(),
                    link: link.clone(),
                    updated_at: *updated_at,
                })
                .collect(),
            agents: self.agent_statuses(),
            queued_turns: self.gateway.turns_queued(),
            handoffs,
        };
        Ok(serde_json::to_value(status).expect("plain data serialises"))
    }

    fn agent_statuses(&self) -> Vec<AgentStatus> {
        self.gateway
            .agents()
            .map(|(name, view, turns)| {
                let (state, pid, title, error) = match view {
                    AgentView::Starting => ("starting", None, None, None),
                    AgentView::Ready { pid, title } => ("ready", Some(*pid), title.clone(), None),
                    AgentView::Down { reason, .. } => ("down", None, None, Some(reason.clone())),
                };
                let turns = turns
                    .into_iter()
                    .map(|turn| TurnStatus {
                        turn: turn.turn.0,
                        conversation: turn.conversation.to_string(),
                        started_at: turn.started_at,
                        answer_bytes: turn.answer_bytes,
                    })
                    .collect();
                AgentStatus { name: name.to_string(), state: state.to_owned(), pid, title, error, turns }
            })
            .collect()
    }

    /// The answer to `/status` and its relatives.
    pub(super) fn describe(&self, what: Describe) -> String {
        let version = format!("hermes {} (generation {})", self.image.id.version, self.generation);
        let agents = || {
            let lines = self.agent_statuses().into_iter().map(|agent| {
                let title = agent.title.map_or(String::new(), |title| format!(" ({title})"));
                let turns = text::counted(agent.turns.len(), "turn");
                let error = agent.error.map_or(String::new(), |error| format!(": {error}"));
                format!("agent {}{title}: {}, {turns}{error}", agent.name, agent.state)
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        let platforms = || {
            let lines = self.links.iter().map(|(name, (link, _))| format!("platform {name}: {}", link_words(link)));
            lines.chain(["platform local: connected".to_owned()]).collect::<Vec<_>>().join("\n")
        };
        match what {
            Describe::Version => {
                let digest = self.image.id.sha256.get(..12).unwrap_or("not yet known");
                format!("{version}\nsha256 {digest}")
            }
            Describe::Agents => agents(),
            Describe::Platforms => platforms(),
            Describe::Status => {
                let up = UnixMillis::now().since(self.process_started_at).as_secs();
                let queued = text::counted(self.gateway.turns_queued(), "message");
                let phase = self.phase_in_words();
                let pid = std::process::id();
                format!("{version}, PID {pid}, up {up} s, {phase}\n{}\n{}\n{queued} waiting", platforms(), agents())
            }
        }
    }

    /// The text that `systemctl status` shows.
    pub(super) fn status_line(&self) -> String {
        let turns = text::counted(self.gateway.turns_in_flight(), "turn");
        format!("{} generation {}, {}, {turns} running", self.image.id.version, self.generation, self.phase_in_words())
    }

    /// What the handoff under way waits for, once that takes long.
    fn waiting_for(&self) -> Option<String> {
        match &self.swap {
            Swap::Preparing(pending) => pending.waiting.as_ref().map(ToString::to_string),
            Swap::Idle => None,
        }
    }

    /// The phase for people.
    fn phase_in_words(&self) -> String {
        let waiting = self.waiting_for().map_or(String::new(), |what| format!(", waiting for {what}"));
        format!("{}{waiting}", self.phase())
    }

    fn phase(&self) -> String {
        match (&self.swap, &self.probation) {
            (Swap::Preparing(pending), _) => pending.timeline.phase().to_string(),
            (Swap::Idle, Some(_)) => "probation".to_owned(),
            (Swap::Idle, None) => "serving".to_owned(),
        }
    }

    fn gateway_state(&self) -> state_file::Phase {
        // After every start and handoff a link is made anew for a moment, which is no trouble.
        let fine = |link: &LinkState| matches!(link, LinkState::Connected | LinkState::Connecting);
        let trouble = self.links.values().any(|(link, _)| !fine(link))
            || self.gateway.agents().any(|(_, view, _)| matches!(view, AgentView::Down { .. }));
        match &self.swap {
            _ if self.stopping.is_some() => state_file::Phase::Draining,
            Swap::Preparing(pending) if pending.timeline.phase() > Phase::Preflight => state_file::Phase::Draining,
            _ if trouble => state_file::Phase::Degraded,
            _ => state_file::Phase::Running,
        }
    }

    /// What changes all the time in what other programs are told; looked at every second.
    pub(super) fn in_short(&self) -> (state_file::Phase, usize) {
        (self.gateway_state(), self.gateway.turns_in_flight())
    }

    /// Tells other programs what runs.
    pub(super) fn write_state_file(&self) {
        self.shown.set(Some(self.in_short()));
        self.write_state(self.gateway_state(), None);
        self.notifier.status(&self.status_line());
    }

    pub(super) fn write_state_file_stopped(&self, why: &str) {
        self.write_state(state_file::Phase::Stopped, Some(why.to_owned()));
    }

    fn write_state(&self, gateway_state: state_file::Phase, exit_reason: Option<String>) {
        let handoff = match &self.swap {
            Swap::Preparing(pending) => Some(HandoffState {
                phase: pending.timeline.phase().to_string(),
                to_version: pending.to.as_ref().unwrap_or(&self.image.id).version.clone(),
                started_at: pending.started_at,
            }),
            Swap::Idle => None,
        };
        let written = GatewayState {
            pid: std::process::id(),
            kind: state_file::KIND.to_owned(),
            argv: std::env::args().collect(),
            start_time: self.process_started_at,
            gateway_state,
            exit_reason,
            restart_requested: handoff.is_some(),
            active_agents: u32::try_from(self.gateway.turns_in_flight()).unwrap_or(u32::MAX),
            platforms: self.links.iter().map(|(name, link)| (name.clone(), platform_state(link))).collect(),
            updated_at: UnixMillis::now(),
            version: self.image.id.version.clone(),
            sha256: self.image.id.sha256.clone(),
            generation: self.generation,
            handoff,
            control_sock: Some(self.home.control_sock().to_owned()),
        }
        .write(&self.home.state_json());
        if let Err(error) = written {
            tracing::warn!(error = %Chain(&error), "cannot write the state file");
        }
    }
}

/// Whether a handoff is shown to its chat by a message that changes. In a terminal what is shown stays, and pieces of
/// two messages would be torn apart; there each step is a line.
fn is_live(by: &Requester, kind: &str) -> bool {
    kind == UPDATE && by.conversation.platform.as_str() != local::PLATFORM
}

/// A step of the message that shows an update to the chat that asked for it.
fn step_of(by: &Requester, step: ReplyStep) -> Effect {
    Effect::Show(Outbound::reply(by.conversation.clone(), by.turn, step))
}

/// Tells other programs of a gateway that does not serve yet, or never did. It holds the lock of the home.
pub(super) fn write_start(home: &Home, phase: state_file::Phase, error: Option<&DaemonError>) {
    let now = UnixMillis::now();
    let process = ProcessRecord {
        pid: std::process::id(),
        kind: state_file::KIND.to_owned(),
        argv: std::env::args().collect(),
        start_time: now,
    };
    let state = GatewayState {
        pid: process.pid,
        kind: process.kind.clone(),
        argv: process.argv.clone(),
        start_time: now,
        gateway_state: phase,
        exit_reason: error.map(|error| Chain(error).to_string()),
        updated_at: now,
        version: crate::version::version().to_owned(),
        control_sock: Some(home.control_sock().to_owned()),
        ..GatewayState::default()
    };
    let written = if phase == state_file::Phase::Starting {
        state.write(&home.state_json()).and_then(|()| process.write(&home.pid_file()))
    } else {
        remove_pid_file(home);
        state.write(&home.state_json())
    };
    if let Err(error) = written {
        tracing::warn!(error = %Chain(&error), "cannot tell other programs of the start");
    }
}

/// For those who take the file's presence for a running gateway.
pub(super) fn remove_pid_file(home: &Home) {
    if let Err(error) = std::fs::remove_file(home.pid_file())
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "cannot remove the pid file");
    }
}

fn platform_state((link, updated_at): &(LinkState, UnixMillis)) -> PlatformState {
    let (state, code, message) = match link {
        LinkState::Connecting => (LinkPhase::Connecting, None, None),
        LinkState::Connected => (LinkPhase::Connected, None, None),
        LinkState::Paused => (LinkPhase::Paused, None, None),
        LinkState::Retrying { error_code, error_message, .. } => {
            (LinkPhase::Retrying, Some(error_code), Some(error_message))
        }
        LinkState::Fatal { error_code, error_message } => (LinkPhase::Fatal, Some(error_code), Some(error_message)),
    };
    PlatformState {
        state,
        error_code: code.and_then(|code| code.parse().ok()),
        error_message: message.cloned(),
        updated_at: *updated_at,
    }
}

fn link_words(link: &LinkState) -> String {
    match link {
        LinkState::Connecting => "connecting".to_owned(),
        LinkState::Connected => "connected".to_owned(),
        LinkState::Paused => "paused".to_owned(),
        LinkState::Retrying { error_code, error_message, next_attempt_at } => {
            let wait = next_attempt_at.since(UnixMillis::now()).as_secs();
            format!("retrying in {wait} s ({error_code}: {error_message})")
        }
        LinkState::Fatal { error_code, error_message } => format!("given up ({error_code}: {error_message})"),
    }
}
