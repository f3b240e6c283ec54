//! The model: one streamed chat completion per prompt.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};
use thiserror::Error;

use super::history::{Entry, Role};
use super::sse::Events;
use crate::agent::builtin::server::StopReason;
use crate::config::Secret;

/// For the connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For the next piece of an answer; a model may think for long before its first word.
const READ_TIMEOUT: Duration = Duration::from_secs(300);
/// Attempts before a server that is busy or broken is given up.
const ATTEMPTS_MAX: u32 = 3;
/// The longest wait before another attempt.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(30);
/// The most of pictures that is sent along, as base64 in bytes: what one prompt may hold.
const IMAGES_BYTES_MAX: usize = 8 << 20;
/// The most of a server's explanation that is read and passed on, in bytes.
const EXPLANATION_BYTES_MAX: usize = 500;

/// Why there is no answer. The address is in none of the messages: it may hold a secret.
#[derive(Debug, Error)]
pub(super) enum ModelError {
    #[error("cannot set up HTTPS")]
    Client(#[source] reqwest::Error),
    #[error("the base URL is not an http or https address")]
    BaseUrl,
    #[error("cannot reach the model's server; check --base-url")]
    Connect(#[source] reqwest::Error),
    #[error("the connection to the model's server broke off")]
    Broken(#[source] reqwest::Error),
    #[error("the model's server refused the API key ({status}): {explanation}; set OPENAI_API_KEY or --api-key-file")]
    Key { status: StatusCode, explanation: String },
    #[error("the model's server refused the request ({status}): {explanation}")]
    Refused { status: StatusCode, explanation: String },
    #[error("the model's server is too busy or broken ({status}, {ATTEMPTS_MAX} attempts): {explanation}")]
    Busy { status: StatusCode, explanation: String },
    #[error("the model's server reports an error: {0}")]
    Reported(String),
    #[error("the model's server does not stream chat completions; check --base-url")]
    Malformed,
    #[error("the model's answer broke off before its end")]
    Truncated,
}

/// Where the model is and how it is asked.
pub(super) struct Model {
    client: reqwest::Client,
    url: reqwest::Url,
    name: String,
    key: Option<Secret>,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Thought(String),
    End(StopReason),
}

impl Model {
    pub(super) fn new(base_url: &str, name: String, key: Option<Secret>) -> Result<Self, ModelError> {
        let url = format!("{}/chat/completions", base_url.trim_end_matches('/'));
        let url = reqwest::Url::parse(&url).map_err(|_| ModelError::BaseUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ModelError::BaseUrl);
        }
        crate::tls::choose_provider();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("hermes/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ModelError::Client)?;
        Ok(Self { client, url, name, key })
    }

    /// Asks, more than once if the server wants that, and returns when the answer begins.
    pub(super) async fn ask(&self, messages: &Value) -> Result<Reply, ModelError> {
        let mut attempt = 1;
        loop {
            let response = self.post(messages).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(Reply { response, events: Events::new(), stop: None, over: false });
            }
            let wait = retry_wait(&response, attempt);
            let explanation = explanation(response).await;
            if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
                return Err(ModelError::Key { status, explanation });
            }
            if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
                return Err(ModelError::Refused { status, explanation });
            }
            if attempt == ATTEMPTS_MAX {
                return Err(ModelError::Busy { status, explanation });
            }
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    async fn post(&self, messages: &Value) -> Result<reqwest::Response, ModelError> {
        let body = json!({"model": self.name, "messages": messages, "stream": true});
        let mut request = self.client.post(self.url.clone()).json(&body);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.expose());
        }
        request.send().await.map_err(|error| {
            let reached = !error.is_connect();
            let error = error.without_url();
            if reached { ModelError::Broken(error) } else { ModelError::Connect(error) }
        })
    }
}

/// An answer that streams in.
pub(super) struct Reply {
    response: reqwest::Response,
    events: Events,
    /// Why the model stopped, once it has said so.
    stop: Option<StopReason>,
    /// Nothing more is to come.
    over: bool,
}

