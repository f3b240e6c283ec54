//! The releases that the drill updates to: one good one, and all the bad ones.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::release::Publisher;
use crate::rows::{Image, NEW};

/// The offset of `e_machine` in an ELF header (elf(5)).
const MACHINE: usize = 18;

/// A publisher for each image.
pub struct Releases(BTreeMap<Image, Publisher>);

impl Releases {
    /// Publishes these images, with `binary` as the good one.
    pub fn publish(binary: &Path, images: impl IntoIterator<Item = Image>) -> Result<Self> {
        let hermes = fs::read(binary).context("there is no binary")?;
        let mut published = BTreeMap::new();
        for image in images {
            if published.contains_key(&image) {
                continue;
            }
            let publisher = Publisher::new();
            publisher.release(NEW, &bytes(image, &hermes)?);
            // The user `hermes` reads it.
            fs::set_permissions(publisher.dir.path(), fs::Permissions::from_mode(0o755))?;
            published.insert(image, publisher);
        }
        Ok(Self(published))
    }

    /// `[update]` of gateway.toml for a release of this image.
    pub fn config(&self, image: Image) -> String {
        let publisher = &self.0[&image];
        let (manifest, key) = (publisher.path("manifest.json"), publisher.public_key());
        format!("[update]\nmanifest_url = \"file://{}\"\nverifying_keys = [\"{key}\"]\n", manifest.display())
    }
}

fn bytes(image: Image, hermes: &[u8]) -> Result<Vec<u8>> {
    Ok(match image {
        Image::Hermes => hermes.to_vec(),
        Image::Truncated => hermes[..hermes.len() / 2].to_vec(),
        Image::Script => b"#!/bin/sh\nexit 0\n".to_vec(),
        Image::Foreign => {
            let mut foreign = compile("int main(void) { return 0; }", &[])?;
            foreign[MACHINE..MACHINE + 2].copy_from_slice(&0x7777_u16.to_le_bytes());
            foreign
        }
        Image::Exit0 => compile("int main(void) { return 0; }", &[])?,
        Image::Exit1 => compile("int main(void) { return 1; }", &[])?,
        Image::Hang => compile("int pause(void); int main(void) { for (;;) pause(); }", &[])?,
        Image::Crash => compile(
            "__attribute__((constructor)) static void crash(void) { *(volatile int *)0 = 0; }\n\
             int main(void) { return 0; }",
            &[],
        )?,
        Image::Library => {
            let dir = tempfile::tempdir()?;
            fs::write(
                dir.path().join("libnowhere.so"),
                compile("int nowhere(void) { return 0; }", &["-shared", "-fPIC"])?,
            )?;
            let at = format!("-L{}", dir.path().display());
            compile("int nowhere(void); int main(void) { return nowhere(); }", &[&at, "-lnowhere"])?
        }
    })
}

fn compile(source: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let (file, out) = (dir.path().join("image.c"), dir.path().join("image"));
    fs::write(&file, source)?;
    let output = Command::new("cc").arg("-o").arg(&out).arg(&file).args(arguments).output().context("cannot run cc")?;
    ensure!(output.status.success(), "cc failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(fs::read(out)?)
}
