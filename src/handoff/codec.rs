//! The bytes in the state memfd. All numbers are little-endian.
//!
//! ```text
//!   0   8  magic "hermes\r\n"
//!   8   4  format version, 1
//!  12   4  number of sections
//!  16   8  length of the whole blob, checksum included
//!  24      the sections, each:
//!             2  length of the name
//!             4  section version
//!             8  length of the payload
//!             …  name (UTF-8), payload (JSON)
//!  -32 32  SHA-256 of everything before it
//! ```
//!
//! **Invariant:** decoding never panics and allocates no more than the blob is long, whatever the bytes are.

use sha2::{Digest, Sha256};
use thiserror::Error;

const MAGIC: &[u8; 8] = b"hermes\r\n";
/// The layout above. It changes only when old images need not read it.
pub const FORMAT_VERSION: u32 = 1;
/// The longest blob that is written or read, in bytes.
pub const LIMIT_BYTES: u64 = 256 << 20;
const HEADER: usize = 24;
const SECTION_HEADER: usize = 14;
const CHECKSUM: usize = 32;

/// One part's state: a name, the version of its form, and JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Whose state it is.
    pub name: String,
    /// The version of the payload's form.
    pub version: u32,
    /// JSON.
    pub payload: Vec<u8>,
}

/// Why bytes are not a state blob of this format.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CodecError {
    /// The first bytes are not the magic: something else was passed.
    #[error("not a hermes state (wrong magic)")]
    Foreign,
    /// A later format.
    #[error("state format {found}, and this version reads format {FORMAT_VERSION}")]
    Format {
        /// Its number.
        found: u32,
    },
    /// It ends before it should, or goes on after.
    #[error("the state is damaged: {what}")]
    Damaged {
        /// What does not fit.
        what: &'static str,
    },
    /// More than [`LIMIT_BYTES`].
    #[error("the state would be {found} bytes long, and the limit is {LIMIT_BYTES}")]
    TooLarge {
        /// Its length.
        found: u64,
    },
}

/// Writes sections as one blob.
///
/// # Errors
/// [`CodecError::TooLarge`]: what could not be read back is not written.
pub fn encode<'a>(sections: impl IntoIterator<Item = &'a Section>) -> Result<Vec<u8>, CodecError> {
    let sections: Vec<&Section> = sections.into_iter().collect();
    let body: usize = sections.iter().map(|s| SECTION_HEADER + s.name.len() + s.payload.len()).sum();
    let total = (HEADER + body + CHECKSUM) as u64;
    if total > LIMIT_BYTES {
        return Err(CodecError::TooLarge { found: total });
    }
    let count = u32::try_from(sections.len()).map_err(|_| CodecError::Damaged { what: "too many sections" })?;
    let mut blob = Vec::with_capacity(HEADER + body + CHECKSUM);
    blob.extend_from_slice(MAGIC);
    blob.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    blob.extend_from_slice(&count.to_le_bytes());
    blob.extend_from_slice(&total.to_le_bytes());
    for section in sections {
        let name = u16::try_from(section.name.len()).map_err(|_| CodecError::Damaged { what: "a name too long" })?;
        blob.extend_from_slice(&name.to_le_bytes());
        blob.extend_from_slice(&section.version.to_le_bytes());
        blob.extend_from_slice(&(section.payload.len() as u64).to_le_bytes());
        blob.extend_from_slice(section.name.as_bytes());
        blob.extend_from_slice(&section.payload);
    }
    let checksum = Sha256::digest(&blob);
    blob.extend_from_slice(&checksum);
    Ok(blob)
}

