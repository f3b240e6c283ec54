//! The Weixin platform against the test server: nothing lost, nothing twice, in order, and no secret told.

pub mod bed;
mod faults;
mod files;
mod gateway;
mod media;

use hermes_gateway::chat::{ReplyEnd, ReplyStep};
use hermes_gateway::platform::weixin::PLATFORM;
use hermes_gateway::platform::{PlatformCommand, PlatformEvent};
use serde_json::json;

use crate::support::faults::Fault;
use crate::support::weixin::state::{State, Typing};
use bed::{ANN, BOB, Bed, DRAIN, config, launch};

const RECOVERED: &str = "♻️ Recovered reply — the gateway restarted during delivery, so this may be a duplicate:\n";

#[tokio::test]
async fn a_message_comes_in_is_confirmed_and_is_answered_with_its_context() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    assert_eq!(bed.server.look(|state| state.started), 1);
    let ids = [bed.server.say(ANN, "hello"), bed.server.say(ANN, "are you there?")];
    let inbound = [bed.inbound().await, bed.inbound().await];
    assert_eq!(inbound.each_ref().map(|i| i.text.as_str()), ["hello", "are you there?"]);
    assert_eq!(inbound.each_ref().map(|i| i.message_id.clone()), ids.map(|id| id.to_string()));
    assert_eq!((inbound[0].sender.id.as_str(), inbound[0].is_direct), (ANN, true));
    bed.until_idle().await;
    bed.reply(ANN, 1, ReplyStep::Begin).await;
    let shown = |status| Typing { user: ANN.to_owned(), status };
    bed.until("typing", |state| (state.typing == [shown(1)]).then_some(())).await;
    bed.reply(ANN, 1, ReplyStep::Delta("I am".into())).await;
    bed.reply(ANN, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.until_shown(ANN, &["I am"]).await;
    bed.until("no typing", |state| (state.typing == [shown(1), shown(2)]).then_some(())).await;
    let is_latest = bed.server.look(|state| state.sent[0].is_latest_context && state.sent[0].context_token.is_some());
    assert!(is_latest, "the context of the second message");
    bed.all_delivered().await;
    bed.no_complaints();
}

#[tokio::test]
async fn typing_ends_when_it_is_not_shown_anew() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.reply(ANN, 1, ReplyStep::Begin).await;
    bed.until("typing", |state| (!state.typing.is_empty()).then_some(())).await;
    // A frozen task shows nothing anew, as one that has nothing to show.
    bed.command(PlatformCommand::Drain { drain: DRAIN }).await;
    bed.until("no typing", |state| (state.typing.last()?.status == 2).then_some(())).await;
    assert_eq!(bed.server.look(|state| state.calls_of("getconfig")), 1);
    bed.no_complaints();
}

#[tokio::test]
async fn a_context_survives_a_kill_and_a_stale_one_is_left_out() {
    let mut bed = Bed::start_killable().await;
    bed.server.say(ANN, "hello");
    bed.inbound().await;
    bed.until_idle().await;
    bed.kill().await;
    bed.connected().await;
    bed.notice(ANN, "after the kill").await;
    bed.until_shown(ANN, &["after the kill"]).await;
    assert!(bed.server.look(|state| state.sent[0].is_latest_context && state.sent[0].context_token.is_some()));
    bed.server.change(|state| state.stale_contexts.extend(state.contexts.values().cloned().collect::<Vec<_>>()));
    bed.notice(ANN, "too late for it").await;
    bed.until_shown(ANN, &["after the kill", "too late for it"]).await;
    assert_eq!(bed.server.look(|state| state.sent[1].context_token.clone()), None);
    assert_eq!(bed.server.look(|state| state.calls_of("sendmessage")), 3);
    bed.all_delivered().await;
    bed.no_complaints();
}

#[tokio::test]
async fn what_was_stored_and_not_confirmed_comes_again_as_nothing() {
    let mut bed = Bed::start_killable().await;
    for text in ["one", "two", "three"] {
        bed.server.say(ANN, text);
        assert_eq!(bed.inbound().await.text, text);
    }
    bed.until_idle().await;
    // As if each kill had come between the messages and their cursor.
    let account = bed.server.look(|state| state.account.clone());
    for cursor in ["".to_owned(), State::cursor(1), State::cursor(2)] {
        bed.store.set_cursor(PLATFORM, &account, &cursor).await.expect("records");
        let polls = bed.server.look(|state| state.cursors.len());
        bed.kill().await;
        bed.connected().await;
        let asked = bed.until("the next poll", |state| state.cursors.get(polls).cloned()).await;
        assert_eq!(asked, cursor);
        let all = State::cursor(3);
        bed.until("the poll after it", |state| (state.cursors.last() == Some(&all)).then_some(())).await;
        bed.heard_nothing();
    }
    assert_eq!(bed.store.open_turns().await.expect("lists").len(), 3);
    bed.no_complaints();
}

