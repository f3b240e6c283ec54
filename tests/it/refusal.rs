//! What is refused, asked for from Telegram and twice by the command line: every way tells the same reason, and
//! nothing of the running gateway is touched.
//!
//! - `release`: releases that are not staged.
//! - `image`: releases whose program cannot take over.
//! - `request`: requests that are not taken up, and those that only look.

mod image;
mod release;
mod request;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use hermes_gateway::chat::ReplyEnd;
use hermes_gateway::control::proto::Image;
use hermes_gateway::update::{Versions, target};
use semver::Version;
use serde_json::Value;

use crate::support::gateway::Gateway;
use crate::support::release::{Publisher, ReleaseServer};
use crate::support::telegram::TelegramServer;

const BINARY: &str = env!("CARGO_BIN_EXE_hermes");
const RUNNING: &str = "1.0.0";
const ADMIN: i64 = 1001;
const USER: i64 = 1002;

/// A gateway with a publisher of releases and a Telegram.
struct Scene {
    telegram: TelegramServer,
    publisher: Publisher,
    server: ReleaseServer,
    gateway: Gateway,
    /// Where `versions/` is seen from here.
    versions: PathBuf,
    /// The chat of the latest case; each case has its own, because Telegram limits how fast a chat is written to.
    chat: i64,
    told: Vec<Told>,
}

/// What was told in a case.
struct Told {
    case: &'static str,
    chat: i64,
    reason: String,
}

/// What no refusal may change.
#[derive(Debug, PartialEq, Eq)]
struct Untouched {
    pid: u32,
    generation: u64,
    image: Image,
    agent: Option<i32>,
    disk: BTreeMap<PathBuf, String>,
}

impl Scene {
    async fn start() -> Self {
        Self::start_by(&[]).await
    }

    async fn start_by(by: &[&str]) -> Self {
        let telegram = TelegramServer::start().await;
        let publisher = Publisher::new();
        let server = ReleaseServer::start(publisher.dir.path()).await;
        let home = tempfile::Builder::new().prefix("hermes-").tempdir().expect("a temporary directory");
        install_running(home.path());
        let config = format!(
            "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\ncwd = \"/\"\n\
             [platforms.telegram]\ntoken = \"{}\"\napi_url = \"{}\"\n\
             allow_from = [{USER}]\nallow_admin_from = [{ADMIN}]\ngateway_restart_notification = false\n\
             [update]\nmanifest_url = \"{}\"\nverifying_keys = [\"{}\"]\n",
            telegram.token(),
            telegram.url(),
            server.url("manifest.json"),
            publisher.public_key(),
        );
        let gateway = Gateway::launch(home, by, Path::new(BINARY), &config);
        gateway
            .wait_until("it serves", async |status| {
                status.gateway_state == "running" && !status.image.sha256.is_empty() && status.agents[0].pid.is_some()
            })
            .await;
        let versions = gateway.home().join("versions");
        Self { telegram, publisher, server, gateway, versions, chat: 5000, told: Vec::new() }
    }

    /// Nothing is published and nothing fails.
    fn clear(&self) {
        self.server.heal();
        for entry in fs::read_dir(self.publisher.dir.path()).expect("a directory") {
            fs::remove_file(entry.expect("an entry").path()).expect("removes");
        }
    }

    async fn untouched(&self) -> Untouched {
        let status = self.gateway.status().await;
        Untouched {
            pid: status.pid,
            generation: status.generation,
            image: status.image,
            agent: status.agents[0].pid,
            disk: disk(&self.versions),
        }
    }

    /// Publishes 1.1.0, lets `spoil` make it bad, and asks for it over every way.
    async fn refused(&mut self, case: &'static str, spoil: impl FnOnce(&Self, &str)) {
        self.clear();
        let name = self.publisher.release("1.1.0", b"the new image");
        spoil(self, &name);
        self.refused_as_published(case).await;
    }

    /// Asks for what is published over every way: all tell one reason, which is kept, and nothing is touched.
    async fn refused_as_published(&mut self, case: &'static str) {
        let before = self.untouched().await;
        self.chat += 1;
        self.telegram.say(ADMIN, self.chat, "/update");
        let via = format!("telegram:{}", self.chat);
        let mut outcome = String::new();
        self.gateway
            .wait_until("the update from Telegram is over", async |status| {
                let record = status.handoffs.first().filter(|record| record.requested_via == via);
                outcome = record.map(|record| record.outcome.clone()).unwrap_or_default();
                record.is_some()
            })
            .await;
        let (phase, recorded) = outcome.split_once(": ").expect("a phase and a reason");
        assert!(phase.starts_with("failed in "), "{outcome}");
        let recorded = self.normalised(recorded);

        let output = self.gateway.cli(&["self-update", "--yes"]).await;
        assert_eq!(self.normalised(&error_of(&output)), recorded, "{case}: the command line");
        let output = self.gateway.cli(&["self-update", "--yes", "--json"]).await;
        let (code, message) = json_error_of(&output);
        assert_eq!((code.as_str(), self.normalised(&message)), ("handoff_failed", recorded.clone()), "{case}: --json");

        assert_eq!(self.untouched().await, before, "{case}");
        self.answers().await;
        self.told.push(Told { case, chat: self.chat, reason: recorded });
    }

