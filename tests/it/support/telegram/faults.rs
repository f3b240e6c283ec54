//! Answers that go wrong on purpose.

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// How a call goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// Telegram refuses the call.
    Refuse {
        /// The error code and HTTP status.
        code: u16,
        /// Said about it.
        #[serde(default)]
        description: String,
        /// `parameters.retry_after`, in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// A proxy answers with a page of its own.
    Html {
        /// The HTTP status.
        code: u16,
    },
    /// 200, and JSON that ends early.
    Malformed,
    /// 200, and an answer of 64 MiB, unless the client hangs up before.
    Huge,
    /// The connection breaks within the answer, and nothing was done.
    Reset,
    /// The client is sent elsewhere.
    Redirect {
        /// Where.
        to: String,
    },
    /// No answer ever, and nothing is done.
    Hang,
    /// The call is carried out, and the connection breaks within the answer.
    DoneReset,
    /// The call is carried out, and no answer ever comes.
    DoneHang,
}

impl Fault {
    /// Telegram is asked too often.
    pub fn flood(retry_after: u64) -> Self {
        Self::Refuse {
            code: 429,
            description: format!("Too Many Requests: retry after {retry_after}"),
            retry_after: Some(retry_after),
        }
    }

    /// Telegram refuses with `code`.
    pub fn refuse(code: u16, description: &str) -> Self {
        Self::Refuse { code, description: description.to_owned(), retry_after: None }
    }

    /// Whether the call is carried out.
    pub fn is_after_the_fact(&self) -> bool {
        matches!(self, Self::DoneReset | Self::DoneHang)
    }

    /// The answer.
    pub async fn answer(self) -> Response {
        match self {
            Self::Refuse { code, description, retry_after } => {
                let mut body = json!({ "ok": false, "error_code": code, "description": description });
                if let Some(retry_after) = retry_after {
                    body["parameters"] = json!({ "retry_after": retry_after });
                }
                (status(code), axum::Json(body)).into_response()
            }
            Self::Html { code } => (status(code), "<html><body>Bad Gateway</body></html>").into_response(),
            Self::Redirect { to } => (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, to)]).into_response(),
            Self::Malformed => (StatusCode::OK, r#"{"ok":true,"result":[{"update_id":"#).into_response(),
            Self::Huge => {
                let piece = Bytes::from(vec![b' '; 1 << 20]);
                let pieces = (0..64).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
                Body::from_stream(futures_util::stream::iter(pieces)).into_response()
            }
            Self::Reset | Self::DoneReset => {
                let broken = Err(std::io::Error::other("a fault that was asked for"));
                let pieces = [Ok(Bytes::from_static(b"{\"ok\":true,")), broken];
                Body::from_stream(futures_util::stream::iter(pieces)).into_response()
            }
            Self::Hang | Self::DoneHang => std::future::pending().await,
        }
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("a fault names an HTTP status")
}
