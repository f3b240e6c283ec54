//! The frames of DingTalk's stream mode: JSON texts in a WebSocket, whose `data` is JSON in a string
//! (<https://open.dingtalk.com/document/orgapp/stream-protocol>).
//!
//! **Invariant:** a frame is read field by field: fields and topics that are unknown here, or of another type than
//! expected, cost nothing but themselves.

use serde_json::{Value, json};
use thiserror::Error;

/// The topic under which a bot gets what people say to it.
pub(super) const BOT_MESSAGE: &str = "/v1.0/im/bot/messages/get";

/// It is dealt with.
pub(super) const OK: u16 = 200;
/// Nobody here wants this topic.
pub(super) const NO_SUCH_TOPIC: u16 = 404;

/// Why a text is no frame. What it says is not kept: it may hold messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum FrameError {
    /// It is not JSON, or not an object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// It says not of which kind it is.
    #[error("it has no type")]
    NoType,
}

/// The kinds of [`Frame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// About the connection itself.
    System,
    /// Something happened in the organisation; it comes again until it is acknowledged.
    Event,
    /// Something is asked of the bot; it comes once.
    Callback,
    /// A kind that is unknown here.
    Other,
}

/// What DingTalk sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Its kind.
    pub(super) kind: Kind,
    /// What it is about; empty if it does not say.
    pub(super) topic: String,
    /// What an answer must repeat. A `disconnect` may have none.
    pub(super) message_id: Option<String>,
    /// JSON in a string; empty if there is none.
    pub(super) data: String,
}

impl Frame {
    /// Reads a text.
    ///
    /// # Errors
    /// [`FrameError`].
    pub(super) fn parse(text: &str) -> Result<Self, FrameError> {
        let frame: Value = serde_json::from_str(text).map_err(|_| FrameError::NotAnObject)?;
        let frame = frame.as_object().ok_or(FrameError::NotAnObject)?;
        let kind = match frame.get("type").and_then(Value::as_str).ok_or(FrameError::NoType)? {
            "SYSTEM" => Kind::System,
            "EVENT" => Kind::Event,
            "CALLBACK" => Kind::Callback,
            _ => Kind::Other,
        };
        let header = |name: &str| frame.get("headers").and_then(|headers| headers.get(name)).and_then(Value::as_str);
        let data = match frame.get("data") {
            Some(Value::String(data)) => data.clone(),
            // Some servers send the object itself.
            Some(object @ Value::Object(_)) => object.to_string(),
            _ => String::new(),
        };
        Ok(Self {
            kind,
            topic: header("topic").unwrap_or_default().to_owned(),
            message_id: header("messageId").filter(|id| !id.is_empty()).map(str::to_owned),
            data,
        })
    }
}

/// The answer to the frame `message_id`.
pub(super) fn reply(message_id: &str, code: u16, data: &str) -> String {
    let message = if code == OK { "OK" } else { "not served here" };
    json!({
        "code": code,
        "headers": { "messageId": message_id, "contentType": "application/json" },
        "message": message,
        "data": data,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_push_is_read_whatever_else_is_in_it() {
        let text = r#"{"specVersion":"1.0","type":"CALLBACK","headers":{"topic":"/v1.0/im/bot/messages/get",
            "messageId":"m-1","contentType":"application/json","time":1732608000000,"new":{}},
            "data":"{\"text\":{\"content\":\" hi\"}}","more":[]}"#;
        let wanted = Frame {
            kind: Kind::Callback,
            topic: BOT_MESSAGE.to_owned(),
            message_id: Some("m-1".to_owned()),
            data: r#"{"text":{"content":" hi"}}"#.to_owned(),
        };
        assert_eq!(Frame::parse(text), Ok(wanted));
    }

    #[test]
    fn what_is_missing_or_of_another_type_costs_only_itself() {
        let bare = |kind, topic: &str| Frame { kind, topic: topic.to_owned(), message_id: None, data: String::new() };
        let table = [
            (r#"{"type":"SYSTEM","headers":{"topic":"disconnect"}}"#, Ok(bare(Kind::System, "disconnect"))),
            (r#"{"type":"SYSTEM","headers":{"topic":7,"messageId":9},"data":null}"#, Ok(bare(Kind::System, ""))),
            (r#"{"type":"NEW","headers":[]}"#, Ok(bare(Kind::Other, ""))),
            (r#"{"headers":{}}"#, Err(FrameError::NoType)),
            ("[]", Err(FrameError::NotAnObject)),
            ("{", Err(FrameError::NotAnObject)),
        ];
        for (text, wanted) in table {
            assert_eq!(Frame::parse(text), wanted, "{text}");
        }
    }

    #[test]
    fn an_answer_repeats_the_id_and_carries_its_data_as_text() {
        let answer: Value = serde_json::from_str(&reply("m-1", OK, r#"{"response":null}"#)).expect("JSON");
        assert_eq!(answer["headers"]["messageId"], "m-1");
        assert_eq!((&answer["code"], &answer["data"]), (&json!(200), &json!(r#"{"response":null}"#)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), key in "type|headers|data", value in "\"x\"|7|null|\\{\\}|\\[\\]") {
            let _read = Frame::parse(&text);
            let _read = Frame::parse(&format!(r#"{{"type":"EVENT","{key}":{value}}}"#));
        }
    }
}
