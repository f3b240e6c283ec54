//! `versions/slots`: which image starts next, and which one is on trial.
//!
//! ```text
//! hermes slots 1                    the format; another number is not read
//! proven 1.0.0                      served through its probation
//! previous 0.9.0                    was proven before it
//! trial 1.1.0                       was switched to, and is not proven yet
//! boots-left 2                      how often it may still be started
//! failed 1.0.5                      was a trial, and is not tried again by itself
//! reason did not come up            why
//! checksum 0123456789abcdef         FNV-1a over all lines above
//! ```
//!
//! The gateway writes it before it hands off to a trial and when it commits; the launcher counts boots in it. The
//! launcher includes this file, so it uses nothing but std.
//!
//! **Invariants**
//! - A file that is not whole is refused, never read in part: every change of one byte changes the checksum, and a
//!   shorter file does not end with one.
//! - [`Slots::write`] replaces the file by rename(2) once its bytes are on disk, so a power cut leaves the old slots or
//!   the new ones. What it leaves besides, `.slots.new`, is not read, and the next write takes it over.
//! - A version that was read from the file names one directory in `versions/`, and no other place.
//! - A key that is not known is no error: a newer gateway may add some, and the launcher is never updated.

use std::error::Error;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const FILE: &str = "slots";
const FILE_NEW: &str = ".slots.new";
const HEADER: &str = "hermes slots 1";
const CHECKSUM: &str = "checksum ";
/// The longest file that is read, in bytes. Known keys take less than 2 KiB.
const FILE_BYTES_MAX: u64 = 16 << 10;
/// The longest version, in bytes: as long as a release can carry.
pub const VERSION_BYTES_MAX: usize = 64;
/// The longest reason that is written, in bytes; the rest is cut off.
pub const REASON_BYTES_MAX: usize = 500;
/// More boots than this are no trial.
pub const BOOTS_LEFT_MAX: u32 = 100;

/// The slots; see the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// The image that served through its probation last.
    pub proven: Option<String>,
    /// The image that was proven before it.
    pub previous: Option<String>,
    /// The image that was switched to and has not proven itself yet.
    pub trial: Option<Trial>,
    /// The last image that was on trial in vain.
    pub failed: Option<Failed>,
}

/// An image on trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Its version.
    pub version: String,
    /// How often the launcher may still start it; at most [`BOOTS_LEFT_MAX`].
    pub boots_left: u32,
}

/// An image whose trial failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its version.
    pub version: String,
    /// Why, for people. It is written as one line of at most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
}

/// Why the slots cannot be read or written.
#[derive(Debug)]
#[non_exhaustive]
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
    /// The file is torn, or somebody else's.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// These slots cannot be written, because they could not be read again.
    Invalid {
        /// What is wrong with them.
        why: &'static str,
    },
}

impl fmt::Display for SlotsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, path, .. } => write!(f, "cannot {what} {}", path.display()),
            Self::Malformed { path, why } => write!(f, "{} is not to be trusted ({why})", path.display()),
            Self::Invalid { why } => write!(f, "the slots cannot be written: {why}"),
        }
    }
}

impl Error for SlotsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Malformed { .. } | Self::Invalid { .. } => None,
        }
    }
}

/// Whether `name` may be a version, and so a directory in `versions/`: at most [`VERSION_BYTES_MAX`] of the characters
/// of a semantic version, the first a digit, and no `..`.
pub fn is_version(name: &str) -> bool {
    name.len() <= VERSION_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(&byte))
        && !name.contains("..")
}

