//! A hundred handoffs of the whole gateway, and DingTalk pushes a message every 20 ms, each of them once.
//!
//! That is 50 a second, and the bot may say 16. So most of it is said by strangers in a group, to whom the bot says nothing:
//! that it came in is seen in the store.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hermes_gateway::control::client::Client;
use hermes_gateway::control::proto::{self, HandoffKind, HandoffParams, HandoffReport, Status};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::bed::{BINARY, Chat, Platform, Said, Servers, Shown, no_secret_in};
use crate::handoff::{SOON, publisher, run};
use crate::support::dingtalk::state::{Phase, State};
use crate::support::systemd::{self, Systemd};
use crate::support::unit::{HOME, UNIT, Unit};

const DEADLINE: Duration = Duration::from_secs(300);
const HANDOFFS: u64 = 100;
/// Other bytes take over in these rounds: there and back again.
const UPDATE_IN: u64 = 10;
const REVERT_IN: u64 = 60;
const PUSH_EVERY: Duration = Duration::from_millis(20);
/// One of so many pushes is for the bot to answer.
const ANSWERED_EVERY: usize = 5;
/// One on Telegram and one on Weixin with each so many pushes: Weixin takes no more than 5 a second of the bot.
const OTHERS_EVERY: usize = 15;
/// Where nobody may talk to the bot.
const GROUP_OF_STRANGERS: &str = "cid-of-strangers";
/// What is answered goes round these chats: a chat takes 5 messages at once, and then one every 4 s.
const CHATS: usize = 300;

/// Who asks for a handoff.
enum By {
    /// A client of the control socket, as the command line is one.
    Client(HandoffKind),
    Signal,
    Chat(Platform),
}

impl By {
    fn round(round: u64) -> Self {
        let version = Some("1.0.1".to_owned());
        match (round, round % 10) {
            (UPDATE_IN, _) => Self::Client(HandoffKind::Update { version, dry_run: false }),
            (REVERT_IN, _) => Self::Client(HandoffKind::Revert { dry_run: false }),
            (_, 3) => Self::Chat(Platform::ALL[usize::try_from(round / 10).expect("few") % Platform::ALL.len()]),
            (_, 7) => Self::Signal,
            _ => Self::Client(HandoffKind::Restart),
        }
    }
}

/// Says something on all platforms all the time.
struct Talk {
    said: Arc<Mutex<Said>>,
    task: JoinHandle<usize>,
    is_over: Arc<AtomicBool>,
}

