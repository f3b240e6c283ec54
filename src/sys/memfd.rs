//! A file in memory that nobody can change any more (memfd_create(2), F_ADD_SEALS in fcntl(2)).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use thiserror::Error;

use crate::fault::{self, Call};

const ALL_SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Why a sealed memfd could not be made or read.
#[derive(Debug, Error)]
pub enum MemfdError {
    /// The kernel refused.
    #[error("cannot {what} the state memfd")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The kernel's reason.
        #[source]
        source: std::io::Error,
    },
    /// The fd is not a memfd, or can still be changed.
    #[error("the state is not in a sealed memfd")]
    NotSealed,
    /// It holds more than a reader takes.
    #[error("the state is {found} bytes long, and the limit is {limit}")]
    TooLarge {
        /// Its length.
        found: u64,
        /// The limit.
        limit: u64,
    },
}

/// Writes `content` into a new memfd and seals it against every change. It is CLOEXEC.
///
/// # Errors
/// [`MemfdError::Io`], for example when memory is short.
pub fn seal(name: &str, content: &[u8]) -> Result<File, MemfdError> {
    let io = |what| move |source| MemfdError::Io { what, source };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    fault::io(Call::MemfdCreate).map_err(io("create"))?;
    let fd = memfd_create(name, flags).map_err(|e| io("create")(e.into()))?;
    let mut file = File::from(fd);
    file.write_all(content).map_err(io("write"))?;
    file.seek(SeekFrom::Start(0)).map_err(io("rewind"))?;
    fcntl_add_seals(&file, ALL_SEALS).map_err(|e| io("seal")(e.into()))?;
    Ok(file)
}

/// Reads a whole memfd of at most `limit` bytes from its start, and checks that it is sealed.
///
/// # Errors
/// [`MemfdError`].
pub fn read_sealed(file: &mut File, limit: u64) -> Result<Vec<u8>, MemfdError> {
    match fcntl_get_seals(file.as_fd()) {
        Ok(seals) if seals.contains(ALL_SEALS) => {}
        _ => return Err(MemfdError::NotSealed),
    }
    let io = |what| move |source| MemfdError::Io { what, source };
    let length = file.metadata().map_err(io("examine"))?.len();
    if length > limit {
        return Err(MemfdError::TooLarge { found: length, limit });
    }
    file.seek(SeekFrom::Start(0)).map_err(io("rewind"))?;
    let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.read_to_end(&mut content).map_err(io("read"))?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_read_back_and_cannot_be_changed() {
        let mut file = seal("test", b"state").expect("seals");
        assert_eq!(read_sealed(&mut file, 100).expect("reads"), b"state");
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
        assert!(matches!(read_sealed(&mut file, 4), Err(MemfdError::TooLarge { found: 5, limit: 4 })));
    }

    #[test]
    fn a_file_or_an_unsealed_memfd_is_refused() {
        let mut plain = tempfile::tempfile().expect("a temporary file");
        assert!(matches!(read_sealed(&mut plain, 100), Err(MemfdError::NotSealed)));
        let mut open = File::from(memfd_create("test", MemfdFlags::ALLOW_SEALING).expect("creates"));
        assert!(matches!(read_sealed(&mut open, 100), Err(MemfdError::NotSealed)));
    }
}
