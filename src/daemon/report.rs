//! What is told: to chats, to control clients, to systemd, in `gateway_state.json`.

use std::path::Path;
use std::time::Duration;

use super::DaemonError;
use super::quiesce::Waiting;
use super::run::Daemon;
use super::state::Origin;
use super::status::LinkView;
use super::swap::{Pending, Swap};
use crate::chat::{Conversation, LinkState, Outbound, ReplyEnd, ReplyStep};
use crate::clock::UnixMillis;
use crate::config::{Home, PlatformAccess};
use crate::control::ControlCommand;
use crate::control::proto::{self, AgentStatus, HandoffReport, Progress};
use crate::gateway::{AgentView, Describe, Effect, Requester, notice};
use crate::handoff::Phase;
use crate::jsonrpc::ErrorObject;
use crate::platform::{dingtalk, local, web};
use crate::report::Chain;
use crate::service::state_file::{self, GatewayState, HandoffState, LinkPhase, PlatformState, ProcessRecord};
use crate::units::count;
use crate::words::{AgentState, Busy, Done, Language, State, Step, Wait, Words};

/// The kind of handoff that takes time before it begins.
const UPDATE: &str = "update";

impl Daemon {
    /// In a chat an update is one message that shows the step it is at ([`is_live`]), so that it costs the chat's rate
    /// limit little and the last word, which is a message of its own, comes at once.
    pub(super) async fn tell_begin(&mut self, pending: &Pending) {
        let phase = pending.timeline.phase();
        self.pages.step(
            phase.as_str(),
            Language::En.words().handoff_begins(pending.kind_name()).to_owned(),
            (None, None),
        );
        let Origin::Chat(by) = &pending.origin else { return };
        let begins = self.gateway.words(&by.conversation).handoff_begins(pending.kind_name());
        let effects = if is_live(by, pending.kind_name()) {
            [ReplyStep::Begin, ReplyStep::Delta(begins.to_owned())].map(|step| step_of(by, step)).into()
        } else {
            vec![notice(&by.conversation, begins)]
        };
        self.carry_out(effects).await;
    }

