//! The way back to the previous image, from wherever this one fails.
//!
//! A new image that crashes, exits or stands still must not take the process with it. So everything that execveat(2)
//! needs to run the previous image again is laid ready in memory before anything else happens, and is used by
//! [`go`], by the handlers of fatal signals, by that of SIGALRM (which [`set_deadline`] brings about even if no code
//! of ours runs any more), and by exit(3).
//!
//! **Invariants**
//! - What runs in a signal handler is async-signal-safe (signal-safety(7)): it reads what was laid ready, writes into
//!   one buffer of it, and makes system calls. It allocates nothing and takes no lock.
//! - What is laid ready is used once: whoever takes it leaves nothing for a second attempt.
//! - Handlers run on a stack of their own, so a stack that has overflowed is no obstacle.
//!
//! Deliberately absent: SIGKILL, and _exit(2). Those are the service manager's.

use std::cell::UnsafeCell;
use std::convert::Infallible;
use std::ffi::{CString, OsString, c_char, c_int};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The longest reason that is handed back, in bytes.
const REASON_BYTES_MAX: usize = 500;
/// Room for the handler; far more than it needs, and more than MINSIGSTKSZ of any processor.
const STACK_BYTES: usize = 64 << 10;

/// The signals that end a process because of what it did (signal(7)), and SIGALRM.
const SIGNALS: [Signal; 6] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT, Signal::SIGALRM];

/// What the previous image is run with.
#[derive(Debug)]
pub struct Way {
    /// The open file of the image.
    pub image: RawFd,
    /// The fds that it is to find under these numbers. They may be CLOEXEC until then; one that is closed is passed
    /// over.
    pub keep: Vec<RawFd>,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its environment, without `reason_variable`.
    pub environment: Vec<(OsString, OsString)>,
    /// The variable that tells it why it is back.
    pub reason_variable: &'static str,
}

/// A [`Way`] in the form of execveat(2).
struct Prepared {
    image: RawFd,
    keep: Vec<RawFd>,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    /// `variable=reason`, NUL-terminated; `environment` points to it.
    reason: UnsafeCell<Vec<u8>>,
    /// Where in it the reason begins.
    reason_at: usize,
    /// What the pointers point to.
    _strings: Vec<CString>,
}

static PREPARED: AtomicPtr<Prepared> = AtomicPtr::new(ptr::null_mut());

/// Lays a way back ready, in the place of the one before. From here on every end of this process but SIGKILL and
/// _exit(2) leads there.
///
/// What it replaces stays in memory, because a handler on another thread may be reading it: a few kilobytes, and few
/// times in the life of an image.
///
/// # Errors
/// A NUL byte in an argument or a variable; the kernel's reason for not setting a handler. There is none in practice.
pub fn arm(way: Way) -> io::Result<()> {
    let prepared = Box::new(prepare(way)?);
    let first = PREPARED.swap(Box::into_raw(prepared), Ordering::AcqRel).is_null();
    if first {
        own_stack()?;
        set_handlers(SigHandler::Handler(on_signal))?;
        at_exit();
    }
    Ok(())
}

/// Whether there is a way back.
pub fn is_armed() -> bool {
    !PREPARED.load(Ordering::Acquire).is_null()
}

/// Whether `signal` leads back now, so that nobody else may set its action.
pub fn takes(signal: Signal) -> bool {
    is_armed() && SIGNALS.contains(&signal)
}

/// There is no way back from here on: fatal signals do what they do by default, and no deadline is set.
///
/// # Errors
/// The kernel's reason; there is none in practice.
pub fn disarm() -> io::Result<()> {
    set_deadline(None)?;
    // Left in memory, as by `arm`.
    if !PREPARED.swap(ptr::null_mut(), Ordering::AcqRel).is_null() {
        set_handlers(SigHandler::SigDfl)?;
    }
    Ok(())
}

/// Goes back, for `reason`. Returns only if there is no way, or the kernel refuses it: it is used up then.
///
/// # Errors
/// `NotFound` if there is none; the kernel's reason.
pub fn go(reason: &str) -> Result<Infallible, io::Error> {
    let prepared = PREPARED.swap(ptr::null_mut(), Ordering::AcqRel);
    if prepared.is_null() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no previous image to go back to"));
    }
    leave(prepared, &[reason.as_bytes()]);
    Err(io::Error::last_os_error())
}

