//! What `scripts/dist-pages` runs: writes the man pages and completions of `dist/` as the command line is now.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

#[path = "dist-pages-make.rs"]
mod make;

fn main() -> Result<()> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist");
    for directory in make::DIRECTORIES {
        let directory = dist.join(directory);
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("cannot clear {}", directory.display()))?;
        }
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    for (name, text) in make::pages()? {
        fs::write(dist.join(&name), text).with_context(|| format!("cannot write dist/{name}"))?;
        println!("dist/{name}");
    }
    Ok(())
}
