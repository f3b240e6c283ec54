//! The launcher as a process, with shell scripts and damaged files as images.

mod unit;

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hermes_gateway::slots::{Failed, Slots, Trial};
use tempfile::TempDir;

const LAUNCHER: &str = env!("CARGO_BIN_EXE_hermes-launch");

/// A home with `versions/`.
struct Home(TempDir);

/// What a launch came to.
struct Launch {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

impl Home {
    fn new(versions: &[&str]) -> Self {
        let home = Self(tempfile::tempdir().expect("creates"));
        fs::create_dir(home.versions()).expect("creates");
        for version in versions {
            home.install(version);
        }
        home
    }

    fn versions(&self) -> PathBuf {
        self.0.path().join("versions")
    }

    fn image(&self, version: &str) -> PathBuf {
        self.versions().join(version).join("hermes")
    }

    /// An image that says its version.
    fn install(&self, version: &str) {
        install(&self.image(version), format!("#!/bin/sh\necho {version}\n").as_bytes());
    }

    fn current(&self, version: &str) {
        symlink(version, self.versions().join("current")).expect("links");
    }

    fn write(&self, slots: &Slots) {
        slots.write(&self.versions()).expect("writes");
    }

    fn slots(&self) -> Slots {
        Slots::read(&self.versions()).expect("reads").expect("there are slots")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(LAUNCHER);
        command.env("HERMES_HOME", self.0.path()).args(["gateway", "run"]);
        command
    }

    fn launch(&self) -> Launch {
        Launch::of(&self.command().output().expect("it starts"))
    }

    /// Which version starts.
    fn starts(&self) -> String {
        let launch = self.launch();
        assert_eq!(launch.code, Some(0), "{}", launch.stderr);
        launch.stdout.trim().to_owned()
    }
}

impl Launch {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        Self { stdout: text(&output.stdout), stderr: text(&output.stderr), code: output.status.code() }
    }
}

