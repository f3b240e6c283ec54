//! The whole gateway as a unit under a real systemd, replaced while turns stream.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use hermes_gateway::control::proto::{self, HandoffKind, HandoffParams, HandoffReport};
use hermes_gateway::store::HandoffRecord;
use hermes_gateway::telemetry::lifecycle;

use crate::support::gateway::{expected_stream, stream_prompt};
use crate::support::release::Publisher;
use crate::support::systemd::{self, Systemd};
use crate::support::telegram::TelegramServer;
use crate::support::unit::{Footprint, HOME, Unit};

const BINARY: &str = env!("CARGO_BIN_EXE_hermes");
pub const ADMIN: i64 = 1001;
pub const USER: i64 = 1002;
const STRANGER: i64 = 1003;
const DEADLINE: Duration = Duration::from_secs(180);
pub const SOON: Duration = Duration::from_secs(30);

/// A gateway with Telegram, the echo agent and a source of releases.
pub fn config(telegram: &TelegramServer, publisher: &Publisher) -> String {
    let manifest = publisher.path("manifest.json");
    format!(
        "[agents.default]\n\
         command = [\"hermes\", \"agent\", \"echo\"]\n\
         cwd = \"{HOME}\"\n\
         [platforms.telegram]\n\
         token = \"{}\"\n\
         api_url = \"{}\"\n\
         allow_from = [{USER}]\n\
         allow_admin_from = [{ADMIN}]\n\
         gateway_restart_notification = false\n\
         [update]\n\
         manifest_url = \"file://{}\"\n\
         verifying_keys = [\"{}\"]\n",
        telegram.token(),
        telegram.url(),
        manifest.display(),
        publisher.public_key(),
    )
}

/// A publisher whose releases the user `hermes` can read.
pub fn publisher() -> Publisher {
    let publisher = Publisher::new();
    let manifest = publisher.path("manifest.json");
    let directory = manifest.parent().expect("it is in a directory");
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).expect("permits");
    publisher
}

/// Runs a test that waits.
pub fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts")
        .block_on(test);
}

/// The bug report's scene, and what should have happened.
fn update_from_telegram(systemd: &Systemd, restart: &str) {
    run(async {
        let telegram = TelegramServer::start().await;
        let publisher = publisher();
        publisher.release("1.0.1", &std::fs::read(BINARY).expect("the binary is built"));
        let unit = Unit::install(systemd, Path::new(BINARY), restart, &config(&telegram, &publisher));
        unit.start();
        let before = unit.identity();
        let agent = unit.agent_pid().await;

        for (round, command, done) in [
            (1, "/update", "✅ updated 1.0.0 → 1.0.1, same process (PID "),
            (2, "/restart", "♻ restarted 1.0.1, same process (PID "),
        ] {
            let chat = 7_000 + round;
            let (chunks, bytes) = (120, 50);
            telegram.say(USER, chat, &stream_prompt(chunks, bytes, 20));
            telegram.until("the answer begins", |state| state.in_chat(chat).next().map(|_| ())).await;
            let sampler = unit.sample();
            telegram.say(ADMIN, ADMIN, command);
            // Messages before, during and after the swap, each in a chat of its own.
            let pings = ping_until(&telegram, round, |telegram| {
                telegram.texts(ADMIN).iter().any(|text| text.starts_with(done))
            })
            .await;
            let told = telegram
                .until("the asking chat is told", |state| {
                    state.texts(ADMIN).into_iter().find(|text| text.starts_with(done))
                })
                .await;
            // The stream, and whichever of the other messages was being answered.
            let (process, rest) = told.split_once("), ").expect("the process comes first");
            assert!(process.ends_with(&format!("(PID {}", unit.main_pid())), "{told}");
            let (turns, rest) = rest.split_once(" turn").expect("then the turns");
            assert!(turns.parse::<u32>().is_ok_and(|turns| turns >= 1), "{told}");
            assert!(rest.contains(" carried, ") && rest.ends_with(" ms"), "{told}");

            let expected = expected_stream(chunks, bytes);
            telegram
                .until("the answer ends", |state| (state.texts(chat).concat().len() >= expected.len()).then_some(()))
                .await;
            assert_eq!(telegram.texts(chat).concat(), expected, "the answer is whole");
            for (chat, text) in pings {
                telegram.until("an answer", |state| state.in_chat(chat).next().map(|_| ())).await;
                assert_eq!(telegram.texts(chat), [text], "answered once");
            }
            assert!(sampler.finish() > 0);
            assert_eq!(unit.identity(), before, "the same process in the same invocation");
            assert_eq!(unit.agent_pid().await, agent, "the same agent");
        }
        let status = unit.status().await;
        assert_eq!((status.image.version.as_str(), status.generation), ("1.0.1", 2));
        each_trace_is_the_whole_handoff(systemd, &status.handoffs);
        nobody_reads_its_memory(unit.main_pid(), agent);
        unit.stop();
        assert_eq!(unit.processes(), [0; 0], "a stop leaves nothing behind");
        let state = std::fs::read_to_string(Path::new(HOME).join("gateway_state.json")).expect("a state file");
        assert!(state.contains("\"gateway_state\": \"stopped\""), "{state}");
    });
}

