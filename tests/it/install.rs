//! The way in and out: each on a fresh Debian under a real systemd, and afterwards nothing is left.

mod machine;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use hermes_gateway::version::version;
use serde_json::Value;

use self::machine::{Machine, NEXT, PUBLIC_KEY};
use crate::support::gateway::{expected_stream, stream_prompt};
use crate::support::systemd;

const DEADLINE: Duration = Duration::from_secs(240);

/// A turn that is under way at an upgrade, of some seconds.
const CHUNKS: usize = 150;
const BYTES: usize = 40;
const DELAY_MS: u64 = 20;

#[test]
fn a_package_is_upgraded_in_place_and_leaves_nothing() {
    let name = "install::a_package_is_upgraded_in_place_and_leaves_nothing";
    let Some((systemd, given)) = systemd::inside_debian(name, DEADLINE, machine::packages) else { return };
    let machine = Machine::system(&systemd);
    let before = machine.listing();
    machine.run("dpkg", &["--install", &machine::package(&given, version())]);
    let identity = machine.identity();
    assert_eq!(machine.status()["image"]["version"], version());

    // The answers to: where to talk, who answers.
    let said = machine.answered(&["setup"], "none\necho\n");
    assert!(said.contains("/var/lib/hermes/gateway.toml is written") && said.contains("hello"), "{said}");
    assert_eq!(machine.identity(), identity, "the configuration was read in place");
    assert_eq!(machine.hermes(&["chat", "--once", "good morning"]).trim(), "good morning");

    let prompt = stream_prompt(CHUNKS, BYTES, DELAY_MS);
    let streaming = machine.spawn(&["chat", "--once", &prompt]);
    machine.wait_for_a_turn();
    machine.run("dpkg", &["--install", &machine::package(&given, NEXT)]);
    assert_eq!(machine.identity(), identity, "the package upgraded it in place");
    assert_eq!(machine.status()["image"]["version"], NEXT);
    let answer = streaming.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&answer.stdout).trim_end(), expected_stream(CHUNKS, BYTES).trim_end());

    let owned = "the package hermes-gateway owns this gateway";
    for arguments in [&["self-update", "--check"][..], &["self-update", "--yes"], &["chat", "--once", "/update check"]]
    {
        let told = machine.told(arguments);
        assert!(told.contains(owned) && told.contains("apt-get install --only-upgrade"), "{arguments:?}: {told}");
    }
    let refused = machine.refused(&["gateway", "uninstall"]);
    assert!(refused.contains("the package hermes-gateway owns the system service"), "{refused}");
    machine.hermes(&["self-update", "--revert", "--yes"]);
    assert_eq!(machine.status()["image"]["version"], version());
    assert_eq!(machine.identity(), identity);

    machine.run("dpkg", &["--remove", "hermes-gateway"]);
    assert!(!machine.is_up(), "a removed package serves nobody");
    assert!(Path::new("/var/lib/hermes/gateway.toml").exists(), "data stay");
    machine.run("dpkg", &["--purge", "hermes-gateway"]);
    assert_eq!(machine.new_since(&before), Vec::<String>::new());
}

