//! What a new image may find instead of the state of the one before: it ends with a reason, before it touches anything.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use hermes_gateway::handoff::adopt::STATE_FD_VARIABLE;
use hermes_gateway::handoff::codec::{Section, encode};
use hermes_gateway::handoff::{Phase, Timeline};
use hermes_gateway::sys::memfd;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::{Value, json};

use super::{BINARY, ECHO, home};

/// Every section as the state of a gateway without agents and clients has it, but for the fds.
fn plain() -> Vec<(&'static str, u32, Value)> {
    let image = json!({ "version": "1.0.0", "sha256": "" });
    let passport = json!({
        "generation": 1, "kind": "restart", "origin": { "signal": { "name": "SIGUSR1" } }, "from": image, "to": image,
        "started_at": 1, "timeline": Timeline::start(Phase::Preflight), "process_started_at": 1,
        "turns_carried": 0, "agents_carried": 0,
    });
    vec![
        ("fds", 1, json!({})),
        ("passport", 1, passport),
        ("gateway", 1, json!({ "talks": [], "agents": {} })),
        ("agents", 1, json!([])),
        ("control", 1, json!({ "state": {}, "clients": [] })),
        ("platforms", 1, json!([])),
        ("local", 1, json!({})),
        ("stash", 1, json!({ "messages": [], "requests": [] })),
    ]
}

/// [`plain`] with one section replaced.
fn with(name: &'static str, value: Value) -> Vec<u8> {
    let mut sections = plain();
    sections.iter_mut().find(|(section, ..)| *section == name).expect("it is one of them").2 = value;
    blob(&sections)
}

fn blob(sections: &[(&str, u32, Value)]) -> Vec<u8> {
    let sections: Vec<Section> = sections
        .iter()
        .map(|(name, version, value)| Section {
            name: (*name).to_owned(),
            version: *version,
            payload: value.to_string().into_bytes(),
        })
        .collect();
    encode(&sections).expect("it is small")
}

fn sealed(content: &[u8]) -> File {
    memfd::seal("test", content).expect("the kernel makes memfds")
}

/// What `gateway run` says when it finds `state` as an image leaves it for the next.
fn adopting(state: &File) -> String {
    let dir = home();
    std::fs::write(dir.path().join("gateway.toml"), ECHO).expect("writes");
    // This one is not CLOEXEC.
    let left: OwnedFd = rustix::io::dup(state).expect("duplicates");
    run(dir.path(), &["gateway", "run"], Some(&left.as_raw_fd().to_string()), Stdio::null())
}

/// What `handoff-check` says about `state`.
fn checking(state: &File) -> String {
    let dir = home();
    let mut input = state.try_clone().expect("duplicates");
    input.rewind().expect("rewinds");
    run(dir.path(), &["handoff-check"], None, input.into())
}

/// Runs a command that has to fail with 1 and one line of error.
fn run(home: &Path, arguments: &[&str], number: Option<&str>, input: Stdio) -> String {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_clear().env("HERMES_HOME", home).stdin(input);
    if let Some(number) = number {
        command.env(STATE_FD_VARIABLE, number);
    }
    let output = command.output().expect("starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{arguments:?}\n{stderr}");
    let errors: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    errors[0].to_owned()
}

#[test]
fn a_state_that_is_none_is_refused() {
    let text = b"no state, but enough bytes for its header and its checksum: ....................................";
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(text).expect("writes");
    let mut open = File::from(memfd_create("test", MemfdFlags::ALLOW_SEALING).expect("creates"));
    open.write_all(&blob(&plain())).expect("writes");
    let mut flipped = blob(&plain());
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let cut = &blob(&plain())[..100];
    for (state, reason) in [
        (file, "cannot read the state: the state is not in a sealed memfd"),
        (open, "cannot read the state: the state is not in a sealed memfd"),
        (sealed(text), "cannot read the state: not a hermes state (wrong magic)"),
        (sealed(b""), "cannot read the state: not a hermes state (wrong magic)"),
        (sealed(&flipped), "cannot read the state: the state is damaged: its checksum does not match"),
        (sealed(cut), "cannot read the state: the state is damaged: its length is not the one it names"),
    ] {
        assert_refused(&state, reason);
    }
}

#[test]
fn a_state_of_another_form_is_refused() {
    let without = |name: &str| blob(&plain().into_iter().filter(|(section, ..)| *section != name).collect::<Vec<_>>());
    let newer = |name: &str| {
        let of = |(section, version, value)| (section, if section == name { 99 } else { version }, value);
        blob(&plain().into_iter().map(of).collect::<Vec<_>>())
    };
    for (state, reason) in [
        (without("passport"), "the state has no section 'passport'"),
        (without("agents"), "the state has no section 'agents'"),
        (without("fds"), "the state has no section 'fds'"),
        (newer("passport"), "section 'passport' has version 99, and this version reads 1 to 1"),
        (newer("stash"), "section 'stash' has version 99, and this version reads 1 to 1"),
        (newer("fds"), "section 'fds' has version 99, and this version reads 1 to 1"),
        (with("passport", json!({})), "cannot read section 'passport': missing field `generation` at line 1 column 2"),
    ] {
        assert_refused(&sealed(&state), reason);
    }
}