/// Sets the moment at which SIGALRM is sent, in the place of the one before (setitimer(2), ITIMER_REAL). It survives
/// execve(2), and comes whatever the process does then. `None` sets none.
///
/// # Errors
/// The kernel's reason; there is none in practice.
#[expect(unsafe_code, reason = "setitimer takes pointers")]
pub fn set_deadline(after: Option<Duration>) -> io::Result<()> {
    let after = after.unwrap_or_default();
    let seconds = libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX);
    let value = libc::timeval { tv_sec: seconds, tv_usec: libc::suseconds_t::from(after.subsec_micros()) };
    let once = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: `once` is a valid itimerval that outlives the call, and the old value is not asked for.
    let outcome = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const once, ptr::null_mut()) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn prepare(way: Way) -> io::Result<Prepared> {
    let arguments: Vec<CString> =
        way.arguments.into_iter().map(|argument| CString::new(argument.into_vec())).collect::<Result<_, _>>()?;
    let variables: Vec<CString> = way
        .environment
        .into_iter()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            CString::new(name.into_vec())
        })
        .collect::<Result<_, _>>()?;
    let mut reason = format!("{}=", way.reason_variable).into_bytes();
    let reason_at = reason.len();
    reason.resize(reason_at + REASON_BYTES_MAX + 1, 0);
    let pointers = |strings: &[CString]| strings.iter().map(|string| string.as_ptr()).collect::<Vec<_>>();
    let mut argument_pointers = pointers(&arguments);
    argument_pointers.push(ptr::null());
    let mut environment = pointers(&variables);
    environment.push(reason.as_ptr().cast());
    environment.push(ptr::null());
    Ok(Prepared {
        image: way.image,
        keep: way.keep,
        arguments: argument_pointers,
        environment,
        reason: UnsafeCell::new(reason),
        reason_at,
        _strings: arguments.into_iter().chain(variables).collect(),
    })
}

/// Runs the previous image. Async-signal-safe. Returns if the kernel refuses.
#[expect(unsafe_code, reason = "what was laid ready is reached by a pointer, and execveat(2) takes pointers")]
fn leave(prepared: *const Prepared, reason: &[&[u8]]) {
    // SAFETY: `arm` made it of a Box that is never freed, and only the one caller that swapped the pointer out has it.
    let prepared = unsafe { &*prepared };
    // SAFETY: as above, nobody else has it, so nobody else reads or writes the buffer.
    let buffer = unsafe { &mut *prepared.reason.get() };
    let room = &mut buffer[prepared.reason_at..];
    let text = reason.iter().flat_map(|part| part.iter()).filter(|byte| **byte != 0);
    // The last byte stays NUL.
    for (to, from) in room[..REASON_BYTES_MAX].iter_mut().zip(text) {
        *to = *from;
    }
    for fd in &prepared.keep {
        // SAFETY: F_SETFD on a number that is not open fails with EBADF and does nothing else.
        let _closed_already = unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) };
    }
    // SAFETY: the path is a C string, and both lists end with a null pointer and point to C strings that are kept
    // alive by `prepared`. On success nothing of this image is left.
    let _refused = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            prepared.image,
            c"".as_ptr(),
            prepared.arguments.as_ptr(),
            prepared.environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
}

extern "C" fn on_signal(number: c_int) {
    let prepared = PREPARED.swap(ptr::null_mut(), Ordering::AcqRel);
    if !prepared.is_null() {
        if number == libc::SIGALRM {
            leave(prepared, &[b"it stood still past its deadline"]);
        } else {
            let digits =
                [b'0' + u8::try_from(number / 10 % 10).unwrap_or(0), b'0' + u8::try_from(number % 10).unwrap_or(0)];
            leave(prepared, &[b"killed by signal ", digits.strip_prefix(b"0").unwrap_or(&digits)]);
        }
    }
    // There is no way (any more): the signal does what it does by default, when the instruction is tried again.
    let _stays_as_it_is = set_handlers(SigHandler::SigDfl);
    if number == libc::SIGALRM {
        let _kills_this_process = nix::sys::signal::raise(Signal::SIGALRM);
    }
}

extern "C" fn on_exit() {
    let prepared = PREPARED.swap(ptr::null_mut(), Ordering::AcqRel);
    if !prepared.is_null() {
        leave(prepared, &[b"it exited"]);
    }
}

#[expect(unsafe_code, reason = "atexit takes a function that C calls")]
fn at_exit() {
    // SAFETY: `on_exit` is a function that does not unwind, and lives as long as the image.
    let _no_room = unsafe { libc::atexit(on_exit) };
}

#[expect(unsafe_code, reason = "sigaction is unsafe for its handlers")]
fn set_handlers(handler: SigHandler) -> io::Result<()> {
    let mut mask = SigSet::empty();
    for signal in SIGNALS {
        mask.add(signal);
    }
    let action = SigAction::new(handler, SaFlags::SA_ONSTACK, mask);
    for signal in SIGNALS {
        // SAFETY: `on_signal` is async-signal-safe, see there; SIG_DFL runs no code of ours.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// The memory of the handlers' stack.
#[repr(align(64))]
struct Stack(UnsafeCell<[u8; STACK_BYTES]>);

#[expect(unsafe_code, reason = "a static with interior mutability must be Sync")]
// SAFETY: nothing in Rust touches the memory; the kernel alone uses it, for one thread at a time.
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(UnsafeCell::new([0; STACK_BYTES]));

/// Gives the handlers of the calling thread a stack of their own (sigaltstack(2)). Other threads have one from std.
#[expect(unsafe_code, reason = "sigaltstack takes a pointer to the memory")]
fn own_stack() -> io::Result<()> {
    let stack = libc::stack_t { ss_sp: STACK.0.get().cast(), ss_flags: 0, ss_size: STACK_BYTES };
    // SAFETY: the memory is static, of the size that is said, and used for nothing else.
    let outcome = unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
