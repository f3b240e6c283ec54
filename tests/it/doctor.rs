//! `hermes doctor`: nothing is wrong with a gateway under a real systemd, and a fault that is planted is found by the check
//! that looks for it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hermes_gateway::cli::doctor::Check;
use serde_json::{Value, json};

use crate::support::fake_gateway::{Act, FakeGateway};
use crate::support::schema;
use crate::support::systemd::{self, Systemd};
use crate::support::unit::{HOME, UNIT, Unit, add_user, install_launcher, unit_text};

const BINARY: &str = env!("CARGO_BIN_EXE_hermes");
const DEADLINE: Duration = Duration::from_secs(240);

/// Levels, the better before the worse.
const LEVELS: [&str; 4] = ["ok", "note", "warn", "fail"];
const NOTE: usize = 1;
const WARN: usize = 2;

/// Something to look at.
struct Bed {
    home: PathBuf,
    user_home: PathBuf,
    path: String,
    open_files: Option<u32>,
    fake: Option<FakeGateway>,
}

impl Bed {
    /// With which nothing is wrong, as far as `check` looks. It is in the boot's own /tmp and left there.
    fn sound(check: Check, systemd: &Systemd) -> Self {
        let user_home = tempfile::Builder::new().prefix("bed-").tempdir().expect("a directory").keep();
        let is_service = matches!(check, Check::Unit | Check::Journal);
        let home = if is_service { PathBuf::from(HOME) } else { user_home.join(".hermes") };
        fs::create_dir_all(&home).expect("makes the home");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).expect("it is ours");
        if is_service && !Path::new("/etc/systemd/system").join(UNIT).exists() {
            add_user();
            install_launcher(&Path::new(BINARY).with_file_name("hermes-launch"));
            systemd.install(UNIT, &unit_text("on-failure"));
            systemd.systemctl(&["enable", UNIT]);
        }
        let bed = Self { home, user_home, path: "/usr/bin:/bin".to_owned(), open_files: None, fake: None };
        bed.configure("");
        bed
    }

    fn configure(&self, config: &str) {
        let file = self.home.join("gateway.toml");
        fs::write(&file, config).expect("writes the configuration");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    }

    /// What the doctor says.
    fn examine(&self, more: &[&str]) -> Value {
        let args = [&["doctor", "--json"], more].concat();
        let mut command = match self.open_files {
            None => Command::new(BINARY),
            Some(limit) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\""), BINARY]);
                shell
            }
        };
        command.args(&args).env_clear().stdin(Stdio::null());
        command.env("HERMES_HOME", &self.home).env("HOME", &self.user_home).env("PATH", &self.path);
        let output = command.output().expect("it starts");
        schema::check(&args, &output.stdout);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        assert_eq!(output.status.code(), Some(i32::from(told["level"] == "fail")), "{told:#}");
        told
    }

    /// What `hermes gateway logs` shows.
    fn logs(&self, more: &[&str]) -> Vec<Value> {
        let args = [&["gateway", "logs", "--json"], more].concat();
        let mut command = Command::new(BINARY);
        command.args(&args).env_clear().env("HERMES_HOME", &self.home).env("PATH", &self.path);
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{output:?}");
        schema::check(&args, &output.stdout);
        let lines = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
        lines.map(|line| line.expect("a document")).collect()
    }

    /// The worst that a check finds.
    fn worst(&self, check: Check) -> (usize, Value) {
        let told = self.examine(&[]);
        let findings = told["findings"].as_array().expect("a list").iter();
        let own: Vec<Value> = findings.filter(|finding| finding["check"] == check.name()).cloned().collect();
        assert!(!own.is_empty(), "{} says nothing: {told:#}", check.name());
        let level = |finding: &Value| LEVELS.iter().position(|level| finding["level"] == *level).expect("a level");
        let worst = own.iter().map(level).max().expect("there is one");
        for finding in &own {
            assert_eq!(level(finding) >= WARN, finding["fix"].is_string(), "what is wrong has a fix: {finding}");
        }
        (worst, json!(own))
    }
}

