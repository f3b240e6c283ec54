//! English.

use std::fmt::Write;
use std::time::Duration;

use super::{
    AgentState, Answer, Back, Busy, Done, Expired, Found, Held, LinkState, MenuItem, Paused, Restart, State, Step,
    Updates, Wait, Words, millis,
};
use crate::chat::{Conversation, NotSent};
use crate::units::count;

pub(super) struct English;

impl Words for English {
    fn help(&self) -> String {
        "/status – what runs\n\
         /version – which version\n\
         /whoami – who you are here\n\
         /agents – the agents\n\
         /platforms – the platforms\n\
         /new [AGENT] – a new session, also with another agent\n\
         /stop – stop the running answer\n\
         /retry – ask the last question again\n\
         /approve [N], /deny [N] – answer what the agent asks\n\
         For admins:\n\
         /platform pause NAME, /platform resume NAME – hold a platform back, or let it go on\n\
         /restart [force] – replace the running image by itself\n\
         /reload – the same, to read the configuration anew\n\
         /update [check | VERSION] – update to a newer release\n\
         /update revert – go back to the version before\n\
         /update hold [TIME | DATE], /update unhold – let nothing be updated by itself, or let it again\n\
         Everything else goes to the agent."
            .to_owned()
    }

    fn menu_item(&self, item: MenuItem) -> &'static str {
        match item {
            MenuItem::Help => "What can be said to the bot",
            MenuItem::Status => "What the gateway does",
            MenuItem::New => "Begin a new conversation",
            MenuItem::Stop => "Stop the answer",
            MenuItem::Retry => "Ask the last message again",
            MenuItem::Agents => "Which agents there are",
            MenuItem::Platforms => "Which platforms are linked",
            MenuItem::Approve => "Allow what the agent asked for",
            MenuItem::Deny => "Deny what the agent asked for",
            MenuItem::Whoami => "Your id here",
            MenuItem::Version => "Which version runs",
            MenuItem::Restart => "Restart the gateway",
            MenuItem::Update => "Update the gateway",
        }
    }

    fn stranger(&self, id: &str) -> String {
        format!("You may not talk to this bot. Your id here is {id}.")
    }

    fn pairing_code(&self, code: &str, platform: &str) -> String {
        format!(
            "You may not talk to this bot yet. Give this code to whoever runs it:\n{code}\n\
             It is good for an hour and entered with: hermes pairing approve {platform} {code}"
        )
    }

    fn pairing_approved(&self) -> &'static str {
        "✅ You may talk to this bot now."
    }

    fn not_admin(&self) -> &'static str {
        "This command is for admins."
    }

    fn usage(&self, usage: &str) -> String {
        format!("Usage: {usage}")
    }

    fn one_argument(&self) -> &'static str {
        "Usage: one argument at most; see /help"
    }

    fn whoami(&self, name: &str, id: &str, is_admin: bool, conversation: &Conversation) -> String {
        let role = if is_admin { "admin" } else { "user" };
        format!("{name} (id {id}), {role}, in {conversation}")
    }

    fn interrupted(&self) -> &'static str {
        "the gateway was killed while your message was being answered, and the rest of the answer is lost; /retry asks \
         again"
    }

    fn stopping(&self) -> &'static str {
        "the gateway is stopping"
    }

    fn stop_reason(&self, reason: &str) -> String {
        match reason {
            "max_tokens" => "the answer reached the model's length limit".to_owned(),
            "max_turn_requests" => "the agent reached its limit of model requests for one turn".to_owned(),
            "refusal" => "the agent refused to go on".to_owned(),
            other => format!("the agent stopped: {other}"),
        }
    }

    fn command_lost(&self, command: &str) -> String {
        format!("⚠ The gateway was killed before it came to your {command}. Send it again if you still want it.")
    }

    fn stale(&self) -> &'static str {
        "⚠ Your last message was not answered before the gateway went down more than a day ago. /retry asks it now."
    }

    fn database_damaged(&self, aside: &str) -> String {
        format!(
            "⚠ The database was damaged. It is kept as {aside}, and a new one is in its place: messages that waited in \
             it are lost, and agents begin new sessions."
        )
    }

    fn agent_gone(&self, gone: &str, now: &str) -> String {
        format!("⚠ Agent '{gone}' is no longer configured. Agent '{now}' answers, in a new session.")
    }

    fn session_lost(&self) -> &'static str {
        "⚠ The agent could not load the earlier session; it starts with an empty one."
    }

    fn agent_down(&self, agent: &str, reason: &str, again_in: Duration) -> String {
        format!(
            "⚠ Agent '{agent}' does not run ({reason}); it is started again in {} s. Your message waits.",
            again_in.as_secs().max(1)
        )
    }

    fn queue_full(&self, limit: usize) -> String {
        format!("{limit} messages are waiting here already; this one was not taken. Send it again later.")
    }

    fn nothing_to_stop(&self) -> &'static str {
        "Nothing is running."
    }

    fn nothing_to_retry(&self) -> &'static str {
        "There is nothing to ask again."
    }

    fn new_session(&self, agent: &str) -> String {
        format!("New session with agent '{agent}'.")
    }

    fn new_while_running(&self) -> &'static str {
        "An answer is running. /stop it first."
    }

    fn unknown_agent(&self, agent: &str, known: &[&str]) -> String {
        format!("There is no agent '{agent}'. There are: {}", known.join(", "))
    }

    fn permission(&self, again: bool, title: &str, answers: &[Answer<'_>]) -> String {
        let how = if again { "The gateway was killed, and the agent still asks" } else { "The agent asks" };
        let mut text = format!("🔐 {how}: {title}\n");
        for Answer { command, name } in answers {
            let _infallible = writeln!(text, "{command} – {name}");
        }
        text.push_str("/approve or /deny alone answers for this once.");
        text
    }

    fn deny(&self) -> &'static str {
        "Deny"
    }

    fn permission_expired(&self, title: &str, why: Expired) -> String {
        match why {
            Expired::TurnOver => format!("⌛ No longer to be answered: {title}. The turn that asked is over."),
            Expired::AgentEnded => format!("⌛ No longer to be answered: {title}. The agent that asked has ended."),
            Expired::Unanswered(after) => {
                format!("⌛ Denied, because nobody answered within {} min: {title}", after.as_secs() / 60)
            }
        }
    }

    fn permission_gone(&self) -> &'static str {
        "⌛ That is no longer to be answered."
    }

    fn no_such_option(&self) -> &'static str {
        "That is not one of the options."
    }

    fn answered(&self, title: &str, option: Option<&str>) -> String {
        format!("{}: {title}", option.unwrap_or("Denied"))
    }

    fn nothing_to_answer(&self) -> &'static str {
        "The agent asks nothing now."
    }

    fn handoff_begins(&self, kind: &str) -> &'static str {
        match kind {
            "update" => "♻ Looking for a newer release…",
            "revert" => "♻ Going back to the version before…",
            "reload" => "♻ Reloading…",
            _ => "♻ Restarting gateway…",
        }
    }

    fn step(&self, step: &Step) -> String {
        match step {
            Step::Looking => "Looking for releases".to_owned(),
            Step::Downloading(None) => "Downloading".to_owned(),
            Step::Downloading(Some(bytes)) => format!("Downloading ({} kB)", bytes.div_ceil(1000)),
            Step::Verifying => "Verifying digest and signature".to_owned(),
            Step::Unpacking => "Unpacking".to_owned(),
            Step::Staged => "Verified and staged; replacing the running image".to_owned(),
            Step::Waiting(wait) => format!("Waiting for {wait}"),
        }
    }

    fn handoff_done(&self, done: &Done<'_>) -> String {
        let Done { from, to, pid, .. } = done;
        if done.is_dry_run {
            return format!("✅ {to} could take over. Nothing was replaced.");
        }
        let turns = count(done.turns, "turn");
        let carried = format!("same process (PID {pid}), {turns} carried, {}", millis(done.blackout_us));
        match done.kind {
            "update" => format!("✅ updated {from} → {to}, {carried}"),
            "revert" => format!("✅ reverted {from} → {to}, {carried}"),
            "reload" => format!("♻ reloaded {to}, {carried}"),
            _ => format!("♻ restarted {to}, {carried}"),
        }
    }

    fn handoff_failed(&self, kind: &str, reason: &str, running: &str) -> String {
        format!("❌ The {kind} failed: {reason}\n{running} goes on as before.")
    }

    fn came_back(&self, back: &Back<'_>) -> String {
        let Back { failed, reason, running, pid, .. } = back;
        let what = match back.kind {
            "update" => format!("❌ The update to {failed} failed"),
            kind => format!("❌ The {kind} failed"),
        };
        format!("{what}: {reason}\n{running} serves again (PID {pid}), {} carried.", count(back.turns, "turn"))
    }

    fn restarted_anew(&self, kind: &str, pid: u32) -> String {
        format!("⚠ The process was killed during the {kind}; it was started anew and serves (PID {pid}).")
    }

    fn updated_anew(&self, from: &str, to: &str, pid: u32) -> String {
        format!("✅ updated {from} → {to}; the process was killed on the way and started anew (PID {pid})")
    }

    fn handoff_stopped(&self, kind: &str, why: &str) -> String {
        format!("⏹ The {kind} does not take place: the gateway stops ({why}).")
    }

    fn not_now(&self, why: &Busy) -> String {
        format!("⏳ Not now: {why}.")
    }

    fn is_newest(&self, running: &str) -> String {
        format!("{running} is the newest release.")
    }

    fn found(&self, found: &Found, running: &str) -> String {
        match found {
            Found::Newer(version) => format!("{version} is available; {running} runs. /update installs it."),
            Found::FailedBefore(version, reason) => {
                format!("{version} failed here before ({reason}); /update {version} tries it again. {running} runs.")
            }
            Found::Nothing => self.is_newest(running),
            Found::Unknown(reason) => format!("❌ Cannot look for releases: {reason}"),
        }
    }

    fn available(&self, version: &str, running: &str, notes_url: Option<&str>) -> String {
        let notes = notes_url.map_or(String::new(), |url| format!("\nNotes: {url}"));
        format!("🆕 hermes {version} is available; {running} runs. /update installs it.{notes}")
    }

    fn by_itself(&self, told: &str) -> String {
        format!("{told}\n(An automatic update: nobody asked for it. /update hold lets no more of them.)")
    }

    fn held(&self, what: Held<'_>) -> String {
        match what {
            Held::Until(None) => "⏸ Nothing is updated by itself until /update unhold.".to_owned(),
            Held::Until(Some(until)) => format!("⏸ Nothing is updated by itself until {until}, or /update unhold."),
            Held::GoesOn => "▶ Updates are no longer held.".to_owned(),
            Held::WasNot => "Updates are not held.".to_owned(),
            Held::Failed(reason) => format!("❌ Updates go on as before: {reason}"),
        }
    }

    fn restarted(&self, why: &Restart, goes_on: bool) -> String {
        let how = match why {
            Restart::Asked { kind, from, to } => match kind.as_str() {
                "update" => format!("restarted (update {from} → {to})"),
                "revert" => format!("restarted (back from {from} to {to}, on request)"),
                "reload" => "restarted (configuration read anew)".to_owned(),
                _ => "restarted (on request)".to_owned(),
            },
            Restart::WentBack { from, to } => format!("restarted (back to {to}, because {from} did not prove itself)"),
            Restart::Stopped => "restarted (its service was restarted)".to_owned(),
            Restart::Crashed => "was started anew after a crash".to_owned(),
        };
        let rest = if goes_on { " Your answer goes on." } else { "" };
        format!("♻ Gateway {how}.{rest}")
    }

    fn version(&self, version: &str, generation: u64) -> String {
        format!("hermes {version} (generation {generation})")
    }

    fn digest_unknown(&self) -> &'static str {
        "not yet known"
    }

    fn state(&self, state: &State<'_>) -> String {
        let version = self.version(state.version, state.generation);
        let waiting = state.waiting.as_ref().map_or(String::new(), |wait| format!(", waiting for {wait}"));
        format!("{version}, PID {}, up {} s, {}{waiting}", state.pid, state.up.as_secs(), state.phase)
    }

    fn updates(&self, updates: &Updates<'_>) -> String {
        let window = updates.window.map_or(String::new(), |window| format!(" ({window})"));
        let mut text = match updates.applies {
            true => format!("updates: by themselves{window}"),
            false => "updates: on request".to_owned(),
        };
        let mut add = |part: String| text.push_str(&part);
        match updates.held {
            Some(Some(until)) => add(format!(", held until {until}")),
            Some(None) => add(", held".to_owned()),
            None => {}
        }
        if let Some(version) = updates.available {
            add(format!(", {version} is available"));
        }
        if let Some(percent) = updates.deferred {
            add(format!(", so far to {percent} % of installations and not to this one"));
        }
        if let Some(error) = updates.error {
            add(format!(", the last look failed ({error})"));
        }
        if let Some(next) = updates.next_check {
            add(format!(", next look in {} min", next.as_secs().div_ceil(60)));
        }
        text
    }

    fn queued(&self, messages: usize) -> String {
        format!("{} waiting", count(messages, "message"))
    }

    fn agent_line(&self, agent: &AgentState<'_>) -> String {
        let title = agent.title.map_or(String::new(), |title| format!(" ({title})"));
        let error = agent.error.map_or(String::new(), |error| format!(": {error}"));
        format!("agent {}{title}: {}, {}{error}", agent.name, agent.state, count(agent.turns, "turn"))
    }

    fn platform_line(&self, name: &str, link: &LinkState, next: Duration) -> String {
        let state = match link {
            LinkState::Connecting => "connecting".to_owned(),
            LinkState::Connected => "connected".to_owned(),
            LinkState::Paused => format!("paused; /platform resume {name} lets it go on"),
            LinkState::Retrying { error_code, error_message, .. } => {
                format!("retrying in {} s ({error_code}: {error_message})", next.as_secs())
            }
            LinkState::Fatal { error_code, error_message } => format!("given up ({error_code}: {error_message})"),
        };
        format!("platform {name}: {state}")
    }

    fn paused(&self, platform: &str, what: Paused) -> String {
        match what {
            Paused::Now => format!("⏸ {platform} is paused: it takes in nothing and sends nothing."),
            Paused::Already => format!("⏸ {platform} is paused already."),
            Paused::GoesOn => format!("▶ {platform} goes on."),
            Paused::WasNot => format!("{platform} is not paused."),
            Paused::Here => format!(
                "⚠ This is {platform}: once it is paused, nothing is heard or said here. It can be let go on from \
                 another platform with /platform resume {platform}, or on the gateway's machine with \
                 hermes gateway platform resume {platform}. If you mean it: /platform pause {platform} here"
            ),
        }
    }

    fn unknown_platform(&self, name: &str, known: &[&str]) -> String {
        if known.is_empty() {
            return format!("'{name}' is no platform that can be paused: none is configured.");
        }
        format!("'{name}' is no platform that can be paused. There are: {}", known.join(", "))
    }

    fn pause_failed(&self, platform: &str, reason: &str) -> String {
        format!("❌ {platform} stays as it is: {reason}")
    }

    fn recovered(&self) -> &'static str {
        "♻️ Recovered reply — the gateway restarted during delivery, so this may be a duplicate:\n"
    }

    fn sent_again(&self) -> &'static str {
        "♻️ Sent again — nobody knows whether it arrived the first time, so this may be a duplicate:\n"
    }

    fn file_not_sent(&self, name: &str, why: &NotSent, link: Option<&str>) -> String {
        let why = match why {
            NotSent::TooLarge { bytes_max } => format!("it is larger than {} MiB", bytes_max >> 20),
            NotSent::TooMany => "too many files in one answer".to_owned(),
            NotSent::Outside => "it is no file in the agent's working directory".to_owned(),
            NotSent::Unreadable => "it cannot be read".to_owned(),
            NotSent::Unsupported => "such a file cannot be sent here".to_owned(),
            NotSent::Refused(why) => format!("it was not taken: {why}"),
        };
        let link = link.map(|link| format!("\n{link}")).unwrap_or_default();
        format!("📎 {name} (not sent: {why}){link}")
    }

    fn no_answer(&self) -> &'static str {
        "(no answer)"
    }

    fn cut(&self) -> &'static str {
        "\n… (the rest was cut off: this is too long for a chat)"
    }

    fn reply_stopped(&self) -> &'static str {
        "⚡ Stopped."
    }
}

/// For the status and the journal, too.
impl std::fmt::Display for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let platforms: Vec<String> = self.platforms.iter().map(|name| format!("platform '{name}'")).collect();
        write!(f, "{} ({} s so far, at most {} s more)", platforms.join(", "), self.waited, self.left)
    }
}

/// For the command line and the journal, too.
impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnderWay { kind, who, phase, secs, hurries } => {
                let article = if *kind == "update" { "an" } else { "a" };
                let hurries = if *hurries { ", and waits for nothing any more" } else { "" };
                write!(f, "{article} {kind} asked for by {who} is under way ({phase}, {secs} s){hurries}")
            }
            Self::AgentLeaves(agent) => {
                write!(f, "agent '{agent}' is no longer configured and is being stopped; try again in a moment")
            }
        }
    }
}
