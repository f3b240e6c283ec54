//! The unit files: those of `dist/`, fitted to where a gateway is installed, and what became of them there.
//!
//! An installed file carries the digest of its own text in `X-Hermes-Unit=`, which systemd ignores (systemd.unit(5)). So
//! it is known, without anything kept elsewhere, whether it is as it was written here, whether this version would write
//! another one, and whether somebody else has changed it or written it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::layout::{Layout, SYSTEM_USER};
use super::manager::{SOCKET_UNIT, Scope, UNIT, WEB_UNIT, WEBHOOK_UNIT};
use crate::config::Environment;
use crate::hex;

const SYSTEM: &str = include_str!("../../dist/hermes-gateway.service");
const USER: &str = include_str!("../../dist/hermes-gateway.user.service");
const SOCKET: &str = include_str!("../../dist/hermes-gateway.socket");
const WEBHOOK: &str = include_str!("../../dist/hermes-gateway-webhook.socket");
const WEB: &str = include_str!("../../dist/hermes-gateway-web.socket");
/// What the files of `dist/` call the launcher.
const DIST_LAUNCHER: [&str; 2] = ["/usr/lib/hermes/hermes-launch", "%h/.hermes/bin/hermes-launch"];
const STAMP: &str = "X-Hermes-Unit=";
/// Hex digits of the digest that are written.
const STAMP_DIGITS: usize = 32;
const SECTION: &str = "[Unit]\n";

/// A unit that may be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitKind {
    /// The gateway.
    Gateway,
    /// systemd holds its control socket.
    Socket,
    /// systemd holds the listener of Telegram's webhook.
    Webhook,
    /// systemd holds the listener of the web pages.
    Web,
}

impl UnitKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Gateway, Self::Socket, Self::Webhook, Self::Web];

    /// Those through which whoever connects starts the gateway.
    pub const SOCKETS: [Self; 3] = [Self::Socket, Self::Webhook, Self::Web];

    /// The unit's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => UNIT,
            Self::Socket => SOCKET_UNIT,
            Self::Webhook => WEBHOOK_UNIT,
            Self::Web => WEB_UNIT,
        }
    }

    /// Where its file is installed.
    pub fn path(self, layout: &Layout) -> PathBuf {
        layout.units.join(self.name())
    }
}

/// What an installed unit file is to this version of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum UnitFile {
    /// There is none.
    Missing,
    /// As this version writes it.
    Current,
    /// As another version, or an installation with other options, wrote it: `hermes gateway install` refreshes it.
    Outdated,
    /// Written here, and changed by somebody.
    Edited,
    /// Somebody else's, a package's perhaps.
    Foreign,
}

/// The text of a unit for a place, with its stamp.
pub fn text(kind: UnitKind, layout: &Layout, env: &Environment) -> String {
    let text = match (kind, layout.scope) {
        (UnitKind::Gateway, Scope::System) => SYSTEM.to_owned(),
        (UnitKind::Gateway, Scope::User) => USER.to_owned(),
        (UnitKind::Socket, _) => SOCKET.to_owned(),
        (UnitKind::Webhook, _) => WEBHOOK.to_owned(),
        (UnitKind::Web, _) => WEB.to_owned(),
    };
    stamped(&fitted(text, kind, layout, env))
}

fn fitted(mut text: String, kind: UnitKind, layout: &Layout, env: &Environment) -> String {
    let runtime = &layout.runtime;
    match layout.scope {
        Scope::System => {
            let user = layout.user.as_deref().unwrap_or(SYSTEM_USER);
            text = text.replace(DIST_LAUNCHER[0], &layout.launcher.to_string_lossy());
            text = text.replace(&format!("User={SYSTEM_USER}\n"), &format!("User={user}\n"));
        }
        Scope::User => {
            text = text.replace("SocketUser=hermes\n", "");
            text = text.replace("/run/hermes-gateway.sock", &format!("%t/{runtime}-gateway.sock"));
            text = text.replace("RuntimeDirectory=hermes\n", &format!("RuntimeDirectory={runtime}\n"));
            if kind == UnitKind::Gateway && layout.home != env.user_home().join(".hermes") {
                text = text.replace(DIST_LAUNCHER[1], &layout.launcher.to_string_lossy());
                let home = format!("RuntimeDirectory={runtime}\nEnvironment=HERMES_HOME={}\n", layout.home.display());
                text = text.replace(&format!("RuntimeDirectory={runtime}\n"), &home);
            }
        }
    }
    text
}

