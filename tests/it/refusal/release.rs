//! Releases that are not staged.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::Scene;
use crate::support::release::{Fault, Publisher, pack, release};

/// A name, and what makes a good release of 1.1.0 bad; it is given the archive's name.
type Case = (&'static str, fn(&Scene, &str));

/// Changes the archive's entry in the manifest.
fn edit_asset(scene: &Scene, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    scene.publisher.edit_manifest(|manifest| {
        edit(manifest["releases"][0]["assets"][0].as_object_mut().expect("an archive is listed"));
    });
}

/// Puts other bytes in the place of the archive, and makes the manifest agree.
fn replace_archive(scene: &Scene, name: &str, bytes: &[u8]) {
    fs::write(scene.publisher.path(name), bytes).expect("writes");
    edit_asset(scene, |asset| {
        asset.remove("digest");
        asset.remove("size");
    });
}

fn changed(scene: &Scene, name: &str) -> Vec<u8> {
    let mut bytes = fs::read(scene.publisher.path(name)).expect("it is published");
    bytes[40] ^= 1;
    bytes
}

/// Publishes something else instead of 1.1.0.
fn publish_instead(scene: &Scene, other: &pack::Release) {
    scene.clear();
    pack::publish(scene.publisher.dir.path(), other, b"another image", &scene.publisher.key).expect("publishes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_release_is_refused_and_the_reason_told_everywhere() {
    let mut scene = Scene::start().await;
    signatures(&mut scene).await;
    versions(&mut scene).await;
    downloads(&mut scene).await;
    insta::assert_snapshot!(scene.table().await, @r"
    signed by another key → no trusted key signed the archive hermes-1.1.0-TARGET.tar.gz: it was changed or renamed after signing, or the publisher's key is missing from [update] verifying_keys
    a changed byte → the archive hermes-1.1.0-TARGET.tar.gz has SHA-256 …, and the manifest says …: it was damaged or changed
    a changed byte, the manifest agrees → no trusted key signed the archive hermes-1.1.0-TARGET.tar.gz: it was changed or renamed after signing, or the publisher's key is missing from [update] verifying_keys
    not signed → the archive hermes-1.1.0-TARGET.tar.gz is not signed, or cut short: sign it with scripts/release or zipsign: could not find read signatures in .tar.gz file: the expected last GZIP block was missing or corrupted
    another version under this name → no trusted key signed the archive hermes-1.1.0-TARGET.tar.gz: it was changed or renamed after signing, or the publisher's key is missing from [update] verifying_keys
    an older version → version 0.9.0 is older than 1.0.0, which runs: to go back use the revert command
    for another target → version 1.1.0 is not available for TARGET, only for riscv64gc-unknown-linux-gnu
    of another product → release 1.1.0 is not a hermes release, it holds apollo-1.1.0.tar.gz: check manifest_url
    no release at all → the manifest lists no release
    expired → the manifest expired on 2020-01-01T00:00:00Z: the publisher has to renew it, or a mirror serves old files
    a manifest that is not JSON → the manifest is not JSON: does manifest_url lead to a web page?: expected value at line 1 column 1
    a manifest without end → the manifest is larger than the limit of 1048576 bytes
    a manifest that is not there → the server answers 404 for https://example.org/manifest.json
    an archive that is cut short → the archive is cut short: N bytes of N: try again
    an archive without end → the archive is larger than the limit of 65536 bytes
    a server that dies half-way → the connection broke after N bytes of https://example.org/hermes-1.1.0-TARGET.tar.gz: try again: error decoding response body: error reading a body from connection: end of file before message length reached
    a redirect to plain http → http://example.org/hermes.tar.gz is refused: only https is allowed, http on a loopback address, and file for a manifest on this machine; an https source may not lead to http
    an archive of unknown size without end → the archive is larger than the limit of 268435456 bytes
    ");
    scene.updates().await;
}

async fn signatures(scene: &mut Scene) {
    let cases: [Case; 5] = [
        ("signed by another key", |scene, _| {
            let other = Publisher::new();
            scene.clear();
            pack::publish(scene.publisher.dir.path(), &release("1.1.0"), b"x", &other.key).expect("publishes");
        }),
        ("a changed byte", |scene, name| {
            fs::write(scene.publisher.path(name), changed(scene, name)).expect("writes");
        }),
        ("a changed byte, the manifest agrees", |scene, name| {
            replace_archive(scene, name, &changed(scene, name));
        }),
        ("not signed", |scene, name| {
            replace_archive(scene, name, &pack::pack(b"x", None, None).expect("packs"));
        }),
        ("another version under this name", |scene, name| {
            let archive = pack::pack(b"x", None, None).expect("packs");
            let other = name.replace("1.1.0", "0.9.0");
            replace_archive(scene, name, &pack::sign(&archive, &other, &scene.publisher.key).expect("signs"));
        }),
    ];
    for (case, spoil) in cases {
        scene.refused(case, spoil).await;
    }
}

async fn versions(scene: &mut Scene) {
    let cases: [Case; 5] = [
        ("an older version", |scene, _| publish_instead(scene, &release("0.9.0"))),
        ("for another target", |scene, _| {
            let other = pack::Release { target: "riscv64gc-unknown-linux-gnu".to_owned(), ..release("1.1.0") };
            publish_instead(scene, &other);
        }),
        ("of another product", |scene, _| {
            edit_asset(scene, |asset| drop(asset.insert("name".to_owned(), json!("apollo-1.1.0.tar.gz"))));
        }),
        ("no release at all", |scene, _| scene.publisher.edit_manifest(|manifest| manifest["releases"] = json!([]))),
        ("expired", |scene, _| {
            scene.publisher.edit_manifest(|manifest| manifest["expires"] = json!("2020-01-01T00:00:00Z"));
        }),
    ];
    for (case, spoil) in cases {
        scene.refused(case, spoil).await;
    }
}

async fn downloads(scene: &mut Scene) {
    let cases: [Case; 8] = [
        ("a manifest that is not JSON", |scene, _| {
            scene.server.fail("manifest.json", Fault::Content(b"<!doctype html>".to_vec()));
        }),
        ("a manifest without end", |scene, _| scene.server.fail("manifest.json", Fault::Endless)),
        ("a manifest that is not there", |scene, _| scene.server.fail("manifest.json", Fault::Status(404))),
        ("an archive that is cut short", |scene, name| {
            let bytes = fs::read(scene.publisher.path(name)).expect("it is published");
            fs::write(scene.publisher.path(name), &bytes[..bytes.len() / 2]).expect("writes");
        }),
        ("an archive without end", |scene, name| {
            edit_asset(scene, |asset| drop(asset.insert("size".to_owned(), json!(65_536))));
            scene.server.fail(name, Fault::Endless);
        }),
        ("a server that dies half-way", |scene, name| scene.server.fail(name, Fault::DieHalfWay)),
        ("a redirect to plain http", |scene, name| {
            scene.server.fail(name, Fault::Redirect("http://example.org/hermes.tar.gz".to_owned()));
        }),
        ("an archive of unknown size without end", |scene, name| {
            edit_asset(scene, |asset| drop(asset.remove("size")));
            scene.server.fail(name, Fault::Endless);
        }),
    ];
    for (case, spoil) in cases {
        scene.refused(case, spoil).await;
    }
}

/// `versions/` is a file system of 64 KiB of which nothing outside of the gateway knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_nothing_is_left_on_it() {
    if !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "mount namespaces must be allowed in CI");
        eprintln!("SKIPPED: no mount namespaces here (needs root)");
        return;
    }
    let mount = "mount -t tmpfs -o size=64k,mode=755 none \"$HERMES_HOME/versions\" && exec \"$0\" \"$@\"";
    let mut scene = Scene::start_by(&["unshare", "--mount", "sh", "-c", mount]).await;
    let seen = scene.versions.strip_prefix("/").expect("it is absolute");
    scene.versions = Path::new("/proc").join(scene.gateway.pid().to_string()).join("root").join(seen);
    // As good as random: it does not get smaller when it is packed.
    let image: Vec<u8> =
        (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n).to_le_bytes()).collect();
    scene.publisher.release("1.1.0", &image);
    scene.refused_as_published("no space for an archive of known size").await;
    edit_asset(&scene, |asset| drop(asset.remove("size")));
    let name = hermes_gateway::update::archive_name(&release("1.1.0").version, hermes_gateway::update::target());
    scene.server.fail(&name, Fault::Unannounced);
    scene.refused_as_published("no space while it is written").await;
    insta::assert_snapshot!(scene.table().await, @r"
    no space for an archive of known size → no space left in ~/.hermes/versions: at least N bytes are needed and 65536 are free
    no space while it is written → no space left in ~/.hermes/versions: at least N bytes are needed and N are free
    ");
}
