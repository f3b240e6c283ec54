//! Agents that are frozen by one task and go on with another, as they do over an execve.

use std::os::unix::fs::MetadataExt as _;

use hermes_gateway::agent::{AdoptError, AgentFds};
use hermes_gateway::chat::{AttachmentKind, LocalFile};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest as _, Sha256};

use super::*;

#[tokio::test]
async fn a_stream_is_byte_identical_over_fifty_handoffs() {
    let mut rig = Rig::new(echo());
    let pid = rig.ready().await;
    rig.prompt(1, None, "stream chunks=2000 bytes=200 delay=1ms").await;
    let mut told = BTreeMap::new();
    let mut handoffs = 0;
    for round in 0..50_usize {
        // Some events first, so that the cuts fall everywhere.
        for _ in 0..round % 7 {
            let event = rig.next().await;
            rig.note(&mut told, event);
        }
        let snapshot = rig.freeze(&mut told).await;
        handoffs += usize::from(snapshot.turns == 1);
        rig.adopt(snapshot);
        assert_eq!(rig.ready().await, pid);
    }
    while told[&1].outcome.is_none() {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    assert_eq!(told[&1].text, expected_output(2000, 200));
    assert!(handoffs == 50, "all handoffs fell into the turn, {handoffs} did");
    let after = rig.turn(2, None, "pid").await;
    assert_eq!(after.text, pid.to_string());
    rig.stop().await;
    assert!(!is_running(pid));
}

#[tokio::test]
async fn an_agent_that_writes_as_fast_as_it_can_loses_nothing_in_handoffs() {
    let mut rig = Rig::new(echo());
    rig.prompt(1, None, "stream chunks=30000 bytes=300").await;
    let mut told = BTreeMap::new();
    for _ in 0..20 {
        let snapshot = rig.freeze(&mut told).await;
        rig.adopt(snapshot);
    }
    while told.get(&1).is_none_or(|turn: &Told| turn.outcome.is_none()) {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    assert!(told[&1].text == expected_output(30_000, 300), "the output is byte-identical");
    rig.stop().await;
}

#[tokio::test]
async fn a_thawed_agent_goes_on_and_takes_what_was_queued_meanwhile() {
    let mut rig = Rig::new(echo());
    rig.prompt(1, None, "stream chunks=200 delay=1ms").await;
    let mut told = BTreeMap::new();
    let snapshot = rig.freeze(&mut told).await;
    rig.prompt(2, None, "hello").await;
    drop(snapshot);
    rig.send(AgentCommand::Thaw).await;
    // A thaw that meets no freeze must not undo a later one.
    rig.send(AgentCommand::Thaw).await;
    while told.values().filter(|turn| turn.outcome.is_some()).count() < 2 {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    assert_eq!((told[&1].text.as_str(), told[&2].text.as_str()), (expected_output(200, 64).as_str(), "hello"));
    rig.freeze(&mut told).await;
    rig.prompt(3, None, "hello").await;
    let silence = tokio::time::timeout(Duration::from_millis(50), rig.events.recv()).await;
    assert!(silence.is_err(), "a frozen agent says nothing");
    rig.send(AgentCommand::Thaw).await;
    assert_eq!(rig.tell(1).await[&3].text, "hello");
    rig.stop().await;
}

#[tokio::test]
async fn a_pending_permission_and_a_waiting_prompt_are_carried() {
    let mut rig = Rig::new(echo());
    rig.prompt(1, None, "ask something").await;
    let request = loop {
        if let AgentEvent::Permission { request, .. } = rig.next().await {
            break request;
        }
    };
    // Queued before the freeze, so it belongs to the snapshot.
    rig.prompt(2, None, "hello").await;
    let mut told = BTreeMap::new();
    let snapshot = rig.freeze(&mut told).await;
    assert_eq!(snapshot.turns, 2);
    rig.adopt(snapshot);
    rig.send(AgentCommand::Permission { request, option: Some("always".to_owned()) }).await;
    let told = rig.tell(2).await;
    assert_eq!((told[&1].text.as_str(), told[&2].text.as_str()), ("chosen: always", "hello"));
    rig.stop().await;
}

#[tokio::test]
async fn an_agent_that_died_during_a_handoff_is_found_dead_with_its_last_words() {
    let mut rig = Rig::new(echo());
    let pid = rig.ready().await;
    // All of it fits into the pipe, so the agent can end while nobody reads.
    rig.prompt(1, None, "crash chunks=100 bytes=64 delay=1ms").await;
    let mut told: BTreeMap<i64, Told> = BTreeMap::new();
    while told.get(&1).is_none_or(|turn| turn.text.is_empty()) {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    let snapshot = rig.freeze(&mut told).await;
    wait_for_zombie(pid).await;
    rig.adopt(snapshot);
    assert_eq!(rig.ready().await, pid);
    while told.get(&1).is_none_or(|turn: &Told| turn.outcome.is_none()) {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    assert_eq!(told[&1].text, expected_output(100, 64));
    assert!(matches!(rig.next().await, AgentEvent::Died { how, .. } if how == "exit code 1"));
    rig.ready().await;
    assert!(!is_running(pid), "it was reaped");
    rig.stop().await;
}

fn with_pid(state: &serde_json::Value, pid: i32) -> serde_json::Value {
    let mut state = state.clone();
    state["process"]["pid"] = pid.into();
    state
}

/// Waits until the process has ended, which nobody has reaped.
async fn wait_for_zombie(pid: i32) {
    let ended = async {
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("nobody has reaped it");
            if stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z')) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("it ends in time");
}

#[tokio::test]
async fn an_agent_that_is_down_is_carried_too() {
    let limits = Limits { backoff_min: Duration::from_millis(300), ..quick() };
    let mut rig = Rig::with(spec(&["false"]), limits);
    assert!(matches!(rig.next().await, AgentEvent::StartFailed { .. }));
    rig.prompt(1, None, "hello").await;
    let snapshot = rig.freeze(&mut BTreeMap::new()).await;
    assert!(snapshot.fds.is_none());
    rig.spec = echo();
    rig.adopt(snapshot);
    // The new command counts from the next start on, and the prompt has waited for it.
    assert_eq!(rig.tell(1).await[&1].text, "hello");
    rig.stop().await;
}

#[tokio::test]
async fn a_state_that_makes_no_sense_is_refused_and_a_newer_one_is_read() {
    let mut rig = Rig::new(echo());
    rig.ready().await;
    let mut told = BTreeMap::new();
    let mut snapshot = rig.freeze(&mut told).await;
    let refused = |state: serde_json::Value| {
        let (events, _unheard) = mpsc::channel(1);
        let snapshot = AgentSnapshot { state, fds: None, turns: 0 };
        adopt_with(echo(), quick(), snapshot, events).expect_err("refused").to_string()
    };
    assert_eq!(refused(serde_json::json!("nonsense")), "the agent's state cannot be read");
    assert!(refused(snapshot.state.clone()).ends_with("are missing"), "a process without its fds");
    for (state, swap) in [(snapshot.state.clone(), true), (with_pid(&snapshot.state, 1), false)] {
        let AgentFds { stdin, stdout, pidfd, log } = duplicates(snapshot.fds.as_ref().expect("a process runs"));
        let (stdout, pidfd) = if swap { (pidfd, stdout) } else { (stdout, pidfd) };
        let (events, _unheard) = mpsc::channel(1);
        let snapshot = AgentSnapshot { state, fds: Some(AgentFds { stdin, stdout, pidfd, log }), turns: 0 };
        let error = adopt_with(echo(), quick(), snapshot, events).expect_err("fds of something else");
        assert!(matches!(error, AdoptError::Fds { .. }), "{error}");
    }
    snapshot.state["version"] = 99.into();
    snapshot.state["novelty"] = true.into();
    snapshot.state["connection"]["novelty"] = true.into();
    rig.adopt(snapshot);
    rig.ready().await;
    assert_eq!(rig.turn(1, None, "hello").await.text, "hello");
    rig.stop().await;
}

#[tokio::test]
async fn an_agent_that_does_not_read_is_still_heard_and_can_be_frozen() {
    // Far more than the pipe holds is on its way to the agent while it speaks.
    let folder = tempfile::tempdir().expect("a folder");
    let mut spec = script(
        r#"hello; session; for i in 1 2 3 4 5; do update $i; done; while [ ! -e "$GO" ]; do sleep 0.01; done; line
        update x; answer '{"stopReason":"end_turn"}'; line"#,
    );
    spec.env.insert("GO".to_owned(), folder.path().join("go").to_string_lossy().into_owned());
    let mut rig = Rig::new(spec);
    rig.prompt(1, None, &"a".repeat(1_000_000)).await;
    let mut told: BTreeMap<i64, Told> = BTreeMap::new();
    while told.get(&1).is_none_or(|turn| turn.text != "12345") {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    let snapshot = rig.freeze(&mut told).await;
    rig.adopt(snapshot);
    std::fs::write(folder.path().join("go"), "").expect("a file");
    let rest = rig.tell(1).await;
    assert_eq!((rest[&1].text.as_str(), &rest[&1].outcome), ("x", &ended("end_turn")));
    rig.stop().await;
}

/// A picture as far as anybody looks, of so many bytes.
pub(super) fn picture(directory: &tempfile::TempDir, bytes: usize) -> LocalFile {
    let mut content = b"\x89PNG\r\n\x1a\n".to_vec();
    content.extend((content.len()..bytes).map(|at| u8::try_from(at % 251).expect("below 251")));
    let path = directory.path().join("a.png");
    std::fs::write(&path, &content).expect("writes");
    let (kind, name, mime) = (AttachmentKind::Image, "a.png".to_owned(), None);
    LocalFile { kind, name, mime, path, size_bytes: bytes as u64 }
}

#[tokio::test]
async fn a_large_picture_that_is_half_written_to_a_slow_agent_arrives_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    // The largest that stands in a prompt.
    let size = 5 << 20;
    let file = picture(&directory, size);
    let digest: String = {
        let bytes = std::fs::read(&file.path).expect("reads");
        Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    };
    let mut rig = Rig::new(echo());
    let pid = rig.ready().await;
    let (session, _) = rig.turn(1, None, "hello").await.session.expect("a session");
    let signal = |signal| kill(Pid::from_raw(pid), signal).expect("it is there");
    signal(Signal::SIGSTOP);
    let (text, session, files) = ("look".to_owned(), Some(session), vec![file]);
    rig.send(AgentCommand::Prompt { turn: TurnId(2), session, text, files }).await;
    let mut told = BTreeMap::new();
    // The log has what waits to be written.
    let log = rig.fds.as_ref().and_then(|fds| fds.log.as_ref()).expect("a log").try_clone().expect("duplicates");
    let log = std::fs::File::from(log);
    let kept = || log.metadata().expect("a memfd").blocks() * 512;
    let given = async {
        while kept() < size as u64 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, given).await.expect("it is given in time");
    for carried in 0..3 {
        let snapshot = rig.freeze(&mut told).await;
        let unsent = snapshot.state["connection"]["outgoing"]["bytes"].as_str().map_or(0, str::len);
        assert!(unsent > size, "{carried}: most of it waits, as base64 of base64: {unsent}");
        rig.adopt(snapshot);
        rig.ready().await;
    }
    signal(Signal::SIGCONT);
    while told.get(&2).is_none_or(|turn: &Told| turn.outcome.is_none()) {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    assert_eq!(told[&2].text, format!("look\n[image image/png {size} bytes sha256 {digest}]"));
    // Nothing of it is kept once it is given.
    let snapshot = rig.freeze(&mut told).await;
    let state = serde_json::to_string(&snapshot.state).expect("JSON");
    assert!(state.len() < 10_000, "{} bytes", state.len());
    assert!(kept() < 1 << 20, "the log has given its memory back: {}", kept());
}
