//! Good releases, full disks, and what interrupted updates leave.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use hermes_gateway::update::{Check, Have, Source, StageProgress, StagedImage, UpdateError, Want, look};
use sha2::{Digest, Sha256};

use super::{RUNNING, Setup, install_running, v};
use crate::support::release::{Fault, pack};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The image is what was published, in the open file and in its place.
fn assert_is(mut image: StagedImage, version: &str, binary: &[u8]) {
    assert_eq!(image.version, v(version));
    assert_eq!(image.sha256, hex(binary));
    let mut content = Vec::new();
    image.file.read_to_end(&mut content).unwrap();
    assert_eq!(content, binary);
    assert_eq!(fs::read(&image.path).unwrap(), binary);
    assert_eq!(fs::metadata(&image.path).unwrap().permissions().mode() & 0o7777, 0o755);
    let flags = rustix::fs::fcntl_getfl(&image.file).unwrap();
    assert_eq!(flags & rustix::fs::OFlags::RWMODE, rustix::fs::OFlags::RDONLY);
    assert!(rustix::io::fcntl_getfd(&image.file).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
}

#[tokio::test]
async fn the_newest_release_is_staged_and_nothing_is_switched() {
    let setup = Setup::new().await;
    setup.publisher.release("1.0.1", b"not this");
    setup.publisher.release("1.1.0", b"the new image");
    let mut phases = Vec::new();
    let image = setup
        .stage_telling(&setup.source(), |step| {
            if phases.last() != Some(&step.phase()) {
                phases.push(step.phase());
            }
        })
        .await
        .unwrap();
    assert_is(image, "1.1.0", b"the new image");
    assert_eq!(phases, ["manifest", "download", "verify", "extract", "staged"]);
    assert_eq!(setup.versions.current().unwrap(), Some(v(RUNNING)));
    assert_eq!(setup.versions.list().unwrap(), [v(RUNNING), v("1.1.0")]);
    let names: Vec<String> = setup.disk().into_keys().collect();
    assert_eq!(names, ["1.0.0", "1.0.0/hermes", "1.1.0", "1.1.0/hermes", "current"]);
}

#[tokio::test]
async fn the_progress_of_a_download_ends_at_its_total() {
    let setup = Setup::new().await;
    let name = setup.publisher.release("1.1.0", &random(300_000));
    let size = fs::metadata(setup.publisher.path(&name)).unwrap().len();
    let mut steps = Vec::new();
    setup.stage_telling(&setup.source(), |step| steps.push(step)).await.unwrap();
    let done: Vec<u64> = steps
        .iter()
        .filter_map(|step| match step {
            StageProgress::Download { done_bytes, total_bytes } => {
                assert_eq!(*total_bytes, Some(size));
                Some(*done_bytes)
            }
            _ => None,
        })
        .collect();
    assert!(done.is_sorted());
    assert_eq!((done.first(), done.last()), (Some(&0), Some(&size)));
}

#[tokio::test]
async fn the_release_asked_for_is_staged() {
    let mut setup = Setup::new().await;
    setup.publisher.release("1.0.1", b"this one");
    setup.publisher.release("1.1.0", b"not this");
    setup.want = Want::Exact(v("1.0.1"));
    assert_is(setup.stage_from(&setup.source()).await.unwrap(), "1.0.1", b"this one");
}

#[tokio::test]
async fn a_directory_works_as_a_source() {
    let setup = Setup::new().await;
    setup.publisher.release("1.1.0", b"the new image");
    let url = format!("file://{}", setup.publisher.path("manifest.json").display());
    let source = Source::new(&setup.publisher.config(&url)).unwrap();
    assert_is(setup.stage_from(&source).await.unwrap(), "1.1.0", b"the new image");

    fs::remove_file(setup.publisher.path("manifest.json")).unwrap();
    let error = setup.stage_from(&source).await.expect_err("it is gone");
    assert!(matches!(error, UpdateError::ReadFile { .. }), "{error:?}");
}

#[tokio::test]
async fn a_redirect_on_loopback_is_followed_and_a_digest_is_not_needed() {
    let setup = Setup::new().await;
    let name = setup.publisher.release("1.1.0", b"the new image");
    fs::rename(setup.publisher.path(&name), setup.publisher.path("moved")).unwrap();
    setup.server.fail(&name, Fault::Redirect("/moved".to_owned()));
    setup.publisher.edit_manifest(|manifest| {
        let asset = manifest["releases"][0]["assets"][0].as_object_mut().unwrap();
        asset.remove("digest");
        asset.remove("size");
    });
    assert_is(setup.stage_from(&setup.source()).await.unwrap(), "1.1.0", b"the new image");
}

#[tokio::test]
async fn a_slash_in_the_query_of_the_manifest_is_no_directory() {
    let setup = Setup::new().await;
    setup.publisher.release("1.1.0", b"the new image");
    let url = setup.server.url("manifest.json?path=/a/b");
    let source = Source::new(&setup.publisher.config(&url)).unwrap();
    assert!(!format!("{source:?}").contains("path"));
    assert_is(setup.stage_from(&source).await.unwrap(), "1.1.0", b"the new image");
}

#[tokio::test]
async fn any_of_several_keys_will_do() {
    let setup = Setup::new().await;
    setup.publisher.release("1.1.0", b"the new image");
    let mut config = setup.publisher.config(&setup.server.url("manifest.json"));
    config.verifying_keys.insert(0, crate::support::release::Publisher::new().public_key());
    assert_is(setup.stage_from(&Source::new(&config).unwrap()).await.unwrap(), "1.1.0", b"the new image");
}

#[tokio::test]
async fn staging_again_replaces_what_is_there_and_clears_what_was_interrupted() {
    let setup = Setup::new().await;
    setup.publisher.release("1.1.0", b"the new image");
    let leftover = setup.versions.dir().join(".staging-1.1.0-999");
    fs::create_dir(&leftover).unwrap();
    fs::write(leftover.join("hermes"), b"half an im").unwrap();
    assert_is(setup.stage_from(&setup.source()).await.unwrap(), "1.1.0", b"the new image");
    assert!(!leftover.exists());
    fs::write(setup.versions.path(&v("1.1.0")), b"damaged since").unwrap();
    assert_is(setup.stage_from(&setup.source()).await.unwrap(), "1.1.0", b"the new image");
}

#[tokio::test]
async fn the_file_that_was_verified_is_not_the_one_that_takes_its_place_later() {
    let setup = Setup::new().await;
    setup.publisher.release("1.1.0", b"the new image");
    let mut image = setup.stage_from(&setup.source()).await.unwrap();
    fs::remove_file(&image.path).unwrap();
    fs::write(&image.path, b"something else").unwrap();
    let mut content = Vec::new();
    image.file.read_to_end(&mut content).unwrap();
    assert_eq!(content, b"the new image");
}

#[tokio::test]
async fn check_tells_what_there_is() {
    let setup = Setup::new().await;
    let running = v(RUNNING);
    let have = |floor| Have::new(&running, floor);
    setup.publisher.release(RUNNING, b"what runs");
    let outcome = look(&setup.source(), have(&running), None).await.unwrap().check;
    assert_eq!(outcome, Check::UpToDate { newest_listed: Some(v(RUNNING)) });

    setup.publisher.release("1.1.0", b"the new image");
    let outcome = look(&setup.source(), have(&running), None).await.unwrap().check;
    let available = Check::Available {
        version: v("1.1.0"),
        date: Some("2026-11-25T00:00:00Z".to_owned()),
        notes_url: Some("https://example.org/notes/1.1.0".to_owned()),
        rollout: None,
    };
    assert_eq!(outcome, available);

    let rejected = v("1.1.0");
    let outcome = look(&setup.source(), have(&rejected), None).await.unwrap().check;
    assert_eq!(outcome, Check::UpToDate { newest_listed: Some(v("1.1.0")) });

    let before = setup.disk();
    setup.server.fail("manifest.json", Fault::Status(500));
    let error = look(&setup.source(), have(&running), None).await.expect_err("the server fails");
    assert!(matches!(error, UpdateError::Status { status: 500, .. }), "{error:?}");
    assert_eq!(setup.disk(), before);
}

const SMALL_DISK: &str = "HERMES_TEST_SMALL_DISK";

/// A full disk needs a disk: the test runs itself again in a mount namespace of its own, on a tmpfs of 1 MiB.
#[test]
fn a_full_disk_is_told_and_nothing_is_left() {
    if let Some(disk) = std::env::var_os(SMALL_DISK) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(fill_disk(Path::new(&disk)));
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let script = r#"mount -t tmpfs -o size=1m none "$HERMES_TEST_SMALL_DISK" && exec "$0" --exact --nocapture "$1""#;
    let output = unshare
        .args(["--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg("update::staged::a_full_disk_is_told_and_nothing_is_left")
        .env(SMALL_DISK, disk.path())
        .output()
        .expect("unshare(1) of util-linux is there");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

async fn fill_disk(disk: &Path) {
    let mut setup = Setup::new().await;
    setup.versions = install_running(disk);

    // Announced: refused before a byte is written.
    setup.publisher.release("1.1.0", &random(900_000));
    assert_needs(&setup, 1_800_000).await;

    // Not announced: the disk fills up while the archive is written.
    let name = setup.publisher.release("1.2.0", &random(2_000_000));
    setup.server.fail(&name, Fault::Unannounced);
    setup.publisher.edit_manifest(|manifest| {
        let asset = manifest["releases"][0]["assets"][0].as_object_mut().unwrap();
        asset.remove("size");
    });
    assert_needs(&setup, 500_000).await;

    // Well packed: the disk fills up while the binary is written.
    setup.publisher.release("1.3.0", &vec![0; 4_000_000]);
    assert_needs(&setup, 4_000_000).await;

    setup.publisher.release("1.4.0", b"one that fits");
    assert_is(setup.stage_from(&setup.source()).await.unwrap(), "1.4.0", b"one that fits");
}

async fn assert_needs(setup: &Setup, at_least: u64) {
    let before = setup.disk();
    let error = setup.stage_from(&setup.source()).await.expect_err("it does not fit");
    assert!(
        matches!(error, UpdateError::NoSpace { needed_bytes, .. } if needed_bytes >= at_least),
        "{at_least}: {error:?}"
    );
    assert_eq!(setup.disk(), before);
}

/// Bytes that do not get smaller by packing.
fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

const KILLED_HOME: &str = "HERMES_TEST_KILLED_HOME";

/// kill -9 in the middle of a download: the test runs itself again, and that process is killed.
#[test]
fn an_update_that_is_killed_leaves_a_runnable_home() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Some(home) = std::env::var_os(KILLED_HOME) {
        runtime.block_on(stage_and_die(PathBuf::from(home)));
        return;
    }
    let setup = runtime.block_on(Setup::new());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "update::staged::an_update_that_is_killed_leaves_a_runnable_home"])
        .env(KILLED_HOME, setup.home.path())
        .output()
        .unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    assert_eq!(signal, Some(9), "{}", String::from_utf8_lossy(&output.stdout));
    let left = setup.disk();
    assert!(left.keys().any(|name| name.starts_with(".staging-1.1.0-")), "{left:?}");
    assert_eq!(setup.versions.current().unwrap(), Some(v(RUNNING)));
    assert_eq!(setup.versions.list().unwrap(), [v(RUNNING)]);

    setup.publisher.release("1.1.0", b"the new image");
    let image = runtime.block_on(setup.stage_from(&setup.source())).unwrap();
    assert_is(image, "1.1.0", b"the new image");
    assert!(!setup.disk().keys().any(|name| name.starts_with(".staging-")));
}

async fn stage_and_die(home: PathBuf) {
    let mut setup = Setup::new().await;
    setup.versions = hermes_gateway::update::Versions::new(&home);
    let name = setup.publisher.release("1.1.0", &random(100_000));
    setup.server.fail(&name, Fault::StallHalfWay);
    let outcome = setup
        .stage_telling(&setup.source(), |step| {
            if let StageProgress::Download { done_bytes: 1.., .. } = step {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
            }
        })
        .await;
    panic!("the process is dead by now: {outcome:?}");
}

#[test]
fn the_same_binary_is_packed_into_the_same_bytes() {
    let once = pack::pack(b"the new image", None, Some("2027-01-01T00:00:00Z")).unwrap();
    assert_eq!(once, pack::pack(b"the new image", None, Some("2027-01-01T00:00:00Z")).unwrap());
}
