//! `hermes gateway status --watch`, of a real gateway: on a terminal (that of script(1)) and where it is read by a program.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hermes_gateway::control::proto::HandoffKind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::gateway::Gateway;
use crate::support::schema;

const SOON: Duration = Duration::from_secs(30);
const BINARY: &str = env!("CARGO_BIN_EXE_hermes");
/// What a terminal is told when the page is entered and left (xterm, ctlseqs).
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";

/// A program that watches; dropping it ends it.
struct Watcher {
    process: Child,
    said: mpsc::Receiver<Vec<u8>>,
    text: String,
}

impl Watcher {
    fn start(mut command: Command, home: &Path) -> Self {
        command.env_clear().env("HERMES_HOME", home).env("TERM", "xterm").env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = command.spawn().expect("it starts");
        let mut out = process.stdout.take().expect("piped");
        let (sender, said) = mpsc::channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = out.read(&mut piece) {
                if sender.send(piece[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { process, said, text: String::new() }
    }

    /// Reads on until what was said since the start is as wanted. Returns all of it.
    fn until(&mut self, what: &str, is_so: impl Fn(&str) -> bool) -> &str {
        let deadline = Instant::now() + SOON;
        while !is_so(&self.text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let piece = self.said.recv_timeout(left).unwrap_or_else(|_| panic!("not in time: {what}\n{:?}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&piece));
        }
        &self.text
    }

    fn end(mut self) -> (ExitStatus, String) {
        let status = self.process.wait().expect("it ends");
        while let Ok(piece) = self.said.recv_timeout(SOON) {
            self.text.push_str(&String::from_utf8_lossy(&piece));
        }
        (status, std::mem::take(&mut self.text))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // It has ended, as a rule.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `hermes gateway status --watch` on a terminal of this size.
fn on_a_terminal() -> Command {
    let mut command = Command::new("script");
    let watch = format!("stty rows 24 columns 80; exec {BINARY} gateway status --watch");
    command.args(["--quiet", "--return", "--flush", "--command", &watch, "/dev/null"]);
    command
}

fn signal(watcher: &Watcher, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(watcher.process.id()).expect("a pid")), signal).expect("it runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_on_a_terminal_goes_on_over_a_handoff_and_leaves_the_screen_as_it_was() {
    let mut gateway = Gateway::start(Path::new(BINARY), "").await;
    let mut watcher = Watcher::start(on_a_terminal(), gateway.home());
    let page = watcher.until("the page", |text| text.contains("(generation 0)"));
    assert!(page.starts_with(ENTER) && page.contains("hermes 1.0.0") && page.contains("running"), "{page:?}");
    let pid = format!("PID {}", gateway.pid());
    assert!(page.contains(&pid), "{page:?}");
    gateway.handoff(HandoffKind::Restart).await.expect("it is handed off");
    let page = watcher.until("the next image", |text| text.contains("(generation 1)"));
    assert!(!page.contains("not running"), "the handoff does not show as an outage: {page:?}");
    gateway.terminate();
    watcher.until("the end of the gateway", |text| text.contains("it was stopped"));
    watcher.process.stdin.as_mut().expect("piped").write_all(b"\x03").expect("it reads");
    watcher.until("the screen is left", |text| text.contains(LEAVE));
    let (status, page) = watcher.end();
    assert!(status.success(), "Ctrl-C is how it ends: {status}");
    assert!(page.ends_with(LEAVE), "{page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_reads_a_document_for_each_change() {
    let mut gateway = Gateway::start(Path::new(BINARY), "").await;
    let arguments = ["gateway", "status", "--watch", "--json"];
    let mut command = Command::new(BINARY);
    command.args(arguments);
    let mut watcher = Watcher::start(command, gateway.home());
    let lines = |text: &str| text.matches('\n').count();
    watcher.until("a document", |text| lines(text) >= 1);
    gateway.handoff(HandoffKind::Restart).await.expect("it is handed off");
    watcher.until("the next image", |text| text.contains("\"generation\":1"));
    let pid = gateway.pid();
    gateway.terminate();
    watcher.until("the end of the gateway", |text| text.contains("\"not_running\""));
    signal(&watcher, Signal::SIGTERM);
    let (status, text) = watcher.end();
    assert!(status.success(), "{status}");
    let documents: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of_gateway = documents.iter().filter(|document| document["gateway_state"] == "running");
    assert!(of_gateway.clone().count() >= 2 && of_gateway.clone().all(|document| document["pid"] == pid), "{text}");
    schema::check(&arguments, text.as_bytes());
}
