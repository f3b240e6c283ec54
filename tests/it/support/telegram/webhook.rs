//! Webhooks: updates are posted to the bot (<https://core.telegram.org/bots/api#setwebhook>).
//!
//! Each update is posted until the answer is 2xx, up to `max_connections` at once, and those of a chat one after the other. Unlike Telegram, it takes plain HTTP
//! on the loopback with any port, and repeats for ever and soon, so that tests need not wait.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Shared;
use super::methods::{Outcome, bad_request};
use super::params::Params;
use super::state::{State, now_ms};

const CONNECTIONS: i64 = 40;
const PORTS: [u16; 4] = [443, 80, 88, 8443];
const SECRET_HEADER: &str = "x-telegram-bot-api-secret-token";
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long the bot may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Where updates are posted to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Webhook {
    /// Empty: nowhere.
    pub url: String,
    /// In the header of every post.
    pub secret: Option<String>,
    /// How many posts there may be at once.
    pub connections_max: i64,
    /// Seconds since 1970, and why the last post failed.
    pub last_error: Option<(u64, String)>,
    /// The HTTP status of every post, 0 for none, oldest first.
    pub statuses: Vec<u16>,
    /// Posts of other webhooks count no longer.
    pub generation: u64,
}

pub(super) fn set_webhook(state: &mut State, params: &Params) -> Outcome {
    let text = params.text("url");
    if text.is_empty() {
        return delete_webhook(state, params);
    }
    let url = Url::parse(&text).map_err(|_| bad_request("bad webhook: invalid URL"))?;
    let host = url.host_str().unwrap_or("").trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !is_local && url.scheme() != "https" {
        return Err(bad_request("bad webhook: an HTTPS URL must be provided for webhook"));
    }
    if !is_local && !PORTS.contains(&url.port_or_known_default().unwrap_or(0)) {
        return Err(bad_request("bad webhook: webhook can be set up only on ports 80, 88, 443 or 8443"));
    }
    let secret = params.text("secret_token");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if secret.len() > 256 || !secret.chars().all(is_plain) {
        return Err(bad_request("secret token contains unallowed characters"));
    }
    if params.json("drop_pending_updates") == Some(json!(true)) {
        state.updates.clear();
    }
    state.want(params.json("allowed_updates"));
    state.webhook = Webhook {
        url: text,
        secret: (!secret.is_empty()).then_some(secret),
        connections_max: params.number("max_connections").unwrap_or(CONNECTIONS).clamp(1, 100),
        generation: state.webhook.generation + 1,
        ..Webhook::default()
    };
    Ok(json!(true))
}

pub(super) fn delete_webhook(state: &mut State, params: &Params) -> Outcome {
    if params.json("drop_pending_updates") == Some(json!(true)) {
        state.updates.clear();
    }
    state.webhook = Webhook { generation: state.webhook.generation + 1, ..Webhook::default() };
    Ok(json!(true))
}

pub(super) fn get_webhook_info(state: &State) -> Value {
    let webhook = &state.webhook;
    let pending = state.updates.len();
    let mut info = json!({ "url": webhook.url, "has_custom_certificate": false, "pending_update_count": pending });
    if !webhook.url.is_empty() {
        info["max_connections"] = webhook.connections_max.into();
    }
    if let Some((date, message)) = &webhook.last_error {
        info["last_error_date"] = (*date).into();
        info["last_error_message"] = message.as_str().into();
    }
    if let Some(kinds) = &state.wanted {
        info["allowed_updates"] = json!(kinds);
    }
    info
}

/// Posts what is queued while there is a webhook; never ends.
pub(super) async fn post_updates(shared: Shared) {
    hermes_gateway::tls::choose_provider();
    let client = Client::builder().redirect(Policy::none()).timeout(ANSWER_DEADLINE).build().expect("a client");
    let mut changes = shared.subscribe();
    let mut posts = JoinSet::new();
    let mut under_way = HashSet::new();
    loop {
        for (generation, update) in due(&shared, &under_way) {
            under_way.insert((generation, id(&update)));
            posts.spawn(post(shared.clone(), client.clone(), generation, update));
        }
        tokio::select! {
            _ = changes.changed() => {}
            Some(ended) = posts.join_next() => {
                under_way.remove(&ended.expect("a post ends"));
            }
        }
    }
}

/// The updates that are to be posted and are not, as far as there are connections.
fn due(shared: &Shared, under_way: &HashSet<(u64, i64)>) -> Vec<(u64, Value)> {
    let state = shared.lock();
    if state.webhook.url.is_empty() {
        return Vec::new();
    }
    let generation = state.webhook.generation;
    let own: BTreeSet<i64> = under_way.iter().filter(|(of, _)| *of == generation).map(|(_, id)| *id).collect();
    let free = usize::try_from(state.webhook.connections_max).unwrap_or(1).saturating_sub(own.len());
    let mut chats = BTreeSet::new();
    // The oldest of a chat is posted, and those behind it wait, whether it is under way already or not.
    let first = |update: &&Value| chat(update).is_none_or(|chat| chats.insert(chat));
    let waiting = state.updates.iter().filter(first).filter(|update| !own.contains(&id(update)));
    waiting.take(free).map(|update| (generation, update.clone())).collect()
}

fn chat(update: &Value) -> Option<i64> {
    let message = update.get("message").or_else(|| update["callback_query"].get("message"))?;
    message["chat"]["id"].as_i64()
}

fn id(update: &Value) -> i64 {
    update["update_id"].as_i64().unwrap_or(0)
}

/// Posts an update until it is confirmed or the webhook is another one.
async fn post(shared: Shared, client: Client, generation: u64, update: Value) -> (u64, i64) {
    let mut pause = FIRST_PAUSE;
    loop {
        let webhook = shared.lock().webhook.clone();
        if webhook.generation != generation {
            break;
        }
        let mut request = client.post(&webhook.url).json(&update);
        if let Some(secret) = &webhook.secret {
            request = request.header(SECRET_HEADER, secret);
        }
        let (status, problem) = match request.send().await {
            Ok(answer) if answer.status().is_success() => (answer.status().as_u16(), None),
            Ok(answer) => {
                let status = answer.status();
                (status.as_u16(), Some(format!("Wrong response from the webhook: {status}")))
            }
            Err(error) if error.is_timeout() => (0, Some("Read timeout expired".to_owned())),
            Err(_) => (0, Some("Connection failed".to_owned())),
        };
        let is_over = shared.change(|state| {
            if state.webhook.generation != generation {
                return true;
            }
            state.webhook.statuses.push(status);
            match problem {
                Some(problem) => state.webhook.last_error = Some((now_ms() / 1000, problem)),
                None => state.updates.retain(|queued| id(queued) != id(&update)),
            }
            (200..300).contains(&status)
        });
        if is_over {
            break;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    (generation, id(&update))
}
