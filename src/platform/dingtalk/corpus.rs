//! Frames as DingTalk sends them, in `tests/data/corpus/dingtalk/`: read as they are, and bent in every way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::context::Context;
use super::frame::{self, BOT_MESSAGE, Frame, Kind};
use super::message;
use crate::chat::{AttachmentKind, Inbound};

/// The frames by the names of their files.
static CORPUS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/dingtalk");
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem()?.to_str()?.to_owned();
        Some((name, fs::read_to_string(path).ok()?))
    };
    let entries = fs::read_dir(folder).expect("the corpus is there");
    entries.filter_map(|entry| read(entry.expect("readable").path())).collect()
});

fn frame_of(name: &str) -> Frame {
    Frame::parse(&CORPUS[name]).expect("a frame")
}

fn inbound_of(name: &str) -> Option<Inbound> {
    message::read(&frame_of(name).data, "app1")
}

#[test]
fn each_frame_is_what_it_is_named() {
    for (name, text) in &*CORPUS {
        let frame = Frame::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (kind, topic) = match name.split('-').collect::<Vec<_>>()[..] {
            ["message", ..] => (Kind::Callback, BOT_MESSAGE),
            ["card", ..] => (Kind::Callback, "/v1.0/card/instances/callback"),
            ["event"] => (Kind::Event, "*"),
            ["system", "connected"] => (Kind::System, "CONNECTED"),
            ["system", topic] => (Kind::System, topic),
            _ => panic!("a frame without a meaning: {name}"),
        };
        assert_eq!((frame.kind, frame.topic.as_str()), (kind, topic), "{name}");
        let is_anonymous = matches!(name.as_str(), "system-disconnect" | "system-connected");
        assert_eq!(frame.message_id.is_none(), is_anonymous, "{name}");
    }
}

#[test]
fn each_message_is_read_for_what_it_says() {
    let table = [
        ("message-single-text", "hello 你好", None, true),
        ("message-group-text", "/status", None, false),
        ("message-from-outside", "hello 你好", None, true),
        ("message-picture", "", Some(AttachmentKind::Image), true),
        ("message-rich-text", "look at \nthis", Some(AttachmentKind::Image), true),
        ("message-file", "", Some(AttachmentKind::File), true),
        ("message-audio", "turn on the light", Some(AttachmentKind::Audio), true),
        ("message-video", "", Some(AttachmentKind::Video), true),
        ("message-time-as-number", "hello 你好", None, true),
    ];
    for (name, text, attachment, is_direct) in table {
        let inbound = inbound_of(name).unwrap_or_else(|| panic!("{name} is no message"));
        let kinds: Vec<_> = inbound.attachments.iter().map(|attachment| attachment.kind).collect();
        assert_eq!((inbound.text.as_str(), inbound.is_direct), (text, is_direct), "{name}");
        assert_eq!(kinds, Vec::from_iter(attachment), "{name}");
        assert_eq!(inbound.sent_at.0, 1_732_607_999_871, "{name}");
        let context = Context::read(&inbound.context.expect("it can be answered"));
        assert_eq!(context.webhook_until.0, 1_732_613_400_123, "{name}");
        assert!(context.webhook.is_some() && context.is_group != is_direct, "{name}");
    }
    let outsider = inbound_of("message-from-outside").expect("a message");
    assert_eq!(outsider.sender.id, "$:LWCP_v1:$k3VlHmZ9dUJ2nQ0r8wYp1A==");
    assert_eq!(inbound_of("message-of-a-new-kind"), None);
    let named = CORPUS.keys().filter(|name| name.starts_with("message-")).count();
    assert_eq!(named, table.len() + 1, "a message that nothing is said of");
}

/// Any JSON, not deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("downloadCode|text|content|richText|[a-z]{1,4}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn name() -> impl Strategy<Value = &'static str> {
    select(CORPUS.keys().map(String::as_str).collect::<Vec<_>>())
}

