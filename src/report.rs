//! How an error is told once, where it is handled: the whole chain on one line.

use std::error::Error;
use std::fmt;

/// Displays an error and all its sources, joined by `: `.
///
/// Errors of this crate never repeat their source in their own `Display`, so nothing is said twice.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
