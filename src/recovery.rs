//! A log in memory that outlives the process that writes it.
//!
//! What a process must not forget when it is killed, and what nobody needs once the machine is off (how far an agent's
//! output was read), is in a memfd whose fd somebody else holds as well: the service manager's fd store, and the next
//! image. No disk is waited for.
//!
//! ```text
//! 0        8            24             4096            start                    end
//! | magic  | start, end |      …       |  (released)   | len record len record … |
//! ```
//!
//! **Invariants**
//! - A record is there as a whole or not at all, wherever the writer was killed: the header, which says what counts,
//!   is written last, by one write of 16 bytes, and a write into a memfd that has begun within one page is not broken
//!   off by a signal.
//! - There is one writer at a time. Whoever takes a log over has seen the end of the one before.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

use crate::fault::{self, Call};

const MAGIC: [u8; 8] = *b"hermlog1";
const HEADER_BYTES: usize = 24;
/// Where the first record is: the header's page is its own.
const FIRST: u64 = 4096;
/// The longest record, in bytes. It holds one read of an agent, or its whole state.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// The log; see the module's documentation.
#[derive(Debug)]
pub struct RecoveryLog {
    file: File,
    start: u64,
    end: u64,
}

impl RecoveryLog {
    /// A new, empty log. Its fd is CLOEXEC; `name` is for people who look into /proc.
    ///
    /// # Errors
    /// The kernel's reason, for example for want of memory or of fds.
    pub fn create(name: &str) -> io::Result<Self> {
        fault::io(Call::MemfdCreate)?;
        let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
        let mut log = Self { file, start: FIRST, end: FIRST };
        log.file.write_all_at(&MAGIC, 0)?;
        log.commit(FIRST, FIRST)?;
        Ok(log)
    }

    /// Goes on with a log that another process or image wrote.
    ///
    /// # Errors
    /// `InvalidData` if it is none; the kernel's reason.
    pub fn open(fd: OwnedFd) -> io::Result<Self> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "it is no recovery log");
        let file = File::from(fd);
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(|_| invalid())?;
        let (magic, range) = header.split_at(MAGIC.len());
        let (start, end) = range.split_at(8);
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).map_err(|_| invalid());
        let (start, end) = (number(start)?, number(end)?);
        if magic != MAGIC || start < FIRST || start > end || (end > start && end > file.metadata()?.len()) {
            return Err(invalid());
        }
        Ok(Self { file, start, end })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// The kernel's reason, for example for want of memory; `InvalidInput` if it is longer than [`RECORD_BYTES_MAX`].
    /// The log is as it was.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let end = self.write(self.end, record)?;
        self.commit(self.start, end)
    }

    /// Puts these records in the place of all that are there, at once.
    ///
    /// # Errors
    /// As [`RecoveryLog::append`]; the log is as it was.
    pub fn replace<'a>(&mut self, records: impl IntoIterator<Item = &'a [u8]>) -> io::Result<()> {
        let (old_start, start) = (self.start, self.end.next_multiple_of(FIRST));
        let mut end = start;
        for record in records {
            end = self.write(end, record)?;
        }
        self.commit(start, end)?;
        // Memory that stays behind is all that a failure costs.
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = fallocate(&self.file, flags, old_start, start - old_start) {
            tracing::debug!(%error, "old records keep their memory");
        }
        Ok(())
    }

    /// Every record, oldest first.
    ///
    /// # Errors
    /// `InvalidData` if they do not add up; the kernel's reason.
    pub fn records(&self) -> io::Result<Vec<Vec<u8>>> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the records of a recovery log do not add up");
        let mut content = vec![0; usize::try_from(self.len_bytes()).map_err(|_| invalid())?];
        self.file.read_exact_at(&mut content, self.start)?;
        let mut rest = content.as_slice();
        let mut records = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_ne_bytes(*length)).map_err(|_| invalid())?;
            let (record, after) = after.split_at_checked(length).ok_or_else(invalid)?;
            records.push(record.to_vec());
            rest = after;
        }
        if rest.is_empty() { Ok(records) } else { Err(invalid()) }
    }

    /// How much the records take, in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.end - self.start
    }

    /// The fd to keep elsewhere.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn write(&self, at: u64, record: &[u8]) -> io::Result<u64> {
        let length = u32::try_from(record.len()).ok().filter(|_| record.len() <= RECORD_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the record is too long"))?;
        self.file.write_all_at(&length.to_ne_bytes(), at)?;
        self.file.write_all_at(record, at + 4)?;
        Ok(at + 4 + u64::from(length))
    }

    fn commit(&mut self, start: u64, end: u64) -> io::Result<()> {
        let mut range = [0; 16];
        range[..8].copy_from_slice(&start.to_ne_bytes());
        range[8..].copy_from_slice(&end.to_ne_bytes());
        self.file.write_all_at(&range, MAGIC.len() as u64)?;
        (self.start, self.end) = (start, end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reopened(log: &RecoveryLog) -> RecoveryLog {
        RecoveryLog::open(log.as_fd().try_clone_to_owned().expect("duplicates")).expect("it is a log")
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let null = File::open("/dev/null").expect("opens").into();
        assert_eq!(RecoveryLog::open(null).expect_err("no log").kind(), io::ErrorKind::InvalidData);
        let memfd = memfd_create("test", MemfdFlags::CLOEXEC).expect("creates");
        File::from(memfd.try_clone().expect("duplicates")).write_all_at(&[0xff; 64], 0).expect("writes");
        assert_eq!(RecoveryLog::open(memfd).expect_err("no log").kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_record_that_was_not_committed_is_not_there() {
        let mut log = RecoveryLog::create("test").expect("creates");
        log.append(b"one").expect("appends");
        log.write(log.end, b"two, and then the writer was killed").expect("writes");
        let mut taken_over = reopened(&log);
        assert_eq!(taken_over.records().expect("reads"), [b"one"]);
        taken_over.append(b"three").expect("appends");
        assert_eq!(reopened(&log).records().expect("reads"), [&b"one"[..], b"three"]);
    }

    proptest! {
        /// Some(record) is appended; None replaces everything by the last two records.
        #[test]
        fn whoever_takes_it_over_reads_what_was_written(
            steps in proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9000)), 0..20)
        ) {
            let mut log = RecoveryLog::create("test").expect("creates");
            let mut model: Vec<Vec<u8>> = Vec::new();
            for step in steps {
                match step {
                    Some(record) => {
                        log.append(&record).expect("appends");
                        model.push(record);
                    }
                    None => {
                        model.drain(..model.len().saturating_sub(2));
                        log.replace(model.iter().map(Vec::as_slice)).expect("replaces");
                    }
                }
                prop_assert_eq!(&reopened(&log).records().expect("reads"), &model);
            }
        }
    }
}
