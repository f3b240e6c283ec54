//! Harnesses and test servers.
