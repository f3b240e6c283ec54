//! What is said in chats, in every language: all sentences in one place. Plain text, for every platform.
//!
//! A language is an implementation of [`Words`], so a sentence that one of them lacks does not compile. Each platform
//! has its [`Language`], by the key `language` in its section of gateway.toml.
//!
//! **Invariants**
//! - A sentence is chosen here and nowhere else; who says it gives names, numbers and times only.
//! - Details that come from programs (an error, what an agent calls itself) are passed on as they are.
//! - Commands are the same in every language.
//!
//! Deliberately absent: what the command line and the journal say, which is English, and what agents say.

mod en;
mod zh;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::chat::{Conversation, LinkState, NotSent};
use crate::id::PlatformName;

/// A language that the gateway speaks in chats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Language {
    /// English.
    #[default]
    #[serde(rename = "en")]
    En,
    /// Chinese as it is written in mainland China.
    #[serde(rename = "zh-CN")]
    ZhCn,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::En, Self::ZhCn];

    /// Its tag (BCP 47), as gateway.toml names it.
    pub fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::ZhCn => "zh-CN",
        }
    }

    /// The language with this tag.
    pub fn parse(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.tag() == tag)
    }

    /// What is said in it.
    pub fn words(self) -> &'static dyn Words {
        match self {
            Self::En => &en::English,
            Self::ZhCn => &zh::Chinese,
        }
    }
}

/// What is spoken on each platform; the default where nothing is said of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Languages(BTreeMap<PlatformName, Language>);

impl Languages {
    /// These languages.
    pub fn new(languages: impl IntoIterator<Item = (PlatformName, Language)>) -> Self {
        Self(languages.into_iter().collect())
    }

    /// What is said on a platform.
    pub fn on(&self, platform: &PlatformName) -> &'static dyn Words {
        self.0.get(platform).copied().unwrap_or_default().words()
    }
}

/// Why a permission request can no longer be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// The turn that asked is over.
    TurnOver,
    /// The process that asked has ended.
    AgentEnded,
    /// Nobody has answered for so long.
    Unanswered(Duration),
}

/// One answer to a permission request: what to type, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The command.
    pub command: String,
    /// The agent's word for it.
    pub name: &'a str,
}

/// A handoff that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done<'a> {
    /// `restart`, `reload`, `update` or `revert`.
    pub kind: &'a str,
    /// The version that ran before.
    pub from: &'a str,
    /// The version that runs now.
    pub to: &'a str,
    /// The process.
    pub pid: u32,
    /// Running turns carried over.
    pub turns: usize,
    /// How long nobody was served, in microseconds.
    pub blackout_us: u64,
    /// Nothing was replaced, as asked.
    pub is_dry_run: bool,
}

/// The previous image serves again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Back<'a> {
    /// What had been asked for, as in [`Done`].
    pub kind: &'a str,
    /// The version that failed.
    pub failed: &'a str,
    /// How.
    pub reason: &'a str,
    /// The version that serves.
    pub running: &'a str,
    /// The process.
    pub pid: u32,
    /// Running turns carried over.
    pub turns: usize,
}

/// Why a handoff is not begun now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Busy {
    /// Another one is under way.
    UnderWay {
        /// Its kind, as in [`Done`], or `rollback`.
        kind: &'static str,
        /// Who asked for it.
        who: String,
        /// How far it is.
        phase: &'static str,
        /// For how long it has been under way, in seconds.
        secs: u64,
        /// Whether it was told to wait for nothing any more.
        hurries: bool,
    },
    /// An agent that is no longer configured is being stopped.
    AgentLeaves(String),
}

/// A step on the way to an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The list of releases is fetched.
    Looking,
    /// The release is fetched; its size in bytes, where that is known.
    Downloading(Option<u64>),
    /// It is verified.
    Verifying,
    /// It is unpacked.
    Unpacking,
    /// It is ready to run.
    Staged,
    /// The handoff waits for sends in flight.
    Waiting(Wait),
}

/// Sends in flight that are waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The platforms.
    pub platforms: Vec<String>,
    /// For how long, in seconds.
    pub waited: u64,
    /// And how long it still may be, in seconds.
    pub left: u64,
}

/// What came of a look for newer releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is one.
    Newer(String),
    /// There is one that failed here before, and how.
    FailedBefore(String, String),
    /// There is none.
    Nothing,
    /// Nobody knows, and why.
    Unknown(String),
}

/// What everyone is told of in `/status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State<'a> {
    /// The version.
    pub version: &'a str,
    /// How many times the process has replaced its image.
    pub generation: u64,
    /// The process.
    pub pid: u32,
    /// How long it has run.
    pub up: Duration,
    /// `serving`, `probation`, or the phase of a handoff.
    pub phase: &'a str,
    /// What that waits for.
    pub waiting: Option<Wait>,
}

/// What an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentState<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it calls itself.
    pub title: Option<&'a str>,
    /// `starting`, `ready` or `down`.
    pub state: &'a str,
    /// Turns that it runs.
    pub turns: usize,
    /// Why it is down.
    pub error: Option<&'a str>,
}

