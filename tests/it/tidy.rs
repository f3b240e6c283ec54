//! Rules for the source tree that the compiler does not know. Each rule is a function over text, and a test beside it
//! shows that it catches a violation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of `src/` and their layers, as in the table of `src/lib.rs`. A module depends on lower layers only;
/// those of layer 0 may also use each other.
const LAYERS: &[(&str, u8)] = &[
    ("sys", 0),
    ("id", 0),
    ("clock", 0),
    ("version", 0),
    ("recovery", 0),
    ("slots", 0),
    ("fault", 0),
    ("hex", 0),
    ("units", 0),
    ("tls", 0),
    ("report", 0),
    ("chat", 0),
    ("words", 0),
    ("jsonrpc", 0),
    ("config", 1),
    ("store", 1),
    ("telemetry", 1),
    ("handoff", 2),
    ("service", 2),
    ("update", 2),
    ("control", 2),
    ("agent", 3),
    ("platform", 3),
    ("gateway", 4),
    ("daemon", 5),
];

/// The command line is above all, and may use everything.
const TOP: [&str; 3] = ["cli", "lib", "main"];

const LINES_MAX: usize = 600;

/// This file spells out what it looks for.
const SELF: &str = "tests/it/tidy.rs";

struct Source {
    /// Relative to the repository.
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All text files of the repository but build products.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut directories = vec![root().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("readable") {
            let entry = entry.expect("readable");
            let kind = entry.file_type().expect("known");
            let name = entry.file_name();
            if name == "target" || name == ".git" {
                continue;
            }
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file()
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                sources.push(Source { path: relative(&entry.path()), text });
            }
        }
    }
    assert!(sources.iter().any(|source| source.path == SELF), "the tree was not found");
    sources
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").to_str().expect("plain names").to_owned()
}

/// Applies a rule to all files that it is for, and fails with everything it finds.
fn check(applies: impl Fn(&Source) -> bool, rule: impl Fn(&Source) -> Vec<String>) {
    let found: Vec<String> = sources()
        .iter()
        .filter(|source| source.path != SELF && applies(source))
        .flat_map(|source| rule(source).into_iter().map(|what| format!("{}: {what}", source.path)))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// Code lines with their numbers: without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let code = line.split("//").next().unwrap_or("").trim();
        (!code.is_empty()).then_some((index + 1, code))
    })
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

// --- Layers ---------------------------------------------------------------------------------------------------------

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|&(_, layer)| layer)
}

/// The module that a file of `src/` belongs to.
fn module(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap_or(path);
    below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
}

fn wrong_layers(source: &Source) -> Vec<String> {
    let own = module(&source.path);
    if TOP.contains(&own) {
        return Vec::new();
    }
    let Some(own_layer) = layer(own) else { return vec![format!("module {own} is in no layer of {SELF}")] };
    let mut found = Vec::new();
    for (number, line) in code(&source.text) {
        for used in line.split("crate::").skip(1) {
            let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
            let allowed = used == own
                || match layer(used) {
                    Some(0) => true,
                    Some(layer) => layer < own_layer,
                    None => false,
                };
            if !allowed {
                found.push(format!("line {number}: {own} may not depend on {used}"));
            }
        }
    }
    found
}

#[test]
fn modules_depend_on_lower_layers_only() {
    let applies = |source: &Source| source.is_rust() && source.path.starts_with("src/") && !is_launcher(source);
    check(applies, wrong_layers);
}

