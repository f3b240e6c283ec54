//! `hermes chat`: streams, adoptions, lost connections, Ctrl-C.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use hermes_gateway::control::proto;
use serde_json::{Value, json};

use super::{err, finish, hermes, ok, run, run_with_input, status, stderr, stdout};
use crate::support::fake_gateway::{Act, FakeGateway};

fn opened(backlog: Value) -> Vec<Act> {
    ok(json!({ "conversation": "local:main", "backlog": backlog }))
}

fn accepted(turn: Option<i64>) -> Act {
    Act::Respond(Ok(json!({ "turn": turn })))
}

fn step(turn: i64, step: Value) -> Value {
    json!({ "reply": { "turn": turn, "step": step } })
}

fn show(content: Value) -> Act {
    Act::Notify(proto::CHAT_OUTPUT, json!({ "conversation": "local:main", "content": content }))
}

fn delta(turn: i64, text: &str) -> Act {
    show(step(turn, json!({ "delta": text })))
}

fn end(turn: i64, how: Value) -> Act {
    show(step(turn, json!({ "end": how })))
}

/// A gateway whose agent repeats what it is told, in pieces, over an adoption between any two of them.
fn echo() -> FakeGateway {
    let mut turn = 0;
    FakeGateway::start(move |method, params| match method {
        proto::CHAT_OPEN => opened(json!([])),
        proto::CHAT_SEND => {
            turn += 1;
            let text = params["text"].as_str().expect("text").to_owned();
            let mut acts = vec![accepted(Some(turn)), show(step(turn, json!("begin")))];
            for piece in text.split_inclusive(' ') {
                acts.extend([show(step(turn, json!({ "activity": "thinks" }))), Act::Adopt, delta(turn, piece)]);
            }
            acts.push(end(turn, json!("complete")));
            acts
        }
        _ => ok(status("1.4.0", 0)),
    })
}

#[test]
fn once_prints_the_answer_byte_for_byte_over_adoptions() {
    let gateway = echo();
    for text in ["one two three ", "no newline", "with\n\nnewlines\n", "ünïcödé 🙂"] {
        let output = run(gateway.home(), &["chat", "--once", text]);
        assert_eq!((output.status.code(), stdout(&output).as_str(), stderr(&output).as_str()), (Some(0), text, ""));
    }
}

#[test]
fn the_end_of_input_waits_for_the_answers() {
    let gateway = echo();
    let output = run_with_input(gateway.home(), &["chat", "--chat", "main"], "first message\n\nsecond one\r\nlast");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stdout(&output), "first message\nsecond one\nlast");
    assert_eq!(gateway.request_of(proto::CHAT_OPEN), json!({ "chat": "main" }));
    let ids: Vec<Value> = (0..3).map(|_| gateway.request_of(proto::CHAT_SEND)["message_id"].clone()).collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
}

#[test]
fn an_answer_that_broke_off_is_a_failure_with_its_reason() {
    for (how, reason) in
        [(json!({ "failed": "the agent died" }), "the agent died"), (json!("stopped"), "the turn was stopped")]
    {
        let gateway = FakeGateway::start(move |method, _| match method {
            proto::CHAT_OPEN => opened(json!([])),
            _ => vec![accepted(Some(1)), delta(1, "half"), end(1, how.clone())],
        });
        let output = run(gateway.home(), &["chat", "--once", "hi"]);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), "half"));
        assert_eq!(stderr(&output), format!("error: {reason}\n"));
    }
}

#[test]
fn a_refused_message_is_told() {
    let gateway = FakeGateway::start(|method, _| match method {
        proto::CHAT_OPEN => opened(json!([])),
        _ => err(proto::FORBIDDEN, "not you"),
    });
    let output = run(gateway.home(), &["chat", "--once", "hi"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    assert!(stderr(&output).ends_with("error: not you\n"), "{output:?}");
}

#[test]
fn a_command_s_answer_is_its_notice() {
    let gateway = FakeGateway::start(|method, _| match method {
        proto::CHAT_OPEN => opened(json!([{ "notice": { "text": "said before" } }])),
        _ => vec![accepted(Some(1)), show(json!({ "notice": { "text": "all is well" } }))],
    });
    let output = run(gateway.home(), &["chat", "--once", "/status"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "all is well"));
    assert_eq!(stderr(&output), "said before\n", "what waited is not lost, and not the answer");

    let output = run_with_input(gateway.home(), &["chat"], "/status\n");
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "said before\nall is well\n"));
}

#[test]
fn a_lost_connection_is_made_again_and_the_message_sent_again_under_its_id() {
    let mut sent = 0;
    let gateway = FakeGateway::start(move |method, _| match method {
        proto::CHAT_OPEN if sent == 0 => opened(json!([])),
        // The message was accepted before the connection broke, and its turn went on with nobody listening.
        proto::CHAT_OPEN => opened(json!([step(7, json!("begin")), step(7, json!({ "delta": "first half, " }))])),
        _ => {
            sent += 1;
            if sent == 1 {
                vec![Act::Break]
            } else {
                vec![accepted(None), Act::Adopt, delta(7, "second half"), end(7, json!("complete"))]
            }
        }
    });
    let output = run(gateway.home(), &["chat", "--once", "hi"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "first half, second half"), "{output:?}");
    assert_eq!(gateway.request_of(proto::CHAT_SEND), gateway.request_of(proto::CHAT_SEND));
}

#[test]
fn a_turn_that_the_gateway_does_not_know_is_given_up() {
    let gateway = FakeGateway::start(|method, _| match method {
        proto::CHAT_OPEN => opened(json!([])),
        proto::CHAT_SEND => vec![accepted(Some(1)), delta(1, "half")],
        _ => ok(status("1.4.0", 0)),
    });
    let output = run(gateway.home(), &["chat", "--once", "hi"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), "half"));
    assert!(stderr(&output).starts_with("error: the gateway runs the turn no longer"), "{output:?}");

    let output = run_with_input(gateway.home(), &["chat"], "hi\n");
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "half"));
    assert_eq!(stderr(&output), "error: the gateway runs the turn no longer; its answer may be lost\n");
}

#[test]
fn ctrl_c_stops_the_turn_and_then_the_chat() {
    let gateway = FakeGateway::start(|method, params| match method {
        proto::CHAT_OPEN => opened(json!([])),
        proto::CHAT_SEND if params["text"] == "/stop" => {
            vec![accepted(Some(2)), show(json!({ "notice": { "text": "Stopped." } })), end(1, json!("stopped"))]
        }
        proto::CHAT_SEND => vec![accepted(Some(1)), delta(1, "working\n")],
        _ => err(proto::OVERLOADED, "ask later"),
    });
    let mut child = hermes(gateway.home(), &["chat"]).stdin(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = move || lines.next().expect("a line").expect("UTF-8");
    stdin.write_all(b"go\n").expect("writes");
    assert_eq!(line(), "working");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    assert_eq!(line(), "Stopped.");
    // A notice ends nothing by itself, so the second Ctrl-C comes when the next message has been answered.
    stdin.write_all(b"again\n").expect("writes");
    assert_eq!(line(), "working");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    assert_eq!(line(), "Stopped.");
    drop(stdin);
    let output = finish(child);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), "(stopped)\n(stopped)\n"));
}
