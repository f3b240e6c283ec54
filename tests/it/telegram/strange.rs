//! What Telegram, or something between, might say: wrong types, clocks that are off, redirects. Messages are kept, the
//! state is shown, and nothing is told to strangers.

use std::time::Duration;

use hermes_gateway::chat::{ReplyEnd, ReplyStep};
use serde_json::json;

use super::Log;
use super::bed::Bed;
use crate::support::telegram::TelegramServer;
use crate::support::telegram::faults::Fault;

#[tokio::test]
async fn a_redirect_is_followed_nowhere() {
    let stranger = TelegramServer::start().await;
    let server = TelegramServer::start().await;
    let token = server.token();
    for method in ["getMe", "getUpdates", "sendMessage"] {
        server.fault(method, 1, Fault::Redirect { to: format!("{}/bot{token}/{method}", stranger.url()) });
    }
    server.say(7, 7, "hello");
    let mut bed = Bed::start_with(server);
    assert_eq!(bed.trouble().await.0, "malformed");
    assert_eq!(bed.inbound().await.text, "hello");
    bed.notice(-7, "an answer").await;
    bed.until("the answer", |state| (!state.texts(-7).is_empty()).then_some(())).await;
    bed.server.fault("file", 1, Fault::Redirect { to: stranger.url() });
    assert_eq!(stranger.look(|state| state.calls.len()), 0, "the token was handed on");
}

#[tokio::test]
async fn no_clock_and_no_type_keeps_a_message_from_coming_in() {
    let log = Log::default();
    let guard = log.capture();
    let mut bed = Bed::start().await;
    bed.connected().await;
    let from = json!({ "id": 7, "first_name": "Ann" });
    let message = |more: serde_json::Value| {
        let mut message =
            json!({ "message_id": 1, "date": 1, "chat": { "id": 7 }, "from": from, "text": "a private word" });
        for (key, value) in more.as_object().expect("an object") {
            message[key] = value.clone();
        }
        json!({ "message": message })
    };
    // Wrong types: skipped, each on its own.
    for strange in [
        json!({ "message_id": "1" }),
        json!({ "chat": [] }),
        json!({ "from": 7 }),
        json!({ "text": { "a": 1 } }),
        json!({ "date": "yesterday" }),
        json!({ "message_thread_id": -0.5 }),
    ] {
        bed.server.inject(message(strange));
    }
    // Clocks that are off, and fields of the future: taken.
    let dates = [0, -1, 4_000_000_000_i64, i64::MAX, i64::MIN];
    for (n, date) in (10..).zip(dates) {
        bed.server
            .inject(message(json!({ "message_id": n, "date": date, "text": format!("{n}"), "photo": 5, "mood": [] })));
    }
    for n in 10..15 {
        assert_eq!(bed.inbound().await.text, format!("{n}"));
    }
    bed.until_idle().await;
    drop(guard);
    let lines = log.text();
    assert!(lines.contains("malformed"), "{lines}");
    for private in ["a private word", "the-token"] {
        assert_eq!(lines.lines().find(|line| line.contains(private)), None);
    }
}

#[tokio::test]
async fn whatever_goes_wrong_with_small_calls_messages_go_on() {
    let server = TelegramServer::start().await;
    server.fault("setMyCommands", 1, Fault::Hang);
    server.fault("answerCallbackQuery", 1, Fault::refuse(400, "Bad Request: query is too old"));
    server.change(|state| state.unknown_methods.clear());
    server.fault("sendMessageDraft", 1, Fault::Malformed);
    let mut bed = Bed::start_with(server);
    bed.connected().await;
    bed.reply(7, 1, ReplyStep::Delta("one".into())).await;
    bed.until("the draft after a failure", |state| (state.draft(7) == Some("one")).then_some(())).await;
    bed.reply(7, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.until_shown(7, &["one"]).await;
    bed.server.say(7, 7, "hello");
    assert_eq!(bed.inbound().await.text, "hello");
    // A handoff lets go of the call that hangs, and it is made again.
    bed.hand_off(Duration::from_secs(10)).await;
    bed.until("the menu", |state| (state.commands.len() == 2).then_some(())).await;
}
