//! States that earlier images handed over, as they stood in their memfd: this image must be able to take each over.
//!
//! `tests/data/state-N.bin` is kept for good once the release that wrote it is out. They were taken in the middle of
//! everything: a streaming turn, one that asks for permission, a waiting message, a half-delivered reply, and a control
//! client that waits for its answer.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use hermes_gateway::handoff::codec::{self, Section};
use hermes_gateway::handoff::preflight::CheckReport;
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
