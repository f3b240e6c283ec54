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
use super::state::{Call, now_ms};
use super::{Shared, Told, draft, files, keyboard, menu, messages, webhook};

/// Telegram holds a poll no longer, whatever is asked.
const HOLD_SECS_MAX: i64 = 50;

/// Why a method refuses.
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) description: String,
    pub(super) parameters: Option<Value>,
}

pub(super) type Outcome = Result<Value, Refusal>;

pub(super) fn refuse(code: u16, description: &str) -> Refusal {
    Refusal { code, description: description.to_owned(), parameters: None }
}

pub(super) fn bad_request(what: &str) -> Refusal {
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
        let text = params.fields.get("text").and_then(Value::as_str).map(str::to_owned);
        // Whoever listens may have heard enough.
        drop(listener.send(Told { at: Instant::now().into_std(), method: method.to_owned(), text }));
        return (None, shared.lock().take_fault(method));
    }
    let call = Call { at_ms: now_ms(), method: method.to_owned(), params: params.fields.clone(), status: None };
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
    let method = method.to_ascii_lowercase();
    if shared.lock().unknown_methods.contains(&method) {
        return Err(refuse(404, "Not Found"));
    }
    if method == "getupdates" {
        return get_updates(shared, params).await;
    }
    shared.change(|state| match method.as_str() {
        "getme" => Ok(state.bot()),
        "sendmessage" => messages::send_message(state, params),
        "sendmessagedraft" => draft::send_message_draft(state, params),
        "editmessagetext" => messages::edit_message_text(state, params),
        "editmessagereplymarkup" => keyboard::edit_message_reply_markup(state, params),
        "deletemessage" => messages::delete_message(state, params),
        "sendchataction" => messages::reachable(state, params).and_then(|_| match params.text("action").as_str() {
            "" => Err(bad_request("wrong parameter action in request")),
            _ => Ok(json!(true)),
        }),
        "sendphoto" => files::send_file(state, params, "photo"),
        "senddocument" => files::send_file(state, params, "document"),
        "getfile" => files::get_file(state, params),
        "setmycommands" => menu::set_my_commands(state, params),
        "getmycommands" => menu::get_my_commands(state, params),
        "deletemycommands" => menu::delete_my_commands(state, params),
        "setwebhook" => webhook::set_webhook(state, params),
        "deletewebhook" => webhook::delete_webhook(state, params),
        "getwebhookinfo" => Ok(webhook::get_webhook_info(state)),
        "answercallbackquery" => keyboard::answer_callback_query(state, params),
        "logout" | "close" => Ok(json!(true)),
        _ => Err(refuse(404, "Not Found")),
    })
}

/// Held until there is an update, the time is over, or another call takes its place.
async fn get_updates(shared: &Shared, params: &Params) -> Outcome {
    let mut changes = shared.subscribe();
    let hold = params.number("timeout").unwrap_or(0).clamp(0, HOLD_SECS_MAX);
    let deadline = Instant::now() + Duration::from_secs(u64::try_from(hold).expect("clamped"));
    let limit = usize::try_from(params.number("limit").unwrap_or(100).clamp(1, 100)).expect("clamped");
    let mine = shared.change(|state| {
        if !state.webhook.url.is_empty() {
            let told =
                "can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first";
            return Err(conflict(told));
        }
        state.want(params.json("allowed_updates"));
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
            if !state.webhook.url.is_empty() {
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