#[test]
fn a_user_installs_a_release_and_removes_it() {
    let name = "install::a_user_installs_a_release_and_removes_it";
    let Some((systemd, given)) = systemd::inside_debian(name, DEADLINE, machine::releases) else { return };
    let machine = Machine::of_user(&systemd, "kim");
    let before = machine.listing();
    let script = given.join("install");
    let script = script.to_str().expect("a plain path");
    machine.shell(&[script]);
    // A gateway in the foreground would be in the way of the service.
    let mut foreground = machine.spawn(&["gateway", "run"]);
    machine.wait_for_a_gateway();
    let refused = machine.refused(&["setup", "--yes", "--install", "--platform", "none", "--agent", "echo"]);
    assert!(refused.contains("has not started it") && refused.contains("gateway stop"), "{refused}");
    assert!(!Path::new("/srv/kim/.hermes/gateway.toml").exists());
    machine.hermes(&["gateway", "stop"]);
    foreground.wait().expect("it ends");
    let said = machine.answered(&["setup"], "y\nnone\necho\n");
    assert!(said.contains("installed as /srv/kim/.config/systemd/user/hermes-gateway.service"), "{said}");
    assert!(said.contains("hello"), "{said}");
    let identity = machine.identity();

    // Another installation changes nothing; a file that was changed by hand is left alone.
    let again = machine.hermes(&["gateway", "install"]);
    assert!(again.contains("was already") && again.contains("runs 1.0.0 already"), "{again}");
    let unit = "/srv/kim/.config/systemd/user/hermes-gateway.service";
    let text = fs::read_to_string(unit).expect("installed");
    fs::write(unit, text.replace("WatchdogSec=30", "WatchdogSec=40")).expect("writes");
    let refused = machine.refused(&["gateway", "install"]);
    assert!(refused.contains("was changed by hand") && refused.contains("drop-in"), "{refused}");
    let forced = machine.hermes(&["gateway", "install", "--force"]);
    assert!(forced.contains("refreshed"), "{forced}");
    assert_eq!(fs::read_to_string(unit).expect("installed"), text);
    assert_eq!(machine.identity(), identity, "none of it restarted the gateway");

    // Another home is another gateway: it neither takes the service over nor removes it.
    for verb in ["install", "start", "uninstall"] {
        let refused = machine.refused(&["--home", "/srv/kim/other", "gateway", verb]);
        assert!(refused.contains("that of another home, /srv/kim/.hermes"), "{verb}: {refused}");
    }
    let setup = ["--home", "/srv/kim/other", "setup", "--yes", "--platform", "none", "--agent", "echo"];
    let said = machine.hermes(&setup);
    assert!(said.contains("Now run `hermes gateway run`"), "{said}");
    fs::remove_dir_all("/srv/kim/other").expect("removes");
    assert_eq!(fs::read_to_string(unit).expect("installed"), text);
    // Root finds it where its owner has it.
    let program = "/srv/kim/.local/bin/hermes";
    let found = machine.run(program, &["--home", "/srv/kim/.hermes", "gateway", "status"]);
    assert!(found.contains("hermes 1.0.0"), "{found}");

    // It updates itself, because no package owns it.
    let key = fs::read_to_string(given.join(PUBLIC_KEY)).expect("the publisher's key");
    let update = format!(
        "\n[update]\nmanifest_url = \"file://{}/manifest.json\"\nverifying_keys = [\"{key}\"]\n",
        given.display()
    );
    machine.append("/srv/kim/.hermes/gateway.toml", &update);
    machine.hermes(&["gateway", "reload"]);
    machine.hermes(&["self-update", "--yes"]);
    assert_eq!(machine.status()["image"]["version"], NEXT);
    machine.hermes(&["self-update", "--revert", "--yes"]);
    assert_eq!(machine.status()["image"]["version"], version());
    assert_eq!(machine.identity(), identity);

    machine.hermes(&["gateway", "stop"]);
    assert!(!machine.is_up());
    let started = machine.hermes(&["gateway", "start"]);
    assert!(started.contains("the gateway runs 1.0.0"), "{started}");
    let list = machine.hermes(&["gateway", "list"]);
    assert!(list.contains("user service  /srv/kim/.hermes  active, enabled"), "{list}");

    machine.hermes(&["gateway", "uninstall", "--purge", "--yes"]);
    assert!(!machine.is_up());
    machine.shell(&[script, "--remove"]);
    assert_eq!(machine.new_since(&before), Vec::<String>::new());
}

#[test]
fn the_service_of_the_machine_becomes_what_is_installed_over_it() {
    let name = "install::the_service_of_the_machine_becomes_what_is_installed_over_it";
    let Some((systemd, given)) = systemd::inside_debian(name, DEADLINE, machine::programs) else { return };
    let machine = Machine::system(&systemd);
    let before = machine.listing();
    let first = given.join(version()).join("hermes");
    let next = given.join(NEXT).join("hermes");
    let install = ["gateway", "install", "--system"];
    let machine = machine.with_program(&first);
    let missing = machine.refused(&["gateway", "start"]);
    assert!(missing.contains("no service is installed for system") && missing.contains("gateway install"), "{missing}");
    machine.hermes(&install);
    let identity = machine.identity();
    assert_eq!(machine.run("stat", &["--format=%U %a", "/var/lib/hermes"]).trim(), "hermes 700");
    assert_eq!(machine.run("stat", &["--format=%U", "/usr/local/lib/hermes/hermes-launch"]).trim(), "root");

    let machine = machine.with_program(&next);
    let said = machine.hermes(&install);
    assert!(said.contains("has become 1.0.1, in the same process"), "{said}");
    assert_eq!((machine.status()["image"]["version"].as_str(), machine.identity()), (Some(NEXT), identity));

    // A gateway that does not come up is told with its own words.
    machine.hermes(&["gateway", "stop"]);
    machine.append("/var/lib/hermes/gateway.toml", "[gatewya]\n");
    let down = machine.refused(&["gateway", "start"]);
    assert!(down.contains("does not come up") && down.contains("gatewya") && down.contains("journalctl"), "{down}");

    let mut holder = std::process::Command::new("flock");
    let holder = holder.args(["--no-fork", "/var/lib/hermes/gateway.lock", "sleep", "infinity"]).spawn();
    let mut holder = holder.expect("runs");
    machine.wait_until("the home is held", || {
        fs::read_to_string("/proc/locks").is_ok_and(|locks| locks.contains(&format!("WRITE {} ", holder.id())))
    });
    let refused = machine.refused(&["gateway", "uninstall", "--system", "--purge", "--yes"]);
    assert!(refused.contains("/var/lib/hermes is still in use"), "{refused}");
    holder.kill().and_then(|()| holder.wait()).expect("it ends");
    machine.hermes(&["gateway", "uninstall", "--system"]);
    assert!(Path::new("/var/lib/hermes/gateway.toml").exists(), "data stay");
    machine.hermes(&["gateway", "uninstall", "--system", "--purge", "--yes"]);
    assert_eq!(machine.new_since(&before), Vec::<String>::new());
}

