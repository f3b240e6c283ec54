//! What `scripts/release` runs: `cargo run --example release-tool -- --help`.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Parser;
use hermes_gateway::config::Channel;
use semver::Version;
use zipsign_api::{KEYPAIR_LENGTH, SigningKey};

#[path = "release-pack.rs"]
mod pack;

/// Makes releases of hermes.
#[derive(Parser)]
enum Command {
    /// Packs and signs a binary and adds it to OUT/manifest.json.
    Pack(Box<PackArgs>),
    /// Changes to how many of 100 installations a listed version goes by itself.
    SetRollout {
        /// The directory that is served.
        #[arg(long)]
        out: PathBuf,
        /// The version.
        #[arg(long)]
        version: Version,
        /// To how many.
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
        rollout: u8,
    },
    /// Makes a key pair in DIR and prints the public key as [update] verifying_keys wants it.
    GenKey {
        /// Where release.key and release.pub go.
        dir: PathBuf,
    },
    /// Prints the public key of a signing key as [update] verifying_keys wants it.
    PublicKey {
        /// The signing key.
        key: PathBuf,
    },
}

#[derive(clap::Args)]
struct PackArgs {
    /// The version, without a leading v.
    #[arg(long)]
    version: Version,
    /// The directory that is served.
    #[arg(long)]
    out: PathBuf,
    /// The binary.
    #[arg(long)]
    bin: PathBuf,
    /// The launcher, for first installations.
    #[arg(long)]
    launcher: Option<PathBuf>,
    /// The signing key.
    #[arg(long)]
    key: PathBuf,
    /// The target triple the binary runs on.
    #[arg(long, default_value = hermes_gateway::update::target())]
    target: String,
    /// Where the release notes are.
    #[arg(long)]
    notes_url: Option<String>,
    /// When it is released, RFC 3339.
    #[arg(long)]
    date: String,
    /// When it has to be refused, RFC 3339.
    #[arg(long)]
    expires: Option<String>,
    /// For whom it is.
    #[arg(long, value_parser = channel)]
    channel: Option<Channel>,
    /// To how many of 100 installations it goes by itself.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
    rollout: Option<u8>,
    /// Where the archive is served, if not beside the manifest.
    #[arg(long)]
    url_base: Option<String>,
}

fn channel(name: &str) -> Result<Channel, String> {
    Channel::parse(name).ok_or_else(|| format!("one of {}", Channel::ALL.map(Channel::as_str).join(", ")))
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Pack(args) => pack(*args),
        Command::SetRollout { out, version, rollout } => {
            pack::set_rollout(&out, &version, rollout)?;
            println!("{version} goes to {rollout} of 100 installations by itself");
            Ok(())
        }
        Command::GenKey { dir } => {
            let key = pack::generate_key()?;
            write_key(&dir, &key)?;
            println!("{}", BASE64_STANDARD.encode(key.verifying_key().as_bytes()));
            Ok(())
        }
        Command::PublicKey { key } => {
            println!("{}", BASE64_STANDARD.encode(read_key(&key)?.verifying_key().as_bytes()));
            Ok(())
        }
    }
}

fn pack(args: PackArgs) -> Result<()> {
    for date in [Some(&args.date), args.expires.as_ref()].into_iter().flatten() {
        ensure!(hermes_gateway::update::parse_rfc3339(date).is_some(), "{date:?} is not an RFC 3339 date");
    }
    let key = read_key(&args.key)?;
    let mut binary = fs::read(&args.bin).with_context(|| format!("cannot read {}", args.bin.display()))?;
    let launcher =
        args.launcher.as_ref().map(|path| fs::read(path).with_context(|| format!("cannot read {}", path.display())));
    let before = pack::restamp(&mut binary, &args.version)?;
    if before != args.version.to_string() {
        println!("the copy in the archive says {} instead of {before}", args.version);
    }
    let release = pack::Release {
        version: args.version,
        target: args.target,
        date: args.date,
        notes_url: args.notes_url,
        launcher: launcher.transpose()?,
        expires: args.expires,
        channel: args.channel,
        rollout: args.rollout,
        url_base: args.url_base,
    };
    let name = pack::publish(&args.out, &release, &binary, &key)?;
    println!("{}", args.out.join(name).display());
    println!("{}", args.out.join("manifest.json").display());
    Ok(())
}

/// Reads a signing key as `zipsign gen-key` and `release-tool gen-key` write it: 64 bytes.
///
/// # Errors
/// If the file cannot be read or holds no key pair.
fn read_key(path: &Path) -> Result<SigningKey> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let pair: [u8; KEYPAIR_LENGTH] =
        bytes.try_into().ok().with_context(|| format!("{} is not a signing key of 64 bytes", path.display()))?;
    SigningKey::from_keypair_bytes(&pair).with_context(|| format!("{} is not a signing key", path.display()))
}

/// Writes a key pair into `dir` as `release.key` (for the publisher's eyes only) and `release.pub`.
///
/// # Errors
/// If one is there already, so that no key is ever overwritten, or cannot be written.
fn write_key(dir: &Path, key: &SigningKey) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for (name, mode, bytes) in
        [("release.key", 0o600, &key.to_keypair_bytes()[..]), ("release.pub", 0o644, key.verifying_key().as_bytes())]
    {
        let path = dir.join(name);
        let file = File::options().write(true).create_new(true).mode(mode).open(&path);
        file.and_then(|mut file| file.write_all(bytes)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