/// The tokens in it are not for agents, although they are of the same user: what the kernel keeps to itself is root's.
fn nobody_reads_its_memory(gateway: u32, agent: i32) {
    let owner = |path: String| std::fs::metadata(&path).unwrap_or_else(|error| panic!("{path}: {error}")).uid();
    let user = owner(format!("/proc/{gateway}"));
    let of_agent = owner(format!("/proc/{agent}/mem"));
    assert_ne!(of_agent, 0, "the unit's user is not root");
    assert_eq!((owner(format!("/proc/{gateway}/mem")), user), (0, of_agent));
}

/// The journal has what both images said of a handoff under the trace that the history names.
fn each_trace_is_the_whole_handoff(systemd: &Systemd, handoffs: &[HandoffRecord]) {
    assert_eq!(handoffs.len(), 2);
    let id = |event| lifecycle::message_id(event).expect("of the lifecycle");
    for record in handoffs {
        let trace = record.trace_id.as_ref().expect("a handoff has a trace");
        let entries = systemd.journalctl(&["--output", "json", &format!("HERMES_TRACE_ID={trace}")]);
        let entries: Vec<serde_json::Value> =
            entries.lines().map(|entry| serde_json::from_str(entry).expect("one entry a line")).collect();
        let by = |event| entries.iter().find(|entry| entry["MESSAGE_ID"] == id(event)).expect("it is told");
        let (begin, done) = (by(lifecycle::HANDOFF_BEGIN), by(lifecycle::HANDOFF_DONE));
        assert_eq!(begin["HERMES_GENERATION"], (record.generation - 1).to_string(), "{begin}");
        assert_eq!(done["HERMES_GENERATION"], record.generation.to_string(), "{done}");
        assert_eq!(begin["HERMES_KIND"], record.kind.as_str());
    }
}

/// Says one thing after the other, each in a chat of its own, until `done`, and a few more. Returns chats and texts.
async fn ping_until(
    telegram: &TelegramServer,
    round: i64,
    done: impl Fn(&TelegramServer) -> bool,
) -> Vec<(i64, String)> {
    let mut pings = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut after = 0;
    while after < 3 {
        ticks.tick().await;
        assert!(pings.len() < 300, "the handoff is over in time: {:?}", telegram.texts(ADMIN));
        let number = i64::try_from(pings.len()).expect("few");
        let (chat, text) = (100_000 * round + number, format!("ping {round} {number}"));
        telegram.say(USER, chat, &text);
        pings.push((chat, text));
        after += i32::from(done(telegram));
    }
    pings
}

#[test]
fn an_update_from_telegram_keeps_everything_with_restart_on_failure() {
    let name = "handoff::an_update_from_telegram_keeps_everything_with_restart_on_failure";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    update_from_telegram(&systemd, "on-failure");
}

#[test]
fn an_update_from_telegram_keeps_everything_with_restart_no() {
    let name = "handoff::an_update_from_telegram_keeps_everything_with_restart_no";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    update_from_telegram(&systemd, "no");
}

