//! The Telegram platform against the test server: nothing lost, nothing twice, in order, and no secret told.

pub mod bed;
mod files;
mod rich;
mod strange;
mod webhook;
mod whole;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use hermes_gateway::chat::{Conversation, LinkState, Outbound, OutboundContent, ReplyEnd, ReplyStep};
use hermes_gateway::config::TelegramConfig;
use hermes_gateway::platform::telegram::api::Api;
use hermes_gateway::platform::telegram::spawn;
use hermes_gateway::platform::{Left, PlatformCommand, PlatformEvent};
use hermes_gateway::store::{Change, Store};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::telegram::faults::Fault;
use crate::support::telegram::state::{Message, Reach, State};
use crate::support::telegram::{Shared, TelegramServer};
use bed::{Bed, DEADLINE, DRAIN, config, launch};

const SENT_AGAIN: &str =
    "♻️ Sent again — nobody knows whether it arrived the first time, so this may be a duplicate:\n";
const RECOVERED: &str = "♻️ Recovered reply — the gateway restarted during delivery, so this may be a duplicate:\n";

#[tokio::test]
async fn only_a_limit_beyond_the_free_one_pays_for_messages() {
    let server = TelegramServer::start().await;
    for messages_per_second in [1, 30, 31, 1000] {
        let config = TelegramConfig { messages_per_second, ..config(server.url(), server.token()) };
        let api = Api::new(&config).expect("a client");
        let sent = api.send_message("7", None, &"hello".into()).await.expect("it is sent");
        api.edit_message_text("7", &sent.message_id.to_string(), &"hello again".into()).await.expect("it is edited");
    }
    let paid: Vec<_> = server.look(|state| {
        let paid = |method: &str| {
            let calls = state.calls.iter().filter(|call| call.method == method);
            calls.map(|call| call.params.get("allow_paid_broadcast").cloned()).collect::<Vec<_>>()
        };
        [paid("sendMessage"), paid("editMessageText")].concat()
    });
    let yes = Some(json!(true));
    assert_eq!(paid, [None, None, yes.clone(), yes, None, None, None, None]);
}

#[tokio::test]
async fn the_server_tells_a_listener_of_calls_instead_of_keeping_them() {
    let (sender, told) = std::sync::mpsc::channel();
    let shared = Shared::new(State::new("4242:x")).tell(sender);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let serving = tokio::spawn(shared.clone().serve(listener));
    let api = Api::new(&config(url, "4242:x".to_owned())).expect("a client");
    for text in ["one", "two", "three"] {
        api.send_message("7", None, &text.into()).await.expect("it is sent");
    }
    api.send_typing("7", None).await.expect("it is shown");
    serving.abort();
    let told: Vec<_> = told.try_iter().collect();
    assert!(told.is_sorted_by_key(|call| call.at));
    let told: Vec<_> = told.into_iter().map(|call| (call.method, call.text.unwrap_or_default())).collect();
    let sent = |text: &str| ("sendMessage".to_owned(), text.to_owned());
    assert_eq!(told, [sent("one"), sent("two"), sent("three"), ("sendChatAction".to_owned(), String::new())]);
    let mut state = shared.lock();
    assert!(state.calls.is_empty());
    assert_eq!(state.forget(2).iter().map(Message::text).collect::<Vec<_>>(), ["one"]);
    assert_eq!(state.texts(7), ["two", "three"]);
}

#[tokio::test]
async fn a_link_is_known_to_work_while_too_much_waits_to_ask_for_more() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&dir.path().join("state.db")).expect("opens");
    let waiting = 3_000;
    let notice = |chat: i64| Change::Notice(Conversation::new("telegram", chat.to_string()), "a word".into());
    store.change((1..=waiting).map(notice).collect()).await.expect("recorded");
    let mut bed = Bed::start_in(TelegramServer::start().await, dir, store, None);
    bed.connected().await;
    // The next image has all that waits from its first moment on.
    bed.until("the outbox is read", |state| (state.calls_of("sendMessage") > 40).then_some(())).await;
    bed.hand_off(DRAIN).await;
    bed.connected().await;
    let shown = bed.server.look(|state| state.calls_of("sendMessage"));
    assert!(shown < 1_000, "it was known while more than 1024 waited: {shown} were sent");
}

