//! Chat commands: `/help`, `/stop`, `/update 1.5.0` and the others.
//!
//! A text that begins with `/` and a word that is no command here goes to the agent, which may have commands of its
//! own.

use super::{Describe, Effect, Gateway, Requester, notice};
use crate::agent::AgentCommand;
use crate::chat::Inbound;
use crate::control::proto::HandoffKind;
use crate::id::{AgentName, PlatformName, TurnId};

/// A command, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatCommand {
    /// `/help` and `/commands`, `/start`.
    Help,
    /// `/status`.
    Status,
    /// `/version`.
    Version,
    /// `/whoami`.
    Whoami,
    /// `/agents`.
    Agents,
    /// `/platforms`.
    Platforms,
    /// `/new [AGENT]`.
    New(Option<String>),
    /// `/stop`.
    Stop,
    /// `/retry`.
    Retry,
    /// `/approve [N]` and `/approve REQUEST.N`.
    Approve(Option<String>),
    /// `/deny [N]` and `/deny REQUEST.N`.
    Deny(Option<String>),
    /// `/restart [force]`.
    Restart {
        /// Do not wait for sends in flight.
        force: bool,
    },
    /// `/reload`.
    Reload,
    /// `/update`.
    Update,
    /// `/update check`.
    UpdateCheck,
    /// `/update revert`.
    Revert,
    /// `/update hold [TIME | DATE]`.
    Hold(Option<String>),
    /// `/update unhold`.
    Unhold,
    /// `/update VERSION`.
    UpdateTo(String),
    /// `/platform list`.
    PlatformList,
    /// `/platform pause NAME [here]`.
    PlatformPause {
        /// Which.
        name: String,
        /// Also if it is the platform on which this is said.
        here: bool,
    },
    /// `/platform resume NAME`.
    PlatformResume(String),
    /// A known command with arguments that it does not take; the text is its usage.
    Misused(&'static str),
    /// A known command with too many arguments.
    Surplus,
}

impl ChatCommand {
    /// Reads a message; `None` if it is not one of these commands.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_prefix('/')?.split_whitespace();
        let name = words.next()?.to_ascii_lowercase();
        if name == "platform" {
            return Some(Self::platform(&words.collect::<Vec<_>>()));
        }
        let argument = words.next().map(str::to_owned);
        if name == "update" && argument.as_deref() == Some("hold") {
            let until = words.next().map(str::to_owned);
            return Some(if words.next().is_some() {
                Self::Misused("/update hold [TIME | DATE]")
            } else {
                Self::Hold(until)
            });
        }
        let surplus = words.next().is_some();
        let command = match (name.as_str(), argument.as_deref()) {
            ("help" | "commands" | "start", _) => return Some(Self::Help),
            ("status", None) => Self::Status,
            ("version", None) => Self::Version,
            ("whoami", None) => Self::Whoami,
            ("agents", None) => Self::Agents,
            ("platforms", None) => Self::Platforms,
            ("new", _) => Self::New(argument),
            ("stop", None) => Self::Stop,
            ("retry", None) => Self::Retry,
            ("approve", _) => Self::Approve(argument),
            ("deny", _) => Self::Deny(argument),
            ("restart", None) => Self::Restart { force: false },
            ("restart", Some("force")) => Self::Restart { force: true },
            ("reload", None) => Self::Reload,
            ("update", None) => Self::Update,
            ("update", Some("check")) => Self::UpdateCheck,
            ("update", Some("revert")) => Self::Revert,
            ("update", Some("unhold")) => Self::Unhold,
            ("update", Some(version)) => Self::UpdateTo(version.to_owned()),
            ("restart", Some(_)) => Self::Misused("/restart [force]"),
            ("status", Some(_)) => Self::Misused("/status"),
            ("version", Some(_)) => Self::Misused("/version"),
            ("whoami", Some(_)) => Self::Misused("/whoami"),
            ("agents", Some(_)) => Self::Misused("/agents"),
            ("platforms", Some(_)) => Self::Misused("/platforms"),
            ("stop", Some(_)) => Self::Misused("/stop"),
            ("retry", Some(_)) => Self::Misused("/retry"),
            ("reload", Some(_)) => Self::Misused("/reload"),
            _ => return None,
        };
        Some(if surplus { Self::Surplus } else { command })
    }

    fn platform(words: &[&str]) -> Self {
        match *words {
            ["list"] => Self::PlatformList,
            ["pause", name] => Self::PlatformPause { name: name.to_owned(), here: false },
            ["pause", name, "here"] => Self::PlatformPause { name: name.to_owned(), here: true },
            ["resume", name] => Self::PlatformResume(name.to_owned()),
            _ => Self::Misused("/platform list | pause NAME | resume NAME"),
        }
    }

    /// Whether only admins may use it.
    pub fn needs_admin(&self) -> bool {
        matches!(
            self,
            Self::Restart { .. }
                | Self::Reload
                | Self::Update
                | Self::UpdateCheck
                | Self::UpdateTo(_)
                | Self::Revert
                | Self::Hold(_)
                | Self::Unhold
                | Self::PlatformList
                | Self::PlatformPause { .. }
                | Self::PlatformResume(_)
        )
    }
}

