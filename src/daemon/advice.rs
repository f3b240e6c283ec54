//! What an operator should know at the start: whether anything starts the gateway again when it is killed.
//!
//! The gateway itself can neither see nor change the unit that runs it. The launcher, which the unit starts, writes
//! what it read there into the file `unit` in the unit's RuntimeDirectory=, as `Key=value` lines.

use std::path::Path;

use crate::config::Environment;

/// The launcher's file in `$RUNTIME_DIRECTORY`.
const UNIT_FILE: &str = "unit";
/// What is read of it at most, in bytes.
const UNIT_FILE_BYTES_MAX: u64 = 4096;

/// One thing to say, once, at a start that is no handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Nobody restarts a gateway that is killed.
    NoServiceManager,
    /// The unit says that it is not to be restarted.
    NeverRestarted,
}

/// Looks at the environment and the launcher's file. `pid` is that of this process.
pub(super) fn advice(environment: &Environment, pid: u32) -> Option<Advice> {
    // As PID 1 of a container there may be a NOTIFY_SOCKET of the container's manager, which restarts nothing in here.
    if environment.get("NOTIFY_SOCKET").is_none() || pid == 1 {
        return Some(Advice::NoServiceManager);
    }
    let directory = environment.directory("RUNTIME_DIRECTORY")?;
    never_restarts(&read(&directory.join(UNIT_FILE))).then_some(Advice::NeverRestarted)
}

impl Advice {
    /// In words.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::NoServiceManager => {
                "not run by systemd: nothing starts a gateway again that is killed, and its agents end with it; as a \
                 systemd service it would be started again and go on with its agents and their running turns"
            }
            Self::NeverRestarted => {
                "the unit has Restart=no: a gateway that is killed stays dead; set Restart=on-failure in the unit"
            }
        }
    }

    /// Writes it to the log.
    pub(super) fn log(self) {
        match self {
            Self::NoServiceManager => tracing::info!("{}", self.text()),
            Self::NeverRestarted => tracing::warn!("{}", self.text()),
        }
    }
}

/// Whether the last `Restart=` is `no`. An empty value is the default, which is `no` (systemd.service(5)); without the
/// line nothing is known.
fn never_restarts(unit: &str) -> bool {
    let last = unit.lines().rev().find_map(|line| line.trim().strip_prefix("Restart="));
    last.is_some_and(|value| matches!(value.trim(), "no" | ""))
}

/// A file that is not there or cannot be read says nothing.
fn read(path: &Path) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(UNIT_FILE_BYTES_MAX).read_to_end(&mut text));
    if let Err(error) = read
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::debug!(%error, path = %path.display(), "cannot read what the launcher wrote");
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn advice_for(variables: &[(&str, &str)], pid: u32) -> Option<Advice> {
        advice(&variables.iter().copied().collect(), pid)
    }

    #[test]
    fn outside_of_a_service_manager_nothing_restarts_it() {
        assert_eq!(advice_for(&[], 7), Some(Advice::NoServiceManager));
        assert_eq!(advice_for(&[("NOTIFY_SOCKET", "/run/notify")], 1), Some(Advice::NoServiceManager));
        assert_eq!(advice_for(&[("NOTIFY_SOCKET", "/run/notify")], 7), None);
    }

    #[test]
    fn a_unit_that_is_never_restarted_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().to_str().expect("text");
        let told = |directory: &str| advice_for(&[("NOTIFY_SOCKET", "/n"), ("RUNTIME_DIRECTORY", directory)], 7);
        assert_eq!(told(path), None, "no file");
        assert_eq!(told("/no/such/directory"), None);
        for (unit, expected) in [
            ("Restart=no\n", Some(Advice::NeverRestarted)),
            ("KillMode=process\nRestart=\n", Some(Advice::NeverRestarted)),
            ("Restart=no\nRestart=on-failure\n", None),
            ("Restart=always\n", None),
            ("RestartSec=1\n", None),
            ("", None),
        ] {
            std::fs::write(dir.path().join(UNIT_FILE), unit).expect("written");
            assert_eq!(told(path), expected, "{unit:?}");
        }
        std::fs::write(dir.path().join(UNIT_FILE), [0xff, b'\n', b'R']).expect("written");
        assert_eq!(told(path), None);
    }

    proptest! {
        #[test]
        fn any_file_is_read_without_a_panic(unit in ".*") {
            let _said = never_restarts(&unit);
        }
    }
}
