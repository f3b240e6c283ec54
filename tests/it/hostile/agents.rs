//! Agent programs that break the rules, each beside one that does not: the chat is told, `status` shows it, and the
//! others are answered.

use std::fmt::Write;
use std::path::Path;

use hermes_gateway::chat::ReplyEnd;
use hermes_gateway::control::proto::HandoffKind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{BINARY, ECHO, assert_no_panic, echoes, home};
use crate::support::gateway::Gateway;
use crate::support::unit::Footprint;

/// Begins every agent that is written in shell. `line` reads a message, `answer RESULT` answers it.
const PRELUDE: &str = r#"
line() { IFS= read -r message || exit 0; }
answer() {
    id=$(printf '%s' "$message" | sed 's/.*"id":\([0-9]*\).*/\1/')
    printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"
}
hello() { line; answer '{"protocolVersion":1}'; }
session() { line; answer '{"sessionId":"s"}'; }
"#;

/// Agents that come as far as a turn: name, script, what the turn ends with.
const IN_A_TURN: [(&str, &str, &str); 4] = [
    (
        "endless-line",
        r"hello; session; line; head -c 100000000 /dev/zero | tr '\0' a; line",
        "more than 33554432 bytes",
    ),
    ("closes-stdout", "hello; session; line; exec >&-; sleep 1000", "it closed its"),
    ("exits-in-the-turn", "hello; session; line; exit 3", "exit code 3"),
    ("killed", "hello; session; line; kill -9 $$", "signal 9"),
];

