//! The webhook whose listener systemd holds (`dist/hermes-gateway-webhook.socket`): who posts is served before the first
//! start, over a restart, an update and a kill, and is never refused.

use std::path::Path;
use std::time::Duration;

use hermes_gateway::control::proto::{self, HandoffKind, HandoffParams, HandoffReport};
use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::dist;
use crate::handoff::{ADMIN, SOON, USER, config, publisher, run};
use crate::support::systemd;
use crate::support::telegram::TelegramServer;
use crate::support::telegram::state::State;
use crate::support::unit::{UNIT, Unit};

const BINARY: &str = env!("CARGO_BIN_EXE_hermes");
const DEADLINE: Duration = Duration::from_secs(180);
const SOCKET: &str = "hermes-gateway-webhook.socket";
const URL: &str = "http://127.0.0.1:8443/hook";
const SECRET: &str = "the-secret-of-the-webhook";
const SECRET_HEADER: &str = "x-telegram-bot-api-secret-token";
/// Between two updates that are posted.
const PERIOD: Duration = Duration::from_millis(60);

/// Each update is in a chat of its own, and of a number that the test server does not give.
fn chat(number: i64) -> i64 {
    50_000 + number
}

fn word(number: i64) -> String {
    format!("word {number}")
}

/// Posts as Telegram does, by a connection of its own; no status if the gateway was killed with it.
///
/// Panics if nobody listens.
async fn post(number: i64) -> Option<StatusCode> {
    let from = json!({ "id": USER, "first_name": "Ann" });
    let message = json!({
        "message_id": 900_000 + number, "date": 1_800_000_000, "text": word(number), "from": from,
        "chat": { "id": chat(number), "type": "private" },
    });
    let body = json!({ "update_id": 900_000 + number, "message": message });
    let client = Client::builder().pool_max_idle_per_host(0).build().expect("a client");
    match client.post(URL).header(SECRET_HEADER, SECRET).json(&body).timeout(SOON).send().await {
        Ok(answer) => Some(answer.status()),
        Err(error) => {
            assert!(!error.is_connect(), "update {number} was refused: {error:?}");
            None
        }
    }
}

/// Posts one update after the other, each until it is confirmed, until [`Posting::end`].
struct Posting {
    stop: watch::Sender<bool>,
    task: JoinHandle<i64>,
}

impl Posting {
    fn from(first: i64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(PERIOD);
            let mut number = first;
            while !*stopped.borrow() {
                ticks.tick().await;
                if post(number).await == Some(StatusCode::OK) {
                    number += 1;
                }
            }
            number
        });
        Self { stop, task }
    }

    /// The number behind the last that was confirmed.
    async fn end(self) -> i64 {
        self.stop.send_replace(true);
        tokio::time::timeout(SOON, self.task).await.expect("the last is answered").expect("nobody was refused")
    }
}

/// Waits until all before `end` are answered, and checks that no one is answered twice without a word on that.
async fn answered(telegram: &TelegramServer, end: i64) {
    for number in 0..end {
        let word = word(number);
        let is_there = |state: &State| state.texts(chat(number)).iter().any(|text| text.ends_with(&word)).then_some(());
        telegram.until(&format!("an answer to update {number}"), is_there).await;
    }
    for number in 0..end {
        let texts = telegram.texts(chat(number));
        let plain = texts.iter().filter(|text| **text == word(number)).count();
        assert!(plain <= 1 && texts.iter().all(|text| text.ends_with(&word(number))), "{number}: {texts:?}");
    }
}

#[test]
fn nobody_who_posts_is_refused_from_before_the_start_to_after_a_kill() {
    let name = "service::webhook::nobody_who_posts_is_refused_from_before_the_start_to_after_a_kill";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    hermes_gateway::tls::choose_provider();
    run(async {
        let telegram = TelegramServer::start().await;
        let publisher = publisher();
        publisher.release("1.0.1", &std::fs::read(BINARY).expect("the binary is built"));
        let hook = format!("webhook_url = '{URL}'\nwebhook_secret = '{SECRET}'\n[update]\n");
        let config = config(&telegram, &publisher).replace("[update]\n", &hook);
        let drop_in = "[Service]\nRestartSec=200ms\n";
        let unit = Unit::install_with(&systemd, Path::new(BINARY), "on-failure", &config, drop_in);
        systemd.install(SOCKET, &dist(SOCKET));
        systemd.systemctl(&["start", SOCKET]);
        assert_eq!(systemd.show(UNIT, "ActiveState"), "inactive");

        // It waits for the gateway, and starts it.
        assert_eq!(post(0).await, Some(StatusCode::OK));
        unit.start();
        answered(&telegram, 1).await;
        let (process, agent) = (unit.main_pid(), unit.agent_pid().await);

        let posting = Posting::from(1);
        let params = HandoffParams { kind: HandoffKind::Restart, force: false, reason: None };
        let restarted: HandoffReport =
            unit.client().await.request(proto::HANDOFF, &params, SOON, |_, _| {}).await.expect("a handoff succeeds");
        assert_eq!(restarted.generation, 1);
        telegram.say(ADMIN, ADMIN, "/update");
        let done = "✅ updated 1.0.0 → 1.0.1, same process";
        let is_done = |state: &State| state.texts(ADMIN).iter().any(|text| text.starts_with(done)).then_some(());
        telegram.until("an update", is_done).await;
        assert_eq!(unit.main_pid(), process);

        systemd.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", UNIT]);
        systemd.wait_until("another process serves", SOON, || {
            systemd.show(UNIT, "ActiveState") == "active" && unit.main_pid() != process
        });
        assert_eq!(unit.agent_pid().await, agent);
        // The other process takes in what is posted.
        let last = posting.end().await;
        assert_eq!(post(last).await, Some(StatusCode::OK), "{}", unit.journal());
        assert!(last > 3, "updates were posted meanwhile");
        answered(&telegram, last + 1).await;
        telegram.look(|state| assert_eq!(state.calls_of("getUpdates"), 0));
        assert_eq!(systemd.show(SOCKET, "ActiveState"), "active");
        systemd.systemctl(&["stop", SOCKET, UNIT]);
        assert_eq!(unit.processes(), [0; 0]);
    });
}
