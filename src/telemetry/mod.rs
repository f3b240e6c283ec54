//! Tracing to the journal or a terminal.
