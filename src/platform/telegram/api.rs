//! A small client of the Bot API (<https://core.telegram.org/bots/api>).
//!
//! **Invariants**
//! - The token is in the URL of every request, so no error and no log line carries a URL.
//! - Every call has a deadline, and no answer over 8 MiB is read.
//! - An answer with fields or kinds unknown here is read all the same.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use thiserror::Error;

use super::words::Words;
use crate::config::{Secret, TelegramConfig};
use crate::platform::http::{self, Unread};

/// The largest answer that is read. 100 updates of the longest texts take far less.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// The longest error description that is kept, in characters.
const DESCRIPTION_CHARS_MAX: usize = 300;
/// How long a call may take, from connecting to the last byte.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// What a long poll may take beyond the time that the server was asked to hold it.
const POLL_GRACE: Duration = Duration::from_secs(15);

/// Why a call failed.
#[derive(Debug, Error)]
pub enum TelegramError {
    /// The HTTP client could not be built, for example because no root certificates are installed.
    #[error("cannot set up the HTTP client (are the CA certificates of the system installed?)")]
    Client {
        /// The client's reason.
        #[source]
        source: reqwest::Error,
    },
    /// The request or its answer did not get through.
    #[error("{method} did not get through")]
    Network {
        /// The method called.
        method: &'static str,
        /// The reason, without the URL.
        #[source]
        source: reqwest::Error,
    },
    /// There was no complete answer in time.
    #[error("{method} was not answered within {} s", after.as_secs())]
    Timeout {
        /// The method called.
        method: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The answer is larger than any honest one.
    #[error("the answer to {method} is larger than {ANSWER_BYTES_MAX} bytes")]
    TooLarge {
        /// The method called.
        method: &'static str,
    },
    /// The answer is not one of the Bot API; a proxy's error page, for example. What it says is not kept: it may hold
    /// messages.
    #[error("the answer to {method} (HTTP {status}) is not a Bot API answer: {problem}")]
    Malformed {
        /// The method called.
        method: &'static str,
        /// The HTTP status.
        status: u16,
        /// The kind of mistake and its place.
        problem: String,
    },
    /// Telegram refused the call.
    #[error("{method} was refused with {code}: {description}")]
    Refused {
        /// The method called.
        method: &'static str,
        /// `error_code`, which is the HTTP status too.
        code: i64,
        /// `description`, shortened, without the token.
        description: String,
        /// `parameters.retry_after`.
        retry_after: Option<Duration>,
        /// `parameters.migrate_to_chat_id`: the group has become this supergroup.
        migrate_to: Option<i64>,
    },
}

/// What to do about a [`TelegramError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Try again, not before `after` if the platform said so, otherwise with back-off.
    Retry {
        /// The wait that the platform asked for.
        after: Option<Duration>,
    },
    /// This call will never succeed; others may.
    GiveUp,
    /// No call will succeed until the configuration changes.
    Fatal,
}

impl TelegramError {
    /// Whether Telegram may have done what it was asked: it has not said no, and the request may have reached it.
    pub fn may_have_been_done(&self) -> bool {
        match self {
            Self::Refused { code, .. } => *code >= 500,
            Self::Client { .. } => false,
            Self::Network { source, .. } => !source.is_connect(),
            Self::Timeout { .. } | Self::TooLarge { .. } | Self::Malformed { .. } => true,
        }
    }

    /// What to do about it.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Refused { code: 401 | 404, .. } => Disposition::Fatal,
            Self::Refused { code: 429, retry_after, .. } => Disposition::Retry { after: *retry_after },
            Self::Refused { code: 409 | 500.., retry_after, .. } => Disposition::Retry { after: *retry_after },
            Self::Refused { .. } => Disposition::GiveUp,
            _ => Disposition::Retry { after: None },
        }
    }

    /// Telegram's error code, or the kind of failure: what [`crate::chat::LinkState`] calls `error_code`.
    pub fn code(&self) -> String {
        match self {
            Self::Client { .. } => "client".to_owned(),
            Self::Network { .. } => "network".to_owned(),
            Self::Timeout { .. } => "timeout".to_owned(),
            Self::TooLarge { .. } => "too_large".to_owned(),
            Self::Malformed { .. } => "malformed".to_owned(),
            Self::Refused { code, .. } => code.to_string(),
        }
    }
}

