//! The connection against scripted and against arbitrary agents.

mod reading;
mod resume;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::agent::TurnUpdate;
use crate::agent::given::{Given, Link};
use crate::chat::{AttachmentKind, LocalFile};
use crate::jsonrpc::LineBuffer;

const NOW: MonoNanos = MonoNanos(1_000_000_000);

fn spec() -> AgentSpec {
    AgentSpec {
        name: "a".into(),
        command: vec!["a".into()],
        cwd: "/w".into(),
        env: BTreeMap::new(),
        withheld: std::collections::BTreeSet::new(),
        outgoing: "/nonexistent".into(),
    }
}

fn fresh() -> Connection {
    Connection::new("a".into(), Limits::default())
}

/// A connection whose agent has answered `initialize`.
fn ready(capabilities: Value) -> Connection {
    let mut connection = fresh();
    connection.start(NOW, 7, &spec());
    reply(&mut connection, json!({"protocolVersion": 1, "agentCapabilities": capabilities}));
    assert!(matches!(events(&mut connection)[..], [AgentEvent::Ready { pid: 7, .. }]));
    connection
}

/// Everything the connection has sent.
fn sent(connection: &mut Connection) -> Vec<Message> {
    let mut lines = LineBuffer::new(1 << 20);
    while !connection.outgoing.is_empty() {
        let front = connection.outgoing.front().to_vec();
        lines.push(&front);
        connection.outgoing.written(front.len());
    }
    let lines = std::iter::from_fn(|| lines.next_line().expect("short"));
    lines.map(|line| Message::parse(&line).expect("what is sent is valid")).collect()
}

/// Takes the one request sent: its id, method and parameters.
fn request(connection: &mut Connection) -> (RequestId, String, Value) {
    match &sent(connection)[..] {
        [Message::Request { id, method, params }] => (id.clone(), method.clone(), params.clone()),
        other => panic!("not one request: {other:?}"),
    }
}

fn say(connection: &mut Connection, message: &Message) {
    let line = message.to_line();
    connection.line(NOW, &line[..line.len() - 1]);
}

/// Answers the one request sent; returns its method.
fn reply(connection: &mut Connection, result: Value) -> String {
    let (id, method, _) = request(connection);
    say(connection, &Message::Response { id, outcome: Ok(result) });
    method
}

fn refuse(connection: &mut Connection, code: i64) -> String {
    let (id, method, _) = request(connection);
    say(connection, &Message::Response { id, outcome: Err(crate::jsonrpc::ErrorObject::new(code, "no")) });
    method
}

fn text(connection: &mut Connection, session: &str, text: &str) {
    piece(connection, session, "agent_message_chunk", text);
}

fn piece(connection: &mut Connection, session: &str, kind: &str, text: &str) {
    let update = json!({"sessionUpdate": kind, "content": {"type": "text", "text": text}});
    let params = json!({"sessionId": session, "update": update});
    say(connection, &Message::Notification { method: acp::SESSION_UPDATE.into(), params });
}

fn ask(connection: &mut Connection, id: i64, session: &str) {
    let params = json!({"sessionId": session, "toolCall": {"toolCallId": "t", "title": "rm"},
        "options": [{"optionId": "y", "name": "Yes", "kind": "allow_once"}, {"name": "no id"}]});
    say(connection, &Message::Request { id: RequestId::Number(id), method: acp::REQUEST_PERMISSION.into(), params });
}

fn events(connection: &mut Connection) -> Vec<AgentEvent> {
    std::iter::from_fn(|| connection.next_event()).collect()
}

fn outcome(connection: &mut Connection) -> TurnOutcome {
    match events(connection).pop() {
        Some(AgentEvent::TurnEnded { outcome, .. }) => outcome,
        other => panic!("not ended: {other:?}"),
    }
}

/// A turn whose prompt was sent, in session `s`.
fn running() -> Connection {
    let mut connection = ready(json!({}));
    connection.prompt(NOW, TurnId(1), None, "hi".into());
    reply(&mut connection, json!({"sessionId": "s"}));
    assert!(matches!(events(&mut connection)[..], [AgentEvent::Session { kept: true, .. }]));
    connection
}

