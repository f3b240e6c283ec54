//! A message of a `getupdates` answer, read field by field.
//!
//! **Invariants**
//! - Whatever a field is, it costs no more than itself: a part that cannot be read is left out, and only a message
//!   without sender or name is no message.
//! - Ids are u64: an f64 would make two messages one.
//! - Nothing that was said is logged.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::media::{Key, Reference};
use crate::clock::UnixMillis;

/// `message_type` of the bot's own messages.
const BY_BOT: i64 = 2;
/// How deep quotes within quotes are looked at.
const QUOTE_DEPTH_MAX: u8 = 1;
/// The most files of one message that are kept.
const FILES_MAX: usize = 32;
/// The longest quote that is shown, in characters.
const QUOTE_CHARS_MAX: usize = 500;

/// A message of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its name: `message_id` in decimal, or what stands for it if there is none.
    pub id: String,
    /// Who wrote it.
    pub from: String,
    /// The group it was written in; none in a direct chat.
    pub group: Option<String>,
    /// When, by the sender's clock, which may be wrong.
    pub sent_at: UnixMillis,
    /// What was written, or said if the service wrote it down; a quote stands before it.
    pub text: String,
    /// What came with it.
    pub files: Vec<File>,
    /// What an answer to it must carry.
    pub context: Option<String>,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A picture.
    Image,
    /// Something said.
    Voice,
    /// A film.
    Video,
    /// Anything else.
    File,
}

/// A file that came with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What it is.
    pub kind: FileKind,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its size in bytes as the sender told it.
    pub size_bytes: Option<u64>,
    /// Where it lies.
    pub reference: Reference,
}

/// Reads a message. `account` is the bot's own id.
///
/// `None` is no message of a person, or none that can be answered or told from another.
pub fn read(raw: &RawValue, account: &str) -> Option<Message> {
    // The error's own text would quote the message.
    let value = match serde_json::from_str::<Value>(raw.get()) {
        Ok(value) => value,
        Err(error) => {
            tracing::warn!(problem = ?error.classify(), column = error.column(), "a message is malformed and is skipped");
            return None;
        }
    };
    let from = text(&value["from_user_id"])?;
    if number(&value["message_type"]) == Some(BY_BOT) || from == account {
        return None;
    }
    let Some(id) = name(&value, &from) else {
        tracing::warn!(size_bytes = raw.get().len(), "a message without any id is skipped");
        return None;
    };
    let mut said = Said::default();
    for item in value["item_list"].as_array().into_iter().flatten() {
        said.add(item, 0);
    }
    if said.text.is_empty() && said.files.is_empty() {
        tracing::debug!(message_id = %id, "a message has nothing that can be read and is skipped");
        return None;
    }
    Some(Message {
        id,
        from,
        group: ["group_id", "room_id", "chat_room_id"].iter().find_map(|name| text(&value[*name])),
        sent_at: UnixMillis(number(&value["create_time_ms"]).unwrap_or_default()),
        text: said.text,
        files: said.files,
        context: text(&value["context_token"]),
    })
}

/// What a message is known by.
fn name(value: &Value, from: &str) -> Option<String> {
    match unsigned(&value["message_id"]) {
        Some(id) if id > 0 => Some(id.to_string()),
        // Older or odd ones; the prefix keeps them apart from ids.
        _ => text(&value["client_id"]).map(|client| format!("{from}:{client}")),
    }
}

/// A text that is not empty.
fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned)
}

