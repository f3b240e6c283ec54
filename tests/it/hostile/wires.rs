//! Answers of a platform and bytes on the control socket that nobody should send.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hermes_gateway::control::client::ClientError;
use hermes_gateway::control::proto;
use serde_json::{Value, json};

use super::{ECHO, USER, assert_no_panic, echoes, start, telegram_config};
use crate::support::gateway::{Gateway, SOON};
use crate::support::telegram::TelegramServer;
use crate::support::telegram::faults::Fault;

fn link(status: &proto::Status) -> Value {
    serde_json::to_value(&status.platforms[0]).expect("plain data")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_that_answers_nonsense_holds_up_nobody_else() {
    let telegram = TelegramServer::start().await;
    telegram.fault("getMe", 1, Fault::Malformed);
    let gateway = start(&telegram_config(&telegram)).await;
    let connected = async |gateway: &Gateway| {
        gateway.wait_until("the link is up", async |status| link(status)["state"] == "connected").await;
    };
    connected(&gateway).await;
    let mut chat = gateway.chat("main").await;
    for (number, fault) in
        [Fault::Malformed, Fault::Huge, Fault::Html { code: 502 }, Fault::refuse(500, "oops"), Fault::Reset]
            .into_iter()
            .enumerate()
    {
        telegram.fault("getUpdates", 1, fault.clone());
        let at = 20_000 + i64::try_from(number).expect("few");
        telegram.say(USER, at, "hello");
        echoes(&mut chat, &format!("beside {fault:?}")).await;
        telegram.until("an answer", |state| state.texts(at).contains(&"hello".to_owned()).then_some(())).await;
    }
    for update in [
        json!({ "message": { "message_id": "seven" } }),
        json!({ "message": [] }),
        json!({ "message": { "message_id": 1, "date": -1, "chat": { "id": 1e300 }, "from": {}, "text": 5 } }),
        json!({ "message": { "message_id": i64::MAX, "date": i64::MAX, "chat": { "id": i64::MIN, "type": "" },
                             "from": { "id": USER, "is_bot": false, "first_name": "" }, "text": "/status" } }),
    ] {
        telegram.inject(update);
    }
    telegram.say(USER, 20_100, "after all that");
    telegram.until("an answer", |state| state.texts(20_100).pop()).await;
    // A token that is no longer good is no reason to stop.
    telegram.fault("getUpdates", 1, Fault::refuse(401, "Unauthorized"));
    telegram.say(USER, 20_101, "wakes the poll");
    gateway.wait_until("the link is given up", async |status| link(status)["state"] == "fatal").await;
    assert_eq!(gateway.status().await.gateway_state, "degraded");
    echoes(&mut chat, "the local chat goes on").await;
    assert_no_panic(&gateway);
    assert!(!gateway.log().contains("the-token-of-the-test-bot"), "the token is in the log");
}

/// Sends bytes and returns what comes back until the gateway hangs up or says a line.
fn send(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(gateway.socket()).expect("connects");
    stream.set_read_timeout(Some(SOON)).expect("sets");
    stream.set_write_timeout(Some(SOON)).expect("sets");
    // A gateway that has heard enough hangs up.
    let _hung_up = stream.write_all(bytes);
    let _hung_up = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    // A connection that is reset has said what it had to say before.
    let _reset = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("the gateway speaks UTF-8")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_over_the_control_socket_costs_only_its_sender() {
    let gateway = start(ECHO).await;
    let nested = [b"[".repeat(100_000), b"\n".to_vec()].concat();
    for bytes in [
        &b""[..],
        b"\n\n\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\xff\xfe\x00\n",
        b"[]\n",
        b"{\"jsonrpc\":\"2.0\"}\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"status\"}\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":1e99,\"method\":\"status\"}\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sta",
        &nested,
        &b"x".repeat(20 << 20),
    ] {
        let answer = send(&gateway, bytes);
        for line in answer.lines() {
            serde_json::from_str::<Value>(line).expect("every line is a message");
        }
        assert_eq!(gateway.status().await.gateway_state, "running");
    }
    let mut chat = gateway.chat("main").await;
    echoes(&mut chat, "goes on").await;
    assert_no_panic(&gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_parameters_are_answered_with_what_is_wrong() {
    let gateway = start(ECHO).await;
    for params in [
        json!(1),
        json!("x"),
        json!([]),
        json!({ "kind": 7 }),
        json!({ "kind": "explode" }),
        json!({ "chat": 5, "text": 5, "kind": {} }),
        json!({ "chat": "../../etc\u{0}", "text": "", "message_id": "" }),
        json!({ "chat": "x".repeat(10_000), "text": "x", "message_id": "x".repeat(10_000) }),
    ] {
        for method in [proto::HANDOFF, proto::CHAT_OPEN, proto::CHAT_SEND, "no_such_method"] {
            let mut client = gateway.client().await;
            let answer = client.request::<Value>(method, &params, SOON, |_, _| {}).await;
            match answer {
                Err(ClientError::Rpc(error)) => assert!(!error.message.is_empty(), "{method} {params}"),
                // An empty list is as good as no parameters for what needs none.
                Ok(opened) => assert!(method == proto::CHAT_OPEN, "{method} {params}: {opened}"),
                Err(other) => panic!("{method} {params}: {other}"),
            }
        }
    }
    let status = gateway.status().await;
    assert_eq!((status.generation, status.handoffs.len()), (0, 0));
    assert_no_panic(&gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_without_end_are_turned_away_and_let_in_again() {
    let gateway = start(ECHO).await;
    let idle: Vec<UnixStream> = (0..200).map_while(|_| UnixStream::connect(gateway.socket()).ok()).collect();
    assert!(idle.len() > 64, "more than there is room for");
    let turned_away = idle.iter().any(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("sets");
        let mut answer = [0; 512];
        matches!(stream.read(&mut answer), Ok(read) if read > 0)
    });
    assert!(turned_away, "nobody was told that there is no room");
    drop(idle);
    gateway.wait_until("there is room again", async |_| true).await;
    let mut chat = gateway.chat("main").await;
    echoes(&mut chat, "goes on").await;
    assert_no_panic(&gateway);
}
