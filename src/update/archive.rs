//! The archive of a release: what has to hold of it before a byte of it is unpacked, and how it is unpacked.
//!
//! ```text
//! gzip member 1   tar: a regular file `hermes`, and         signed (ed25519ph over exactly these bytes)
//!                 perhaps another, `hermes-launch`
//!                 header comment `expires=<RFC 3339>`?
//! gzip member 2   empty; its comment holds the signatures  zipsign's format
//! ```
//!
//! **Invariants**
//! - Nothing is decompressed before the signature is verified.
//! - The signature's context is the file name `hermes-<version>-<target>.tar.gz`, so it also says which product,
//!   version and target these bytes are: a genuine archive served under the name of another is refused.
//! - Everything works on one open file; there is no look-up by path between verifying and unpacking.

use std::error::Error as _;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};

use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};
use tar::EntryType;
use thiserror::Error;
use zipsign_api::VerifyingKey;
use zipsign_api::verify::{VerifyTarError, verify_tar};

use super::error::{Item, UpdateError};
use super::manifest::check_expiry;
use super::versions::hash;
use crate::clock::UnixMillis;
use crate::hex;

/// The file in the archive that is unpacked.
const MEMBER: &str = "hermes";
/// What may come after it, for a first installation. An update never replaces the launcher, so it is not unpacked.
const LAUNCHER: &str = "hermes-launch";
const EXPIRES: &str = "expires=";

/// Why a signed archive is not a release.
#[derive(Debug, Error)]
pub enum ContentsError {
    /// It is not a gzipped tar archive.
    #[error("it is not a gzipped tar archive")]
    NotAnArchive {
        /// What the reader says.
        #[source]
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// There is something else in it.
    #[error("it holds {found:?}, and only files `hermes` and `hermes-launch` belong in it")]
    OtherMember {
        /// The path as it stands in the archive.
        found: String,
    },
    /// `hermes` is a link, a directory or something else.
    #[error("its `hermes` is not a regular file")]
    NotAFile,
}

/// Verifies an archive that was downloaded: first the manifest's digest, where there is one, then the signature.
///
/// Blocks: reads the file twice.
pub(super) fn verify(
    archive: &mut File,
    name: &str,
    digest: Option<[u8; 32]>,
    keys: &[VerifyingKey],
) -> Result<(), UpdateError> {
    if let Some(expected) = digest {
        let found = hash(archive).map_err(|source| read_error(name, source))?;
        if found != expected {
            let (expected, found) = (hex::encode(&expected), hex::encode(&found));
            return Err(UpdateError::DigestMismatch { name: name.to_owned(), expected, found });
        }
    }
    match verify_tar(archive, keys, Some(name.as_bytes())) {
        Ok(_) => Ok(()),
        Err(error) if is_mismatch(&error) => Err(UpdateError::SignatureMismatch { name: name.to_owned() }),
        Err(source) => Err(UpdateError::NotSigned { name: name.to_owned(), source }),
    }
}

/// `VerifyTarError` hides its variants; only the one that found signatures, of which none matched, has no source.
fn is_mismatch(error: &VerifyTarError) -> bool {
    error.source().is_none()
}

/// The binary in a verified archive, about to be copied out.
pub(super) struct Binary<'a> {
    archive: tar::Archive<GzDecoder<BufReader<&'a mut File>>>,
    name: &'a str,
}

/// How [`Binary::copy_to`] failed.
#[derive(Debug)]
pub(super) enum CopyError {
    /// The archive is to blame.
    Refused(UpdateError),
    /// The disk is to blame.
    Write {
        /// The size of the binary, if the archive could say it before the disk failed.
        size_bytes: u64,
        /// Why.
        source: io::Error,
    },
}

