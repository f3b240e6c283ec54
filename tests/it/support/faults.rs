//! Answers of a test server that go wrong on purpose, whatever the server stands for.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Between two bytes of [`Fault::Slow`].
const BYTE_PAUSE: Duration = Duration::from_millis(100);

/// How a call goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// This JSON, and nothing is done.
    Answer {
        /// The HTTP status.
        code: u16,
        /// The body.
        body: Value,
        /// `Retry-After`, in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// A proxy answers with a page of its own.
    Html {
        /// The HTTP status.
        code: u16,
    },
    /// The client is sent elsewhere.
    Redirect {
        /// The new address.
        to: String,
    },
    /// 200, and JSON that ends early.
    Malformed,
    /// 200, and an answer of 64 MiB, unless the client hangs up before.
    Huge,
    /// 200, and one byte after the other, for ever.
    Slow,
    /// The connection breaks within the answer, and nothing was done.
    Reset,
    /// No answer ever, and nothing is done.
    Hang,
    /// The call is carried out, and the connection breaks within the answer.
    DoneReset,
    /// The call is carried out, and no answer ever comes.
    DoneHang,
}

impl Fault {
    /// An answer with this body.
    pub fn answer_with(code: u16, body: Value) -> Self {
        Self::Answer { code, body, retry_after: None }
    }

    /// Whether the call is carried out.
    pub fn is_after_the_fact(&self) -> bool {
        matches!(self, Self::DoneReset | Self::DoneHang)
    }

    /// The answer.
    pub async fn answer(self) -> Response {
        match self {
            Self::Answer { code, body, retry_after } => {
                let mut response = (status(code), axum::Json(body)).into_response();
                if let Some(seconds) = retry_after {
                    response.headers_mut().insert("retry-after", seconds.into());
                }
                response
            }
            Self::Html { code } => (status(code), "<html><body>Bad Gateway</body></html>").into_response(),
            Self::Redirect { to } => (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, to)]).into_response(),
            Self::Malformed => (StatusCode::OK, r#"{"ret":0,"ok":true,"msgs":[{"text":"#).into_response(),
            Self::Huge => {
                let piece = Bytes::from(vec![b' '; 1 << 20]);
                let pieces = (0..64).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
                Body::from_stream(futures_util::stream::iter(pieces)).into_response()
            }
            Self::Slow => {
                let bytes = futures_util::stream::unfold((), |()| async {
                    tokio::time::sleep(BYTE_PAUSE).await;
                    Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
                });
                Body::from_stream(bytes).into_response()
            }
            Self::Reset | Self::DoneReset => {
                let broken = Err(std::io::Error::other("a fault that was asked for"));
                let pieces = [Ok(Bytes::from_static(b"{\"ret\":0,")), broken];
                Body::from_stream(futures_util::stream::iter(pieces)).into_response()
            }
            Self::Hang | Self::DoneHang => std::future::pending().await,
        }
    }
}

/// Calls of `method` (`*` is any) that go wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Planned {
    /// Which method.
    pub method: String,
    /// How many calls more.
    pub times: u32,
    /// How.
    pub fault: Fault,
}

/// Takes what goes wrong with this call out of the plan.
pub fn take(plan: &mut Vec<Planned>, method: &str) -> Option<Fault> {
    let at = plan.iter().position(|planned| planned.method == "*" || planned.method == method)?;
    plan[at].times = plan[at].times.saturating_sub(1);
    let fault = plan[at].fault.clone();
    plan.retain(|planned| planned.times > 0);
    Some(fault)
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("a fault names an HTTP status")
}
