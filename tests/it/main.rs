//! The integration tests, one binary. What goes where:
//!
//! - `support`: harnesses and test servers; no tests of its own beyond those that keep them honest.

mod support;
