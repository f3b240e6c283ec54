//! Agents that die in the middle of a turn, and what the next process has kept of it.

use std::fs;
use std::path::Path;

use hermes_gateway::agent::{RecoveredTurn, recover_with};
use hermes_gateway::chat::ReplyEnd;
use tokio::runtime::Runtime;

use super::*;
use crate::support::gateway::Gateway;

/// An agent that keeps its history in the file `$DIR/history`, and says in `$DIR/prompts` what it was asked.
///
/// A prompt `die KEPT` is answered with `hello` and a SIGKILL; before that it keeps `nothing`, the `message` alone, or as
/// well a `part` of the answer that is shorter or a `whole` one that is longer than what it has said. `session/load`
/// waits in the middle of the replay while `$DIR/hold` is there, and death while `$DIR/wait` is.
fn keeper(folder: &Path, loads: bool) -> AgentSpec {
    let body = r#"
        piece() {
            printf '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s","update":{"sessionUpdate":"%s","content":{"type":"text","text":"%s"}}}}\n' "$1" "$2"
        }
        keep() { piece "$1" "$2" >>"$DIR/history"; }
        while line; do
            case "$message" in
            *'"initialize"'*) answer "{\"protocolVersion\":1,\"agentCapabilities\":{\"loadSession\":$LOADS}}" ;;
            *'"session/new"'*) answer '{"sessionId":"s"}' ;;
            *'"session/load"'*)
                if [ -e "$DIR/die" ]; then kill -9 $$; fi
                if [ -e "$DIR/history" ]; then
                    head -n 1 "$DIR/history"
                    while [ -e "$DIR/hold" ]; do sleep 0.01; done
                    tail -n +2 "$DIR/history"
                fi
                answer '{}'
                ;;
            *'"session/prompt"'*)
                text=$(printf '%s' "$message" | sed 's/.*"text":"\([^"]*\)".*/\1/')
                printf '%s\n' "$text" >>"$DIR/prompts"
                case "$text" in
                die*)
                    [ "$text" = 'die nothing' ] || keep user_message_chunk "$text"
                    [ "$text" != 'die part' ] || keep agent_message_chunk hell
                    [ "$text" != 'die whole' ] || { keep agent_message_chunk hello; keep agent_message_chunk ' world'; }
                    piece agent_message_chunk hello
                    while [ -e "$DIR/wait" ]; do sleep 0.01; done
                    kill -9 $$
                    ;;
                esac
                keep user_message_chunk "$text"
                keep agent_message_chunk yes
                piece agent_message_chunk yes
                answer '{"stopReason":"end_turn"}'
                ;;
            esac
        done"#;
    let mut spec = script(body);
    spec.env.insert("DIR".to_owned(), folder.to_string_lossy().into_owned());
    spec.env.insert("LOADS".to_owned(), loads.to_string());
    spec
}

fn reason(told: &Told) -> &str {
    match &told.outcome {
        Some(TurnOutcome::Failed { reason }) => reason,
        other => panic!("not failed: {other:?}"),
    }
}

fn prompts(folder: &Path) -> String {
    fs::read_to_string(folder.join("prompts")).expect("it was asked")
}

/// Starts a turn that its agent does not survive, and reads until it has died.
async fn die(rig: &mut Rig, told: &mut BTreeMap<i64, Told>, prompt: &str) {
    rig.prompt(1, None, prompt).await;
    loop {
        let event = rig.next().await;
        let died = matches!(event, AgentEvent::Died { .. });
        rig.note(told, event);
        if died {
            return;
        }
    }
}

async fn read_to_the_end(rig: &mut Rig, told: &mut BTreeMap<i64, Told>) {
    while told.get(&1).is_none_or(|turn| turn.outcome.is_none()) {
        let event = rig.next().await;
        rig.note(told, event);
    }
}

