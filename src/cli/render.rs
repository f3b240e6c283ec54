//! How answers look to people. Nothing here reads a clock or a terminal.

use std::fmt::Write;
use std::time::Duration;

use crate::chat::LinkState;
use crate::clock::UnixMillis;
use crate::control::proto::{AgentStatus, HandoffReport, PlatformStatus, Status, UpdateCheck};
use crate::store::HandoffRecord;

/// Handoffs that the status shows.
const HANDOFFS_SHOWN: usize = 5;

/// `hermes gateway status`.
pub(super) fn status(status: &Status, now: UnixMillis) -> String {
    let mut text = String::new();
    let sha = status.image.sha256.get(..12).unwrap_or(&status.image.sha256);
    let phase = if status.phase == "serving" { String::new() } else { format!(", {}", status.phase) };
    let image_age = now.since(status.image_started_at);
    line(&mut text, format_args!("hermes {} (sha256 {sha}…) is {}{phase}", status.image.version, status.gateway_state));
    line(
        &mut text,
        format_args!(
            "  PID {}, up {}; this image for {} (generation {})",
            status.pid,
            span(now.since(status.started_at)),
            span(image_age),
            status.generation
        ),
    );
    line(&mut text, format_args!("  home {}", status.home));
    table(&mut text, "platforms", status.platforms.iter().map(|platform| platform_row(platform, now)).collect());
    table(&mut text, "agents", status.agents.iter().flat_map(|agent| agent_rows(agent, now)).collect());
    if status.queued_turns > 0 {
        line(&mut text, format_args!("  {} waiting for an agent", count(status.queued_turns, "turn")));
    }
    let recent = status.handoffs.iter().take(HANDOFFS_SHOWN).map(|record| record_row(record, now)).collect();
    table(&mut text, "handoffs", recent);
    text
}

/// How a handoff ended, in one line. `pid_before` is the process that was asked.
pub(super) fn report(report: &HandoffReport, pid_before: u32) -> String {
    let change = format!("{} → {}", report.from.version, report.to.version);
    if report.dry_run {
        return format!("{change} would work: downloaded, verified and tried; nothing was replaced");
    }
    let what = match report.kind.as_str() {
        "update" => format!("updated {change}"),
        "reload" => format!("reloaded {}", report.to.version),
        _ => format!("restarted {}", report.to.version),
    };
    let process = if report.pid == pid_before { "same process" } else { "new process" };
    let mut text = format!("{what}, {process} (PID {})", report.pid);
    if report.turns_carried > 0 {
        let _ = write!(text, ", {} carried", count(report.turns_carried, "turn"));
    }
    if report.blackout_us > 0 {
        let _ = write!(text, ", {}", fine(Duration::from_micros(report.blackout_us)));
    }
    text
}

/// `hermes self-update --check`.
pub(super) fn update_check(found: &UpdateCheck) -> String {
    let Some(available) = &found.available else {
        return format!("hermes {} is up to date\n", found.running);
    };
    let date = found.date.as_ref().map(|date| format!(" of {date}")).unwrap_or_default();
    let notes = found.notes_url.as_ref().map(|url| format!("  notes: {url}\n")).unwrap_or_default();
    format!("hermes {available}{date} is available ({} is running)\n{notes}", found.running)
}

/// The longest unit that gives a whole number: `3 min`, `2 h`, `5 d`.
fn span(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min", secs / 60),
        3600..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} d", secs / 86_400),
    }
}

fn ago(then: UnixMillis, now: UnixMillis) -> String {
    format!("{} ago", span(now.since(then)))
}

fn fine(duration: Duration) -> String {
    match duration.as_micros() {
        micros @ 0..1000 => format!("{micros} µs"),
        1000..10_000_000 => format!("{} ms", duration.as_millis()),
        _ => format!("{} s", duration.as_secs()),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn platform_row(platform: &PlatformStatus, now: UnixMillis) -> Vec<String> {
    let (state, detail) = match &platform.link {
        LinkState::Connecting => ("connecting", String::new()),
        LinkState::Connected => ("connected", String::new()),
        LinkState::Paused => ("paused", String::new()),
        LinkState::Retrying { error_code, error_message, next_attempt_at } => {
            let wait = span(next_attempt_at.since(now));
            ("retrying", format!("{error_message} ({error_code}); next try in {wait}"))
        }
        LinkState::Fatal { error_code, error_message } => ("fatal", format!("{error_message} ({error_code})")),
    };
    vec![platform.name.clone(), state.to_owned(), ago(platform.updated_at, now), detail]
}

fn agent_rows(agent: &AgentStatus, now: UnixMillis) -> Vec<Vec<String>> {
    let pid = agent.pid.map(|pid| format!("PID {pid}")).unwrap_or_default();
    let detail = agent.error.clone().or_else(|| agent.title.clone()).unwrap_or_default();
    let mut rows = vec![vec![agent.name.clone(), agent.state.clone(), pid, detail]];
    rows.extend(agent.turns.iter().map(|turn| {
        let name = format!("  turn {}", turn.turn);
        let so_far = format!("{} so far", size(turn.answer_bytes));
        vec![name, turn.conversation.clone(), ago(turn.started_at, now), so_far]
    }));
    rows
}

fn record_row(record: &HandoffRecord, now: UnixMillis) -> Vec<String> {
    let what = if record.from_version == record.to_version {
        format!("{} {}", record.kind, record.to_version)
    } else {
        format!("{} {} → {}", record.kind, record.from_version, record.to_version)
    };
    let by = format!("by {} ({})", record.requested_by, record.requested_via);
    let took = fine(Duration::from_micros(record.phases_us.iter().map(|(_, us)| us).sum()));
    let reason = record.reason.as_ref().map(|reason| format!("“{reason}”")).unwrap_or_default();
    vec![ago(record.started_at, now), what, record.outcome.clone(), took, by, reason]
}

/// Rows under a title, their columns aligned; nothing at all without rows.
fn table(text: &mut String, title: &str, rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    // Titles come from agents, and a terminal must not be steered by them.
    let clean = |cell: String| cell.replace(char::is_control, " ");
    let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.into_iter().map(clean).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    line(text, format_args!("{title}"));
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        line(text, format_args!("  {}", cells.join("  ").trim_end()));
    }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    writeln!(text, "{content}").expect("a String takes all that is written");
}
