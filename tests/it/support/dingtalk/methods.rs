//! Calls over HTTP: what all of them have in common, and which does what.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State as Extract};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::faults::Fault;
use super::state::{Call, State, now_ms};
use super::{Shared, card, robot, stream};

const OPEN: &str = "gateway/connections/open";
const TOKEN: &str = "oauth2/accessToken";
const SESSION: &str = "sendBySession";

/// An HTTP status, and the JSON with it.
pub struct Answer {
    status: u16,
    body: Value,
}

/// It is done.
pub fn good(body: Value) -> Answer {
    Answer { status: 200, body }
}

/// It is not done.
pub fn refuse(status: u16, code: &str, message: &str) -> Answer {
    Answer { status, body: json!({ "code": code, "requestid": "a-request", "message": message }) }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (StatusCode::from_u16(self.status).expect("an HTTP status"), Json(self.body)).into_response()
    }
}

/// A call.
pub struct Incoming {
    /// Its path behind `/v1.0/`, or its last part.
    pub method: String,
    /// Its JSON; null if that is none.
    pub body: Value,
    verb: Method,
    headers: HeaderMap,
    query: String,
}

impl Incoming {
    fn header(&self, name: impl axum::http::header::AsHeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Any call but the opening of a WebSocket and the download of a file.
pub async fn call(
    Extract(shared): Extract<Shared>,
    verb: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let method = match uri.path().strip_prefix("/v1.0/") {
        Some(path) => path.to_owned(),
        None => uri.path().rsplit('/').next().unwrap_or_default().to_owned(),
    };
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let request = Incoming { method, body, verb, headers, query: uri.query().unwrap_or_default().to_owned() };
    let (at, fault) = shared.change(|state| {
        let (method, body) = (request.method.clone(), request.body.clone());
        state.calls.push(Call { at_ms: now_ms(), method, body, status: None });
        (state.calls.len() - 1, state.take_fault(&request.method))
    });
    let response = match fault {
        Some(fault) => {
            if fault.is_after_the_fact() {
                drop(shared.change(|state| perform(state, &request)));
            }
            fault.answer().await
        }
        None => shared.change(|state| perform(state, &request)),
    };
    shared.change(|state| state.calls[at].status = Some(response.status().as_u16()));
    response
}

fn perform(state: &mut State, request: &Incoming) -> Response {
    if !request.header(CONTENT_TYPE).starts_with("application/json") || !request.body.is_object() {
        return refuse(400, "invalidRequest", "the body is no JSON object").into_response();
    }
    if request.method == OPEN && !request.header(ACCEPT).contains("application/json") {
        // As DingTalk may do it.
        return ([(CONTENT_TYPE, "text/xml")], "<result><endpoint/><ticket/></result>").into_response();
    }
    let is_free = matches!(request.method.as_str(), OPEN | TOKEN | SESSION);
    let token = request.header("x-acs-dingtalk-access-token");
    if !is_free && state.tokens.get(token).is_none_or(|until_ms| *until_ms <= now_ms()) {
        return refuse(401, "InvalidAuthentication", "the access token is stale").into_response();
    }
    let answer = match (request.verb.as_str(), request.method.as_str()) {
        ("POST", OPEN) => stream::open(state, request),
        ("POST", TOKEN) => access_token(state, &request.body),
        ("POST", SESSION) => robot::send_by_session(state, &request.query, &request.body),
        ("POST", "robot/oToMessages/batchSend") => robot::send_single(state, &request.body),
        ("POST", "robot/groupMessages/send") => robot::send_group(state, &request.body),
        ("POST", "robot/messageFiles/download") => robot::download(state, &request.body),
        ("POST", "card/instances") => card::create(state, &request.body),
        ("PUT", "card/instances") => card::update(state, &request.body),
        ("POST", "card/instances/deliver") => card::deliver(state, &request.body),
        ("POST", "card/instances/createAndDeliver") => card::create_and_deliver(state, &request.body),
        ("PUT", "card/streaming") => card::stream(state, &request.body),
        _ => refuse(404, "InvalidAction.NotFound", "there is no such method"),
    };
    answer.into_response()
}

fn access_token(state: &mut State, body: &Value) -> Answer {
    if body["appKey"] != state.client_id || body["appSecret"] != state.client_secret {
        return refuse(400, "invalidClientIdOrSecret", "the client id or the secret is wrong");
    }
    let token = format!("access-token-of-the-test-{:07}", state.fresh());
    state.tokens.insert(token.clone(), now_ms() + state.token_secs * 1000);
    good(json!({ "accessToken": token, "expireIn": state.token_secs }))
}

/// `GET /files/<link>`: what a download link leads to.
pub async fn file(Extract(shared): Extract<Shared>, Path(link): Path<String>) -> Response {
    let (fault, bytes) = shared.change(|state| {
        let bytes = state.links.get(&link).and_then(|code| state.files.get(code)).cloned();
        (state.take_fault("file"), bytes)
    });
    match (fault, bytes) {
        (Some(fault), _) => fault.answer().await,
        (None, Some(bytes)) => bytes.into_response(),
        (None, None) => StatusCode::FORBIDDEN.into_response(),
    }
}

/// Whatever is no address of the server.
pub async fn not_found() -> Response {
    Fault::Html { code: 404 }.answer().await
}
