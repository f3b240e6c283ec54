//! The latest handoffs as a picture: a row each, newest first, along the generations of the process.
//!
//! All rows have one scale, so that bars can be compared. What only waits while everything is served (a download, a
//! drain) would make the rest too small to be seen, so it is drawn no longer than a part of the rest and marked as cut;
//! its length stands in words.

use maud::{Markup, html};

use super::text::{ago, fine, rfc3339};
use crate::clock::UnixMillis;
use crate::handoff::Phase;
use crate::store::{HandoffEnd, HandoffRecord};
use crate::units::{count, short_digest};

/// Rows of the picture. The table has all that there is.
const ROWS_MAX: usize = 8;

/// A waiting phase is drawn no longer than this part of what the others take in the longest row, in percent.
const WAIT_PERCENT_MAX: u64 = 30;

/// A label inside a segment needs this much of the width on a phone, and on a wide screen; in hundredths of a percent.
const LABEL_NARROW: u64 = 3000;
const LABEL_WIDE: u64 = 1200;

/// The most ticks of the axis beside 0.
const TICKS_MAX: u64 = 5;

/// What one phase is drawn as; lengths in hundredths of a percent of the width.
#[derive(Debug, PartialEq, Eq)]
struct Segment<'a> {
    phase: &'a str,
    us: u64,
    x: u64,
    width: u64,
    is_cut: bool,
    is_dark: bool,
}

/// Phases in which nothing is held up.
fn waits(phase: &str) -> bool {
    [Phase::Stage, Phase::Drain].iter().any(|known| known.as_str() == phase)
}

/// Phases in which nobody is served.
fn is_dark(phase: &str) -> bool {
    [Phase::Quiesce, Phase::Seal, Phase::Exec, Phase::Adopt].iter().any(|known| known.as_str() == phase)
}

/// For how long nobody was served, in microseconds.
pub(super) fn blackout_us(record: &HandoffRecord) -> u64 {
    record.phases_us.iter().filter(|(phase, _)| is_dark(phase)).fold(0, |sum, (_, us)| sum.saturating_add(*us))
}

/// From the request to READY=1 without a download, in microseconds.
pub(super) fn duration_us(record: &HandoffRecord) -> u64 {
    let stage = Phase::Stage.as_str();
    record.phases_us.iter().filter(|(phase, _)| phase != stage).fold(0, |sum, (_, us)| sum.saturating_add(*us))
}

/// What is common to all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scale {
    /// The whole width.
    us: u64,
    /// The longest that a waiting phase is drawn.
    wait_us_max: u64,
}

impl Scale {
    fn of(records: &[HandoffRecord]) -> Self {
        let busy = |record: &HandoffRecord| {
            record
                .phases_us
                .iter()
                .filter(|(phase, _)| !waits(phase))
                .fold(0, |sum: u64, (_, us)| sum.saturating_add(*us))
        };
        let wait_us_max =
            (records.iter().map(busy).max().unwrap_or(0) / 100).saturating_mul(WAIT_PERCENT_MAX).max(1000);
        let mut scale = Self { us: 1, wait_us_max };
        let drawn = |record: &HandoffRecord| {
            record.phases_us.iter().fold(0, |sum: u64, (phase, us)| sum.saturating_add(scale.drawn(phase, *us).0))
        };
        scale.us = records.iter().map(drawn).max().unwrap_or(0).max(1);
        scale
    }

    /// How long a phase is drawn, and whether that is less than it took.
    fn drawn(self, phase: &str, us: u64) -> (u64, bool) {
        if waits(phase) && us > self.wait_us_max { (self.wait_us_max, true) } else { (us, false) }
    }

    fn hundredths(self, us: u64) -> u64 {
        u64::try_from(u128::from(us) * 10_000 / u128::from(self.us)).unwrap_or(10_000)
    }

    fn segments(self, record: &HandoffRecord) -> Vec<Segment<'_>> {
        let mut at: u64 = 0;
        let segment = |(phase, us): &'_ (String, u64)| {
            let (drawn, is_cut) = self.drawn(phase, *us);
            let begin = at;
            at = at.saturating_add(drawn);
            (begin, at, is_cut)
        };
        let places: Vec<_> = record.phases_us.iter().map(segment).collect();
        record
            .phases_us
            .iter()
            .zip(places)
            .map(|((phase, us), (begin, end, is_cut))| {
                let x = self.hundredths(begin);
                Segment { phase, us: *us, x, width: self.hundredths(end) - x, is_cut, is_dark: is_dark(phase) }
            })
            .collect()
    }

    /// Round moments: 1, 2 or 5 of a power of ten apart.
    fn ticks(self) -> Vec<u64> {
        let steps = (0..12).flat_map(|power| [1, 2, 5].map(|digit| digit * 10u64.pow(power)));
        let step = steps.into_iter().find(|step| self.us / step <= TICKS_MAX).unwrap_or(self.us.max(1));
        (0..=self.us / step).map(|number| number * step).collect()
    }
}

