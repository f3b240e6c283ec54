//! `hermes-launch`: what the unit starts instead of the gateway itself.
//!
//! ```text
//! hermes-launch ARG...       becomes the image of versions/ that is to run, with these arguments
//! hermes-launch unit-facts   ExecStartPre=: tells the gateway what the unit is set to
//! hermes-launch stop         ExecStop=: tells the gateway whether it is stopped or restarted
//! hermes-launch stop-post    ExecStopPost=: ends what is left in the unit, unless it is started again
//! hermes-launch --version
//! ```
//!
//! An update never replaces it, so that no update can break it: it uses nothing but std, reads nothing but
//! `versions/`, and belongs to root.
//!
//! **Invariants**
//! - The image takes the launcher's place (execve), with its PID, its environment and its fds: systemd's words about
//!   the main process stay true.
//! - An image on trial is started only after it was noted that it is.
//! - As long as any image in `versions/` can be executed, one is.

mod candidates;
mod cgroup;
mod home;
mod image;
mod runtime;
#[path = "../slots.rs"]
mod slots;
mod start;
mod stop;
mod systemctl;

use std::env;
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let command = match args.as_slice() {
        [only] => only.to_str(),
        _ => None,
    };
    match command {
        Some("--version") => {
            let _ = writeln!(io::stdout(), "hermes-launch {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some("unit-facts") => finished(stop::unit_facts()),
        Some("stop") => finished(stop::announce()),
        Some("stop-post") => finished(stop::stop_post()),
        _ => start::start(&args),
    }
}

fn finished(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(format_args!("{why}"));
            ExitCode::FAILURE
        }
    }
}

/// One line for the journal. A journal that does not listen is no reason to end.
fn say(what: fmt::Arguments<'_>) {
    let mut line = String::from("hermes-launch: ");
    let _ = line.write_fmt(what);
    line = line.replace('\n', " ");
    line.push('\n');
    let _ = io::stderr().write_all(line.as_bytes());
}

/// An error with its sources on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}
