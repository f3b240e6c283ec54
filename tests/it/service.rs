//! The unit files of `dist/`, and what `service` and `telemetry` do under a real systemd.
//!
//! Where a test needs a program with a certain part to play in a unit, it is this test binary: the unit runs the same
//! test function again with [`PART`] set.

mod webhook;

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hermes_gateway::config::Environment;
use hermes_gateway::service::fdstore::{self, FdStore};
use hermes_gateway::service::{listen::ListenError, notify::Notifier};
use hermes_gateway::telemetry::{self, LogFormat, TelemetryOptions, lifecycle};
use serde_json::Value;

use crate::support::systemd;
use crate::support::unit;

const DEADLINE: Duration = Duration::from_secs(90);

/// Set in the units that run this test binary.
const PART: &str = "HERMES_TEST_PART";

const UNIT: &str = "hermes-gateway.service";
const PROGRAM: &str = "/var/lib/hermes/versions/current/hermes";

/// Serves, with a child that does not end by itself, says so when told to reload, and ends with the code in `exit` on
/// SIGUSR2.
const PROGRAM_TEXT: &str = r#"#!/bin/sh
trap 'systemd-notify --status=reloaded' USR1
trap 'exit $(cat /var/lib/hermes/exit)' USR2
trap 'exit 0' TERM
(trap '' TERM; exec sleep infinity) &
id -un >/var/lib/hermes/user
echo $HERMES_HOME $STATE_DIRECTORY $RUNTIME_DIRECTORY >/var/lib/hermes/directories
systemd-notify --ready --status=serving
while :; do sleep 1 & wait $!; done
"#;

fn dist(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).output().expect("it is installed");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn install_program() {
    unit::add_user();
    unit::install_launcher(Path::new(env!("CARGO_BIN_EXE_hermes-launch")));
    fs::create_dir_all(Path::new(PROGRAM).parent().expect("a parent")).expect("the boot's own /var");
    fs::write(PROGRAM, PROGRAM_TEXT).expect("written");
    fs::set_permissions(PROGRAM, fs::Permissions::from_mode(0o755)).expect("executable");
}

/// The unit for a user, of one who has the launcher of [`unit::install_launcher`].
fn user_unit() -> String {
    let launcher = Path::new(unit::LAUNCHER_INSIDE).parent().and_then(Path::to_str).expect("a directory");
    dist("hermes-gateway.user.service").replace("%h/.hermes/bin", launcher)
}

/// The values of a key in a unit file.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// A unit that runs this test again, with a part to play.
fn part_unit(test: &str, settings: &str) -> String {
    let program = env::current_exe().expect("a test binary has a path");
    format!("[Service]\n{settings}\nEnvironment={PART}=1\nExecStart={} --exact {test} --nocapture\n", program.display())
}

#[test]
fn systemd_finds_nothing_to_complain_about() {
    let Some(_systemd) = systemd::inside("service::systemd_finds_nothing_to_complain_about", DEADLINE) else { return };
    install_program();
    let units = Path::new("/tmp/units");
    fs::create_dir(units).expect("made");
    for (name, text) in [
        (UNIT, unit::unit_text("on-failure")),
        ("hermes-gateway.socket", dist("hermes-gateway.socket")),
        ("hermes-gateway-webhook.socket", dist("hermes-gateway-webhook.socket")),
        // Under the name that it is installed as it would be verified instead of the other one.
        ("hermes-user.service", user_unit()),
    ] {
        let path = units.join(name);
        fs::write(&path, text).expect("written");
        let (clean, told) = run("systemd-analyze", &["verify", "--man=no", path.to_str().expect("text")]);
        assert!(clean && told.is_empty(), "{name}: {told}");
    }
    let unit = units.join(UNIT);
    let unit = unit.to_str().expect("text");
    let (_, table) = run("systemd-analyze", &["security", "--offline=yes", "--no-pager", unit]);
    println!("{table}");
    let exposure = table.split("Overall exposure level for hermes-gateway.service: ").nth(1).expect("it is told");
    let exposure = exposure.split_whitespace().next().expect("a number");
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("there is one");
    let promised = format!("an exposure of {exposure}");
    assert!(readme.contains(&promised), "README.md does not say '{promised}'\n{table}");
}

