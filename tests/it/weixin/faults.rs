//! Whatever goes wrong: what is shown of it, that no message is lost or comes twice, and that no secret is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use hermes_gateway::chat::{ReplyEnd, ReplyStep};
use hermes_gateway::platform::{PlatformCommand, PlatformEvent};
use serde_json::{Value, json};

use super::bed::{ANN, BOB, Bed, DRAIN, config, launch};
use crate::support::faults::Fault;
use crate::support::weixin::WeixinServer;
use crate::support::weixin::state::State;

const SENT_AGAIN: &str =
    "♻️ Sent again — nobody knows whether it arrived the first time, so this may be a duplicate:\n";

fn ok(body: Value) -> Fault {
    Fault::answer_with(200, body)
}

fn refusal(ret: i64, errmsg: &str) -> Fault {
    ok(json!({ "ret": ret, "errcode": ret, "errmsg": errmsg }))
}

/// What can go wrong with a poll, and how it is shown; all of these are over with the next one.
fn poll_faults(elsewhere: &str) -> Vec<(&'static str, Fault)> {
    vec![
        ("429", Fault::Answer { code: 429, body: json!({}), retry_after: Some(1) }),
        ("429", Fault::Html { code: 429 }),
        ("500", Fault::answer_with(500, json!({ "ret": -14 }))),
        ("502", Fault::Html { code: 502 }),
        ("401", Fault::Html { code: 401 }),
        ("403", Fault::Html { code: 403 }),
        ("404", Fault::Html { code: 404 }),
        ("307", Fault::Redirect { to: format!("{elsewhere}/ilink/bot/getupdates") }),
        ("network", Fault::Reset),
        ("network", Fault::DoneReset),
        ("timeout", Fault::Slow),
        ("too_large", Fault::Huge),
        ("malformed", Fault::Malformed),
        ("malformed", Fault::Html { code: 200 }),
        ("malformed", ok(json!([]))),
        ("malformed", ok(json!({ "ret": {} }))),
        ("malformed", ok(json!({ "ret": 0, "msgs": 7 }))),
        ("malformed", ok(json!({ "ret": 0, "msgs": { "a": [] } }))),
        ("-1", refusal(-1, "system error")),
        ("-7", ok(json!({ "errcode": -7 }))),
    ]
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_poll_each_message_comes_in_once() {
    let elsewhere = WeixinServer::start().await;
    let case = |code: &'static str, fault: Fault| async move {
        let server = WeixinServer::start().await;
        server.fault("getupdates", 1, fault.clone());
        server.say(ANN, "first");
        let mut bed = Bed::start_with(server);
        let (shown, message, wait) = bed.trouble().await;
        assert_eq!(shown, code, "{fault:?}: {message}");
        assert!(wait <= Duration::from_secs(2), "{fault:?}: {wait:?}");
        bed.server.say(ANN, "second");
        bed.connected().await;
        let texts = [bed.inbound().await.text, bed.inbound().await.text];
        assert_eq!(texts, ["first", "second"], "{fault:?}");
        bed.until_idle().await;
        bed.heard_nothing();
        assert_eq!(bed.store.open_turns().await.expect("lists").len(), 2, "{fault:?}");
        bed.no_complaints();
    };
    join_all(poll_faults(&elsewhere.url()).into_iter().map(|(code, fault)| case(code, fault))).await;
    assert_eq!(elsewhere.look(|state| state.calls.len()), 0, "a redirect was followed");
}

#[tokio::test]
async fn wrong_types_beside_the_messages_cost_only_themselves() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.until_idle().await;
    let odd = json!({
        "ret": 0, "msgs": [{ "message_id": 5, "from_user_id": ANN, "item_list": [{ "type": 1, "text_item": { "text": "odd" } }] }],
        "get_updates_buf": { "not": "text" }, "longpolling_timeout_ms": "soon", "sync_buf": [], "another": null,
    });
    bed.server.fault("getupdates", 1, ok(odd));
    bed.server.say(ANN, "plain");
    // The poll that is held brings this; the next one is odd.
    assert_eq!(bed.inbound().await.text, "plain");
    assert_eq!(bed.inbound().await.text, "odd");
    bed.server.say(ANN, "after");
    assert_eq!(bed.inbound().await.text, "after");
}

#[tokio::test]
async fn three_failures_in_a_row_are_followed_by_a_longer_wait() {
    let server = WeixinServer::start().await;
    server.fault("getupdates", 3, Fault::Html { code: 502 });
    server.fault("notifystart", 1, Fault::Html { code: 502 });
    let mut bed = Bed::start_with(server);
    let mut waits = Vec::new();
    // In between the service answers notifystart, which is why the first three are not in a row.
    while bed.server.look(|state| !state.faults.is_empty()) {
        waits.push(bed.trouble().await.2);
    }
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(2)), "{waits:?}");
    bed.server.fault("*", 3, Fault::Html { code: 502 });
    bed.hand_off(DRAIN).await;
    let waits = [bed.trouble().await.2, bed.trouble().await.2, bed.trouble().await.2];
    assert!(waits[1] <= Duration::from_secs(2) && waits[2] > Duration::from_secs(20), "{waits:?}");
}

