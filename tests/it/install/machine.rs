//! A Debian on which hermes is installed, and what it is installed from.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use hermes_gateway::update::{archive_name, target};
use hermes_gateway::version::version;
use semver::Version;
use serde_json::Value;

use crate::support::release::pack;
use crate::support::systemd::Systemd;

/// The version after the one of this build.
pub const NEXT: &str = "1.0.1";
/// The publisher's public key, in a directory of releases.
pub const PUBLIC_KEY: &str = "release.pub64";

const PROGRAM: &str = env!("CARGO_BIN_EXE_hermes");
const LAUNCHER: &str = env!("CARGO_BIN_EXE_hermes-launch");
const SOON: Duration = Duration::from_secs(30);
/// What an installation may change: the system's own records, and what has no name of its own.
const NOT_COMPARED: [&str; 9] = [
    "/var/lib/dpkg",
    "/var/log",
    "/var/cache",
    "/var/lib/systemd/timers",
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
    "/var/lib/systemd/linger",
];

/// `<dir>/<version>/hermes` and `hermes-launch`, for this version and the next.
pub fn programs(dir: &Path) {
    for version in [version(), NEXT] {
        let mut program = fs::read(PROGRAM).expect("it is built");
        pack::restamp(&mut program, &Version::parse(version).expect("a version")).expect("it has one version block");
        let place = dir.join(version);
        fs::create_dir(&place).expect("creates");
        fs::write(place.join("hermes"), program).expect("writes");
        fs::copy(LAUNCHER, place.join("hermes-launch")).expect("copies");
        run("chmod", &["755", place.join("hermes").to_str().expect("a plain path")]);
    }
}

/// Packages of both versions.
pub fn packages(dir: &Path) {
    programs(dir);
    let path = |path: PathBuf| path.to_str().expect("a plain path").to_owned();
    for version in [version(), NEXT] {
        let place = dir.join(version);
        let (program, launcher) = (path(place.join("hermes")), path(place.join("hermes-launch")));
        let out = path(dir.to_owned());
        script("deb", &["--out", &out, "--fast", "--version", version, "--bin", &program, "--launcher", &launcher]);
    }
}

/// The package of a version.
pub fn package(dir: &Path, version: &str) -> String {
    let is_it = |name: &str| name.starts_with(&format!("hermes-gateway_{version}-1_")) && name.ends_with(".deb");
    let entries = fs::read_dir(dir).expect("there").map(|entry| entry.expect("readable").path());
    let found = entries.into_iter().find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_it));
    found.expect("it was packed").to_str().expect("a plain path").to_owned()
}

/// Releases of both versions, and the script that installs the first.
pub fn releases(dir: &Path) {
    programs(dir);
    let path = |path: PathBuf| path.to_str().expect("a plain path").to_owned();
    let key = pack::generate_key().expect("random bytes");
    let key_file = dir.join("release.key");
    fs::write(&key_file, key.to_keypair_bytes()).expect("writes");
    let tool = Path::new(PROGRAM).with_file_name("examples/release-tool");
    for version in [version(), NEXT] {
        let place = dir.join(version);
        let (program, launcher) = (path(place.join("hermes")), path(place.join("hermes-launch")));
        let (out, key_file) = (path(dir.to_owned()), path(key_file.clone()));
        let url = format!("file://{out}");
        let mut arguments = vec!["--version", version, "--out", &out, "--key", &key_file, "--bin", &program];
        arguments.extend(["--launcher", &launcher, "--target", target()]);
        if version != NEXT {
            arguments.extend(["--url", &url]);
        }
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/release"));
        if tool.exists() {
            command.env("HERMES_RELEASE_TOOL", &tool);
        }
        checked(command.args(&arguments), "scripts/release");
    }
    let public = checked(Command::new(&tool).arg("public-key").arg(&key_file), "release-tool");
    fs::write(dir.join(PUBLIC_KEY), public.trim()).expect("writes");
    run("chmod", &["-R", "a+rX", &path(dir.to_owned())]);
}

/// The archive of a version.
pub fn archive(dir: &Path, version: &str) -> PathBuf {
    dir.join(archive_name(&Version::parse(version).expect("a version"), target()))
}

/// Whose service is looked at.
pub struct Machine<'a> {
    systemd: &'a Systemd,
    user: Option<String>,
    program: String,
}

/// What must not change while the gateway gets another image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity(Vec<String>);

impl<'a> Machine<'a> {
    /// The machine's service, handled by root.
    pub fn system(systemd: &'a Systemd) -> Self {
        Self { systemd, user: None, program: "hermes".to_owned() }
    }