/// A number, also if it is written as text.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// The same without a sign.
fn unsigned(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[derive(Default)]
struct Said {
    text: String,
    files: Vec<File>,
}

impl Said {
    fn add(&mut self, item: &Value, depth: u8) {
        match number(&item["type"]) {
            Some(1) => {
                if let Some(text) = text(&item["text_item"]["text"]) {
                    self.quote(&item["ref_msg"], &text, depth);
                    self.line(&text);
                }
            }
            Some(2) => self.file(FileKind::Image, &item["image_item"], "mid_size"),
            Some(3) => match text(&item["voice_item"]["text"]) {
                Some(transcript) => self.line(&transcript),
                None => self.file(FileKind::Voice, &item["voice_item"], ""),
            },
            Some(4) => self.file(FileKind::File, &item["file_item"], "len"),
            Some(5) => self.file(FileKind::Video, &item["video_item"], "video_size"),
            kind => tracing::debug!(?kind, "an item of another kind is left out"),
        }
    }

    fn line(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text);
    }

    /// What `text` answers, in front of it. A command stays at the beginning.
    fn quote(&mut self, reference: &Value, text: &str, depth: u8) {
        if depth >= QUOTE_DEPTH_MAX || !reference.is_object() {
            return;
        }
        let mut quoted = Said::default();
        quoted.add(&reference["message_item"], depth + 1);
        self.files.extend(quoted.files);
        self.files.truncate(FILES_MAX);
        if text.trim_start().starts_with('/') {
            return;
        }
        let title = self::text(&reference["title"]);
        let words: Vec<String> = title.into_iter().chain(Some(quoted.text).filter(|text| !text.is_empty())).collect();
        let short: String = words.join(": ").chars().take(QUOTE_CHARS_MAX).collect();
        for line in short.lines() {
            self.line(&format!("> {line}"));
        }
    }

    /// `size` is the field that tells the size.
    fn file(&mut self, kind: FileKind, item: &Value, size: &str) {
        let media = &item["media"];
        let (full_url, param) = (text(&media["full_url"]), text(&media["encrypt_query_param"]));
        if self.files.len() >= FILES_MAX || (full_url.is_none() && param.is_none()) {
            return;
        }
        let own = item["aeskey"].as_str().and_then(Key::from_hex);
        let key = own.or_else(|| media["aes_key"].as_str().and_then(Key::from_base64));
        self.files.push(File {
            kind,
            name: text(&item["file_name"]),
            size_bytes: unsigned(&item[size]),
            reference: Reference { full_url, param, key: key.map(|key| key.hex()) },
        });
    }
}

