//! Files in answers: what Telegram gets of them, in which order, and what is said where one cannot be sent.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use hermes_gateway::agent::builtin::echo::{PICTURE, made_up};
use hermes_gateway::chat::{Content, NotSent, OutFile, ReplyEnd, ReplyStep, so_far};
use hermes_gateway::control::proto::HandoffKind;

use super::bed::{Bed, DRAIN};
use crate::support::gateway::Gateway;
use crate::support::telegram::TelegramServer;
use crate::support::telegram::faults::Fault;
use crate::support::telegram::state::{Reach, State};

const MARK: &str = "♻️ Sent again — nobody knows whether it arrived the first time, so this may be a duplicate";
const RECOVERED: &str = "♻️ Recovered reply — the gateway restarted during delivery, so this may be a duplicate";

/// What is in a chat: texts, and of files their kind, name, size, and what is said with them.
fn shown(state: &State, chat: i64) -> Vec<String> {
    let show = |message: &crate::support::telegram::state::Message| match &message.attached {
        None => message.text().to_owned(),
        Some(attached) => {
            let file = &state.files[&attached.file_id];
            let name = file.name.as_deref().unwrap_or_default();
            let caption = if message.text().is_empty() { String::new() } else { format!(" {}", message.text()) };
            format!("[{} {name} {}{caption}]", attached.kind, file.bytes().len())
        }
    };
    state.in_chat(chat).map(show).collect()
}

/// The bytes of all files in a chat.
fn files(state: &State, chat: i64) -> Vec<Vec<u8>> {
    let attached = state.in_chat(chat).filter_map(|message| message.attached.as_ref());
    attached.map(|attached| state.files[&attached.file_id].bytes()).collect()
}

async fn until_shown(server: &TelegramServer, chat: i64, wanted: &[&str]) {
    let seen = |state: &State| (shown(state, chat) == wanted).then_some(());
    server.until(&format!("{wanted:?} in {chat}"), seen).await;
}

fn kept(number: u32, path: PathBuf, mime: Option<&str>) -> OutFile {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let bytes = fs::metadata(&path).map_or(0, |found| found.len());
    OutFile { number, at: 6, name, mime: mime.map(str::to_owned), content: Content::Kept { path, bytes } }
}

fn picture(dir: &Path) -> OutFile {
    let path = dir.join("dot.png");
    fs::write(&path, PICTURE).expect("writes");
    kept(0, path, Some("image/png"))
}

fn document(dir: &Path) -> OutFile {
    let path = dir.join("plan.pdf");
    fs::write(&path, made_up(1000)).expect("writes");
    kept(0, path, None)
}

/// A reply with a file between two words.
async fn reply(bed: &Bed, chat: i64, turn: i64, file: &OutFile) {
    bed.reply(chat, turn, ReplyStep::Delta("before".into())).await;
    bed.reply(chat, turn, ReplyStep::File(file.clone())).await;
    bed.reply(chat, turn, ReplyStep::Delta("after".into())).await;
    bed.reply(chat, turn, ReplyStep::End(ReplyEnd::Complete)).await;
}

#[tokio::test]
async fn pictures_and_documents_stand_between_the_texts_in_every_kind_of_chat() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (picture, document) = (picture(dir.path()), document(dir.path()));
    for (turn, chat) in [(1, 7), (2, -70)] {
        bed.reply(chat, turn, ReplyStep::Delta("before".into())).await;
        bed.reply(chat, turn, ReplyStep::File(picture.clone())).await;
        bed.reply(chat, turn, ReplyStep::File(OutFile { number: 1, ..document.clone() })).await;
        bed.reply(chat, turn, ReplyStep::Delta("after".into())).await;
        bed.reply(chat, turn, ReplyStep::End(ReplyEnd::Complete)).await;
        let photo = format!("[photo dot.png {}]", PICTURE.len());
        until_shown(&bed.server, chat, &["before", &photo, "[document plan.pdf 1000]", "after"]).await;
        assert_eq!(bed.server.look(|state| files(state, chat)), [PICTURE.to_vec(), made_up(1000)]);
        bed.delivered(turn).await;
    }
    // Nothing but files is an answer, too; what is known is not shown again.
    bed.reply(8, 3, ReplyStep::File(picture.clone())).await;
    bed.reply(8, 3, ReplyStep::File(picture)).await;
    bed.reply(8, 3, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.delivered(3).await;
    assert_eq!(bed.server.look(|state| shown(state, 8).len()), 1);
}

