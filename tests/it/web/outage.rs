//! The pages under a real systemd: an update, a restart and kills while an answer grows, without a byte lost or repeated; and
//! with a database that does not answer.

use std::path::Path;
use std::time::{Duration, Instant};

use hermes_gateway::control::proto::HandoffKind;
use serde_json::{Value, json};

use super::client::{Site, TOKEN, config, uuid};
use crate::handoff::{SOON, publisher, run};
use crate::support::address::own_address;
use crate::support::gateway::{Gateway, expected_stream, stream_prompt};
use crate::support::systemd;
use crate::support::unit::{HOME, UNIT, Unit};

const BINARY: &str = env!("CARGO_BIN_EXE_hermes");
const DEADLINE: Duration = Duration::from_secs(180);

#[test]
fn an_answer_grows_over_an_update_a_restart_and_a_kill() {
    let name = "web::outage::an_answer_grows_over_an_update_a_restart_and_a_kill";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    run(async {
        let publisher = publisher();
        publisher.release("1.0.1", &std::fs::read(BINARY).expect("the binary is built"));
        let config = format!(
            "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\ncwd = \"{HOME}\"\n\
             [gateway]\nprobation = \"1s\"\n[platforms.web]\ntoken = \"{TOKEN}\"\n\
             [update]\nmanifest_url = \"file://{}\"\nverifying_keys = [\"{}\"]\n",
            publisher.path("manifest.json").display(),
            publisher.public_key(),
        );
        let drop_in = "[Service]\nRestartSec=100ms\n";
        let unit = Unit::install_with(&systemd, Path::new(BINARY), "on-failure", &config, drop_in);
        unit.start();
        let agent = unit.agent_pid().await;
        let site = Site::new("127.0.0.1:8787".parse().expect("an address"), TOKEN);
        let mut page = site.stream("chat=main&status=1");
        let (chunks, bytes) = (500, 40);
        let number = site.say("answers", &stream_prompt(chunks, bytes, 20)).await;
        drop(page);
        page = site.stream("chat=answers&status=1");
        page.growing(number, 1_000).await;
        for (seen, how) in
            [(2_000, "restart"), (5_000, "update"), (8_000, "kill"), (11_000, "kill"), (14_000, "restart")]
        {
            let before = unit.main_pid();
            match how {
                "kill" => {
                    systemd.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", UNIT]);
                    systemd.wait_until("another process serves", SOON, || {
                        systemd.show(UNIT, "ActiveState") == "active" && unit.main_pid() != before
                    });
                }
                _ => {
                    let generation = unit.status().await.generation;
                    let answer = site.post(&format!("/api/{how}"), &json!({ "id": uuid() })).await;
                    assert!(answer.status().is_success(), "{how}: {}", answer.status());
                    let start = Instant::now();
                    while unit.status().await.generation == generation {
                        assert!(start.elapsed() < SOON, "{how} is not over\n{}", unit.journal());
                        page.next().await;
                    }
                    assert_eq!(unit.main_pid(), before, "{how}: the same process");
                }
            }
            page.growing(number, seen).await;
        }
        assert_eq!(page.answer_to(number).await, expected_stream(chunks, bytes), "{}", unit.journal());
        assert_eq!(page.said_by("agent"), 1, "nothing is there twice");
        assert_eq!(unit.agent_pid().await, agent, "the same agent");
        // A page that is loaded now shows the same, and the answers to the buttons.
        let mut reloaded = site.stream("chat=answers");
        assert_eq!(reloaded.answer_to(number).await, expected_stream(chunks, bytes));
        let mut main = site.stream("chat=main");
        main.until("the update is told", |messages| {
            messages
                .values()
                .any(|said| said["text"].as_str().is_some_and(|text| text.contains("1.0.0 → 1.0.1")))
                .then_some(())
        })
        .await;
        assert!(!unit.journal().contains(TOKEN), "no token is logged");
        assert!(!Path::new(HOME).join("web-token").exists(), "the configuration has one");
        unit.stop();
    });
}

#[tokio::test]
async fn the_handoffs_are_shown_while_the_database_does_not_answer() {
    let address = own_address();
    let gateway = Gateway::start(Path::new(BINARY), &config(address, "")).await;
    let site = Site::new(address, TOKEN);
    gateway.handoff(HandoffKind::Restart).await.expect("it restarts");
    let status = async || -> Value { site.get("/api/status").await.json().await.expect("JSON") };
    let start = Instant::now();
    while status().await["handoffs"] == json!([]) {
        assert!(start.elapsed() < SOON, "no handoff is shown");
    }
    let database = rusqlite::Connection::open(gateway.home().join("state.db")).expect("opens");
    database.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let said = tokio::spawn({
        let site = site.clone();
        async move { site.say("main", "waits").await }
    });
    let start = Instant::now();
    loop {
        let status = status().await;
        assert_ne!(status["handoffs"], json!([]));
        if status["queues"]["outbox"].is_null() {
            break;
        }
        assert!(start.elapsed() < SOON, "{status}");
    }
    drop(database);
    said.await.expect("it is said");
}
