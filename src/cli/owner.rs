//! Root in the home of somebody else.
//!
//! **Invariant:** what the owner of a home, or an agent of theirs, may have put there (a link, a FIFO, a command in
//! gateway.toml) is opened and run with the owner's rights. Who has given up root does not get it back, and the kernel
//! keeps the memory of that process from the owner's other processes (prctl(2), `PR_SET_DUMPABLE`).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User, geteuid, initgroups, setgid, setgroups, setsid, setuid};
use tokio::process::Command;

use super::error::CliError;

/// This program, whatever became of its path.
const SELF: &str = "/proc/self/exe";
/// What a child keeps of the environment of root: what says how to talk to a person, and how to reach the network.
const KEPT: [&str; 14] = [
    "PATH",
    "TERM",
    "COLORTERM",
    "NO_COLOR",
    "LANG",
    "LC_ALL",
    "TZ",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "https_proxy",
    "http_proxy",
    "no_proxy",
];

/// Whose a home is, where this is root and it is not root's.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    uid: Uid,
    gid: Gid,
    /// As the user database knows them.
    user: Option<User>,
}

impl Owner {
    /// Nobody unless this is root, and the home is there and somebody else's.
    pub(super) fn of(home: &Path) -> Option<Self> {
        let uid = fs::metadata(home).ok().map(|meta| (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid())));
        let (uid, gid) = uid.filter(|(uid, _)| geteuid().is_root() && !uid.is_root())?;
        let user = User::from_uid(uid).ok().flatten();
        Some(Self { uid, gid: user.as_ref().map_or(gid, |user| user.gid), user })
    }

    /// Gives up root for good: this process goes on as the owner, with their groups.
    ///
    /// # Errors
    /// [`CliError::Io`]; then it is not to go on.
    pub(super) fn step_down(&self) -> Result<(), CliError> {
        let name = self.user.as_ref().and_then(|user| std::ffi::CString::new(user.name.as_str()).ok());
        let groups = match name {
            Some(name) => initgroups(&name, self.gid),
            None => setgroups(&[self.gid]),
        };
        let done = groups.and_then(|()| setgid(self.gid)).and_then(|()| setuid(self.uid));
        done.map_err(|error| failed(error.into()))
    }

    /// A child that is to [`Self::step_down_apart`] before it does anything else. Its environment is as the owner's.
    pub(super) fn child(&self) -> Command {
        let mut command = Command::new(SELF);
        command.env_clear().envs(self.environment()).current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// As [`Self::step_down`], away from the terminal of root, into which a process could type (ioctl_tty(2),
    /// `TIOCSTI`); and the process ends with its parent.
    ///
    /// # Errors
    /// [`CliError::Io`]; then it is not to go on.
    pub(super) fn step_down_apart(&self) -> Result<(), CliError> {
        setsid().map_err(|error| failed(error.into()))?;
        self.step_down()?;
        prctl::set_pdeathsig(Signal::SIGTERM).map_err(|error| failed(error.into()))
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let kept = KEPT.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
        let runtime = PathBuf::from(format!("/run/user/{}", self.uid));
        let runtime = runtime.is_dir().then(|| ("XDG_RUNTIME_DIR".into(), runtime.into_os_string()));
        let of_user = self.user.iter().flat_map(|user| {
            let name = OsString::from(&user.name);
            [
                ("HOME".into(), user.dir.clone().into_os_string()),
                ("USER".into(), name.clone()),
                ("LOGNAME".into(), name),
            ]
        });
        kept.chain(runtime).chain(of_user).collect()
    }
}

/// Goes on as the owner of the home, if that is not who runs this.
///
/// # Errors
/// [`CliError::Io`].
pub(super) fn step_down(home: &Path) -> Result<(), CliError> {
    Owner::of(home).map_or(Ok(()), |owner| owner.step_down())
}

fn failed(source: io::Error) -> CliError {
    CliError::Io { what: "go on as the owner of the home", source }
}
