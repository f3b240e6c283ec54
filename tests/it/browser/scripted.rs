//! A server that says what a test wants, with the pages of the gateway: for what a gateway cannot be made to do at will.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use futures_util::StreamExt;
use futures_util::stream;
use hermes_gateway::control::proto::Status;
use hermes_gateway::platform::web::pages::{self, Viewer};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Who looks at all pages.
const VIEWER: Viewer<'static> = Viewer { user: "owner", is_admin: true, csrf: "c0ffee" };

/// Stops when dropped.
pub struct Scripted {
    shared: Arc<Shared>,
    url: String,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    posts: Mutex<Vec<Value>>,
    refuse_posts: Mutex<Option<StatusCode>>,
    refuse_events: Mutex<bool>,
    is_over: AtomicBool,
    streams: Mutex<Vec<mpsc::UnboundedSender<String>>>,
    events: Mutex<u64>,
}

impl Scripted {
    pub async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let router = Router::new()
            .route("/", get(|| async { html(pages::status(&status(), &VIEWER, None)) }))
            .route("/chat", get(|| async { html(pages::chat(&VIEWER, "main")) }))
            .route("/login", get(|| async { html(pages::login("/", Some("That is not the token."))) }))
            .route("/assets/{name}", get(asset))
            .route("/events", get(events))
            .route("/api/status", get(told_status))
            .route("/api/messages", post(message))
            .route("/api/update", post(message))
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves until aborted") });
        Self { shared, url, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Tells all pages that listen.
    pub fn tell(&self, event: &str, data: &Value) {
        let mut id = self.shared.events.lock().expect("no holder panics");
        *id += 1;
        let text = format!("id: {id}\nevent: {event}\ndata: {data}\n\n");
        let streams = self.shared.streams.lock().expect("no holder panics");
        streams.iter().for_each(|stream| drop(stream.send(text.clone())));
    }

    /// Says something as the agent.
    pub fn answer(&self, number: u64, text: &str, is_final: bool) {
        self.tell("message", &message_of(number, "agent", text, is_final));
    }

    /// From now on what is posted is answered with this status.
    pub fn refuse_posts(&self, status: Option<StatusCode>) {
        *self.shared.refuse_posts.lock().expect("no holder panics") = status;
    }

    /// What was posted, refused or not.
    pub fn posts(&self) -> Vec<Value> {
        self.shared.posts.lock().expect("no holder panics").clone()
    }

    /// Breaks all streams; `for_good` until [`Scripted::heal`].
    pub fn cut(&self, for_good: bool) {
        *self.shared.refuse_events.lock().expect("no holder panics") = for_good;
        self.shared.streams.lock().expect("no holder panics").clear();
    }

    /// Ends the session of the page.
    pub fn end_session(&self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.shared.streams.lock().expect("no holder panics").clear();
    }

    /// Takes streams again.
    pub fn heal(&self) {
        *self.shared.refuse_events.lock().expect("no holder panics") = false;
    }

    /// How many pages listen.
    pub fn listeners(&self) -> usize {
        self.shared.streams.lock().expect("no holder panics").iter().filter(|stream| !stream.is_closed()).count()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A message as the protocol has it.
pub fn message_of(number: u64, from: &str, text: &str, is_final: bool) -> Value {
    let format = if from == "agent" { "markdown" } else { "plain" };
    json!({"number": number, "from": from, "name": from, "at": 1_790_000_000_000_u64, "text": text, "format": format,
           "final": is_final, "id": null, "choices": [], "file": null})
}

/// A gateway with something of everything.
pub fn status() -> Status {
    let image = json!({"version": "1.5.0", "sha256": "bb".repeat(32)});
    let handoff = |outcome: &str, generation: u64| {
        json!({"kind": "update", "requested_by": "Ann", "requested_via": "telegram:1001", "reason": "security",
               "from_version": "1.4.0", "from_sha256": "", "to_version": "1.5.0", "to_sha256": "", "generation": generation,
               "turns_carried": 3, "agents_carried": 1, "started_at": 1_789_999_000_000_u64, "outcome": outcome,
               "phases_us": [["stage", 1_800_000], ["preflight", 4900], ["drain", 200], ["quiesce", 900], ["seal", 400],
                             ["exec", 700], ["adopt", 2300]]})
    };
    let turn =
        json!({"turn": 7, "conversation": "telegram:1001", "started_at": 1_789_999_900_000_u64, "answer_bytes": 3000});
    let status = json!({
        "gateway_state": "degraded", "image": image, "pid": 4242, "generation": 3, "started_at": 1_789_700_000_000_u64,
        "image_started_at": 1_789_999_000_000_u64, "phase": "serving", "home": "/var/lib/hermes", "queued_turns": 1,
        "at": 1_790_000_000_000_u64,
        "platforms": [
            {"name": "telegram", "state": "connected", "updated_at": 1_789_900_000_000_u64, "waiting": 2},
            {"name": "weixin", "state": "fatal", "error_code": "401", "error_message": "token refused", "updated_at": 0}],
        "agents": [{"name": "default", "state": "ready", "pid": 4243, "title": "Echo", "turns": [turn]}],
        "handoffs": [handoff("committed", 3), handoff("failed in preflight: it does not start", 2)],
        "blockers": [{"effect": "delays", "what": "a send to telegram is in flight"}],
    });
    serde_json::from_value(status).expect("a status")
}

fn html(page: String) -> Response<Body> {
    Response::builder()
        .header(CONTENT_TYPE, "text/html; charset=utf-8")
        .header(CONTENT_SECURITY_POLICY, pages::CONTENT_SECURITY_POLICY)
        .body(Body::from(page))
        .expect("headers are well-formed")
}

async fn asset(Path(name): Path<String>) -> Response<Body> {
    let Some(asset) = pages::asset(&name) else { return refused(StatusCode::NOT_FOUND) };
    Response::builder()
        .header(CONTENT_TYPE, asset.content_type)
        .body(Body::from(asset.content))
        .expect("headers are well-formed")
}

fn refused(status: StatusCode) -> Response<Body> {
    let body = json!({"error": "no room"}).to_string();
    Response::builder().status(status).body(Body::from(body)).expect("a status is well-formed")
}

async fn message(State(shared): State<Arc<Shared>>, body: Bytes) -> Response<Body> {
    let posted = serde_json::from_slice(&body).expect("JSON is posted");
    let mut posts = shared.posts.lock().expect("no holder panics");
    posts.push(posted);
    match *shared.refuse_posts.lock().expect("no holder panics") {
        Some(status) => refused(status),
        None => Response::new(Body::from(json!({"number": 1000 + posts.len()}).to_string())),
    }
}

async fn told_status(State(shared): State<Arc<Shared>>) -> Response<Body> {
    if shared.is_over.load(Ordering::Relaxed) {
        return refused(StatusCode::UNAUTHORIZED);
    }
    Response::new(Body::from(serde_json::to_string(&status()).expect("plain data serialises")))
}

async fn events(State(shared): State<Arc<Shared>>) -> Response<Body> {
    if shared.is_over.load(Ordering::Relaxed) {
        return refused(StatusCode::UNAUTHORIZED);
    }
    if *shared.refuse_events.lock().expect("no holder panics") {
        return refused(StatusCode::SERVICE_UNAVAILABLE);
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    sender.send("retry: 100\n\n".to_owned()).expect("the other end is here");
    shared.streams.lock().expect("no holder panics").push(sender);
    let next = |mut receiver: mpsc::UnboundedReceiver<String>| async move { Some((receiver.recv().await?, receiver)) };
    let body = stream::unfold(receiver, next).map(Ok::<_, Infallible>);
    Response::builder()
        .header(CONTENT_TYPE, "text/event-stream")
        .body(Body::from_stream(body))
        .expect("headers are well-formed")
}
