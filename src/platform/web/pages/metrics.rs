//! Metrics in the text format of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>).
//!
//! Counters are counted by the store, not by the process, so no handoff and no kill sets them back.

use std::fmt::Write as _;

use super::handoffs::{blackout_us, duration_us};
use super::health::{is_handoff, readiness};
use crate::chat::LinkState;
use crate::clock::UnixMillis;
use crate::control::proto::Status;

/// The media type of [`metrics`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A sample: its labels and its value.
type Sample<'a> = (Vec<(&'a str, &'a str)>, String);

#[derive(Default)]
struct Exposition {
    text: String,
}

impl Exposition {
    /// A metric and its samples; nothing without samples.
    fn put<'a>(&mut self, name: &str, kind: &str, help: &str, samples: impl IntoIterator<Item = Sample<'a>>) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
            if labels.is_empty() {
                self.line(format_args!("{name} {value}"));
            } else {
                self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
            }
        }
    }

    fn gauge<'a>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample<'a>>) {
        self.put(name, "gauge", help, samples);
    }

    fn line(&mut self, content: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{content}").expect("a String takes all that is written");
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn plain(value: impl ToString) -> [Sample<'static>; 1] {
    [(Vec::new(), value.to_string())]
}

/// A number of seconds from one of microseconds, exactly.
fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

fn moment(at: UnixMillis) -> String {
    let millis = u64::try_from(at.0).unwrap_or(0);
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// The body of `/metrics`.
pub fn metrics(status: &Status) -> String {
    let mut out = Exposition::default();
    gateway(&mut out, status);
    handoffs(&mut out, status);
    updates(&mut out, status);
    platforms(&mut out, status);
    agents(&mut out, status);
    queues(&mut out, status);
    out.text
}

fn gateway(out: &mut Exposition, status: &Status) {
    let image = vec![("version", status.image.version.as_str()), ("sha256", status.image.sha256.as_str())];
    out.gauge("hermes_build_info", "The image that runs.", [(image, "1".to_owned())]);
    out.gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds. A handoff keeps it.",
        plain(moment(status.started_at)),
    );
    out.gauge(
        "hermes_image_start_time_seconds",
        "When the image that runs began to serve, since unix epoch in seconds.",
        plain(moment(status.image_started_at)),
    );
    out.gauge("hermes_generation", "How many times the process has replaced its image.", plain(status.generation));
    out.gauge("hermes_ready", "Whether messages are taken.", plain(u8::from(readiness(status).0)));
    out.gauge(
        "hermes_handoff_in_progress",
        "Whether a handoff is under way.",
        plain(u8::from(is_handoff(&status.phase))),
    );
    out.gauge(
        "hermes_on_probation",
        "Whether the image that runs has still to prove itself.",
        plain(u8::from(status.phase == "probation")),
    );
}

fn handoffs(out: &mut Exposition, status: &Status) {
    let totals = status.handoff_totals.iter().map(|total| {
        (vec![("kind", total.kind.as_str()), ("outcome", total.outcome.as_str())], total.count.to_string())
    });
    out.put("hermes_handoffs_total", "counter", "Handoffs that are over, since the database was made.", totals);
    let Some(last) = status.handoffs.iter().find(|record| !record.phases_us.is_empty()) else { return };
    out.gauge(
        "hermes_last_handoff_timestamp_seconds",
        "When the last handoff was asked for, since unix epoch in seconds.",
        plain(moment(last.started_at)),
    );
    out.gauge(
        "hermes_last_handoff_duration_seconds",
        "How long the last handoff took without a download.",
        plain(seconds(duration_us(last))),
    );
    out.gauge(
        "hermes_last_handoff_blackout_seconds",
        "For how long nothing was served in the last handoff.",
        plain(seconds(blackout_us(last))),
    );
    let phases = last.phases_us.iter().map(|(phase, us)| (vec![("phase", phase.as_str())], seconds(*us)));
    out.gauge("hermes_last_handoff_phase_seconds", "How long each phase of the last handoff took.", phases);
    out.gauge("hermes_last_handoff_turns_carried", "Turns that the last handoff carried.", plain(last.turns_carried));
}

fn updates(out: &mut Exposition, status: &Status) {
    let update = &status.update;
    out.gauge(
        "hermes_update_available",
        "Whether a release is known that is newer than the image that runs.",
        plain(u8::from(update.available.is_some())),
    );
    out.gauge("hermes_updates_held", "Whether somebody holds updates.", plain(u8::from(update.held.is_some())));
    out.gauge(
        "hermes_update_last_check_timestamp_seconds",
        "When releases were looked for last, since unix epoch in seconds.",
        update.last_check_at.into_iter().flat_map(|at| plain(moment(at))),
    );
}

fn platforms(out: &mut Exposition, status: &Status) {
    let each = |value: fn(&crate::control::proto::PlatformStatus) -> String| {
        status.platforms.iter().map(move |platform| (vec![("platform", platform.name.as_str())], value(platform)))
    };
    out.gauge(
        "hermes_platform_up",
        "Whether the link to a platform is connected.",
        each(|platform| u8::from(platform.link == LinkState::Connected).to_string()),
    );
    out.gauge(
        "hermes_platform_waiting",
        "Replies and notices that wait to be sent.",
        each(|platform| platform.waiting.to_string()),
    );
    out.gauge(
        "hermes_platform_sending",
        "Requests to a platform that are not answered yet.",
        each(|platform| platform.sending.to_string()),
    );
}

fn agents(out: &mut Exposition, status: &Status) {
    let each = |value: fn(&crate::control::proto::AgentStatus) -> String| {
        status.agents.iter().map(move |agent| (vec![("agent", agent.name.as_str())], value(agent)))
    };
    out.gauge(
        "hermes_agent_up",
        "Whether an agent takes turns.",
        each(|agent| u8::from(agent.state == "ready").to_string()),
    );
    out.gauge("hermes_turns_running", "Turns that an agent runs.", each(|agent| agent.turns.len().to_string()));
    out.gauge(
        "hermes_permissions_open",
        "Permission requests that nobody has answered.",
        each(|agent| agent.permissions.len().to_string()),
    );
}

fn queues(out: &mut Exposition, status: &Status) {
    let queues = &status.queues;
    let depths = [
        ("inbox", Some(queues.inbox)),
        ("turns", Some(status.queued_turns)),
        ("outbox", queues.outbox),
        ("stash", Some(queues.stash)),
    ];
    let known = depths.into_iter().filter_map(|(queue, depth)| Some((vec![("queue", queue)], depth?.to_string())));
    out.gauge("hermes_queue_depth", "What waits, by where.", known);
    let effects = ["refuses", "delays", "risks"];
    let count = |effect: &str| status.blockers.iter().filter(|blocker| blocker.effect == effect).count();
    let blockers = effects.into_iter().map(|effect| (vec![("effect", effect)], count(effect).to_string()));
    out.gauge("hermes_restart_blockers", "What would hold up or refuse a restart now.", blockers);
}

#[cfg(test)]
#[path = "tests/metrics.rs"]
mod tests;
