//! How a release is made: the version block, the archive, its signature, the manifest.
//!
//! Shared by `scripts/release` (through the example `release-tool`) and by the tests, so that what the tests stage is
//! what a publisher makes. Not part of the program, which can verify but not sign.

use std::fs::{self, File};
use std::io::{self, BufRead, Cursor, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, GzBuilder};
use hermes_gateway::config::Channel;
use hermes_gateway::update::archive_name;
use hermes_gateway::version::{STAMP_MARK, STAMP_SIZE, VERSION_LEN_MAX, stamp};
use semver::Version;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zipsign_api::SigningKey;

const MANIFEST: &str = "manifest.json";

/// What makes a release beside its bytes.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its version.
    pub version: Version,
    /// The target triple it runs on.
    pub target: String,
    /// RFC 3339, for the manifest.
    pub date: String,
    /// Where its notes are, for the manifest.
    pub notes_url: Option<String>,
    /// The launcher that goes into the archive, for first installations.
    pub launcher: Option<Vec<u8>>,
    /// RFC 3339: after this it is refused. Goes into the archive, where it is signed, and into the manifest.
    pub expires: Option<String>,
    /// For whom it is; by default stable, or beta if it is a pre-release.
    pub channel: Option<Channel>,
    /// To how many of 100 installations it goes by itself; by default to all.
    pub rollout: Option<u8>,
    /// Where the archive is served, if not beside the manifest.
    pub url_base: Option<String>,
}

/// Gives a binary another version, and says which it had.
///
/// # Errors
/// If the version does not fit, or the version block is not there exactly once.
pub fn restamp(binary: &mut [u8], version: &Version) -> Result<String> {
    let text = version.to_string();
    ensure!(text.len() <= VERSION_LEN_MAX, "version {text} is longer than {VERSION_LEN_MAX} bytes");
    let mark = STAMP_MARK.as_bytes();
    let places = stamps(binary);
    let &[place] = places.as_slice() else {
        bail!("the binary has {} version blocks instead of one: is it hermes?", places.len());
    };
    let block = binary.get_mut(place..place + STAMP_SIZE).context("the version block is cut short")?;
    let before = block[mark.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let before = String::from_utf8_lossy(before).into_owned();
    block.copy_from_slice(&stamp(&text));
    Ok(before)
}

/// Where the version blocks of a binary begin; a hermes has one.
pub fn stamps(binary: &[u8]) -> Vec<usize> {
    let mark = STAMP_MARK.as_bytes();
    let last = *mark.last().expect("the mark is not empty");
    let (mut places, mut at, mut rest) = (Vec::new(), 0, binary);
    // The standard library's search for one byte is fast even where this is not optimised.
    while let Ok(skipped @ 1..) = rest.skip_until(last) {
        at += skipped;
        if binary[..at].ends_with(mark) {
            places.push(at - mark.len());
        }
    }
    places
}

/// Packs a binary, and perhaps the launcher: the same bytes give the same archive.
///
/// # Errors
/// Never in practice: everything is in memory.
pub fn pack(binary: &[u8], launcher: Option<&[u8]>, expires: Option<&str>) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().mtime(0);
    if let Some(expires) = expires {
        gzip = gzip.comment(format!("expires={expires}"));
    }
    let mut tar = tar::Builder::new(gzip.write(Vec::new(), Compression::default()));
    for (name, bytes) in [("hermes", Some(binary)), ("hermes-launch", launcher)] {
        let Some(bytes) = bytes else { continue };
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_size(bytes.len().try_into()?);
        header.set_mode(0o755);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        tar.append(&header, bytes)?;
    }
    Ok(tar.into_inner()?.finish()?)
}

/// Signs an archive for the file name it will have.
///
/// # Errors
/// If the key cannot sign.
pub fn sign(archive: &[u8], name: &str, key: &SigningKey) -> Result<Vec<u8>> {
    let mut signed = Cursor::new(Vec::new());
    let keys = std::slice::from_ref(key);
    zipsign_api::sign::copy_and_sign_tar(&mut Cursor::new(archive), &mut signed, keys, Some(name.as_bytes()))?;
    Ok(signed.into_inner())
}

