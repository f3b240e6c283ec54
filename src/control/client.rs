//! The client side of the control socket, as the command line uses it.
//!
//! A handoff of the gateway is invisible here: it carries the socket, so a request that one image accepted is
//! answered by the next over the same connection.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::jsonrpc::{ErrorObject, LineBuffer, LineError, Message, RequestId};

/// The longest line a client reads, in bytes: a status with everything in it, or a chat's backlog.
const LINE_BYTES_MAX: usize = 16 << 20;
/// How long the gateway may take to read a request.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connect(2) may take; it waits only while the gateway's backlog is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the gateway could not be reached, or did not do what was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nothing listens on the socket.
    #[error("no gateway listens on {}", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// This user may not open the socket.
    #[error("no permission to use {}", path.display())]
    PermissionDenied {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be connected to for another reason.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The gateway closed the connection, or it broke.
    #[error("the gateway closed the connection")]
    Closed(#[source] Option<io::Error>),
    /// There was no answer in time.
    #[error("the gateway did not answer `{method}` within {} s", after.as_secs())]
    Timeout {
        /// The method asked for.
        method: String,
        /// The longest wait.
        after: Duration,
    },
    /// The gateway answered with an error; its codes are those of [`super::proto`] and JSON-RPC.
    #[error("{}", .0.message)]
    Rpc(ErrorObject),
    /// What came is not what the protocol allows.
    #[error("the gateway sent what this version does not understand: {0}")]
    Protocol(String),
}

impl ClientError {
    /// Whether the connection is of no further use, though another one may be.
    pub fn is_disconnect(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::NotRunning { .. } | Self::Connect { .. })
    }
}

/// A connection to the gateway.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    input: LineBuffer,
    next_id: i64,
}

impl Client {
    /// Connects to the control socket `path`.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], [`ClientError::PermissionDenied`] or [`ClientError::Connect`].
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let path_owned = || path.to_owned();
        let connected = timeout(CONNECT_TIMEOUT, UnixStream::connect(path))
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)));
        match connected {
            Ok(stream) => Ok(Self { stream, input: LineBuffer::new(LINE_BYTES_MAX), next_id: 1 }),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning { path: path_owned() }
                }
                io::ErrorKind::PermissionDenied => ClientError::PermissionDenied { path: path_owned() },
                _ => ClientError::Connect { path: path_owned(), source: error },
            }),
        }
    }

    /// Asks, and waits for the answer no longer than `deadline`. Notifications that come first go to
    /// `on_notification`, method and parameters.
    ///
    /// # Errors
    /// Any [`ClientError`] but those of connecting. After [`ClientError::Timeout`] the answer may still come, so the
    /// connection is of no further use.
    pub async fn request<R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: &impl Serialize,
        deadline: Duration,
        mut on_notification: impl FnMut(&str, Value),
    ) -> Result<R, ClientError> {
        let until = Instant::now() + deadline;
        let id = self.send(method, params).await?;
        loop {
            let received = timeout_at(until, self.receive()).await;
            match received.map_err(|_| ClientError::Timeout { method: method.to_owned(), after: deadline })?? {
                Message::Response { id: answered, outcome } if answered == id => return decode(method, outcome),
                Message::Notification { method, params } => on_notification(&method, params),
                Message::Response { .. } | Message::Request { .. } => {}
            }
        }
    }

    /// Asks without waiting for the answer, and returns the id it will have.
    ///
    /// # Errors
    /// [`ClientError::Closed`], [`ClientError::Timeout`] or the reason the gateway gave before it closed.
    pub async fn send(&mut self, method: &str, params: &impl Serialize) -> Result<RequestId, ClientError> {
        let id = RequestId::Number(self.next_id);
        self.next_id += 1;
        let params = serde_json::to_value(params).expect("parameters are plain data");
        let line = Message::Request { id: id.clone(), method: method.to_owned(), params }.to_line();
        match timeout(SEND_TIMEOUT, self.stream.write_all(&line)).await {
            Ok(Ok(())) => Ok(id),
            // A refused client is told why before it is closed, so what can still be read is the better reason.
            Ok(Err(error)) => match timeout(SEND_TIMEOUT, self.receive()).await {
                Ok(Err(reason @ ClientError::Rpc(_))) => Err(reason),
                _ => Err(ClientError::Closed(Some(error))),
            },
            Err(_) => Err(ClientError::Timeout { method: method.to_owned(), after: SEND_TIMEOUT }),
        }
    }

    /// The next message. Nothing is lost if the future is dropped before it is ready.
    ///
    /// # Errors
    /// [`ClientError::Closed`], [`ClientError::Protocol`], or [`ClientError::Rpc`] for an error that belongs to no
    /// request: the gateway refuses the client.
    pub async fn receive(&mut self) -> Result<Message, ClientError> {
        loop {
            match self.input.next_line() {
                Ok(Some(line)) => return parse(&line),
                Ok(None) => {}
                Err(error @ LineError::TooLong { .. }) => return Err(ClientError::Protocol(error.to_string())),
            }
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk).await {
                Ok(0) => return Err(ClientError::Closed(None)),
                Ok(count) => self.input.push(&chunk[..count]),
                Err(error) => return Err(ClientError::Closed(Some(error))),
            }
        }
    }

    /// Waits until the gateway closes the connection, no longer than `deadline`. True if it did.
    pub async fn wait_closed(&mut self, deadline: Duration) -> bool {
        let end = async {
            loop {
                if let Err(error) = self.receive().await {
                    return error;
                }
            }
        };
        matches!(timeout(deadline, end).await, Ok(ClientError::Closed(_)))
    }
}

/// Makes a typed answer of a response to `method`.
///
/// # Errors
/// [`ClientError::Rpc`] for an error, [`ClientError::Protocol`] for an answer of another form.
pub fn decode<R: DeserializeOwned>(method: &str, outcome: Result<Value, ErrorObject>) -> Result<R, ClientError> {
    let value = outcome.map_err(ClientError::Rpc)?;
    serde_json::from_value(value).map_err(|error| ClientError::Protocol(format!("the answer to `{method}`: {error}")))
}

fn parse(line: &[u8]) -> Result<Message, ClientError> {
    /// An error whose id is `null`, which [`Message`] has no place for.
    #[derive(serde::Deserialize)]
    struct Refusal {
        id: Option<RequestId>,
        error: ErrorObject,
    }
    Message::parse(line).map_err(|reason| match serde_json::from_slice(line) {
        Ok(Refusal { id: None, error }) => ClientError::Rpc(error),
        _ => ClientError::Protocol(reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_reason_the_gateway_gave() {
        let line = br#"{"jsonrpc":"2.0","id":null,"error":{"code":4,"message":"not you"}}"#;
        assert!(matches!(parse(line), Err(ClientError::Rpc(ErrorObject { code: 4, .. }))));
        assert!(matches!(parse(b"nonsense"), Err(ClientError::Protocol(_))));
    }

    #[tokio::test]
    async fn a_missing_socket_and_a_dead_one_mean_that_no_gateway_runs() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("control.sock");
        for _ in 0..2 {
            assert!(matches!(Client::connect(&path).await, Err(ClientError::NotRunning { .. })));
            drop(std::os::unix::net::UnixListener::bind(&path));
        }
    }
}
