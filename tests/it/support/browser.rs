//! A headless Chromium of its own, driven over WebDriver (<https://www.w3.org/TR/webdriver2/>) by chromedriver.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};

use super::gateway::SOON;

/// Keys as WebDriver names them.
pub mod key {
    /// Goes on to what has the focus next.
    pub const TAB: &str = "\u{e004}";
    /// Sends, presses.
    pub const ENTER: &str = "\u{e007}";
    /// Held with what follows it.
    pub const SHIFT: &str = "\u{e008}";
}

/// Keeps Chromium from the network, but for what pages ask for.
const ARGUMENTS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1100,900",
];

/// A browser with one page; dropping it ends it.
pub struct Browser {
    driver: Child,
    session: String,
    http: reqwest::Client,
    /// Its profile.
    _profile: tempfile::TempDir,
}

impl Browser {
    /// A browser with an empty profile.
    ///
    /// # Panics
    /// Without chromium and chromedriver.
    pub async fn start() -> Self {
        Self::start_with(json!({})).await
    }

    /// A browser that runs no scripts of pages. `eval` works all the same.
    pub async fn without_scripts() -> Self {
        Self::start_with(json!({"profile.managed_default_content_settings.javascript": 2})).await
    }

    async fn start_with(preferences: Value) -> Self {
        let profile = tempfile::Builder::new().prefix("browser-").tempdir().expect("a temporary directory");
        let mut driver = Command::new("chromedriver")
            .args(["--port=0", "--log-level=SEVERE"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromedriver (Debian packages chromium and chromium-driver) is installed");
        let output = driver.stdout.take().expect("piped");
        let port = tokio::task::spawn_blocking(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            let port = lines
                .find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse::<u16>().ok());
            // What it says later must not fill the pipe.
            std::thread::spawn(move || lines.for_each(drop));
            port
        });
        let port = tokio::time::timeout(SOON, port).await.expect("chromedriver starts in time");
        let port = port.expect("nothing panics").expect("chromedriver says its port");
        hermes_gateway::tls::choose_provider();
        let http = reqwest::Client::builder().no_proxy().timeout(SOON).build().expect("a client");
        let arguments: Vec<String> = ARGUMENTS
            .iter()
            .map(|argument| (*argument).to_owned())
            .chain([format!("--user-data-dir={}", profile.path().display())])
            .collect();
        let base = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self { driver, session: base, http, _profile: profile };
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"args": arguments, "prefs": preferences},
        }}});
        let started = browser.command(Method::POST, "", Some(capabilities)).await;
        let id = started["sessionId"].as_str().expect("a session has an id").to_owned();
        browser.session = format!("{}/{id}", browser.session);
        // The page that it begins with is its own.
        browser.go("about:blank").await;
        browser.requests().await;
        browser
    }

    async fn command(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let mut request = self.http.request(method, format!("{}{path}", self.session));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer: Value = request.send().await.expect("chromedriver answers").json().await.expect("with JSON");
        let value = answer["value"].clone();
        assert!(value.get("error").is_none(), "{path}: {value}");
        value
    }

    /// Goes to an address and waits until the page is there.
    pub async fn go(&self, url: &str) {
        self.command(Method::POST, "/url", Some(json!({"url": url}))).await;
    }

    /// Where it is.
    pub async fn url(&self) -> String {
        self.command(Method::GET, "/url", None).await.as_str().expect("an address").to_owned()
    }

    /// Runs the body of a function in the page, and gives what it returns.
    pub async fn eval(&self, script: &str) -> Value {
        self.command(Method::POST, "/execute/sync", Some(json!({"script": script, "args": []}))).await
    }

    /// The text that is shown of what a selector finds first; nothing if that is not there or hidden.
    pub async fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({})?.innerText ?? ''", json!(selector));
        self.eval(&script).await.as_str().expect("a text").to_owned()
    }

    /// Looks until an expression is true.
    pub async fn until(&self, what: &str, expression: &str) {
        let start = Instant::now();
        let script = format!("return !!({expression})");
        while self.eval(&script).await != true {
            if start.elapsed() > SOON {
                let page = self.eval("return document.body.innerText").await;
                panic!("not within {SOON:?}: {what}\n{}\n{:?}", page.as_str().unwrap_or(""), self.console().await);
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Clicks on what a selector finds first.
    pub async fn click(&self, selector: &str) {
        let element = self.command(Method::POST, "/element", Some(json!({"using": "css selector", "value": selector})));
        let element = element.await;
        let id = element.as_object().and_then(|found| found.values().next()?.as_str()).expect("an element's id");
        self.command(Method::POST, &format!("/element/{id}/click"), Some(json!({}))).await;
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub async fn press(&self, keys: &str) {
        let stroke = |key: char| {
            let key = key.to_string();
            [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]
        };
        let strokes: Vec<Value> = keys.chars().flat_map(stroke).collect();
        self.keyboard(strokes).await;
    }

    /// Presses a key while another is held.
    pub async fn press_with(&self, held: &str, key: &str) {
        let stroke = |kind: &str, key: &str| json!({"type": kind, "value": key});
        let strokes =
            vec![stroke("keyDown", held), stroke("keyDown", key), stroke("keyUp", key), stroke("keyUp", held)];
        self.keyboard(strokes).await;
    }

    async fn keyboard(&self, strokes: Vec<Value>) {
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]});
        self.command(Method::POST, "/actions", Some(actions)).await;
    }

    /// A command of the Chrome DevTools Protocol (<https://chromedevtools.github.io/devtools-protocol/>).
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.command(Method::POST, "/goog/cdp/execute", Some(body)).await
    }

    /// From now on the window is of this size, in CSS pixels.
    pub async fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// From now on pages are asked for in `light` or `dark`.
    pub async fn colors(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// What stands in the console since it was last asked for: errors of scripts, refused requests, broken policies.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.command(Method::POST, "/se/log", Some(json!({"type": "browser"}))).await;
        let text = |entry: &Value| entry["message"].as_str().map(str::to_owned);
        entries.as_array().expect("entries").iter().filter_map(text).collect()
    }

    /// The addresses that pages asked for since it was last asked for.
    pub async fn requests(&self) -> Vec<String> {
        let entries = self.command(Method::POST, "/se/log", Some(json!({"type": "performance"}))).await;
        let request = |entry: &Value| {
            let event: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let event = &event["message"];
            (event["method"] == "Network.requestWillBeSent")
                .then(|| event["params"]["request"]["url"].as_str())?
                .map(str::to_owned)
        };
        entries.as_array().expect("entries").iter().filter_map(request).collect()
    }

    /// Roles and names of everything that a screen reader is told of.
    pub async fn spoken(&self) -> Vec<(String, String)> {
        let tree = self.devtools("Accessibility.getFullAXTree", json!({})).await;
        let text = |value: &Value| value["value"].as_str().unwrap_or("").to_owned();
        let nodes = tree["nodes"].as_array().expect("nodes").iter().filter(|node| node["ignored"] != true);
        nodes.map(|node| (text(&node["role"]), text(&node["name"]))).collect()
    }

    /// A picture of what is in the window, as PNG.
    pub async fn picture(&self) -> Vec<u8> {
        let encoded = self.command(Method::GET, "/screenshot", None).await;
        BASE64_STANDARD.decode(encoded.as_str().expect("base64")).expect("base64")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // chromedriver leads the group that the browser is in, too.
        let pid = Pid::from_raw(i32::try_from(self.driver.id()).expect("a pid"));
        let _gone_already = killpg(pid, Signal::SIGKILL);
        let _reaped = self.driver.wait();
    }
}
