//! Files that commands read and write for a gateway: replaced as a whole, and its user's.
//!
//! **Invariant:** in the home of somebody else root follows no link to a file, and nobody waits for a FIFO.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::error::CliError;
use super::owner::Owner;

/// More than any file has that a person writes.
const BYTES_MAX: u64 = 1024 * 1024;
/// A new gateway.toml may come to hold secrets.
const CONFIG_MODE: u32 = 0o600;

/// gateway.toml of a home, as it is now.
#[derive(Debug)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    /// Nothing if it is not there.
    pub(super) text: String,
    mode: u32,
}

impl ConfigFile {
    /// # Errors
    /// [`CliError::Io`] if there is one that cannot be read.
    pub(super) fn of(home: &Path) -> Result<Self, CliError> {
        let named = home.join("gateway.toml");
        // A link stays one.
        let path = if Owner::of(home).is_some() { named } else { fs::canonicalize(&named).unwrap_or(named) };
        let failed = |source| CliError::Io { what: "read gateway.toml", source };
        let Some(bytes) = read(home, &path).map_err(failed)? else {
            return Ok(Self { path, text: String::new(), mode: CONFIG_MODE });
        };
        let text = String::from_utf8(bytes).map_err(|error| failed(io::Error::new(ErrorKind::InvalidData, error)))?;
        let meta = fs::symlink_metadata(&path).map_err(failed)?;
        Ok(Self { path, text, mode: meta.permissions().mode() & 0o7777 })
    }

    /// Puts a text in its place. Of root it is `owner`'s.
    ///
    /// # Errors
    /// [`CliError::Io`].
    pub(super) fn replace(&self, text: &str, owner: &Metadata) -> Result<(), CliError> {
        let written = replace(&self.path, text.as_bytes(), self.mode, owner);
        written.map_err(|source| CliError::Io { what: "write gateway.toml", source })
    }
}

/// What a regular file of a home has; nothing if there is none.
pub(super) fn read(home: &Path, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let follow = if Owner::of(home).is_some() { OFlags::NOFOLLOW } else { OFlags::empty() };
    let flags = (OFlags::NONBLOCK | follow).bits().cast_signed();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Err(io::Error::other(format!("{} is a link in the home of somebody else", path.display())));
        }
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > BYTES_MAX {
        return Err(io::Error::other(format!("{} is not a regular file of at most 1 MiB", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Makes a home directory, for its user alone. One that is there is left as it is.
pub(super) fn make_home(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file beside the old one and puts it in its place. If this is run by root it belongs to whoever `like`
/// belongs to: the gateway must be able to read it.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32, like: &Metadata) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    if nix::unistd::geteuid().is_root() {
        fchown(file.as_file(), Some(like.uid()), Some(like.gid()))?;
    }
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(directory)?.sync_all()
}

/// As [`replace`], in a directory that is made if need be, for a file of whoever owns the directory.
pub(super) fn install(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    replace(path, content, mode, &fs::metadata(directory)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_a_whole_and_a_fifo_is_not_waited_for() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("file");
        assert_eq!(read(home.path(), &path).expect("asked"), None);
        fs::write(&path, "text").expect("writes");
        assert_eq!(read(home.path(), &path).expect("asked").as_deref(), Some(b"text".as_slice()));
        fs::remove_file(&path).expect("removes");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("makes");
        assert!(read(home.path(), &path).is_err());
    }
}
