//! Harnesses and test servers.

pub mod fake_gateway;
