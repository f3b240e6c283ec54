//! The HTTP side of a webhook (<https://core.telegram.org/bots/api#setwebhook>).
//!
//! **Invariants**
//! - Nothing of a request is read before its secret was compared, in constant time, but its head.
//! - Every wait has a deadline: for a head, a body, and for the update to be stored. What takes longer is cut off, and
//!   Telegram posts it again.
//! - 2xx is answered only after the update was stored, or can never be.
//! - While the server is shut nothing is accepted: who connects waits in the listener's queue, also for the next image.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::value::RawValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::Secret;
use crate::platform::fingerprint::Fingerprint;
use crate::platform::listener::accept;

/// An update is a few KiB.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How long the head of a request may take, counted from the connection or the answer before.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// How long an update may wait to be stored: while messages are not taken in, Telegram is told to come again.
const STORE_DEADLINE: Duration = Duration::from_secs(20);
/// Telegram opens at most as many as `setWebhook` says; beyond these, connections wait.
const CONNECTIONS_MAX: usize = 64;
/// Updates that wait to be stored.
const POSTS_MAX: usize = 16;
/// The head of a request of Telegram is far shorter.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The header with the secret.
const SECRET_HEADER: &str = "x-telegram-bot-api-secret-token";

/// An update that was posted.
pub(in crate::platform::telegram) struct Posted {
    /// As it came.
    pub(in crate::platform::telegram) update: Box<RawValue>,
    /// Whether it is stored, or can never be.
    pub(in crate::platform::telegram) answer: oneshot::Sender<bool>,
}

/// A server on a listener. It ends with this value.
pub(super) struct Server {
    posts: mpsc::Receiver<Posted>,
    is_open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What all connections share.
struct Door {
    secret: Fingerprint,
    posts: mpsc::Sender<Posted>,
}

impl Server {
    /// Serves `listener`, which must not block; shut at first.
    ///
    /// # Errors
    /// If the runtime does not take the listener.
    pub(super) fn start(listener: std::net::TcpListener, secret: &Secret) -> std::io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        let (sender, posts) = mpsc::channel(POSTS_MAX);
        let (is_open, opened) = watch::channel(false);
        let door = Arc::new(Door { secret: Fingerprint::of(secret.expose().as_bytes()), posts: sender });
        let serve = move |stream, _| serve(stream, door.clone());
        let task = tokio::spawn(accept("the webhook", listener, CONNECTIONS_MAX, opened, serve));
        Ok(Self { posts, is_open, task })
    }

    /// Whether connections are accepted.
    pub(super) fn set_open(&self, is_open: bool) {
        self.is_open.send_if_modified(|was| std::mem::replace(was, is_open) != is_open);
    }

    /// The next update; waits for ever while the server is shut.
    pub(super) async fn posted(&mut self) -> Posted {
        if *self.is_open.borrow()
            && let Some(posted) = self.posts.recv().await
        {
            return posted;
        }
        std::future::pending().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, door: Arc<Door>) {
    let service = service_fn(move |request| {
        let door = door.clone();
        async move { Ok::<_, Infallible>(answer(request, &door).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        // Whoever it was. The error has no words of the request.
        tracing::debug!(%error, "a connection to the webhook broke off");
    }
}

async fn answer(request: Request<Incoming>, door: &Door) -> Response<Full<Bytes>> {
    let status = match take(request, door).await {
        Ok(()) => StatusCode::OK,
        Err(status) => status,
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

async fn take(request: Request<Incoming>, door: &Door) -> Result<(), StatusCode> {
    let given = request.headers().get(SECRET_HEADER);
    if !given.is_some_and(|given| door.secret.matches(given.as_bytes())) {
        tracing::warn!("a post to the webhook without its secret is refused");
        return Err(StatusCode::UNAUTHORIZED);
    }
    if request.method() != Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let body = timeout(BODY_DEADLINE, body).await.map_err(|_| StatusCode::REQUEST_TIMEOUT)?;
    let body = body.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?.to_bytes();
    let Ok(update) = serde_json::from_slice::<Box<RawValue>>(&body) else {
        tracing::warn!(size_bytes = body.len(), "what was posted to the webhook is not JSON");
        return Err(StatusCode::BAD_REQUEST);
    };
    let (answer, stored) = oneshot::channel();
    let handed = async {
        door.posts.send(Posted { update, answer }).await.ok()?;
        stored.await.ok().filter(|is_stored| *is_stored)
    };
    match timeout(STORE_DEADLINE, handed).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) | Err(_) => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
}
