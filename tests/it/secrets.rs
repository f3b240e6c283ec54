//! No secret is where it could be read by somebody else: not in the state that a handoff seals, not in arguments, the log,
//! `gateway_state.json`, what the control socket says, or what agents get. With every platform, each secret configured in
//! another way, and servers that break off, so that errors are told.

use std::fs;
use std::path::Path;

use hermes_gateway::chat::LinkState;
use hermes_gateway::control::proto::{HandoffKind, PlatformStatus};

use crate::support::dingtalk::DingTalkServer;
use crate::support::faults::Fault;
use crate::support::gateway::{Gateway, stream_prompt};
use crate::support::telegram::TelegramServer;
use crate::support::telegram::faults::Fault as TelegramFault;
use crate::support::weixin::WeixinServer;

const BINARY: &str = env!("CARGO_BIN_EXE_hermes");
const USER: i64 = 1002;
const STAFF: &str = "manager4711";
const CONTACT: &str = "user@im.wechat";
const WEBHOOK_SECRET: &str = "the-secret-of-the-webhook";
/// In the headers by which spans are sent to a collector.
const COLLECTOR_TOKEN: &str = "the-token-of-the-collector";
/// By which each secret is recognised.
const SECRETS: [&str; 5] = [
    "the-token-of-the-test-bot",
    "the-secret-of-the-test-app",
    "secret-token-of-the-test-bot",
    WEBHOOK_SECRET,
    COLLECTOR_TOKEN,
];
/// What the gateway needs to find two of them.
const VARIABLE: &str = "HERMES_TEST_SECRET";

struct Scene {
    telegram: TelegramServer,
    dingtalk: DingTalkServer,
    weixin: WeixinServer,
    gateway: Gateway,
}

impl Scene {
    async fn start() -> Self {
        let (telegram, dingtalk, weixin) =
            (TelegramServer::start().await, DingTalkServer::start().await, WeixinServer::start().await);
        let home = tempfile::Builder::new().prefix("hermes-").tempdir().expect("a temporary directory");
        let (client_id, client_secret) = dingtalk.look(|state| (state.client_id.clone(), state.client_secret.clone()));
        fs::write(home.path().join("telegram.token"), telegram.token()).expect("writes");
        fs::create_dir(home.path().join("credentials")).expect("creates");
        fs::write(home.path().join("credentials/weixin"), weixin.token()).expect("writes");
        let config = format!(
            "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\ncwd = \"/\"\n\
             [platforms.telegram]\ntoken_file = \"telegram.token\"\napi_url = \"{}\"\nallow_from = [{USER}]\n\
             webhook_url = \"http://127.0.0.1:9/hook\"\nwebhook_listen = \"127.0.0.1:0\"\n\
             webhook_secret = \"{WEBHOOK_SECRET}\"\n\
             [platforms.dingtalk]\nclient_id = \"{client_id}\"\nclient_secret_env = \"{VARIABLE}\"\napi_url = \"{1}\"\n\
             oapi_url = \"{1}\"\nallow_from = [\"{STAFF}\"]\n\
             [platforms.weixin]\naccount_id = \"testbot@im.bot\"\ntoken_credential = \"weixin\"\nbase_url = \"{2}\"\n\
             cdn_url = \"{3}\"\nallow_from = [\"{CONTACT}\"]\n",
            telegram.url(),
            dingtalk.url(),
            weixin.url(),
            weixin.cdn_url(),
        );
        // So that errors are told of each.
        telegram.fault("getMe", 1, TelegramFault::Reset);
        telegram.fault("setWebhook", 1, TelegramFault::Html { code: 502 });
        dingtalk.fault("oauth2/accessToken", 2, Fault::Reset);
        dingtalk.fault("gateway/connections/open", 2, Fault::Html { code: 502 });
        weixin.fault("getupdates", 2, Fault::Reset);
        let (secret, credentials) = (
            format!("{VARIABLE}={client_secret}"),
            format!("CREDENTIALS_DIRECTORY={}", home.path().join("credentials").display()),
        );
        let headers = format!("OTEL_EXPORTER_OTLP_HEADERS=authorization={COLLECTOR_TOKEN}");
        let of_traces = headers.replace("_HEADERS", "_TRACES_HEADERS");
        let gateway = Gateway::launch(
            home,
            &["env", &secret, &credentials, &headers, &of_traces, "HERMES_LOG=debug"],
            Path::new(BINARY),
            config,
        );
        let scene = Self { telegram, dingtalk, weixin, gateway };
        scene.is_up("the links are up").await;
        scene
    }

    /// DingTalk and Weixin are linked; Telegram never posts to this webhook, and is asked all the same.
    async fn is_up(&self, what: &str) {
        let up = |status: &PlatformStatus| status.name != "telegram" && status.link == LinkState::Connected;
        self.gateway
            .wait_until(what, async |status| status.platforms.iter().filter(|platform| up(platform)).count() == 2)
            .await;
    }