/// One fault for each check: a check without one does not compile.
fn plant(check: Check, bed: &mut Bed, systemd: &Systemd) {
    match check {
        Check::Configuration => bed.configure("[gateway]\nrestart_drain_timout = \"5s\"\n"),
        Check::Permissions => {
            let file = bed.home.join("gateway.toml");
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("it is ours");
        }
        Check::Versions => {
            let version = bed.home.join("versions/1.0.0");
            fs::create_dir_all(&version).expect("makes it");
            symlink("1.0.0", bed.home.join("versions/current")).expect("links it");
        }
        Check::Image => bed.ask(json!({ "on_disk": { "version": "0.9.0", "sha256": "ff" } })),
        Check::Database => fs::write(bed.home.join("state.db"), [7; 8192]).expect("writes"),
        Check::Disk => mount(&bed.home, "size=1m"),
        Check::Kernel => {
            let versions = bed.home.join("versions");
            fs::create_dir(&versions).expect("makes it");
            mount(&versions, "noexec");
        }
        Check::Limits => bed.open_files = Some(70),
        Check::Lock => {
            let state = json!({ "gateway_state": "draining", "pid": 1 }).to_string();
            fs::write(bed.home.join("gateway_state.json"), state).expect("writes");
        }
        Check::Gateway => {
            bed.ask(json!({ "agents": [{ "name": "default", "state": "down", "error": "no", "turns": [] }] }))
        }
        Check::Unit => {
            let directory = format!("/etc/systemd/system/{UNIT}.d");
            fs::create_dir_all(&directory).expect("the boot's own");
            fs::write(format!("{directory}/bad.conf"), "[Service]\nKillMode=control-group\n").expect("writes");
            systemd.systemctl(&["daemon-reload"]);
        }
        Check::Linger => {
            let units = bed.user_home.join(".config/systemd/user");
            fs::create_dir_all(&units).expect("makes it");
            fs::write(units.join(UNIT), "[Service]\nExecStart=/bin/true\n").expect("writes");
        }
        Check::Journal => {
            systemd.install(UNIT, "[Service]\nExecStart=/bin/sleep infinity\n");
            systemd.systemctl(&["start", UNIT]);
            // There is no journalctl for it.
            symlink("/usr/bin/systemctl", bed.user_home.join("systemctl")).expect("links it");
            bed.path = bed.user_home.to_str().expect("plain").to_owned();
        }
        Check::Agents => bed.configure("[agents.default]\ncommand = [\"/no/such/agent\"]\n"),
        Check::Network => bed.configure(&telegram("http://127.0.0.1:1")),
        Check::Clock => {
            let date = "Thu, 01 Jan 2015 00:00:00 GMT";
            let server = serve(&format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n"));
            bed.configure(&telegram(&server));
        }
        Check::Tokens => {
            let body = json!({ "ok": false, "error_code": 401, "description": "Unauthorized" }).to_string();
            let length = body.len();
            let server =
                serve(&format!("HTTP/1.1 401 No\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"));
            bed.configure(&telegram(&server));
        }
        Check::Updates => bed.configure(
            "[update]\nmanifest_url = \"file:///no/such/manifest.json\"\n\
             verifying_keys = [\"11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\"]\n",
        ),
    }
}

impl Bed {
    /// A gateway runs that says this of itself.
    fn ask(&mut self, more: Value) {
        let image = json!({ "version": "1.0.0", "sha256": "aa" });
        let mut status = json!({
            "gateway_state": "running", "image": image, "pid": 1, "generation": 0, "started_at": 1, "image_started_at": 1,
            "phase": "serving", "home": "/h", "platforms": [], "agents": [], "queued_turns": 0
        });
        let fields = status.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        let fake = FakeGateway::start(move |_, _| vec![Act::Respond(Ok(status.clone()))]);
        self.home = fake.home().to_owned();
        self.fake = Some(fake);
    }
}

fn telegram(url: &str) -> String {
    format!("[platforms.telegram]\ntoken = \"1:x\"\napi_url = \"{url}\"\nallow_from = [\"1\"]\n")
}

/// Answers every request with this, as long as the test runs.
fn serve(answer: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("has an address");
    let answer = answer.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => request.extend_from_slice(&buffer[..read]),
                }
            }
            // The client may have seen enough.
            let _told = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

fn mount(place: &Path, options: &str) {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(place).status();
    assert!(mounted.expect("mount(8) is there").success());
}

#[test]
fn each_check_finds_the_fault_that_is_planted_for_it() {
    let name = "doctor::each_check_finds_the_fault_that_is_planted_for_it";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    for check in Check::ALL {
        let mut bed = Bed::sound(check, &systemd);
        let (before, told) = bed.worst(check);
        assert!(before <= NOTE, "{}: something is wrong with a sound home: {told:#}", check.name());
        plant(check, &mut bed, &systemd);
        let (after, told) = bed.worst(check);
        assert!(after >= WARN, "{} has not found it: {told:#}", check.name());
    }
}

