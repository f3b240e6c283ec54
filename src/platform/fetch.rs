//! Files of messages, fetched beside everything else that a platform does.
//!
//! ```text
//! attachments/<turn>-<digest>/<number>-<name>
//! ```
//!
//! The digest is of where the files come from: another database counts its turns anew, and must not find the files of the
//! one before.
//!
//! **Invariants**
//! - Fetching is repeated without harm: a file is written under another name and put in its place as a whole, and one that
//!   is there is taken as it is.
//! - An order is answered: it waits no longer than [`Order::DEADLINE`] until the platform can be asked, and takes no longer
//!   than that from then on. What is not there by then is not to be had.
//! - Directories have mode 0700 and files 0600.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::delivery::pace::{after, back_off};
use super::link::{Sender, Unfetched, Way};
use super::names;
use crate::chat::{Attachment, Fetched, LocalFile};
use crate::clock::MonoNanos;
use crate::hex;
use crate::id::TurnId;
use crate::store::Store;

/// Messages whose files are fetched at once.
const FETCHES_MAX: usize = 4;
/// How often a file is tried.
const TRIES: u32 = 4;
/// The longest reason that is passed on, in characters.
const WHY_CHARS_MAX: usize = 200;

/// What is to be fetched.
#[derive(Clone, Debug)]
pub struct Order {
    /// The message.
    pub turn: TurnId,
    /// The chat it was said in.
    pub chat: String,
    /// Its files.
    pub attachments: Vec<Attachment>,
    /// The turn that may have fetched the same before.
    pub of: Option<TurnId>,
    /// Where the directories of all messages are.
    pub root: PathBuf,
}

impl Order {
    /// How long an order waits, and how long it takes at the most.
    pub const DEADLINE: Duration = Duration::from_secs(60);

    /// Where the files of `turn` are, if they are these.
    fn directory(&self, turn: TurnId) -> PathBuf {
        let mut digest = Sha256::new();
        for attachment in &self.attachments {
            digest.update(attachment.source.len().to_le_bytes());
            digest.update(&attachment.source);
        }
        self.root.join(format!("{turn}-{}", hex::encode(&digest.finalize()[..4])))
    }

    fn missing(&self, why: &str) -> Vec<Fetched> {
        self.attachments.iter().map(|_| Err(why.to_owned())).collect()
    }
}

/// The turn whose files are in a directory of this name; `None` if it is none of ours.
pub fn turn_of(directory: &str) -> Option<TurnId> {
    let (turn, digest) = directory.split_once('-')?;
    let is_ours = turn.bytes().all(|b| b.is_ascii_digit()) && digest.len() == 8;
    (is_ours && digest.bytes().all(|b| b.is_ascii_hexdigit())).then(|| turn.parse().ok().map(TurnId))?
}

/// The orders of one platform.
#[derive(Default)]
pub(super) struct Fetches {
    /// Those that were not begun, with the end of their patience. Bounded by the gateway's queues of messages.
    waiting: VecDeque<(Order, MonoNanos)>,
    running: JoinSet<(TurnId, Vec<Fetched>)>,
}

impl Fetches {
    /// Whether none waits to be begun.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, order: Order, now: MonoNanos) {
        self.waiting.push_back((order, after(now, Order::DEADLINE)));
    }

    /// Begins what may begin. Says when the next order is given up; an order that is given up is in `over`.
    pub(super) fn advance<S: Sender>(
        &mut self,
        now: MonoNanos,
        way: &Way<S>,
        store: &Store,
        over: &mut Vec<(TurnId, Vec<Fetched>)>,
    ) -> Option<MonoNanos> {
        if let Way::Open(sender) = way {
            while self.running.len() < FETCHES_MAX
                && let Some((order, _)) = self.waiting.pop_front()
            {
                let (sender, store) = (sender.clone(), store.clone());
                self.running.spawn(async move { (order.turn, all(&sender, &store, &order).await) });
            }
        }
        while let Some((order, _)) = self.waiting.pop_front_if(|(_, until)| *until <= now) {
            over.push((order.turn, order.missing("the platform could not be asked")));
        }
        self.waiting.front().map(|(_, until)| *until)
    }

    /// The next order that was carried out; for ever if none is.
    pub(super) async fn done(&mut self) -> (TurnId, Vec<Fetched>) {
        match self.running.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => std::future::pending().await,
        }
    }
}