#[test]
fn the_user_unit_behaves_as_the_system_unit() {
    let (system, user) = (dist(UNIT), dist("hermes-gateway.user.service"));
    for key in [
        "Type",
        "NotifyAccess",
        "ExecReload",
        "WatchdogSec",
        "TimeoutStartSec",
        "TimeoutStopSec",
        "KillMode",
        "FileDescriptorStoreMax",
        "RuntimeDirectoryPreserve",
        "Restart",
        "RestartSec",
        "RestartForceExitStatus",
        "RestartPreventExitStatus",
        "OOMPolicy",
        "StartLimitIntervalSec",
        "RuntimeDirectory",
        "Description",
    ] {
        let expected = values(&system, key);
        assert_eq!(expected.len(), 1, "{key}");
        assert_eq!(values(&user, key), expected, "{key}");
    }
    for key in ["ExecStartPre", "ExecStart", "ExecStop", "ExecStopPost"] {
        // A user's service manager has no root to run them as.
        let expected = values(&system, key)[0].replace('+', "").replace("/usr/lib/hermes", "%h/.hermes/bin");
        assert_eq!(values(&user, key), [expected], "{key}");
    }
}

#[test]
fn the_unit_runs_restarts_and_stops_as_promised() {
    let name = "service::the_unit_runs_restarts_and_stops_as_promised";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    install_program();
    // The stand-in notifies through a child, and does not ping.
    let unit = unit::unit_text("on-failure");
    systemd.install(UNIT, &unit.replace("NotifyAccess=main", "NotifyAccess=all").replace("WatchdogSec=30", ""));
    systemd.systemctl(&["start", UNIT]);
    assert_eq!(systemd.show(UNIT, "StatusText"), "serving");
    let read = |name: &str| fs::read_to_string(Path::new("/var/lib/hermes").join(name)).expect("the program wrote it");
    assert_eq!(read("user"), "hermes\n");
    assert_eq!(read("directories"), "/var/lib/hermes /var/lib/hermes /run/hermes\n");
    assert_eq!(fs::metadata("/run/hermes").expect("made").permissions().mode() & 0o7777, 0o700);

    systemd.systemctl(&["reload", UNIT]);
    let reloaded = || systemd.show(UNIT, "StatusText") == "reloaded";
    systemd.wait_until("the main process hears of the reload", DEADLINE, reloaded);

    let ends_with = |code: &str| {
        fs::write("/var/lib/hermes/exit", code).expect("written");
        systemd.systemctl(&["kill", "--kill-whom=main", "--signal=USR2", UNIT]);
    };
    let restarted = |times: &str| {
        let back = || systemd.show(UNIT, "NRestarts") == times && systemd.show(UNIT, "ActiveState") == "active";
        systemd.wait_until("it is restarted", DEADLINE, back);
    };
    ends_with("1");
    restarted("1");
    ends_with("75");
    restarted("2");
    systemd.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", UNIT]);
    restarted("3");

    let left = systemd.processes(UNIT);
    assert!(left.len() >= 2, "the program and its child: {left:?}");
    systemd.systemctl(&["stop", UNIT]);
    assert_eq!(systemd.processes(UNIT), Vec::<u32>::new());
    assert!(left.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "a stop leaves no process");
    assert_eq!(systemd.show(UNIT, "Result"), "success");
    assert!(!Path::new("/run/hermes").exists());

    systemd.systemctl(&["start", UNIT]);
    ends_with("78");
    systemd.wait_until("it has ended", DEADLINE, || systemd.show(UNIT, "ActiveState") == "failed");
    assert_eq!(systemd.show(UNIT, "NRestarts"), "0", "a wrong configuration is not tried again");
}

#[test]
fn events_are_in_the_journal_with_their_fields() {
    let name = "service::events_are_in_the_journal_with_their_fields";
    if env::var_os(PART).is_some() {
        return log_some_events();
    }
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    systemd.install("log.service", &part_unit(name, "Type=oneshot"));
    systemd.systemctl(&["start", "log.service"]);

    let id = lifecycle::message_id(lifecycle::AGENT_DIED).expect("of the lifecycle");
    let entry = systemd.journalctl(&["--output", "json", "--unit", "log.service", &format!("MESSAGE_ID={id}")]);
    let entry: Value = serde_json::from_str(&entry).unwrap_or_else(|error| panic!("one entry: {error}: {entry}"));
    for (field, value) in [
        ("MESSAGE", "agent died code=3 reason=a \"b\" agent=default"),
        ("PRIORITY", "4"),
        ("SYSLOG_IDENTIFIER", "hermes"),
        ("TARGET", "hermes_gateway::agent"),
        ("HERMES_CODE", "3"),
        ("HERMES_REASON", "a \"b\""),
        ("HERMES_AGENT", "default"),
        ("_SYSTEMD_UNIT", "log.service"),
    ] {
        assert_eq!(entry[field], value, "{field} in {entry}");
    }
    let journal = systemd.journal("log.service");
    assert!(journal.contains("x…"), "a long value is cut, and its event is there");
    assert!(!journal.contains("must not appear"), "below the level");
    println!("{}", journal.lines().find(|line| line.contains("logging set up")).expect("told"));
}

