//! From DingTalk.

use std::path::Path;

use serde_json::{Value, json};

use super::{Cut, ECHO, Order, attachment, cut, fetched, file_of, linked, png, root, told};
use crate::dingtalk_api::bed::{ANN, Bed};
use crate::support::dingtalk::DingTalkServer;
use crate::support::dingtalk::people::Say;
use crate::support::dingtalk::state::State;
use crate::support::faults::Fault;
use crate::support::gateway::Gateway;

const DOWNLOAD: &str = "robot/messageFiles/download";

fn config(server: &DingTalkServer) -> String {
    let (id, secret) = server.look(|state| (state.client_id.clone(), state.client_secret.clone()));
    let url = server.url();
    format!(
        "{ECHO}[platforms.dingtalk]\nclient_id = '{id}'\nclient_secret = '{secret}'\napi_url = '{url}'\n\
         oapi_url = '{url}'\nallow_from = ['{ANN}']\n"
    )
}

fn send(state: &mut State, kind: &str, content: Value) {
    let fields = json!({ "msgtype": kind, "text": null, "content": content });
    state.say(&Say { user: ANN.to_owned(), fields, ..Say::default() });
}

/// The answer after `before` others that ends like this.
async fn answer(server: &DingTalkServer, before: usize, end: &str) -> String {
    let look = |state: &State| {
        let own = |text: &String| !text.starts_with(['♻', '⚠']);
        let texts: Vec<String> = state.texts(&State::direct_chat(ANN)).into_iter().filter(own).collect();
        texts.get(before).filter(|text| text.trim_end().ends_with(end)).cloned()
    };
    server.until(&format!("an answer that ends with {end}"), look).await
}

#[tokio::test]
async fn a_picture_in_a_text_is_a_picture_and_a_file_a_link_over_a_handoff_and_a_kill() {
    let server = DingTalkServer::start().await;
    let mut gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_hermes")), &config(&server)).await;
    // What is said before would be said to nobody.
    let connected = |count| {
        move |state: &State| (state.connections.len() >= count && state.open_connections().count() == 1).then_some(())
    };
    server.until("a connection", connected(1)).await;
    let (picture, document) = (png(5000), b"%PDF-1.7 and more".repeat(100));
    for (round, how) in [None, Some(Cut::Handoff), Some(Cut::Kill)].into_iter().enumerate() {
        let code = server.change(|state| state.put_file(picture.clone()));
        if let Some(how) = how {
            server.fault(DOWNLOAD, 1, Fault::Hang);
            let calls = server.look(|state| state.calls_of(DOWNLOAD));
            let rich = json!([{ "text": "look" }, { "type": "picture", "downloadCode": code }]);
            server.change(|state| send(state, "richText", json!({ "richText": rich })));
            server.until("it is being fetched", |state| (state.calls_of(DOWNLOAD) > calls).then_some(())).await;
            cut(&mut gateway, how).await;
        } else {
            let rich = json!([{ "text": "look" }, { "type": "picture", "downloadCode": code }]);
            server.change(|state| send(state, "richText", json!({ "richText": rich })));
        }
        let said = answer(&server, round, &told(&picture)).await;
        assert!(said.starts_with("look"), "{said}");
    }
    server.until("a connection of the process that was started anew", connected(2)).await;
    let code = server.change(|state| state.put_file(document.clone()));
    server.change(|state| send(state, "file", json!({ "downloadCode": code, "fileName": "a.pdf" })));
    let said = answer(&server, 3, ".pdf]").await;
    let path = linked(&said, "unknown", document.len());
    assert_eq!(std::fs::read(path).expect("it is there"), document);
    assert_eq!(fetched(gateway.home()).len(), 4);
}

#[tokio::test]
async fn a_file_is_tried_again_while_it_may_be_had_and_never_half_there() {
    let mut bed = Bed::start().await;
    let root = root();
    let bytes = png(100_000);
    let busy = Fault::answer_with(429, json!({ "code": "Throttling.Api", "message": "slow down" }));
    let gone = Fault::answer_with(400, json!({ "code": "invalidParameter.downloadCode", "message": "expired" }));
    let table = [
        (DOWNLOAD, busy, None),
        (DOWNLOAD, Fault::Html { code: 502 }, None),
        (DOWNLOAD, gone, Some("the address of the file is not to be had")),
        ("file", Fault::Html { code: 503 }, None),
        ("file", Fault::Reset, None),
        ("file", Fault::Html { code: 404 }, Some("refused with HTTP 404")),
        ("file", Fault::Redirect { to: "http://127.0.0.1:1/".to_owned() }, Some("refused with HTTP 307")),
        ("file", Fault::Huge, Some("larger than")),
    ];
    for (turn, (method, fault, told)) in (1..).zip(table) {
        let code = bed.server.change(|state| state.put_file(bytes.clone()));
        bed.server.fault(method, 1, fault.clone());
        bed.command(Order::new(turn, &State::direct_chat(ANN), vec![attachment("a.png", &code)], &root).command())
            .await;
        let files = bed.event("an answer", |event| file_of(event, turn)).await;
        super::check(&files, &bytes, told, &root, &format!("{method} {fault:?}"));
    }
}
