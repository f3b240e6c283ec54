//! The integration tests, one binary. What goes where:
//!
//! - `config`: gateway.toml, accepted and refused.
//! - `support`: harnesses and test servers; no tests of its own beyond those that keep them honest.

mod config;
mod support;
