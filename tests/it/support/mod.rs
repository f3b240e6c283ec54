//! Harnesses and test servers.
pub mod systemd;

pub mod telegram;

pub mod fake_gateway;
