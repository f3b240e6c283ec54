//! The three kinds of JSON-RPC message.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A request's id: a number or a string, and each side numbers on its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RequestId {
    /// A number.
    Number(i64),
    /// A string.
    Text(String),
}

/// The `error` member of a response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// The kind of failure; -32700…-32603 are JSON-RPC's own.
    pub code: i64,
    /// One sentence.
    pub message: String,
    /// More, in the callee's own form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl ErrorObject {
    /// JSON-RPC "method not found".
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// JSON-RPC "invalid params".
    pub const INVALID_PARAMS: i64 = -32602;
    /// JSON-RPC "internal error".
    pub const INTERNAL: i64 = -32603;

    /// An error without data.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }
}

/// One JSON-RPC 2.0 message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A call that wants a response with the same id.
    Request {
        /// The caller's id.
        id: RequestId,
        /// The method.
        method: String,
        /// Its parameters; `null` where there are none.
        params: Value,
    },
    /// A call that wants no response.
    Notification {
        /// The method.
        method: String,
        /// Its parameters; `null` where there are none.
        params: Value,
    },
    /// The answer to a request.
    Response {
        /// The id of the request answered.
        id: RequestId,
        /// What came of it.
        outcome: Result<Value, ErrorObject>,
    },
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default)]
    jsonrpc: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<RequestId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    params: Option<Value>,
    // A present `"result": null` is an answer and an absent one is not: `Some(Null)` against `None`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Message {
    /// Reads one line.
    ///
    /// # Errors
    /// A sentence that says what is wrong, for a log: not JSON, or not a JSON-RPC message.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let wire: Wire = serde_json::from_slice(line).map_err(|e| format!("not a JSON-RPC message: {e}"))?;
        let params = wire.params.unwrap_or(Value::Null);
        match (wire.method, wire.id, wire.result, wire.error) {
            (Some(method), Some(id), None, None) => Ok(Self::Request { id, method, params }),
            (Some(method), None, None, None) => Ok(Self::Notification { method, params }),
            (None, Some(id), _, Some(error)) => Ok(Self::Response { id, outcome: Err(error) }),
            (None, Some(id), Some(result), None) => Ok(Self::Response { id, outcome: Ok(result) }),
            _ => Err("neither a request, a notification nor a response".to_owned()),
        }
    }

    /// The message as one line, with its newline.
    pub fn to_line(&self) -> Vec<u8> {
        let mut wire =
            Wire { jsonrpc: "2.0".to_owned(), id: None, method: None, params: None, result: None, error: None };
        match self.clone() {
            Self::Request { id, method, params } => {
                (wire.id, wire.method, wire.params) = (Some(id), Some(method), some_unless_null(params));
            }
            Self::Notification { method, params } => {
                (wire.method, wire.params) = (Some(method), some_unless_null(params));
            }
            Self::Response { id, outcome: Ok(result) } => (wire.id, wire.result) = (Some(id), Some(result)),
            Self::Response { id, outcome: Err(error) } => (wire.id, wire.error) = (Some(id), Some(error)),
        }
        let mut line = serde_json::to_vec(&wire).expect("strings and JSON values always serialise");
        line.push(b'\n');
        line
    }
}

fn some_unless_null(value: Value) -> Option<Value> {
    (!value.is_null()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_null_result_is_an_answer() {
        let message = Message::parse(br#"{"jsonrpc":"2.0","id":"a","result":null}"#).expect("valid");
        assert_eq!(message, Message::Response { id: RequestId::Text("a".into()), outcome: Ok(Value::Null) });
    }

    #[test]
    fn a_line_that_is_no_message_is_an_error() {
        for line in ["", "hello", "[]", "{}", r#"{"id":1}"#, r#"{"id":1.5,"result":1}"#, r#"{"method":7}"#] {
            assert!(Message::parse(line.as_bytes()).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(id in any::<i64>(), method in "[a-z/]{1,20}", text in ".*") {
            let params = serde_json::json!({ "text": text });
            for message in [
                Message::Request { id: RequestId::Number(id), method: method.clone(), params: params.clone() },
                Message::Notification { method: method.clone(), params: params.clone() },
                Message::Response { id: RequestId::Number(id), outcome: Ok(params.clone()) },
                Message::Response { id: RequestId::Number(id), outcome: Err(ErrorObject::new(-32603, text.clone())) },
            ] {
                let line = message.to_line();
                prop_assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
                prop_assert_eq!(Message::parse(&line[..line.len() - 1]), Ok(message));
            }
        }

        #[test]
        fn no_line_panics(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::parse(&line);
        }
    }
}
