//! `POST /media/upload`: pictures that the bot shows later.

use axum::body::Bytes;
use axum::extract::{Query, State as Extract};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Shared;
use super::methods::{Answer, good};
use super::state::{Call, State, now_ms};

/// The largest that is read.
pub const BODY_BYTES_MAX: usize = 32 << 20;
const METHOD: &str = "media/upload";

/// HTTP 200 also where it is refused.
pub async fn upload(
    Extract(shared): Extract<Shared>,
    Query(query): Query<std::collections::BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let boundary = kind.split_once("boundary=").map(|(_, boundary)| boundary.trim_matches('"').to_owned());
    let (kind, media) = match boundary {
        Some(boundary) => (field(&body, &boundary, "type"), field(&body, &boundary, "media")),
        None => (None, None),
    };
    let store = |state: &mut State| stored(state, query.get("access_token"), kind.as_deref(), media.as_deref());
    let (at, fault) = shared.change(|state| {
        state.calls.push(Call { at_ms: now_ms(), method: METHOD.to_owned(), body: Value::Null, status: None });
        (state.calls.len() - 1, state.take_fault(METHOD))
    });
    let response = match fault {
        Some(fault) => {
            if fault.is_after_the_fact() {
                drop(shared.change(store));
            }
            fault.answer().await
        }
        None => shared.change(store).into_response(),
    };
    shared.change(|state| state.calls[at].status = Some(response.status().as_u16()));
    response
}

fn stored(state: &mut State, token: Option<&String>, kind: Option<&[u8]>, media: Option<&[u8]>) -> Answer {
    let no = |errcode: i64, errmsg: &str| good(json!({ "errcode": errcode, "errmsg": errmsg }));
    let is_known = |token: &String| state.tokens.get(token).is_some_and(|until_ms| *until_ms > now_ms());
    if !token.is_some_and(is_known) {
        return no(40_014, "the access token is wrong");
    }
    let (Some(b"image"), Some(media)) = (kind, media.filter(|media| !media.is_empty())) else {
        return no(40_035, "a parameter is missing");
    };
    let media_id = format!("@lAL{:07}", state.fresh());
    state.media.insert(media_id.clone(), media.to_vec());
    good(json!({ "errcode": 0, "errmsg": "ok", "type": "image", "media_id": media_id, "created_at": now_ms() }))
}

/// A field of a multipart/form-data body (RFC 7578).
fn field(body: &[u8], boundary: &str, name: &str) -> Option<Vec<u8>> {
    let find = |within: &[u8], what: &[u8]| within.windows(what.len()).position(|window| window == what);
    let named = find(body, format!("name=\"{name}\"").as_bytes())?;
    let start = named + find(&body[named..], b"\r\n\r\n")? + 4;
    let end = start + find(&body[start..], format!("\r\n--{boundary}").as_bytes())?;
    Some(body[start..end].to_vec())
}
