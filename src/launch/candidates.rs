//! In which order the images are tried.
//!
//! **Invariants**
//! - No image is there twice.
//! - Every version that is in `versions/` is there, however absurd the slots are.
//! - What failed its trial comes last, unless it is the proven one.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};

use crate::slots::{Slots, is_version};

/// The link to what the gateway committed last.
const CURRENT: &str = "current";
/// More directories than this are not looked at. An update keeps a handful.
const VERSIONS_MAX: usize = 1000;

/// An image to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its directory in `versions/`.
    pub name: String,
    /// What makes it one, for people.
    pub why: &'static str,
}

impl Candidate {
    /// Where it lies.
    pub fn path(&self, versions: &Path) -> PathBuf {
        versions.join(&self.name).join("hermes")
    }
}

/// The images of `versions`, which of them to try first. `unwanted` is a trial that may not run now.
pub fn candidates(versions: &Path, slots: &Slots, unwanted: Option<&str>) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |name: String, why| {
        if found.iter().all(|candidate| candidate.name != name) {
            found.push(Candidate { name, why });
        }
    };
    let failed = slots.failed.as_ref().map(|failed| failed.version.as_str());
    let last = |name: &str| Some(name) == failed || Some(name) == unwanted;

    if let Some(proven) = &slots.proven {
        add(proven.clone(), "proven");
    }
    if let Some(previous) = slots.previous.as_ref().filter(|name| !last(name)) {
        add(previous.clone(), "proven before");
    }
    if let Some(current) = current(versions).filter(|name| !last(name)) {
        add(current, "current");
    }
    let mut others = list(versions);
    others.sort_by(|a, b| by_age(b, a));
    let (worse, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|name| last(name));
    for name in others {
        add(name, "the newest that is left");
    }
    for name in worse {
        add(name, "failed, and nothing else is left");
    }
    found
}

/// What `current` leads to: a version, or, whatever somebody else made of it, itself.
fn current(versions: &Path) -> Option<String> {
    let link = versions.join(CURRENT);
    fs::symlink_metadata(&link).ok()?;
    let version = fs::read_link(link).ok().and_then(|to| to.into_os_string().into_string().ok());
    Some(version.filter(|name| is_version(name)).unwrap_or_else(|| CURRENT.to_owned()))
}

/// The versions that have an image.
fn list(versions: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(versions) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let images = names.filter(|name| is_version(name) && versions.join(name).join("hermes").exists());
    images.take(VERSIONS_MAX).collect()
}

/// Older is less: the precedence of semantic versions (semver.org, 11), with whatever is no number as text. Build
/// metadata decides between what is otherwise the same, so that the order is always the same one.
fn by_age(a: &str, b: &str) -> Ordering {
    let (a_version, a_build) = a.split_once('+').unwrap_or((a, ""));
    let (b_version, b_build) = b.split_once('+').unwrap_or((b, ""));
    let (a_core, a_pre) = split_pre(a_version);
    let (b_core, b_pre) = split_pre(b_version);
    let pre = match (a_pre, b_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.split('.').map(Part).cmp(b.split('.').map(Part)),
    };
    a_core.split('.').map(Part).cmp(b_core.split('.').map(Part)).then(pre).then_with(|| a_build.cmp(b_build))
}

fn split_pre(version: &str) -> (&str, Option<&str>) {
    version.split_once('-').map_or((version, None), |(core, pre)| (core, Some(pre)))
}

/// One part of a version. Numbers are compared by their digits, for they may be longer than any integer.
#[derive(PartialEq, Eq)]
struct Part<'a>(&'a str);

impl Ord for Part<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match (number(self.0), number(other.0)) {
            (true, true) => {
                let (a, b) = (self.0.trim_start_matches('0'), other.0.trim_start_matches('0'));
                a.len().cmp(&b.len()).then(a.cmp(b)).then(self.0.cmp(other.0))
            }
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.0.cmp(other.0),
        }
    }
}

