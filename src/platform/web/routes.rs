//! The routes; see [`super`] for what each is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Extension, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::auth::{Known, SESSION_AGE};
use super::events::{EventId, Events, Wanted};
use super::form::Form;
use super::pages::{self, Told, Viewer};
use super::reader::PAGE;
use super::site::{COOKIE, Peer, Post, Refusal, Site, guard, html};
use super::{MAIN, PLATFORM, conversation_chat};
use crate::chat::{Conversation, Inbound, Sender};
use crate::clock::{MonoNanos, UnixMillis};
use crate::control::proto::Status;
use crate::report::Chain;
use crate::store::Span;

/// The longest message, in bytes, as with Telegram four times its longest.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// A message in JSON, each character of it escaped.
const BODY_BYTES_MAX: usize = 8 * TEXT_BYTES_MAX;
/// How long a new image may take to tell its status.
const STATUS_DEADLINE: Duration = Duration::from_secs(5);
/// How long a message may wait to be stored: while none is taken in, who sent it is told to come again.
const STORE_DEADLINE: Duration = Duration::from_secs(20);

type Answer = Result<Response, Refusal>;

/// All routes, each behind the guard.
pub(super) fn routes(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(status_page))
        .route("/chat", get(chat_page))
        .route("/login", get(login_page).post(login))
        .route("/logout", post(logout))
        .route("/events", get(events))
        .route("/api/status", get(status))
        .route("/api/messages", get(messages).post(say))
        .route("/api/update", post(update))
        .route("/api/restart", post(restart))
        .route("/files/{number}", get(file))
        .route("/assets/{name}", get(asset))
        .route("/favicon.ico", get(|| async { asset_named("icon.svg", None, &HeaderMap::new()) }))
        .route("/healthz", get(|| async { pages::ALIVE }))
        .route("/readyz", get(ready))
        .route("/health/detailed", get(health))
        .route("/metrics", get(metrics))
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "there is nothing of this name") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this is asked otherwise")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(&site), guard))
        .with_state(site)
}

/// The query of a request.
struct Asked<T>(T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Query(query) = Query::try_from_uri(&parts.uri).map_err(|rejection| {
            Refusal::new(StatusCode::BAD_REQUEST, format!("the query is not understood: {}", rejection.body_text()))
        })?;
        Ok(Self(query))
    }
}

fn internal(what: &'static str) -> impl FnOnce(crate::store::StoreError) -> Refusal {
    move |error| {
        tracing::error!(error = %Chain(&error), what, "a request of the web page fails");
        Refusal::for_now(format!("the gateway cannot {what} just now"))
    }
}

/// The status. The first moment of an image has none.
async fn latest(site: &Site) -> Result<Status, Refusal> {
    let mut shown = site.shown.clone();
    let known = timeout(STATUS_DEADLINE, shown.wait_for(|shown| shown.status().is_some())).await;
    let status = known.ok().and_then(|known| known.ok()?.status().cloned());
    status.ok_or_else(|| Refusal::for_now("the gateway has just started; try again in a moment"))
}

/// The status, as whoever asks may know it.
async fn latest_for(site: &Site, known: &Known) -> Result<Status, Refusal> {
    let status = latest(site).await?;
    Ok(if known.is_admin { status } else { pages::for_guests(status) })
}

fn viewer(known: &Known) -> Viewer<'_> {
    Viewer { user: known.user, is_admin: known.is_admin, csrf: known.csrf.as_deref().unwrap_or("") }
}

#[derive(Deserialize)]
struct AskedFor {
    asked: Option<String>,
}

async fn status_page(
    State(site): State<Arc<Site>>,
    Extension(known): Extension<Known>,
    Asked(AskedFor { asked }): Asked<AskedFor>,
) -> Answer {
    let told = match asked.as_deref() {
        Some("update") => Some(Told::Done("The update was asked for. How it goes stands here and in the chat.")),
        Some("restart") => Some(Told::Done("The restart was asked for. How it goes stands here and in the chat.")),
        _ => None,
    };
    let status = latest_for(&site, &known).await?;
    Ok(html(StatusCode::OK, pages::status(&status, &viewer(&known), told)))
}

#[derive(Deserialize)]
struct Which {
    chat: Option<String>,
    before: Option<i64>,
}

/// The chat that is named, of this user.
fn chat_of(known: &Known, chat: Option<&str>) -> Result<String, Refusal> {
    let why = "a chat is named by up to 64 letters, digits, '.', '-' and '_'";
    conversation_chat(known.user, chat.unwrap_or(MAIN)).ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, why))
}

