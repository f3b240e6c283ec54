//! Names of files that come from outside, made safe.
//!
//! **Invariant:** a name leads nowhere: it has no slash, no control character, does not begin with a dot, is not empty and
//! has at most [`NAME_BYTES_MAX`] bytes.

use crate::chat::{Attachment, AttachmentKind};

/// The longest name: with a number before it and a suffix behind, it fits into the 255 bytes of a file name.
pub(super) const NAME_BYTES_MAX: usize = 120;
/// The longest extension that is kept when a name is shortened.
const EXTENSION_BYTES_MAX: usize = 16;

/// What the file of an attachment is called.
pub(super) fn name(attachment: &Attachment) -> String {
    let given = attachment.name.as_deref().map(safe).filter(|name| !name.is_empty());
    given.unwrap_or_else(|| {
        let kind = match attachment.kind {
            AttachmentKind::Image => "image",
            AttachmentKind::Audio => "audio",
            AttachmentKind::Video => "video",
            AttachmentKind::File => "file",
        };
        format!("{kind}{}", extension(attachment))
    })
}

/// For a file without a name.
fn extension(attachment: &Attachment) -> &'static str {
    match (attachment.mime.as_deref(), attachment.kind) {
        (Some("image/png"), _) => ".png",
        (Some("image/gif"), _) => ".gif",
        (Some("image/webp"), _) => ".webp",
        (Some("image/jpeg"), _) => ".jpg",
        (Some("audio/ogg"), _) => ".ogg",
        (Some("audio/mpeg"), _) => ".mp3",
        (Some("video/mp4"), _) => ".mp4",
        (Some("application/pdf"), _) => ".pdf",
        _ => "",
    }
}

fn safe(name: &str) -> String {
    let name: String = name.chars().map(|c| if leads_astray(c) { '_' } else { c }).collect();
    let name = name.trim_start_matches(|c: char| c == '.' || c.is_whitespace()).trim_end();
    shortened(name)
}

/// Separators, what does not show, and what turns the direction of what is shown.
fn leads_astray(c: char) -> bool {
    matches!(c, '/' | '\\' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || c.is_control()
}

fn shortened(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    let dot = name.rfind('.').filter(|dot| name.len() - dot <= EXTENSION_BYTES_MAX);
    let extension = dot.map_or("", |dot| &name[dot..]);
    let stem = &name[..name.floor_char_boundary(NAME_BYTES_MAX - extension.len())];
    format!("{}{extension}", stem.trim_end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn called(name: Option<&str>, mime: Option<&str>) -> String {
        super::name(&Attachment {
            kind: AttachmentKind::Image,
            name: name.map(str::to_owned),
            mime: mime.map(str::to_owned),
            size_bytes: None,
            source: String::new(),
        })
    }

    #[test]
    fn a_name_is_kept_as_far_as_it_leads_nowhere() {
        let table = [
            ("a.pdf", "a.pdf"),
            ("Bericht Müller 最终.docx", "Bericht Müller 最终.docx"),
            ("../../etc/passwd", "_.._etc_passwd"),
            ("/etc/passwd", "_etc_passwd"),
            ("..", "image.png"),
            (" .bashrc", "bashrc"),
            ("a\0b\nc", "a_b_c"),
            ("txt\u{202e}gpj.exe", "txt_gpj.exe"),
        ];
        for (given, wanted) in table {
            assert_eq!(called(Some(given), Some("image/png")), wanted, "{given:?}");
        }
        assert_eq!((called(None, Some("image/x-new")), called(None, None)), ("image".into(), "image".into()));
    }

    #[test]
    fn a_long_name_keeps_its_extension() {
        let name = called(Some(&format!("{}.tar.gz", "é".repeat(200))), None);
        assert!(name.len() <= NAME_BYTES_MAX && name.ends_with("é.gz"), "{name}");
    }

    proptest! {
        #[test]
        fn any_name_is_a_file_name_that_leads_nowhere(given in prop_oneof![any::<String>(), "[./\\\\ a-z\u{1}\u{202e}é]{0,300}"]) {
            let name = called(Some(&given), None);
            prop_assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX);
            prop_assert!(!name.starts_with('.') && !name.contains('/') && !name.chars().any(char::is_control));
            let path = std::path::Path::new("/d").join(format!("1-{name}"));
            prop_assert_eq!(path.parent(), Some(std::path::Path::new("/d")));
            prop_assert_eq!(called(Some(&name), None), name, "what is safe stays as it is");
        }
    }
}
