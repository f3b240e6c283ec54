//! Whether what `--json` prints is as `dist/schema/` says.

use std::path::PathBuf;

use serde_json::Value;

/// The names of all schemas.
pub fn names() -> Vec<String> {
    let files = std::fs::read_dir(directory()).expect("dist/schema is there");
    let name = |file: std::fs::DirEntry| file.file_name().to_str()?.strip_suffix(".json").map(str::to_owned);
    let mut names: Vec<String> = files.filter_map(|file| name(file.expect("an entry"))).collect();
    names.sort();
    names
}

/// Checks what a command has printed on standard output; without `--json` there is nothing to check.
pub fn check(args: &[&str], stdout: &[u8]) {
    if !args.contains(&"--json") {
        return;
    }
    let name = command(args);
    let own = validator(&name);
    let error = validator("error");
    // Some print a document for each line.
    for document in serde_json::Deserializer::from_slice(stdout).into_iter::<Value>() {
        let document = document.unwrap_or_else(|error| panic!("{args:?}: {error}"));
        let problems: Vec<String> = own.iter_errors(&document).map(|problem| problem.to_string()).collect();
        let is_error = error.is_valid(&document);
        assert!(problems.is_empty() || is_error, "{args:?} against {name}.json: {problems:?}\n{document:#}");
    }
}

/// The command that was typed, as its schema is named.
pub fn command(args: &[&str]) -> String {
    let words = args.iter().take_while(|word| !word.starts_with('-')).map(|word| match *word {
        "update" => "self-update",
        word => word,
    });
    let words: Vec<&str> = words.collect();
    let names = names();
    let known = (1..=words.len()).rev().map(|length| words[..length].join("-")).find(|name| names.contains(name));
    known.unwrap_or_else(|| panic!("no schema is for {args:?}"))
}

fn validator(name: &str) -> jsonschema::Validator {
    let path = directory().join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    jsonschema::validator_for(&serde_json::from_str(&text).expect("JSON")).expect("a schema")
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("dist/schema")
}
