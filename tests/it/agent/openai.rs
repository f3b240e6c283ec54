//! The built-in agent on the chat completions API.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hermes_gateway::chat::LocalFile;

use super::*;
use crate::support::openai::{Answer, FakeOpenai, Then, deltas, whole};

fn openai(base_url: &str, home: &std::path::Path) -> AgentSpec {
    let program = env!("CARGO_BIN_EXE_hermes");
    let mut spec = spec(&[program, "agent", "openai", "--base-url", base_url, "--model", "m", "--system", "be brief"]);
    spec.env.insert("HERMES_HOME".to_owned(), home.to_string_lossy().into_owned());
    spec.env.insert("OPENAI_API_KEY".to_owned(), "key-of-the-test".to_owned());
    spec
}

fn contents(body: &serde_json::Value) -> Vec<&str> {
    let messages = body["messages"].as_array().expect("a list");
    messages.iter().map(|message| message["content"].as_str().expect("text")).collect()
}

#[tokio::test]
async fn a_conversation_with_a_model_goes_on_in_another_process() {
    let server = FakeOpenai::start([whole(&["Hello ", "there"]), whole(&["Yes"])]).await;
    let home = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::new(openai(&server.base_url, home.path()));
    let first = rig.turn(1, None, "hi").await;
    assert_eq!((first.text.as_str(), &first.outcome), ("Hello there", &ended("end_turn")));
    let (session, _) = first.session.expect("a new session");
    rig.stop().await;
    let mut rig = Rig::new(openai(&server.base_url, home.path()));
    let second = rig.turn(2, Some(&session), "still there?").await;
    assert_eq!(second.session, Some((session, true)));
    assert_eq!(second.text, "Yes", "the replayed history is not told");
    rig.stop().await;
    let asked = server.asked();
    assert_eq!(asked[0].authorization, "Bearer key-of-the-test");
    assert_eq!(asked[1].body["stream"], true);
    assert_eq!(contents(&asked[1].body), ["be brief", "hi", "Hello there", "still there?"]);
}

#[tokio::test]
async fn a_cancelled_answer_is_kept_as_far_as_it_came() {
    let server = FakeOpenai::start([Answer::Stream(deltas(&["On", "ce"]), Then::Hang), whole(&["Ok"])]).await;
    let home = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::new(openai(&server.base_url, home.path()));
    rig.prompt(1, None, "a story").await;
    let mut told: BTreeMap<i64, Told> = BTreeMap::new();
    while told.get(&1).is_none_or(|turn| turn.text != "Once") {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    rig.send(AgentCommand::Cancel { turn: TurnId(1) }).await;
    assert_eq!(rig.tell(1).await[&1].outcome, Some(TurnOutcome::Cancelled));
    let (session, _) = told.remove(&1).and_then(|turn| turn.session).expect("a session");
    assert_eq!(rig.turn(2, Some(&session), "another").await.text, "Ok");
    assert_eq!(contents(&server.asked()[1].body), ["be brief", "a story", "Once", "another"]);
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_that_its_death_cuts_off_is_lost_and_the_model_is_not_asked_again() {
    let server = FakeOpenai::start([Answer::Stream(deltas(&["On", "ce"]), Then::Hang), whole(&["Ok"])]).await;
    let home = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::new(openai(&server.base_url, home.path()));
    let pid = rig.ready().await;
    rig.prompt(1, None, "a story").await;
    let mut told: BTreeMap<i64, Told> = BTreeMap::new();
    while told.get(&1).is_none_or(|turn| turn.text != "Once") {
        let event = rig.next().await;
        rig.note(&mut told, event);
    }
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    match &rig.tell(1).await[&1].outcome {
        Some(TurnOutcome::Failed { reason }) => {
            assert!(reason.contains("its history has your message, but nothing of the answer"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let (session, _) = told.remove(&1).and_then(|turn| turn.session).expect("a session");
    assert_eq!(rig.turn(2, Some(&session), "another").await.text, "Ok");
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(contents(&asked[1].body), ["be brief", "a story", "another"]);
    rig.stop().await;
}

#[tokio::test]
async fn a_model_that_is_busy_is_asked_again() {
    let busy = |status| Answer::Refuse(status, String::new());
    let server = FakeOpenai::start([busy(429), busy(503), whole(&["at last"])]).await;
    let home = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::new(openai(&server.base_url, home.path()));
    assert_eq!(rig.turn(1, None, "hi").await.text, "at last");
    assert_eq!(server.asked().len(), 3);
    rig.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_model_is_said_in_words() {
    let refuse = |status| Answer::Refuse(status, r#"{"error":{"message":"because"}}"#.to_owned());
    let cases = [
        (vec![refuse(401)], "refused the API key (401 Unauthorized): because"),
        (vec![refuse(400)], "refused the request (400 Bad Request): because"),
        (vec![refuse(500), refuse(500), refuse(500)], "too busy or broken (500 Internal Server Error, 3 attempts)"),
        (vec![Answer::Stream("data: <html>\n\n".to_owned(), Then::End)], "does not stream chat completions"),
        (vec![Answer::Stream(deltas(&["half"]), Then::End)], "broke off before its end"),
        (vec![Answer::Stream(deltas(&["half"]), Then::Break)], "connection to the model's server broke off"),
        (
            vec![Answer::Stream("data: {\"error\":{\"message\":\"full\"}}".to_owned(), Then::End)],
            "reports an error: full",
        ),
    ];
    let home = tempfile::tempdir().expect("a folder");
    for (answers, expected) in cases {
        let server = FakeOpenai::start(answers).await;
        let mut rig = Rig::new(openai(&server.base_url, home.path()));
        match rig.turn(1, None, "hi").await.outcome {
            Some(TurnOutcome::Failed { reason }) => {
                assert!(reason.contains(expected), "{expected}: {reason}");
                assert!(!reason.contains("127.0.0.1"), "the address is not told: {reason}");
            }
            other => panic!("{expected}: {other:?}"),
        }
        rig.stop().await;
    }
    let mut rig = Rig::new(openai("http://127.0.0.1:1/v1", home.path()));
    let told = rig.turn(1, None, "hi").await;
    assert!(
        matches!(&told.outcome, Some(TurnOutcome::Failed { reason }) if reason.contains("cannot reach")),
        "{told:?}"
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_picture_goes_to_the_model_and_a_file_as_the_way_to_it() {
    let server = FakeOpenai::start([whole(&["A dot"]), whole(&["Black"])]).await;
    let home = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::new(openai(&server.base_url, home.path()));
    rig.ready().await;
    let picture = handoff::picture(&home, 20);
    let encoded = format!("data:image/png;base64,{}", STANDARD.encode(std::fs::read(&picture.path).expect("reads")));
    let path = home.path().join("notes.txt");
    std::fs::write(&path, "notes").expect("writes");
    let file = LocalFile { name: "notes.txt".to_owned(), path: path.clone(), size_bytes: 5, ..picture.clone() };
    let (text, files) = ("what is it?".to_owned(), vec![picture, file]);
    rig.send(AgentCommand::Prompt { turn: TurnId(1), session: None, text, files }).await;
    let (session, _) = rig.tell(1).await.remove(&1).and_then(|turn| turn.session).expect("a session");
    // Who asks again about it does not send it again.
    assert_eq!(rig.turn(2, Some(&session), "which colour?").await.text, "Black");
    for asked in server.asked() {
        let said = &asked.body["messages"][1]["content"];
        assert_eq!(said[0]["image_url"]["url"], encoded);
        assert_eq!(said[1]["text"], format!("file://{}\nwhat is it?", path.display()));
    }
    rig.stop().await;
}
