//! The fault points: each is at one place of the code, every phase of a handoff has one, and a build without the
//! feature holds nothing of them. `scripts/drill` iterates over [`Point::ALL`], so a new one is drilled by itself.

use std::fs;
use std::path::Path;

use hermes_gateway::fault::{Call, Point};

/// All code of `src/` but the fault points' own.
fn code() -> String {
    let mut code = String::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                directories.push(path);
            } else if !path.ends_with("src/fault.rs") && !path.ends_with("src/fault/file.rs") {
                code.push_str(&fs::read_to_string(&path).expect("sources are text"));
            }
        }
    }
    code
}

/// The points that are not at exactly one place of `code`.
fn misplaced(code: &str) -> Vec<(Point, usize)> {
    let count = |point: &Point| code.matches(&format!("fault::at(Point::{point:?})")).count();
    Point::ALL.iter().map(|point| (*point, count(point))).filter(|(_, count)| *count != 1).collect()
}

#[test]
fn every_point_is_at_one_place() {
    assert_eq!(misplaced(&code()), []);
}

#[test]
fn a_point_that_is_missing_or_twice_there_is_found() {
    let everywhere: String = Point::ALL.iter().map(|point| format!("fault::at(Point::{point:?});\n")).collect();
    assert_eq!(misplaced(&everywhere), []);
    let twice = format!("{everywhere}fault::at(Point::Sealed);");
    assert_eq!(misplaced(&twice), [(Point::Sealed, 2)]);
    let missing = everywhere.replace("fault::at(Point::Ready)", "");
    assert_eq!(misplaced(&missing), [(Point::Ready, 0)]);
}

#[test]
fn every_call_can_fail_somewhere() {
    let code = code();
    let unused: Vec<_> =
        Call::ALL.iter().filter(|call| !code.contains(&format!("fault::io(Call::{call:?})"))).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

#[test]
fn every_phase_of_a_handoff_has_a_point() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/handoff/phase.rs");
    let source = fs::read_to_string(source).expect("it is there");
    let names = source.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split('"').nth(1));
    let names: Vec<&str> = names.collect();
    assert!(names.len() >= 9, "the phases were not found: {names:?}");
    let bare: Vec<_> = names.iter().filter(|name| !Point::ALL.iter().any(|point| point.phase() == **name)).collect();
    assert!(bare.is_empty(), "phases in which nothing can fail: {bare:?}");
    for point in Point::ALL {
        assert!(point.phase() == "serving" || names.contains(&point.phase()), "{point:?} is in no phase");
    }
}

/// The tests' binary is one without the feature, as a release is.
#[test]
#[cfg(not(feature = "fault-points"))]
fn a_build_without_the_feature_holds_nothing_of_them() {
    let binary = fs::read(env!("CARGO_BIN_EXE_hermes")).expect("the binary is built");
    let binary = String::from_utf8_lossy(&binary);
    let holds = |text: &str| binary.contains(text);
    assert!(holds("HERMES_HOME"), "the binary's strings are found");
    let found: Vec<_> = ["HERMES_FAULTS", "fault point"].into_iter().filter(|text| holds(text)).collect();
    assert!(found.is_empty(), "{found:?}");
    let names: Vec<_> =
        Point::ALL.iter().map(|point| point.name()).filter(|name| name.contains('_') && holds(name)).collect();
    assert!(names.is_empty(), "{names:?}");
}
