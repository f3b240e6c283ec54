//! What `scripts/release` runs: `cargo run --example release-tool -- --help`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Parser;
use semver::Version;

#[path = "release-pack.rs"]
mod pack;

/// Makes releases of hermes.
#[derive(Parser)]
enum Command {
    /// Packs and signs a binary and adds it to OUT/manifest.json.
    Pack(PackArgs),
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
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Pack(args) => pack(args),
        Command::GenKey { dir } => {
            let key = pack::generate_key()?;
            pack::write_key(&dir, &key)?;
            println!("{}", BASE64_STANDARD.encode(key.verifying_key().as_bytes()));
            Ok(())
        }
        Command::PublicKey { key } => {
            println!("{}", BASE64_STANDARD.encode(pack::read_key(&key)?.verifying_key().as_bytes()));
            Ok(())
        }
    }
}

fn pack(args: PackArgs) -> Result<()> {
    for date in [Some(&args.date), args.expires.as_ref()].into_iter().flatten() {
        ensure!(hermes_gateway::update::parse_rfc3339(date).is_some(), "{date:?} is not an RFC 3339 date");
    }
    let key = pack::read_key(&args.key)?;
    let mut binary = std::fs::read(&args.bin).with_context(|| format!("cannot read {}", args.bin.display()))?;
    let before = pack::restamp(&mut binary, &args.version)?;
    if before != args.version.to_string() {
        println!("the copy in the archive says {} instead of {before}", args.version);
    }
    let release = pack::Release {
        version: args.version,
        target: args.target,
        date: args.date,
        notes_url: args.notes_url,
        expires: args.expires,
    };
    let name = pack::publish(&args.out, &release, &binary, &key)?;
    println!("{}", args.out.join(name).display());
    println!("{}", args.out.join("manifest.json").display());
    Ok(())
}