#[tokio::test]
async fn a_message_comes_in_is_confirmed_and_is_answered() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.until_idle().await;
    bed.server.change(|state| state.say(7, -1_000_000_000_009, Some(3), "/status@hermestestbot now"));
    let inbound = bed.inbound().await;
    assert_eq!((inbound.text.as_str(), inbound.sender.id.as_str()), ("/status now", "7"));
    assert_eq!(inbound.conversation.thread.as_deref(), Some("3"));
    let content = OutboundContent::Notice("all is well".into());
    bed.command(PlatformCommand::Deliver {
        outbound: Box::new(Outbound { conversation: inbound.conversation, content }),
        entry: None,
    })
    .await;
    bed.until_shown(-1_000_000_000_009, &["all is well"]).await;
    bed.until_idle().await;
    assert_eq!(bed.server.look(|state| state.messages[0].thread), Some(3));
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_poll_each_message_comes_in_once() {
    let faults = [
        ("500", Fault::refuse(500, "Internal Server Error")),
        ("502", Fault::Html { code: 502 }),
        ("429", Fault::flood(1)),
        ("429", Fault::refuse(429, "Too Many Requests")),
        ("malformed", Fault::Html { code: 200 }),
        ("malformed", Fault::Malformed),
        ("too_large", Fault::Huge),
        ("network", Fault::Reset),
        ("network", Fault::DoneReset),
    ];
    let case = |code: &'static str, fault: Fault| async move {
        let server = TelegramServer::start().await;
        server.fault("getUpdates", 1, fault.clone());
        server.say(7, 7, "first");
        let mut bed = Bed::start_with(server);
        assert_eq!(bed.trouble().await.0, code, "{fault:?}");
        bed.server.say(7, 7, "second");
        bed.connected().await;
        let texts = [bed.inbound().await.text, bed.inbound().await.text];
        assert_eq!(texts, ["first", "second"], "{fault:?}");
        bed.until_idle().await;
        assert!(bed.store.open_turns().await.expect("lists").len() == 2, "{fault:?}");
    };
    join_all(faults.map(|(code, fault)| case(code, fault))).await;
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_send_it_is_shown_once_and_in_order() {
    let faults = [
        // With whether Telegram may have shown it all the same.
        (Fault::refuse(500, "Internal Server Error"), true),
        (Fault::flood(1), false),
        (Fault::refuse(429, "Too Many Requests"), false),
        (Fault::Html { code: 502 }, true),
        (Fault::Malformed, true),
        (Fault::Huge, true),
        (Fault::Reset, true),
    ];
    let case = |(fault, in_doubt): (Fault, bool)| async move {
        let mut bed = Bed::start().await;
        bed.connected().await;
        bed.server.fault("sendMessage", 1, fault.clone());
        bed.notice(7, "first").await;
        bed.reply(7, 1, ReplyStep::Delta("second".into())).await;
        bed.reply(7, 1, ReplyStep::End(ReplyEnd::Complete)).await;
        bed.notice(7, "third").await;
        bed.notice(8, "elsewhere").await;
        bed.until_shown(8, &["elsewhere"]).await;
        let mark = if in_doubt { SENT_AGAIN } else { "" };
        bed.until_shown(7, &[&format!("{mark}first"), "second", "third"]).await;
        bed.delivered(1).await;
    };
    join_all(faults.map(case)).await;
}

#[tokio::test]
async fn a_message_that_arrived_though_its_answer_did_not_is_shown_again_rather_than_lost() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.server.fault("sendMessage", 1, Fault::DoneReset);
    bed.notice(7, "hello").await;
    bed.until_shown(7, &["hello", &format!("{SENT_AGAIN}hello")]).await;
}

