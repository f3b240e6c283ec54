//! More than plain text: formats, drafts, buttons, files, the menu.

use hermes_gateway::chat::{
    AttachmentKind, Choice, Conversation, Notice, Outbound, OutboundContent, ReplyEnd, ReplyStep,
};
use hermes_gateway::platform::telegram::PLATFORM;
use hermes_gateway::platform::telegram::api::Api;
use hermes_gateway::platform::telegram::methods::FetchError;
use hermes_gateway::platform::{PlatformCommand, PlatformEvent};
use hermes_gateway::store::Change;
use serde_json::json;

use super::bed::{Bed, DRAIN, config};
use crate::support::telegram::TelegramServer;
use crate::support::telegram::faults::Fault;
use crate::support::telegram::updates::Media;

/// A server that knows drafts.
async fn with_drafts() -> TelegramServer {
    let server = TelegramServer::start().await;
    server.change(|state| state.unknown_methods.clear());
    server
}

async fn say_all(bed: &Bed, chat: i64, turn: i64, text: &str) {
    bed.reply(chat, turn, ReplyStep::Delta(text.into())).await;
    bed.reply(chat, turn, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.delivered(turn).await;
}

#[tokio::test]
async fn an_agents_markdown_is_shown_and_a_notice_is_as_it_is() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    say_all(&bed, -7, 1, "**bold** 😀 `code`\n\n- [a](https://example.org)").await;
    bed.notice(-7, "**as it is**").await;
    bed.until_shown(-7, &["bold 😀 code\n\n• a", "**as it is**"]).await;
    let marked: Vec<_> = bed.server.look(|state| state.messages.iter().map(|message| message.marked()).collect());
    let pair = |kind: &str, text: &str| (kind.to_owned(), text.to_owned());
    assert_eq!(marked, [vec![pair("bold", "bold"), pair("code", "code"), pair("text_link", "a")], vec![]]);
}

#[tokio::test]
async fn a_block_of_code_goes_on_over_messages_and_a_handoff() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    let code: String = (0..300).map(|n| format!("let line_{n} = {n};\n")).collect();
    bed.reply(-7, 1, ReplyStep::Delta(format!("see\n```rust\n{code}"))).await;
    bed.until("two messages", |state| (state.texts(-7).len() == 2).then_some(())).await;
    bed.hand_off(DRAIN).await;
    bed.reply(-7, 1, ReplyStep::Delta("let last = 1;\n```\nand **that** is all".into())).await;
    bed.reply(-7, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.delivered(1).await;
    say_all(&bed, -7, 2, "no code").await;
    let pages: Vec<_> =
        bed.server.look(|state| state.messages.iter().map(|m| (m.text().to_owned(), m.marked())).collect());
    let kinds =
        |page: &(String, Vec<(String, String)>)| page.1.iter().map(|(kind, _)| kind.clone()).collect::<Vec<_>>();
    assert_eq!(pages.iter().map(kinds).collect::<Vec<_>>(), [vec!["pre"], vec!["pre", "bold"], vec![]]);
    assert!(pages[1].0.starts_with("let line_") && pages[1].1[0].1.ends_with("let last = 1;"), "{pages:?}");
    assert!(pages.iter().all(|(text, _)| !text.contains("```")), "{pages:?}");
}

#[tokio::test]
async fn in_a_group_the_first_message_of_a_reply_names_its_question() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    for (chat, wanted) in [(-7, Some(1)), (7, None)] {
        bed.server.say(7, chat, "a question");
        let (turn, inbound) = bed
            .event("a message", |event| match event {
                PlatformEvent::Inbound { turn, inbound } => Some((turn, inbound)),
                _ => None,
            })
            .await;
        let conversation = inbound.conversation;
        let started = vec![Change::Start(turn, Some(conversation.clone()))];
        let entry = bed.store.change(started).await.expect("records").pop().expect("an entry");
        let long = "word ".repeat(1000);
        for step in [ReplyStep::Begin, ReplyStep::Delta(long), ReplyStep::End(ReplyEnd::Complete)] {
            let outbound = Box::new(Outbound::reply(conversation.clone(), turn, step));
            bed.command(PlatformCommand::Deliver { outbound, entry }).await;
        }
        bed.until("two messages", |state| (state.texts(chat).len() == 2).then_some(())).await;
        let replies: Vec<_> = bed.server.look(|state| state.in_chat(chat).map(|message| message.reply_to).collect());
        assert_eq!(replies, [wanted, None], "in chat {chat}");
    }
}

