//! What a file is, by its first bytes.

/// As much of a file tells what it is.
pub(super) const BYTES: u64 = 16;

/// How a file is given to people and to models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    Image,
    Audio,
}

/// What models take, by the first bytes of a file: pictures as PNG, JPEG, GIF and WebP, sound as Ogg, MP3, WAV, FLAC and
/// MPEG-4.
pub(super) fn kind(start: &[u8]) -> Option<(Medium, &'static str)> {
    let at = |offset: usize, magic: &[u8]| start.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    Some(if at(0, b"\x89PNG\r\n\x1a\n") {
        (Medium::Image, "image/png")
    } else if at(0, b"\xff\xd8\xff") {
        (Medium::Image, "image/jpeg")
    } else if at(0, b"GIF87a") || at(0, b"GIF89a") {
        (Medium::Image, "image/gif")
    } else if at(0, b"RIFF") && at(8, b"WEBP") {
        (Medium::Image, "image/webp")
    } else if at(0, b"RIFF") && at(8, b"WAVE") {
        (Medium::Audio, "audio/wav")
    } else if at(0, b"OggS") {
        (Medium::Audio, "audio/ogg")
    } else if at(0, b"ID3") || at(0, b"\xff\xfb") || at(0, b"\xff\xf3") || at(0, b"\xff\xf2") {
        (Medium::Audio, "audio/mpeg")
    } else if at(0, b"fLaC") {
        (Medium::Audio, "audio/flac")
    } else if at(4, b"ftypM4A") {
        (Medium::Audio, "audio/mp4")
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_some_kind_or_none(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let _ = kind(&bytes);
        }
    }
}