#[test]
fn a_wrong_dependency_is_found() {
    let found = |path, text| wrong_layers(&source(path, text)).len();
    assert_eq!(found("src/agent/mod.rs", "use crate::platform::X;"), 1, "a sibling");
    assert_eq!(found("src/store/mod.rs", "use crate::handoff::X;"), 1, "a higher one");
    assert_eq!(found("src/id.rs", "fn f(x: crate::config::X, y: crate::store::Y) {}"), 2);
    assert_eq!(found("src/gateway/mod.rs", "use crate::cli::X;"), 1, "the command line");
    assert_eq!(found("src/newcomer/mod.rs", "fn f() {}"), 1);
    assert_eq!(found("src/gateway/mod.rs", "use crate::{agent, daemon};"), 1, "in braces nothing can be seen");
    assert_eq!(found("src/agent/mod.rs", "use crate::config::X; // crate::platform\nuse crate::agent::Y;"), 0);
    assert_eq!(found("src/clock.rs", "use crate::id::X;"), 0);
    assert_eq!(found("src/cli/mod.rs", "use crate::daemon::X;"), 0);
}

#[test]
fn the_layers_are_those_of_the_crate_documentation() {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("there");
    for (module, layer) in LAYERS {
        let row = text.lines().find(|line| line.starts_with(&format!("//! | L{layer} |")));
        assert!(
            row.is_some_and(|row| row.contains(&format!("[`{module}`]"))),
            "{module} is not in L{layer} of src/lib.rs"
        );
        assert!(text.contains(&format!("pub mod {module};")), "{module} does not exist");
    }
}

/// A program of its own, with no layers.
fn is_launcher(source: &Source) -> bool {
    source.path.starts_with("src/launch/")
}

/// Crates that the code before the unit tests names, other than std.
fn foreign_crates(source: &Source, crates: &BTreeSet<String>) -> Vec<String> {
    let code_before_tests = source.text.split("#[cfg(test)]").next().unwrap_or("");
    let mut found = Vec::new();
    for (number, line) in code(code_before_tests) {
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        let roots = words.filter_map(|word| word.split_once("::")).map(|(root, _)| root);
        found.extend(roots.filter(|root| crates.contains(*root)).map(|root| format!("line {number}: {root}")));
    }
    found
}

/// Every crate that the package could use, its own library included.
fn crates() -> BTreeSet<String> {
    let used = dependencies(&fs::read_to_string(root().join("Cargo.toml")).expect("there"));
    used.into_iter().chain(["hermes-gateway".to_owned()]).map(|name| name.replace('-', "_")).collect()
}

/// No update replaces the launcher, so nothing that changes may be in it.
#[test]
fn the_launcher_uses_nothing_but_std() {
    let crates = crates();
    let applies = |source: &Source| source.is_rust() && (is_launcher(source) || source.path == "src/slots.rs");
    check(applies, |source| foreign_crates(source, &crates));
    check(|source| source.path == "src/slots.rs", |source| lines_with(source, &["crate::"]));
}

#[test]
fn a_foreign_crate_is_found() {
    let found = |text: &str| foreign_crates(&source("src/launch/x.rs", text), &crates()).len();
    assert_eq!(found("use serde::Serialize;\nfn f() -> rustix::io::Result<()> { hermes_gateway::id::f() }"), 3);
    assert_eq!(found("use std::fs;\nuse crate::say;\n// serde::x\n#[cfg(test)]\nmod tests { use proptest::x; }"), 0);
}

// --- Size, unsafe code, attributes ----------------------------------------------------------------------------------

fn too_long(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines > LINES_MAX { vec![format!("{lines} lines, at most {LINES_MAX}")] } else { Vec::new() }
}

#[test]
fn files_are_short_enough_to_read() {
    check(Source::is_rust, too_long);
}

#[test]
fn a_long_file_is_found() {
    assert_eq!(too_long(&source("src/x.rs", &"\n".repeat(LINES_MAX))).len(), 0);
    assert_eq!(too_long(&source("src/x.rs", &"\n".repeat(LINES_MAX + 1))).len(), 1);
}

/// Lines whose code contains one of the words.
fn lines_with(source: &Source, words: &[&str]) -> Vec<String> {
    let hit = |line: &str| words.iter().find(|word| line.contains(*word)).copied();
    code(&source.text).filter_map(|(number, line)| Some(format!("line {number}: {}", hit(line)?))).collect()
}

