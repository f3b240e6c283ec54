//! Values that are never shown, and the four ways to configure one.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use super::environment::Environment;
use super::table::{Problems, Section};
use crate::report::Chain;

/// The most bytes of a secret file that are read. Tokens have some fifty.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Where the unit's credentials are while it runs, for whoever may read them (systemd.exec(5)).
const CREDENTIALS_OF_UNIT: &str = "/run/credentials/hermes-gateway.service";

/// A value that is never shown: neither by `Debug` nor in any log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Who reads a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The gateway, or what is to be one: it needs every secret.
    Gateway,
    /// A command beside it. Credentials and variables of the gateway's unit are not its own, so that it does not know one
    /// is no mistake ([`Secret::is_known`]), and is told as a warning.
    Other,
}

impl Secret {
    /// Takes a secret over from where it was read.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the one place that sends it. Empty if it is not known here.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is known here. It always is where [`Reader::Gateway`] read it: no secret is empty.
    pub fn is_known(&self) -> bool {
        !self.0.is_empty()
    }

    const UNKNOWN: Self = Self(String::new());
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The keys of one secret.
pub(super) struct SecretKeys {
    /// The value itself.
    pub(super) inline: &'static str,
    /// A file that holds it.
    pub(super) file: &'static str,
    /// A systemd credential that holds it.
    pub(super) credential: &'static str,
    /// A variable of the environment that holds it.
    pub(super) variable: &'static str,
}

/// Where the text that names secrets lies and what surrounds it.
pub(super) struct SecretContext<'a> {
    /// Where the text lies; relative paths are relative to its directory.
    file: &'a Path,
    /// For `CREDENTIALS_DIRECTORY`, and for variables that hold secrets.
    pub(super) env: &'a Environment,
    reader: Reader,
    /// Those that do.
    variables: RefCell<BTreeSet<String>>,
}

impl<'a> SecretContext<'a> {
    pub(super) fn new(file: &'a Path, env: &'a Environment, reader: Reader) -> Self {
        Self { file, env, reader, variables: RefCell::default() }
    }

    /// The variables that secrets were read from.
    pub(super) fn into_variables(self) -> BTreeSet<String> {
        self.variables.into_inner()
    }
}

/// Why a secret cannot be used. No variant holds the value.
#[derive(Debug, Error)]
enum SecretError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not a regular file")]
    NotAFile { path: PathBuf },
    #[error("{path} is longer than {SECRET_BYTES_MAX} bytes")]
    TooLong { path: PathBuf },
    #[error("it is empty")]
    Empty,
    #[error("it has a character that no secret has (a line break, another control character, or not UTF-8)")]
    Characters,
    #[error("the name of a credential is a plain file name")]
    CredentialName,
    #[error("there are no credentials: CREDENTIALS_DIRECTORY is not set; add LoadCredential= to the unit")]
    NoCredentials,
    #[error("the variable {name} is not set")]
    NotSet { name: String },
}

/// Reads a secret from the one of its four keys that is there. Exactly one must be.
pub(super) fn read_secret(
    section: &mut Section<'_, '_>,
    keys: &SecretKeys,
    context: &SecretContext<'_>,
    p: &mut Problems<'_>,
) -> Option<Secret> {
    let inline = section.string(keys.inline, "…", p);
    let file = section.string(keys.file, "/run/secrets/name", p);
    let credential = section.string(keys.credential, "name", p);
    let variable = section.string(keys.variable, "NAME", p);
    let values = [inline, file, credential, variable];
    let written: Vec<_> = keys
        .all()
        .into_iter()
        .zip(values)
        .filter_map(|(key, value)| value.map(|(text, span)| (key, text, span)))
        .collect();
    let (key, text, span) = match written.as_slice() {
        [one] => one,
        [] => {
            let has_key = keys.all().iter().any(|&key| section.entry(key).is_some());
            if !has_key {
                p.add(&section.span, format!("{} needs one of {}", section.name, keys.listed()));
            }
            return None;
        }
        [(first, ..), (second, _, span), ..] => {
            let message = format!("'{first}' and '{second}' are both set in {}; keep one of them", section.name);
            p.add(span, message);
            return None;
        }
    };
    let value = if *key == keys.inline {
        warn_of_readers(context.file, span, p);
        check((*text).to_owned())
    } else if *key == keys.file {
        let path = context.file.parent().unwrap_or(Path::new("")).join(text);
        warn_of_readers(&path, span, p);
        read_file(&path)
    } else if *key == keys.credential {
        read_credential(text, context)
    } else {
        context.variables.borrow_mut().insert((*text).to_owned());
        read_variable(text, context.env)
    };
    match value {
        Ok(value) => Some(value),
        Err(error) if context.reader == Reader::Other && error.is_of_here() => {
            p.warn(span, format!("'{key}' cannot be looked at from here, only by the gateway: {}", Chain(&error)));
            Some(Secret::UNKNOWN)
        }
        Err(error) => {
            p.add(span, format!("'{key}' cannot be used: {}", Chain(&error)));
            None
        }
    }
}

impl SecretError {
    /// Whether the gateway may have it all the same.
    fn is_of_here(&self) -> bool {
        matches!(self, Self::NoCredentials | Self::NotSet { .. })
    }
}

impl SecretKeys {
    /// All four, in the order in which messages name them.
    pub(super) fn all(&self) -> [&'static str; 4] {
        [self.inline, self.file, self.credential, self.variable]
    }

    fn listed(&self) -> String {
        self.all().map(|key| format!("'{key}'")).join(", ")
    }
}

fn read_credential(name: &str, context: &SecretContext<'_>) -> Result<Secret, SecretError> {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    if !plain {
        return Err(SecretError::CredentialName);
    }
    match (context.env.directory("CREDENTIALS_DIRECTORY"), context.reader) {
        (Some(directory), _) => read_file(&directory.join(name)),
        (None, Reader::Gateway) => Err(SecretError::NoCredentials),
        (None, Reader::Other) => {
            read_file(&Path::new(CREDENTIALS_OF_UNIT).join(name)).map_err(|_| SecretError::NoCredentials)
        }
    }
}

fn read_variable(name: &str, env: &Environment) -> Result<Secret, SecretError> {
    match env.get(name) {
        Some(value) => check(value.to_str().ok_or(SecretError::Characters)?.to_owned()),
        None => Err(SecretError::NotSet { name: name.to_owned() }),
    }
}

/// A file that everybody may read is used, with a warning.
fn warn_of_readers(path: &Path, span: &Range<usize>, p: &mut Problems<'_>) {
    let mode = path.metadata().map_or(0, |meta| meta.permissions().mode());
    if mode & 0o004 != 0 {
        let (path, mode) = (path.display(), mode & 0o7777);
        p.warn(
            span,
            format!(
                "everybody on this machine may read {path} (mode {mode:04o}), which holds a secret: chmod 600 {path}"
            ),
        );
    }
}

/// Reads a secret file, without the line break at its end.
fn read_file(path: &Path) -> Result<Secret, SecretError> {
    let read = |source| SecretError::Read { path: path.to_owned(), source };
    // The type is asked before the open: opening a pipe would wait for a writer.
    if !path.metadata().map_err(read)?.is_file() {
        return Err(SecretError::NotAFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(SecretError::TooLong { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|_| SecretError::Characters)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    check(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn check(text: String) -> Result<Secret, SecretError> {
    if text.is_empty() {
        return Err(SecretError::Empty);
    }
    if text.contains(char::is_control) {
        return Err(SecretError::Characters);
    }
    Ok(Secret(text))
}
