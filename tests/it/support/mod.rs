//! Harnesses and test servers.
pub mod systemd;

pub mod telegram;