fn percent(hundredths: u64) -> String {
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

/// One word, and a sign beside it, so that nothing is told by colour alone.
fn end(record: &HandoffRecord) -> (&'static str, &'static str, &'static str) {
    match HandoffEnd::of(&record.outcome) {
        None => ("is-open", "◔", "on probation"),
        Some(HandoffEnd::Committed) => ("is-good", "✓", "committed"),
        Some(HandoffEnd::Unproven) => ("is-open", "◌", "not proven"),
        Some(HandoffEnd::RolledBack) => ("is-bad", "↩", "rolled back"),
        Some(HandoffEnd::Failed) => ("is-bad", "✕", "failed"),
    }
}

/// Whether the image that was asked for took over, for however long.
fn took_over(record: &HandoffRecord) -> bool {
    record.phases_us.iter().any(|(phase, _)| phase == Phase::Adopt.as_str())
        && !matches!(HandoffEnd::of(&record.outcome), Some(HandoffEnd::RolledBack | HandoffEnd::Failed))
}

/// What became of an image that does not run.
fn left(record: &HandoffRecord) -> &'static str {
    if HandoffEnd::of(&record.outcome) == Some(HandoffEnd::RolledBack) { " did not stay" } else { " did not take over" }
}

fn versions(record: &HandoffRecord) -> String {
    if record.from_version == record.to_version {
        record.to_version.clone()
    } else {
        format!("{} → {}", record.from_version, record.to_version)
    }
}

/// Who asked for it, and by which way; guests are not told.
fn by(record: &HandoffRecord) -> Option<String> {
    (!record.requested_by.is_empty()).then(|| format!("{} ({})", record.requested_by, record.requested_via))
}

/// The outcome in full, where it says more than its one word.
fn detail(record: &HandoffRecord) -> Option<&str> {
    (!matches!(record.outcome.as_str(), "committed" | "serving")).then_some(record.outcome.as_str())
}

/// The picture.
pub(super) fn picture(records: &[HandoffRecord], now: UnixMillis) -> Markup {
    let shown = &records[..records.len().min(ROWS_MAX)];
    if shown.is_empty() {
        return html! { p .dim { "None yet. An update or a restart appears here, with each of its phases." } };
    }
    let scale = Scale::of(shown);
    let is_gap = |index: usize| {
        shown.get(index + 1).is_some_and(|older| {
            let record = &shown[index];
            record.generation != older.generation + u64::from(took_over(record))
        })
    };
    html! {
        ol .spine {
            @for (index, record) in shown.iter().enumerate() {
                li class={ "handoff " (end(record).0) (if is_gap(index) { " is-gap" } else { "" }) } {
                    (row(record, scale, now))
                    @if is_gap(index) { p .gap { "The process before ended; a new one was started." } }
                }
            }
        }
        (axis(scale))
    }
}

fn row(record: &HandoffRecord, scale: Scale, now: UnixMillis) -> Markup {
    let (_, sign, word) = end(record);
    let segments = scale.segments(record);
    html! {
        p .node {
            @if took_over(record) {
                b { "generation " (record.generation) } " " span .version { (record.to_version) }
            } @else {
                b { (record.to_version) (left(record)) } " " span .version { "generation " (record.generation) " went on" }
            }
        }
        p .what {
            span .sign aria-hidden="true" { (sign) } " "
            span .kind { (record.kind) } " " (versions(record)) ", " b { (word) } ", "
            (ago(record.started_at, now)) @if let Some(by) = by(record) { ", by " (by) }
            @if let Some(reason) = &record.reason { ", “" (reason) "”" }
        }
        @if let Some(detail) = detail(record) { p .outcome { (detail) } }
        @if !segments.is_empty() { (bar(record, &segments)) }
        p .figures {
            @if blackout_us(record) > 0 { span .dark { "nothing served for " b { (fine(blackout_us(record))) } } }
            @if duration_us(record) > 0 { span { (fine(duration_us(record))) " in all" } }
            @if record.turns_carried > 0 { span { (count(record.turns_carried, "turn")) " carried" } }
            @if record.agents_carried > 0 { span { (count(record.agents_carried, "agent")) " kept" } }
        }
    }
}

