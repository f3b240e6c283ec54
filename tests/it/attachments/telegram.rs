//! From Telegram.

use std::path::Path;

use hermes_gateway::platform::PlatformCommand;

use super::{
    Cut, ECHO, Order, attachment, check, cut, fetched, file_of, late_agent, let_go, linked, mode, png, root, told,
};
use crate::support::gateway::Gateway;
use crate::support::telegram::TelegramServer;
use crate::support::telegram::faults::Fault;
use crate::support::telegram::files::StoredFile;
use crate::telegram::bed::{Bed, DRAIN};

/// A group, where a reply is one message from its first word.
const CHAT: i64 = -70;

fn config(server: &TelegramServer, agent: &str) -> String {
    let (url, token) = (server.url(), server.token());
    format!("{agent}[platforms.telegram]\ntoken = '{token}'\napi_url = '{url}'\nallow_from = ['7']\n")
}

async fn start(server: &TelegramServer) -> Gateway {
    Gateway::start(Path::new(env!("CARGO_BIN_EXE_hermes")), &config(server, ECHO)).await
}

/// What the agent has said, without the gateway's own words of restarts.
fn answers(texts: Vec<String>) -> Vec<String> {
    texts.into_iter().filter(|text| !text.starts_with(['♻', '⚠'])).collect()
}

/// The answer whose end is `end`; it is the only one so far beside `before` others.
async fn answer(server: &TelegramServer, before: usize, end: &str) -> String {
    server
        .until(&format!("an answer that ends with {end}"), |state| {
            let texts = answers(state.texts(CHAT));
            texts.get(before).filter(|text| text.ends_with(end)).cloned()
        })
        .await
}

#[tokio::test]
async fn a_photo_is_a_picture_and_a_document_a_link() {
    let server = TelegramServer::start().await;
    let gateway = start(&server).await;
    let (photo, document) = (png(5000), b"%PDF-1.7 and more".repeat(100));
    server.change(|state| state.send(7, CHAT, "look", &photo, None));
    let said = answer(&server, 0, &told(&photo)).await;
    assert_eq!(said, format!("look\n{}", told(&photo)));
    server.change(|state| state.send(7, CHAT, "", &document, Some(("../a b.pdf", "application/pdf"))));
    let said = answer(&server, 1, ".pdf]").await;
    let path = linked(&said, "application/pdf", document.len());
    assert!(said.starts_with("[file: ../a b.pdf]\n"), "{said}");
    assert!(path.ends_with("1-_a%20b.pdf"), "{}", path.display());
    let path = path.with_file_name("1-_a b.pdf");
    assert_eq!(std::fs::read(&path).expect("it is there"), document);
    assert!(path.starts_with(gateway.home().join("attachments")));
    let directory = path.parent().expect("a directory");
    assert_eq!((mode(&path), mode(directory), mode(&gateway.home().join("attachments"))), (0o600, 0o700, 0o700));
    // Again, from the file that is there.
    let calls = server.look(|state| state.calls_of("getFile"));
    server.say(7, CHAT, "/retry");
    let again = answer(&server, 2, ".pdf]").await;
    let copy = linked(&again, "application/pdf", document.len()).with_file_name("1-_a b.pdf");
    assert_ne!(copy, path);
    assert_eq!(std::fs::read(&copy).expect("it is there"), document);
    assert_eq!((server.look(|state| state.calls_of("getFile")), fetched(gateway.home()).len()), (calls, 3));
}

#[tokio::test]
async fn what_cannot_be_had_is_told_to_the_agent() {
    let server = TelegramServer::start().await;
    let gateway = start(&server).await;
    server.fault("getFile", 1, Fault::refuse(400, "Bad Request: file is too big"));
    server.change(|state| state.send(7, CHAT, "look", &png(100), None));
    let said = answer(&server, 0, ")]").await;
    assert!(said.starts_with("look\n[image (could not be fetched: Telegram does not give the file"), "{said}");
    assert!(said.contains("file is too big"), "{said}");
    assert_eq!(fetched(gateway.home()).len(), 0);
}

