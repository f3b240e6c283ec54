//! Who is let in, and what is refused at the door.

use std::path::Path;
use std::time::Duration;

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{GUEST_TOKEN, SOON, Site, TOKEN, config, uuid, with_form};
use crate::support::address::own_address;
use crate::support::gateway::Gateway;

const BINARY: &str = env!("CARGO_BIN_EXE_hermes");

async fn start() -> (Gateway, Site) {
    let address = own_address();
    let gateway = Gateway::start(Path::new(BINARY), &config(address, "hosts = [\"hermes.example.org\"]")).await;
    (gateway, Site::new(address, TOKEN))
}

fn cookie(set: &str) -> String {
    set.split(';').next().expect("a pair").to_owned()
}

/// The token of forms in a page.
fn csrf(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"csrf\" value=\"").expect("the page has forms");
    rest.split('"').next().expect("a value").to_owned()
}

#[tokio::test]
async fn without_a_token_nothing_is_shown_but_the_way_in_and_health() {
    let (_gateway, site) = start().await;
    for (path, status) in [
        ("/", StatusCode::SEE_OTHER),
        ("/chat", StatusCode::SEE_OTHER),
        ("/nowhere", StatusCode::SEE_OTHER),
        ("/events?chat=main", StatusCode::UNAUTHORIZED),
        ("/api/status", StatusCode::UNAUTHORIZED),
        ("/api/messages", StatusCode::UNAUTHORIZED),
        ("/files/1", StatusCode::UNAUTHORIZED),
        ("/metrics", StatusCode::UNAUTHORIZED),
        ("/health/detailed", StatusCode::UNAUTHORIZED),
        ("/healthz", StatusCode::OK),
        ("/readyz", StatusCode::OK),
        ("/login", StatusCode::OK),
        ("/assets/app.css", StatusCode::OK),
        ("/assets/../gateway.toml", StatusCode::SEE_OTHER),
    ] {
        let answer = site.bare(Method::GET, path).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{path}");
        if status == StatusCode::SEE_OTHER {
            let to = answer.headers()[header::LOCATION].to_str().expect("text");
            assert!(to.starts_with("/login?next=/"), "{path} leads to {to}");
        }
        let of = |name: &str| {
            answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let policy = of("content-security-policy");
        assert!(policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!((of("x-content-type-options"), of("referrer-policy")), ("nosniff".into(), "same-origin".into()));
        assert!(path.starts_with("/assets") || of("cache-control").contains("no-store"), "{path}");
    }
    for path in ["/api/messages", "/api/update", "/api/restart", "/logout"] {
        let answer = site.bare(Method::POST, path).json(&json!({ "id": uuid(), "text": "x" })).send().await;
        assert_eq!(answer.expect("an answer").status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    let wrong = site.bare(Method::GET, "/metrics").bearer_auth("wrong").send().await.expect("an answer");
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_session_lasts_over_a_restart_and_a_kill_and_needs_its_token_in_forms() {
    let (mut gateway, site) = start().await;
    let (status, set, to) = site.login(TOKEN, "/chat?chat=x").await;
    assert_eq!((status, to.as_str()), (StatusCode::SEE_OTHER, "/chat?chat=x"));
    let set = set.expect("a cookie");
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains(TOKEN) && !set.contains("; Secure"));
    assert_eq!(site.login(TOKEN, "//evil.example.org").await.2, "/", "no other site");
    let cookie = cookie(&set);
    let page = async || {
        let answer = site.bare(Method::GET, "/").header(header::COOKIE, &cookie).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        answer.text().await.expect("a page")
    };
    let token = csrf(&page().await);
    gateway.handoff(hermes_gateway::control::proto::HandoffKind::Restart).await.expect("it restarts");
    assert_eq!(csrf(&page().await), token);
    gateway.kill_and_start().await;
    assert_eq!(csrf(&page().await), token);
    let say = async |csrf: Option<&str>| {
        let request = site.bare(Method::POST, "/api/messages").header(header::COOKIE, &cookie);
        let request = request.json(&json!({ "id": uuid(), "text": "hello" }));
        let request = if let Some(csrf) = csrf { request.header("x-csrf-token", csrf) } else { request };
        request.send().await.expect("an answer").status()
    };
    assert_eq!(say(None).await, StatusCode::FORBIDDEN);
    assert_eq!(say(Some(&"0".repeat(token.len()))).await, StatusCode::FORBIDDEN);
    assert_eq!(say(Some(&token)).await, StatusCode::OK);
    // Without a script, from the page.
    let form = [("csrf", token.as_str()), ("text", "by a form")];
    let request = site.bare(Method::POST, "/api/messages").header(header::COOKIE, &cookie);
    let answer = with_form(request, &form).send().await.expect("an answer");
    assert_eq!(
        (answer.status(), answer.headers()[header::LOCATION].as_bytes()),
        (StatusCode::SEE_OTHER, &b"/chat?chat=main"[..])
    );
    let out = [("csrf", token.as_str())];
    let request = site.bare(Method::POST, "/logout").header(header::COOKIE, &cookie);
    let answer = with_form(request, &out).send().await.expect("an answer");
    assert!(answer.headers()[header::SET_COOKIE].to_str().expect("text").contains("Max-Age=0"));
    let log = gateway.log();
    for secret in [TOKEN, GUEST_TOKEN, token.as_str(), cookie.split_once('=').expect("a pair").1] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[tokio::test]
async fn a_page_of_another_site_gets_nothing() {
    let (_gateway, site) = start().await;
    let own = format!("http://{}", site.address);
    for (name, value, status) in [
        ("origin", "http://evil.example.org", StatusCode::FORBIDDEN),
        ("origin", "null", StatusCode::FORBIDDEN),
        ("sec-fetch-site", "cross-site", StatusCode::FORBIDDEN),
        ("sec-fetch-site", "same-site", StatusCode::FORBIDDEN),
        ("sec-fetch-site", "same-origin", StatusCode::SEE_OTHER),
        ("origin", own.as_str(), StatusCode::SEE_OTHER),
    ] {
        let request = site.bare(Method::POST, "/login").header(name, value);
        let answer = with_form(request, &[("token", TOKEN)]).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{name}: {value}");
        assert_eq!(answer.headers().contains_key(header::SET_COOKIE), status == StatusCode::SEE_OTHER);
    }
    for (host, status) in [
        ("evil.example.org", StatusCode::MISDIRECTED_REQUEST),
        ("evil.example.org:8787", StatusCode::MISDIRECTED_REQUEST),
        ("hermes.example.org", StatusCode::OK),
        ("localhost:8787", StatusCode::OK),
    ] {
        let answer = site.request(Method::GET, "/api/status").header(header::HOST, host).send().await;
        assert_eq!(answer.expect("an answer").status(), status, "{host}");
    }
    let tls = site.bare(Method::POST, "/login").header(header::HOST, "hermes.example.org");
    let tls = tls.header("origin", "https://hermes.example.org");
    let answer = with_form(tls, &[("token", TOKEN)]).send().await.expect("an answer");
    assert!(answer.headers()[header::SET_COOKIE].to_str().expect("text").ends_with("; Secure"));
}

#[tokio::test]
async fn a_guest_talks_and_is_no_admin() {
    let (gateway, site) = start().await;
    let guest = Site::new(site.address, GUEST_TOKEN);
    for path in ["/api/update", "/api/restart"] {
        let answer = guest.post(path, &json!({ "id": uuid() })).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
    }
    let mut page = guest.stream("chat=main");
    let number = guest.say("main", "hello").await;
    assert_eq!(page.answer_to(number).await, "hello");
    // The same gate as everywhere, whatever the page does.
    let number = guest.say("main", "/restart").await;
    page.until("a refusal", |messages| {
        messages.range(number + 1..).any(|(_, said)| said["from"] == "gateway").then_some(())
    })
    .await;
    assert_eq!(gateway.status().await.generation, 0);
    let listed: Value = site.get("/api/messages").await.json().await.expect("JSON");
    assert_eq!(listed["messages"], json!([]), "the owner's chat is another");
    let page = guest.get("/").await.text().await.expect("a page");
    assert!(!page.contains("/api/restart"), "no buttons");
    // What is the owner's is not shown.
    let number = site.say("plans", "ask may I see the plans").await;
    let mut owner = site.stream("chat=plans");
    owner.until("a question", |messages| (messages.range(number + 1..).next().is_some()).then_some(())).await;
    gateway.wait_until("the question is in the status", async |status| !status.agents[0].permissions.is_empty()).await;
    let home = gateway.home().to_str().expect("text").to_owned();
    for (who, sees) in [(&site, true), (&guest, false)] {
        let start = std::time::Instant::now();
        loop {
            let told = who.get("/api/status").await.text().await.expect("JSON");
            let asked = told.contains("asked_at");
            assert!(
                sees || ![home.as_str(), "web:owner", "see the plans"].iter().any(|secret| told.contains(secret)),
                "{told}"
            );
            if asked
                && (!sees || told.contains("see the plans") && told.contains("web:owner.plans") && told.contains(&home))
            {
                break;
            }
            assert!(start.elapsed() < SOON, "{told}");
        }
    }
    let mut events = guest.stream("status=1");
    let told = events.next().await;
    assert!(told.event == "status" && !told.data.to_string().contains("web:owner"), "{told:?}");
}

#[tokio::test]
async fn what_does_not_work_is_said_as_whoever_asks_reads_it() {
    let (_gateway, site) = start().await;
    let (_, set, _) = site.login(TOKEN, "/").await;
    let cookie = cookie(&set.expect("a cookie"));
    let get = |path: &str| site.request(Method::GET, path);
    let form = |fields: &[(&str, &str)]| {
        with_form(site.bare(Method::POST, "/api/messages").header(header::COOKIE, &cookie), fields)
    };
    for (request, status, is_page) in [
        (get("/api/messages?before=x"), StatusCode::BAD_REQUEST, false),
        (get("/api/messages?chat=a%2Fb"), StatusCode::BAD_REQUEST, false),
        (get("/api/nothing"), StatusCode::NOT_FOUND, false),
        (get("/api/restart"), StatusCode::METHOD_NOT_ALLOWED, false),
        (get("/files/x"), StatusCode::NOT_FOUND, false),
        (get("/events"), StatusCode::BAD_REQUEST, false),
        (get("/nothing"), StatusCode::NOT_FOUND, true),
        (get("/chat?chat=a%2Fb"), StatusCode::BAD_REQUEST, true),
        (form(&[("text", "without a token of the session")]), StatusCode::FORBIDDEN, true),
        (form(&[("force", "x")]), StatusCode::UNPROCESSABLE_ENTITY, true),
    ] {
        let answer = request.send().await.expect("an answer");
        let url = answer.url().path().to_owned();
        assert_eq!(answer.status(), status, "{url}");
        assert_eq!(answer.headers().contains_key(header::ALLOW), status == StatusCode::METHOD_NOT_ALLOWED);
        let body = answer.text().await.expect("text");
        if is_page {
            assert!(body.starts_with("<!DOCTYPE html>") && body.contains("That did not work"), "{url}: {body}");
        } else {
            let told: Value = serde_json::from_str(&body).expect("JSON");
            assert!(told["error"].is_string(), "{url}: {body}");
        }
    }
}

#[tokio::test]
async fn who_tries_tokens_is_refused_for_a_while() {
    let (gateway, site) = start().await;
    let mut seen = Vec::new();
    for _ in 0..12 {
        seen.push(site.login("a wrong token", "/").await.0);
    }
    assert_eq!(seen[0], StatusCode::UNAUTHORIZED);
    assert_eq!(seen[11], StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(site.login(TOKEN, "/").await.0, StatusCode::TOO_MANY_REQUESTS);
    assert!(gateway.log().contains("a login to the web page failed") && !gateway.log().contains("a wrong token"));
}

#[tokio::test]
async fn what_is_too_much_is_refused_and_costs_nobody_else_anything() {
    let (_gateway, site) = start().await;
    for (body, status) in [
        (json!({ "id": uuid(), "text": "x".repeat(17 << 10) }), StatusCode::PAYLOAD_TOO_LARGE),
        (json!({ "id": uuid(), "text": "  \n" }), StatusCode::BAD_REQUEST),
        (json!({ "id": "no uuid", "text": "x" }), StatusCode::BAD_REQUEST),
        (json!({ "text": "x" }), StatusCode::BAD_REQUEST),
        (json!({ "id": uuid(), "chat": "a/b", "text": "x" }), StatusCode::BAD_REQUEST),
        (json!([]), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(site.post("/api/messages", &body).await.status(), status);
    }
    // The gateway does not read all of this one, so the connection may break before the answer is read.
    let much = json!({ "id": uuid(), "text": "x".repeat(1 << 20) });
    if let Ok(answer) = site.request(Method::POST, "/api/messages").json(&much).send().await {
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    // It may also break after that, when the client would use it again.
    let site = Site::new(site.address, TOKEN);
    let version = json!({ "id": uuid(), "version": "1.0 force" });
    assert_eq!(site.post("/api/update", &version).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(site.status_of("/events").await, StatusCode::BAD_REQUEST);
    let mut head = TcpStream::connect(site.address).await.expect("connects");
    // The gateway need not read all of it.
    let _broken = head.write_all(format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(200 << 10)).as_bytes()).await;
    let mut answer = [0; 12];
    timeout(SOON, head.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 431");
    // More pages than there is room for: each of the others is told to come again, and everything else goes on.
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..70 {
        let answer = site.get("/events?status=1").await;
        match answer.status() {
            StatusCode::OK => open.push(answer),
            status => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                refused += 1;
            }
        }
    }
    assert_eq!((open.len(), refused), (64, 6));
    assert_eq!(site.status_of("/healthz").await, StatusCode::OK);
    drop(open);
    let start = std::time::Instant::now();
    while site.status_of("/events?status=1").await != StatusCode::OK {
        assert!(start.elapsed() < SOON, "there is room again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