/// Packs, signs and writes a release into `dir`, adds it to `dir/manifest.json`, and returns the archive's name.
///
/// # Errors
/// If a file cannot be read or written, or the manifest there is not one of schema 1.
pub fn publish(dir: &Path, release: &Release, binary: &[u8], key: &SigningKey) -> Result<String> {
    let name = archive_name(&release.version, &release.target);
    let archive = sign(&pack(binary, release.launcher.as_deref(), release.expires.as_deref())?, &name, key)?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    replace(&dir.join(&name), &archive)?;
    let path = dir.join(MANIFEST);
    let mut manifest = read(&path)?.unwrap_or_else(|| json!({ "schema": 1, "releases": [] }));
    let digest: String = Sha256::digest(&archive).iter().map(|byte| format!("{byte:02x}")).collect();
    let url = release.url_base.as_ref().map(|base| format!("{}/{name}", base.trim_end_matches('/')));
    let url = url.as_deref().unwrap_or(&name);
    let asset = json!({ "name": name, "url": url, "digest": format!("sha256:{digest}"), "size": archive.len() });
    add(&mut manifest, release, asset).with_context(|| format!("{} is not a manifest", path.display()))?;
    write(&path, &manifest)?;
    Ok(name)
}

/// Changes to how many of 100 installations a listed version goes by itself.
///
/// # Errors
/// If the manifest cannot be read or written, or does not list the version.
pub fn set_rollout(dir: &Path, version: &Version, rollout: u8) -> Result<()> {
    let path = dir.join(MANIFEST);
    let mut manifest = read(&path)?.with_context(|| format!("{} is not there", path.display()))?;
    let text = version.to_string();
    let entry =
        manifest["releases"].as_array_mut().into_iter().flatten().find(|entry| entry["version"] == text.as_str());
    stage(entry.with_context(|| format!("{} does not list {version}", path.display()))?, rollout);
    write(&path, &manifest)
}

/// A release that goes to all says nothing of it.
fn stage(entry: &mut Value, rollout: u8) {
    if rollout < 100 {
        entry["rollout"] = json!(rollout);
    } else if let Some(members) = entry.as_object_mut() {
        members.remove("rollout");
    }
}

fn read(path: &Path) -> Result<Option<Value>> {
    match fs::read(path) {
        Ok(body) => serde_json::from_slice(&body).with_context(|| format!("{} is not JSON", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn write(path: &Path, manifest: &Value) -> Result<()> {
    let mut body = serde_json::to_vec_pretty(manifest)?;
    body.push(b'\n');
    replace(path, &body)
}

/// Adds a release to a manifest: archives of the same version for other targets stay, newest first.
fn add(manifest: &mut Value, release: &Release, asset: Value) -> Result<()> {
    ensure!(manifest["schema"] == 1, "its schema is not 1");
    if let Some(expires) = &release.expires {
        manifest["expires"] = json!(expires);
    } else if let Some(members) = manifest.as_object_mut() {
        members.remove("expires");
    }
    let releases = manifest["releases"].as_array_mut().context("it has no list `releases`")?;
    let version = release.version.to_string();
    let same = releases.iter_mut().find(|entry| entry["version"] == version.as_str());
    let entry = match same {
        Some(entry) => entry,
        None => releases.push_mut(json!({ "version": version, "assets": [] })),
    };
    entry["date"] = json!(release.date);
    if let Some(notes_url) = &release.notes_url {
        entry["notes_url"] = json!(notes_url);
    }
    if let Some(channel) = release.channel {
        entry["channel"] = json!(channel);
    }
    // Or the archive for another target would end the stage.
    if let Some(rollout) = release.rollout {
        stage(entry, rollout);
    }
    let assets = entry["assets"].as_array_mut().context("a release has no list `assets`")?;
    assets.retain(|other| other["name"] != asset["name"]);
    assets.push(asset);
    // What is not a version stays, at the end.
    releases.sort_by_key(|entry| {
        std::cmp::Reverse(entry["version"].as_str().and_then(|version| Version::parse(version).ok()))
    });
    Ok(())
}

/// Makes a new key pair from the kernel's random numbers.
///
/// # Errors
/// If `/dev/urandom` cannot be read.
pub fn generate_key() -> Result<SigningKey> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut seed))
        .context("cannot read random bytes")?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Replaces a file so that readers see the old or the new one, whole.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().context("a file has a name")?.to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&new, path)).with_context(|| format!("cannot write {}", path.display()))
}
