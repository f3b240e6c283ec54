//! What a client asks: the blocks of a prompt.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::hex;

/// A block of a prompt, as far as these agents know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// Text, or that of an embedded resource.
    Text(String),
    /// A picture.
    Image { mime: String, data: String },
    /// Sound.
    Audio { mime: String, data: String },
    /// Where something is.
    Link { uri: String, mime: Option<String>, size_bytes: Option<u64> },
}

/// A prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prompt {
    pub(super) blocks: Vec<Block>,
}

impl Prompt {
    /// Reads the blocks of a `session/prompt`; those of other kinds are left out.
    pub(super) fn read(blocks: &Value) -> Self {
        let blocks = blocks.as_array().map(Vec::as_slice).unwrap_or_default();
        Self { blocks: blocks.iter().filter_map(Block::read).collect() }
    }

    /// What is said in it.
    pub(super) fn words(&self) -> String {
        self.joined(|block| match block {
            Block::Text(text) => Some(text.clone()),
            Block::Image { .. } | Block::Audio { .. } | Block::Link { .. } => None,
        })
    }

    /// What is said in it, and the addresses of its links.
    pub(super) fn text(&self) -> String {
        self.joined(|block| match block {
            Block::Text(text) => Some(text.clone()),
            Block::Link { uri, .. } => Some(uri.clone()),
            Block::Image { .. } | Block::Audio { .. } => None,
        })
    }

    fn joined(&self, text: impl Fn(&Block) -> Option<String>) -> String {
        self.blocks.iter().filter_map(text).collect::<Vec<_>>().join("\n")
    }
}

impl Block {
    fn read(block: &Value) -> Option<Self> {
        let text = |key: &str| block[key].as_str().map(str::to_owned);
        Some(match block["type"].as_str()? {
            "text" => Self::Text(text("text")?),
            "image" => Self::Image { mime: text("mimeType")?, data: text("data")? },
            "audio" => Self::Audio { mime: text("mimeType")?, data: text("data")? },
            "resource_link" => {
                Self::Link { uri: text("uri")?, mime: text("mimeType"), size_bytes: block["size"].as_u64() }
            }
            "resource" => Self::Text(block["resource"]["text"].as_str()?.to_owned()),
            _ => return None,
        })
    }

    /// Kind, media type, size, and the beginning of the digest or the address, for whoever checks what arrived; nothing for
    /// text.
    pub(super) fn told(&self) -> Option<String> {
        match self {
            Self::Text(_) => None,
            Self::Image { mime, data } => Some(embedded("image", mime, data)),
            Self::Audio { mime, data } => Some(embedded("audio", mime, data)),
            Self::Link { uri, mime, size_bytes } => {
                let mime = mime.as_deref().unwrap_or("unknown");
                let size = size_bytes.map_or_else(|| "?".to_owned(), |size| size.to_string());
                Some(format!("[resource_link {mime} {size} bytes {uri}]"))
            }
        }
    }
}

fn embedded(kind: &str, mime: &str, data: &str) -> String {
    let Ok(bytes) = STANDARD.decode(data) else { return format!("[{kind} {mime} not base64]") };
    format!("[{kind} {mime} {} bytes sha256 {}]", bytes.len(), digest(&bytes))
}

/// The first half of the SHA-256 of some bytes, in hex.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..16])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_prompt_is_the_text_of_its_blocks() {
        let prompt = Prompt::read(&json!([
            {"type": "text", "text": "look at"}, {"type": "resource_link", "uri": "file:///a", "name": "a", "size": 3},
            {"type": "image", "data": "QUI=", "mimeType": "image/png"}, {"type": "image", "data": ""},
            {"type": "resource", "resource": {"uri": "x", "text": "inside"}}, 7, {"type": "new"},
        ]));
        assert_eq!((prompt.text(), prompt.words()), ("look at\nfile:///a\ninside".into(), "look at\ninside".into()));
        let told: Vec<_> = prompt.blocks.iter().filter_map(Block::told).collect();
        let image = "[image image/png 2 bytes sha256 38164fbd17603d73f696b8b4d72664d7]";
        assert_eq!(told, ["[resource_link unknown 3 bytes file:///a]", image]);
        assert_eq!(Prompt::read(&Value::Null), Prompt::default());
    }
}
