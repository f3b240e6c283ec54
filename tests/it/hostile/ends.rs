//! Ends at every moment: SIGTERM is always an orderly stop, SIGKILL costs no accepted message, and one home has one
//! gateway.

use std::path::Path;
use std::time::Duration;

use hermes_gateway::chat::{OutboundContent, ReplyEnd, ReplyStep};
use hermes_gateway::control::client::Client;
use hermes_gateway::control::proto::{self, HandoffKind, HandoffParams, HandoffReport};
use nix::sys::signal::Signal;

use super::{ECHO, USER, assert_no_panic, echoes, start, telegram_config};
use crate::support::gateway::{Gateway, SOON, stream_prompt};
use crate::support::telegram::TelegramServer;

/// Restarts the gateway again and again, and lets `end` happen to it after a while.
async fn end_within_restarts(gateway: &Gateway, after: Duration, signal: Signal) {
    let params = HandoffParams { kind: HandoffKind::Restart, force: false, reason: None };
    let restarts = async {
        while let Ok(mut client) = Client::connect(&gateway.socket()).await
            && client.request::<HandoffReport>(proto::HANDOFF, &params, SOON, |_, _| {}).await.is_ok()
        {}
    };
    let end = async {
        // The moment is the input of the test: any is as good as another.
        tokio::time::sleep(after).await;
        gateway.signal(signal);
    };
    tokio::join!(restarts, end);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_within_a_handoff_is_an_orderly_stop() {
    let mut gateway = start(ECHO).await;
    for round in 0..20_u64 {
        let agent = gateway.agent_pid("default").await;
        end_within_restarts(&gateway, Duration::from_millis(round * 17), Signal::SIGTERM).await;
        assert_eq!(gateway.wait().code(), Some(0), "round {round}\n{}", gateway.log());
        let state = gateway.state_file();
        assert_eq!((&state["gateway_state"], &state["handoff"]), (&"stopped".into(), &serde_json::Value::Null));
        assert!(!Path::new(&format!("/proc/{agent}")).exists(), "round {round}: the agent is left behind");
        gateway.start_again().await;
    }
    assert_no_panic(&gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_within_a_handoff_leaves_nothing_that_hinders_a_start() {
    let mut gateway = start(ECHO).await;
    for round in 0..20_u64 {
        end_within_restarts(&gateway, Duration::from_millis(round * 13), Signal::SIGKILL).await;
        assert_eq!(gateway.wait().code(), None);
        gateway.start_again().await;
        let state = gateway.state_file();
        assert_eq!((&state["gateway_state"], &state["pid"]), (&"running".into(), &gateway.pid().into()), "{round}");
        // The echo agent keeps no sessions, so an earlier chat would be told of the loss of its own.
        let mut chat = gateway.chat(&format!("round-{round}")).await;
        echoes(&mut chat, "serves").await;
    }
    assert_no_panic(&gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_sigkill_what_waited_is_asked_and_what_ran_is_told() {
    let telegram = TelegramServer::start().await;
    let mut gateway = start(&telegram_config(&telegram)).await;
    telegram.say(USER, 7000, &stream_prompt(1000, 20, 20));
    telegram.until("the answer begins", |state| state.in_chat(7000).next().map(|_| ())).await;
    telegram.say(USER, 7000, "waits");
    let mut chat = gateway.chat("main").await;
    chat.say(&stream_prompt(1000, 20, 20)).await;
    chat.say("waits, too").await;
    gateway
        .wait_until("two turns run and two wait", async |status| {
            status.queued_turns == 2 && status.agents[0].turns.len() == 2
        })
        .await;
    gateway.signal(Signal::SIGKILL);
    gateway.wait();
    gateway.start_again().await;

    let lost = "the gateway was killed while your message was being answered, and the rest of the answer is lost; \
                /retry asks again";
    telegram
        .until("both", |state| {
            let texts = state.texts(7000);
            (texts.iter().any(|text| text.ends_with(lost)) && texts.iter().any(|text| text == "waits")).then_some(())
        })
        .await;
    let mut chat = gateway.chat("main").await;
    let (mut told, mut answered) = (false, String::new());
    while !told || answered != "waits, too" {
        match chat.next().await {
            OutboundContent::Reply { step: ReplyStep::End(ReplyEnd::Failed(text)), .. } => told |= text == lost,
            OutboundContent::Reply { step: ReplyStep::Delta(text), .. } => answered.push_str(&text),
            OutboundContent::Notice(_) | OutboundContent::Reply { .. } => {}
        }
    }
    let status = gateway.status().await;
    assert_eq!((status.queued_turns, status.generation), (0, 0));
    assert_no_panic(&gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_on_one_home_is_told_which_process_the_first_is() {
    let gateway = start(ECHO).await;
    for round in 0..2 {
        let output = gateway.cli(&["gateway", "run"]).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let told = format!(
            "error: the gateway cannot run: cannot be the only gateway on this home: a gateway already runs on this \
             home: process {} holds {}\n",
            gateway.pid(),
            gateway.home().join("gateway.lock").display()
        );
        assert!(stderr.contains(&told), "{stderr}");
        assert_eq!(gateway.status().await.generation, round);
        gateway.handoff(HandoffKind::Restart).await.expect("the lock is carried");
    }
    assert_no_panic(&gateway);
}
