//! What all requests share, and what each passes first: whom the browser believes to speak to, and who asks.
//!
//! **Invariants**
//! - A request under a name that is not the gateway's is refused: a site whose name was made to lead here (DNS rebinding)
//!   gets nothing.
//! - What changes something is asked by the gateway's own pages, as browsers tell (`Sec-Fetch-Site`, `Origin`), and has the
//!   token of its session, or is asked with the token itself.
//! - Every answer forbids what pages do not need, and to be kept.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::auth::{Auth, Known, Refused};
use super::board::Board;
use super::form::is_form;
use super::pages;
use super::shown::Shown;
use crate::chat::Inbound;
use crate::clock::{MonoNanos, UnixMillis};

/// The cookie of a session.
pub(super) const COOKIE: &str = "hermes_session";
/// Event streams at a time; the rest of the connections is for everything else.
pub(super) const STREAMS_MAX: usize = 64;
/// How soon to come again, in seconds.
const RETRY_AFTER_S: u64 = 1;
/// What everybody may see beside [`PROBES`]: styles and scripts, and the way in.
const OPEN: [&str; 2] = ["/login", "/favicon.ico"];
const ASSETS: &str = "/assets/";
/// What is asked by whoever watches, by whatever name.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Shared by all requests.
pub(super) struct Site {
    pub(super) auth: Auth,
    pub(super) hosts: Hosts,
    pub(super) board: Arc<Board>,
    pub(super) posts: mpsc::Sender<Post>,
    pub(super) shown: watch::Receiver<Arc<Shown>>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) is_paused: Arc<AtomicBool>,
    /// Told when the streams are to end, because the image leaves.
    pub(super) leave: watch::Sender<()>,
}

/// A message to be stored, with the way to say what came of it.
pub(super) struct Post {
    pub(super) inbound: Inbound,
    pub(super) stored: oneshot::Sender<Option<i64>>,
}

/// The names of the gateway.
pub(super) struct Hosts {
    names: Vec<String>,
    address: IpAddr,
}

/// Who has connected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

impl Site {
    /// Who asks, if that can be known.
    fn identify(&self, headers: &HeaderMap, peer: Peer) -> Result<Option<Known>, Refused> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        // What is of another scheme may be a proxy's own.
        if let Some((scheme, token)) = text(header::AUTHORIZATION).and_then(|value| value.split_once(' '))
            && scheme.eq_ignore_ascii_case("bearer")
        {
            return self.auth.by_token(token.trim(), peer.0, MonoNanos::now()).map(Some);
        }
        Ok(session(headers).and_then(|session| self.auth.by_session(session, UnixMillis::now())))
    }
}

/// The session in the cookies.
fn session(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(name, value)| (name == COOKIE).then_some(value))
}

impl Hosts {
    pub(super) fn new(names: Vec<String>, address: SocketAddr) -> Self {
        Self { names, address: address.ip() }
    }

    /// Whether a header `Host` names the gateway.
    fn has(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
        name == "localhost"
            || address.is_ok_and(|address| address.is_loopback() || address == self.address)
            || self.names.contains(&name)
    }
}

