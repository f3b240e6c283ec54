//! The integration tests, one binary. What goes where:
//!
//! - `cli`: every command against a scripted gateway.
//! - `control`: the control socket, its limits, and clients over freezes and adoptions.
//! - `support`: harnesses and test servers; no tests of its own beyond those that keep them honest.

mod cli;
mod control;
mod support;
