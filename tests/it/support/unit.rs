//! The gateway as `hermes-gateway.service` of `dist/`, under a systemd of its own, with what a test changes in a
//! drop-in.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hermes_gateway::control::client::Client;
use hermes_gateway::control::proto::{self, Status};
use hermes_gateway::slots::Slots;

use super::systemd::Systemd;

/// The unit.
pub const UNIT: &str = "hermes-gateway.service";
/// Its home, as in `dist/`.
pub const HOME: &str = "/var/lib/hermes";
/// The launcher in `dist/`. In a boot /usr is the machine's own, so there it is elsewhere.
const LAUNCHER: &str = "/usr/lib/hermes/hermes-launch";
/// Where [`install_launcher`] puts it.
pub const LAUNCHER_INSIDE: &str = "/var/lib/hermes-launch/hermes-launch";
/// Its control socket.
pub const SOCKET: &str = "/run/hermes/control.sock";
/// The longest wait for anything that should happen soon.
const SOON: Duration = Duration::from_secs(30);

/// The installed unit.
pub struct Unit<'a> {
    systemd: &'a Systemd,
}

/// What must stay the same over a handoff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    main_pid: String,
    invocation: String,
    restarts: String,
}

impl<'a> Unit<'a> {
    /// Installs `binary` as its version in the home, proven, the launcher, the unit of `dist/` with `Restart=`, and the
    /// configuration.
    pub fn install(systemd: &'a Systemd, binary: &Path, restart: &str, config: &str) -> Self {
        Self::install_with(systemd, binary, restart, config, "")
    }

    /// As [`Unit::install`], with a drop-in of these lines.
    pub fn install_with(systemd: &'a Systemd, binary: &Path, restart: &str, config: &str, drop_in: &str) -> Self {
        add_user();
        let versions = Path::new(HOME).join("versions");
        let version = hermes_gateway::version::version();
        fs::create_dir_all(versions.join(version)).expect("creates the home");
        fs::copy(binary, versions.join(version).join("hermes")).expect("installs the binary");
        symlink(version, versions.join("current")).expect("links the version");
        fs::write(Path::new(HOME).join("gateway.toml"), config).expect("writes the configuration");
        let slots = Slots { proven: Some(version.to_owned()), ..Slots::default() };
        slots.write(&versions).expect("writes the slots");
        run("chown", &["-R", "hermes:hermes", HOME]);
        install_launcher(&binary.with_file_name("hermes-launch"));
        if !drop_in.is_empty() {
            let directory = format!("/etc/systemd/system/{UNIT}.d");
            fs::create_dir_all(&directory).expect("the boot's own directory");
            fs::write(format!("{directory}/test.conf"), drop_in).expect("writes the drop-in");
        }
        systemd.install(UNIT, &unit_text(restart));
        Self { systemd }
    }

    /// Starts it; returns once it is active.
    pub fn start(&self) {
        let started = self.systemd.try_systemctl(&["start", UNIT]);
        assert!(started.status.success(), "{}", self.journal());
    }

    /// Stops it.
    pub fn stop(&self) {
        self.systemd.systemctl(&["stop", UNIT]);
    }

    /// The journal of the unit.
    pub fn journal(&self) -> String {
        self.systemd.journal(UNIT)
    }

    /// What a handoff must not change.
    pub fn identity(&self) -> Identity {
        Identity {
            main_pid: self.systemd.show(UNIT, "MainPID"),
            invocation: self.systemd.show(UNIT, "InvocationID"),
            restarts: self.systemd.show(UNIT, "NRestarts"),
        }
    }

    /// The main process.
    pub fn main_pid(&self) -> u32 {
        self.systemd.show(UNIT, "MainPID").parse().expect("a pid")
    }

    /// The processes in the unit.
    pub fn processes(&self) -> Vec<u32> {
        self.systemd.processes(UNIT)
    }

    /// A client of its control socket.
    pub async fn client(&self) -> Client {
        match Client::connect(Path::new(SOCKET)).await {
            Ok(client) => client,
            Err(error) => panic!("{error}\n{}", self.journal()),
        }
    }

    /// What the gateway says about itself.
    pub async fn status(&self) -> Status {
        self.client().await.request(proto::STATUS, &(), SOON, |_, _| {}).await.expect("status answers")
    }

    /// The process of the agent `default`.
    pub async fn agent_pid(&self) -> i32 {
        let start = Instant::now();
        loop {
            let status = self.status().await;
            if let Some(pid) = status.agents.iter().find(|agent| agent.name == "default").and_then(|agent| agent.pid) {
                return pid;
            }
            assert!(start.elapsed() < SOON, "the agent does not run");
        }
    }

    /// Looks at `ActiveState=` again and again until [`Sampler::finish`].
    pub fn sample(&self) -> Sampler {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut seen = BTreeSet::new();
                let mut samples = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    let output = Command::new("systemctl")
                        .args(["show", "--value", "--property", "ActiveState", UNIT])
                        .output()
                        .expect("systemctl is installed");
                    seen.insert(String::from_utf8_lossy(&output.stdout).trim().to_owned());
                    samples += 1;
                }
                (seen, samples)
            }
        });
        Sampler { stop, thread }
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().expect("the program is there");
    assert!(status.success(), "{program} {arguments:?}");
}

/// The user of the unit.
pub fn add_user() {
    run("useradd", &["--system", "--home-dir", HOME, "--no-create-home", "hermes"]);
}

/// Puts the program `built` where [`unit_text`] looks for the launcher.
pub fn install_launcher(built: &Path) {
    let launcher = Path::new(LAUNCHER_INSIDE);
    fs::create_dir_all(launcher.parent().expect("a directory")).expect("the boot's own /var");
    fs::copy(built, launcher).expect("installs the launcher");
}

/// The unit of `dist/` with `Restart=`, for a boot.
pub fn unit_text(restart: &str) -> String {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist").join(UNIT);
    let unit = fs::read_to_string(unit).expect("dist has the unit");
    assert!(unit.contains("\nRestart=on-failure\n"), "the policy of the bug report is the default");
    assert!(unit.contains(LAUNCHER), "the launcher starts it");
    unit.replace("\nRestart=on-failure\n", &format!("\nRestart={restart}\n")).replace(LAUNCHER, LAUNCHER_INSIDE)
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- journal of {UNIT}\n{}", self.journal());
        }
    }
}

/// States seen by [`Unit::sample`].
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(BTreeSet<String>, u32)>,
}

impl Sampler {
    /// Ends it and checks that the unit was active, or reloading, whenever it was looked at.
    pub fn finish(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        let (seen, samples) = self.thread.join().expect("the sampler does not panic");
        assert!(samples > 0, "looked at least once");
        let serving: BTreeSet<String> = ["active", "reloading"].map(str::to_owned).into();
        assert!(seen.is_subset(&serving), "the unit was {seen:?} in {samples} samples");
        samples
    }
}

/// Open fds, resident memory in kB and children of a process, from proc(5).
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Open fds.
    pub fds: usize,
    /// VmRSS, in kB.
    pub resident_kb: u64,
    /// Threads.
    pub threads: u64,
}

impl Footprint {
    /// Of the process `pid`.
    pub fn of(pid: u32) -> Self {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let status = fs::read_to_string(proc.join("status")).expect("the process lives");
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("proc(5) has the line");
            line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
        };
        let fds = fs::read_dir(proc.join("fd")).expect("the process is ours").count();
        Self { fds, resident_kb: number("VmRSS:"), threads: number("Threads:") }
    }
}
