//! What `dist/` has beside the units: man pages and completions that say what the command line is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[path = "../../scripts/dist-pages-make.rs"]
mod make;

#[test]
fn man_pages_and_completions_are_fresh() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist");
    let pages = make::pages().expect("written into memory");
    let stale: Vec<&String> = pages
        .iter()
        .filter(|(name, text)| fs::read(dist.join(name)).ok().as_ref() != Some(*text))
        .map(|(n, _)| n)
        .collect();
    assert!(stale.is_empty(), "run scripts/dist-pages: {stale:?}");
    let listed = |directory: &str| {
        let entries = fs::read_dir(dist.join(directory)).expect("it is there");
        let name = |entry: fs::DirEntry| format!("{directory}/{}", entry.file_name().to_string_lossy());
        entries.map(|entry| name(entry.expect("it is read"))).collect::<Vec<_>>()
    };
    let there: BTreeSet<String> = make::DIRECTORIES.into_iter().flat_map(listed).collect();
    let left: Vec<_> = there.iter().filter(|name| !pages.contains_key(*name)).collect();
    assert!(left.is_empty(), "of no command, run scripts/dist-pages: {left:?}");
}

#[test]
fn every_command_has_a_page_and_hidden_ones_have_none() {
    let pages = make::pages().expect("written into memory");
    for name in ["hermes", "hermes-gateway", "hermes-gateway-status", "hermes-self-update", "hermes-pairing-approve"] {
        let page = pages.get(&format!("man/{name}.1")).unwrap_or_else(|| panic!("{name} has a page"));
        let page = String::from_utf8_lossy(page);
        assert!(page.contains(".SH SYNOPSIS") && page.contains("\\-\\-home"), "{page}");
    }
    assert!(!pages.contains_key("man/hermes-conduit.1") && !pages.contains_key("man/hermes-handoff-check.1"));
}