/// The bot itself (`User`).
#[derive(Clone, Debug, Deserialize)]
pub struct Me {
    /// Its id, which is also the part of the token before the colon.
    pub id: i64,
    /// Its name in `/command@name`.
    #[serde(default)]
    pub username: Option<String>,
}

/// What a sent message is known by (`Message`).
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Sent {
    /// Its id, unique in its chat.
    pub message_id: i64,
}

/// The webhook of a bot (`WebhookInfo`).
#[derive(Clone, Debug, Deserialize)]
pub struct WebhookInfo {
    /// Where updates are posted to; empty if there is no webhook. It may hold a secret: not for logs.
    #[serde(default)]
    pub url: String,
    /// How many updates wait to be posted.
    #[serde(default)]
    pub pending_update_count: u64,
    /// When an update could not be posted the last time, in seconds since 1970.
    #[serde(default)]
    pub last_error_date: Option<i64>,
    /// Why, in Telegram's words.
    #[serde(default)]
    pub last_error_message: Option<String>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    ok: bool,
    #[serde(default, borrow)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error_code: Option<i64>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    parameters: Option<Value>,
}

/// One bot at one server. Clones share the connections.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    api_url: String,
    token: Secret,
    /// Messages are sent as paid broadcasts.
    paid: bool,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("api_url", &self.inner.api_url).finish_non_exhaustive()
    }
}

impl Api {
    /// Builds the HTTP client. It loads the root certificates of the system, which takes milliseconds: not for the
    /// thread of the runtime.
    ///
    /// # Errors
    /// [`TelegramError::Client`].
    pub fn new(config: &TelegramConfig) -> Result<Self, TelegramError> {
        let http = http::client().build().map_err(|source| TelegramError::Client { source })?;
        let (api_url, token) = (config.api_url.clone(), config.token.clone());
        Ok(Self { inner: Arc::new(Inner { http, api_url, token, paid: config.is_paid() }) })
    }

    /// `getMe`: who the bot is.
    ///
    /// # Errors
    /// Any [`TelegramError`].
    pub async fn get_me(&self) -> Result<Me, TelegramError> {
        self.call("getMe", &json!({}), CALL_DEADLINE).await
    }

    /// `getUpdates` with the updates as they came, so that one that cannot be read hides no other. The server holds
    /// the call up to `hold` (50 s at most) while there is nothing. `offset` confirms every update below it.
    ///
    /// # Errors
    /// Any [`TelegramError`].
    pub async fn get_updates(
        &self,
        offset: Option<i64>,
        hold: Duration,
        kinds: &[&str],
    ) -> Result<Vec<Box<RawValue>>, TelegramError> {
        let mut params = json!({ "timeout": hold.as_secs(), "limit": 100, "allowed_updates": kinds });
        if let Some(offset) = offset {
            params["offset"] = offset.into();
        }
        self.call("getUpdates", &params, hold + POLL_GRACE).await
    }

    /// `sendMessage` with a text of 1–4096 UTF-16 code units. It may cost Telegram Stars if more messages in a second are
    /// configured than are free ([`TelegramConfig::is_paid`]).
    ///
    /// # Errors
    /// Any [`TelegramError`].
    pub async fn send_message(&self, chat: &str, thread: Option<&str>, words: &Words) -> Result<Sent, TelegramError> {
        let mut params = addressed(chat, thread);
        words.put(&mut params);
        if self.inner.paid {
            params["allow_paid_broadcast"] = true.into();
        }
        self.call("sendMessage", &params, CALL_DEADLINE).await
    }

