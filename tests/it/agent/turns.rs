//! Turns of a well-behaved agent.

use super::*;

#[tokio::test]
async fn a_turn_streams_in_a_new_session_and_the_next_uses_it() {
    let mut rig = Rig::new(echo());
    let pid = rig.ready().await;
    let first = rig.turn(1, None, "stream chunks=300 bytes=100").await;
    assert_eq!(first.text, expected_output(300, 100));
    assert_eq!(first.outcome, ended("end_turn"));
    let (session, kept) = first.session.expect("the session is told");
    assert!(kept);
    let second = rig.turn(2, Some(&session), "pid").await;
    assert_eq!(second.text, pid.to_string());
    assert_eq!(second.session, None);
    rig.stop().await;
    assert!(!is_running(pid));
}

#[tokio::test]
async fn two_sessions_run_side_by_side() {
    let mut rig = Rig::new(echo());
    rig.prompt(1, None, "ask first").await;
    rig.prompt(2, None, "stream chunks=20").await;
    let mut told = BTreeMap::new();
    let mut request = None;
    // The second ends while the first waits for an answer.
    while request.is_none() || told.get(&2).is_none_or(|turn: &Told| turn.outcome.is_none()) {
        match rig.next().await {
            AgentEvent::Permission { request: number, .. } => request = Some(number),
            event => rig.note(&mut told, event),
        }
    }
    assert_eq!(told[&2].text, expected_output(20, 64));
    let request = request.expect("the loop ended with it");
    rig.send(AgentCommand::Permission { request, option: Some("no".to_owned()) }).await;
    let first = rig.tell(1).await.remove(&1).expect("the first turn ends");
    assert_eq!(first.text, "chosen: no");
    rig.stop().await;
}

#[tokio::test]
async fn the_kinds_of_update_and_of_end_are_told() {
    let mut rig = Rig::new(echo());
    let tool = |status: &str| TurnUpdate::Tool { title: "list files".to_owned(), status: status.to_owned() };
    let told = rig.turn(1, None, "tool list files").await;
    assert_eq!(told.updates, [tool("in_progress"), tool("completed"), TurnUpdate::Text("done".to_owned())]);
    let told = rig.turn(2, None, "think deeply").await;
    assert_eq!(told.updates[0], TurnUpdate::Thought("deeply".to_owned()));
    assert_eq!(rig.turn(3, None, "refuse").await.outcome, ended("refusal"));
    let told = rig.turn(4, None, "error no credit").await;
    let reason = "the agent answered with an error: no credit (-32603)".to_owned();
    assert_eq!(told.outcome, Some(TurnOutcome::Failed { reason }));
    let told = rig.turn(5, Some(&"gone".into()), "hello").await;
    assert!(matches!(told.session, Some((_, false))), "a session that cannot be loaded is replaced");
    rig.stop().await;
}

#[tokio::test]
async fn a_cancelled_turn_ends_and_its_permission_request_with_it() {
    let mut rig = Rig::new(echo());
    rig.prompt(1, None, "ask something").await;
    let request = loop {
        if let AgentEvent::Permission { request, .. } = rig.next().await {
            break request;
        }
    };
    rig.send(AgentCommand::Cancel { turn: TurnId(1) }).await;
    assert_eq!(rig.tell(1).await[&1].outcome, Some(TurnOutcome::Cancelled));
    // A late answer meets nothing.
    rig.send(AgentCommand::Permission { request, option: Some("yes".to_owned()) }).await;
    rig.prompt(2, None, "sleep 10m").await;
    while !matches!(rig.next().await, AgentEvent::Session { .. }) {}
    rig.send(AgentCommand::Cancel { turn: TurnId(2) }).await;
    assert_eq!(rig.tell(1).await[&2].outcome, Some(TurnOutcome::Cancelled));
    rig.stop().await;
}

#[tokio::test]
async fn a_cancel_that_the_agent_ignores_ends_the_turn_at_its_deadline() {
    let limits = Limits { cancel_timeout: Duration::from_millis(50), ..quick() };
    let mut rig = Rig::with(
        script(r#"hello; session; line; update a; line; line; answer '{"stopReason":"end_turn"}'; line"#),
        limits,
    );
    rig.prompt(1, None, "hello").await;
    while !matches!(rig.next().await, AgentEvent::Update { .. }) {}
    rig.send(AgentCommand::Cancel { turn: TurnId(1) }).await;
    assert_eq!(rig.tell(1).await[&1].outcome, Some(TurnOutcome::Cancelled));
    rig.stop().await;
}
