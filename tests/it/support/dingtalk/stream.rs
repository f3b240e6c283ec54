//! Stream mode: tickets, WebSockets, frames and the answers to them
//! (<https://open.dingtalk.com/document/orgapp/stream-protocol>).

use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State as Extract};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::methods::{Answer, Incoming, good, refuse};
use super::state::{Ack, Connection, Outgoing, Phase, State, Subscription, Ticket, now_ms};

/// `POST /v1.0/gateway/connections/open`.
pub fn open(state: &mut State, request: &Incoming) -> Answer {
    let text = |name: &str| request.body[name].as_str().unwrap_or_default();
    if text("clientId") != state.client_id || text("clientSecret") != state.client_secret {
        return refuse(401, "authFailed", "the client id or the secret is wrong");
    }
    let subscriptions: Result<Vec<Subscription>, _> = serde_json::from_value(request.body["subscriptions"].clone());
    let subscriptions = match subscriptions {
        Ok(subscriptions) if !subscriptions.is_empty() => subscriptions,
        _ => return refuse(400, "invalidParameter.subscriptions", "subscriptions is no list of type and topic"),
    };
    if subscriptions.iter().any(|wanted| !matches!(wanted.kind.as_str(), "EVENT" | "CALLBACK")) {
        return refuse(400, "invalidParameter.subscriptions", "there is no such type");
    }
    let ticket = format!("ticket/{}+of=the-test", state.fresh());
    let until_ms = now_ms() + state.ticket_ms;
    state.tickets.insert(ticket.clone(), Ticket { until_ms, is_used: false, subscriptions });
    let endpoint = format!("{}/connect", state.base.replacen("http", "ws", 1));
    good(json!({ "endpoint": endpoint, "ticket": ticket }))
}

/// Query of `/connect`.
#[derive(Deserialize)]
pub struct Connect {
    #[serde(default)]
    ticket: String,
}

