//! The integration tests, one binary. What goes where:
//!
//! - `config`: gateway.toml, accepted and refused.
//! - `service`: the unit files, and notifications, logs and sockets under a real systemd.
//! - `support`: harnesses and test servers; no tests of its own beyond those that keep them honest.
//! - `tidy`: rules for the source tree that the compiler does not know.

mod config;
mod service;
mod support;
mod tidy;
