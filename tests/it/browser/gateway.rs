//! The pages of a whole gateway, while it is replaced.

use std::path::Path;
use std::time::Instant;

use hermes_gateway::control::proto::HandoffKind;
use serde_json::json;

use crate::support::address::own_address;
use crate::support::browser::{Browser, key};
use crate::support::gateway::{Gateway, SOON, expected_stream, stream_prompt};
use crate::support::release::Publisher;

const TOKEN: &str = "a token of the tests";

/// A gateway with a page, a publisher that has 1.0.1, and a browser.
struct Scene {
    gateway: Gateway,
    browser: Browser,
    base: String,
    _publisher: Publisher,
}

impl Scene {
    async fn start(browser: Browser) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_hermes"));
        let publisher = Publisher::new();
        publisher.release("1.0.1", &std::fs::read(binary).expect("the binary is built"));
        let listen = own_address();
        let config = format!(
            "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\ncwd = \"/\"\n\
             [gateway]\nprobation = \"1h\"\n\
             [platforms.web]\nlisten = '{listen}'\ntoken = '{TOKEN}'\n\
             [update]\nmanifest_url = \"file://{}\"\nverifying_keys = [\"{}\"]\n",
            publisher.path("manifest.json").display(),
            publisher.public_key()
        );
        let gateway = Gateway::start(binary, &config).await;
        Self { gateway, browser, base: format!("http://{listen}"), _publisher: publisher }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Goes to a page by way of the login.
    async fn log_in(&self, path: &str) {
        self.browser.go(&self.url(path)).await;
        assert_eq!(self.browser.text("h1").await, "Sign in");
        self.browser.click("#token").await;
        self.browser.press(&format!("{TOKEN}{}", key::ENTER)).await;
        self.browser.until("the page is there", "document.querySelector('nav')").await;
        assert_eq!(self.browser.url().await, self.url(path));
    }

    /// No error of a script, no refused request, and nothing asked of anybody else.
    async fn is_clean(&self) {
        let requests = self.browser.requests().await;
        assert!(!requests.is_empty(), "the pages were asked for");
        let foreign: Vec<_> = requests.iter().filter(|url| !url.starts_with(&self.url("/"))).collect();
        assert!(foreign.is_empty(), "{foreign:?}");
        assert_eq!(self.browser.console().await, Vec::<String>::new());
    }
}

/// Counts whatever a reader would take for a break: a page that is loaded again, an answer that is another element or
/// shorter than it was, a banner.
pub(super) const WATCH: &str = r"
    window.breaks = []; window.longest = 0;
    window.answer = document.querySelector('.from-agent'); window.body_ = answer.querySelector('.body');
    const look = () => {
        if (!answer.isConnected) breaks.push('the answer is gone');
        if (body_.textContent.length < longest) breaks.push('the answer is shorter');
        longest = body_.textContent.length;
        if (!document.getElementById('connection').hidden) breaks.push('not connected');
        if (document.querySelectorAll('.from-agent').length !== 1) breaks.push('another answer');
    };
    new MutationObserver(look).observe(document.body, { childList: true, subtree: true, attributes: true, characterData: true });";

#[tokio::test]
async fn an_answer_goes_on_in_the_page_over_an_update_and_a_restart() {
    let scene = Scene::start(Browser::start().await).await;
    scene.log_in("/chat").await;
    let agent = scene.gateway.agent_pid("default").await;
    let (chunks, bytes) = (500, 40);
    let wanted = expected_stream(chunks, bytes);
    scene.browser.press(&format!("{}{}", stream_prompt(chunks, bytes, 20), key::ENTER)).await;
    let has = |part: usize| {
        format!("document.querySelector('.from-agent .body')?.textContent.length > {}", part * wanted.len() / 10)
    };
    scene.browser.until("the answer begins", &has(0)).await;
    scene.browser.eval(WATCH).await;

    scene.browser.until("some of it is there", &has(1)).await;
    let update = HandoffKind::Update { version: None, dry_run: false };
    assert_eq!(scene.gateway.handoff(update).await.expect("updates").to.version, "1.0.1");
    scene.browser.until("the update is told", "document.querySelector('.note')").await;
    let note = "updated 1.0.0 → 1.0.1, same process, while you read";
    assert_eq!(scene.browser.text(".note").await, note);

    scene.browser.until("it goes on", &has(4)).await;
    scene.gateway.handoff(HandoffKind::Restart).await.expect("restarts");
    scene.browser.until("the restart is told", "document.querySelectorAll('.note').length === 2").await;
    let whole = format!("document.querySelector('.from-agent .body').textContent.length >= {}", wanted.len());
    scene.browser.until("it is whole", &format!("{whole} && !document.querySelector('.is-growing')")).await;
    let shown = scene.browser.eval("return document.querySelector('.from-agent .body').textContent").await;
    assert!(shown == wanted.as_str(), "the answer is not the one that the agent gave");
    assert_eq!(scene.browser.eval("return answer === document.querySelector('.from-agent')").await, true);
    assert_eq!(scene.browser.eval("return breaks").await, json!([]), "nothing of it is seen");
    assert_eq!(scene.gateway.agent_pid("default").await, agent);
    scene.is_clean().await;
}