async fn all<S: Sender>(sender: &S, store: &Store, order: &Order) -> Vec<Fetched> {
    let deadline = Instant::now() + Order::DEADLINE;
    let (root, directory) = (order.root.clone(), order.directory(order.turn));
    let made = {
        let directory = directory.clone();
        blocking(move || make(&root, &directory)).await
    };
    if let Err(error) = made {
        tracing::error!(turn = %order.turn, %error, "no directory for the files of a message");
        return order.missing("the gateway cannot store it");
    }
    let mut files = Vec::with_capacity(order.attachments.len());
    for (at, attachment) in order.attachments.iter().enumerate() {
        let place = Place::new(&directory, order, at + 1, attachment);
        let fetched = one(sender, store, order, &place, deadline).await;
        files.push(fetched.map_err(|Unfetched { why, .. }| {
            tracing::warn!(turn = %order.turn, error = why, "a file of a message cannot be had");
            why.chars().take(WHY_CHARS_MAX).collect()
        }));
    }
    files
}

/// Where one file goes.
#[derive(Clone)]
struct Place {
    attachment: Attachment,
    name: String,
    path: PathBuf,
    /// Where it is written.
    part: PathBuf,
    /// Where it may be already.
    former: Option<PathBuf>,
}

impl Place {
    fn new(directory: &Path, order: &Order, number: usize, attachment: &Attachment) -> Self {
        let name = names::name(attachment);
        let file = format!("{number}-{name}");
        Self {
            attachment: attachment.clone(),
            name,
            path: directory.join(&file),
            part: directory.join(format!(".{number}.part")),
            former: order.of.map(|of| order.directory(of).join(file)),
        }
    }

    /// The file, if it is there. An empty one may be what a power cut has left.
    fn found(&self) -> Option<LocalFile> {
        let there = fs::symlink_metadata(&self.path).ok().filter(|there| there.is_file() && there.len() > 0)?;
        Some(self.file(there.len()))
    }

    fn file(&self, size_bytes: u64) -> LocalFile {
        let Attachment { kind, mime, .. } = self.attachment.clone();
        LocalFile { kind, name: self.name.clone(), mime, path: self.path.clone(), size_bytes }
    }

    /// The file, or that of a turn before.
    fn take(&self) -> Option<LocalFile> {
        self.found().or_else(|| {
            // Each has it for itself, and keeps it for as long as it is kept itself.
            fs::hard_link(self.former.as_ref()?, &self.path).ok()?;
            self.found()
        })
    }

    /// An empty file to write to.
    fn begin(&self) -> io::Result<()> {
        match fs::remove_file(&self.part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.part).map(drop)
    }

    /// What was written is the file.
    fn end(&self) -> io::Result<LocalFile> {
        fs::rename(&self.part, &self.path)?;
        Ok(self.file(fs::symlink_metadata(&self.path)?.len()))
    }
}

fn make(root: &Path, directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(root)?;
    // What is behind a link nobody would clear away.
    if !fs::symlink_metadata(root)?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "the directory of attachments is a link"));
    }
    builder.create(directory)
}

async fn one<S: Sender>(
    sender: &S,
    store: &Store,
    order: &Order,
    place: &Place,
    deadline: Instant,
) -> Result<LocalFile, Unfetched> {
    let there = place.clone();
    if let Some(file) = blocking(move || there.take()).await {
        return Ok(file);
    }
    // Nobody is asked for what there is no time for.
    if Instant::now() < deadline
        && let Ok(fetched) = timeout_at(deadline, anew(sender, store, order, place, deadline)).await
    {
        return fetched;
    }
    Err(Unfetched { why: "it took too long".to_owned(), again: None })
}

/// A file that is not there.
async fn anew<S: Sender>(
    sender: &S,
    store: &Store,
    order: &Order,
    place: &Place,
    deadline: Instant,
) -> Result<LocalFile, Unfetched> {
    let unwritten = |error: io::Error| Unfetched { why: format!("the gateway cannot store it: {error}"), again: None };
    let mut tries = 1;
    loop {
        let begun = place.clone();
        blocking(move || begun.begin()).await.map_err(unwritten)?;
        match sender.fetch(&order.chat, &place.attachment, &place.part, store).await {
            Ok(()) => {
                let ended = place.clone();
                return blocking(move || ended.end()).await.map_err(unwritten);
            }
            Err(error) => {
                let part = place.part.clone();
                // Whoever is next writes it anew.
                let _gone = blocking(move || fs::remove_file(part)).await;
                let again = error.again.map(|asked| Instant::now() + asked.unwrap_or_else(|| back_off(tries)));
                match again {
                    Some(at) if tries < TRIES && at < deadline => tokio::time::sleep_until(at).await,
                    _ => return Err(error),
                }
                tries += 1;
            }
        }
    }
}

/// What waits for the disk, off the runtime's thread.
async fn blocking<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(what).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests;
