//! Who holds a handoff up is named, with how long it has and how long it may; force does not wait for it.

use hermes_gateway::control::proto::{self, HandoffKind, HandoffParams, Progress};
use hermes_gateway::jsonrpc::Message;

use super::{USER, assert_no_panic, start, telegram_config};
use crate::support::gateway::{Gateway, SOON};
use crate::support::telegram::TelegramServer;
use crate::support::telegram::faults::Fault;

/// A gateway whose next send to Telegram hangs.
async fn hanging(telegram: &TelegramServer, drain: &str) -> Gateway {
    let config = format!("[gateway]\nrestart_drain_timeout = \"{drain}\"\n{}", telegram_config(telegram));
    let gateway = start(&config).await;
    telegram.fault("sendMessage", 1, Fault::Hang);
    telegram.say(USER, USER, "hello");
    telegram
        .until("a send hangs", |state| state.calls.iter().find(|call| call.method == "sendMessage").map(|_| ()))
        .await;
    gateway
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_hangs_is_named_in_status_journal_and_chat() {
    let telegram = TelegramServer::start().await;
    let gateway = hanging(&telegram, "5s").await;
    let mut asking = gateway.client().await;
    let params = HandoffParams { kind: HandoffKind::Restart, force: false, reason: None };
    let asked = asking.send(proto::HANDOFF, &params).await.expect("sends");
    let mut waiting = None;
    gateway
        .wait_until("the status names it", async |status| {
            waiting = status.waiting_for.clone();
            waiting.is_some()
        })
        .await;
    let waiting = waiting.expect("it was waited for");
    assert!(waiting.starts_with("platform 'telegram' (") && waiting.contains("s so far, at most"), "{waiting}");
    let told = loop {
        match tokio::time::timeout(SOON, asking.receive()).await.expect("in time").expect("the connection stays") {
            Message::Notification { method, params } if method == proto::PROGRESS => {
                let progress: Progress = serde_json::from_value(params).expect("a progress");
                if progress.phase == "drain" {
                    break progress.message;
                }
            }
            Message::Response { outcome, .. } => panic!("it was over before the holder was named: {outcome:?}"),
            _ => {}
        }
    };
    assert!(told.starts_with("Waiting for platform 'telegram' ("), "{told}");
    loop {
        let received = tokio::time::timeout(SOON, asking.receive()).await.expect("in time");
        if let Message::Response { id, outcome } = received.expect("the connection stays") {
            assert_eq!(id, asked);
            outcome.expect("the handoff happens all the same");
            break;
        }
    }
    assert_eq!(gateway.status().await.waiting_for, None);
    assert!(gateway.log().contains("the handoff waits for sends in flight"), "{}", gateway.log());
    assert_no_panic(&gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn force_does_not_wait_for_it() {
    let telegram = TelegramServer::start().await;
    let gateway = hanging(&telegram, "10m").await;
    let mut chat = gateway.chat("main").await;
    chat.say("/restart force").await;
    tokio::time::timeout(SOON, chat.notice("♻ restarted 1.0.0, same process")).await.expect("without waiting");
    assert_eq!(gateway.status().await.generation, 1);
    assert_no_panic(&gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn force_ends_the_waiting_of_a_restart_that_is_under_way() {
    let telegram = TelegramServer::start().await;
    let gateway = hanging(&telegram, "10m").await;
    let mut chat = gateway.chat("main").await;
    chat.say("/restart").await;
    tokio::time::timeout(SOON, chat.notice("Waiting for platform 'telegram' (")).await.expect("it is told");
    chat.say("/restart").await;
    let told = chat.notice("⏳ Not now: a restart asked for by").await;
    assert!(!told.contains("any more"), "{told}");
    chat.say("/restart force").await;
    tokio::time::timeout(SOON, chat.notice("and waits for nothing any more")).await.expect("it is told");
    tokio::time::timeout(SOON, chat.notice("♻ restarted 1.0.0, same process")).await.expect("without waiting");
    assert_eq!(gateway.status().await.generation, 1);
    assert_no_panic(&gateway);
}
