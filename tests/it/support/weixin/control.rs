//! The test's side over HTTP, for scripts that run the server as a process. Bodies are JSON.

use axum::Json;
use axum::extract::State as Extract;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::faults::Planned;
use super::Shared;
use super::crypto;
use super::state::State;

/// Body of `/control/say`: a text or any items.
#[derive(Deserialize)]
pub struct Say {
    user: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    items: Option<Value>,
}

/// Body of `/control/put`.
#[derive(Deserialize)]
pub struct Put {
    base64: String,
    key: String,
}

/// A user writes.
pub async fn say(Extract(shared): Extract<Shared>, Json(say): Json<Say>) -> Json<Value> {
    let id = shared.change(|state| match (say.text, say.items) {
        (_, Some(items)) => state.say_items(&say.user, items),
        (text, None) => state.say(&say.user, &text.unwrap_or_default()),
    });
    Json(json!({ "message_id": id }))
}

/// Puts a file on the CDN.
pub async fn put(Extract(shared): Extract<Shared>, Json(put): Json<Put>) -> Json<Value> {
    let key = crypto::unhex(&put.key).expect("32 hex digits");
    let plaintext = STANDARD.decode(&put.base64).expect("base64");
    Json(json!({ "encrypt_query_param": shared.change(|state| state.put(&plaintext, key)) }))
}

/// The plaintext of a file on the CDN, in base64; null if there is none.
pub async fn file(Extract(shared): Extract<Shared>, Json(param): Json<String>) -> Json<Value> {
    Json(json!(shared.lock().plaintext(&param).map(|plaintext| STANDARD.encode(plaintext))))
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