impl<'a> Binary<'a> {
    /// Opens a **verified** archive and checks its date of expiry, if it has one.
    pub(super) fn open(archive: &'a mut File, name: &'a str, now: UnixMillis) -> Result<Self, UpdateError> {
        archive.rewind().map_err(|source| read_error(name, source))?;
        // Only the first gzip member: what comes after it is the signature, which is not signed itself.
        let decoder = GzDecoder::new(BufReader::new(archive));
        let comment = decoder.header().and_then(|header| header.comment()).map(String::from_utf8_lossy);
        if let Some(expires) = comment.as_deref().and_then(|text| text.strip_prefix(EXPIRES)) {
            check_expiry(Item::Archive, expires, now)?;
        }
        Ok(Self { archive: tar::Archive::new(decoder), name })
    }

    /// Copies the binary out and returns its SHA-256. Blocks.
    pub(super) fn copy_to(mut self, out: &mut impl Write, limit_bytes: u64) -> Result<[u8; 32], CopyError> {
        let name = self.name;
        let refused = |source| CopyError::Refused(UpdateError::Contents { name: name.to_owned(), source });
        let broken = |source| refused(ContentsError::NotAnArchive { source });
        // Raw: names and sizes are those of the tar headers themselves. An extension header that would change them
        // is a member of its own then, and refused as one.
        let mut members = self.archive.entries().map_err(broken)?.raw(true);
        let mut member = members.next().ok_or_else(|| refused(ContentsError::Empty))?.map_err(broken)?;
        let path = member.path_bytes();
        if path.as_ref() != MEMBER.as_bytes() {
            let found = String::from_utf8_lossy(&path).into_owned();
            return Err(refused(ContentsError::OtherMember { found }));
        }
        if member.header().entry_type() != EntryType::Regular {
            return Err(refused(ContentsError::NotAFile));
        }
        let size_bytes = member.size();
        if size_bytes > limit_bytes {
            return Err(CopyError::Refused(UpdateError::TooLarge { item: Item::Binary, limit_bytes }));
        }
        let mut hasher = Sha256::new();
        let mut left = size_bytes;
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            let read = member.read(&mut buffer).map_err(broken)?;
            if read == 0 {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
            hasher.update(&buffer[..read]);
            out.write_all(&buffer[..read]).map_err(|source| CopyError::Write { size_bytes, source })?;
            left = left.saturating_sub(u64::try_from(read).expect("a buffer's length fits"));
        }
        let mut may_be_launcher = true;
        for extra in members {
            let extra = extra.map_err(broken)?;
            let path = extra.path_bytes();
            let is_launcher = path.as_ref() == LAUNCHER.as_bytes() && extra.header().entry_type() == EntryType::Regular;
            if !is_launcher || !may_be_launcher {
                let found = String::from_utf8_lossy(&path).into_owned();
                return Err(refused(ContentsError::OtherMember { found }));
            }
            if extra.size() > limit_bytes {
                return Err(CopyError::Refused(UpdateError::TooLarge { item: Item::Binary, limit_bytes }));
            }
            may_be_launcher = false;
        }
        Ok(hasher.finalize().into())
    }
}

