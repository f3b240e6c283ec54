//! Health, for load balancers and monitors.

use serde_json::{Map, Value, json};

use super::text::rfc3339;
use crate::chat::LinkState;
use crate::control::proto::Status;

/// What `/healthz` answers: the event loop turns.
pub const ALIVE: &str = "ok\n";

/// Whether messages are taken, and the body of `/readyz`. They are during a handoff, too: whoever comes meanwhile waits for
/// milliseconds.
pub fn readiness(status: &Status) -> (bool, &'static str) {
    match status.gateway_state.as_str() {
        "running" | "degraded" => (true, "ready\n"),
        "draining" if is_handoff(&status.phase) => (true, "ready\n"),
        _ => (false, "not ready: stopping\n"),
    }
}

pub(super) fn is_handoff(phase: &str) -> bool {
    !matches!(phase, "serving" | "probation")
}

/// The body of `/health/detailed`, in the form that monitors of hermes-agent know.
pub fn health_detailed(status: &Status) -> Value {
    let turns: usize = status.agents.iter().map(|agent| agent.turns.len()).sum();
    let platforms: Map<String, Value> = status
        .platforms
        .iter()
        .map(|platform| {
            let (state, code, message) = match &platform.link {
                LinkState::Connecting => ("connecting", None, None),
                LinkState::Connected => ("connected", None, None),
                LinkState::Paused => ("paused", None, None),
                LinkState::Retrying { error_code, error_message, .. } => {
                    ("retrying", Some(error_code), Some(error_message))
                }
                LinkState::Fatal { error_code, error_message } => ("fatal", Some(error_code), Some(error_message)),
            };
            let told = json!({
                "state": state,
                "error_code": code,
                "error_message": message,
                "updated_at": rfc3339(platform.updated_at),
            });
            (platform.name.clone(), told)
        })
        .collect();
    let (is_ready, _) = readiness(status);
    let check = |is_well: bool| if is_well { "ok" } else { "warn" };
    let are_up = status.agents.iter().all(|agent| agent.state != "down");
    let fine = |link: &LinkState| !matches!(link, LinkState::Retrying { .. } | LinkState::Fatal { .. });
    let are_linked = status.platforms.iter().all(|platform| fine(&platform.link));
    let whole = match (is_ready, are_up && are_linked) {
        (false, _) => "error",
        (true, false) => "degraded",
        (true, true) => "ok",
    };
    json!({
        "status": whole,
        "readiness": {
            "status": whole,
            "checks": {
                "gateway": { "status": if is_ready { "ok" } else { "error" }, "state": status.gateway_state, "phase": status.phase },
                "agents": { "status": check(are_up), "agents": status.agents.len() },
                "platforms": { "status": check(are_linked), "platforms": status.platforms.len() },
                "background_queues": {
                    "status": check(status.queues.outbox.is_some()),
                    "inbox": status.queues.inbox,
                    "outbox": status.queues.outbox,
                    "stash": status.queues.stash,
                },
            },
        },
        "platform": "hermes-agent",
        "version": status.image.version,
        "gateway_state": status.gateway_state,
        "platforms": platforms,
        "active_agents": turns,
        "gateway_busy": turns > 0,
        "gateway_drainable": matches!(status.gateway_state.as_str(), "running" | "degraded"),
        "exit_reason": null,
        "updated_at": rfc3339(status.at),
        "pid": status.pid,
    })
}

#[cfg(test)]
#[path = "tests/health.rs"]
mod tests;