#[test]
fn a_package_and_an_installation_of_ones_own_give_way_to_each_other() {
    let name = "install::a_package_and_an_installation_of_ones_own_give_way_to_each_other";
    let Some((systemd, given)) = systemd::inside_debian(name, DEADLINE, machine::packages) else { return };
    let machine = Machine::system(&systemd).with_program(&given.join(version()).join("hermes"));
    let before = machine.listing();
    let setup = ["setup", "--system", "--install", "--yes", "--json", "--platform", "none", "--agent", "echo"];
    let done: Value = serde_json::from_str(&machine.hermes(&setup)).expect("one document");
    assert_eq!((&done["service"], &done["running"]), (&true.into(), &true.into()));
    let (own, packaged) = ("/etc/systemd/system/hermes-gateway.service", "/lib/systemd/system/hermes-gateway.service");

    // The package's unit comes to light, and the gateway goes on.
    machine.run("dpkg", &["--install", &machine::package(&given, version())]);
    let identity = machine.identity();
    assert_eq!(machine.show("FragmentPath"), own);
    let said = machine.hermes(&["gateway", "install"]);
    assert!(said.contains("hides the package's") && said.contains("gateway uninstall"), "{said}");
    machine.hermes(&["gateway", "uninstall"]);
    assert_eq!((machine.show("FragmentPath").as_str(), machine.identity()), (packaged, identity));
    assert_eq!(machine.show("UnitFileState"), "enabled");
    let refused = machine.refused(&["gateway", "uninstall"]);
    assert!(refused.contains("the package hermes-gateway owns the system service"), "{refused}");
    let report: Value =
        serde_json::from_str(&machine.hermes(&["gateway", "install", "--web", "--json"])).expect("JSON");
    assert_eq!((&report["unit"], &report["unit_was"]), (&packaged.into(), &"foreign".into()));

    // A purge is of the package, and not of who has come after it.
    machine.run("dpkg", &["--remove", "hermes-gateway"]);
    machine.hermes(&["gateway", "install", "--system", "--force"]);
    let identity = machine.identity();
    machine.run("dpkg", &["--purge", "hermes-gateway"]);
    assert!(machine.is_up() && Path::new("/var/lib/hermes/gateway.toml").exists());
    assert_eq!(machine.identity(), identity);
    machine.hermes(&["gateway", "uninstall", "--system", "--purge", "--yes"]);

    machine.run("dpkg", &["--install", &machine::package(&given, version())]);
    machine.hermes(&["gateway", "install", "--web"]);
    machine.run("dpkg", &["--purge", "hermes-gateway"]);
    assert_eq!(machine.new_since(&before), Vec::<String>::new());
}

