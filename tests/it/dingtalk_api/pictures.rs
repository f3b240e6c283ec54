//! Pictures in answers, and what is said of other files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use hermes_gateway::agent::builtin::echo::PICTURE;
use hermes_gateway::chat::{Content, OutFile, ReplyEnd, ReplyStep};
use hermes_gateway::id::TurnId;
use serde_json::json;

use super::bed::{Bed, GROUP};
use crate::support::dingtalk::state::State;
use crate::support::faults::Fault;

const SENT_AGAIN: &str = "♻️ Sent again — nobody knows whether it arrived the first time, so this may be a duplicate";

/// What is in a chat; of a picture its size.
fn shown(state: &State, chat: &str) -> Vec<String> {
    let of_chat = state.sent.iter().filter(|sent| sent.chat == chat);
    let show = |sent: &crate::support::dingtalk::state::Sent| match sent.format.as_str() {
        "picture" => format!("[{} {}]", sent.way, state.media[&sent.text].len()),
        _ => sent.text.clone(),
    };
    of_chat.map(show).collect()
}

fn kept(path: PathBuf, mime: Option<&str>) -> OutFile {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    OutFile { number: 0, at: 6, name, mime: mime.map(str::to_owned), content: Content::Kept { path, bytes: 1 } }
}

fn picture(dir: &Path) -> OutFile {
    let path = dir.join("dot.png");
    fs::write(&path, PICTURE).expect("writes");
    kept(path, Some("image/png"))
}

async fn reply(bed: &Bed, chat: &str, turn: TurnId, file: &OutFile) {
    bed.step(chat, turn, ReplyStep::Delta("before".into())).await;
    bed.step(chat, turn, ReplyStep::File(file.clone())).await;
    bed.step(chat, turn, ReplyStep::Delta("after".into())).await;
    bed.step(chat, turn, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.all_over().await;
}

#[tokio::test]
async fn a_picture_stands_between_the_texts_in_a_direct_chat_and_in_a_group() {
    let mut bed = Bed::start().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (turn, chat) = bed.asked().await;
    reply(&bed, &chat, turn, &picture(dir.path())).await;
    let size = PICTURE.len();
    assert_eq!(bed.server.look(|state| shown(state, &chat)), ["before", &format!("[single {size}]"), "after"]);
    let turn = bed.asked_in_group().await;
    reply(&bed, GROUP, turn, &picture(dir.path())).await;
    assert_eq!(bed.server.look(|state| shown(state, GROUP)), ["before", &format!("[group {size}]"), "after"]);
    assert!(bed.server.look(|state| state.media.values().all(|media| media == PICTURE)));
}

#[tokio::test]
async fn what_is_no_picture_or_too_large_is_told_by_name() {
    let mut bed = Bed::start().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plan = dir.path().join("plan.pdf");
    fs::write(&plan, "plan").expect("writes");
    let large = dir.path().join("large.png");
    File::create(&large).expect("creates").set_len((20 << 20) + 1).expect("grows");
    let table = [
        (kept(plan, None), "📎 plan.pdf (not sent: such a file cannot be sent here)"),
        (kept(large, Some("image/png")), "📎 large.png (not sent: it is larger than 20 MiB)"),
        (kept(dir.path().join("gone.png"), Some("image/png")), "📎 gone.png (not sent: it cannot be read)"),
    ];
    for (at, (file, word)) in table.iter().enumerate() {
        let (turn, chat) = bed.asked().await;
        reply(&bed, &chat, turn, file).await;
        assert_eq!(bed.server.look(|state| shown(state, &chat)[3 * at..].to_vec()), ["before", word, "after"]);
    }
    assert_eq!(bed.server.look(|state| state.media.len()), 0);
}

#[tokio::test]
async fn whatever_goes_wrong_a_picture_arrives_and_is_marked_if_it_may_be_there_already() {
    const SEND: &str = "robot/oToMessages/batchSend";
    let size = format!("[single {}]", PICTURE.len());
    let (plain, marked) = (vec![size.as_str()], vec![SENT_AGAIN, &size]);
    let twice = vec![size.as_str(), SENT_AGAIN, &size];
    let table = [
        ("media/upload", Fault::Html { code: 502 }, &plain),
        ("media/upload", Fault::DoneReset, &plain),
        ("media/upload", Fault::Malformed, &plain),
        (SEND, Fault::answer_with(429, json!({ "code": "Throttling", "message": "slow" })), &plain),
        (SEND, Fault::Html { code: 502 }, &marked),
        (SEND, Fault::Reset, &marked),
        (SEND, Fault::Malformed, &marked),
        (SEND, Fault::DoneReset, &twice),
    ];
    let case = async |method: &'static str, fault: Fault, wanted: &[&str]| {
        let mut bed = Bed::start().await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (turn, chat) = bed.asked().await;
        let fault = match fault {
            Fault::Answer { code, body, .. } => Fault::Answer { code, body, retry_after: Some(1) },
            fault => fault,
        };
        bed.server.fault(method, 1, fault.clone());
        reply(&bed, &chat, turn, &picture(dir.path())).await;
        let wanted = [&["before"], wanted, &["after"]].concat();
        assert_eq!(bed.server.look(|state| shown(state, &chat)), wanted, "{method} {fault:?}");
    };
    join_all(table.iter().map(|(method, fault, wanted)| case(method, fault.clone(), wanted))).await;
}

#[tokio::test]
async fn a_picture_that_is_refused_becomes_a_word() {
    let mut bed = Bed::start().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (turn, chat) = bed.asked().await;
    bed.server.fault("media/upload", 1, Fault::answer_with(200, json!({ "errcode": 40004, "errmsg": "no image" })));
    reply(&bed, &chat, turn, &picture(dir.path())).await;
    let word = bed.server.look(|state| shown(state, &chat)[1].clone());
    assert!(word.starts_with("📎 dot.png (not sent: it was not taken: ") && word.contains("40004"), "{word}");
}
