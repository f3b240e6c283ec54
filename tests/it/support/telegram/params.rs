//! Parameters of a call, however they came: query, JSON, form or multipart
//! (<https://core.telegram.org/bots/api#making-requests>).

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::extract::{Form, FromRequest, Query, Request};
use axum::http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

/// The largest call that is read: Telegram takes files of 50 MB.
const BODY_BYTES_MAX: usize = 52 << 20;

/// A file in a multipart body.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The parameters by name. What came as text is text.
#[derive(Clone, Debug, Default)]
pub struct Params {
    /// All but files.
    pub fields: Map<String, Value>,
    /// The files.
    pub files: BTreeMap<String, Upload>,
}

impl Params {
    /// Reads them off a request.
    pub async fn read(request: Request) -> Result<Self, String> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri()).map_err(|error| error.to_string())?;
        let fields: Map<String, Value> = query.0.into_iter().map(|(key, value)| (key, value.into())).collect();
        let mut params = Self { fields, files: BTreeMap::new() };
        let (parts, body) = request.into_parts();
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| error.to_string())?;
        if kind.starts_with("application/json") {
            let object: Map<String, Value> = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            params.fields.extend(object);
        } else if kind.starts_with("application/x-www-form-urlencoded") {
            let request = Request::from_parts(parts, Body::from(body));
            let form = Form::<Vec<(String, String)>>::from_request(request, &()).await.map_err(|e| e.to_string())?;
            params.fields.extend(form.0.into_iter().map(|(key, value)| (key, value.into())));
        } else if let Some((_, boundary)) = kind.split_once("boundary=") {
            params.multipart(&body, boundary.trim_matches('"'));
        }
        Ok(params)
    }

    /// A text; empty if there is none.
    pub fn text(&self, name: &str) -> String {
        match self.fields.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }
    }

    /// A number, also as text.
    pub fn number(&self, name: &str) -> Option<i64> {
        match self.fields.get(name)? {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_i64(),
        }
    }

    /// Any JSON, also as text.
    pub fn json(&self, name: &str) -> Option<Value> {
        match self.fields.get(name)? {
            Value::String(text) => serde_json::from_str(text).ok(),
            other => Some(other.clone()),
        }
    }

    /// The same, of a parameter that may be left out: `None` if it is, `Some(None)` if it is no JSON.
    pub fn given(&self, name: &str) -> Option<Option<Value>> {
        let is_left_out = self.text(name).is_empty();
        (!is_left_out).then(|| self.json(name))
    }

    /// The fields of a multipart/form-data body (RFC 7578).
    fn multipart(&mut self, body: &[u8], boundary: &str) {
        for part in split(body, format!("--{boundary}").as_bytes()) {
            let part = part.strip_prefix(b"\r\n").unwrap_or(part);
            let [head, value @ ..] = &split(part, b"\r\n\r\n")[..] else { continue };
            let value = value.join(&b"\r\n\r\n"[..]);
            let value = value.strip_suffix(b"\r\n").unwrap_or(&value);
            let head = String::from_utf8_lossy(head);
            let quoted = |key: &str| head.split(key).nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned);
            let Some(name) = quoted(" name=\"") else { continue };
            match quoted("filename=\"") {
                Some(filename) => drop(self.files.insert(name, Upload { name: filename, bytes: value.to_vec() })),
                None => drop(self.fields.insert(name, String::from_utf8_lossy(value).into())),
            }
        }
    }
}

/// What is between the places where `mark` is.
fn split<'a>(mut bytes: &'a [u8], mark: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while let Some(at) = bytes.windows(mark.len()).position(|window| window == mark) {
        pieces.push(&bytes[..at]);
        bytes = &bytes[at + mark.len()..];
    }
    pieces.push(bytes);
    pieces
}