impl Talk {
    fn begin(servers: Arc<Servers>) -> Self {
        let (said, is_over) = (Arc::new(Mutex::new(Said::default())), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(talk(servers, Arc::clone(&said), Arc::clone(&is_over)));
        Self { said, task, is_over }
    }

    /// Returns what is to be answered, and how much was pushed.
    async fn stop(self) -> (Said, usize) {
        self.is_over.store(true, Ordering::Relaxed);
        let pushed = self.task.await.expect("it ends");
        (std::mem::take(&mut self.said.lock().expect("nobody panics with it")), pushed)
    }
}

async fn talk(servers: Arc<Servers>, said: Arc<Mutex<Said>>, is_over: Arc<AtomicBool>) -> usize {
    let mut ticks = interval(PUSH_EVERY);
    // Every one is said, if late.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut number = 0_usize;
    while !is_over.load(Ordering::Relaxed) {
        ticks.tick().await;
        let mut said = said.lock().expect("nobody panics with it");
        if number.is_multiple_of(ANSWERED_EVERY) {
            let chat = Chat::Of(number / ANSWERED_EVERY % CHATS);
            said.say(&servers, Platform::DingTalk, chat, &pushed_as(number));
        } else {
            drop(servers.dingtalk.say_in(GROUP_OF_STRANGERS, "a-stranger", &pushed_as(number)));
        }
        if number.is_multiple_of(OTHERS_EVERY) {
            let chat = Chat::Of(number / OTHERS_EVERY % CHATS);
            said.say(&servers, Platform::Telegram, chat, &format!("message {number}"));
            said.say(&servers, Platform::Weixin, chat, &format!("message {number}"));
        }
        number += 1;
    }
    number
}

fn pushed_as(number: usize) -> String {
    format!("push {number}")
}

#[test]
fn what_is_pushed_every_20_ms_over_a_hundred_handoffs_is_answered_once() {
    let name = "scene::pushes::what_is_pushed_every_20_ms_over_a_hundred_handoffs_is_answered_once";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    run(async {
        let servers = Arc::new(Servers::start().await);
        let publisher = publisher();
        publisher.release("1.0.1", &std::fs::read(BINARY).expect("the binary is built"));
        let unit = servers.unit(&systemd, &servers.config(&publisher, "probation = \"10ms\""), "").await;
        let before = unit.identity();
        let agent = unit.agent_pid().await;
        let talk = Talk::begin(Arc::clone(&servers));
        let start = Instant::now();
        let asked = a_hundred_handoffs(&systemd, &servers, &unit).await;
        let took = start.elapsed();
        let (said, pushed) = talk.stop().await;
        assert_eq!(unit.identity(), before, "the same process in the same invocation");
        assert_eq!(unit.agent_pid().await, agent, "the same agent");

        let counts = Platform::ALL.map(|platform| said.count(platform));
        println!(
            "{HANDOFFS} handoffs in {took:?}; {pushed} pushes; answers due on Telegram, DingTalk, Weixin: {counts:?}"
        );
        assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
        servers.all_answered(&said).await;
        println!("all answered {:?} after the first", start.elapsed());
        for (platform, asked) in Platform::ALL.into_iter().zip(asked) {
            let told = |shown: &[Shown]| {
                let lines = shown.iter().flat_map(|shown| shown.text.lines());
                lines.filter(|line| line.starts_with("♻ restarted ")).count()
            };
            servers.until("all is told", platform, Chat::Admin, |shown| (told(shown) >= asked).then_some(())).await;
            assert_eq!(told(&servers.shown(platform, Chat::Admin)), asked, "told once on {}", platform.name());
        }
        all_came_in_once(pushed).await;
        fresh_connections(&servers).await;
        no_secret_in(&unit.journal());
    });
}

/// Returns how many were asked for on each platform.
async fn a_hundred_handoffs(systemd: &Systemd, servers: &Servers, unit: &Unit<'_>) -> [usize; 3] {
    let mut asked = [0; 3];
    // One connection asks for nearly all of them: it is carried a hundred times.
    let mut client = unit.client().await;
    for round in 1..=HANDOFFS {
        match By::round(round) {
            By::Client(kind) => {
                let tickets = servers.dingtalk.look(|state| state.tickets.len());
                let replaces = !matches!(kind, HandoffKind::Restart);
                let params = HandoffParams { kind, force: false, reason: None };
                let report: HandoffReport =
                    client.request(proto::HANDOFF, &params, SOON, |_, _| {}).await.expect("a handoff succeeds");
                assert_eq!(report.generation, round);
                // Once the image has proven itself a fresh connection takes over: the next handoff comes in the middle of it.
                if replaces {
                    let begun = |state: &State| (state.tickets.len() > tickets).then_some(());
                    servers.dingtalk.until("a fresh connection is under way", begun).await;
                    // It has not taken over yet.
                    continue;
                }
            }
            By::Signal => {
                systemd.systemctl(&["kill", "--kill-whom=main", "--signal=SIGUSR1", UNIT]);
                until_generation(&mut client, round).await;
            }
            By::Chat(platform) => {
                asked[Platform::ALL.iter().position(|one| *one == platform).expect("one of them")] += 1;
                servers.say(platform, Chat::Admin, "/restart");
                until_generation(&mut client, round).await;
            }
        }
    }
    asked
}

async fn until_generation(client: &mut Client, wanted: u64) {
    let start = Instant::now();
    loop {
        let status: Status = client.request(proto::STATUS, &(), SOON, |_, _| {}).await.expect("status answers");
        if status.generation >= wanted {
            return assert_eq!(status.generation, wanted, "one handoff for one request");
        }
        assert!(start.elapsed() < SOON, "handoff {wanted} does not come");
    }
}

/// The store has the message of each push once. What an acknowledgement says that comes with the end of its connection is
/// not known to the server, so it is not asked.
async fn all_came_in_once(pushed: usize) {
    let database = rusqlite::Connection::open(Path::new(HOME).join("state.db")).expect("opens");
    let start = Instant::now();
    let mut texts = Vec::new();
    while texts.len() < pushed && start.elapsed() < SOON {
        tokio::time::sleep(Duration::from_millis(10)).await;
        texts = came_in(&database);
    }
    let mut missing: BTreeSet<String> = (0..pushed).map(pushed_as).collect();
    let twice: Vec<&String> = texts.iter().filter(|text| !missing.remove(*text)).collect();
    assert!(missing.is_empty() && twice.is_empty(), "lost: {missing:?}; more than once: {twice:?}");
}

/// The texts of all pushes that the store has.
fn came_in(database: &rusqlite::Connection) -> Vec<String> {
    let sql = "SELECT inbound ->> '$.text' AS text FROM inbox WHERE platform = 'dingtalk' AND text LIKE 'push %'";
    let mut rows = database.prepare(sql).expect("is SQL");
    rows.query_map([], |row| row.get(0)).expect("reads").collect::<Result<_, _>>().expect("reads")
}

/// There is one connection in the end, and there was one for everything that was pushed. Says what the others cost.
async fn fresh_connections(servers: &Servers) {
    servers
        .dingtalk
        .until("one connection is left", |state| (state.open_connections().count() == 1).then_some(()))
        .await;
    let rest_closed =
        |state: &State| (state.connections.iter().filter(|c| c.phase != Phase::Closed).count() == 1).then_some(());
    servers.dingtalk.until("the others are closed", rest_closed).await;
    servers.dingtalk.look(|state| {
        let pushes: Vec<_> = state.pushes.iter().filter(|push| push.text.is_some()).collect();
        assert!(pushes.iter().all(|push| push.to.is_some() && push.is_written), "there was always a connection");
        let taken_over = state.connections.len() - 1;
        assert_eq!(taken_over, 2, "one fresh connection for each image that has proven itself");
        let mut latencies: Vec<u64> =
            pushes.iter().filter_map(|push| Some(push.acks.first()?.at_ms.saturating_sub(push.at_ms))).collect();
        latencies.sort_unstable();
        let (median, longest) = (latencies[latencies.len() / 2], latencies[latencies.len() - 1]);
        println!(
            "{taken_over} fresh connections; {} pushes of {} acknowledged, within {median} ms in the median, {longest} ms at \
             most",
            latencies.len(),
            pushes.len()
        );
    });
}
