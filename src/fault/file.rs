//! The file of faults, and what its lines do.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::getpid;
use rustix::fs::{FlockOperation, flock};

use super::{Call, Point};

/// Names the file.
const VARIABLE: &str = "HERMES_FAULTS";
/// What [`Action::Memory`] takes at a time.
const GULP_BYTES: usize = 16 << 20;

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Exit(i32),
    /// To this thread, as a fault of the processor is.
    Raise(Signal),
    /// To the process, as somebody else would send it.
    Send(Signal),
    Panic,
    /// Blocks the thread for good.
    Hang,
    /// Takes memory and touches it until the process is killed.
    Memory,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    At(Point, Action),
    Fails(Call, i32),
    /// The wall clock is wrong, in milliseconds.
    Clock(i64),
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// Only an image of this version heeds it.
    version: Option<semver::Version>,
    fault: Fault,
    always: bool,
}

impl Line {
    /// Reads a line; nothing if it is empty or a comment.
    ///
    /// # Panics
    /// When it is no fault: a drill with a mistake in it must not pass.
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split('#').next().unwrap_or("").split_whitespace().peekable();
        let version = words.peek().and_then(|word| semver::Version::parse(word).ok());
        if version.is_some() {
            words.next();
        }
        let name = words.next()?;
        let fault = words.next().and_then(|what| fault(name, what));
        let fault = fault.unwrap_or_else(|| panic!("{VARIABLE}: '{text}' is no fault"));
        let always = words.next() == Some("always") || matches!(fault, Fault::Clock(_));
        Some(Self { version, fault, always })
    }

    fn is_for_us(&self) -> bool {
        self.version.as_ref().is_none_or(|version| version.to_string() == crate::version::version())
    }
}

fn fault(name: &str, what: &str) -> Option<Fault> {
    if name == "clock" {
        return what.parse::<i64>().ok()?.checked_mul(1000).map(Fault::Clock);
    }
    if let Some(point) = Point::ALL.iter().find(|point| point.name() == name) {
        return action(what).map(|action| Fault::At(*point, action));
    }
    let call = Call::ALL.iter().find(|call| call.name() == name)?;
    errno(what).map(|errno| Fault::Fails(*call, errno as i32))
}

fn action(word: &str) -> Option<Action> {
    Some(match word {
        "exit0" => Action::Exit(0),
        "exit1" => Action::Exit(1),
        "segv" => Action::Raise(Signal::SIGSEGV),
        "abort" => Action::Raise(Signal::SIGABRT),
        "kill" => Action::Send(Signal::SIGKILL),
        "term" => Action::Send(Signal::SIGTERM),
        "usr1" => Action::Send(Signal::SIGUSR1),
        "panic" => Action::Panic,
        "hang" => Action::Hang,
        "memory" => Action::Memory,
        _ => return None,
    })
}

fn errno(word: &str) -> Option<Errno> {
    let known = [
        Errno::ENOSPC,
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::ENOMEM,
        Errno::EAGAIN,
        Errno::EIO,
        Errno::EROFS,
        Errno::EDQUOT,
        Errno::EACCES,
        Errno::ENOEXEC,
        Errno::ETXTBSY,
    ];
    known.into_iter().find(|errno| format!("{errno:?}") == word)
}

/// Takes the first line that is wanted, and out of the file unless it stays.
fn take(path: &Path, wanted: impl Fn(&Fault) -> bool) -> io::Result<Option<Fault>> {
    let directory = File::open(path.parent().unwrap_or(Path::new("/")))?;
    flock(&directory, FlockOperation::LockExclusive)?;
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let hit = text.lines().enumerate().find_map(|(index, text)| {
        let line = Line::read(text)?;
        (line.is_for_us() && wanted(&line.fault)).then_some((index, line))
    });
    let Some((hit, line)) = hit else { return Ok(None) };
    if !line.always {
        let rest = text.lines().enumerate().filter(|(index, _)| *index != hit);
        let rest: String = rest.flat_map(|(_, text)| [text, "\n"]).collect();
        let new = path.with_extension("new");
        fs::write(&new, rest)?;
        fs::rename(&new, path)?;
    }
    Ok(Some(line.fault))
}