#[tokio::test]
async fn an_answer_that_a_kill_cut_off_comes_again() {
    let mut bed = Bed::start_killable().await;
    bed.until_idle().await;
    bed.server.fault("getupdates", 1, Fault::DoneHang);
    bed.hand_off(DRAIN).await;
    bed.until("the hanging poll", |state| state.faults.is_empty().then_some(())).await;
    bed.server.say(ANN, "hello");
    bed.kill().await;
    assert_eq!(bed.inbound().await.text, "hello");
    bed.until_idle().await;
    bed.heard_nothing();
}

#[tokio::test]
async fn what_the_store_refuses_is_not_confirmed_and_comes_in_later() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.until_idle().await;
    let lock = rusqlite::Connection::open(bed.database()).expect("opens");
    lock.execute_batch("ALTER TABLE inbox RENAME TO hidden").expect("renames");
    bed.server.say(ANN, "hello");
    assert_eq!(bed.trouble().await.0, "store");
    assert_eq!(bed.server.look(|state| state.confirmed), 0);
    lock.execute_batch("ALTER TABLE hidden RENAME TO inbox").expect("renames");
    assert_eq!(bed.inbound().await.text, "hello");
    bed.until_idle().await;
}

#[tokio::test]
async fn a_repeat_after_a_kill_has_the_same_name() {
    let mut bed = Bed::start_killable().await;
    bed.server.fault("sendmessage", 1, Fault::DoneHang);
    bed.notice(ANN, "hello").await;
    bed.until("the message", |state| (!state.sent.is_empty()).then_some(())).await;
    bed.kill().await;
    bed.notice(ANN, "more").await;
    bed.until_shown(ANN, &["hello", &format!("{RECOVERED}hello"), "more"]).await;
    let sent: Vec<_> =
        bed.server.look(|state| state.sent.iter().map(|sent| (sent.client_id.clone(), sent.is_repeat)).collect());
    assert_eq!(sent[0].0, sent[1].0);
    assert_eq!(sent.iter().map(|(_, is_repeat)| *is_repeat).collect::<Vec<_>>(), [false, true, false]);
    bed.all_delivered().await;
    bed.no_complaints();
}

#[tokio::test]
async fn two_databases_have_no_name_in_common() {
    let server = crate::support::weixin::WeixinServer::start().await;
    for text in ["one", "two"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = hermes_gateway::store::Store::open(&dir.path().join("state.db")).expect("opens");
        let (handle, events) = launch(config(&server), &store, None);
        let conversation = hermes_gateway::chat::Conversation::new(PLATFORM, ANN);
        let change = hermes_gateway::store::Change::Notice(conversation.clone(), text.into());
        let entry = store.change(vec![change]).await.expect("records")[0];
        let content = hermes_gateway::chat::OutboundContent::Notice(text.into());
        let outbound = Box::new(hermes_gateway::chat::Outbound { conversation, content });
        handle.send(PlatformCommand::Deliver { outbound, entry }).await.expect("the task runs");
        server.until(text, |state| state.texts(ANN).contains(&text.to_owned()).then_some(())).await;
        drop((handle, events));
    }
    assert!(!server.look(|state| state.sent[1].is_repeat));
}

#[tokio::test]
async fn a_long_text_comes_in_pieces_that_fit_and_are_the_text() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    let text: String = (0..900).map(|n| format!("word{n:03} ")).collect::<String>() + &"😀".repeat(2500);
    bed.reply(ANN, 1, ReplyStep::Delta(text.clone())).await;
    bed.reply(ANN, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.all_delivered().await;
    let texts = bed.server.texts(ANN);
    assert_eq!(texts.concat(), text);
    assert!((5..=7).contains(&texts.len()) && texts.iter().all(|text| text.chars().count() <= 2000), "{}", texts.len());
    assert!(bed.server.look(|state| state.sent.iter().all(|sent| !sent.is_repeat)));
    bed.no_complaints();
}

