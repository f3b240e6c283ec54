//! The test's side over HTTP, for scripts that run the server as a process. Bodies are JSON.

use axum::Json;
use axum::extract::{Query, State as Extract};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::faults::Fault;
use super::state::Reach;
use super::updates::Media;

/// Body of `/control/say`.
#[derive(Deserialize)]
pub struct Say {
    user: i64,
    chat: i64,
    #[serde(default)]
    thread: Option<i64>,
    text: String,
}

/// Body of `/control/fault`.
#[derive(Deserialize)]
pub struct PlanFault {
    method: String,
    times: u32,
    fault: Fault,
}

/// Body of `/control/reach`.
#[derive(Deserialize)]
pub struct SetReach {
    chat: i64,
    reach: Reach,
}

/// Body of `/control/press`.
#[derive(Deserialize)]
pub struct PressButton {
    user: i64,
    chat: i64,
    message_id: i64,
    data: String,
}

/// Body of `/control/media`.
#[derive(Deserialize)]
pub struct SayMedia {
    user: i64,
    chat: i64,
    media: Media,
    #[serde(default)]
    more: Value,
}

/// Body of `/control/gone`: a user's message or a topic is deleted.
#[derive(Deserialize)]
pub struct Gone {
    chat: i64,
    message_id: Option<i64>,
    thread: Option<i64>,
}

/// Query of `/control/messages` and `/control/draft`.
#[derive(Deserialize)]
pub struct InChat {
    chat: i64,
}

/// A user writes in a chat.
pub async fn say(Extract(shared): Extract<Shared>, Json(say): Json<Say>) -> Json<Value> {
    let update_id = shared.change(|state| state.say(say.user, say.chat, say.thread, &say.text));
    Json(json!({ "update_id": update_id }))
}

/// Queues the body as an update, but for its id.
pub async fn inject(Extract(shared): Extract<Shared>, Json(update): Json<Value>) -> Json<Value> {
    Json(json!({ "update_id": shared.change(|state| state.queue(update)) }))
}

/// The next calls of a method go wrong.
pub async fn fault(Extract(shared): Extract<Shared>, Json(plan): Json<PlanFault>) -> Json<Value> {
    shared.change(|state| state.add_fault(&plan.method, plan.times, plan.fault));
    Json(json!({}))
}

/// Makes a chat unreachable, or reachable again.
pub async fn reach(Extract(shared): Extract<Shared>, Json(set): Json<SetReach>) -> Json<Value> {
    shared.change(|state| state.set_reach(set.chat, set.reach));
    Json(json!({}))
}

/// Everything.
pub async fn state(Extract(shared): Extract<Shared>) -> Json<Value> {
    Json(json!(*shared.lock()))
}

/// The bot's messages in a chat that are not deleted, with the history of their texts.
pub async fn messages(Extract(shared): Extract<Shared>, Query(at): Query<InChat>) -> Json<Value> {
    Json(json!(shared.lock().in_chat(at.chat).collect::<Vec<_>>()))
}

/// A user presses a button.
pub async fn press(Extract(shared): Extract<Shared>, Json(press): Json<PressButton>) -> Json<Value> {
    let id = shared.change(|state| state.press(press.user, press.chat, press.message_id, &press.data));
    Json(json!({ "id": id }))
}

/// A user sends a file.
pub async fn media(Extract(shared): Extract<Shared>, Json(say): Json<SayMedia>) -> Json<Value> {
    let update_id = shared.change(|state| state.say_media(say.user, say.chat, &say.media, &say.more));
    Json(json!({ "update_id": update_id }))
}

/// Deletes what the bot did not write.
pub async fn gone(Extract(shared): Extract<Shared>, Json(gone): Json<Gone>) -> Json<Value> {
    shared.change(|state| {
        state.gone.extend(gone.message_id.map(|id| (gone.chat, id)));
        state.gone_threads.extend(gone.thread.map(|thread| (gone.chat, thread)));
    });
    Json(json!({}))
}

/// What the preview in a chat shows.
pub async fn draft(Extract(shared): Extract<Shared>, Query(at): Query<InChat>) -> Json<Value> {
    Json(shared.lock().draft_json(at.chat))
}
