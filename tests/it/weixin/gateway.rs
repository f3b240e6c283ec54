//! The whole gateway with Weixin: a message is answered by the agent, before and after its image is replaced and its
//! process is killed.

use std::path::Path;

use hermes_gateway::control::proto::HandoffKind;

use super::bed::{ANN, BOB};
use crate::support::gateway::Gateway;
use crate::support::weixin::WeixinServer;
use crate::support::weixin::state::{Sent, State};

pub fn config(server: &WeixinServer) -> String {
    let account = server.look(|state| state.account.clone());
    format!(
        "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\n\n[platforms.weixin]\ntoken = \"{}\"\n\
         account_id = \"{account}\"\nbase_url = \"{}\"\ncdn_url = \"{}\"\nallow_from = [\"{ANN}\"]\n\
         gateway_restart_notification = false\n",
        server.token(),
        server.url(),
        server.cdn_url()
    )
}

/// What the agent said, without repeats and without what the gateway says of the agent.
fn answers(state: &State) -> Vec<String> {
    let own = state.sent.iter().filter(|sent| !sent.is_repeat && !sent.text().starts_with('⚠'));
    own.map(|sent| sent.text().to_owned()).collect()
}

#[tokio::test]
async fn a_message_is_answered_over_a_restart_and_a_kill() {
    let server = WeixinServer::start().await;
    let mut gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_hermes")), &config(&server)).await;
    let answered = async |texts: &[&str]| {
        server.until(&format!("{texts:?}"), |state| (answers(state) == texts).then_some(())).await;
    };
    server.say(ANN, "one");
    answered(&["one"]).await;
    gateway.handoff(HandoffKind::Restart).await.expect("it is replaced");
    server.say(ANN, "two");
    answered(&["one", "two"]).await;
    gateway.kill_and_start().await;
    server.say(ANN, "three");
    answered(&["one", "two", "three"]).await;
    assert!(server.look(|state| state.sent.iter().all(|sent| sent.context_token.is_some())));
    // The kill may have come between a message and the word that it arrived; then it has its name.
    let marked = |sent: &Sent| sent.text().starts_with("♻️ Recovered reply");
    assert!(server.look(|state| state.sent.iter().all(|sent| sent.is_repeat == marked(sent))));
    // Who is not named gets nothing of the agent.
    server.say(BOB, "let me in");
    server.until("it is confirmed", |state| state.is_idle().then_some(())).await;
    assert!(!server.texts(BOB).iter().any(|text| text.contains("let me in")));
    gateway.terminate();
    assert_eq!(server.look(|state| state.complaints.clone()), Vec::<String>::new());
    let log = gateway.log();
    for secret in [server.token().as_str(), "context-", "let me in"] {
        assert_eq!(log.lines().find(|line| line.contains(secret)), None, "{secret}");
    }
}
