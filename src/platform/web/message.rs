//! One message of a chat, as the store keeps it and as browsers get it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::chat::Choice;
use crate::clock::UnixMillis;

/// A message. Its number is the store's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) from: Author,
    /// Whose it is, for people.
    #[serde(default)]
    pub(super) name: String,
    pub(super) at: UnixMillis,
    pub(super) text: String,
    pub(super) format: Format,
    /// It does not change any more.
    #[serde(rename = "final")]
    pub(super) is_final: bool,
    /// What its author calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// What may be answered by a press.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) choices: Vec<Choice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<File>,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Author {
    User,
    Agent,
    Gateway,
}

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    Plain,
    Markdown,
}

/// A file in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) name: String,
    #[serde(default)]
    pub(super) mime: Option<String>,
    #[serde(default)]
    pub(super) bytes: Option<u64>,
}

impl Message {
    /// As browsers get it. Where a file lies is not theirs to know.
    pub(super) fn told(&self, number: i64) -> Value {
        let file = self.file.as_ref().map(|file| {
            json!({ "name": file.name, "mime": file.mime, "bytes": file.bytes, "url": format!("/files/{number}") })
        });
        json!({
            "number": number,
            "from": self.from,
            "name": self.name,
            "at": self.at,
            "text": self.text,
            "format": self.format,
            "final": self.is_final,
            "id": self.id,
            "choices": self.choices,
            "file": file,
        })
    }

    /// As the store keeps it.
    pub(super) fn body(&self) -> String {
        serde_json::to_string(self).expect("plain data serialises")
    }

    /// Whether nothing but the text is another.
    pub(super) fn differs_in_text_only(&self, other: &Self) -> bool {
        self.format == other.format && self.choices == other.choices && self.file == other.file
    }
}