/// The fault that is to happen now.
fn due(wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
    let path = std::env::var_os(VARIABLE).map(PathBuf::from)?;
    match take(&path, wanted) {
        Ok(fault) => fault,
        Err(error) => panic!("{VARIABLE}: cannot use {}: {error}", path.display()),
    }
}

pub(super) fn at(point: Point) {
    if let Some(Fault::At(_, action)) = due(|fault| matches!(fault, Fault::At(at, _) if *at == point)) {
        // Past any subscriber: it may not be there yet, and the process may not live to see it flushed.
        eprintln!("fault point {} ({}): {action:?}", point.number(), point.name());
        act(action, point);
    }
}

pub(super) fn io(call: Call) -> io::Result<()> {
    match due(|fault| matches!(fault, Fault::Fails(fails, _) if *fails == call)) {
        Some(Fault::Fails(_, errno)) => {
            eprintln!("fault point {}: errno {errno}", call.name());
            Err(io::Error::from_raw_os_error(errno))
        }
        _ => Ok(()),
    }
}

pub(super) fn clock_error_ms() -> i64 {
    match due(|fault| matches!(fault, Fault::Clock(_))) {
        Some(Fault::Clock(error_ms)) => error_ms,
        _ => 0,
    }
}

#[expect(clippy::exit, reason = "an exit in the middle of everything is the fault")]
fn act(action: Action, point: Point) {
    match action {
        Action::Exit(code) => std::process::exit(code),
        Action::Raise(signal) => raise(signal).expect("a signal of one's own"),
        Action::Send(signal) => kill(getpid(), signal).expect("a signal to oneself"),
        Action::Panic => panic!("fault point {}", point.name()),
        Action::Hang => loop {
            std::thread::park();
        },
        Action::Memory => loop {
            // Not zeros, which would not be touched.
            std::mem::forget(std::hint::black_box(vec![1_u8; GULP_BYTES]));
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Line {
        Line::read(text).expect("a line")
    }

    #[test]
    fn lines_are_read() {
        let line = read("1.0.1 after_exec hang # why");
        assert_eq!(line.version, Some(semver::Version::new(1, 0, 1)));
        assert_eq!((line.fault, line.always), (Fault::At(Point::AfterExec, Action::Hang), false));
        let line = read("memfd_create ENOMEM always");
        assert_eq!((line.fault, line.always), (Fault::Fails(Call::MemfdCreate, Errno::ENOMEM as i32), true));
        assert_eq!(read("clock -10").fault, Fault::Clock(-10_000));
        assert_eq!((Line::read(""), Line::read("  # a comment")), (None, None));
    }

    #[test]
    fn a_mistake_is_not_overlooked() {
        for text in ["after_exec", "nowhere kill", "after_exec ENOMEM", "dup kill", "1.0.1 dup ENOWHERE"] {
            std::panic::catch_unwind(|| Line::read(text)).expect_err(text);
        }
    }

    #[test]
    fn a_line_acts_once_unless_it_stays_and_only_in_its_version() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("faults");
        assert_eq!(take(&path, |_| true).expect("nothing is there"), None);
        fs::write(&path, "9.9.9 dup EMFILE\ndup EMFILE\ndup ENFILE\nexecve ENOMEM always\n").expect("writes");
        let next =
            |call| take(&path, |fault| matches!(fault, Fault::Fails(fails, _) if *fails == call)).expect("reads");
        let fails = |call, errno: Errno| Some(Fault::Fails(call, errno as i32));
        assert_eq!(next(Call::Dup), fails(Call::Dup, Errno::EMFILE));
        assert_eq!(next(Call::Dup), fails(Call::Dup, Errno::ENFILE));
        assert_eq!(next(Call::Dup), None);
        for _ in 0..2 {
            assert_eq!(next(Call::Execve), fails(Call::Execve, Errno::ENOMEM));
        }
        assert_eq!(fs::read_to_string(&path).expect("reads"), "9.9.9 dup EMFILE\nexecve ENOMEM always\n");
    }
}
