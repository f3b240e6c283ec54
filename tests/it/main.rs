//! The integration tests, one binary. What goes where:
//!
//! - `cli`: every command against a scripted gateway.
//! - `config`: gateway.toml, accepted and refused.
//! - `control`: the control socket, its limits, and clients over freezes and adoptions.
//! - `support`: harnesses and test servers; no tests of its own beyond those that keep them honest.
//! - `telegram`: the Telegram platform against the test server in `support::telegram`.

mod config;
mod cli;
mod control;
//! - `agent`: agent processes, real ones and hostile ones.
//! - `support`: harnesses and test servers; no tests of its own beyond those that keep them honest.

mod agent;
mod support;
mod telegram;