impl Slots {
    /// Reads the slots of `HERMES_HOME/versions`; nothing if there is no such file.
    ///
    /// # Errors
    /// [`SlotsError::Malformed`] if the file is not whole, [`SlotsError::Io`].
    pub fn read(versions_dir: &Path) -> Result<Option<Self>, SlotsError> {
        let path = versions_dir.join(FILE);
        // A FIFO would keep its reader waiting.
        if fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(SlotsError::Malformed { path, why: "it is no file" });
        }
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => parse(&bytes).map(Some).map_err(|why| SlotsError::Malformed { path, why }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SlotsError::Io { what: "read", path, source }),
        }
    }

    /// Replaces the slots of `HERMES_HOME/versions`, atomically and durably. One writer at a time: who holds the
    /// home's lock, or the launcher before it becomes that one.
    ///
    /// # Errors
    /// [`SlotsError::Invalid`] if a version or a number is none; [`SlotsError::Io`]. The old slots are still there,
    /// unless the directory alone could not be synced: then it may be either.
    pub fn write(&self, versions_dir: &Path) -> Result<(), SlotsError> {
        self.write_by_steps(versions_dir, |_| Ok(()))
    }

    /// `before` is told of each step, and may end the write there.
    fn write_by_steps(
        &self,
        versions_dir: &Path,
        mut before: impl FnMut(Step) -> io::Result<()>,
    ) -> Result<(), SlotsError> {
        let text = self.text().map_err(|why| SlotsError::Invalid { why })?;
        let (new, path) = (versions_dir.join(FILE_NEW), versions_dir.join(FILE));
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| SlotsError::Io { what, path, source }
        };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = before(Step::Create).and_then(|()| options.open(&new)).map_err(failed("create", &new))?;
        before(Step::Write).and_then(|()| file.write_all(text.as_bytes())).map_err(failed("write", &new))?;
        before(Step::SyncFile).and_then(|()| file.sync_all()).map_err(failed("sync", &new))?;
        drop(file);
        before(Step::Rename).and_then(|()| fs::rename(&new, &path)).map_err(failed("replace", &path))?;
        let sync = || File::open(versions_dir).and_then(|dir| dir.sync_all());
        before(Step::SyncDirectory).and_then(|()| sync()).map_err(failed("sync", versions_dir))
    }

    /// The file for these slots, or what is wrong with them.
    fn text(&self) -> Result<String, &'static str> {
        let mut text = format!("{HEADER}\n");
        let mut line = |key: &str, value: &str| {
            text.push_str(key);
            text.push(' ');
            text.push_str(value);
            text.push('\n');
        };
        let version = |version: &str| if is_version(version) { Ok(()) } else { Err("a version is none") };
        for (key, value) in [("proven", &self.proven), ("previous", &self.previous)] {
            if let Some(value) = value {
                version(value)?;
                line(key, value);
            }
        }
        if let Some(trial) = &self.trial {
            version(&trial.version)?;
            if trial.boots_left > BOOTS_LEFT_MAX {
                return Err("more boots than a trial has");
            }
            line("trial", &trial.version);
            line("boots-left", &trial.boots_left.to_string());
        }
        if let Some(failed) = &self.failed {
            version(&failed.version)?;
            line("failed", &failed.version);
            line("reason", &one_line(&failed.reason));
        }
        let checksum = checksum(text.as_bytes());
        Ok(format!("{text}{CHECKSUM}{checksum:016x}\n"))
    }
}

/// What [`Slots::write`] does, in this order. The file is synced before it gets its name, and the directory after, so
/// that at no moment a power cut leaves a name without the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Write,
    SyncFile,
    Rename,
    SyncDirectory,
}

/// FNV-1a, 64 bits. Every step is a bijection of the sum, so that one changed byte always shows.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A reason on one line, not too long.
fn one_line(reason: &str) -> String {
    let line: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    line[..line.floor_char_boundary(REASON_BYTES_MAX)].trim_end().to_owned()
}

fn parse(bytes: &[u8]) -> Result<Slots, &'static str> {
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err("it is too long");
    }
    let text = str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let end = text.rfind(CHECKSUM).ok_or("it has no checksum")?;
    let (text, last) = text.split_at(end);
    if last != format!("{CHECKSUM}{:016x}\n", checksum(text.as_bytes())) {
        return Err("its checksum is wrong");
    }
    let mut lines = text.strip_suffix('\n').ok_or("its last line is no line")?.split('\n');
    if lines.next() != Some(HEADER) {
        return Err("it is of another format");
    }
    let mut fields = Fields::default();
    for line in lines {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let field = match key {
            "proven" => &mut fields.proven,
            "previous" => &mut fields.previous,
            "trial" => &mut fields.trial,
            "boots-left" => &mut fields.boots_left,
            "failed" => &mut fields.failed,
            "reason" => &mut fields.reason,
            _ => continue,
        };
        if field.replace(value).is_some() {
            return Err("a key is there twice");
        }
    }
    fields.slots()
}

/// The values as they stand in the file.
#[derive(Default)]
struct Fields<'a> {
    proven: Option<&'a str>,
    previous: Option<&'a str>,
    trial: Option<&'a str>,
    boots_left: Option<&'a str>,
    failed: Option<&'a str>,
    reason: Option<&'a str>,
}

