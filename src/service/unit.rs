//! What the launcher and the gateway tell each other about the unit, in `$RUNTIME_DIRECTORY` (`src/launch/unit.rs`).
//!
//! Without a `$RUNTIME_DIRECTORY`, which is outside of the unit, nothing is told.

use std::fs;
use std::path::PathBuf;

use crate::config::Environment;

/// The files of the unit.
#[derive(Clone, Debug, Default)]
pub struct UnitFiles {
    directory: Option<PathBuf>,
}

impl UnitFiles {
    /// Those of this process's unit.
    pub fn from_env(env: &Environment) -> Self {
        Self { directory: env.directory("RUNTIME_DIRECTORY") }
    }

    /// Whether the stop that was asked for is one half of a restart: then whoever is started next goes on with the
    /// agents.
    pub fn stops_for_a_restart(&self) -> bool {
        let word = self.directory.as_ref().and_then(|directory| fs::read_to_string(directory.join("stop")).ok());
        word.is_some_and(|word| word.trim() == "restart")
    }

    /// Tells the launcher that this end was asked for, unless it told us so: else it would start the gateway again.
    pub fn note_stop(&self) {
        let Some(directory) = &self.directory else { return };
        let path = directory.join("stop");
        if path.exists() {
            return;
        }
        if let Err(error) = fs::write(&path, "stop\n") {
            tracing::warn!(%error, path = %path.display(), "cannot note that the gateway stops on purpose");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_one_for_good_unless_the_launcher_says_otherwise() {
        let dir = tempfile::tempdir().expect("a directory");
        let env: Environment = [("RUNTIME_DIRECTORY", dir.path().to_str().expect("text"))].into_iter().collect();
        let unit = UnitFiles::from_env(&env);
        assert!(!unit.stops_for_a_restart());
        fs::write(dir.path().join("stop"), "restart\n").expect("writes");
        assert!(unit.stops_for_a_restart());
        unit.note_stop();
        assert!(unit.stops_for_a_restart(), "what the launcher says stays");
        fs::remove_file(dir.path().join("stop")).expect("removes");
        unit.note_stop();
        assert_eq!(fs::read_to_string(dir.path().join("stop")).expect("written"), "stop\n");
        assert!(!unit.stops_for_a_restart());
    }
}
