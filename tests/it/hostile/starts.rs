//! Starts: what an earlier process left behind is never believed, and a stop that comes early is a stop.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use hermes_gateway::control::proto::{self, HandoffKind, HandoffParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{BINARY, ECHO, USER, assert_no_panic, echoes, home, start, telegram_config};
use crate::support::gateway::{Gateway, SOON};
use crate::support::telegram::TelegramServer;
use crate::support::telegram::faults::Fault;

fn hermes(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_clear().env("HERMES_HOME", home).stdin(Stdio::null()).output().expect("it starts")
}

fn assert_not_running(home: &Path) {
    let status = hermes(home, &["gateway", "status"]);
    assert_eq!(status.status.code(), Some(3), "{status:?}");
    assert!(String::from_utf8_lossy(&status.stdout).contains("does not run"), "{status:?}");
    for command in ["stop", "restart"] {
        let output = hermes(home, &["gateway", command]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("error: no gateway is running on"), "{command}: {told}");
    }
}

/// Everything says that a process runs which is another program by now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_name_a_process_of_others_hinder_nothing_and_harm_nobody() {
    let mut foreign = Command::new("sleep").arg("1000").spawn().expect("sleep starts");
    let pid = foreign.id();
    let home = home();
    let write = |name: &str, text: String| fs::write(home.path().join(name), text).expect("writes");
    let process =
        json!({ "pid": pid, "kind": "hermes-gateway", "argv": ["hermes", "gateway", "run"], "start_time": 1 });
    write("gateway.pid", process.to_string());
    write("gateway.lock", format!("{pid}\n"));
    let state = json!({
        "pid": pid, "kind": "hermes-gateway", "gateway_state": "draining", "restart_requested": true,
        "handoff": { "phase": "drain", "to_version": "9.9.9", "started_at": 1 },
        "control_sock": home.path().join("control.sock"),
    });
    write("gateway_state.json", state.to_string());
    drop(UnixListener::bind(home.path().join("control.sock")).expect("a socket that nobody listens on"));
    assert_not_running(home.path());

    let gateway = Gateway::start_in(home, Path::new(BINARY), ECHO).await;
    let mut chat = gateway.chat("main").await;
    echoes(&mut chat, "serves").await;
    let state = gateway.state_file();
    assert_eq!(state["gateway_state"], "running");
    assert_eq!((&state["pid"], &state["restart_requested"]), (&gateway.pid().into(), &false.into()));
    assert_eq!(state["handoff"], Value::Null);
    let told = fs::read(gateway.home().join("gateway.pid")).expect("it is written");
    let told: Value = serde_json::from_slice(&told).expect("it is whole");
    assert_eq!(told["pid"], gateway.pid());
    assert!(foreign.try_wait().expect("looked at").is_none(), "the other program goes on");
    foreign.kill().expect("it runs");
    foreign.wait().expect("reaped");
    assert!(gateway.log().contains("not run by systemd"), "what that means is told: {}", gateway.log());
    assert_no_panic(&gateway);
}

/// A process that is killed while it drains cannot take its `draining` back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_does_not_outlive_the_process_that_drained() {
    let telegram = TelegramServer::start().await;
    let config = format!("[gateway]\nrestart_drain_timeout = \"10m\"\n{}", telegram_config(&telegram));
    let mut gateway = start(&config).await;
    telegram.fault("sendMessage", 1, Fault::Hang);
    telegram.say(USER, USER, "hello");
    telegram
        .until("a send hangs", |state| state.calls.iter().find(|call| call.method == "sendMessage").map(|_| ()))
        .await;
    let mut client = gateway.client().await;
    let params = HandoffParams { kind: HandoffKind::Restart, force: false, reason: None };
    client.send(proto::HANDOFF, &params).await.expect("sends");
    gateway.wait_until("it drains", async |status| status.gateway_state == "draining").await;
    let start = Instant::now();
    while gateway.state_file()["gateway_state"] != "draining" {
        assert!(start.elapsed() < SOON, "{}", gateway.log());
        tokio::task::yield_now().await;
    }
    gateway.signal(Signal::SIGKILL);
    gateway.wait();
    assert_eq!(gateway.state_file()["gateway_state"], "draining", "what the killed one left");
    assert_not_running(gateway.home());
    gateway.start_again().await;
    let state = gateway.state_file();
    assert_eq!((&state["pid"], &state["handoff"]), (&gateway.pid().into(), &Value::Null));
    assert_ne!(state["gateway_state"], "draining");
    assert_no_panic(&gateway);
}

/// What waited in it is lost, and said so; the gateway serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_database_is_set_aside_and_the_admins_are_told() {
    const ADMIN: i64 = 1001;
    let telegram = TelegramServer::start().await;
    let config = format!("{}allow_admin_from = [{ADMIN}]\n", telegram_config(&telegram));
    let mut gateway = start(&config).await;
    telegram.say(USER, USER, "before");
    telegram.until("an answer", |state| (!state.texts(USER).is_empty()).then_some(())).await;
    gateway.signal(Signal::SIGKILL);
    gateway.wait();
    let path = gateway.home().join("state.db");
    // It has the header once more.
    fs::remove_file(gateway.home().join("state.db-wal")).expect("a kill leaves it");
    let mut bytes = fs::read(&path).expect("reads");
    bytes[..100].fill(0xa5);
    fs::write(&path, bytes).expect("writes");
    gateway.start_again().await;
    telegram
        .until("the word of it", |state| {
            state.texts(ADMIN).iter().any(|text| text.contains("state.db.damaged-")).then_some(())
        })
        .await;
    let names = fs::read_dir(gateway.home()).expect("lists").map(|entry| entry.expect("reads").file_name());
    let aside: Vec<_> = names.filter(|name| name.to_string_lossy().contains(".db.damaged-")).collect();
    assert!(!aside.is_empty(), "it is kept");
    telegram.say(USER, USER, "after");
    telegram.until("an answer", |state| state.texts(USER).iter().any(|text| text == "after").then_some(())).await;
    assert!(gateway.log().contains("the database is damaged and was set aside"), "{}", gateway.log());
    assert_no_panic(&gateway);
}

/// Who holds the database's lock stands for a disk that does not answer: the start waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_the_database_is_being_opened_is_an_orderly_stop() {
    let mut gateway = start(ECHO).await;
    assert!(gateway.terminate().success());
    let database = rusqlite::Connection::open(gateway.home().join("state.db")).expect("opens");
    database.pragma_update(None, "locking_mode", "EXCLUSIVE").expect("sets");
    database.execute_batch("BEGIN EXCLUSIVE").expect("locks");
    gateway.launch_again();
    let start = Instant::now();
    while gateway.state_file()["gateway_state"] != "starting" {
        assert!(start.elapsed() < SOON, "{}", gateway.log());
        tokio::task::yield_now().await;
    }
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
    let state = gateway.state_file();
    assert_eq!(state["gateway_state"], "stopped", "{}", gateway.log());
    assert_eq!(state["exit_reason"], "stopped by SIGTERM before it was up");
    assert!(!gateway.home().join("gateway.pid").exists());
    // What else is asked for so early is done once it serves.
    gateway.launch_again();
    let start = Instant::now();
    while gateway.state_file()["gateway_state"] != "starting" {
        assert!(start.elapsed() < SOON, "{}", gateway.log());
        tokio::task::yield_now().await;
    }
    gateway.signal(Signal::SIGUSR1);
    drop(database);
    gateway.wait_until("it replaces itself", async |status| status.generation == 1).await;
    assert_no_panic(&gateway);
}
