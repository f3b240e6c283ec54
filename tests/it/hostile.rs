//! Bad input from every side, and ends at every moment. Each time: a clear word, no panic, and what is not concerned
//! goes on.
//!
//! - `agents`: agent programs that break the rules.
//! - `configuration`: `gateway.toml` at a start and at a reload.
//! - `ends`: SIGTERM and SIGKILL at any moment, two gateways on one home.
//! - `holders`: who holds a handoff up is named, and skipped by force.
//! - `inheritance`: what a new image may find instead of the state of the one before.
//! - `starts`: what earlier processes left behind, and stops that come early.
//! - `wires`: answers of a platform, bytes on the control socket.

mod agents;
mod configuration;
mod ends;
mod holders;
mod inheritance;
mod starts;
mod wires;

use std::path::Path;

use crate::support::gateway::{Chat, Gateway};
use crate::support::telegram::TelegramServer;

const BINARY: &str = env!("CARGO_BIN_EXE_hermes");
const USER: i64 = 1002;
const ECHO: &str = "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\ncwd = \"/\"\n";

fn home() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("hermes-").tempdir().expect("a temporary directory")
}

async fn start(config: &str) -> Gateway {
    Gateway::start(Path::new(BINARY), config).await
}

fn telegram_config(telegram: &TelegramServer) -> String {
    let (token, url) = (telegram.token(), telegram.url());
    format!(
        "{ECHO}[platforms.telegram]\ntoken = \"{token}\"\napi_url = \"{url}\"\nallow_from = [{USER}]\n\
         gateway_restart_notification = false\n"
    )
}

/// The default agent echoes.
async fn echoes(chat: &mut Chat, text: &str) {
    chat.say(text).await;
    let answer = chat.answer(async |_, _| {}).await;
    assert_eq!((answer.text.as_str(), answer.notices.as_slice()), (text, &[][..]));
}

fn assert_no_panic(gateway: &Gateway) {
    let log = gateway.log();
    assert!(!log.contains("panicked"), "{log}");
}