#[test]
fn a_prompt_waits_for_the_agent_and_for_its_session() {
    let mut connection = fresh();
    connection.prompt(NOW, TurnId(1), None, "hi".into());
    connection.start(NOW, 7, &spec());
    assert_eq!(reply(&mut connection, json!({"protocolVersion": 1})), "initialize");
    assert_eq!(reply(&mut connection, json!({"sessionId": "s"})), "session/new");
    let (_, method, params) = request(&mut connection);
    assert_eq!((method.as_str(), &params["prompt"][0]["text"]), ("session/prompt", &json!("hi")));
}

#[test]
fn a_session_is_loaded_once_and_its_replay_is_not_told() {
    let mut connection = ready(json!({"loadSession": true}));
    connection.prompt(NOW, TurnId(1), Some("s".into()), "hi".into());
    let (id, method, _) = request(&mut connection);
    assert_eq!(method, "session/load");
    text(&mut connection, "s", "old");
    say(&mut connection, &Message::Response { id, outcome: Ok(json!({})) });
    assert!(matches!(events(&mut connection)[..], [AgentEvent::Session { kept: true, .. }]));
    assert_eq!(reply(&mut connection, json!({"stopReason": "end_turn"})), "session/prompt");
    connection.prompt(NOW, TurnId(2), Some("s".into()), "again".into());
    assert_eq!(request(&mut connection).1, "session/prompt");
}

#[test]
fn an_unknown_session_is_replaced_whether_it_is_an_error_or_an_empty_success() {
    for empty in [true, false] {
        let mut connection = ready(json!({"loadSession": true}));
        connection.prompt(NOW, TurnId(1), Some("gone".into()), "hi".into());
        let method = if empty { reply(&mut connection, json!({})) } else { refuse(&mut connection, acp::NOT_FOUND) };
        assert_eq!(method, "session/load");
        assert_eq!(reply(&mut connection, json!({"sessionId": "new"})), "session/new");
        match &events(&mut connection)[..] {
            [AgentEvent::Session { session, kept: false, .. }] => assert_eq!(session.as_str(), "new"),
            other => panic!("{other:?}"),
        }
        assert_eq!(request(&mut connection).1, "session/prompt");
    }
}

#[test]
fn an_agent_that_cannot_load_gets_a_new_session() {
    let mut connection = ready(json!({}));
    connection.prompt(NOW, TurnId(1), Some("gone".into()), "hi".into());
    assert_eq!(reply(&mut connection, json!({"sessionId": "new"})), "session/new");
    assert!(matches!(events(&mut connection)[..], [AgentEvent::Session { kept: false, .. }]));
}

#[test]
fn a_missing_login_is_told_and_an_unknown_session_is_forgotten() {
    let mut connection = ready(json!({}));
    connection.prompt(NOW, TurnId(1), None, "hi".into());
    refuse(&mut connection, acp::AUTH_REQUIRED);
    assert!(matches!(outcome(&mut connection), TurnOutcome::Failed { reason } if reason.contains("login")));
    let mut connection = running();
    refuse(&mut connection, acp::NOT_FOUND);
    assert!(matches!(outcome(&mut connection), TurnOutcome::Failed { .. }));
    connection.prompt(NOW, TurnId(2), Some("s".into()), "hi".into());
    assert_eq!(request(&mut connection).1, "session/new");
}

#[test]
fn a_turn_that_is_cancelled_before_its_prompt_never_prompts() {
    let mut connection = ready(json!({}));
    connection.prompt(NOW, TurnId(1), None, "hi".into());
    connection.cancel(NOW, TurnId(1));
    assert_eq!(outcome(&mut connection), TurnOutcome::Cancelled);
    reply(&mut connection, json!({"sessionId": "s"}));
    assert!(events(&mut connection).is_empty());
    assert!(sent(&mut connection).is_empty());
}

#[test]
fn a_cancel_answers_the_permission_requests_first_and_an_error_after_it_is_no_failure() {
    let mut connection = running();
    let (prompt, ..) = request(&mut connection);
    ask(&mut connection, 5, "s");
    ask(&mut connection, 6, "s");
    match &events(&mut connection)[..] {
        [AgentEvent::Permission { request: 1, title, options, .. }, AgentEvent::Permission { request: 2, .. }] => {
            assert_eq!((title.as_str(), options.len()), ("rm", 1));
        }
        other => panic!("{other:?}"),
    }
    connection.answer(2, Some("y".into()));
    assert!(matches!(&sent(&mut connection)[..], [Message::Response { id: RequestId::Number(6), .. }]));
    connection.cancel(NOW, TurnId(1));
    connection.cancel(NOW, TurnId(1));
    match &sent(&mut connection)[..] {
        [Message::Response { id, outcome: Ok(result) }, Message::Notification { method, .. }] => {
            assert_eq!((id, method.as_str()), (&RequestId::Number(5), "session/cancel"));
            assert_eq!(*result, json!({"outcome": {"outcome": "cancelled"}}));
        }
        other => panic!("{other:?}"),
    }
    ask(&mut connection, 8, "s");
    assert!(matches!(&sent(&mut connection)[..], [Message::Response { id: RequestId::Number(8), .. }]));
    let error = crate::jsonrpc::ErrorObject::new(-32800, "request cancelled");
    say(&mut connection, &Message::Response { id: prompt, outcome: Err(error) });
    assert_eq!(outcome(&mut connection), TurnOutcome::Cancelled);
}