#[tokio::test]
async fn a_clock_that_is_wrong_and_a_message_that_comes_twice_cost_nothing() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    let mut wanted = Vec::new();
    bed.server.change(|state| {
        for (n, at) in [json!(0), json!(-1), json!(1), json!(i64::MAX), json!(u64::MAX), json!("x"), Value::Null]
            .into_iter()
            .enumerate()
        {
            let text = format!("message {n}");
            state.say(ANN, &text);
            state.msgs.last_mut().expect("said")["create_time_ms"] = at;
            wanted.push(text);
        }
        let again = state.msgs.clone();
        state.msgs.extend(again);
        // The same under another id, as the service sometimes does it.
        state.say(BOB, "once");
        let mut twin = state.msgs.last().expect("said").clone();
        twin["message_id"] = 77.into();
        state.msgs.push(twin);
        wanted.push("once".to_owned());
    });
    let mut texts = Vec::new();
    for _ in &wanted {
        texts.push(bed.inbound().await.text);
    }
    assert_eq!(texts, wanted);
    bed.until_idle().await;
    bed.heard_nothing();
    bed.no_complaints();
}

#[tokio::test]
async fn a_stale_token_stops_the_account_and_loses_nothing() {
    let server = WeixinServer::start().await;
    server.change(|state| state.is_stale = true);
    server.say(ANN, "hello");
    let mut bed = Bed::start_with(server);
    let (code, message, wait) = bed.trouble().await;
    assert_eq!(code, "-14");
    assert!(message.contains("hermes weixin login"), "{message}");
    assert!(wait > Duration::from_secs(50 * 60) && wait <= Duration::from_secs(60 * 60), "{wait:?}");
    let calls = bed.server.look(|state| state.calls.len());
    bed.notice(ANN, "an answer").await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bed.server.look(|state| state.calls.len()), calls, "a stale account was asked");
    // A new login is a new token, and the next image has it.
    bed.server.change(|state| (state.is_stale, state.token) = (false, "another-token".to_owned()));
    bed.hand_off(DRAIN).await;
    assert_eq!(bed.inbound().await.text, "hello");
    bed.until_shown(ANN, &["an answer"]).await;
}

#[tokio::test]
async fn a_token_that_a_send_finds_stale_stops_the_account_too() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.until_idle().await;
    bed.server.fault("sendmessage", 1, refusal(-14, "session timeout"));
    bed.notice(ANN, "hello").await;
    let (code, ..) = bed.trouble().await;
    assert_eq!(code, "-14");
    // Commands are taken all the same, and what is not sent is kept.
    bed.command(PlatformCommand::Stop { drain: DRAIN, for_a_restart: false }).await;
    bed.event("stopped", |event| matches!(event, PlatformEvent::Stopped { .. }).then_some(())).await;
    assert_eq!(bed.store.outbox("weixin").await.expect("reads").entries.len(), 1);
    assert_eq!(bed.server.look(|state| (state.sent.len(), state.stopped)), (0, 0));
}

#[tokio::test]
async fn too_often_is_heeded_in_all_chats_and_by_the_poll() {
    let server = WeixinServer::start().await;
    server.say(ANN, "hello");
    server.fault("getupdates", 1, refusal(-2, "too often"));
    let mut bed = Bed::start_with(server);
    let (code, _, wait) = bed.trouble().await;
    assert!(code == "-2" && wait > Duration::from_secs(20), "{code} {wait:?}");
    assert_eq!(bed.server.look(|state| state.confirmed), 0, "it waits there");
    bed.server.fault("sendmessage", 1, refusal(-2, "too often"));
    bed.notice(ANN, "one").await;
    bed.until("the refusal", |state| state.faults.is_empty().then_some(())).await;
    bed.notice(BOB, "two").await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bed.server.look(|state| state.calls_of("sendmessage")), 1);
    // The next image heeds it too, and has all of both.
    let calls = bed.server.look(|state| state.calls.len());
    bed.hand_off(DRAIN).await;
    bed.command(PlatformCommand::Drain { drain: DRAIN }).await;
    bed.event("drained", |event| matches!(event, PlatformEvent::Drained { .. }).then_some(())).await;
    assert_eq!(bed.server.look(|state| (state.calls.len(), state.confirmed)), (calls, 0));
    assert_eq!(bed.store.outbox("weixin").await.expect("reads").entries.len(), 2);
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_send_it_is_shown_once_and_in_order() {
    // With whether Weixin may have shown it all the same.
    let faults = [
        (Fault::Answer { code: 429, body: json!({}), retry_after: Some(1) }, false),
        (Fault::Html { code: 403 }, false),
        (Fault::Html { code: 404 }, false),
        (Fault::Html { code: 502 }, true),
        (Fault::Redirect { to: "http://127.0.0.1:9/x".to_owned() }, false),
        (Fault::Malformed, true),
        (ok(json!([7])), true),
        (Fault::Huge, true),
        (Fault::Reset, true),
        (Fault::Slow, true),
        (Fault::Hang, true),
        (refusal(-1, "system error"), false),
    ];
    let case = |(fault, in_doubt): (Fault, bool)| async move {
        let mut bed = Bed::start().await;
        bed.connected().await;
        bed.server.fault("sendmessage", 1, fault.clone());
        bed.notice(ANN, "first").await;
        bed.reply(ANN, 1, ReplyStep::Delta("second".into())).await;
        bed.reply(ANN, 1, ReplyStep::End(ReplyEnd::Complete)).await;
        bed.notice(BOB, "elsewhere").await;
        bed.until_shown(BOB, &["elsewhere"]).await;
        let first = if in_doubt { format!("{SENT_AGAIN}first") } else { "first".to_owned() };
        bed.until("both", |state| (state.texts(ANN).len() >= 2).then_some(())).await;
        assert_eq!(bed.server.texts(ANN), [first.as_str(), "second"], "{fault:?}");
        let names = bed.server.look(names_of_calls);
        assert_eq!(names[0], names[1], "a repeat has the name of the first: {fault:?}");
        bed.all_delivered().await;
        bed.no_complaints();
    };
    join_all(faults.map(case)).await;
}

