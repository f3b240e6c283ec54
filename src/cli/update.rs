//! `hermes self-update`.

use std::io::{self, IsTerminal};
use std::time::Duration;

use serde_json::Value;

use super::args::SelfUpdateArgs;
use super::error::CliError;
use super::home::Home;
use super::{ctl, handoff, render, screen};
use crate::control::client::Client;
use crate::control::proto::{self, HandoffKind, HandoffParams, UpdateCheck};
use crate::jsonrpc::ErrorObject;

/// How long the gateway may take to fetch the list of releases.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);

/// Checks for a newer release, or updates the running gateway to it. Nothing newer is no failure.
pub(super) async fn self_update(home: &Home, args: SelfUpdateArgs) -> Result<(), CliError> {
    if args.check {
        let found = check(home, &mut ctl::connect(home).await?).await?;
        return tell(&found, args.json.json);
    }
    let asks = !args.yes && !args.dry_run && !args.json.json;
    let asks = asks && io::stdin().is_terminal() && io::stderr().is_terminal();
    if args.revert {
        if asks {
            confirm("Go back to the version before? Running turns go on. [Y/n] ")?;
        }
        let kind = HandoffKind::Revert { dry_run: args.dry_run };
        return ctl::replace(home, &HandoffParams { kind, force: false, reason: None }, args.json).await;
    }
    if asks {
        let found = check(home, &mut ctl::connect(home).await?).await?;
        let Some(to) = args.version.clone().or_else(|| found.available.clone()) else {
            return tell(&found, false);
        };
        confirm(&format!("Update hermes {} → {to}? Running turns go on. [Y/n] ", found.running))?;
    }
    let kind = HandoffKind::Update { version: args.version, dry_run: args.dry_run };
    let params = HandoffParams { kind, force: false, reason: None };
    match ctl::replace(home, &params, args.json).await {
        Err(CliError::Gateway(ErrorObject { code: proto::UP_TO_DATE, .. })) => {
            let mut client = ctl::connect(home).await?;
            let status = handoff::status(&mut client).await.map_err(|error| CliError::client(error, &home.path))?;
            let running = status.image.version;
            tell(
                &UpdateCheck { running, available: None, date: None, notes_url: None, failed_before: None },
                args.json.json,
            )
        }
        other => other,
    }
}

async fn check(home: &Home, client: &mut Client) -> Result<UpdateCheck, CliError> {
    let found = client.request(proto::UPDATE_CHECK, &Value::Null, CHECK_TIMEOUT, |_, _| {}).await;
    found.map_err(|error| CliError::client(error, &home.path))
}

fn tell(found: &UpdateCheck, json: bool) -> Result<(), CliError> {
    if json { screen::print_json(found) } else { screen::print(&render::update_check(found)) }
}

/// Asks on the terminal. Enter means yes; the end of input means no.
pub(super) fn confirm(question: &str) -> Result<(), CliError> {
    let failed = |source| CliError::Io { what: "ask on the terminal", source };
    io::Write::write_all(&mut io::stderr(), question.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer).map_err(failed)?;
    let yes = read > 0 && matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes");
    if yes { Ok(()) } else { Err(CliError::Declined) }
}
