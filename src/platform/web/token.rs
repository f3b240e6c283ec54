//! The token that the gateway makes where the configuration has none. It is in a file of its own, for people to read.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::Secret;
use crate::hex;
use crate::sys::random;

/// Far more than a token has.
const BYTES_MAX: u64 = 1024;

/// Why there is no token.
#[derive(Debug, Error)]
pub(super) enum TokenError {
    #[error("cannot {what} {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} has no token in it; remove it, and one is made")]
    Empty { path: PathBuf },
}

/// The token in the file at `path`, or a new one that is in it from now on, for its user alone.
///
/// # Errors
/// [`TokenError`].
pub(super) fn kept_or_made(path: &Path) -> Result<Secret, TokenError> {
    let failed = |what| move |source| TokenError::Io { what, path: path.to_owned(), source };
    match File::open(path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(BYTES_MAX).read_to_string(&mut text).map_err(failed("read"))?;
            let token = text.trim();
            if token.is_empty() {
                return Err(TokenError::Empty { path: path.to_owned() });
            }
            Ok(Secret::new(token))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = hex::encode(&random::bytes::<32>().map_err(failed("make a token for"))?);
            write(path, &token).map_err(failed("write"))?;
            tracing::info!(path = %path.display(), "a token for the web page was made; it is in this file");
            Ok(Secret::new(token))
        }
        Err(error) => Err(failed("read")(error)),
    }
}

/// As a whole, so that nobody ever finds a part of it.
fn write(path: &Path, token: &str) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600))?;
    writeln!(file, "{token}")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_for_its_user_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("web-token");
        let made = kept_or_made(&path).expect("made");
        assert_eq!(made.expose().len(), 64);
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o7777, 0o600);
        assert_eq!(kept_or_made(&path).expect("kept"), made);
        std::fs::write(&path, "chosen by somebody\n").expect("written");
        assert_eq!(kept_or_made(&path).expect("kept").expose(), "chosen by somebody");
        std::fs::write(&path, "\n").expect("written");
        assert!(matches!(kept_or_made(&path), Err(TokenError::Empty { .. })));
        assert!(kept_or_made(&dir.path().join("no/file")).is_err());
    }
}