/// The `client_id` of each message to Ann, also of one that was not carried out.
fn names_of_calls(state: &State) -> Vec<Value> {
    let to_ann = state.calls.iter().map(|call| &call.body["msg"]).filter(|msg| msg["to_user_id"] == ANN);
    to_ann.map(|msg| msg["client_id"].clone()).collect()
}

#[tokio::test]
async fn a_message_that_is_refused_again_and_again_holds_no_other_back() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.server.fault("sendmessage", 3, refusal(-1, "system error"));
    bed.notice(ANN, "cursed").await;
    bed.notice(ANN, "fine").await;
    bed.until_shown(ANN, &["fine"]).await;
    bed.all_delivered().await;
}

#[tokio::test]
async fn typing_that_fails_costs_nothing() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.server.fault("getconfig", 9, refusal(-14, "session timeout"));
    bed.reply(ANN, 1, ReplyStep::Begin).await;
    bed.until("a ticket is asked for", |state| (state.calls_of("getconfig") > 0).then_some(())).await;
    bed.reply(ANN, 1, ReplyStep::Delta("an answer".into())).await;
    bed.reply(ANN, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.until_shown(ANN, &["an answer"]).await;
    bed.server.say(ANN, "thanks");
    assert_eq!(bed.inbound().await.text, "thanks");
}

/// Collects what the tracing subscriber writes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_line_and_no_state_holds_a_secret_or_what_was_said() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let guard = tracing::subscriber::set_default(subscriber.finish());
    let server = WeixinServer::start().await;
    let token = server.token();
    server.say(ANN, "a private word");
    let echo = format!("no {token} and context-1-of-{ANN} for a-private-word-of-a-kind");
    for fault in [refusal(-1, &echo), Fault::Malformed, Fault::Html { code: 502 }] {
        server.fault("sendmessage", 1, fault.clone());
        server.fault("getupdates", 1, fault);
    }
    let mut bed = Bed::start_with(server);
    let mut told = vec![bed.trouble().await.1];
    assert_eq!(bed.inbound().await.text, "a private word");
    bed.reply(ANN, 1, ReplyStep::Begin).await;
    bed.until("typing", |state| (!state.typing.is_empty()).then_some(())).await;
    bed.reply(ANN, 1, ReplyStep::Delta("a private word".into())).await;
    bed.reply(ANN, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.until("the answer", |state| (!state.sent.is_empty()).then_some(())).await;
    bed.server.change(|state| state.is_stale = true);
    told.push(bed.trouble().await.1);
    let state = bed.freeze(DRAIN).await.to_string();
    // Nothing listens there.
    let dead = hermes_gateway::config::WeixinConfig { base_url: "http://127.0.0.2:9".into(), ..config(&bed.server) };
    (bed.handle, bed.events) = launch(dead, &bed.store, None);
    told.push(bed.trouble().await.1);
    drop(guard);
    let log = String::from_utf8_lossy(&log.0.lock().expect("not poisoned")).into_owned();
    assert!(log.contains("a message was not delivered and is tried again") && log.contains("the token is stale"));
    let ticket = bed.server.look(|state| state.tickets.keys().next().cloned()).expect("a ticket");
    for secret in [&token, "private", "context-1", &ticket, "127.0.0.2"] {
        let spoken = told.iter().chain([&state]).find(|text| text.contains(secret));
        assert_eq!(spoken, None, "{secret}");
        let own = |line: &&str| line.contains(secret) && (line.contains("hermes") || secret != "127.0.0.2");
        assert_eq!(log.lines().find(own), None, "{secret}");
    }
}
