//! `hermes self-update` where no gateway runs: the next start is prepared, and nothing is written by a look.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hermes_gateway::slots::Slots;
use hermes_gateway::store::Store;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{BINARY, install};
use crate::support::gateway::Gateway;
use crate::support::release::{Fault, Publisher, ReleaseServer, pack, release};

const LAUNCHER: &str = env!("CARGO_BIN_EXE_hermes-launch");

/// A home in which 1.0.0 is installed and no gateway runs, and a publisher.
struct Scene {
    home: TempDir,
    publisher: Publisher,
    config: String,
}

impl Scene {
    fn new() -> Self {
        let publisher = Publisher::new();
        let home = tempfile::Builder::new().prefix("hermes-").tempdir().expect("a temporary directory");
        install(home.path());
        let config = format!(
            "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\ncwd = \"/\"\n[gateway]\nprobation = \"0s\"\n\
             [update]\nmanifest_url = \"file://{}\"\nverifying_keys = [\"{}\"]\nwindow = \"02:00-05:00\"\n",
            publisher.path("manifest.json").display(),
            publisher.public_key()
        );
        fs::write(home.path().join("gateway.toml"), &config).expect("writes");
        Self { home, publisher, config }
    }

    fn release(&self, version: &str) {
        self.publisher.release(version, &fs::read(BINARY).expect("the binary is built"));
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        cli(self.home.path(), arguments)
    }

    fn disk(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        disk(self.home.path())
    }

    fn slots(&self) -> Option<Slots> {
        Slots::read(&self.home.path().join("versions")).expect("reads")
    }

    /// Lets the launcher start what is to be started next.
    async fn start(self) -> Gateway {
        Gateway::start_in(self.home, Path::new(LAUNCHER), &self.config).await
    }
}

fn cli(home: &Path, arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).env_clear().env("HERMES_HOME", home).output().expect("it starts")
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every file of a home.
fn disk(home: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut open) = (BTreeMap::new(), vec![home.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("readable") {
            let entry = entry.expect("readable");
            let kind = entry.file_type().expect("known");
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                files.insert(entry.path(), fs::read(entry.path()).expect("readable"));
            }
        }
    }
    files
}

async fn committed(gateway: &Gateway, version: &str) {
    gateway
        .wait_until("it is committed", async |status| status.image.version == version && status.phase == "serving")
        .await;
}

