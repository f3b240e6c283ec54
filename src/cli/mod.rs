//! The command line.
//!
//! **Invariants**
//! - Exit codes are decided in `error` alone, but for the gateway's own, which `gateway run` passes on.
//! - With `--json` exactly one document goes to standard output, also for an error.
//! - An error is told once, as `error: …` with `hint: …` where the fix is known.

mod args;
mod chat;
mod ctl;
mod error;
mod handoff;
mod home;
mod progress;
mod render;
mod screen;
mod update;

use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command, GatewayCommand};
use self::error::CliError;
use self::home::Home;
use crate::daemon;

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come as errors too, for standard output.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(error::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let json = cli.command.json();
    run(cli).unwrap_or_else(|error| error::tell(&error, json))
}

fn run(cli: Cli) -> Result<ExitCode, CliError> {
    // The hidden `handoff-check` branches off here: it is told everything it needs and looks for no home.
    let home = Home::find(cli.home)?;
    match cli.command {
        Command::Gateway(GatewayCommand::Run(args)) => {
            Ok(daemon::run(daemon::RunOptions { home: home.path, config: args.config }))
        }
        Command::Gateway(GatewayCommand::Status(args)) => block_on(ctl::status(&home, args)),
        Command::Gateway(GatewayCommand::Restart(args)) => block_on(ctl::restart(&home, args)),
        Command::Gateway(GatewayCommand::Reload(args)) => block_on(ctl::reload(&home, args)),
        Command::Gateway(GatewayCommand::Stop(args)) => block_on(ctl::stop(&home, args)),
        Command::SelfUpdate(args) => block_on(update::self_update(&home, args)),
        Command::Chat(args) => block_on(chat::run(&home, args)),
    }
}

fn block_on(command: impl Future<Output = Result<(), CliError>>) -> Result<ExitCode, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Io { what: "start the runtime", source })?;
    runtime.block_on(command).map(|()| ExitCode::SUCCESS)
}
