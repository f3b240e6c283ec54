//! What is wrong with a `gateway.toml`, and where.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

/// Why there is no configuration. The process exits with 78 (EX_CONFIG, sysexits.h).
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is there, but cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The file is far longer than any configuration.
    #[error("{path} is longer than {bytes_max} bytes; is it the right file?")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// The file is not UTF-8.
    #[error("{path} is not UTF-8 text; is it the right file?")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// The text has problems. Displayed one a line, each as `file:line:column: what is wrong and how to mend it`.
    #[error("{}", Listing { path, problems })]
    Invalid {
        /// The file.
        path: PathBuf,
        /// At least one error, with warnings, in the order of the file.
        problems: Vec<Problem>,
    },
}

/// One problem in a `gateway.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem {
    /// Whether it keeps the gateway from using the file.
    pub severity: Severity,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// The key that it is about, with its section: `platforms.telegram.token`. None where the text is no TOML.
    pub key: Option<String>,
    /// The known key that was most likely meant, if this one is not known.
    pub nearest: Option<String>,
    /// What is wrong and how to mend it. Contains no secret.
    pub message: String,
}

/// What a [`Problem`] means for the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used.
    Warning,
}

/// Shows all problems of one file.
struct Listing<'a> {
    path: &'a Path,
    problems: &'a [Problem],
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.problems.iter().filter(|problem| problem.severity == Severity::Error);
        for (index, problem) in errors.enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let Problem { line, column, message, .. } = problem;
            write!(f, "{}:{line}:{column}: {message}", self.path.display())?;
        }
        Ok(())
    }
}
