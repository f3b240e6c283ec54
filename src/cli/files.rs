//! Files that commands write for a gateway: replaced as a whole, and its user's.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown};
use std::path::Path;

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
