//! Files in answers: what Weixin gets of them, in which order, and what is said where one cannot be sent.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use hermes_gateway::agent::builtin::echo::{PICTURE, made_up};
use hermes_gateway::chat::{Content, OutFile, ReplyEnd, ReplyStep};
use hermes_gateway::control::proto::HandoffKind;
use hermes_gateway::platform::weixin::media::FILE_BYTES_MAX;
use serde_json::json;

use super::bed::{ANN, Bed};
use super::gateway::config;
use crate::support::faults::Fault;
use crate::support::gateway::Gateway;
use crate::support::weixin::WeixinServer;
use crate::support::weixin::state::State;

const SENT_AGAIN: &str = "♻️ Sent again — nobody knows whether it arrived the first time, so this may be a duplicate";
const RECOVERED: &str = "♻️ Recovered reply — the gateway restarted during delivery, so this may be a duplicate";

/// What Ann sees: texts, and of files their kind, name and size. What has the name of one before is the same message.
fn shown(state: &State) -> Vec<String> {
    let show = |sent: &crate::support::weixin::state::Sent| {
        let again = if sent.is_repeat { " again" } else { "" };
        let of = |kind: &str| {
            let item = &sent.item[kind];
            let param = item["media"]["encrypt_query_param"].as_str().unwrap_or_default();
            let bytes = state.plaintext(param).map_or(0, |bytes| bytes.len());
            format!("[{kind} {} {bytes}{again}]", item["file_name"].as_str().unwrap_or("-"))
        };
        match sent.item["type"].as_u64() {
            Some(2) => of("image_item"),
            Some(4) => of("file_item"),
            Some(5) => of("video_item"),
            _ => format!("{}{again}", sent.text()),
        }
    };
    state.sent.iter().filter(|sent| sent.to == ANN).map(show).collect()
}

async fn until_shown(server: &WeixinServer, wanted: &[&str]) {
    server.until(&format!("{wanted:?}"), |state| (shown(state) == wanted).then_some(())).await;
}

/// The bytes of the files that were uploaded.
fn files(server: &WeixinServer) -> Vec<Vec<u8>> {
    server.look(|state| state.files.keys().filter_map(|param| state.plaintext(param)).collect())
}

fn kept(path: PathBuf, mime: Option<&str>) -> OutFile {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    OutFile { number: 0, at: 6, name, mime: mime.map(str::to_owned), content: Content::Kept { path, bytes: 1 } }
}

fn document(dir: &Path) -> OutFile {
    let path = dir.join("plan.pdf");
    fs::write(&path, made_up(1000)).expect("writes");
    kept(path, None)
}

async fn reply(bed: &Bed, turn: i64, file: &OutFile) {
    bed.reply(ANN, turn, ReplyStep::Delta("before".into())).await;
    bed.reply(ANN, turn, ReplyStep::File(file.clone())).await;
    bed.reply(ANN, turn, ReplyStep::Delta("after".into())).await;
    bed.reply(ANN, turn, ReplyStep::End(ReplyEnd::Complete)).await;
}

async fn started() -> Bed {
    let mut bed = Bed::start().await;
    bed.server.say(ANN, "asks");
    bed.connected().await;
    bed.inbound().await;
    bed
}

#[tokio::test]
async fn pictures_films_and_files_stand_between_the_texts() {
    let bed = started().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let picture = dir.path().join("dot.png");
    fs::write(&picture, PICTURE).expect("writes");
    let film = dir.path().join("film.mp4");
    fs::write(&film, made_up(77)).expect("writes");
    bed.reply(ANN, 1, ReplyStep::Delta("before".into())).await;
    for (number, file) in
        (0..).zip([kept(picture, Some("image/png")), kept(film, Some("video/mp4")), document(dir.path())])
    {
        bed.reply(ANN, 1, ReplyStep::File(OutFile { number, ..file })).await;
    }
    bed.reply(ANN, 1, ReplyStep::Delta("after".into())).await;
    bed.reply(ANN, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    let image = format!("[image_item - {}]", PICTURE.len());
    until_shown(&bed.server, &["before", &image, "[video_item - 77]", "[file_item plan.pdf 1000]", "after"]).await;
    let mut sent = files(&bed.server);
    sent.sort();
    let mut wanted = [PICTURE.to_vec(), made_up(77), made_up(1000)];
    wanted.sort();
    assert_eq!(sent, wanted);
    assert!(bed.server.look(|state| state.sent.iter().all(|sent| sent.context_token.is_some())));
    bed.no_complaints();
}

#[tokio::test]
async fn whatever_goes_wrong_a_file_arrives_and_is_marked_if_it_may_be_there_already() {
    let ok = |body| Fault::answer_with(200, body);
    // A failure of an upload shows nothing, so nothing is marked.
    let before_it = [
        ("getuploadurl", Fault::Html { code: 502 }),
        ("getuploadurl", Fault::Malformed),
        ("getuploadurl", Fault::DoneReset),
        ("getuploadurl", ok(json!({ "ret": -1, "errmsg": "system error" }))),
        ("upload", Fault::Html { code: 502 }),
        ("upload", Fault::Reset),
        ("upload", Fault::DoneReset),
    ];
    let case = async |method: &'static str, fault: Fault, wanted: &[&str]| {
        let bed = started().await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        bed.reply(ANN, 1, ReplyStep::Delta("before".into())).await;
        bed.reply(ANN, 1, ReplyStep::File(document(dir.path()))).await;
        // A growing reply is shown once what stands before the file is.
        until_shown_or_more(&bed.server, "before").await;
        bed.server.fault(method, 1, fault.clone());
        bed.reply(ANN, 1, ReplyStep::Delta("after".into())).await;
        bed.reply(ANN, 1, ReplyStep::End(ReplyEnd::Complete)).await;
        bed.all_delivered().await;
        assert_eq!(bed.server.look(shown), wanted, "{method} {fault:?}");
        bed.no_complaints();
    };
    let plain = ["before", "[file_item plan.pdf 1000]", "after"];
    join_all(before_it.into_iter().map(|(method, fault)| case(method, fault, &plain))).await;
}

