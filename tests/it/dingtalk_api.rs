//! How DingTalk's chats are answered, against the test server: which way, in which form, and what comes of faults.

pub mod bed;
mod faults;
mod files;
mod pictures;
mod stream;

use hermes_gateway::chat::{ReplyEnd, ReplyStep};
use serde_json::{Value, json};

use crate::support::dingtalk::state::Sent;
use bed::{ANN, Bed, GROUP};

fn sent(bed: &Bed) -> Vec<Sent> {
    bed.server.look(|state| state.sent.clone())
}

#[tokio::test]
async fn words_of_the_gateway_are_text_and_words_of_agents_are_markdown_with_a_title() {
    let mut bed = Bed::start().await;
    let (turn, chat) = bed.asked().await;
    bed.notice(&chat, "# a notice").await;
    bed.until_shown(&chat, &["# a notice"]).await;
    bed.reply(&chat, turn, "## The **answer**\n\nis 42").await;
    bed.until_shown(&chat, &["# a notice", "## The **answer**\n\nis 42"]).await;
    let seen: Vec<_> = sent(&bed).into_iter().map(|s| (s.way, s.format, s.title, s.at)).collect();
    let wanted = [("text", ""), ("markdown", "The **answer")];
    let wanted = wanted.map(|(format, title)| ("session".to_owned(), format.to_owned(), title.to_owned(), vec![]));
    assert_eq!(seen, wanted);
    bed.all_over().await;
    bed.no_complaints();
}

#[tokio::test]
async fn in_a_group_whoever_asked_is_called() {
    let mut bed = Bed::start().await;
    let turn = bed.asked_in_group().await;
    bed.reply(GROUP, turn, "an answer").await;
    bed.until_shown(GROUP, &["an answer"]).await;
    assert_eq!(sent(&bed)[0].at, [ANN]);
    bed.no_complaints();
}

#[tokio::test]
async fn a_chat_whose_webhook_is_over_is_written_to_without_being_asked() {
    let mut bed = Bed::start().await;
    // Good for a moment only, and so not used at all.
    bed.server.change(|state| state.webhook_ms = 30_000);
    let (turn, chat) = bed.asked().await;
    bed.reply(&chat, turn, "an answer").await;
    bed.until_shown(&chat, &["an answer"]).await;
    let turn = bed.asked_in_group().await;
    bed.reply(GROUP, turn, "an answer").await;
    bed.until_shown(GROUP, &["an answer"]).await;
    assert_eq!((bed.ways(&chat), bed.ways(GROUP)), (vec!["single".to_owned()], vec!["group".to_owned()]));
    assert_eq!(bed.server.look(|state| state.calls_of("sendBySession")), 0);
    // The message after it has a webhook again.
    bed.server.change(|state| state.webhook_ms = 5_400_000);
    let (turn, chat) = bed.asked().await;
    bed.reply(&chat, turn, "another").await;
    bed.until_shown(&chat, &["an answer", "another"]).await;
    assert_eq!(bed.ways(&chat)[1], "session");
    // One token was enough.
    assert_eq!(bed.server.look(|state| state.calls_of("oauth2/accessToken")), 1);
    bed.no_complaints();
}

#[tokio::test]
async fn somebody_from_outside_is_answered_by_webhook_only_and_holds_nobody_up() {
    let mut bed = Bed::start().await;
    bed.server.change(|state| {
        let fields = json!({ "senderStaffId": null });
        let user = "outsider".to_owned();
        state.say(&crate::support::dingtalk::people::Say { user, text: "hi".to_owned(), fields, ..Default::default() })
    });
    let (turn, inbound) = bed.inbound().await;
    let chat = inbound.conversation.chat;
    assert_eq!(inbound.sender.id, "$:LWCP_v1:$outsider");
    bed.reply(&chat, turn, "an answer").await;
    bed.until_shown(&chat, &["an answer"]).await;
    bed.no_complaints();
    // Nobody can be named later on: the group that it is tried as is not there, and what is said is given up.
    bed.server.change(|state| {
        state.expire_webhooks();
        state.unknown_groups.insert(chat.clone());
    });
    bed.notice(&chat, "too late").await;
    bed.all_over().await;
    assert_eq!(bed.server.texts(&chat), ["an answer"]);
}

