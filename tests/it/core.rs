//! The whole gateway as a plain process: nothing is lost and nothing comes twice over handoffs, kills and reloads.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hermes_gateway::chat::{OutboundContent, ReplyEnd, ReplyStep};
use hermes_gateway::control::client::ClientError;
use hermes_gateway::control::proto::{
    self, ChatOpenParams, ChatOpened, ChatOutput, ChatSendParams, HandoffKind, HandoffParams, HandoffReport,
};
use hermes_gateway::jsonrpc::{Message, RequestId};
use hermes_gateway::service::state_file::{GatewayState, Phase};
use tokio::net::TcpListener;

use crate::support::gateway::{Gateway, SOON, expected_stream, stream_prompt};
use crate::support::release::Publisher;
use crate::support::telegram::TelegramServer;
use crate::support::telegram::faults::Fault;

const ECHO: &str = "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\n";

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hermes"))
}

fn state(home: &Path) -> GatewayState {
    GatewayState::read(&home.join("gateway_state.json")).expect("it is one").expect("it is there")
}

/// Sends requests and messages without a pause over one connection until `over`, and holds the answers against them.
/// Returns how many messages were sent.
async fn flood(gateway: &Gateway, chat: &str, over: &Cell<bool>) -> usize {
    /// Messages that wait in the chat at a time; the gateway takes 32.
    const WINDOW: usize = 8;
    let mut client = gateway.client().await;
    let params = ChatOpenParams { chat: Some(chat.to_owned()) };
    let _: ChatOpened = client.request(proto::CHAT_OPEN, &params, SOON, |_, _| {}).await.expect("opens");
    let (mut sent, mut answers, mut text) = (0, Vec::new(), String::new());
    let mut unanswered: BTreeSet<RequestId> = BTreeSet::new();
    loop {
        while !over.get() && sent - answers.len() < WINDOW {
            let say = ChatSendParams { text: format!("{chat} {sent}"), message_id: format!("{chat}-{sent}") };
            unanswered.insert(client.send(proto::CHAT_SEND, &say).await.expect("sends"));
            unanswered.insert(client.send(proto::STATUS, &()).await.expect("sends"));
            sent += 1;
        }
        if over.get() && unanswered.is_empty() && answers.len() >= sent {
            break;
        }
        let received = tokio::time::timeout(SOON, client.receive()).await;
        let received = received.unwrap_or_else(|_| panic!("{unanswered:?} and {answers:?} of {sent}"));
        match received.expect("the connection stays") {
            Message::Response { id, outcome } => {
                assert!(unanswered.remove(&id), "answered once: {id:?}");
                outcome.expect("accepted");
            }
            Message::Notification { params, .. } => {
                let output: ChatOutput = serde_json::from_value(params).expect("a chat output");
                match output.content {
                    OutboundContent::Reply { step: ReplyStep::Delta(piece), .. } => text.push_str(&piece),
                    OutboundContent::Reply { step: ReplyStep::End(end), .. } => {
                        assert_eq!(end, ReplyEnd::Complete);
                        answers.push(std::mem::take(&mut text));
                    }
                    OutboundContent::Reply { .. } => {}
                    OutboundContent::Notice(notice) => panic!("{}", notice.text),
                }
            }
            Message::Request { method, .. } => panic!("the gateway asks for {method}"),
        }
    }
    let expected: Vec<String> = (0..sent).map(|number| format!("{chat} {number}")).collect();
    assert_eq!(answers, expected, "each is answered once and in order");
    sent
}

#[tokio::test]
async fn everything_is_answered_once_and_in_order_over_fifty_restarts() {
    let gateway = Gateway::start(binary(), ECHO).await;
    let over = Cell::new(false);
    let restarts = async {
        for generation in 1..=50 {
            let report = gateway.handoff(HandoffKind::Restart).await.expect("restarts");
            assert_eq!((report.generation, report.pid), (generation, gateway.pid()));
        }
        over.set(true);
    };
    let (one, two, ()) = tokio::join!(flood(&gateway, "one", &over), flood(&gateway, "two", &over), restarts);
    assert!(one > 50 && two > 50, "{one} and {two} messages were said meanwhile");
    let log = gateway.log();
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
    let late = gateway.status().await;
    assert_eq!((late.generation, late.queued_turns), (50, 0));
    // However soon the first restart came, the image that stays reads itself.
    gateway.wait_until("the digest is known", async |status| status.image.sha256.len() == 64).await;
    assert_eq!(state(gateway.home()).gateway_state, Phase::Running);
}

