//! `hermes pairing list|approve|revoke`: asks the gateway that runs, or does it in the store of one that does not.
//!
//! **Invariant:** the store is written only while this process holds the gateway's lock, so never beside a gateway.

use std::time::Duration;

use super::args::{ApproveArgs, PairingCommand, RevokeArgs};
use super::error::CliError;
use super::home::Home;
use super::page::{Look, clean};
use super::{render, screen};
use crate::clock::UnixMillis;
use crate::control::client::{Client, ClientError};
use crate::control::proto::{self, ApproveParams, PairingEntry, RevokeParams};
use crate::gateway::pairing::{Pairings, WRONG_KEY};
use crate::id::PlatformName;
use crate::service::lock::Lock;
use crate::store::{Store, StoreError};

/// How long the gateway may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs one of them.
pub(super) async fn run(home: &Home, command: PairingCommand) -> Result<(), CliError> {
    match home.connect().await {
        Ok(client) => with_gateway(client, home, command).await,
        Err(ClientError::NotRunning { .. }) => with_store(home, command).await,
        Err(error) => Err(CliError::client(error, &home.path)),
    }
}

async fn with_gateway(mut client: Client, home: &Home, command: PairingCommand) -> Result<(), CliError> {
    let failed = |error| CliError::client(error, &home.path);
    match command {
        PairingCommand::List(args) => {
            let entries = client.request(proto::PAIRING_LIST, &(), TIMEOUT, |_, _| {}).await.map_err(failed)?;
            show(entries, args.json)
        }
        PairingCommand::Approve(ApproveArgs { platform, code, json }) => {
            let params = ApproveParams { platform, code };
            let entry = client.request(proto::PAIRING_APPROVE, &params, TIMEOUT, |_, _| {}).await.map_err(failed)?;
            approved(&entry, json.json)
        }
        PairingCommand::Revoke(RevokeArgs { platform, user, json }) => {
            let params = RevokeParams { platform, user };
            let entry = client.request(proto::PAIRING_REVOKE, &params, TIMEOUT, |_, _| {}).await.map_err(failed)?;
            revoked(&entry, json.json)
        }
    }
}

async fn with_store(home: &Home, command: PairingCommand) -> Result<(), CliError> {
    let database = home.path.join("state.db");
    if !database.exists() {
        // Not made by asking.
        return match command {
            PairingCommand::List(args) => show(Vec::new(), args.json),
            _ => Err(CliError::NotRunning { home: home.path.clone() }),
        };
    }
    let _alone = Lock::acquire(&home.path.join("gateway.lock")).map_err(CliError::Lock)?;
    let store = Store::open(&database).map_err(CliError::Store)?;
    let wrong = store.meta(WRONG_KEY).await.map_err(CliError::Store)?;
    let mut pairings = Pairings::new(store.pairings().await.map_err(CliError::Store)?, wrong.as_deref());
    let (now, mut changes) = (UnixMillis::now(), Vec::new());
    match command {
        PairingCommand::List(args) => show(pairings.list(now).map(PairingEntry::from).collect(), args.json),
        PairingCommand::Approve(ApproveArgs { platform, code, json }) => {
            let outcome = pairings.approve(&PlatformName::new(platform), &code, now, &mut changes);
            record(&store, changes).await.map_err(CliError::Store)?;
            let pairing = outcome.map_err(CliError::Pairing)?;
            approved(&PairingEntry::from(&pairing), json.json)
        }
        PairingCommand::Revoke(RevokeArgs { platform, user, json }) => {
            let revoked_row = pairings.revoke(&PlatformName::new(platform.clone()), &user, &mut changes);
            record(&store, changes).await.map_err(CliError::Store)?;
            let nobody = || CliError::Usage(format!("nobody with the id {user} was let in on {platform} by pairing"));
            revoked(&PairingEntry::from(&revoked_row.ok_or_else(nobody)?), json.json)
        }
    }
}

async fn record(store: &Store, changes: Vec<crate::store::Change>) -> Result<(), StoreError> {
    if changes.is_empty() { Ok(()) } else { store.change(changes).await.map(drop) }
}

fn show(entries: Vec<PairingEntry>, json: bool) -> Result<(), CliError> {
    if json {
        screen::print_json(&entries)
    } else {
        screen::print(&render::pairings(&entries, UnixMillis::now(), Look::of_stdout()))
    }
}

fn approved(entry: &PairingEntry, json: bool) -> Result<(), CliError> {
    let text = || format!("{} (id {}) may talk on {}\n", clean(&entry.name), entry.user, entry.platform);
    if json { screen::print_json(entry) } else { screen::print(&text()) }
}

fn revoked(entry: &PairingEntry, json: bool) -> Result<(), CliError> {
    let text = || format!("{} (id {}) may no longer talk on {}\n", clean(&entry.name), entry.user, entry.platform);
    if json { screen::print_json(entry) } else { screen::print(&text()) }
}
