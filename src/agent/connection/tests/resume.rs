//! Turns whose process dies, and what the next one has kept of them.

use super::*;

/// What a process has kept of the turn's session.
enum Kept {
    User(&'static str),
    Agent(&'static str),
}
use Kept::{Agent, User};

fn replay(connection: &mut Connection, history: &[Kept]) {
    for kept in history {
        match kept {
            User(text) => piece(connection, "s", "user_message_chunk", text),
            Agent(text) => piece(connection, "s", "agent_message_chunk", text),
        }
    }
}

/// A turn with the prompt `hi` in session `s` in which `said` was said, and whose process has died.
fn died(capabilities: &Value, said: &str) -> Connection {
    let mut connection = ready(capabilities.clone());
    connection.prompt(NOW, TurnId(1), None, "hi".into());
    reply(&mut connection, json!({"sessionId": "s"}));
    text(&mut connection, "s", said);
    ask(&mut connection, 1, "s");
    events(&mut connection);
    connection.break_off(NOW, "killed by signal 9", |_| said.to_owned());
    connection
}

fn loading(said: &str) -> Connection {
    let capabilities = json!({"loadSession": true});
    let mut connection = died(&capabilities, said);
    assert!(events(&mut connection).is_empty(), "the turn is not over");
    begin_again(&mut connection, &capabilities);
    connection
}

fn begin_again(connection: &mut Connection, capabilities: &Value) {
    connection.start(NOW, 8, &spec());
    reply(connection, json!({"protocolVersion": 1, "agentCapabilities": capabilities}));
    assert!(matches!(events(connection).remove(0), AgentEvent::Ready { pid: 8, .. }));
}

/// Answers `session/load` after a replay; returns the text that is shown, and why the turn has failed.
fn answered(connection: &mut Connection, history: &[Kept]) -> (Option<String>, String) {
    let (id, method, params) = request(connection);
    assert_eq!((method.as_str(), &params["sessionId"]), ("session/load", &json!("s")));
    replay(connection, history);
    say(connection, &Message::Response { id, outcome: Ok(json!({"modes": null})) });
    let mut told = events(connection);
    let Some(AgentEvent::TurnEnded { outcome: TurnOutcome::Failed { reason }, .. }) = told.pop() else {
        panic!("not failed")
    };
    let shown = match &told[..] {
        [] => None,
        [AgentEvent::Update { update: TurnUpdate::SoFar(text), .. }] => Some(text.clone()),
        other => panic!("{other:?}"),
    };
    (shown, reason)
}

#[test]
fn what_is_missing_of_an_answer_is_shown_from_the_history() {
    for said in ["", "hel", "he llo"] {
        let mut connection = loading(said);
        let history = [User("before"), Agent("old"), User("h"), User("i\n"), Agent("hello "), Agent("world")];
        let (shown, reason) = answered(&mut connection, &history);
        assert_eq!(shown, Some(if said == "he llo" { "he llo world" } else { "hello world" }.to_owned()));
        assert_eq!(
            reason,
            "the agent ended (killed by signal 9) while it answered; this is what it has kept of its answer. Say \
             `continue`, or /retry to ask again"
        );
        connection.prompt(NOW, TurnId(2), Some("s".into()), "continue".into());
        let (_, method, params) = request(&mut connection);
        assert_eq!((method.as_str(), &params["prompt"][0]["text"]), ("session/prompt", &json!("continue")));
    }
}

#[test]
fn a_history_with_no_more_than_was_shown_says_that_the_message_is_in_it() {
    for (said, kept) in [("hello", "hello"), ("hello world", "hello"), ("a tool: done", "done"), ("x ", "x\n\n")] {
        let (shown, reason) = answered(&mut loading(said), &[User("hi"), Agent(kept)]);
        assert_eq!(shown, None, "{said}");
        assert!(reason.contains("before it had answered in full; your message is in its history. Say"), "{reason}");
    }
}

#[test]
fn an_answer_that_is_lost_is_called_so_with_the_reason() {
    let cases: [(&[Kept], &str, &str); 5] = [
        (&[User("hi")], "", "nothing of the answer"),
        (&[User("hi"), User("hi")], "part", "nothing of the answer"),
        (&[User("hi"), Agent("old"), User("other"), Agent("no")], "", "does not have your message"),
        (&[User("delhi"), Agent("no")], "", "does not have your message"),
        (&[Agent("who asked?")], "", "does not have your message"),
    ];
    for (history, said, why) in cases {
        let (shown, reason) = answered(&mut loading(said), history);
        let lost = if said.is_empty() { "and the answer is lost" } else { "and the rest of the answer is lost" };
        assert_eq!(shown, None);
        assert!(reason.contains(lost) && reason.contains(why) && reason.contains("/retry"), "{reason}");
    }
}

#[test]
fn a_session_that_cannot_be_loaded_loses_the_answer() {
    let can_load = json!({"loadSession": true});
    let reason = |connection: &mut Connection| match outcome(connection) {
        TurnOutcome::Failed { reason } => reason,
        other => panic!("{other:?}"),
    };
    let mut unknown = loading("");
    reply(&mut unknown, json!({}));
    assert!(reason(&mut unknown).contains("does not know the session any more"));
    unknown.prompt(NOW, TurnId(2), Some("s".into()), "hi".into());
    assert_eq!(request(&mut unknown).1, "session/load", "it is not taken for a session that the process has");
    let mut refused = loading("");
    refuse(&mut refused, acp::NOT_FOUND);
    assert!(reason(&mut refused).contains("answered with an error: no"));
    assert!(reason(&mut died(&json!({}), "")).contains("it cannot load a session again"));
    let mut changed = died(&can_load, "");
    changed.start(NOW, 8, &spec());
    reply(&mut changed, json!({"protocolVersion": 1}));
    assert!(reason(&mut changed).contains("it cannot load a session any more"));
    let mut again = loading("");
    again.break_off(NOW, "exit code 1", |_| String::new());
    assert!(reason(&mut again).contains("it ended again (exit code 1) while it loaded the session"));
    let mut stopped = died(&can_load, "");
    stopped.close("the agent was stopped");
    assert!(reason(&mut stopped).contains("the answer is lost: the agent was stopped"));
}

#[test]
fn a_turn_waits_for_a_process_and_for_its_session_so_long_and_no_longer() {
    let limits = Limits::default();
    let mut connection = died(&json!({"loadSession": true}), "");
    connection.not_started("it is not there");
    assert!(events(&mut connection).is_empty(), "another process may come in time");
    let deadline = connection.next_deadline().expect("it has one");
    assert_eq!(deadline, after(NOW, limits.resume_timeout));
    connection.expire(deadline);
    assert!(matches!(outcome(&mut connection), TurnOutcome::Failed { reason } if reason.contains("within 60 s")));
    let mut slow = loading("");
    slow.expire(after(NOW, limits.resume_timeout));
    assert!(events(&mut slow).is_empty(), "a history may be long");
    slow.expire(after(NOW, limits.session_timeout));
    assert!(matches!(outcome(&mut slow), TurnOutcome::Failed { reason } if reason.contains("in time")));
}

#[test]
fn a_turn_that_is_cancelled_before_or_after_the_death_ends_as_cancelled() {
    let mut before = ready(json!({"loadSession": true}));
    before.prompt(NOW, TurnId(1), None, "hi".into());
    reply(&mut before, json!({"sessionId": "s"}));
    before.cancel(NOW, TurnId(1));
    before.break_off(NOW, "exit code 1", |_| String::new());
    assert_eq!(outcome(&mut before), TurnOutcome::Cancelled);
    let mut after = loading("");
    after.cancel(NOW, TurnId(1));
    assert_eq!(outcome(&mut after), TurnOutcome::Cancelled);
    replay(&mut after, &[User("hi"), Agent("hello")]);
    reply(&mut after, json!({}));
    assert!(events(&mut after).is_empty());
    after.prompt(NOW, TurnId(2), Some("s".into()), "next".into());
    assert_eq!(request(&mut after).1, "session/prompt", "the session is loaded all the same");
}

/// As [`Step::Kill`] does: the state as it was last recorded, without what was replayed since.
#[test]
fn a_history_that_a_kill_of_the_gateway_cut_short_is_asked_for_once_more() {
    let mut connection = loading("");
    let (id, ..) = request(&mut connection);
    replay(&mut connection, &[User("hi")]);
    let state = serde_json::to_string(&connection).expect("plain data");
    let mut connection: Connection = serde_json::from_str(&state).expect("reads");
    connection.settle_doubt(NOW, 0);
    replay(&mut connection, &[Agent("lo")]);
    say(&mut connection, &Message::Response { id, outcome: Ok(json!({})) });
    assert!(events(&mut connection).is_empty());
    let (shown, _) = answered(&mut connection, &[User("hi"), Agent("hello")]);
    assert_eq!(shown.as_deref(), Some("hello"));
    // In the write of it, too.
    let mut doubted = loading("");
    doubted.settle_doubt(NOW, 10);
    assert_eq!(answered(&mut doubted, &[User("hi"), Agent("hello")]).0.as_deref(), Some("hello"));
}

#[test]
fn a_long_prompt_is_known_by_its_end_and_a_long_answer_is_cut() {
    let long = format!("{}the end", "ä".repeat(10_000));
    let mut connection = ready(json!({"loadSession": true}));
    connection.limits.resumed_bytes_max = 3;
    connection.prompt(NOW, TurnId(1), None, long.clone().into());
    reply(&mut connection, json!({"sessionId": "s"}));
    sent(&mut connection);
    events(&mut connection);
    connection.break_off(NOW, "exit code 1", |_| String::new());
    begin_again(&mut connection, &json!({"loadSession": true}));
    let (shown, _) = answered(&mut connection, &[User(long.leak()), Agent("äää")]);
    assert_eq!(shown.as_deref(), Some("ä"));
}

/// What an agent has kept of a turn when it died.
#[derive(Clone, Debug)]
enum Memory {
    Nothing,
    Message,
    /// So many bytes of the whole answer, which is longer than what it had said.
    Answer(usize),
}

/// A turn that an agent begins to answer with `said`, and dies.
#[derive(Clone, Debug)]
struct Broken {
    said: Vec<String>,
    memory: Memory,
    /// The state is carried after the death, and in the middle of the replay the gateway is killed.
    carry: bool,
    kill: bool,
}

fn broken() -> impl Strategy<Value = Broken> {
    let memory = prop_oneof![
        1 => Just(Memory::Nothing),
        1 => Just(Memory::Message),
        4 => (1usize..40).prop_map(Memory::Answer),
    ];
    let said = prop::collection::vec("[ab\n ]{1,5}", 0..5);
    (said, memory, any::<bool>(), any::<bool>()).prop_map(|(said, memory, carry, kill)| Broken {
        said,
        memory,
        carry,
        kill,
    })
}

proptest! {
    /// Whatever an agent keeps, over any number of deaths of it in one session: all that it has kept of an answer is
    /// shown, behind what was shown before, and what is said of the rest is true.
    #[test]
    fn all_that_was_kept_is_shown(turns in prop::collection::vec(broken(), 1..5)) {
        let capabilities = json!({"loadSession": true});
        let mut connection = ready(capabilities.clone());
        let mut history: Vec<Kept> = Vec::new();
        for (number, Broken { said, memory, carry, kill }) in turns.into_iter().enumerate() {
            let (turn, message) = (TurnId(number as i64), &*format!("message {number}").leak());
            connection.prompt(NOW, turn, (number > 0).then(|| "s".into()), message.into());
            if number == 0 {
                reply(&mut connection, json!({"sessionId": "s"}));
            }
            prop_assert_eq!(request(&mut connection).1, "session/prompt");
            said.iter().for_each(|piece| text(&mut connection, "s", piece));
            events(&mut connection);
            let said = said.concat();
            connection.break_off(NOW, "exit code 1", |_| said.clone());
            if carry {
                connection = carried(&connection);
            }
            let whole = &*format!("{said}{}", "the rest of the answer to it that was not said").leak();
            let kept = match memory {
                Memory::Nothing => None,
                Memory::Message => Some(""),
                Memory::Answer(bytes) => Some(&whole[..bytes.min(whole.len())]),
            };
            if let Some(kept) = kept {
                history.extend([User(message), Agent(kept)]);
            }
            begin_again(&mut connection, &capabilities);
            if kill {
                let (id, ..) = request(&mut connection);
                replay(&mut connection, &history[..history.len() / 2]);
                connection = carried(&connection);
                connection.settle_doubt(NOW, 0);
                replay(&mut connection, &history[history.len() / 2..]);
                say(&mut connection, &Message::Response { id, outcome: Ok(json!({"modes": null})) });
            }
            let (shown, reason) = answered(&mut connection, &history);
            match kept.map(str::trim) {
                None => prop_assert!(reason.contains("does not have your message"), "{reason}"),
                Some("") => prop_assert!(reason.contains("nothing of the answer"), "{reason}"),
                Some(_) if shown.is_none() => prop_assert!(reason.contains("is in its history"), "{reason}"),
                Some(_) => prop_assert!(reason.contains("what it has kept"), "{reason}"),
            }
            let seen = shown.unwrap_or_else(|| said.clone());
            prop_assert!(seen.starts_with(&said));
            let squeezed = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert!(squeezed(&seen).starts_with(&squeezed(kept.unwrap_or_default())), "{seen:?} of {kept:?}");
        }
    }
}
