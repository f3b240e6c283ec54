//! How answers look to people. Nothing here reads a clock or a terminal.

use std::fmt::Write;

use super::config::Checked;
use super::page::{Cell, Look, Page, Row, ago, fine, row};
use crate::chat::LinkState;
use crate::clock::UnixMillis;
use crate::config::{Problem, Severity};
use crate::control::proto::{
    FailedBefore, HandoffReport, HoldStatus, Image, PairingEntry, PlatformChange, PlatformStatus, UpdateCheck,
};
use crate::units::{count, span};

/// `hermes gateway platform list`.
pub(super) fn platforms(platforms: &[PlatformStatus], now: UnixMillis, look: Look) -> String {
    if platforms.is_empty() {
        return "no platform is configured\n".to_owned();
    }
    let mut page = Page::new(look);
    let rows: Vec<Row> = platforms.iter().map(|platform| platform_row(platform, now)).collect();
    page.table("platforms", &rows);
    page.text()
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
pub(super) fn pairings(entries: &[PairingEntry], now: UnixMillis, look: Look) -> String {
    if entries.is_empty() {
        return "nobody was let in by pairing, and nobody asks to be\n".to_owned();
    }
    let row = |entry: &PairingEntry| {
        let code = entry.code.as_ref().map(|code| format!("code {code}")).unwrap_or_default();
        let who = format!("{} (id {})", entry.name, entry.user);
        row![&entry.platform, &entry.state, ago(entry.since, now), who, code]
    };
    let mut page = Page::new(look);
    page.table("pairings", &entries.iter().map(row).collect::<Vec<_>>());
    page.text()
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
        let _ = write!(text, ", {}", fine(report.blackout_us));
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
    let runs = if found.offline { "is started next" } else { "is running" };
    let date = found.date.as_ref().map(|date| format!(" of {date}")).unwrap_or_default();
    let notes = found.notes_url.as_ref().map(|url| format!("  notes: {url}\n")).unwrap_or_default();
    let rollout = found.rollout.map_or(String::new(), |rollout| {
        let whom = match rollout.included {
            Some(true) => ", this one among them",
            Some(false) => ", this one not yet",
            None => "",
        };
        format!("  rolled out to {} % of installations{whom}\n", rollout.percent)
    });
    format!("hermes {available}{date} is available ({} {runs})\n{notes}{rollout}", found.running)
}

/// `hermes self-update` where no gateway runs.
pub(super) fn prepared(from: &Image, to: &Image, on_trial: bool, dry_run: bool) -> String {
    if dry_run {
        return format!("{} → {} would work: verified and tried; nothing was changed\n", from.version, to.version);
    }
    if !on_trial {
        return format!(
            "no gateway runs; hermes-launch starts {} next, and not {} on trial\n",
            to.version, from.version
        );
    }
    format!(
        "no gateway runs; hermes-launch starts {} next instead of {}, on probation, and goes back if it does not stay\n",
        to.version, from.version
    )
}

/// `hermes self-update --hold|--unhold`.
pub(super) fn held(held: Option<&HoldStatus>, now: UnixMillis) -> String {
    match held.map(|hold| hold.until) {
        Some(Some(until)) => {
            format!("nothing is updated by itself for {}, or until --unhold\n", span(until.since(now)))
        }
        Some(None) => "nothing is updated by itself until --unhold\n".to_owned(),
        None => "updates are not held\n".to_owned(),
    }
}

/// `hermes config check`.
pub(super) fn config_check(checked: &Checked) -> String {
    let (file, mut text) = (checked.file.display(), String::new());
    for Problem { severity, line, column, message, .. } in &checked.problems {
        let warning = if *severity == Severity::Warning { "warning: " } else { "" };
        let _ = writeln!(text, "{file}:{line}:{column}: {warning}{message}");
    }
    if !checked.exists {
        let _ = writeln!(text, "{file} is not there; the defaults hold");
    } else if checked.ok {
        let _ = writeln!(text, "{file} is good");
    }
    text
}

/// How a platform's link is.
pub(super) fn platform_row(platform: &PlatformStatus, now: UnixMillis) -> Row {
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
    row![&platform.name, Cell::state(state), since, detail]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proto::Image;

    const NOW: UnixMillis = UnixMillis(1_000_000_000);

    fn before(secs: i64) -> UnixMillis {
        UnixMillis(NOW.0 - secs * 1000)
    }

    fn image(version: &str) -> Image {
        Image { version: version.into(), sha256: "0123456789abcdef".repeat(4) }
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
        insta::assert_snapshot!(pairings(&[entry, approved], NOW, Look::PLAIN), @r"
        pairings
          telegram  asked     2 min ago  Ann [31m (id 1003)  code ABCD2345
          telegram  approved  2 h ago    Ann [31m (id 1003)
        ");
        assert_eq!(pairings(&[], NOW, Look::PLAIN), "nobody was let in by pairing, and nobody asks to be\n");
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
        assert_eq!(platforms(&[], NOW, Look::PLAIN), "no platform is configured\n");
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
}
