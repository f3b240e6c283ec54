//! How answers look to people. Nothing here reads a clock or a terminal.

use std::fmt::Write;
use std::time::Duration;

use crate::chat::LinkState;
use crate::clock::UnixMillis;
use crate::control::proto::{
    AgentStatus, FailedBefore, HandoffReport, PairingEntry, PlatformChange, PlatformStatus, Status, UpdateCheck,
};
use crate::store::HandoffRecord;

/// Handoffs that the status shows.
const HANDOFFS_SHOWN: usize = 5;

/// `hermes gateway platform list`.
pub(super) fn platforms(platforms: &[PlatformStatus], now: UnixMillis) -> String {
    if platforms.is_empty() {
        return "no platform is configured\n".to_owned();
    }
    let mut text = String::new();
    table(&mut text, "platforms", platforms.iter().map(|platform| platform_row(platform, now)).collect());
    text
}

/// `hermes gateway platform pause|resume`.
pub(super) fn platform_change(change: &PlatformChange) -> String {
    let state = match (change.paused, change.changed) {
        (true, true) => "is paused; it takes in nothing and sends nothing until it is resumed",
        (true, false) => "was paused already",
        (false, true) => "goes on",
        (false, false) => "was not paused",
    };
    format!("{} {state}", change.platform)
}

/// `hermes pairing list`.
pub(super) fn pairings(entries: &[PairingEntry], now: UnixMillis) -> String {
    if entries.is_empty() {
        return "nobody was let in by pairing, and nobody asks to be\n".to_owned();
    }
    let row = |entry: &PairingEntry| {
        let code = entry.code.as_ref().map(|code| format!("code {code}")).unwrap_or_default();
        let who = format!("{} (id {})", entry.name, entry.user);
        vec![entry.platform.clone(), entry.state.clone(), ago(entry.since, now), who, code]
    };
    let mut text = String::new();
    table(&mut text, "pairings", entries.iter().map(row).collect());
    text
}