fn assert_refused(state: &File, reason: &str) {
    let error = adopting(state);
    assert_eq!(error, format!("the gateway cannot run: cannot take over from the previous image: {reason}"));
    let error = checking(state);
    assert_eq!(error, format!("cannot take over: cannot read the state on standard input: {reason}"));
}

#[test]
fn a_number_that_is_no_inherited_fd_is_refused() {
    let dir = home();
    for (number, reason) in [
        ("987", "cannot take over the inherited fds: inherited fd 987 is not open"),
        ("0", "cannot take over the inherited fds: inherited fd 0 is not open"),
        ("-1", "cannot take over the inherited fds: inherited fd -1 is not open"),
        ("state", "HERMES_HANDOFF_FD is 'state', which is no inherited fd"),
        ("99999999999", "HERMES_HANDOFF_FD is '99999999999', which is no inherited fd"),
    ] {
        let error = run(dir.path(), &["gateway", "run"], Some(number), Stdio::null());
        assert_eq!(error, format!("the gateway cannot run: cannot take over from the previous image: {reason}"));
    }
}

/// Each section in turn is something else that JSON can say.
#[test]
fn whatever_a_section_says_nothing_panics() {
    let deep = serde_json::from_str(&format!("{}{}", "[".repeat(120), "]".repeat(120))).expect("not too deep");
    let values = [
        Value::Null,
        json!(-1),
        json!(1e300),
        json!("text"),
        json!([[]]),
        json!({ "": null }),
        json!([{ "name": "", "state": null, "running": true, "turns": 0 }]),
        json!({ "entered": [], "clients": [0, 0], "state": null, "talks": [{}] }),
        deep,
    ];
    for (name, ..) in plain() {
        for value in &values {
            let dir = home();
            std::fs::write(dir.path().join("gateway.toml"), ECHO).expect("writes");
            let state = sealed(&with(name, value.clone()));
            let output = Command::new(BINARY)
                .args(["handoff-check"])
                .env("HERMES_HOME", dir.path())
                .stdin(state)
                .output()
                .expect("starts");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!stderr.contains("panicked"), "{name} = {value}\n{stderr}");
            assert!(matches!(output.status.code(), Some(0 | 1)), "{name} = {value}\n{stderr}");
        }
    }
}

/// What reads well and yet cannot be taken over.
#[test]
fn a_state_whose_parts_do_not_fit_is_refused_by_the_part() {
    let passport = |change: &dyn Fn(&mut Value)| {
        let mut passport = plain().remove(1).2;
        change(&mut passport);
        with("passport", passport)
    };
    for (state, reason) in [
        (blob(&plain()), "cannot take over fd 'listen.control' from the previous image: it was not handed over"),
        (with("fds", json!({ "listen.control": 987 })), "inherited fd 987 is not open"),
        (with("fds", json!({ "listen.control": 1 })), "inherited fd 1 is not open"),
        (
            passport(&|passport| passport["timeline"] = json!({ "entered": [] })),
            "cannot read section 'passport': a timeline has at least one phase, and all in their order",
        ),
        (
            passport(&|passport| passport["timeline"]["entered"] = json!([["committed", 1]])),
            "cannot take over the passport from the previous image: its handoff is over already",
        ),
        (
            with("agents", json!([{ "name": "default", "state": {}, "running": true, "turns": 0 }])),
            "it was not handed over",
        ),
    ] {
        let error = adopting(&sealed(&state));
        assert!(error.contains(reason), "{error}");
    }
}

/// The numbers of the table are real fds, and none of them is what its name says.
#[test]
fn fds_that_are_something_else_are_refused() {
    let null = File::options().read(true).write(true).open("/dev/null").expect("opens");
    let left: Vec<OwnedFd> = (0..5).map(|_| rustix::io::dup(&null).expect("duplicates")).collect();
    let number = |at: usize| left[at].as_raw_fd();
    let mut sections = plain();
    sections[0].2 = json!({
        "lock": number(0), "listen.control": number(1), "agent.default.stdin": number(2),
        "agent.default.stdout": number(3), "agent.default.pidfd": number(4),
    });
    sections[3].2 = json!([{ "name": "default", "running": true, "turns": 0, "state": {
        "connection": {}, "process": { "pid": 1, "started": 1 },
    } }]);
    let error = adopting(&sealed(&blob(&sections)));
    assert!(error.starts_with("the gateway cannot run: cannot take over "), "{error}");
}