#[tokio::test]
async fn a_frozen_task_asks_nothing_of_weixin_and_a_thawed_one_goes_on() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.until_idle().await;
    bed.freeze(DRAIN).await;
    let calls = bed.server.look(|state| state.calls.len());
    bed.server.say(ANN, "meanwhile");
    bed.notice(BOB, "later").await;
    // All of this runs on one thread, so the task has taken its commands when it has had a few turns.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bed.server.look(|state| state.calls.len()), calls, "a frozen task called Weixin");
    assert!(bed.events.try_recv().is_err(), "an event after the marker");
    bed.command(PlatformCommand::Thaw).await;
    assert_eq!(bed.inbound().await.text, "meanwhile");
    bed.until_shown(BOB, &["later"]).await;
    bed.no_complaints();
}

#[tokio::test]
async fn a_reply_goes_on_over_handoffs_as_if_nothing_had_been() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    let paragraphs: Vec<String> = (0..6).map(|n| format!("{n} {}\n\n", "word ".repeat(60))).collect();
    for paragraph in &paragraphs {
        bed.server.say(BOB, paragraph);
        bed.reply(ANN, 1, ReplyStep::Delta(paragraph.clone())).await;
        bed.hand_off(DRAIN).await;
    }
    bed.until_idle().await;
    // Theirs, and the one that is answered.
    assert_eq!(bed.store.open_turns().await.expect("lists").len(), paragraphs.len() + 1);
    bed.reply(ANN, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.all_delivered().await;
    let squeeze = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(squeeze(bed.server.texts(ANN).concat()), squeeze(paragraphs.concat()));
    bed.no_complaints();
}

#[tokio::test]
async fn a_stop_shows_what_there_is_and_says_good_bye() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.notice(ANN, "goodbye").await;
    bed.reply(BOB, 1, ReplyStep::Delta("an answer".into())).await;
    bed.reply(BOB, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.command(PlatformCommand::Stop { drain: DRAIN, for_a_restart: false }).await;
    bed.event("stopped", |event| matches!(event, PlatformEvent::Stopped { .. }).then_some(())).await;
    assert_eq!((bed.server.texts(ANN), bed.server.texts(BOB)), (vec!["goodbye".into()], vec!["an answer".into()]));
    bed.until("the good-bye", |state| (state.stopped == 1).then_some(())).await;
    bed.no_complaints();
}

#[tokio::test]
async fn a_poll_that_nobody_answers_is_an_empty_one() {
    let server = crate::support::weixin::WeixinServer::start().await;
    server.change(|state| state.longpolling_timeout_ms = Some(1000));
    server.say(ANN, "hello");
    let mut bed = Bed::start_with(server);
    bed.connected().await;
    bed.inbound().await;
    let cursor = State::cursor(1);
    let again = |state: &State| (state.cursors.iter().filter(|asked| **asked == cursor).count() >= 3).then_some(());
    bed.until("the same cursor again", again).await;
    while let Ok(event) = bed.events.try_recv() {
        assert!(!matches!(event, PlatformEvent::Link { .. }), "{event:?}");
    }
    bed.server.say(ANN, "again");
    assert_eq!(bed.inbound().await.text, "again");
    // After a few of them the service is asked whether it is there.
    bed.until("a second word", |state| (state.started == 2).then_some(())).await;
    bed.no_complaints();
}

#[tokio::test]
async fn a_service_without_notifystart_is_polled_all_the_same() {
    let server = crate::support::weixin::WeixinServer::start().await;
    server.fault("notifystart", 9, Fault::Html { code: 404 });
    let mut bed = Bed::start_with(server);
    bed.connected().await;
    bed.server.say(ANN, "hello");
    assert_eq!(bed.inbound().await.text, "hello");
    assert_eq!(bed.server.look(|state| state.calls_of("notifystart")), 1);
}

#[tokio::test]
async fn messages_that_cannot_be_read_hold_nothing_up() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.server.change(|state| {
        for broken in [json!(7), json!({ "from_user_id": ANN }), json!({ "from_user_id": 5, "item_list": {} })] {
            state.msgs.push(broken);
        }
        state.say(ANN, "hello");
    });
    assert_eq!(bed.inbound().await.text, "hello");
    bed.until_idle().await;
    bed.no_complaints();
}
