//! The HTTP side: connections, and what they are held to.
//!
//! **Invariants**
//! - Every wait has a deadline: for a head, a body, a message to be stored, and for a reader to take what is written.
//! - While the server is shut nothing is accepted: who connects waits in the listener's queue, also for the next image.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::patient::Patient;
use super::routes::routes;
use super::site::{Peer, Site};
use crate::platform::listener::accept;

/// How long the head of a request may take, counted from the connection or the answer before.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// How long a reader may take nothing of what is written.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Beyond these, connections wait.
const CONNECTIONS_MAX: usize = 128;
/// Cookies of other programs on the same host come along.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// A server on a listener. It ends with this value, and all its connections with it.
pub(super) struct Server {
    is_open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `listener`, which must not block.
    ///
    /// # Errors
    /// If the runtime does not take the listener.
    pub(super) fn start(listener: std::net::TcpListener, site: Arc<Site>) -> io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        let (is_open, opened) = watch::channel(true);
        let routes = routes(site);
        let serve = move |stream, peer| serve(stream, peer, routes.clone());
        let task = tokio::spawn(accept("the web page", listener, CONNECTIONS_MAX, opened, serve));
        Ok(Self { is_open, task })
    }

    /// Whether connections are accepted.
    pub(super) fn set_open(&self, is_open: bool) {
        self.is_open.send_if_modified(|was| std::mem::replace(was, is_open) != is_open);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, routes: Router) {
    // Pieces of an answer are small, and wait for nothing.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection sends late");
    }
    let service = TowerToHyperService::new(routes.layer(Extension(Peer(peer.ip()))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream, WRITE_DEADLINE)), service);
    if let Err(error) = connection.await {
        // Whoever it was. The error has no words of the request.
        tracing::debug!(%error, "a connection to the web page broke off");
    }
}