impl Gateway {
    pub(super) fn command(&mut self, command: ChatCommand, turn: TurnId, inbound: &Inbound, out: &mut Vec<Effect>) {
        let conversation = &inbound.conversation;
        let words = self.words(conversation);
        if command.needs_admin() && !self.access.is_admin(inbound) {
            tracing::warn!(%conversation, sender = inbound.sender.id, "refused an admin command");
            out.push(notice(conversation, words.not_admin()));
            return;
        }
        let describe = |what| Effect::Describe(conversation.clone(), what);
        let by = || Requester { conversation: conversation.clone(), turn, sender: inbound.sender.clone() };
        let handoff = |kind, force| Effect::Handoff { kind, force, by: by() };
        let pause =
            |name: String, pause, here| Effect::Pause { platform: PlatformName::new(name), pause, here, by: by() };
        let hold = |hold, until| Effect::Hold { hold, until, by: by() };
        match command {
            ChatCommand::Help => out.push(notice(conversation, words.help())),
            ChatCommand::Status => out.push(describe(Describe::Status)),
            ChatCommand::Version => out.push(describe(Describe::Version)),
            ChatCommand::Agents => out.push(describe(Describe::Agents)),
            ChatCommand::Platforms | ChatCommand::PlatformList => out.push(describe(Describe::Platforms)),
            ChatCommand::PlatformPause { name, here } => out.push(pause(name, true, here)),
            ChatCommand::PlatformResume(name) => out.push(pause(name, false, false)),
            ChatCommand::Whoami => {
                let (who, is_admin) = (&inbound.sender, self.access.is_admin(inbound));
                out.push(notice(conversation, words.whoami(&who.name, &who.id, is_admin, conversation)));
            }
            ChatCommand::New(agent) => self.new_session(agent.map(AgentName::new), inbound, out),
            ChatCommand::Stop => self.stop_turn(inbound, out),
            ChatCommand::Retry => self.retry(turn, inbound, out),
            ChatCommand::Approve(which) => self.answer_ask(which.as_deref(), true, inbound, out),
            ChatCommand::Deny(which) => self.answer_ask(which.as_deref(), false, inbound, out),
            ChatCommand::Restart { force } => out.push(handoff(HandoffKind::Restart, force)),
            ChatCommand::Reload => out.push(handoff(HandoffKind::Reload, false)),
            ChatCommand::Update => out.push(handoff(HandoffKind::Update { version: None, dry_run: false }, false)),
            ChatCommand::Revert => out.push(handoff(HandoffKind::Revert { dry_run: false }, false)),
            ChatCommand::UpdateTo(version) => {
                out.push(handoff(HandoffKind::Update { version: Some(version), dry_run: false }, false));
            }
            ChatCommand::Hold(until) => out.push(hold(true, until)),
            ChatCommand::Unhold => out.push(hold(false, None)),
            ChatCommand::UpdateCheck => out.push(Effect::CheckUpdate(conversation.clone())),
            ChatCommand::Misused(usage) => out.push(notice(conversation, words.usage(usage))),
            ChatCommand::Surplus => out.push(notice(conversation, words.one_argument())),
        }
    }

    fn new_session(&mut self, agent: Option<AgentName>, inbound: &Inbound, out: &mut Vec<Effect>) {
        let conversation = &inbound.conversation;
        let words = self.words(conversation);
        if let Some(agent) = &agent
            && !self.agents.contains_key(agent)
        {
            let known: Vec<&str> = self.agents.keys().map(AgentName::as_str).collect();
            out.push(notice(conversation, words.unknown_agent(agent.as_str(), &known)));
            return;
        }
        let talk = self.talk(conversation);
        if talk.running.is_some() {
            out.push(notice(conversation, words.new_while_running()));
            return;
        }
        if let Some(agent) = agent {
            talk.agent = agent;
        }
        talk.session = None;
        talk.forget_question();
        out.push(Effect::Session(talk.row()));
        out.push(notice(conversation, words.new_session(talk.agent.as_str())));
        let conversation = conversation.clone();
        self.start(&conversation, out);
    }

    fn stop_turn(&mut self, inbound: &Inbound, out: &mut Vec<Effect>) {
        let words = self.words(&inbound.conversation);
        let talk = self.talk(&inbound.conversation);
        match &talk.running {
            // The end of the turn says that it was stopped.
            Some(running) => {
                out.push(Effect::Agent(talk.agent.clone(), AgentCommand::Cancel { turn: running.turn }));
            }
            None => out.push(notice(&inbound.conversation, words.nothing_to_stop())),
        }
    }

    fn retry(&mut self, turn: TurnId, inbound: &Inbound, out: &mut Vec<Effect>) {
        match self.talk(&inbound.conversation).last_question() {
            Some(question) => {
                // The message `/retry` itself is the turn now, and after a kill it is asked like any other.
                out.push(match &question.files {
                    Some(files) => Effect::Requeue(turn, files.said().to_owned(), files.attachments()),
                    None => Effect::Requeue(turn, question.text.clone(), Vec::new()),
                });
                self.enqueue(turn, &inbound.conversation, question, out);
            }
            None => out.push(notice(&inbound.conversation, self.words(&inbound.conversation).nothing_to_retry())),
        }
    }
}
