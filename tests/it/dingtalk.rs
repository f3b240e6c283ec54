//! DingTalk's messages, each of which is pushed once: over handoffs, kills, updates and whatever becomes of connections.

use std::collections::BTreeMap;
use std::time::Duration;

use hermes_gateway::chat::LinkState;
use hermes_gateway::platform::dingtalk::PLATFORM;
use hermes_gateway::platform::{PlatformCommand, PlatformEvent};

use crate::dingtalk_api::bed::{ANN, Bed, DEADLINE};
use crate::support::dingtalk::pusher::Plan;
use crate::support::dingtalk::state::Phase;

const HANDOFFS: usize = 100;

fn plan() -> Plan {
    Plan { user: ANN.to_owned(), group: None, prefix: "push ".to_owned(), every_ms: 20, times: None }
}

/// Until everything that was pushed is stored, and each of it once.
async fn all_stored_once(bed: &mut Bed) -> usize {
    let said: Vec<String> = bed.server.look(|state| state.pushes.iter().filter_map(|push| push.text.clone()).collect());
    // What is pushed at the end of a connection is stored and can be acknowledged no more.
    let all = async {
        while bed.store.open_turns().await.expect("lists").len() < said.len() {
            bed.inbound().await;
        }
    };
    tokio::time::timeout(DEADLINE, all).await.expect("all is stored in time");
    let stored = bed.store.open_turns().await.expect("lists");
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for turn in &stored {
        *times.entry(turn.inbound.text.as_str()).or_default() += 1;
    }
    for text in &said {
        assert_eq!(times.get(text.as_str()), Some(&1), "{text}");
    }
    assert_eq!(stored.len(), said.len());
    bed.no_complaints();
    said.len()
}

#[tokio::test]
async fn a_push_every_20_ms_over_100_handoffs_comes_in_once() {
    let mut bed = Bed::start().await;
    let pusher = bed.server.pusher(plan());
    for _ in 0..HANDOFFS {
        bed.inbound().await;
        bed.hand_off().await;
    }
    bed.inbound().await;
    drop(pusher);
    let pushed = all_stored_once(&mut bed).await;
    assert!(pushed >= HANDOFFS, "{pushed}");
    assert_eq!(bed.conduits(), 1);
    assert_eq!(bed.server.look(|state| state.connections.len()), 1, "it was one connection all the time");
}

/// Otherwise an update that comes meanwhile would be taken back, because DingTalk does not answer it.
#[tokio::test]
async fn a_connection_is_known_again_while_too_much_waits_to_be_sent() {
    // More than are taken in beside; DingTalk is sent 16 a second.
    const WAITING: usize = 1200;
    let mut bed = Bed::start().await;
    for number in 0..WAITING {
        bed.notice(&format!("cid-of-group-{number}"), "waits").await;
    }
    bed.hand_off().await;
    bed.connected().await;
    bed.server.say(ANN, "is heard when there is room");
    bed.command(PlatformCommand::Proven).await;
    bed.until("a fresh connection takes over", |state| {
        let is_over = |id: usize| state.connections.get(id).map(|connection| connection.phase == Phase::Closed);
        (is_over(0) == Some(true) && is_over(1) == Some(false)).then_some(())
    })
    .await;
    assert_eq!(bed.heard.len(), 0, "nothing is taken in");
    bed.no_complaints();
}

#[tokio::test]
async fn what_is_pushed_while_the_gateway_is_killed_comes_in_once() {
    let mut bed = Bed::start().await;
    let pusher = bed.server.pusher(plan());
    for _ in 0..30 {
        bed.inbound().await;
        bed.kill();
    }
    bed.connected().await;
    bed.inbound().await;
    drop(pusher);
    all_stored_once(&mut bed).await;
    assert_eq!(bed.server.look(|state| state.connections.len()), 1, "it was one connection all the time");
}

