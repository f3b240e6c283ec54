//! How messages are sent, and what a failed request means for the message in it.
//!
//! **Invariants**
//! - The name of a message (`client_id`) is made of its entry in the outbox and its number there, so a repeat has the
//!   same, whatever became of the process in between.
//! - The latest context of a chat is echoed. If it is stale the message goes without it, once.
//! - What only shows typing fails without a consequence.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::PLATFORM;
use super::api::Api;
use super::error::{Disposition, RATE_LIMITED, STALE_PAUSE, WeixinError};
use super::media::{self, FILE_BYTES_MAX, MediaKind, upload};
use super::message;
use crate::chat::{Attachment, NotSent};
use crate::clock::MonoNanos;
use crate::config::Secret;
use crate::platform::delivery::pace::after;
use crate::platform::delivery::{Action, Attached, MessageId, Request};
use crate::platform::link::{Failure, Sender, Unfetched, Unsent};
use crate::platform::uploads::Uploads;
use crate::report::Chain;
use crate::store::{Attempt, EntryId, Store};
use crate::sys::random;

/// How long a typing ticket is used.
const TICKET_AGE_MAX: Duration = Duration::from_secs(10 * 60);
/// Typing that was not shown anew for so long is over: the reply is.
pub(super) const TYPING_LAPSE: Duration = Duration::from_secs(12);
/// How often a message is tried whose refusal has a code that is not known.
const REFUSALS_MAX: u32 = 3;
/// Tickets, and messages that were refused, that are remembered.
const REMEMBERED_MAX: usize = 1024;

/// What all requests of an account share.
#[derive(Default)]
struct Shared {
    tickets: BTreeMap<String, (Secret, MonoNanos)>,
    /// Who sees typing, and since when.
    typing: BTreeMap<String, MonoNanos>,
    /// Messages whose refusal is not understood.
    refusals: BTreeMap<(EntryId, u32), u32>,
    /// The service wants no message before.
    not_before: MonoNanos,
}

/// Makes the requests of the delivery.
#[derive(Clone)]
pub(super) struct WeixinSender {
    api: Api,
    account: Arc<str>,
    /// What the names of messages begin with: another database counts its entries anew.
    names: Arc<str>,
    shared: Arc<Mutex<Shared>>,
    /// Files that are held in memory at a time.
    uploads: Uploads,
}

