//! A gateway of its own as a plain process: a home, a configuration, a log, and clients.
//!
//! Shared with `scripts/demo` and `scripts/bench`, which run the same thing for people to see.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hermes_gateway::agent::builtin::echo;
use hermes_gateway::chat::{Notice, OutboundContent, ReplyEnd, ReplyStep};
use hermes_gateway::control::client::{Client, ClientError};
use hermes_gateway::control::proto::{
    self, ChatOpenParams, ChatOpened, ChatOutput, ChatSendParams, ChatSent, HandoffKind, HandoffParams, HandoffReport,
    Status,
};
use hermes_gateway::jsonrpc::Message;
use nix::sys::signal::{Signal, kill, killpg};

/// The longest wait for anything that should happen soon.
pub const SOON: Duration = Duration::from_secs(30);

/// Messages sent so far: their ids are unique also when a chat is opened again.
static SENT: AtomicU64 = AtomicU64::new(0);

/// A running gateway; dropping it ends it.
pub struct Gateway {
    home: tempfile::TempDir,
    binary: PathBuf,
    process: Child,
}

impl Gateway {
    /// Starts `binary` on a new home with `config` as gateway.toml, and waits until it serves.
    pub async fn start(binary: &Path, config: &str) -> Self {
        let home = tempfile::Builder::new().prefix("hermes-").tempdir().expect("a temporary directory");
        Self::start_in(home, binary, config).await
    }

    /// As [`Gateway::start`], in a home that has something in it.
    pub async fn start_in(home: tempfile::TempDir, binary: &Path, config: &str) -> Self {
        let gateway = Self::launch(home, &[], binary, config);
        gateway.wait_until_ready().await;
        gateway
    }

    /// Starts `binary`, by way of a program that executes what follows its arguments in its own place, and does not
    /// wait for anything.
    pub fn launch(home: tempfile::TempDir, by: &[&str], binary: &Path, config: impl AsRef<[u8]>) -> Self {
        std::fs::write(home.path().join("gateway.toml"), config).expect("writes the configuration");
        let process = spawn(home.path(), by, binary);
        Self { home, binary: binary.to_owned(), process }
    }

    /// Starts it anew in the same home, once the process before has ended, and waits until it answers.
    pub async fn start_again(&mut self) {
        self.launch_again();
        let pid = self.pid();
        self.wait_until("it answers", async |status| status.pid == pid).await;
    }

    /// As [`Gateway::start_again`], but does not wait for anything.
    pub fn launch_again(&mut self) {
        assert!(matches!(self.process.try_wait(), Ok(Some(_))), "the process before has ended");
        self.process = spawn(self.home.path(), &[], &self.binary);
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        kill(nix::unistd::Pid::from_raw(self.pid().cast_signed()), signal).expect("the process is there");
    }

