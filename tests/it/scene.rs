//! The scene of the bug report: one unit with `Restart=on-failure`, Telegram, DingTalk and Weixin connected, and an update
//! that is asked for in a chat. All three go on as if nothing had been.

mod bed;
mod pushes;

use std::time::Duration;

use crate::handoff::{publisher, run};
use crate::support::gateway::{expected_stream, stream_prompt};
use crate::support::systemd;
use bed::{BINARY, Chat, Platform, Said, Servers, no_secret_in};

const DEADLINE: Duration = Duration::from_secs(180);
/// What the bug report's user waits for in vain.
const ANSWER_WITHIN_MS: u64 = 1000;
/// Chats of an update: streams, messages meanwhile, messages after it.
const STREAM: Chat = Chat::Of(0);
const AFTER: Chat = Chat::Of(1);
const MEANWHILE: usize = 2;
/// Between two messages on each platform: Weixin takes no more than 5 a second of the bot.
const MEANWHILE_EVERY: Duration = Duration::from_millis(400);
const CHUNKS: usize = 150;
const CHUNK_BYTES: usize = 30;

/// The chats of an update.
fn chat(round: usize, chat: Chat) -> Chat {
    match chat {
        Chat::Of(number) => Chat::Of(round * 150 + number),
        Chat::Admin => chat,
    }
}

#[test]
fn an_update_asked_for_on_any_platform_leaves_all_of_them_served() {
    let name = "scene::an_update_asked_for_on_any_platform_leaves_all_of_them_served";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    run(async {
        let servers = Servers::start().await;
        let publisher = publisher();
        let binary = std::fs::read(BINARY).expect("the binary is built");
        // Whatever is logged at all is looked through for secrets.
        let drop_in = "[Service]\nEnvironment=HERMES_LOG=debug\n";
        let unit = servers.unit(&systemd, &servers.config(&publisher, ""), drop_in).await;
        let before = unit.identity();
        let agent = unit.agent_pid().await;
        let mut all = Said::default();
        for (round, by) in Platform::ALL.into_iter().enumerate() {
            let (from, to) = (format!("1.0.{round}"), format!("1.0.{}", round + 1));
            publisher.release(&to, &binary);
            let stream = chat(round, STREAM);
            for platform in Platform::ALL {
                servers.say(platform, stream, &stream_prompt(CHUNKS, CHUNK_BYTES, 20));
            }
            let begun = |shown: &[bed::Shown]| (!shown.is_empty()).then_some(());
            servers.until("the answer begins", Platform::Telegram, stream, begun).await;
            let sampler = unit.sample();
            servers.say(by, Chat::Admin, "/update");
            let told =
                meanwhile(&servers, &mut all, round, by, &format!("✅ updated {from} → {to}, same process (PID "))
                    .await;
            assert!(told.contains(&format!("(PID {}), ", unit.main_pid())), "{told}");
            let turns =
                told.split_once("), ").and_then(|(_, rest)| rest.split_once(" turn")).expect("then the turns").0;
            assert!(turns.parse::<u32>().is_ok_and(|turns| turns >= 1), "{told}");
            all_answer_at_once(&servers, &mut all, round).await;

            let expected = expected_stream(CHUNKS, CHUNK_BYTES);
            for platform in Platform::ALL {
                let whole = |shown: &[bed::Shown]| {
                    let bytes: usize = shown.iter().map(|shown| shown.text.len()).sum();
                    (bytes >= expected.len()).then_some(())
                };
                servers.until("the answer ends", platform, stream, whole).await;
                assert_eq!(servers.texts(platform, stream).concat(), expected, "{}", platform.name());
            }
            servers.all_answered(&all).await;
            assert!(sampler.finish() > 0);
            assert_eq!(unit.identity(), before, "the same process in the same invocation");
            assert_eq!(unit.agent_pid().await, agent, "the same agent");
        }
        let status = unit.status().await;
        assert_eq!((status.image.version.as_str(), status.generation), ("1.0.3", 3));
        unit.stop();
        assert_eq!(unit.processes(), [0; 0], "a stop leaves nothing behind");
        servers.no_complaints();
        no_secret_in(&unit.journal());
    });
}

/// Says one thing after the other on each platform, each in a chat of its own, until whoever asked is told that it is
/// `done`. Returns what it was told.
async fn meanwhile(servers: &Servers, all: &mut Said, round: usize, by: Platform, done: &str) -> String {
    let mut ticks = tokio::time::interval(MEANWHILE_EVERY);
    for number in 0..140 {
        ticks.tick().await;
        let texts = servers.texts(by, Chat::Admin);
        if let Some(told) = texts.iter().flat_map(|text| text.lines()).find(|line| line.starts_with(done)) {
            return told.to_owned();
        }
        for platform in Platform::ALL {
            all.say(
                servers,
                platform,
                chat(round, Chat::Of(MEANWHILE + number)),
                &format!("meanwhile {round} {number}"),
            );
        }
    }
    panic!("the update is not over in time: {:?}", servers.texts(by, Chat::Admin));
}

/// Something new is said on each platform, and each is answered within the time.
async fn all_answer_at_once(servers: &Servers, all: &mut Said, round: usize) {
    let after = chat(round, AFTER);
    let said_ms = crate::support::weixin::state::now_ms();
    for platform in Platform::ALL {
        all.say(servers, platform, after, &format!("after {round}"));
    }
    for platform in Platform::ALL {
        let answered = |shown: &[bed::Shown]| shown.first().map(|shown| shown.at_ms);
        let at_ms = servers.until("an answer after the update", platform, after, answered).await;
        let took_ms = at_ms.saturating_sub(said_ms);
        println!("round {round}: {} answers within {took_ms} ms of the update's end", platform.name());
        assert!(took_ms <= ANSWER_WITHIN_MS, "{} answers after {took_ms} ms", platform.name());
    }
}