impl Reply {
    /// The next piece; [`Piece::End`] is the last. Nothing is lost if the call is dropped while it waits.
    pub(super) async fn next(&mut self) -> Result<Piece, ModelError> {
        loop {
            let data = match self.events.next().map_err(|_| ModelError::Malformed)? {
                None if self.over => return self.stop.map(Piece::End).ok_or(ModelError::Truncated),
                data => data,
            };
            if let Some(data) = data {
                match read(&data)? {
                    Chunk::Piece(piece) => return Ok(piece),
                    Chunk::Stop(stop) => self.stop = Some(stop),
                    Chunk::Done => return Ok(Piece::End(self.stop.unwrap_or(StopReason::EndTurn))),
                    Chunk::Nothing => {}
                }
                continue;
            }
            match self.response.chunk().await.map_err(|error| ModelError::Broken(error.without_url()))? {
                Some(bytes) => self.events.push(&bytes),
                None => {
                    self.over = true;
                    self.events.finish();
                }
            }
        }
    }
}

/// What one event says.
#[derive(Debug, PartialEq, Eq)]
enum Chunk {
    Piece(Piece),
    Stop(StopReason),
    Done,
    /// A role, a usage report or something newer.
    Nothing,
}

fn read(data: &str) -> Result<Chunk, ModelError> {
    if data.trim() == "[DONE]" {
        return Ok(Chunk::Done);
    }
    let chunk: Value = serde_json::from_str(data).map_err(|_| ModelError::Malformed)?;
    if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
        let message = error.get("message").unwrap_or(error);
        let message = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
        return Err(ModelError::Reported(clip(&message)));
    }
    let choice = &chunk["choices"][0];
    let said = |key: &str| choice["delta"][key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    if let Some(text) = said("content") {
        return Ok(Chunk::Piece(Piece::Text(text)));
    }
    if let Some(text) = said("reasoning_content").or_else(|| said("reasoning")) {
        return Ok(Chunk::Piece(Piece::Thought(text)));
    }
    Ok(match choice["finish_reason"].as_str() {
        None => Chunk::Nothing,
        Some("length") => Chunk::Stop(StopReason::MaxTokens),
        Some("content_filter") => Chunk::Stop(StopReason::Refusal),
        Some(_) => Chunk::Stop(StopReason::EndTurn),
    })
}

/// What the model is told: the system prompt and the newest entries that fit, at least the last.
pub(super) fn messages(system: Option<&str>, past: &[Entry], bytes_max: usize) -> Value {
    let mut room = bytes_max;
    let fits = |entry: &&Entry| match room.checked_sub(entry.content.len()) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    };
    let count = past.iter().rev().take_while(fits).count().max(1).min(past.len());
    let past = &past[past.len() - count..];
    // The newest pictures that fit: who asks again about one does not send it again.
    let mut room = IMAGES_BYTES_MAX;
    let mut with_images = vec![false; past.len()];
    for (entry, with) in past.iter().zip(&mut with_images).rev() {
        let size: usize = entry.images.iter().map(String::len).sum();
        let Some(left) = room.checked_sub(size) else { break };
        (room, *with) = (left, size > 0);
    }
    let message = |(entry, with_images): (&Entry, &bool)| {
        let role = match entry.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        if !with_images {
            return json!({"role": role, "content": entry.content});
        }
        let images = entry.images.iter().map(|url| json!({"type": "image_url", "image_url": {"url": url}}));
        let text = json!({"type": "text", "text": entry.content});
        json!({"role": role, "content": images.chain([text]).collect::<Vec<_>>()})
    };
    let system = system.map(|text| json!({"role": "system", "content": text}));
    system.into_iter().chain(past.iter().zip(&with_images).map(message)).collect()
}

/// How long the server, or else patience, asks to wait.
fn retry_wait(response: &reqwest::Response, attempt: u32) -> Duration {
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    asked.map_or(Duration::from_secs(1 << attempt.min(4)), Duration::from_secs).min(RETRY_WAIT_MAX)
}

