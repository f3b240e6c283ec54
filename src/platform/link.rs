//! What a network platform is to its task: how messages come in ([`Link`]), and how something is sent ([`Sender`]).
//!
//! Everything else is the same on all of them: commands, phases, the queues of what is to be shown, the ledger
//! ([`super::task`], [`super::delivery`]).
//!
//! **Invariants**
//! - A link confirms a message to its platform only after the store has it.
//! - Nothing in [`Link::advance`] waits, and [`Link::heard`] may be dropped at any time.

use std::error::Error;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::delivery::{MessageId, Request};
use crate::chat::{Attachment, Inbound, LinkState, NotSent};
use crate::clock::{MonoNanos, UnixMillis};
use crate::id::TurnId;
use crate::report::Chain;
use crate::store::Store;

/// How messages come in, and the state of the connection.
pub(super) trait Link: Send + 'static {
    /// The key in `[platforms.<name>]`, and the platform of every conversation here.
    const PLATFORM: &'static str;
    /// What [`Link::heard`] brings.
    type Heard: Send;
    /// Makes the requests of the delivery.
    type Sender: Sender;
    /// What the next image needs, besides what is to be shown. Self-describing: additions have a default.
    type Saved: Serialize + DeserializeOwned + Default + Send;

    /// The account that the link is of: what was saved of another one is dropped.
    fn account(&self) -> &str;

    /// Goes on with what another image saved, and with its fds by name. Called once, before anything else, if at all.
    fn restore(&mut self, saved: Self::Saved, fds: Vec<NamedFd>);

    /// Reads what the store has. Called once, before the first [`Link::advance`].
    fn load(&mut self, store: &Store) -> impl Future<Output = ()> + Send;

    /// Starts what is due, and says when something else is. `may_hear`: whether messages may be taken in.
    fn advance(&mut self, now: MonoNanos, may_hear: bool) -> Option<MonoNanos>;

    /// Waits for what comes next; for ever if nothing is under way.
    fn heard(&mut self) -> impl Future<Output = Self::Heard> + Send;

    /// Acts on it. Returns the messages that were stored for the first time.
    fn take(&mut self, heard: Self::Heard, store: &Store) -> impl Future<Output = Vec<(TurnId, Inbound)>> + Send;

    /// Takes in nothing more, until [`Link::advance`] allows it again.
    fn hush(&mut self);

    /// How something can be sent now.
    fn way(&self) -> Way<Self::Sender>;

    /// The platform has taken something that was sent. While there is no room for what may come in, nothing else tells a link
    /// that asks for it that it would be answered.
    fn sent(&mut self) {}

    /// The platform refuses this account as such: nothing will succeed until the configuration changes.
    fn refused(&mut self, why: &Unsent);

    /// The state of the link.
    fn state(&self) -> &LinkState;

    /// What the next image needs.
    fn save(&self) -> Self::Saved;

    /// Duplicates of the fds that the next image needs, by name.
    ///
    /// # Errors
    /// Why they cannot be duplicated: the handoff must not happen.
    fn fds(&self) -> std::io::Result<Vec<NamedFd>> {
        Ok(Vec::new())
    }

    /// Fds that must outlive this process if it is killed, or no longer, since the last time it was asked.
    fn take_kept(&mut self) -> Vec<Kept> {
        Vec::new()
    }

    /// The image that runs has proven itself.
    fn proven(&mut self) {}

    /// An admin wants nothing to come in or go out any more, until [`Link::advance`] is called with `may_hear` again.
    fn pause(&mut self) {
        self.hush();
    }

    /// Says good-bye, before the task ends. It gets no longer than a second.
    fn leave(&mut self, store: &Store) -> impl Future<Output = ()> + Send {
        let _store = store;
        std::future::ready(())
    }
}

/// A file descriptor and what it is called by its link.
pub type NamedFd = (String, OwnedFd);

/// A change in what must outlive a process that is killed.
#[derive(Debug)]
pub struct Kept {
    /// What the link calls it.
    pub name: String,
    /// A duplicate; none if it is no longer needed.
    pub fd: Option<OwnedFd>,
}

/// Makes the requests of the delivery.
pub(super) trait Sender: Clone + Send + Sync + 'static {
    /// Makes one request. Returns the id of the message if it was a new one, empty where the platform gives none.
    ///
    /// # Errors
    /// [`Unsent`].
    fn perform(
        &self,
        request: &Request,
        store: &Store,
    ) -> impl Future<Output = Result<Option<MessageId>, Unsent>> + Send;

    /// Writes a file that came with a message in `chat` into `path`, which is there already, for its user alone. What is in
    /// it after an error is no file.
    ///
    /// # Errors
    /// [`Unfetched`].
    fn fetch(
        &self,
        chat: &str,
        file: &Attachment,
        path: &Path,
        store: &Store,
    ) -> impl Future<Output = Result<(), Unfetched>> + Send;
}

/// Why a file was not fetched.
#[derive(Clone, Debug)]
pub(super) struct Unfetched {
    /// For people and agents, without secrets.
    pub(super) why: String,
    /// It may be had later: the wait that the platform asked for, if it did.
    pub(super) again: Option<Option<Duration>>,
}

impl Unfetched {
    /// Another try brings nothing else.
    pub(super) fn for_good(error: &(dyn Error + 'static)) -> Self {
        Self { why: Chain(error).to_string(), again: None }
    }

    /// It may be had later.
    pub(super) fn for_now(error: &(dyn Error + 'static), asked: Option<Duration>) -> Self {
        Self { why: Chain(error).to_string(), again: Some(asked) }
    }
}

/// How something can be sent.
pub(super) enum Way<S> {
    /// By this.
    Open(S),
    /// In a moment, which is worth waiting for also when the process is to end.
    Soon,
    /// Not before something changes.
    Closed,
}

/// Why something was not sent.
#[derive(Clone, Debug)]
pub(super) struct Unsent {
    /// What it means for the message.
    pub(super) failure: Failure,
    /// It may have been done all the same.
    pub(super) is_ambiguous: bool,
    /// The platform refuses the account as such.
    pub(super) is_fatal: bool,
    /// The platform's error code, or the kind of failure: what [`LinkState`] calls `error_code`.
    pub(super) code: String,
    /// For the log and the ledger; without secrets.
    pub(super) why: String,
}

impl Unsent {
    /// A file that was not sent, and will not be.
    pub(super) fn no_file(why: NotSent) -> Self {
        let told = format!("the file is not sent: {why:?}");
        let failure = Failure::NoFile(why);
        Self { failure, is_ambiguous: false, is_fatal: false, code: "file".to_owned(), why: told }
    }
}

/// What a failed request means for the message in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is tried again.
    Again {
        /// The wait that the platform asked for.
        asked: Option<Duration>,
    },
    /// The message says that already.
    Unchanged,
    /// The chat has this id now.
    Moved(String),
    /// Nobody can be reached there.
    Unreachable,
    /// The message is gone.
    NoMessage,
    /// The thread is gone.
    NoThread,
    /// Nothing grows in this chat as the platform would have it: it has no drafts, or takes no card.
    NoDraft,
    /// This message is not taken.
    Refused,
    /// This file is not: people are told.
    NoFile(NotSent),
}

/// A link that is in trouble and is tried again after `wait`.
pub(super) fn retrying(code: &str, message: String, wait: Duration) -> LinkState {
    let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    LinkState::Retrying {
        error_code: code.to_owned(),
        error_message: message,
        next_attempt_at: UnixMillis(UnixMillis::now().0.saturating_add(wait_ms)),
    }
}
