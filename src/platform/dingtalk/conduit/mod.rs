//! The process that holds the WebSocket to DingTalk, because TLS does not outlive an execve and DingTalk does not push a
//! message again.
//!
//! ```text
//!  DingTalk ◄── wss ──► conduit (a child) ◄── socket of packets ──► gateway, any image of it, also after a kill
//!             frames        holds what               Frame ─►
//!             answers       is not durable           ◄─ Ack
//! ```
//!
//! `wire` is what the two say to each other, `packet` the socket, `socket` one WebSocket, `open` how one comes to be, `run`
//! the child, `handle` the gateway's end.
//!
//! **Invariants**
//! - A frame is held by the conduit until the gateway has said that it is durable. Whoever greets a conduit anew
//!   ([`wire::ToConduit::Hello`]) gets all of them again, so nothing that another image has read and not stored is
//!   missing. What it gets twice, the store drops.
//! - Before a connection is given up there is another one, unless there cannot be.
//! - The secret of the account is told over the socket: it is in no argument, environment, log or file.

pub(super) mod handle;
mod open;
mod packet;
mod run;
mod socket;
pub(super) mod wire;

pub use run::run;