#[tokio::test]
async fn a_chat_that_telegram_holds_back_holds_no_other_back() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.server.fault("sendMessage", 1, Fault::flood(70_000));
    bed.notice(1, "held back").await;
    bed.until("the refusal", |state| state.calls.iter().any(|call| call.status == Some(429)).then_some(())).await;
    bed.notice(2, "not held back").await;
    bed.until_shown(2, &["not held back"]).await;
    assert!(bed.server.texts(1).is_empty());
}

#[tokio::test]
async fn a_refused_token_is_told_once_and_the_task_still_obeys() {
    let server = TelegramServer::start().await;
    let mut bed = Bed::start_with(server);
    bed.connected().await;
    (bed.handle, bed.events) = launch(&bed.server, "4242:another".into(), &bed.store, None);
    let (code, message) = bed.trouble().await;
    assert_eq!(code, "401");
    assert!(message.contains("check the token") && !message.contains("another"), "{message}");
    bed.notice(7, "never").await;
    bed.freeze(DRAIN).await;
    bed.command(PlatformCommand::Thaw).await;
    bed.command(PlatformCommand::Stop { drain: DRAIN, for_a_restart: false }).await;
    bed.event("stopped", |event| matches!(event, PlatformEvent::Stopped { .. }).then_some(())).await;
    assert_eq!(bed.server.look(|state| state.messages.len()), 0);
}

#[tokio::test]
async fn a_webhook_is_named_and_never_removed() {
    let server = TelegramServer::start().await;
    server.change(|state| state.webhook.url = "https://example.org/hook".into());
    let mut bed = Bed::start_with(server);
    let (code, message) = bed.trouble().await;
    assert_eq!(code, "409");
    assert!(message.contains("deleteWebhook") && !message.contains("example.org"), "{message}");
    bed.server.change(|state| state.webhook.url.clear());
    bed.connected().await;
    assert_eq!(bed.server.look(|state| state.calls_of("deleteWebhook")), 0);
}

#[tokio::test]
async fn another_process_that_polls_is_named_and_outlived() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.until_idle().await;
    bed.server.change(|state| state.poller += 1);
    let (code, message) = bed.trouble().await;
    assert_eq!(code, "409");
    assert!(message.contains("another process"), "{message}");
    bed.server.say(7, 7, "after");
    assert_eq!(bed.inbound().await.text, "after");
}

#[tokio::test]
async fn what_the_store_refuses_is_not_confirmed_and_comes_in_later() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.until_idle().await;
    let database = rusqlite::Connection::open(bed.database()).expect("opens");
    database.busy_timeout(DEADLINE).expect("sets");
    database.execute_batch("ALTER TABLE inbox RENAME TO away").expect("renames");
    let update = bed.server.say(7, 7, "keep me");
    for _ in 0..2 {
        assert_eq!(bed.trouble().await.0, "store");
        let waiting = bed.server.look(|state| state.updates[0]["update_id"].clone());
        assert_eq!(waiting, update, "an update was confirmed that was not stored");
    }
    database.execute_batch("ALTER TABLE away RENAME TO inbox").expect("renames");
    assert_eq!(bed.inbound().await.text, "keep me");
    bed.until_idle().await;
    assert_eq!(bed.store.open_turns().await.expect("lists").len(), 1);
}

#[tokio::test]
async fn a_message_that_was_stored_and_not_confirmed_comes_again_as_nothing() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.until_idle().await;
    // The poll that would confirm the message hangs, and the process dies during it.
    bed.server.fault("getUpdates", 1, Fault::Hang);
    bed.server.say(7, 7, "once");
    assert_eq!(bed.inbound().await.text, "once");
    bed.until("the hanging poll", |state| state.faults.is_empty().then_some(())).await;
    assert_eq!(bed.server.look(|state| state.updates.len()), 1);
    (bed.handle, bed.events) = launch(&bed.server, bed.server.token(), &bed.store, None);
    bed.server.say(7, 7, "later");
    assert_eq!(bed.inbound().await.text, "later");
    bed.until_idle().await;
    assert_eq!(bed.store.open_turns().await.expect("lists").len(), 2);
}