    /// The service of a user, who is made and lingers.
    pub fn of_user(systemd: &'a Systemd, user: &str) -> Self {
        run("useradd", &["--create-home", "--home-dir", &format!("/srv/{user}"), "--shell", "/bin/bash", user]);
        run("loginctl", &["enable-linger", user]);
        let this = Self { systemd, user: Some(user.to_owned()), program: format!("/srv/{user}/.local/bin/hermes") };
        let up = || {
            this.command("systemctl", &["--user", "is-system-running"])
                .output()
                .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == "running")
        };
        systemd.wait_until("the user's manager runs", SOON, up);
        this
    }

    /// The same with another program.
    pub fn with_program(self, program: &Path) -> Self {
        Self { program: program.to_str().expect("a plain path").to_owned(), ..self }
    }

    /// A command as whoever handles the service.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let Some(user) = &self.user else {
            let mut command = Command::new(program);
            command.args(arguments);
            command.env("HOME", "/root").env_remove("HERMES_HOME").env_remove("XDG_RUNTIME_DIR").current_dir("/");
            return command;
        };
        let mut command = Command::new("runuser");
        let home = format!("HOME=/srv/{user}");
        command.args(["--user", user, "--", "env", "--ignore-environment", &home, "PATH=/usr/bin:/bin"]);
        // As a shell without a login has it: XDG_RUNTIME_DIR is not set, and systemctl wants it.
        if program == "systemctl" {
            command.arg("XDG_RUNTIME_DIR=/run/user/1000");
        }
        command.arg(program).args(arguments).current_dir("/");
        command
    }

    /// Runs `hermes`, which must do well.
    pub fn hermes(&self, arguments: &[&str]) -> String {
        checked(&mut self.command(&self.program, arguments), &arguments.join(" "))
    }

    /// Runs `hermes`, which must fail, and returns what it says.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.command(&self.program, arguments).output().expect("runs");
        assert!(!output.status.success(), "{arguments:?} did well: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs `hermes`, which may fail, and returns everything that it says.
    pub fn told(&self, arguments: &[&str]) -> String {
        let output = self.command(&self.program, arguments).output().expect("runs");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    /// Runs `hermes` with these answers on its standard input.
    pub fn answered(&self, arguments: &[&str], answers: &str) -> String {
        let mut command = self.command(&self.program, arguments);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = piped.expect("runs");
        child.stdin.take().expect("piped").write_all(answers.as_bytes()).expect("it reads");
        judged(child.wait_with_output().expect("it ends"), &arguments.join(" "))
    }

    /// Runs `hermes` beside the test.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(&self.program, arguments).stdout(Stdio::piped()).spawn().expect("runs")
    }

    /// Runs a shell script as whoever handles the service.
    pub fn shell(&self, words: &[&str]) -> String {
        checked(&mut self.command("sh", words), words[0])
    }

    /// Runs a program as root.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        run(program, arguments)
    }

    /// Adds to a file that whoever handles the service may write to.
    pub fn append(&self, path: &str, text: &str) {
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .expect("writes");
        if !path.starts_with("/srv") {
            run("chown", &["--reference=/var/lib/hermes", path]);
        }
    }

    /// What the gateway says about itself.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.hermes(&["gateway", "status", "--json"])).expect("JSON")
    }

    /// Returns once something is so.
    pub fn wait_until(&self, what: &str, reached: impl FnMut() -> bool) {
        self.systemd.wait_until(what, SOON, reached);
    }

    /// Returns once a gateway answers.
    pub fn wait_for_a_gateway(&self) {
        let answers =
            || self.command(&self.program, &["gateway", "status"]).output().is_ok_and(|out| out.status.success());
        self.wait_until("a gateway answers", answers);
    }

    /// Returns once a turn runs.
    pub fn wait_for_a_turn(&self) {
        let runs = || {
            let status = self.status();
            let agents = status["agents"].as_array().expect("a list");
            agents.iter().any(|agent| !agent["turns"].as_array().expect("a list").is_empty())
        };
        self.wait_until("a turn runs", runs);
    }

    /// A property of the unit.
    pub fn show(&self, property: &str) -> String {
        let scope: &[&str] = if self.user.is_some() { &["--user"] } else { &[] };
        let words = [scope, &["show", "--value", "--property", property, "hermes-gateway.service"]].concat();
        checked(&mut self.command("systemctl", &words), "systemctl").trim().to_owned()
    }

    /// What a handoff does not change.
    pub fn identity(&self) -> Identity {
        Identity(["ActiveState", "MainPID", "InvocationID", "NRestarts"].map(|property| self.show(property)).to_vec())
    }

    /// Whether the unit runs.
    pub fn is_up(&self) -> bool {
        self.show("ActiveState") == "active"
    }

    /// Every file of the machine that an installation has to do with.
    pub fn listing(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut directories: Vec<PathBuf> =
            ["/etc", "/usr", "/var", "/home", "/root", "/opt", "/srv"].map(PathBuf::from).to_vec();
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if NOT_COMPARED.iter().any(|not| path.starts_with(not)) {
                    continue;
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    directories.push(path.clone());
                }
                found.insert(path.to_string_lossy().into_owned());
            }
        }
        found
    }

    /// What is there that was not.
    pub fn new_since(&self, before: &BTreeSet<String>) -> Vec<String> {
        self.listing().difference(before).cloned().collect()
    }
}

fn script(name: &str, arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    checked(Command::new(path).args(arguments), name);
}

fn run(program: &str, arguments: &[&str]) -> String {
    checked(Command::new(program).args(arguments), program)
}

fn checked(command: &mut Command, what: &str) -> String {
    judged(command.output().expect("runs"), what)
}

fn judged(output: Output, what: &str) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}
