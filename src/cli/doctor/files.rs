//! What is on disk: configuration, permissions, images, the database, room.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};

use super::{Check, Finding, Patient};
use crate::report::Chain;
use crate::slots::Slots;
use crate::store::Store;
use crate::units::size;
use crate::update::Versions;

/// Less room than this, and an update cannot be unpacked.
const ROOM_MIN: u64 = 256 << 20;
/// Less than this, and messages may not be stored.
const ROOM_LEAST: u64 = 32 << 20;
/// Fewer new files than this are little.
const INODES_MIN: u64 = 1000;

pub(super) fn configuration(patient: &Patient) -> Vec<Finding> {
    let check = Check::Configuration;
    match &patient.config {
        Err(why) => vec![Finding::fail(check, why.clone(), "correct it; docs/configuration.md lists all keys")],
        Ok(config) => {
            let Ok(paths) = &patient.paths else { return Vec::new() };
            let file = paths.config_file();
            if !file.exists() {
                let what = format!("there is no {}: the defaults are used", file.display());
                return vec![Finding::note(check, what)];
            }
            let platforms: Vec<&str> = config.platforms().map(|(name, _)| name).collect();
            let platforms = if platforms.is_empty() { "none".to_owned() } else { platforms.join(", ") };
            let agents: Vec<String> = config.agents.keys().map(ToString::to_string).collect();
            let usable = format!("{} is usable", file.display());
            let what = format!("{usable} (platforms: {platforms}; agents: {})", agents.join(", "));
            let nobody = config.platforms().filter(|(_, access)| access.allow_from.is_empty() && !access.pairing);
            let mut found: Vec<Finding> = nobody
                .map(|(name, _)| {
                    let what = format!("nobody may talk on {name}: allow_from is empty and pairing is off");
                    Finding::warn(check, what, format!("name people in allow_from of [platforms.{name}]"))
                })
                .collect();
            found.push(Finding::ok(check, what));
            found
        }
    }
}

/// Others may read none of these, and write none of them.
pub(super) fn permissions(patient: &Patient) -> Vec<Finding> {
    let check = Check::Permissions;
    let home = match fs::metadata(&patient.home.path) {
        Ok(home) => home,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let what = format!("there is no {}: nothing ran here", patient.home.path.display());
            return vec![Finding::note(check, what)];
        }
        Err(error) => {
            let what = format!("cannot look at {}: {error}", patient.home.path.display());
            return vec![Finding::fail(check, what, "run this as the gateway's user or as root")];
        }
    };
    let mut found = Vec::new();
    if home.uid() != nix::unistd::geteuid().as_raw() && !nix::unistd::geteuid().is_root() {
        let what = format!("{} belongs to somebody else (uid {})", patient.home.path.display(), home.uid());
        found.push(Finding::warn(check, what, "run this as the gateway's user or as root"));
    }
    for path in private_files(patient) {
        let Ok(file) = fs::metadata(&path) else { continue };
        let mode = file.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let right = if file.is_dir() { "700" } else { "600" };
            let what = format!("others may use {} (mode {mode:03o})", path.display());
            found.push(Finding::warn(check, what, format!("chmod {right} {}", path.display())));
        } else if file.uid() != home.uid() {
            let what = format!("{} does not belong to the home's owner (uid {})", path.display(), file.uid());
            found.push(Finding::warn(check, what, format!("chown {} {}", home.uid(), path.display())));
        }
    }
    if found.is_empty() {
        found.push(Finding::ok(check, "nobody else can read the home, its secrets or its state"));
    }
    found
}

fn private_files(patient: &Patient) -> Vec<PathBuf> {
    let mut files = vec![patient.home.path.clone()];
    files.extend(["state.db", "state.db-wal"].map(|name| patient.path(name)));
    if let Ok(paths) = &patient.paths {
        files.push(paths.config_file().to_owned());
        files.extend(secret_files(paths.config_file()));
    }
    files
}

/// The files that keys `*_file` of gateway.toml name. Systemd's credentials are its own business.
fn secret_files(config: &Path) -> Vec<PathBuf> {
    let Ok(table) = fs::read_to_string(config).unwrap_or_default().parse::<toml::Table>() else { return Vec::new() };
    let mut found = Vec::new();
    let mut left: Vec<&toml::Table> = vec![&table];
    while let Some(table) = left.pop() {
        for (key, value) in table {
            match value {
                toml::Value::Table(inner) => left.push(inner),
                toml::Value::String(path) if key.ends_with("_file") => {
                    found.push(config.parent().unwrap_or(Path::new("/")).join(path));
                }
                _ => {}
            }
        }
    }
    found
}