#[tokio::test]
async fn updates_that_cannot_be_read_hold_nothing_up() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    let strange = [
        json!({ "kind_of_the_future": { "deep": [1, { "x": null }] } }),
        json!({ "message": { "message_id": "seven" } }),
        json!({ "message": [] }),
        json!({ "callback_query": { "id": "1", "from": { "id": 7 }, "data": "x" } }),
        json!({ "edited_message": { "message_id": 1, "chat": { "id": 7 }, "from": { "id": 7 }, "text": "edited" } }),
        json!({ "channel_post": { "message_id": 1, "chat": { "id": -7 }, "text": "news" } }),
        json!({}),
    ];
    for update in strange {
        bed.server.inject(update);
    }
    bed.server.say(7, 7, "after all that");
    assert_eq!(bed.inbound().await.text, "after all that");
    bed.until_idle().await;
}

#[tokio::test]
async fn a_streamed_reply_goes_on_over_handoffs_as_if_nothing_had_been() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.reply(7, 1, ReplyStep::Begin).await;
    bed.until("typing", |state| (state.calls_of("sendChatAction") > 0).then_some(())).await;
    let mut wanted = String::new();
    for round in 0..6 {
        for word in 0..40 {
            let text = format!("round {round} wörd {word} 😀\n");
            wanted.push_str(&text);
            bed.reply(7, 1, ReplyStep::Delta(text)).await;
        }
        bed.reply(7, 1, ReplyStep::Activity(format!("tool {round}"))).await;
        if round % 2 == 0 {
            bed.until("the message", |state| (!state.texts(7).is_empty()).then_some(())).await;
        }
        bed.hand_off(DRAIN).await;
    }
    bed.reply(7, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.delivered(1).await;
    let texts = bed.server.texts(7);
    assert_eq!(texts.len(), 2, "a text of {} units", wanted.encode_utf16().count());
    assert_eq!(texts.concat().trim_end(), wanted.trim_end());
    // The name of the bot is part of the state, so nobody asks for it again.
    assert_eq!(bed.server.look(|state| state.calls_of("getMe")), 1);
}

#[tokio::test]
async fn only_a_message_whose_fate_is_unknown_is_marked() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.server.fault("sendMessage", 1, Fault::DoneHang);
    bed.reply(7, 1, ReplyStep::Delta("the answer".into())).await;
    bed.reply(7, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.notice(7, "a notice").await;
    bed.until("the first message", |state| (!state.texts(7).is_empty()).then_some(())).await;
    bed.hand_off(Duration::from_millis(1)).await;
    bed.until_shown(7, &["the answer", &format!("{RECOVERED}the answer"), "a notice"]).await;
    bed.delivered(1).await;
}

#[tokio::test]
async fn an_edit_whose_fate_is_unknown_is_repeated() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.reply(7, 1, ReplyStep::Delta("one".into())).await;
    bed.until_shown(7, &["one"]).await;
    bed.server.fault("editMessageText", 1, Fault::DoneHang);
    bed.reply(7, 1, ReplyStep::Delta(" two".into())).await;
    bed.reply(7, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.until_shown(7, &["one two"]).await;
    bed.hand_off(Duration::from_millis(1)).await;
    bed.delivered(1).await;
    assert_eq!(bed.server.texts(7), ["one two"]);
}