#[tokio::test]
async fn nothing_is_wrong_with_a_gateway_that_is_installed_as_it_should_be() {
    let name = "doctor::nothing_is_wrong_with_a_gateway_that_is_installed_as_it_should_be";
    let Some(systemd) = systemd::inside(name, DEADLINE) else { return };
    let unit = Unit::install(&systemd, Path::new(BINARY), "on-failure", "");
    let file = Path::new(HOME).join("gateway.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    fs::set_permissions(HOME, fs::Permissions::from_mode(0o700)).expect("it is ours");
    systemd.systemctl(&["enable", UNIT]);
    unit.start();
    unit.agent_pid().await;
    let bed = Bed {
        home: HOME.into(),
        user_home: "/root".into(),
        path: "/usr/bin:/bin".to_owned(),
        open_files: None,
        fake: None,
    };
    let told = bed.examine(&["--offline"]);
    assert_eq!(told["level"], "note", "{told:#}");

    systemd.journalctl(&["--lines", "1"]);
    let lines = bed.logs(&["--handoffs"]);
    assert!(lines.iter().any(|line| line["event"] == "hermes.ready"), "{lines:?}");
    assert!(lines.iter().all(|line| line["event"].is_string()), "{lines:?}");
    assert_eq!(bed.logs(&["-n", "1"]).len(), 1);
    assert!(unit.status().await.blockers.is_empty(), "nothing is in the way of a restart");
}

/// Root's look, and what else root does in a home of which an agent may have made something else.
#[test]
fn root_works_in_the_home_of_somebody_else_as_they_do() {
    let name = "doctor::root_works_in_the_home_of_somebody_else_as_they_do";
    let Some(_systemd) = systemd::inside(name, DEADLINE) else { return };
    add_user();
    let sh = |script: &str| {
        let output = Command::new("sh").args(["-ec", script]).output().expect("runs");
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    sh(&format!("mkdir -p /var/lib/w/home; cp {BINARY} /var/lib/w/hermes; usermod -aG adm hermes"));
    sh("echo precious >/var/lib/w/precious; chown hermes: /var/lib/w/home; chmod 700 /var/lib/w/home");
    let home = Path::new("/var/lib/w/home");
    let root = |arguments: &[&str]| {
        let mut command = Command::new("/var/lib/w/hermes");
        command.args(arguments).env_clear().stdin(Stdio::null()).current_dir("/");
        command.env("HERMES_HOME", home).env("HOME", "/root").env("PATH", "/usr/bin:/bin").env("ROOT_SECRET", "x");
        command.output().expect("it starts")
    };

    let look = "{ id -un; id -Gn; env; } >agent; exec /var/lib/w/hermes agent echo";
    let agent = format!("[agents.default]\ncwd = \"{}\"\ncommand = [\"sh\", \"-c\", \"{look}\"]\n", home.display());
    fs::write(home.join("gateway.toml"), &agent).expect("writes");
    sh("chown hermes: /var/lib/w/home/gateway.toml; chmod 600 /var/lib/w/home/gateway.toml");
    let told: Value = serde_json::from_slice(&root(&["doctor", "--json", "--offline"]).stdout).expect("a document");
    let agents: Vec<&Value> = told["findings"].as_array().expect("a list").iter().collect();
    assert!(agents.iter().any(|finding| finding["check"] == "agents" && finding["level"] == "ok"), "{told:#}");
    let seen = fs::read_to_string(home.join("agent")).expect("the agent ran");
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], "hermes");
    assert!(lines[1].split(' ').any(|group| group == "adm"), "{seen}");
    assert!(lines.contains(&"HOME=/var/lib/hermes") && !seen.contains("ROOT_SECRET"), "{seen}");
    assert_eq!(sh("stat --format=%U /var/lib/w/home/agent"), "hermes");

    // A secret that only root can read is none for the gateway.
    let secret = "[platforms.telegram]\ntoken_file = \"/var/lib/w/precious\"\nallow_from = [\"1\"]\n";
    fs::write(home.join("gateway.toml"), format!("{secret}{agent}")).expect("writes");
    sh("chmod 600 /var/lib/w/precious");
    assert_eq!(root(&["config", "check"]).status.code(), Some(78));

    fs::write(home.join("state.db"), "").expect("writes");
    sh("chown hermes: /var/lib/w/home/state.db");
    let listed = root(&["pairing", "list"]);
    assert!(listed.status.success(), "{listed:?}");
    assert_eq!(sh("stat --format=%U /var/lib/w/home/gateway.lock"), "hermes");
    for file in ["gateway.lock", "gateway.toml"] {
        sh(&format!("ln -sf /var/lib/w/precious /var/lib/w/home/{file}"));
        let setup = ["setup", "--user", "--no-install", "--yes", "--platform", "none", "--agent", "echo"];
        let refused = root(if file == "gateway.lock" { &["pairing", "list"] } else { &setup });
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert_eq!(fs::read_to_string("/var/lib/w/precious").expect("there"), "precious\n");
    }
}
