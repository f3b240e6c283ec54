//! A TCP listener that outlives the image and the process, and the loop that accepts from it.
//!
//! **Invariants**
//! - The listener is handed over, and kept for a process that is killed. So nobody who connects is refused.
//! - While it is shut nothing is accepted: who connects waits in its queue, also for the next image.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::link::{Kept, NamedFd};

/// Out of fds or the like: not to be asked again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A listener, once there is one.
pub(super) struct Listener {
    /// What it is called among the fds of its platform.
    name: &'static str,
    listener: Option<std::net::TcpListener>,
    /// What changed about it, to be kept for a process that is killed.
    kept: Vec<Kept>,
}

impl Listener {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, listener: None, kept: Vec::new() }
    }

    /// Takes over the listener of another image or process, or of systemd, if it is at `wanted`; `None` is no place.
    pub(super) fn restore(&mut self, fds: Vec<NamedFd>, wanted: Option<SocketAddr>) {
        let ours = self.name;
        for (name, fd) in fds.into_iter().filter(|(name, _)| name == ours) {
            let listener = std::net::TcpListener::from(fd);
            let is_there = rustix::net::sockopt::socket_acceptconn(&listener).unwrap_or(false);
            let fits = wanted.is_some_and(|wanted| is_at(&listener, wanted));
            if is_there && fits && self.listener.is_none() && listener.set_nonblocking(true).is_ok() {
                self.keep(&listener);
                self.listener = Some(listener);
            } else if self.listener.is_none() {
                tracing::info!(name, "a listener that was left is closed: it is not where the configuration says");
                self.kept.push(Kept { name, fd: None });
            }
        }
    }

    /// The listener to serve; it listens at `place` unless it was restored.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) fn listen(&mut self, place: SocketAddr) -> io::Result<std::net::TcpListener> {
        if let Some(listener) = &self.listener {
            return listener.try_clone();
        }
        let listener = std::net::TcpListener::bind(place)?;
        listener.set_nonblocking(true)?;
        let serving = listener.try_clone()?;
        self.keep(&listener);
        self.listener = Some(listener);
        Ok(serving)
    }

    fn keep(&mut self, listener: &std::net::TcpListener) {
        match listener.as_fd().try_clone_to_owned() {
            Ok(fd) => self.kept.push(Kept { name: self.name.to_owned(), fd: Some(fd) }),
            Err(error) => tracing::warn!(name = self.name, %error, "a listener cannot be kept for a kill"),
        }
    }

    /// A duplicate of the fd that the next image needs.
    ///
    /// # Errors
    /// Why it cannot be duplicated.
    pub(super) fn fds(&self) -> io::Result<Vec<NamedFd>> {
        let named =
            |listener: &std::net::TcpListener| Ok((self.name.to_owned(), listener.as_fd().try_clone_to_owned()?));
        self.listener.iter().map(named).collect()
    }

    pub(super) fn take_kept(&mut self) -> Vec<Kept> {
        std::mem::take(&mut self.kept)
    }
}

/// Port 0 is any.
fn is_at(listener: &std::net::TcpListener, wanted: SocketAddr) -> bool {
    let at = listener.local_addr();
    at.is_ok_and(|at| at.ip() == wanted.ip() && (at.port() == wanted.port() || wanted.port() == 0))
}

/// Accepts connections while it is open, `connections_max` at a time, and serves each. Ends when nobody can open it any
/// more; with it, all connections end. `what` is for the log.
pub(super) async fn accept<F: Future<Output = ()> + Send + 'static>(
    what: &'static str,
    listener: tokio::net::TcpListener,
    connections_max: usize,
    mut opened: watch::Receiver<bool>,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) {
    let room = Arc::new(Semaphore::new(connections_max));
    let mut connections = JoinSet::new();
    loop {
        if opened.wait_for(|is_open| *is_open).await.is_err() {
            return;
        }
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = opened.changed() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = serve(stream, peer);
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(what, %error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_was_left_is_served_where_the_configuration_says_and_closed_elsewhere() {
        let left = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
            (listener.local_addr().expect("it is bound"), vec![("listener".to_owned(), listener.into())])
        };
        let (at, fds) = left();
        let mut listener = Listener::new("listener");
        listener.restore(fds, Some(at));
        assert_eq!(listener.listen(at).expect("it listens").local_addr().expect("it is bound"), at);
        let (at, _) = left();
        for wanted in [None, Some(at)] {
            let (was, fds) = left();
            let mut listener = Listener::new("listener");
            listener.restore(fds, wanted);
            assert!(std::net::TcpStream::connect(was).is_err(), "nobody listens there");
            let kept = listener.take_kept();
            assert!(kept.iter().all(|kept| kept.fd.is_none()) && kept.len() == 1);
        }
    }
}
