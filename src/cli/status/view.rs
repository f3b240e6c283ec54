//! The page of a gateway that runs. Nothing here reads a clock or a terminal: ages are as of [`Status::at`].

use crate::chat::LinkState;
use crate::cli::page::{Cell, Look, Page, Row, Tone, ago, fine, row};
use crate::cli::render::platform_row;
use crate::clock::UnixMillis;
use crate::control::proto::{AgentStatus, Blocker, PlatformStatus, Status, UpdateStatus};
use crate::store::HandoffRecord;
use crate::units::{count, short_digest, size, span};

/// Handoffs that the page shows.
const HANDOFFS_SHOWN: usize = 5;

/// The page; with `full` also how long each phase of the handoffs took.
pub(super) fn status(status: &Status, full: bool, look: Look) -> String {
    // An older gateway does not say when it answered.
    let now = if status.at == UnixMillis::default() { UnixMillis::now() } else { status.at };
    let mut page = Page::new(look);
    head(&mut page, status, now, full);
    let platforms: Vec<Row> = status.platforms.iter().flat_map(|platform| platform_rows(platform, now)).collect();
    page.table("platforms", &platforms);
    let agents: Vec<Row> = status.agents.iter().flat_map(|agent| agent_rows(agent, now)).collect();
    page.table("agents", &agents);
    page.table("waiting", &queue_rows(status));
    let blockers: Vec<Row> = status.blockers.iter().map(|blocker| blocker_row(blocker, now)).collect();
    page.table("in the way of a restart", &blockers);
    let shown = if full { status.handoffs.len() } else { HANDOFFS_SHOWN };
    let handoffs: Vec<Row> =
        status.handoffs.iter().take(shown).flat_map(|record| record_rows(record, now, full)).collect();
    page.table("handoffs", &handoffs);
    if full {
        let totals =
            status.handoff_totals.iter().map(|total| row![&total.kind, &total.outcome, total.count.to_string()]);
        page.table("handoffs in all", &totals.collect::<Vec<_>>());
    }
    page.text()
}

fn head(page: &mut Page, status: &Status, now: UnixMillis, full: bool) {
    let waiting = status.waiting_for.as_ref().map_or(String::new(), |what| format!(": waiting for {what}"));
    let phase = match status.phase.as_str() {
        "serving" => String::new(),
        phase => format!("({phase}{waiting})"),
    };
    let name = format!("hermes {}", status.image.version);
    let cells =
        [Cell::toned(name, Tone::Title), "is".into(), Cell::state(&status.gateway_state), Cell::from(phase.as_str())];
    page.headline(&cells[..if phase.is_empty() { 3 } else { 4 }]);
    // An image that has just begun to serve takes its digest beside that.
    let is_known = !status.image.sha256.is_empty();
    let digest = |sha256: &str| if full { sha256.to_owned() } else { short_digest(sha256).to_owned() };
    let image = if is_known { format!("sha256 {}", digest(&status.image.sha256)) } else { "just started".to_owned() };
    let mut rows = vec![
        row![
            "process",
            format!(
                "PID {}, up {}; this image for {} (generation {})",
                status.pid,
                span(now.since(status.started_at)),
                span(now.since(status.image_started_at)),
                status.generation
            )
        ],
        row!["image", image],
    ];
    if let Some(disk) = &status.on_disk {
        let is_same = disk.may_be(&status.image);
        if !is_same || full {
            let sha256 = disk.sha256.as_deref().map_or(String::new(), |sha256| format!(", sha256 {}", digest(sha256)));
            let differs = if is_same { "the same" } else { "not what runs" };
            let tone = if is_same { Tone::Plain } else { Tone::Doubtful };
            rows.push(row!["on disk", Cell::toned(format!("{}{sha256}: {differs}", disk.version), tone)]);
        }
    }
    rows.push(row!["home", &status.home]);
    rows.extend(updates(&status.update, now).map(|updates| row!["updates", updates]));
    page.rows(&rows);
}

/// What happens with updates by itself, in one line; none if nothing does and nothing is known.
fn updates(update: &UpdateStatus, now: UnixMillis) -> Option<String> {
    let is_quiet = matches!(update.auto.as_str(), "" | "off");
    if is_quiet && update.held.is_none() && update.available.is_none() {
        return None;
    }
    let mut parts = vec![update.auto.clone(), format!("channel {}", update.channel)];
    parts.extend(update.window.as_ref().map(|window| format!("window {window}")));
    if let Some(hold) = &update.held {
        let until = hold.until.map_or(String::new(), |until| format!(" for {}", span(until.since(now))));
        parts.push(format!("held{until} by {}", hold.by));
    }
    parts.extend(update.available.as_ref().map(|version| format!("{version} is available")));
    parts.extend(
        update.deferred.map(|rollout| format!("rolled out to {} % so far and not to this one", rollout.percent)),
    );
    parts.extend(update.apply_at.map(|at| format!("installs in {}", span(at.since(now)))));
    parts.extend(update.failed.as_ref().map(|failed| format!("{} failed ({})", failed.version, failed.reason)));
    parts.extend(update.last_error.as_ref().map(|error| format!("the last look failed ({})", error)));
    parts.extend(update.next_check_at.map(|at| format!("next look in {}", span(at.since(now)))));
    Some(parts.join(", "))
}

