//! Births and deaths of agent processes.

use super::*;

#[tokio::test]
async fn what_an_agent_said_before_it_died_is_told_before_its_death() {
    let mut rig = Rig::new(echo());
    let first = rig.ready().await;
    let told = rig.turn(1, None, "crash chunks=500 bytes=200 code=7").await;
    assert_eq!(told.text, expected_output(500, 200));
    assert!(
        matches!(&told.outcome, Some(TurnOutcome::Failed { reason }) if reason.contains("exit code 7")),
        "{told:?}"
    );
    match rig.next().await {
        AgentEvent::Died { how, .. } => assert_eq!(how, "exit code 7"),
        other => panic!("{other:?}"),
    }
    let second = rig.ready().await;
    assert_ne!(first, second);
    assert_eq!(rig.turn(2, None, "hello").await.text, "hello");
    rig.stop().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named_with_the_fix_and_tried_again() {
    let mut rig = Rig::new(spec(&["/nonexistent/agent"]));
    rig.prompt(1, None, "hello").await;
    for _ in 0..3 {
        loop {
            match rig.next().await {
                AgentEvent::StartFailed { reason, .. } => {
                    assert!(reason.contains("/nonexistent/agent; check `command` in [agents.default]"), "{reason}");
                    break;
                }
                AgentEvent::TurnEnded { outcome: TurnOutcome::Failed { .. }, .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    rig.stop().await;
    let nowhere = AgentSpec { cwd: "/nonexistent".into(), ..echo() };
    let mut rig = Rig::new(nowhere);
    match rig.next().await {
        AgentEvent::StartFailed { reason, .. } => assert!(reason.contains("check `cwd`"), "{reason}"),
        other => panic!("{other:?}"),
    }
    rig.stop().await;
}

#[tokio::test]
async fn waits_between_restarts_double() {
    let mut rig = Rig::with(spec(&["false"]), Limits { backoff_max: Duration::from_millis(5), ..quick() });
    let mut waits = Vec::new();
    while waits.len() < 5 {
        match rig.next().await {
            AgentEvent::StartFailed { restart_in, reason, .. } => {
                assert!(reason.contains("exit code 1"), "{reason}");
                waits.push(restart_in.as_millis());
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waits, [1, 2, 4, 5, 5]);
    rig.stop().await;
}

#[tokio::test]
async fn a_stop_kills_what_ignores_it_with_all_its_children() {
    let mut rig =
        Rig::new(script("trap '' TERM; hello; sleep 1000 & session; update $!; while :; do sleep 1000; done"));
    let pid = rig.ready().await;
    rig.prompt(1, None, "hello").await;
    let child = loop {
        if let AgentEvent::Update { update: TurnUpdate::Text(text), .. } = rig.next().await {
            break text.parse().expect("a process id");
        }
    };
    rig.send(AgentCommand::Stop).await;
    let told = rig.tell(1).await;
    assert_eq!(told[&1].outcome, Some(TurnOutcome::Failed { reason: "the agent was stopped".to_owned() }));
    assert!(matches!(rig.next().await, AgentEvent::Stopped { .. }));
    assert!(!is_running(pid));
    dead(child).await;
}

/// Waits for the end of a process.
pub(super) async fn dead(pid: i32) {
    let dead = async {
        while is_alive(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dead).await.expect("it ends");
}

/// Whether a process that is not our child runs: nobody may be there to reap it.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[tokio::test]
async fn an_agent_that_never_answers_initialize_is_ended_and_tried_again() {
    let limits = Limits { initialize_timeout: Duration::from_millis(50), ..quick() };
    let mut rig = Rig::with(spec(&["sleep", "1000"]), limits);
    for _ in 0..2 {
        match rig.next().await {
            AgentEvent::StartFailed { reason, .. } => assert!(reason.contains("did not answer initialize"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_dropped_handle_stops_the_agent() {
    let mut rig = Rig::new(echo());
    let pid = rig.ready().await;
    let Rig { handle, mut events, .. } = rig;
    drop(handle);
    let last = tokio::time::timeout(PATIENCE, events.recv()).await.expect("in time");
    assert!(matches!(last, Some(AgentEvent::Stopped { .. })));
    assert!(!is_running(pid));
}