/// Reads the reference that a message's file was kept under.
///
/// # Errors
/// If it is none.
pub fn reference(source: &str) -> Result<Reference, serde_json::Error> {
    Reference::deserialize(&mut serde_json::Deserializer::from_str(source))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ME: &str = "me@im.bot";

    fn raw(value: &Value) -> Box<RawValue> {
        RawValue::from_string(value.to_string()).expect("JSON")
    }

    fn only(value: &Value) -> Option<Message> {
        read(&raw(value), ME)
    }

    fn of(items: &Value) -> Message {
        let whole = json!({ "message_id": 1, "from_user_id": "ann", "item_list": items });
        only(&whole).expect("a message")
    }

    fn plain(text: &str) -> Value {
        json!({ "type": 1, "text_item": { "text": text } })
    }

    #[test]
    fn a_text_is_read_whole() {
        let value = json!({
            "seq": 3, "message_id": u64::MAX, "from_user_id": "ann@im.wechat", "to_user_id": ME, "message_type": 1,
            "create_time_ms": 7, "item_list": [plain("hi")], "context_token": "c", "new_field": {},
        });
        let wanted = Message {
            id: "18446744073709551615".into(),
            from: "ann@im.wechat".into(),
            group: None,
            sent_at: UnixMillis(7),
            text: "hi".into(),
            files: Vec::new(),
            context: Some("c".into()),
        };
        assert_eq!(only(&value), Some(wanted));
    }

    #[test]
    fn two_ids_that_one_f64_stands_for_stay_two() {
        let id = |id: u64| {
            only(&json!({ "message_id": id, "from_user_id": "a", "item_list": [plain("x")] })).expect("read").id
        };
        assert_ne!(id(9_007_199_254_740_993), id(9_007_199_254_740_992));
    }

    #[test]
    fn what_is_of_the_bot_or_of_nobody_is_no_message() {
        let base = json!({ "message_id": 1, "from_user_id": "ann", "item_list": [plain("x")] });
        let with = |name: &str, value: Value| {
            let mut changed = base.clone();
            changed[name] = value;
            only(&changed)
        };
        assert!(only(&base).is_some());
        assert_eq!(with("message_type", json!(2)), None);
        assert_eq!(with("from_user_id", json!(ME)), None);
        assert_eq!(with("from_user_id", json!(7)), None);
        assert_eq!(with("message_id", json!("x")), None);
        assert_eq!(with("item_list", json!([])), None);
        assert_eq!(with("item_list", json!([{ "type": 11 }])), None);
        assert_eq!(with("message_id", json!("12")).expect("read").id, "12");
        assert_eq!(with("room_id", json!("r@chatroom")).expect("read").group.as_deref(), Some("r@chatroom"));
    }

    #[test]
    fn a_message_without_an_id_goes_by_its_client_id() {
        let value = json!({ "client_id": "c", "from_user_id": "ann", "item_list": [plain("x")] });
        assert_eq!(only(&value).expect("read").id, "ann:c");
    }

    #[test]
    fn a_voice_that_was_written_down_is_text_and_another_is_a_file() {
        let media = json!({ "encrypt_query_param": "p", "aes_key": "AAECAwQFBgcICQoLDA0ODw==" });
        let heard = of(&json!([{ "type": 3, "voice_item": { "media": media, "text": "said" } }]));
        assert_eq!((heard.text.as_str(), heard.files.len()), ("said", 0));
        let unheard = of(&json!([{ "type": 3, "voice_item": { "media": media, "encode_type": 6 } }]));
        assert_eq!((unheard.text.as_str(), unheard.files[0].kind), ("", FileKind::Voice));
        assert_eq!(unheard.files[0].reference.key.as_deref(), Some("000102030405060708090a0b0c0d0e0f"));
    }

    #[test]
    fn a_pictures_own_key_wins_and_a_file_has_name_and_size() {
        let media = json!({ "full_url": "https://x/y", "aes_key": "AAECAwQFBgcICQoLDA0ODw==" });
        let own = "f".repeat(32);
        let message = of(&json!([
            { "type": 2, "image_item": { "media": media, "aeskey": own, "mid_size": 9 } },
            { "type": 4, "file_item": { "media": media, "file_name": "a.pdf", "len": "1234" } },
            { "type": 5, "video_item": { "media": {} } },
            { "type": 5, "video_item": "none" },
        ]));
        let [picture, file] = &message.files[..] else { panic!("two files") };
        assert_eq!((picture.reference.key.as_deref(), picture.size_bytes), (Some(own.as_str()), Some(9)));
        assert_eq!((file.name.as_deref(), file.size_bytes), (Some("a.pdf"), Some(1234)));
        let source = serde_json::to_string(&file.reference).expect("plain data");
        assert_eq!(reference(&source).expect("read back"), file.reference);
    }

    #[test]
    fn a_quote_stands_before_the_text_but_not_before_a_command() {
        let quoting = |text: &str| {
            let mut item = plain(text);
            item["ref_msg"] = json!({ "title": "Bob", "message_item": plain("one\ntwo") });
            of(&json!([item])).text
        };
        assert_eq!(quoting("yes"), "> Bob: one\n> two\nyes");
        assert_eq!(quoting("/approve"), "/approve");
        let mut by_id = plain("yes");
        by_id["ref_msg"] = json!({ "svr_id": 7 });
        assert_eq!(of(&json!([by_id])).text, "yes");
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_skipped(
            field in "message_id|from_user_id|item_list|create_time_ms|context_token|message_type",
            value in "[0-9]{1,25}|null|true|\"x\"|\\[\\{\\}\\]|\\{\"a\":1\\}|-1|1e999",
            item in "[0-9]|null|\"1\"",
        ) {
            let whole = format!(
                r#"{{"message_id":1,"from_user_id":"a","{field}":{value},"item_list":[{{"type":{item},"text_item":{value},"ref_msg":{value}}}]}}"#
            );
            if let Ok(raw) = RawValue::from_string(whole) {
                drop(read(&raw, ME));
            }
        }

        #[test]
        fn any_text_is_kept(text in "[^\u{0}]{1,40}", from in "[a-z@.]{1,10}") {
            prop_assume!(!text.trim().is_empty());
            let value = json!({ "message_id": 5, "from_user_id": from, "item_list": [plain(&text)] });
            prop_assert_eq!(only(&value).map(|message| message.text), Some(text));
        }
    }
}
