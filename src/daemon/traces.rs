//! What is exported of handoffs and turns, once they are over ([`crate::telemetry::otlp`]).
//!
//! The trace of a handoff has a span of the whole, one of each phase, and one of an update's probation. Which image
//! exports which does not matter: the id of the whole is made of the trace's.

use super::run::Daemon;
use super::swap::ROLLBACK;
use crate::chat::{Conversation, ReplyEnd};
use crate::clock::UnixMillis;
use crate::id::{TraceId, TurnId};
use crate::store::HandoffRecord;
use crate::sys::random;
use crate::telemetry::otlp::{Attribute, Span};

impl Daemon {
    /// A handoff that has come to its end, or to its probation.
    pub(super) fn trace_handoff(&self, record: &HandoffRecord) {
        let (Some(exporter), Some(trace)) = (&self.exporter, &record.trace_id) else { return };
        exporter.put(handoff(trace, record));
    }

    /// The probation of an update is over.
    pub(super) fn trace_probation(&self, trace: Option<&TraceId>, begun_at: UnixMillis, error: Option<String>) {
        let (Some(exporter), Some(trace)) = (&self.exporter, trace) else { return };
        let took = UnixMillis::now().since(begun_at);
        exporter.put([Span {
            trace: trace.clone(),
            id: fresh(),
            parent: Some(root(trace)),
            name: "probation".to_owned(),
            start_us: Span::micros(begun_at),
            duration_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            attributes: vec![number("hermes.generation", self.generation.0)],
            error,
        }]);
    }

    /// A turn has ended. Who talked, where, and what was said is nobody's business who watches the gateway.
    pub(super) fn trace_turn(&self, turn: TurnId, at: &Conversation, started_at: Option<UnixMillis>, end: &ReplyEnd) {
        let (Some(exporter), Some(started_at)) = (&self.exporter, started_at) else { return };
        let trace = TraceId::random();
        let (how, error) = match end {
            ReplyEnd::Complete => ("complete", None),
            ReplyEnd::Stopped => ("stopped", None),
            ReplyEnd::Failed(_) => ("failed", Some("the turn failed".to_owned())),
        };
        let mut attributes = vec![
            text("hermes.platform", at.platform.as_str()),
            text("hermes.turn.end", how),
            number("hermes.turn.id", turn.0.unsigned_abs()),
            number("hermes.generation", self.generation.0),
            // Whether it goes back to before this image.
            text("hermes.turn.carried", if started_at < self.image_started_at { "yes" } else { "no" }),
        ];
        attributes.extend(self.turn_agents.get(&turn).map(|agent| text("gen_ai.agent.name", agent.as_str())));
        exporter.put([Span {
            id: root(&trace),
            trace,
            parent: None,
            name: "turn".to_owned(),
            start_us: Span::micros(started_at),
            duration_us: u64::try_from(UnixMillis::now().since(started_at).as_micros()).unwrap_or(u64::MAX),
            attributes,
            error,
        }]);
    }
}

fn handoff(trace: &TraceId, record: &HandoffRecord) -> Vec<Span> {
    let start_us = Span::micros(record.started_at);
    let went_well = matches!(record.outcome.as_str(), "serving" | "committed") && record.kind != ROLLBACK;
    // Of a rollback it is why; of any other handoff the reason is why it was asked for.
    let why = record.reason.as_ref().filter(|_| record.kind == ROLLBACK).unwrap_or(&record.outcome);
    let whole = Span {
        trace: trace.clone(),
        id: root(trace),
        parent: None,
        name: record.kind.clone(),
        start_us,
        duration_us: record.phases_us.iter().map(|(_, took)| took).sum(),
        attributes: vec![
            text("hermes.from.version", &record.from_version),
            text("hermes.from.sha256", &record.from_sha256),
            text("hermes.to.version", &record.to_version),
            text("hermes.to.sha256", &record.to_sha256),
            text("hermes.outcome", &record.outcome),
            number("hermes.generation", record.generation),
            number("hermes.turns_carried", record.turns_carried as u64),
            number("hermes.agents_carried", record.agents_carried as u64),
        ],
        error: (!went_well).then(|| why.clone()),
    };
    let phases = record.phases_us.iter().scan(start_us, |begin, (name, took)| {
        let start_us = *begin;
        *begin = begin.saturating_add(*took);
        Some(Span {
            trace: trace.clone(),
            id: fresh(),
            parent: Some(root(trace)),
            name: name.clone(),
            start_us,
            duration_us: *took,
            attributes: Vec::new(),
            error: None,
        })
    });
    phases.chain([whole.clone()]).collect()
}

/// The id of the span of the whole: the first half of the trace's.
fn root(trace: &TraceId) -> u64 {
    let half = trace.as_str().get(..16).and_then(|half| u64::from_str_radix(half, 16).ok());
    half.unwrap_or_default().max(1)
}

fn fresh() -> u64 {
    u64::from_ne_bytes(random::some()).max(1)
}

fn text(name: &str, value: &str) -> (String, Attribute) {
    (name.to_owned(), Attribute::Text(value.to_owned()))
}

fn number(name: &str, value: u64) -> (String, Attribute) {
    (name.to_owned(), Attribute::Number(i64::try_from(value).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_handoff_is_what_came_of_it() {
        let error = |kind: &str, outcome: &str| {
            let record = HandoffRecord {
                kind: kind.to_owned(),
                requested_by: "automatic".to_owned(),
                requested_via: "schedule".to_owned(),
                reason: Some("the reason".to_owned()),
                from_version: "1.0.0".to_owned(),
                from_sha256: String::new(),
                to_version: "1.1.0".to_owned(),
                to_sha256: String::new(),
                generation: 1,
                turns_carried: 0,
                agents_carried: 0,
                started_at: UnixMillis(1),
                phases_us: Vec::new(),
                outcome: outcome.to_owned(),
                trace_id: None,
            };
            handoff(&TraceId::random(), &record).pop().expect("the whole is the last").error
        };
        assert_eq!(error("update", "serving"), None);
        assert_eq!(error("update", "failed in stage: no answer").as_deref(), Some("failed in stage: no answer"));
        assert_eq!(error(ROLLBACK, "committed").as_deref(), Some("the reason"), "why it was gone back from");
    }
}