    /// Control clients see every step; a chat sees each phase once.
    pub(super) async fn tell_progress(&mut self, phase: &str, step: &Step, done_bytes: Option<u64>) {
        let Swap::Preparing(pending) = &self.swap else { return };
        let total_bytes = if let Step::Downloading(total_bytes) = step { *total_bytes } else { None };
        let message = Language::En.words().step(step);
        self.pages.step(phase, message.clone(), (done_bytes, total_bytes));
        match &pending.origin {
            Origin::Control { client, .. } => {
                let progress = Progress { phase: phase.to_owned(), message, done_bytes, total_bytes };
                let (client, params) = (*client, serde_json::to_value(progress).expect("plain data serialises"));
                self.control.put(ControlCommand::Notify { client, method: proto::PROGRESS, params });
            }
            Origin::Chat(by) if done_bytes.is_none_or(|done| done == 0) => {
                let message = self.gateway.words(&by.conversation).step(step);
                let told = match is_live(by, pending.kind_name()) {
                    true => step_of(by, ReplyStep::Activity(message)),
                    false => notice(&by.conversation, message),
                };
                self.carry_out(vec![told]).await;
            }
            Origin::Chat(_) | Origin::Signal { .. } | Origin::Automatic => {}
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

    /// Tells the admins that a damaged database was set aside.
    pub(super) async fn tell_damage(&mut self, aside: &Path) {
        let aside = aside.display().to_string();
        self.tell_admins(|words| words.database_damaged(&aside)).await;
    }

    /// Tells the admins of every platform something, each in their direct chat.
    pub(super) async fn tell_admins(&mut self, told: impl Fn(&dyn Words) -> String) {
        let notices = self.notices_to_admins(told);
        self.carry_out(notices).await;
    }

    pub(super) fn notices_to_admins(&self, told: impl Fn(&dyn Words) -> String) -> Vec<Effect> {
        let of = |(platform, access): (&'static str, &PlatformAccess)| {
            let told = told(access.language.words());
            let tell = |admin: &String| notice(&direct_chat(platform, admin), told.clone());
            access.allow_admin_from.iter().map(tell).collect::<Vec<_>>()
        };
        self.config.platforms().flat_map(of).collect()
    }

    pub(super) async fn tell_done(&mut self, origin: &Origin, report: &HandoffReport) {
        let done = done_of(report);
        self.pages.step("done", Language::En.words().handoff_done(&done), (None, None));
        match origin {
            Origin::Control { client, id, .. } => {
                let report = serde_json::to_value(report).expect("plain data serialises");
                self.respond(*client, id.clone(), Ok(report));
            }
            Origin::Chat(by) => {
                let told = self.gateway.words(&by.conversation).handoff_done(&done);
                self.tell_chat(by, &report.kind, told).await;
            }
            Origin::Automatic => {
                let done = done_of(report);
                self.tell_admins(|words| words.by_itself(&words.handoff_done(&done))).await;
            }
            Origin::Signal { .. } => {}
        }
    }

    pub(super) async fn tell_failed(&mut self, pending: &Pending, reason: &str) {
        if let Some(why) = self.stopping.clone() {
            return self.tell_stopped(pending, &why).await;
        }
        let told = Language::En.words().handoff_failed(pending.kind_name(), reason, &self.image.id.version);
        self.pages.step("failed", told, (None, None));
        match &pending.origin {
            Origin::Control { client, id, .. } => {
                let error = ErrorObject::new(proto::HANDOFF_FAILED, reason);
                self.respond(*client, id.clone(), Err(error));
            }
            Origin::Chat(by) => {
                let told = {
                    let words = self.gateway.words(&by.conversation);
                    words.handoff_failed(pending.kind_name(), reason, &self.image.id.version)
                };
                self.tell_chat(by, pending.kind_name(), told).await;
            }
            Origin::Automatic => self.automatic_update_failed(pending, reason).await,
            Origin::Signal { .. } => {}
        }
    }

    async fn tell_stopped(&mut self, pending: &Pending, why: &str) {
        let told = Language::En.words().handoff_stopped(pending.kind_name(), why);
        self.pages.step("failed", told, (None, None));
        match &pending.origin {
            Origin::Control { client, id, .. } => {
                let error = ErrorObject::new(proto::STOPPING, format!("the gateway stops ({why})"));
                self.respond(*client, id.clone(), Err(error));
            }
            Origin::Chat(by) => {
                let told = self.gateway.words(&by.conversation).handoff_stopped(pending.kind_name(), why);
                self.tell_chat(by, pending.kind_name(), told).await;
            }
            Origin::Signal { .. } | Origin::Automatic => {}
        }
    }

    /// A request that was not taken up at all.
    pub(super) async fn refuse(&mut self, origin: &Origin, why: &Busy) {
        tracing::warn!(who = origin.who(), via = origin.way(), %why, "refused a handoff");
        match origin {
            Origin::Control { client, id, .. } => {
                self.respond(*client, id.clone(), Err(ErrorObject::new(proto::BUSY, why.to_string())));
            }
            Origin::Chat(by) => {
                if by.conversation.platform.as_str() == web::PLATFORM {
                    self.pages.step(web::REFUSED, Language::En.words().not_now(why), (None, None));
                }
                let told = self.gateway.words(&by.conversation).not_now(why);
                self.carry_out(vec![notice(&by.conversation, told)]).await;
            }
            Origin::Signal { .. } | Origin::Automatic => {}
        }
    }

    /// The answer to `/status` and its relatives.
    pub(super) fn describe(&self, what: Describe, conversation: &Conversation) -> String {
        let words = self.gateway.words(conversation);
        let (version, generation) = (self.image.id.version.as_str(), self.generation.0);
        let agents = || {
            let lines = self.agent_statuses().into_iter().map(|agent| {
                let AgentStatus { name, state, title, error, turns, .. } = &agent;
                let (title, error) = (title.as_deref(), error.as_deref());
                words.agent_line(&AgentState { name, title, state, turns: turns.len(), error })
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        let platforms = || {
            let line = |name: &str, link: &LinkState| {
                let next = match link {
                    LinkState::Retrying { next_attempt_at, .. } => next_attempt_at.since(UnixMillis::now()),
                    _ => Duration::ZERO,
                };
                words.platform_line(name, link, next)
            };
            let lines = self.links.iter().map(|(name, link)| line(name.as_str(), &link.state));
            lines.chain([line(local::PLATFORM, &LinkState::Connected)]).collect::<Vec<_>>().join("\n")
        };
        match what {
            Describe::Version => {
                let digest = self.image.id.sha256.get(..12).unwrap_or(words.digest_unknown());
                format!("{}\nsha256 {digest}", words.version(version, generation))
            }
            Describe::Agents => agents(),
            Describe::Platforms => platforms(),
            Describe::Status => {
                let state = State {
                    version,
                    generation,
                    pid: std::process::id(),
                    up: UnixMillis::now().since(self.process_started_at),
                    phase: &self.phase(),
                    waiting: self.waiting_for(),
                };
                let queued = words.queued(self.gateway.turns_queued());
                let lines = [words.state(&state), platforms(), agents(), queued];
                lines.into_iter().chain(self.updates_line(words)).collect::<Vec<_>>().join("\n")
            }
        }
    }

    /// The text that `systemctl status` shows.
    pub(super) fn status_line(&self) -> String {
        let turns = count(self.gateway.turns_in_flight(), "turn");
        format!("{} generation {}, {}, {turns} running", self.image.id.version, self.generation, self.phase_in_words())
    }

    /// What the handoff under way waits for, once that takes long.
    pub(super) fn waiting_for(&self) -> Option<Wait> {
        match &self.swap {
            Swap::Preparing(pending) => pending.waiting.as_ref().map(Waiting::wait),
            Swap::Idle => None,
        }
    }

    /// The phase for people.
    fn phase_in_words(&self) -> String {
        let waiting = self.waiting_for().map_or(String::new(), |what| format!(", waiting for {what}"));
        format!("{}{waiting}", self.phase())
    }

    pub(super) fn phase(&self) -> String {
        match (&self.swap, &self.probation) {
            (Swap::Preparing(pending), _) => pending.timeline.phase().to_string(),
            (Swap::Idle, Some(_)) => "probation".to_owned(),
            (Swap::Idle, None) => "serving".to_owned(),
        }
    }

    pub(super) fn gateway_state(&self) -> state_file::Phase {
        // After every start and handoff a link is made anew for a moment, which is no trouble.
        // One that is paused was meant to be.
        let fine = |link: &LinkState| matches!(link, LinkState::Connected | LinkState::Connecting | LinkState::Paused);
        let trouble = self.links.values().any(|link| !fine(&link.state))
            || self.gateway.agents().any(|agent| matches!(agent.view, AgentView::Down { .. }));
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
            argv: arguments(),
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

/// The chat with one person alone.
fn direct_chat(platform: &'static str, user: &str) -> Conversation {
    let chat = if platform == dingtalk::PLATFORM { dingtalk::direct_chat(user) } else { user.to_owned() };
    Conversation::new(platform, chat)
}

/// What chats are told of a handoff that went well.
fn done_of(report: &HandoffReport) -> Done<'_> {
    Done {
        kind: &report.kind,
        from: &report.from.version,
        to: &report.to.version,
        pid: report.pid,
        turns: report.turns_carried,
        blackout_us: report.blackout_us,
        is_dry_run: report.dry_run,
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

/// The command line. It may name a home that is no text, which is no reason to panic.
fn arguments() -> Vec<String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// Tells other programs of a gateway that does not serve yet, or never did. It holds the lock of the home.
pub(super) fn write_start(home: &Home, phase: state_file::Phase, error: Option<&DaemonError>) {
    let now = UnixMillis::now();
    let process = ProcessRecord {
        pid: std::process::id(),
        kind: state_file::KIND.to_owned(),
        argv: arguments(),
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

fn platform_state(link: &LinkView) -> PlatformState {
    let (state, code, message) = match &link.state {
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
        updated_at: link.updated_at,
    }
}
