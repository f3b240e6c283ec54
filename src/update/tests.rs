//! Which release is chosen, and that no input makes the readers panic.

use std::collections::BTreeMap;

use proptest::prelude::*;
use semver::Version;
use serde_json::{Value, json};

use super::manifest::{Have, Manifest, Want, archive_name};
use super::*;
use crate::config::Channel;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const URL: &str = "https://example.org/hermes/manifest.json";
const NOW: UnixMillis = UnixMillis(1_795_573_806_000);

fn v(text: &str) -> Version {
    Version::parse(text).unwrap()
}

fn release(version: &str) -> Value {
    let name = archive_name(&v(version), TARGET);
    json!({ "version": version, "assets": [{ "name": name, "url": name }] })
}

fn parse(manifest: &Value) -> Result<Manifest, UpdateError> {
    Manifest::parse(manifest.to_string().as_bytes(), URL, NOW)
}

fn listing(versions: &[&str]) -> Manifest {
    parse(&json!({ "schema": 1, "releases": versions.iter().map(|version| release(version)).collect::<Vec<_>>() }))
        .unwrap()
}

fn select(listed: &[&str], want: &Want, running: &str, floor: &str) -> Result<String, UpdateError> {
    let (running, floor) = (v(running), v(floor));
    let have = Have::new(&running, &floor);
    listing(listed).select(want, have, TARGET).map(|candidate| candidate.version.to_string())
}

#[test]
fn newest_is_chosen_by_precedence_not_by_order() {
    let chosen = select(&["1.9.0", "1.10.0", "1.2.0"], &Want::Newest, "1.0.0", "1.0.0");
    assert_eq!(chosen.unwrap(), "1.10.0");
}

#[test]
fn newest_takes_a_pre_release_only_if_one_runs() {
    let listed = ["1.1.0-rc.1", "1.0.1"];
    assert_eq!(select(&listed, &Want::Newest, "1.0.0", "1.0.0").unwrap(), "1.0.1");
    assert_eq!(select(&listed, &Want::Newest, "1.0.0-rc.1", "1.0.0-rc.1").unwrap(), "1.1.0-rc.1");
    assert_eq!(select(&listed, &Want::Exact(v("1.1.0-rc.1")), "1.0.0", "1.0.0").unwrap(), "1.1.0-rc.1");
}

#[test]
fn a_rejected_version_is_skipped_until_it_is_asked_for() {
    let listed = ["1.2.0", "1.1.0"];
    let unasked = select(&listed, &Want::Newest, "1.0.0", "1.2.0");
    assert!(matches!(unasked, Err(UpdateError::OlderThanAccepted { version, .. }) if version == v("1.2.0")));
    assert_eq!(select(&listed, &Want::Exact(v("1.2.0")), "1.0.0", "1.2.0").unwrap(), "1.2.0");
    let replayed = select(&listed, &Want::Exact(v("1.1.0")), "1.0.0", "1.2.0");
    assert!(matches!(replayed, Err(UpdateError::OlderThanAccepted { version, .. }) if version == v("1.1.0")));
}

#[test]
fn a_version_that_failed_is_taken_only_when_it_is_named_and_no_older_one_in_its_place() {
    let listed = listing(&["1.2.0", "1.1.0"]);
    let failed = |version: &str| BTreeMap::from([(v(version), "it crashed".to_owned())]);
    let (running, floor) = (v("1.0.0"), v("1.0.0"));
    let newest = |failed: &BTreeMap<Version, String>| {
        let have = Have { failed, ..Have::new(&running, &floor) };
        listed.select(&Want::Newest, have, TARGET).map(|candidate| candidate.version)
    };
    let refused = newest(&failed("1.2.0")).expect_err("it failed");
    assert_eq!(refused.to_string(), "1.2.0 failed here before (it crashed); /update 1.2.0 tries it again");
    assert_eq!(newest(&failed("1.1.0")).expect("the newest has not failed"), v("1.2.0"));
    let failed = failed("1.2.0");
    let have = Have { failed: &failed, ..Have::new(&running, &floor) };
    assert_eq!(listed.select(&Want::Exact(v("1.2.0")), have, TARGET).expect("named").version, v("1.2.0"));
    // Also where it served for a moment, so that it counts as accepted.
    let have = Have { floor: &v("1.2.0"), ..have };
    assert!(matches!(listed.select(&Want::Newest, have, TARGET), Err(UpdateError::FailedBefore { .. })));
    let have = Have { running: &v("1.2.0"), ..have };
    assert!(matches!(listed.select(&Want::Newest, have, TARGET), Err(UpdateError::SameVersion { .. })));
}

