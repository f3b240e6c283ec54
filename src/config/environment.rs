//! The process environment as a value.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The variables of the process and the home directory of its user, read once.
///
/// Tests build their own, so that no test depends on the environment of another. It has no `Debug` of its own
/// content, because variables may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    user_home: PathBuf,
}

impl Environment {
    /// Reads the environment of this process (environ(7)). The home directory of the user is `$HOME`, else what the
    /// user database says (getpwuid(3)), else `/`.
    pub fn from_process() -> Self {
        let mut this: Self = std::env::vars_os().collect();
        if this.directory("HOME").is_none() {
            let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
            this.user_home = user.map_or_else(|| PathBuf::from("/"), |user| user.dir);
        }
        this
    }

    /// The same environment with a variable set.
    #[must_use]
    pub fn with(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// The value of a variable; an empty one counts as unset.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The value of a variable, if it is valid UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(OsStr::to_str)
    }

    /// The value of a variable that holds an absolute path, or several with `:` between them, of which this is the
    /// first (`RUNTIME_DIRECTORY` and its like, systemd.exec(5)). A relative one counts as unset.
    pub fn directory(&self, name: &str) -> Option<PathBuf> {
        let value = self.get(name)?;
        std::env::split_paths(value).next().filter(|path| path.is_absolute())
    }

    /// The home directory of the user that the gateway runs as; absolute.
    pub fn user_home(&self) -> &Path {
        &self.user_home
    }

    /// All variables, for a child's environment.
    pub fn variables(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    /// An environment of just these variables. Without an absolute `HOME` the user's home directory is `/`.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables: BTreeMap<OsString, OsString> =
            variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let user_home = variables.get(OsStr::new("HOME")).map(PathBuf::from).filter(|path| path.is_absolute());
        Self { variables, user_home: user_home.unwrap_or_else(|| PathBuf::from("/")) }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("names", &self.variables.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_and_relative_values_count_as_unset() {
        let env = Environment::from_iter([("HOME", "relative"), ("EMPTY", ""), ("DIRS", "/a:/b"), ("REL", "a:/b")]);
        assert_eq!(env.user_home(), Path::new("/"));
        assert_eq!(env.get("EMPTY"), None);
        assert_eq!(env.directory("DIRS"), Some(PathBuf::from("/a")));
        assert_eq!(env.directory("REL"), None);
        assert_eq!(env.text("DIRS"), Some("/a:/b"));
    }

    #[test]
    fn debug_shows_no_value() {
        let env = Environment::from_iter([("TOKEN", "hidden-value")]);
        assert_eq!(format!("{env:?}"), r#"Environment { names: ["TOKEN"], .. }"#);
    }
}
