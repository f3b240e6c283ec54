//! Requests that are not taken up, and those that only look.

use std::fs;
use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{ADMIN, BINARY, RUNNING, Scene, USER, error_of, json_error_of};
use crate::support::release::Fault;

fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_update_at_a_time_and_the_second_is_told_who_and_where() {
    let mut scene = Scene::start().await;
    let name = scene.publisher.release("1.1.0", b"the new image");
    scene.server.fail(&name, Fault::StallHalfWay);
    scene.telegram.say(ADMIN, ADMIN, "/update");
    scene.gateway.wait_until("it downloads", async |status| status.phase == "stage").await;

    let busy = |message: &str| {
        let rest = message.strip_prefix("an update asked for by User 1001 (id 1001) is under way (stage, ");
        let seconds = rest.and_then(|rest| rest.strip_suffix(" s)")).unwrap_or_else(|| panic!("{message}"));
        seconds.parse::<u64>().expect("seconds");
    };
    busy(&error_of(&scene.gateway.cli(&["self-update", "--yes"]).await));
    busy(&error_of(&scene.gateway.cli(&["gateway", "restart"]).await));
    let (code, message) = json_error_of(&scene.gateway.cli(&["self-update", "--yes", "--json"]).await);
    assert_eq!(code, "busy");
    busy(&message);
    scene.telegram.say(ADMIN, 7000, "/restart");
    let told = scene.telegram.until("the second is told", |state| state.texts(7000).pop()).await;
    busy(told.strip_prefix("⏳ Not now: ").and_then(|told| told.strip_suffix('.')).expect("a refusal"));
    scene.answers().await;

    // A download that hangs does not hold up a stop, and who waits for the update is told.
    scene.gateway.signal(Signal::SIGTERM);
    assert_eq!(scene.gateway.wait().code(), Some(0));
    let state = scene.gateway.state_file();
    assert_eq!((&state["gateway_state"], &state["restart_requested"]), (&json!("stopped"), &json!(false)));
    let stopped = "⏹ The update does not take place: the gateway stops (SIGTERM).".to_owned();
    scene.telegram.until("it is told", |state| state.texts(ADMIN).contains(&stopped).then_some(())).await;
    scene.gateway.start_again().await;
    scene.answers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_waits_for_an_update_is_told_of_a_stop() {
    let mut scene = Scene::start().await;
    let name = scene.publisher.release("1.1.0", b"the new image");
    scene.server.fail(&name, Fault::StallHalfWay);
    let stop = async {
        scene.gateway.wait_until("it downloads", async |status| status.phase == "stage").await;
        scene.gateway.signal(Signal::SIGTERM);
    };
    let (output, ()) = tokio::join!(scene.gateway.cli(&["self-update", "--yes", "--json"]), stop);
    assert_eq!(json_error_of(&output), ("stopping".to_owned(), "the gateway stops (SIGTERM)".to_owned()));
    assert_eq!(scene.gateway.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_admin_is_told_so_and_nothing_is_fetched() {
    let scene = Scene::start().await;
    scene.publisher.release("1.1.0", b"the new image");
    let before = scene.untouched().await;
    for (number, command) in
        ["/update", "/update 1.1.0", "/update check", "/restart", "/reload"].into_iter().enumerate()
    {
        let chat = 8000 + i64::try_from(number).expect("few");
        scene.telegram.say(USER, chat, command);
        let told = scene.telegram.until("a refusal", |state| state.texts(chat).pop()).await;
        assert_eq!(told, "This command is for admins.", "{command}");
    }
    assert_eq!(scene.untouched().await, before);
    assert_eq!(scene.gateway.status().await.handoffs, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_and_trying_change_nothing() {
    let mut scene = Scene::start().await;
    scene.publisher.release(RUNNING, b"the same");
    let before = scene.untouched().await;
    assert_eq!(stdout(&scene.gateway.cli(&["self-update", "--check"]).await), "hermes 1.0.0 is up to date\n");
    assert_eq!(stdout(&scene.gateway.cli(&["self-update", "--yes"]).await), "hermes 1.0.0 is up to date\n");
    assert_eq!(stdout(&scene.gateway.cli(&["self-update", "--dry-run"]).await), "hermes 1.0.0 is up to date\n");
    scene.telegram.say(ADMIN, 9000, "/update");
    scene.telegram.say(ADMIN, 9001, "/update check");
    for chat in [9000, 9001] {
        let newest = "1.0.0 is the newest release.".to_owned();
        scene.telegram.until("it is told", |state| state.texts(chat).contains(&newest).then_some(())).await;
    }

    scene.publisher.release("1.1.0", &fs::read(BINARY).expect("the binary is built"));
    let found = stdout(&scene.gateway.cli(&["self-update", "--check"]).await);
    assert!(found.starts_with("hermes 1.1.0 of 2026-11-25"), "{found}");
    let found = stdout(&scene.gateway.cli(&["self-update", "--check", "--json"]).await);
    let found: Value = serde_json::from_str(&found).expect("JSON");
    assert_eq!((&found["running"], &found["available"]), (&json!("1.0.0"), &json!("1.1.0")));
    scene.telegram.say(ADMIN, 9002, "/update check");
    let told = scene.telegram.until("it is told", |state| state.texts(9002).pop()).await;
    assert_eq!(told, "1.1.0 is available; 1.0.0 runs. /update installs it.");

    let tried = stdout(&scene.gateway.cli(&["self-update", "--dry-run"]).await);
    assert!(tried.starts_with("1.0.0 → 1.1.0 would work"), "{tried}");
    let tried = stdout(&scene.gateway.cli(&["self-update", "--dry-run", "--json"]).await);
    let tried: Value = serde_json::from_str(&tried).expect("JSON");
    assert_eq!((&tried["dry_run"], &tried["to"]["version"]), (&json!(true), &json!("1.1.0")));
    assert_eq!(scene.untouched().await, before);
    scene.updates().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_that_fails_says_why() {
    let scene = Scene::start().await;
    scene.server.fail("manifest.json", Fault::Content(b"<!doctype html>".to_vec()));
    let reason = "the manifest is not JSON: does manifest_url lead to a web page?: expected value at line 1 column 1";
    assert_eq!(error_of(&scene.gateway.cli(&["self-update", "--check"]).await), reason);
    let told = json_error_of(&scene.gateway.cli(&["self-update", "--check", "--json"]).await);
    assert_eq!(told, ("internal".to_owned(), reason.to_owned()));
    scene.telegram.say(ADMIN, 9200, "/update check");
    let told = scene.telegram.until("it is told", |state| state.texts(9200).pop()).await;
    assert_eq!(told, format!("❌ Cannot look for releases: {reason}"));
    scene.answers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_cannot_be_had_is_told() {
    let scene = Scene::start().await;
    scene.publisher.release("1.1.0", b"the new image");
    let before = scene.untouched().await;
    for (number, (version, reason)) in [
        ("1.5.0", "version 1.5.0 is not in the manifest, which lists 1.1.0"),
        ("1.0.9", "version 1.0.9 is not in the manifest, which lists 1.1.0"),
        ("1.0.0", "version 1.0.0 already runs"),
        ("0.9.0", "version 0.9.0 is older than 1.0.0, which runs: to go back use the revert command"),
        ("soon", "'soon' is not a version; one looks like 1.5.0"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(error_of(&scene.gateway.cli(&["self-update", "--yes", "--version", version]).await), reason);
        let chat = 9100 + i64::try_from(number).expect("few");
        scene.telegram.say(ADMIN, chat, &format!("/update {version}"));
        assert_eq!(scene.failure_in(chat).await, reason);
    }
    assert_eq!(scene.untouched().await, before);
}