fn platform_rows(platform: &PlatformStatus, now: UnixMillis) -> Vec<Row> {
    let mut rows = vec![platform_row(platform, now)];
    if platform.waiting > 0 || platform.sending > 0 {
        let since = platform.sending_since.map_or(String::new(), |since| format!(", since {}", span(now.since(since))));
        rows.push(row!["", "", "", format!("{} to deliver, sending {}{since}", platform.waiting, platform.sending)]);
    }
    // Trouble that goes on stands in its row.
    let is_over = !matches!(platform.link, LinkState::Retrying { .. } | LinkState::Fatal { .. });
    if let Some(error) = platform.last_error.as_ref().filter(|_| is_over) {
        let told = format!("last error {}: {} ({})", ago(error.at, now), error.message, error.code);
        rows.push(row!["", "", "", Cell::toned(told, Tone::Faint)]);
    }
    rows
}

fn agent_rows(agent: &AgentStatus, now: UnixMillis) -> Vec<Row> {
    let pid = agent.pid.map(|pid| format!("PID {pid}"));
    let since = agent.since.map(|since| format!("for {}", span(now.since(since)))).unwrap_or_default();
    let again = agent.next_attempt_at.map(|at| format!("; next try in {}", span(at.since(now)))).unwrap_or_default();
    let detail = agent.error.as_ref().map(|error| format!("{error}{again}")).or_else(|| agent.title.clone());
    let detail: Vec<String> = pid.into_iter().chain(detail).collect();
    let mut rows = vec![row![&agent.name, Cell::state(&agent.state), since, detail.join(", ")]];
    rows.extend(agent.turns.iter().map(|turn| {
        let so_far = format!("{} so far", size(turn.answer_bytes));
        row![format!("  turn {}", turn.turn), &turn.conversation, ago(turn.started_at, now), so_far]
    }));
    rows.extend(agent.permissions.iter().map(|ask| {
        let answer = Cell::toned(format!("waits for /approve: {}", ask.title), Tone::Doubtful);
        row![format!("  request {}", ask.number), &ask.conversation, ago(ask.asked_at, now), answer]
    }));
    rows
}

fn queue_rows(status: &Status) -> Vec<Row> {
    let mut rows = Vec::new();
    if status.queued_turns > 0 {
        rows.push(row![count(status.queued_turns, "message"), "wait for an agent"]);
    }
    if status.queues.stash > 0 {
        rows.push(row![status.queues.stash.to_string(), "arrived while everything is held"]);
    }
    if let Some(outbox) = status.queues.outbox.filter(|outbox| *outbox > 0) {
        rows.push(row![outbox.to_string(), "to be delivered"]);
    }
    rows
}

fn blocker_row(blocker: &Blocker, now: UnixMillis) -> Row {
    let since = blocker.since.map_or(String::new(), |since| format!(" (for {})", span(now.since(since))));
    row![Cell::state(&blocker.effect), format!("{}{since}", blocker.what)]
}

fn record_rows(record: &HandoffRecord, now: UnixMillis, full: bool) -> Vec<Row> {
    let by = format!("by {} ({})", record.requested_by, record.requested_via);
    let took = fine(record.phases_us.iter().map(|(_, us)| us).sum());
    let reason = record.reason.as_ref().map(|reason| format!(" “{reason}”")).unwrap_or_default();
    let (outcome, why) = record.outcome.split_once(": ").unwrap_or((&record.outcome, ""));
    let why = if why.is_empty() { String::new() } else { format!("{why}; ") };
    let outcome = Cell::toned(outcome, tone_of(outcome));
    let mut rows = vec![row![ago(record.started_at, now), change(record), took, outcome, format!("{why}{by}{reason}")]];
    if full {
        rows.push(row!["", "", "", "", Cell::toned(phases(record), Tone::Faint)]);
    }
    rows
}

/// What a handoff replaced by what.
pub(in crate::cli) fn change(record: &HandoffRecord) -> String {
    if record.from_version == record.to_version {
        format!("{} {}", record.kind, record.to_version)
    } else {
        format!("{} {} → {}", record.kind, record.from_version, record.to_version)
    }
}

/// Each phase and how long it took.
pub(in crate::cli) fn phases(record: &HandoffRecord) -> String {
    let phases: Vec<String> = record.phases_us.iter().map(|(phase, us)| format!("{phase} {}", fine(*us))).collect();
    if phases.is_empty() { "no phase was measured".to_owned() } else { phases.join(", ") }
}