/// A release with a channel and a stage as they stand in the manifest.
fn release_for(version: &str, channel: Value, rollout: Value) -> Value {
    let mut release = release(version);
    for (key, value) in [("channel", channel), ("rollout", rollout)] {
        if !value.is_null() {
            release[key] = value;
        }
    }
    release
}

#[test]
fn a_channel_has_what_is_more_stable_too_and_others_are_taken_by_name() {
    let manifest = parse(&json!({ "schema": 1, "releases": [
        release_for("1.5.0", json!("of-the-future"), Value::Null),
        release_for("1.4.0", json!("nightly"), Value::Null),
        release_for("1.3.0", json!("beta"), Value::Null),
        release_for("1.2.0-rc.1", Value::Null, Value::Null),
        release_for("1.1.0", json!("stable"), Value::Null),
        release_for("1.6.0", json!(7), Value::Null),
    ] }))
    .unwrap();
    let newest = |channel, running: &str| {
        let running = v(running);
        let have = Have { channel, ..Have::new(&running, &running) };
        manifest.select(&Want::Newest, have, TARGET).map(|candidate| candidate.version.to_string()).unwrap()
    };
    assert_eq!(newest(Channel::Stable, "1.0.0"), "1.1.0");
    assert_eq!(newest(Channel::Beta, "1.0.0"), "1.3.0");
    assert_eq!(newest(Channel::Nightly, "1.0.0"), "1.4.0");
    assert_eq!(newest(Channel::Stable, "1.0.0-rc.1"), "1.3.0", "a pre-release follows beta");
    let running = v("1.0.0");
    let named = manifest.select(&Want::Exact(v("1.6.0")), Have::new(&running, &running), TARGET);
    assert_eq!(named.unwrap().version, v("1.6.0"));
}

#[test]
fn what_is_offered_is_the_newest_that_is_rolled_out_here() {
    let manifest = |stage: Value| {
        let staged = release_for("1.2.0", Value::Null, stage);
        parse(&json!({ "schema": 1, "releases": [staged, release("1.1.0")] })).unwrap()
    };
    let running = v("1.0.0");
    let have = Have::new(&running, &running);
    let offered =
        |stage: Value| manifest(stage).offer(have, TARGET, Some("name")).map(|offer| offer.version.to_string());
    assert_eq!(offered(Value::Null).as_deref(), Some("1.2.0"));
    assert_eq!(offered(json!(100)).as_deref(), Some("1.2.0"));
    for nobody in [json!(0), json!(-1), json!(101), json!("50%"), json!(12.5), json!(1e30)] {
        assert_eq!(offered(nobody.clone()).as_deref(), Some("1.1.0"), "{nobody}");
        let asked = manifest(nobody).select(&Want::Newest, have, TARGET).unwrap();
        assert_eq!(asked.version, v("1.2.0"), "whoever asks gets it");
    }
    let failed = BTreeMap::from([(v("1.2.0"), "it crashed".to_owned())]);
    let have = Have { failed: &failed, ..have };
    assert_eq!(manifest(Value::Null).offer(have, TARGET, Some("name")), None, "no older one in its place");
}

#[test]
fn a_newer_release_for_other_targets_does_not_hide_one_for_this() {
    let other = json!({ "version": "1.2.0", "assets": [{ "name": "hermes-1.2.0-riscv.tar.gz", "url": "x" }] });
    let manifest = parse(&json!({ "schema": 1, "releases": [other, release("1.1.0")] })).unwrap();
    let running = v("1.0.0");
    let have = Have::new(&running, &running);
    assert_eq!(manifest.select(&Want::Newest, have, TARGET).unwrap().version, v("1.1.0"));
}

#[test]
fn a_name_that_only_contains_the_target_does_not_count() {
    let name = format!("{}.sig", archive_name(&v("1.1.0"), TARGET));
    let manifest =
        json!({ "schema": 1, "releases": [{ "version": "1.1.0", "assets": [{ "name": name, "url": "x" }] }] });
    let running = v("1.0.0");
    let have = Have::new(&running, &running);
    let outcome = parse(&manifest).unwrap().select(&Want::Newest, have, TARGET);
    assert!(matches!(outcome, Err(UpdateError::OtherProduct { .. })), "{outcome:?}");
}

