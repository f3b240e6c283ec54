//! Fault points: where a drill can make an image fail. Only under the cargo feature `fault-points`; without it every
//! call here is empty and nothing of this is in the binary.
//!
//! What fails, and how, is in the file that `HERMES_FAULTS` names, one fault a line, read anew at each point, so that
//! a drill can change it while the gateway runs:
//!
//! ```text
//! <version> <step> <action>            1.0.1 adopting panic
//! <version> <call> <errno> once|always * memfd_create ENOSPC always
//! ```
//!
//! `*` stands for every version. A fault is hit once, and its line is gone before it acts, so that the image that
//! follows does not hit it again; `always` keeps it.

/// The numbered steps of a handoff, from the request to the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A handoff was asked for.
    Requested,
    /// A release is staged and verified.
    Staged,
    /// Everything is frozen for the rehearsal.
    Rehearsed,
    /// The preflight child runs this.
    Checking,
    /// The preflight has passed.
    Checked,
    /// The store and the slots know of the handoff.
    WrittenDown,
    /// Sends in flight have finished.
    Drained,
    /// Every part is frozen.
    Frozen,
    /// The state is in the memfd.
    Sealed,
    /// The service manager was told; execve is next.
    BeforeExec,
    /// The first statement of the new image.
    Main,
    /// The state was read and the fds claimed.
    Claimed,
    /// The parts are being taken over.
    Adopting,
    /// All parts are taken over; `READY=1` is next.
    Adopted,
    /// `READY=1` was sent.
    Ready,
    /// Everything goes on.
    Serving,
    /// The event loop has ticked on probation.
    Ticked,
    /// The probation is over.
    Committing,
    /// The update is the proven version.
    Committed,
}

impl Step {
    /// All of them, in the order of time.
    pub const ALL: [Self; 19] = [
        Self::Requested,
        Self::Staged,
        Self::Rehearsed,
        Self::Checking,
        Self::Checked,
        Self::WrittenDown,
        Self::Drained,
        Self::Frozen,
        Self::Sealed,
        Self::BeforeExec,
        Self::Main,
        Self::Claimed,
        Self::Adopting,
        Self::Adopted,
        Self::Ready,
        Self::Serving,
        Self::Ticked,
        Self::Committing,
        Self::Committed,
    ];

    /// Its name in the file of faults.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Staged => "staged",
            Self::Rehearsed => "rehearsed",
            Self::Checking => "checking",
            Self::Checked => "checked",
            Self::WrittenDown => "written-down",
            Self::Drained => "drained",
            Self::Frozen => "frozen",
            Self::Sealed => "sealed",
            Self::BeforeExec => "before-exec",
            Self::Main => "main",
            Self::Claimed => "claimed",
            Self::Adopting => "adopting",
            Self::Adopted => "adopted",
            Self::Ready => "ready",
            Self::Serving => "serving",
            Self::Ticked => "ticked",
            Self::Committing => "committing",
            Self::Committed => "committed",
        }
    }
}

/// System calls that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// memfd_create(2).
    MemfdCreate,
    /// execveat(2) of the new image.
    Exec,
    /// fork(2) of a child: an agent, the preflight.
    Fork,
    /// dup(2) of what is carried.
    Dup,
    /// Writing below `versions/`.
    WriteVersions,
    /// Writing into the database.
    WriteStore,
    /// Writing `gateway_state.json`.
    WriteState,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::MemfdCreate, Self::Exec, Self::Fork, Self::Dup, Self::WriteVersions, Self::WriteStore, Self::WriteState];

    /// Its name in the file of faults.
    pub fn name(self) -> &'static str {
        match self {
            Self::MemfdCreate => "memfd_create",
            Self::Exec => "execve",
            Self::Fork => "fork",
            Self::Dup => "dup",
            Self::WriteVersions => "write-versions",
            Self::WriteStore => "write-store",
            Self::WriteState => "write-state",
        }
    }
}

#[cfg(feature = "fault-points")]
pub use planned::{at, io};

/// Does nothing: the feature `fault-points` is off.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn at(_step: Step) {}

/// Does nothing: the feature `fault-points` is off.
///
/// # Errors
/// None.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn io(_call: Call) -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "fault-points")]
mod planned {
    use std::io;
    use std::path::PathBuf;

    use nix::errno::Errno;
    use nix::sys::signal::{Signal, raise};

    use super::{Call, Step};

    /// Fails here if that is planned.
    pub fn at(step: Step) {
        if let Some(action) = take(step.name()) {
            act(&action, step.name());
        }
    }

    /// Fails if that is planned.
    ///
    /// # Errors
    /// The planned one.
    pub fn io(call: Call) -> io::Result<()> {
        match take(call.name()) {
            Some(errno) => Err(io::Error::from_raw_os_error(match errno.as_str() {
                "ENOSPC" => Errno::ENOSPC as i32,
                "EMFILE" => Errno::EMFILE as i32,
                "ENOMEM" => Errno::ENOMEM as i32,
                "EAGAIN" => Errno::EAGAIN as i32,
                "EROFS" => Errno::EROFS as i32,
                other => panic!("the drill knows no errno {other}"),
            })),
            None => Ok(()),
        }
    }

    /// The action planned for `point`; its line is gone then, unless it says `always`.
    fn take(point: &str) -> Option<String> {
        let path = PathBuf::from(std::env::var_os("HERMES_FAULTS")?);
        let plan = std::fs::read_to_string(&path).ok()?;
        let version = crate::version::version();
        let mut found = None;
        let mut rest = Vec::new();
        for line in plan.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [for_version, at, action, how @ ..]
                    if found.is_none() && *at == point && (*for_version == "*" || *for_version == version) =>
                {
                    found = Some((*action).to_owned());
                    if how == ["always"] {
                        rest.push(line);
                    }
                }
                _ => rest.push(line),
            }
        }
        let found = found?;
        let new = path.with_extension("new");
        std::fs::write(&new, rest.join("\n"))
            .and_then(|()| std::fs::rename(&new, &path))
            .expect("the drill's own file");
        Some(found)
    }

    #[expect(clippy::exit, reason = "an image that exits is what is drilled")]
    fn act(action: &str, point: &str) {
        eprintln!("fault point {point}: {action}");
        match action {
            "exit0" => std::process::exit(0),
            "exit1" => std::process::exit(1),
            "segv" => drop(raise(Signal::SIGSEGV)),
            "bus" => drop(raise(Signal::SIGBUS)),
            "abort" => std::process::abort(),
            "kill" => drop(raise(Signal::SIGKILL)),
            "term" => drop(raise(Signal::SIGTERM)),
            "usr1" => drop(raise(Signal::SIGUSR1)),
            "panic" => panic!("planned at fault point {point}"),
            "hang" => loop {
                std::thread::park();
            },
            "memory" => {
                let mut all = Vec::new();
                loop {
                    all.push(vec![1_u8; 16 << 20]);
                }
            }
            other => panic!("the drill knows no action {other}"),
        }
    }
}
