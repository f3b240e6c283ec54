//! The chat page under a real systemd, while the gateway is killed.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::gateway::WATCH;
use crate::handoff::{SOON, run};
use crate::support::browser::{Browser, key};
use crate::support::gateway::{expected_stream, stream_prompt};
use crate::support::systemd;
use crate::support::unit::{HOME, UNIT, Unit};

const TOKEN: &str = "a token of the tests";
const DEADLINE: Duration = Duration::from_secs(180);

#[test]
fn an_answer_goes_on_in_the_page_over_a_kill() {
    let name = "browser::outage::an_answer_goes_on_in_the_page_over_a_kill";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    run(async {
        let config = format!(
            "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\ncwd = \"{HOME}\"\n\
             [platforms.web]\ntoken = \"{TOKEN}\"\n"
        );
        let binary = Path::new(env!("CARGO_BIN_EXE_hermes"));
        let drop_in = "[Service]\nRestartSec=100ms\n";
        let unit = Unit::install_with(&systemd, binary, "on-failure", &config, drop_in);
        unit.start();
        let (agent, before) = (unit.agent_pid().await, unit.main_pid());
        let browser = Browser::start().await;
        browser.go("http://127.0.0.1:8787/chat").await;
        browser.click("#token").await;
        browser.press(&format!("{TOKEN}{}", key::ENTER)).await;
        browser.until("the page is there", "document.querySelector('nav')").await;
        let (chunks, bytes) = (300, 40);
        let wanted = expected_stream(chunks, bytes);
        browser.press(&format!("{}{}", stream_prompt(chunks, bytes, 20), key::ENTER)).await;
        let has = |part: usize| {
            format!("document.querySelector('.from-agent .body')?.textContent.length > {}", part * wanted.len() / 10)
        };
        browser.until("some of it is there", &has(2)).await;
        browser.eval(WATCH).await;
        systemd.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", UNIT]);
        systemd.wait_until("another process serves", SOON, || {
            systemd.show(UNIT, "ActiveState") == "active" && unit.main_pid() != before
        });
        browser.until("the new process is told", "document.querySelector('.note')").await;
        assert!(browser.text(".note").await.ends_with("a new process, while you read"));
        let whole = format!("document.querySelector('.from-agent .body').textContent.length >= {}", wanted.len());
        browser.until("it is whole", &format!("{whole} && !document.querySelector('.is-growing')")).await;
        let shown = browser.eval("return document.querySelector('.from-agent .body').textContent").await;
        assert!(shown == wanted.as_str(), "the answer is not the one that the agent gave");
        assert_eq!(browser.eval("return answer === document.querySelector('.from-agent')").await, true);
        assert_eq!(browser.eval("return breaks").await, json!([]), "nothing of it is seen");
        assert_eq!(unit.agent_pid().await, agent, "the same agent");
        unit.stop();
    });
}