    /// `editMessageText` with the whole new text. A keyboard that is not there again goes.
    ///
    /// # Errors
    /// Any [`TelegramError`].
    pub async fn edit_message_text(&self, chat: &str, message: &str, words: &Words) -> Result<(), TelegramError> {
        let mut params = addressed(chat, None);
        params["message_id"] = number(message);
        words.put(&mut params);
        self.call::<IgnoredAny>("editMessageText", &params, CALL_DEADLINE).await.map(drop)
    }

    /// `sendChatAction` `typing`, which a client shows for 5 s or until a message comes.
    ///
    /// # Errors
    /// Any [`TelegramError`].
    pub async fn send_typing(&self, chat: &str, thread: Option<&str>) -> Result<(), TelegramError> {
        let mut params = addressed(chat, thread);
        params["action"] = "typing".into();
        self.call::<IgnoredAny>("sendChatAction", &params, CALL_DEADLINE).await.map(drop)
    }

    /// `getWebhookInfo`: why `getUpdates` is refused with 409.
    ///
    /// # Errors
    /// Any [`TelegramError`].
    pub async fn get_webhook_info(&self) -> Result<WebhookInfo, TelegramError> {
        self.call("getWebhookInfo", &json!({}), CALL_DEADLINE).await
    }

    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: &Value,
        deadline: Duration,
    ) -> Result<T, TelegramError> {
        let request = self.request(method).json(params);
        self.ask(method, request, deadline).await
    }

    /// The request of a method. The token is in its address: not for logs.
    pub(super) fn request(&self, method: &'static str) -> reqwest::RequestBuilder {
        self.inner.http.post(format!("{}/bot{}/{method}", self.inner.api_url, self.inner.token.expose()))
    }

    /// Whether messages are sent as paid broadcasts.
    pub(super) fn is_paid(&self) -> bool {
        self.inner.paid
    }

    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: &'static str,
        request: reqwest::RequestBuilder,
        deadline: Duration,
    ) -> Result<T, TelegramError> {
        let exchange = self.exchange(method, request);
        let (status, body) = tokio::time::timeout(deadline, exchange)
            .await
            .map_err(|_| TelegramError::Timeout { method, after: deadline })??;
        self.read(method, status, &body)
    }

    /// The client and the address of a file on the server (<https://core.telegram.org/bots/api#getfile>). The token is in the
    /// address: not for logs.
    pub(super) fn file_request(&self, path: &str) -> reqwest::RequestBuilder {
        self.inner.http.get(format!("{}/file/bot{}/{path}", self.inner.api_url, self.inner.token.expose()))
    }

    async fn exchange(
        &self,
        method: &'static str,
        request: reqwest::RequestBuilder,
    ) -> Result<(u16, Vec<u8>), TelegramError> {
        let network = |source: reqwest::Error| TelegramError::Network { method, source: source.without_url() };
        let response = request.send().await.map_err(network)?;
        let status = response.status().as_u16();
        let body = http::read(response, ANSWER_BYTES_MAX).await.map_err(|unread| match unread {
            Unread::Network(source) => TelegramError::Network { method, source },
            Unread::TooLarge => TelegramError::TooLarge { method },
        })?;
        Ok((status, body))
    }

    fn read<T: DeserializeOwned>(&self, method: &'static str, status: u16, body: &[u8]) -> Result<T, TelegramError> {
        let malformed = |error: &serde_json::Error| TelegramError::Malformed {
            method,
            status,
            // Not the error's own text, which quotes what it found.
            problem: format!("{:?} at line {} column {}", error.classify(), error.line(), error.column()),
        };
        let answer: Answer<'_> = match serde_json::from_slice(body) {
            Ok(answer) => answer,
            Err(_) if status >= 500 => return Err(self.refused(method, status, None, None, None)),
            Err(error) => return Err(malformed(&error)),
        };
        if !answer.ok {
            return Err(self.refused(method, status, answer.error_code, answer.description, answer.parameters));
        }
        serde_json::from_str(answer.result.map_or("null", RawValue::get)).map_err(|error| malformed(&error))
    }

    fn refused(
        &self,
        method: &'static str,
        status: u16,
        code: Option<i64>,
        description: Option<String>,
        parameters: Option<Value>,
    ) -> TelegramError {
        let number = |name| parameters.as_ref().and_then(|parameters| parameters.get(name));
        TelegramError::Refused {
            method,
            code: code.unwrap_or_else(|| status.into()),
            description: description
                .unwrap_or_else(|| "no description".to_owned())
                .replace(self.inner.token.expose(), "[token]")
                .chars()
                .take(DESCRIPTION_CHARS_MAX)
                .collect(),
            retry_after: number("retry_after").and_then(Value::as_u64).map(Duration::from_secs),
            migrate_to: number("migrate_to_chat_id").and_then(Value::as_i64),
        }
    }
}

