//! Harnesses and test servers.

pub mod release;