/// Reads the sections of a blob.
///
/// # Errors
/// [`CodecError`] for anything but exactly what [`encode`] writes.
pub fn decode(blob: &[u8]) -> Result<Vec<Section>, CodecError> {
    let damaged = |what| CodecError::Damaged { what };
    let mut reader = Reader { rest: blob };
    if reader.take(8) != Some(MAGIC.as_slice()) {
        return Err(CodecError::Foreign);
    }
    let format = reader.u32().ok_or(damaged("it ends in its header"))?;
    if format != FORMAT_VERSION {
        return Err(CodecError::Format { found: format });
    }
    let count = reader.u32().ok_or(damaged("it ends in its header"))?;
    let total = reader.u64().ok_or(damaged("it ends in its header"))?;
    if total != blob.len() as u64 || blob.len() < HEADER + CHECKSUM {
        return Err(damaged("its length is not the one it names"));
    }
    let (covered, checksum) = blob.split_at(blob.len() - CHECKSUM);
    if Sha256::digest(covered).as_slice() != checksum {
        return Err(damaged("its checksum does not match"));
    }
    reader.rest = &covered[HEADER..];
    let mut sections = Vec::new();
    for _ in 0..count {
        sections.push(reader.section().ok_or(damaged("a section ends too early"))?);
    }
    if !reader.rest.is_empty() {
        return Err(damaged("bytes after the last section"));
    }
    Ok(sections)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn section(&mut self) -> Option<Section> {
        let name_length = usize::from(self.u16()?);
        let version = self.u32()?;
        let payload_length = usize::try_from(self.u64()?).ok()?;
        let name = String::from_utf8(self.take(name_length)?.to_vec()).ok()?;
        let payload = self.take(payload_length)?.to_vec();
        Some(Section { name, version, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sections() -> impl Strategy<Value = Vec<Section>> {
        let section = (".{0,20}", any::<u32>(), prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(name, version, payload)| Section { name, version, payload });
        prop::collection::vec(section, 0..8)
    }

    /// A blob with a right checksum around whatever was done to it.
    fn resealed(mut blob: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        blob.truncate(blob.len() - CHECKSUM);
        change(&mut blob);
        let total = (blob.len() + CHECKSUM) as u64;
        blob[16..24].copy_from_slice(&total.to_le_bytes());
        let checksum = Sha256::digest(&blob);
        blob.extend_from_slice(&checksum);
        blob
    }

    #[test]
    fn each_check_refuses_what_it_is_for() {
        let section = Section { name: "a".into(), version: 1, payload: b"{}".to_vec() };
        let good = encode([&section]).expect("encodes");
        assert_eq!(decode(&good), Ok(vec![section]));
        assert_eq!(decode(b""), Err(CodecError::Foreign));
        assert_eq!(decode(&[0; 200]), Err(CodecError::Foreign));
        let mut later = good.clone();
        later[8] = 2;
        assert_eq!(decode(&later), Err(CodecError::Format { found: 2 }));
        assert!(
            matches!(decode(&good[..good.len() - 1]), Err(CodecError::Damaged { what }) if what.contains("length"))
        );
        let mut flipped = good.clone();
        flipped[HEADER + 1] ^= 1;
        assert!(matches!(decode(&flipped), Err(CodecError::Damaged { what }) if what.contains("checksum")));
        let short = resealed(good.clone(), |blob| blob.truncate(HEADER + 3));
        assert!(matches!(decode(&short), Err(CodecError::Damaged { what }) if what.contains("too early")));
        let long = resealed(good.clone(), |blob| blob.push(0));
        assert!(matches!(decode(&long), Err(CodecError::Damaged { what }) if what.contains("after the last")));
        let greedy = resealed(good, |blob| blob[HEADER + 6..HEADER + 14].copy_from_slice(&u64::MAX.to_le_bytes()));
        assert!(matches!(decode(&greedy), Err(CodecError::Damaged { what }) if what.contains("too early")));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(sections in sections()) {
            prop_assert_eq!(decode(&encode(&sections).expect("small")), Ok(sections));
        }

        #[test]
        fn any_change_of_a_byte_is_refused(sections in sections(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut blob = encode(&sections).expect("small");
            let at = at.index(blob.len());
            blob[at] ^= flip;
            prop_assert!(decode(&blob).is_err());
        }

        #[test]
        fn resealed_nonsense_does_not_panic(sections in sections(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..10)) {
            let blob = encode(&sections).expect("small");
            let _ = decode(&resealed(blob, |blob| for (at, byte) in edits {
                let at = at.index(blob.len());
                if at >= 8 { blob[at] = byte; }
            }));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
