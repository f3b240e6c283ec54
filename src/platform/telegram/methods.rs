//! Methods of the Bot API beside polling and messages.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;

use super::api::{Api, CALL_DEADLINE, TelegramError, addressed, number};
use super::words::Words;
use crate::config::Secret;

/// The largest file that is downloaded; Telegram's own limit (<https://core.telegram.org/bots/api#getfile>).
pub const FILE_BYTES_MAX: u64 = 20 << 20;
/// Updates that Telegram may post at once.
const POSTS_AT_ONCE: u32 = 16;
/// How long a download may take.
const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(120);

/// Why a file was not downloaded.
#[derive(Debug, Error)]
pub enum FetchError {
    /// Telegram does not say where the file is.
    #[error("Telegram does not give the file")]
    Api(#[from] TelegramError),
    /// It is larger than [`FILE_BYTES_MAX`].
    #[error("the file is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// The download broke off. The reason has no URL.
    #[error("the download did not get through")]
    Network(#[source] reqwest::Error),
    /// The server answered with this HTTP status.
    #[error("the download was refused with HTTP {0}")]
    Refused(u16),
    /// It did not end in time.
    #[error("the download took longer than {} s", DOWNLOAD_DEADLINE.as_secs())]
    Timeout,
    /// It cannot be written.
    #[error("the file cannot be written")]
    Write(#[source] std::io::Error),
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    file_path: String,
    #[serde(default)]
    file_size: Option<u64>,
}

impl Api {
    /// `sendMessageDraft`: the preview of a message in a private chat, for 30 s.
    pub(super) async fn send_draft(
        &self,
        chat: &str,
        thread: Option<&str>,
        draft_id: u64,
        words: &Words,
    ) -> Result<(), TelegramError> {
        let mut params = addressed(chat, thread);
        params["draft_id"] = draft_id.into();
        words.put(&mut params);
        self.call::<IgnoredAny>("sendMessageDraft", &params, CALL_DEADLINE).await.map(drop)
    }

    /// `answerCallbackQuery`: the client shows no progress any more.
    pub(super) async fn answer_press(&self, query: &str) -> Result<(), TelegramError> {
        self.call::<IgnoredAny>("answerCallbackQuery", &json!({ "callback_query_id": query }), CALL_DEADLINE)
            .await
            .map(drop)
    }

    /// `editMessageReplyMarkup`: takes the buttons off a message.
    pub(super) async fn take_keyboard(&self, chat: &str, message: &str) -> Result<(), TelegramError> {
        let mut params = addressed(chat, None);
        params["message_id"] = number(message);
        self.call::<IgnoredAny>("editMessageReplyMarkup", &params, CALL_DEADLINE).await.map(drop)
    }

    /// `setMyCommands`: what the menu offers; `language` is a code of two letters, or none for all others.
    pub(super) async fn set_commands(
        &self,
        commands: &[(&str, &str)],
        language: Option<&str>,
    ) -> Result<(), TelegramError> {
        let commands: Vec<_> =
            commands.iter().map(|(command, told)| json!({ "command": command, "description": told })).collect();
        let mut params = json!({ "commands": commands });
        if let Some(language) = language {
            params["language_code"] = language.into();
        }
        self.call::<IgnoredAny>("setMyCommands", &params, CALL_DEADLINE).await.map(drop)
    }

    /// `setWebhook`: updates of `kinds` are posted to `url` from now on, with `secret` in a header, up to 16 at once. Those of
    /// a chat come one after the other.
    pub(super) async fn set_webhook(&self, url: &Secret, secret: &Secret, kinds: &[&str]) -> Result<(), TelegramError> {
        let params = json!({
            "url": url.expose(),
            "secret_token": secret.expose(),
            "allowed_updates": kinds,
            "max_connections": POSTS_AT_ONCE,
        });
        self.call::<IgnoredAny>("setWebhook", &params, CALL_DEADLINE).await.map(drop)
    }

    /// Takes the webhook away if it is `url`; what waits is kept and can be polled for.
    pub(super) async fn forget_webhook(&self, url: &Secret) -> Result<(), TelegramError> {
        if self.get_webhook_info().await?.url != url.expose() {
            return Ok(());
        }
        self.call::<IgnoredAny>("deleteWebhook", &json!({}), CALL_DEADLINE).await.map(drop)
    }

    /// Downloads a file of at most [`FILE_BYTES_MAX`] into `path`, which is written anew, within two minutes. What is there
    /// after an error is no file.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch(&self, file_id: &str, path: &Path) -> Result<(), FetchError> {
        tokio::time::timeout(DOWNLOAD_DEADLINE, self.download(file_id, path)).await.map_err(|_| FetchError::Timeout)?
    }

    async fn download(&self, file_id: &str, path: &Path) -> Result<(), FetchError> {
        let file: File = self.call("getFile", &json!({ "file_id": file_id }), CALL_DEADLINE).await?;
        if file.file_size.is_some_and(|size| size > FILE_BYTES_MAX) {
            return Err(FetchError::TooLarge);
        }
        let network = |error: reqwest::Error| FetchError::Network(error.without_url());
        let mut answer = self.file_request(&file.file_path).send().await.map_err(network)?;
        if !answer.status().is_success() {
            return Err(FetchError::Refused(answer.status().as_u16()));
        }
        let mut out = tokio::fs::File::create(path).await.map_err(FetchError::Write)?;
        let mut taken = 0;
        while let Some(chunk) = answer.chunk().await.map_err(network)? {
            taken += chunk.len() as u64;
            if taken > FILE_BYTES_MAX {
                return Err(FetchError::TooLarge);
            }
            out.write_all(&chunk).await.map_err(FetchError::Write)?;
        }
        out.flush().await.map_err(FetchError::Write)
    }
}
