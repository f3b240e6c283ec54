//! The `hermes` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    hermes_gateway::cli::main()
}
