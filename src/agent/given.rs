//! Files that go along with a prompt: read when it is given, and shaped as the agent takes them.
//!
//! **Invariants**
//! - What a file is its first bytes say, not whoever sent it.
//! - No more than [`INLINE_BYTES_MAX`] of a prompt's files is in memory; what is more is a link to the file.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::magic::{self, Medium};
use crate::chat::LocalFile;

/// The most of the files of one prompt that stands in it. As base64 it takes a third more, and an agent's line has 8 MiB;
/// models take no larger pictures either.
pub(super) const INLINE_BYTES_MAX: u64 = 5 << 20;

/// What an agent takes besides text and links: ACP's `promptCapabilities`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Takes {
    #[serde(default)]
    pub(super) image: bool,
    #[serde(default)]
    pub(super) audio: bool,
}

/// A file, read for a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// It stands in the prompt, unless there is no room for it there.
    Inline { medium: Medium, data: String, link: Link },
    /// Only where it is.
    Link(Link),
    /// It cannot be read; a line about it, for the agent.
    Unread(String),
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) uri: String,
    pub(super) mime: Option<String>,
    pub(super) size_bytes: u64,
}

impl Given {
    /// What it takes in the prompt, in bytes, besides a little.
    pub(super) fn inline_bytes(&self) -> usize {
        match self {
            Self::Inline { data, .. } => data.len(),
            Self::Link(_) | Self::Unread(_) => 0,
        }
    }

    /// The same without its bytes.
    pub(super) fn into_link(self) -> Self {
        match self {
            Self::Inline { link, .. } => Self::Link(link),
            other => other,
        }
    }
}

/// What stands for a file of which nothing is known any more.
pub(super) fn unread(file: &LocalFile, why: &str) -> Given {
    Given::Unread(format!("[{}: {} (could not be read: {why})]", file.kind.as_str(), file.name))
}

/// Reads these files for an agent that takes this. It waits for the disk: not for the thread of a runtime.
pub(super) fn read(files: &[LocalFile], takes: Takes) -> Vec<Given> {
    let mut room = INLINE_BYTES_MAX;
    let one = |file: &LocalFile| {
        let given = read_one(file, takes, room).unwrap_or_else(|error| unread(file, &error.to_string()));
        if let Given::Inline { link, .. } = &given {
            room = room.saturating_sub(link.size_bytes);
        }
        given
    };
    files.iter().map(one).collect()
}

fn read_one(file: &LocalFile, takes: Takes, room: u64) -> io::Result<Given> {
    // A pipe in its place would hold the reader up for ever, and a link lead anywhere.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let open = File::options().read(true).custom_flags(flags.cast_signed()).open(&file.path)?;
    let there = open.metadata()?;
    if !there.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    (&open).take(magic::BYTES).read_to_end(&mut bytes)?;
    let found = magic::kind(&bytes);
    let url = Url::from_file_path(&file.path).map_err(|()| io::Error::other("its path is not absolute"))?;
    let mime = found.map(|(_, mime)| mime.to_owned()).or_else(|| file.mime.clone());
    let mut link = Link { name: file.name.clone(), uri: url.into(), mime, size_bytes: there.len() };
    let medium = found.map(|(medium, _)| medium).filter(|medium| match medium {
        Medium::Image => takes.image,
        Medium::Audio => takes.audio,
    });
    let Some(medium) = medium.filter(|_| there.len() <= room) else { return Ok(Given::Link(link)) };
    // It may grow meanwhile.
    (&open).take(room.saturating_sub(bytes.len() as u64)).read_to_end(&mut bytes)?;
    link.size_bytes = bytes.len() as u64;
    Ok(Given::Inline { medium, data: STANDARD.encode(&bytes), link })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::chat::AttachmentKind;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and more";
    const ALL: Takes = Takes { image: true, audio: true };

    fn file(directory: &Path, name: &str, bytes: &[u8]) -> LocalFile {
        let path = directory.join(name);
        std::fs::write(&path, bytes).expect("writes");
        let mime = Some("image/x-claimed".to_owned());
        LocalFile { kind: AttachmentKind::Image, name: name.to_owned(), mime, path, size_bytes: bytes.len() as u64 }
    }

    fn large(start: &[u8], bytes: u64) -> Vec<u8> {
        let mut all = start.to_vec();
        all.resize(usize::try_from(bytes).expect("small"), 7);
        all
    }

    #[test]
    fn a_picture_stands_in_the_prompt_if_the_agent_takes_it_and_it_is_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let picture = file(directory.path(), "a b.png", PNG);
        let fake = file(directory.path(), "fake.png", b"#!/bin/sh");
        let [given] = &read(std::slice::from_ref(&picture), ALL)[..] else { panic!("one") };
        let Given::Inline { medium: Medium::Image, data, link } = given else { panic!("{given:?}") };
        assert_eq!((STANDARD.decode(data).expect("base64"), link.mime.as_deref()), (PNG.to_vec(), Some("image/png")));
        assert!(link.uri.starts_with("file:///") && link.uri.ends_with("/a%20b.png"), "{}", link.uri);
        let links = read(&[picture, fake.clone()], Takes::default());
        let mimes: Vec<_> = links
            .iter()
            .map(|given| match given {
                Given::Link(link) => link.mime.as_deref().unwrap_or_default(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(mimes, ["image/png", "image/x-claimed"]);
        assert!(matches!(&read(&[fake], ALL)[..], [Given::Link(_)]));
    }

    #[test]
    fn what_is_too_large_together_is_a_link() {
        let directory = tempfile::tempdir().expect("a directory");
        let exact = file(directory.path(), "exact.png", &large(PNG, INLINE_BYTES_MAX));
        let over = file(directory.path(), "over.png", &large(PNG, INLINE_BYTES_MAX + 1));
        let half = file(directory.path(), "half.ogg", &large(b"OggS", INLINE_BYTES_MAX / 2 + 1));
        let is_inline = |files: &[LocalFile]| {
            read(files, ALL).iter().map(|given| matches!(given, Given::Inline { .. })).collect::<Vec<_>>()
        };
        assert_eq!(is_inline(&[over, exact.clone(), half.clone()]), [false, true, false]);
        assert_eq!(is_inline(&[half.clone(), exact, half]), [true, false, false]);
    }

    #[test]
    fn what_is_not_there_or_no_file_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut gone = file(directory.path(), "gone.png", PNG);
        std::fs::remove_file(&gone.path).expect("removes");
        let [Given::Unread(line)] = &read(std::slice::from_ref(&gone), ALL)[..] else { panic!("unread") };
        assert!(line.starts_with("[image: gone.png (could not be read: No such file"), "{line}");
        gone.path = directory.path().to_owned();
        assert!(matches!(&read(std::slice::from_ref(&gone), ALL)[..], [Given::Unread(_)]));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).expect("links");
        gone.path = link;
        assert!(matches!(&read(&[gone], ALL)[..], [Given::Unread(_)]));
    }
}
