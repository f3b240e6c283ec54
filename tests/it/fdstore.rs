//! The fd store of a real systemd: what is put there comes back after a kill, beside a socket of socket activation.
//!
//! The program in the unit is this test binary: the unit runs the same test function again with [`PART`] set.

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hermes_gateway::config::Environment;
use hermes_gateway::recovery::RecoveryLog;
use hermes_gateway::service::fdstore::{self, CONTROL, FdStore, Restored};
use hermes_gateway::service::listen::{bind_control, restored_control};
use hermes_gateway::service::notify::Notifier;

use crate::support::systemd;

/// Set for the program in the unit.
const PART: &str = "HERMES_TEST_PART";
const DEADLINE: Duration = Duration::from_secs(120);
const UNIT: &str = "store.service";
const SOCKET: &str = "/run/store-test.sock";

#[test]
fn what_is_stored_comes_back_after_a_kill() {
    let name = "fdstore::what_is_stored_comes_back_after_a_kill";
    if env::var_os(PART).is_some() {
        return part();
    }
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    let program = env::current_exe().expect("a test binary has a path");
    systemd.install(
        UNIT,
        &format!(
            "[Service]\nType=notify\nNotifyAccess=main\nFileDescriptorStoreMax=16\nRestart=on-failure\nRestartSec=0\n\
             Environment={PART}=1\nExecStart={} --exact {name} --nocapture\n",
            program.display()
        ),
    );
    systemd.install("store.socket", "[Socket]\nListenStream=/run/store-activated.sock\n");
    systemd.systemctl(&["start", "store.socket", UNIT]);
    assert_eq!(systemd.show(UNIT, "StatusText"), "stored");
    assert_eq!(systemd.show(UNIT, "NFileDescriptorStore"), "6");
    systemd.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", UNIT]);
    let restored = || systemd.show(UNIT, "StatusText") == "restored";
    systemd.wait_until("everything has come back", DEADLINE, restored);
    // The unknown one and the older one of two are gone.
    let left = || systemd.show(UNIT, "NFileDescriptorStore") == "4";
    systemd.wait_until("what nobody goes on with has left the store", DEADLINE, left);
    systemd.systemctl(&["stop", "store.socket", UNIT]);
    assert_eq!(systemd.show(UNIT, "NFileDescriptorStore"), "0");
}

fn part() {
    let env = Environment::from_process();
    let (store, notifier) = (FdStore::from_env(&env), Notifier::from_env(&env));
    let passed = fdstore::take_over(&env, &store).expect("one socket");
    let control = passed.control.expect("the unit's socket is passed at every start");
    let address = control.local_addr().expect("bound");
    assert_eq!(address.as_pathname(), Some(Path::new("/run/store-activated.sock")));
    let first = passed.restored.names().next().is_none();
    if first {
        put(&store);
        notifier.ready("stored");
    } else {
        check(passed.restored, &store);
        notifier.ready("restored");
    }
    // systemd attributes a notification to a unit as long as its sender lives.
    let ended = Command::new("sleep").arg("infinity").status();
    panic!("nobody has stopped this unit: {ended:?}");
}

fn pipe_with(text: &str) -> OwnedFd {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    writer.write_all(text.as_bytes()).expect("written");
    reader.into()
}

fn put(store: &FdStore) {
    store.put("agent.default.stdout", pipe_with("unread").as_fd());
    store.put("of.the.future", pipe_with("").as_fd());
    let mut log = RecoveryLog::create("test").expect("made");
    log.append(b"kept").expect("appended");
    store.put("platform.telegram.log", log.as_fd());
    // What was written after that is there as well.
    log.append(b"and more").expect("appended");
    store.put("agent.default.stdin", pipe_with("older").as_fd());
    store.put("agent.default.stdin", pipe_with("newer").as_fd());
    let listener = bind_control(Path::new(SOCKET)).expect("listens");
    store.put(CONTROL, listener.as_fd());
    // Twice the same is once.
    store.put(CONTROL, listener.as_fd());
}

fn check(mut restored: Restored, store: &FdStore) {
    let mut take = |name: &str| restored.take(name).unwrap_or_else(|| panic!("{name} was stored"));
    let text_of = |fd: OwnedFd| {
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text).expect("read");
        text
    };
    assert_eq!(text_of(take("agent.default.stdout")), "unread");
    assert_eq!(text_of(take("agent.default.stdin")), "newer");
    let log = RecoveryLog::open(take("platform.telegram.log")).expect("a log");
    assert_eq!(log.records().expect("whole"), [&b"kept"[..], b"and more"]);
    let control = take(CONTROL);
    let elsewhere = control.try_clone().expect("a duplicate");
    assert!(restored_control(elsewhere, Path::new("/run/other.sock")).is_none());
    let listener = restored_control(control, Path::new(SOCKET)).expect("it still listens there");
    let _client = std::os::unix::net::UnixStream::connect(SOCKET).expect("listens");
    listener.accept().expect("the client");
    restored.discard(store);
}