    /// An answer is being streamed on each platform that hears.
    async fn stream(&self) {
        self.dingtalk.say(STAFF, &stream_prompt(2000, 20, 20));
        self.weixin.say(CONTACT, &stream_prompt(2000, 20, 20));
        self.gateway
            .wait_until("turns run", async |status| {
                status.agents.iter().map(|agent| agent.turns.len()).sum::<usize>() >= 2
            })
            .await;
    }

    /// Everything that others may read.
    async fn told(&self) -> Vec<(String, Vec<u8>)> {
        let status = serde_json::to_vec(&self.gateway.status().await).expect("plain data");
        let output = self.gateway.cli(&["gateway", "status"]).await;
        let mut told = self.readable();
        told.extend([("status --json".to_owned(), status), ("status".to_owned(), output.stdout)]);
        told
    }

    /// The same of a gateway that does not answer.
    fn readable(&self) -> Vec<(String, Vec<u8>)> {
        let home = self.gateway.home();
        let file = |name: &str| (name.to_owned(), fs::read(home.join(name)).expect("it is there"));
        let mut readable: Vec<_> = ["gateway.log", "gateway_state.json", "gateway.pid"].map(file).into();
        for pid in family(self.gateway.pid()) {
            readable.push((format!("cmdline of {pid}"), read(&format!("/proc/{pid}/cmdline"))));
            if is_agent(pid) {
                readable.push((format!("environ of agent {pid}"), read(&format!("/proc/{pid}/environ"))));
            }
        }
        readable.extend(memfds(self.gateway.pid()));
        readable
    }
}

fn read(path: &str) -> Vec<u8> {
    fs::read(path).unwrap_or_default()
}

/// A process and its children.
fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().map(|child| child.parse::<u32>().expect("a pid"));
    std::iter::once(pid).chain(children.flat_map(family)).collect()
}

fn is_agent(pid: u32) -> bool {
    String::from_utf8_lossy(&read(&format!("/proc/{pid}/cmdline"))).contains("agent\0echo")
}

/// What a process has in memory files, by their names.
fn memfds(pid: u32) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives") {
        let path = entry.expect("readable").path();
        let Ok(name) = fs::read_link(&path) else { continue };
        if name.to_string_lossy().starts_with("/memfd:") {
            found.push((name.display().to_string(), fs::read(&path).expect("readable")));
        }
    }
    found
}

fn assert_no_secret(readable: &[(String, Vec<u8>)]) {
    for (name, bytes) in readable {
        for secret in SECRETS {
            let has = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!has, "{secret} is in {name}:\n{}", String::from_utf8_lossy(bytes));
        }
    }
}

fn names(readable: &[(String, Vec<u8>)], part: &str) -> usize {
    readable.iter().filter(|(name, bytes)| name.contains(part) && !bytes.is_empty()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_told_before_and_after_a_handoff() {
    let scene = Scene::start().await;
    scene.stream().await;
    let before = scene.told().await;
    assert_no_secret(&before);
    assert!(
        names(&before, "environ of agent") >= 1 && names(&before, "/memfd:") >= 1,
        "an agent and its log were looked at"
    );
    scene.gateway.handoff(HandoffKind::Restart).await.expect("hands over");
    scene.is_up("the links are up again").await;
    assert_no_secret(&scene.told().await);
    let log = scene.gateway.log();
    assert!(log.contains("link changed") && log.contains("Retrying"), "errors were told:\n{log}");
    assert!(scene.telegram.look(|state| state.calls_of("getMe")) > 0, "the token was used");
}

#[cfg(feature = "fault-points")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_the_state_that_is_handed_over() {
    let scene = Scene::start().await;
    scene.stream().await;
    scene.gateway.plan_faults("sealed hang\n");
    scene.gateway.signal(nix::sys::signal::Signal::SIGUSR1);
    let hangs = async {
        while !scene.gateway.planned_faults().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::support::gateway::SOON, hangs).await.expect("it comes to the point");
    let readable = scene.readable();
    assert_eq!(names(&readable, "/memfd:hermes-state"), 1, "the state is looked at");
    let (_, state) = readable.iter().find(|(name, _)| name.contains("hermes-state")).expect("it was counted");
    let state = String::from_utf8_lossy(state);
    for part in ["passport", "platforms", "dingtalk", "weixin", "telegram", "stream chunks=2000"] {
        assert!(state.contains(part), "{part} is in the state");
    }
    assert_no_secret(&readable);
    // It hangs for good.
    scene.gateway.signal(nix::sys::signal::Signal::SIGKILL);
}
