//! How messages are sent, and what a failed request means for the message in it. Telegram has no code for most of this,
//! so its words are read.

use std::path::Path;

use super::api::{Api, Disposition, TelegramError};
use super::fences::Fences;
use super::is_group;
use super::methods::FetchError;
use super::upload::{DOCUMENT_BYTES_MAX, Upload, UploadError};
use super::words::Words;
use crate::chat::{Attachment, NotSent};
use crate::platform::delivery::{Action, Attached, Format, MessageId, Post, Request};
use crate::platform::link::{Failure, Sender, Unfetched, Unsent};
use crate::report::Chain;
use crate::store::Store;

/// Makes the requests of the delivery.
#[derive(Clone, Debug)]
pub(super) struct TelegramSender {
    api: Api,
    fences: Fences,
}

impl TelegramSender {
    pub(super) fn new(api: Api, fences: Fences) -> Self {
        Self { api, fences }
    }

    /// Makes a request that says something, and again without its entities if Telegram does not take these. Returns the id
    /// of a new message.
    async fn say(&self, request: &Request, post: &Post, store: &Store) -> Result<Option<MessageId>, TelegramError> {
        let before = self.fences.before(request).filter(|_| post.format == Format::Markdown);
        let (words, after) = Words::of(post, before.as_ref());
        let words = words.answering(answered(request, store).await);
        let is_marked = words.is_marked();
        let message_id = match self.call(request, &words).await {
            Err(error) if is_marked && is_about_entities(&error) => {
                tracing::warn!(error = %Chain(&error), "Telegram does not take the format of a text, which is sent without");
                self.call(request, &words.plain()).await?
            }
            outcome => outcome?,
        };
        if post.format == Format::Markdown {
            self.fences.shown(request, before, after, message_id.as_ref().map(|id| id.0.as_str()));
        }
        Ok(message_id)
    }

    async fn attach(&self, request: &Request, file: &Attached, store: &Store) -> Result<Option<MessageId>, Unsent> {
        let (chat, thread, reply_to) = (&request.chat, request.thread.as_deref(), answered(request, store).await);
        match self.api.send_file(&Upload { chat, thread, file, reply_to }).await {
            Ok(sent) => Ok(Some(MessageId::from(sent.message_id))),
            Err(UploadError::Unreadable) => Err(Unsent::no_file(NotSent::Unreadable)),
            Err(UploadError::TooLarge) => Err(Unsent::no_file(NotSent::TooLarge { bytes_max: DOCUMENT_BYTES_MAX })),
            Err(UploadError::Call(error)) => Err(unsent(&error)),
        }
    }

    async fn call(&self, request: &Request, words: &Words) -> Result<Option<MessageId>, TelegramError> {
        let (api, chat, thread) = (&self.api, request.chat.as_str(), request.thread.as_deref());
        match &request.action {
            Action::Typing => api.send_typing(chat, thread).await.map(|()| None),
            Action::Send(_) => {
                let sent = api.send_message(chat, thread, words).await?;
                Ok(Some(MessageId::from(sent.message_id)))
            }
            // A file says nothing, so it does not come here.
            Action::Attach(_) => Ok(None),
            Action::Edit { message_id, .. } => api.edit_message_text(chat, &message_id.0, words).await.map(|()| None),
            Action::Draft { draft_id, .. } => api.send_draft(chat, thread, *draft_id, words).await.map(|()| None),
        }
    }
}

/// Where several people talk, the first message of a reply names the one that it answers. A press is none.
async fn answered(request: &Request, store: &Store) -> Option<i64> {
    let attempt = request.attempt.as_ref().filter(|attempt| attempt.number == 0 && is_group(&request.chat))?;
    // Without the store's word it is a reply all the same.
    let question = store.question(attempt.entry).await.ok().flatten()?;
    let (chat, message) = question.split_once(':')?;
    // A group that has moved has other messages.
    if chat == request.chat { message.parse().ok() } else { None }
}

impl Sender for TelegramSender {
    async fn perform(&self, request: &Request, store: &Store) -> Result<Option<MessageId>, Unsent> {
        let outcome = match &request.action {
            Action::Attach(file) => return self.attach(request, file, store).await,
            Action::Typing => self.call(request, &Words::default()).await,
            Action::Send(post) | Action::Edit { post, .. } | Action::Draft { post, .. } => {
                self.say(request, post, store).await
            }
        };
        outcome.map_err(|error| match &request.action {
            Action::Draft { .. } => undrafted(&error),
            _ => unsent(&error),
        })
    }

    async fn fetch(&self, _chat: &str, file: &Attachment, path: &Path, _store: &Store) -> Result<(), Unfetched> {
        self.api.fetch(&file.source, path).await.map_err(|error| match &error {
            FetchError::Api(refused) => match refused.disposition() {
                Disposition::Retry { after } => Unfetched::for_now(&error, after),
                // A file that is gone is told as one, and so is a token that is refused: the link says that itself.
                Disposition::GiveUp | Disposition::Fatal => Unfetched::for_good(&error),
            },
            FetchError::Network(_) | FetchError::Refused(429 | 500..) => Unfetched::for_now(&error, None),
            FetchError::Refused(_) | FetchError::TooLarge | FetchError::Timeout | FetchError::Write(_) => {
                Unfetched::for_good(&error)
            }
        })
    }
}

fn is_about_entities(error: &TelegramError) -> bool {
    let TelegramError::Refused { code: 400, description, .. } = error else { return false };
    let description = description.to_ascii_lowercase();
    ["entit", "parse", "url"].iter().any(|word| description.contains(word))
}

/// A server that does not know the method says 404, which is no word on the token; one that does not take a draft for any
/// other reason gets a message.
fn undrafted(error: &TelegramError) -> Unsent {
    let told = unsent(error);
    match error {
        TelegramError::Refused { code: 404, .. } => Unsent { failure: Failure::NoDraft, is_fatal: false, ..told },
        _ if matches!(told.failure, Failure::Refused | Failure::NoMessage | Failure::Unchanged) => {
            Unsent { failure: Failure::NoDraft, ..told }
        }
        _ => told,
    }
}

/// What this error means for a message.
pub(super) fn unsent(error: &TelegramError) -> Unsent {
    Unsent {
        failure: failure(error),
        is_ambiguous: error.may_have_been_done(),
        is_fatal: error.disposition() == Disposition::Fatal,
        code: error.code(),
        why: Chain(error).to_string(),
    }
}

fn failure(error: &TelegramError) -> Failure {
    let TelegramError::Refused { code, description, migrate_to, .. } = error else {
        return Failure::Again { asked: None };
    };
    if let Some(new) = migrate_to {
        return Failure::Moved(new.to_string());
    }
    match error.disposition() {
        Disposition::Retry { after } => return Failure::Again { asked: after },
        // The task stops sending; the message stays for a time with a good token.
        Disposition::Fatal => return Failure::Again { asked: None },
        Disposition::GiveUp => {}
    }
    let says = |words: &str| description.to_ascii_lowercase().contains(words);
    if says("message is not modified") {
        Failure::Unchanged
    } else if says("message to edit not found") || says("message can't be edited") {
        Failure::NoMessage
    } else if says("message thread not found") {
        Failure::NoThread
    } else if *code == 403 || says("chat not found") || says("user is deactivated") || says("peer_id_invalid") {
        Failure::Unreachable
    } else {
        Failure::Refused
    }
}
