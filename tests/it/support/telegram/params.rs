//! Parameters of a call, however they came: query, JSON, form or multipart
//! (<https://core.telegram.org/bots/api#making-requests>).

use axum::body::{Body, to_bytes};
use axum::extract::{Form, FromRequest, Query, Request};
use axum::http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

/// The largest call that is read.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The parameters by name. What came as text is text.
#[derive(Clone, Debug, Default)]
pub struct Params(pub Map<String, Value>);

impl Params {
    /// Reads them off a request.
    pub async fn read(request: Request) -> Result<Self, String> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri()).map_err(|error| error.to_string())?;
        let mut params: Map<String, Value> = query.0.into_iter().map(|(key, value)| (key, value.into())).collect();
        let (parts, body) = request.into_parts();
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| error.to_string())?;
        if kind.starts_with("application/json") {
            let object: Map<String, Value> = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            params.extend(object);
        } else if kind.starts_with("application/x-www-form-urlencoded") {
            let request = Request::from_parts(parts, Body::from(body));
            let form = Form::<Vec<(String, String)>>::from_request(request, &()).await.map_err(|e| e.to_string())?;
            params.extend(form.0.into_iter().map(|(key, value)| (key, value.into())));
        } else if let Some((_, boundary)) = kind.split_once("boundary=") {
            params.extend(multipart(&String::from_utf8_lossy(&body), boundary.trim_matches('"')));
        }
        Ok(Self(params))
    }

    /// A text; empty if there is none.
    pub fn text(&self, name: &str) -> String {
        match self.0.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }
    }

    /// A number, also as text.
    pub fn number(&self, name: &str) -> Option<i64> {
        match self.0.get(name)? {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_i64(),
        }
    }

    /// Any JSON, also as text.
    pub fn json(&self, name: &str) -> Option<Value> {
        match self.0.get(name)? {
            Value::String(text) => serde_json::from_str(text).ok(),
            other => Some(other.clone()),
        }
    }
}

/// The fields of a multipart/form-data body (RFC 7578) that are text.
fn multipart(body: &str, boundary: &str) -> Vec<(String, Value)> {
    let field = |part: &str| {
        let (head, value) = part.trim_start_matches("\r\n").split_once("\r\n\r\n")?;
        let name = head.split("name=\"").nth(1)?.split('"').next()?;
        Some((name.to_owned(), value.strip_suffix("\r\n").unwrap_or(value).into()))
    };
    body.split(&format!("--{boundary}")).filter_map(field).collect()
}