    /// The gateway still serves.
    async fn answers(&self) {
        let mut chat = self.gateway.chat("main").await;
        chat.say("still there").await;
        let answer = chat.answer(async |_, _| {}).await;
        assert_eq!((answer.text.as_str(), answer.end), ("still there", ReplyEnd::Complete));
    }

    /// Checks what Telegram was told in all cases, and returns the table of cases and reasons.
    async fn table(&self) -> String {
        let mut table = String::new();
        for Told { case, chat, reason } in &self.told {
            let told = self.failure_in(*chat).await;
            assert_eq!(self.normalised(&told), *reason, "{case}: Telegram");
            table.push_str(&format!("{case} → {reason}\n"));
        }
        println!("{table}");
        table
    }

    /// The reason of a failed update, as a chat of Telegram was told it.
    async fn failure_in(&self, chat: i64) -> String {
        let told = self
            .telegram
            .until("the failure is told", |state| {
                state.texts(chat).into_iter().find(|text| text.starts_with("❌ The update failed: "))
            })
            .await;
        let reason =
            told.strip_prefix("❌ The update failed: ").and_then(|told| told.strip_suffix(" goes on as before."));
        let (reason, version) = reason.and_then(|reason| reason.rsplit_once('\n')).expect("reason and version");
        assert_eq!(version, RUNNING);
        reason.to_owned()
    }

    /// A valid release is taken after all that.
    async fn updates(&mut self) {
        self.clear();
        self.publisher.release("1.2.0", &fs::read(BINARY).expect("the binary is built"));
        let before = self.untouched().await;
        self.chat += 1;
        self.telegram.say(ADMIN, self.chat, "/update");
        self.gateway.wait_until("1.2.0 runs", async |status| status.image.version == "1.2.0").await;
        let told = format!("✅ updated 1.0.0 → 1.2.0, same process (PID {}), 0 turns carried, ", before.pid);
        self.telegram
            .until("the update is told", |state| {
                state.texts(self.chat).into_iter().find(|text| text.starts_with(&told))
            })
            .await;
        let after = self.untouched().await;
        assert_eq!((after.pid, after.agent, after.generation), (before.pid, before.agent, before.generation + 1));
        self.answers().await;
        assert!(!self.gateway.log().contains("panicked"), "{}", self.gateway.log());
    }

    /// A text without what differs from run to run: addresses, directories, digests and most numbers.
    fn normalised(&self, text: &str) -> String {
        let text = text
            .replace(&self.server.url(""), "https://example.org/")
            .replace(&self.gateway.home().display().to_string(), "~/.hermes")
            .replace(target(), "TARGET");
        let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        for at in 0..words.len() {
            let is_count = words.get(at + 1).is_some_and(|next| next.starts_with("bytes") || next == "are")
                || at > 0 && words[at - 1] == "of";
            match words[at].trim_end_matches([':', ',']) {
                hex if hex.len() == 64 => words[at] = words[at].replace(hex, "…"),
                number if is_count && number.parse::<u64>().is_ok_and(|n| !n.is_power_of_two()) => {
                    words[at] = words[at].replace(number, "N");
                }
                _ => {}
            }
        }
        words.join(" ")
    }
}

/// Puts what runs into a home, as it would be after an update.
fn install_running(home: &Path) {
    let versions = Versions::new(home);
    let running = Version::parse(RUNNING).expect("a version");
    let path = versions.path(&running);
    fs::create_dir_all(path.parent().expect("it is in a directory")).expect("creates it");
    fs::write(&path, "the image that runs").expect("writes it");
    versions.set_current(&running).expect("it is there");
}

/// Everything in `versions/` but the lock: which file it is, how long and how old; or what a link says.
fn disk(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).expect("a directory") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("it is there");
            if meta.is_dir() {
                open.push(path.clone());
            }
            let link = fs::read_link(&path).unwrap_or_default();
            let what = format!("{} {} {} {}", meta.ino(), meta.len(), meta.mtime_nsec(), link.display());
            if !path.ends_with(".lock") {
                found.insert(path, if meta.is_dir() { "directory".to_owned() } else { what });
            }
        }
    }
    found
}

/// What a command that failed says.
fn error_of(output: &Output) -> String {
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let error = stderr.lines().find_map(|line| line.strip_prefix("error: "));
    error.unwrap_or_else(|| panic!("{stderr}")).to_owned()
}

/// Code and message of a command that failed with `--json`.
fn json_error_of(output: &Output) -> (String, String) {
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(1), &b""[..]), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let text = |key: &str| document["error"][key].as_str().expect("a text").to_owned();
    (text("code"), text("message"))
}
