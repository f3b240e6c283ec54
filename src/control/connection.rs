//! One client of the control socket: its buffers, its unanswered requests, and when it is done.
//!
//! **Invariants**
//! - Bytes leave `input` only as whole lines and leave `output` only when the kernel took them, so both together with
//!   the fd are the whole state of the connection.
//! - A request is in `unanswered` from the moment its line was taken out until its response is in `output`.
//!
//! A line that is no request is answered with an error of id `null`, as JSON-RPC 2.0 section 5.1 has it, and the
//! connection goes on, because the lines after it are still whole. A line without an end cannot be skipped: it is
//! answered in the same way and nothing more is read.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::{ClientId, Peer};
use crate::jsonrpc::{ErrorObject, LineBuffer, Message, RequestId};

/// The longest line that is read, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;
/// Requests of one client that may wait for their answer; its further ones stay in its socket.
pub(super) const UNANSWERED_MAX: usize = 64;
/// Bytes that may wait for a client to read them; it is disconnected beyond.
pub(super) const UNSENT_BYTES_MAX: usize = 16 << 20;
/// Bytes read from one client before the others have their turn.
const READ_BYTES: usize = 64 << 10;

/// JSON-RPC "parse error".
const PARSE_ERROR: i64 = -32700;
/// JSON-RPC "invalid request".
const INVALID_REQUEST: i64 = -32600;

/// One request, taken out of a connection.
#[derive(Debug, PartialEq)]
pub(super) struct Call {
    pub(super) id: RequestId,
    pub(super) method: String,
    pub(super) params: Value,
}

/// What a client still sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intake {
    /// Requests may follow.
    Open,
    /// Nothing more is read: the client closed its side, or sent a line without an end.
    Ended,
}

/// A connected client.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    peer: Peer,
    input: LineBuffer,
    output: VecDeque<u8>,
    unanswered: Vec<RequestId>,
    intake: Intake,
}

