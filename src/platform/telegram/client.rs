//! The HTTP client, which is built aside, and the requests of the delivery made with it.

use tokio::task::JoinHandle;

use super::api::{Api, TelegramError};
use super::delivery::{Action, Request};
use crate::clock::MonoNanos;
use crate::config::TelegramConfig;
use crate::fault::{self, Point};

/// The client, or how far it is from being one.
pub(super) enum Client {
    /// Being built.
    Building(JoinHandle<Result<Api, TelegramError>>),
    /// It could not be built.
    Broken {
        /// When it is tried again.
        again_at: MonoNanos,
    },
    /// To be used.
    Ready(Api),
}

impl Client {
    /// Begins to build it: loading the root certificates would hold up the runtime.
    pub(super) fn build(config: &TelegramConfig) -> Self {
        let config = config.clone();
        Self::Building(tokio::task::spawn_blocking(move || Api::new(&config)))
    }

    /// Waits for a client that is being built; for ever if none is.
    pub(super) async fn built(&mut self) -> Result<Api, TelegramError> {
        match self {
            Self::Building(handle) => match handle.await {
                Ok(outcome) => outcome,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            Self::Broken { .. } | Self::Ready(_) => std::future::pending().await,
        }
    }
}

/// Makes a request. Returns the id of a new message.
pub(super) async fn perform(api: &Api, request: &Request) -> Result<Option<i64>, TelegramError> {
    let thread = request.thread.as_deref();
    match &request.action {
        Action::Typing => api.send_typing(&request.chat, thread).await.map(|()| None),
        Action::Send { text } => {
            fault::at(Point::Sending);
            let sent = api.send_message(&request.chat, thread, text).await?;
            fault::at(Point::Acknowledged);
            Ok(Some(sent.message_id))
        }
        Action::Edit { message_id, text } => {
            api.edit_message_text(&request.chat, *message_id, text).await.map(|()| None)
        }
    }
}
