//! The integration tests, one binary. What goes where:
//!
//! - `support`: harnesses and test servers; no tests of its own beyond those that keep them honest.
//! - `update`: which releases are staged and which are refused, and what is left on disk either way.

mod support;
mod update;
