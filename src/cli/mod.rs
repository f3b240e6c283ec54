//! The command line.

use std::process::ExitCode;

use clap::Parser;

use crate::agent::builtin;

#[derive(Parser)]
enum Command {
    #[command(subcommand)]
    Agent(Agent),
}

#[derive(clap::Subcommand)]
enum Agent {
    /// An agent that answers with the prompt
    Echo(builtin::echo::EchoArgs),
    /// An agent on the chat completions API
    Openai(builtin::openai::OpenaiArgs),
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    match Command::parse() {
        Command::Agent(Agent::Echo(args)) => builtin::echo::run(args),
        Command::Agent(Agent::Openai(args)) => builtin::openai::run(args),
    }
}
