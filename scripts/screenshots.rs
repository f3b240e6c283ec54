//! What `scripts/screenshots` runs: a gateway that is restarted, updated and badly updated, and pictures of its pages.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use hermes_gateway::control::proto::HandoffKind;

#[path = "../tests/it/support/browser.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod browser;
#[path = "../tests/it/support/gateway.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod gateway;
#[path = "../tests/it/support/openai.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod openai;
#[path = "../tests/it/support/release.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod release;

use browser::{Browser, key};
use gateway::Gateway;
use openai::{Answer, FakeOpenai, Then, deltas, whole};
use release::Publisher;

const TOKEN: &str = "a token of the pictures";

const QUESTION: &str = "How do I see which services failed on the last boot?";
const ANSWER: &str = "Ask systemd for units in the state *failed*:\n\n```sh\nsystemctl --failed\njournalctl -b -1 -p err\n```\n\n\
    - The first lists what is failed **now**.\n- The second has errors of the boot before (`-b -1`).\n\n\
    `systemctl reset-failed` clears the list once you have looked.";
const LONG_QUESTION: &str = "And how do I keep one of them from starting?";
const LONG_ANSWER: &str = "There are three degrees of it:\n\n| command | what it does |\n|---|---|\n\
    | `systemctl stop` | ends it now |\n| `systemctl disable` | does not start it at boot |\n\
    | `systemctl mask` | nothing can start it at all |\n\nFor one that must never run, `mask` it. For";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(binary), Some(out)) = (arguments.next(), arguments.next()) else {
        panic!("start it with scripts/screenshots");
    };
    let binary = std::fs::read(binary).expect("hermes is built");
    let publisher = Publisher::new();
    let installed = tempfile::tempdir().expect("a temporary directory");
    let (gateway, base) = start(&binary, &publisher, installed.path()).await;
    let browser = Browser::start().await;
    browser.go(&format!("{base}/chat")).await;
    browser.click("#token").await;
    browser.press(&format!("{TOKEN}{}", key::ENTER)).await;
    browser.until("the chat is there", "document.getElementById('messages')?.ariaBusy === 'false'").await;

    gateway.handoff(HandoffKind::Restart).await.expect("restarts");
    browser.until("it is told", "document.querySelector('.note')").await;
    browser.go(&format!("{base}/chat")).await;
    browser.press(&format!("{QUESTION}{}", key::ENTER)).await;
    browser.until("it is answered", "document.querySelector('.from-agent:not(.is-growing) ul')").await;
    let broken = publisher.release("1.4.9", b"#!/bin/false\n");
    drop(broken);
    let update = |version: &str| HandoffKind::Update { version: Some(version.to_owned()), dry_run: false };
    gateway.handoff(update("1.4.9")).await.expect_err("it is a script");
    browser.press(&format!("{LONG_QUESTION}{}", key::ENTER)).await;
    browser.until("the answer grows", "document.querySelector('.from-agent.is-growing table')").await;
    publisher.release("1.5.0", &binary);
    gateway.handoff(update("1.5.0")).await.expect("updates");
    browser.until("it is told", "document.querySelector('.note')").await;
    picture(&browser, &out, "chat", "light", 900, 940).await;
    picture(&browser, &out, "chat-phone", "dark", 390, 760).await;

    browser.go(&format!("{base}/")).await;
    gateway.wait_until("it is committed", async |status| status.phase == "serving").await;
    browser.until("it is told", "document.querySelector('.handoff').innerText.includes('committed')").await;
    picture(&browser, &out, "status-light", "light", 1040, 1000).await;
    picture(&browser, &out, "status-dark", "dark", 1040, 1000).await;
    picture(&browser, &out, "status-phone", "light", 390, 844).await;
}

/// A gateway 1.4.0 with a model that is scripted.
async fn start(binary: &[u8], publisher: &Publisher, installed: &Path) -> (Gateway, String) {
    let mut image = binary.to_vec();
    let version = "1.4.0".parse().expect("a version");
    release::pack::restamp(&mut image, &version).expect("a hermes has one version block");
    let path = installed.join("hermes");
    std::fs::write(&path, image).expect("writes it");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, executable).expect("makes it a program");
    let words: Vec<&str> = LONG_ANSWER.split_inclusive(' ').collect();
    let model = FakeOpenai::start([whole(&[ANSWER]), Answer::Stream(deltas(&words), Then::Hang)]).await;
    // Known before it listens; nobody else asks for ports here meanwhile.
    let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|taken| taken.local_addr()).expect("a free port");
    let config = format!(
        "[agents.default]\ncommand = [\"hermes\", \"agent\", \"openai\", \"--model\", \"demo\", \"--base-url\", \"{}\"]\n\
         cwd = \"/\"\nenv = {{ OPENAI_API_KEY = \"none\" }}\n\
         [gateway]\nprobation = \"1s\"\n\
         [platforms.web]\nlisten = '{listen}'\ntoken = '{TOKEN}'\n\
         [update]\nmanifest_url = \"file://{}\"\nverifying_keys = [\"{}\"]\n",
        model.base_url,
        publisher.path("manifest.json").display(),
        publisher.public_key()
    );
    (Gateway::start(&path, &config).await, format!("http://{listen}"))
}

async fn picture(browser: &Browser, out: &Path, name: &str, scheme: &str, width: u32, height: u32) {
    browser.colors(scheme).await;
    browser.resize(width, height).await;
    // Where it was before the size changed is another place.
    browser.eval("document.scrollingElement.scrollTop = document.querySelector('.log') ? 1e6 : 0").await;
    browser.until("fonts are there", "document.fonts.status === 'loaded'").await;
    std::fs::write(out.join(format!("{name}.png")), browser.picture().await).expect("writes the picture");
}
