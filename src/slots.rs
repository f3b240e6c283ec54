//! `versions/slots`: which image is to run, as the gateway writes it and the launcher reads it.
//!
//! ```text
//! hermes-slots 1
//! proven 1.4.0
//! previous 1.3.0
//! trial 1.5.0
//! boots-left 1
//! failed 1.4.9 killed by signal 11
//! sum 8f3a…
//! ```
//!
//! The last line is a checksum of all before it, so that a torn file is noticed. Keys that are not known are passed
//! over: the launcher is never replaced by an update, and a later gateway may say more.
//!
//! **Invariants**
//! - The file is replaced as a whole: it is written and synced under another name, renamed, and the directory is
//!   synced. A power cut at any moment leaves the old file or the new one.
//! - A version that is read here is one plain name of a directory.
//! - Only std is used: the launcher is built of this file as well.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const FILE: &str = "slots";
const NEW: &str = ".slots.new";
const HEADER: &str = "hermes-slots 1";
/// More than a gateway ever writes, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 10;
/// The longest version, in bytes.
const VERSION_BYTES_MAX: usize = 64;
/// The longest reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 400;

/// Which image is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// The version that has proven itself last.
    pub proven: Option<String>,
    /// The one that had before that.
    pub previous: Option<String>,
    /// The one that is being tried.
    pub trial: Option<Trial>,
    /// The one that was tried last and did not stay.
    pub failed: Option<Failed>,
}

/// A version that has not proven itself yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The version.
    pub version: String,
    /// How often it may still be started.
    pub boots_left: u32,
}

/// A version that did not stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The version.
    pub version: String,
    /// Why, for people; one line.
    pub reason: String,
}

/// Why the slots cannot be read or written.
#[derive(Debug)]
pub enum SlotsError {
    /// The file system refuses.
    Io {
        /// The operation.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is torn, or was never one.
    Torn {
        /// The file.
        path: PathBuf,
    },
    /// A version that cannot be the name of a directory in `versions/`.
    Version {
        /// What it is.
        version: String,
    },
}

impl fmt::Display for SlotsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, path, .. } => write!(f, "cannot {what} {}", path.display()),
            Self::Torn { path } => write!(f, "{} is torn or was never whole", path.display()),
            Self::Version { version } => write!(f, "'{}' is not a version", version.escape_debug()),
        }
    }
}

impl std::error::Error for SlotsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Torn { .. } | Self::Version { .. } => None,
        }
    }
}

impl Slots {
    /// Reads the slots of a directory `versions/`; nothing if there is no file.
    ///
    /// # Errors
    /// [`SlotsError::Io`], [`SlotsError::Torn`].
    pub fn read(versions: &Path) -> Result<Option<Self>, SlotsError> {
        let path = versions.join(FILE);
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text));
        match read {
            Ok(_) => Self::parse(&text).map(Some).ok_or(SlotsError::Torn { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SlotsError::Io { what: "read", path, source }),
        }
    }

    /// Replaces the file, durably.
    ///
    /// # Errors
    /// [`SlotsError::Io`]; the old file stays, unless only the very last sync failed. [`SlotsError::Version`].
    pub fn write(&self, versions: &Path) -> Result<(), SlotsError> {
        self.write_by(versions, &mut |_| Ok(()))
    }

    /// As [`Slots::write`], which asks `may` before each step and goes no further if that refuses: as if the power was
    /// cut there.
    ///
    /// # Errors
    /// As [`Slots::write`], and what `may` says.
    pub fn write_by(&self, versions: &Path, may: &mut dyn FnMut(Step) -> io::Result<()>) -> Result<(), SlotsError> {
        let text = self.to_text()?;
        let (new, path) = (versions.join(NEW), versions.join(FILE));
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| SlotsError::Io { what, path, source }
        };
        may(Step::Create).map_err(failed("create", &new))?;
        let mut file = File::create(&new).map_err(failed("create", &new))?;
        may(Step::Write).map_err(failed("write", &new))?;
        file.write_all(text.as_bytes()).map_err(failed("write", &new))?;
        may(Step::SyncFile).map_err(failed("sync", &new))?;
        file.sync_all().map_err(failed("sync", &new))?;
        may(Step::Rename).map_err(failed("replace", &path))?;
        fs::rename(&new, &path).map_err(failed("replace", &path))?;
        may(Step::SyncDirectory).map_err(failed("sync", versions))?;
        File::open(versions).and_then(|directory| directory.sync_all()).map_err(failed("sync", versions))
    }

    fn to_text(&self) -> Result<String, SlotsError> {
        let checked = |version: &str| match is_version(version) {
            true => Ok(version.to_owned()),
            false => Err(SlotsError::Version { version: version.to_owned() }),
        };
        let mut text = format!("{HEADER}\n");
        for (key, version) in [("proven", &self.proven), ("previous", &self.previous)] {
            if let Some(version) = version {
                text.push_str(&format!("{key} {}\n", checked(version)?));
            }
        }
        if let Some(Trial { version, boots_left }) = &self.trial {
            text.push_str(&format!("trial {}\nboots-left {boots_left}\n", checked(version)?));
        }
        if let Some(Failed { version, reason }) = &self.failed {
            let version = checked(version)?;
            text.push_str(&format!("failed {version} {}\n", one_line(reason)));
        }
        text.push_str(&format!("sum {:016x}\n", checksum(text.as_bytes())));
        Ok(text)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (body, sum) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let body = &text[..=body.len()];
        if sum != format!("sum {:016x}", checksum(body.as_bytes())) {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != HEADER {
            return None;
        }
        let mut slots = Self::default();
        let (mut trial, mut boots_left) = (None, None);
        let version = |text: &str| is_version(text).then(|| text.to_owned());
        for (key, value) in lines.filter_map(|line| line.split_once(' ')) {
            match key {
                "proven" => slots.proven = Some(version(value)?),
                "previous" => slots.previous = Some(version(value)?),
                "trial" => trial = Some(version(value)?),
                "boots-left" => boots_left = Some(value.parse().ok()?),
                "failed" => {
                    let (failed, reason) = value.split_once(' ')?;
                    slots.failed = Some(Failed { version: version(failed)?, reason: reason.to_owned() });
                }
                _ => {}
            }
        }
        // A trial that does not say how often is started no more.
        slots.trial = trial.map(|version| Trial { version, boots_left: boots_left.unwrap_or(0) });
        Some(slots)
    }
}

