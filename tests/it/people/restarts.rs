//! The word to chats that waited when the gateway was started anew.

use hermes_gateway::control::proto::HandoffKind;

use super::{ADMIN, USER, connected, start, until_says};
use crate::support::gateway::{Gateway, expected_stream, stream_prompt};
use crate::support::telegram::TelegramServer;
use crate::support::telegram::faults::Fault;

const RESTARTED: &str = "♻ Gateway restarted (on request). Your answer goes on.";
const CHUNKS: usize = 60;

/// A turn that runs in the chat of the user, long enough to be carried.
async fn a_turn_runs(telegram: &TelegramServer, gateway: &Gateway, chat: i64) {
    telegram.say(USER, chat, &stream_prompt(CHUNKS, 20, 50));
    let conversation = format!("telegram:{chat}");
    gateway
        .wait_until("a turn runs", async |status| {
            status.agents.iter().flat_map(|agent| &agent.turns).any(|turn| turn.conversation == conversation)
        })
        .await;
}

fn words(telegram: &TelegramServer, chat: i64) -> Vec<String> {
    telegram.texts(chat).into_iter().filter(|text| text.contains("Gateway ")).collect()
}

/// Waits until the whole answer is there, beside the gateway's words.
async fn answered(telegram: &TelegramServer, chat: i64) {
    let expected = expected_stream(CHUNKS, 20);
    telegram
        .until("the whole answer", |state| {
            let texts = state.texts(chat);
            texts.iter().filter(|text| !text.contains("Gateway ")).any(|text| text.contains(&expected)).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_chat_that_waits_is_told_once_of_each_restart_and_others_are_not() {
    let (telegram, gateway) = start("").await;
    telegram.say(USER, 7001, "over before");
    until_says(&telegram, 7001, "over before").await;
    a_turn_runs(&telegram, &gateway, USER).await;
    gateway.handoff(HandoffKind::Restart).await.expect("hands over");
    until_says(&telegram, USER, RESTARTED).await;
    gateway.handoff(HandoffKind::Reload).await.expect("hands over");
    until_says(&telegram, USER, "♻ Gateway restarted (configuration read anew). Your answer goes on.").await;
    answered(&telegram, USER).await;
    assert_eq!(words(&telegram, USER).len(), 2, "one for each");
    assert_eq!(telegram.texts(7001), ["over before"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_a_restart_is_told_how_it_went_and_nothing_else() {
    let (telegram, gateway) = start("").await;
    telegram.say(ADMIN, ADMIN, &stream_prompt(CHUNKS, 20, 50));
    a_turn_runs(&telegram, &gateway, USER).await;
    telegram.say(ADMIN, ADMIN, "/restart");
    until_says(&telegram, ADMIN, "♻ restarted 1.0.0, same process").await;
    until_says(&telegram, USER, RESTARTED).await;
    answered(&telegram, ADMIN).await;
    assert_eq!(words(&telegram, ADMIN), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_that_come_before_the_link_is_up_are_told_as_one() {
    let (telegram, mut gateway) = start("").await;
    a_turn_runs(&telegram, &gateway, USER).await;
    // No poll succeeds, and nothing of the answer that grows is taken, so no link is up.
    for method in ["getUpdates", "getMe", "sendMessage", "sendMessageDraft", "editMessageText"] {
        telegram.fault(method, 10_000, Fault::Html { code: 502 });
    }
    for _ in 0..3 {
        gateway.handoff(HandoffKind::Restart).await.expect("hands over");
    }
    gateway.kill_and_start().await;
    gateway.handoff(HandoffKind::Reload).await.expect("hands over");
    assert_eq!(words(&telegram, USER), [""; 0]);
    telegram.change(|state| state.faults.clear());
    connected(&gateway).await;
    until_says(&telegram, USER, "Gateway ").await;
    telegram.say(USER, USER, "/status");
    until_says(&telegram, USER, "PID ").await;
    assert_eq!(words(&telegram, USER).len(), 1, "{:?}", words(&telegram, USER));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_and_a_stop_are_told_as_what_they_were() {
    let (telegram, mut gateway) = start("").await;
    a_turn_runs(&telegram, &gateway, USER).await;
    telegram.say(USER, USER, "waits");
    gateway.wait_until("it waits", async |status| status.queued_turns == 1).await;
    gateway.kill_and_start().await;
    until_says(&telegram, USER, "♻ Gateway was started anew after a crash. Your answer goes on.").await;
    until_says(&telegram, USER, "waits").await;
    a_turn_runs(&telegram, &gateway, USER).await;
    telegram.say(USER, USER, "waits, too");
    gateway.wait_until("it waits", async |status| status.queued_turns == 1).await;
    gateway.terminate();
    gateway.start_again().await;
    until_says(&telegram, USER, "♻ Gateway restarted (its service was restarted). Your answer goes on.").await;
    until_says(&telegram, USER, "waits, too").await;
    assert_eq!(words(&telegram, USER).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_where_that_is_not_wanted() {
    let (telegram, mut gateway) = start("gateway_restart_notification = false").await;
    a_turn_runs(&telegram, &gateway, USER).await;
    gateway.handoff(HandoffKind::Restart).await.expect("hands over");
    connected(&gateway).await;
    answered(&telegram, USER).await;
    gateway.kill_and_start().await;
    telegram.say(USER, USER, "after");
    until_says(&telegram, USER, "after").await;
    assert_eq!(words(&telegram, USER), [""; 0]);
}
