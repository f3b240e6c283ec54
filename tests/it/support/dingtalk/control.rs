//! The test's side over HTTP, for scripts that run the server as a process. Bodies are JSON.

use axum::Json;
use axum::extract::State as Extract;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::faults::Planned;
use super::Shared;
use super::people::Say;
use super::pusher::{self, Plan};
use super::state::State;

/// Somebody says something.
pub async fn say(Extract(shared): Extract<Shared>, Json(say): Json<Say>) -> Json<Value> {
    Json(json!({ "msgId": shared.change(|state| state.say(&say)) }))
}

/// Somebody says something again and again; it is not waited for.
pub async fn pusher(Extract(shared): Extract<Shared>, Json(plan): Json<Plan>) -> Json<Value> {
    tokio::spawn(pusher::run(shared, plan));
    Json(json!({}))
}

/// The texts of messages that the client never said it has.
pub async fn lost(Extract(shared): Extract<Shared>) -> Json<Value> {
    Json(json!(shared.lock().lost()))
}

/// Body of `/control/push`.
#[derive(Deserialize)]
pub struct Push {
    #[serde(rename = "type")]
    kind: String,
    topic: String,
    #[serde(default)]
    headers: Value,
    #[serde(default)]
    data: Value,
    /// To this connection, whatever it wants.
    #[serde(default)]
    to: Option<u64>,
}

/// Pushes any frame.
pub async fn push(Extract(shared): Extract<Shared>, Json(push): Json<Push>) -> Json<Value> {
    let Push { kind, topic, headers, data, to } = push;
    let message_id = shared.change(|state| match to {
        Some(_) => state.push_to(to, &kind, &topic, &headers, &data, None),
        None => state.push(&kind, &topic, &headers, &data, None),
    });
    Json(json!({ "messageId": message_id }))
}

/// Body of `/control/event`.
#[derive(Deserialize)]
pub struct Event {
    kind: String,
    #[serde(default)]
    data: Value,
}

/// Something happens in the organisation.
pub async fn event(Extract(shared): Extract<Shared>, Json(event): Json<Event>) -> Json<Value> {
    Json(json!({ "eventId": shared.event(&event.kind, event.data) }))
}

/// Body of `/control/disconnect`.
#[derive(Deserialize)]
pub struct Disconnect {
    connection: u64,
    #[serde(default)]
    has_message_id: bool,
    #[serde(default = "ten_seconds")]
    after_ms: u64,
}

fn ten_seconds() -> u64 {
    10_000
}

/// Tells a connection to go.
pub async fn disconnect(Extract(shared): Extract<Shared>, Json(told): Json<Disconnect>) -> Json<Value> {
    shared.change(|state| state.disconnect(told.connection, told.has_message_id, told.after_ms));
    Json(json!({}))
}

/// Breaks off all connections without a word.
pub async fn break_all(Extract(shared): Extract<Shared>) -> Json<Value> {
    shared.change(State::break_all);
    Json(json!({}))
}

/// Keeps the text in the body as a file that somebody has sent.
pub async fn file(Extract(shared): Extract<Shared>, Json(text): Json<String>) -> Json<Value> {
    Json(json!({ "downloadCode": shared.change(|state| state.put_file(text.into_bytes())) }))
}

/// Ends all session webhooks before their time.
pub async fn expire_webhooks(Extract(shared): Extract<Shared>) -> Json<Value> {
    shared.change(State::expire_webhooks);
    Json(json!({}))
}

/// Makes all access tokens stale.
pub async fn expire_tokens(Extract(shared): Extract<Shared>) -> Json<Value> {
    shared.change(State::expire_tokens);
    Json(json!({}))
}

/// The next calls of a method go wrong.
pub async fn fault(Extract(shared): Extract<Shared>, Json(plan): Json<Planned>) -> Json<Value> {
    shared.change(|state| state.faults.push(plan));
    Json(json!({}))
}

/// Everything.
pub async fn state(Extract(shared): Extract<Shared>) -> Json<Value> {
    Json(json!(*shared.lock()))
}

/// Sets the fields of the body, as they are named in `/control/state`.
pub async fn set(Extract(shared): Extract<Shared>, Json(fields): Json<Value>) -> Json<Value> {
    shared.change(|state| {
        let mut whole = json!(*state);
        for (name, value) in fields.as_object().expect("an object") {
            whole[name] = value.clone();
        }
        *state = serde_json::from_value::<State>(whole).expect("fields of the state");
    });
    Json(json!({}))
}