#[tokio::test]
async fn what_the_next_process_has_kept_is_shown_and_nothing_is_asked_again() {
    for (kept, text, said) in [
        ("whole", "hello world", "this is what it has kept of its answer. Say `continue`, or /retry"),
        ("part", "hello", "before it had answered in full; your message is in its history. Say `continue`, or /retry"),
        ("message", "hello", "the rest of the answer is lost: its history has your message, but nothing of the answer"),
        ("nothing", "hello", "the rest of the answer is lost: it does not know the session any more; /retry"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut rig = Rig::new(keeper(folder.path(), true));
        let told = rig.turn(1, None, &format!("die {kept}")).await;
        assert_eq!(told.text, text);
        assert!(reason(&told).starts_with("the agent ended (killed by signal 9)"), "{told:?}");
        assert!(reason(&told).contains(said), "{told:?}");
        let session = told.session.expect("it was told").0;
        let next = rig.turn(2, Some(&session), "continue").await;
        assert_eq!((next.text.as_str(), &next.outcome), ("yes", &ended("end_turn")));
        assert_eq!(prompts(folder.path()), format!("die {kept}\ncontinue\n"));
        rig.stop().await;
    }
}

#[tokio::test]
async fn an_agent_that_cannot_load_or_dies_again_loses_the_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::new(keeper(folder.path(), false));
    let told = rig.turn(1, None, "die whole").await;
    assert!(reason(&told).contains("the rest of the answer is lost: it cannot load a session again"), "{told:?}");
    rig.stop().await;
    let mut rig = Rig::new(keeper(folder.path(), true));
    fs::write(folder.path().join("die"), "").expect("writes");
    let told = rig.turn(1, None, "die whole").await;
    assert!(reason(&told).contains("it ended again (killed by signal 9) while it loaded the session"), "{told:?}");
    rig.stop().await;
}

#[tokio::test]
async fn no_process_within_the_limit_loses_the_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = Limits { resume_timeout: Duration::from_millis(50), backoff_min: 10 * PATIENCE, ..quick() };
    let mut rig = Rig::with(keeper(folder.path(), true), limits);
    let told = rig.turn(1, None, "die whole").await;
    assert!(reason(&told).contains("no new process of it was ready within 0.05 s"), "{told:?}");
    rig.stop().await;
}

#[tokio::test]
async fn a_turn_is_taken_up_over_handoffs_without_a_process_and_in_the_middle_of_the_replay() {
    for (kept, text, said) in
        [("whole", "hello world", "what it has kept"), ("message", "hello", "nothing of the answer")]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let hold = folder.path().join("hold");
        fs::write(&hold, "").expect("writes");
        let limits = Limits { backoff_min: Duration::from_secs(1), ..quick() };
        let mut rig = Rig::with(keeper(folder.path(), true), limits);
        let mut told = BTreeMap::new();
        die(&mut rig, &mut told, &format!("die {kept}")).await;
        let snapshot = rig.freeze(&mut told).await;
        assert!(snapshot.fds.is_none() && snapshot.turns == 1);
        rig.adopt(snapshot);
        rig.ready().await;
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let snapshot = rig.freeze(&mut told).await;
            rig.adopt(snapshot);
        }
        fs::remove_file(&hold).expect("removes");
        read_to_the_end(&mut rig, &mut told).await;
        assert_eq!(told[&1].text, text);
        assert!(reason(&told[&1]).contains(said), "{told:?}");
        rig.stop().await;
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The gateway that comes after a kill of the one whose fds these are.
fn recover(spec: &AgentSpec, fds: &AgentFds) -> (Rig, Vec<RecoveredTurn>) {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let (handle, turns) = recover_with(spec.clone(), quick(), duplicates(fds), sender).expect("they hold together");
    (Rig { spec: spec.clone(), limits: quick(), handle, events, fds: None }, turns)
}

fn taken_up(turns: Vec<RecoveredTurn>) -> BTreeMap<i64, Told> {
    let told = |turn: RecoveredTurn| Told { text: turn.text, outcome: turn.outcome, ..Told::default() };
    turns.into_iter().map(|turn| (turn.turn.0, told(turn))).collect()
}

