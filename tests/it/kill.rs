//! The unit under a real systemd whose main process is killed: agents and their turns go on.

use std::path::Path;
use std::time::Duration;

use hermes_gateway::agent::builtin::echo::{PICTURE, made_up};

use crate::handoff::{ADMIN, SOON, USER, config, publisher, run};
use crate::support::gateway::{expected_stream, stream_prompt};
use crate::support::systemd;
use crate::support::telegram::TelegramServer;
use crate::support::telegram::state::State;
use crate::support::unit::{UNIT, Unit};

const BINARY: &str = env!("CARGO_BIN_EXE_hermes");
const DEADLINE: Duration = Duration::from_secs(180);

#[test]
fn a_killed_gateway_is_followed_by_one_that_goes_on_with_its_agents() {
    let name = "kill::a_killed_gateway_is_followed_by_one_that_goes_on_with_its_agents";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    run(async {
        let telegram = TelegramServer::start().await;
        let publisher = publisher();
        let drop_in = "[Service]\nRestartSec=200ms\n";
        let config = config(&telegram, &publisher);
        let unit = Unit::install_with(&systemd, Path::new(BINARY), "on-failure", &config, drop_in);
        unit.start();
        let agent = unit.agent_pid().await;
        let chat = 7_000;
        let (chunks, bytes) = (400, 40);
        telegram.say(USER, chat, &stream_prompt(chunks, bytes, 20));
        // From the first edit on it is known that the message is there: a kill before that costs a marked repeat.
        let is_edited = |state: &State| state.in_chat(chat).any(|message| message.versions.len() > 1).then_some(());
        telegram.until("the answer grows", is_edited).await;
        for (round, how) in ["kill", "kill", "restart"].into_iter().enumerate() {
            let before = unit.main_pid();
            match how {
                "kill" => drop(systemd.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", UNIT])),
                _ => drop(systemd.systemctl(&["restart", UNIT])),
            }
            systemd.wait_until("another process serves", SOON, || {
                systemd.show(UNIT, "ActiveState") == "active" && unit.main_pid() != before
            });
            assert_eq!(unit.agent_pid().await, agent, "{how}: the same agent\n{}", unit.journal());
            let ping = 8_000 + i64::try_from(round).expect("few");
            telegram.say(USER, ping, "ping");
            telegram.until("an answer", |state| state.in_chat(ping).next().map(|_| ())).await;
            assert_eq!(telegram.texts(ping), ["ping"]);
        }
        let expected = expected_stream(chunks, bytes);
        telegram
            .until("the answer ends", |state| (state.texts(chat).concat().len() >= expected.len()).then_some(()))
            .await;
        assert_eq!(telegram.texts(chat).concat(), expected, "the answer is whole\n{}", unit.journal());
        telegram.say(ADMIN, ADMIN, "/status");
        telegram.until("an answer", |state| state.in_chat(ADMIN).next().map(|_| ())).await;
        unit.stop();
        assert_eq!(unit.processes(), [0; 0], "a stop leaves nothing behind");
        assert!(!Path::new(&format!("/proc/{agent}")).exists(), "not even the agent");
    });
}

/// What is in a chat, of files their bytes; a mark is left out.
fn shown(state: &State, chat: i64) -> Vec<Vec<u8>> {
    let of = |message: &crate::support::telegram::state::Message| match &message.attached {
        Some(attached) => state.files[&attached.file_id].bytes(),
        None => message.text().rsplit('\n').next().unwrap_or_default().as_bytes().to_vec(),
    };
    state.in_chat(chat).map(of).collect()
}

#[test]
fn a_file_outlives_a_kill_wherever_it_was_and_is_sent_once_or_marked() {
    let name = "kill::a_file_outlives_a_kill_wherever_it_was_and_is_sent_once_or_marked";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    run(async {
        let telegram = TelegramServer::start().await;
        let publisher = publisher();
        let config = config(&telegram, &publisher).replace("\"echo\"]", "\"echo\", \"--delay\", \"500ms\"]");
        let unit =
            Unit::install_with(&systemd, Path::new(BINARY), "on-failure", &config, "[Service]\nRestartSec=100ms\n");
        unit.start();
        let agent = unit.agent_pid().await;
        let (picture, data) = (PICTURE.to_vec(), made_up(2_000_000));
        // The process is killed once so much is shown: while the agent has the file, while it is sent, or after that.
        let rounds =
            [(1, "picture", &picture), (1, "file 2000000 data.bin", &data), (2, "file 2000000 data.bin", &data)];
        for (chat, (seen, prompt, bytes)) in (-7_000..).zip(rounds) {
            telegram.say(USER, chat, prompt);
            telegram.until("a part", |state| (shown(state, chat).len() >= seen).then_some(())).await;
            let before = unit.main_pid();
            systemd.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", UNIT]);
            systemd.wait_until("another process serves", SOON, || {
                systemd.show(UNIT, "ActiveState") == "active" && unit.main_pid() != before
            });
            let is_over = |state: &State| shown(state, chat).last().is_some_and(|last| last == b"after").then_some(());
            telegram.until("the end", is_over).await;
            let mut once = telegram.look(|state| shown(state, chat));
            let (all, marks) = (once.len(), telegram.texts(chat).iter().filter(|text| text.contains('♻')).count());
            once.dedup();
            assert_eq!(once, [b"before".to_vec(), bytes.clone(), b"after".to_vec()], "{prompt}\n{}", unit.journal());
            assert!(all <= 3 + marks, "what is there twice is marked");
        }
        assert_eq!(unit.agent_pid().await, agent, "the same agent");
        unit.stop();
    });
}
