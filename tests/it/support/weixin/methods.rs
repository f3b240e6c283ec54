//! The methods of `ilink/bot/…`.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Extract};
use axum::http::header::HOST;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::super::faults::Fault;
use super::Shared;
use super::crypto;
use super::rules::{self, Broken};
use super::state::{Call, SCANNER, Sent, State, Typing, Upload, now_ms};

const BOT: u64 = 2;
const FINISHED: u64 = 2;
const IMAGE: u64 = 2;
const FILE: u64 = 4;
const VIDEO: u64 = 5;

/// JSON of an answer, or the rule that the request breaks.
type Outcome = Result<Value, Broken>;

fn stale() -> Value {
    json!({ "ret": -14, "errcode": -14, "errmsg": "session timeout" })
}

/// `ilink/bot/<method>` and `ilink/bot/msg/<method>`.
pub async fn call(
    Extract(shared): Extract<Shared>,
    Path(method): Path<String>,
    verb: Method,
    Query(query): Query<Map<String, Value>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body: Value = match verb {
        Method::POST => serde_json::from_slice(&body).unwrap_or_default(),
        _ => query.clone().into(),
    };
    let (at, fault, outcome) = shared.change(|state| {
        let call = Call { at_ms: now_ms(), method: method.clone(), body: body.clone(), status: None };
        state.calls.push(call);
        let checked = match verb {
            Method::POST => rules::post(state, &method, &headers, &body),
            _ => rules::get(&headers),
        };
        (state.calls.len() - 1, state.take_fault(&method), checked)
    });
    let request = Incoming { verb, method, query, headers, body };
    let (status, response) = match fault {
        Some(fault) => {
            if fault.is_after_the_fact() && outcome.is_ok() {
                drop(perform(&shared, &request).await);
            }
            let response = fault.answer().await;
            (response.status(), response)
        }
        None => {
            let outcome = match outcome {
                Ok(()) => perform(&shared, &request).await,
                Err(broken) => Err(broken),
            };
            let (status, answer) = match outcome {
                Ok(answer) => (StatusCode::OK, answer),
                Err(broken) => {
                    shared.change(|state| state.complaints.push(format!("{}: {broken}", request.method)));
                    (StatusCode::BAD_REQUEST, json!({ "ret": -1, "errmsg": broken }))
                }
            };
            (status, (status, Json(answer)).into_response())
        }
    };
    shared.change(|state| state.calls[at].status = Some(status.as_u16()));
    response
}

struct Incoming {
    verb: Method,
    method: String,
    query: Map<String, Value>,
    headers: HeaderMap,
    body: Value,
}