#[test]
fn a_turn_that_comes_while_the_process_leaves_waits_for_the_next() {
    let mut connection = running();
    sent(&mut connection);
    connection.leave();
    connection.prompt(NOW, TurnId(2), None, "hi".into());
    text(&mut connection, "s", "last words");
    assert!(sent(&mut connection).is_empty());
    connection.break_off(NOW, "it died", |_| "last words".to_owned());
    match &events(&mut connection)[..] {
        [
            AgentEvent::Update { .. },
            AgentEvent::TurnEnded { turn: TurnId(1), outcome: TurnOutcome::Failed { .. }, .. },
        ] => {}
        other => panic!("{other:?}"),
    }
    connection.start(NOW, 8, &spec());
    reply(&mut connection, json!({"protocolVersion": 1}));
    assert_eq!(request(&mut connection).1, "session/new");
}

#[test]
fn what_takes_too_long_is_given_up() {
    let limits = Limits::default();
    let mut connection = running();
    sent(&mut connection);
    assert_eq!(connection.next_deadline(), None, "a turn takes as long as it takes");
    connection.cancel(NOW, TurnId(1));
    let deadline = connection.next_deadline().expect("a cancelled turn has one");
    assert_eq!(deadline.since(NOW), limits.cancel_timeout);
    connection.expire(MonoNanos(deadline.0 - 1));
    assert!(events(&mut connection).is_empty());
    connection.expire(deadline);
    assert_eq!(outcome(&mut connection), TurnOutcome::Cancelled);
    connection.prompt(NOW, TurnId(2), None, "hi".into());
    connection.expire(after(NOW, limits.session_timeout));
    assert!(matches!(outcome(&mut connection), TurnOutcome::Failed { .. }));
    let mut silent = fresh();
    silent.start(NOW, 7, &spec());
    silent.expire(after(NOW, limits.initialize_timeout));
    assert!(silent.take_fault().is_some_and(|fault| fault.contains("within 30 s")));
}