/// What the server says about its refusal, as far as it can be shown.
async fn explanation(mut response: reqwest::Response) -> String {
    let mut body = Vec::new();
    while body.len() < EXPLANATION_BYTES_MAX * 8 {
        match response.chunk().await {
            Ok(Some(bytes)) => body.extend_from_slice(&bytes),
            Ok(None) | Err(_) => break,
        }
    }
    let body = String::from_utf8_lossy(&body);
    let parsed: Option<Value> = serde_json::from_str(&body).ok();
    let message =
        parsed.as_ref().and_then(|body| body["error"]["message"].as_str().or_else(|| body["message"].as_str()));
    let explanation = clip(message.unwrap_or(&body).trim());
    if explanation.is_empty() { "it gave no explanation".to_owned() } else { explanation }
}

fn clip(text: &str) -> String {
    text[..text.floor_char_boundary(EXPLANATION_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(role: Role, content: &str) -> Entry {
        Entry::new(role, content.to_owned())
    }

    #[test]
    fn chunks_of_every_kind_are_read() {
        let read = |data: Value| read(&data.to_string()).expect("valid");
        let delta = |delta: Value| json!({"choices": [{"delta": delta, "finish_reason": null}]});
        assert_eq!(read(delta(json!({"role": "assistant", "content": ""}))), Chunk::Nothing);
        assert_eq!(read(delta(json!({"content": "a"}))), Chunk::Piece(Piece::Text("a".into())));
        assert_eq!(read(delta(json!({"reasoning_content": "b"}))), Chunk::Piece(Piece::Thought("b".into())));
        assert_eq!(read(json!({"choices": [], "usage": {"total_tokens": 3}})), Chunk::Nothing);
        let stop = json!({"choices": [{"delta": {}, "finish_reason": "length"}]});
        assert_eq!(read(stop), Chunk::Stop(StopReason::MaxTokens));
    }

    #[test]
    fn an_error_within_the_stream_is_passed_on() {
        let error = read(r#"{"error":{"message":"overloaded"}}"#).expect_err("an error");
        assert_eq!(error.to_string(), "the model's server reports an error: overloaded");
        assert!(matches!(read("<html>"), Err(ModelError::Malformed)));
    }

    #[test]
    fn the_newest_part_of_a_history_is_sent_and_the_prompt_always() {
        let past = [said(Role::User, "aaaa"), said(Role::Assistant, "bb"), said(Role::User, "cc")];
        let contents = |bytes_max| -> Vec<String> {
            let messages = messages(Some("sys"), &past, bytes_max);
            let content = |message: &Value| message["content"].as_str().expect("text").to_owned();
            messages.as_array().expect("a list").iter().map(content).collect()
        };
        assert_eq!(contents(100), ["sys", "aaaa", "bb", "cc"]);
        assert_eq!(contents(5), ["sys", "bb", "cc"]);
        assert_eq!(contents(0), ["sys", "cc"]);
    }

    #[test]
    fn the_newest_pictures_are_sent_along() {
        let url = |bytes: usize| format!("data:image/png;base64,{}", "A".repeat(bytes));
        let pictured = |text: &str, bytes| Entry { images: vec![url(bytes)], ..said(Role::User, text) };
        let past = [
            pictured("old", IMAGES_BYTES_MAX / 2),
            pictured("new", IMAGES_BYTES_MAX / 2),
            said(Role::Assistant, "seen"),
            pictured("now", 3),
        ];
        let messages = messages(None, &past, 100);
        let kinds: Vec<bool> =
            messages.as_array().expect("a list").iter().map(|message| message["content"].is_array()).collect();
        assert_eq!(kinds, [false, true, false, true]);
        let content = json!([
            {"type": "image_url", "image_url": {"url": url(3)}}, {"type": "text", "text": "now"},
        ]);
        assert_eq!(messages[3], json!({"role": "user", "content": content}));
    }

    #[test]
    fn a_base_url_that_is_none_is_refused() {
        for url in ["", "localhost:8080", "ftp://x"] {
            assert!(matches!(Model::new(url, "m".into(), None), Err(ModelError::BaseUrl)), "{url}");
        }
    }

    proptest! {
        #[test]
        fn no_chunk_panics(data in "[\\[\\]{}\":,a-z0-9 ]{0,60}") {
            let _ = read(&data);
        }
    }
}