#[test]
fn a_visit_starts_the_service_of_another_user() {
    let name = "install::a_visit_starts_the_service_of_another_user";
    let Some((systemd, given)) = systemd::inside_debian(name, DEADLINE, machine::programs) else { return };
    let machine = Machine::system(&systemd).with_program(&given.join(version()).join("hermes"));
    let install = ["gateway", "install", "--system", "--run-as-user", "bots", "--socket", "--webhook", "--web"];
    let missing = machine.refused(&install);
    assert!(missing.contains("there is no user 'bots'"), "{missing}");
    machine.run("useradd", &["--system", "--user-group", "--no-create-home", "bots"]);
    let before = machine.listing();

    machine.hermes(&[&install[..], &["--no-start"]].concat());
    assert!(!machine.is_up() && !visit("/healthz"));
    machine.append("/var/lib/hermes/gateway.toml", "[platforms.web]\n");
    // Whose the home is says as whom the service runs, from then on.
    machine.hermes(&["gateway", "install", "--system", "--socket", "--webhook", "--web"]);
    let pid = machine.status()["pid"].to_string();
    for path in ["/var/lib/hermes", &format!("/proc/{pid}")] {
        assert_eq!(machine.run("stat", &["--format=%U", path]).trim(), "bots", "{path}");
    }
    let other = machine.refused(&["gateway", "install", "--system", "--run-as-user", "daemon"]);
    assert!(other.contains("/var/lib/hermes does not belong to 'daemon'") && other.contains("chown"), "{other}");
    assert!(visit("/healthz"));

    let told = machine.told(&["gateway", "stop"]);
    for socket in ["hermes-gateway.socket", "hermes-gateway-webhook.socket", "hermes-gateway-web.socket"] {
        assert!(told.contains(&format!("`systemctl stop {socket}`")), "{told}");
    }
    assert!(!machine.is_up());
    assert!(visit("/healthz"), "systemd has started it for the visit");
    assert!(machine.is_up());
    assert_ne!(machine.status()["pid"].to_string(), pid);

    // A gateway that runs is given no socket; its next start brings them, and systemd listens again.
    let sockets = ["hermes-gateway-webhook.socket", "hermes-gateway-web.socket"];
    machine.run("systemctl", &[&["stop"], &sockets[..]].concat());
    let said = machine.hermes(&["gateway", "install", "--system", "--socket", "--webhook", "--web"]);
    assert!(sockets.iter().all(|socket| said.contains(&format!("{socket} listens from"))), "{said}");
    machine.hermes(&["gateway", "stop"]);
    machine.hermes(&["gateway", "start"]);
    machine.run("systemctl", &[&["is-active"], &sockets[..]].concat());

    machine.hermes(&["gateway", "uninstall", "--system", "--purge", "--yes"]);
    assert!(!machine.is_up() && !visit("/healthz"));
    assert_eq!(machine.new_since(&before), Vec::<String>::new());
}

/// Whether a page of the web server is there.
fn visit(path: &str) -> bool {
    let Ok(mut connection) = TcpStream::connect("127.0.0.1:8787") else { return false };
    connection.set_read_timeout(Some(DEADLINE)).expect("a time");
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:8787\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    connection.write_all(request.as_bytes()).and_then(|()| connection.read_to_string(&mut answer)).expect("it answers");
    answer.starts_with("HTTP/1.1 200 ")
}

#[test]
fn an_archive_that_is_not_the_published_one_is_not_installed() {
    let site = tempfile::tempdir().expect("a directory");
    machine::releases(site.path());
    let prefix = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory that allows execution");
    let install = |script: &Path| {
        let output = std::process::Command::new(script).arg("--prefix").arg(prefix.path()).output().expect("runs");
        let installed = fs::read_dir(prefix.path().join("bin")).map_or(0, Iterator::count);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned(), installed)
    };
    let script = site.path().join("install");
    let (done, said, installed) = install(&script);
    assert!(done && installed == 2, "{said}");
    fs::remove_dir_all(prefix.path().join("bin")).expect("removes");

    // The digest comes first; the signature counts even where the digest is right.
    let own = std::process::Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install")).output();
    assert!(String::from_utf8_lossy(&own.expect("runs").stderr).contains("names no release"));
    let text = fs::read_to_string(&script).expect("there");
    let key = fs::read_to_string(site.path().join(PUBLIC_KEY)).expect("there");
    let other = crate::support::release::Publisher::new().public_key();
    fs::write(&script, text.replace(&key, &other)).expect("writes");
    let (done, said, installed) = install(&script);
    assert!(!done && said.contains("no trusted key signed") && installed == 0, "{said}");
    fs::write(&script, &text).expect("writes");
    let archive = machine::archive(site.path(), version());
    let mut bytes = fs::read(&archive).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).expect("writes");
    let (done, said, installed) = install(&script);
    assert!(!done && said.contains("was published: it was changed") && installed == 0, "{said}");
}