/// Why the gateway was started anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// On request.
    Asked {
        /// As in [`Done`].
        kind: String,
        /// The version that ran before.
        from: String,
        /// The version that runs now.
        to: String,
    },
    /// An update did not prove itself.
    WentBack {
        /// The version that failed.
        from: String,
        /// The version that runs again.
        to: String,
    },
    /// Whoever runs it has stopped and started it.
    Stopped,
    /// It had crashed, or was killed.
    Crashed,
}

/// What came of `/platform pause` and `/platform resume`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paused {
    /// It takes in and sends nothing from now on.
    Now,
    /// It did so before.
    Already,
    /// It goes on.
    GoesOn,
    /// It was not paused.
    WasNot,
    /// It is the one on which this was asked, and that must be confirmed.
    Here,
}

/// What happens with updates by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updates<'a> {
    /// Whether they are installed, or only told of.
    pub applies: bool,
    /// When they are installed.
    pub window: Option<&'a str>,
    /// A release that is newer than what runs.
    pub available: Option<&'a str>,
    /// To how many of 100 installations it goes so far, this one not among them.
    pub deferred: Option<u8>,
    /// Updates are held, and until when.
    pub held: Option<Option<&'a str>>,
    /// Why nobody knows of releases.
    pub error: Option<&'a str>,
    /// In how long releases are looked for.
    pub next_check: Option<Duration>,
}

/// What came of `/update hold` and `/update unhold`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held<'a> {
    /// Nothing is updated by itself, until this time.
    Until(Option<&'a str>),
    /// Updates go on.
    GoesOn,
    /// They were not held.
    WasNot,
    /// It was not recorded or not understood, so that all is as before.
    Failed(&'a str),
}

/// A command that the menu of a chat offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MenuItem {
    /// `/help`.
    Help,
    /// `/status`.
    Status,
    /// `/new`.
    New,
    /// `/stop`.
    Stop,
    /// `/retry`.
    Retry,
    /// `/agents`.
    Agents,
    /// `/platforms`.
    Platforms,
    /// `/approve`.
    Approve,
    /// `/deny`.
    Deny,
    /// `/whoami`.
    Whoami,
    /// `/version`.
    Version,
    /// `/restart`.
    Restart,
    /// `/update`.
    Update,
}

impl MenuItem {
    /// All of them, in the order of the menu.
    pub const ALL: [Self; 13] = [
        Self::Help,
        Self::Status,
        Self::New,
        Self::Stop,
        Self::Retry,
        Self::Agents,
        Self::Platforms,
        Self::Approve,
        Self::Deny,
        Self::Whoami,
        Self::Version,
        Self::Restart,
        Self::Update,
    ];

    /// The command, without its slash.
    pub fn command(self) -> &'static str {
        match self {
            Self::Help => "help",
            Self::Status => "status",
            Self::New => "new",
            Self::Stop => "stop",
            Self::Retry => "retry",
            Self::Agents => "agents",
            Self::Platforms => "platforms",
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::Whoami => "whoami",
            Self::Version => "version",
            Self::Restart => "restart",
            Self::Update => "update",
        }
    }
}

/// Everything that is said in chats.
pub trait Words: Sync {
    /// The answer to `/help`.
    fn help(&self) -> String;
    /// What the menu says of a command.
    fn menu_item(&self, item: MenuItem) -> &'static str;
    /// To somebody who may not talk.
    fn stranger(&self, id: &str) -> String;
    /// To somebody who may not talk, and how that can be changed: by whom the gateway belongs to, within an hour.
    fn pairing_code(&self, code: &str, platform: &str) -> String;
    /// To somebody who may talk from now on.
    fn pairing_approved(&self) -> &'static str;
    /// To somebody who is no admin.
    fn not_admin(&self) -> &'static str;
    /// How a command is written.
    fn usage(&self, usage: &str) -> String;
    /// Too many arguments.
    fn one_argument(&self) -> &'static str;
    /// The answer to `/whoami`.
    fn whoami(&self, name: &str, id: &str, is_admin: bool, conversation: &Conversation) -> String;

    /// Why a reply broke off: the process was killed. A part of a sentence.
    fn interrupted(&self) -> &'static str;
    /// Why a reply broke off: the gateway stops. A part of a sentence.
    fn stopping(&self) -> &'static str;
    /// Why a reply ended early, by the agent's own `stop_reason`. A part of a sentence.
    fn stop_reason(&self, reason: &str) -> String;
    /// A command that was not carried out before a kill.
    fn command_lost(&self, command: &str) -> String;
    /// A message that waited for too long.
    fn stale(&self) -> &'static str;
    /// To the admins: the database was damaged, and where it is kept.
    fn database_damaged(&self, aside: &str) -> String;

