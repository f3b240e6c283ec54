//! The integration tests, one binary. What goes where:
//!
//! - `support`: harnesses and test servers; no tests of its own beyond those that keep them honest.
//! - `telegram`: the Telegram platform against the test server in `support::telegram`.

mod support;
mod telegram;
