//! `hermes exec-probe`: what replacing this image costs at the very least, to hold a handoff against.
//!
//! The process replaces itself by its own open file, over and over, and takes the time from just before execveat(2) to
//! the first statement of `main`. What it knows crosses in two environment variables.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::process::ExitCode;

use serde_json::json;

use super::args::ExecProbeArgs;
use super::error::CliError;
use crate::clock::MonoNanos;
use crate::sys::exec;

/// When execveat was called, in CLOCK_MONOTONIC nanoseconds.
const AT_VARIABLE: &str = "HERMES_PROBE_AT";
/// The samples so far, in nanoseconds, with commas. The count is bounded by the command line, so that they fit.
const SAMPLES_VARIABLE: &str = "HERMES_PROBE_SAMPLES";

/// Takes the sample of this image and goes on to the next one; the last one prints `{"exec_ns": […]}`.
///
/// # Errors
/// [`CliError::Io`] if the kernel does not run the image.
pub fn run(args: &ExecProbeArgs, main_at: MonoNanos) -> Result<ExitCode, CliError> {
    let mut samples = samples();
    if let Some(at) = std::env::var(AT_VARIABLE).ok().and_then(|nanos| nanos.parse().ok()) {
        let took = main_at.since(MonoNanos(at));
        samples.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
    if samples.len() >= usize::from(args.count) {
        println!("{}", json!({ "exec_ns": samples }));
        return Ok(ExitCode::SUCCESS);
    }
    match replace(&samples) {
        Ok(never) => match never {},
        Err(source) => Err(CliError::Io { what: "run the image again", source }),
    }
}

fn samples() -> Vec<u64> {
    let text = std::env::var(SAMPLES_VARIABLE).unwrap_or_default();
    text.split(',').filter_map(|nanos| nanos.parse().ok()).collect()
}

fn replace(samples: &[u64]) -> io::Result<std::convert::Infallible> {
    let image = File::open("/proc/self/exe")?;
    let text = samples.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let kept = std::env::vars_os().filter(|(key, _)| key != AT_VARIABLE && key != SAMPLES_VARIABLE);
    let mut environment: Vec<(OsString, OsString)> = kept.collect();
    environment.push((SAMPLES_VARIABLE.into(), text.into()));
    let arguments = std::env::args_os().collect();
    environment.push((AT_VARIABLE.into(), MonoNanos::now().0.to_string().into()));
    exec::replace_image(&image, arguments, environment)
}