#[tokio::test]
async fn an_update_is_asked_for_and_seen_on_the_status_page() {
    let scene = Scene::start(Browser::start().await).await;
    scene.log_in("/").await;
    scene.browser.until("it is live", "document.getElementById('headline').innerText.includes('running')").await;
    scene.browser.eval("window.headline = document.getElementById('headline'); window.scrollTo(0, 50)").await;
    scene.browser.click(".actions summary").await;
    scene.browser.click("form[action='/api/update'] button").await;
    let told = "document.getElementById('result').innerText.startsWith('updated 1.0.0 → 1.0.1, same process (PID')";
    scene.browser.until("the result is told", told).await;
    scene.browser.until("the headline", "document.querySelector('h1').innerText.includes('hermes 1.0.1')").await;
    scene
        .browser
        .until("probation is under way", "document.getElementById('underway-phase').innerText === 'probation'")
        .await;
    assert_eq!(scene.browser.eval("return headline.isConnected").await, true, "the page was not loaded again");
    let bars = "return document.querySelectorAll('svg.bar .blackout').length";
    assert_eq!(scene.browser.eval(bars).await, 1);
    scene.is_clean().await;
}

#[tokio::test]
async fn the_status_page_and_its_buttons_work_without_scripts() {
    let scene = Scene::start(Browser::without_scripts().await).await;
    scene.log_in("/").await;
    let shown = ["hermes 1.0.0", "generation 0", "default", "ready", "Platforms", "Queues"];
    // The page is as of when it was loaded, and the gateway tells it once a second how things are.
    let begun = Instant::now();
    loop {
        let text = scene.browser.text("main").await;
        if shown.iter().all(|said| text.contains(said)) {
            break;
        }
        assert!(begun.elapsed() < SOON, "{shown:?} are not all in {text}");
        scene.browser.go(&scene.url("/")).await;
    }
    scene.browser.click(".actions details:nth-of-type(2) summary").await;
    scene.browser.click("form[action='/api/restart'] button").await;
    scene.gateway.wait_until("it restarts", async |status| status.generation == 1).await;
    scene
        .gateway
        .wait_until("it is told", async |_| {
            scene.browser.go(&scene.url("/")).await;
            let text = scene.browser.text("main").await;
            text.contains("restarted 1.0.0, same process") && text.contains("generation 1")
        })
        .await;
    scene.is_clean().await;
}

#[tokio::test]
async fn what_an_agent_asks_is_answered_by_a_button() {
    let scene = Scene::start(Browser::start().await).await;
    scene.log_in("/chat").await;
    scene.browser.press(&format!("ask run it{}", key::ENTER)).await;
    scene.browser.until("there are buttons", "document.querySelector('.choices button')").await;
    scene.browser.click(".choices button").await;
    scene
        .browser
        .until("the agent goes on", "document.querySelector('.from-agent:not(.is-growing) .body')?.innerText")
        .await;
    // Another page shows what was said, in the same order.
    let said = "return [...document.querySelectorAll('.message .body')].map((b) => b.textContent)";
    let before = scene.browser.eval(said).await;
    scene.browser.go(&scene.url("/chat")).await;
    let count = before.as_array().expect("texts").len();
    scene.browser.until("all of it", &format!("document.querySelectorAll('.message').length === {count}")).await;
    assert_eq!(scene.browser.eval(said).await, before);
    scene.is_clean().await;
}