impl Fields<'_> {
    fn slots(self) -> Result<Slots, &'static str> {
        let version = |value: Option<&str>| match value {
            Some(value) if !is_version(value) => Err("a version is none"),
            value => Ok(value.map(str::to_owned)),
        };
        let trial = match (version(self.trial)?, self.boots_left) {
            (Some(version), Some(boots)) => {
                let boots_left = boots.parse().ok().filter(|boots| *boots <= BOOTS_LEFT_MAX);
                Some(Trial { version, boots_left: boots_left.ok_or("the boots of the trial are no such number")? })
            }
            (Some(_), None) => return Err("the trial has no number of boots"),
            (None, _) => None,
        };
        let reason = one_line(self.reason.unwrap_or_default());
        let failed = version(self.failed)?.map(|version| Failed { version, reason });
        Ok(Slots { proven: version(self.proven)?, previous: version(self.previous)?, trial, failed })
    }
}

#[cfg(test)]
mod tests {
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;

    fn version() -> impl Strategy<Value = String> {
        "[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}(-[a-z]{1,5}\\.[0-9]{1,2})?(\\+[0-9a-zA-Z]{1,8})?"
    }

    prop_compose! {
        fn slots()(
            proven in of(version()),
            previous in of(version()),
            trial in of((version(), 0..=BOOTS_LEFT_MAX)),
            failed in of((version(), any::<String>())),
        ) -> Slots {
            Slots {
                proven,
                previous,
                trial: trial.map(|(version, boots_left)| Trial { version, boots_left }),
                failed: failed.map(|(version, reason)| Failed { version, reason: one_line(&reason) }),
            }
        }
    }

    fn two() -> (Slots, Slots) {
        let old = Slots { proven: Some("1.0.0".to_owned()), ..Slots::default() };
        let trial = Trial { version: "1.1.0".to_owned(), boots_left: 2 };
        (old.clone(), Slots { trial: Some(trial), ..old })
    }

    #[test]
    fn without_a_file_there_are_no_slots() {
        let dir = tempfile::tempdir().expect("creates");
        assert_eq!(Slots::read(dir.path()).expect("reads"), None);
        let error = Slots::read(&dir.path().join("file/in/no/directory")).expect("not found is no error");
        assert_eq!(error, None);
    }

    #[test]
    fn the_file_is_text_that_people_can_read() {
        let failed = Failed { version: "1.0.5".to_owned(), reason: "did not\ncome up \t".to_owned() };
        let slots = Slots { previous: Some("0.9.0".to_owned()), failed: Some(failed), ..two().1 };
        let text = slots.text().expect("valid");
        let (lines, last) = text.split_at(text.rfind(CHECKSUM).expect("the last line"));
        assert_eq!(
            lines,
            "hermes slots 1\nproven 1.0.0\nprevious 0.9.0\ntrial 1.1.0\nboots-left 2\nfailed 1.0.5\n\
             reason did not come up\n"
        );
        assert_eq!(last.len(), CHECKSUM.len() + 17);
    }

