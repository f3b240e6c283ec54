//! `scripts/release`, from a key to a release that stages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hermes_gateway::config::UpdateConfig;
use hermes_gateway::update::{Have, Source, Versions, Want, archive_name, stage, target};
use hermes_gateway::version::stamp;
use serde_json::Value;

use super::v;
use crate::support::release::pack;

const HERMES: &str = env!("CARGO_BIN_EXE_hermes");

/// Runs the script, with the release tool that was built beside this test if there is one.
fn release(args: &[&str]) -> Output {
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/release"));
    let tool = Path::new(HERMES).with_file_name("examples").join("release-tool");
    if tool.exists() {
        script.env("HERMES_RELEASE_TOOL", tool);
    }
    script.args(args).output().unwrap()
}

fn succeeds(args: &[&str]) -> String {
    let output = release(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A publisher who only has the script.
struct Publisher {
    dir: tempfile::TempDir,
    public_key: String,
}

impl Publisher {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let printed = succeeds(&["--gen-key", dir.path().join("key").to_str().unwrap()]);
        Self { dir, public_key: printed.trim().to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn publish(&self, bin: &Path, version: &str, more: &[&str]) -> String {
        let (out, key) = (self.path("out"), self.path("key/release.key"));
        let mut args = vec!["--version", version, "--bin", bin.to_str().unwrap()];
        args.extend(["--out", out.to_str().unwrap(), "--key", key.to_str().unwrap()]);
        args.extend(more);
        succeeds(&args)
    }

    fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("out/manifest.json")).unwrap()).unwrap()
    }
}

#[tokio::test]
async fn what_the_script_makes_is_staged() {
    let publisher = Publisher::new();
    let key = publisher.path("key/release.key");
    assert_eq!(succeeds(&["--public-key", key.to_str().unwrap()]).trim(), publisher.public_key);
    let told = publisher.publish(
        Path::new(HERMES),
        "1.0.1",
        &["--notes-url", "https://example.org/1.0.1", "--expires", "2099-01-01"],
    );
    assert!(told.contains("1.0.1 instead of 1.0.0"), "{told}");

    let home = tempfile::tempdir().unwrap();
    let manifest_url = format!("file://{}", publisher.path("out/manifest.json").display());
    let config = UpdateConfig {
        manifest_url: Some(manifest_url),
        verifying_keys: vec![publisher.public_key.clone()],
        ..UpdateConfig::default()
    };
    let running = v("1.0.0");
    let have = Have::new(&running, &running);
    let source = Source::new(&config).unwrap();
    let image = stage(&source, &Versions::new(home.path()), &Want::Newest, have, |_| {}).await.unwrap();

    let mut expected = fs::read(HERMES).unwrap();
    assert_eq!(pack::restamp(&mut expected, &v("1.0.1")).unwrap(), "1.0.0");
    assert!(fs::read(&image.path).unwrap() == expected, "only the version block differs");
    let output = Command::new(&image.path).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hermes 1.0.1\n");
}

#[test]
fn releases_are_listed_newest_first_and_a_version_once() {
    let publisher = Publisher::new();
    let bin = publisher.path("hermes");
    fs::write(&bin, stamp("1.0.0")).unwrap();
    publisher.publish(&bin, "1.0.1", &[]);
    publisher.publish(&bin, "1.10.0", &["--date", "2026-01-02 03:04:05 UTC"]);
    publisher.publish(&bin, "1.2.0", &[]);
    publisher.publish(&bin, "1.2.0", &["--target", "riscv64gc-unknown-linux-gnu"]);
    publisher.publish(&bin, "1.10.0", &["--notes-url", "https://example.org/1.10.0"]);
    let manifest = publisher.manifest();
    assert_eq!(manifest["schema"], 1);
    let releases = manifest["releases"].as_array().unwrap();
    let versions: Vec<&str> = releases.iter().map(|entry| entry["version"].as_str().unwrap()).collect();
    assert_eq!(versions, ["1.10.0", "1.2.0", "1.0.1"]);
    assert_eq!(releases[0]["assets"].as_array().unwrap().len(), 1);
    assert_eq!(releases[0]["notes_url"], "https://example.org/1.10.0");
    let names: Vec<&str> =
        releases[1]["assets"].as_array().unwrap().iter().map(|asset| asset["name"].as_str().unwrap()).collect();
    let other = archive_name(&v("1.2.0"), "riscv64gc-unknown-linux-gnu");
    assert_eq!(names, [archive_name(&v("1.2.0"), target()), other]);
}

#[test]
fn the_version_block_is_in_the_binary_once() {
    let binary = fs::read(HERMES).unwrap();
    let places = pack::stamps(&binary);
    assert_eq!(places.len(), 1);
    assert!(binary[places[0]..].starts_with(&stamp(env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_binary_without_a_version_block_is_refused() {
    let publisher = Publisher::new();
    let (out, key) = (publisher.path("out"), publisher.path("key/release.key"));
    let output = release(&[
        "--version",
        "1.0.1",
        "--bin",
        "/bin/true",
        "--out",
        out.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ]);
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("0 version blocks instead of one"), "{told}");
    assert!(!out.exists());
}

#[test]
fn a_key_is_never_overwritten() {
    let publisher = Publisher::new();
    let before = fs::read(publisher.path("key/release.key")).unwrap();
    assert!(!release(&["--gen-key", publisher.path("key").to_str().unwrap()]).status.success());
    assert_eq!(fs::read(publisher.path("key/release.key")).unwrap(), before);
}

#[test]
fn wrong_options_are_a_usage_error() {
    let complete = ["--version", "1.0.1", "--out", "x", "--key", "k", "--bin", "/bin/true"];
    let bad_date = [&complete[..], &["--date", "no date"]].concat();
    for args in [&["--version"][..], &["--what", "x"], &complete[..2], &complete[..4], &bad_date] {
        assert_eq!(release(args).status.code(), Some(2), "{args:?}");
    }
    assert!(succeeds(&["--help"]).starts_with("Usage: scripts/release"));
}
