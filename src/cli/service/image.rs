//! The image of this command, put into `versions/` of a home.
//!
//! **Invariant:** root writes nothing into a home that belongs to somebody else, whose agents could have put links
//! there: a child of the home's owner does it, and gets the bytes from its standard input.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use semver::Version;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::error::ServiceError;
use crate::cli::error::CliError;
use crate::cli::home::Home;
use crate::cli::screen;
use crate::report::Chain;
use crate::service::lock::{Lock, LockError};
use crate::slots::Slots;
use crate::update::{Versions, VersionsError};
use crate::version;

/// This program, whatever became of its path.
const SELF: &str = "/proc/self/exe";
/// How long it may take to write an image to a slow disk.
const PLACE_TIMEOUT: Duration = Duration::from_secs(120);

/// An image in `versions/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Placed {
    pub(super) version: String,
    pub(super) sha256: String,
    /// Whether a gateway runs on the home: then it decides what is current.
    pub(super) is_running: bool,
}

/// Puts this program into `versions/` of a home that is there. If no gateway runs there it is what starts next.
pub(super) async fn place(home: &Path) -> Result<Placed, ServiceError> {
    let owner = fs::metadata(home).map_err(ServiceError::io("look at", home))?;
    if nix::unistd::geteuid().is_root() && owner.uid() != 0 {
        return place_as(home, owner.uid(), owner.gid()).await;
    }
    let home = home.to_owned();
    let place = move || {
        let mut program = File::open(SELF).map_err(ServiceError::io("read", SELF))?;
        place_here(&home, &mut program)
    };
    tokio::task::spawn_blocking(place).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// `hermes install-image`: places the image on standard input, which is this program's.
pub(in crate::cli) fn run_child(home: &Home) -> Result<(), CliError> {
    let placed = place_here(&home.path, &mut io::stdin().lock()).map_err(CliError::Service)?;
    screen::print_json(&placed)
}

async fn place_as(home: &Path, uid: u32, gid: u32) -> Result<Placed, ServiceError> {
    let failed = |why: String| ServiceError::Place { home: home.to_owned(), why };
    let program = File::open(SELF).map_err(ServiceError::io("read", SELF))?;
    let mut command = Command::new(SELF);
    command.arg("--home").arg(home).arg("install-image");
    command.uid(uid).gid(gid).current_dir("/").env_clear().stdin(Stdio::from(program)).kill_on_drop(true);
    let output = tokio::time::timeout(PLACE_TIMEOUT, command.output()).await;
    let output = output.map_err(|_| failed(format!("it was not done within {} s", PLACE_TIMEOUT.as_secs())))?;
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(said.trim().trim_start_matches("error: ").to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

fn place_here(home: &Path, bytes: &mut impl Read) -> Result<Placed, ServiceError> {
    let versions = Versions::new(home);
    let version = Version::parse(version::version()).expect("the version stamp holds a semantic version");
    let image = versions.install(&version, bytes).map_err(ServiceError::Versions)?;
    let mut placed = Placed { version: version.to_string(), sha256: image.sha256, is_running: false };
    match Lock::acquire(&home.join("gateway.lock")) {
        Ok(lock) => {
            start_next(&versions, &version)?;
            drop(lock);
        }
        Err(LockError::Held { .. }) => placed.is_running = true,
        Err(error @ LockError::Io { .. }) => {
            return Err(ServiceError::Place { home: home.to_owned(), why: Chain(&error).to_string() });
        }
    }
    Ok(placed)
}

/// An operator chose it, so it counts as proven. Only who holds the home's lock may call this.
fn start_next(versions: &Versions, version: &Version) -> Result<(), ServiceError> {
    let dir = versions.dir();
    let name = version.to_string();
    // Slots that cannot be read are written anew.
    let mut slots = Slots::read(dir).ok().flatten().unwrap_or_default();
    if slots.proven.as_ref() != Some(&name) {
        slots.previous = slots.proven.replace(name.clone());
    }
    slots.trial = None;
    slots.failed.take_if(|failed| failed.version == name);
    let failed = |source: crate::slots::SlotsError| ServiceError::Io {
        what: "write the slots in",
        path: dir.to_owned(),
        source: io::Error::other(source),
    };
    slots.write(dir).map_err(failed)?;
    versions.set_current(version).map_err(|error: VersionsError| ServiceError::Versions(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_placed_starts_next_unless_a_gateway_runs() {
        let home = tempfile::tempdir().expect("a directory");
        let versions = Versions::new(home.path());
        let version = Version::parse(version::version()).expect("a version");
        let old = Version::new(0, 0, 1);
        versions.install(&old, &mut b"old".as_slice()).expect("installs");
        start_next(&versions, &old).expect("writes");

        let lock = Lock::acquire(&home.path().join("gateway.lock")).expect("free");
        let placed = place_here(home.path(), &mut b"new".as_slice()).expect("places");
        assert!(placed.is_running);
        assert_eq!(versions.current().expect("a link"), Some(old));
        drop(lock);

        let placed = place_here(home.path(), &mut b"new".as_slice()).expect("places");
        assert!(!placed.is_running);
        assert_eq!(versions.current().expect("a link"), Some(version.clone()));
        let slots = Slots::read(versions.dir()).expect("reads").expect("there");
        assert_eq!((slots.proven, slots.previous), (Some(version.to_string()), Some("0.0.1".to_owned())));
    }
}
