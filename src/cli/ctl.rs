//! `hermes gateway restart|reload|stop`.

use std::time::Duration;

use super::args::{JsonArgs, RestartArgs};
use super::error::CliError;
use super::handoff;
use super::home::Home;
use super::progress::ProgressView;
use super::{render, screen, service};
use crate::control::client::Client;
use crate::control::proto::{self, HandoffKind, HandoffParams, HandoffReport};

/// How long the gateway may take to begin to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may then take to end; agents are given time to end by themselves.
const STOPPED_TIMEOUT: Duration = Duration::from_secs(90);

/// Connects to the gateway of this home.
///
/// # Errors
/// [`CliError::NotRunning`] and the others of connecting.
pub(super) async fn connect(home: &Home) -> Result<Client, CliError> {
    home.connect().await.map_err(|error| CliError::client(error, &home.path))
}

/// `hermes gateway restart`.
pub(super) async fn restart(home: &Home, args: RestartArgs) -> Result<(), CliError> {
    let params = HandoffParams { kind: HandoffKind::Restart, force: args.force, reason: args.reason };
    replace(home, &params, args.json).await
}

/// `hermes gateway reload`.
pub(super) async fn reload(home: &Home, args: JsonArgs) -> Result<(), CliError> {
    replace(home, &HandoffParams { kind: HandoffKind::Reload, force: false, reason: None }, args).await
}

/// `hermes gateway stop`.
pub(super) async fn stop(home: &Home, args: JsonArgs) -> Result<(), CliError> {
    let failed = |error| CliError::client(error, &home.path);
    let mut client = connect(home).await?;
    let status = handoff::status(&mut client).await.map_err(failed)?;
    let nothing = serde_json::Value::Null;
    if service::stop_unit_of(&status).await.is_none() {
        client.request::<serde_json::Value>(proto::STOP, &nothing, STOP_TIMEOUT, |_, _| {}).await.map_err(failed)?;
    }
    if !client.wait_closed(STOPPED_TIMEOUT).await {
        return Err(CliError::StillStopping { pid: status.pid, after: STOPPED_TIMEOUT });
    }
    if args.json { screen::print_json(&nothing) } else { screen::print(&format!("stopped (PID {})\n", status.pid)) }
}

/// Asks for a handoff, shows it, and prints how it ended.
pub(super) async fn replace(home: &Home, params: &HandoffParams, args: JsonArgs) -> Result<(), CliError> {
    let (report, pid_before) = hand_off(home, params, args).await?;
    if args.json {
        screen::print_json(&report)
    } else {
        screen::print(&format!("{}\n", render::report(&report, pid_before)))
    }
}

/// Asks for a handoff and shows it. Returns how it ended, and the process that was asked.
pub(super) async fn hand_off(
    home: &Home,
    params: &HandoffParams,
    args: JsonArgs,
) -> Result<(HandoffReport, u32), CliError> {
    let mut client = connect(home).await?;
    let before = handoff::status(&mut client).await.map_err(|error| CliError::client(error, &home.path))?;
    let mut view = ProgressView::new(args.json);
    let report = handoff::handoff(home, &mut client, &before, params, &mut view).await;
    view.finish();
    Ok((report?, before.pid))
}