    /// An agent is no longer there, and another answers.
    fn agent_gone(&self, gone: &str, now: &str) -> String;
    /// An agent has lost its session.
    fn session_lost(&self) -> &'static str;
    /// An agent does not run, and for how long.
    fn agent_down(&self, agent: &str, reason: &str, again_in: Duration) -> String;
    /// A message was not taken.
    fn queue_full(&self, limit: usize) -> String;
    /// The answer to `/stop`.
    fn nothing_to_stop(&self) -> &'static str;
    /// The answer to `/retry`.
    fn nothing_to_retry(&self) -> &'static str;
    /// The answer to `/new`.
    fn new_session(&self, agent: &str) -> String;
    /// The answer to `/new` while a turn runs.
    fn new_while_running(&self) -> &'static str;
    /// The answer to `/new` with a name that is none.
    fn unknown_agent(&self, agent: &str, known: &[&str]) -> String;

    /// An agent asks; `again` after a kill, because nobody knows whether the chat was told.
    fn permission(&self, again: bool, title: &str, answers: &[Answer<'_>]) -> String;
    /// What is on the button that denies, where the agent has no word for it.
    fn deny(&self) -> &'static str;
    /// A request can no longer be answered.
    fn permission_expired(&self, title: &str, why: Expired) -> String;
    /// An answer came to a request that is not open.
    fn permission_gone(&self) -> &'static str;
    /// An answer that was not offered; what is follows on the next line.
    fn no_such_option(&self) -> &'static str;
    /// A request was answered by this option, or denied.
    fn answered(&self, title: &str, option: Option<&str>) -> String;
    /// The answer to `/approve` and `/deny` when nothing is asked.
    fn nothing_to_answer(&self) -> &'static str;

    /// A handoff begins; `kind` as in [`Done`].
    fn handoff_begins(&self, kind: &str) -> &'static str;
    /// It is at this step.
    fn step(&self, step: &Step) -> String;
    /// It went well.
    fn handoff_done(&self, done: &Done<'_>) -> String;
    /// It did not come about.
    fn handoff_failed(&self, kind: &str, reason: &str, running: &str) -> String;
    /// The new image did not stay.
    fn came_back(&self, back: &Back<'_>) -> String;
    /// The process was killed in a handoff to the same image.
    fn restarted_anew(&self, kind: &str, pid: u32) -> String;
    /// The process was killed in an update, which goes on.
    fn updated_anew(&self, from: &str, to: &str, pid: u32) -> String;
    /// The gateway stops before a handoff.
    fn handoff_stopped(&self, kind: &str, why: &str) -> String;
    /// A handoff is not begun.
    fn not_now(&self, why: &Busy) -> String;
    /// The newest release was asked for, and it runs.
    fn is_newest(&self, running: &str) -> String;
    /// The answer to `/update check`.
    fn found(&self, found: &Found, running: &str) -> String;
    /// To the admins: a release is available, and where its notes are.
    fn available(&self, version: &str, running: &str, notes_url: Option<&str>) -> String;
    /// To the admins: what came of an update that nobody asked for.
    fn by_itself(&self, told: &str) -> String;
    /// The answer to `/update hold` and `/update unhold`.
    fn held(&self, what: Held<'_>) -> String;
    /// To a chat that had a turn running or waiting when the gateway was started anew, and whether that goes on.
    fn restarted(&self, why: &Restart, goes_on: bool) -> String;

    /// The version in one line.
    fn version(&self, version: &str, generation: u64) -> String;
    /// A digest that is not known yet.
    fn digest_unknown(&self) -> &'static str;
    /// The first line of `/status`.
    fn state(&self, state: &State<'_>) -> String;
    /// The line about updates in `/status`.
    fn updates(&self, updates: &Updates<'_>) -> String;
    /// Messages that wait.
    fn queued(&self, messages: usize) -> String;
    /// One line about an agent.
    fn agent_line(&self, agent: &AgentState<'_>) -> String;
    /// One line about a platform; `next` is the time until it tries again.
    fn platform_line(&self, name: &str, link: &LinkState, next: Duration) -> String;
    /// The answer to `/platform pause` and `/platform resume`.
    fn paused(&self, platform: &str, what: Paused) -> String;
    /// The name of a platform that cannot be paused; those that can.
    fn unknown_platform(&self, name: &str, known: &[&str]) -> String;
    /// The pause, or its end, was not recorded, so that it did not take place.
    fn pause_failed(&self, platform: &str, reason: &str) -> String;

    /// Goes before a message that may have been delivered already. Ends its line.
    fn recovered(&self) -> &'static str;
    /// The same where only the platform's answer did not arrive, or did not say. Ends its line.
    fn sent_again(&self) -> &'static str;
    /// In the place of a file that is not sent; `link` is what the agent gave.
    fn file_not_sent(&self, name: &str, why: &NotSent, link: Option<&str>) -> String;
    /// In the place of an answer without a word.
    fn no_answer(&self) -> &'static str;
    /// In the place of what was cut off; begins a line.
    fn cut(&self) -> &'static str;
    /// The last line of a reply that was stopped.
    fn reply_stopped(&self) -> &'static str;
    /// The last line of a reply that broke off.
    fn reply_failed(&self, reason: &str) -> String {
        format!("❌ {reason}")
    }
}

/// Microseconds as milliseconds for people: two digits that mean something.
fn millis(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        _ => format!("{} ms", us / 1000),
    }
}

#[cfg(test)]
mod tests;