/// Why a request is not answered as it wants. [`guard`] words it for whoever asks.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) why: String,
    retry_after_s: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), retry_after_s: None }
    }

    /// It is worth trying again.
    pub(super) fn for_now(why: impl Into<String>) -> Self {
        Self { retry_after_s: Some(RETRY_AFTER_S), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, why) }
    }

    /// With a body of its own.
    pub(super) fn answer(self, body: impl FnOnce(StatusCode, &str) -> Response) -> Response {
        let mut response = body(self.status, &self.why);
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Wrong => Self::new(StatusCode::UNAUTHORIZED, "the token is wrong"),
            Refused::TooMany(wait) => {
                let wait = wait.max(Duration::from_secs(1));
                let why = format!("too many wrong tokens; try again in {} s", wait.as_secs());
                Self { retry_after_s: Some(wait.as_secs()), ..Self::new(StatusCode::TOO_MANY_REQUESTS, why) }
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// A page.
pub(super) fn html(status: StatusCode, page: String) -> Response {
    (status, axum::response::Html(page)).into_response()
}

/// What every request passes.
pub(super) async fn guard(State(site): State<Arc<Site>>, mut request: Request, next: Next) -> Response {
    let is_for_people = is_page(request.uri().path()) || is_form(request.headers());
    let mut response = match turned_away(&site, &mut request) {
        None => next.run(request).await,
        Some(response) => response,
    };
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        let headers = std::mem::take(response.headers_mut());
        response = refusal.answer(|status, why| match is_for_people {
            true => html(status, pages::failure("That did not work", why)),
            false => (status, axum::Json(json!({ "error": why }))).into_response(),
        });
        response.headers_mut().extend(headers);
    }
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, pages::CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With "no-referrer" a browser sends `Origin: null` with a form of ours, too.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether what is asked for there is for people.
fn is_page(path: &str) -> bool {
    !["/api/", "/events", "/files/", "/metrics", "/health"].iter().any(|start| path.starts_with(start))
}

/// The answer to a request that is not let in. One that is has who asks in it.
fn turned_away(site: &Site, request: &mut Request) -> Option<Response> {
    let path = request.uri().path();
    let refused = |refusal: Refusal| Some(refusal.into_response());
    if PROBES.contains(&path) {
        return None;
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(|host| site.hosts.has(host)) {
        let why = "this name is not known to be the gateway's; add it to 'hosts' in [platforms.web]";
        return refused(Refusal::new(StatusCode::MISDIRECTED_REQUEST, why));
    }
    if request.method() == Method::POST && !is_from_here(request.headers()) {
        return refused(Refusal::new(StatusCode::FORBIDDEN, "this was sent by another site"));
    }
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer(site.hosts.address));
    match site.identify(request.headers(), peer) {
        Err(refusal) => refused(refusal.into()),
        Ok(Some(known)) => {
            request.extensions_mut().insert(known);
            None
        }
        Ok(None) if OPEN.contains(&path) || path.starts_with(ASSETS) => None,
        Ok(None) if is_page(path) && request.method() == Method::GET => {
            Some(Redirect::to(&login_for(request.uri())).into_response())
        }
        Ok(None) => {
            let why = "sign in first, or send 'Authorization: Bearer <token>'";
            refused(Refusal::new(StatusCode::UNAUTHORIZED, why))
        }
    }
}

/// Where to sign in to get to `uri`.
fn login_for(uri: &Uri) -> String {
    let wanted = uri.path_and_query().map_or("/", |wanted| wanted.as_str());
    let escaped: String = wanted
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("/login?next={escaped}")
}

/// Whether a browser says that a page of this very site asks. What is no browser says nothing.
fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let site = text(header::HeaderName::from_static("sec-fetch-site"));
    let is_own_site = site.is_none_or(|site| matches!(site, "same-origin" | "none"));
    let host = text(header::HOST);
    let origin = text(header::ORIGIN);
    is_own_site && origin.is_none_or(|origin| origin.split_once("://").map(|(_, host)| host) == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_gateways_own_names_are_good() {
        let at = |address: &str| Hosts::new(vec!["hermes.example.org".into()], address.parse().expect("an address"));
        let hosts = at("192.0.2.7:8787");
        for good in [
            "localhost",
            "localhost:8787",
            "LocalHost:1",
            "127.0.0.1:8787",
            "[::1]:8787",
            "[::1]",
            "192.0.2.7",
            "hermes.example.org",
            "hermes.example.org:443",
            "Hermes.Example.Org.",
        ] {
            assert!(hosts.has(good), "{good}");
        }
        for bad in [
            "",
            "evil.example.org",
            "localhost.evil.example.org",
            "192.0.2.8",
            "xhermes.example.org",
            ":8787",
            "hermes.example.org:x",
        ] {
            assert!(!hosts.has(bad), "{bad}");
        }
    }

    #[test]
    fn what_another_site_sends_is_seen() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
            pairs.collect::<HeaderMap>()
        };
        let host = ("host", "localhost:8787");
        for (good, more) in [
            (true, vec![]),
            (true, vec![("origin", "http://localhost:8787"), ("sec-fetch-site", "same-origin")]),
            (true, vec![("sec-fetch-site", "none")]),
            (false, vec![("origin", "http://evil.example.org")]),
            (false, vec![("origin", "null")]),
            (false, vec![("origin", "http://localhost:1")]),
            (false, vec![("sec-fetch-site", "cross-site")]),
            (false, vec![("sec-fetch-site", "same-site"), ("origin", "http://localhost:8787")]),
        ] {
            let all: Vec<_> = more.into_iter().chain([host]).collect();
            assert_eq!(is_from_here(&headers(&all)), good, "{all:?}");
        }
    }

    #[test]
    fn the_session_is_found_among_cookies() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; hermes_session=owner.1.ab; c"));
        assert_eq!(session(&headers), Some("owner.1.ab"));
        headers.clear();
        headers.append(header::COOKIE, HeaderValue::from_static("xhermes_session=no"));
        assert_eq!(session(&headers), None);
    }

    #[test]
    fn the_way_back_from_the_login_is_one_word() {
        assert_eq!(login_for(&Uri::from_static("/chat?chat=a&b")), "/login?next=/chat%3Fchat%3Da%26b");
    }
}