/// A [`Connection`] without its fd, as the next image reads it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ConnectionState {
    pub(super) id: ClientId,
    peer: Peer,
    /// Read and not yet taken out, base64.
    unread: String,
    /// Not yet written, base64.
    unsent: String,
    unanswered: Vec<RequestId>,
    half_closed: bool,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, peer: Peer) -> Self {
        Self {
            stream,
            peer,
            input: LineBuffer::new(LINE_BYTES_MAX),
            output: VecDeque::new(),
            unanswered: Vec::new(),
            intake: Intake::Open,
        }
    }

    /// Goes on where [`Connection::save`] stopped.
    ///
    /// # Errors
    /// The bytes in `state` are not base64.
    pub(super) fn restore(stream: UnixStream, state: ConnectionState) -> Result<Self, base64::DecodeError> {
        Ok(Self {
            stream,
            peer: state.peer,
            input: LineBuffer::with_partial(LINE_BYTES_MAX, BASE64.decode(state.unread)?),
            output: BASE64.decode(state.unsent)?.into(),
            unanswered: state.unanswered,
            intake: if state.half_closed { Intake::Ended } else { Intake::Open },
        })
    }

    pub(super) fn save(&self, id: ClientId) -> ConnectionState {
        let (front, back) = self.output.as_slices();
        ConnectionState {
            id,
            peer: self.peer,
            unread: BASE64.encode(self.input.partial()),
            unsent: BASE64.encode([front, back].concat()),
            unanswered: self.unanswered.clone(),
            half_closed: self.intake == Intake::Ended,
        }
    }

    pub(super) fn duplicate_fd(&self) -> io::Result<OwnedFd> {
        self.stream.as_fd().try_clone_to_owned()
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    pub(super) fn unsent_bytes(&self) -> usize {
        self.output.len()
    }

    /// Whether everything was asked, answered and sent.
    pub(super) fn is_finished(&self) -> bool {
        self.intake == Intake::Ended
            && self.input.partial().is_empty()
            && self.unanswered.is_empty()
            && self.output.is_empty()
    }

    /// Whether the socket can be read now; never while enough requests wait for their answer.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.intake == Intake::Open && self.unanswered.len() < UNANSWERED_MAX {
            self.stream.poll_read_ready(cx)
        } else {
            Poll::Pending
        }
    }

    /// Whether unsent bytes can be written now.
    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.is_empty() { Poll::Pending } else { self.stream.poll_write_ready(cx) }
    }

    /// Reads once.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn read(&mut self) -> io::Result<()> {
        // Not zeroed: what is not read is not touched.
        let mut chunk = Vec::with_capacity(READ_BYTES);
        match self.stream.try_read_buf(&mut chunk) {
            Ok(0) => {
                self.intake = Intake::Ended;
                // `printf '{…}' | nc -N` sends no newline, and means the request all the same.
                if !self.input.partial().is_empty() {
                    self.input.push(b"\n");
                }
                Ok(())
            }
            Ok(count) => {
                self.input.push(&chunk[..count]);
                Ok(())
            }
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes what the kernel takes.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn write(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.try_write(self.output.as_slices().0) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if is_transient(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes the next request out of what was read; the caller must see to its answer.
    pub(super) fn next_call(&mut self) -> Option<Call> {
        while self.unanswered.len() < UNANSWERED_MAX {
            let line = match self.input.next_line() {
                Ok(line) => line?,
                Err(error) => {
                    self.refuse(PARSE_ERROR, &error.to_string());
                    self.input = LineBuffer::new(LINE_BYTES_MAX);
                    self.intake = Intake::Ended;
                    return None;
                }
            };
            match Message::parse(&line) {
                Ok(Message::Request { id, .. }) if self.unanswered.contains(&id) => {
                    self.refuse(INVALID_REQUEST, "the id of this request is that of an unanswered one");
                }
                Ok(Message::Request { id, method, params }) => {
                    self.unanswered.push(id.clone());
                    return Some(Call { id, method, params });
                }
                // No method is a notification, and the gateway asks its clients nothing.
                Ok(Message::Notification { .. } | Message::Response { .. }) => {}
                Err(_) if line.is_empty() => {}
                Err(reason) => self.refuse(PARSE_ERROR, &reason),
            }
        }
        None
    }

    /// Queues the answer to a request. False if there is no such unanswered request.
    pub(super) fn respond(&mut self, id: RequestId, outcome: Result<Value, ErrorObject>) -> bool {
        let Some(index) = self.unanswered.iter().position(|waiting| *waiting == id) else { return false };
        self.unanswered.remove(index);
        self.output.extend(Message::Response { id, outcome }.to_line());
        true
    }

    /// Queues a notification.
    pub(super) fn notify(&mut self, method: &str, params: Value) {
        self.output.extend(Message::Notification { method: method.to_owned(), params }.to_line());
    }

    fn refuse(&mut self, code: i64, message: &str) {
        self.output.extend(refusal_line(code, message));
    }
}

/// An error that belongs to no request: JSON-RPC gives it the id `null`.
pub(super) fn refusal_line(code: i64, message: &str) -> Vec<u8> {
    let body = json!({ "jsonrpc": "2.0", "id": null, "error": ErrorObject::new(code, message) });
    format!("{body}\n").into_bytes()
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn connection() -> Connection {
        let (stream, _other) = UnixStream::pair().expect("a socket pair");
        Connection::new(stream, Peer { uid: 0, gid: 0, pid: 1 })
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    fn output(connection: &Connection) -> String {
        String::from_utf8(connection.output.iter().copied().collect()).expect("UTF-8")
    }

    #[tokio::test]
    async fn a_bad_line_is_answered_and_the_next_one_is_served() {
        let mut connection = connection();
        connection.input.push(b"nonsense\n\n{\"id\":1,\"method\":\"status\"}\n");
        assert_eq!(connection.next_call().map(|call| call.method), Some("status".to_owned()));
        assert_eq!(connection.next_call(), None);
        assert!(output(&connection).contains(r#""code":-32700"#), "{}", output(&connection));
        assert_eq!(output(&connection).lines().count(), 1);
    }

    #[tokio::test]
    async fn a_line_without_an_end_ends_the_intake() {
        let mut connection = connection();
        connection.input.push(&vec![b'x'; LINE_BYTES_MAX + 1]);
        assert_eq!(connection.next_call(), None);
        assert_eq!(connection.intake, Intake::Ended);
        assert!(output(&connection).contains(r#""id":null"#));
        connection.output.clear();
        assert!(connection.is_finished());
    }

    #[tokio::test]
    async fn requests_beyond_the_limit_wait_and_an_id_in_use_is_refused() {
        let mut connection = connection();
        for id in 0..UNANSWERED_MAX + 1 {
            connection.input.push(format!("{{\"id\":{id},\"method\":\"m\"}}\n").as_bytes());
        }
        let taken = std::iter::from_fn(|| connection.next_call()).count();
        assert_eq!(taken, UNANSWERED_MAX);
        assert!(connection.respond(RequestId::Number(5), Ok(Value::Null)));
        assert!(!connection.respond(RequestId::Number(5), Ok(Value::Null)), "an answer is given once");
        assert_eq!(connection.next_call().map(|call| call.id), Some(RequestId::Number(64)));

        connection.respond(RequestId::Number(6), Ok(Value::Null));
        connection.input.push(b"{\"id\":7,\"method\":\"m\"}\n");
        assert_eq!(connection.next_call(), None);
        assert!(output(&connection).contains("-32600"));
    }

    proptest! {
        /// Any bytes at all: each line becomes a request or an error line or nothing, and the connection survives.
        #[test]
        fn no_input_breaks_the_connection(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..60)) {
            let runtime = runtime();
            let _guard = runtime.enter();
            let mut connection = connection();
            let mut input = lines.join(&b'\n');
            input.push(b'\n');
            connection.input.push(&input);
            let calls = std::iter::from_fn(|| connection.next_call()).count();
            let ends = input.iter().filter(|byte| **byte == b'\n').count();
            prop_assert!(connection.input.partial().is_empty());
            prop_assert!(calls + output(&connection).lines().count() <= ends);
            prop_assert_eq!(connection.intake, Intake::Open);
        }

        /// However a connection's input is cut and however often it is carried, the same requests come out.
        #[test]
        fn carrying_loses_and_doubles_nothing(
            count in 1..200_i64,
            cuts in prop::collection::vec(1..64_usize, 1..20),
            carry_every in 1..9_usize,
        ) {
            let runtime = runtime();
            let _guard = runtime.enter();
            let stream: Vec<u8> =
                (0..count).flat_map(|id| format!("{{\"id\":{id},\"method\":\"m\"}}\n").into_bytes()).collect();
            let (mut seen, mut rest, mut step) = (Vec::new(), stream.as_slice(), 0);
            let mut connection = connection();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts[step % cuts.len()].min(rest.len()));
                connection.input.push(now);
                while let Some(call) = connection.next_call() {
                    connection.respond(call.id.clone(), Ok(Value::Null));
                    seen.push(call.id);
                }
                if step % carry_every == 0 {
                    let state = serde_json::to_value(connection.save(ClientId(1))).expect("plain data");
                    let (stream, _other) = UnixStream::pair().expect("a socket pair");
                    let state = serde_json::from_value(state).expect("what was written is read");
                    connection = Connection::restore(stream, state).expect("base64");
                }
                (rest, step) = (later, step + 1);
            }
            let expected: Vec<RequestId> = (0..count).map(RequestId::Number).collect();
            prop_assert_eq!(&seen, &expected);
            prop_assert_eq!(output(&connection).lines().count(), expected.len());
        }
    }
}
