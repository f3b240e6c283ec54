//! What is said in the chats of the page.

use std::path::Path;
use std::time::Instant;

use hermes_gateway::control::proto::HandoffKind;
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::client::{GUEST_TOKEN, SOON, Site, Stream, TOKEN, config, uuid};
use crate::support::address::own_address;
use crate::support::gateway::{Gateway, expected_stream, stream_prompt};
use crate::support::release::{Fault, Publisher, ReleaseServer};

const BINARY: &str = env!("CARGO_BIN_EXE_hermes");

async fn start() -> (Gateway, Site) {
    let address = own_address();
    let gateway = Gateway::start(Path::new(BINARY), &config(address, "")).await;
    (gateway, Site::new(address, TOKEN))
}

#[tokio::test]
async fn an_answer_grows_and_is_there_again_after_a_reload() {
    let (_gateway, site) = start().await;
    let mut page = site.stream("chat=main");
    let number = site.say("main", &stream_prompt(50, 40, 10)).await;
    page.growing(number, 40).await;
    let expected = expected_stream(50, 40);
    assert_eq!(page.answer_to(number).await, expected);
    assert_eq!(page.breaks, 0);
    let mut reloaded = site.stream("chat=main");
    assert_eq!(reloaded.answer_to(number).await, expected);
    assert_eq!(reloaded.messages[&number]["from"], "user");
    assert_eq!(reloaded.messages, page.messages);
    let listed: Value = site.get("/api/messages?chat=main").await.json().await.expect("JSON");
    assert_eq!(listed["more"], false);
    assert_eq!(
        listed["messages"].as_array().expect("a list").iter().collect::<Vec<_>>(),
        page.messages.values().collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_message_that_is_sent_again_is_the_same_message() {
    let (gateway, site) = start().await;
    let mut page = site.stream("chat=main");
    let id = uuid();
    let number = site.say_as(&id, "main", "once").await;
    assert_eq!(site.say_as(&id.to_uppercase(), "main", "once").await, number);
    assert_eq!(page.answer_to(number).await, "once");
    gateway.handoff(HandoffKind::Restart).await.expect("it restarts");
    assert_eq!(site.say_as(&id, "main", "once").await, number, "also by the next image");
    // A guest's message of the same name is another.
    let guest = Site::new(site.address, GUEST_TOKEN);
    let other = guest.say_as(&id, "main", "mine").await;
    assert_eq!(guest.stream("chat=main").answer_to(other).await, "mine");
    let last = site.say("main", "last").await;
    assert_eq!(page.answer_to(last).await, "last");
    let texts: Vec<_> = page.messages.values().map(|message| message["text"].as_str().expect("a text")).collect();
    assert_eq!(texts, ["once", "once", "last", "last"]);
}

#[tokio::test]
async fn a_stream_goes_on_over_restarts_and_breaks_of_the_network() {
    let (gateway, site) = start().await;
    let mut page = site.stream("chat=main&status=1");
    let (chunks, bytes) = (300, 40);
    let number = site.say("main", &stream_prompt(chunks, bytes, 10)).await;
    for seen in [400, 3_000, 6_000, 9_000] {
        page.growing(number, seen).await;
        if seen % 2_000 == 0 {
            gateway.handoff(HandoffKind::Restart).await.expect("it restarts");
        } else {
            page.cut();
        }
    }
    assert_eq!(page.answer_to(number).await, expected_stream(chunks, bytes));
    assert_eq!(page.said_by("agent"), 1, "nothing is there twice");
}

#[tokio::test]
async fn the_status_and_the_steps_of_a_handoff_are_told() {
    let (gateway, site) = start().await;
    let mut page = site.stream("status=1");
    let first = loop {
        let event = page.next().await;
        if event.event == "status" {
            break event;
        }
    };
    assert_eq!((&first.data["generation"], &first.data["pid"]), (&json!(0), &json!(gateway.pid())));
    let answer = site.post("/api/restart", &json!({ "id": uuid() })).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let (mut phases, mut generation) = (Vec::new(), 0);
    while generation == 0 || phases.last().is_none_or(|phase| phase != "done") {
        let event = page.next().await;
        match event.event.as_str() {
            "progress" => phases.push(event.data["phase"].as_str().expect("a phase").to_owned()),
            "status" => generation = event.data["generation"].as_i64().expect("a number"),
            other => panic!("{other}"),
        }
    }
    assert!(phases.contains(&"preflight".to_owned()), "{phases:?}");
    let mut once = phases.clone();
    once.dedup();
    assert_eq!(once, phases, "no step is told twice");
    let status: Value = site.get("/api/status").await.json().await.expect("JSON");
    assert_eq!(status["generation"], 1);
}

#[tokio::test]
async fn what_an_agent_asks_is_answered_by_a_button() {
    let (_gateway, site) = start().await;
    let mut page = site.stream("chat=main");
    let number = site.say("main", "ask may I").await;
    let choices = page
        .until("buttons", |messages| {
            let mut behind = messages.range(number + 1..).map(|(_, message)| message);
            behind.find_map(|message| message["choices"].as_array().filter(|choices| !choices.is_empty()).cloned())
        })
        .await;
    let press = choices[0]["command"].as_str().expect("a command");
    assert!(press.starts_with("/approve"), "{press}");
    site.say("main", press).await;
    page.answer_to(number).await;
}

#[tokio::test]
async fn a_file_of_an_answer_is_a_download_of_its_reader_alone() {
    let (_gateway, site) = start().await;
    let mut page = site.stream("chat=main");
    let number = site.say("main", "file 70000 plan.html").await;
    let file = page
        .until("a file", |messages| {
            messages
                .range(number..)
                .find_map(|(_, message)| message.get("file").filter(|file| !file.is_null()).cloned())
        })
        .await;
    assert_eq!((&file["name"], &file["bytes"]), (&json!("plan.html"), &json!(70_000)));
    let url = file["url"].as_str().expect("a path");
    let answer = site.get(url).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let of = |name| answer.headers().get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    assert_eq!(of(header::CONTENT_TYPE), Some("application/octet-stream"));
    assert_eq!(of(header::CONTENT_DISPOSITION), Some("attachment; filename*=UTF-8''plan.html"));
    assert_eq!(of(header::X_CONTENT_TYPE_OPTIONS), Some("nosniff"));
    let bytes = answer.bytes().await.expect("the file");
    assert_eq!(bytes, hermes_gateway::agent::builtin::echo::made_up(70_000));
    let guest = Site::new(site.address, GUEST_TOKEN);
    assert_eq!(guest.status_of(url).await, StatusCode::NOT_FOUND, "it is somebody else's");
    assert_eq!(site.status_of("/files/1").await, StatusCode::NOT_FOUND, "a message without a file");
    let answer = site.bare(Method::GET, url).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_paused_chat_says_so_and_the_pages_stay() {
    let (mut gateway, site) = start().await;
    let output = gateway.cli(&["gateway", "platform", "pause", "web"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for since in ["the pause", "a restart", "a kill"] {
        match since {
            "a restart" => drop(gateway.handoff(HandoffKind::Restart).await.expect("it restarts")),
            "a kill" => gateway.kill_and_start().await,
            _ => {}
        }
        let answer = site.post("/api/messages", &json!({ "id": uuid(), "text": "hello" })).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers().contains_key(header::RETRY_AFTER));
        let told: Value = answer.json().await.expect("JSON");
        assert_eq!(told["error"], "an admin has paused this chat", "since {since}");
    }
    for path in ["/", "/healthz", "/metrics", "/health/detailed"] {
        assert_eq!(site.status_of(path).await, StatusCode::OK, "{path}");
    }
    gateway.cli(&["gateway", "platform", "resume", "web"]).await;
    let number = site.say("main", "hello").await;
    assert_eq!(site.stream("chat=main").answer_to(number).await, "hello");
}

/// The steps of handoffs that a page is told, up to one of this phase; the message of that.
async fn step_of(page: &mut Stream, phase: &str) -> String {
    let mut seen = Vec::new();
    loop {
        let event = page.next().await;
        if event.event != "progress" {
            continue;
        }
        if event.data["phase"] == phase {
            return event.data["message"].as_str().expect("a sentence").to_owned();
        }
        seen.push(event.data);
        assert!(seen.len() < 20, "no {phase}: {seen:?}");
    }
}

#[tokio::test]
async fn who_asks_for_an_update_is_told_that_there_is_none_or_that_another_is_under_way() {
    let publisher = Publisher::new();
    publisher.release("1.0.0", &std::fs::read(BINARY).expect("the binary is built"));
    let manifest = publisher.path("manifest.json");
    let server = ReleaseServer::start(manifest.parent().expect("it is in a directory")).await;
    let (address, url, key) = (own_address(), server.url("manifest.json"), publisher.public_key());
    let more = format!("[update]\nmanifest_url = \"{url}\"\nverifying_keys = [\"{key}\"]");
    let _gateway = Gateway::start(Path::new(BINARY), &config(address, &more)).await;
    let site = Site::new(address, TOKEN);
    let mut page = site.stream("status=1");
    page.next().await;
    let ask = async |what: &str| {
        let answer = site.post(&format!("/api/{what}"), &json!({ "id": uuid() })).await;
        assert_eq!(answer.status(), StatusCode::OK, "{what}");
    };
    ask("update").await;
    assert_eq!(step_of(&mut page, "done").await, "1.0.0 is the newest release.");
    server.fail("manifest.json", Fault::Silence);
    ask("update").await;
    step_of(&mut page, "stage").await;
    ask("restart").await;
    let told = step_of(&mut page, "refused").await;
    assert!(told.contains("Not now") && told.contains("owner"), "{told}");
    // Guests are told how it goes, and not who asks. The status comes after the steps.
    let mut guest = Site::new(address, GUEST_TOKEN).stream("status=1");
    guest.last = Some("~0".to_owned());
    let mut phases = Vec::new();
    loop {
        let event = guest.next().await;
        assert!(!event.data.to_string().contains("owner"), "{event:?}");
        if event.event == "status" {
            break;
        }
        phases.push(event.data["phase"].as_str().expect("a phase").to_owned());
    }
    assert!(phases.contains(&"stage".to_owned()) && !phases.contains(&"refused".to_owned()), "{phases:?}");
}

#[tokio::test]
async fn a_gateway_that_stops_is_not_ready() {
    let (mut gateway, site) = start().await;
    let ready = async || {
        let answer = site.bare(Method::GET, "/readyz").send().await.expect("an answer");
        (answer.status(), answer.text().await.expect("text"))
    };
    assert_eq!(ready().await, (StatusCode::OK, "ready\n".to_owned()));
    let mut page = site.stream("chat=main");
    let number = site.say("main", &stream_prompt(1000, 40, 20)).await;
    page.growing(number, 40).await;
    // The stop waits for the database, to say what becomes of the turn.
    let database = rusqlite::Connection::open(gateway.home().join("state.db")).expect("opens");
    database.execute_batch("BEGIN IMMEDIATE").expect("locks");
    gateway.signal(Signal::SIGTERM);
    let start = Instant::now();
    loop {
        let (status, word) = ready().await;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(word, "not ready: stopping\n");
            break;
        }
        assert!(start.elapsed() < SOON, "{word}");
    }
    drop(database);
    assert!(gateway.wait().success(), "{}", gateway.log());
}
