//! Replacing the process image by an open file (execveat(2) with AT_EMPTY_PATH).

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::AtFlags;

use crate::fault::{self, Call};

/// Replaces the image of this process by `image`. Returns only when the kernel refused and everything is as before.
///
/// `image` may be CLOEXEC: the kernel holds it on its own. No path is looked up, so these are the bytes that the
/// caller verified.
///
/// # Errors
/// The kernel's reason: ENOEXEC, ENOENT, EACCES, ETXTBSY, E2BIG, …; a NUL byte in an argument is InvalidInput.
pub fn replace_image(
    image: &File,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
) -> Result<Infallible, std::io::Error> {
    let arguments = arguments.into_iter().map(|a| CString::new(a.into_vec())).collect::<Result<Vec<_>, _>>()?;
    let environment = environment
        .into_iter()
        .map(|(mut key, value)| {
            key.push("=");
            key.push(value);
            CString::new(key.into_vec())
        })
        .collect::<Result<Vec<_>, _>>()?;
    fault::io(Call::Execve)?;
    Ok(nix::unistd::execveat(image, c"", &arguments, &environment, AtFlags::AT_EMPTY_PATH)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_program_is_refused_and_the_process_goes_on() {
        use std::io::Write;
        use std::os::unix::fs::PermissionsExt;
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(b"\x7fELF but not really").expect("writes");
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o755)).expect("permits");
        let image = File::open(file.path()).expect("opens");
        drop(file.into_temp_path());
        let error = replace_image(&image, vec!["x".into()], vec![]).expect_err("not a program");
        assert!(error.raw_os_error().is_some(), "{error}");
    }
}