#[test]
fn a_tool_call_is_told_when_its_title_or_status_changes() {
    let mut connection = running();
    for update in [
        json!({"sessionUpdate": "tool_call", "toolCallId": "t", "title": "ls", "kind": "execute"}),
        json!({"sessionUpdate": "tool_call_update", "toolCallId": "t", "content": []}),
        json!({"sessionUpdate": "tool_call_update", "toolCallId": "t", "status": "completed"}),
        json!({"sessionUpdate": "tool_call_update", "toolCallId": "u", "status": "failed"}),
    ] {
        let params = json!({"sessionId": "s", "update": update});
        say(&mut connection, &Message::Notification { method: acp::SESSION_UPDATE.into(), params });
    }
    let told: Vec<String> = events(&mut connection)
        .into_iter()
        .map(|event| match event {
            AgentEvent::Update { update: TurnUpdate::Tool { title, status }, .. } => format!("{title} {status}"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["ls pending", "ls completed", "u failed"]);
}

#[test]
fn limits_hold_for_permissions_and_for_what_waits_to_be_written() {
    let mut connection = running();
    for id in 0..100 {
        ask(&mut connection, id, "s");
    }
    assert_eq!(events(&mut connection).len(), Limits::default().permissions_max);
    connection.limits.outgoing_bytes_max = 1000;
    for id in 0..100 {
        say(&mut connection, &Message::Request { id: RequestId::Number(id), method: "x".into(), params: Value::Null });
    }
    assert!(connection.take_fault().is_some());
    connection.prompt(NOW, TurnId(2), None, "a".repeat(300).into());
    assert!(matches!(outcome(&mut connection), TurnOutcome::Failed { reason } if reason.contains("too long")));
}

/// What may happen to a connection, for the properties below.
#[derive(Clone, Debug)]
enum Step {
    Start,
    Prompt {
        turn: i64,
        session: Option<u8>,
        with_file: bool,
    },
    /// The files of prompts are read, as far as that is wanted.
    Read,
    Cancel(i64),
    Answer(u64),
    Reply {
        id: i64,
        with: u8,
    },
    Text(u8),
    /// A prompt that is replayed.
    Replay {
        session: u8,
        turn: i64,
    },
    Ask {
        id: i64,
        session: u8,
    },
    Noise(Vec<u8>),
    Wait(u64),
    Leave,
    BreakOff,
    Close,
    /// Writes part of what waits.
    Write(usize),
    Carry,
    /// The gateway is killed while it writes so many bytes.
    Kill(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Start),
        4 => (0i64..6, prop::option::of(0u8..3), any::<bool>())
            .prop_map(|(turn, session, with_file)| Step::Prompt { turn, session, with_file }),
        3 => Just(Step::Read),
        2 => (0i64..6).prop_map(Step::Cancel),
        2 => (0u64..6).prop_map(Step::Answer),
        8 => (0i64..20, 0u8..6).prop_map(|(id, with)| Step::Reply { id, with }),
        4 => (0u8..3).prop_map(Step::Text),
        3 => (0u8..3, 0i64..6).prop_map(|(session, turn)| Step::Replay { session, turn }),
        3 => (0i64..5, 0u8..3).prop_map(|(id, session)| Step::Ask { id, session }),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Noise),
        1 => (0u64..200).prop_map(Step::Wait),
        1 => Just(Step::Close),
        1 => Just(Step::Leave),
        2 => Just(Step::BreakOff),
        3 => (1usize..300).prop_map(Step::Write),
        3 => Just(Step::Carry),
        1 => (0usize..300).prop_map(Step::Kill),
    ]
}

fn answer(with: u8) -> Result<Value, crate::jsonrpc::ErrorObject> {
    match with {
        0 => Ok(json!({"protocolVersion": 1, "agentCapabilities": {"loadSession": true}, "sessionId": "s1"})),
        1 => Ok(json!({"protocolVersion": 1, "sessionId": "s2", "stopReason": "end_turn"})),
        2 => Ok(json!({})),
        3 => Err(crate::jsonrpc::ErrorObject::new(acp::NOT_FOUND, "no")),
        4 => Err(crate::jsonrpc::ErrorObject::new(acp::AUTH_REQUIRED, "no")),
        _ => Ok(json!({"protocolVersion": 1, "stopReason": "cancelled", "sessionId": 3})),
    }
}

fn prompt(turn: i64) -> String {
    format!("prompt of {turn}.")
}

fn file() -> LocalFile {
    let (kind, name, path) = (AttachmentKind::File, "a.pdf".to_owned(), "/h/a.pdf".into());
    LocalFile { kind, name, mime: None, path, size_bytes: 1 }
}

/// Reads what is to be read, each file once.
fn read(connection: &mut Connection) {
    while let Some(Reading { turn, files, .. }) = connection.next_reading() {
        let link = |file: &LocalFile| Link {
            name: file.name.clone(),
            uri: format!("file://{}", file.path.display()),
            mime: None,
            size_bytes: file.size_bytes,
        };
        connection.read(turn, files.iter().map(|file| Given::Link(link(file))).collect());
    }
}

fn carried(connection: &Connection) -> Connection {
    let state = serde_json::to_string(connection).expect("plain data");
    let mut carried: Connection = serde_json::from_str(&state).expect("what was written is read");
    carried.limits = Limits::default();
    carried
}

/// What was said in each turn, as the journal has it.
fn note(said: &mut BTreeMap<TurnId, String>, event: &AgentEvent) {
    match event {
        AgentEvent::Update { turn, update: TurnUpdate::Text(text) } => said.entry(*turn).or_default().push_str(text),
        AgentEvent::Update { turn, update: TurnUpdate::SoFar(text) } => {
            let before = said.insert(*turn, text.clone()).unwrap_or_default();
            assert!(text.starts_with(&before) && *text != before, "{text} after {before}");
        }
        _ => {}
    }
}