#[tokio::test]
async fn after_a_kill_the_same_message_goes_on() {
    let mut bed = Bed::start_killable().await;
    bed.reply(7, 1, ReplyStep::Begin).await;
    bed.reply(7, 1, ReplyStep::Delta("one ".into())).await;
    bed.until_shown(7, &["one "]).await;
    // It is edited, so the task knows that the message was sent.
    bed.reply(7, 1, ReplyStep::Delta("two ".into())).await;
    bed.until_shown(7, &["one two "]).await;
    bed.kill().await;
    bed.reply(7, 1, ReplyStep::SoFar("one two three ".into())).await;
    bed.until_shown(7, &["one two three "]).await;
    bed.kill().await;
    bed.reply(7, 1, ReplyStep::SoFar("one two three ".into())).await;
    bed.reply(7, 1, ReplyStep::Delta("four".into())).await;
    bed.reply(7, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.delivered(1).await;
    assert_eq!(bed.server.texts(7), ["one two three four"]);
    // Whether the store got to know of it or not.
    bed.kill().await;
    bed.reply(7, 1, ReplyStep::SoFar("one two three four".into())).await;
    bed.delivered(1).await;
    bed.notice(7, "after").await;
    bed.until_shown(7, &["one two three four", "after"]).await;
}

#[tokio::test]
async fn a_notice_survives_a_kill() {
    let mut bed = Bed::start_killable().await;
    bed.server.fault("sendMessage", 1, Fault::flood(1));
    bed.notice(7, "updated").await;
    bed.until("the refusal", |state| state.calls.iter().any(|call| call.status == Some(429)).then_some(())).await;
    bed.reply(8, 2, ReplyStep::Delta("elsewhere".into())).await;
    bed.reply(8, 2, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.delivered(2).await;
    bed.kill().await;
    bed.until_shown(7, &["updated"]).await;
    assert_eq!(bed.server.texts(8), ["elsewhere"]);
}

#[tokio::test]
async fn a_message_in_flight_at_a_kill_is_marked() {
    let mut bed = Bed::start_killable().await;
    bed.server.fault("sendMessage", 1, Fault::DoneHang);
    bed.notice(7, "hello").await;
    bed.until("the message", |state| (!state.texts(7).is_empty()).then_some(())).await;
    bed.kill().await;
    bed.until_shown(7, &["hello", &format!("{RECOVERED}hello")]).await;
}

#[tokio::test]
async fn a_frozen_task_asks_nothing_of_telegram_and_a_thawed_one_goes_on() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.until_idle().await;
    bed.server.reach(8, Reach::Blocked);
    bed.reply(8, 2, ReplyStep::Delta("into the void".into())).await;
    bed.until("the refusal", |state| state.calls.iter().any(|call| call.status == Some(403)).then_some(())).await;
    bed.reply(7, 1, ReplyStep::Delta("before".into())).await;
    bed.until_shown(7, &["before"]).await;
    bed.freeze(DRAIN).await;
    let calls = bed.server.look(|state| state.calls.len());
    bed.server.say(7, 7, "meanwhile");
    bed.reply(7, 1, ReplyStep::Delta(" and after".into())).await;
    bed.reply(8, 2, ReplyStep::End(ReplyEnd::Complete)).await;
    // All of this runs on one thread, so the task has taken its commands when it has had a few turns.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bed.server.look(|state| state.calls.len()), calls, "a frozen task called Telegram");
    assert!(bed.events.try_recv().is_err(), "an event after the marker");
    bed.command(PlatformCommand::Thaw).await;
    bed.delivered(2).await;
    assert_eq!(bed.inbound().await.text, "meanwhile");
    bed.until_shown(7, &["before and after"]).await;
}

#[tokio::test]
async fn a_poll_that_hangs_holds_up_no_freeze() {
    let server = TelegramServer::start().await;
    server.fault("getUpdates", 1, Fault::Hang);
    let mut bed = Bed::start_with(server);
    bed.until("the hanging poll", |state| state.faults.is_empty().then_some(())).await;
    bed.hand_off(DRAIN).await;
    bed.server.say(7, 7, "hello");
    assert_eq!(bed.inbound().await.text, "hello");
}

#[tokio::test]
async fn edits_of_a_growing_reply_come_about_once_a_second() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    let edited = |n: usize| move |state: &State| (state.calls_of("editMessageText") >= n).then_some(());
    let grow = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            bed.reply(7, 1, ReplyStep::Delta("word ".into())).await;
        }
    };
    tokio::select! {
        () = grow => {}
        () = bed.until("three edits", edited(3)) => {}
    }
    bed.server.look(|state| {
        let versions = &state.messages[0].versions;
        let gaps: Vec<u64> = versions.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).collect();
        // The clock of the task and that of the server may disagree by a rounding.
        assert!(gaps.iter().all(|gap| *gap >= 950), "edits after {gaps:?} ms");
    });
}

