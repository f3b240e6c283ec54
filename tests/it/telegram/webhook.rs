//! Updates that are posted: each is stored before it is answered, over handoffs and kills, and nobody without the secret is
//! heard.

use std::time::Duration;

use hermes_gateway::config::{Secret, WebhookConfig};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Log;
use super::bed::{Bed, DEADLINE, DRAIN};
use crate::support::address::own_address;
use crate::support::telegram::TelegramServer;
use crate::support::telegram::faults::Fault;
use crate::support::telegram::state::State;

const SECRET_HEADER: &str = "x-telegram-bot-api-secret-token";

fn hook(secret: Option<&str>) -> WebhookConfig {
    let listen = own_address();
    let url = Secret::new(format!("http://{listen}/a-path-that-nobody-knows"));
    let (secret, look_every) = (secret.map(Secret::new), WebhookConfig::LOOK_EVERY);
    WebhookConfig { url, secret, listen, look_every }
}

async fn hooked(secret: Option<&str>) -> Bed {
    let mut bed = Bed::start_hooked(TelegramServer::start().await, hook(secret));
    bed.connected().await;
    bed
}

/// The secrets that Telegram was told, call by call.
fn secrets(bed: &Bed) -> Vec<String> {
    bed.server.look(|state| {
        let calls = state.calls.iter().filter(|call| call.method == "setWebhook");
        calls.map(|call| call.params["secret_token"].as_str().expect("a text").to_owned()).collect()
    })
}

async fn until_confirmed(bed: &Bed) {
    bed.until("no update waits", |state| state.updates.is_empty().then_some(())).await;
}

/// Posts as Telegram does.
async fn post(bed: &Bed, secret: &str, body: impl Into<reqwest::Body>) -> StatusCode {
    hermes_gateway::tls::choose_provider();
    let url = bed.webhook.as_ref().expect("a webhook").url.expose().to_owned();
    let request = Client::new().post(url).header(SECRET_HEADER, secret).body(body);
    timeout(DEADLINE, request.send()).await.expect("in time").expect("an answer").status()
}

fn update(id: i64, text: &str) -> String {
    let message = json!({ "message_id": id, "date": 1, "chat": { "id": 7 }, "from": { "id": 7 }, "text": text });
    json!({ "update_id": id, "message": message }).to_string()
}

#[tokio::test]
async fn posted_messages_come_in_once_in_order_and_nothing_is_polled_for() {
    let mut bed = hooked(Some("a-good_secret")).await;
    for n in 0..20 {
        bed.server.say(7, 7, &format!("{n}"));
    }
    for n in 0..20 {
        assert_eq!(bed.inbound().await.text, format!("{n}"));
    }
    until_confirmed(&bed).await;
    assert_eq!(secrets(&bed), ["a-good_secret"]);
    bed.server.look(|state| {
        assert_eq!(state.wanted, Some(vec!["message".to_owned(), "callback_query".to_owned()]));
        assert!(state.webhook.statuses.iter().all(|status| *status == 200), "{:?}", state.webhook.statuses);
        assert_eq!(state.calls_of("getUpdates"), 0);
    });
    bed.notice(7, "an answer").await;
    bed.until_shown(7, &["an answer"]).await;
}

#[tokio::test]
async fn the_webhook_goes_on_over_handoffs_and_kills() {
    let mut bed = hooked(None).await;
    let mut said = 0;
    for round in 0..4 {
        bed.server.say(7, 7, &format!("before {round}"));
        assert_eq!(bed.inbound().await.text, format!("before {round}"));
        // It waits in the listener's queue, or is posted again.
        if round % 2 == 0 {
            bed.hand_off(DRAIN).await;
        } else {
            bed.kill().await;
        }
        bed.server.say(7, 7, &format!("after {round}"));
        assert_eq!(bed.inbound().await.text, format!("after {round}"));
        said += 2;
    }
    until_confirmed(&bed).await;
    assert_eq!(bed.store.open_turns().await.expect("lists").len(), said);
    let secrets = secrets(&bed);
    assert!(secrets[0].len() == 64 && secrets.iter().all(|secret| *secret == secrets[0]), "the same after a kill");
    // Told at the start and by each process; a handoff changes nothing about it.
    assert_eq!(secrets.len(), 3);
}

#[tokio::test]
async fn who_connects_while_nobody_serves_is_not_refused() {
    let mut bed = hooked(None).await;
    bed.freeze(DRAIN).await;
    let address = bed.webhook.as_ref().expect("there is one").listen;
    bed.server.say(7, 7, "meanwhile");
    let early = timeout(DEADLINE, TcpStream::connect(address)).await.expect("in time");
    early.expect("the listener is there");
    bed.server.until("nothing was answered", |state| state.webhook.statuses.is_empty().then_some(())).await;
    bed.command(hermes_gateway::platform::PlatformCommand::Thaw).await;
    assert_eq!(bed.inbound().await.text, "meanwhile");
}

