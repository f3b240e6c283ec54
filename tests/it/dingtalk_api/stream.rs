//! What comes in: nothing is lost and nothing comes twice, whatever DingTalk does with its connections.

use std::collections::BTreeSet;

use serde_json::json;

use super::bed::{ANN, Bed};
use crate::support::dingtalk::pusher::Plan;
use crate::support::dingtalk::state::{Phase, State};

/// Somebody writes every few milliseconds while `trouble` is made. What DingTalk pushes to a connection comes in once, and
/// it pushes nearly all of it: only while none is open nothing can come.
async fn nothing_is_lost_while(trouble: impl AsyncFnOnce(&mut Bed)) {
    const TIMES: usize = 500;
    let mut bed = Bed::start().await;
    let (user, prefix, times) = (ANN.to_owned(), "m".to_owned(), u64::try_from(TIMES).ok());
    let pusher = bed.server.pusher(Plan { user, group: None, prefix, every_ms: 10, times });
    trouble(&mut bed).await;
    bed.until("all is said", |state| (state.pushes.iter().filter(|p| p.text.is_some()).count() == TIMES).then_some(()))
        .await;
    drop(pusher);
    let pushed: BTreeSet<String> = bed.server.look(|state| {
        let pushed = state.pushes.iter().filter(|push| push.to.is_some());
        pushed.filter_map(|push| push.text.clone()).collect()
    });
    let mut texts = Vec::new();
    while texts.len() < pushed.len() {
        texts.push(bed.inbound().await.1.text);
    }
    assert_eq!(BTreeSet::from_iter(texts), pushed);
    assert!(pushed.len() > TIMES / 2, "DingTalk had no connection for most of the time: {}", pushed.len());
    let acked = |state: &State| state.lost().iter().all(|push| push.to.is_none()).then_some(());
    bed.until("all are acknowledged", acked).await;
    bed.no_complaints();
}

#[tokio::test]
async fn a_connection_that_is_told_to_go_is_replaced_before_anything_is_lost() {
    nothing_is_lost_while(async |bed| {
        for has_message_id in [true, false] {
            let used = |state: &State, id| state.pushes.iter().filter(|push| push.to == Some(id)).count();
            // It has served for more than a second: so often may one be opened.
            let id = bed
                .until("a connection in use", |state| {
                    state.open_connections().map(|c| c.id).find(|id| used(state, *id) >= 120)
                })
                .await;
            // DingTalk keeps it for 10 s, and pushes nothing there any more.
            bed.server.change(|state| state.disconnect(id, has_message_id, 10_000));
            bed.until("the next one", |state| state.open_connections().any(|c| c.id > id).then_some(())).await;
        }
    })
    .await;
}

#[tokio::test]
async fn answers_go_back_on_the_connection_of_their_message() {
    let mut bed = Bed::start().await;
    let first = bed.until("a connection", |state| state.open_connections().last().map(|c| c.id)).await;
    bed.server.say(ANN, "to the first");
    bed.server.change(|state| state.disconnect(first, true, 10_000));
    assert_eq!(bed.inbound().await.1.text, "to the first");
    bed.until("the second", |state| state.open_connections().any(|c| c.id > first).then_some(())).await;
    bed.server.say(ANN, "to the second");
    assert_eq!(bed.inbound().await.1.text, "to the second");
    bed.until("the answers", |state| state.lost().is_empty().then_some(())).await;
    bed.until("the first is closed", |state| (state.connections[0].phase == Phase::Closed).then_some(())).await;
    bed.no_complaints();
}

#[tokio::test]
async fn pings_are_echoed_and_unknown_words_are_passed_over() {
    let mut bed = Bed::start().await;
    let (id, nothing) = (Some(1), json!({}));
    let ping = bed.server.change(|state| {
        for topic in ["CONNECTED", "REGISTERED", "KEEPALIVE", "of-another-day"] {
            state.push_to(id, "SYSTEM", topic, &json!({ "messageId": null }), &nothing, None);
        }
        state.push_to(id, "OTHER", "of-another-day", &nothing, &nothing, None);
        state.has_number_times = true;
        state.push_to(id, "SYSTEM", "ping", &nothing, &json!({ "opaque": "0d5c a" }), None)
    });
    let acks = bed
        .until("an echo", |state| {
            let push = state.pushes.iter().find(|push| push.message_id == ping)?;
            (!push.acks.is_empty()).then(|| push.acks.clone())
        })
        .await;
    assert_eq!((acks[0].code, acks[0].data.as_str()), (200, r#"{"opaque":"0d5c a"}"#));
    bed.server.say(ANN, "after them");
    assert_eq!(bed.inbound().await.1.text, "after them");
    assert_eq!(bed.server.look(|state| state.connections.len()), 1);
    bed.no_complaints();
}

#[tokio::test]
async fn events_and_what_is_not_asked_for_are_answered_and_come_no_more() {
    let mut bed = Bed::start().await;
    let event = bed.server.event("user_add_org", json!({ "userId": ["u1"] }));
    let card = bed.server.change(|state| {
        state.push_to(Some(1), "CALLBACK", "/v1.0/card/instances/callback", &json!({}), &json!({}), None)
    });
    bed.server.say(ANN, "after them");
    assert_eq!(bed.inbound().await.1.text, "after them");
    let codes = bed
        .until("answers to all", |state| {
            let codes: Vec<_> = state.pushes.iter().filter_map(|push| Some(push.acks.first()?.code)).collect();
            (codes.len() == 3).then_some(codes)
        })
        .await;
    assert_eq!(codes.iter().filter(|code| **code == 200).count(), 2);
    let refused =
        bed.server.look(|state| state.pushes.iter().find(|push| push.message_id == card)?.acks.first().cloned());
    assert_eq!(refused.map(|ack| ack.code), Some(404), "{event}");
    bed.no_complaints();
}

#[tokio::test]
async fn a_connection_that_breaks_is_opened_again() {
    let mut bed = Bed::start().await;
    bed.server.change(State::break_all);
    bed.until("another", |state| state.open_connections().next().map(drop)).await;
    bed.server.say(ANN, "again");
    assert_eq!(bed.inbound().await.1.text, "again");
    assert!(bed.server.look(|state| state.tickets.values().all(|ticket| ticket.is_used)), "a ticket for nothing");
    bed.no_complaints();
}