/// `GET /connect`: one WebSocket.
pub async fn connect(
    Extract(shared): Extract<Shared>,
    Query(query): Query<Connect>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let fault = shared.change(|state| state.take_fault("connect"));
    if let Some(fault) = fault {
        return fault.answer().await;
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let opened = shared.change(|state| {
        let ticket = state.tickets.get_mut(&query.ticket)?;
        if std::mem::replace(&mut ticket.is_used, true) || ticket.until_ms < now_ms() {
            return None;
        }
        let subscriptions = ticket.subscriptions.clone();
        Some(open_connection(state, subscriptions))
    });
    match opened {
        Some(id) => upgrade.on_upgrade(move |socket| serve(shared, id, socket)),
        None => refuse(401, "invalidTicket", "the ticket is unknown, used or too old").into_response(),
    }
}

fn open_connection(state: &mut State, subscriptions: Vec<Subscription>) -> u64 {
    let id = u64::try_from(state.connections.len()).expect("few") + 1;
    state.connections.push(Connection {
        id,
        subscriptions,
        phase: Phase::Open,
        queue: std::collections::VecDeque::new(),
        leave_at_ms: None,
        is_stalled: false,
        pings: 0,
    });
    id
}

/// What there is to do on a connection.
enum Due {
    Write(Outgoing),
    Leave,
    Wait(Option<Duration>),
    Stall,
}

fn due(state: &mut State, id: u64) -> Due {
    let connection = state.connection(id);
    let now = now_ms();
    match connection.leave_at_ms {
        Some(at) if at <= now => return Due::Leave,
        _ if connection.is_stalled => return Due::Stall,
        _ => {}
    }
    match connection.queue.pop_front() {
        Some(outgoing) => Due::Write(outgoing),
        None => Due::Wait(connection.leave_at_ms.map(|at| Duration::from_millis(at - now))),
    }
}

async fn serve(shared: Shared, id: u64, mut socket: WebSocket) {
    let mut changes = shared.subscribe();
    loop {
        // Looked at after it was marked as seen, so that no change is missed.
        changes.mark_unchanged();
        let due = due(&mut shared.lock(), id);
        let going_on = match due {
            Due::Leave => false,
            Due::Write(Outgoing { text, push }) => {
                let is_written = socket.send(Message::text(text)).await.is_ok();
                shared.change(|state| {
                    if let Some(push) = push {
                        state.pushes[push].is_written = is_written;
                    }
                });
                is_written
            }
            Due::Stall => changes.changed().await.is_ok(),
            Due::Wait(rest) => {
                let rest = async {
                    match rest {
                        Some(rest) => tokio::time::sleep(rest).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    message = socket.recv() => match message {
                        Some(Ok(message)) => {
                            heard(&shared, id, message);
                            true
                        }
                        Some(Err(_)) | None => false,
                    },
                    changed = changes.changed() => changed.is_ok(),
                    () = rest => true,
                }
            }
        };
        if !going_on {
            break;
        }
    }
    shared.change(|state| state.connection(id).phase = Phase::Closed);
}

fn heard(shared: &Shared, id: u64, message: Message) {
    shared.change(|state| match message {
        Message::Text(text) => {
            if let Err(what) = take_ack(state, id, &text) {
                state.complain(format!("{what}: {text}"));
            }
        }
        Message::Binary(_) => state.complain("a binary frame".to_owned()),
        Message::Ping(_) => state.connection(id).pings += 1,
        Message::Pong(_) => {}
        // The server answers it by itself, and the next read is the end.
        Message::Close(_) => {
            state.connection(id).phase = Phase::Going;
            state.move_unwritten(id);
        }
    });
}

/// Takes an answer to a push, which must be one.
fn take_ack(state: &mut State, id: u64, text: &str) -> Result<(), &'static str> {
    let ack: Value = serde_json::from_str(text).map_err(|_| "an answer is no JSON")?;
    let code = ack["code"].as_i64().ok_or("an answer has no code")?;
    if !ack["message"].is_string() {
        return Err("an answer has no message");
    }
    let headers = &ack["headers"];
    if headers["contentType"] != "application/json" {
        return Err("an answer has another content type");
    }
    let data = ack["data"].as_str().ok_or("the data of an answer is no text")?.to_owned();
    let Some(message_id) = headers["messageId"].as_str() else {
        // The Python SDK answers a `disconnect` that has no id so.
        let is_going = state.connection(id).phase == Phase::Going;
        return if is_going { Ok(()) } else { Err("an answer has no messageId") };
    };
    let push = state.pushes.iter_mut().find(|push| push.message_id == message_id).ok_or("an answer to nothing")?;
    if push.to != Some(id) {
        return Err("an answer on another connection");
    }
    if !push.acks.is_empty() {
        return Err("a second answer");
    }
    let said = serde_json::from_str::<Value>(&data);
    push.acks.push(Ack { at_ms: now_ms(), connection: id, code, data });
    match push.kind.as_str() {
        "EVENT" | "CALLBACK" => {}
        "SYSTEM" if push.topic == "ping" => {}
        _ => return Ok(()),
    }
    let said = said.map_err(|_| "the data of an answer is no JSON")?;
    let asked: Value = serde_json::from_str(&push.data).unwrap_or_default();
    match (push.kind.as_str(), said["status"].as_str()) {
        ("SYSTEM", _) if said != asked => Err("the answer to a ping has other data"),
        // The Python SDK says no status.
        ("EVENT", Some(status)) if !matches!(status, "SUCCESS" | "LATER") => Err("there is no such status of an event"),
        _ => Ok(()),
    }
}

impl Shared {
    /// Something happens in the organisation. It is told until it is acknowledged, under one `eventId`, which is returned.
    pub fn event(&self, kind: &str, data: Value) -> String {
        let event_id = self.change(|state| format!("event-{}", state.fresh()));
        let more = json!({
            "eventId": event_id, "eventType": kind, "eventCorpId": "ding-corp", "eventBornTime": now_ms().to_string(),
            "eventUnifiedAppId": "unified-app",
        });
        let shared = self.clone();
        tokio::spawn(async move {
            let mut changes = shared.subscribe();
            loop {
                let (message_id, retry) = shared.change(|state| {
                    let id = state.push("EVENT", "*", &more, &data, None);
                    (id, Duration::from_millis(state.event_retry_ms))
                });
                let acked = async {
                    loop {
                        let is_acked = |state: &State| {
                            state.pushes.iter().any(|push| push.message_id == message_id && push.is_acked())
                        };
                        if is_acked(&shared.lock()) || changes.changed().await.is_err() {
                            return;
                        }
                    }
                };
                if tokio::time::timeout(retry, acked).await.is_ok() {
                    return;
                }
            }
        });
        event_id
    }
}
