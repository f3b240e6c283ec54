//! `hermes-launch`: what the service manager starts. It picks an image of `HERMES_HOME/versions` and becomes it.
//!
//! An update replaces everything but this program. So it is small, uses only std, and takes nothing for granted: with
//! whatever it finds in `versions/` it runs the best image that can be run.
//!
//! ```text
//! hermes-launch ARGS…       runs the image with ARGS          ExecStart=
//! hermes-launch unit-facts  notes what the unit says          ExecStartPre=
//! hermes-launch stop        notes why the unit stops          ExecStop=
//! hermes-launch stop-post   ends what a stop left behind      ExecStopPost=
//! ```
//!
//! **Invariants**
//! - The image is executed in place: same process, same environment, the same inherited fds.
//! - A trial is started only after it was counted durably, so a release that crashes cannot be started forever.

mod images;
#[path = "../slots.rs"]
mod slots;
mod unit;

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    match arguments.first().and_then(|first| first.to_str()) {
        Some("unit-facts") => unit::note_facts(),
        Some("stop") => unit::note_stop(),
        Some("stop-post") => unit::stop_post(),
        Some("--version") => {
            println!("hermes-launch {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => launch(&arguments),
    }
}

fn launch(arguments: &[OsString]) -> ExitCode {
    let Some(home) = home() else {
        say("neither HERMES_HOME nor HOME is set: cannot find the home of the gateway");
        return ExitCode::FAILURE;
    };
    let versions = home.join("versions");
    let mut tried = Vec::new();
    for candidate in images::candidates(&versions) {
        let image = versions.join(&candidate.directory).join("hermes");
        if let Some(why) = &candidate.why {
            say(&format!("starting {} ({why})", candidate.directory));
        }
        let error = run(&image, arguments);
        say(&format!("{} does not start: {error}", image.display()));
        tried.push(candidate.directory);
    }
    if tried.is_empty() {
        say(&format!("there is no image in {}; install one as <version>/hermes", versions.display()));
    } else {
        say(&format!("no image in {} can be run; tried {}", versions.display(), tried.join(", ")));
    }
    ExitCode::FAILURE
}

/// Becomes the image. Returns if the kernel refuses it.
fn run(image: &Path, arguments: &[OsString]) -> io::Error {
    Command::new(image).arg0("hermes").args(arguments).exec()
}

fn home() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("HERMES_HOME").or_else(|| set("HOME").map(|home| home.join(".hermes")))
}

/// A line in the journal.
fn say(line: &str) {
    eprintln!("hermes-launch: {line}");
}