fn unsafe_code(source: &Source) -> Vec<String> {
    lines_with(
        source,
        &["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern", "unsafe(", "unsafe_code,"],
    )
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    check(|source| source.is_rust() && !source.path.starts_with("src/sys/"), unsafe_code);
}

#[test]
fn unsafe_code_is_found() {
    assert_eq!(
        unsafe_code(&source("src/x.rs", "let x = unsafe { f() };\n#[expect(unsafe_code, reason = \"x\")]")).len(),
        2
    );
    assert_eq!(unsafe_code(&source("src/x.rs", "// SAFETY: nothing is unsafe {here}\nfn f() {}")).len(), 0);
}

fn forbidden_attributes(source: &Source) -> Vec<String> {
    lines_with(source, &["#[ignore", "#[allow(", "#![allow("])
}

#[test]
fn no_test_is_ignored_and_no_lint_silently_allowed() {
    check(Source::is_rust, forbidden_attributes);
}

#[test]
fn a_forbidden_attribute_is_found() {
    assert_eq!(
        forbidden_attributes(&source("x.rs", "#[ignore = \"slow\"]\n#[allow(unused)]\n#![allow(dead_code)]")).len(),
        3
    );
    assert_eq!(forbidden_attributes(&source("x.rs", "#[expect(unused, reason = \"x\")]")).len(), 0);
}

fn sleeps(source: &Source) -> Vec<String> {
    lines_with(source, &["thread::sleep"])
}

#[test]
fn no_test_sleeps() {
    check(|source| source.is_rust() && source.path.starts_with("tests/"), sleeps);
}

#[test]
fn a_sleep_is_found() {
    assert_eq!(sleeps(&source("tests/x.rs", "std::thread::sleep(DEADLINE);")).len(), 1);
}

// --- The tree -------------------------------------------------------------------------------------------------------

/// Where this checkout lies, and directories that only a person's machine has.
fn machine_paths(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for path in [concat!(env!("CARGO_MANIFEST_DIR"), "/"), concat!("/", "home/")] {
            // A path within another, as in https://example.org/home/, is none of this machine.
            let begins = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.~}".contains(c));
            if line.match_indices(path).any(|(at, _)| begins(at)) {
                found.push(format!("line {}: a path of a developer's machine: {path}", index + 1));
            }
        }
    }
    found
}

#[test]
fn no_path_of_a_developers_machine_is_in_the_tree() {
    check(|_| true, machine_paths);
}

#[test]
fn a_path_of_a_machine_is_found() {
    let found = |text: &str| machine_paths(&source("x", text)).len();
    assert_eq!(found(&format!("see {}/x", env!("CARGO_MANIFEST_DIR"))), 1);
    let home = concat!("/", "home/kim");
    assert_eq!(found(&format!("cwd = \"{home}\"\n({home}/y)")), 2);
    assert_eq!(found(&format!("https://example.org{home}")), 0);
}

/// Links of a page to files that are not there, and to headings that are not in them.
fn broken_links(page: &Source) -> Vec<String> {
    let folder = root().join(&page.path);
    let folder = folder.parent().expect("a file is in a folder");
    let mut found = Vec::new();
    for target in page.text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let path = if file.is_empty() { root().join(&page.path) } else { folder.join(file) };
        if !path.exists() {
            found.push(format!("a link to {target}, which is not there"));
        } else if !heading.is_empty() && !headings(&fs::read_to_string(&path).expect("text")).contains(heading) {
            found.push(format!("a link to {target}, a heading that is not there"));
        }
    }
    found
}

