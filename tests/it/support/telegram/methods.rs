//! The Bot API methods, with Telegram's checks and error texts.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Request, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::faults::Fault;
use super::params::Params;
use super::state::{Call, Message, Reach, State, Version, now_ms};
use super::{Shared, Told};

/// Telegram holds a poll no longer, whatever is asked.
const HOLD_SECS_MAX: i64 = 50;
const TEXT_UNITS_MAX: usize = 4096;

/// Why a method refuses.
struct Refusal {
    code: u16,
    description: String,
    parameters: Option<Value>,
}

type Outcome = Result<Value, Refusal>;

fn refuse(code: u16, description: &str) -> Refusal {
    Refusal { code, description: description.to_owned(), parameters: None }
}

fn bad_request(what: &str) -> Refusal {
    refuse(400, &format!("Bad Request: {what}"))
}

fn conflict(what: &str) -> Refusal {
    refuse(409, &format!("Conflict: {what}"))
}

/// Whatever is no method.
pub async fn not_found() -> Response {
    answer(Err(refuse(404, "Not Found"))).1
}

/// `/bot<token>/<method>`.
pub async fn call(
    Extract(shared): Extract<Shared>,
    Path((bot, method)): Path<(String, String)>,
    request: Request,
) -> Response {
    let Some(token) = bot.strip_prefix("bot") else { return not_found().await };
    if token != shared.lock().token {
        return answer(Err(refuse(401, "Unauthorized"))).1;
    }
    let params = match Params::read(request).await {
        Ok(params) => params,
        Err(problem) => return answer(Err(bad_request(&problem))).1,
    };
    let (at, fault) = record(&shared, &method, &params);
    let (status, response) = match fault {
        Some(fault) if fault.is_after_the_fact() => {
            drop(perform(&shared, &method, &params).await);
            let response = fault.answer().await;
            (response.status(), response)
        }
        Some(fault) => {
            let response = fault.answer().await;
            (response.status(), response)
        }
        None => answer(perform(&shared, &method, &params).await),
    };
    if let Some(at) = at {
        shared.change(|state| state.calls[at].status = Some(status.as_u16()));
    }
    response
}

/// Keeps a call, or tells of it. Returns where it is kept, and how it goes wrong.
fn record(shared: &Shared, method: &str, params: &Params) -> (Option<usize>, Option<Fault>) {
    if let Some(listener) = &shared.listener {
        let text = params.0.get("text").and_then(Value::as_str).map(str::to_owned);
        // Whoever listens may have heard enough.
        drop(listener.send(Told { at: Instant::now().into_std(), method: method.to_owned(), text }));
        return (None, shared.lock().take_fault(method));
    }
    let call = Call { at_ms: now_ms(), method: method.to_owned(), params: params.0.clone(), status: None };
    shared.change(|state| {
        state.calls.push(call);
        (Some(state.calls.len() - 1), state.take_fault(method))
    })
}

fn answer(outcome: Outcome) -> (StatusCode, Response) {
    match outcome {
        Ok(result) => (StatusCode::OK, Json(json!({ "ok": true, "result": result })).into_response()),
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.code).expect("refusals have HTTP statuses");
            let mut body = json!({ "ok": false, "error_code": refusal.code, "description": refusal.description });
            if let Some(parameters) = refusal.parameters {
                body["parameters"] = parameters;
            }
            (status, (status, Json(body)).into_response())
        }
    }
}

/// Method names are compared without case, as Telegram does.
async fn perform(shared: &Shared, method: &str, params: &Params) -> Outcome {
    match method.to_ascii_lowercase().as_str() {
        "getme" => Ok(shared.lock().bot()),
        "getupdates" => get_updates(shared, params).await,
        "sendmessage" => shared.change(|state| send_message(state, params)),
        "editmessagetext" => shared.change(|state| edit_message_text(state, params)),
        "deletemessage" => shared.change(|state| delete_message(state, params)),
        "sendchataction" => reachable(&shared.lock(), params).and_then(|_| match params.text("action").as_str() {
            "" => Err(bad_request("wrong parameter action in request")),
            _ => Ok(json!(true)),
        }),
        "setmycommands" => shared.change(|state| {
            state.commands = params.json("commands").ok_or_else(|| bad_request("can't parse commands JSON object"))?;
            Ok(json!(true))
        }),
        "getmycommands" => Ok(shared.lock().commands.clone()),
        "setwebhook" => shared.change(|state| {
            state.webhook = params.text("url");
            Ok(json!(true))
        }),
        "deletewebhook" => shared.change(|state| {
            state.webhook.clear();
            if params.json("drop_pending_updates") == Some(json!(true)) {
                state.updates.clear();
            }
            Ok(json!(true))
        }),
        "getwebhookinfo" => {
            let state = shared.lock();
            let pending = state.updates.len();
            Ok(json!({ "url": state.webhook, "has_custom_certificate": false, "pending_update_count": pending }))
        }
        "answercallbackquery" => {
            Err(bad_request("query is too old and response timeout expired or query ID is invalid"))
        }
        "getfile" => Err(bad_request("invalid file_id")),
        "logout" | "close" => Ok(json!(true)),
        _ => Err(refuse(404, "Not Found")),
    }
}

