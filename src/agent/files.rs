//! Files in what an agent says: how they are read, and how a copy is kept of each, so that what is sent is what was said
//! then.
//!
//! A copy is `<outgoing>/<turn>/<number>-<name>`. The number is that of the file in its turn, so a file that is taken
//! up again after a kill of the gateway takes the place of itself.
//!
//! **Invariants**
//! - A link leads to a regular file below the agent's working directory, or below the turn's own directory of copies,
//!   or to nothing: links are resolved before and not followed when it is opened, and what is opened is looked at, not
//!   the path.
//! - What is kept of a turn is bounded, in files and in bytes, and keeping it takes no longer than [`DEADLINE`].
//! - The runtime's thread reads and writes no file.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2};
use serde_json::Value;
use tempfile::NamedTempFile;

use super::magic::{self, Medium};
use crate::chat::file_name::shortened;
use crate::chat::{Content, NotSent, OutFile};
use crate::id::TurnId;

/// The largest file that is embedded in a message, in bytes.
const EMBEDDED_BYTES_MAX: u64 = 20 << 20;
/// The largest file that a link leads to, in bytes: what the most generous platform takes.
const LINKED_BYTES_MAX: u64 = 50 << 20;
/// What all files of a turn may take, in bytes.
const TURN_BYTES_MAX: u64 = 256 << 20;
/// Files of a turn. People are told that there are more, once.
const TURN_FILES_MAX: usize = 64;
/// The longest media type; RFC 6838 has two names of 127 characters.
const MIME_BYTES_MAX: usize = 255;
/// The longest link that people are told of, in bytes.
const LINK_BYTES_MAX: usize = 500;
/// How long one file may take; its disk may be a network.
const DEADLINE: Duration = Duration::from_secs(10);
/// Kernel file systems whose files are made up when they are read (statfs(2)): processes, devices.
const MADE_UP: [u32; 2] = [0x9fa0, 0x6265_6572];

/// A file as an agent says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    name: Option<String>,
    mime: Option<String>,
    given: Given,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    /// In base64.
    Encoded(String),
    /// As text.
    Text(String),
    /// By its path; none if its address has no path here.
    Link { uri: String, path: Option<PathBuf> },
}

impl Offer {
    /// Reads a content block; `None` if it is none of a file, but text, or a link to elsewhere.
    pub(super) fn read(block: &Value) -> Option<Self> {
        let text = |object: &Value, key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        let mime = |object: &Value| text(object, "mimeType").filter(|mime| mime.len() <= MIME_BYTES_MAX);
        match block.get("type")?.as_str()? {
            "image" | "audio" => Some(Self {
                name: text(block, "uri").map(|uri| last_segment(&uri)),
                mime: mime(block),
                given: Given::Encoded(text(block, "data")?),
            }),
            "resource" => {
                let resource = block.get("resource")?;
                let given = text(resource, "blob").map(Given::Encoded);
                Some(Self {
                    name: text(resource, "uri").map(|uri| last_segment(&uri)),
                    mime: mime(resource),
                    given: given.or_else(|| text(resource, "text").map(Given::Text))?,
                })
            }
            "resource_link" => {
                let uri = text(block, "uri")?;
                let url = Url::parse(&uri).ok().filter(|url| url.scheme() == "file")?;
                let path = url.to_file_path().ok();
                let name = text(block, "name").or_else(|| Some(last_segment(&uri)));
                Some(Self { name, mime: mime(block), given: Given::Link { uri, path } })
            }
            _ => None,
        }
    }

    /// What it is before it was looked at.
    pub(super) fn unkept(&self) -> OutFile {
        let name = self.name(self.mime.as_deref());
        OutFile { number: 0, at: 0, name, mime: self.mime.clone(), content: self.missing(NotSent::Unreadable) }
    }

    /// Its name for people and for a file system: no path, no control characters, not hidden. One that has none is named
    /// after its kind.
    fn name(&self, mime: Option<&str>) -> String {
        let given = self.name.as_deref().unwrap_or_default();
        let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
        let plain: String = last.chars().filter(|c| !c.is_control() && !turns_text_around(*c)).collect();
        let plain = plain.trim().trim_start_matches('.').trim();
        if plain.is_empty() {
            return default_name(mime).to_owned();
        }
        shortened(plain)
    }

