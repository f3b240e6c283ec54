//! The files in a message (<https://core.telegram.org/bots/api#message>), read field by field: one of a wrong type is no
//! file, and the message comes all the same.

use serde_json::Value;

use crate::chat::{Attachment, AttachmentKind};

/// The longest name that is kept, in characters.
const NAME_CHARS_MAX: usize = 200;

/// The fields that hold a file, and what it is.
const FIELDS: &[(&str, AttachmentKind)] = &[
    // An animation comes as a document as well.
    ("animation", AttachmentKind::Video),
    ("document", AttachmentKind::File),
    ("voice", AttachmentKind::Audio),
    ("audio", AttachmentKind::Audio),
    ("video", AttachmentKind::Video),
    ("video_note", AttachmentKind::Video),
];

/// The files of a `Message`. The members of an album are messages of their own.
pub(super) fn attachments(message: &Value) -> Vec<Attachment> {
    // Of a photo there are several sizes; the largest that can be downloaded says the most.
    let sizes = message.get("photo").and_then(Value::as_array).into_iter().flatten();
    let largest = sizes.max_by_key(|size| size.get("file_size").and_then(Value::as_u64).unwrap_or(0));
    if let Some(photo) = largest.and_then(|size| attachment(size, AttachmentKind::Image)) {
        return vec![photo];
    }
    let found = FIELDS.iter().find_map(|(field, kind)| attachment(message.get(field)?, *kind));
    found.into_iter().collect()
}

fn attachment(file: &Value, kind: AttachmentKind) -> Option<Attachment> {
    let text = |field: &str| file.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mime = text("mime_type").map(str::to_owned);
    let kind = match mime.as_deref().and_then(|mime| mime.split('/').next()) {
        Some("image") if kind == AttachmentKind::File => AttachmentKind::Image,
        _ => kind,
    };
    Some(Attachment {
        kind,
        name: text("file_name").map(|name| name.chars().take(NAME_CHARS_MAX).collect()),
        mime,
        size_bytes: file.get("file_size").and_then(Value::as_u64),
        source: text("file_id")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_of_file_is_found() {
        let table = [
            (
                json!({ "photo": [{ "file_id": "s", "file_size": 1 }, { "file_id": "l", "file_size": 9 }] }),
                Some((AttachmentKind::Image, "l")),
            ),
            (json!({ "document": { "file_id": "d", "mime_type": "text/plain" } }), Some((AttachmentKind::File, "d"))),
            (json!({ "document": { "file_id": "d", "mime_type": "image/png" } }), Some((AttachmentKind::Image, "d"))),
            (json!({ "voice": { "file_id": "v" } }), Some((AttachmentKind::Audio, "v"))),
            (json!({ "video": { "file_id": "f", "file_size": "big" } }), Some((AttachmentKind::Video, "f"))),
            (json!({ "photo": [], "document": 5, "voice": { "file_id": 7 } }), None),
            (json!({ "text": "x" }), None),
        ];
        for (message, wanted) in table {
            let found = attachments(&message);
            let found = found.first().map(|file| (file.kind, file.source.as_str()));
            assert_eq!(found, wanted, "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_read(field in "photo|document|voice|video", inner in "[0-9]|\"x\"|\\[1\\]|\\{\"file_id\":1\\}|\\[\\{\\}\\]") {
            let message = format!(r#"{{"{field}":{inner}}}"#);
            let message: Value = serde_json::from_str(&message).expect("JSON");
            prop_assert!(attachments(&message).is_empty());
        }
    }
}
