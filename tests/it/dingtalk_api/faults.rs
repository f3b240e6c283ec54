//! Whatever goes wrong with a message: what becomes of it, and that no secret is told.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use hermes_gateway::chat::{LinkState, ReplyEnd, ReplyStep};
use hermes_gateway::platform::PlatformEvent;
use serde_json::{Value, json};

use super::bed::{ANN, Bed, GROUP};
use crate::support::dingtalk::DingTalkServer;
use crate::support::dingtalk::state::State;
use crate::support::faults::Fault;

const SENT_AGAIN: &str =
    "♻️ Sent again — nobody knows whether it arrived the first time, so this may be a duplicate:\n";

const SESSION: &str = "sendBySession";
const SINGLE: &str = "robot/oToMessages/batchSend";
const TOKEN: &str = "oauth2/accessToken";
const CARD: &str = "card/instances/createAndDeliver";
const STREAMING: &str = "card/streaming";

fn ok(body: Value) -> Fault {
    Fault::answer_with(200, body)
}

fn refusal(status: u16, code: &str) -> Fault {
    Fault::answer_with(status, json!({ "code": code, "message": "not now" }))
}

fn soon(status: u16) -> Fault {
    Fault::Answer { code: status, body: json!({ "code": "Throttling" }), retry_after: Some(1) }
}

/// What becomes of a message whose first attempt goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is shown, the same way.
    Shown,
    /// It is shown with a word that it may be a repeat: DingTalk has not said no.
    Marked,
    /// It is shown without being asked: the webhook is of no use.
    OtherWay,
    /// It is given up, and the next one is shown.
    GivenUp,
    /// It is kept and tried much later; the other way is not tried.
    Kept,
}

/// Sends two notices, the first of which meets `fault` in `method`.
async fn run(method: &str, fault: &Fault, is_asked: bool) -> Fate {
    let mut bed = Bed::start().await;
    if !is_asked {
        bed.server.change(|state| state.webhook_ms = 30_000);
    }
    let (_, chat) = bed.asked().await;
    bed.server.fault(method, 1, fault.clone());
    bed.notice(&chat, "first").await;
    bed.until("the fault", |state| state.faults.is_empty().then_some(())).await;
    bed.notice(&chat, "second").await;
    let usual = if is_asked { "session" } else { "single" };
    let is_limit = json!(fault).to_string().contains("130101") || json!(fault).to_string().contains("tired");
    if is_limit {
        assert_eq!((bed.kept().await, bed.server.texts(&chat)), (2, Vec::new()), "{fault:?}");
        return Fate::Kept;
    }
    bed.all_over().await;
    bed.no_complaints();
    let (texts, ways) = (bed.server.texts(&chat), bed.ways(&chat));
    let marked = format!("{SENT_AGAIN}first");
    assert_eq!(texts.last().map(String::as_str), Some("second"), "{fault:?}: {texts:?}");
    match &texts[..texts.len() - 1] {
        [] => Fate::GivenUp,
        [first] if first == "first" && ways[0] == usual => Fate::Shown,
        [first] if first == "first" => Fate::OtherWay,
        [first] if *first == marked => Fate::Marked,
        [first, again] if fault.is_after_the_fact() && first == "first" && *again == marked => Fate::Marked,
        _ => panic!("{fault:?}: {texts:?}"),
    }
}

