//! JSON-RPC 2.0, one message a line, as ACP agents and the control socket speak it.
//!
//! **Invariant:** [`LineBuffer`] holds every byte read and not yet returned as a line, so its content together with
//! the fd is the whole read state of a connection and can be carried over an execve.
//! Deliberately absent: batches (ACP has none) and any I/O.

mod line;
mod message;

pub use line::{LineBuffer, LineError};
pub use message::{ErrorObject, Message, RequestId};