    fn missing(&self, why: NotSent) -> Content {
        let link = match &self.given {
            Given::Link { uri, .. } => Some(uri[..uri.floor_char_boundary(LINK_BYTES_MAX)].to_owned()),
            Given::Encoded(_) | Given::Text(_) => None,
        };
        Content::Missing { why, link }
    }
}

/// Where the files of a turn are kept.
pub(super) struct Shelf<'a> {
    /// Below which each turn has a directory.
    pub(super) outgoing: &'a Path,
    /// The agent's working directory.
    pub(super) cwd: &'a Path,
    /// The turn.
    pub(super) turn: TurnId,
}

/// What was copied and has no name yet.
struct Copy {
    file: NamedTempFile,
    bytes: u64,
    /// What its first bytes say that it is.
    mime: Option<&'static str>,
}

impl Shelf<'_> {
    /// Keeps a copy of a file that stands at `at`, after the files `before`. `None` if people were told already that the
    /// turn has too many.
    pub(super) async fn keep(&self, offer: Offer, at: usize, before: &[OutFile]) -> Option<OutFile> {
        if before.len() > TURN_FILES_MAX {
            return None;
        }
        let number = u32::try_from(before.len()).unwrap_or(u32::MAX);
        let directory = self.outgoing.join(self.turn.0.to_string());
        let (room, cwd) = (room(before), self.cwd.to_owned());
        let unkept = OutFile { number, at, ..offer.unkept() };
        let job = {
            let (offer, directory) = (offer.clone(), directory.clone());
            tokio::task::spawn_blocking(move || copy(&offer, &directory, &cwd, room))
        };
        let copied = match tokio::time::timeout(DEADLINE, job).await {
            Ok(Ok(copied)) => copied,
            Ok(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
            Err(_late) => Err(NotSent::Unreadable),
        };
        let kept = copied.and_then(|Copy { file, bytes, mime }| {
            let mime = mime.map(str::to_owned).or(offer.mime.clone());
            let name = offer.name(mime.as_deref());
            let path = directory.join(format!("{number}-{name}"));
            file.persist(&path).map_err(|error| unwritable(&error.error))?;
            Ok(OutFile { number, at, name, mime, content: Content::Kept { path, bytes } })
        });
        Some(kept.unwrap_or_else(|why| OutFile { content: offer.missing(why), ..unkept }))
    }
}

/// What files of the turn may still take.
fn room(before: &[OutFile]) -> u64 {
    if before.len() >= TURN_FILES_MAX {
        return 0;
    }
    let taken = before.iter().map(|file| match file.content {
        Content::Kept { bytes, .. } => bytes,
        Content::Missing { .. } => 0,
    });
    TURN_BYTES_MAX.saturating_sub(taken.sum())
}

fn copy(offer: &Offer, directory: &Path, cwd: &Path, room: u64) -> Result<Copy, NotSent> {
    if room == 0 {
        return Err(NotSent::TooMany);
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| unwritable(&error))?;
    let mut file = NamedTempFile::new_in(directory).map_err(|error| unwritable(&error))?;
    let bytes = match &offer.given {
        Given::Encoded(text) => {
            // Three bytes in four characters, of which up to two are padding.
            within(text.len() as u64 / 4 * 3, EMBEDDED_BYTES_MAX + 2, EMBEDDED_BYTES_MAX, room + 2)?;
            let bytes = STANDARD.decode(text).map_err(|_| NotSent::Unreadable)?;
            within(bytes.len() as u64, EMBEDDED_BYTES_MAX, EMBEDDED_BYTES_MAX, room)?;
            file.write_all(&bytes).map_err(|error| unwritable(&error))?;
            bytes.len() as u64
        }
        Given::Text(text) => {
            within(text.len() as u64, EMBEDDED_BYTES_MAX, EMBEDDED_BYTES_MAX, room)?;
            file.write_all(text.as_bytes()).map_err(|error| unwritable(&error))?;
            text.len() as u64
        }
        Given::Link { path, .. } => {
            let path = path.as_deref().ok_or(NotSent::Outside)?;
            let source = open(path, &[cwd, directory])?;
            let max = LINKED_BYTES_MAX.min(room);
            let bytes = io::copy(&mut source.take(max + 1), file.as_file_mut()).map_err(|_| NotSent::Unreadable)?;
            within(bytes, LINKED_BYTES_MAX, LINKED_BYTES_MAX, room)?;
            bytes
        }
    };
    if bytes == 0 {
        // No platform takes it.
        return Err(NotSent::Unreadable);
    }
    file.as_file().sync_data().map_err(|error| unwritable(&error))?;
    let mime = picture(file.as_file_mut());
    Ok(Copy { file, bytes, mime })
}