/// A text from elsewhere, by which a terminal must not be steered.
pub(super) fn clean(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// `hermes gateway status`.
pub(super) fn status(status: &Status, now: UnixMillis) -> String {
    let mut text = String::new();
    let sha = status.image.sha256.get(..12).unwrap_or(&status.image.sha256);
    let waiting = status.waiting_for.as_ref().map_or(String::new(), |what| format!(": waiting for {what}"));
    let phase = if status.phase == "serving" { String::new() } else { format!(" ({}{waiting})", status.phase) };
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
        let done = if report.kind == "revert" { "found and tried" } else { "downloaded, verified and tried" };
        return format!("{change} would work: {done}; nothing was replaced");
    }
    let what = match report.kind.as_str() {
        "update" => format!("updated {change}"),
        "revert" => format!("reverted {change}"),
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
    if let Some(FailedBefore { version, reason }) = &found.failed_before {
        return format!(
            "hermes {version} is available and failed here before ({reason}); {} goes on.\n\
             `hermes self-update --version {version}` tries it again\n",
            found.running
        );
    }
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
    let since = format!("for {}", span(now.since(platform.updated_at)));
    vec![platform.name.clone(), state.to_owned(), since, detail]
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
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proto::{Image, TurnStatus};

    const NOW: UnixMillis = UnixMillis(1_000_000_000);

    fn before(secs: i64) -> UnixMillis {
        UnixMillis(NOW.0 - secs * 1000)
    }

    fn image(version: &str) -> Image {
        Image { version: version.into(), sha256: "0123456789abcdef".repeat(4) }
    }

    fn record() -> HandoffRecord {
        HandoffRecord {
            kind: "update".into(),
            requested_by: "Ann".into(),
            requested_via: "telegram:1001".into(),
            reason: Some("security".into()),
            from_version: "1.3.0".into(),
            from_sha256: String::new(),
            to_version: "1.4.0".into(),
            to_sha256: String::new(),
            generation: 2,
            turns_carried: 1,
            agents_carried: 1,
            started_at: before(180),
            phases_us: vec![("preflight".into(), 80_000), ("execve".into(), 4_000)],
            outcome: "committed".into(),
            trace_id: None,
        }
    }

    #[test]
    fn a_status_is_short_and_aligned() {
        let retrying = LinkState::Retrying {
            error_code: "502".into(),
            error_message: "bad gateway".into(),
            next_attempt_at: UnixMillis(NOW.0 + 8_000),
        };
        let turn =
            TurnStatus { turn: 17, conversation: "telegram:1001".into(), started_at: before(121), answer_bytes: 3_000 };
        let platform = |name: &str, link| PlatformStatus { name: name.into(), link, updated_at: before(90_000) };
        let agent = AgentStatus {
            name: "default".into(),
            state: "ready".into(),
            pid: Some(4243),
            title: Some("Echo\u{1b}[31m".into()),
            error: None,
            turns: vec![turn],
        };
        let restart = HandoffRecord {
            kind: "restart".into(),
            from_version: "1.3.0".into(),
            to_version: "1.3.0".into(),
            requested_by: "root".into(),
            requested_via: "control".into(),
            reason: None,
            started_at: before(300_000),
            ..record()
        };
        let status = Status {
            gateway_state: "degraded".into(),
            image: image("1.4.0"),
            pid: 4242,
            generation: 2,
            started_at: before(300_000),
            image_started_at: before(180),
            phase: "probation".into(),
            waiting_for: None,
            home: "/var/lib/hermes".into(),
            platforms: vec![platform("local", LinkState::Connected), platform("telegram", retrying)],
            agents: vec![agent],
            queued_turns: 2,
            handoffs: vec![record(), restart],
        };
        insta::assert_snapshot!(super::status(&status, NOW), @r"
        hermes 1.4.0 (sha256 0123456789ab…) is degraded (probation)
          PID 4242, up 3 d; this image for 3 min (generation 2)
          home /var/lib/hermes
        platforms
          local     connected  for 25 h
          telegram  retrying   for 25 h  bad gateway (502); next try in 8 s
        agents
          default    ready          PID 4243   Echo [31m
            turn 17  telegram:1001  2 min ago  2 KiB so far
          2 turns waiting for an agent
        handoffs
          3 min ago  update 1.3.0 → 1.4.0  committed  84 ms  by Ann (telegram:1001)  “security”
          3 d ago    restart 1.3.0         committed  84 ms  by root (control)
        ");
    }

    #[test]
    fn who_asks_is_shown_with_the_code_and_cannot_steer_the_terminal() {
        let entry = PairingEntry {
            platform: "telegram".into(),
            user: "1003".into(),
            name: "Ann\u{1b}[31m".into(),
            state: "asked".into(),
            since: before(120),
            code: Some("ABCD2345".into()),
        };
        let approved = PairingEntry { state: "approved".into(), code: None, since: before(7200), ..entry.clone() };
        insta::assert_snapshot!(pairings(&[entry, approved], NOW), @r"
        pairings
          telegram  asked     2 min ago  Ann [31m (id 1003)  code ABCD2345
          telegram  approved  2 h ago    Ann [31m (id 1003)
        ");
        assert_eq!(pairings(&[], NOW), "nobody was let in by pairing, and nobody asks to be\n");
    }

    #[test]
    fn a_pause_is_told_with_what_it_changed() {
        let told = |paused, changed| platform_change(&PlatformChange { platform: "telegram".into(), paused, changed });
        insta::assert_snapshot!([told(true, true), told(true, false), told(false, true), told(false, false)].join("\n"), @r"
        telegram is paused; it takes in nothing and sends nothing until it is resumed
        telegram was paused already
        telegram goes on
        telegram was not paused
        ");
        assert_eq!(platforms(&[], NOW), "no platform is configured\n");
    }

    #[test]
    fn a_report_names_what_changed_and_what_did_not() {
        let report = HandoffReport {
            kind: "update".into(),
            from: image("1.4.0"),
            to: image("1.5.0"),
            pid: 4242,
            generation: 3,
            agents_carried: 1,
            turns_carried: 1,
            blackout_us: 980,
            duration_us: 100_000,
            phases_us: Vec::new(),
            dry_run: false,
        };
        assert_eq!(
            super::report(&report, 4242),
            "updated 1.4.0 → 1.5.0, same process (PID 4242), 1 turn carried, 980 µs"
        );
        let restart = HandoffReport { kind: "restart".into(), turns_carried: 0, ..report.clone() };
        assert_eq!(super::report(&restart, 1), "restarted 1.5.0, new process (PID 4242), 980 µs");
        let dry = HandoffReport { dry_run: true, ..report };
        assert!(super::report(&dry, 4242).starts_with("1.4.0 → 1.5.0 would work"));
    }

    #[test]
    fn spans_and_sizes_use_the_unit_that_fits() {
        let spans: Vec<String> = [0, 59, 60, 3599, 3600, 172_799, 172_800].map(Duration::from_secs).map(span).into();
        assert_eq!(spans, ["0 s", "59 s", "1 min", "59 min", "1 h", "47 h", "2 d"]);
        assert_eq!([1023, 1024, 1 << 20].map(size), ["1023 B", "1 KiB", "1 MiB"].map(str::to_owned));
        assert_eq!([999, 1000, 10_000_000].map(|us| fine(Duration::from_micros(us))), ["999 µs", "1 ms", "10 s"]);
    }
}
