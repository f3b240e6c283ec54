//! Harnesses and test servers.

pub mod openai;
