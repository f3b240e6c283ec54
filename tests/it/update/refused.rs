//! Every reason to refuse a release: the error names it, and `versions/` is as it was.

use std::fs;
use std::time::Duration;

use hermes_gateway::config::UpdateConfig;
use hermes_gateway::report::Chain;
use hermes_gateway::update::{
    ContentsError, Item, Limits, Source, StageProgress, UpdateError, VersionsError, Wait, Want, archive_name, target,
};
use serde_json::json;

use super::{RUNNING, Setup, v};
use crate::support::release::{Fault, Publisher, pack, release};

const MANIFEST: &str = "manifest.json";
/// The limit of a wait that the test knows to end by it.
const SHORT: Duration = Duration::from_millis(300);

/// Publishes 1.1.0, lets `spoil` make it bad, and returns why it was refused once `versions/` was found untouched.
async fn refused(spoil: impl FnOnce(&mut Setup, &str)) -> UpdateError {
    let mut setup = Setup::new().await;
    let name = setup.publisher.release("1.1.0", b"the new image");
    spoil(&mut setup, &name);
    let before = setup.disk();
    let error = setup.stage_from(&setup.source()).await.expect_err("a bad release is refused");
    assert_eq!(setup.disk(), before, "versions/ is untouched after: {}", Chain(&error));
    assert_eq!(setup.versions.current().unwrap(), Some(v(RUNNING)));
    error
}