    /// Waits until the process has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("the process is ours") {
                return status;
            }
            assert!(start.elapsed() < SOON, "still running\n{}", self.log());
            // Nothing is awaited but the end; wait(2) has no deadline.
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Kills it without a word, as the kernel does when memory is short, and starts it again on the same home.
    pub async fn kill_and_start(&mut self) {
        self.process.kill().expect("it runs");
        self.wait();
        self.start_again().await;
        self.wait_until_ready().await;
    }

    /// Sends it SIGTERM and waits for its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    async fn wait_until_ready(&self) {
        self.wait_until("it serves", async |status| status.agents.iter().all(|agent| agent.state == "ready")).await;
    }

    /// Runs the command line on its home.
    pub async fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env_clear().env("HERMES_HOME", self.home()).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = tokio::time::timeout(2 * SOON, output).await.expect("the command ends");
        output.expect("nothing panics").expect("the command starts")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its home directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("control.sock")
    }

    #[cfg(feature = "fault-points")]
    /// Plans faults, one a line (`src/fault.rs`). Without the feature `fault-points` nothing heeds them.
    pub fn plan_faults(&self, faults: &str) {
        std::fs::write(self.home().join("faults"), faults).expect("writes the plan");
    }

    #[cfg(feature = "fault-points")]
    /// What is planned and was not hit.
    pub fn planned_faults(&self) -> String {
        std::fs::read_to_string(self.home().join("faults")).unwrap_or_default()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("gateway.log")).unwrap_or_default()
    }

    /// `gateway_state.json`, as it is now.
    pub fn state_file(&self) -> serde_json::Value {
        let text = std::fs::read(self.home().join("gateway_state.json")).expect("it is written at the start");
        serde_json::from_slice(&text).expect("it is replaced as a whole")
    }

    /// The process of an agent that is ready.
    pub async fn agent_pid(&self, name: &str) -> i32 {
        let mut pid = None;
        self.wait_until("the agent is ready", async |status| {
            pid = status.agents.iter().find(|agent| agent.name == name).and_then(|agent| agent.pid);
            pid.is_some()
        })
        .await;
        pid.expect("it was waited for")
    }

    /// A new connection.
    pub async fn client(&self) -> Client {
        Client::connect(&self.socket()).await.expect("the gateway listens")
    }

    /// What it says about itself.
    pub async fn status(&self) -> Status {
        let mut client = self.client().await;
        client.request(proto::STATUS, &(), SOON, |_, _| {}).await.expect("status answers")
    }

    /// Asks for a handoff and waits for its end.
    pub async fn handoff(&self, kind: HandoffKind) -> Result<HandoffReport, ClientError> {
        let params = HandoffParams { kind, force: false, reason: None };
        self.client().await.request(proto::HANDOFF, &params, SOON, |_, _| {}).await
    }

    /// Looks at the status until it is as wanted; panics at the deadline, with the log.
    pub async fn wait_until(&self, what: &str, mut reached: impl AsyncFnMut(&Status) -> bool) {
        let start = Instant::now();
        loop {
            if let Ok(mut client) = Client::connect(&self.socket()).await
                && let Ok(status) = client.request::<Status>(proto::STATUS, &(), SOON, |_, _| {}).await
                && reached(&status).await
            {
                return;
            }
            assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Opens a local chat.
    pub async fn chat(&self, name: &str) -> Chat {
        let mut client = self.client().await;
        let params = ChatOpenParams { chat: Some(name.to_owned()) };
        let opened: ChatOpened =
            client.request(proto::CHAT_OPEN, &params, SOON, |_, _| {}).await.expect("a chat opens");
        Chat { client, name: opened.conversation, early: opened.backlog }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).expect("a pid"));
        let _gone_already = kill(pid, Signal::SIGTERM);
        let start = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) {
            if start.elapsed() > SOON {
                let _gone_already = killpg(pid, Signal::SIGKILL);
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn spawn(home: &Path, by: &[&str], binary: &Path) -> Child {
    let log = File::options().create(true).append(true).open(home.join("gateway.log")).expect("opens the log");
    let mut words = by.iter().map(std::ffi::OsStr::new).chain([binary.as_os_str()]);
    let mut command = Command::new(words.next().expect("there is the binary"));
    command
        .args(words)
        .args(["gateway", "run"])
        .env("HERMES_HOME", home)
        .env("HERMES_FAULTS", home.join("faults"))
        .env_remove("NOTIFY_SOCKET")
        .env_remove("RUNTIME_DIRECTORY")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0);
    command.spawn().expect("the gateway starts")
}

/// A local chat that is open.
pub struct Chat {
    client: Client,
    name: String,
    /// What came while an answer to a request was awaited.
    early: Vec<OutboundContent>,
}

/// An answer that has ended.
pub struct Answer {
    /// The text.
    pub text: String,
    /// Notices that came in between.
    pub notices: Vec<String>,
    /// How it ended.
    pub end: ReplyEnd,
}

impl Chat {
    /// Says something; returns when it is durable.
    pub async fn say(&mut self, text: &str) -> ChatSent {
        let number = SENT.fetch_add(1, Ordering::Relaxed);
        let params = ChatSendParams { text: text.to_owned(), message_id: format!("{} {number}", self.name) };
        let early = &mut self.early;
        self.client
            .request(proto::CHAT_SEND, &params, SOON, |_, params| early.push(output(params)))
            .await
            .expect("a message is accepted")
    }

    /// The next thing that is shown.
    pub async fn next(&mut self) -> OutboundContent {
        if !self.early.is_empty() {
            return self.early.remove(0);
        }
        loop {
            let received = tokio::time::timeout(SOON, self.client.receive()).await.expect("something is shown in time");
            if let Message::Notification { params, .. } = received.expect("the connection stays") {
                return output(params);
            }
        }
    }

    /// Reads until the running answer ends. `on_piece` is called with the bytes so far after each piece.
    pub async fn answer(&mut self, mut on_piece: impl AsyncFnMut(&mut Self, usize)) -> Answer {
        let mut text = String::new();
        let mut notices = Vec::new();
        loop {
            match self.next().await {
                OutboundContent::Notice(notice) => notices.push(notice.text),
                OutboundContent::Reply { step: ReplyStep::Delta(piece), .. } => {
                    text.push_str(&piece);
                    on_piece(self, text.len()).await;
                }
                OutboundContent::Reply { step: ReplyStep::End(end), .. } => {
                    return Answer { text, notices, end };
                }
                OutboundContent::Reply { .. } => {}
            }
        }
    }

    /// Reads until a notice that contains `part`.
    pub async fn notice(&mut self, part: &str) -> String {
        loop {
            if let OutboundContent::Notice(Notice { text, .. }) = self.next().await
                && text.contains(part)
            {
                return text;
            }
        }
    }
}

/// What the echo agent streams for [`stream_prompt`].
pub fn expected_stream(chunks: usize, bytes: usize) -> String {
    echo::expected_output(chunks, bytes)
}

/// Asks the echo agent for a stream.
pub fn stream_prompt(chunks: usize, bytes: usize, delay_ms: u64) -> String {
    format!("stream chunks={chunks} bytes={bytes} delay={delay_ms}ms")
}

fn output(params: serde_json::Value) -> OutboundContent {
    serde_json::from_value::<ChatOutput>(params).expect("a chat output").content
}
