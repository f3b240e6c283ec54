//! States that earlier images handed over, as they stood in their memfd: this image must be able to take each over.
//!
//! `tests/data/state-N.bin` is kept for good once the release that wrote it is out. They were taken in the middle of
//! everything: a streaming turn, one that asks for permission, a waiting message, a half-delivered reply, and a control
//! client that waits for its answer. `tests/data/store-N.db` is the same for the database of schema N.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use hermes_gateway::chat::{Content, Conversation, NotSent};
use hermes_gateway::clock::UnixMillis;
use hermes_gateway::handoff::codec::{self, Section};
use hermes_gateway::handoff::preflight::CheckReport;
use hermes_gateway::id::{SessionId, TurnId};
use hermes_gateway::store::{Accepted, Change, EntryId, Outbox, SCHEMA_VERSION, Span, Standing, Store, Target};
use hermes_gateway::sys::memfd;

/// Lets the preflight child read a state, in a home of its own.
fn check(state: &[u8]) -> Output {
    let home = tempfile::tempdir().expect("a temporary directory");
    let memfd = memfd::seal("golden", state).expect("seals");
    Command::new(env!("CARGO_BIN_EXE_hermes"))
        .arg("--home")
        .arg(home.path())
        .arg("handoff-check")
        .stdin(Stdio::from(memfd))
        .output()
        .expect("hermes starts")
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).expect("the state is kept")
}

#[test]
fn the_state_of_every_earlier_form_is_read() {
    let kept = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")).expect("states are kept");
    let names: Vec<String> =
        kept.map(|entry| entry.expect("reads").file_name().into_string().expect("plain")).collect();
    assert!(names.contains(&"state-1.bin".to_owned()), "{names:?}");
    for name in names.iter().filter(|name| name.starts_with("state-")) {
        let output = check(&golden(name));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let report: CheckReport = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!(report.product, "hermes-gateway");
    }
}