#[tokio::test]
async fn a_permission_asked_before_a_handoff_is_answered_after_it() {
    let gateway = Gateway::start(binary(), ECHO).await;
    let mut chats = [gateway.chat("one").await, gateway.chat("two").await];
    for chat in &mut chats {
        chat.say("ask touch it").await;
        chat.notice("touch it").await;
    }
    for _ in 0..2 {
        let report = gateway.handoff(HandoffKind::Restart).await.expect("restarts");
        assert_eq!((report.turns_carried, report.agents_carried), (2, 1));
    }
    let [one, two] = &mut chats;
    one.say("/approve").await;
    two.say("/deny").await;
    let (one, two) = (one.answer(async |_, _| {}).await, two.answer(async |_, _| {}).await);
    assert_eq!((&one.end, &two.end), (&ReplyEnd::Complete, &ReplyEnd::Complete));
    assert_eq!((one.text.as_str(), two.text.as_str()), ("chosen: yes", "chosen: no"));
}

#[tokio::test]
async fn a_turn_whose_agent_dies_during_a_handoff_ends_once_and_the_next_is_answered() {
    let gateway = Gateway::start(binary(), ECHO).await;
    let mut chat = gateway.chat("main").await;
    chat.say("crash chunks=200 code=3").await;
    chat.say("and now?").await;
    let (crashed, report) = tokio::join!(chat.answer(async |_, _| {}), gateway.handoff(HandoffKind::Restart));
    report.expect("restarts");
    assert!(matches!(&crashed.end, ReplyEnd::Failed(why) if why.contains("exit code 3")), "{:?}", crashed.end);
    let next = chat.answer(async |_, _| {}).await;
    assert_eq!((next.text.as_str(), next.end), ("and now?", ReplyEnd::Complete));
}

#[tokio::test]
async fn a_reload_adds_and_removes_agents_and_no_chat_is_left_waiting() {
    let with = |name: &str| format!("{ECHO}[agents.{name}]\ncommand = [\"hermes\", \"agent\", \"echo\"]\n");
    let gateway = Gateway::start(binary(), &with("old")).await;
    let mut chat = gateway.chat("main").await;
    chat.say("/new old").await;
    chat.notice("New session").await;
    chat.say("sleep 600s").await;
    chat.say("and now?").await;
    gateway.wait_until("the turn runs", async |s| s.agents.iter().any(|a| !a.turns.is_empty())).await;
    std::fs::write(gateway.home().join("gateway.toml"), with("new")).expect("writes");
    gateway.handoff(HandoffKind::Reload).await.expect("reloads");
    let slept = chat.answer(async |_, _| {}).await;
    assert!(!matches!(slept.end, ReplyEnd::Complete), "it was stopped");
    let next = chat.answer(async |_, _| {}).await;
    assert_eq!((next.text.as_str(), &next.end), ("and now?", &ReplyEnd::Complete));
    assert!(next.notices.iter().any(|n| n.contains("'old' is no longer configured")), "{:?}", next.notices);
    gateway
        .wait_until("the new agent is there", async |status| {
            let agents: Vec<_> = status.agents.iter().map(|a| (a.name.as_str(), a.state.as_str())).collect();
            agents == [("default", "ready"), ("new", "ready")]
        })
        .await;
    gateway.handoff(HandoffKind::Restart).await.expect("restarts");
}

