//! Whether a package manager owns the gateway: then it is updated by that, and not by itself.
//!
//! A package puts its word into `/usr/lib/hermes/package`, as `key=value` lines: `name=` of the package and `update=`,
//! the command that updates it. It speaks for the system service and for whatever is run from below `/usr` other than
//! `/usr/local`; a gateway that somebody installed beside it is none of its business.

use std::fs;
use std::path::Path;

use super::layout::SYSTEM_HOME;

/// The package's word.
pub const MARKER: &str = "/usr/lib/hermes/package";
/// Where a package has the launcher.
pub const PACKAGE_LAUNCHER: &str = "/usr/lib/hermes/hermes-launch";

/// A package that owns the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// What updates it.
    pub update: String,
}

/// The package that owns the gateway of `home`, which runs the program at `program`.
pub fn owner(home: &Path, program: &Path) -> Option<Package> {
    let is_packaged = program.starts_with("/usr") && !program.starts_with("/usr/local");
    if home == Path::new(SYSTEM_HOME) || is_packaged { read(Path::new(MARKER)) } else { None }
}

fn read(marker: &Path) -> Option<Package> {
    let text = fs::read_to_string(marker).ok()?;
    let value = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let name = value("name").unwrap_or_else(|| "hermes-gateway".to_owned());
    let update = value("update").unwrap_or_else(|| "the package manager".to_owned());
    Some(Package { name, update })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_says_who_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let marker = dir.path().join("package");
        assert_eq!(read(&marker), None);
        fs::write(&marker, "name=hermes-gateway\nupdate=apt-get install --only-upgrade hermes-gateway\n")
            .expect("writes");
        let package = read(&marker).expect("there");
        assert_eq!(package.update, "apt-get install --only-upgrade hermes-gateway");
        fs::write(&marker, "").expect("writes");
        assert_eq!(read(&marker).expect("there").name, "hermes-gateway");
    }
}
