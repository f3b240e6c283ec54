//! `hermes self-update`: asks the gateway that runs, or prepares the next start of one that does not.

use std::io::{self, IsTerminal};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::args::SelfUpdateArgs;
use super::error::CliError;
use super::home::Home;
use super::progress::ProgressView;
use super::{ctl, handoff, render, screen};
use crate::clock::UnixMillis;
use crate::control::client::{Client, ClientError};
use crate::control::proto::{
    self, HandoffKind, HandoffParams, HoldParams, HoldStatus, Image, UpdateCheck, UpdateStatus,
};
use crate::daemon::{Offline, OfflineError, Prepared};
use crate::jsonrpc::ErrorObject;
use crate::update::UpdateError;

/// How long the gateway may take to fetch the list of releases.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to write down a hold.
const HOLD_TIMEOUT: Duration = Duration::from_secs(30);

/// Checks for a newer release, holds updates, or updates the gateway. Nothing newer is no failure.
pub(super) async fn self_update(home: &Home, args: SelfUpdateArgs) -> Result<(), CliError> {
    let client = match home.connect().await {
        Ok(client) => Some(client),
        // Where there is no home there is nothing to prepare either.
        Err(ClientError::NotRunning { .. }) if home.path.is_dir() => None,
        Err(error) => return Err(CliError::client(error, &home.path)),
    };
    if args.hold.is_some() || args.unhold {
        return hold(home, client, args).await;
    }
    if args.check {
        let found = check(home, client, &args).await?;
        return tell(&found, args.json.json);
    }
    let kind = match args.revert {
        true => HandoffKind::Revert { dry_run: args.dry_run },
        false => HandoffKind::Update { version: args.version.clone(), dry_run: args.dry_run },
    };
    let asks = !args.yes && !args.dry_run && !args.json.json;
    if asks && io::stdin().is_terminal() && io::stderr().is_terminal() {
        let turns = if client.is_some() { "Running turns go on." } else { "It is what is started next." };
        if args.revert {
            confirm(&format!("Go back to the version before? {turns} [Y/n] "))?;
        } else {
            let again = if client.is_some() { Some(ctl::connect(home).await?) } else { None };
            let found = check(home, again, &args).await?;
            let Some(to) = args.version.clone().or_else(|| found.available.clone()) else {
                return tell(&found, false);
            };
            confirm(&format!("Update hermes {} → {to}? {turns} [Y/n] ", found.running))?;
        }
    }
    match client {
        Some(_) => replace(home, kind, &args).await,
        None => prepare(home, kind, &args).await,
    }
}

/// Updates the gateway that runs.
async fn replace(home: &Home, kind: HandoffKind, args: &SelfUpdateArgs) -> Result<(), CliError> {
    let params = HandoffParams { kind, force: false, reason: None };
    match ctl::replace(home, &params, args.json).await {
        Err(CliError::Gateway(ErrorObject { code: proto::UP_TO_DATE, .. })) => {
            let mut client = ctl::connect(home).await?;
            let status = handoff::status(&mut client).await.map_err(|error| CliError::client(error, &home.path))?;
            let running = status.image.version;
            tell(&UpdateCheck { running, ..UpdateCheck::default() }, args.json.json)
        }
        other => other,
    }
}

/// Prepares the next start of a gateway that does not run.
async fn prepare(home: &Home, kind: HandoffKind, args: &SelfUpdateArgs) -> Result<(), CliError> {
    let offline = Offline::open(&home.path, args.config.as_deref()).map_err(CliError::Offline)?;
    let mut view = ProgressView::new(args.json.json);
    let outcome = offline.prepare(&kind, |progress| view.show(progress)).await;
    view.finish();
    let wants_newest = matches!(kind, HandoffKind::Update { version: None, .. });
    let Prepared { from, to, on_trial } = match outcome {
        Err(OfflineError::Update(UpdateError::SameVersion { version })) if wants_newest => {
            let found = UpdateCheck { running: version.to_string(), offline: true, ..UpdateCheck::default() };
            return tell(&found, args.json.json);
        }
        other => other.map_err(CliError::Offline)?,
    };
    let dry_run = kind.is_dry_run();
    if args.json.json {
        let (kind, starts_next) = (kind.name(), !dry_run);
        screen::print_json(&StartsNext { kind, from, to, dry_run, starts_next })
    } else {
        screen::print(&render::prepared(&from, &to, on_trial, dry_run))
    }
}

/// What `--json` prints of an update where no gateway runs.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct StartsNext {
    /// `update` or `revert`.
    kind: &'static str,
    from: Image,
    to: Image,
    dry_run: bool,
    /// Whether the launcher starts it next.
    starts_next: bool,
}

/// What `--hold --json` and `--unhold --json` print.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Held {
    held: Option<HoldStatus>,
}

async fn check(home: &Home, client: Option<Client>, args: &SelfUpdateArgs) -> Result<UpdateCheck, CliError> {
    let Some(mut client) = client else {
        let offline = Offline::open(&home.path, args.config.as_deref()).map_err(CliError::Offline)?;
        return offline.check().await.map_err(CliError::Offline);
    };
    let found = client.request(proto::UPDATE_CHECK, &Value::Null, CHECK_TIMEOUT, |_, _| {}).await;
    found.map_err(|error| CliError::client(error, &home.path))
}

/// Lets nothing be updated by itself, or lets it again.
async fn hold(home: &Home, client: Option<Client>, args: SelfUpdateArgs) -> Result<(), CliError> {
    let (holds, until) = (args.hold.is_some(), args.hold.flatten());
    let held: Option<HoldStatus> = match client {
        Some(mut client) => {
            let method = if holds { proto::UPDATE_HOLD } else { proto::UPDATE_UNHOLD };
            let answer = client.request::<UpdateStatus>(method, &HoldParams { until }, HOLD_TIMEOUT, |_, _| {}).await;
            answer.map_err(|error| CliError::client(error, &home.path))?.held
        }
        None => {
            let offline = Offline::open(&home.path, args.config.as_deref()).map_err(CliError::Offline)?;
            offline.hold(holds, until.as_deref()).await.map_err(CliError::Offline)?
        }
    };
    if args.json.json {
        screen::print_json(&Held { held })
    } else {
        screen::print(&render::held(held.as_ref(), UnixMillis::now()))
    }
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