/// More chats wait for an agent than its queue holds, and the answers to the first fill the daemon's.
#[tokio::test]
async fn many_chats_that_wait_for_one_agent_are_all_answered() {
    const CHATS: usize = 400;
    let gate = tempfile::tempdir().expect("a temporary directory");
    let (shut, open) = (gate.path().join("shut"), gate.path().join("open"));
    let script = format!(
        "if [ -e {} ]; then until [ -e {} ]; do sleep 0.05; done; fi; exec {} agent echo --chunks 20",
        shut.display(),
        open.display(),
        binary().display()
    );
    let gateway =
        Gateway::start(binary(), &format!("[agents.default]\ncommand = [\"sh\", \"-c\", \"{script}\"]\n")).await;
    std::fs::write(&shut, "").expect("writes");
    let agent = gateway.status().await.agents[0].pid.expect("it runs");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent), nix::sys::signal::Signal::SIGKILL).expect("it runs");
    gateway.wait_until("the agent is down", async |status| status.agents[0].state != "ready").await;
    let mut client = gateway.client().await;
    for number in 0..CHATS {
        let params = ChatOpenParams { chat: Some(format!("c{number}")) };
        let _: ChatOpened = client.request(proto::CHAT_OPEN, &params, SOON, |_, _| {}).await.expect("opens");
        let say = ChatSendParams { text: "hello".to_owned(), message_id: number.to_string() };
        let _: proto::ChatSent = client.request(proto::CHAT_SEND, &say, SOON, |_, _| {}).await.expect("accepted");
    }
    assert_eq!(gateway.status().await.queued_turns, CHATS);
    std::fs::write(&open, "").expect("writes");
    gateway
        .wait_until("all are answered", async |s| s.queued_turns == 0 && s.agents.iter().all(|a| a.turns.is_empty()))
        .await;
}

/// A release server that takes connections and does not answer until it is dropped.
async fn silent_server() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}/manifest.json", listener.local_addr().expect("an address"));
    (listener, format!("{ECHO}[update]\nmanifest_url = \"{url}\"\nverifying_keys = [\"{}=\"]\n", "A".repeat(43)))
}

#[tokio::test]
async fn a_look_for_releases_that_a_handoff_overtakes_is_made_again_and_answered() {
    let (server, config) = silent_server().await;
    let gateway = Gateway::start(binary(), &config).await;
    let mut client = gateway.client().await;
    let id = client.send(proto::UPDATE_CHECK, &()).await.expect("sends");
    let (first, _) = server.accept().await.expect("the gateway looks");
    gateway.handoff(HandoffKind::Restart).await.expect("restarts");
    drop(first);
    let (second, _) = tokio::time::timeout(SOON, server.accept()).await.expect("in time").expect("it looks again");
    drop((second, server));
    let answer = tokio::time::timeout(SOON, client.receive()).await.expect("in time").expect("the connection stays");
    assert!(matches!(&answer, Message::Response { id: answered, outcome: Err(_) } if *answered == id), "{answer:?}");
    let status: Result<proto::Status, _> = client.request(proto::STATUS, &(), SOON, |_, _| {}).await;
    assert_eq!(status.expect("no second answer confuses the client").generation, 1);
}

#[tokio::test]
async fn a_stop_ends_an_update_with_a_word_and_leaves_the_state_stopped() {
    let (server, config) = silent_server().await;
    let mut gateway = Gateway::start(binary(), &config).await;
    assert!(gateway.home().join("gateway.pid").exists());
    let mut client = gateway.client().await;
    let kind = HandoffKind::Update { version: None, dry_run: false };
    let params = HandoffParams { kind, force: false, reason: None };
    let asked = client.send(proto::HANDOFF, &params).await.expect("sends");
    let _connection = server.accept().await.expect("the gateway looks");
    let status = tokio::task::spawn_blocking(move || {
        let status = gateway.terminate();
        (gateway, status)
    });
    let refused = loop {
        match tokio::time::timeout(SOON, client.receive()).await.expect("in time").expect("told before the end") {
            Message::Response { id, outcome } if id == asked => break outcome.expect_err("it did not come about"),
            _ => {}
        }
    };
    assert!(refused.message.contains("the gateway stops (SIGTERM)"), "{}", refused.message);
    let (gateway, status) = status.await.expect("it ends");
    assert!(status.success(), "{status}\n{}", gateway.log());
    let state = state(gateway.home());
    assert_eq!((state.gateway_state, state.exit_reason.as_deref()), (Phase::Stopped, Some("SIGTERM")));
    assert!(!state.restart_requested && state.handoff.is_none(), "{state:?}");
    assert!(!gateway.home().join("gateway.pid").exists());
}

