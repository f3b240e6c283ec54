//! The phases of a handoff and the time each took, measured across the execve.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::MonoNanos;

/// Where a handoff is. The order is the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A release is downloaded, verified and put under `versions/`. Only updates pass it.
    Stage,
    /// The bytes to be run read the real state as a child process.
    Preflight,
    /// Messages are not taken in any more and sends in flight finish; everything else goes on.
    Drain,
    /// Every part stops at a safe point and gives its state.
    Quiesce,
    /// The state is written into the memfd and sealed.
    Seal,
    /// execve is under way.
    Exec,
    /// The new image takes everything over.
    Adopt,
    /// The new image serves and is watched.
    Probation,
    /// The new image has proven itself.
    Committed,
}

impl Phase {
    /// The name used in the journal, in `status` and in the history.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Preflight => "preflight",
            Self::Drain => "drain",
            Self::Quiesce => "quiesce",
            Self::Seal => "seal",
            Self::Exec => "exec",
            Self::Adopt => "adopt",
            Self::Probation => "probation",
            Self::Committed => "committed",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When each phase of one handoff began.
///
/// **Invariant:** there is at least one, and phases are entered in their order, each at most once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Entered")]
pub struct Timeline {
    entered: Vec<(Phase, MonoNanos)>,
}

/// A timeline as it is read, before its order is known to be right.
#[derive(Deserialize)]
struct Entered {
    entered: Vec<(Phase, MonoNanos)>,
}

impl TryFrom<Entered> for Timeline {
    type Error = &'static str;

    fn try_from(Entered { entered }: Entered) -> Result<Self, Self::Error> {
        if entered.is_empty() || !entered.is_sorted_by(|(one, _), (next, _)| one < next) {
            return Err("a timeline has at least one phase, and all in their order");
        }
        Ok(Self { entered })
    }
}

impl Timeline {
    /// Starts with `first`, now.
    pub fn start(first: Phase) -> Self {
        Self { entered: vec![(first, MonoNanos::now())] }
    }

    /// Enters the next phase now.
    pub fn enter(&mut self, phase: Phase) {
        self.enter_at(phase, MonoNanos::now());
    }

    /// Enters the next phase at a moment that has passed, for example the first statement of `main`.
    ///
    /// # Panics
    /// When `phase` does not come after the present one: the state machine has no such edge.
    pub fn enter_at(&mut self, phase: Phase, at: MonoNanos) {
        assert!(self.phase() < phase, "no handoff goes from {} to {phase}", self.phase());
        self.entered.push((phase, at));
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        self.entered.last().expect("a timeline starts with a phase").0
    }

    /// When `phase` was entered, if it was.
    pub fn entered(&self, phase: Phase) -> Option<MonoNanos> {
        self.entered.iter().find(|(p, _)| *p == phase).map(|(_, at)| *at)
    }

    /// Time from entering `from` to entering `to`; `None` until both were.
    pub fn between(&self, from: Phase, to: Phase) -> Option<Duration> {
        Some(self.entered(to)?.since(self.entered(from)?))
    }

    /// Every finished phase and how long it took, in microseconds.
    pub fn durations_us(&self) -> Vec<(String, u64)> {
        self.entered
            .windows(2)
            .map(|pair| {
                let took = pair[1].1.since(pair[0].1);
                (pair[0].0.to_string(), u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_between_entries_also_after_a_carry() {
        let mut timeline = Timeline { entered: vec![(Phase::Preflight, MonoNanos(1_000))] };
        timeline.enter_at(Phase::Quiesce, MonoNanos(3_001_000));
        let carried = serde_json::to_string(&timeline).expect("serialises");
        let mut timeline: Timeline = serde_json::from_str(&carried).expect("reads back");
        timeline.enter_at(Phase::Adopt, MonoNanos(5_001_000));
        assert_eq!(timeline.durations_us(), [("preflight".to_owned(), 3_000), ("quiesce".to_owned(), 2_000)]);
        assert_eq!(timeline.between(Phase::Preflight, Phase::Adopt), Some(Duration::from_millis(5)));
        assert_eq!(timeline.between(Phase::Preflight, Phase::Exec), None);
    }

    #[test]
    fn a_timeline_out_of_order_is_not_read() {
        for text in
            [r#"{"entered":[]}"#, r#"{"entered":[["seal",1],["quiesce",2]]}"#, r#"{"entered":[["seal",1],["seal",2]]}"#]
        {
            serde_json::from_str::<Timeline>(text).expect_err(text);
        }
    }

    #[test]
    #[should_panic(expected = "no handoff goes from quiesce to preflight")]
    fn phases_do_not_go_back() {
        let mut timeline = Timeline::start(Phase::Quiesce);
        timeline.enter(Phase::Preflight);
    }
}
