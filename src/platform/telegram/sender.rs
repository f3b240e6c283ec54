//! How messages are sent, and what a failed request means for the message in it. Telegram has no code for most of this,
//! so its words are read.

use super::api::{Api, Disposition, TelegramError};
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
}

impl Sender for TelegramSender {
    async fn perform(&self, request: &Request, _store: &Store) -> Result<Option<MessageId>, Unsent> {
        let (chat, thread) = (request.chat.as_str(), request.thread.as_deref());
        let outcome = match &request.action {
            Action::Typing => self.api.send_typing(chat, thread).await.map(|()| None),
            Action::Send(post) => {
                let sent = self.api.send_message(chat, thread, &post.text).await;
                sent.map(|sent| Some(MessageId::from(sent.message_id)))
            }
            Action::Edit { message_id, post } => {
                self.api.edit_message_text(chat, &message_id.0, &post.text).await.map(|()| None)
            }
            Action::Draft { .. } => return Err(no_drafts()),
        };
        outcome.map_err(|error| unsent(&error))
    }
}

fn no_drafts() -> Unsent {
    let why = "drafts are not shown".to_owned();
    Unsent { failure: Failure::NoDraft, is_ambiguous: false, is_fatal: false, code: "draft".to_owned(), why }
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