#[tokio::test]
async fn without_a_card_a_reply_grows_by_whole_paragraphs() {
    let mut bed = Bed::start().await;
    let (turn, chat) = bed.asked().await;
    bed.step(&chat, turn, ReplyStep::Delta("First paragraph.\n\nThe sec".to_owned())).await;
    bed.until_shown(&chat, &["First paragraph."]).await;
    bed.step(&chat, turn, ReplyStep::Delta("ond.".to_owned())).await;
    bed.step(&chat, turn, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.until_shown(&chat, &["First paragraph.", "The second."]).await;
    bed.all_over().await;
    bed.no_complaints();
}

#[tokio::test]
async fn with_a_template_a_reply_is_a_card_that_grows() {
    for group in [None, Some(GROUP)] {
        let mut bed = Bed::start_with(|config| config.card_template_id = Some("a-template.schema".to_owned())).await;
        let (turn, chat) = match group {
            None => bed.asked().await,
            Some(group) => (bed.asked_in_group().await, group.to_owned()),
        };
        bed.step(&chat, turn, ReplyStep::Delta("one".to_owned())).await;
        bed.until_shown(&chat, &["one"]).await;
        bed.step(&chat, turn, ReplyStep::Delta(" two".to_owned())).await;
        bed.until("it grows", |state| (state.texts(&chat) == ["one two"]).then_some(())).await;
        bed.step(&chat, turn, ReplyStep::End(ReplyEnd::Complete)).await;
        let card = bed.until("its end", |state| state.cards.values().find(|card| card.is_final).cloned()).await;
        assert_eq!(
            (card.text(), card.template.as_str(), card.key.as_str()),
            ("one two", "a-template.schema", "content")
        );
        assert!(card.guids.len() >= 2 && !card.is_error, "{card:?}");
        // A notice is a message all the same.
        bed.notice(&chat, "a notice").await;
        bed.until_shown(&chat, &["one two", "a notice"]).await;
        assert_eq!(bed.ways(&chat), ["card", "session"]);
        bed.all_over().await;
        bed.no_complaints();
    }
}

#[tokio::test]
async fn what_the_longest_message_takes_is_never_too_much() {
    let mut bed = Bed::start().await;
    bed.server.change(|state| state.webhook_ms = 30_000);
    let (turn, chat) = bed.asked().await;
    // Each of these takes twice its length in JSON.
    let text = "\"quoted\"\\\n".repeat(2_000);
    bed.reply(&chat, turn, &text).await;
    bed.all_over().await;
    let (shown, refused) = bed.server.look(|state| {
        let refused = state.calls.iter().filter(|call| call.status == Some(400)).count();
        (state.texts(&chat).concat(), refused)
    });
    let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    assert_eq!((letters(&shown), refused), (letters(&text), 0));
    bed.no_complaints();
}

#[tokio::test]
async fn a_message_that_comes_twice_is_taken_once_and_answered_both_times() {
    let mut bed = Bed::start().await;
    let msg_id = bed.server.say(ANN, "a question");
    let (_, inbound) = bed.inbound().await;
    assert_eq!(inbound.message_id, msg_id);
    bed.server.change(|state| state.say_again(&msg_id));
    bed.server.say(ANN, "another");
    let (_, next) = bed.inbound().await;
    assert_eq!(next.text, "another");
    bed.until("three answers", |state| (state.pushes.iter().filter(|push| push.is_acked()).count() == 3).then_some(()))
        .await;
    let acks: Vec<Value> = bed.server.look(|state| {
        let acks = state.pushes.iter().flat_map(|push| &push.acks);
        acks.map(|ack| serde_json::from_str(&ack.data).expect("JSON")).collect()
    });
    assert_eq!(acks, vec![json!({ "response": null }); 3]);
    assert_eq!(bed.server.look(|state| state.lost().len()), 0);
    bed.no_complaints();
}
