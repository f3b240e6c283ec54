//! A new image that fails after the execve: the previous one is back in the same process, with everything it had.

use std::path::Path;

use hermes_gateway::chat::ReplyEnd;
use hermes_gateway::control::client::ClientError;
use hermes_gateway::control::proto::HandoffKind;

use crate::support::gateway::{Gateway, expected_stream, stream_prompt};
use crate::support::release::Publisher;

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hermes"))
}

fn config(publisher: &Publisher, timeout: &str) -> String {
    format!(
        "[gateway]\nhandoff_timeout = \"{timeout}\"\nprobation = \"1s\"\n\
         [agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\n\
         [update]\nmanifest_url = \"file://{}\"\nverifying_keys = [\"{}\"]\n",
        publisher.path("manifest.json").display(),
        publisher.public_key()
    )
}

fn update(version: &str) -> HandoffKind {
    HandoffKind::Update { version: Some(version.to_owned()), dry_run: false }
}

/// What the requester is told of a fault, and that nothing else shows of it.
async fn before_anything_is_consumed(fault: &str, reason: &str) {
    // Only one that hangs is to meet it, however slow the machine.
    let timeout = if fault.ends_with("hang") { "3s" } else { "60s" };
    let publisher = Publisher::new();
    publisher.release("1.0.1", &std::fs::read(binary()).expect("the binary is built"));
    let gateway = Gateway::start(binary(), &config(&publisher, timeout)).await;
    let (pid, agent) = (gateway.pid(), gateway.agent_pid("default").await);
    let mut chat = gateway.chat("stream").await;
    chat.say(&stream_prompt(100, 20, 20)).await;
    let mut asked = None;
    let answer = chat
        .answer(async |_, bytes| {
            if bytes > 200 && asked.is_none() {
                gateway.plan_faults(&format!("1.0.1 {fault}"));
                asked = Some(gateway.handoff(update("1.0.1")).await);
            }
        })
        .await;
    let Some(Err(ClientError::Rpc(error))) = asked else { panic!("{asked:?}\n{}", gateway.log()) };
    assert!(error.message.contains(reason), "{}", error.message);
    assert!(error.message.contains("1.0.0 serves again"), "{}", error.message);
    assert_eq!((answer.text, answer.end), (expected_stream(100, 20), ReplyEnd::Complete));
    let status = gateway.status().await;
    assert_eq!((status.pid, status.image.version.as_str(), status.generation), (pid, "1.0.0", 2));
    assert_eq!(gateway.agent_pid("default").await, agent);
    assert_eq!(gateway.planned_faults(), "", "the fault was hit");
    // The next one works as if nothing had been, and stays.
    let report = gateway.handoff(update("1.0.1")).await.unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()));
    assert_eq!((report.to.version.as_str(), report.pid), ("1.0.1", pid));
    gateway.wait_until("it is committed", async |status| status.phase == "serving").await;
    assert_eq!(gateway.agent_pid("default").await, agent);
}

#[tokio::test]
async fn an_image_that_exits_as_its_first_deed() {
    before_anything_is_consumed("after_exec exit0", "it exited").await;
}

#[tokio::test]
async fn an_image_that_exits_when_it_has_read_the_state() {
    before_anything_is_consumed("claimed exit1", "it exited").await;
}

#[tokio::test]
async fn an_image_that_panics_while_adopting() {
    before_anything_is_consumed("adopting panic", "it panicked: fault point adopting").await;
}

#[tokio::test]
async fn an_image_that_crashes_while_adopting() {
    before_anything_is_consumed("adopted segv", "killed by signal 11").await;
}

#[tokio::test]
async fn an_image_that_aborts_while_adopting() {
    before_anything_is_consumed("claimed abort", "killed by signal 6").await;
}

#[tokio::test]
async fn an_image_that_hangs_before_it_serves() {
    before_anything_is_consumed("adopted hang", "it stood still past its deadline").await;
}

/// An image on probation that cannot start an agent is left in order: everything is carried back.
#[tokio::test]
async fn an_image_that_cannot_start_an_agent_is_left_at_the_end_of_its_probation() {
    let publisher = Publisher::new();
    publisher.release("1.0.1", &std::fs::read(binary()).expect("the binary is built"));
    let home = tempfile::Builder::new().prefix("hermes-").tempdir().expect("a directory");
    let broken = home.path().join("broken");
    // The process that runs goes on; another one does not start.
    let script = format!("[ ! -e {} ] || exit 9; exec {} agent echo", broken.display(), binary().display());
    let config = config(&publisher, "60s").replace(
        "command = [\"hermes\", \"agent\", \"echo\"]",
        &format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]"),
    );
    let gateway = Gateway::start_in(home, binary(), &config).await;
    let (pid, agent) = (gateway.pid(), gateway.agent_pid("default").await);
    let mut chat = gateway.chat("stream").await;
    std::fs::write(&broken, "").expect("breaks the agent");
    chat.say(&stream_prompt(400, 20, 20)).await;
    let report = gateway.handoff(update("1.0.1")).await.expect("it serves, on probation");
    assert_eq!(report.to.version, "1.0.1");
    gateway
        .wait_until("the version before is back", async |status| {
            status.image.version == "1.0.0" && status.phase == "serving" && status.generation == 2
        })
        .await;
    assert_eq!((gateway.pid(), gateway.agent_pid("default").await), (pid, agent));
    let answer = chat.answer(async |_, _| {}).await;
    assert_eq!((answer.text, answer.end), (expected_stream(400, 20), ReplyEnd::Complete));
    let outcomes: Vec<String> = gateway.status().await.handoffs.into_iter().map(|handoff| handoff.outcome).collect();
    assert!(
        outcomes.iter().any(|outcome| outcome.contains("rolled back: agent 'default' does not start")),
        "{outcomes:?}"
    );
    let slots = hermes_gateway::slots::Slots::read(&gateway.home().join("versions")).expect("whole").expect("there");
    assert_eq!((slots.trial, slots.failed.map(|failed| failed.version)), (None, Some("1.0.1".to_owned())));
}
