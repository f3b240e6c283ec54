//! The program's version, in a place of the binary where a release can set it.
//!
//! [`version`] reads a block of fixed size that the linker keeps: a mark, then the version, then NUL bytes. So
//! `scripts/release --bin` can give a copy of a built binary another version without a second build, and no
//! other byte of it changes. The signature is made after that.
//!
//! **Invariants**
//! - The mark stands exactly once in the binary: nothing but the block may hold it, so no code that the binary runs may
//!   use [`STAMP_MARK`] as a string.
//! - The block is read through [`black_box`], or the compiler would put the version of build time in its place.

use std::hint::black_box;

/// What the version block begins with.
pub const STAMP_MARK: &str = "hermes-version-stamp:";
/// The size of the version block in bytes.
pub const STAMP_SIZE: usize = 96;
/// The longest version that fits, in bytes; at least one NUL ends it.
pub const VERSION_LEN_MAX: usize = 64;

/// Where the version begins in the block. A constant, because an unoptimised build keeps the string of which it takes
/// the length.
const VERSION_AT: usize = STAMP_MARK.len();

const _: () = assert!(VERSION_AT + VERSION_LEN_MAX < STAMP_SIZE);

#[used]
static STAMP: [u8; STAMP_SIZE] = stamp(env!("CARGO_PKG_VERSION"));

/// The version of this image: a semantic version without a leading `v`.
pub fn version() -> &'static str {
    let text = &black_box(&STAMP)[VERSION_AT..];
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    std::str::from_utf8(&text[..end]).expect("only a semantic version, which is ASCII, is ever stamped")
}

/// The version block that says `version`.
///
/// # Panics
/// If `version` is longer than [`VERSION_LEN_MAX`].
pub const fn stamp(version: &str) -> [u8; STAMP_SIZE] {
    assert!(version.len() <= VERSION_LEN_MAX);
    let mut block = [0; STAMP_SIZE];
    let (mark, rest) = block.split_at_mut(VERSION_AT);
    mark.copy_from_slice(STAMP_MARK.as_bytes());
    rest.split_at_mut(version.len()).0.copy_from_slice(version.as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_was_not_stamped_has_the_version_of_the_package() {
        assert_eq!(version(), env!("CARGO_PKG_VERSION"));
        assert!(semver::Version::parse(version()).is_ok());
    }

    #[test]
    fn a_stamp_is_mark_version_and_nul_bytes() {
        let block = stamp("1.2.3");
        assert!(block.starts_with(b"hermes-version-stamp:1.2.3\0"));
        assert!(block[26..].iter().all(|byte| *byte == 0));
    }
}
