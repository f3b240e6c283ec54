//! How messages are sent, and what a failed request means for the message in it. Telegram has no code for most of this,
//! so its words are read.

use super::api::{Api, Disposition, TelegramError};
use super::words::Words;
use crate::platform::delivery::{Action, MessageId, Request};
use crate::platform::link::{Failure, Sender, Unsent};
use crate::report::Chain;
use crate::store::Store;

/// Makes the requests of the delivery.
#[derive(Clone, Debug)]
pub(super) struct TelegramSender {
    api: Api,
}

impl TelegramSender {
    pub(super) fn new(api: Api) -> Self {
        Self { api }
    }

    /// Makes a request with `words`, and again without their entities if Telegram does not take these.
    async fn with_words<T, F>(&self, words: Words, call: impl Fn(Words) -> F) -> Result<T, TelegramError>
    where
        F: Future<Output = Result<T, TelegramError>>,
    {
        let is_marked = words.is_marked();
        match call(words.clone()).await {
            Err(error) if is_marked && is_about_entities(&error) => {
                tracing::warn!(error = %Chain(&error), "Telegram does not take the format of a text, which is sent without");
                call(words.plain()).await
            }
            outcome => outcome,
        }
    }
}

impl Sender for TelegramSender {
    async fn perform(&self, request: &Request, _store: &Store) -> Result<Option<MessageId>, Unsent> {
        let (chat, thread) = (request.chat.as_str(), request.thread.as_deref());
        let api = &self.api;
        let outcome = match &request.action {
            Action::Typing => api.send_typing(chat, thread).await.map(|()| None),
            Action::Send(post) => {
                let send = |words: Words| async move { api.send_message(chat, thread, &words).await };
                self.with_words(post.into(), send).await.map(|sent| Some(MessageId::from(sent.message_id)))
            }
            Action::Edit { message_id, post } => {
                let edit = |words: Words| async move { api.edit_message_text(chat, &message_id.0, &words).await };
                self.with_words(post.into(), edit).await.map(|()| None)
            }
            Action::Draft { draft_id, post } => {
                let draft = |words: Words| async move { api.send_draft(chat, thread, *draft_id, &words).await };
                return self.with_words(post.into(), draft).await.map(|()| None).map_err(|error| undrafted(&error));
            }
        };
        outcome.map_err(|error| unsent(&error))
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