/// The steps of [`Slots::write`] that a power cut can come before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The new file is made.
    Create,
    /// It is written.
    Write,
    /// It is made durable.
    SyncFile,
    /// It takes the old one's place.
    Rename,
    /// That is made durable.
    SyncDirectory,
}

/// Whether `text` is one plain name of a directory that a version may have.
pub fn is_version(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
    text.len() <= VERSION_BYTES_MAX && text.bytes().all(legal) && text.starts_with(|first: char| first.is_ascii_digit())
}

fn one_line(reason: &str) -> String {
    let mut line: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = line.len().min(REASON_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line
}

/// FNV-1a, 64 bits: against accidents, not against malice.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slots() -> Slots {
        Slots {
            proven: Some("1.4.0".into()),
            previous: Some("1.3.0-rc.1+b2".into()),
            trial: Some(Trial { version: "1.5.0".into(), boots_left: 1 }),
            failed: Some(Failed { version: "1.4.9".into(), reason: "killed by signal 11".into() }),
        }
    }

    #[test]
    fn what_was_written_is_read_and_no_file_is_no_error() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(Slots::read(dir.path()).expect("no error"), None);
        slots().write(dir.path()).expect("writes");
        assert_eq!(Slots::read(dir.path()).expect("reads"), Some(slots()));
        Slots::default().write(dir.path()).expect("replaces");
        assert_eq!(Slots::read(dir.path()).expect("reads"), Some(Slots::default()));
    }

    #[test]
    fn a_later_gateways_keys_are_passed_over_and_a_version_is_one_name() {
        let mut text = format!("{HEADER}\nproven 1.0.0\nchannel beta\n");
        text.push_str(&format!("sum {:016x}\n", checksum(text.as_bytes())));
        assert_eq!(Slots::parse(text.as_bytes()).expect("whole").proven.as_deref(), Some("1.0.0"));
        for version in ["", "..", "../x", "1/2", "v1", "current", &"1".repeat(65)] {
            assert!(!is_version(version), "{version}");
            let slots = Slots { proven: Some(version.into()), ..Slots::default() };
            assert!(matches!(slots.to_text(), Err(SlotsError::Version { .. })));
        }
    }

    /// Whatever of the new file reached the disk, the reader finds the old slots or the new ones.
    #[test]
    fn a_power_cut_at_any_step_leaves_the_old_slots_or_the_new_ones() {
        let new = Slots { trial: None, ..slots() };
        for cut in [Step::Create, Step::Write, Step::SyncFile, Step::Rename, Step::SyncDirectory] {
            let dir = tempfile::tempdir().expect("a directory");
            slots().write(dir.path()).expect("writes");
            let mut may = |step| if step == cut { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) };
            new.write_by(dir.path(), &mut may).expect_err("the power is cut");
            let read = Slots::read(dir.path()).expect("whole").expect("there");
            // A rename that was not synced may be undone by the cut: then the old file is there, which is as good.
            assert_eq!(read, if cut == Step::SyncDirectory { new.clone() } else { slots() }, "{cut:?}");
            // What it left behind is in nobody's way.
            new.write(dir.path()).expect("writes");
            assert_eq!(Slots::read(dir.path()).expect("whole"), Some(new.clone()));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            drop(Slots::parse(&bytes));
        }

        #[test]
        fn a_file_that_was_cut_or_changed_is_not_taken_for_another(at in 0_usize..400, bit in 0_u8..8, cut in any::<bool>()) {
            let mut text = slots().to_text().expect("legal").into_bytes();
            let at = at % text.len();
            if cut {
                text.truncate(at);
            } else {
                text[at] ^= 1 << bit;
            }
            prop_assert_eq!(Slots::parse(&text), None);
        }

        #[test]
        fn any_reason_is_one_line(reason in ".*") {
            let slots = Slots { failed: Some(Failed { version: "1.0.0".into(), reason }), ..Slots::default() };
            let read = Slots::parse(slots.to_text().expect("legal").as_bytes()).expect("whole");
            prop_assert_eq!(read.failed.map(|failed| failed.version), Some("1.0.0".to_owned()));
        }
    }
}
