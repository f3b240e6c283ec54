//! The unit that this process is in, by its control group (cgroups(7), version 2).
//!
//! **Invariants**
//! - Only a service is a unit here: from a shell in somebody's session nothing is found, and so nothing ended.
//! - What is listed is in the unit's own group or below it, and never this process.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// The service that this process is in.
#[derive(Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name, with `.service`.
    pub name: String,
    /// Whether it is one of a user's service manager.
    pub of_user: bool,
    directory: PathBuf,
}

/// The service that this process is in.
pub fn own_unit() -> Result<Unit, String> {
    let text =
        fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("cannot read /proc/self/cgroup: {error}"))?;
    parse(&text).ok_or_else(|| "this is no process of a service: only its unit may call this".to_owned())
}

/// Finds the service in the content of /proc/self/cgroup: the innermost unit of the path, which must be one. What
/// else is below it (`.control`) was made for it.
fn parse(text: &str) -> Option<Unit> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let names: Vec<&str> = path.split('/').collect();
    let is_unit = |name: &&str| [".service", ".scope", ".slice"].iter().any(|suffix| name.ends_with(suffix));
    let at = names.iter().rposition(is_unit)?;
    let (above, unit) = (&names[..at], names[at]);
    // A leading `_` keeps a name apart from those of the kernel's own files.
    let name = unit.strip_prefix('_').unwrap_or(unit);
    let plain = unit.ends_with(".service") && names.iter().all(|name| !["", ".", ".."].contains(name));
    plain.then(|| Unit {
        name: name.to_owned(),
        of_user: above.iter().any(|name| name.starts_with("user@")),
        directory: names[..=at].iter().fold(PathBuf::from(ROOT), |path, name| path.join(name)),
    })
}

impl Unit {
    /// The processes of the unit but this one. Those that cannot be seen, for they have no PID here, are left out.
    pub fn others(&self) -> Vec<u32> {
        let own = std::process::id();
        let mut found = Vec::new();
        let mut groups = vec![self.directory.clone()];
        while let Some(group) = groups.pop() {
            let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            // To a kill(2) of 0 or less a whole group would listen, and 1 is none of the unit.
            found.extend(pids.lines().filter_map(|pid| pid.parse::<u32>().ok()).filter(|pid| *pid > 1 && *pid != own));
            groups.extend(below(&group));
        }
        found
    }
}

fn below(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_unit_must_be_a_service() {
        let found = |path: &str| parse(&format!("1:name=systemd:/x.service\n0::{path}\n"));
        let unit = found("/system.slice/hermes-gateway.service").expect("a service");
        assert_eq!((unit.name.as_str(), unit.of_user), ("hermes-gateway.service", false));
        assert_eq!(unit.directory, Path::new("/sys/fs/cgroup/system.slice/hermes-gateway.service"));
        assert_eq!(found("/system.slice/hermes-gateway.service/.control"), Some(unit));
        let unit =
            found("/user.slice/user-7.slice/user@7.service/app.slice/hermes-gateway.service").expect("a service");
        assert_eq!((unit.name.as_str(), unit.of_user), ("hermes-gateway.service", true));
        for no_service in [
            "/",
            "/init.scope",
            "/user.slice/user-7.slice/user@7.service/app.slice/terminal.scope",
            "/user.slice/user-7.slice/session-1.scope",
            "/system.slice",
            "/../x.service",
            "//x.service",
        ] {
            assert_eq!(found(no_service), None, "{no_service}");
        }
        assert_eq!(parse("12:pids:/system.slice/x.service\n"), None, "version 1");
    }
}
