//! Whether a file can be an image, before it is executed.
//!
//! execvp(3), by which std executes, gives a file that the kernel refuses with ENOEXEC to `/bin/sh`. The shell would end
//! at once as if the image had, and no other candidate would get its turn. So what execve(2) would refuse as no program,
//! or what has lost its end, is found out here.
//!
//! **Invariant:** a file that cannot be read is no reason to refuse it: then execve says why.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const ELF: &[u8; 4] = b"\x7fELF";
/// The header of a 64-bit file, elf(5): bytes.
const HEADER: usize = 64;
/// A program header of a 64-bit file, elf(5): bytes.
const PROGRAM_HEADER: usize = 56;
/// Linux loads no file with more program headers: they fit 64 KiB.
const PROGRAM_HEADERS_MAX: u16 = 1170;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
/// ET_EXEC and ET_DYN.
const TYPES: [u16; 2] = [2, 3];
/// PT_LOAD.
const LOAD: u32 = 1;
/// PT_INTERP.
const INTERPRETER: u32 = 3;

/// Why the file can be no image; nothing if it can, or if it cannot be told.
pub fn defect(path: &Path) -> Option<&'static str> {
    // A FIFO would keep its reader waiting; execve refuses it.
    let length = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.len();
    let file = File::open(path).ok()?;
    let mut header = [0; HEADER];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => {}
        // A script may be shorter.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let mut start = [0; 2];
            return match file.read_exact_at(&mut start, 0) {
                Ok(()) if start == *b"#!" => None,
                _ => Some("it is no program"),
            };
        }
        Err(_) => return None,
    }
    if header.starts_with(b"#!") {
        return None;
    }
    if !header.starts_with(ELF) {
        return Some("it is no program");
    }
    // What this very program is, so that nothing need be known of machines.
    let own = File::open("/proc/self/exe").ok().and_then(|file| {
        let mut own = [0; HEADER];
        file.read_exact_at(&mut own, 0).ok().map(|()| own)
    });
    if own.is_some_and(|own| own[4..6] != header[4..6] || own[18..20] != header[18..20]) {
        return Some("it is for another kind of machine");
    }
    if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN {
        // Like this program, so a kernel runs it; the rest of its header is not read here.
        return None;
    }
    elf_defect(&file, &header, length)
}

/// For a file of 64 bits and little endian.
fn elf_defect(file: &File, header: &[u8; HEADER], length: u64) -> Option<&'static str> {
    const MALFORMED: Option<&str> = Some("its header is malformed");
    const TRUNCATED: Option<&str> = Some("its end is missing");
    let count = u16_at(header, 56);
    let size = u16_at(header, 54);
    if !TYPES.contains(&u16_at(header, 16)) || usize::from(size) != PROGRAM_HEADER {
        return MALFORMED;
    }
    if count == 0 || count > PROGRAM_HEADERS_MAX {
        return MALFORMED;
    }
    let table = u64_at(header, 32);
    for index in 0..u64::from(count) {
        let mut entry = [0; PROGRAM_HEADER];
        let Some(at) = table.checked_add(index * u64::from(size)) else { return MALFORMED };
        if file.read_exact_at(&mut entry, at).is_err() {
            return TRUNCATED;
        }
        let kind = u32_at(&entry, 0);
        let end = u64_at(&entry, 8).checked_add(u64_at(&entry, 32));
        if [LOAD, INTERPRETER].contains(&kind) && end.is_none_or(|end| end > length) {
            return TRUNCATED;
        }
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn defect_of(bytes: &[u8]) -> Option<&'static str> {
        let file = tempfile::NamedTempFile::new().expect("creates");
        fs::write(file.path(), bytes).expect("writes");
        defect(file.path())
    }

    fn own() -> Vec<u8> {
        fs::read("/proc/self/exe").expect("reads")
    }

    #[test]
    fn programs_and_scripts_are_images() {
        assert_eq!(defect(Path::new("/proc/self/exe")), None);
        assert_eq!(defect(Path::new("/bin/sh")), None);
        assert_eq!(defect_of(b"#!/bin/sh\n"), None);
        assert_eq!(defect_of(format!("#!/bin/sh\n{}", "x".repeat(99)).as_bytes()), None);
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused() {
        for wrong in [&b""[..], b"#", b"MZ", b"echo this is no script", &[0; 4096], &own()[..63]] {
            assert_eq!(defect_of(wrong), Some("it is no program"));
        }
        let mut foreign = own();
        foreign[18] ^= 0xff;
        assert_eq!(defect_of(&foreign[..4096]), Some("it is for another kind of machine"));
        let mut object = own();
        object[16] = 1;
        assert_eq!(defect_of(&object), Some("its header is malformed"));
    }

    #[test]
    fn what_has_lost_its_end_is_refused() {
        let own = own();
        for length in [64, 100, 4096, 1 << 16] {
            assert_eq!(defect_of(&own[..length]), Some("its end is missing"), "{length} bytes");
        }
    }

    #[test]
    fn what_cannot_be_read_is_left_to_the_kernel() {
        assert_eq!(defect(Path::new("/no/such/file")), None);
        assert_eq!(defect(Path::new("/")), None);
    }

    proptest! {
        #[test]
        fn no_header_is_too_much(header in proptest::collection::vec(any::<u8>(), 58), tail in 0_usize..200) {
            let mut bytes = own()[..6].to_vec();
            bytes.extend(header);
            bytes.resize(HEADER + tail, 0xff);
            bytes[18..20].copy_from_slice(&own()[18..20]);
            let _ = defect_of(&bytes);
        }
    }
}