#[test]
fn members_beside_the_schema_are_read() {
    let name = archive_name(&v("1.1.0"), TARGET);
    let digest = format!("sha256:{}", "0A".repeat(32));
    let manifest = parse(&json!({
        "schema": 1,
        "expires": "2027-01-01T00:00:00Z",
        "releases": [{
            "version": "1.1.0", "date": "2026-11-25T00:00:00Z", "notes_url": "https://example.org/notes",
            "assets": [{ "name": name, "url": "sub/a.tar.gz", "digest": digest, "size": 42 }],
        }],
    }))
    .unwrap();
    let running = v("1.0.0");
    let candidate = manifest.select(&Want::Newest, Have::new(&running, &running), TARGET).unwrap();
    assert_eq!(
        candidate,
        Candidate {
            version: v("1.1.0"),
            date: Some("2026-11-25T00:00:00Z".to_owned()),
            notes_url: Some("https://example.org/notes".to_owned()),
            name,
            url: "https://example.org/hermes/sub/a.tar.gz".to_owned(),
            digest: Some([0x0a; 32]),
            size_bytes: Some(42),
            rollout: None,
        }
    );
}

#[test]
fn a_digest_of_another_kind_is_refused_not_skipped() {
    for digest in ["md5:00", "sha256:00", "sha512:00", "sha256", "", "sha256:zz"] {
        let name = archive_name(&v("1.1.0"), TARGET);
        let assets = json!([{ "name": name, "url": name, "digest": digest }]);
        let manifest = parse(&json!({ "schema": 1, "releases": [{ "version": "1.1.0", "assets": assets }] })).unwrap();
        let running = v("1.0.0");
        let outcome = manifest.select(&Want::Newest, Have::new(&running, &running), TARGET);
        assert!(matches!(outcome, Err(UpdateError::BadDigest { .. })), "{digest}: {outcome:?}");
    }
}

fn any_version() -> impl Strategy<Value = Version> {
    (0u64..3, 0u64..3, 0u64..3, prop::option::of(0u64..3)).prop_map(|(major, minor, patch, pre)| {
        let mut version = Version::new(major, minor, patch);
        if let Some(number) = pre {
            version.pre = semver::Prerelease::new(&format!("rc.{number}")).unwrap();
        }
        version
    })
}

/// JSON that is near a manifest: the right members with values of any kind.
fn near_manifest() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!(1)),
        Just(json!("1.2.3")),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let member = prop_oneof![
            Just("schema"),
            Just("releases"),
            Just("version"),
            Just("assets"),
            Just("name"),
            Just("url"),
            Just("digest"),
            Just("size"),
            Just("expires"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((member, inner), 0..6)
                .prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_a_manifest_or_an_error(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::parse(&body, URL, NOW);
    }

    #[test]
    fn anything_near_a_manifest_is_one_or_an_error(value in near_manifest(), running in any_version()) {
        let mut value = value;
        if let Some(object) = value.as_object_mut() {
            object.insert("schema".to_owned(), json!(1));
        }
        if let Ok(manifest) = parse(&value) {
            let _ = manifest.select(&Want::Newest, Have::new(&running, &running), TARGET);
        }
    }

    #[test]
    fn what_is_chosen_is_newer_than_all_that_was(
        listed in prop::collection::vec(any_version(), 0..6),
        running in any_version(),
        floor in any_version(),
        exact in prop::option::of(any_version()),
    ) {
        let texts: Vec<String> = listed.iter().map(Version::to_string).collect();
        let manifest = listing(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let want = exact.clone().map_or(Want::Newest, Want::Exact);
        let acceptable = |version: &Version| match &exact {
            Some(exact) => version == exact && *version > running && *version >= floor,
            None => {
                *version > running && *version > floor && (version.pre.is_empty() || !running.pre.is_empty())
            }
        };
        let best = listed.iter().filter(|version| acceptable(version)).max();
        let chosen = manifest.select(&want, Have::new(&running, &floor), TARGET);
        prop_assert_eq!(chosen.ok().map(|candidate| candidate.version), best.cloned());
    }
}