#[tokio::test]
async fn a_fresh_conduit_takes_over_after_an_update_and_nothing_is_missed() {
    let mut bed = Bed::start().await;
    let pusher = bed.server.pusher(plan());
    for round in 1..=5usize {
        bed.inbound().await;
        bed.command(PlatformCommand::Proven).await;
        // The handoff may come at any moment of it.
        if round % 2 == 0 {
            bed.hand_off().await;
        }
        let wanted = round + 1;
        while bed.server.look(|state| state.connections.len()) < wanted || bed.conduits() != 1 {
            bed.inbound().await;
        }
    }
    drop(pusher);
    all_stored_once(&mut bed).await;
    assert_eq!(bed.server.look(|state| state.open_connections().count()), 1);
}

#[tokio::test]
async fn a_connection_that_is_told_to_go_is_followed_by_another_first() {
    let mut bed = Bed::start().await;
    let pusher = bed.server.pusher(plan());
    for has_message_id in [true, false] {
        bed.inbound().await;
        let before = bed.server.look(|state| state.connections.len());
        bed.server.change(|state| {
            let open: Vec<u64> = state.open_connections().map(|connection| connection.id).collect();
            open.into_iter().for_each(|id| state.disconnect(id, has_message_id, 10_000));
        });
        bed.until("another connection", |state| (state.connections.len() > before).then_some(())).await;
    }
    bed.until("one connection", |state| (state.open_connections().count() == 1).then_some(())).await;
    bed.inbound().await;
    drop(pusher);
    // Between the word to go and the new connection there was nobody to push to.
    let unpushable = bed.server.change(|state| {
        let before = state.pushes.len();
        state.pushes.retain(|push| push.text.is_none() || push.to.is_some());
        before - state.pushes.len()
    });
    all_stored_once(&mut bed).await;
    assert!(unpushable < 200, "{unpushable} had no connection");
}

#[tokio::test]
async fn a_broken_connection_is_made_anew_and_a_refused_account_is_told() {
    let mut bed = Bed::start().await;
    bed.server.change(|state| state.break_all());
    bed.event("trouble", |event| match event {
        PlatformEvent::Link { state: LinkState::Retrying { .. } | LinkState::Connecting, .. } => Some(()),
        _ => None,
    })
    .await;
    bed.connected().await;
    let (_, chat) = bed.asked().await;
    assert!(!chat.is_empty());
}

#[tokio::test]
async fn a_pause_ends_the_connection_and_a_resume_makes_one() {
    let mut bed = Bed::start().await;
    bed.command(PlatformCommand::Pause).await;
    bed.link(LinkState::Paused).await;
    bed.until("no connection", |state| (state.open_connections().count() == 0).then_some(())).await;
    bed.command(PlatformCommand::Resume).await;
    bed.connected().await;
    bed.asked().await;
}

#[tokio::test]
async fn a_stop_stores_what_is_on_its_way_and_leaves_no_process() {
    let mut bed = Bed::start().await;
    let pusher = bed.server.pusher(plan());
    bed.inbound().await;
    bed.command(PlatformCommand::Stop { drain: Duration::from_secs(5), for_a_restart: false }).await;
    bed.event("stopped", |event| matches!(event, PlatformEvent::Stopped { .. }).then_some(())).await;
    drop(pusher);
    assert_eq!(bed.server.look(|state| state.open_connections().count()), 0);
    let (written, acked) = bed.server.look(|state| {
        let pushes = state.pushes.iter().filter(|push| push.text.is_some());
        let written = pushes.clone().filter(|push| push.is_written).count();
        (written, pushes.filter(|push| push.is_acked()).count())
    });
    let stored = bed.store.open_turns().await.expect("lists").len();
    assert!(stored >= acked && stored == written, "{written} pushed, {acked} acknowledged, {stored} stored");
    assert_eq!(bed.store.outbox(PLATFORM).await.expect("reads").entries.len(), 0);
}
