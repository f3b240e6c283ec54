//! The whole gateway with a webhook.

use std::path::Path;

use hermes_gateway::control::proto::HandoffKind;

use crate::support::address::own_address;
use crate::support::gateway::Gateway;
use crate::support::telegram::TelegramServer;

#[tokio::test]
async fn the_webhook_of_a_whole_gateway_goes_on_over_handoffs_and_a_kill() {
    let server = TelegramServer::start().await;
    let (url, token, listen) = (server.url(), server.token(), own_address());
    let config = format!(
        "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\n\
         [platforms.telegram]\ntoken = '{token}'\napi_url = '{url}'\nallow_from = ['7']\n\
         webhook_url = 'http://{listen}/hook'\nwebhook_listen = '{listen}'\n"
    );
    let mut gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_hermes")), &config).await;
    let mut wanted = Vec::new();
    for round in 0..3 {
        // One message is under way during each, in a group, where a reply is a message at once.
        let word = format!("word {round}");
        server.say(7, -70, &word);
        match round {
            0 | 1 => drop(gateway.handoff(HandoffKind::Restart).await.expect("another image serves")),
            _ => gateway.kill_and_start().await,
        }
        wanted.push(word);
        server.until("an answer to each", |state| (answers(&state.texts(-70)) == wanted).then_some(())).await;
    }
    server.look(|state| {
        assert_eq!(state.calls_of("getUpdates"), 0);
        assert!(state.updates.is_empty(), "{:?}", state.updates);
    });
    let log = gateway.log();
    for secret in [token.split_once(':').expect("a token").1, "/hook"] {
        assert_eq!(log.lines().find(|line| line.contains(secret)), None);
    }
}

/// The agent's answers among the gateway's own words.
fn answers(texts: &[String]) -> Vec<String> {
    texts.iter().filter(|text| text.starts_with("word ")).cloned().collect()
}