#[tokio::test]
async fn a_format_that_telegram_refuses_is_left_out() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.server.fault("sendMessage", 1, Fault::refuse(400, "Bad Request: ENTITY_BOUNDS_INVALID"));
    say_all(&bed, -7, 1, "**bold**").await;
    assert_eq!(bed.server.texts(-7), ["bold"]);
    assert_eq!(bed.server.look(|state| state.messages[0].marked()), []);
}

#[tokio::test]
async fn a_growing_reply_in_a_private_chat_is_a_draft_and_then_one_message() {
    let mut bed = Bed::start_with(with_drafts().await);
    bed.connected().await;
    bed.reply(7, 1, ReplyStep::Delta("**one** two".into())).await;
    bed.until("the draft", |state| (state.draft(7) == Some("one two")).then_some(())).await;
    bed.hand_off(DRAIN).await;
    bed.reply(7, 1, ReplyStep::Delta(" three".into())).await;
    bed.until("the draft", |state| (state.draft(7) == Some("one two three")).then_some(())).await;
    assert_eq!(bed.server.texts(7), [""; 0]);
    bed.reply(7, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.delivered(1).await;
    assert_eq!(
        (bed.server.texts(7), bed.server.look(|state| state.draft(7).is_some())),
        (vec!["one two three".into()], false)
    );
    // Nothing of a draft is ever in doubt: a process that is killed leaves none behind.
    assert_eq!(bed.server.look(|state| (state.calls_of("editMessageText"), state.messages.len())), (0, 1));
}

#[tokio::test]
async fn a_server_without_drafts_gets_edits_and_the_token_is_not_doubted() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.reply(7, 1, ReplyStep::Delta("one".into())).await;
    bed.until_shown(7, &["one"]).await;
    bed.reply(7, 1, ReplyStep::Delta(" two".into())).await;
    bed.until_shown(7, &["one two"]).await;
    bed.reply(7, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.delivered(1).await;
    say_all(&bed, 7, 2, "more").await;
    assert_eq!(bed.server.look(|state| state.calls_of("sendMessageDraft")), 1);
    bed.server.say(7, 7, "the link is alive");
    assert_eq!(bed.inbound().await.text, "the link is alive");
}

#[tokio::test]
async fn a_press_is_a_message_comes_once_and_is_answered() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.until_idle().await;
    let conversation = Conversation::new(PLATFORM, "7");
    let choice = |label: &str, command: &str| Choice { label: label.to_owned(), command: command.to_owned() };
    let choices = vec![choice("Yes", "/approve 1"), choice("No", "/deny 1"), choice("long", &"x".repeat(65))];
    let content = OutboundContent::Notice(Notice { text: "Do it?".to_owned(), choices });
    let outbound = Box::new(Outbound { conversation, content });
    bed.command(PlatformCommand::Deliver { outbound, entry: None }).await;
    bed.until_shown(7, &["Do it?"]).await;
    let (id, buttons) = bed.server.look(|state| {
        let message = &state.messages[0];
        (message.message_id, message.keyboard.clone().expect("buttons")["inline_keyboard"].as_array().map(Vec::len))
    });
    assert_eq!(buttons, Some(2));
    let query = bed.server.press(7, 7, id, "/approve 1");
    let inbound = bed.inbound().await;
    assert_eq!((inbound.text.as_str(), inbound.message_id), ("/approve 1", format!("cb:{query}")));
    assert!(inbound.is_direct && inbound.sender.id == "7" && inbound.conversation.chat == "7");
    let over = |state: &crate::support::telegram::state::State| {
        (state.presses[&query].answer.is_some() && state.messages[0].keyboard.is_none()).then_some(())
    };
    bed.until("an answer, and no buttons", over).await;
    bed.until_idle().await;
    assert_eq!(bed.store.open_turns().await.expect("lists").len(), 1);
}

