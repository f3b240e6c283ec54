use super::super::fixture;
use super::*;

fn in_state(gateway_state: &str, phase: &str) -> Status {
    Status { gateway_state: gateway_state.into(), phase: phase.into(), ..fixture::status() }
}

#[test]
fn a_handoff_does_not_make_it_unready_and_a_stop_does() {
    let ready = |state, phase| readiness(&in_state(state, phase)).0;
    assert!(ready("running", "serving") && ready("degraded", "probation") && ready("draining", "quiesce"));
    assert!(!ready("starting", "serving") && !ready("draining", "serving") && !ready("stopped", "serving"));
    assert_eq!(readiness(&in_state("draining", "serving")).1, "not ready: stopping\n");
}

/// Monitors read these fields.
#[test]
fn the_form_of_detailed_health() {
    let mut status = in_state("degraded", "serving");
    status.platforms.truncate(2);
    insta::assert_json_snapshot!(health_detailed(&status), @r#"
    {
      "status": "degraded",
      "readiness": {
        "status": "degraded",
        "checks": {
          "gateway": {
            "status": "ok",
            "state": "degraded",
            "phase": "serving"
          },
          "agents": {
            "status": "ok",
            "agents": 1
          },
          "platforms": {
            "status": "warn",
            "platforms": 2
          },
          "background_queues": {
            "status": "ok",
            "inbox": 1,
            "outbox": 3,
            "stash": 0
          }
        }
      },
      "platform": "hermes-agent",
      "version": "1.5.0",
      "gateway_state": "degraded",
      "platforms": {
        "telegram": {
          "state": "connected",
          "error_code": null,
          "error_message": null,
          "updated_at": "2026-09-20T13:13:20Z"
        },
        "dingtalk": {
          "state": "retrying",
          "error_code": "502",
          "error_message": "bad gateway",
          "updated_at": "2026-09-20T13:13:20Z"
        }
      },
      "active_agents": 1,
      "gateway_busy": true,
      "gateway_drainable": true,
      "exit_reason": null,
      "updated_at": "2026-09-21T14:13:20Z",
      "pid": 4242
    }
    "#);
}

#[test]
fn the_worst_is_what_counts() {
    let mut status = in_state("running", "serving");
    status.platforms.retain(|platform| platform.link == LinkState::Connected);
    assert_eq!(health_detailed(&status)["status"], "ok");
    status.agents[0].state = "down".into();
    assert_eq!(health_detailed(&status)["status"], "degraded");
    status.gateway_state = "draining".into();
    assert_eq!(health_detailed(&status)["status"], "error");
}
