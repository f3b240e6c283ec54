//! What is posted: JSON by scripts, a form by pages.

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::{Json, RequestExt as _};
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

use super::site::Refusal;
use crate::sys::random;

/// How long a body may take.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// The header that has the token of the session, for scripts.
const CSRF_HEADER: &str = "x-csrf-token";

/// The fields of all that is posted.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Form {
    pub(super) csrf: Option<String>,
    pub(super) id: Option<String>,
    pub(super) chat: Option<String>,
    pub(super) text: Option<String>,
    pub(super) version: Option<String>,
    pub(super) force: bool,
    pub(super) token: Option<String>,
    pub(super) next: Option<String>,
    /// It came from a page, without a script.
    #[serde(skip)]
    is_page: bool,
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let is_page = is_form(request.headers());
        read(request, is_page).await
    }
}

/// Whether a page posts it, without a script.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    kind.starts_with(b"application/x-www-form-urlencoded")
}

async fn read(request: Request, is_page: bool) -> Result<Form, Refusal> {
    let wrong = |status, why: &str| Refusal::new(status, why);
    let csrf = request.headers().get(CSRF_HEADER).and_then(|csrf| csrf.to_str().ok()).map(str::to_owned);
    if is_page {
        let form = timeout(BODY_DEADLINE, request.extract::<axum::Form<Form>, _>()).await;
        let form = form.map_err(|_| wrong(StatusCode::REQUEST_TIMEOUT, "the form took too long"))?;
        let axum::Form(form) = form.map_err(|rejection| wrong(rejection.status(), "the form cannot be read"))?;
        return Ok(Form { is_page, ..form });
    }
    let body = timeout(BODY_DEADLINE, request.extract::<Bytes, _>()).await;
    let body = body.map_err(|_| wrong(StatusCode::REQUEST_TIMEOUT, "the body took too long"))?;
    let body = body.map_err(|rejection| wrong(rejection.status(), "the body cannot be read, or is too large"))?;
    let form: Form = serde_json::from_slice(&body)
        .map_err(|_| wrong(StatusCode::BAD_REQUEST, "the body is not the JSON that is wanted"))?;
    Ok(Form { csrf: csrf.or(form.csrf.clone()), ..form })
}

impl Form {
    /// What the message is called for good. A page without a script cannot make one; it does not send again either.
    pub(super) fn message_id(&self) -> Option<String> {
        match &self.id {
            Some(id) => is_uuid(id).then(|| id.to_ascii_lowercase()),
            None if self.is_page => random::bytes::<16>().ok().map(|bytes| crate::hex::encode(&bytes)),
            None => None,
        }
    }

    /// The message is stored.
    pub(super) fn answer(&self, number: i64, page: &str) -> Response {
        if self.is_page {
            Redirect::to(page).into_response()
        } else {
            Json(json!({ "number": number })).into_response()
        }
    }
}

/// RFC 9562, as text.
fn is_uuid(id: &str) -> bool {
    let groups: Vec<&str> = id.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_named_by_a_uuid_or_not_at_all() {
        let form = |id: Option<&str>, is_page| Form { id: id.map(str::to_owned), is_page, ..Form::default() };
        let uuid = "6B0D3C5E-0f8e-4a53-9d2f-6f6f0f1c2b3a";
        assert_eq!(form(Some(uuid), false).message_id(), Some(uuid.to_ascii_lowercase()));
        for no in ["", "1", "6b0d3c5e0f8e4a539d2f6f6f0f1c2b3a", "6b0d3c5e-0f8e-4a53-9d2f-6f6f0f1c2b3g", "--------"] {
            assert_eq!(form(Some(no), true).message_id(), None, "{no}");
        }
        assert_eq!(form(None, false).message_id(), None);
        assert_ne!(form(None, true).message_id(), form(None, true).message_id());
    }
}