#[tokio::test]
async fn whatever_goes_wrong_a_file_arrives_and_is_marked_if_it_may_be_there_already() {
    let table = [
        (Fault::refuse(500, "Internal Server Error"), 1, true),
        (Fault::flood(1), 1, false),
        (Fault::Html { code: 502 }, 1, true),
        (Fault::Malformed, 1, true),
        (Fault::Huge, 1, true),
        (Fault::Reset, 1, true),
        (Fault::DoneReset, 2, true),
    ];
    let case = async |method: &'static str, fault: Fault, times: usize, is_marked: bool| {
        let mut bed = Bed::start().await;
        bed.connected().await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (file, plain) = match method {
            "sendPhoto" => (picture(dir.path()), format!("photo dot.png {}", PICTURE.len())),
            _ => (document(dir.path()), "document plan.pdf 1000".to_owned()),
        };
        bed.server.fault(method, 1, fault.clone());
        reply(&bed, 7, 1, &file).await;
        bed.delivered(1).await;
        let (first, again) =
            (format!("[{plain}]"), if is_marked { format!("[{plain} {MARK}]") } else { String::new() });
        let mut wanted = vec!["before"];
        wanted.extend((times == 2 || !is_marked).then_some(first.as_str()));
        wanted.extend(is_marked.then_some(again.as_str()));
        wanted.push("after");
        assert_eq!(bed.server.look(|state| shown(state, 7)), wanted, "{fault:?}");
    };
    for method in ["sendPhoto", "sendDocument"] {
        let cases = table.iter().map(|(fault, times, is_marked)| case(method, fault.clone(), *times, *is_marked));
        join_all(cases).await;
    }
}

#[tokio::test]
async fn a_picture_that_is_refused_becomes_a_document_and_a_document_a_word() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = picture(dir.path());
    let refusal = Fault::refuse(400, "Bad Request: PHOTO_INVALID_DIMENSIONS");
    bed.server.fault("sendPhoto", 2, refusal);
    reply(&bed, 7, 1, &file).await;
    let sent = format!("[document dot.png {}]", PICTURE.len());
    until_shown(&bed.server, 7, &["before", &sent, "after"]).await;
    bed.server.fault("sendDocument", 1, Fault::refuse(400, "Bad Request: wrong file"));
    reply(&bed, 8, 2, &file).await;
    bed.delivered(2).await;
    let texts = bed.server.texts(8);
    assert_eq!((texts.len(), texts[0].as_str(), texts[2].as_str()), (3, "before", "after"));
    assert!(
        texts[1].starts_with("📎 dot.png (not sent: it was not taken: ") && texts[1].contains("wrong file"),
        "{texts:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_sent_is_told_by_name() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let of_size = |name: &str, bytes: u64| {
        let path = dir.path().join(name);
        File::create(&path).expect("creates").set_len(bytes).expect("grows");
        path
    };
    let missing = |why, link: Option<&str>| {
        let content = Content::Missing { why, link: link.map(str::to_owned) };
        OutFile { content, ..kept(0, "/x/a_b.txt".into(), None) }
    };
    let table = [
        (kept(0, of_size("big.bin", (50 << 20) + 1), None), "📎 big.bin (not sent: it is larger than 50 MiB)"),
        (kept(0, dir.path().join("gone"), None), "📎 gone (not sent: it cannot be read)"),
        (missing(NotSent::TooMany, None), "📎 a_b.txt (not sent: too many files in one answer)"),
        (
            missing(NotSent::Outside, Some("file:///etc/passwd")),
            "📎 a_b.txt (not sent: it is no file in the agent's working directory)\nfile:///etc/passwd",
        ),
    ];
    for (turn, (file, word)) in (1..).zip(&table) {
        let chat = 7 + turn;
        reply(&bed, chat, turn, file).await;
        until_shown(&bed.server, chat, &["before", word, "after"]).await;
        bed.delivered(turn).await;
    }
    // A picture is one up to 10 MiB, and a document beyond.
    let large = kept(0, of_size("large.png", (10 << 20) + 1), Some("image/png"));
    reply(&bed, 70, 20, &large).await;
    until_shown(&bed.server, 70, &["before", "[document large.png 10485761]", "after"]).await;
    assert_eq!(bed.server.look(|state| state.calls_of("sendPhoto")), 0);
}

#[tokio::test]
async fn nobody_is_told_of_files_where_nobody_can_be_reached() {
    let mut bed = Bed::start().await;
    bed.connected().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    bed.server.reach(7, Reach::Blocked);
    bed.reply(7, 1, ReplyStep::File(picture(dir.path()))).await;
    bed.reply(7, 1, ReplyStep::End(ReplyEnd::Complete)).await;
    bed.delivered(1).await;
    assert_eq!(bed.server.look(|state| (state.calls_of("sendPhoto"), state.calls_of("sendDocument"))), (1, 0));
}

