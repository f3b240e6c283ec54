//! Instants and back-off.
//!
//! Times here are [`MonoNanos`]: unlike the wall clock it is never set back, and it goes on across an execve.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use crate::clock::MonoNanos;

/// The longest wait between two attempts, unless the platform asks for more.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// `wait` after `start`.
pub(in crate::platform) fn after(start: MonoNanos, wait: Duration) -> MonoNanos {
    MonoNanos(start.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
}

/// How long to wait after this many failures in a row: 1–2 s at first, doubled each time, never over a minute. Half
/// of it is random, so that many gateways do not come back in step.
pub(in crate::platform) fn back_off(failures: u32) -> Duration {
    let ceiling = Duration::from_secs(1u64 << failures.clamp(1, 6)).min(BACK_OFF_MAX);
    // RandomState is seeded anew for each value, which is random enough for a jitter.
    let share = RandomState::new().build_hasher().finish() % 1000;
    let half = ceiling / 2;
    half + half.mul_f64(f64::from(u32::try_from(share).unwrap_or(0)) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_and_stays_between_a_second_and_a_minute() {
        for failures in 0..40 {
            let wait = back_off(failures);
            assert!(wait >= Duration::from_secs(1) && wait <= BACK_OFF_MAX, "{failures}: {wait:?}");
        }
        assert!(back_off(1) <= Duration::from_secs(2));
        assert!(back_off(9) >= BACK_OFF_MAX / 2);
    }
}