#[tokio::test]
async fn files_come_with_a_message_and_can_be_fetched() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    let document = |bytes| Media::Document { name: "a.txt".to_owned(), mime: "text/plain".to_owned(), bytes };
    bed.server.change(|state| {
        state.say_media(7, 7, &Media::Photo(vec![(90, 60, 100), (900, 600, 7000)]), &json!({ "caption": "see" }));
        state.say_media(7, 7, &document(3000), &json!({ "media_group_id": "1" }));
        state.say_media(7, 7, &Media::Voice(10), &json!({ "media_group_id": "1" }));
        state.say_media(7, 7, &document(21 << 20), &json!({}));
    });
    let mut files = Vec::new();
    for (text, kind, size) in [
        ("see", AttachmentKind::Image, 7000),
        ("", AttachmentKind::File, 3000),
        ("", AttachmentKind::Audio, 10),
        ("", AttachmentKind::File, 21 << 20),
    ] {
        let inbound = bed.inbound().await;
        let [file] = &inbound.attachments[..] else { panic!("one file: {inbound:?}") };
        assert_eq!((inbound.text.as_str(), file.kind, file.size_bytes), (text, kind, Some(size)));
        files.push(file.clone());
    }
    assert_eq!(files[1].name.as_deref(), Some("a.txt"));
    let api = Api::new(&config(bed.server.url(), bed.server.token())).expect("a client");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("file");
    api.fetch(&files[1].source, &path).await.expect("it is fetched");
    let bytes = std::fs::read(&path).expect("a file");
    assert_eq!(bytes, bed.server.look(|state| state.files[&files[1].source].bytes()));
    assert!(api.fetch(&files[3].source, &path).await.is_err(), "too large for Telegram");
    bed.server.fault("file", 1, Fault::Huge);
    assert!(matches!(api.fetch(&files[1].source, &path).await, Err(FetchError::TooLarge)));
    for fault in [Fault::Reset, Fault::Html { code: 404 }] {
        bed.server.fault("file", 1, fault);
        let error = api.fetch(&files[1].source, &path).await.expect_err("a fault");
        assert!(!format!("{error:?}").contains("the-token"), "{error:?}");
    }
}

#[tokio::test]
async fn the_menu_is_set_once_in_two_languages() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    bed.until("the menu", |state| (state.commands.len() == 2).then_some(())).await;
    let languages: Vec<String> = bed.server.look(|state| state.commands.keys().cloned().collect());
    assert_eq!(languages, ["default/", "default/zh"]);
    // Small calls are made one after the other: who answers a press has heard that the menu is set.
    let choices = vec![Choice { label: "Yes".to_owned(), command: "/approve 1".to_owned() }];
    let content = OutboundContent::Notice(Notice { text: "Do it?".to_owned(), choices });
    let outbound = Box::new(Outbound { conversation: Conversation::new(PLATFORM, "7"), content });
    bed.command(PlatformCommand::Deliver { outbound, entry: None }).await;
    bed.until_shown(7, &["Do it?"]).await;
    let id = bed.server.look(|state| state.messages[0].message_id);
    bed.server.press(7, 7, id, "/approve 1");
    bed.inbound().await;
    bed.until("the press is answered", |state| (state.calls_of("answerCallbackQuery") == 1).then_some(())).await;
    bed.hand_off(DRAIN).await;
    bed.server.say(7, 7, "hello");
    bed.inbound().await;
    bed.until_idle().await;
    assert_eq!(bed.server.look(|state| state.calls_of("setMyCommands")), 2);
}
