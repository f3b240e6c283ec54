//! Gateways that are killed while their agents go on, and others that find the agents' fds and logs.
//!
//! A kill is the end of the runtime: the task goes nowhere from where it waits, and its fds are closed.

use hermes_gateway::agent::{AdoptError, RecoveredTurn, recover_with};
use hermes_gateway::recovery::RecoveryLog;
use tokio::runtime::Runtime;

use super::*;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The gateway that comes after the one whose fds these are.
fn recover(spec: AgentSpec, limits: Limits, fds: &AgentFds) -> (Rig, Vec<RecoveredTurn>) {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let recovered = recover_with(spec.clone(), limits, duplicates(fds), sender);
    let (handle, turns) = recovered.expect("fds and log hold together");
    (Rig { spec, limits, handle, events, fds: None }, turns)
}

fn kept(rig: &mut Rig) -> AgentFds {
    rig.fds.take().expect("it was started")
}

/// What is seen of a turn, after a kill.
fn seen_again(told: &mut BTreeMap<i64, Told>, turns: Vec<RecoveredTurn>) {
    for turn in turns {
        let seen = told.entry(turn.turn.0).or_default();
        assert!(turn.text.starts_with(&seen.text), "nothing that was told is lost");
        seen.text = turn.text;
        assert!(seen.outcome.is_none() || seen.outcome == turn.outcome);
        seen.outcome = turn.outcome;
    }
}

#[test]
fn a_stream_is_byte_identical_over_thirty_kills() {
    for stream in ["stream chunks=2000 bytes=200 delay=1ms", "stream chunks=2000 bytes=200"] {
        let first = runtime();
        let (pid, fds) = first.block_on(async {
            let mut rig = Rig::new(echo());
            let pid = rig.ready().await;
            rig.prompt(1, None, stream).await;
            while !matches!(rig.next().await, AgentEvent::Session { .. }) {}
            (pid, kept(&mut rig))
        });
        drop(first);
        let mut told = BTreeMap::new();
        for round in 0..30_usize {
            runtime().block_on(async {
                let (mut rig, turns) = recover(echo(), quick(), &fds);
                assert_eq!(turns.len(), 1);
                seen_again(&mut told, turns);
                assert_eq!(rig.ready().await, pid);
                for _ in 0..round % 7 {
                    if told[&1].outcome.is_none() {
                        let event = rig.next().await;
                        rig.note(&mut told, event);
                    }
                }
            });
        }
        runtime().block_on(async {
            let (mut rig, turns) = recover(echo(), quick(), &fds);
            seen_again(&mut told, turns);
            while told[&1].outcome.is_none() {
                let event = rig.next().await;
                rig.note(&mut told, event);
            }
            assert!(told[&1].text == expected_output(2000, 200), "the output is byte-identical");
            assert_eq!(rig.turn(2, None, "pid").await.text, pid.to_string());
            rig.stop().await;
        });
        assert!(!is_running(pid));
    }
}

#[test]
fn an_open_permission_request_is_shown_again_and_can_be_answered() {
    let fds = runtime().block_on(async {
        let mut rig = Rig::new(echo());
        rig.prompt(1, None, "ask something").await;
        while !matches!(rig.next().await, AgentEvent::Permission { .. }) {}
        kept(&mut rig)
    });
    runtime().block_on(async {
        let (mut rig, turns) = recover(echo(), quick(), &fds);
        let [turn] = &turns[..] else { panic!("{turns:?}") };
        let [permission] = &turn.permissions[..] else { panic!("{turns:?}") };
        assert_eq!(permission.title, "something");
        let option = permission.options.iter().find(|option| option.kind == "allow_always").expect("it is offered");
        assert!(turn.session.is_some() && turn.outcome.is_none());
        let option = Some(option.id.clone());
        rig.send(AgentCommand::Permission { request: permission.request, option }).await;
        assert_eq!(rig.tell(1).await[&1].text, "chosen: always");
        rig.stop().await;
    });
}

#[test]
fn an_ended_turn_is_kept_until_it_is_settled() {
    let fds = runtime().block_on(async {
        let mut rig = Rig::new(echo());
        let first = rig.turn(1, None, "one").await;
        let session = first.session.expect("it was told").0;
        rig.turn(2, Some(&session), "two").await;
        rig.send(AgentCommand::Settled { turn: TurnId(1) }).await;
        // Settled before it, so recorded before it.
        rig.turn(3, Some(&session), "three").await;
        kept(&mut rig)
    });
    runtime().block_on(async {
        let (mut rig, turns) = recover(echo(), quick(), &fds);
        let found: Vec<_> = turns.iter().map(|turn| (turn.turn.0, turn.text.as_str(), turn.outcome.clone())).collect();
        assert_eq!(found, [(2, "two", ended("end_turn")), (3, "three", ended("end_turn"))]);
        rig.ready().await;
        rig.send(AgentCommand::Settled { turn: TurnId(2) }).await;
        assert_eq!(rig.turn(4, None, "four").await.text, "four");
    });
    runtime().block_on(async {
        let (rig, turns) = recover(echo(), quick(), &fds);
        assert_eq!(turns.iter().map(|turn| turn.turn.0).collect::<Vec<_>>(), [3, 4]);
        rig.stop().await;
    });
}

