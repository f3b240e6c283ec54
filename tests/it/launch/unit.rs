//! The unit of `dist/` with the launcher, under a real systemd. The gateway is a shell script with an agent.

use std::env;
use std::fs;
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hermes_gateway::slots::Slots;
use sd_notify::NotifyState;

use super::{LAUNCHER, Launch, install, proven, trial};
use crate::support::systemd::{self, Systemd};
use crate::support::unit::{self, HOME, UNIT};

const DEADLINE: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);

/// Set for the images that run this test binary.
const PART: &str = "HERMES_TEST_PART";

/// A gateway: keeps the agent of the one before it, or starts one, in a session of its own as the gateway does. Ends
/// on SIGTERM, and on SIGUSR2 with the code in the file `exit`. The agent stays either way, and does not care about the
/// end of its input; with the file `stubborn`, nor about SIGTERM.
const GATEWAY: &str = r#"#!/bin/sh
trap 'cat /run/hermes/stop >>/var/lib/hermes/told; exit 0' TERM
trap 'exit $(cat /var/lib/hermes/exit)' USR2
agent=/var/lib/hermes/agent
kill -0 "$(cat $agent)" || {
    rm -f $agent
    (if [ -e /var/lib/hermes/stubborn ]; then trap '' TERM HUP; fi
    exec setsid sh -c 'echo $$ >/var/lib/hermes/agent; while :; do sleep 1000; done' </dev/null) &
}
cp /run/hermes/unit /var/lib/hermes/unit-facts
while [ -e /var/lib/hermes/hold ]; do sleep 0.1; done
until [ -s $agent ]; do sleep 0.1; done
systemd-notify --ready
while :; do sleep 1 & wait $!; done
"#;

struct Boot {
    systemd: Systemd,
}

impl Boot {
    /// The unit with this image as 1.0.0, proven.
    fn new(name: &str, image: &str, settings: &str) -> Option<Self> {
        let systemd = systemd::inside(name, DEADLINE)?;
        unit::add_user();
        unit::install_launcher(Path::new(env!("CARGO_BIN_EXE_hermes-launch")));
        let boot = Self { systemd };
        boot.image("1.0.0", image);
        boot.slots(&proven("1.0.0"));
        boot.policy("on-failure", settings);
        Some(boot)
    }

    fn image(&self, version: &str, image: &str) {
        install(&Path::new(HOME).join("versions").join(version).join("hermes"), image.as_bytes());
    }

    fn slots(&self, slots: &Slots) {
        slots.write(&Path::new(HOME).join("versions")).expect("writes");
        assert!(Command::new("chown").args(["-R", "hermes:hermes", HOME]).status().expect("it runs").success());
    }

    /// Puts a file into the home.
    fn flag(&self, name: &str) {
        fs::write(Path::new(HOME).join(name), "").expect("writes");
    }

    /// Installs the unit. The stand-in notifies through a child, and does not ping.
    fn policy(&self, restart: &str, settings: &str) {
        let unit = unit::unit_text(restart);
        let unit = unit.replace("NotifyAccess=main", "NotifyAccess=all").replace("WatchdogSec=30", "");
        self.systemd.install(UNIT, &unit.replace("[Service]\n", &format!("[Service]\n{settings}\n")));
    }

    fn start(&self) {
        self.systemd.systemctl(&["start", UNIT]);
    }

    fn stop(&self) {
        self.systemd.systemctl(&["stop", UNIT]);
    }

    fn kill(&self, signal: &str) {
        self.systemd.systemctl(&["kill", "--kill-whom=main", &format!("--signal={signal}"), UNIT]);
    }

    fn is(&self, state: &str) {
        let reached = || self.systemd.show(UNIT, "ActiveState") == state;
        self.systemd.wait_until(&format!("the unit is {state}"), SOON, reached);
    }

    fn restarted(&self, times: u32) {
        let back = || self.systemd.show(UNIT, "NRestarts") == times.to_string();
        self.systemd.wait_until("it is started again", SOON, back);
        self.is("active");
    }

    fn ends_with(&self, code: &str) {
        fs::write(Path::new(HOME).join("exit"), code).expect("writes");
        self.kill("USR2");
    }

    fn agent(&self) -> u32 {
        let pid = read("agent").trim().parse().expect("the agent's pid");
        assert!(lives(pid), "the agent runs");
        pid
    }

