//! What the delivery wants shown is put on the board, where event streams find it.

use std::path::Path;
use std::sync::Arc;

use super::board::Board;
use super::message::{Author, File, Format, Message};
use crate::chat::Attachment;
use crate::clock::UnixMillis;
use crate::platform::delivery::{Action, Attached, Format as PostFormat, MessageId, Post, Request};
use crate::platform::link::{Failure, Sender, Unfetched, Unsent};
use crate::report::Chain;
use crate::store::{Attempt, Store, StoreError};

/// Puts messages on the board.
#[derive(Clone)]
pub(super) struct WebSender {
    pub(super) board: Arc<Board>,
}

impl Sender for WebSender {
    async fn perform(&self, request: &Request, _: &Store) -> Result<Option<MessageId>, Unsent> {
        let chat = &request.chat;
        let message = match &request.action {
            Action::Typing => {
                self.board.typing(chat);
                return Ok(None);
            }
            Action::Edit { message_id: MessageId(id), post } => {
                let number = id.parse().map_err(|_| no_message())?;
                return match self.board.change(chat, number, |message| update(message, post)).await {
                    Ok(true) => Ok(None),
                    Ok(false) => Err(no_message()),
                    Err(error) => Err(unsent(&error)),
                };
            }
            Action::Send(post) | Action::Draft { post, .. } => said(post),
            Action::Attach(file) => attached(file).await,
        };
        // The same part of the same entry is the same message, however often it is sent.
        let key = request.attempt.as_ref().map(|Attempt { entry, number, .. }| format!("out:{}.{number}", entry.0));
        let number = self.board.put(chat, key, message).await.map_err(|error| unsent(&error))?;
        Ok(Some(number.into()))
    }

    async fn fetch(&self, _: &str, _: &Attachment, _: &Path, _: &Store) -> Result<(), Unfetched> {
        Err(Unfetched { why: "files cannot be sent from the web page".to_owned(), again: None })
    }
}

fn said(post: &Post) -> Message {
    let (from, format) = match post.format {
        PostFormat::Plain => (Author::Gateway, Format::Plain),
        PostFormat::Markdown => (Author::Agent, Format::Markdown),
    };
    Message {
        from,
        name: String::new(),
        at: UnixMillis::now(),
        text: post.text.clone(),
        format,
        is_final: post.is_final,
        id: None,
        choices: post.choices.clone(),
        file: None,
    }
}

fn update(message: &mut Message, post: &Post) {
    message.text.clone_from(&post.text);
    message.choices.clone_from(&post.choices);
    message.is_final = post.is_final;
}

async fn attached(file: &Attached) -> Message {
    let bytes = file.bytes().await;
    Message {
        from: Author::Agent,
        name: String::new(),
        at: UnixMillis::now(),
        text: file.word.clone().unwrap_or_default(),
        format: Format::Plain,
        is_final: true,
        id: None,
        choices: Vec::new(),
        file: Some(File { path: file.path.clone(), name: file.name.clone(), mime: file.mime.clone(), bytes }),
    }
}

fn no_message() -> Unsent {
    failed(Failure::NoMessage, "the message is not kept any more".to_owned())
}

fn unsent(error: &StoreError) -> Unsent {
    failed(Failure::Again { asked: None }, Chain(error).to_string())
}

fn failed(failure: Failure, why: String) -> Unsent {
    Unsent { failure, is_ambiguous: false, is_fatal: false, code: "store".to_owned(), why }
}
