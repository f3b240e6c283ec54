//! The way back: `/update revert` and `hermes self-update --revert`, and versions that failed here and are not tried
//! again unless they are named.

use std::fs;
use std::process::Output;

use hermes_gateway::chat::ReplyEnd;
use hermes_gateway::update::Versions;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, expected_stream, stream_prompt};
use crate::support::release::Publisher;

const BINARY: &str = env!("CARGO_BIN_EXE_hermes");

/// A gateway 1.0.0 that is installed, and a publisher that has 1.0.1.
async fn scene(probation: &str) -> (Gateway, Publisher) {
    let publisher = Publisher::new();
    let binary = fs::read(BINARY).expect("the binary is built");
    publisher.release("1.0.1", &binary);
    let home = tempfile::Builder::new().prefix("hermes-").tempdir().expect("a temporary directory");
    let versions = Versions::new(home.path());
    let installed = "1.0.0".parse().expect("a version");
    let path = versions.path(&installed);
    fs::create_dir_all(path.parent().expect("a parent")).expect("creates it");
    fs::copy(BINARY, &path).expect("installs it");
    versions.set_current(&installed).expect("it is there");
    let config = format!(
        "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\ncwd = \"/\"\n\
         [gateway]\nprobation = \"{probation}\"\n\
         [update]\nmanifest_url = \"file://{}\"\nverifying_keys = [\"{}\"]\n",
        publisher.path("manifest.json").display(),
        publisher.public_key()
    );
    (Gateway::start_in(home, &path, &config).await, publisher)
}

fn said(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn current(gateway: &Gateway) -> String {
    let link = fs::read_link(gateway.home().join("versions/current")).expect("a version is committed");
    link.display().to_string()
}

async fn committed(gateway: &Gateway, version: &str) {
    gateway
        .wait_until("it is committed", async |status| status.image.version == version && status.phase == "serving")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_back_needs_no_network_and_carries_the_turn() {
    let (gateway, publisher) = scene("0s").await;
    let told = failed(&gateway.cli(&["self-update", "--revert", "--yes"]).await);
    assert!(told.contains("error: there is nothing to go back to: ") && told.contains("below 1.0.0"), "{told}");
    said(&gateway.cli(&["self-update", "--yes"]).await);
    committed(&gateway, "1.0.1").await;
    fs::remove_file(publisher.path("manifest.json")).expect("no release can be looked for any more");

    let dry = said(&gateway.cli(&["self-update", "--revert", "--dry-run", "--json"]).await);
    let dry: Value = serde_json::from_str(&dry).expect("one document");
    assert_eq!(json!([dry["kind"], dry["dry_run"], dry["to"]["version"]]), json!(["revert", true, "1.0.0"]));
    let before = gateway.status().await;
    assert_eq!(before.image.version, "1.0.1");

    let mut chat = gateway.chat("main").await;
    let (chunks, bytes) = (200, 20);
    chat.say(&stream_prompt(chunks, bytes, 10)).await;
    gateway.wait_until("a turn runs", async |status| !status.agents[0].turns.is_empty()).await;
    let told = said(&gateway.cli(&["self-update", "--revert", "--yes"]).await);
    let expected = format!("reverted 1.0.1 → 1.0.0, same process (PID {}), 1 turn carried", gateway.pid());
    assert!(told.starts_with(&expected), "{told}");
    let answer = chat.answer(async |_, _| {}).await;
    assert_eq!((answer.text, answer.end), (expected_stream(chunks, bytes), ReplyEnd::Complete));

    committed(&gateway, "1.0.0").await;
    let after = gateway.status().await;
    assert_eq!((after.pid, after.agents[0].pid), (before.pid, before.agents[0].pid));
    let record = &after.handoffs[0];
    assert_eq!((record.kind.as_str(), record.outcome.as_str()), ("revert", "committed"));
    assert_eq!((record.from_version.as_str(), record.to_version.as_str()), ("1.0.1", "1.0.0"));
    assert_eq!(current(&gateway), "1.0.0");

    // Forward again, but only by name.
    publisher.release("1.0.1", &fs::read(BINARY).expect("the binary is built"));
    let told = failed(&gateway.cli(&["self-update", "--yes"]).await);
    assert!(told.contains("/update 1.0.1 takes it again"), "{told}");
    said(&gateway.cli(&["self-update", "--yes", "--version", "1.0.1"]).await);
    committed(&gateway, "1.0.1").await;
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_goes_back_too() {
    let (gateway, _publisher) = scene("0s").await;
    let mut chat = gateway.chat("main").await;
    chat.say("/update revert").await;
    let told = chat.notice("❌ The revert failed: there is nothing to go back to").await;
    assert!(told.ends_with("1.0.0 goes on as before."), "{told}");
    chat.say("/update").await;
    chat.notice("✅ updated 1.0.0 → 1.0.1").await;
    committed(&gateway, "1.0.1").await;
    chat.say("/update revert").await;
    chat.notice("♻ Going back to the version before…").await;
    let told = chat.notice("✅").await;
    assert!(told.starts_with("✅ reverted 1.0.1 → 1.0.0, same process"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_failed_is_taken_again_only_by_name_until_it_proves_itself() {
    let (mut gateway, _publisher) = scene("1h").await;
    let check = async |gateway: &Gateway| {
        let found = said(&gateway.cli(&["self-update", "--check", "--json"]).await);
        serde_json::from_str::<Value>(&found).expect("one document")
    };

    // A stop is no failure.
    said(&gateway.cli(&["self-update", "--yes"]).await);
    gateway.terminate();
    gateway.start_again().await;
    assert_eq!(gateway.status().await.image.version, "1.0.0");
    assert_eq!(check(&gateway).await["failed_before"], Value::Null);

    said(&gateway.cli(&["self-update", "--yes", "--version", "1.0.1"]).await);
    assert_eq!(gateway.status().await.phase, "probation");
    gateway.signal(Signal::SIGKILL);
    gateway.wait();
    gateway.start_again().await;
    let why = "its process ended before it had proven itself";
    let sentence = format!("1.0.1 failed here before ({why}); /update 1.0.1 tries it again");
    let told = failed(&gateway.cli(&["self-update", "--yes"]).await);
    assert!(told.contains(&sentence), "{told}");
    let found = check(&gateway).await;
    assert_eq!(found["failed_before"], json!({ "version": "1.0.1", "reason": why }));
    assert_eq!(found["available"], Value::Null);
    let told = said(&gateway.cli(&["self-update", "--check"]).await);
    assert!(told.contains(&format!("hermes 1.0.1 is available and failed here before ({why})")), "{told}");
    let mut chat = gateway.chat("main").await;
    chat.say("/update check").await;
    chat.notice(&sentence).await;

    said(&gateway.cli(&["self-update", "--yes", "--version", "1.0.1"]).await);
    gateway.wait_until("it is healthy", async |status| status.agents[0].state == "ready").await;
    // Asking for the next handoff ends the probation of an image that is healthy, which its trial of an agent must have
    // shown by then.
    gateway
        .wait_until("it is committed", async |status| {
            if status.phase == "probation" {
                said(&gateway.cli(&["gateway", "restart"]).await);
            }
            status.image.version == "1.0.1" && status.phase == "serving"
        })
        .await;
    gateway.signal(Signal::SIGKILL);
    gateway.wait();
    gateway.start_again().await;
    assert_eq!(check(&gateway).await["failed_before"], Value::Null);
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}
