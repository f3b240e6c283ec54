//! A server of the chat completions API that answers as it is told.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::StreamExt;
use serde_json::{Value, json};

/// What the server does with one request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Streams these bytes, then does as it is told.
    Stream(String, Then),
    /// Refuses with this status, telling the client to try again at once.
    Refuse(u16, String),
}

/// How a stream ends.
#[derive(Clone, Copy, Debug)]
pub enum Then {
    /// As it should.
    End,
    /// Never.
    Hang,
    /// With the connection.
    Break,
}

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The body.
    pub body: Value,
    /// The `Authorization` header.
    pub authorization: String,
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    asked: Vec<Asked>,
}

type Shared = Arc<Mutex<Script>>;

/// The server; it ends with its runtime.
pub struct FakeOpenai {
    /// For `--base-url`.
    pub base_url: String,
    script: Shared,
}

impl FakeOpenai {
    /// Starts a server that gives these answers in turn, and 404 after them.
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let script: Shared = Arc::new(Mutex::new(Script { answers: answers.into_iter().collect(), asked: Vec::new() }));
        let app = Router::new().route("/v1/chat/completions", post(complete)).with_state(Arc::clone(&script));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        drop(tokio::spawn(async move { axum::serve(listener, app).await }));
        Self { base_url: format!("http://{address}/v1"), script }
    }

    /// Everything asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).asked.clone()
    }
}

/// The events of an answer that comes in these pieces, without its end.
pub fn deltas(pieces: &[&str]) -> String {
    let event = |piece: &&str| format!("data: {}\n\n", json!({"choices": [{"delta": {"content": piece}}]}));
    pieces.iter().map(event).collect()
}

/// A whole answer.
pub fn whole(pieces: &[&str]) -> Answer {
    let stop = json!({"choices": [{"delta": {}, "finish_reason": "stop"}]});
    let usage = json!({"choices": [], "usage": {"total_tokens": 1}});
    Answer::Stream(format!("{}data: {stop}\n\ndata: {usage}\n\ndata: [DONE]\n\n", deltas(pieces)), Then::End)
}

async fn complete(State(script): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let answer = {
        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
        let authorization =
            headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let body = serde_json::from_slice(&body).expect("the client sends JSON");
        script.asked.push(Asked { body, authorization: authorization.to_owned() });
        script.answers.pop_front()
    };
    match answer {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(Answer::Refuse(status, body)) => {
            let status = StatusCode::from_u16(status).expect("a status");
            (status, [(header::RETRY_AFTER, "0")], body).into_response()
        }
        Some(Answer::Stream(text, then)) => {
            let first = futures_util::stream::iter([Ok::<_, io::Error>(Bytes::from(text))]);
            let body = match then {
                Then::End => Body::from_stream(first),
                Then::Hang => Body::from_stream(first.chain(futures_util::stream::pending())),
                Then::Break => {
                    Body::from_stream(first.chain(futures_util::stream::iter([Err(io::Error::other("cut"))])))
                }
            };
            let response = Response::builder().header(header::CONTENT_TYPE, "text/event-stream").body(body);
            response.expect("a valid response")
        }
    }
}