impl WeixinSender {
    pub(super) fn new(api: Api, account: &str, names: &str) -> Self {
        Self { api, account: account.into(), names: names.into(), shared: Arc::default(), uploads: Uploads::default() }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the typing that was not shown anew; says when there may be more of it.
    pub(super) fn lapse(&self, now: MonoNanos) -> Option<MonoNanos> {
        let over: Vec<String> = {
            let shared = self.shared();
            let lapsed = shared.typing.iter().filter(|(_, at)| after(**at, TYPING_LAPSE) <= now);
            lapsed.map(|(user, _)| user.clone()).collect()
        };
        over.iter().for_each(|user| self.end_typing(user));
        self.shared().typing.values().min().map(|at| after(*at, TYPING_LAPSE))
    }

    /// Shows that typing is over, aside: nothing waits for it.
    fn end_typing(&self, user: &str) {
        let ticket = {
            let mut shared = self.shared();
            if shared.typing.remove(user).is_none() {
                return;
            }
            shared.tickets.get(user).map(|(ticket, _)| ticket.clone())
        };
        let Some(ticket) = ticket else { return };
        let (api, user) = (self.api.clone(), user.to_owned());
        // It ends by its own deadline.
        tokio::spawn(async move {
            if let Err(error) = api.send_typing(&user, &ticket, false).await {
                tracing::debug!(error = %Chain(&error), "typing cannot be ended");
            }
        });
    }

    async fn type_to(&self, user: &str, store: &Store) -> Result<(), WeixinError> {
        let now = MonoNanos::now();
        let known = self.shared().tickets.get(user).cloned().filter(|(_, at)| now.since(*at) < TICKET_AGE_MAX);
        let ticket = match known {
            Some((ticket, _)) => ticket,
            None => {
                let context = self.context(user, store).await;
                let Some(ticket) = self.api.typing_ticket(user, context.as_deref()).await? else { return Ok(()) };
                let mut shared = self.shared();
                if shared.tickets.len() >= REMEMBERED_MAX {
                    shared.tickets.clear();
                }
                shared.tickets.insert(user.to_owned(), (ticket.clone(), now));
                ticket
            }
        };
        let shown = self.api.send_typing(user, &ticket, true).await;
        let mut shared = self.shared();
        match shown {
            Ok(()) => drop(shared.typing.insert(user.to_owned(), MonoNanos::now())),
            // It may be the ticket.
            Err(_) => drop(shared.tickets.remove(user)),
        }
        shown
    }

    /// The latest context of a chat. A message without one is shown all the same.
    async fn context(&self, chat: &str, store: &Store) -> Option<String> {
        store.context(PLATFORM, &self.account, chat).await.unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "the context of a chat cannot be read");
            None
        })
    }

    /// What a message is called; one that is recorded nowhere gets a name of its own.
    fn name(&self, attempt: Option<&Attempt>) -> String {
        match attempt {
            Some(Attempt { entry, number, .. }) => format!("hermes-{}-{}-{number}", self.names, entry.0),
            None => format!("hermes-{}-once-{:016x}", self.names, u64::from_le_bytes(random::some())),
        }
    }

    async fn send_text(&self, request: &Request, text: &str, store: &Store) -> Result<MessageId, Unsent> {
        let name = self.name(request.attempt.as_ref());
        self.send(request, &name, &json!({ "type": 1, "text_item": { "text": text } }), store).await
    }

    /// A file is uploaded, and a message shows it. A word that goes with it is a message before it, since a message is one
    /// thing.
    async fn send_file(&self, request: &Request, file: &Attached, store: &Store) -> Result<MessageId, Unsent> {
        self.spare()?;
        let bytes_max = FILE_BYTES_MAX as u64;
        let held = self.uploads.hold(file, bytes_max).await?;
        let kind = match file.mime.as_deref() {
            _ if file.is_picture() => MediaKind::Image,
            Some("video/mp4") => MediaKind::Video,
            _ => MediaKind::File,
        };
        let item = match upload(&self.api, &request.chat, kind, &file.name, &held.bytes).await {
            Ok(item) => item,
            Err(WeixinError::FileTooLarge { .. }) => return Err(Unsent::no_file(NotSent::TooLarge { bytes_max })),
            // The CDN does not want this file.
            Err(error @ WeixinError::Status { method: "upload", status: 400..=499, .. }) if !error.is_about_time() => {
                return Err(Unsent::no_file(NotSent::Refused(Chain(&error).to_string())));
            }
            Err(error) => {
                let key = request.attempt.as_ref().map(|attempt| (attempt.entry, attempt.number));
                // Nothing is shown by an upload.
                return Err(Unsent { is_ambiguous: false, ..self.unsent(&error, key) });
            }
        };
        let name = self.name(request.attempt.as_ref());
        if let Some(word) = &file.word {
            let item = json!({ "type": 1, "text_item": { "text": word } });
            self.send(request, &format!("{name}-word"), &item, store).await?;
        }
        self.send(request, &name, &item, store).await
    }

    /// # Errors
    /// The service wants no message for a while.
    fn spare(&self) -> Result<(), Unsent> {
        let (now, not_before) = (MonoNanos::now(), self.shared().not_before);
        if not_before > now { Err(spared(not_before.since(now))) } else { Ok(()) }
    }

    async fn send(&self, request: &Request, name: &str, item: &Value, store: &Store) -> Result<MessageId, Unsent> {
        self.spare()?;
        let context = self.context(&request.chat, store).await;
        let mut outcome = self.api.send_message(&request.chat, name, item.clone(), context.as_deref()).await;
        if context.is_some() && outcome.as_ref().is_err_and(WeixinError::is_stale_context) {
            tracing::info!("the context of a chat is stale: the message is sent without it");
            outcome = self.api.send_message(&request.chat, name, item.clone(), None).await;
        }
        let key = request.attempt.as_ref().map(|attempt| (attempt.entry, attempt.number));
        match outcome {
            Ok(id) => {
                if let Some(key) = key {
                    self.shared().refusals.remove(&key);
                }
                self.end_typing(&request.chat);
                Ok(MessageId(id.map(|id| id.to_string()).unwrap_or_default()))
            }
            Err(error) => Err(self.unsent(&error, key)),
        }
    }

    /// What an error means for a message.
    fn unsent(&self, error: &WeixinError, key: Option<(EntryId, u32)>) -> Unsent {
        let mut shared = self.shared();
        let failure = match error.disposition() {
            Disposition::Stale => Failure::Again { asked: Some(STALE_PAUSE) },
            Disposition::Retry { after: asked } => {
                if let (WeixinError::Refused { code: RATE_LIMITED, .. }, Some(wait)) = (error, asked) {
                    shared.not_before = after(MonoNanos::now(), wait);
                }
                Failure::Again { asked }
            }
            Disposition::GiveUp => {
                let Some(key) = key else { return about(error, Failure::Refused) };
                if shared.refusals.len() >= REMEMBERED_MAX {
                    shared.refusals.pop_first();
                }
                let refusals = shared.refusals.entry(key).or_default();
                *refusals += 1;
                let is_final = *refusals >= REFUSALS_MAX;
                if is_final {
                    shared.refusals.remove(&key);
                }
                if is_final { Failure::Refused } else { Failure::Again { asked: None } }
            }
        };
        about(error, failure)
    }
}

