//! Harnesses and test servers.

pub mod telegram;
