//! What is on disk after each operation.

use std::io::Write;

use super::*;

fn v(text: &str) -> Version {
    Version::parse(text).unwrap()
}

fn home() -> (tempfile::TempDir, Versions) {
    let home = tempfile::tempdir().unwrap();
    let versions = Versions::new(home.path());
    (home, versions)
}

fn put(versions: &Versions, version: &str, content: &[u8]) -> PathBuf {
    let staging = versions.lock().unwrap().begin(&v(version)).unwrap();
    let mut out = staging.create_binary().unwrap();
    out.write_all(content).unwrap();
    staging.seal(out).unwrap();
    staging.publish().unwrap()
}

fn names(versions: &Versions) -> Vec<String> {
    let mut names: Vec<_> =
        entries(versions.dir()).unwrap().into_iter().map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_published_version_is_there_executable_and_durable_in_name() {
    let (_home, versions) = home();
    let path = put(&versions, "1.1.0", b"new");
    assert_eq!(path, versions.path(&v("1.1.0")));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(versions.list().unwrap(), [v("1.1.0")]);
    assert_eq!(names(&versions), [".lock", "1.1.0"]);
}

#[test]
fn the_same_version_again_replaces_the_file_and_leaves_the_open_one_alone() {
    let (_home, versions) = home();
    put(&versions, "1.1.0", b"first");
    versions.set_current(&v("1.1.0")).unwrap();
    let mut before = versions.open(&v("1.1.0")).unwrap();
    put(&versions, "1.1.0", b"second");
    let after = versions.open(&v("1.1.0")).unwrap();
    assert_eq!(after.sha256, hex::encode(&Sha256::digest(b"second")));
    let mut content = String::new();
    before.file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "first");
    assert_eq!(versions.current().unwrap(), Some(v("1.1.0")));
    assert_eq!(names(&versions), [".lock", "1.1.0", "current"]);
}

#[test]
fn an_unfinished_version_is_not_there_and_its_directory_goes() {
    let (_home, versions) = home();
    let staging = versions.lock().unwrap().begin(&v("1.1.0")).unwrap();
    staging.create_binary().unwrap().write_all(b"half").unwrap();
    assert_eq!(versions.list().unwrap(), []);
    drop(staging);
    assert_eq!(names(&versions), [".lock"]);
}

#[test]
fn current_is_switched_only_to_what_is_there() {
    let (_home, versions) = home();
    assert_eq!(versions.current().unwrap(), None);
    put(&versions, "1.0.0", b"old");
    put(&versions, "1.1.0", b"new");
    versions.set_current(&v("1.0.0")).unwrap();
    // What a power cut between making the link and renaming it leaves.
    std::os::unix::fs::symlink("1.1.0", versions.dir().join(CURRENT_NEW)).unwrap();
    assert_eq!(versions.current().unwrap(), Some(v("1.0.0")));
    versions.set_current(&v("1.1.0")).unwrap();
    assert_eq!(versions.current().unwrap(), Some(v("1.1.0")));
    let missing = versions.set_current(&v("1.2.0"));
    assert!(matches!(missing, Err(VersionsError::NotThere { .. })), "{missing:?}");
    assert_eq!(versions.current().unwrap(), Some(v("1.1.0")));
    assert_eq!(fs::read(versions.dir().join("current/hermes")).unwrap(), b"new");
}

#[test]
fn a_current_that_is_no_link_to_a_version_is_told() {
    for target in ["/etc", "../1.0.0", "1.0.0/", "x"] {
        let (_home, versions) = home();
        fs::create_dir(versions.dir()).unwrap();
        std::os::unix::fs::symlink(target, versions.dir().join(CURRENT)).unwrap();
        assert!(matches!(versions.current(), Err(VersionsError::Unexpected { .. })), "{target}");
    }
    let (_home, versions) = home();
    fs::create_dir_all(versions.dir().join(CURRENT)).unwrap();
    assert!(matches!(versions.current(), Err(VersionsError::Unexpected { .. })));
}

#[test]
fn pruning_keeps_current_and_what_is_named() {
    let (_home, versions) = home();
    for version in ["1.0.0", "1.1.0", "1.2.0", "1.10.0"] {
        put(&versions, version, b"x");
    }
    versions.set_current(&v("1.1.0")).unwrap();
    assert_eq!(versions.prune(&[v("1.10.0")]).unwrap(), [v("1.0.0"), v("1.2.0")]);
    assert_eq!(versions.list().unwrap(), [v("1.1.0"), v("1.10.0")]);
    assert_eq!(names(&versions), [".lock", "1.1.0", "1.10.0", "current"]);
}

#[test]
fn a_version_that_must_not_be_run_is_removed_unless_it_is_current() {
    let (_home, versions) = home();
    put(&versions, "1.0.0", b"old");
    put(&versions, "1.1.0", b"bad");
    versions.set_current(&v("1.0.0")).unwrap();
    versions.remove(&v("1.1.0")).unwrap();
    versions.remove(&v("1.0.0")).unwrap();
    assert_eq!(versions.list().unwrap(), [v("1.0.0")]);
    assert!(matches!(versions.remove(&v("1.1.0")), Err(VersionsError::Io { .. })));
}

#[test]
fn one_at_a_time() {
    let (_home, versions) = home();
    let lock = versions.lock().unwrap();
    assert!(matches!(versions.lock(), Err(VersionsError::Busy { .. })));
    assert!(matches!(versions.prune(&[]), Err(VersionsError::Busy { .. })));
    drop(lock);
    versions.lock().unwrap();
}

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let (_home, versions) = home();
    let missing = versions.open(&v("1.0.0"));
    assert!(matches!(missing, Err(VersionsError::NotThere { .. })), "{missing:?}");
    let path = versions.path(&v("1.0.0"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/bin/sh", &path).unwrap();
    assert!(versions.open(&v("1.0.0")).is_err());
    assert_eq!(versions.list().unwrap(), []);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(versions.open(&v("1.0.0")), Err(VersionsError::Unexpected { .. })));
}

#[test]
fn a_file_in_the_place_of_a_version_is_not_overwritten() {
    let (_home, versions) = home();
    fs::create_dir(versions.dir()).unwrap();
    fs::write(versions.dir().join("1.1.0"), b"mine").unwrap();
    let staging = versions.lock().unwrap().begin(&v("1.1.0")).unwrap();
    let out = staging.create_binary().unwrap();
    staging.seal(out).unwrap();
    assert!(matches!(staging.publish(), Err(VersionsError::Unexpected { .. })));
    assert_eq!(fs::read(versions.dir().join("1.1.0")).unwrap(), b"mine");
}
