//! The command line: each command against a scripted gateway, its JSON, its exit codes and what it says.

mod chat;
mod setup;
mod watch;
mod weixin;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use hermes_gateway::control::proto;
use hermes_gateway::jsonrpc::ErrorObject;
use serde_json::{Value, json};

use crate::support::fake_gateway::{Act, FakeGateway};
use crate::support::schema;

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
    let output = finish(hermes(home, args).spawn().expect("starts"));
    schema::check(args, &output.stdout);
    output
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
        "queued_turns": 0, "handoffs": [], "update": proto::UpdateStatus::default(),
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
      self-update  Update the gateway in place, or what it is started with next [alias: update]
      config       Look at the configuration
      pairing      Let people in by the codes that they were given in a chat
      weixin       Log in to Weixin (WeChat)
      chat         Talk to the gateway's agent from this terminal
      doctor       Look for what is wrong, and say how to put it right
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
    for args in [&["gateway", "restart"][..], &["gateway", "reload"], &["gateway", "stop"]].into_iter().chain([
        &["self-update", "--yes"][..],
        &["update", "--check"],
        &["chat"],
        &["chat", "--once", "hi"],
    ]) {
        let output = run(home, args);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""), "{args:?}");
        let expected = "error: no gateway is running on /nonexistent/home\n\
                        hint: start it with `hermes gateway start` or `run`, or name its home with --home DIR\n";
        assert_eq!(stderr(&output), expected, "{args:?}");
    }
}

#[test]
fn with_json_an_error_is_a_document_too() {
    let output = run(Path::new("/nonexistent/home"), &["gateway", "restart", "--json"]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(1), ""));
    let expected = json!({ "code": "not_running", "message": "no gateway is running on /nonexistent/home" });
    assert_eq!(json_of(&output), json!({ "error": expected }));
}

