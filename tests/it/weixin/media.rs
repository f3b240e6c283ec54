//! Files, both ways.

use hermes_gateway::chat::AttachmentKind;
use hermes_gateway::config::Secret;
use hermes_gateway::platform::weixin::api::Api;
use hermes_gateway::platform::weixin::error::WeixinError;
use hermes_gateway::platform::weixin::media::{FILE_BYTES_MAX, MediaKind, Reference, download, upload};
use hermes_gateway::platform::weixin::message::reference;
use serde_json::json;

use super::bed::{ANN, Bed};
use crate::support::faults::Fault;
use crate::support::weixin::WeixinServer;

fn api(server: &WeixinServer) -> Api {
    Api::new(&server.url(), &server.cdn_url(), Some(Secret::new(server.token()))).expect("a client")
}

#[tokio::test]
async fn files_of_a_message_can_be_fetched_later() {
    let mut bed = Bed::start().await;
    let content = b"what a picture shows".repeat(500);
    let key = [7; 16];
    let param = bed.server.change(|state| state.put(&content, key));
    let raw = "BwcHBwcHBwcHBwcHBwcHBw==";
    let of_hex = "MDcwNzA3MDcwNzA3MDcwNzA3MDcwNzA3MDcwNzA3MDc=";
    let media = |aes_key: &str| json!({ "encrypt_query_param": param, "aes_key": aes_key, "encrypt_type": 1 });
    bed.server.say_items(
        ANN,
        json!([
            { "type": 2, "image_item": { "media": media("none"), "aeskey": "07".repeat(16), "mid_size": 10016 } },
            { "type": 4, "file_item": { "media": media(of_hex), "file_name": "a.pdf", "len": "10000" } },
            { "type": 5, "video_item": { "media": media(raw) } },
            { "type": 3, "voice_item": { "media": media(raw), "encode_type": 6 } },
        ]),
    );
    let inbound = bed.inbound().await;
    let kinds: Vec<_> = inbound.attachments.iter().map(|a| a.kind).collect();
    assert_eq!(kinds, [AttachmentKind::Image, AttachmentKind::File, AttachmentKind::Video, AttachmentKind::Audio]);
    assert_eq!((inbound.text.as_str(), inbound.attachments[1].name.as_deref()), ("", Some("a.pdf")));
    assert_eq!(inbound.attachments[1].size_bytes, Some(10_000));
    let api = api(&bed.server);
    for attachment in &inbound.attachments {
        let reference = reference(&attachment.source).expect("a reference");
        assert_eq!(download(&api, &reference).await.expect("it is there"), content);
    }
    bed.no_complaints();
}

#[tokio::test]
async fn a_file_is_uploaded_and_shown() {
    let server = WeixinServer::start().await;
    let api = api(&server);
    let content = b"all of it".repeat(10_000);
    for (round, kind) in [MediaKind::Image, MediaKind::Video, MediaKind::File].into_iter().enumerate() {
        // The second address of an upload is used when there is one.
        server.change(|state| state.upload_base = (round > 0).then(|| server.cdn_url()));
        // Two failures are nothing.
        server.fault("upload", 2, Fault::Html { code: 502 });
        let item = upload(&api, ANN, kind, "a.bin", &content).await.expect("it is uploaded");
        api.send_message(ANN, &format!("c{round}"), item, None).await.expect("it is shown");
    }
    let (params, complaints) = server.look(|state| {
        let params: Vec<_> = state.files.keys().cloned().collect();
        (params, state.complaints.clone())
    });
    assert_eq!((params.len(), complaints), (3, Vec::<String>::new()));
    assert!(params.iter().all(|param| server.look(|state| state.plaintext(param)) == Some(content.clone())));
    assert_eq!(server.look(|state| state.sent.len()), 3);
}

#[tokio::test]
async fn no_file_goes_to_or_comes_from_another_host() {
    let (server, other) = (WeixinServer::start().await, WeixinServer::start().await);
    let api = api(&server);
    server.change(|state| state.upload_base = Some(other.cdn_url()));
    let sent = upload(&api, ANN, MediaKind::File, "a", b"secret").await;
    assert!(matches!(sent, Err(WeixinError::ForeignHost { .. })), "{sent:?}");
    let param = other.change(|state| state.put(b"x", [1; 16]));
    let full_url = Some(format!("{}/download?encrypted_query_param={param}", other.cdn_url()));
    let fetched = download(&api, &Reference { full_url, ..Reference::default() }).await;
    assert!(matches!(fetched, Err(WeixinError::ForeignHost { .. })), "{fetched:?}");
    server.fault("download", 1, Fault::Redirect { to: format!("{}/download", other.cdn_url()) });
    let redirected = download(&api, &Reference { param: Some("p".into()), ..Reference::default() }).await;
    assert!(matches!(redirected, Err(WeixinError::Status { status: 307, .. })), "{redirected:?}");
    assert_eq!(other.look(|state| state.calls.len()), 0);
}

#[tokio::test]
async fn a_file_that_is_too_large_or_refused_fails_for_good() {
    let server = WeixinServer::start().await;
    let api = api(&server);
    let large = vec![0; FILE_BYTES_MAX + 1];
    let sent = upload(&api, ANN, MediaKind::File, "a", &large).await;
    assert!(matches!(sent, Err(WeixinError::FileTooLarge { .. })), "{sent:?}");
    server.fault("download", 1, Fault::Huge);
    let fetched = download(&api, &Reference { param: Some("p".into()), ..Reference::default() }).await;
    assert!(matches!(fetched, Err(WeixinError::TooLarge { .. })), "{fetched:?}");
    server.fault("upload", 1, Fault::Html { code: 403 });
    let refused = upload(&api, ANN, MediaKind::File, "a", b"x").await;
    assert!(matches!(refused, Err(WeixinError::Status { status: 403, .. })), "{refused:?}");
    assert_eq!(server.look(|state| state.calls_of("upload")), 1);
}