async fn chat_page(Extension(known): Extension<Known>, Asked(which): Asked<Which>) -> Answer {
    chat_of(&known, which.chat.as_deref())?;
    Ok(html(StatusCode::OK, pages::chat(&viewer(&known), which.chat.as_deref().unwrap_or(MAIN))))
}

#[derive(Deserialize)]
struct Next {
    next: Option<String>,
}

/// A path of this site, and nothing that leads to another.
fn path(next: Option<&str>) -> &str {
    let is_path = |next: &&str| {
        next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\r', '\n', '\t', '\0'])
    };
    next.filter(is_path).unwrap_or("/")
}

async fn login_page(Asked(Next { next }): Asked<Next>) -> Response {
    html(StatusCode::OK, pages::login(path(next.as_deref()), None))
}

async fn login(
    State(site): State<Arc<Site>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    form: Form,
) -> Response {
    let next = path(form.next.as_deref()).to_owned();
    let token = form.token.as_deref().unwrap_or("");
    let known = match site.auth.by_token(token, peer.0, MonoNanos::now()) {
        Ok(known) => known,
        Err(refused) => {
            tracing::warn!(from = %peer.0, ?refused, "a login to the web page failed");
            let refusal = Refusal::from(refused);
            let page = pages::login(&next, Some(&refusal.why));
            return refusal.answer(|status, _| html(status, page));
        }
    };
    let Some(session) = site.auth.session(&known, UnixMillis::now()) else {
        return Refusal::from(super::auth::Refused::Wrong).into_response();
    };
    tracing::info!(user = known.user, from = %peer.0, "signed in to the web page");
    // A proxy with TLS stands before the gateway, as the browser tells.
    let is_tls = headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    with_cookie(Redirect::to(&next).into_response(), &session, SESSION_AGE, is_tls)
}

async fn logout(Extension(known): Extension<Known>, form: Form) -> Answer {
    if !known.has_form_token(form.csrf.as_deref()) {
        return Err(stale());
    }
    Ok(with_cookie(Redirect::to("/login").into_response(), "", Duration::ZERO, false))
}

fn with_cookie(mut response: Response, session: &str, age: Duration, is_tls: bool) -> Response {
    let secure = if is_tls { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}", age.as_secs());
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

fn stale() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "the page is of another session; load it again")
}

#[derive(Deserialize)]
struct StreamQuery {
    chat: Option<String>,
    status: Option<String>,
    after: Option<String>,
}

async fn events(
    State(site): State<Arc<Site>>,
    Extension(known): Extension<Known>,
    headers: HeaderMap,
    Asked(query): Asked<StreamQuery>,
) -> Answer {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    // What is no id is no reason to tell nothing: all is told.
    let after: EventId = last.or(query.after.as_deref()).and_then(|id| id.parse().ok()).unwrap_or_default();
    let chat = query.chat.map(|chat| chat_of(&known, Some(&chat))).transpose()?;
    let status = query.status.is_some_and(|wanted| wanted == "1");
    if chat.is_none() && !status {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "name a chat, or ask for status=1"));
    }
    let Ok(place) = Arc::clone(&site.streams).try_acquire_owned() else {
        return Err(Refusal::for_now("too many pages are open"));
    };
    let events = Events::new(
        Wanted { chat, status: status.then_some(known.audience()), after },
        Arc::clone(&site.board),
        site.shown.clone(),
        site.leave.subscribe(),
    );
    let stream = stream::unfold((events, place), |(mut events, place)| async move {
        let piece = events.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), (events, place)))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform")),
        // A proxy that buffers would keep what is said to itself (nginx).
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

async fn status(State(site): State<Arc<Site>>, Extension(known): Extension<Known>) -> Answer {
    latest_for(&site, &known).await.map(|status| Json(status).into_response())
}

async fn messages(
    State(site): State<Arc<Site>>,
    Extension(known): Extension<Known>,
    Asked(which): Asked<Which>,
) -> Answer {
    let chat = chat_of(&known, which.chat.as_deref())?;
    let before = Span::Before(which.before.unwrap_or(i64::MAX));
    let mut lines = site.board.lines(&chat, before, PAGE + 1).await.map_err(internal("read what was said"))?;
    let is_more = lines.len() > usize::try_from(PAGE).unwrap_or(usize::MAX);
    if is_more {
        lines.remove(0);
    }
    let messages: Vec<Value> = lines.iter().map(|(number, message)| message.told(*number)).collect();
    Ok(Json(json!({ "messages": messages, "more": is_more })).into_response())
}

async fn say(State(site): State<Arc<Site>>, Extension(known): Extension<Known>, form: Form) -> Answer {
    let text = form.text.clone().unwrap_or_default();
    let chat = form.chat.clone().unwrap_or_else(|| MAIN.to_owned());
    let number = store(&site, &known, &form, &chat, text).await?;
    Ok(form.answer(number, &format!("/chat?chat={chat}")))
}