impl PartialOrd for Part<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use semver::Version;

    use super::*;
    use crate::slots::{Failed, Trial};

    fn installed(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("creates");
        for name in names {
            fs::create_dir(dir.path().join(name)).expect("creates");
            fs::write(dir.path().join(name).join("hermes"), "").expect("writes");
        }
        dir
    }

    fn names(versions: &Path, slots: &Slots, unwanted: Option<&str>) -> Vec<String> {
        candidates(versions, slots, unwanted).into_iter().map(|candidate| candidate.name).collect()
    }

    #[test]
    fn the_proven_one_comes_first_and_the_failed_one_last() {
        let dir = installed(&["1.0.0", "1.9.0", "1.10.0", "2.0.0-rc.1", "2.0.0", "2.1.0", ".staging-3.0.0-7", "x"]);
        fs::create_dir(dir.path().join("9.0.0")).expect("without an image");
        symlink("1.9.0", dir.path().join("current")).expect("links");
        let slots = Slots {
            proven: Some("1.10.0".to_owned()),
            previous: Some("1.0.0".to_owned()),
            trial: None,
            failed: Some(Failed { version: "2.0.0".to_owned(), reason: String::new() }),
        };
        let found = names(dir.path(), &slots, Some("2.1.0"));
        assert_eq!(found, ["1.10.0", "1.0.0", "1.9.0", "2.0.0-rc.1", "2.1.0", "2.0.0"]);
    }

    #[test]
    fn without_slots_the_current_one_comes_first_and_then_the_newest() {
        let dir = installed(&["1.0.0", "2.0.0-rc.1", "2.0.0"]);
        symlink("1.0.0", dir.path().join("current")).expect("links");
        assert_eq!(names(dir.path(), &Slots::default(), None), ["1.0.0", "2.0.0", "2.0.0-rc.1"]);
    }

    #[test]
    fn a_proven_one_that_is_gone_is_tried_so_that_it_is_told() {
        let dir = installed(&["1.0.0"]);
        let slots = Slots { proven: Some("3.0.0".to_owned()), ..Slots::default() };
        assert_eq!(names(dir.path(), &slots, None), ["3.0.0", "1.0.0"]);
        assert_eq!(names(&dir.path().join("nowhere"), &slots, None), ["3.0.0"]);
    }

    #[test]
    fn a_proven_one_that_is_also_named_failed_is_proven() {
        let dir = installed(&["1.0.0", "2.0.0"]);
        let failed = Failed { version: "1.0.0".to_owned(), reason: String::new() };
        let slots = Slots { proven: Some("1.0.0".to_owned()), failed: Some(failed), ..Slots::default() };
        assert_eq!(names(dir.path(), &slots, None), ["1.0.0", "2.0.0"]);
    }

    #[test]
    fn current_is_followed_wherever_somebody_has_put_it() {
        let dir = installed(&["1.0.0", "current"]);
        assert_eq!(names(dir.path(), &Slots::default(), None), ["current", "1.0.0"]);
        let dir = installed(&["1.0.0"]);
        symlink("/opt/hermes", dir.path().join("current")).expect("links");
        assert_eq!(names(dir.path(), &Slots::default(), None), ["current", "1.0.0"]);
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_semantic_versions(
            a in "[0-9]{1,2}\\.[0-9]{1,2}\\.[0-9]{1,2}(-([a-c]|[0-9]{1,2})(\\.([a-c-]|[0-9]{1,2}))?)?(\\+[a-c]{1,2})?",
            b in "[0-9]{1,2}\\.[0-9]{1,2}\\.[0-9]{1,2}(-([a-c]|[0-9]{1,2})(\\.([a-c-]|[0-9]{1,2}))?)?(\\+[a-c]{1,2})?",
        ) {
            if let (Ok(left), Ok(right)) = (Version::parse(&a), Version::parse(&b)) {
                let expected = left.cmp_precedence(&right);
                prop_assert!(by_age(&a, &b) == expected || expected == Ordering::Equal);
                prop_assert_eq!(by_age(&a, &b), by_age(&b, &a).reverse());
            }
        }

        #[test]
        fn every_image_is_there_once(
            proven in proptest::option::of("[0-3]\\.0\\.0"),
            previous in proptest::option::of("[0-3]\\.0\\.0"),
            trial in "[0-3]\\.0\\.0",
            failed in "[0-3]\\.0\\.0",
        ) {
            let dir = installed(&["0.0.0", "1.0.0", "2.0.0", "3.0.0"]);
            let slots = Slots {
                proven,
                previous,
                trial: Some(Trial { version: trial.clone(), boots_left: 0 }),
                failed: Some(Failed { version: failed, reason: String::new() }),
            };
            let mut found = names(dir.path(), &slots, Some(&trial));
            found.sort();
            prop_assert_eq!(found, ["0.0.0", "1.0.0", "2.0.0", "3.0.0"]);
        }
    }
}