/// Looks at an installed file. `wanted` is what [`text`] says.
///
/// # Errors
/// The file is there and cannot be read.
pub fn look(path: &Path, wanted: &str) -> io::Result<UnitFile> {
    match fs::read_to_string(path) {
        Ok(present) => Ok(judge(&present, wanted)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(UnitFile::Missing),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(UnitFile::Foreign),
        Err(error) => Err(error),
    }
}

/// The home that an installed file of the gateway names, or else the usual one; nothing if hermes did not write it.
///
/// # Errors
/// The file is there and cannot be read.
pub fn home(path: &Path, usual: PathBuf) -> io::Result<Option<PathBuf>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().any(|line| line.starts_with(STAMP)).then(|| named_home(&text).unwrap_or(usual))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(None),
        Err(error) => Err(error),
    }
}

fn named_home(text: &str) -> Option<PathBuf> {
    text.lines().find_map(|line| line.strip_prefix("Environment=HERMES_HOME=")).map(PathBuf::from)
}

fn judge(present: &str, wanted: &str) -> UnitFile {
    if present == wanted {
        return UnitFile::Current;
    }
    let is_stamp = |line: &&str| line.starts_with(STAMP);
    let Some(stamp) = present.lines().find(is_stamp) else { return UnitFile::Foreign };
    let rest: String = present.split_inclusive('\n').filter(|line| !is_stamp(line)).collect();
    if stamp == stamp_of(&rest) { UnitFile::Outdated } else { UnitFile::Edited }
}

fn stamp_of(text: &str) -> String {
    let digest = hex::encode(&Sha256::digest(text.as_bytes()));
    format!("{STAMP}{}", &digest[..STAMP_DIGITS])
}

fn stamped(text: &str) -> String {
    text.replacen(SECTION, &format!("{SECTION}{}\n", stamp_of(text)), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Environment {
        Environment::from_iter([("HOME", "/u/kim")])
    }

    fn system(user: &str) -> Layout {
        Layout::system(Some(user), None).expect("its own home")
    }

    #[test]
    fn the_files_of_dist_are_fitted_to_their_place() {
        let text = text(UnitKind::Gateway, &system("bot"), &env());
        assert!(text.contains("ExecStart=/usr/local/lib/hermes/hermes-launch gateway run\n"), "{text}");
        assert!(text.contains("\nUser=bot\n") && !text.contains("/usr/lib/hermes"), "{text}");
        let socket = super::text(UnitKind::Socket, &system("bot"), &env());
        assert!(socket.contains("SocketUser=bot\n"), "{socket}");
    }

    #[test]
    fn an_installed_file_says_whose_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(UNIT);
        let usual = PathBuf::from("/u/kim/.hermes");
        let found = || home(&file, usual.clone()).expect("reads");
        assert_eq!(found(), None);
        for place in ["/u/kim/.hermes", "/srv/h"] {
            let layout = Layout::user(&env(), Path::new(place)).expect("plain");
            fs::write(&file, text(UnitKind::Gateway, &layout, &env())).expect("writes");
            assert_eq!(found().as_deref(), Some(Path::new(place)));
        }
        fs::write(&file, USER).expect("writes");
        assert_eq!(found(), None, "somebody else's");
    }

    #[test]
    fn a_user_has_the_file_of_dist_and_another_home_is_named_in_it() {
        let usual = Layout::user(&env(), Path::new("/u/kim/.hermes")).expect("plain");
        let unit = text(UnitKind::Gateway, &usual, &env());
        let unstamped: String = unit.split_inclusive('\n').filter(|line| !line.starts_with(STAMP)).collect();
        assert_eq!(unstamped, USER);
        let other = Layout::user(&env(), Path::new("/srv/h")).expect("plain");
        let unit = text(UnitKind::Gateway, &other, &env());
        assert!(unit.contains("ExecStart=/srv/h/bin/hermes-launch gateway run\n"), "{unit}");
        assert!(unit.contains("\nEnvironment=HERMES_HOME=/srv/h\n") && !unit.contains("%h"), "{unit}");
        let socket = text(UnitKind::Socket, &other, &env());
        assert!(socket.contains("ListenStream=%t/hermes-") && !socket.contains("SocketUser"), "{socket}");
    }

    #[test]
    fn what_became_of_a_file_is_known_from_itself() {
        let wanted = text(UnitKind::Gateway, &system("hermes"), &env());
        let older = stamped("[Unit]\nDescription=x\n");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(UNIT);
        assert_eq!(look(&path, &wanted).expect("no error"), UnitFile::Missing);
        for (present, expected) in [
            (wanted.as_str(), UnitFile::Current),
            (&older, UnitFile::Outdated),
            (&text(UnitKind::Gateway, &system("bot"), &env()), UnitFile::Outdated),
            (&older.replace("=x", "=y"), UnitFile::Edited),
            (&wanted.replace("WatchdogSec=30", "WatchdogSec=300"), UnitFile::Edited),
            (SYSTEM, UnitFile::Foreign),
            ("", UnitFile::Foreign),
        ] {
            fs::write(&path, present).expect("writes");
            assert_eq!(look(&path, &wanted).expect("reads"), expected, "{present}");
        }
    }
}