/// Agents that never take a turn: name, command, what is said about it.
const AT_THE_START: [(&str, &str, &str); 3] = [
    ("exits-at-once", r#"["sh", "-c", "exit 7"]"#, "exit code 7"),
    ("not-there", r#"["/no/such/agent"]"#, "/no/such/agent"),
    ("never-answers", r#"["sh", "-c", "echo hello; exec sleep 1000"]"#, ""),
];

/// Talks nonsense between its messages, and answers requests that nobody made.
const NOISY: &str = r#"hello; echo 'Loading plugins...'; echo '[]'; echo '{"jsonrpc":"2.0","id":99,"result":1}'
echo '{"jsonrpc":"2.0","id":"x","error":{"code":1,"message":"m"}}'; printf '\377\376\n\n'
session; echo '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":7}}'
while line; do
    case $message in *session/prompt*) answer '{"stopReason":"end_turn"}' ;; esac
done"#;

fn config() -> String {
    let mut config = ECHO.to_owned();
    let scripts = IN_A_TURN.iter().map(|(name, body, _)| (*name, *body)).chain([("noisy", NOISY)]);
    for (name, body) in scripts {
        writeln!(config, "[agents.{name}]\ncommand = [\"sh\", \"-c\", '''{PRELUDE}\n{body}''']\ncwd = \"/\"")
            .expect("a String takes all");
    }
    for (name, command, _) in AT_THE_START {
        writeln!(config, "[agents.{name}]\ncommand = {command}\ncwd = \"/\"").expect("a String takes all");
    }
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_breaks_the_rules_is_told_and_the_others_are_answered() {
    let gateway = Gateway::launch(home(), &[], Path::new(BINARY), config());
    let is_ready = |name: &str, status: &hermes_gateway::control::proto::Status| {
        status.agents.iter().any(|agent| agent.name == name && agent.state == "ready")
    };
    gateway.wait_until("the good one serves", async |status| is_ready("default", status)).await;
    let mut good = gateway.chat("good").await;

    for (name, _, reason) in IN_A_TURN {
        let mut chat = gateway.chat(name).await;
        chat.say(&format!("/new {name}")).await;
        chat.notice(&format!("New session with agent '{name}'.")).await;
        chat.say("hello").await;
        match chat.answer(async |_, _| {}).await.end {
            ReplyEnd::Failed(told) => assert!(told.contains(reason), "{name}: {told}"),
            other => panic!("{name}: {other:?}"),
        }
        echoes(&mut good, &format!("beside {name}")).await;
    }
    for (name, _, reason) in AT_THE_START {
        let mut chat = gateway.chat(name).await;
        chat.say(&format!("/new {name}")).await;
        chat.say("hello").await;
        if reason.is_empty() {
            continue;
        }
        let told = chat.notice(&format!("⚠ Agent '{name}' does not run (")).await;
        assert!(told.contains(reason) && told.contains("Your message waits."), "{told}");
        gateway
            .wait_until("status shows it", async |status| {
                let agent = status.agents.iter().find(|agent| agent.name == name).expect("it is configured");
                agent.error.as_ref().is_some_and(|error| error.contains(reason))
            })
            .await;
        echoes(&mut good, &format!("beside {name}")).await;
    }
    let mut chat = gateway.chat("noisy").await;
    chat.say("/new noisy").await;
    chat.say("hello").await;
    assert_eq!(chat.answer(async |_, _| {}).await.end, ReplyEnd::Complete);

    // All of that is carried, too.
    let report = gateway.handoff(HandoffKind::Restart).await.expect("no agent can hold up a restart");
    assert_eq!(report.generation, 1);
    echoes(&mut good, "after the restart").await;

    // The one that never answers is given up after 30 s, most of which are over.
    let mut chat = gateway.chat("never-answers").await;
    let told = chat.notice("⚠ Agent 'never-answers' does not run (").await;
    assert!(told.contains("initialize"), "{told}");
    assert_no_panic(&gateway);
}

/// What an agent says without end, and nobody reads, is bounded, and is no reason to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_says_more_and_more_holds_up_no_handoff() {
    let chunk = r#"{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s","update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"more and more and more"}}}}"#;
    let script = format!("{PRELUDE}\nhello; session; line; exec yes \"$CHUNK\"");
    let config = format!(
        "{ECHO}[agents.flood]\ncommand = [\"sh\", \"-c\", '''{script}''']\ncwd = \"/\"\nenv = {{ CHUNK = '{chunk}' }}\n"
    );
    let gateway = super::start(&config).await;
    let mut chat = gateway.chat("flood").await;
    chat.say("/new flood").await;
    chat.say("go on").await;
    gateway
        .wait_until("it floods", async |status| {
            status.agents.iter().any(|agent| agent.turns.iter().any(|turn| turn.answer_bytes > 1 << 20))
        })
        .await;
    let mut good = gateway.chat("good").await;
    for generation in 1..=3 {
        let report = gateway.handoff(HandoffKind::Restart).await.expect("the flood does not hold it up");
        assert_eq!((report.generation, report.turns_carried), (generation, 1));
        echoes(&mut good, "beside the flood").await;
    }
    let resident_kb = Footprint::of(gateway.pid()).resident_kb;
    assert!(resident_kb < 300_000, "{resident_kb} kB");
    let flood = gateway.agent_pid("flood").await;
    kill(Pid::from_raw(flood), Signal::SIGKILL).expect("it runs");
    gateway
        .wait_until("the turn is over", async |status| status.agents.iter().all(|agent| agent.turns.is_empty()))
        .await;
    echoes(&mut good, "after the flood").await;
    assert_no_panic(&gateway);
}

/// The variables of a handoff are of no concern to an agent, which may start a gateway of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_started_after_a_handoff_knows_nothing_of_it() {
    let gateway = super::start(ECHO).await;
    gateway.handoff(HandoffKind::Restart).await.expect("restarts");
    let first = gateway.status().await.agents[0].pid.expect("it runs");
    kill(Pid::from_raw(first), Signal::SIGKILL).expect("it runs");
    let mut second = None;
    gateway
        .wait_until("it runs again", async |status| {
            second = status.agents[0].pid.filter(|pid| *pid != first);
            second.is_some()
        })
        .await;
    let path = format!("/proc/{}/environ", second.expect("it runs"));
    let environment = String::from_utf8_lossy(&std::fs::read(path).expect("it is ours")).into_owned();
    assert!(!environment.contains("HERMES_HANDOFF"), "{environment}");
}
