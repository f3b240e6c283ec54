//! The HTTP client, which is built aside, and the requests of the delivery made with it.

use tokio::task::JoinHandle;

use super::api::{Api, TelegramError};
use super::delivery::{Action, Request};
use crate::clock::MonoNanos;
use crate::config::TelegramConfig;
use crate::fault::{self, Point};
use crate::report::Chain;
use crate::store::{Attempt, Seen, Store, StoreError};

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

/// Makes a request, and records a new message before it is sent and after. Returns the id of it.
///
/// A store that cannot record does not keep anything from being sent: it would be without an answer for as long.
pub(super) async fn perform(api: &Api, store: &Store, request: &Request) -> Result<Option<i64>, TelegramError> {
    let thread = request.thread.as_deref();
    let untold = |error: StoreError| {
        tracing::error!(error = %Chain(&error), "a delivery cannot be recorded: a kill may repeat it without a word");
    };
    match &request.action {
        Action::Typing => api.send_typing(&request.chat, thread).await.map(|()| None),
        Action::Send { text } => {
            if let Some(attempt) = request.attempt.clone() {
                store.attempt(attempt).await.unwrap_or_else(untold);
            }
            fault::at(Point::Sending);
            let outcome = api.send_message(&request.chat, thread, text).await;
            fault::at(Point::Acknowledged);
            let seen = match &outcome {
                Ok(sent) => Some(Seen::Shown { message_id: sent.message_id.to_string() }),
                Err(error) => (!error.may_have_been_done()).then_some(Seen::Refused),
            };
            if let (Some(Attempt { entry, number, .. }), Some(seen)) = (&request.attempt, seen) {
                store.attempted(*entry, *number, seen).await.unwrap_or_else(untold);
            }
            outcome.map(|sent| Some(sent.message_id))
        }
        Action::Edit { message_id, text } => {
            api.edit_message_text(&request.chat, *message_id, text).await.map(|()| None)
        }
    }
}