/// The places in a value, by JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                places(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Puts another value in one place of `text`, which is JSON.
fn bend(text: &str, place: Index, other: Value) -> Option<(String, String)> {
    let mut value: Value = serde_json::from_str(text).ok()?;
    let mut found = Vec::new();
    places(&value, "", &mut found);
    let at = found.swap_remove(place.index(found.len()));
    *value.pointer_mut(&at)? = other;
    Some((at, value.to_string()))
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
        let text = String::from_utf8_lossy(&bytes);
        let _read = Frame::parse(&text);
        let _read = message::read(&text, "app1");
    }

    #[test]
    fn any_json_is_read_or_refused(value in any_json()) {
        let _read = Frame::parse(&value.to_string());
        let _read = message::read(&value.to_string(), "app1");
        let _read = Context::read(&value.to_string());
    }

    #[test]
    fn a_frame_that_is_cut_or_damaged_is_read_or_refused(name in name(), cut in any::<Index>(), byte in any::<u8>()) {
        let mut bytes = CORPUS[name].clone().into_bytes();
        let at = cut.index(bytes.len());
        let _read = Frame::parse(&String::from_utf8_lossy(&bytes[..at]));
        bytes[at] = byte;
        if let Ok(frame) = Frame::parse(&String::from_utf8_lossy(&bytes)) {
            let _read = message::read(&frame.data, "app1");
        }
    }

    #[test]
    fn a_field_of_a_frame_that_is_something_else_costs_only_itself(
        name in name(), place in any::<Index>(), other in any_json()
    ) {
        let original = frame_of(name);
        let Some((at, bent)) = bend(&CORPUS[name], place, other) else { return Ok(()) };
        let read = Frame::parse(&bent);
        match at.as_str() {
            "" | "/type" => {}
            "/headers" => prop_assert_eq!(read.map(|frame| frame.kind), Ok(original.kind)),
            "/headers/topic" => prop_assert_eq!(read.map(|frame| frame.data), Ok(original.data)),
            "/headers/messageId" | "/data" => prop_assert_eq!(read.map(|frame| frame.topic), Ok(original.topic)),
            _ => prop_assert_eq!(read, Ok(original)),
        }
    }

    #[test]
    fn a_field_of_a_message_that_is_something_else_costs_only_itself(
        name in name().prop_filter("a message", |name| name.starts_with("message-")),
        place in any::<Index>(),
        other in any_json(),
    ) {
        let Some(original) = inbound_of(name) else { return Ok(()) };
        let Some((at, bent)) = bend(&frame_of(name).data, place, other) else { return Ok(()) };
        let read = message::read(&bent, "app1");
        let is_said = at.starts_with("/text") || at.starts_with("/content") || at == "/msgtype";
        let is_needed = matches!(at.as_str(), "" | "/msgId" | "/conversationId" | "/senderStaffId" | "/senderId");
        if is_needed {
            return Ok(());
        }
        match read {
            Some(read) => {
                prop_assert_eq!(&read.message_id, &original.message_id);
                prop_assert_eq!(&read.conversation, &original.conversation);
                prop_assert_eq!(&read.sender.id, &original.sender.id);
                if !is_said {
                    prop_assert_eq!((read.text, read.attachments), (original.text, original.attachments), "{}", at);
                }
            }
            None => prop_assert!(is_said, "{} was lost by {}", name, at),
        }
    }

    #[test]
    fn what_is_said_comes_through(text in "[^\\s\\p{C}](.{0,80}[^\\s\\p{C}])?", id in "[ -~]{1,40}", chat in "[ -~]{1,40}") {
        let mut data: Value = serde_json::from_str(&frame_of("message-group-text").data).expect("JSON");
        data["text"]["content"] = format!(" {text}").into();
        (data["msgId"], data["conversationId"]) = (id.as_str().into(), chat.as_str().into());
        let whole = json!({
            "type": "CALLBACK", "headers": { "topic": BOT_MESSAGE, "messageId": id }, "data": data.to_string(),
        });
        let frame = Frame::parse(&whole.to_string()).expect("a frame");
        prop_assert_eq!(frame.message_id.as_deref(), Some(id.as_str()));
        let inbound = message::read(&frame.data, "app1").expect("a message");
        prop_assert_eq!((inbound.text, inbound.message_id, inbound.conversation.chat), (text, id.clone(), chat));
        let answer: Value = serde_json::from_str(&frame::reply(&id, frame::OK, "{}")).expect("JSON");
        prop_assert_eq!(answer["headers"]["messageId"].as_str(), Some(id.as_str()));
    }
}