fn read_error(name: &str, source: io::Error) -> UpdateError {
    UpdateError::Contents { name: name.to_owned(), source: ContentsError::NotAnArchive { source } }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_573_806_000);

    #[derive(Clone, Debug)]
    struct Member {
        name: &'static str,
        kind: EntryType,
        content: Vec<u8>,
    }

    fn file(name: &'static str, content: &[u8]) -> Member {
        Member { name, kind: EntryType::Regular, content: content.to_vec() }
    }

    /// Builds an archive by hand, because the builder refuses the names that matter here.
    fn archive(members: &[Member]) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for member in members {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..member.name.len()].copy_from_slice(member.name.as_bytes());
            header.set_entry_type(member.kind);
            header.set_size(u64::try_from(member.content.len()).unwrap());
            header.set_mode(0o755);
            header.set_cksum();
            tar.append(&header, member.content.as_slice()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    fn unpack(bytes: &[u8], limit_bytes: u64) -> Result<Vec<u8>, UpdateError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut out = Vec::new();
        let copied = Binary::open(&mut file, "hermes-1.1.0-t.tar.gz", NOW)?.copy_to(&mut out, limit_bytes);
        match copied {
            Ok(hash) => {
                assert_eq!(hash, <[u8; 32]>::from(Sha256::digest(&out)));
                Ok(out)
            }
            Err(CopyError::Refused(error)) => Err(error),
            Err(CopyError::Write { source, .. }) => panic!("a vector takes all: {source}"),
        }
    }

    #[test]
    fn the_one_file_is_unpacked() {
        assert_eq!(unpack(&archive(&[file("hermes", b"binary")]), 100).unwrap(), b"binary");
    }

    #[test]
    fn a_binary_over_the_limit_is_refused() {
        let outcome = unpack(&archive(&[file("hermes", &[7; 101])]), 100);
        assert!(matches!(outcome, Err(UpdateError::TooLarge { item: Item::Binary, limit_bytes: 100 })), "{outcome:?}");
    }

    #[test]
    fn an_empty_archive_is_refused() {
        let outcome = unpack(&archive(&[]), 100);
        assert!(matches!(outcome, Err(UpdateError::Contents { source: ContentsError::Empty, .. })), "{outcome:?}");
    }

    #[test]
    fn the_date_of_expiry_in_the_archive_counts() {
        for (comment, expired) in
            [("expires=2026-11-25T02:30:06Z", true), ("expires=2026-11-25T02:30:07Z", false), ("made by a tool", false)]
        {
            let mut gzip = flate2::GzBuilder::new().comment(comment).write(Vec::new(), Compression::fast());
            let mut plain = Vec::new();
            GzDecoder::new(archive(&[file("hermes", b"binary")]).as_slice()).read_to_end(&mut plain).unwrap();
            gzip.write_all(&plain).unwrap();
            let outcome = unpack(&gzip.finish().unwrap(), 100);
            let told = matches!(outcome, Err(UpdateError::Expired { item: Item::Archive, .. }));
            assert_eq!(told, expired, "{comment}: {outcome:?}");
            assert_eq!(outcome.is_err(), expired, "{comment}");
        }
    }

    fn any_member() -> impl Strategy<Value = Member> {
        let name = prop::sample::select(vec![
            "hermes",
            "hermes",
            "hermes",
            "./hermes",
            "/hermes",
            "../hermes",
            "hermes/",
            "hermes2",
            "Hermes",
            "etc/passwd",
            "",
        ]);
        let kind = prop::sample::select(vec![
            EntryType::Regular,
            EntryType::Regular,
            EntryType::Regular,
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Directory,
            EntryType::Fifo,
            EntryType::Char,
            EntryType::Continuous,
            EntryType::GNUSparse,
            EntryType::GNULongName,
            EntryType::XHeader,
            EntryType::XGlobalHeader,
        ]);
        (name, kind, prop::collection::vec(any::<u8>(), 0..1200)).prop_map(|(name, kind, content)| Member {
            name,
            kind,
            content,
        })
    }

    proptest! {
        #[test]
        fn only_one_regular_file_hermes_is_accepted(members in prop::collection::vec(any_member(), 0..3)) {
            let good = matches!(members.as_slice(), [Member { name: "hermes", kind: EntryType::Regular, .. }]);
            let outcome = unpack(&archive(&members), 2000);
            prop_assert_eq!(outcome.is_ok(), good, "{:?}", outcome);
            if good {
                prop_assert_eq!(&outcome.unwrap(), &members[0].content);
            }
        }

        #[test]
        fn a_damaged_archive_gives_an_error_or_bytes(
            content in prop::collection::vec(any::<u8>(), 0..300),
            place in any::<prop::sample::Index>(),
            xor in 1u8..,
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = archive(&[file("hermes", &content)]);
            let place = place.index(bytes.len());
            bytes[place] ^= xor;
            bytes.truncate(cut.index(bytes.len()) + 1);
            let _ = unpack(&bytes, 1000);
        }
    }
}
