//! The control socket: how `hermes gateway …`, `hermes self-update` and `hermes chat` talk to the running gateway.
//!
//! JSON-RPC 2.0, one message a line, over a Unix stream socket that only the gateway's user and root may use
//! (SO_PEERCRED, unix(7)). One task drives the listener and all clients ([`server::spawn`]); it takes
//! [`ControlCommand`]s and tells what happens as [`ControlEvent`]s, both through bounded queues.
//!
//! **Invariants**
//! - *Marker rule.* After [`ControlCommand::Freeze`] the task reads and writes no socket, and
//!   [`ControlEvent::Frozen`] is the last event it sends until [`ControlCommand::Thaw`].
//! - A client and its unanswered requests outlive an execve: bytes half read and half written are in the snapshot,
//!   and a request accepted by one image is answered by the next.
//! - A client that does not read is disconnected once its unsent bytes pass a limit; it never holds up the others.

pub mod client;
mod connection;
pub mod proto;
pub mod server;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::jsonrpc::{ErrorObject, RequestId};

/// A connected client; unique for the life of the process, also across handoffs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Who is at the other end, as the kernel says (SO_PEERCRED).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id at the time of the connection.
    pub pid: i32,
}

/// What the daemon wants of the control task.
#[derive(Debug)]
pub enum ControlCommand {
    /// Answer a request; dropped if the client is gone.
    Respond {
        /// Whose.
        client: ClientId,
        /// Which.
        id: RequestId,
        /// The answer.
        outcome: Result<Value, ErrorObject>,
    },
    /// Tell a client something; dropped if the client is gone.
    Notify {
        /// Whom.
        client: ClientId,
        /// The method.
        method: &'static str,
        /// Its parameters.
        params: Value,
    },
    /// Stop at the next safe point and send [`ControlEvent::Frozen`].
    Freeze,
    /// Go on after a handoff that did not happen.
    Thaw,
    /// Write what is unsent, no longer than this, close everything, and end with [`ControlEvent::Stopped`].
    Stop {
        /// The longest wait.
        drain: Duration,
    },
}

/// What happens on the control socket.
#[derive(Debug)]
pub enum ControlEvent {
    /// A client asks. Every request is answered with one [`ControlCommand::Respond`], by this image or the next.
    Request {
        /// Who.
        client: ClientId,
        /// Who that is to the kernel.
        peer: Peer,
        /// The id to answer with.
        id: RequestId,
        /// The method, of [`proto`].
        method: String,
        /// Its parameters.
        params: Value,
    },
    /// A client closed its connection or was disconnected.
    Gone {
        /// Who.
        client: ClientId,
    },
    /// The answer to [`ControlCommand::Freeze`].
    Frozen(ControlSnapshot),
    /// The answer to [`ControlCommand::Freeze`] when a socket could not be duplicated, for want of fds: the task goes on
    /// serving and the handoff must not happen.
    FreezeFailed(io::Error),
    /// The answer to [`ControlCommand::Stop`].
    Stopped,
}

/// What the next image needs to go on serving the same clients. The fds are duplicates.
#[derive(Debug)]
pub struct ControlSnapshot {
    /// The clients' state, self-describing; versioned by [`ControlSnapshot::VERSION`].
    pub state: Value,
    /// The listening socket.
    pub listener: OwnedFd,
    /// The clients' sockets.
    pub clients: Vec<(ClientId, OwnedFd)>,
}

impl ControlSnapshot {
    /// The version of `state` that this image writes and the highest it reads.
    pub const VERSION: u32 = 1;
}