#[test]
fn an_update_from_telegram_keeps_everything_with_restart_always() {
    let name = "handoff::an_update_from_telegram_keeps_everything_with_restart_always";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    update_from_telegram(&systemd, "always");
}

#[test]
fn a_hundred_handoffs_under_load_grow_nothing() {
    let name = "handoff::a_hundred_handoffs_under_load_grow_nothing";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    run(async {
        let telegram = TelegramServer::start().await;
        let publisher = publisher();
        let unit = Unit::install(&systemd, Path::new(BINARY), "on-failure", &config(&telegram, &publisher));
        unit.start();
        let before = unit.identity();
        let (agent, pid) = (unit.agent_pid().await, unit.main_pid());
        // The load: one long stream, and messages all the time.
        let (chunks, bytes) = (400, 20);
        telegram.say(USER, 7_000, &stream_prompt(chunks, bytes, 10));
        telegram.until("the answer begins", |state| state.in_chat(7_000).next().map(|_| ())).await;
        let mut asked = 0;
        let mut client = unit.client().await;
        let mut early = None;
        for round in 1..=100_u64 {
            if round % 4 == 0 {
                asked += 1;
                telegram.say(USER, 200_000 + asked, &format!("ping {asked}"));
            }
            let params = HandoffParams { kind: HandoffKind::Restart, force: false, reason: None };
            // One connection asks for all of them: it is carried a hundred times.
            let report: HandoffReport =
                client.request(proto::HANDOFF, &params, SOON, |_, _| {}).await.expect("a handoff succeeds");
            assert_eq!(report.generation, round);
            if round == 20 {
                early = Some((Footprint::of(pid), unit.processes().len()));
            }
        }
        let (early, processes) = early.expect("round 20 was passed");
        let late = Footprint::of(pid);
        assert_eq!(unit.processes().len(), processes, "processes");
        // What is open differs by the connections of the moment: the poll and sends to Telegram.
        assert!(late.fds <= early.fds + 4, "{early:?} {late:?}");
        assert!(late.threads <= early.threads + 2, "{early:?} {late:?}");
        assert!(late.resident_kb <= early.resident_kb * 11 / 10 + 2048, "{early:?} {late:?}");
        assert_eq!(unit.identity(), before);
        assert_eq!(unit.agent_pid().await, agent);
        let expected = expected_stream(chunks, bytes);
        telegram
            .until("the answer ends", |state| (state.texts(7_000).concat().len() >= expected.len()).then_some(()))
            .await;
        assert_eq!(telegram.texts(7_000).concat(), expected);
        for number in 1..=asked {
            let chat = 200_000 + number;
            telegram.until("an answer", |state| state.in_chat(chat).next().map(|_| ())).await;
            assert_eq!(telegram.texts(chat), [format!("ping {number}")]);
        }
    });
}

#[test]
fn signals_and_who_may_not_ask() {
    let name = "handoff::signals_and_who_may_not_ask";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    run(async {
        let telegram = TelegramServer::start().await;
        let publisher = publisher();
        let unit = Unit::install(&systemd, Path::new(BINARY), "on-failure", &config(&telegram, &publisher));
        unit.start();
        let before = unit.identity();
        let generation = async |wanted: u64, what: &str| {
            let start = std::time::Instant::now();
            while unit.status().await.generation < wanted {
                assert!(start.elapsed() < SOON, "{what}");
            }
        };
        systemd.systemctl(&["reload", "hermes-gateway.service"]);
        generation(1, "SIGUSR1 by ExecReload=").await;
        systemd.systemctl(&["kill", "--kill-whom=main", "--signal=SIGHUP", "hermes-gateway.service"]);
        generation(2, "SIGHUP").await;
        for (user, refused) in [(USER, "This command is for admins."), (STRANGER, "You may not talk to this bot yet. ")]
        {
            telegram.say(user, user, "/update");
            let is_refused = |text: &String| text.starts_with(refused);
            telegram.until("a refusal", |state| state.texts(user).iter().any(is_refused).then_some(())).await;
        }
        assert_eq!(unit.status().await.generation, 2);
        assert_eq!(unit.identity(), before);
    });
}