async fn update(State(site): State<Arc<Site>>, Extension(known): Extension<Known>, form: Form) -> Answer {
    let version = form.version.as_deref().map(str::trim).filter(|version| !version.is_empty());
    let is_word = |version: &str| version.len() <= 64 && !version.contains(char::is_whitespace);
    let command = match version {
        None => "/update".to_owned(),
        Some(version) if is_word(version) => format!("/update {version}"),
        Some(_) => return Err(Refusal::new(StatusCode::BAD_REQUEST, "a version looks like 1.5.0")),
    };
    command_of(&site, &known, &form, command, "/?asked=update").await
}

async fn restart(State(site): State<Arc<Site>>, Extension(known): Extension<Known>, form: Form) -> Answer {
    let command = if form.force { "/restart force" } else { "/restart" };
    command_of(&site, &known, &form, command.to_owned(), "/?asked=restart").await
}

async fn command_of(site: &Site, known: &Known, form: &Form, command: String, then: &str) -> Answer {
    if !known.is_admin {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "only the owner may do this"));
    }
    let number = store(site, known, form, MAIN, command).await?;
    Ok(form.answer(number, then))
}

/// Has a message stored. Returns its number.
async fn store(site: &Site, known: &Known, form: &Form, chat: &str, text: String) -> Result<i64, Refusal> {
    if !known.has_form_token(form.csrf.as_deref()) {
        return Err(stale());
    }
    let chat = chat_of(known, Some(chat))?;
    if text.trim().is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "the message is empty"));
    }
    if text.len() > TEXT_BYTES_MAX {
        let why = format!("the message has more than {TEXT_BYTES_MAX} bytes");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, why));
    }
    let message_id = form.message_id().ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "'id' must be a UUID"))?;
    if site.is_paused.load(Ordering::Relaxed) {
        return Err(Refusal::for_now("an admin has paused this chat"));
    }
    let inbound = Inbound {
        conversation: Conversation::new(PLATFORM, chat),
        account: known.user.to_owned(),
        message_id,
        sender: Sender { id: known.user.to_owned(), name: known.user.to_owned() },
        sent_at: UnixMillis::now(),
        text,
        is_direct: true,
        attachments: Vec::new(),
        context: None,
    };
    let (stored, number) = oneshot::channel();
    let handed = async {
        site.posts.send(Post { inbound, stored }).await.ok()?;
        number.await.ok().flatten()
    };
    let number = timeout(STORE_DEADLINE, handed).await.ok().flatten();
    number.ok_or_else(|| Refusal::for_now("the gateway takes no messages just now"))
}

async fn file(State(site): State<Arc<Site>>, Extension(known): Extension<Known>, Path(number): Path<String>) -> Answer {
    let no_file = || Refusal::new(StatusCode::NOT_FOUND, "there is no such file");
    let number = number.parse().map_err(|_| no_file())?;
    let message = site.board.message_of(known.user, number).await.map_err(internal("find the file"))?;
    let file = message.and_then(|message| message.file);
    let file = file.ok_or_else(no_file)?;
    super::download::answer(&file).await
}

#[derive(Deserialize)]
struct Version {
    v: Option<String>,
}

async fn asset(Path(name): Path<String>, Asked(Version { v }): Asked<Version>, headers: HeaderMap) -> Response {
    asset_named(&name, v.as_deref(), &headers)
}

fn asset_named(name: &str, version: Option<&str>, headers: &HeaderMap) -> Response {
    let Some(asset) = pages::asset(name) else {
        return Refusal::new(StatusCode::NOT_FOUND, "there is no such file").into_response();
    };
    let tag = format!("\"{}\"", asset.hash);
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let about = [
        (header::CACHE_CONTROL, asset.cache_control(version).to_owned()),
        (header::ETAG, tag),
        (header::CONTENT_TYPE, asset.content_type.to_owned()),
    ];
    if is_known { (StatusCode::NOT_MODIFIED, about).into_response() } else { (about, asset.content).into_response() }
}

async fn ready(State(site): State<Arc<Site>>) -> Response {
    let (is_ready, word) =
        latest(&site).await.map_or((false, "not ready: starting\n"), |status| pages::readiness(&status));
    (if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, word).into_response()
}

async fn health(State(site): State<Arc<Site>>) -> Answer {
    latest(&site).await.map(|status| Json(pages::health_detailed(&status)).into_response())
}

async fn metrics(State(site): State<Arc<Site>>) -> Answer {
    let text = pages::metrics(&latest(&site).await?);
    Ok(([(header::CONTENT_TYPE, pages::METRICS_CONTENT_TYPE)], text).into_response())
}