fn log_some_events() {
    let env = Environment::from_process();
    let text = |name: &str| env.text(name).map(str::to_owned);
    let options = TelemetryOptions { journal_stream: text("JOURNAL_STREAM"), ..TelemetryOptions::default() };
    let start = Instant::now();
    let format = telemetry::init(&options).expect("set up");
    let elapsed_us = start.elapsed().as_micros();
    assert_eq!(format, LogFormat::Journal, "stderr of a unit leads to the journal");
    tracing::info!(target: "hermes_gateway::agent", elapsed_us, "logging set up");
    let span = tracing::info_span!(target: "hermes_gateway::agent", "turn", agent = tracing::field::Empty);
    span.record("agent", "default");
    span.in_scope(|| {
        let reason = "a \"b\"";
        tracing::warn!(name: lifecycle::AGENT_DIED, target: "hermes_gateway::agent", code = 3, reason, "agent died");
    });
    tracing::debug!(target: "hermes_gateway::agent", "must not appear");
    tracing::info!(target: "hyper", "must not appear");
    tracing::info!(target: "hermes_gateway::agent", long = "x".repeat(1 << 20), "long");
}

#[test]
fn systemd_hears_what_is_notified() {
    let name = "service::systemd_hears_what_is_notified";
    if env::var_os(PART).is_some() {
        let notifier = Notifier::from_env(&Environment::from_process());
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_secs(10)));
        notifier.reloading("handing off");
        notifier.ready("serving");
        notifier.watchdog_ping();
        // systemd attributes a notification to a unit as long as its sender lives.
        let ended = Command::new("sleep").arg("infinity").status();
        panic!("nobody has stopped this unit: {ended:?}");
    }
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    let unit = "notify.service";
    systemd.install(unit, &part_unit(name, "Type=notify\nNotifyAccess=main\nWatchdogSec=20"));
    systemd.systemctl(&["start", unit]);
    let told = || systemd.show(unit, "StatusText") == "serving" && systemd.show(unit, "ActiveState") == "active";
    systemd.wait_until("it is ready", DEADLINE, told);
    let usec = |property: &str| systemd.show(unit, property).parse::<u64>().expect("a number");
    let pinged = || usec("WatchdogTimestampMonotonic") > usec("ActiveEnterTimestampMonotonic");
    systemd.wait_until("it has pinged", DEADLINE, pinged);
    systemd.systemctl(&["stop", unit]);
}

fn activated_control() -> Result<Option<UnixListener>, ListenError> {
    let env = Environment::from_process();
    Ok(fdstore::take_over(&env, &FdStore::from_env(&env))?.control)
}

#[test]
fn the_control_socket_is_taken_from_systemd() {
    let name = "service::the_control_socket_is_taken_from_systemd";
    if env::var_os(PART).is_some() {
        let listener = activated_control().expect("as it should be").expect("passed");
        assert!(activated_control().expect("nothing left").is_none());
        let address = listener.local_addr().expect("bound");
        assert_eq!(address.as_pathname(), Some(Path::new("/run/hermes-gateway.sock")));
        listener.set_nonblocking(false).expect("set");
        let (mut client, _) = listener.accept().expect("the client that woke us");
        return std::io::Write::write_all(&mut client, b"served").expect("written");
    }
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    let socket = dist("hermes-gateway.socket").replace("SocketUser=hermes", "");
    systemd.install(UNIT, &part_unit(name, "Type=exec"));
    systemd.install("hermes-gateway.socket", &socket);
    systemd.systemctl(&["start", "hermes-gateway.socket"]);
    let mut client = std::os::unix::net::UnixStream::connect("/run/hermes-gateway.sock").expect("systemd listens");
    client.set_read_timeout(Some(DEADLINE)).expect("set");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut client, &mut answer).expect("an answer");
    assert_eq!(answer, "served");
}

#[test]
fn a_wrong_kind_of_socket_is_told() {
    let name = "service::a_wrong_kind_of_socket_is_told";
    if env::var_os(PART).is_some() {
        let error = activated_control().expect_err("refused");
        return println!("told: {error}");
    }
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    for (listen, expected) in [
        ("ListenStream=/run/a.sock\nListenStream=/run/b.sock", "systemd passed 2 sockets"),
        ("ListenDatagram=/run/a.sock", "systemd passed one of another kind"),
    ] {
        systemd.install("wrong.service", &part_unit(name, "Type=oneshot"));
        systemd.install("wrong.socket", &format!("[Socket]\n{listen}\n"));
        systemd.systemctl(&["start", "wrong.socket"]);
        systemd.systemctl(&["start", "wrong.service"]);
        systemd.systemctl(&["stop", "wrong.socket"]);
        let journal = systemd.journal("wrong.service");
        assert!(journal.contains(expected), "{expected}: {journal}");
    }
}
