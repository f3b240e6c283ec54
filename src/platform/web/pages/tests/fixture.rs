//! A gateway with something of everything.

use crate::chat::LinkState;
use crate::clock::UnixMillis;
use crate::control::proto::{
    AgentStatus, Blocker, DiskImage, FailedBefore, HandoffTotal, HoldStatus, Image, LinkError, PermissionStatus,
    PlatformStatus, Queues, Status, TurnStatus, UpdateStatus,
};
use crate::store::HandoffRecord;

pub(super) const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

/// What must not become markup, wherever it comes from.
pub(super) const HOSTILE: &str = "<script>alert(1)</script>\" onload='x'";

pub(super) fn before(secs: i64) -> UnixMillis {
    UnixMillis(NOW.0 - secs * 1000)
}

pub(super) fn update() -> HandoffRecord {
    let phases = [
        ("stage", 1_840_000),
        ("preflight", 4_900),
        ("drain", 210),
        ("quiesce", 900),
        ("seal", 400),
        ("exec", 700),
        ("adopt", 2_321),
    ];
    HandoffRecord {
        trace_id: None,
        kind: "update".into(),
        requested_by: "Ann".into(),
        requested_via: "telegram:1001".into(),
        reason: Some("security".into()),
        from_version: "1.4.0".into(),
        from_sha256: "aa".repeat(32),
        to_version: "1.5.0".into(),
        to_sha256: "bb".repeat(32),
        generation: 3,
        turns_carried: 3,
        agents_carried: 1,
        started_at: before(180),
        phases_us: phases.map(|(phase, us)| (phase.to_owned(), us)).into(),
        outcome: "committed".into(),
    }
}

pub(super) fn failed() -> HandoffRecord {
    HandoffRecord {
        generation: 2,
        reason: None,
        turns_carried: 0,
        agents_carried: 0,
        started_at: before(900),
        phases_us: vec![("stage".into(), 900_000), ("preflight".into(), 6_000)],
        outcome: "failed in preflight: the new image cannot take over (killed by signal 4)".into(),
        ..update()
    }
}

pub(super) fn restart(generation: u64, age_secs: i64) -> HandoffRecord {
    HandoffRecord {
        kind: "restart".into(),
        requested_by: "root".into(),
        requested_via: "control".into(),
        reason: None,
        from_version: "1.4.0".into(),
        to_version: "1.4.0".into(),
        generation,
        turns_carried: 1,
        started_at: before(age_secs),
        phases_us: update().phases_us.split_off(1),
        ..update()
    }
}

fn platform(name: &str, link: LinkState) -> PlatformStatus {
    PlatformStatus {
        name: name.into(),
        link,
        updated_at: before(90_000),
        last_error: None,
        waiting: 0,
        sending: 0,
        sending_since: None,
    }
}

pub(super) fn status() -> Status {
    let retrying = LinkState::Retrying {
        error_code: "502".into(),
        error_message: "bad gateway".into(),
        next_attempt_at: UnixMillis(NOW.0 + 8_000),
    };
    let trouble = LinkError { code: "timeout".into(), message: "no answer within 30 s".into(), at: before(7_300) };
    let telegram = PlatformStatus {
        last_error: Some(trouble),
        waiting: 2,
        sending: 1,
        sending_since: Some(before(1)),
        ..platform("telegram", LinkState::Connected)
    };
    let turn =
        TurnStatus { turn: 17, conversation: "telegram:1001".into(), started_at: before(121), answer_bytes: 3_000 };
    let asked = PermissionStatus {
        number: 4,
        conversation: "web:owner".into(),
        title: "run `make test`".into(),
        asked_at: before(9),
    };
    let agent = AgentStatus {
        name: "default".into(),
        state: "ready".into(),
        pid: Some(4243),
        title: Some("Echo 1.0".into()),
        error: None,
        turns: vec![turn],
        since: Some(before(90_000)),
        next_attempt_at: None,
        permissions: vec![asked],
    };
    Status {
        gateway_state: "degraded".into(),
        image: Image { version: "1.5.0".into(), sha256: "bb".repeat(32) },
        pid: 4242,
        generation: 3,
        started_at: before(300_000),
        image_started_at: before(180),
        phase: "serving".into(),
        waiting_for: None,
        home: "/var/lib/hermes".into(),
        platforms: vec![telegram, platform("dingtalk", retrying), platform("web", LinkState::Connected)],
        agents: vec![agent],
        queued_turns: 1,
        handoffs: vec![update(), failed(), restart(2, 86_400), restart(1, 200_000)],
        at: NOW,
        on_disk: Some(DiskImage { version: "1.5.0".into(), sha256: Some("bb".repeat(32)) }),
        queues: Queues { inbox: 1, outbox: Some(3), stash: 0 },
        handoff_totals: vec![
            HandoffTotal { kind: "update".into(), outcome: "committed".into(), count: 12 },
            HandoffTotal { kind: "update".into(), outcome: "failed".into(), count: 1 },
            HandoffTotal { kind: "restart".into(), outcome: "committed".into(), count: 40 },
        ],
        blockers: vec![Blocker {
            effect: "delays".into(),
            what: "a send to telegram is in flight".into(),
            since: Some(before(1)),
        }],
        update: UpdateStatus {
            auto: "apply".into(),
            channel: "stable".into(),
            window: Some("02:00-05:00".into()),
            available: Some("1.6.0".into()),
            apply_at: Some(UnixMillis(NOW.0 + 7_200_000)),
            last_check_at: Some(before(600)),
            ..UpdateStatus::default()
        },
    }
}

/// Every text that somebody else chose is hostile.
pub(super) fn hostile() -> Status {
    let text = || HOSTILE.to_owned();
    let mut status = status();
    status.image.version = text();
    status.image.sha256 = text();
    status.gateway_state = text();
    status.phase = text();
    status.waiting_for = Some(text());
    status.on_disk = Some(DiskImage { version: text(), sha256: Some(text()) });
    for platform in &mut status.platforms {
        platform.name = text();
        platform.link = LinkState::Fatal { error_code: text(), error_message: text() };
        platform.last_error = Some(LinkError { code: text(), message: text(), at: NOW });
    }
    for agent in &mut status.agents {
        (agent.name, agent.state, agent.title, agent.error) = (text(), text(), Some(text()), Some(text()));
        agent.turns[0].conversation = text();
        agent.permissions[0].title = text();
        agent.permissions[0].conversation = text();
    }
    for record in &mut status.handoffs {
        (record.kind, record.requested_by, record.requested_via) = (text(), text(), text());
        (record.reason, record.outcome) = (Some(text()), text());
        (record.from_version, record.to_version, record.to_sha256) = (text(), format!("{HOSTILE}2"), text());
        for (phase, _) in &mut record.phases_us {
            *phase = text();
        }
    }
    for total in &mut status.handoff_totals {
        (total.kind, total.outcome) = (text(), text());
    }
    status.update = UpdateStatus {
        auto: text(),
        window: Some(text()),
        available: Some(text()),
        last_error: Some(text()),
        held: Some(HoldStatus { since: NOW, until: None, by: text() }),
        failed: Some(FailedBefore { version: text(), reason: text() }),
        ..UpdateStatus::default()
    };
    status.blockers = vec![Blocker { effect: text(), what: text(), since: None }];
    status
}
