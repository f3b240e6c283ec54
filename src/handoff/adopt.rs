//! What the new image finds: the same fds and sections, to be taken out one by one.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use serde::de::DeserializeOwned;
use thiserror::Error;

use super::codec::{self, CodecError, LIMIT_BYTES, Section};
use super::registry::{FDS, FDS_VERSION, FdName, SectionSpec};
use crate::fault::{self, Call};
use crate::sys::inherit::{self, ClaimError};
use crate::sys::memfd::{self, MemfdError};

/// The environment variable that names the number of the state memfd to the new image.
pub const STATE_FD_VARIABLE: &str = "HERMES_HANDOFF_FD";
/// The environment variable that tells the new image when execve was called, in CLOCK_MONOTONIC nanoseconds: the one
/// moment that comes after the state is sealed.
pub const EXEC_AT_VARIABLE: &str = "HERMES_HANDOFF_EXEC_AT";

/// Why a state cannot be taken over.
#[derive(Debug, Error)]
pub enum AdoptError {
    /// The environment variable is not the number of an open fd.
    #[error("{STATE_FD_VARIABLE} is '{value}', which is no inherited fd")]
    Variable {
        /// Its value.
        value: String,
    },
    /// The memfd could not be read.
    #[error("cannot read the state")]
    Memfd(#[source] MemfdError),
    /// The blob could not be read.
    #[error("cannot read the state")]
    Codec(#[source] CodecError),
    /// A section that must be there is not.
    #[error("the state has no section '{section}'")]
    Missing {
        /// Its name.
        section: &'static str,
    },
    /// A section has a form that this image does not know.
    #[error("section '{section}' has version {found}, and this version reads {lowest} to {highest}")]
    SectionVersion {
        /// Its name.
        section: String,
        /// Its version.
        found: u32,
        /// The lowest version that can be read.
        lowest: u32,
        /// The highest version that can be read.
        highest: u32,
    },
    /// A section is not what its version says.
    #[error("cannot read section '{section}'")]
    Section {
        /// Its name.
        section: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A named fd is not open.
    #[error("cannot take over the inherited fds")]
    Claim(#[source] ClaimError),
}

/// The sections of a state that this image can read.
#[derive(Debug, Default)]
pub struct Sections {
    sections: BTreeMap<String, Section>,
}

impl Sections {
    /// Reads a state and holds it against what this image knows. Unknown sections are skipped with a log line.
    ///
    /// # Errors
    /// [`AdoptError`]: this image must not be handed this state.
    pub fn read(state: &mut File, known: &[SectionSpec]) -> Result<Self, AdoptError> {
        let blob = memfd::read_sealed(state, LIMIT_BYTES).map_err(AdoptError::Memfd)?;
        let mut sections = BTreeMap::new();
        for section in codec::decode(&blob).map_err(AdoptError::Codec)? {
            let reads = match known.iter().find(|spec| spec.name == section.name) {
                Some(spec) => spec.reads.clone(),
                None if section.name == FDS => FDS_VERSION..=FDS_VERSION,
                None => {
                    tracing::warn!(section = section.name, "skipped a section of the state that is not known here");
                    continue;
                }
            };
            if !reads.contains(&section.version) {
                return Err(AdoptError::SectionVersion {
                    section: section.name,
                    found: section.version,
                    lowest: *reads.start(),
                    highest: *reads.end(),
                });
            }
            sections.insert(section.name.clone(), section);
        }
        let required = known.iter().filter(|spec| spec.required).map(|spec| spec.name).chain([FDS]);
        for section in required {
            if !sections.contains_key(section) {
                return Err(AdoptError::Missing { section });
            }
        }
        Ok(Self { sections })
    }

    /// Takes a section out; `None` if the previous image had none.
    ///
    /// # Errors
    /// [`AdoptError::Section`].
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, AdoptError> {
        let Some(section) = self.sections.remove(name) else { return Ok(None) };
        serde_json::from_slice(&section.payload)
            .map(Some)
            .map_err(|source| AdoptError::Section { section: name.to_owned(), source })
    }

    /// The names of the fds that come with the state.
    ///
    /// # Errors
    /// [`AdoptError::Section`].
    pub fn fd_names(&self) -> Result<BTreeMap<FdName, RawFd>, AdoptError> {
        let section = self.sections.get(FDS).ok_or(AdoptError::Missing { section: FDS })?;
        serde_json::from_slice(&section.payload)
            .map_err(|source| AdoptError::Section { section: FDS.to_owned(), source })
    }
}

/// Everything that the previous image handed over.
#[derive(Debug)]
pub struct Inherited {
    /// The sections.
    pub sections: Sections,
    fds: BTreeMap<FdName, OwnedFd>,
}

impl Inherited {
    /// Takes over what the previous image of this process left, if there was one: `variable` is the value of
    /// [`STATE_FD_VARIABLE`]. To be called once, before there are threads.
    ///
    /// # Errors
    /// [`AdoptError`].
    pub fn claim(variable: Option<&str>, known: &[SectionSpec]) -> Result<Option<Self>, AdoptError> {
        let Some(value) = variable else { return Ok(None) };
        let number: RawFd = value.parse().map_err(|_| AdoptError::Variable { value: value.to_owned() })?;
        let state = inherit::claim(&[number]).map_err(AdoptError::Claim)?.remove(0);
        fault::io(Call::ReadState).map_err(|source| AdoptError::Memfd(MemfdError::Io { what: "read", source }))?;
        let sections = Sections::read(&mut File::from(state), known)?;
        let table = sections.fd_names()?;
        let numbers: Vec<RawFd> = table.values().copied().collect();
        let owned = inherit::claim(&numbers).map_err(AdoptError::Claim)?;
        Ok(Some(Self { sections, fds: table.into_keys().zip(owned).collect() }))
    }

    /// Takes an fd out.
    pub fn take_fd(&mut self, name: &FdName) -> Option<OwnedFd> {
        self.fds.remove(name)
    }

    /// Closes what nobody took, each with a log line, and returns how many those were.
    pub fn close_unclaimed(self) -> usize {
        for (name, fd) in &self.fds {
            tracing::warn!(%name, fd = ?fd.as_fd(), "closed an inherited fd that nothing here takes");
        }
        self.fds.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::Registry;
    use std::os::fd::IntoRawFd;

    const KNOWN: &[SectionSpec] = &[
        SectionSpec { name: "needed", reads: 2..=3, required: true },
        SectionSpec { name: "extra", reads: 1..=1, required: false },
    ];

    fn sealed(sections: &[(&str, u32)]) -> super::super::registry::Sealed {
        let mut registry = Registry::default();
        for (name, version) in sections {
            registry.put_section(name, *version, &serde_json::json!({ "n": version })).expect("JSON");
        }
        registry.put_fd(FdName::new("null"), File::open("/dev/null").expect("opens").into());
        registry.seal().expect("seals")
    }

    fn read(sections: &[(&str, u32)]) -> Result<Sections, AdoptError> {
        Sections::read(&mut sealed(sections).state, KNOWN)
    }

    #[test]
    fn an_unknown_section_is_skipped_and_a_required_one_must_be_there() {
        let mut found = read(&[("needed", 2), ("from-the-future", 9)]).expect("readable");
        assert_eq!(found.take::<serde_json::Value>("from-the-future").expect("skipped"), None);
        assert_eq!(found.take("needed").expect("JSON"), Some(serde_json::json!({ "n": 2 })));
        assert!(matches!(read(&[("extra", 1)]), Err(AdoptError::Missing { section: "needed" })));
    }

    #[test]
    fn a_version_that_is_not_known_is_refused() {
        for version in [1, 4] {
            let refused = read(&[("needed", version)]);
            assert!(matches!(refused, Err(AdoptError::SectionVersion { found, .. }) if found == version));
        }
    }

    #[test]
    fn fds_and_sections_are_claimed_as_they_were_left() {
        let sealed = sealed(&[("needed", 3)]);
        let number = rustix::io::dup(&sealed.state).expect("duplicates").into_raw_fd();
        for duplicate in sealed.duplicates {
            let _left_open_for_the_next_image = duplicate.into_raw_fd();
        }
        let mut inherited =
            Inherited::claim(Some(&number.to_string()), KNOWN).expect("claims").expect("something is inherited");
        assert!(inherited.take_fd(&FdName::new("null")).is_some());
        assert!(inherited.take_fd(&FdName::new("null")).is_none());
        assert_eq!(inherited.close_unclaimed(), 0);
    }

    #[test]
    fn a_variable_that_names_no_state_is_refused() {
        assert!(Inherited::claim(None, KNOWN).expect("nothing to do").is_none());
        assert!(matches!(Inherited::claim(Some("x"), KNOWN), Err(AdoptError::Variable { .. })));
        assert!(matches!(Inherited::claim(Some("987654"), KNOWN), Err(AdoptError::Claim(_))));
        let other = File::open("/dev/null").expect("opens").into_raw_fd();
        assert!(matches!(Inherited::claim(Some(&other.to_string()), KNOWN), Err(AdoptError::Memfd(_))));
    }
}
