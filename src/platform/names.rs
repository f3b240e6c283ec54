//! Names of files that come from outside, made safe.
//!
//! **Invariant:** a name leads nowhere: it has no slash, no control character, does not begin with a dot, is not empty and
//! has at most [`crate::chat::file_name::BYTES_MAX`] bytes.

use crate::chat::Attachment;
use crate::chat::file_name::shortened;

/// What the file of an attachment is called.
pub(super) fn name(attachment: &Attachment) -> String {
    let given = attachment.name.as_deref().map(safe).filter(|name| !name.is_empty());
    given.unwrap_or_else(|| format!("{}{}", attachment.kind.as_str(), extension(attachment.mime.as_deref())))
}

/// For a file without a name.
fn extension(mime: Option<&str>) -> &'static str {
    match mime {
        Some("image/png") => ".png",
        Some("image/gif") => ".gif",
        Some("image/webp") => ".webp",
        Some("image/jpeg") => ".jpg",
        Some("audio/ogg") => ".ogg",
        Some("audio/mpeg") => ".mp3",
        Some("video/mp4") => ".mp4",
        Some("application/pdf") => ".pdf",
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chat::AttachmentKind;
    use crate::chat::file_name::BYTES_MAX;

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
        assert!(name.len() <= BYTES_MAX && name.ends_with("é.gz"), "{name}");
    }

    proptest! {
        #[test]
        fn any_name_is_a_file_name_that_leads_nowhere(given in prop_oneof![any::<String>(), "[./\\\\ a-z\u{1}\u{202e}é]{0,300}"]) {
            let name = called(Some(&given), None);
            prop_assert!(!name.is_empty() && name.len() <= BYTES_MAX);
            prop_assert!(!name.starts_with('.') && !name.contains('/') && !name.chars().any(char::is_control));
            let path = std::path::Path::new("/d").join(format!("1-{name}"));
            prop_assert_eq!(path.parent(), Some(std::path::Path::new("/d")));
            prop_assert_eq!(called(Some(&name), None), name, "what is safe stays as it is");
        }
    }
}
