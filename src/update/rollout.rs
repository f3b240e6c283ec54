//! What differs from one installation to the next, and is the same every time: its place in a staged roll-out, and by
//! how much it is later than others.

use std::time::Duration;

use semver::Version;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How far a release is rolled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// To how many of 100 installations.
    pub percent: u8,
    /// Whether this one is among them; none where an installation has no name yet.
    #[serde(default)]
    pub included: Option<bool>,
}

impl Rollout {
    /// How far `version` is rolled out, and whether to the installation of this name.
    pub fn of(installation: Option<&str>, version: &Version, percent: u8) -> Self {
        let included = installation.map(|name| bucket(name, version) < u64::from(percent));
        Self { percent, included: if percent >= 100 { Some(true) } else { included } }
    }

    /// Whether the release may be taken unasked.
    pub fn is_open(self) -> bool {
        self.included == Some(true)
    }
}

/// From 0 to 99. It depends on the version, so that it is not always the same installations that are first.
fn bucket(installation: &str, version: &Version) -> u64 {
    number(installation, &version.to_string()) % 100
}

/// A time from nothing to less than `most`, for one purpose.
pub(super) fn spread(installation: &str, purpose: &str, most: Duration) -> Duration {
    let most_ms = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(number(installation, purpose).checked_rem(most_ms).unwrap_or(0))
}

fn number(installation: &str, purpose: &str) -> u64 {
    let digest = Sha256::new().chain_update(installation).chain_update([0]).chain_update(purpose).finalize();
    let (first, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
    u64::from_be_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_has_about_as_many_as_it_says_and_a_later_one_has_them_too() {
        let version = Version::new(1, 5, 0);
        let included = |percent: u8| -> Vec<u32> {
            let is_in = |name: &u32| Rollout::of(Some(&name.to_string()), &version, percent).is_open();
            (0..2000).filter(is_in).collect()
        };
        assert_eq!((included(0).len(), included(100).len()), (0, 2000));
        let (quarter, half) = (included(25), included(50));
        assert!((420..580).contains(&quarter.len()), "{} of 2000", quarter.len());
        assert!(quarter.iter().all(|name| half.contains(name)));
        let other = Version::new(1, 5, 1);
        let same = quarter.iter().filter(|name| Rollout::of(Some(&name.to_string()), &other, 25).is_open()).count();
        assert!(same < 250, "others are first with the next version: {same} of {}", quarter.len());
    }

    /// A change would move installations from one side of a stage to the other.
    #[test]
    fn the_bucket_of_an_installation_is_always_the_same() {
        assert_eq!([bucket("a", &Version::new(1, 5, 0)), bucket("b", &Version::new(1, 5, 0))], [99, 79]);
    }

    #[test]
    fn without_a_name_only_what_is_for_all_is_open() {
        let of = |percent| Rollout::of(None, &Version::new(1, 5, 0), percent).is_open();
        assert_eq!([of(0), of(99), of(100)], [false, false, true]);
    }

    #[test]
    fn a_spread_is_less_than_its_bound() {
        for most in [0, 1, 7_500, 3_600_000].map(Duration::from_millis) {
            let spread = spread("a", "check", most);
            assert!(spread < most || most.is_zero() && spread.is_zero(), "{spread:?} of {most:?}");
        }
    }
}