async fn check(method: &'static str, is_asked: bool, table: Vec<(Fault, Fate)>) {
    let cases = table.into_iter().map(|(fault, wanted)| async move {
        let fate = run(method, &fault, is_asked).await;
        (fate != wanted).then(|| format!("{method} {fault:?}: {fate:?} and not {wanted:?}"))
    });
    let wrong: Vec<String> = join_all(cases).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn each_failure_of_a_webhook_has_its_fate() {
    let elsewhere = DingTalkServer::start().await;
    let away = format!("{}/robot/sendBySession?session=x", elsewhere.url());
    let table = vec![
        (soon(429), Fate::Shown),
        (soon(503), Fate::Marked),
        (Fault::Html { code: 502 }, Fate::Marked),
        (Fault::Reset, Fate::Marked),
        (Fault::DoneReset, Fate::Marked),
        (Fault::Slow, Fate::Marked),
        (Fault::Malformed, Fate::Marked),
        (Fault::Huge, Fate::Marked),
        (ok(json!([7])), Fate::Marked),
        (ok(json!({ "errcode": {}, "errmsg": [] })), Fate::Marked),
        (ok(json!({ "errcode": 130_101, "errmsg": "send too fast" })), Fate::Kept),
        (ok(json!({ "errcode": 300_001, "errmsg": "the session is over" })), Fate::OtherWay),
        (Fault::Html { code: 403 }, Fate::OtherWay),
        (Fault::Html { code: 404 }, Fate::OtherWay),
        (Fault::Redirect { to: away }, Fate::OtherWay),
    ];
    check(SESSION, true, table).await;
    assert_eq!(elsewhere.look(|state| state.calls.len()), 0, "a redirect was followed");
}

#[tokio::test]
async fn each_failure_without_a_webhook_has_its_fate() {
    let elsewhere = DingTalkServer::start().await;
    let away = format!("{}/v1.0/{SINGLE}", elsewhere.url());
    let key = json!("query-1");
    let table = vec![
        (refusal(401, "InvalidAuthentication"), Fate::Shown),
        (soon(429), Fate::Shown),
        (refusal(500, "ServiceUnavailable"), Fate::Marked),
        (Fault::Html { code: 502 }, Fate::Marked),
        (Fault::Reset, Fate::Marked),
        (Fault::DoneReset, Fate::Marked),
        (Fault::DoneHang, Fate::Marked),
        (Fault::Malformed, Fate::Marked),
        (Fault::Huge, Fate::Marked),
        (ok(json!("done")), Fate::Marked),
        (refusal(400, "invalidParameter.msgParam.invalid"), Fate::GivenUp),
        (refusal(403, "Forbidden.AccessDenied.AccessTokenPermissionDenied"), Fate::GivenUp),
        // Not in DingTalk's words, so it may be better the next time.
        (Fault::Redirect { to: away }, Fate::Shown),
        (Fault::Html { code: 404 }, Fate::Shown),
        (ok(json!({ "processQueryKey": key, "flowControlledStaffIdList": ["tired"] })), Fate::Kept),
    ];
    check(SINGLE, false, table).await;
    assert_eq!(elsewhere.look(|state| state.calls.len()), 0, "a redirect was followed");
}

#[tokio::test]
async fn a_message_that_waits_for_a_token_was_not_sent_and_is_no_repeat() {
    let table = vec![
        (soon(429), Fate::Shown),
        (refusal(500, "ServiceUnavailable"), Fate::Shown),
        (Fault::Html { code: 502 }, Fate::Shown),
        (Fault::Reset, Fate::Shown),
        (Fault::Malformed, Fate::Shown),
        (Fault::Huge, Fate::Shown),
        (Fault::Hang, Fate::Shown),
        (ok(json!({ "accessToken": 7, "expireIn": "soon" })), Fate::Shown),
    ];
    check(TOKEN, false, table).await;
}

#[tokio::test]
async fn a_wrong_secret_closes_the_way_and_keeps_what_is_to_be_said() {
    let mut bed = Bed::start().await;
    bed.server.change(|state| state.webhook_ms = 30_000);
    let (_, chat) = bed.asked().await;
    bed.server.fault(TOKEN, 1, refusal(400, "invalidClientIdOrSecret"));
    bed.notice(&chat, "first").await;
    let message = bed
        .event("the refusal", |event| match event {
            PlatformEvent::Link { state: LinkState::Fatal { error_message, .. }, .. } => Some(error_message),
            _ => None,
        })
        .await;
    assert!(message.contains("client_secret"), "{message}");
    assert_eq!((bed.kept().await, bed.server.texts(&chat)), (1, Vec::new()));
}

#[tokio::test]
async fn a_stale_token_is_replaced_once() {
    let mut bed = Bed::start().await;
    bed.server.change(|state| state.webhook_ms = 30_000);
    let (_, chat) = bed.asked().await;
    bed.notice(&chat, "first").await;
    bed.until_shown(&chat, &["first"]).await;
    bed.server.change(|state| state.expire_tokens());
    bed.notice(&chat, "second").await;
    bed.until_shown(&chat, &["first", "second"]).await;
    assert_eq!(bed.server.look(|state| state.calls_of(TOKEN)), 2);
    // One that ends before it began is asked for anew, and refused again is no endless loop.
    bed.server.change(|state| state.expire_tokens());
    bed.server.fault(SINGLE, 2, refusal(401, "InvalidAuthentication"));
    bed.notice(&chat, "third").await;
    bed.until_shown(&chat, &["first", "second", "third"]).await;
    let calls = bed.server.look(|state| (state.calls_of(TOKEN), state.calls_of(SINGLE)));
    assert!(calls.0 <= 4 && calls.1 <= 6, "{calls:?}");
    bed.all_over().await;
}

#[tokio::test]
async fn somebody_who_is_no_member_any_more_is_not_written_to_until_they_write() {
    let mut bed = Bed::start().await;
    bed.server.change(|state| {
        state.webhook_ms = 30_000;
        state.invalid_staff.insert(ANN.to_owned());
    });
    let (_, chat) = bed.asked().await;
    bed.notice(&chat, "first").await;
    bed.all_over().await;
    bed.notice(&chat, "second").await;
    bed.all_over().await;
    assert_eq!(bed.server.look(|state| state.calls_of(SINGLE)), 1, "nobody is there, and it was tried again");
    bed.server.change(|state| state.invalid_staff.clear());
    bed.asked().await;
    bed.notice(&chat, "third").await;
    bed.until_shown(&chat, &["third"]).await;
    bed.no_complaints();
}

#[tokio::test]
async fn a_webhook_to_a_foreign_host_is_not_called() {
    let mut bed = Bed::start().await;
    let elsewhere = DingTalkServer::start().await;
    let port = elsewhere.url().rsplit(':').next().expect("a port").to_owned();
    for foreign in [format!("http://localhost:{port}"), format!("http://127.0.0.2:{port}"), "file:///etc".to_owned()] {
        bed.server.change(|state| state.webhook_base = Some(foreign));
        let (_, chat) = bed.asked().await;
        let before = bed.server.texts(&chat).len();
        bed.notice(&chat, "a private word").await;
        bed.until("it is shown", |state| (state.texts(&chat).len() > before).then_some(())).await;
        assert_eq!(bed.ways(&chat)[before], "single");
    }
    assert_eq!(elsewhere.look(|state| state.calls.len()), 0);
    bed.no_complaints();
}

/// A reply in a card that meets `faults`. Returns what the chat shows, and how often the card was made.
async fn card_with(faults: Vec<(&str, Fault)>) -> (Vec<String>, u32) {
    let mut bed = Bed::start_with(|config| config.card_template_id = Some("a-template.schema".to_owned())).await;
    let (turn, chat) = bed.asked().await;
    for (method, fault) in faults {
        bed.server.fault(method, 1, fault);
    }
    bed.step(&chat, turn, ReplyStep::Delta("one".to_owned())).await;
    bed.until("the fault", |state| state.faults.is_empty().then_some(())).await;
    bed.step(&chat, turn, ReplyStep::Delta(" two".to_owned())).await;
    bed.step(&chat, turn, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.all_over().await;
    bed.no_complaints();
    bed.server.look(|state| (state.texts(&chat), state.cards.values().map(|card| 1 + card.repeats).sum()))
}

#[tokio::test]
async fn a_card_whose_creation_is_in_doubt_is_one_card_all_the_same() {
    let taken = Fault::answer_with(400, json!({ "code": "param.error", "message": "there is such a card" }));
    let table = [
        (CARD, soon(429), 1),
        (CARD, Fault::Reset, 1),
        (CARD, Fault::DoneReset, 2),
        (STREAMING, soon(429), 2),
        (STREAMING, Fault::DoneReset, 2),
    ];
    let cases = table.into_iter().map(|(method, fault, made)| async move {
        let seen = card_with(vec![(method, fault.clone())]).await;
        // No word of a repeat: it is the same card.
        assert_eq!(seen, (vec!["one two".to_owned()], made), "{method} {fault:?}");
    });
    join_all(cases).await;
    // If DingTalk takes a name only once, the card is written to all the same.
    let seen = card_with(vec![(CARD, Fault::DoneReset), (CARD, taken)]).await;
    assert_eq!(seen, (vec!["one two".to_owned()], 1));
}

#[tokio::test]
async fn a_card_that_reaches_nobody_is_told_with_200_and_the_answer_is_a_message() {
    let mut bed = Bed::start_with(|config| config.card_template_id = Some("a-template.schema".to_owned())).await;
    let turn = bed.asked_in_group().await;
    bed.server.change(|state| state.unknown_groups.insert(GROUP.to_owned()));
    bed.reply(GROUP, turn, "an answer").await;
    bed.all_over().await;
    assert_eq!(bed.server.look(|state| state.calls_of(STREAMING)), 0, "nobody sees what is streamed there");
    assert_eq!((bed.server.texts(GROUP), bed.ways(GROUP)), (vec!["an answer".to_owned()], vec!["session".to_owned()]));
    bed.no_complaints();
}

#[tokio::test]
async fn an_answer_whose_card_is_refused_is_an_ordinary_message_and_so_are_those_after_it() {
    let no_template = || refusal(400, "param.templateError");
    let no_variable = || refusal(400, "param.error");
    for (method, times, refused) in
        [(CARD, 9, no_template()), (CARD, 9, refusal(403, "Forbidden.AccessDenied")), (STREAMING, 9, no_variable())]
    {
        let mut bed = Bed::start_with(|config| config.card_template_id = Some("a-template.schema".to_owned())).await;
        let (turn, chat) = bed.asked().await;
        bed.server.fault(method, times, refused.clone());
        bed.step(&chat, turn, ReplyStep::Delta("One.\n\nTwo".to_owned())).await;
        bed.until("a paragraph", |state| state.texts(&chat).iter().any(|text| text == "One.").then_some(())).await;
        bed.step(&chat, turn, ReplyStep::Delta(" and a half.".to_owned())).await;
        bed.step(&chat, turn, ReplyStep::End(ReplyEnd::Complete)).await;
        bed.all_over().await;
        let (turn, _) = bed.asked().await;
        bed.reply(&chat, turn, "another answer").await;
        bed.all_over().await;
        let sent = bed.server.look(|state| state.sent.clone());
        let shown: Vec<_> =
            sent.iter().filter(|sent| sent.way != "card").map(|s| (s.format.as_str(), s.text.as_str())).collect();
        let wanted = ["One.", "Two and a half.", "another answer"].map(|text| ("markdown", text));
        assert_eq!(shown, wanted, "{method} {refused:?}");
        assert_eq!(bed.server.look(|state| state.calls_of(CARD)), 1, "it was tried again");
        bed.no_complaints();
    }
}

/// Collects what the tracing subscriber writes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_line_and_no_state_holds_a_secret_or_what_was_said() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let guard = tracing::subscriber::set_default(subscriber.finish());
    let mut bed = Bed::start().await;
    let (turn, chat) = bed.asked().await;
    // DingTalk repeats what it was told.
    let (secret, session) = bed.server.look(|state| {
        let session = state.webhooks.keys().next_back().cloned().expect("a webhook");
        (state.client_secret.clone(), session)
    });
    let echo =
        |of: &str| Fault::answer_with(500, json!({ "code": "InternalError", "message": format!("no {of} here") }));
    bed.server.fault(SESSION, 1, Fault::Malformed);
    bed.server.fault(SESSION, 1, echo(&session));
    bed.server.fault(SESSION, 1, ok(json!({ "errcode": 300_001, "errmsg": format!("{session} is over") })));
    bed.reply(&chat, turn, "a private word").await;
    bed.until("all of it went wrong", |state| state.faults.is_empty().then_some(())).await;
    bed.all_over().await;
    bed.server.change(|state| state.webhook_ms = 30_000);
    bed.asked().await;
    for fault in [Fault::Reset, refusal(401, "InvalidAuthentication"), echo("access-token-of-this-test")] {
        bed.server.fault(SINGLE, 1, fault);
    }
    bed.server.fault(TOKEN, 1, echo(&secret));
    bed.server.change(State::expire_tokens);
    bed.notice(&chat, "a private word").await;
    bed.until("all of it went wrong", |state| state.faults.is_empty().then_some(())).await;
    bed.all_over().await;
    let elsewhere = "http://127.0.0.2:9".to_owned();
    bed.server.change(|state| state.webhook_base = Some(elsewhere));
    bed.asked().await;
    bed.notice(&chat, "a private word").await;
    bed.all_over().await;
    let state = format!("{:?}", bed.kept().await);
    drop(guard);
    let log = String::from_utf8_lossy(&log.0.lock().expect("not poisoned")).into_owned();
    assert!(log.contains("a message was not delivered and is tried again"), "{log}");
    for secret in [secret.as_str(), "a private word", "session-", "access-token-", "127.0.0.2", "a question"] {
        // Crates below tell of connections what they will; only the gateway's own lines are its words.
        let own = |line: &&str| line.contains(secret) && (line.contains("hermes_gateway") || secret != "127.0.0.2");
        assert_eq!(log.lines().chain([state.as_str()]).find(own), None, "{secret}");
    }
}