#[tokio::test]
async fn after_a_kill_a_repeated_question_is_asked_and_its_chat_can_repeat_it() {
    let mut gateway = Gateway::start(binary(), ECHO).await;
    let mut chat = gateway.chat("main").await;
    chat.say("hello").await;
    assert_eq!(chat.answer(async |_, _| {}).await.text, "hello");
    // It waits behind a turn, as `/retry` does too.
    chat.say("ask first").await;
    chat.notice("first").await;
    chat.say("/retry").await;
    gateway.wait_until("it waits", async |status| status.queued_turns == 1).await;
    gateway.kill_and_start().await;
    let mut client = gateway.client().await;
    let params = ChatOpenParams { chat: Some("main".to_owned()) };
    let opened: ChatOpened = client.request(proto::CHAT_OPEN, &params, SOON, |_, _| {}).await.expect("opens");
    let mut shown = opened.backlog;
    let asks = |shown: &[OutboundContent]| {
        shown.iter().any(|said| matches!(said, OutboundContent::Notice(notice) if notice.text.contains("asks: first")))
    };
    while !asks(&shown) {
        let received = tokio::time::timeout(SOON, client.receive()).await.expect("it is asked again");
        if let Message::Notification { params, .. } = received.expect("the connection stays") {
            shown.push(serde_json::from_value::<ChatOutput>(params).expect("a chat output").content);
        }
    }
    let told = |said: &OutboundContent| match said {
        OutboundContent::Reply { step: ReplyStep::End(ReplyEnd::Failed(text)), .. } => text.contains("was killed"),
        _ => false,
    };
    assert!(told(&shown[0]), "{shown:?}");
}

#[tokio::test]
async fn a_start_that_fails_says_so_in_the_state_and_touches_no_running_gateway() {
    let gateway = Gateway::start(binary(), ECHO).await;
    let run = |home: &Path| {
        let mut command = Command::new(binary());
        command.args(["gateway", "run"]).env("HERMES_HOME", home).env_remove("RUNTIME_DIRECTORY");
        command.env_remove("NOTIFY_SOCKET").output().expect("runs")
    };
    let before = state(gateway.home());
    assert_eq!(run(gateway.home()).status.code(), Some(1));
    assert_eq!(state(gateway.home()).pid, before.pid);
    assert_eq!(state(gateway.home()).gateway_state, Phase::Running);

    let home = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(home.path().join("gateway.toml"), "[gateway]\nprobatoin = \"1s\"\n").expect("writes");
    assert_eq!(run(home.path()).status.code(), Some(78));
    let state = state(home.path());
    assert_eq!(state.gateway_state, Phase::StartupFailed);
    let reason = state.exit_reason.expect("a reason");
    assert!(reason.contains("probatoin"), "{reason}");
    assert!(!home.path().join("gateway.pid").exists());
}

