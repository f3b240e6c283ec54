//! JSON Schemas (draft 2020-12) of everything that `--json` prints, made from the types and kept in `dist/schema/`.
//!
//! A document is named after its command: `gateway-status.json` is what `hermes gateway status --json` prints. Any command
//! may print `error.json` in its place. `HERMES_WRITE_SCHEMAS=1 cargo test schema` writes them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use schemars::{JsonSchema, Schema, schema_for};

use super::args::Cli;
use super::config::Checked;
use super::doctor::Diagnosis;
use super::error::ErrorDocument;
use super::logs::LogLine;
use super::service::{Installed, Listed, Placed, Started, Uninstalled};
use super::setup;
use super::status::Down;
use super::update::{Held, StartsNext};
use super::weixin::LoginAnswer;
use crate::control::proto::{
    HandoffReport, History, PairingEntry, PlatformChange, PlatformStatus, Status, UpdateCheck,
};

/// Set to write the files instead of comparing them.
const WRITE: &str = "HERMES_WRITE_SCHEMAS";

/// What `hermes gateway status --json` prints: of a gateway that runs, or of one that does not.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is of interest")]
enum GatewayStatus {
    Running(Box<Status>),
    NotRunning(Box<Down>),
}

/// What `hermes self-update --json` prints: with `--check` what there is, else how the update went.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is of interest")]
enum SelfUpdate {
    Updated(HandoffReport),
    StartsNext(StartsNext),
    Found(UpdateCheck),
    Held(Held),
}

/// All of them, by the names of their files.
fn schemas() -> BTreeMap<&'static str, Schema> {
    [
        ("config-check", schema_for!(Checked)),
        ("doctor", schema_for!(Diagnosis)),
        ("error", schema_for!(ErrorDocument)),
        ("gateway-adopt", schema_for!(Placed)),
        ("gateway-history", schema_for!(History)),
        ("gateway-install", schema_for!(Installed)),
        ("gateway-list", schema_for!(Vec<Listed>)),
        ("gateway-logs", schema_for!(LogLine)),
        ("gateway-platform-list", schema_for!(Vec<PlatformStatus>)),
        ("gateway-platform-pause", schema_for!(PlatformChange)),
        ("gateway-platform-resume", schema_for!(PlatformChange)),
        ("gateway-reload", schema_for!(HandoffReport)),
        ("gateway-restart", schema_for!(HandoffReport)),
        ("gateway-start", schema_for!(Started)),
        ("gateway-status", schema_for!(GatewayStatus)),
        ("gateway-stop", schema_for!(())),
        ("gateway-uninstall", schema_for!(Uninstalled)),
        ("pairing-approve", schema_for!(PairingEntry)),
        ("pairing-list", schema_for!(Vec<PairingEntry>)),
        ("pairing-revoke", schema_for!(PairingEntry)),
        ("self-update", schema_for!(SelfUpdate)),
        ("setup", schema_for!(setup::Done)),
        ("weixin-login", schema_for!(LoginAnswer)),
    ]
    .into()
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("dist/schema")
}

/// Every command below `command` that has `--json`, by its path.
fn commands_with_json(command: &clap::Command, path: &str, found: &mut BTreeSet<String>) {
    for sub in command.get_subcommands() {
        let path = if path.is_empty() { sub.get_name().to_owned() } else { format!("{path}-{}", sub.get_name()) };
        if sub.get_arguments().any(|argument| argument.get_long() == Some("json")) {
            found.insert(path.clone());
        }
        commands_with_json(sub, &path, found);
    }
}

#[test]
fn every_command_that_prints_json_has_a_schema() {
    let mut found = BTreeSet::new();
    commands_with_json(&Cli::command(), "", &mut found);
    found.insert("error".to_owned());
    let known: BTreeSet<String> = schemas().into_keys().map(str::to_owned).collect();
    assert_eq!(known, found, "the schemas on the left, the commands on the right");
}

#[test]
fn the_schemas_in_dist_are_those_of_the_types() {
    let write = std::env::var_os(WRITE).is_some_and(|value| !value.is_empty());
    let text = |schema: &Schema| format!("{}\n", serde_json::to_string_pretty(schema).expect("plain data serialises"));
    if write {
        fs::create_dir_all(directory()).expect("creates dist/schema");
    }
    for (name, schema) in schemas() {
        let path = directory().join(format!("{name}.json"));
        if write {
            fs::write(&path, text(&schema)).expect("writes");
        }
        let present = fs::read_to_string(&path).unwrap_or_default();
        assert!(present == text(&schema), "{} is not of the types; {WRITE}=1 writes it anew", path.display());
    }
    let files = fs::read_dir(directory()).expect("dist/schema is there");
    let files: BTreeSet<String> =
        files.map(|file| file.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    let known: BTreeSet<String> = schemas().into_keys().map(|name| format!("{name}.json")).collect();
    assert_eq!(files, known, "files of commands that are gone are removed");
}
