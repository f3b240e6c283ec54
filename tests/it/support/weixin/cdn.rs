//! The CDN: encrypted files up and down.

use axum::body::Bytes;
use axum::extract::{Query, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use super::crypto;
use super::state::{Call, State, Stored, now_ms};

/// The query of both directions.
#[derive(Clone, Deserialize)]
pub struct Asked {
    encrypted_query_param: String,
    #[serde(default)]
    filekey: String,
}

/// Keeps the call. Returns how it goes wrong.
fn record(shared: &Shared, method: &str, asked: &Asked) -> Option<super::super::faults::Fault> {
    let body = json!({ "encrypted_query_param": asked.encrypted_query_param, "filekey": asked.filekey });
    shared.change(|state| {
        state.calls.push(Call { at_ms: now_ms(), method: method.to_owned(), body, status: None });
        state.take_fault(method)
    })
}

/// `POST /c2c/upload`.
pub async fn upload(
    Extract(shared): Extract<Shared>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(fault) = record(&shared, "upload", &asked) {
        return fault.answer().await;
    }
    let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let outcome = if kind == "application/octet-stream" {
        shared.change(|state| keep(state, &asked, &body))
    } else {
        Err("the content is no application/octet-stream")
    };
    match outcome {
        Ok(param) => (StatusCode::OK, [("x-encrypted-param", param)]).into_response(),
        Err(broken) => {
            shared.change(|state| state.complaints.push(format!("upload: {broken}")));
            (StatusCode::BAD_REQUEST, [("x-error-message", broken)]).into_response()
        }
    }
}

fn keep(state: &mut State, asked: &Asked, ciphertext: &[u8]) -> Result<String, &'static str> {
    let upload = state.uploads.get(&asked.encrypted_query_param).ok_or("no such upload was allowed")?.clone();
    if upload.filekey != asked.filekey {
        return Err("filekey is another");
    }
    if u64::try_from(ciphertext.len()).ok() != Some(upload.filesize) {
        return Err("the length is not filesize");
    }
    let key = crypto::unhex(&upload.aeskey).expect("checked when it was allowed");
    let plaintext = crypto::decrypt(key, ciphertext).ok_or("it cannot be decrypted")?;
    if u64::try_from(plaintext.len()).ok() != Some(upload.rawsize) || crypto::md5_hex(&plaintext) != upload.rawfilemd5 {
        return Err("rawsize or rawfilemd5 is wrong");
    }
    let param = format!("file+{}/=", state.fresh());
    let stored =
        Stored { ciphertext: STANDARD.encode(ciphertext), aeskey: upload.aeskey.clone(), upload: Some(upload) };
    state.files.insert(param.clone(), stored);
    Ok(param)
}

/// `GET /c2c/download`.
pub async fn download(Extract(shared): Extract<Shared>, Query(asked): Query<Asked>) -> Response {
    if let Some(fault) = record(&shared, "download", &asked) {
        return fault.answer().await;
    }
    match shared.lock().files.get(&asked.encrypted_query_param) {
        Some(stored) => STANDARD.decode(&stored.ciphertext).expect("encoded here").into_response(),
        None => (StatusCode::NOT_FOUND, [("x-error-message", "no such file")]).into_response(),
    }
}