/// Held until there is an update, the time is over, or another call takes its place.
async fn get_updates(shared: &Shared, params: &Params) -> Outcome {
    let mut changes = shared.subscribe();
    let hold = params.number("timeout").unwrap_or(0).clamp(0, HOLD_SECS_MAX);
    let deadline = Instant::now() + Duration::from_secs(u64::try_from(hold).expect("clamped"));
    let limit = usize::try_from(params.number("limit").unwrap_or(100).clamp(1, 100)).expect("clamped");
    let mine = shared.change(|state| {
        if !state.webhook.is_empty() {
            let told =
                "can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first";
            return Err(conflict(told));
        }
        state.confirm(params.number("offset").unwrap_or(0));
        state.poller += 1;
        Ok(state.poller)
    })?;
    loop {
        {
            let state = shared.lock();
            if state.poller != mine {
                let told = "terminated by other getUpdates request; make sure that only one bot instance is running";
                return Err(conflict(told));
            }
            if !state.webhook.is_empty() {
                return Err(conflict("terminated by setWebhook request"));
            }
            let batch = state.batch(limit);
            if !batch.is_empty() || Instant::now() >= deadline {
                return Ok(batch.into());
            }
        }
        // Over: looked at once more above. Err(changed) cannot be, as the sender lives in `shared`.
        drop(timeout_at(deadline, changes.changed()).await);
    }
}

/// The chat of a call, if the bot can write to it.
fn reachable(state: &State, params: &Params) -> Result<i64, Refusal> {
    if params.text("chat_id").is_empty() {
        return Err(bad_request("chat_id is empty"));
    }
    let chat = params.number("chat_id").ok_or_else(|| bad_request("chat not found"))?;
    match state.reach.get(&chat) {
        None | Some(Reach::Open) => Ok(chat),
        Some(Reach::Blocked) => Err(refuse(403, "Forbidden: bot was blocked by the user")),
        Some(Reach::NotFound) => Err(bad_request("chat not found")),
        Some(Reach::Moved(new)) => Err(Refusal {
            parameters: Some(json!({ "migrate_to_chat_id": new })),
            ..bad_request("group chat was upgraded to a supergroup chat")
        }),
    }
}

/// The text of a call, and as Telegram shows it.
fn text(params: &Params) -> Result<(String, String), Refusal> {
    let sent = params.text("text");
    let shown = sent.trim().to_owned();
    if shown.is_empty() {
        return Err(bad_request("message text is empty"));
    }
    if shown.encode_utf16().count() > TEXT_UNITS_MAX {
        return Err(bad_request("message is too long"));
    }
    Ok((sent, shown))
}

fn send_message(state: &mut State, params: &Params) -> Outcome {
    let chat = reachable(state, params)?;
    let (text, _) = text(params)?;
    let message = Message {
        chat,
        thread: params.number("message_thread_id"),
        message_id: state.new_message_id(chat),
        versions: vec![Version { at_ms: now_ms(), text }],
        deleted: false,
    };
    let shown = as_message(state, &message);
    state.messages.push(message);
    Ok(shown)
}

fn edit_message_text(state: &mut State, params: &Params) -> Outcome {
    let chat = reachable(state, params)?;
    let id = params.number("message_id");
    let own = |message: &&mut Message| message.chat == chat && Some(message.message_id) == id && !message.deleted;
    let message = state.messages.iter_mut().rfind(own).ok_or_else(|| bad_request("message to edit not found"))?;
    let (text, shown) = text(params)?;
    if message.text().trim() == shown {
        return Err(bad_request(
            "message is not modified: specified new message content and reply markup are exactly the same as a \
             current content and reply markup of the message",
        ));
    }
    message.versions.push(Version { at_ms: now_ms(), text });
    let message = message.clone();
    Ok(as_message(state, &message))
}

fn delete_message(state: &mut State, params: &Params) -> Outcome {
    let chat = reachable(state, params)?;
    let id = params.number("message_id");
    let own = |message: &&mut Message| message.chat == chat && Some(message.message_id) == id && !message.deleted;
    let message = state.messages.iter_mut().rfind(own).ok_or_else(|| bad_request("message to delete not found"))?;
    message.deleted = true;
    Ok(json!(true))
}

/// A message as a `Message`.
fn as_message(state: &State, message: &Message) -> Value {
    let first = message.versions.first().expect("a message has a text");
    let mut shown = json!({
        "message_id": message.message_id,
        "date": first.at_ms / 1000,
        "chat": State::chat(message.chat),
        "from": state.bot(),
        "text": message.text().trim(),
    });
    if let Some(thread) = message.thread {
        shown["message_thread_id"] = thread.into();
        shown["is_topic_message"] = true.into();
    }
    if let [_, .., last] = &message.versions[..] {
        shown["edit_date"] = (last.at_ms / 1000).into();
    }
    shown
}
