//! Agents that break the rules.

use super::*;

#[tokio::test]
async fn noise_between_the_messages_is_skipped() {
    let mut rig = Rig::new(script(
        r#"hello; echo 'Loading plugins...'; echo '[]'; echo '{"jsonrpc":"2.0","id":99,"result":1}'
        echo '{"jsonrpc":"2.0","id":"x","error":{"code":1,"message":"m"}}'; printf '\377\376\n\n'
        session; echo '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":7}}'
        echo '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s","update":{"sessionUpdate":"novelty"}}}'
        echo '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"elsewhere","update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"no"}}}}'
        echo '{"jsonrpc":"2.0","method":"session/update","params":[]}'
        line; prompt=$message
        echo '{"jsonrpc":"2.0","id":1,"method":"fs/read_text_file","params":{}}'; line; update "$(printf '%s' "$message" | tr -d '\134"')"
        echo '{"jsonrpc":"2.0","id":"p","method":"session/request_permission","params":3}'; line
        message=$prompt; answer '{"stopReason":"end_turn","usage":{}}'; line"#,
    ));
    let told = rig.turn(1, None, "hello").await;
    assert!(told.text.contains("code:-32601"), "{told:?}");
    assert_eq!(told.outcome, ended("end_turn"));
    rig.stop().await;
}

#[tokio::test]
async fn an_endless_line_costs_its_agent_the_process_and_little_memory() {
    let mut rig = Rig::new(script(r"hello; session; line; head -c 100000000 /dev/zero | tr '\0' a; line"));
    let told = rig.turn(1, None, "hello").await;
    match told.outcome {
        Some(TurnOutcome::Failed { reason }) => assert!(reason.contains("more than 33554432 bytes"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(rig.next().await, AgentEvent::Died { .. }));
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak_kib < 250_000, "{peak_kib} KiB at the peak");
    rig.stop().await;
}

#[tokio::test]
async fn wrong_answers_to_initialize_are_told_apart() {
    for (answer, expected) in [
        (r#"{"protocolVersion":2}"#, "speaks version 2"),
        (r#"{"protocolVersion":"one"}"#, "is not one of ACP"),
        ("null", "is not one of ACP"),
        (r#"0,"error":{"code":-32000,"message":"no"}"#, "wants a login"),
    ] {
        let mut rig = Rig::new(script(&format!("line; answer '{answer}'; line")));
        match rig.next().await {
            AgentEvent::StartFailed { reason, .. } => assert!(reason.contains(expected), "{answer}: {reason}"),
            other => panic!("{answer}: {other:?}"),
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn an_agent_that_closes_its_input_or_its_output_ends_with_its_turns() {
    for body in ["hello; session; exec <&-; sleep 1000", "hello; session; line; exec >&-; sleep 1000"] {
        let mut rig = Rig::new(script(body));
        let told = rig.turn(1, None, &"a".repeat(200_000)).await;
        assert!(matches!(told.outcome, Some(TurnOutcome::Failed { .. })), "{told:?}");
        match rig.next().await {
            AgentEvent::Died { how, .. } => assert!(how.contains("it closed its"), "{how}"),
            other => panic!("{other:?}"),
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_flood_of_requests_that_nobody_reads_the_answers_of_ends_the_agent() {
    let limits = Limits { outgoing_bytes_max: 1 << 20, ..quick() };
    let mut rig = Rig::with(
        script(r#"hello; session; line; yes '{"jsonrpc":"2.0","id":1,"method":"terminal/create","params":{}}'"#),
        limits,
    );
    let told = rig.turn(1, None, "hello").await;
    match told.outcome {
        Some(TurnOutcome::Failed { reason }) => assert!(reason.contains("does not read its input"), "{reason}"),
        other => panic!("{other:?}"),
    }
    rig.stop().await;
}