/// Whether so many bytes are few enough.
fn within(bytes: u64, max: u64, bytes_max: u64, room: u64) -> Result<(), NotSent> {
    if bytes > max {
        Err(NotSent::TooLarge { bytes_max })
    } else if bytes > room {
        Err(NotSent::TooMany)
    } else {
        Ok(())
    }
}

fn unwritable(error: &io::Error) -> NotSent {
    tracing::error!(%error, "a file that an agent sends cannot be kept");
    NotSent::Unreadable
}

/// Opens the regular file at `path`, which must lie below one of `roots`.
///
/// # Errors
/// [`NotSent::Outside`], or [`NotSent::Unreadable`] if there is nothing that can be read.
fn open(path: &Path, roots: &[&Path]) -> Result<File, NotSent> {
    let real = fs::canonicalize(path).map_err(|_| NotSent::Unreadable)?;
    let below = roots.iter().find_map(|root| {
        let root = fs::canonicalize(root).ok()?;
        let rest = real.strip_prefix(&root).ok()?.to_owned();
        Some((root, rest))
    });
    let (root, rest) = below.filter(|(_, rest)| !rest.as_os_str().is_empty()).ok_or(NotSent::Outside)?;
    let root = File::open(root).map_err(|_| NotSent::Unreadable)?;
    // It has no link in it any more; whatever was put there since is not followed. A FIFO must not be waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = openat2(root.as_fd(), rest, flags, Mode::empty(), resolve).map_err(|_| NotSent::Unreadable)?;
    let stat = fstat(&opened).map_err(|_| NotSent::Unreadable)?;
    let made_up = fstatfs(&opened).map_or(true, |fs| MADE_UP.iter().any(|magic| i64::from(*magic) == fs.f_type));
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || made_up {
        return Err(NotSent::Outside);
    }
    Ok(File::from(opened))
}

/// The kind of picture that a file is, by its first bytes.
fn picture(file: &mut File) -> Option<&'static str> {
    file.rewind().ok()?;
    let mut start = Vec::new();
    file.take(magic::BYTES).read_to_end(&mut start).ok()?;
    magic::kind(&start).filter(|(medium, _)| *medium == Medium::Image).map(|(_, mime)| mime)
}

/// Whether what follows may be shown in another direction (UAX #9), so that a name looks like another.
fn turns_text_around(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn default_name(mime: Option<&str>) -> &'static str {
    match mime.unwrap_or_default() {
        "image/png" => "picture.png",
        "image/jpeg" => "picture.jpg",
        "image/webp" => "picture.webp",
        "image/gif" => "picture.gif",
        "audio/mpeg" => "audio.mp3",
        "audio/wav" | "audio/x-wav" => "audio.wav",
        "audio/ogg" => "audio.ogg",
        "application/pdf" => "file.pdf",
        "text/plain" => "file.txt",
        _ => "file.bin",
    }
}

/// The last part of an address, without what is asked of it.
fn last_segment(uri: &str) -> String {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match Url::parse(uri).ok().and_then(|url| url.to_file_path().ok()) {
        Some(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        None => last.to_owned(),
    }
}

#[cfg(test)]
mod tests;
