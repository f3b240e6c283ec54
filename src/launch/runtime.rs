//! `$RUNTIME_DIRECTORY`: where the launcher leaves word for the gateway.
//!
//! The launcher is root there and the directory belongs to the service's user, whose agents may put anything into it.
//!
//! **Invariants**
//! - Nothing outside the directory is written: a file is made anew and renamed into place, so that no link is followed.
//! - What is read is a hint, short, and from a regular file.

use std::env;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const READ_BYTES_MAX: u64 = 4096;

/// The unit's settings, `Name=value` lines as systemctl(1) shows them.
pub const UNIT: &str = "unit";
/// How the unit ends: `stop`, `restart`, or `none` without a job of the service manager.
pub const STOP: &str = "stop";

/// The first of the unit's runtime directories.
pub fn directory() -> Result<PathBuf, String> {
    let all = env::var("RUNTIME_DIRECTORY").unwrap_or_default();
    let first = all.split(':').next().map(PathBuf::from).filter(|path| path.is_absolute());
    first.ok_or_else(|| "RUNTIME_DIRECTORY is not set: the unit needs RuntimeDirectory=".to_owned())
}

/// Replaces a file, which everybody who comes that far may read.
pub fn write(directory: &Path, name: &str, text: &str) -> Result<(), String> {
    let path = directory.join(name);
    replace(directory, &path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn replace(directory: &Path, path: &Path, text: &str) -> io::Result<()> {
    let new = directory.join(".launch.new");
    remove(&new)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    // Whatever the umask of the unit is.
    file.set_permissions(Permissions::from_mode(0o644))?;
    fs::rename(&new, path)
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a file says, if it is there.
pub fn read(directory: &Path, name: &str) -> Option<String> {
    let path = directory.join(name);
    // A FIFO would keep its reader waiting.
    fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(READ_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().expect("creates");
        assert_eq!(read(dir.path(), STOP), None);
        write(dir.path(), STOP, "stop\n").expect("writes");
        write(dir.path(), STOP, "restart\n").expect("writes");
        assert_eq!(read(dir.path(), STOP).as_deref(), Some("restart\n"));
        let mode = fs::metadata(dir.path().join(STOP)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        remove(&dir.path().join(STOP)).expect("removes");
        remove(&dir.path().join(STOP)).expect("it is not there");
        assert_eq!(read(dir.path(), STOP), None);
    }

    #[test]
    fn no_link_is_followed() {
        let dir = tempfile::tempdir().expect("creates");
        let precious = dir.path().join("precious");
        fs::write(&precious, "secret").expect("writes");
        for link in [STOP, ".launch.new"] {
            symlink(&precious, dir.path().join(link)).expect("links");
        }
        assert_eq!(read(dir.path(), STOP), None);
        write(dir.path(), STOP, "stop\n").expect("writes");
        assert_eq!(fs::read_to_string(&precious).expect("reads"), "secret");
        assert_eq!(read(dir.path(), STOP).as_deref(), Some("stop\n"));
        assert_eq!(read(dir.path(), ""), None, "a directory");
    }
}
