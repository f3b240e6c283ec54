//! Composes and runs everything.