/// The anchors of a page's headings, as GitHub makes them.
fn headings(text: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| {
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect()
}

#[test]
fn links_of_the_documentation_lead_somewhere() {
    let is_page = |path: &str| path.ends_with(".md") && (!path.contains('/') || path.starts_with("docs/"));
    check(|source| is_page(&source.path), broken_links);
}

#[test]
fn a_broken_link_is_found() {
    let found = |text: &str| broken_links(&source("docs/x.md", text)).len();
    assert_eq!(
        found("[a](updates.md) [b](../SECURITY.md) [c](https://example.org/x.md) [d](updates.md#going-back)"),
        0
    );
    assert_eq!(found("[a](docs/updates.md) [b](updates.md#nowhere)"), 2);
}

/// Test files that `main.rs` does not name, in its `mod` lines and in the list of its documentation.
fn forgotten(main: &str, modules: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for module in modules {
        if !main.lines().any(|line| line == format!("mod {module};")) {
            found.push(format!("tests/it/main.rs has no line 'mod {module};'"));
        }
        if !main.lines().any(|line| line.starts_with(&format!("//! - `{module}`"))) {
            found.push(format!("tests/it/main.rs does not say what is in {module}"));
        }
    }
    found
}

#[test]
fn no_test_file_is_forgotten() {
    let entries = fs::read_dir(root().join("tests/it")).expect("there");
    let modules: BTreeSet<String> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path: &PathBuf| path.is_dir() || path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| name != "main")
        .collect();
    let main = fs::read_to_string(root().join("tests/it/main.rs")).expect("there");
    assert_eq!(forgotten(&main, &modules), Vec::<String>::new());
}

#[test]
fn a_forgotten_test_file_is_found() {
    let modules = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
    assert_eq!(forgotten("//! - `a`: x\nmod a;\n// mod b;", &modules).len(), 2);
    assert_eq!(forgotten("//! - `a`: x\n//! - `b`: x\nmod a;\nmod b;", &modules).len(), 0);
}

#[test]
fn code_is_in_the_known_folders() {
    let tops: BTreeSet<String> =
        sources().iter().filter_map(|source| Some(source.path.split_once('/')?.0.to_owned())).collect();
    let visible: Vec<_> = tops.iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(visible, ["dist", "docs", "proptest-regressions", "scripts", "src", "tests"]);
}

// --- Dependencies ---------------------------------------------------------------------------------------------------

/// The crates that `Cargo.toml` asks for.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let manifest: toml::Table = toml::from_str(manifest).expect("cargo reads it too");
    let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
    let names = |table: &str| manifest.get(table).and_then(toml::Value::as_table).map(|t| t.keys().cloned());
    tables.into_iter().filter_map(names).flatten().collect()
}

/// The crates that the section "Dependencies" of ARCHITECTURE.md gives a reason for: its rows `| crate | reason |`.
fn explained(architecture: &str) -> BTreeSet<String> {
    let section = architecture.split("\n## ").find(|section| section.starts_with("Dependencies")).unwrap_or("");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.splitn(2, "` | ");
        let (name, reason) = (cells.next()?, cells.next()?);
        (reason.trim_matches([' ', '|']).len() > 10).then(|| name.to_owned())
    };
    section.lines().filter_map(row).collect()
}

#[test]
fn every_dependency_has_a_reason() {
    let read = |name: &str| fs::read_to_string(root().join(name)).expect("there");
    let (used, explained) = (dependencies(&read("Cargo.toml")), explained(&read("ARCHITECTURE.md")));
    let unexplained: Vec<_> = used.difference(&explained).collect();
    let unused: Vec<_> = explained.difference(&used).collect();
    assert!(unexplained.is_empty(), "add to ARCHITECTURE.md, \"Dependencies\": {unexplained:?}");
    assert!(unused.is_empty(), "remove from ARCHITECTURE.md, \"Dependencies\": {unused:?}");
}

#[test]
fn an_unexplained_dependency_is_found() {
    let used = dependencies("[dependencies]\na = '1'\nb.version = '1'\n[dev-dependencies]\nc = '1'");
    let text = "# X\n\n## Dependencies\n\n| crate | why |\n| `a` | because it is needed |\n| `b` | |\n\n## Other\n| `c` | elsewhere, not here |";
    let missing: Vec<_> = used.difference(&explained(text)).cloned().collect();
    assert_eq!(missing, ["b", "c"]);
}