    /// The file of a newer gateway, and files that no gateway writes.
    #[test]
    fn a_whole_file_is_read_by_its_meaning() {
        let file = |lines: &str| format!("{lines}{CHECKSUM}{:016x}\n", checksum(lines.as_bytes()));
        let read = |lines: &str| parse(file(lines).as_bytes());
        assert_eq!(read("hermes slots 1\nproven 1.0.0\nfuture checksum 7\n\nmore\n"), Ok(two().0));
        assert_eq!(read("hermes slots 1\n"), Ok(Slots::default()));
        for wrong in [
            "hermes slots 2\nproven 1.0.0\n",
            "proven 1.0.0\n",
            "",
            "hermes slots 1",
            "hermes slots 1\nproven 1.0.0\nproven 1.0.1\n",
            "hermes slots 1\nproven ../../tmp/x\n",
            "hermes slots 1\nproven \n",
            "hermes slots 1\ntrial 1.1.0\n",
            "hermes slots 1\ntrial 1.1.0\nboots-left 4000000000\n",
            "hermes slots 1\ntrial 1.1.0\nboots-left -1\n",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&vec![b' '; 17 << 10]).is_err());
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let dir = tempfile::tempdir().expect("creates");
        let version = |version: &str| Slots { proven: Some(version.to_owned()), ..Slots::default() };
        let boots = Trial { version: "1.1.0".to_owned(), boots_left: BOOTS_LEFT_MAX + 1 };
        let boots = Slots { trial: Some(boots), ..Slots::default() };
        for wrong in [version("../x"), version(""), version(&"1".repeat(65)), version("1.0.0\n"), boots] {
            assert!(matches!(wrong.write(dir.path()), Err(SlotsError::Invalid { .. })), "{wrong:?}");
        }
        assert_eq!(Slots::read(dir.path()).expect("reads"), None);
    }

    /// Ends a write before each of its steps, and shows the reader every state that a power cut may leave there: what
    /// was not synced is there in part, or as zeros; a rename that was not synced has happened or has not.
    #[test]
    fn a_power_cut_leaves_the_old_slots_or_the_new_ones() {
        let (old, new) = two();
        let order = [Step::Create, Step::Write, Step::SyncFile, Step::Rename, Step::SyncDirectory];
        for (cut, step) in order.into_iter().enumerate() {
            let dir = tempfile::tempdir().expect("creates");
            old.write(dir.path()).expect("writes");
            let mut seen = Vec::new();
            let result = new.write_by_steps(dir.path(), |step| {
                seen.push(step);
                if seen.len() > cut { Err(io::Error::other("power cut")) } else { Ok(()) }
            });
            assert!(result.is_err());
            assert_eq!(seen, order[..=cut]);
            let read = || Slots::read(dir.path()).expect("reads").expect("there are slots");
            let expected = if step == Step::SyncDirectory { &new } else { &old };
            assert_eq!(&read(), expected, "before {step:?}");
            let text = new.text().expect("valid");
            let leftovers = (0..=text.len()).map(|length| text.as_bytes()[..length].to_vec()).chain([vec![0; 99]]);
            for leftover in leftovers {
                fs::write(dir.path().join(FILE_NEW), leftover).expect("writes");
                assert_eq!(&read(), expected, "before {step:?}");
            }
            new.write(dir.path()).expect("what is left is in nobody's way");
            assert_eq!(read(), new);
            assert!(!dir.path().join(FILE_NEW).exists());
        }
    }

    #[test]
    fn a_disk_that_is_full_leaves_the_old_slots() {
        let dir = tempfile::tempdir().expect("creates");
        let (old, new) = two();
        old.write(dir.path()).expect("writes");
        std::os::unix::fs::symlink("/dev/full", dir.path().join(FILE_NEW)).expect("links");
        let Err(SlotsError::Io { source, .. }) = new.write(dir.path()) else { panic!("there is no room") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        assert_eq!(Slots::read(dir.path()).expect("reads"), Some(old));
    }

    proptest! {
        // Each case waits for the disk.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_read(slots in slots()) {
            let dir = tempfile::tempdir().expect("creates");
            slots.write(dir.path()).expect("writes");
            prop_assert_eq!(Slots::read(dir.path()).expect("reads"), Some(slots));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), lines in ".{0,200}") {
            prop_assert!(parse(&bytes).is_err(), "a checksum is not met by chance");
            let whole = format!("{HEADER}\n{lines}\n");
            let _ = parse(format!("{whole}{CHECKSUM}{:016x}\n", checksum(whole.as_bytes())).as_bytes());
        }

        #[test]
        fn a_torn_or_flipped_file_is_refused(slots in slots()) {
            let text = slots.text().expect("valid").into_bytes();
            for length in 0..text.len() {
                prop_assert!(parse(&text[..length]).is_err());
            }
            let mut flipped = text.clone();
            for bit in 0..text.len() * 8 {
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(parse(&flipped).is_err(), "bit {}", bit);
                flipped[bit / 8] = text[bit / 8];
            }
        }

        /// The versions of the gateway are those of the slots.
        #[test]
        fn a_semantic_version_is_a_version(text in version()) {
            prop_assert!(is_version(&text));
        }

        #[test]
        fn a_version_is_one_directory(text in "[0-9a-z./+-]{0,70}") {
            if is_version(&text) {
                let path = Path::new("versions").join(&text);
                prop_assert_eq!(path.components().count(), 2);
                prop_assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(text.as_str()));
            }
        }
    }
}
