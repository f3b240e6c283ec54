//! The command line.
//!
//! **Invariants**
//! - Exit codes are decided in `error` alone, but for the gateway's own, which `gateway run` passes on.
//! - With `--json` exactly one document goes to standard output, also for an error.
//! - An error is told once, as `error: …` with `hint: …` where the fix is known.

mod args;
mod chat;
mod config;
mod ctl;
pub mod doctor;
mod error;
mod files;
mod handoff;
mod history;
mod home;
mod logs;
mod owner;
mod page;
mod pairing;
mod platform;
mod probe;
mod progress;
#[cfg(test)]
mod reference;
mod render;
#[cfg(test)]
mod schema;
mod screen;
mod service;
mod setup;
mod status;
mod update;
mod weixin;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};

use self::args::{AgentCommand, Cli, Command, ConfigCommand, GatewayCommand};
use self::error::CliError;
use self::home::Home;
use crate::agent::builtin;
use crate::clock::MonoNanos;
use crate::config::Environment;
use crate::daemon::{self, RunOptions};
use crate::fault::{self, Point};
use crate::handoff::way_back;
use crate::platform::dingtalk;
use crate::sys::{dumpable, signals};

/// The command line, for those who make pages of it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    // Before anything else can fail.
    way_back::install();
    let main_at = MonoNanos::now();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come as errors too, for standard output.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(error::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let json = cli.command.json();
    run(cli, main_at).unwrap_or_else(|error| error::tell(&error, json))
}

fn run(cli: Cli, main_at: MonoNanos) -> Result<ExitCode, CliError> {
    let env = Environment::from_process();
    match cli.command {
        Command::Gateway(GatewayCommand::Run(args)) => {
            fault::at(Point::AfterExec);
            let options = RunOptions { home: cli.home, config: args.config, log_format: args.log_format, main_at };
            daemon::run(options).map_err(CliError::Daemon)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::HandoffCheck(args) => handoff_check(cli.home, args.config),
        Command::Config(ConfigCommand::Check(args)) => config::check(cli.home, args).map(|()| ExitCode::SUCCESS),
        Command::Conduit => conduit(),
        Command::ExecProbe(args) => probe::run(&args, main_at),
        Command::Agent(AgentCommand::Echo(args)) => Ok(builtin::echo::run(args)),
        Command::Agent(AgentCommand::Openai(args)) => Ok(builtin::openai::run(args)),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut command(), "hermes", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::InstallImage => {
            service::install_image(&Home::find(cli.home, &env)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::VerifyRelease(args) => {
            crate::update::verify_file(&args.archive, &args.key).map_err(CliError::Release)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Setup(args) => block_on(setup::run(cli.home, args)),
        Command::Gateway(GatewayCommand::Install(args)) => block_on(service::install(cli.home, args)),
        Command::Gateway(GatewayCommand::Uninstall(args)) => block_on(service::uninstall(cli.home, args)),
        Command::Gateway(GatewayCommand::Start(args)) => block_on(service::start(cli.home, args)),
        Command::Gateway(GatewayCommand::Adopt(args)) => block_on(service::adopt(cli.home, args)),
        command => {
            let home = Home::find(cli.home, &env)?;
            // They read, or write, what a gateway that does not run has left.
            if let Command::Pairing(_) | Command::Gateway(GatewayCommand::History(_)) = command {
                owner::step_down(&home.path)?;
            }
            block_on(client_command(command, home))
        }
    }
}

async fn client_command(command: Command, home: Home) -> Result<(), CliError> {
    match command {
        Command::Gateway(GatewayCommand::Status(args)) => status::run(&home, args).await,
        Command::Gateway(GatewayCommand::History(args)) => history::run(&home, args).await,
        Command::Gateway(GatewayCommand::Logs(args)) => logs::run(&home, &args).await,
        Command::Gateway(GatewayCommand::Restart(args)) => ctl::restart(&home, args).await,
        Command::Gateway(GatewayCommand::Reload(args)) => ctl::reload(&home, args).await,
        Command::Gateway(GatewayCommand::Stop(args)) => ctl::stop(&home, args).await,
        Command::Gateway(GatewayCommand::List(args)) => service::list(&home, args).await,
        Command::Gateway(GatewayCommand::Platform(command)) => platform::run(&home, command).await,
        Command::Pairing(command) => pairing::run(&home, command).await,
        Command::Weixin(command) => weixin::run(&home, command).await,
        Command::SelfUpdate(args) => update::self_update(&home, args).await,
        Command::Chat(args) => chat::run(&home, args).await,
        Command::Doctor(args) => doctor::run(&home, &args).await,
        Command::Gateway(
            GatewayCommand::Run(_)
            | GatewayCommand::Install(_)
            | GatewayCommand::Uninstall(_)
            | GatewayCommand::Start(_)
            | GatewayCommand::Adopt(_),
        )
        | Command::Setup(_)
        | Command::VerifyRelease(_)
        | Command::InstallImage
        | Command::HandoffCheck(_)
        | Command::Config(_)
        | Command::Conduit
        | Command::ExecProbe(_)
        | Command::Completion { .. }
        | Command::Agent(_) => {
            unreachable!("these were run without a connection")
        }
    }
}

/// The preflight child: prints its report for the gateway that started it.
fn handoff_check(home: Option<PathBuf>, config: Option<PathBuf>) -> Result<ExitCode, CliError> {
    begin_child()?;
    let report = daemon::handoff_check(home, config).map_err(CliError::Check)?;
    println!("{}", serde_json::to_string(&report).expect("plain data serialises"));
    Ok(ExitCode::SUCCESS)
}

/// What each child of the gateway that knows secrets begins with.
fn begin_child() -> Result<(), CliError> {
    signals::unblock().map_err(|source| CliError::Io { what: "unblock signals", source })?;
    dumpable::forbid().map_err(|source| CliError::Io { what: "keep this process's memory to itself", source })
}

/// The child that holds the connection to DingTalk. It logs as its gateway does.
fn conduit() -> Result<ExitCode, CliError> {
    begin_child()?;
    daemon::init_logging(&Environment::from_process(), None).map_err(CliError::Daemon)?;
    Ok(dingtalk::run_conduit())
}

fn block_on(command: impl Future<Output = Result<(), CliError>>) -> Result<ExitCode, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Io { what: "start the runtime", source })?;
    runtime.block_on(command).map(|()| ExitCode::SUCCESS)
}
