//! Agents that are tried out with a process of their own.

use hermes_gateway::agent::{ProbeError, probe_with};

use super::*;

async fn probed(spec: AgentSpec, prompt: Option<&str>, deadline: Duration) -> Result<(), ProbeError> {
    probe_with(spec, quick(), prompt.map(str::to_owned), deadline).await
}

#[tokio::test]
async fn a_good_agent_passes_with_and_without_a_turn() {
    for prompt in [None, Some("hello")] {
        probed(echo(), prompt, PATIENCE).await.expect("it passes");
    }
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let refused = probed(echo(), Some("refuse"), PATIENCE).await.expect_err("refused");
    assert_eq!(refused.to_string(), "the turn did not end well: stop reason refusal");
    let asked = probed(echo(), Some("ask something"), PATIENCE).await.expect_err("nobody is there to answer");
    assert_eq!(asked.to_string(), "the turn did not end well: it was cancelled");
    let dead = probed(spec(&["false"]), None, PATIENCE).await.expect_err("dead");
    assert!(dead.to_string().contains("exit code 1"), "{dead}");
    let crashed = probed(echo(), Some("crash"), PATIENCE).await.expect_err("crashed");
    assert!(crashed.to_string().contains("exit code 1"), "{crashed}");
}

#[tokio::test]
async fn a_slow_agent_is_named_and_ended_with_its_children() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut slow = script(r#"echo $$ >"$PID"; sleep 1000 & line; wait"#);
    let file = folder.path().join("pid");
    slow.env.insert("PID".to_owned(), file.to_string_lossy().into_owned());
    let error = probed(slow, None, Duration::from_millis(500)).await.expect_err("slow");
    assert_eq!(error.to_string(), "it did not answer initialize within 0.5 s");
    // Under load it may not have come so far; then there is nothing to end.
    if let Ok(pid) = std::fs::read_to_string(file) {
        assert!(!is_running(pid.trim().parse().expect("a process id")));
    }
    let error = probed(echo(), Some("sleep 10m"), Duration::from_secs(2)).await.expect_err("slow");
    assert!(matches!(error, ProbeError::TimedOut { .. }), "{error}");
}
