//! `hermes gateway status`: of a gateway that runs what it says, of one that does not what it left.

mod down;
pub(super) mod view;
mod watch;

use super::args::StatusArgs;
use super::error::CliError;
use super::handoff;
use super::home::Home;
use super::page::Look;
use super::screen;
use crate::control::client::ClientError;

pub(super) use down::Down;

/// `hermes gateway status`.
pub(super) async fn run(home: &Home, args: StatusArgs) -> Result<(), CliError> {
    if args.watch {
        return watch::run(home, args).await;
    }
    match handoff::status_of(home).await {
        Ok(status) if args.json.json => screen::print_json(&status),
        Ok(status) => screen::print(&view::status(&status, args.full, Look::of_stdout())),
        Err(ClientError::NotRunning { .. }) => {
            let down = Down::look(home).await;
            if args.json.json {
                screen::print_json(&down)?;
            } else {
                screen::print(&down.page(Look::of_stdout()))?;
            }
            Err(CliError::NotServing)
        }
        Err(error) => Err(CliError::client(error, &home.path)),
    }
}
