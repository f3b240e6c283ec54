//! The integration tests, one binary. What goes where:
//!
//! - `agent`: agent processes, real ones and hostile ones.
//! - `support`: harnesses and test servers; no tests of its own beyond those that keep them honest.

mod agent;
mod support;