/// An agent that is slow to leave holds nothing up for long, and no handoff freezes everything to wait for it.
#[tokio::test]
async fn a_handoff_while_a_removed_agent_is_being_stopped_is_refused_at_once() {
    let stubborn = format!(
        "{ECHO}[agents.old]\ncommand = [\"sh\", \"-c\", \"trap '' TERM; {} agent echo; sleep 1000\"]\n",
        binary().display()
    );
    let gateway = Gateway::start(binary(), &stubborn).await;
    std::fs::write(gateway.home().join("gateway.toml"), ECHO).expect("writes");
    gateway.handoff(HandoffKind::Reload).await.expect("reloads");
    let refused = gateway.handoff(HandoffKind::Restart).await;
    assert!(
        matches!(&refused, Err(ClientError::Rpc(error)) if error.code == proto::BUSY && error.message.contains("'old'")),
        "{refused:?}"
    );
    let start = std::time::Instant::now();
    let report: HandoffReport = loop {
        match gateway.handoff(HandoffKind::Restart).await {
            Ok(report) => break report,
            Err(ClientError::Rpc(error)) if error.code == proto::BUSY => {}
            Err(error) => panic!("{error}"),
        }
        assert!(start.elapsed() < SOON, "{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(report.generation, 2);
}

/// Without a free fd nothing can be duplicated: the handoff is refused, and nothing is held, lost or closed.
#[tokio::test]
async fn a_handoff_without_free_fds_fails_and_everything_goes_on() {
    let gateway = Gateway::start(binary(), ECHO).await;
    let mut chat = gateway.chat("main").await;
    let (chunks, bytes) = (150, 20);
    chat.say(&stream_prompt(chunks, bytes, 20)).await;
    let mut client = gateway.client().await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(gateway.pid()).expect("a pid"));
    let fds = std::path::PathBuf::from(format!("/proc/{}/fd", gateway.pid()));
    let limit = |current| rustix::process::Rlimit { current: Some(current), maximum: Some(1024) };
    let params = HandoffParams { kind: HandoffKind::Restart, force: false, reason: None };
    let mut refused = 0;
    // From no room at all to nearly enough: every step that duplicates is the first to fail once.
    for room in 0..40 {
        let open = std::fs::read_dir(&fds).expect("its fds").count() as u64;
        rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit(open + room)).expect("limits");
        let outcome = client.request::<HandoffReport>(proto::HANDOFF, &params, SOON, |_, _| {}).await;
        rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit(1024)).expect("limits");
        match outcome {
            Ok(_) => break,
            Err(ClientError::Rpc(error)) => assert_eq!(error.code, proto::HANDOFF_FAILED, "{}", error.message),
            Err(error) => panic!("{error}\n{}", gateway.log()),
        }
        refused += 1;
    }
    assert!(refused > 2, "{refused} were refused");
    let report: HandoffReport =
        client.request(proto::HANDOFF, &params, SOON, |_, _| {}).await.expect("with free fds it succeeds");
    assert_eq!((report.pid, report.agents_carried), (gateway.pid(), 1));
    let answer = chat.answer(async |_, _| {}).await;
    assert_eq!((answer.text, answer.end), (expected_stream(chunks, bytes), ReplyEnd::Complete));
}

#[tokio::test]
async fn a_stop_at_any_moment_of_a_handoff_is_an_orderly_stop() {
    for moment in 0..12_u64 {
        let mut gateway = Gateway::start(binary(), ECHO).await;
        let mut client = gateway.client().await;
        let restarts = tokio::spawn(async move {
            let params = HandoffParams { kind: HandoffKind::Restart, force: false, reason: None };
            let mut asked = 0;
            while client.request::<HandoffReport>(proto::HANDOFF, &params, SOON, |_, _| {}).await.is_ok() {
                asked += 1;
            }
            asked
        });
        // Not to wait for anything: so that each round hits another moment.
        tokio::time::sleep(Duration::from_millis(20 + 9 * moment)).await;
        let (gateway, status) = tokio::task::spawn_blocking(move || {
            let status = gateway.terminate();
            (gateway, status)
        })
        .await
        .expect("it ends");
        assert!(status.success(), "{status} at {moment}\n{}", gateway.log());
        let state = state(gateway.home());
        assert_eq!(state.gateway_state, Phase::Stopped, "{}", gateway.log());
        restarts.await.expect("the client is told or disconnected");
    }
}

