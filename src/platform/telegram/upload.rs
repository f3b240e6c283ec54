//! Sending files: `sendPhoto` and `sendDocument` with the file in the request
//! (<https://core.telegram.org/bots/api#sending-files>).

use std::time::Duration;

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tokio::fs::File;

use super::api::{Api, Sent, TelegramError};
use crate::platform::delivery::Attached;

/// The largest picture.
pub(super) const PHOTO_BYTES_MAX: u64 = 10 << 20;
/// The largest file of any kind.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 50 << 20;
/// How long an upload may take.
const UPLOAD_DEADLINE: Duration = Duration::from_secs(300);

/// A file on its way.
pub(super) struct Upload<'a> {
    pub(super) chat: &'a str,
    pub(super) thread: Option<&'a str>,
    pub(super) file: &'a Attached,
    /// The message that it answers.
    pub(super) reply_to: Option<i64>,
}

/// Why a file was not sent.
#[derive(Debug)]
pub(super) enum UploadError {
    /// It is gone, or cannot be read.
    Unreadable,
    /// It is too large.
    TooLarge,
    /// The call failed.
    Call(TelegramError),
}

impl From<TelegramError> for UploadError {
    fn from(error: TelegramError) -> Self {
        Self::Call(error)
    }
}

impl Api {
    /// Sends a file: a picture as one, and as a document if Telegram does not take it as a picture. As with
    /// [`Api::send_message`] it may cost Telegram Stars.
    ///
    /// # Errors
    /// [`UploadError`].
    pub(super) async fn send_file(&self, upload: &Upload<'_>) -> Result<Sent, UploadError> {
        let bytes = upload.file.bytes().await.ok_or(UploadError::Unreadable)?;
        if bytes > DOCUMENT_BYTES_MAX {
            return Err(UploadError::TooLarge);
        }
        if upload.file.is_picture() && bytes <= PHOTO_BYTES_MAX {
            match self.upload("sendPhoto", "photo", upload, bytes).await {
                // Its sides may be too long, or it is no picture after all. What is said of the chat is said again.
                Err(UploadError::Call(error @ TelegramError::Refused { code: 400, migrate_to: None, .. })) => {
                    tracing::debug!(code = error.code(), "a picture is sent as a document");
                }
                outcome => return outcome,
            }
        }
        self.upload("sendDocument", "document", upload, bytes).await
    }

    async fn upload(
        &self,
        method: &'static str,
        field: &'static str,
        upload: &Upload<'_>,
        bytes: u64,
    ) -> Result<Sent, UploadError> {
        let Upload { chat, thread, file, reply_to } = upload;
        let opened = File::open(&file.path).await.map_err(|_| UploadError::Unreadable)?;
        let part = Part::stream_with_length(opened, bytes).file_name(file.name.clone());
        let mut form = Form::new().text("chat_id", (*chat).to_owned());
        if let Some(thread) = thread {
            form = form.text("message_thread_id", (*thread).to_owned());
        }
        if let Some(word) = &file.word {
            form = form.text("caption", word.clone());
        }
        if let Some(message) = reply_to {
            let reply: Value = json!({ "message_id": message, "allow_sending_without_reply": true });
            form = form.text("reply_parameters", reply.to_string());
        }
        if self.is_paid() {
            form = form.text("allow_paid_broadcast", "true");
        }
        let request = self.request(method).multipart(form.part(field, part));
        Ok(self.ask(method, request, UPLOAD_DEADLINE).await?)
    }
}