#[test]
fn a_turn_is_taken_up_over_kills_of_the_gateway_in_the_middle_of_the_replay_and_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (hold, spec) = (folder.path().join("hold"), keeper(folder.path(), true));
    fs::write(&hold, "").expect("writes");
    let fds = runtime().block_on(async {
        let mut rig = Rig::new(spec.clone());
        die(&mut rig, &mut BTreeMap::new(), "die whole").await;
        rig.ready().await;
        rig.fds.take().expect("it was started")
    });
    for kill in 0..3_u64 {
        runtime().block_on(async {
            let (mut rig, turns) = recover(&spec, &fds);
            let told = taken_up(turns);
            assert_eq!((told[&1].text.as_str(), &told[&1].outcome), ("hello", &None));
            rig.ready().await;
            tokio::time::sleep(Duration::from_millis(10 * kill)).await;
        });
    }
    fs::remove_file(&hold).expect("removes");
    runtime().block_on(async {
        let (mut rig, turns) = recover(&spec, &fds);
        let mut told = taken_up(turns);
        read_to_the_end(&mut rig, &mut told).await;
        assert_eq!(told[&1].text, "hello world");
        assert!(reason(&told[&1]).contains("what it has kept"), "{told:?}");
    });
    runtime().block_on(async {
        let (mut rig, turns) = recover(&spec, &fds);
        let told = taken_up(turns);
        assert_eq!(told[&1].text, "hello world", "the log has the text that took the place of the other");
        assert!(reason(&told[&1]).contains("what it has kept"), "{told:?}");
        let session = "s".into();
        assert_eq!(rig.turn(2, Some(&session), "continue").await.text, "yes");
        assert_eq!(prompts(folder.path()), "die whole\ncontinue\n");
        rig.stop().await;
    });
}

#[test]
fn an_agent_that_is_found_dead_is_asked_what_it_has_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = keeper(folder.path(), true);
    let wait = folder.path().join("wait");
    fs::write(&wait, "").expect("writes");
    let (pid, fds) = runtime().block_on(async {
        let mut rig = Rig::new(spec.clone());
        let pid = rig.ready().await;
        rig.prompt(1, None, "die whole").await;
        while !matches!(rig.next().await, AgentEvent::Update { .. }) {}
        (pid, rig.fds.take().expect("it was started"))
    });
    fs::remove_file(&wait).expect("removes");
    runtime().block_on(life::dead(pid));
    runtime().block_on(async {
        let (mut rig, turns) = recover(&spec, &fds);
        let mut told = taken_up(turns);
        read_to_the_end(&mut rig, &mut told).await;
        assert_eq!(told[&1].text, "hello world");
        assert!(reason(&told[&1]).contains("what it has kept"), "{told:?}");
        assert_eq!(prompts(folder.path()), "die whole\n");
        rig.stop().await;
    });
}

/// Whoever keeps the fds of a dead process until there is another loses nothing in between.
#[test]
fn a_kill_of_the_gateway_before_there_is_another_process_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = keeper(folder.path(), true);
    let fds = runtime().block_on(async {
        let mut rig = Rig::with(spec.clone(), Limits { backoff_min: 10 * PATIENCE, ..quick() });
        die(&mut rig, &mut BTreeMap::new(), "die whole").await;
        rig.fds.take().expect("it was started")
    });
    runtime().block_on(async {
        let (mut rig, turns) = recover(&spec, &fds);
        let mut told = taken_up(turns);
        assert_eq!(told[&1].text, "hello");
        read_to_the_end(&mut rig, &mut told).await;
        assert_eq!(told[&1].text, "hello world");
        assert_eq!(prompts(folder.path()), "die whole\n");
        rig.stop().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_sees_what_was_kept_and_asks_again_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let AgentSpec { command, env, .. } = keeper(folder.path(), true);
    let (dir, loads) = (&env["DIR"], &env["LOADS"]);
    let config =
        format!("[agents.default]\ncommand = {command:?}\ncwd = \"/\"\nenv = {{ DIR = {dir:?}, LOADS = {loads:?} }}\n");
    let gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_hermes")), &config).await;
    let mut chat = gateway.chat("main").await;
    for (said, asked) in [("die whole", "die whole\n"), ("/retry", "die whole\ndie whole\n")] {
        chat.say(said).await;
        let answer = chat.answer(async |_, _| {}).await;
        assert_eq!(answer.text, "hello world");
        match answer.end {
            ReplyEnd::Failed(reason) => assert!(reason.contains("this is what it has kept of its answer"), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(prompts(folder.path()), asked);
    }
    chat.say("continue").await;
    let answer = chat.answer(async |_, _| {}).await;
    assert_eq!((answer.text.as_str(), answer.end), ("yes", ReplyEnd::Complete));
}