    fn nothing_is_left(&self, agent: u32) {
        assert_eq!(self.systemd.processes(UNIT), Vec::<u32>::new());
        assert!(!lives(agent), "the agent was ended");
    }
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(HOME).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn lives(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[test]
fn agents_live_over_a_restart_and_end_with_the_unit() {
    let name = "launch::unit::agents_live_over_a_restart_and_end_with_the_unit";
    let Some(boot) = Boot::new(name, GATEWAY, "") else { return };
    boot.flag("stubborn");
    boot.start();
    let agent = boot.agent();
    assert!(read("unit-facts").contains("Restart=on-failure\n"), "the service's user may read it");
    for fact in ["KillMode=process", "FileDescriptorStoreMax=1024", "RestartUSec=2s", "RestartPreventExitStatus=78"] {
        assert!(read("unit-facts").lines().any(|line| line == fact), "{fact}: {}", read("unit-facts"));
    }
    let of_root = fs::metadata("/run/hermes/unit").expect("there");
    assert_eq!((of_root.uid(), of_root.mode() & 0o777), (0, 0o644));

    boot.kill("KILL");
    boot.restarted(1);
    assert_eq!(boot.agent(), agent, "after a kill of the gateway");
    boot.ends_with("1");
    boot.restarted(2);
    assert_eq!(boot.agent(), agent, "after a failure");
    boot.ends_with("75");
    boot.restarted(3);
    assert_eq!(boot.agent(), agent, "after a planned restart");
    boot.systemd.systemctl(&["restart", UNIT]);
    assert_eq!(boot.agent(), agent, "after systemctl restart");
    assert_eq!(read("told"), "restart\n");
    assert!(!Path::new("/run/hermes/stop").exists(), "it is about the end before");

    boot.stop();
    boot.nothing_is_left(agent);
    fs::remove_file(Path::new(HOME).join("stubborn")).expect("removes");
    assert_eq!(read("told"), "restart\nstop\n");
    assert_eq!(boot.systemd.show(UNIT, "Result"), "success");
    assert!(!Path::new("/run/hermes").exists());
    let journal = boot.systemd.journal(UNIT);
    assert!(journal.contains("left in hermes-gateway.service: it is stopped"), "{journal}");

    boot.start();
    let agent = boot.agent();
    boot.ends_with("78");
    boot.is("failed");
    boot.nothing_is_left(agent);
}

#[test]
fn agents_end_when_nothing_starts_the_unit_again() {
    let name = "launch::unit::agents_end_when_nothing_starts_the_unit_again";
    let Some(boot) = Boot::new(name, GATEWAY, "") else { return };
    boot.policy("no", "");
    boot.start();
    let agent = boot.agent();
    boot.kill("KILL");
    boot.is("failed");
    boot.nothing_is_left(agent);
    let journal = boot.systemd.journal(UNIT);
    assert!(journal.contains("its Restart= does not start it again"), "{journal}");

    // With Restart=no, too, a restart that was asked for spares them.
    boot.start();
    let agent = boot.agent();
    boot.systemd.systemctl(&["restart", UNIT]);
    assert_eq!(boot.agent(), agent);
    boot.stop();
    boot.nothing_is_left(agent);

    // A stop before the gateway is ready runs no ExecStop=, and Restart= does not count.
    boot.policy("always", "");
    boot.flag("hold");
    boot.systemd.systemctl(&["start", "--no-block", UNIT]);
    let started = || fs::read_to_string(Path::new(HOME).join("agent")).is_ok_and(|pid| pid.trim() != agent.to_string());
    boot.systemd.wait_until("the agent is started", SOON, started);
    let agent = boot.agent();
    boot.stop();
    boot.nothing_is_left(agent);
    fs::remove_file(Path::new(HOME).join("hold")).expect("removes");

    // With Restart=always an orderly end is none.
    boot.start();
    let agent = boot.agent();
    boot.ends_with("0");
    boot.restarted(1);
    assert_eq!(boot.agent(), agent);
    boot.stop();
    boot.nothing_is_left(agent);
}

#[test]
fn a_trial_that_does_not_come_up_makes_way() {
    let name = "launch::unit::a_trial_that_does_not_come_up_makes_way";
    let Some(boot) = Boot::new(name, GATEWAY, "RestartSec=100ms") else { return };
    // In the place of RestartSec=2, which comes later in the unit.
    boot.systemd.install(
        UNIT,
        &fs::read_to_string(format!("/etc/systemd/system/{UNIT}")).expect("installed").replace("RestartSec=2\n", ""),
    );
    for (image, times) in [("#!/bin/sh\nkill -SEGV $$\n", 2_u32), ("#!/bin/sh\nexit 1\n", 2), ("damaged", 0)] {
        boot.image("1.1.0", image);
        boot.slots(&trial("1.1.0", 2));
        // The first try fails, and systemctl says so.
        boot.systemd.try_systemctl(&["start", UNIT]);
        boot.restarted(times);
        let slots = Slots::read(&Path::new(HOME).join("versions")).expect("reads").expect("there are slots");
        assert_eq!(slots.failed.expect("it failed").version, "1.1.0");
        assert_eq!((slots.trial, slots.proven.as_deref()), (None, Some("1.0.0")));
        boot.stop();
        boot.systemd.systemctl(&["reset-failed"]);
    }
}

#[test]
fn stored_fds_come_back_as_long_as_the_unit_is_not_stopped() {
    let name = "launch::unit::stored_fds_come_back_as_long_as_the_unit_is_not_stopped";
    if env::var_os(PART).is_some() {
        return store_and_serve();
    }
    let program = env::current_exe().expect("a test binary has a path");
    let image = format!("#!/bin/sh\nexec {} --exact {name} --nocapture\n", program.display());
    let Some(boot) = Boot::new(name, &image, &format!("Environment={PART}=1")) else { return };
    // What each start found: the names, and what is in the file.
    boot.start();
    assert_eq!(read("found"), ":\n");
    boot.kill("KILL");
    boot.restarted(1);
    assert_eq!(read("found"), ":\nagent.default.log:1\n", "after a kill");
    boot.systemd.systemctl(&["restart", UNIT]);
    assert_eq!(read("found"), ":\nagent.default.log:1\nagent.default.log:2\n", "after systemctl restart");
    boot.stop();
    boot.start();
    assert_eq!(read("found"), ":\nagent.default.log:1\nagent.default.log:2\n:\n", "a stop lets go of them");
    boot.stop();
}

/// Finds what the unit kept, or gives it a file to keep; counts the starts in it, and serves.
fn store_and_serve() {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let pid = env::var("LISTEN_PID").unwrap_or_default();
    assert!(names.is_empty() || pid == std::process::id().to_string(), "the launcher's PID is the image's");
    let mut file = if names.is_empty() {
        tempfile::tempfile_in("/tmp").expect("creates")
    } else {
        // What sd_listen_fds(3) calls the first of them, once more.
        fs::OpenOptions::new().read(true).append(true).open("/proc/self/fd/3").expect("it is open")
    };
    let count = file.metadata().expect("a file").len();
    let content = if names.is_empty() { String::new() } else { count.to_string() };
    let path = Path::new(HOME).join("found");
    let mut found = fs::OpenOptions::new().create(true).append(true).open(path).expect("opens");
    writeln!(found, "{names}:{content}").expect("writes");
    file.seek(std::io::SeekFrom::End(0)).expect("seeks");
    file.write_all(b"x").expect("writes");
    if names.is_empty() {
        let state = [NotifyState::FdStore, NotifyState::FdName("agent.default.log"), NotifyState::Custom("FDPOLL=0")];
        sd_notify::notify_with_fds(&state, &[file.as_fd()]).expect("systemd listens");
    }
    sd_notify::notify(&[NotifyState::Ready]).expect("systemd listens");
    let ended = Command::new("sleep").arg("infinity").status();
    panic!("nobody has stopped this unit: {ended:?}");
}

/// Real file systems that are full, or mounted read-only.
#[test]
fn a_trial_is_not_started_where_its_boot_cannot_be_counted() {
    let name = "launch::unit::a_trial_is_not_started_where_its_boot_cannot_be_counted";
    let Some(_systemd) = systemd::inside(name, DEADLINE) else { return };
    let home = Path::new("/var/full");
    let versions = home.join("versions");
    fs::create_dir_all(&versions).expect("creates");
    let mount = |arguments: &[&str]| {
        let status = Command::new("mount").args(arguments).arg(&versions).status().expect("it is installed");
        assert!(status.success(), "mount {arguments:?}");
    };
    mount(&["-t", "tmpfs", "-o", "size=256k", "tmpfs"]);
    for version in ["1.0.0", "1.1.0"] {
        install(&versions.join(version).join("hermes"), format!("#!/bin/sh\necho {version}\n").as_bytes());
    }
    let launch = || {
        let mut launcher = Command::new(LAUNCHER);
        Launch::of(&launcher.env("HERMES_HOME", home).output().expect("it starts"))
    };
    trial("1.1.0", 5).write(&versions).expect("writes");
    assert_eq!(launch().stdout, "1.1.0\n");
    let ballast = versions.join("ballast");
    let full = fs::write(&ballast, vec![1; 1 << 20]).expect_err("there is less room");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let starved = launch();
    assert_eq!(starved.stdout, "1.0.0\n", "{}", starved.stderr);
    assert!(starved.stderr.contains("No space left on device"), "{}", starved.stderr);
    fs::remove_file(ballast).expect("removes");
    mount(&["-o", "remount,ro"]);
    let locked = launch();
    assert_eq!(locked.stdout, "1.0.0\n", "{}", locked.stderr);
    assert!(locked.stderr.contains("Read-only file system"), "{}", locked.stderr);
    mount(&["-o", "remount,rw"]);
    assert_eq!(launch().stdout, "1.1.0\n");
    assert_eq!(Slots::read(&versions).expect("reads"), Some(trial("1.1.0", 3)));
}