/// Writes an executable. By another process: where tests are threads, one of them may fork while the file is open for
/// writing here, and then it cannot be executed for as long as its child keeps it so.
fn install(path: &Path, content: &[u8]) {
    let mut install = Command::new("install");
    install.args(["-D", "-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut install = install.spawn().expect("coreutils are installed");
    install.stdin.take().expect("piped").write_all(content).expect("it reads");
    assert!(install.wait().expect("it ends").success());
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").args(["-m", "755"]).arg(path).status().expect("coreutils are installed").success());
}

fn proven(version: &str) -> Slots {
    Slots { proven: Some(version.to_owned()), ..Slots::default() }
}

fn trial(version: &str, boots_left: u32) -> Slots {
    Slots { trial: Some(Trial { version: version.to_owned(), boots_left }), ..proven("1.0.0") }
}

#[test]
fn the_image_takes_the_launchers_place() {
    let home = Home::new(&["2.0.0"]);
    install(&home.image("1.0.0"), &fs::read("/bin/sh").expect("a shell"));
    home.write(&proven("1.0.0"));
    let mut command = home.command();
    command.env("LISTEN_PID", "12345").args(["--", "a b"]);
    // The script stands where the shell takes its first argument for a file.
    fs::write(home.0.path().join("gateway"), "echo \"$LISTEN_PID $$ $# $3\"; tr '\\0' ' ' </proc/$$/cmdline")
        .expect("writes");
    let child = command.current_dir(home.0.path()).stdout(Stdio::piped()).spawn().expect("it starts");
    let pid = child.id();
    let launch = Launch::of(&child.wait_with_output().expect("it ends"));
    assert_eq!(launch.stdout, format!("12345 {pid} 3 a b\nhermes gateway run -- a b "));
}

#[test]
fn the_home_is_below_the_users_unless_it_is_set() {
    let home = Home::new(&["1.0.0"]);
    symlink(home.0.path(), home.0.path().join(".hermes")).expect("links");
    let output = home.command().env_remove("HERMES_HOME").env("HOME", home.0.path()).output().expect("it starts");
    assert_eq!(Launch::of(&output).stdout, "1.0.0\n");
    let output = home.command().env("HERMES_HOME", "relative").output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(Launch::of(&output).stderr.contains("absolute path"));
}

#[test]
fn it_says_its_version() {
    let output = Command::new(LAUNCHER).arg("--version").output().expect("it starts");
    assert_eq!(Launch::of(&output).stdout, format!("hermes-launch {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_trial_is_started_as_often_as_it_has_boots_left() {
    let home = Home::new(&["1.0.0", "1.1.0"]);
    home.write(&trial("1.1.0", 2));
    for left in [1, 0] {
        assert_eq!(home.starts(), "1.1.0");
        assert_eq!(home.slots(), trial("1.1.0", left));
    }
    let launch = home.launch();
    assert_eq!(launch.stdout, "1.0.0\n");
    assert!(launch.stderr.contains("1.1.0 failed its trial: it was started as often"), "{}", launch.stderr);
    let failed = Slots { failed: home.slots().failed, ..proven("1.0.0") };
    assert_eq!(home.slots(), failed);
    assert_eq!(failed.failed.map(|failed| failed.version).as_deref(), Some("1.1.0"));
    assert_eq!(home.starts(), "1.0.0", "it stays there");
}

#[test]
fn a_trial_whose_boot_cannot_be_counted_is_not_started() {
    let home = Home::new(&["1.0.0", "1.1.0"]);
    home.write(&trial("1.1.0", 2));
    let new = home.versions().join(".slots.new");
    symlink("/dev/full", &new).expect("links");
    let launch = home.launch();
    assert_eq!(launch.stdout, "1.0.0\n");
    assert!(launch.stderr.contains("No space left on device"), "{}", launch.stderr);
    assert_eq!(home.slots(), trial("1.1.0", 2), "it keeps its boots for better times");
    fs::remove_file(&new).expect("removes");
    home.write(&trial("1.1.0", 0));
    symlink("/dev/full", &new).expect("links");
    assert_eq!(home.starts(), "1.0.0", "nor when it cannot be noted that it failed");
    fs::remove_file(&new).expect("removes");
    fs::create_dir(&new).expect("creates");
    assert_eq!(home.starts(), "1.0.0");
}

/// Makes an image that cannot be executed; what it returns must live as long.
type Damage = fn(&Path) -> Option<fs::File>;

/// Every way in which an image cannot be executed, and what is told about it.
const DAMAGES: [(&str, &str, Damage); 10] = [
    ("missing", "No such file or directory", |image| fs::remove_file(image).map(|()| None).expect("removes")),
    ("without its interpreter", "No such file or directory", |image| {
        fs::write(image, "#!/no/such/shell\n").map(|()| None).expect("writes")
    }),
    ("not executable", "Permission denied", |image| {
        fs::set_permissions(image, Permissions::from_mode(0o644)).map(|()| None).expect("sets")
    }),
    ("a directory", "Permission denied", |image| {
        fs::remove_file(image).expect("removes");
        fs::create_dir(image).map(|()| None).expect("creates")
    }),
    ("a FIFO", "Permission denied", |image| {
        fs::remove_file(image).expect("removes");
        mkfifo(image);
        None
    }),
    ("open for writing", "Text file busy", |image| Some(OpenOptions::new().append(true).open(image).expect("opens"))),
    ("empty", "it is no program", |image| fs::write(image, "").map(|()| None).expect("writes")),
    ("text", "it is no program", |image| fs::write(image, "echo run by a shell\n").map(|()| None).expect("writes")),
    ("truncated", "its end is missing", |image| {
        let whole = fs::read(LAUNCHER).expect("reads");
        fs::write(image, &whole[..4096]).map(|()| None).expect("writes")
    }),
    ("of another machine", "it is for another kind of machine", |image| {
        let mut foreign = fs::read(LAUNCHER).expect("reads");
        foreign[18] ^= 0xff;
        fs::write(image, foreign).map(|()| None).expect("writes")
    }),
];

#[test]
fn a_trial_that_cannot_be_executed_fails_at_once() {
    for (what, why, damage) in DAMAGES {
        let home = Home::new(&["1.0.0", "1.1.0"]);
        home.write(&trial("1.1.0", 2));
        let _held = damage(&home.image("1.1.0"));
        let launch = home.launch();
        assert_eq!(launch.stdout, "1.0.0\n", "{what}: {}", launch.stderr);
        assert!(launch.stderr.contains(why), "{what}: {}", launch.stderr);
        let failed = home.slots().failed.expect("it failed");
        assert!(failed.version == "1.1.0" && failed.reason.contains(why), "{what}: {failed:?}");
        assert_eq!(home.slots().trial, None, "{what}");
    }
}

#[test]
fn without_the_proven_one_the_next_best_is_started() {
    for (what, why, damage) in DAMAGES {
        let home = Home::new(&["0.9.0", "1.0.0", "1.2.0", "1.10.0-rc.1", "1.10.0", "2.0.0"]);
        home.current("1.2.0");
        let failed = Failed { version: "2.0.0".to_owned(), reason: "did not come up".to_owned() };
        home.write(&Slots { previous: Some("0.9.0".to_owned()), failed: Some(failed), ..proven("1.0.0") });
        let mut held = Vec::new();
        for next in ["0.9.0", "1.2.0", "1.10.0", "1.10.0-rc.1", "2.0.0"] {
            let gone = home.starts();
            held.push(damage(&home.image(&gone)));
            assert_eq!(home.starts(), next, "{what}, after {gone}");
        }
        held.push(damage(&home.image("2.0.0")));
        let launch = home.launch();
        assert_eq!(launch.code, Some(1), "{what}");
        assert!(launch.stderr.contains(why), "{what}: {}", launch.stderr);
        // A version that is missing is tried only where something else than its directory names it.
        let last = launch.stderr.lines().last().unwrap_or_default();
        let expected = if what == "missing" {
            "(tried 1.0.0, 0.9.0, 1.2.0)"
        } else {
            "(tried 1.0.0, 0.9.0, 1.2.0, 1.10.0, 1.10.0-rc.1, 2.0.0)"
        };
        assert!(last.contains(expected), "{what}: {last}");
        assert!(last.starts_with("hermes-launch: no image in "), "{last}");
    }
}

#[test]
fn without_any_version_it_says_so() {
    let home = Home::new(&[]);
    let launch = home.launch();
    assert_eq!((launch.code, launch.stdout.as_str()), (Some(1), ""));
    assert!(launch.stderr.contains("no version is there"), "{}", launch.stderr);
}

/// Slot files that are missing, torn, or absurd.
#[test]
fn whatever_the_slots_are_an_image_is_started() {
    let home = Home::new(&["1.0.0", "1.1.0"]);
    let file = home.versions().join("slots");
    home.write(&trial("1.1.0", 2));
    let whole = fs::read(&file).expect("reads");
    let mut absurd: Vec<Vec<u8>> = (0..whole.len()).step_by(7).map(|length| whole[..length].to_vec()).collect();
    absurd.extend([vec![0; 512], vec![0xff; 512], b"hermes slots 1\n".to_vec(), vec![b'x'; 1 << 20]]);
    for current in [None, Some("1.0.0")] {
        if let Some(current) = current {
            home.current(current);
        }
        let expected = current.unwrap_or("1.1.0");
        for bytes in &absurd {
            fs::write(&file, bytes).expect("writes");
            assert_eq!(home.starts(), expected, "{bytes:?}");
            assert_eq!(&fs::read(&file).expect("reads"), bytes, "what cannot be read is left for people to see");
        }
        fs::remove_file(&file).expect("removes");
        assert_eq!(home.starts(), expected);
        fs::create_dir(&file).expect("creates");
        assert_eq!(home.starts(), expected);
        fs::remove_dir(&file).expect("removes");
        mkfifo(&file);
        assert_eq!(home.starts(), expected);
        fs::remove_file(&file).expect("removes");
    }
    home.write(&trial("3.0.0", 1));
    assert_eq!(home.starts(), "1.0.0", "a trial that is not there");
    home.write(&Slots { previous: Some("1.0.0".to_owned()), ..proven("9.9.9") });
    assert_eq!(home.starts(), "1.0.0", "a proven one that is not there");
    home.write(&trial("1.0.0", 0));
    assert_eq!(home.starts(), "1.0.0", "the proven one on trial, and failed");
}

/// Every state that a power cut may leave while the slots are switched to a trial: the old file or the new one, and of
/// the file beside it nothing, any part, zeros, or all. `a_power_cut_leaves_the_old_slots_or_the_new_ones` in
/// `slots.rs` shows that there are no others.
#[test]
fn after_a_power_cut_an_image_is_started() {
    let home = Home::new(&["1.0.0", "1.1.0"]);
    let (file, new) = (home.versions().join("slots"), home.versions().join(".slots.new"));
    home.write(&proven("1.0.0"));
    let old_bytes = fs::read(&file).expect("reads");
    home.write(&trial("1.1.0", 2));
    let new_bytes = fs::read(&file).expect("reads");
    for (bytes, expected) in [(&old_bytes, "1.0.0"), (&new_bytes, "1.1.0")] {
        let parts = (0..=new_bytes.len()).step_by(11).map(|length| new_bytes[..length].to_vec());
        for leftover in parts.chain([vec![0; new_bytes.len()], new_bytes.clone()]) {
            fs::write(&file, bytes).expect("writes");
            fs::write(&new, &leftover).expect("writes");
            assert_eq!(home.starts(), expected, "beside {leftover:?}");
        }
    }
}

#[test]
fn what_the_unit_runs_does_nothing_outside_of_one() {
    // Whatever this test runs in is no service whose processes may be ended.
    for (command, told) in [
        ("unit-facts", "RUNTIME_DIRECTORY is not set"),
        ("stop", "RUNTIME_DIRECTORY is not set"),
        ("stop-post", "SERVICE_RESULT is not set"),
    ] {
        let mut launcher = Command::new(LAUNCHER);
        launcher.arg(command).env_remove("RUNTIME_DIRECTORY").env_remove("SERVICE_RESULT");
        let launch = Launch::of(&launcher.output().expect("it starts"));
        assert_eq!(launch.code, Some(1));
        assert!(launch.stderr.contains(told), "{}", launch.stderr);
    }
}
