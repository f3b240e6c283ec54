//! DingTalk in stream mode: messages come over a WebSocket, and are answered over HTTPS.
//!
//! `conduit` is the process that holds the WebSocket, so that it outlives an execve; `frame` what comes over it, `message`
//! a bot message in it, `link` the gateway's dealings with conduits. `api` speaks HTTPS, `context` is what a message says
//! about how it is answered, `sender` answers, `files` fetches what people send.
//!
//! **Invariant:** neither the client's secret nor an access token nor the address of a session webhook is in an event, an
//! error or a log.

mod api;
mod conduit;
mod context;
#[cfg(test)]
mod corpus;
pub mod files;
mod frame;
mod link;
mod message;
mod sender;
mod upload;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use super::delivery::limiter::Rate;
use super::delivery::medium::{Growth, Measure, Medium};
use super::{Account, Left, PlatformEvent, PlatformHandle, saved, task};
use crate::config::{DingTalkConfig, PlatformAccess, Secret};
use crate::report::Chain;
use crate::store::Store;
pub use conduit::run as run_conduit;
use link::DingTalkLink;
pub use sender::direct_chat;

/// The key in `[platforms.<name>]`, and the platform of every conversation here.
pub const PLATFORM: &str = "dingtalk";

/// A text goes into `msgParam`, which takes 15,000 bytes, as JSON in a string: an escaped character takes more, and the
/// title takes some.
const MESSAGE_BYTES_MAX: usize = 6000;

/// A group takes 20 messages in a minute (<https://open.dingtalk.com/document/orgapp/custom-robot-access>).
const CHAT_RATE: Rate = Rate { period: Duration::from_secs(4), burst: 5 };

/// Whether DingTalk takes the client's id and secret. Fetches an access token, of which there may be any number.
pub(super) async fn account(config: &DingTalkConfig) -> Account {
    match api::Api::new(config).token().await {
        Ok(_) => Account::Known(format!("client {}", config.client_id)),
        Err(error @ api::DingTalkError::Refused { status: 400..=407 | 409..=428, .. }) => {
            Account::Refused(Chain(&error).to_string())
        }
        Err(error) => Account::Unknown(Chain(&error).to_string()),
    }
}

/// Starts the task of the platform, see [`super`]. `program` is this image's own: it is run with the argument `conduit`
/// ([`run_conduit`]).
pub fn spawn(
    config: &DingTalkConfig,
    program: &Path,
    left: Left,
    store: Store,
    events: mpsc::Sender<PlatformEvent>,
) -> PlatformHandle {
    task::spawn(DingTalkLink::new(config, program), medium(config), left, store, events)
}

fn medium(config: &DingTalkConfig) -> Medium {
    Medium {
        platform: PLATFORM,
        message_max: Measure::Bytes(MESSAGE_BYTES_MAX),
        // A message cannot be edited, and a card can.
        growth: if config.card_template_id.is_some() { |_| Growth::Card } else { |_| Growth::Blocks },
        typing: None,
        language: config.access.language,
        chat_rate: |_| CHAT_RATE,
        overall: Rate::overall(20),
        replaces: false,
    }
}

/// Asks DingTalk whether it knows an app and its secret. `api_url` is another server than its own.
///
/// # Errors
/// Why not, for people.
pub async fn check_credentials(client_id: &str, secret: &Secret, api_url: Option<&str>) -> Result<(), String> {
    let api_url = api_url.unwrap_or(DingTalkConfig::API_URL).trim_end_matches('/').to_owned();
    let config = DingTalkConfig {
        client_id: client_id.to_owned(),
        client_secret: secret.clone(),
        api_url: api_url.clone(),
        oapi_url: api_url,
        webhook_hosts: Vec::new(),
        card_template_id: None,
        access: PlatformAccess::default(),
    };
    api::Api::new(&config).token().await.map(drop).map_err(|error| Chain(&error).to_string())
}

/// Whether this image understands the platform's state, for the preflight child.
///
/// # Errors
/// What is not understood.
pub fn check_state(state: &Value) -> Result<(), serde_json::Error> {
    saved::check::<DingTalkLink>(state)
}
