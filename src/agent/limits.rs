//! Every limit and deadline of an agent in one place, so that a test can shorten them.

use std::time::Duration;

use crate::clock::MonoNanos;

/// What an agent may cost, and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest line read from an agent. A line holds one message, and the largest file that is
    /// embedded in one takes 27 MiB of it.
    pub line_bytes_max: usize,
    /// The most that waits to be written to an agent. An agent that leaves more unread is ended.
    pub outgoing_bytes_max: usize,
    /// The most permission requests that wait for an answer; more are answered `cancelled`.
    pub permissions_max: usize,
    /// The most tool calls of one turn whose titles are remembered.
    pub tools_max: usize,
    /// From the start of the process to its answer to `initialize`.
    pub initialize_timeout: Duration,
    /// For `session/new` and `session/load` (which replays a whole history).
    pub session_timeout: Duration,
    /// For the files that go along with a prompt to be read.
    pub read_timeout: Duration,
    /// From the death of a process to the next that is ready, for turns that the next one takes up.
    pub resume_timeout: Duration,
    /// The most of an answer that is taken from a replayed history.
    pub resumed_bytes_max: usize,
    /// From `session/cancel` to the end of the turn; then it is ended here.
    pub cancel_timeout: Duration,
    /// From the end of a process to the end of its output, which its children may hold open.
    pub drain_timeout: Duration,
    /// Before each harsher step of ending a process.
    pub stop_grace: Duration,
    /// The wait before the first restart; doubles with each that follows soon.
    pub backoff_min: Duration,
    /// The longest wait before a restart.
    pub backoff_max: Duration,
    /// A process that lived this long starts the waits over.
    pub backoff_reset: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line_bytes_max: 32 << 20,
            outgoing_bytes_max: 16 << 20,
            permissions_max: 64,
            tools_max: 1024,
            initialize_timeout: Duration::from_secs(30),
            session_timeout: Duration::from_secs(120),
            read_timeout: Duration::from_secs(20),
            resume_timeout: Duration::from_secs(60),
            resumed_bytes_max: 1 << 20,
            cancel_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(2),
            stop_grace: Duration::from_secs(3),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            backoff_reset: Duration::from_secs(60),
        }
    }
}

/// The moment `wait` after `now`.
pub(super) fn after(now: MonoNanos, wait: Duration) -> MonoNanos {
    let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
    MonoNanos(now.0.saturating_add(nanos))
}

/// The waits between restarts: each twice the last, until a process has lived long enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Backoff {
    /// How many waits followed each other.
    #[serde(default)]
    restarts: u32,
}

impl Backoff {
    /// The wait after a process that lived for `lived`.
    pub(super) fn next(&mut self, lived: Duration, limits: &Limits) -> Duration {
        if lived >= limits.backoff_reset {
            self.restarts = 0;
        }
        let factor = 1u32.checked_shl(self.restarts).unwrap_or(u32::MAX);
        self.restarts = self.restarts.saturating_add(1);
        limits.backoff_min.saturating_mul(factor).min(limits.backoff_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_over_after_a_long_life() {
        let limits = Limits::default();
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..9).map(|_| backoff.next(Duration::ZERO, &limits).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff.next(limits.backoff_reset, &limits), limits.backoff_min);
        assert_eq!(backoff.next(Duration::ZERO, &limits), limits.backoff_min * 2);
    }

    #[test]
    fn any_number_of_restarts_stays_within_the_limit() {
        let limits = Limits::default();
        let mut backoff = Backoff { restarts: u32::MAX - 1 };
        for _ in 0..3 {
            assert_eq!(backoff.next(Duration::ZERO, &limits), limits.backoff_max);
        }
    }
}
