//! `hermes gateway platform list|pause|resume`.

use std::time::Duration;

use super::args::{PlatformArgs, PlatformCommand};
use super::ctl::connect;
use super::error::CliError;
use super::home::Home;
use super::page::Look;
use super::{handoff, render, screen};
use crate::clock::UnixMillis;
use crate::control::proto::{self, PlatformChange, PlatformParams};

/// How long the gateway may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs one of them.
pub(super) async fn run(home: &Home, command: PlatformCommand) -> Result<(), CliError> {
    let mut client = connect(home).await?;
    let failed = |error| CliError::client(error, &home.path);
    let (args, pause) = match command {
        PlatformCommand::List(args) => {
            let status = handoff::status(&mut client).await.map_err(failed)?;
            let text = || render::platforms(&status.platforms, UnixMillis::now(), Look::of_stdout());
            return if args.json { screen::print_json(&status.platforms) } else { screen::print(&text()) };
        }
        PlatformCommand::Pause(args) => (args, true),
        PlatformCommand::Resume(args) => (args, false),
    };
    let PlatformArgs { name, json } = args;
    let method = if pause { proto::PLATFORM_PAUSE } else { proto::PLATFORM_RESUME };
    let params = PlatformParams { platform: name };
    let change: PlatformChange = client.request(method, &params, TIMEOUT, |_, _| {}).await.map_err(failed)?;
    if json.json {
        screen::print_json(&change)
    } else {
        screen::print(&format!("{}\n", render::platform_change(&change)))
    }
}
