//! What the gateway says in chats, all in one place. Plain text, for every platform.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::agent::PermissionOption;
use crate::chat::Inbound;
use crate::control::proto::{HandoffReport, Image};
use crate::id::AgentName;

pub(super) fn help() -> String {
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
     /restart [force] – replace the running image by itself\n\
     /reload – the same, to read the configuration anew\n\
     /update [check | VERSION] – update to a newer release\n\
     /update revert – go back to the version before\n\
     Everything else goes to the agent."
        .to_owned()
}

pub(super) fn stranger(id: &str) -> String {
    format!("You may not talk to this bot. Your id here is {id}.")
}

pub(super) fn not_admin() -> &'static str {
    "This command is for admins."
}

pub(super) fn usage(usage: &str) -> String {
    format!("Usage: {usage}")
}

pub(super) fn whoami(inbound: &Inbound, admin: bool) -> String {
    let role = if admin { "admin" } else { "user" };
    format!("{} (id {}), {role}, in {}", inbound.sender.name, inbound.sender.id, inbound.conversation)
}

pub(super) fn interrupted() -> &'static str {
    "the gateway was killed while your message was being answered, and the rest of the answer is lost; /retry asks again"
}

/// Why a permission request can no longer be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// The turn that asked is over.
    TurnOver,
    /// The process that asked has ended.
    AgentEnded,
    /// Nobody has answered for so long.
    Unanswered(Duration),
}

pub(super) fn permission_expired(title: &str, why: Expired) -> String {
    match why {
        Expired::TurnOver => format!("⌛ No longer to be answered: {title}. The turn that asked is over."),
        Expired::AgentEnded => format!("⌛ No longer to be answered: {title}. The agent that asked has ended."),
        Expired::Unanswered(after) => {
            format!("⌛ Denied, because nobody answered within {} min: {title}", after.as_secs() / 60)
        }
    }
}

pub(crate) fn database_damaged(aside: &Path) -> String {
    format!(
        "⚠ The database was damaged. It is kept as {}, and a new one is in its place: messages that waited in it are \
         lost, and agents begin new sessions.",
        aside.display()
    )
}

pub(super) fn command_lost(command: &str) -> String {
    format!("⚠ The gateway was killed before it came to your {command}. Send it again if you still want it.")
}

pub(super) fn stale() -> &'static str {
    "⚠ Your last message was not answered before the gateway went down more than a day ago. /retry asks it now."
}

pub(super) fn agent_gone(gone: &AgentName, now: &AgentName) -> String {
    format!("⚠ Agent '{gone}' is no longer configured. Agent '{now}' answers, in a new session.")
}

pub(super) fn stopping() -> String {
    "the gateway is stopping".to_owned()
}

pub(super) fn session_lost() -> &'static str {
    "⚠ The agent could not load the earlier session; it starts with an empty one."
}

pub(super) fn permission(title: &str, options: &[PermissionOption]) -> String {
    ask("The agent asks", title, options)
}

pub(super) fn permission_open(title: &str, options: &[PermissionOption]) -> String {
    ask("The gateway was killed, and the agent still asks", title, options)
}

fn ask(how: &str, title: &str, options: &[PermissionOption]) -> String {
    let mut text = format!("🔐 {how}: {title}\n");
    for (index, option) in options.iter().enumerate() {
        let command = if option.allows() { "/approve" } else { "/deny" };
        let _infallible = writeln!(text, "{command} {} – {}", index + 1, option.name);
    }
    text.push_str("/approve or /deny alone answers for this once.");
    text
}

pub(super) fn no_such_option(title: &str, options: &[PermissionOption]) -> String {
    format!("That is not one of the options.\n{}", permission(title, options))
}

pub(super) fn answered(title: &str, option: Option<&str>) -> String {
    format!("{}: {title}", option.unwrap_or("Denied"))
}

pub(super) fn nothing_to_answer() -> &'static str {
    "The agent asks nothing now."
}

pub(super) fn nothing_to_stop() -> &'static str {
    "Nothing is running."
}