/// The parameters that name a chat, by number where the name is one.
pub(super) fn addressed(chat: &str, thread: Option<&str>) -> Value {
    let mut params = json!({ "chat_id": number(chat) });
    if let Some(thread) = thread {
        params["message_thread_id"] = number(thread);
    }
    params
}

pub(super) fn number(id: &str) -> Value {
    id.parse::<i64>().map_or_else(|_| Value::from(id), Value::from)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::config::PlatformAccess;

    const TOKEN: &str = "42:not-a-real-one";

    fn api() -> Api {
        // Building it loads the root certificates, so it is built once.
        static API: LazyLock<Api> = LazyLock::new(|| {
            Api::new(&TelegramConfig {
                token: Secret::new(TOKEN),
                api_url: "http://127.0.0.1:1".into(),
                access: PlatformAccess::default(),
                messages_per_second: TelegramConfig::FREE_PER_SECOND,
                webhook: None,
            })
            .expect("a client")
        });
        API.clone()
    }

    fn refusal(status: u16, body: &str) -> TelegramError {
        api().read::<IgnoredAny>("getMe", status, body.as_bytes()).expect_err("a refusal")
    }

    #[test]
    fn each_refusal_has_its_disposition() {
        let after = |secs| Disposition::Retry { after: Some(Duration::from_secs(secs)) };
        let retry = Disposition::Retry { after: None };
        let table = [
            (401, r#"{"ok":false,"error_code":401,"description":"Unauthorized"}"#, Disposition::Fatal),
            (404, r#"{"ok":false,"error_code":404,"description":"Not Found"}"#, Disposition::Fatal),
            (400, r#"{"ok":false,"error_code":400,"description":"Bad Request: chat not found"}"#, Disposition::GiveUp),
            (403, r#"{"ok":false,"error_code":403}"#, Disposition::GiveUp),
            (409, r#"{"ok":false,"error_code":409,"description":"Conflict"}"#, retry),
            (429, r#"{"ok":false,"error_code":429,"parameters":{"retry_after":70000}}"#, after(70000)),
            (429, r#"{"ok":false,"error_code":429}"#, retry),
            (502, "<html>Bad Gateway</html>", retry),
            (200, "<html>login to the network</html>", retry),
            (200, r#"{"ok":true,"result":[1,"#, retry),
        ];
        for (status, body, wanted) in table {
            assert_eq!(refusal(status, body).disposition(), wanted, "{status} {body}");
        }
    }

    #[test]
    fn an_error_shows_neither_the_token_nor_what_was_said() {
        let echoed = refusal(400, &format!(r#"{{"ok":false,"error_code":400,"description":"no bot{TOKEN}"}}"#));
        assert!(!format!("{echoed} {echoed:?}").contains(TOKEN));
        let private = refusal(200, r#"{"ok":"a private word"}"#);
        assert!(!format!("{private} {private:?}").contains("private word"));
        assert!(!format!("{:?}", api()).contains(TOKEN));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(body in any::<Vec<u8>>(), status in 200u16..600) {
            let outcome = api().read::<Me>("getMe", status, &body);
            prop_assert!(outcome.is_err());
        }
    }
}
