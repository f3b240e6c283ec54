//! From Weixin.

use std::path::Path;

use serde_json::{Value, json};

use super::{Cut, ECHO, Order, attachment, cut, fetched, file_of, linked, png, root, told};
use crate::support::faults::Fault;
use crate::support::gateway::Gateway;
use crate::support::weixin::WeixinServer;
use crate::support::weixin::state::State;
use crate::weixin::bed::{ANN, Bed};

const KEY: [u8; 16] = [7; 16];

fn config(server: &WeixinServer) -> String {
    let (account, token) = (server.look(|state| state.account.clone()), server.token());
    let (url, cdn) = (server.url(), server.cdn_url());
    format!(
        "{ECHO}[platforms.weixin]\ntoken = '{token}'\naccount_id = '{account}'\nbase_url = '{url}'\ncdn_url = '{cdn}'\n\
         allow_from = ['{ANN}']\ngateway_restart_notification = false\n"
    )
}

fn media(state: &mut State, bytes: &[u8]) -> Value {
    let param = state.put(bytes, KEY);
    json!({ "encrypt_query_param": param, "aes_key": "BwcHBwcHBwcHBwcHBwcHBw==", "encrypt_type": 1 })
}

/// The answer after `before` others that ends like this.
async fn answer(server: &WeixinServer, before: usize, end: &str) -> String {
    let look = |state: &State| {
        let own = state.sent.iter().filter(|sent| !sent.is_repeat && !sent.text().starts_with('⚠'));
        own.map(|sent| sent.text().to_owned()).nth(before).filter(|text| text.trim_end().ends_with(end))
    };
    server.until(&format!("an answer that ends with {end}"), look).await
}

#[tokio::test]
async fn a_picture_is_a_picture_and_a_file_a_link_over_a_handoff_and_a_kill() {
    let server = WeixinServer::start().await;
    let mut gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_hermes")), &config(&server)).await;
    let (picture, document) = (png(5000), b"%PDF-1.7 and more".repeat(100));
    for (round, how) in [None, Some(Cut::Handoff), Some(Cut::Kill)].into_iter().enumerate() {
        let calls = server.look(|state| state.calls_of("download"));
        if how.is_some() {
            server.fault("download", 1, Fault::Hang);
        }
        server.change(|state| {
            let media = media(state, &picture);
            let text = json!({ "type": 1, "text_item": { "text": "look" } });
            state.say_items(ANN, json!([text, { "type": 2, "image_item": { "media": media } }]));
        });
        if let Some(how) = how {
            server.until("it is being fetched", |state| (state.calls_of("download") > calls).then_some(())).await;
            cut(&mut gateway, how).await;
        }
        let said = answer(&server, round, &told(&picture)).await;
        assert!(said.starts_with("look"), "{said}");
    }
    server.change(|state| {
        let media = media(state, &document);
        let file = json!({ "media": media, "file_name": "a.pdf", "len": document.len().to_string() });
        state.say_items(ANN, json!([{ "type": 4, "file_item": file }]));
    });
    let said = answer(&server, 3, ".pdf]").await;
    let path = linked(&said, "unknown", document.len());
    assert_eq!(std::fs::read(path).expect("it is there"), document);
    assert_eq!(fetched(gateway.home()).len(), 4);
    assert_eq!(server.look(|state| state.complaints.clone()), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_is_tried_again_while_it_may_be_had_and_never_half_there() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    let root = root();
    let bytes = png(100_000);
    let table = [
        (Fault::Html { code: 429 }, None),
        (Fault::Html { code: 502 }, None),
        (Fault::Reset, None),
        (Fault::Html { code: 404 }, Some("404")),
        (Fault::Redirect { to: "http://127.0.0.1:1/".to_owned() }, Some("307")),
        (Fault::Huge, Some("larger than")),
    ];
    for (turn, (fault, told)) in (1..).zip(table) {
        let param = bed.server.change(|state| state.put(&bytes, KEY));
        let source = json!({ "full_url": null, "param": param, "key": "07".repeat(16) }).to_string();
        bed.server.fault("download", 1, fault.clone());
        bed.command(Order::new(turn, ANN, vec![attachment("a.png", &source)], &root).command()).await;
        let files = bed.event("an answer", |event| file_of(event, turn)).await;
        super::check(&files, &bytes, told, &root, &format!("{fault:?}"));
    }
}