fn bar(record: &HandoffRecord, segments: &[Segment<'_>]) -> Markup {
    let spoken: Vec<String> =
        segments.iter().map(|segment| format!("{} {}", segment.phase, fine(segment.us))).collect();
    let label = format!("{}; nothing served for {}", spoken.join(", "), fine(blackout_us(record)));
    let dark = segments.iter().filter(|segment| segment.is_dark);
    let dark_from = dark.clone().map(|segment| segment.x).min();
    let dark_to = dark.map(|segment| segment.x + segment.width).max();
    html! {
        svg .bar role="img" aria-label=(label) width="100%" height="30" {
            @for segment in segments {
                g class={ "seg p-" (segment.phase) } {
                    title { (segment.phase) " " (fine(segment.us)) @if segment.is_cut { " (drawn shorter)" } }
                    rect x=(percent(segment.x)) y="3" width=(percent(segment.width)) height="24" {}
                    @if segment.is_cut {
                        @let middle = percent(segment.x + segment.width / 2);
                        text .cut x=(middle) y="20" text-anchor="middle" { "//" }
                    } @else if segment.width >= LABEL_WIDE {
                        @let class = if segment.width >= LABEL_NARROW { "label" } else { "label is-wide" };
                        text class=(class) x=(percent(segment.x + segment.width / 2)) y="19" text-anchor="middle" { (segment.phase) }
                    }
                }
            }
            @if let (Some(from), Some(to)) = (dark_from, dark_to) {
                rect .blackout x=(percent(from)) y="1" width=(percent(to - from)) height="28" fill="url(#hatch)" {}
            }
        }
    }
}

fn axis(scale: Scale) -> Markup {
    let ticks = scale.ticks();
    html! {
        svg .axis aria-hidden="true" width="100%" height="24" {
            line x1="0" y1="1" x2="100%" y2="1" {}
            @for tick in &ticks {
                @let x = percent(scale.hundredths(*tick));
                // A label at the right edge would be cut off.
                @let anchor = match scale.hundredths(*tick) { 0 => "start", 9000.. => "end", _ => "middle" };
                line x1=(x) y1="1" x2=(x) y2="6" {}
                text x=(x) y="19" text-anchor=(anchor) { @if *tick == 0 { "0" } @else { (fine(*tick)) } }
            }
        }
    }
}

/// What the hatching of [`picture`] is, once in a page.
pub(super) fn definitions() -> Markup {
    html! {
        svg .defs aria-hidden="true" width="0" height="0" {
            defs {
                pattern #hatch width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    line .hatch x1="0" y1="0" x2="0" y2="6" {}
                }
            }
        }
    }
}

/// What the colours and the hatching mean.
pub(super) fn legend() -> Markup {
    let entry = |phase: Phase, what: &str| {
        html! { li { span class={ "swatch p-" (phase) } aria-hidden="true" {} b { (phase) } " " (what) } }
    };
    html! {
        ul .legend {
            (entry(Phase::Stage, "fetched and verified"))
            (entry(Phase::Preflight, "the new bytes try the real state"))
            (entry(Phase::Drain, "sends in flight finish"))
            (entry(Phase::Quiesce, "all parts stop"))
            (entry(Phase::Seal, "the state is sealed"))
            (entry(Phase::Exec, "the image is replaced"))
            (entry(Phase::Adopt, "the new one takes over"))
            li { span .swatch.is-dark aria-hidden="true" {} b { "hatched" } " nothing is served" }
            li { span .swatch.is-cut aria-hidden="true" { "//" } b { "cut" } " longer than it is drawn" }
        }
    }
}

/// The same in words.
pub(super) fn table(records: &[HandoffRecord]) -> Markup {
    html! {
        table {
            thead { tr {
                th scope="col" { "asked for at" } th scope="col" { "what" } th scope="col" { "by" } th scope="col" { "outcome" }
                th scope="col" { "not served" } th scope="col" { "phases" } th scope="col" { "SHA-256" }
            } }
            tbody {
                @for record in records {
                    tr {
                        td { time datetime=(rfc3339(record.started_at)) { (rfc3339(record.started_at)) } }
                        td { (record.kind) " " (versions(record)) }
                        td { @if let Some(by) = by(record) { (by) } }
                        td { (record.outcome) }
                        td .number { (fine(blackout_us(record))) }
                        td { @for (phase, us) in &record.phases_us { span .phase { (phase) " " (fine(*us)) } " " } }
                        td { code { (short_digest(&record.to_sha256)) } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "tests/handoffs.rs"]
mod tests;
