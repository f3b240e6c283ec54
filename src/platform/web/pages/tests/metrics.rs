use std::io::Write as _;
use std::process::{Command, Stdio};

use super::super::fixture::{self, HOSTILE};
use super::*;

fn value(text: &str, series: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned))
}

#[test]
fn metrics_have_their_units_in_their_names() {
    let text = metrics(&fixture::status());
    for (series, wanted) in [
        (format!("hermes_build_info{{version=\"1.5.0\",sha256=\"{}\"}}", "bb".repeat(32)).as_str(), "1"),
        ("process_start_time_seconds", "1789700000.000"),
        ("hermes_generation", "3"),
        ("hermes_ready", "1"),
        ("hermes_handoffs_total{kind=\"update\",outcome=\"committed\"}", "12"),
        ("hermes_last_handoff_blackout_seconds", "0.004321"),
        ("hermes_last_handoff_duration_seconds", "0.009431"),
        ("hermes_last_handoff_phase_seconds{phase=\"stage\"}", "1.840000"),
        ("hermes_update_available", "1"),
        ("hermes_updates_held", "0"),
        ("hermes_platform_up{platform=\"dingtalk\"}", "0"),
        ("hermes_platform_waiting{platform=\"telegram\"}", "2"),
        ("hermes_agent_up{agent=\"default\"}", "1"),
        ("hermes_turns_running{agent=\"default\"}", "1"),
        ("hermes_queue_depth{queue=\"outbox\"}", "3"),
        ("hermes_restart_blockers{effect=\"delays\"}", "1"),
    ] {
        assert_eq!(value(&text, series).as_deref(), Some(wanted), "{series} in\n{text}");
    }
}

#[test]
fn what_is_not_known_is_left_out() {
    let mut status = fixture::status();
    status.queues.outbox = None;
    status.handoffs.clear();
    let text = metrics(&status);
    assert!(!text.contains("queue=\"outbox\"") && !text.contains("hermes_last_handoff"), "{text}");
}

/// Of a gateway with something of everything, and of one with hostile names.
#[test]
fn promtool_finds_nothing_wrong() {
    let mut named = fixture::status();
    named.image.version = format!("{HOSTILE}\\\n");
    named.agents[0].name = HOSTILE.into();
    for status in [fixture::status(), named] {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool (Debian package prometheus) is installed");
        let mut input = promtool.stdin.take().expect("piped");
        input.write_all(metrics(&status).as_bytes()).expect("promtool reads");
        drop(input);
        let output = promtool.wait_with_output().expect("promtool ends");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}
