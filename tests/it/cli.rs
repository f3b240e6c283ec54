//! The command line: each command against a scripted gateway, its JSON, its exit codes and what it says.

mod chat;
mod setup;
mod weixin;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use hermes_gateway::control::proto;
use hermes_gateway::jsonrpc::ErrorObject;
use serde_json::{Value, json};

use crate::support::fake_gateway::{Act, FakeGateway};

/// The longest wait for a command.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command line of a user whose home directory is `home`.
fn hermes(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hermes"));
    command.args(args).env_clear().env("HERMES_HOME", home);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for the command's end, and kills it if that does not come.
fn finish(child: Child) -> Output {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let (sender, receiver) = mpsc::channel();
    let waiting = std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(PATIENCE);
    if output.is_err() {
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it still runs");
    }
    waiting.join().expect("joins").ok();
    output.expect("the command ends in time").expect("its output can be read")
}

fn run(home: &Path, args: &[&str]) -> Output {
    finish(hermes(home, args).spawn().expect("starts"))
}

fn run_with_input(home: &Path, args: &[&str], input: &str) -> Output {
    let mut child = hermes(home, args).stdin(Stdio::piped()).spawn().expect("starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("writes");
    finish(child)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn image(version: &str) -> Value {
    json!({ "version": version, "sha256": version.replace('.', "a").repeat(12) })
}

fn status(version: &str, generation: u64) -> Value {
    json!({
        "gateway_state": "running", "image": image(version), "pid": 4242, "generation": generation,
        "started_at": 1_000, "image_started_at": 2_000, "phase": "serving", "waiting_for": null, "home": "/var/lib/hermes",
        "platforms": [{ "name": "local", "state": "connected", "updated_at": 1_000 }],
        "agents": [{ "name": "default", "state": "ready", "pid": 4243, "title": "Echo", "error": null, "turns": [] }],
        "queued_turns": 0, "handoffs": []
    })
}

fn report(kind: &str, from: &str, to: &str) -> Value {
    json!({
        "kind": kind, "from": image(from), "to": image(to), "pid": 4242, "generation": 1, "agents_carried": 1,
        "turns_carried": 3, "blackout_us": 4_200, "duration_us": 90_000, "phases_us": [["execve", 2_000]],
        "dry_run": false
    })
}

fn ok(value: Value) -> Vec<Act> {
    vec![Act::Respond(Ok(value))]
}

fn err(code: i64, message: &str) -> Vec<Act> {
    vec![Act::Respond(Err(ErrorObject::new(code, message)))]
}

/// A gateway whose handoffs end with `end`.
fn handing_off(mut end: impl FnMut() -> Vec<Act> + Send + 'static) -> FakeGateway {
    FakeGateway::start(move |method, _| match method {
        proto::STATUS => ok(status("1.4.0", 0)),
        proto::HANDOFF => end(),
        _ => err(ErrorObject::METHOD_NOT_FOUND, "there is no such method"),
    })
}

#[test]
fn help_names_every_command() {
    let output = run(Path::new("/nonexistent"), &["-h"]);
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(stdout(&output), @r"
    Joins chat platforms to AI agents, and replaces its own binary while it runs

    Usage: hermes [OPTIONS] <COMMAND>

    Commands:
      setup        Configure the gateway by questions and answers, and start it
      gateway      Run, watch and steer the gateway
      self-update  Update the running gateway to a newer release, in place [alias: update]
      pairing      Let people in by the codes that they were given in a chat
      weixin       Log in to Weixin (WeChat)
      chat         Talk to the gateway's agent from this terminal
      agent        Run a built-in ACP agent, for this gateway or any other ACP client
      completion   Print completions for a shell

    Options:
          --home <DIR>  The gateway's home directory [env: HERMES_HOME] [default: ~/.hermes]
      -h, --help        Print help (see more with '--help')
      -V, --version     Print version
    ");
}

#[test]
fn the_version_is_the_package_s() {
    let output = run(Path::new("/nonexistent"), &["--version"]);
    assert_eq!(stdout(&output), format!("hermes {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for args in [&["gateway", "statsu"][..], &[], &["self-update", "--check", "--version", "1.0.0"], &["--nonsense"]] {
        let output = run(Path::new("/nonexistent"), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn an_empty_home_is_none_and_the_environment_is_to_be_changed() {
    let output = run(Path::new(""), &["gateway", "status"]);
    assert_eq!(output.status.code(), Some(78));
    insta::assert_snapshot!(stderr(&output), @r"
    error: no home directory: neither --home nor HERMES_HOME nor HOME is set
    hint: name the gateway's home with --home DIR
    ");
}

#[test]
fn without_a_gateway_each_command_says_how_to_start_one() {
    let home = Path::new("/nonexistent/home");
    for args in [&["gateway", "status"][..], &["gateway", "restart"], &["gateway", "reload"], &["gateway", "stop"]]
        .into_iter()
        .chain([&["self-update", "--yes"][..], &["update", "--check"], &["chat"], &["chat", "--once", "hi"]])
    {
        let output = run(home, args);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""), "{args:?}");
        let expected = "error: no gateway is running on /nonexistent/home\n\
                        hint: start it with `hermes gateway start` or `run`, or name its home with --home DIR\n";
        assert_eq!(stderr(&output), expected, "{args:?}");
    }
}

#[test]
fn with_json_an_error_is_a_document_too() {
    let output = run(Path::new("/nonexistent/home"), &["gateway", "status", "--json"]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(1), ""));
    let expected = json!({ "code": "not_running", "message": "no gateway is running on /nonexistent/home" });
    assert_eq!(json_of(&output), json!({ "error": expected }));
}

#[test]
fn status_is_for_people_and_for_programs() {
    let gateway = FakeGateway::start(|_, _| ok(status("1.4.0", 0)));
    let output = run(gateway.home(), &["gateway", "status", "--json"]);
    assert_eq!((output.status.code(), json_of(&output)), (Some(0), status("1.4.0", 0)));

    let output =
        run(Path::new("/nonexistent"), &["gateway", "status", "--home", gateway.home().to_str().expect("UTF-8")]);
    assert!(
        stdout(&output).starts_with("hermes 1.4.0 (sha256 1a4a01a4a01a…) is running\n  PID 4242, up "),
        "{output:?}"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let gateway = FakeGateway::start(|_, _| ok(status("1.4.0", 0)));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = finish(hermes(gateway.home(), &["gateway", "status"]).stdout(writer).spawn().expect("starts"));
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn a_restart_shows_its_phases_and_how_it_ended() {
    let gateway = handing_off(|| {
        let progress = |phase, message| Act::Notify(proto::PROGRESS, json!({ "phase": phase, "message": message }));
        vec![
            progress("preflight", "trying the image"),
            progress("preflight", "still trying the image"),
            Act::Adopt,
            progress("adopt", "the new image serves"),
            Act::Respond(Ok(report("restart", "1.4.0", "1.4.0"))),
        ]
    });
    let output = run(gateway.home(), &["gateway", "restart", "--force", "--reason", "why not"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stdout(&output), "restarted 1.4.0, same process (PID 4242), 3 turns carried, 4 ms\n");
    assert_eq!(stderr(&output), "preflight: trying the image\nadopt: the new image serves\n");
    let expected = json!({ "kind": "restart", "force": true, "reason": "why not" });
    assert_eq!(gateway.request_of(proto::HANDOFF), expected);

    let output = run(gateway.home(), &["gateway", "reload", "--json"]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    assert_eq!(json_of(&output), report("restart", "1.4.0", "1.4.0"));
    assert_eq!(gateway.request_of(proto::HANDOFF)["kind"], "reload");
}

#[test]
fn a_refused_or_failed_handoff_is_a_failure_with_its_reason() {
    let cases = [
        (proto::BUSY, "busy", "another handoff is under way"),
        (proto::HANDOFF_FAILED, "handoff_failed", "preflight: the image exits with 1"),
        (proto::FORBIDDEN, "forbidden", "not you"),
        (ErrorObject::METHOD_NOT_FOUND, "unsupported", "no such method"),
    ];
    for (number, code, message) in cases {
        let gateway = handing_off(move || err(number, message));
        let output = run(gateway.home(), &["gateway", "restart"]);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
        assert!(stderr(&output).starts_with(&format!("error: {message}\n")), "{output:?}");
        let output = run(gateway.home(), &["self-update", "--json", "--yes"]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(json_of(&output), json!({ "error": { "code": code, "message": message } }));
    }
}

/// The gateway breaks all connections in the handoff; the next status shows `after`.
fn restart_over_a_break(after: fn() -> Value) -> Output {
    let mut broken = false;
    let gateway = FakeGateway::start(move |method, _| match method {
        proto::STATUS if broken => ok(after()),
        proto::STATUS => ok(status("1.4.0", 0)),
        _ => {
            broken = true;
            vec![Act::Break]
        }
    });
    run(gateway.home(), &["gateway", "restart"])
}

#[test]
fn a_broken_connection_is_judged_by_what_runs_afterwards() {
    let output = restart_over_a_break(|| status("1.4.0", 1));
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(0), "restarted 1.4.0, same process (PID 4242)\n")
    );

    let output = restart_over_a_break(|| status("1.4.0", 0));
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    let expected = "error: the connection broke during the handoff, and 1.4.0 goes on as before";
    assert!(stderr(&output).contains(expected), "{output:?}");
}

#[test]
fn a_stop_waits_until_the_gateway_has_gone() {
    for (args, expected) in
        [(&["gateway", "stop"][..], "stopped (PID 4242)\n"), (&["gateway", "stop", "--json"], "null\n")]
    {
        let gateway = FakeGateway::start(|method, _| match method {
            proto::STATUS => ok(status("1.4.0", 0)),
            _ => vec![Act::Respond(Ok(Value::Null)), Act::Stop],
        });
        let output = run(gateway.home(), args);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), expected));
        assert_eq!(gateway.request_of(proto::STOP), Value::Null);
    }
}

#[test]
fn an_update_is_asked_for_as_it_was_typed() {
    let gateway = handing_off(|| ok(report("update", "1.4.0", "1.5.0")));
    for (args, expected) in [
        (&["self-update"][..], json!({ "version": null, "dry_run": false })),
        (&["update", "--yes", "--version", "1.5.0"], json!({ "version": "1.5.0", "dry_run": false })),
        (&["self-update", "--dry-run"], json!({ "version": null, "dry_run": true })),
    ] {
        let output = run(gateway.home(), args);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(stdout(&output), "updated 1.4.0 → 1.5.0, same process (PID 4242), 3 turns carried, 4 ms\n");
        let params = gateway.request_of(proto::HANDOFF);
        assert_eq!(json!({ "version": params["version"], "dry_run": params["dry_run"] }), expected);
        assert_eq!(params["kind"], "update");
    }
}

#[test]
fn a_revert_is_asked_for_and_told_as_such() {
    let gateway = handing_off(|| ok(report("revert", "1.5.0", "1.4.0")));
    for (args, dry_run) in [(&["self-update", "--revert"][..], false), (&["update", "--revert", "--dry-run"], true)] {
        let output = run(gateway.home(), args);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(stdout(&output), "reverted 1.5.0 → 1.4.0, same process (PID 4242), 3 turns carried, 4 ms\n");
        let params = gateway.request_of(proto::HANDOFF);
        assert_eq!(json!([params["kind"], params["dry_run"]]), json!(["revert", dry_run]));
    }
    for args in [&["self-update", "--revert", "--version", "1.0.0"][..], &["self-update", "--revert", "--check"]] {
        assert_eq!(run(gateway.home(), args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn nothing_newer_is_told_and_is_no_failure() {
    let gateway = handing_off(|| err(proto::UP_TO_DATE, "1.4.0 is the newest release"));
    let output = run(gateway.home(), &["self-update", "--yes"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "hermes 1.4.0 is up to date\n"));
    let output = run(gateway.home(), &["self-update", "--yes", "--json"]);
    let expected =
        json!({ "running": "1.4.0", "available": null, "date": null, "notes_url": null, "failed_before": null });
    assert_eq!((output.status.code(), json_of(&output)), (Some(0), expected));
}

#[test]
fn a_check_only_tells() {
    let found = json!({
        "running": "1.4.0", "available": "1.5.0", "date": "2026-11-01", "notes_url": "https://x/n",
        "failed_before": null,
    });
    let answer = found.clone();
    let gateway = FakeGateway::start(move |method, _| {
        assert_eq!(method, proto::UPDATE_CHECK, "a check asks for nothing else");
        ok(answer.clone())
    });
    let output = run(gateway.home(), &["self-update", "--check", "--json"]);
    assert_eq!((output.status.code(), json_of(&output)), (Some(0), found));
    let output = run(gateway.home(), &["update", "--check"]);
    insta::assert_snapshot!(stdout(&output), @r"
    hermes 1.5.0 of 2026-11-01 is available (1.4.0 is running)
      notes: https://x/n
    ");
}
