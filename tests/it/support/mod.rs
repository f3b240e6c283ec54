//! Harnesses and test servers.
pub mod systemd;