#[test]
fn the_status_of_a_gateway_that_does_not_run_says_why_and_what_starts_it() {
    let home = tempfile::tempdir().expect("a directory");
    let state = json!({ "gateway_state": "running", "version": "1.4.0", "updated_at": 1_000 });
    std::fs::write(home.path().join("gateway_state.json"), state.to_string()).expect("writes");
    let output = run(home.path(), &["gateway", "status"]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(3), ""));
    let text = stdout(&output);
    for said in ["hermes does not run", "it was killed, or it crashed", "ran    1.4.0", "start  hermes gateway run"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let output = run(home.path(), &["gateway", "status", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let told = json_of(&output);
    assert_eq!((&told["error"]["code"], &told["last_version"]), (&json!("not_running"), &json!("1.4.0")));
}

#[test]
fn watching_tells_each_change_and_a_handoff_is_no_error() {
    let mut generation = 0;
    let gateway = FakeGateway::start(move |_, _| {
        generation += 1;
        match generation {
            1 => ok(status("1.4.0", 0)),
            2 => {
                let answer = Act::Respond(Ok(status("1.5.0", 1)));
                vec![Act::Adopt, answer]
            }
            _ => ok(status("1.5.0", 1)),
        }
    });
    let mut child = hermes(gateway.home(), &["gateway", "status", "--watch"]).spawn().expect("starts");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
    let seen: Vec<String> = lines.by_ref().take(2).map(|line| line.expect("UTF-8")).collect();
    assert!(seen[0].contains("1.4.0 running; phase serving; PID 4242 generation 0"), "{seen:?}");
    assert!(seen[1].contains("1.5.0 running; phase serving; PID 4242 generation 1"), "{seen:?}");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    assert_eq!(lines.count(), 0, "nothing else was told");
    let output = finish(child);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn the_history_comes_from_the_gateway_or_from_what_it_left() {
    let record = json!({
        "kind": "update", "requested_by": "Ann", "requested_via": "telegram:1", "from_version": "1.3.0",
        "from_sha256": "aa", "to_version": "1.4.0", "to_sha256": "bb", "generation": 1, "turns_carried": 0,
        "agents_carried": 0, "started_at": 1_000, "phases_us": [["exec", 900]], "outcome": "committed", "reason": null, "trace_id": null
    });
    let told = json!({ "handoffs": [record] });
    let answer = told.clone();
    let gateway = FakeGateway::start(move |method, params| match method {
        proto::HISTORY if params["limit"] == 3 => ok(answer.clone()),
        _ => err(ErrorObject::METHOD_NOT_FOUND, "there is no such method"),
    });
    let output = run(gateway.home(), &["gateway", "history", "-n", "3", "--json"]);
    assert_eq!((output.status.code(), json_of(&output)), (Some(0), told));
    // An older gateway does not know the question; its database is there, or not yet.
    let output = run(gateway.home(), &["gateway", "history"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "  no handoff is on record\n"));
}

#[test]
fn without_a_journal_it_is_said_where_the_log_is() {
    let home = tempfile::tempdir().expect("a directory");
    let output = finish(hermes(home.path(), &["gateway", "logs"]).env("PATH", "/nonexistent").spawn().expect("starts"));
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(stderr(&output), @r"
    error: there is no log to show: cannot run systemctl
    hint: a gateway that systemd does not run logs to the standard error of `hermes gateway run`
    ");
}

#[test]
fn status_is_for_people_and_for_programs() {
    let gateway = FakeGateway::start(|_, _| ok(status("1.4.0", 0)));
    let output = run(gateway.home(), &["gateway", "status", "--json"]);
    let read = |value| serde_json::from_value::<proto::Status>(value).expect("a status");
    assert_eq!((output.status.code(), read(json_of(&output))), (Some(0), read(status("1.4.0", 0))));

    let output =
        run(Path::new("/nonexistent"), &["gateway", "status", "--home", gateway.home().to_str().expect("UTF-8")]);
    assert!(stdout(&output).starts_with("hermes 1.4.0 is running\n  process  PID 4242, up "), "{output:?}");
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
    let expected = json!({
        "running": "1.4.0", "available": null, "date": null, "notes_url": null, "failed_before": null, "channel": "",
        "rollout": null, "held": null, "window": null, "offline": false,
    });
    assert_eq!((output.status.code(), json_of(&output)), (Some(0), expected));
}

#[test]
fn a_check_only_tells() {
    let found = json!({
        "running": "1.4.0", "available": "1.5.0", "date": "2026-11-01", "notes_url": "https://x/n",
        "failed_before": null, "channel": "beta", "rollout": { "percent": 25, "included": false },
        "held": { "since": 1, "until": null, "by": "Ann (id 1)" }, "window": "02:00-05:00", "offline": false,
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
      rolled out to 25 % of installations, this one not yet
    ");
}

#[test]
fn updates_are_held_and_let_go_on() {
    let held = json!({ "since": 1, "until": null, "by": "uid 0" });
    let answer = held.clone();
    let gateway = FakeGateway::start(move |method, params| match method {
        proto::UPDATE_HOLD => {
            assert_eq!(*params, json!({ "until": "7d" }));
            ok(json!({ "held": answer }))
        }
        proto::UPDATE_UNHOLD => ok(json!({})),
        _ => err(ErrorObject::METHOD_NOT_FOUND, "there is no such method"),
    });
    let output = run(gateway.home(), &["self-update", "--hold", "7d", "--json"]);
    assert_eq!((output.status.code(), json_of(&output)), (Some(0), json!({ "held": held })));
    let output = run(gateway.home(), &["update", "--unhold"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "updates are not held\n"));
    for args in [&["self-update", "--hold", "--unhold"][..], &["self-update", "--hold", "--check"]] {
        assert_eq!(run(gateway.home(), args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_configuration_is_checked_with_every_problem_and_its_place() {
    let home = tempfile::tempdir().expect("a directory");
    let output = run(home.path(), &["config", "check"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).ends_with("gateway.toml is not there; the defaults hold\n"), "{output:?}");

    let file = home.path().join("gateway.toml");
    std::fs::write(&file, "[gateway]\nprobatoin = 1\n[platforms.telegram]\ntoken_file = 't'\n[update]\nauto = 'on'\n")
        .expect("writes");
    std::fs::write(home.path().join("t"), "x").expect("writes");
    std::fs::set_permissions(home.path().join("t"), std::fs::Permissions::from_mode(0o644)).expect("changes");
    let output = run(home.path(), &["config", "check"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let told = stdout(&output).replace(&home.path().display().to_string(), "HOME");
    insta::assert_snapshot!(told, @r#"
    HOME/gateway.toml:2:1: unknown key 'probatoin' in [gateway]; did you mean 'probation'?
    HOME/gateway.toml:4:14: warning: everybody on this machine may read HOME/t (mode 0644), which holds a secret: chmod 600 HOME/t
    HOME/gateway.toml:6:8: 'auto' must be one of "off", "notify", "apply"
    "#);
    assert_eq!(stderr(&output), "error: the gateway would refuse this configuration\n");

    let output = run(Path::new("/nonexistent"), &["config", "check", file.to_str().expect("text"), "--json"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let document = json_of(&output);
    assert_eq!(json!([document["ok"], document["exists"], document["file"]]), json!([false, true, file]));
    assert_eq!(
        document["problems"][0],
        json!({
            "severity": "error", "line": 2, "column": 1, "key": "gateway.probatoin", "nearest": "probation",
            "message": "unknown key 'probatoin' in [gateway]; did you mean 'probation'?",
        })
    );
    assert_eq!(document["problems"][1]["severity"], "warning");

    std::fs::write(&file, "[gateway]\nprobation = '1s'\n").expect("writes");
    assert_eq!(run(home.path(), &["config", "check", "--json"]).status.code(), Some(0));
    let output = run(home.path(), &["config", "check", "/no/such.toml", "--json"]);
    assert_eq!((output.status.code(), &json_of(&output)["error"]["code"]), (Some(78), &json!("config")));
}

#[test]
fn a_stop_asks_systemd_for_the_time_that_it_may_take() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("binds");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    std::fs::write(dir.path().join("gateway.toml"), "[gateway]\nrestart_drain_timeout = '5m'\n").expect("writes");
    let gateway = hermes(dir.path(), &["gateway", "run"]).env("NOTIFY_SOCKET", &path).spawn().expect("starts");
    let told = |wanted: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).expect("it is told in time");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if let Some(line) = text.lines().find_map(|line| line.strip_prefix(wanted)) {
                return line.to_owned();
            }
        }
    };
    told("READY=1");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(gateway.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
    let micros: u64 = told("EXTEND_TIMEOUT_USEC=").parse().expect("a number");
    assert!(Duration::from_micros(micros) > Duration::from_secs(300), "{micros}");
    assert!(finish(gateway).status.success());
}