macro_rules! refuses {
    ($($(#[$doc:meta])* $name:ident: $spoil:expr => $pattern:pat $(if $guard:expr)?,)*) => {
        $(
            $(#[$doc])*
            #[tokio::test]
            async fn $name() {
                let error = refused($spoil).await;
                assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
            }
        )*
    };
}

/// Drops what would give a change away before the signature does.
fn forget_digest(setup: &Setup) {
    setup.publisher.edit_manifest(|manifest| {
        let asset = manifest["releases"][0]["assets"][0].as_object_mut().unwrap();
        asset.remove("digest");
        asset.remove("size");
    });
}

/// Puts other bytes in the place of the archive, and makes the manifest agree.
fn replace_archive(setup: &Setup, name: &str, bytes: &[u8]) {
    fs::write(setup.publisher.path(name), bytes).unwrap();
    forget_digest(setup);
}

/// Packs members that the release tool would not, and signs them well.
fn signed_tar(setup: &Setup, name: &str, members: &[(&str, tar::EntryType)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (member, kind) in members {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..member.len()].copy_from_slice(member.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(0);
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
    }
    pack::sign(&tar.into_inner().unwrap().finish().unwrap(), name, &setup.publisher.key).unwrap()
}

// The signature.
refuses! {
    wrong_key: |setup, _| {
        let other = Publisher { key: pack::generate_key().unwrap(), dir: tempfile::tempdir().unwrap() };
        setup.publisher.key = other.key;
    } => UpdateError::SignatureMismatch { .. },

    a_changed_byte_in_the_archive: |setup, name| {
        let mut bytes = fs::read(setup.publisher.path(name)).unwrap();
        bytes[40] ^= 1;
        fs::write(setup.publisher.path(name), bytes).unwrap();
    } => UpdateError::DigestMismatch { .. },

    a_changed_byte_and_a_manifest_that_agrees: |setup, name| {
        let mut bytes = fs::read(setup.publisher.path(name)).unwrap();
        bytes[40] ^= 1;
        replace_archive(setup, name, &bytes);
    } => UpdateError::SignatureMismatch { .. },

    a_changed_byte_in_the_signature: |setup, name| {
        let mut bytes = fs::read(setup.publisher.path(name)).unwrap();
        let place = bytes.len() - 60;
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        replace_archive(setup, name, &bytes);
    } => UpdateError::SignatureMismatch { .. },

    a_missing_signature: |setup, name| {
        replace_archive(setup, name, &pack::pack(b"the new image", None, None).unwrap());
    } => UpdateError::NotSigned { .. },

    an_empty_archive_file: |setup, name| {
        replace_archive(setup, name, b"");
    } => UpdateError::NotSigned { .. },

    bytes_after_the_signature: |setup, name| {
        let mut bytes = fs::read(setup.publisher.path(name)).unwrap();
        bytes.extend(b"more");
        replace_archive(setup, name, &bytes);
    } => UpdateError::NotSigned { .. },

    /// Signed by the right key, but as 1.0.9: an old release in the clothes of a new one.
    another_version_under_this_name: |setup, name| {
        let other = archive_name(&v("1.0.9"), target());
        let archive = pack::pack(b"an old image", None, None).unwrap();
        replace_archive(setup, name, &pack::sign(&archive, &other, &setup.publisher.key).unwrap());
    } => UpdateError::SignatureMismatch { .. },

    another_target_under_this_name: |setup, name| {
        let other = archive_name(&v("1.1.0"), "riscv64gc-unknown-linux-gnu");
        let archive = pack::pack(b"an image for another machine", None, None).unwrap();
        replace_archive(setup, name, &pack::sign(&archive, &other, &setup.publisher.key).unwrap());
    } => UpdateError::SignatureMismatch { .. },

    another_product_under_this_name: |setup, name| {
        let other = name.replace("hermes", "apollo");
        let archive = pack::pack(b"apollo", None, None).unwrap();
        replace_archive(setup, name, &pack::sign(&archive, &other, &setup.publisher.key).unwrap());
    } => UpdateError::SignatureMismatch { .. },
}

// The contents.
refuses! {
    no_archive_though_signed: |setup, name| {
        let signed = pack::sign(b"not gzip at all", name, &setup.publisher.key).unwrap();
        replace_archive(setup, name, &signed);
    } => UpdateError::Contents { source: ContentsError::NotAnArchive { .. }, .. },

    a_member_of_another_product: |setup, name| {
        let signed = signed_tar(setup, name, &[("apollo", tar::EntryType::Regular)]);
        replace_archive(setup, name, &signed);
    } => UpdateError::Contents { source: ContentsError::OtherMember { found }, .. } if found == "apollo",

    a_member_too_many: |setup, name| {
        let signed =
            signed_tar(setup, name, &[("hermes", tar::EntryType::Regular), ("README", tar::EntryType::Regular)]);
        replace_archive(setup, name, &signed);
    } => UpdateError::Contents { source: ContentsError::OtherMember { found }, .. } if found == "README",

    a_member_that_climbs_out: |setup, name| {
        let signed = signed_tar(setup, name, &[("../hermes", tar::EntryType::Regular)]);
        replace_archive(setup, name, &signed);
    } => UpdateError::Contents { source: ContentsError::OtherMember { found }, .. } if found == "../hermes",

    a_link_for_a_binary: |setup, name| {
        let signed = signed_tar(setup, name, &[("hermes", tar::EntryType::Symlink)]);
        replace_archive(setup, name, &signed);
    } => UpdateError::Contents { source: ContentsError::NotAFile, .. },

    an_archive_without_members: |setup, name| {
        let signed = signed_tar(setup, name, &[]);
        replace_archive(setup, name, &signed);
    } => UpdateError::Contents { source: ContentsError::Empty, .. },

    a_binary_over_the_limit: |setup, _| {
        setup.limits.binary_bytes_max = 5;
    } => UpdateError::TooLarge { item: Item::Binary, limit_bytes: 5 },
}

// The version.
refuses! {
    the_same_version: |setup, _| {
        setup.publisher.edit_manifest(|manifest| manifest["releases"] = json!([]));
        setup.publisher.release(RUNNING, b"again");
    } => UpdateError::SameVersion { version } if *version == v(RUNNING),

    an_older_version: |setup, _| {
        setup.publisher.edit_manifest(|manifest| manifest["releases"] = json!([]));
        setup.publisher.release("0.9.0", b"old");
    } => UpdateError::OlderThanRunning { version, running } if *version == v("0.9.0") && *running == v(RUNNING),

    the_same_version_asked_for: |setup, _| {
        setup.want = Want::Exact(v(RUNNING));
    } => UpdateError::SameVersion { .. },

    an_older_version_asked_for: |setup, _| {
        setup.publisher.release("0.9.0", b"old");
        setup.want = Want::Exact(v("0.9.0"));
    } => UpdateError::OlderThanRunning { .. },

    /// Newer than what runs, but older than what was accepted before: a replay.
    a_version_below_the_highest_accepted: |setup, _| {
        setup.floor = v("1.2.0");
    } => UpdateError::OlderThanAccepted { version, floor } if *version == v("1.1.0") && *floor == v("1.2.0"),

    a_version_that_is_not_listed: |setup, _| {
        setup.want = Want::Exact(v("1.5.0"));
    } => UpdateError::VersionNotListed { wanted, listed } if *wanted == v("1.5.0") && listed == &["1.1.0"],

    an_empty_manifest: |setup, _| {
        setup.publisher.edit_manifest(|manifest| manifest["releases"] = json!([]));
    } => UpdateError::NoRelease,

    another_target: |setup, _| {
        setup.publisher.edit_manifest(|manifest| manifest["releases"] = json!([]));
        let other = pack::Release { target: "riscv64gc-unknown-linux-gnu".to_owned(), ..release("1.1.0") };
        pack::publish(setup.publisher.dir.path(), &other, b"foreign", &setup.publisher.key).unwrap();
    } => UpdateError::OtherTarget { target: ours, found, .. }
        if *ours == target() && found == &["riscv64gc-unknown-linux-gnu"],

    another_product: |setup, _| {
        setup.publisher.edit_manifest(|manifest| {
            manifest["releases"][0]["assets"] = json!([{ "name": "apollo-1.1.0.tar.gz", "url": "apollo.tar.gz" }]);
        });
    } => UpdateError::OtherProduct { found, .. } if found == &["apollo-1.1.0.tar.gz"],
}

// The manifest.
refuses! {
    a_manifest_that_is_not_json: |setup, _| {
        setup.server.fail(MANIFEST, Fault::Content(b"<!doctype html>".to_vec()));
    } => UpdateError::ManifestNotJson { .. },

    a_manifest_of_another_schema: |setup, _| {
        setup.publisher.edit_manifest(|manifest| manifest["schema"] = json!(2));
    } => UpdateError::ManifestSchema { found } if found == "2",

    a_manifest_without_schema: |setup, _| {
        setup.server.fail(MANIFEST, Fault::Content(b"{\"releases\":[]}".to_vec()));
    } => UpdateError::ManifestSchema { found } if found == "none",

    a_manifest_without_versions: |setup, _| {
        setup.publisher.edit_manifest(|manifest| manifest["releases"] = json!([{ "assets": [] }]));
    } => UpdateError::ManifestMalformed { .. },

    a_manifest_that_is_too_large: |setup, _| {
        setup.publisher.edit_manifest(|manifest| manifest["padding"] = json!(" ".repeat(1 << 20)));
    } => UpdateError::TooLarge { item: Item::Manifest, limit_bytes: 1_048_576 },

    a_manifest_without_end: |setup, _| {
        setup.server.fail(MANIFEST, Fault::Endless);
    } => UpdateError::TooLarge { item: Item::Manifest, .. },

    an_expired_manifest: |setup, _| {
        setup.publisher.edit_manifest(|manifest| manifest["expires"] = json!("2020-01-01T00:00:00Z"));
    } => UpdateError::Expired { item: Item::Manifest, .. },

    an_expiry_that_is_no_date: |setup, _| {
        setup.publisher.edit_manifest(|manifest| manifest["expires"] = json!("soon"));
    } => UpdateError::BadExpiry { item: Item::Manifest, .. },

    /// Who edits the manifest cannot make a release last longer: its date is signed.
    an_expired_release_in_a_manifest_that_does_not_say_so: |setup, _| {
        let expired = pack::Release { expires: Some("2020-01-01T00:00:00Z".to_owned()), ..release("1.1.0") };
        pack::publish(setup.publisher.dir.path(), &expired, b"stale", &setup.publisher.key).unwrap();
        setup.publisher.edit_manifest(|manifest| {
            manifest.as_object_mut().unwrap().remove("expires");
        });
    } => UpdateError::Expired { item: Item::Archive, .. },

    a_digest_that_is_none: |setup, _| {
        setup.publisher.edit_manifest(|manifest| manifest["releases"][0]["assets"][0]["digest"] = json!("crc32:0"));
    } => UpdateError::BadDigest { .. },
}

// The server.
refuses! {
    a_server_that_is_not_there: |setup, _| {
        setup.server.fail(MANIFEST, Fault::Redirect(closed_port()));
    } => UpdateError::Unreachable { .. },

    a_manifest_that_is_not_there: |setup, _| {
        fs::remove_file(setup.publisher.path(MANIFEST)).unwrap();
    } => UpdateError::Status { status: 404, .. },

    a_server_that_fails: |setup, name| {
        setup.server.fail(name, Fault::Status(503));
    } => UpdateError::Status { status: 503, .. },

    a_server_that_says_nothing: |setup, _| {
        setup.limits.idle = SHORT;
        setup.server.fail(MANIFEST, Fault::Silence);
    } => UpdateError::TimedOut { wait: Wait::Idle, .. },

    a_server_that_stalls: |setup, name| {
        setup.limits.idle = SHORT;
        setup.server.fail(name, Fault::StallHalfWay);
    } => UpdateError::TimedOut { wait: Wait::Idle, .. },

    a_server_that_trickles: |setup, name| {
        setup.limits.total = SHORT;
        setup.server.fail(name, Fault::Trickle);
    } => UpdateError::TimedOut { wait: Wait::Total, .. },

    a_server_that_dies_half_way: |setup, name| {
        setup.server.fail(name, Fault::DieHalfWay);
    } => UpdateError::Interrupted { .. },

    an_archive_cut_short: |setup, name| {
        setup.server.fail(name, Fault::Truncate);
    } => UpdateError::Truncated { .. },

    an_archive_cut_short_that_nothing_announced: |setup, name| {
        forget_digest(setup);
        setup.server.fail(name, Fault::Truncate);
    } => UpdateError::NotSigned { .. },

    an_archive_longer_than_the_manifest_says: |setup, name| {
        setup.server.fail(name, Fault::Endless);
    } => UpdateError::TooLarge { item: Item::Archive, .. },

    an_archive_without_end: |setup, name| {
        setup.limits.archive_bytes_max = 1 << 20;
        forget_digest(setup);
        setup.server.fail(name, Fault::Endless);
    } => UpdateError::TooLarge { item: Item::Archive, limit_bytes: 1_048_576 },

    a_redirect_to_http: |setup, _| {
        setup.server.fail(MANIFEST, Fault::Redirect("http://example.org/manifest.json".to_owned()));
    } => UpdateError::InsecureUrl { url } if url == "http://example.org/manifest.json",

    an_archive_redirected_to_http: |setup, name| {
        setup.server.fail(name, Fault::Redirect("http://user:secret@example.org/x?token=secret".to_owned()));
    } => UpdateError::InsecureUrl { url } if url == "http://example.org/x",

    a_redirect_to_a_file: |setup, _| {
        setup.server.fail(MANIFEST, Fault::Redirect("file:///etc/passwd".to_owned()));
    } => UpdateError::InsecureUrl { .. },

    a_redirect_in_a_circle: |setup, _| {
        setup.server.fail(MANIFEST, Fault::Redirect(setup.server.url(MANIFEST)));
    } => UpdateError::TooManyRedirects { .. },

    an_archive_at_a_http_url: |setup, _| {
        setup.publisher.edit_manifest(|manifest| {
            manifest["releases"][0]["assets"][0]["url"] = json!("http://example.org/x.tar.gz");
        });
    } => UpdateError::InsecureUrl { .. },
}

/// The URL of a port on loopback that is taken but at which nobody listens.
fn closed_port() -> String {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::os::fd::IntoRawFd;
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
    // Open until the test's process ends, so that no other test gets the port.
    let _ = socket.into_raw_fd();
    format!("http://{address}/")
}

#[test]
fn a_configuration_that_cannot_be_trusted_is_refused() {
    let key = Publisher::new().public_key();
    let config = |url: &str, keys: &[&str]| UpdateConfig {
        manifest_url: Some(url.to_owned()),
        verifying_keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..UpdateConfig::default()
    };
    let outcome = |config: &UpdateConfig| Source::new(config).expect_err("it is refused");
    let error = outcome(&UpdateConfig { verifying_keys: vec![key.clone()], ..UpdateConfig::default() });
    assert!(matches!(error, UpdateError::NoManifestUrl), "{error:?}");
    let error = outcome(&config("https://example.org/m.json", &[]));
    assert!(matches!(error, UpdateError::NoKey), "{error:?}");
    let error = outcome(&config("https://example.org/m.json", &[&key, "c2hvcnQ="]));
    assert!(matches!(&error, UpdateError::BadKey { which } if which == "[update] verifying_keys[1]"), "{error:?}");
    let error = outcome(&config("not a url", &[&key]));
    assert!(matches!(error, UpdateError::BadUrl { .. }), "{error:?}");
    let error = outcome(&config("http://user:secret@example.org/m.json?token=secret", &[&key]));
    assert!(matches!(error, UpdateError::InsecureUrl { .. }), "{error:?}");
    assert!(!Chain(&error).to_string().contains("secret"));
}

#[tokio::test]
async fn no_error_of_a_fetch_shows_the_token_in_its_url() {
    let mut setup = Setup::new().await;
    setup.publisher.release("1.1.0", b"the new image");
    setup.limits = Limits { idle: SHORT, ..Limits::default() };
    let url = setup.server.url("manifest.json?token=secret").replace("127.0.0.1", "user:secret@127.0.0.1");
    let source = Source::new(&setup.publisher.config(&url)).unwrap().with_limits(setup.limits);
    for fault in [
        Fault::Silence,
        Fault::StallHalfWay,
        Fault::DieHalfWay,
        Fault::Truncate,
        Fault::Redirect("http://secret@example.org/?secret".to_owned()),
        Fault::Redirect(closed_port()),
        Fault::Status(500),
        Fault::Content(b"{}".to_vec()),
    ] {
        setup.server.fail(MANIFEST, fault.clone());
        let error = setup.stage_from(&source).await.expect_err("the manifest fails");
        let text = Chain(&error).to_string();
        assert!(!text.contains("secret"), "{fault:?}: {text}");
    }
}

#[tokio::test]
async fn a_second_update_at_the_same_time_is_refused() {
    let setup = Setup::new().await;
    let name = setup.publisher.release("1.1.0", b"the new image");
    setup.server.fail(&name, Fault::StallHalfWay);
    let source = setup.source();
    let (downloading, mut told) = tokio::sync::mpsc::unbounded_channel();
    let first = setup.stage_telling(&source, |step| {
        if let StageProgress::Download { done_bytes: 1.., .. } = step {
            downloading.send(()).unwrap();
        }
    });
    let second = async {
        told.recv().await.unwrap();
        setup.stage_from(&source).await
    };
    // The first one never ends; dropping it is what a client that goes away does.
    let error = tokio::select! {
        outcome = first => panic!("the server stalls: {outcome:?}"),
        outcome = second => outcome.expect_err("one at a time"),
    };
    assert!(matches!(error, UpdateError::Versions(VersionsError::Busy { .. })), "{error:?}");
    assert_eq!(setup.disk().into_keys().collect::<Vec<_>>(), ["1.0.0", "1.0.0/hermes", "current"]);
}
