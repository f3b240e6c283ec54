//! Which image to start, in which order.

use std::cmp::Ordering;
use std::fs;
use std::path::Path;

use crate::say;
use crate::slots::{self, Failed, Slots};

/// An image that may be started.
#[derive(Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its directory in `versions/`.
    pub directory: String,
    /// Why it is this one, if it is not what one would expect.
    pub why: Option<String>,
}

/// All images, the best first: the trial that may still be started and was counted, the proven one, the one before
/// it, the one that the link `current` names, then the others, newest first, and at the very end those that failed.
pub fn candidates(versions: &Path) -> Vec<Candidate> {
    let mut slots = match Slots::read(versions) {
        Ok(slots) => slots.unwrap_or_default(),
        Err(error) => {
            say(&format!("{error}; looking for an image without it"));
            Slots::default()
        }
    };
    let mut order = Order::default();
    if let Some(version) = count_trial(versions, &mut slots) {
        order.add(&version, Some("on trial".to_owned()));
    }
    let failed = slots.failed.as_ref().map(|failed| failed.version.clone());
    let may_run = |version: &String| Some(version) != failed.as_ref();
    for version in [&slots.proven, &slots.previous].into_iter().flatten() {
        let why = (Some(version) == slots.previous.as_ref()).then(|| "the one before the proven one".to_owned());
        order.add(version, why);
    }
    let on_disk = on_disk(versions);
    if let Some(current) = current(versions).filter(may_run) {
        order.add(&current, Some("the link current".to_owned()));
    }
    for version in on_disk.iter().filter(|version| may_run(version)) {
        order.add(version, Some("nothing better is known".to_owned()));
    }
    for version in &on_disk {
        order.add(version, Some("it failed before, and there is no other".to_owned()));
    }
    order.0
}

#[derive(Default)]
struct Order(Vec<Candidate>);

impl Order {
    fn add(&mut self, directory: &str, why: Option<String>) {
        if self.0.iter().all(|known| known.directory != directory) {
            self.0.push(Candidate { directory: directory.to_owned(), why });
        }
    }
}

/// Counts a start of the trial and returns its version, if it may be started.
fn count_trial(versions: &Path, slots: &mut Slots) -> Option<String> {
    let trial = slots.trial.as_mut()?;
    let version = trial.version.clone();
    if trial.boots_left > 0 {
        trial.boots_left -= 1;
        return match slots.write(versions) {
            Ok(()) => Some(version),
            Err(error) => {
                say(&format!("the trial {version} is not started, because that cannot be counted: {}", told(&error)));
                None
            }
        };
    }
    say(&format!("the trial {version} did not come up and is given up"));
    slots.trial = None;
    slots.failed = Some(Failed { version, reason: "it did not come up when it was started".to_owned() });
    if let Err(error) = slots.write(versions) {
        say(&format!("that cannot be written down: {}", told(&error)));
    }
    None
}

fn told(error: &slots::SlotsError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn current(versions: &Path) -> Option<String> {
    let target = fs::read_link(versions.join("current")).ok()?;
    target.to_str().filter(|name| slots::is_version(name)).map(str::to_owned)
}

/// The versions that have an image, newest first.
fn on_disk(versions: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(versions) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found: Vec<String> =
        names.filter(|name| slots::is_version(name) && versions.join(name).join("hermes").is_file()).collect();
    found.sort_by(|one, other| newer(other, one));
    found
}

/// Orders two versions as semver does (semver.org, 11): numbers by value, a pre-release before its release.
fn newer(one: &str, other: &str) -> Ordering {
    let parts = |version: &str| {
        let version = version.split('+').next().unwrap_or_default().to_owned();
        let (release, pre) = match version.split_once('-') {
            Some((release, pre)) => (release.to_owned(), Some(pre.to_owned())),
            None => (version, None),
        };
        (release, pre)
    };
    let ((one_release, one_pre), (other_release, other_pre)) = (parts(one), parts(other));
    by_parts(&one_release, &other_release).then_with(|| match (one_pre, other_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(one), Some(other)) => by_parts(&one, &other),
    })
}

fn by_parts(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        let ordering = match (one.next(), other.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(one), Some(other)) => match (one.parse::<u64>(), other.parse::<u64>()) {
                (Ok(one), Ok(other)) => one.cmp(&other),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => one.cmp(other),
            },
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_semver_says() {
        let rising =
            ["0.9.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0", "1.0.10", "1.2.0"];
        for pair in rising.windows(2) {
            assert_eq!(newer(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(newer(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(newer("1.0.0+a", "1.0.0+b"), Ordering::Equal);
    }
}