impl Sender for WeixinSender {
    async fn fetch(&self, _chat: &str, file: &Attachment, path: &Path, _store: &Store) -> Result<(), Unfetched> {
        // What is wrong with it is not told: it holds a key.
        let unread = |_| Unfetched { why: "where the file is cannot be read".to_owned(), again: None };
        let reference = message::reference(&file.source).map_err(unread)?;
        let bytes = media::download(&self.api, &reference).await.map_err(|error| match error.disposition() {
            // Whoever sends elsewhere will do so again, and a file becomes no smaller.
            _ if matches!(error, WeixinError::Status { status: 300..=399, .. } | WeixinError::TooLarge { .. }) => {
                Unfetched::for_good(&error)
            }
            Disposition::Retry { after } => Unfetched::for_now(&error, after),
            Disposition::GiveUp | Disposition::Stale => Unfetched::for_good(&error),
        })?;
        tokio::fs::write(path, bytes).await.map_err(|error| Unfetched::for_good(&error))
    }

    async fn perform(&self, request: &Request, store: &Store) -> Result<Option<MessageId>, Unsent> {
        match &request.action {
            Action::Typing => match self.type_to(&request.chat, store).await {
                Ok(()) => Ok(None),
                // It is shown again in a moment, and what it is shown before does not depend on it.
                Err(error) => Err(Unsent { is_fatal: false, ..about(&error, Failure::Again { asked: None }) }),
            },
            Action::Send(post) => self.send_text(request, &post.text, store).await.map(Some),
            Action::Attach(file) => self.send_file(request, file, store).await.map(Some),
            Action::Edit { .. } | Action::Draft { .. } => Err(unsupported()),
        }
    }
}

fn about(error: &WeixinError, failure: Failure) -> Unsent {
    Unsent {
        failure,
        is_ambiguous: error.may_have_been_done(),
        is_fatal: error.disposition() == Disposition::Stale,
        code: error.code(),
        why: Chain(error).to_string(),
    }
}

/// The service has asked for peace, so it is not asked.
fn spared(wait: Duration) -> Unsent {
    let why = "nothing is sent for a while, because the service said that it was too often".to_owned();
    let failure = Failure::Again { asked: Some(wait) };
    Unsent { failure, is_ambiguous: false, is_fatal: false, code: RATE_LIMITED.to_string(), why }
}

fn unsupported() -> Unsent {
    let why = "a message cannot be changed".to_owned();
    Unsent { failure: Failure::NoDraft, is_ambiguous: false, is_fatal: false, code: "unsupported".to_owned(), why }
}