#[tokio::test]
async fn a_file_goes_on_over_a_handoff_and_a_kill() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = document(dir.path());
    let word = |mark: &str| format!("[document plan.pdf 1000 {mark}]");
    for is_kill in [false, true] {
        let mut bed = Bed::start_killable().await;
        bed.server.fault("sendDocument", 1, Fault::DoneHang);
        bed.reply(-70, 1, ReplyStep::Delta("before".into())).await;
        bed.reply(-70, 1, ReplyStep::File(file.clone())).await;
        until_shown(&bed.server, -70, &["before", "[document plan.pdf 1000]"]).await;
        if is_kill {
            bed.kill().await;
            for step in so_far("before", std::slice::from_ref(&file)) {
                bed.reply(-70, 1, step).await;
            }
        } else {
            bed.hand_off(Duration::from_millis(1)).await;
        }
        let both = ["before", "[document plan.pdf 1000]", &word(RECOVERED)];
        until_shown(&bed.server, -70, &both).await;
        bed.reply(-70, 1, ReplyStep::Delta("after".into())).await;
        bed.reply(-70, 1, ReplyStep::End(ReplyEnd::Complete)).await;
        bed.delivered(1).await;
        // What is over is not shown again.
        if is_kill {
            bed.kill().await
        } else {
            bed.hand_off(DRAIN).await
        };
        bed.notice(-70, "and on").await;
        until_shown(&bed.server, -70, &[&both[..], &["after", "and on"]].concat()).await;
    }
}

fn config(server: &TelegramServer, delay: &str) -> String {
    let (url, token) = (server.url(), server.token());
    format!(
        "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\", \"--delay\", \"{delay}\"]\n\
         [platforms.telegram]\ntoken = '{token}'\napi_url = '{url}'\nallow_from = ['7']\n\
         gateway_restart_notification = false\n"
    )
}

#[tokio::test]
async fn what_an_agent_sends_arrives_byte_by_byte_and_in_order_over_a_handoff() {
    let server = TelegramServer::start().await;
    let gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_hermes")), &config(&server, "300ms")).await;
    let work = gateway.home().join("report.txt");
    fs::write(&work, "a report").expect("writes");
    let photo = format!("[photo picture.png {}]", PICTURE.len());
    for (chat, prompt, wanted, bytes) in [
        (-70, "picture", photo.as_str(), PICTURE.to_vec()),
        (7, "file 300000 data.bin", "[document data.bin 300000]", made_up(300_000)),
    ] {
        server.say(7, chat, prompt);
        gateway.wait_until("the turn runs", async |s| s.agents.iter().any(|a| !a.turns.is_empty())).await;
        gateway.handoff(HandoffKind::Restart).await.expect("another image serves");
        until_shown(&server, chat, &["before", wanted, "after"]).await;
        assert_eq!(server.look(|state| files(state, chat)), [bytes]);
    }
    let log = gateway.log();
    assert!(!log.contains(" ERROR "), "{log}");
}

/// At each point of a delivery, whatever was done by then.
#[cfg(feature = "fault-points")]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_file_is_sent_once_or_marked_wherever_the_gateway_is_killed() {
    for point in ["done", "sending", "acknowledged"] {
        let server = TelegramServer::start().await;
        let mut gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_hermes")), &config(&server, "0ms")).await;
        server.say(7, -70, "hello");
        server.until("an answer", |state| (state.texts(-70) == ["hello"]).then_some(())).await;
        gateway.plan_faults(&format!("{point} kill"));
        server.say(7, -70, "picture");
        gateway.wait();
        gateway.start_again().await;
        let is_over = |state: &State| shown(state, -70).last().is_some_and(|last| last.contains("after")).then_some(());
        server.until("the answer", is_over).await;
        let (shown, bytes) = server.look(|state| (shown(state, -70), files(state, -70)));
        let unmarked = shown.iter().filter(|shown| shown.starts_with("[photo ") && !shown.contains('♻')).count();
        assert!((1..=2).contains(&bytes.len()) && unmarked <= 1, "{point}: {shown:?}");
        assert!(bytes.iter().all(|bytes| bytes == PICTURE), "{point}: {shown:?}");
        assert!(bytes.len() == 1 || shown.iter().any(|shown| shown.contains('♻')), "{point}: {shown:?}");
    }
}

/// The largest file that is embedded, and one byte more; a line of 27 MiB from the agent.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_largest_file_of_a_message_goes_over_a_handoff_and_a_larger_one_is_named() {
    let server = TelegramServer::start().await;
    let gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_hermes")), &config(&server, "0ms")).await;
    let largest = 20 << 20;
    server.say(7, -70, &format!("file {largest} largest.bin"));
    gateway.wait_until("the turn runs", async |s| s.agents.iter().any(|a| !a.turns.is_empty())).await;
    gateway.handoff(HandoffKind::Restart).await.expect("another image serves");
    until_shown(&server, -70, &["before", &format!("[document largest.bin {largest}]"), "after"]).await;
    assert!(server.look(|state| files(state, -70)) == [made_up(largest)], "other bytes");
    server.say(7, -71, &format!("file {} larger.bin", largest + 1));
    until_shown(&server, -71, &["before", "📎 larger.bin (not sent: it is larger than 20 MiB)", "after"]).await;
}