/// Preflight reads every part's state, not only the sections around them: a part that is not understood would be lost.
#[test]
fn a_part_that_is_not_understood_is_refused_by_name() {
    for (section, member, wrong) in [
        ("agents", r#""connection":"#, r#""connexion":"#),
        ("control", r#""next_client":"#, r#""next_guest":"#),
        ("platforms", r#""account":"4242""#, r#""account":{}"#),
        ("gateway", r#""talks":"#, r#""walks":"#),
        ("passport", r#""origin":"#, r#""source":"#),
    ] {
        let mut sections = codec::decode(&golden("state-1.bin")).expect("a state");
        let part = sections.iter_mut().find(|part: &&mut Section| part.name == section).expect("it has the section");
        let text = String::from_utf8(part.payload.clone()).expect("JSON");
        assert!(text.contains(member), "{section} has {member}");
        part.payload = text.replace(member, wrong).into_bytes();
        let output = check(&codec::encode(&sections).expect("encodes"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{section}: {said}");
        assert!(said.contains(&format!("cannot read section '{section}'")), "{said}");
    }
}

/// A copy of a database that an image of schema `version` wrote, brought to this schema.
fn store(version: i64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("state.db");
    std::fs::write(&path, golden(&format!("store-{version}.db"))).expect("writes");
    let store = Store::open(&path).unwrap_or_else(|error| panic!("schema {version}: {error:?}"));
    (dir, store)
}

#[tokio::test]
async fn the_database_of_every_earlier_schema_is_read() {
    for version in 1..=SCHEMA_VERSION {
        let (_dir, store) = store(version);
        let open = store.open_turns().await.expect("lists");
        let open: Vec<_> = open.iter().map(|turn| (turn.turn.0, turn.inbound.text.as_str(), turn.running)).collect();
        assert_eq!(open, [(2, "runs", true), (3, "waits", false)], "schema {version}");
        let again = store.inbound(TurnId(1)).await.expect("reads").expect("it is kept");
        assert_eq!(store.accept(&again).await.expect("accepts"), Accepted::Duplicate);
        assert_eq!(store.cursor("telegram", "4242").await.expect("reads").as_deref(), Some("77"));
        assert_eq!(store.meta("highest_version").await.expect("reads").as_deref(), Some("1.0.0"));
        let sessions = store.sessions(vec![again.conversation]).await.expect("reads");
        assert_eq!(sessions[0].session.as_ref().map(SessionId::as_str), Some("session-1"));
        assert_eq!(store.handoffs(9).await.expect("lists")[0].outcome, "committed");
        let outbox = store.outbox("telegram").await.expect("reads");
        if version >= 2 {
            let entries: Vec<_> = outbox.entries.iter().map(|entry| (entry.id.0, entry.text.as_deref())).collect();
            assert_eq!(entries, [(2, None), (3, Some("updated"))]);
            let parts: Vec<_> = outbox.entries[0]
                .parts
                .iter()
                .map(|part| (part.start, part.is_marked, part.message_id.as_deref()))
                .collect();
            assert_eq!(parts, [(0, false, Some("9001")), (4000, true, None)]);
            assert_eq!(outbox.last, Some(EntryId(4)));
            let moved = Target::Moved("-1".into(), "-1001".into());
            assert_eq!(outbox.targets, [Target::Unreachable("666".into()), moved]);
        } else {
            assert_eq!(outbox, Outbox::default());
        }
        if version >= 4 {
            let [kept, missing] = &outbox.entries[0].files[..] else { panic!("{:?}", outbox.entries[0].files) };
            let path = "/var/lib/hermes/attachments/out/2/0-plan.pdf".into();
            assert_eq!((kept.at, &kept.content), (4000, &Content::Kept { path, bytes: 300 }));
            let why = NotSent::TooLarge { bytes_max: 20 << 20 };
            assert_eq!((missing.number, &missing.content), (1, &Content::Missing { why, link: None }));
            assert_eq!(outbox.entries[0].parts[1].file, Some(0));
        }
        if version >= 5 {
            let lines = store.lines("owner", Span::Behind(0), 9).await.expect("reads");
            let said: Vec<_> = lines.iter().map(|line| (line.number, line.body.contains("hello"))).collect();
            assert_eq!(said, [(1, true), (2, false)]);
        }
        if version >= 3 {
            assert_eq!(outbox.entries[0].parts[0].length, Some(4000));
            assert_eq!(outbox.entries[1].choices[0].command, "/approve 17.1");
            let context = store.context("dingtalk", "app", "cid1").await.expect("reads");
            assert_eq!(context.as_deref(), Some(r#"{"robot_code":"robot1"}"#));
            let pairings = store.pairings().await.expect("reads");
            let known: Vec<_> = pairings.iter().map(|pairing| (pairing.user.as_str(), &pairing.standing)).collect();
            let asked = Standing::Asked { code: "ABCD2345".into(), asked_at: UnixMillis(6), told_at: UnixMillis(7) };
            assert_eq!(known, [("9", &Standing::Approved { at: UnixMillis(5) }), ("8", &asked)]);
        }
    }
}

/// The image that comes back after an update finds the database as the newer one left it. These are its statements.
#[tokio::test]
async fn an_image_of_the_first_schema_still_reads_and_writes_what_this_one_has_changed() {
    let (dir, store) = store(1);
    let notice = Change::Notice(Conversation::new("telegram", "1001"), "new".into());
    store.change(vec![notice]).await.expect("records");
    drop(store);
    let old = rusqlite::Connection::open(dir.path().join("state.db")).expect("opens");
    let known: i64 = old.pragma_query_value(None, "user_version", |row| row.get(0)).expect("reads");
    assert_eq!(known, 1, "what an image of schema 1 checks");
    old.execute_batch(
        "INSERT INTO inbox (platform, account, message_id, inbound, state, received_ms, updated_ms)
         VALUES ('p', 'a', 'm', '{}', 'queued', 1, 1) ON CONFLICT DO NOTHING;
         UPDATE inbox SET state = 'done', updated_ms = 2 WHERE message_id = 'm';
         SELECT id, inbound, state, received_ms FROM inbox WHERE state IN ('queued', 'running') ORDER BY id;
         INSERT OR REPLACE INTO sessions (conversation, agent, session_id, updated_ms) VALUES ('c', 'a', NULL, 1);
         INSERT OR REPLACE INTO cursors (platform, account, value) VALUES ('p', 'a', '1');
         INSERT OR REPLACE INTO meta (key, value) VALUES ('k', 'v');
         INSERT INTO handoffs (record, ended_ms) VALUES ('{}', 1);
         DELETE FROM inbox WHERE message_id = 'm';",
    )
    .expect("every statement runs");
}
