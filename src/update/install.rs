//! Putting an image into `versions/` that an operator brings: a package's, or that of the program that runs.
//!
//! Nothing is verified here: whoever may write into the home has brought it, and a package manager or
//! `scripts/install` has verified it.

use std::io::Read;

use semver::Version;

use super::versions::{StagedImage, Versions, VersionsError, hash};
use crate::hex;

impl Versions {
    /// Puts `bytes` into `versions/<version>`, in the place of other bytes that are there. `current` is not touched.
    ///
    /// # Errors
    /// [`VersionsError`]; then `versions/` is as it was.
    pub fn install(&self, version: &Version, bytes: &mut impl Read) -> Result<StagedImage, VersionsError> {
        let staging = self.lock()?.begin(version)?;
        let mut out = staging.create_binary()?;
        let path = self.path(version);
        let failed = |what| {
            let path = path.clone();
            move |source| VersionsError::Io { what, path, source }
        };
        std::io::copy(bytes, &mut out).map_err(failed("write"))?;
        let mut file = staging.seal(out)?;
        let sha256 = hex::encode(&hash(&mut file).map_err(failed("read back"))?);
        match self.open(version) {
            Ok(present) if present.sha256 == sha256 => return Ok(present),
            _ => {}
        }
        let is_new = !path.exists();
        let path = staging.publish()?;
        Ok(StagedImage { version: version.clone(), sha256, path, file, is_new })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_takes_the_place_of_other_bytes_of_its_version() {
        let home = tempfile::tempdir().expect("a directory");
        let versions = Versions::new(home.path());
        let version = Version::new(1, 2, 3);
        let first = versions.install(&version, &mut b"first".as_slice()).expect("installs");
        assert!(first.is_new);
        assert!(!versions.install(&version, &mut b"first".as_slice()).expect("is there").is_new);
        let second = versions.install(&version, &mut b"second".as_slice()).expect("replaces");
        assert!(!second.is_new && second.sha256 != first.sha256);
        assert_eq!(std::fs::read(versions.path(&version)).expect("there"), b"second");
        assert_eq!(versions.list().expect("lists"), [version]);
        assert_eq!(std::fs::read_dir(versions.dir()).expect("there").count(), 2, "the lock and the version");
    }
}
