//! A hundred handoffs of the whole gateway, while DingTalk pushes a message every 20 ms, and each of them once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hermes_gateway::control::client::Client;
use hermes_gateway::control::proto::{self, HandoffKind, HandoffParams, HandoffReport, Status};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::bed::{BINARY, Chat, Platform, Said, Servers, Shown, no_secret_in};
use crate::handoff::{SOON, publisher, run};
use crate::support::dingtalk::state::State;
use crate::support::systemd::{self, Systemd};
use crate::support::unit::{UNIT, Unit};

const DEADLINE: Duration = Duration::from_secs(240);
const HANDOFFS: u64 = 100;
/// Other bytes take over so often: there and back again.
const UPDATE_EVERY: u64 = 20;
const PUSH_EVERY: Duration = Duration::from_millis(20);
/// One on Telegram and one on Weixin with each so many pushes: Weixin takes no more than 5 a second of the bot.
const OTHERS_EVERY: usize = 15;
/// Every third push is a question for the agent, and these go round so many chats: a chat takes 5 answers at once, and
/// then one every 4 s.
const CHATS: usize = 100;
/// The others are commands, in so many chats. What they are answered with may stand in one message, if it waits: the bot
/// says no more than 16 messages a second, and 50 are pushed.
const COMMAND_CHATS: usize = 10;

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
        match (round % UPDATE_EVERY, round % 10) {
            (10, _) if round / UPDATE_EVERY % 2 == 0 => Self::Client(HandoffKind::Update { version, dry_run: false }),
            (10, _) => Self::Client(HandoffKind::Revert { dry_run: false }),
            (_, 3) => Self::Chat(Platform::ALL[usize::try_from(round / 10).expect("few") % Platform::ALL.len()]),
            (_, 7) => Self::Signal,
            _ => Self::Client(HandoffKind::Restart),
        }
    }
}

/// Everything that was said.
#[derive(Debug, Default)]
struct All {
    questions: Said,
    /// What an agent is asked for that is not there, by chat.
    commands: BTreeMap<usize, Vec<String>>,
}

impl All {
    fn push(&mut self, servers: &Servers, number: usize) {
        if number.is_multiple_of(3) {
            let chat = Chat::Of(number / 3 % CHATS);
            self.questions.say(servers, Platform::DingTalk, chat, &format!("push {number}"));
        } else {
            let chat = CHATS + number % COMMAND_CHATS;
            servers.say(Platform::DingTalk, Chat::Of(chat), &format!("/agent push{number}"));
            self.commands.entry(chat).or_default().push(format!("push{number}"));
        }
        if number.is_multiple_of(OTHERS_EVERY) {
            let chat = Chat::Of(number / OTHERS_EVERY % CHATS);
            self.questions.say(servers, Platform::Telegram, chat, &format!("message {number}"));
            self.questions.say(servers, Platform::Weixin, chat, &format!("message {number}"));
        }
    }

    /// Each command was answered once, in order, and nothing else was said.
    async fn all_commands_answered(&self, servers: &Servers) {
        for (chat, names) in &self.commands {
            let answered = |shown: &[Shown]| {
                let lines = shown.iter().flat_map(|shown| shown.text.lines()).filter(|line| !line.is_empty());
                let names = lines.map(|line| line.split('\'').nth(1).unwrap_or(line).to_owned());
                names.collect::<Vec<_>>()
            };
            let all = |shown: &[Shown]| (answered(shown).len() >= names.len()).then_some(());
            servers.until(&format!("{names:?}"), Platform::DingTalk, Chat::Of(*chat), all).await;
            assert_eq!(&answered(&servers.shown(Platform::DingTalk, Chat::Of(*chat))), names);
        }
    }
}

/// Says something on all platforms until it is stopped.
struct Talk {
    all: Arc<Mutex<All>>,
    task: JoinHandle<()>,
}

impl Talk {
    fn start(servers: Arc<Servers>) -> Self {
        let all = Arc::new(Mutex::new(All::default()));
        let task = tokio::spawn({
            let all = Arc::clone(&all);
            async move {
                let mut ticks = interval(PUSH_EVERY);
                // Every one is said, if late.
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                for number in 0.. {
                    ticks.tick().await;
                    all.lock().expect("nobody panics with it").push(&servers, number);
                }
            }
        });
        Self { all, task }
    }

    async fn stop(self) -> All {
        self.task.abort();
        let _aborted = self.task.await;
        std::mem::take(&mut self.all.lock().expect("nobody panics with it"))
    }
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
        let talk = Talk::start(Arc::clone(&servers));
        let start = Instant::now();
        let asked = a_hundred_handoffs(&systemd, &servers, &unit).await;
        let took = start.elapsed();
        let all = talk.stop().await;
        assert_eq!(unit.identity(), before, "the same process in the same invocation");
        assert_eq!(unit.agent_pid().await, agent, "the same agent");

        let counts = Platform::ALL.map(|platform| all.questions.count(platform));
        let commands: usize = all.commands.values().map(Vec::len).sum();
        println!(
            "{HANDOFFS} handoffs in {took:?}; asked on Telegram, DingTalk, Weixin: {counts:?}, commands: {commands}"
        );
        servers.all_answered(&all.questions).await;
        all.all_commands_answered(&servers).await;
        println!("all answered {:?} after the first", start.elapsed());
        for (platform, asked) in Platform::ALL.into_iter().zip(asked) {
            let told = |shown: &[Shown]| {
                let lines = shown.iter().flat_map(|shown| shown.text.lines());
                lines.filter(|line| line.starts_with("♻ restarted ")).count()
            };
            servers.until("all is told", platform, Chat::Admin, |shown| (told(shown) >= asked).then_some(())).await;
            assert_eq!(told(&servers.shown(platform, Chat::Admin)), asked, "told once on {}", platform.name());
        }
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

/// There is one connection in the end, and there was one for everything that was pushed. Says what the others cost.
async fn fresh_connections(servers: &Servers) {
    servers
        .dingtalk
        .until("one connection is left", |state| (state.open_connections().count() == 1).then_some(()))
        .await;
    servers.dingtalk.until("the others are closed", |_| (servers.connections() == 1).then_some(())).await;
    servers.dingtalk.look(|state| {
        let pushes: Vec<_> = state.pushes.iter().filter(|push| push.text.is_some()).collect();
        assert!(pushes.iter().all(|push| push.to.is_some() && push.is_written), "there was always a connection");
        let updates = usize::try_from(HANDOFFS / UPDATE_EVERY).expect("few");
        let taken_over = state.connections.len() - 1;
        assert!((1..=updates).contains(&taken_over), "{taken_over} fresh connections after {updates} updates");
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