async fn until_shown_or_more(server: &WeixinServer, first: &str) {
    server.until(first, |state| (shown(state).first().map(String::as_str) == Some(first)).then_some(())).await;
}

#[tokio::test]
async fn a_message_with_a_file_whose_answer_is_lost_is_sent_again_with_a_word() {
    for fault in [Fault::Html { code: 502 }, Fault::DoneReset, Fault::Malformed] {
        let bed = started().await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let is_done = fault.is_after_the_fact();
        bed.server.fault("sendmessage", 1, fault.clone());
        bed.reply(ANN, 1, ReplyStep::File(document(dir.path()))).await;
        bed.reply(ANN, 1, ReplyStep::Delta("after".into())).await;
        bed.reply(ANN, 1, ReplyStep::End(ReplyEnd::Complete)).await;
        bed.all_delivered().await;
        let wanted: &[&str] = if is_done {
            &["[file_item plan.pdf 1000]", SENT_AGAIN, "[file_item plan.pdf 1000 again]", "after"]
        } else {
            &[SENT_AGAIN, "[file_item plan.pdf 1000]", "after"]
        };
        assert_eq!(bed.server.look(shown), wanted, "{fault:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_told_by_name() {
    let bed = started().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let big = dir.path().join("big.bin");
    File::create(&big).expect("creates").set_len(FILE_BYTES_MAX as u64 + 1).expect("grows");
    reply(&bed, 1, &kept(big, None)).await;
    let too_large = "📎 big.bin (not sent: it is larger than 25 MiB)";
    until_shown(&bed.server, &["before", too_large, "after"]).await;
    reply(&bed, 2, &kept(dir.path().join("gone"), None)).await;
    bed.all_delivered().await;
    assert_eq!(bed.server.look(shown)[3..], ["before", "📎 gone (not sent: it cannot be read)", "after"]);
    bed.server.fault("upload", 1, Fault::Html { code: 403 });
    reply(&bed, 3, &document(dir.path())).await;
    bed.all_delivered().await;
    let word = bed.server.look(|state| shown(state)[7].clone());
    assert!(word.starts_with("📎 plan.pdf (not sent: it was not taken: "), "{word}");
}

#[tokio::test]
async fn a_file_goes_on_over_a_handoff() {
    let mut bed = started().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    bed.server.fault("sendmessage", 1, Fault::DoneHang);
    bed.reply(ANN, 1, ReplyStep::File(document(dir.path()))).await;
    until_shown(&bed.server, &["[file_item plan.pdf 1000]"]).await;
    bed.hand_off(Duration::from_millis(1)).await;
    bed.reply(ANN, 1, ReplyStep::Delta("after".into())).await;
    bed.reply(ANN, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.all_delivered().await;
    let again = "[file_item plan.pdf 1000 again]";
    assert_eq!(bed.server.look(shown), ["[file_item plan.pdf 1000]", RECOVERED, again, "after"]);
}

#[tokio::test]
async fn what_an_agent_sends_arrives_byte_by_byte_over_a_restart_and_after_a_kill() {
    let server = WeixinServer::start().await;
    let mut gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_hermes")), &config(&server)).await;
    server.say(ANN, "picture");
    let image = format!("[image_item - {}]", PICTURE.len());
    let first = ["before", &image, "after"];
    until_shown(&server, &first).await;
    gateway.handoff(HandoffKind::Restart).await.expect("it is replaced");
    server.say(ANN, "file 300000 data.bin");
    let second = [&first[..], &["before", "[file_item data.bin 300000]", "after"]].concat();
    until_shown(&server, &second).await;
    gateway.kill_and_start().await;
    server.say(ANN, "hello");
    server.until("an answer", |state| shown(state).iter().any(|shown| shown == "hello").then_some(())).await;
    let mut sent = files(&server);
    sent.sort_by_key(Vec::len);
    assert_eq!(sent, [PICTURE.to_vec(), made_up(300_000)]);
    gateway.terminate();
    assert_eq!(server.look(|state| state.complaints.clone()), Vec::<String>::new());
}