#[tokio::test]
async fn a_webhook_that_is_no_longer_configured_is_taken_away_and_what_waits_is_polled_for() {
    let mut bed = hooked(None).await;
    bed.server.say(7, 7, "posted");
    assert_eq!(bed.inbound().await.text, "posted");
    bed.webhook = None;
    bed.hand_off(DRAIN).await;
    bed.server.say(7, 7, "polled");
    assert_eq!(bed.inbound().await.text, "polled");
    bed.until_idle().await;
    bed.hand_off(DRAIN).await;
    bed.until_idle().await;
    assert_eq!(bed.server.look(|state| state.calls_of("deleteWebhook")), 1);
    assert_eq!(bed.store.open_turns().await.expect("lists").len(), 2);
}

#[tokio::test]
async fn somebody_elses_webhook_is_not_taken_away_for_having_had_one() {
    let mut bed = hooked(None).await;
    bed.server.change(|state| state.webhook.url = "https://example.org/hook".into());
    bed.webhook = None;
    bed.hand_off(DRAIN).await;
    assert_eq!(bed.trouble().await.0, "409");
    assert_eq!(bed.server.look(|state| state.calls_of("deleteWebhook")), 0);
}

#[tokio::test]
async fn an_update_that_cannot_be_stored_is_posted_again() {
    let mut bed = hooked(None).await;
    let database = rusqlite::Connection::open(bed.database()).expect("opens");
    database.busy_timeout(DEADLINE).expect("sets");
    database.execute_batch("ALTER TABLE inbox RENAME TO away").expect("renames");
    bed.server.say(7, 7, "keep me");
    assert_eq!(bed.trouble().await.0, "store");
    let refused = |state: &State| (state.webhook.statuses.iter().filter(|s| **s == 503).count() > 1).then_some(());
    bed.until("it is refused", refused).await;
    assert_eq!(bed.server.look(|state| state.updates.len()), 1, "an update was confirmed that was not stored");
    database.execute_batch("ALTER TABLE away RENAME TO inbox").expect("renames");
    assert_eq!(bed.inbound().await.text, "keep me");
    until_confirmed(&bed).await;
    assert_eq!(bed.store.open_turns().await.expect("lists").len(), 1);
}

#[tokio::test]
async fn a_webhook_that_telegram_does_not_take_is_told_and_set_later() {
    let faults = [
        ("500", Fault::refuse(500, "Internal Server Error")),
        ("429", Fault::flood(1)),
        ("400", Fault::refuse(400, "Bad Request: bad webhook: http://127.0.0.1/a-path-that-nobody-knows")),
        ("malformed", Fault::Malformed),
        ("network", Fault::Reset),
    ];
    // Each by itself: what fails again and again is tried less and less often.
    let tries = faults.map(|(wanted, fault)| async move {
        let server = TelegramServer::start().await;
        server.fault("setWebhook", 1, fault);
        let mut bed = Bed::start_hooked(server, hook(None));
        assert_eq!(bed.trouble().await.0, wanted);
        bed.connected().await;
        bed.server.say(7, 7, "at last");
        assert_eq!(bed.inbound().await.text, "at last", "after {wanted}");
    });
    futures_util::future::join_all(tries).await;
}

#[tokio::test]
async fn a_place_that_is_taken_is_told_and_telegram_hears_nothing() {
    let webhook = hook(None);
    let taken = std::net::TcpListener::bind(webhook.listen).expect("free");
    let mut bed = Bed::start_hooked(TelegramServer::start().await, webhook);
    assert_eq!(bed.trouble().await.0, "listen");
    assert_eq!(bed.server.look(|state| state.calls_of("setWebhook")), 0);
    drop(taken);
    bed.connected().await;
}