/// Outcomes that are not one word say what went wrong.
pub(in crate::cli) fn tone_of(outcome: &str) -> Tone {
    match outcome {
        "committed" | "serving" => Tone::Good,
        _ if outcome.starts_with("failed") => Tone::Bad,
        _ => Tone::Doubtful,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proto::{DiskImage, HandoffTotal, Image, LinkError, PermissionStatus, Queues, TurnStatus};

    const NOW: UnixMillis = UnixMillis(1_000_000_000);

    fn before(secs: i64) -> UnixMillis {
        UnixMillis(NOW.0 - secs * 1000)
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
            phases_us: vec![("preflight".into(), 80_000), ("exec".into(), 4_000)],
            outcome: "committed".into(),
            trace_id: None,
        }
    }

    fn agents() -> Vec<AgentStatus> {
        let turn =
            TurnStatus { turn: 17, conversation: "telegram:1001".into(), started_at: before(121), answer_bytes: 3_000 };
        let ask = PermissionStatus {
            number: 5,
            conversation: "telegram:1001".into(),
            title: "rm -r build\u{1b}[31m".into(),
            asked_at: before(30),
        };
        let ready = AgentStatus {
            name: "default".into(),
            state: "ready".into(),
            pid: Some(4243),
            title: Some("Echo".into()),
            turns: vec![turn],
            permissions: vec![ask],
            since: Some(before(7_200)),
            ..AgentStatus::default()
        };
        let down = AgentStatus {
            name: "coder".into(),
            state: "down".into(),
            error: Some("it ended with status 1".into()),
            since: Some(before(5)),
            next_attempt_at: Some(UnixMillis(NOW.0 + 4_000)),
            ..AgentStatus::default()
        };
        vec![ready, down]
    }

    fn full_status() -> Status {
        let retrying = LinkState::Retrying {
            error_code: "502".into(),
            error_message: "bad gateway".into(),
            next_attempt_at: UnixMillis(NOW.0 + 8_000),
        };
        let platform = |name: &str, link| PlatformStatus {
            name: name.into(),
            link,
            updated_at: before(90_000),
            ..PlatformStatus::default()
        };
        let error = LinkError { code: "timeout".into(), message: "no answer".into(), at: before(600) };
        let weixin = PlatformStatus {
            last_error: Some(error),
            waiting: 3,
            sending: 1,
            sending_since: Some(before(2)),
            ..platform("weixin", LinkState::Connected)
        };
        let restart = HandoffRecord {
            kind: "restart".into(),
            from_version: "1.3.0".into(),
            to_version: "1.3.0".into(),
            requested_by: "root".into(),
            requested_via: "control".into(),
            reason: None,
            started_at: before(300_000),
            outcome: "failed in preflight: it crashed".into(),
            ..record()
        };
        let blocker = |effect: &str, what: &str, since| Blocker { effect: effect.into(), what: what.into(), since };
        let image = |version: &str| Image { version: version.into(), sha256: "0123456789abcdef".repeat(4) };
        Status {
            gateway_state: "degraded".into(),
            image: image("1.4.0"),
            pid: 4242,
            generation: 2,
            started_at: before(300_000),
            image_started_at: before(180),
            phase: "probation".into(),
            home: "/var/lib/hermes".into(),
            platforms: vec![platform("telegram", retrying), weixin],
            agents: agents(),
            queued_turns: 2,
            handoffs: vec![record(), restart],
            at: NOW,
            on_disk: Some(DiskImage { version: "1.3.0".into(), sha256: Some("fe".repeat(32)) }),
            queues: Queues { inbox: 2, outbox: Some(4), stash: 1 },
            handoff_totals: vec![HandoffTotal { kind: "update".into(), outcome: "committed".into(), count: 41 }],
            blockers: vec![
                blocker("refuses", "the database does not answer", Some(before(3))),
                blocker("delays", "platform 'weixin' is sending (1); waited for at most 5 s", Some(before(2))),
                blocker("risks", "the unit has no fd store", None),
            ],
            ..Status::default()
        }
    }

    #[test]
    fn a_page_has_all_that_matters_and_is_aligned() {
        insta::assert_snapshot!(status(&full_status(), false, Look::PLAIN));
    }

    #[test]
    fn an_image_that_has_just_started_is_not_said_to_be_another_than_on_disk() {
        let unknown = Image { version: "1.3.0".into(), sha256: String::new() };
        let text = status(&Status { image: unknown, ..full_status() }, false, Look::PLAIN);
        assert!(text.contains("image    just started") && !text.contains("not what runs"), "{text}");
    }

    #[test]
    fn a_full_page_has_every_phase_and_digest() {
        insta::assert_snapshot!(status(&full_status(), true, Look::PLAIN));
    }

    #[test]
    fn a_narrow_terminal_gets_a_page_that_fits() {
        let text = status(&full_status(), false, Look::narrow(48, false));
        assert!(text.lines().all(|line| line.chars().count() <= 48), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_calm_gateway_has_a_short_page() {
        let calm = Status {
            blockers: Vec::new(),
            platforms: Vec::new(),
            handoffs: Vec::new(),
            agents: vec![AgentStatus { turns: Vec::new(), permissions: Vec::new(), ..agents().remove(0) }],
            queued_turns: 0,
            queues: Queues::default(),
            on_disk: None,
            phase: "serving".into(),
            gateway_state: "running".into(),
            ..full_status()
        };
        insta::assert_snapshot!(status(&calm, false, Look::PLAIN));
    }
}