/// An update whose agent does not start any more: what makes it healthy is a reload, and that is not a proof of health.
#[tokio::test]
async fn an_update_that_is_not_healthy_can_be_reloaded_and_is_committed_once_it_is() {
    let publisher = Publisher::new();
    publisher.release("1.0.1", &std::fs::read(binary()).expect("the binary is built"));
    let common = format!(
        "[gateway]\nprobation = \"1h\"\n[update]\nmanifest_url = \"file://{}\"\nverifying_keys = [\"{}\"]\n",
        publisher.path("manifest.json").display(),
        publisher.public_key()
    );
    let gateway = Gateway::start(binary(), &format!("{common}{ECHO}")).await;
    let configure = |agents: &str| {
        std::fs::write(gateway.home().join("gateway.toml"), format!("{common}{agents}")).expect("writes");
    };
    configure("[agents.default]\ncommand = [\"false\"]\n");
    let kind = HandoffKind::Update { version: None, dry_run: false };
    assert_eq!(gateway.handoff(kind).await.expect("updates").to.version, "1.0.1");
    let agent = gateway.status().await.agents[0].pid.expect("it was carried");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent), nix::sys::signal::Signal::SIGKILL).expect("it runs");
    gateway.wait_until("the agent does not start", async |status| status.agents[0].state == "down").await;
    assert_eq!(gateway.status().await.gateway_state, "degraded");

    configure(ECHO);
    gateway.handoff(HandoffKind::Reload).await.expect("reloads");
    let status = gateway.status().await;
    let outcomes: Vec<_> = status.handoffs.iter().map(|h| (h.kind.as_str(), h.outcome.as_str())).collect();
    assert_eq!(outcomes, [("reload", "committed"), ("update", "serving")]);
    assert_eq!(status.phase, "probation");
    gateway.wait_until("the agent is back", async |status| status.agents[0].state == "ready").await;
    gateway.handoff(HandoffKind::Restart).await.expect("restarts");
    let status = gateway.status().await;
    assert_eq!((status.phase.as_str(), status.handoffs[2].outcome.as_str()), ("serving", "committed"));
    let current = std::fs::read_link(gateway.home().join("versions/current")).expect("it is committed");
    assert_eq!(current, Path::new("1.0.1"));
}

/// The network may take as long as it likes: while a send in flight is waited for, everybody else is served.
#[tokio::test]
async fn a_send_that_hangs_holds_the_handoff_and_nobody_else() {
    let telegram = TelegramServer::start().await;
    let config = format!(
        "[gateway]\nrestart_drain_timeout = \"2s\"\n{ECHO}[platforms.telegram]\ntoken = \"{}\"\napi_url = \"{}\"\n\
         allow_from = [7]\ngateway_restart_notification = false\n",
        telegram.token(),
        telegram.url(),
    );
    let gateway = Gateway::start(binary(), &config).await;
    let mut chat = gateway.chat("main").await;
    telegram.fault("sendMessage", 1, Fault::Hang);
    telegram.say(7, 7, "hello");
    telegram
        .until("a send hangs", |state| state.calls.iter().find(|call| call.method == "sendMessage").map(|_| ()))
        .await;
    let handoff = gateway.handoff(HandoffKind::Restart);
    let others = async {
        gateway.wait_until("it drains", async |status| status.phase == "drain").await;
        for number in 0..20 {
            chat.say(&format!("still there? {number}")).await;
            let answer = chat.answer(async |_, _| {}).await;
            assert_eq!(answer.text, format!("still there? {number}"));
        }
        gateway.status().await.phase
    };
    let (report, phase) = tokio::join!(handoff, others);
    assert_eq!(phase, "drain", "all were answered while the send hung");
    let report = report.expect("the handoff happens all the same");
    assert!(report.phases_us.iter().any(|(phase, _)| phase == "drain"), "{report:?}");
    assert!(report.blackout_us < report.duration_us, "waiting is no blackout: {report:?}");
    // Nobody knows whether it arrived, so it is sent again and says so.
    let marked = |text: &String| text.starts_with("♻️ Recovered reply") && text.ends_with("hello");
    telegram
        .until("the message is sent again", |state| state.texts(7).iter().find(|text| marked(text)).map(|_| ()))
        .await;
}

/// The gateway itself blocks the signals that it reads from a signalfd, and a blocked signal stays blocked over execve.
#[tokio::test]
async fn an_agent_begins_with_no_signal_blocked() {
    let gateway = Gateway::start(binary(), ECHO).await;
    let blocked = |pid: i64| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("there is a mask").trim();
        u64::from_str_radix(mask, 16).expect("hexadecimal")
    };
    let agent = gateway.agent_pid("default").await;
    assert_eq!(blocked(agent.into()), 0);
    assert_ne!(blocked(gateway.pid().into()), 0);
}