#[tokio::test]
async fn whatever_is_posted_only_updates_with_the_secret_come_in() {
    let log = Log::default();
    let guard = log.capture();
    let mut bed = hooked(Some("the-secret-of-the-webhook")).await;
    let good = "the-secret-of-the-webhook";
    let huge = vec![b' '; (1 << 20) + 1];
    let deep = format!(r#"{{"update_id":50,"message":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    let table: Vec<(&str, &str, Vec<u8>, u16)> = vec![
        ("no secret", "", update(1, "a private word").into(), 401),
        ("a wrong secret", "the-secret-of-the-webhooks", update(1, "a private word").into(), 401),
        ("a huge body", good, huge, 413),
        ("no JSON", good, b"a private word".to_vec(), 400),
        ("half an update", good, update(1, "a private word")[..40].into(), 400),
        ("nesting", good, deep.into(), 200),
        ("no object", good, b"[17]".to_vec(), 200),
        ("no id", good, br#"{"message":{}}"#.to_vec(), 200),
        ("a wrong id", good, br#"{"update_id":"x"}"#.to_vec(), 200),
        ("a wrong message", good, br#"{"update_id":2,"message":{"message_id":"a private word"}}"#.to_vec(), 200),
        ("another kind", good, br#"{"update_id":3,"poll":{"x":[]}}"#.to_vec(), 200),
        ("a message", good, update(4, "hello").into(), 200),
        ("the same again", good, update(4, "hello").into(), 200),
        (
            "the same in another update",
            good,
            update(4, "hello").replace("\"update_id\":4", "\"update_id\":9").into(),
            200,
        ),
    ];
    for (what, secret, body, wanted) in table {
        assert_eq!(post(&bed, secret, body).await.as_u16(), wanted, "{what}");
    }
    let url = bed.webhook.as_ref().expect("a webhook").url.expose().to_owned();
    let got = Client::new().get(&url).header(SECRET_HEADER, good).send().await.expect("an answer");
    assert_eq!(got.status(), 405);
    assert_eq!(bed.inbound().await.text, "hello");
    assert_eq!(bed.store.open_turns().await.expect("lists").len(), 1);
    drop(guard);
    let lines = log.text();
    assert!(lines.contains("without its secret") && lines.contains("malformed"), "{lines}");
    for private in [good, "a-path-that-nobody-knows", "a private word", "the-token"] {
        assert_eq!(lines.lines().find(|line| line.contains(private)), None);
    }
}

#[tokio::test]
async fn who_dawdles_is_cut_off_and_holds_nobody_up() {
    let mut bed = hooked(Some("good")).await;
    let address = bed.webhook.as_ref().expect("there is one").listen;
    let mut slow = Vec::new();
    for begun in [
        "",
        "POST / HTTP/1.1\r\nx-a: ",
        "POST / HTTP/1.1\r\nx-telegram-bot-api-secret-token: good\r\ncontent-length: 9\r\n\r\n{",
    ] {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(begun.as_bytes()).await.expect("writes");
        slow.push(stream);
    }
    bed.server.say(7, 7, "past them");
    assert_eq!(bed.inbound().await.text, "past them");
    for mut stream in slow {
        let mut rest = Vec::new();
        let end = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("it is cut off");
        assert!(end.is_err() || !rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    }
    bed.server.say(7, 7, "after them");
    assert_eq!(bed.inbound().await.text, "after them");
}

/// A webhook that Telegram is asked about all the time.
async fn looked_after() -> Bed {
    let webhook = WebhookConfig { look_every: Duration::from_millis(20), ..hook(None) };
    let mut bed = Bed::start_hooked(TelegramServer::start().await, webhook);
    bed.connected().await;
    bed
}

#[tokio::test]
async fn a_webhook_that_somebody_else_has_changed_is_set_again() {
    let mut bed = looked_after().await;
    bed.server.change(|state| state.webhook.url = "https://example.org/hook".into());
    bed.until("it is set again", |state| (state.calls_of("setWebhook") == 2).then_some(())).await;
    bed.server.say(7, 7, "posted");
    assert_eq!(bed.inbound().await.text, "posted");
}

#[tokio::test]
async fn what_telegram_cannot_post_is_told_while_it_waits() {
    let mut bed = looked_after().await;
    let seconds = hermes_gateway::clock::UnixMillis::now().0.unsigned_abs() / 1000 + 1;
    bed.server.change(|state| {
        // While nothing waits it is no trouble.
        state.webhook.last_error = Some((seconds, "SSL error".into()));
        state.webhook.connections_max = 0;
    });
    let looks = |state: &State| state.calls_of("getWebhookInfo");
    let before = bed.server.look(looks);
    bed.until("it was looked at", |state| (looks(state) > before + 1).then_some(())).await;
    bed.server.say(7, 7, "waits");
    let (code, message) = bed.trouble().await;
    assert_eq!(code, "webhook");
    assert!(message.contains("SSL error; see to the address"), "{message}");
    bed.server.change(|state| state.webhook.connections_max = 40);
    bed.connected().await;
    assert_eq!(bed.store.open_turns().await.expect("lists").len(), 1, "it came in");
}

#[tokio::test]
async fn a_press_comes_by_the_webhook_too() {
    let mut bed = hooked(None).await;
    let query: Value = json!({
        "id": "99", "from": { "id": 7, "first_name": "Ann" }, "data": "/stop",
        "message": { "message_id": 3, "date": 1, "chat": { "id": 7 } },
    });
    bed.server.inject(json!({ "callback_query": query }));
    let inbound = bed.inbound().await;
    assert_eq!((inbound.text.as_str(), inbound.message_id.as_str()), ("/stop", "cb:99"));
    bed.until("an answer", |state| (state.calls_of("answerCallbackQuery") == 1).then_some(())).await;
    assert!(timeout(Duration::ZERO, bed.inbound()).await.is_err(), "it comes once");
}