/// Plays the steps; returns what was told and what was written. Carries only if `carry`.
fn play(steps: &[Step], carry: bool) -> (Vec<String>, Vec<u8>) {
    let mut connection = fresh();
    let (mut now, mut open) = (NOW, false);
    let (mut told, mut written) = (Vec::new(), Vec::new());
    let mut said: BTreeMap<TurnId, String> = BTreeMap::new();
    let session = |number: u8| format!("s{number}");
    for step in steps {
        match step {
            Step::Start if !open => {
                connection.start(now, 7, &spec());
                open = true;
            }
            Step::Close if open => {
                connection.close("over");
                open = false;
            }
            Step::Leave if open => connection.leave(),
            Step::BreakOff if open => {
                connection.break_off(now, "over", |turn| said.get(&turn).cloned().unwrap_or_default());
                open = false;
            }
            Step::Start | Step::Close | Step::Leave | Step::BreakOff => {}
            Step::Prompt { turn, session: of, with_file } => {
                let files = if *with_file { vec![file()] } else { Vec::new() };
                let question = Question { text: prompt(*turn), files };
                connection.prompt(now, TurnId(*turn), of.map(|number| session(number).as_str().into()), question);
            }
            Step::Read => read(&mut connection),
            Step::Cancel(turn) => connection.cancel(now, TurnId(*turn)),
            Step::Answer(request) => connection.answer(*request, Some("y".into())),
            Step::Reply { id, with } => {
                say(&mut connection, &Message::Response { id: RequestId::Number(*id), outcome: answer(*with) });
            }
            Step::Replay { session: of, turn } => {
                piece(&mut connection, &session(*of), "user_message_chunk", &prompt(*turn));
            }
            Step::Text(of) => text(&mut connection, &session(*of), "x"),
            Step::Ask { id, session: of } => ask(&mut connection, *id, &session(*of)),
            Step::Noise(bytes) => connection.line(now, bytes),
            Step::Wait(seconds) => {
                now = after(now, Duration::from_secs(*seconds));
                connection.expire(now);
            }
            Step::Write(count) => {
                let count = (*count).min(connection.outgoing.len());
                for _ in 0..count {
                    written.push(connection.outgoing.front()[0]);
                    connection.outgoing.written(1);
                }
            }
            Step::Carry if carry => connection = carried(&connection),
            Step::Carry => {}
            Step::Kill(bytes) => {
                connection = carried(&connection);
                connection.settle_doubt(now, *bytes);
            }
        }
        for event in events(&mut connection) {
            note(&mut said, &event);
            told.push(format!("{event:?}"));
        }
    }
    connection.close("the end");
    told.extend(events(&mut connection).iter().map(|event| format!("{event:?}")));
    (told, written)
}

proptest! {
    /// Wherever a connection is carried over, it does what it would have done.
    #[test]
    fn carrying_changes_nothing(steps in prop::collection::vec(step(), 0..80)) {
        prop_assert_eq!(play(&steps, true), play(&steps, false));
    }

    /// A turn that was opened ends once, and nothing about it follows. Its prompt is sent once at most, whoever dies.
    #[test]
    fn every_turn_ends_once(steps in prop::collection::vec(step(), 0..80)) {
        // A turn's number is its own: a second prompt with the same number would be another turn.
        let mut seen = BTreeSet::new();
        let fresh_turn = |step: &Step| match step {
            Step::Prompt { turn, .. } => seen.insert(*turn),
            _ => true,
        };
        let steps: Vec<Step> = steps.into_iter().filter(fresh_turn).collect();
        let (told, written) = play(&steps, false);
        let written = String::from_utf8(written).expect("text");
        for turn in 0..6 {
            let about = |event: &&String| event.contains(&format!("turn: TurnId({turn})"));
            let about: Vec<&String> = told.iter().filter(about).collect();
            let ends = about.iter().filter(|event| event.starts_with("TurnEnded")).count();
            prop_assert_eq!(ends, usize::from(seen.contains(&turn)), "{:?}", about);
            if let Some(last) = about.last() {
                prop_assert!(last.starts_with("TurnEnded"), "{:?}", about);
            }
            prop_assert!(written.matches(&prompt(turn)).count() <= 1, "a prompt is sent once");
        }
    }

    /// The output of an agent that knows nothing of the protocol does no harm.
    #[test]
    fn no_line_panics(lines in prop::collection::vec("[\\[\\]{}\":,a-z0-9 ]{0,60}", 0..20)) {
        let mut connection = running();
        for line in lines {
            connection.line(NOW, line.as_bytes());
        }
    }
}
