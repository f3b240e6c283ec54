//! Writing to standard output and standard error without panicking when nobody reads.

use std::io::{self, Write};

use serde::Serialize;

use super::error::CliError;

/// Prints one document and a newline.
///
/// # Errors
/// Standard output cannot be written to.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_string_pretty(value).expect("plain data serialises");
    text.push('\n');
    print(&text)
}

/// Prints text as it is.
///
/// # Errors
/// Standard output cannot be written to.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::stdout)
}

/// Writes a line to standard error; if that cannot be written to, there is nobody to tell.
pub(super) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