#[tokio::test]
async fn a_message_whose_files_are_being_fetched_is_asked_once_over_a_handoff_and_a_kill() {
    for how in [Cut::Handoff, Cut::Kill] {
        let server = TelegramServer::start().await;
        let mut gateway = start(&server).await;
        let photo = png(3000);
        server.fault("getFile", 1, Fault::Hang);
        server.change(|state| state.send(7, CHAT, "look", &photo, None));
        server.until("it is being fetched", |state| (state.calls_of("getFile") == 1).then_some(())).await;
        cut(&mut gateway, how).await;
        answer(&server, 0, &told(&photo)).await;
        server.say(7, CHAT, "last");
        answer(&server, 1, "last").await;
        assert_eq!(answers(server.texts(CHAT)).len(), 2, "{how:?}: {:?}", server.texts(CHAT));
    }
}

#[tokio::test]
async fn a_message_whose_files_are_there_is_asked_once_over_a_handoff_and_a_kill() {
    for how in [Cut::Handoff, Cut::Kill] {
        let server = TelegramServer::start().await;
        let home = tempfile::Builder::new().prefix("hermes-").tempdir().expect("a temporary directory");
        let config = config(&server, &late_agent());
        let mut gateway = Gateway::launch(home, &[], Path::new(env!("CARGO_BIN_EXE_hermes")), config);
        let photo = png(3000);
        server.change(|state| state.send(7, CHAT, "look", &photo, None));
        gateway.wait_until("it is fetched", async |_| fetched(gateway.home()).len() == 1).await;
        cut(&mut gateway, how).await;
        let_go(&gateway);
        answer(&server, 0, &told(&photo)).await;
        server.say(7, CHAT, "last");
        answer(&server, 1, "last").await;
        assert_eq!(answers(server.texts(CHAT)).len(), 2, "{how:?}: {:?}", server.texts(CHAT));
        assert_eq!(server.look(|state| state.calls_of("getFile")), 1, "{how:?}: it is taken as it is");
    }
}

#[tokio::test]
async fn a_file_is_tried_again_while_it_may_be_had_and_never_half_there() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    let root = root();
    let bytes = png(100_000);
    let table = [
        ("getFile", Fault::flood(1), None),
        ("getFile", Fault::Html { code: 502 }, None),
        (
            "getFile",
            Fault::refuse(400, "Bad Request: wrong file_id or the file is temporarily unavailable"),
            Some("wrong file_id"),
        ),
        ("file", Fault::Html { code: 503 }, None),
        ("file", Fault::Reset, None),
        ("file", Fault::Html { code: 404 }, Some("refused with HTTP 404")),
        ("file", Fault::Redirect { to: "http://127.0.0.1:1/".to_owned() }, Some("refused with HTTP 307")),
        ("file", Fault::Huge, Some("larger than")),
    ];
    for (turn, (method, fault, told)) in (1..).zip(table) {
        let size = bytes.len() as u64;
        let stored = StoredFile { uploaded: Some(bytes.clone()), ..StoredFile::made_up("photos", "png", size) };
        let id = bed.server.change(|state| state.store_file(stored));
        bed.server.fault(method, 1, fault.clone());
        bed.command(Order::new(turn, "7", vec![attachment("a.png", &id)], &root).command()).await;
        let files = bed.event("an answer", |event| file_of(event, turn)).await;
        check(&files, &bytes, told, &root, &format!("{method} {fault:?}"));
    }
}

#[tokio::test]
async fn what_is_fetched_when_the_platform_is_frozen_is_told_after_a_thaw() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    let root = root();
    let stored = StoredFile { uploaded: Some(png(100)), ..StoredFile::made_up("photos", "png", 100) };
    let id = bed.server.change(|state| state.store_file(stored));
    bed.server.fault("getFile", 1, Fault::flood(1));
    bed.command(Order::new(1, "7", vec![attachment("a.png", &id)], &root).command()).await;
    bed.until("it was asked for", |state| (state.calls_of("getFile") == 1).then_some(())).await;
    // The marker does not wait for it, and nothing is told after it.
    bed.freeze(DRAIN).await;
    bed.until("it was asked for again", |state| (state.calls_of("getFile") == 2).then_some(())).await;
    bed.command(PlatformCommand::Thaw).await;
    let files = bed.event("an answer", |event| file_of(event, 1)).await;
    check(&files, &png(100), None, &root, "after a thaw");
}