#[tokio::test]
async fn a_chat_out_of_reach_ends_its_turn() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    for (turn, reach) in [(1, Reach::Blocked), (2, Reach::NotFound)] {
        bed.server.reach(7, reach);
        bed.reply(7, turn, ReplyStep::Delta("nobody reads this".into())).await;
        bed.reply(7, turn, ReplyStep::End(ReplyEnd::Complete)).await;
        bed.delivered(turn).await;
    }
    bed.server.reach(7, Reach::Moved(-1_000_000_000_007));
    bed.server.say(7, 7, "somebody is here");
    bed.inbound().await;
    bed.notice(7, "moved").await;
    bed.until_shown(-1_000_000_000_007, &["moved"]).await;
}

#[tokio::test]
async fn a_stop_shows_what_there_is() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.notice(7, "goodbye").await;
    bed.reply(-8, 1, ReplyStep::Delta("half an ans".into())).await;
    bed.command(PlatformCommand::Stop { drain: DRAIN, for_a_restart: false }).await;
    bed.event("stopped", |event| matches!(event, PlatformEvent::Stopped { .. }).then_some(())).await;
    assert_eq!((bed.server.texts(7), bed.server.texts(-8)), (vec!["goodbye".into()], vec!["half an ans".into()]));
    assert!(bed.handle.try_send(PlatformCommand::Thaw).is_err() || bed.events.recv().await.is_none());
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

impl Log {
    /// Takes everything that this thread logs, until the guard is dropped.
    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
        tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
    }
}

#[tokio::test]
async fn no_log_line_holds_the_token_or_what_was_said() {
    let log = Log::default();
    let guard = log.capture();
    let server = TelegramServer::start().await;
    let token = server.token();
    for fault in [Fault::refuse(500, &format!("echo bot{token}")), Fault::Malformed] {
        server.fault("sendMessage", 1, fault);
    }
    server.fault("getUpdates", 1, Fault::Reset);
    server.inject(json!({ "message": { "message_id": "a secret word", "text": "a secret word" } }));
    let mut bed = Bed::start_with(server);
    bed.connected().await;
    bed.notice(7, "a secret word").await;
    bed.until_shown(7, &[&format!("{SENT_AGAIN}a secret word")]).await;
    // Nothing listens there any more.
    bed.server.change(|state| state.poller += 1);
    let url = bed.server.url();
    drop(bed.server);
    let dead = config(url.replace("127.0.0.1", "127.0.0.2"), token.clone());
    let (sender, mut events) = mpsc::channel(16);
    let _handle = spawn(dead, Left::default(), bed.store.clone(), sender);
    let told = async {
        loop {
            if let PlatformEvent::Link { state: LinkState::Retrying { error_message, .. }, .. } =
                events.recv().await.expect("the task runs")
            {
                return error_message;
            }
        }
    };
    let message = timeout(DEADLINE, told).await.expect("a refused connection is told");
    drop(guard);
    let log = log.text();
    assert!(log.contains("a message was not delivered and is tried again") && log.contains("an update is malformed"));
    for secret in [token.split_once(':').expect("a token").1, "a secret word"] {
        assert!(!message.contains(secret), "{message}");
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}