#[test]
fn an_agent_that_died_meanwhile_is_found_with_its_last_words() {
    let (pid, fds) = runtime().block_on(async {
        let mut rig = Rig::new(echo());
        let pid = rig.ready().await;
        rig.prompt(1, None, "crash chunks=100 bytes=64 delay=1ms").await;
        while !matches!(rig.next().await, AgentEvent::Update { .. }) {}
        (pid, kept(&mut rig))
    });
    runtime().block_on(async {
        let (mut rig, turns) = recover(echo(), quick(), &fds);
        let mut told = BTreeMap::new();
        seen_again(&mut told, turns);
        assert_eq!(rig.ready().await, pid);
        while told[&1].outcome.is_none() {
            let event = rig.next().await;
            rig.note(&mut told, event);
        }
        assert_eq!(told[&1].text, expected_output(100, 64));
        assert!(matches!(rig.next().await, AgentEvent::Died { .. }));
        assert_ne!(rig.ready().await, pid, "another is started");
        assert!(rig.fds.is_some(), "and its fds are told");
        rig.stop().await;
    });
}

#[test]
fn a_handoff_goes_on_with_the_same_log() {
    let fds = runtime().block_on(async {
        let mut rig = Rig::new(echo());
        assert_eq!(rig.turn(1, None, "one").await.text, "one");
        let fds = kept(&mut rig);
        let snapshot = rig.freeze(&mut BTreeMap::new()).await;
        rig.adopt(snapshot);
        assert_eq!(rig.turn(2, None, "two").await.text, "two");
        fds
    });
    runtime().block_on(async {
        let (rig, turns) = recover(echo(), quick(), &fds);
        assert_eq!(turns.iter().map(|turn| turn.text.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        rig.stop().await;
    });
}

#[test]
fn a_stop_is_heard_by_an_agent_whose_input_somebody_else_keeps() {
    runtime().block_on(async {
        // No signal would come in time.
        let mut rig = Rig::with(echo(), Limits { stop_grace: 10 * PATIENCE, ..quick() });
        rig.ready().await;
        let _kept = kept(&mut rig);
        rig.stop().await;
    });
}

#[test]
fn fds_without_a_log_or_with_a_wrong_one_are_refused() {
    runtime().block_on(async {
        let mut rig = Rig::new(echo());
        rig.ready().await;
        let fds = kept(&mut rig);
        let refused = |log: Option<OwnedFd>| {
            let (events, _unheard) = mpsc::channel(1);
            recover_with(echo(), quick(), AgentFds { log, ..duplicates(&fds) }, events).map(drop).expect_err("refused")
        };
        assert!(matches!(refused(None), AdoptError::LogEmpty));
        assert!(matches!(refused(Some(duplicates(&fds).pidfd)), AdoptError::Log(_)));
        rig.stop().await;
    });
}

#[test]
fn an_agent_with_pipes_that_an_earlier_image_started_is_taken_over() {
    use std::os::unix::process::CommandExt;

    let script = script(r#"session; line; update x; answer '{"stopReason":"end_turn"}'; line"#);
    let mut command = std::process::Command::new(&script.command[0]);
    command.args(&script.command[1..]).process_group(0);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("sh starts");
    let pid = rustix::process::Pid::from_child(&child);
    let fds = AgentFds {
        stdin: child.stdin.take().expect("piped").into(),
        stdout: child.stdout.take().expect("piped").into(),
        pidfd: rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("a pidfd"),
        log: None,
    };
    let pid = pid.as_raw_nonzero().get();
    let mut log = RecoveryLog::create("test").expect("memory");
    let fds = AgentFds { log: Some(log.as_fd().try_clone_to_owned().expect("duplicates")), ..fds };
    let state = serde_json::json!({
        "version": 1,
        "connection": {"agent": "default", "pid": pid, "phase": {"ready": {"can_load": false, "title": null}},
            "next_call": 1, "outgoing": ""},
        "process": {"pid": pid, "started": 1, "partial": ""},
    });
    log.append(serde_json::json!({ "state": state }).to_string().as_bytes()).expect("appends");
    runtime().block_on(async {
        let (events, unheard) = mpsc::channel(EVENTS_MAX);
        let snapshot = AgentSnapshot { state, fds: Some(fds), turns: 0 };
        let handle = adopt_with(script.clone(), quick(), snapshot, events).expect("it is taken over");
        let mut rig = Rig { spec: script, limits: quick(), handle, events: unheard, fds: None };
        assert_eq!(rig.ready().await, pid);
        assert_eq!(rig.turn(1, None, "hello").await.text, "x");
        let mut told = BTreeMap::new();
        let snapshot = rig.freeze(&mut told).await;
        assert!(snapshot.fds.as_ref().is_some_and(|fds| fds.log.is_none()), "what comes out of a pipe is in no log");
        rig.adopt(snapshot);
        rig.stop().await;
    });
    let log = RecoveryLog::open(log.as_fd().try_clone_to_owned().expect("duplicates")).expect("a log");
    assert_eq!(log.len_bytes(), 0, "the log of the image before tells no old things");
    assert!(child.wait().is_err(), "the task has reaped it");
}
