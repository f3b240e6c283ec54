//! What the old image hands over: named fds and versioned sections.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::codec::{self, CodecError, Section};
use crate::fault::{self, Call};
use crate::sys::memfd::{self, MemfdError};

/// The name of the section that maps fd names to numbers; the registry's own.
pub(super) const FDS: &str = "fds";
pub(super) const FDS_VERSION: u32 = 1;

/// A section that this image reads.
#[derive(Clone, Debug)]
pub struct SectionSpec {
    /// Its name.
    pub name: &'static str,
    /// The versions of its form that can be read.
    pub reads: RangeInclusive<u32>,
    /// Whether a state without it is refused.
    pub required: bool,
}

/// The name of a carried fd, for example `listen.control` or `agent.default.stdin`. Legal as a systemd FDNAME
/// (sd_notify(3): ASCII without control characters and `:`, at most 255 bytes).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FdName(String);

impl FdName {
    /// Makes a name of any text: bytes that may not be in one become `_`, and it is cut at 255 bytes.
    pub fn new(name: &str) -> Self {
        let legal = |b: u8| if b.is_ascii_graphic() && b != b':' { char::from(b) } else { '_' };
        Self(name.bytes().take(255).map(legal).collect())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FdName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a state could not be sealed.
#[derive(Debug, Error)]
pub enum SealError {
    /// A section could not be written as JSON.
    #[error("cannot write section '{section}'")]
    Section {
        /// Its name.
        section: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The blob could not be put together.
    #[error("cannot write the state")]
    Codec(#[source] CodecError),
    /// The memfd could not be made.
    #[error("cannot seal the state")]
    Memfd(#[source] MemfdError),
    /// An fd could not be duplicated, for example for want of free numbers.
    #[error("cannot duplicate fd '{name}'")]
    Duplicate {
        /// Its name.
        name: FdName,
        /// The kernel's reason.
        #[source]
        source: std::io::Error,
    },
}

/// Collects what the next image is to have.
#[derive(Debug, Default)]
pub struct Registry {
    fds: BTreeMap<FdName, OwnedFd>,
    sections: Vec<Section>,
}

/// A registry that is sealed: the state memfd, and the duplicates that its table names.
///
/// Dropping it undoes everything: the duplicates are closed, the originals were never touched.
#[derive(Debug)]
pub struct Sealed {
    /// The state, CLOEXEC.
    pub(super) state: File,
    /// Open in the next image under these very numbers.
    pub(super) duplicates: Vec<OwnedFd>,
}

impl Registry {
    /// Adds an fd, which stays CLOEXEC until [`Registry::seal`] duplicates it.
    ///
    /// # Panics
    /// When the name is taken: names are made from unique ids.
    pub fn put_fd(&mut self, name: FdName, fd: OwnedFd) {
        let previous = self.fds.insert(name.clone(), fd);
        assert!(previous.is_none(), "fd '{name}' is handed over twice");
    }

    /// Adds a section.
    ///
    /// # Errors
    /// [`SealError::Section`].
    pub fn put_section(&mut self, name: &str, version: u32, value: &impl Serialize) -> Result<(), SealError> {
        let payload =
            serde_json::to_vec(value).map_err(|source| SealError::Section { section: name.to_owned(), source })?;
        self.sections.push(Section { name: name.to_owned(), version, payload });
        Ok(())
    }

    /// Duplicates the fds without CLOEXEC, and seals their numbers and the sections into a memfd.
    ///
    /// # Errors
    /// [`SealError`]; nothing has changed then.
    pub fn seal(self) -> Result<Sealed, SealError> {
        let mut numbers: BTreeMap<&FdName, RawFd> = BTreeMap::new();
        let mut duplicates = Vec::with_capacity(self.fds.len());
        for (name, fd) in &self.fds {
            let duplicate = fault::io(Call::Dup)
                .and_then(|()| Ok(rustix::io::dup(fd.as_fd())?))
                .map_err(|source| SealError::Duplicate { name: name.clone(), source })?;
            numbers.insert(name, duplicate.as_raw_fd());
            duplicates.push(duplicate);
        }
        let state = write(&numbers, &self.sections)?;
        Ok(Sealed { state, duplicates })
    }

    /// Seals the same state for a preflight child, which gets the state and none of the fds: nothing is duplicated,
    /// so nothing can leak into another child that is started meanwhile.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_for_preflight(self) -> Result<Sealed, SealError> {
        let numbers = self.fds.iter().map(|(name, fd)| (name, fd.as_raw_fd())).collect();
        let state = write(&numbers, &self.sections)?;
        Ok(Sealed { state, duplicates: Vec::new() })
    }
}

fn write(numbers: &BTreeMap<&FdName, RawFd>, sections: &[Section]) -> Result<File, SealError> {
    let payload =
        serde_json::to_vec(numbers).map_err(|source| SealError::Section { section: FDS.to_owned(), source })?;
    let table = Section { name: FDS.to_owned(), version: FDS_VERSION, payload };
    let blob = codec::encode(std::iter::once(&table).chain(sections)).map_err(SealError::Codec)?;
    memfd::seal("hermes-state", &blob).map_err(SealError::Memfd)
}

impl Sealed {
    /// The state alone, for a preflight child: an fd of its own to the same memfd.
    ///
    /// # Errors
    /// The kernel's reason.
    pub fn state(&self) -> std::io::Result<File> {
        self.state.try_clone()
    }

    /// How many fds go with it.
    pub fn fd_count(&self) -> usize {
        self.duplicates.len()
    }

    /// The size of the state, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.state.metadata().map_or(0, |m| m.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{FdFlags, fcntl_getfd};

    #[test]
    fn sealing_leaves_the_original_alone_and_dropping_undoes_it() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let mut registry = Registry::default();
        registry.put_fd(FdName::new("pipe"), writer.into());
        let original = registry.fds[&FdName::new("pipe")].as_raw_fd();
        let sealed = registry.seal().expect("seals");
        let duplicate = &sealed.duplicates[0];
        assert_ne!(duplicate.as_raw_fd(), original);
        assert!(!fcntl_getfd(duplicate).expect("open").contains(FdFlags::CLOEXEC));
        assert!(fcntl_getfd(&sealed.state).expect("open").contains(FdFlags::CLOEXEC));
        drop(sealed);
        // With the last write end gone the reader sees the end: no duplicate was left behind.
        assert_eq!(std::io::read_to_string(reader).expect("reads"), "");
    }

    #[test]
    fn any_text_makes_a_legal_name() {
        assert_eq!(FdName::new("agent.a:b c\n.stdin").as_str(), "agent.a_b_c_.stdin");
        assert_eq!(FdName::new(&"x".repeat(400)).as_str().len(), 255);
    }
}