async fn perform(shared: &Shared, request: &Incoming) -> Outcome {
    let is_post = request.verb == Method::POST;
    let body = &request.body;
    match (request.method.as_str(), is_post) {
        ("get_bot_qrcode", _) => return shared.change(|state| qr_code(state, request)),
        ("get_qrcode_status", false) => return qr_status(shared, &request.query).await,
        (_, false) => return Err("it is no GET".to_owned()),
        _ => {}
    }
    let is_known = |state: &State| !state.is_stale && rules::is_known(state, &request.headers);
    if !is_known(&shared.lock()) {
        return Ok(stale());
    }
    match request.method.as_str() {
        "getupdates" => get_updates(shared, body).await,
        "sendmessage" => shared.change(|state| send_message(state, &body["msg"])),
        "getconfig" => shared.change(|state| get_config(state, body)),
        "sendtyping" => shared.change(|state| send_typing(state, body)),
        "getuploadurl" => shared.change(|state| get_upload_url(state, body)),
        "notifystart" => shared.change(|state| {
            state.started += 1;
            Ok(json!({ "ret": 0 }))
        }),
        "notifystop" => shared.change(|state| {
            state.stopped += 1;
            Ok(json!({ "ret": 0 }))
        }),
        _ => Err("there is no such method".to_owned()),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, Broken> {
    value[name].as_str().filter(|text| !text.is_empty()).ok_or_else(|| format!("{name} is no text"))
}

fn number(value: &Value, name: &str) -> Result<u64, Broken> {
    value[name].as_u64().ok_or_else(|| format!("{name} is no number"))
}

fn exactly(value: &Value, name: &str, wanted: &Value) -> Result<(), Broken> {
    if value[name] == *wanted { Ok(()) } else { Err(format!("{name} is {} and not {wanted}", value[name])) }
}

/// Held until there is something after the cursor, or the time is over.
async fn get_updates(shared: &Shared, body: &Value) -> Outcome {
    let cursor = body["get_updates_buf"].as_str().ok_or("get_updates_buf is no text")?;
    let count = State::count(cursor).ok_or("get_updates_buf is none of this server")?;
    let mut changes = shared.subscribe();
    let deadline = shared.change(|state| {
        state.cursors.push(cursor.to_owned());
        state.confirmed = state.confirmed.max(count);
        Instant::now() + Duration::from_millis(state.hold_ms)
    });
    loop {
        {
            let state = shared.lock();
            if state.is_stale {
                return Ok(stale());
            }
            if state.msgs.len() > count || Instant::now() >= deadline {
                let msgs = state.msgs.get(count..).unwrap_or_default();
                let cursor = State::cursor(state.msgs.len().max(count));
                let mut answer = json!({ "ret": 0, "msgs": msgs, "get_updates_buf": cursor });
                if let Some(timeout) = state.longpolling_timeout_ms {
                    answer["longpolling_timeout_ms"] = timeout.into();
                }
                return Ok(answer);
            }
        }
        // Over: looked at once more above. Err(changed) cannot be, as the sender lives in `shared`.
        drop(timeout_at(deadline, changes.changed()).await);
    }
}

fn send_message(state: &mut State, msg: &Value) -> Outcome {
    exactly(msg, "from_user_id", &json!(""))?;
    exactly(msg, "message_type", &BOT.into())?;
    exactly(msg, "message_state", &FINISHED.into())?;
    let (to, client_id) = (text(msg, "to_user_id")?, text(msg, "client_id")?);
    let item = match msg["item_list"].as_array().map(Vec::as_slice) {
        Some([item]) => item,
        _ => return Err("item_list is not of exactly one item".to_owned()),
    };
    check_item(state, item)?;
    let context_token = match &msg["context_token"] {
        Value::Null => None,
        Value::String(token) if !token.is_empty() => Some(token.clone()),
        _ => return Err("context_token is no text".to_owned()),
    };
    if context_token.as_ref().is_some_and(|token| state.stale_contexts.contains(token)) {
        return Ok(stale());
    }
    let sent = Sent {
        at_ms: now_ms(),
        to: to.to_owned(),
        client_id: client_id.to_owned(),
        is_repeat: state.sent.iter().any(|sent| sent.client_id == client_id),
        is_latest_context: context_token.as_ref() == state.contexts.get(to),
        context_token,
        item: item.clone(),
    };
    state.sent.push(sent);
    Ok(json!({}))
}

fn check_item(state: &State, item: &Value) -> Result<(), Broken> {
    match number(item, "type")? {
        1 => text(&item["text_item"], "text").map(drop),
        IMAGE => check_media(state, &item["image_item"], "mid_size"),
        3 => check_media(state, &item["voice_item"], ""),
        FILE => {
            text(&item["file_item"], "file_name")?;
            check_media(state, &item["file_item"], "len")
        }
        VIDEO => check_media(state, &item["video_item"], "video_size"),
        kind => Err(format!("type {kind} is no item")),
    }
}

/// A file that was uploaded, under the key that it was uploaded with; `size` has the length of it.
fn check_media(state: &State, item: &Value, size: &str) -> Result<(), Broken> {
    let media = &item["media"];
    let stored = state.files.get(text(media, "encrypt_query_param")?).ok_or("encrypt_query_param names no file")?;
    let upload = stored.upload.as_ref().ok_or("encrypt_query_param names a file of the peer")?;
    exactly(media, "encrypt_type", &json!(1))?;
    let key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &stored.aeskey);
    exactly(media, "aes_key", &key.into())?;
    match size {
        "" => Ok(()),
        "len" => exactly(item, size, &upload.rawsize.to_string().into()),
        _ => exactly(item, size, &upload.filesize.into()),
    }
}

fn get_config(state: &mut State, body: &Value) -> Outcome {
    let user = text(body, "ilink_user_id")?.to_owned();
    let ticket = crypto::hex(format!("ticket-{}", state.fresh()).as_bytes());
    state.tickets.insert(ticket.clone(), user);
    Ok(json!({ "ret": 0, "typing_ticket": ticket }))
}

fn send_typing(state: &mut State, body: &Value) -> Outcome {
    let (user, ticket, status) = (text(body, "ilink_user_id")?, text(body, "typing_ticket")?, number(body, "status")?);
    if state.tickets.get(ticket).is_none_or(|owner| owner != user) {
        return Err("typing_ticket is none of this user".to_owned());
    }
    if !(1..=2).contains(&status) {
        return Err("status is neither 1 nor 2".to_owned());
    }
    state.typing.push(Typing { user: user.to_owned(), status });
    Ok(json!({ "ret": 0 }))
}

fn get_upload_url(state: &mut State, body: &Value) -> Outcome {
    text(body, "to_user_id")?;
    exactly(body, "no_need_thumb", &json!(true))?;
    let upload = Upload {
        filekey: text(body, "filekey")?.to_owned(),
        media_type: number(body, "media_type")?,
        rawsize: number(body, "rawsize")?,
        rawfilemd5: text(body, "rawfilemd5")?.to_owned(),
        filesize: number(body, "filesize")?,
        aeskey: text(body, "aeskey")?.to_owned(),
    };
    if crypto::unhex(&upload.filekey).is_none() || crypto::unhex(&upload.aeskey).is_none() {
        return Err("filekey or aeskey is not 32 hex digits".to_owned());
    }
    if !(1..=4).contains(&upload.media_type) || upload.filesize != (upload.rawsize + 1).div_ceil(16) * 16 {
        return Err("media_type or filesize is wrong".to_owned());
    }
    let param = format!("upload+{}/=", state.fresh());
    let filekey = upload.filekey.clone();
    state.uploads.insert(param.clone(), upload);
    Ok(match &state.upload_base {
        Some(base) => {
            let escaped = param.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
            json!({ "upload_full_url": format!("{base}/upload?encrypted_query_param={escaped}&filekey={filekey}") })
        }
        None => json!({ "upload_param": param }),
    })
}

fn qr_code(state: &mut State, request: &Incoming) -> Outcome {
    if request.query.get("bot_type") != Some(&json!("3")) {
        return Err("bot_type is not 3".to_owned());
    }
    let code = format!("qr-{}", state.fresh());
    state.qr_codes.push(code.clone());
    let host = request.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
    if state.qr_base_url.is_empty() {
        state.qr_base_url = format!("http://{host}");
    }
    Ok(json!({ "qrcode": code, "qrcode_img_content": format!("http://{host}/scan/{code}") }))
}

async fn qr_status(shared: &Shared, query: &Map<String, Value>) -> Outcome {
    let code = query.get("qrcode").and_then(Value::as_str).ok_or("qrcode is missing")?;
    let mut changes = shared.subscribe();
    let deadline = Instant::now() + Duration::from_millis(shared.lock().hold_ms);
    loop {
        if shared.lock().qr_codes.last().is_none_or(|newest| newest != code) {
            return Ok(json!({ "status": "expired" }));
        }
        if let Some(answer) = shared.change(|state| qr_step(state, query)) {
            return Ok(answer);
        }
        changes.mark_unchanged();
        if timeout_at(deadline, changes.changed()).await.is_err() {
            return Ok(json!({ "status": "wait" }));
        }
    }
}

/// The next step of the script, if there is one.
fn qr_step(state: &mut State, query: &Map<String, Value>) -> Option<Value> {
    let step = state.qr_script.front()?;
    let told = query.get("verify_code").and_then(Value::as_str);
    if step.code.is_some() && step.code.as_deref() != told {
        return Some(json!({ "status": "need_verifycode" }));
    }
    let mut answer = state.qr_script.pop_front()?.answer;
    if answer["status"] == "confirmed" {
        let credentials = [
            ("bot_token", &state.token),
            ("ilink_bot_id", &state.account),
            ("baseurl", &state.qr_base_url),
            ("ilink_user_id", &SCANNER.to_owned()),
        ];
        for (name, value) in credentials {
            if answer[name].is_null() {
                answer[name] = value.as_str().into();
            }
        }
    }
    Some(answer)
}

/// Whatever is no address of the server.
pub async fn not_found() -> Response {
    Fault::Html { code: 404 }.answer().await
}
