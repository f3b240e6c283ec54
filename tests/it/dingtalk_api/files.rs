//! Files that people send.

use hermes_gateway::chat::AttachmentKind;
use hermes_gateway::platform::dingtalk::files::{FileError, Files};
use serde_json::{Value, json};

use super::bed::{ANN, Bed, config};
use crate::support::dingtalk::DingTalkServer;
use crate::support::dingtalk::people::Say;
use crate::support::faults::Fault;

const DOWNLOAD: &str = "robot/messageFiles/download";

/// A message of a kind with this content.
fn of_kind(kind: &str, content: Value) -> Say {
    let fields = json!({ "msgtype": kind, "text": null, "content": content });
    Say { user: ANN.to_owned(), fields, ..Say::default() }
}

#[tokio::test]
async fn what_people_send_is_told_and_can_be_fetched() {
    let mut bed = Bed::start().await;
    let bytes = b"what a picture shows".repeat(500);
    let code = bed.server.change(|state| state.put_file(bytes.clone()));
    let files = Files::new(&config(&bed.server));
    let rich = json!([{ "text": "look: " }, { "type": "picture", "downloadCode": code }, { "text": "see?" }]);
    let table = [
        (of_kind("picture", json!({ "downloadCode": code })), AttachmentKind::Image, ""),
        (of_kind("file", json!({ "downloadCode": code, "fileName": "a.pdf" })), AttachmentKind::File, ""),
        (of_kind("audio", json!({ "downloadCode": code, "recognition": "spoken" })), AttachmentKind::Audio, "spoken"),
        (of_kind("video", json!({ "downloadCode": code, "duration": 7 })), AttachmentKind::Video, ""),
        (of_kind("richText", json!({ "richText": rich })), AttachmentKind::Image, "look: see?"),
    ];
    for (say, kind, text) in table {
        bed.server.change(|state| state.say(&say));
        let (_, inbound) = bed.inbound().await;
        assert_eq!((inbound.text.as_str(), inbound.attachments.len()), (text, 1), "{say:?}");
        assert_eq!(inbound.attachments[0].kind, kind);
        let robot = &inbound.account;
        assert_eq!(files.fetch(robot, &inbound.attachments[0].source).await.expect("it is there"), bytes);
    }
    bed.no_complaints();
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_file_is_told_without_its_address() {
    let server = DingTalkServer::start().await;
    let code = server.change(|state| state.put_file(b"bytes".to_vec()));
    let config = config(&server);
    let files = Files::new(&config);
    let url = |url: &str| Fault::answer_with(200, json!({ "downloadUrl": url }));
    let elsewhere = DingTalkServer::start().await;
    let table = [
        (DOWNLOAD, Fault::Html { code: 502 }, "address of the file is not to be had"),
        (DOWNLOAD, Fault::answer_with(400, json!({ "code": "invalidParameter.downloadCode" })), "not to be had"),
        (DOWNLOAD, Fault::answer_with(200, json!({ "downloadUrl": 7 })), "not to be had"),
        (DOWNLOAD, url(&format!("{}/files/x", elsewhere.url())), "not https"),
        (DOWNLOAD, url("file:///etc/passwd"), "not https"),
        (DOWNLOAD, url("no address"), "not https"),
        ("file", Fault::Html { code: 403 }, "refused with HTTP 403"),
        ("file", Fault::Redirect { to: elsewhere.url() }, "refused with HTTP 307"),
        ("file", Fault::Reset, "did not get through"),
        ("file", Fault::Huge, "larger than"),
    ];
    for (method, fault, words) in table {
        server.fault(method, 1, fault.clone());
        let error = files.fetch(&config.client_id, &code).await.expect_err("it goes wrong");
        let told = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
        assert!(told.contains(words), "{fault:?}: {told}");
        assert!(!told.contains(&code) && !told.contains("Signature") && !told.contains("/files/"), "{told}");
    }
    assert_eq!(elsewhere.look(|state| state.calls.len()), 0);
    // A stale token is no trouble, and neither is what came before.
    server.change(|state| state.expire_tokens());
    assert_eq!(files.fetch(&config.client_id, &code).await.expect("it is there"), b"bytes");
    let gone = files.fetch(&config.client_id, "none").await;
    assert!(matches!(gone, Err(FileError::NoAddress { .. })), "{gone:?}");
}