pub(super) fn nothing_to_retry() -> &'static str {
    "There is nothing to ask again."
}

pub(super) fn new_session(agent: &AgentName) -> String {
    format!("New session with agent '{agent}'.")
}

pub(super) fn new_while_running() -> &'static str {
    "An answer is running. /stop it first."
}

pub(super) fn unknown_agent<'a>(agent: &AgentName, known: impl Iterator<Item = &'a AgentName>) -> String {
    let known: Vec<&str> = known.map(AgentName::as_str).collect();
    format!("There is no agent '{agent}'. There are: {}", known.join(", "))
}

pub(super) fn queue_full(limit: usize) -> String {
    format!("{limit} messages are waiting here already; this one was not taken. Send it again later.")
}

pub(super) fn agent_down(agent: &AgentName, reason: &str, again_in: Duration) -> String {
    format!(
        "⚠ Agent '{agent}' does not run ({reason}); it is started again in {} s. Your message waits.",
        again_in.as_secs().max(1)
    )
}

pub(super) fn stop_reason(reason: &str) -> String {
    match reason {
        "max_tokens" => "the answer reached the model's length limit".to_owned(),
        "max_turn_requests" => "the agent reached its limit of model requests for one turn".to_owned(),
        "refusal" => "the agent refused to go on".to_owned(),
        other => format!("the agent stopped: {other}"),
    }
}

/// What the asking chat is told when a handoff begins.
pub fn handoff_begins(kind: &str) -> &'static str {
    match kind {
        "update" => "♻ Looking for a newer release…",
        "revert" => "♻ Going back to the version before…",
        "reload" => "♻ Reloading…",
        _ => "♻ Restarting gateway…",
    }
}

/// What the asking chat is told when a handoff went well.
pub fn handoff_done(report: &HandoffReport) -> String {
    let carried = format!(
        "same process (PID {}), {} carried, {}",
        report.pid,
        counted(report.turns_carried, "turn"),
        millis(report.blackout_us)
    );
    if report.dry_run {
        return format!("✅ {} could take over. Nothing was replaced.", report.to.version);
    }
    match report.kind.as_str() {
        "update" => format!("✅ updated {} → {}, {carried}", report.from.version, report.to.version),
        "revert" => format!("✅ reverted {} → {}, {carried}", report.from.version, report.to.version),
        "reload" => format!("♻ reloaded {}, {carried}", report.to.version),
        _ => format!("♻ restarted {}, {carried}", report.to.version),
    }
}

/// What the asking chat is told when a handoff failed.
pub fn handoff_failed(kind: &str, reason: &str, running: &Image) -> String {
    format!("❌ The {kind} failed: {reason}\n{} goes on as before.", running.version)
}

/// What the asking chat is told when the new image did not stay and the previous one is back.
pub fn came_back(kind: &str, to: &Image, reason: &str, running: &Image, pid: u32, turns: usize) -> String {
    let what = match kind {
        "update" => format!("❌ The update to {} failed", to.version),
        kind => format!("❌ The {kind} failed"),
    };
    format!("{what}: {reason}\n{} serves again (PID {pid}), {} carried.", running.version, counted(turns, "turn"))
}

/// What the asking chat is told when the process was killed in the middle of a handoff to the same image.
pub fn restarted_anew(kind: &str, pid: u32) -> String {
    format!("⚠ The process was killed during the {kind}; it was started anew and serves (PID {pid}).")
}

/// What the asking chat is told when the process was killed in the middle of an update, and the update goes on.
pub fn updated_anew(from: &Image, to: &Image, pid: u32) -> String {
    format!(
        "✅ updated {} → {}; the process was killed on the way and started anew (PID {pid})",
        from.version, to.version
    )
}

/// What the asking chat is told when the gateway stops before a handoff.
pub fn handoff_stopped(kind: &str, why: &str) -> String {
    format!("⏹ The {kind} does not take place: the gateway stops ({why}).")
}

/// `1 turn`, `3 turns`.
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Microseconds as milliseconds for people: two digits that mean something.
pub fn millis(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        _ => format!("{} ms", us / 1000),
    }
}