pub(super) fn versions(patient: &Patient) -> Vec<Finding> {
    let check = Check::Versions;
    let versions = Versions::new(&patient.home.path);
    if !versions.dir().exists() {
        let what = "there is no versions/: the gateway runs from elsewhere until it is installed or updated";
        return vec![Finding::note(check, what)];
    }
    let again = "hermes gateway install puts an image there";
    let mut found = Vec::new();
    match versions.current() {
        Ok(Some(version)) => {
            let path = versions.path(&version);
            let image = fs::metadata(&path);
            if !image.as_ref().is_ok_and(|image| image.is_file() && image.permissions().mode() & 0o100 != 0) {
                let what = format!("versions/current is {version}, and {} cannot be run", path.display());
                found.push(Finding::fail(check, what, again));
            }
        }
        Ok(None) => found.push(Finding::warn(check, "versions/ has no current version", again)),
        Err(error) => found.push(Finding::fail(check, Chain(&error).to_string(), again)),
    }
    match Slots::read(versions.dir()) {
        Ok(None) => {}
        Ok(Some(slots)) => found.extend(slots_findings(&slots, &versions)),
        Err(error) => {
            let fix = "the launcher starts versions/current without it; the next update writes it anew";
            found.push(Finding::warn(check, Chain(&error).to_string(), fix));
        }
    }
    if found.iter().all(|finding| finding.level <= super::Level::Note) {
        let listed = versions.list().unwrap_or_default();
        let listed: Vec<String> = listed.iter().map(ToString::to_string).collect();
        found.push(Finding::ok(check, format!("versions/ has {}", listed.join(", "))));
    }
    found
}

fn slots_findings(slots: &Slots, versions: &Versions) -> Vec<Finding> {
    let check = Check::Versions;
    let is_there =
        |version: &str| semver::Version::parse(version).is_ok_and(|version| versions.path(&version).is_file());
    let mut found = Vec::new();
    if let Some(proven) = slots.proven.as_deref().filter(|version| !is_there(version)) {
        let what = format!("the proven version {proven} is not in versions/: there is no way back to it");
        found.push(Finding::warn(
            check,
            what,
            format!("hermes self-update --version {proven}, or update to a newer one"),
        ));
    }
    if let Some(failed) = &slots.failed {
        found.push(Finding::note(check, format!("{} failed here: {}", failed.version, failed.reason)));
    }
    if let Some(trial) = &slots.trial {
        found.push(Finding::note(check, format!("{} is on trial", trial.version)));
    }
    found
}

pub(super) async fn database(patient: &Patient) -> Vec<Finding> {
    let check = Check::Database;
    let path = patient.path("state.db");
    if !path.exists() {
        return vec![Finding::note(check, "there is no database yet")];
    }
    let aside = "stop the gateway and start it: it sets a damaged database aside, tells you its name, and goes on";
    // A large one takes a while, and nothing else waits for it.
    match tokio::task::spawn_blocking(move || Store::check(&path)).await {
        Ok(Ok(())) => vec![Finding::ok(check, "state.db is sound")],
        Ok(Err(error)) => vec![Finding::fail(check, Chain(&error).to_string(), aside)],
        Err(error) => vec![Finding::fail(check, format!("the check of state.db crashed: {error}"), aside)],
    }
}

pub(super) fn disk(patient: &Patient) -> Vec<Finding> {
    let check = Check::Disk;
    let Some((place, room)) = file_system(&patient.home.path) else {
        return vec![Finding::note(check, "the file system of the home does not say how much room it has")];
    };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let place = place.display();
    let mut found = Vec::new();
    let fix = "make room: without it messages cannot be stored, nor updates unpacked";
    if free < ROOM_LEAST {
        found.push(Finding::fail(check, format!("{} left at {place}", size(free)), fix));
    } else if free < ROOM_MIN {
        found.push(Finding::warn(check, format!("{} left at {place}", size(free)), fix));
    }
    // Some file systems have no bound, and say 0 of 0.
    if room.f_files > 0 && room.f_favail < INODES_MIN {
        let what = format!("{} more files can be made at {place} (inodes)", room.f_favail);
        found.push(Finding::warn(check, what, "remove files that nobody needs"));
    }
    if found.is_empty() {
        found.push(Finding::ok(check, format!("{} left at {place}", size(free))));
    }
    found
}

/// Whether an image in `versions/` may be run, and from memory.
pub(super) fn kernel(patient: &Patient) -> Vec<Finding> {
    let check = Check::Kernel;
    let mut found = Vec::new();
    if let Err(error) = crate::sys::memfd::seal("hermes-doctor", b"x") {
        let fix = "a container or a sandbox forbids memfd_create(2); allow it";
        found.push(Finding::fail(check, Chain(&error).to_string(), fix));
    }
    if let Err(error) = fs::File::open("/proc/self/exe") {
        let what = format!("/proc is not usable: {error}");
        found.push(Finding::fail(check, what, "mount proc(5) on /proc: a restart opens the running image there"));
    }
    if let Some((place, mount)) = file_system(&patient.path("versions"))
        && mount.f_flag.contains(StatVfsMountFlags::NOEXEC)
    {
        let what = format!("{} is mounted noexec: no version in it can be run", place.display());
        found.push(Finding::fail(check, what, "mount it without noexec, or move the home with HERMES_HOME"));
    }
    if found.is_empty() {
        found.push(Finding::ok(check, "images can be replaced (memfd, /proc, no noexec)"));
    }
    found
}

/// That of the nearest directory which is there.
fn file_system(path: &Path) -> Option<(&Path, StatVfs)> {
    path.ancestors().find_map(|place| Some((place, statvfs(place).ok()?)))
}