#[test]
fn a_look_says_the_same_and_writes_nothing() {
    let scene = Scene::new();
    let staged = pack::Release { rollout: Some(25), ..release("1.0.1") };
    scene.publisher.publish(&staged, b"the new image");
    let before = scene.disk();
    let output = scene.cli(&["self-update", "--check", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        document(&output),
        json!({
            "running": "1.0.0", "available": "1.0.1", "date": "2026-11-25T00:00:00Z",
            "notes_url": "https://example.org/notes/1.0.1", "failed_before": null, "channel": "stable",
            "rollout": { "percent": 25, "included": null }, "held": null, "window": "02:00-05:00", "offline": true,
        })
    );
    let output = scene.cli(&["self-update", "--check"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("hermes 1.0.1 of 2026-11-25T00:00:00Z is available (1.0.0 is started next)"), "{told}");
    assert_eq!(scene.disk(), before);
    fs::write(scene.home.path().join("gateway.toml"), "[update]\nauto = 1\n").expect("writes");
    let output = scene.cli(&["self-update", "--check", "--json"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_the_trial_that_starts_next_and_proves_itself_and_so_is_the_way_back() {
    let scene = Scene::new();
    scene.release("1.0.1");
    let before = scene.disk();
    let dry = scene.cli(&["self-update", "--dry-run", "--json"]);
    assert_eq!(document(&dry)["starts_next"], false, "{dry:?}");
    let after: Vec<_> = scene.disk().into_keys().filter(|path| !before.contains_key(path)).collect();
    let leftovers = ["gateway.lock", "versions/.lock"].map(|name| scene.home.path().join(name));
    assert!(after.iter().all(|path| leftovers.contains(path)), "{after:?}");

    let output = scene.cli(&["self-update", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.starts_with("no gateway runs; hermes-launch starts 1.0.1 next instead of 1.0.0"), "{told}");
    let trial = scene.slots().and_then(|slots| slots.trial).expect("it is on trial");
    assert_eq!((trial.version.as_str(), trial.boots_left), ("1.0.1", 2));

    let mut gateway = scene.start().await;
    committed(&gateway, "1.0.1").await;
    let record = gateway.status().await.handoffs.remove(0);
    assert_eq!((record.kind.as_str(), record.outcome.as_str()), ("update", "committed"));
    assert_eq!((record.from_version.as_str(), record.to_version.as_str()), ("1.0.0", "1.0.1"));
    gateway.terminate();

    let output = cli(gateway.home(), &["self-update", "--revert", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    gateway.start_again().await;
    committed(&gateway, "1.0.0").await;
    gateway.terminate();
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

#[test]
fn a_trial_that_has_not_begun_is_taken_away_by_going_back() {
    let scene = Scene::new();
    let older = scene.home.path().join("versions/0.9.0/hermes");
    fs::create_dir_all(older.parent().expect("a parent")).expect("creates it");
    fs::copy(BINARY, &older).expect("installs it");
    scene.release("1.0.1");
    let ways: [&[&str]; 2] = [&["self-update", "--revert", "--yes"], &["self-update", "--version", "1.0.0", "--yes"]];
    for way in ways {
        assert_eq!(scene.cli(&["self-update", "--yes"]).status.code(), Some(0));
        let found = document(&scene.cli(&["self-update", "--check", "--json"]));
        assert_eq!((&found["running"], &found["available"]), (&json!("1.0.1"), &Value::Null), "it is started next");
        let again = scene.cli(&["self-update", "--yes"]);
        assert!(String::from_utf8_lossy(&again.stdout).contains("1.0.1 is up to date"), "{again:?}");
        let dry = scene.cli(&[way, &["--dry-run", "--json"]].concat());
        assert_eq!(
            (&document(&dry)["from"]["version"], &document(&dry)["to"]["version"]),
            (&json!("1.0.1"), &json!("1.0.0"))
        );
        assert!(scene.slots().is_some_and(|slots| slots.trial.is_some()), "a dry run changes nothing");

        let output = scene.cli(way);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(told, "no gateway runs; hermes-launch starts 1.0.0 next, and not 1.0.1 on trial\n", "{output:?}");
        let slots = scene.slots().expect("they are there");
        assert_eq!((slots.proven.as_deref(), slots.trial), (Some("1.0.0"), None));
        let note = Store::peek(&scene.home.path().join("state.db"), &["handoff"]).expect("reads");
        assert_eq!(note.get("handoff").map(String::as_str), Some(""), "nothing is tried");
    }
    // These are the bytes of another version.
    let told = error(&scene.cli(&["self-update", "--revert", "--yes"]));
    assert!(told.contains("hermes-gateway 0.9.0 was asked for"), "only then further back: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_can_be_started_while_a_release_is_downloaded() {
    let scene = Scene::new();
    let archive = scene.publisher.release("1.0.1", &fs::read(BINARY).expect("the binary is built"));
    let server = ReleaseServer::start(scene.publisher.dir.path()).await;
    server.fail(&archive, Fault::StallHalfWay);
    let url = format!("file://{}", scene.publisher.path("manifest.json").display());
    let config = scene.config.replace(&url, server.url("manifest.json").as_str());
    fs::write(scene.home.path().join("gateway.toml"), config).expect("writes");
    let mut update = Command::new(BINARY)
        .args(["self-update", "--yes"])
        .env_clear()
        .env("HERMES_HOME", scene.home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // It is under way once it says so.
    let mut told = BufReader::new(update.stderr.take().expect("piped")).lines();
    let downloads = told.find(|line| line.as_ref().is_ok_and(|line| line.contains("download")));
    downloads.expect("it downloads").expect("text");
    let lock = hermes_gateway::service::lock::Lock::acquire(&scene.home.path().join("gateway.lock")).expect("free");
    update.kill().expect("it runs");
    update.wait().expect("it ends");
    assert_eq!(scene.slots(), None);
    drop(lock);
}

#[test]
fn secrets_that_only_the_unit_has_are_no_obstacle() {
    let scene = Scene::new();
    scene.release("1.0.1");
    let platforms = "[platforms.telegram]\ntoken_credential = \"telegram\"\n\
                     [platforms.dingtalk]\nclient_id = \"x\"\nclient_secret_env = \"DINGTALK_SECRET\"\n";
    fs::write(scene.home.path().join("gateway.toml"), format!("{}{platforms}", scene.config)).expect("writes");
    for arguments in [
        &["self-update", "--check"] as &[&str],
        &["self-update", "--hold", "2d"],
        &["self-update", "--yes"],
        &["self-update", "--revert", "--yes"],
    ] {
        let output = scene.cli(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    }
    let checked = scene.cli(&["config", "check"]);
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    assert!(told.contains("'token_credential' cannot be looked at from here, only by the gateway"), "{told}");
    // Who systemd starts has what the unit has.
    let strict = Command::new("sh")
        .args(["-c", "export SYSTEMD_EXEC_PID=$$; exec \"$0\" config check", BINARY])
        .env("HERMES_HOME", scene.home.path())
        .output()
        .expect("it starts");
    assert_eq!(strict.status.code(), Some(78), "{strict:?}");
    let diagnosis = document(&scene.cli(&["doctor", "--offline", "--json"]));
    let findings = diagnosis["findings"].as_array().expect("a list");
    let configuration = findings.iter().find(|finding| finding["check"] == "configuration").expect("it is checked");
    assert_ne!(configuration["level"], "fail", "{diagnosis}");
}

#[test]
fn what_cannot_be_done_safely_is_refused_with_what_to_do() {
    let scene = Scene::new();
    scene.publisher.release("1.0.1", b"no program");
    let told = error(&scene.cli(&["self-update", "--yes"]));
    assert!(told.contains("error: cannot update the gateway that does not run: the new version is refused"), "{told}");
    assert_eq!(scene.slots(), None);
    assert!(!scene.home.path().join("versions/1.0.1").exists());
    let told = error(&scene.cli(&["self-update", "--revert", "--yes"]));
    assert!(told.contains("there is nothing to go back to"), "{told}");

    let alone = hermes_gateway::service::lock::Lock::acquire(&scene.home.path().join("gateway.lock")).expect("free");
    let told = error(&scene.cli(&["self-update", "--yes"]));
    assert!(told.contains("the gateway neither answers nor is it down"), "{told}");
    drop(alone);

    fs::remove_dir_all(scene.home.path().join("versions")).expect("removes");
    let told = error(&scene.cli(&["self-update", "--yes"]));
    assert!(told.contains("no version is installed in ") && told.contains("hint: start the gateway"), "{told}");
}

#[test]
fn updates_can_be_held_while_nothing_runs() {
    let scene = Scene::new();
    scene.publisher.release("1.0.1", b"the new image");
    let output = scene.cli(&["self-update", "--hold", "2d", "--json"]);
    assert!(document(&output)["held"]["until"].is_i64(), "{output:?}");
    assert!(document(&scene.cli(&["self-update", "--check", "--json"]))["held"]["by"].is_string());
    assert_eq!(scene.cli(&["self-update", "--hold", "soon"]).status.code(), Some(2));
    assert_eq!(document(&scene.cli(&["self-update", "--unhold", "--json"]))["held"], Value::Null);
    assert_eq!(document(&scene.cli(&["self-update", "--check", "--json"]))["held"], Value::Null);
}
