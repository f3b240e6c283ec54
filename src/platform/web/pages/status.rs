//! The status page, and what its script puts in the place of its regions.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::{CSRF_FIELD, Place, Told, Viewer, handoffs, overview, page};
use crate::control::proto::Status;
use crate::handoff::Phase;
use crate::store::HandoffEnd;
use crate::words::{Done, Language};

/// The phases that are shown while a handoff is under way, in their order.
const STEPS: [Phase; 8] = [
    Phase::Stage,
    Phase::Preflight,
    Phase::Drain,
    Phase::Quiesce,
    Phase::Seal,
    Phase::Exec,
    Phase::Adopt,
    Phase::Probation,
];

/// The word of [`Status::phase`] when no handoff is under way.
const SERVING: &str = "serving";

/// The parts of the page that change, by their ids.
fn regions(status: &Status) -> [(&'static str, Markup); 9] {
    [
        ("headline", overview::headline(status)),
        ("result", result(status)),
        ("blockers", overview::blockers(status)),
        ("handoffs", handoffs::picture(&status.handoffs, status.at)),
        ("handoff-table", handoffs::table(&status.handoffs)),
        ("platforms", overview::platforms(status)),
        ("agents", overview::agents(status)),
        ("queues", overview::queues(status)),
        ("updates", overview::updates(status)),
    ]
}

/// What the event `status` carries: `regions` by the ids of their elements, and what scripts look at.
pub fn live(status: &Status) -> Value {
    let regions: serde_json::Map<String, Value> =
        regions(status).into_iter().map(|(id, markup)| (id.to_owned(), markup.into_string().into())).collect();
    json!({
        "at": status.at,
        "version": status.image.version,
        "generation": status.generation,
        "pid": status.pid,
        "phase": status.phase,
        "waiting_for": status.waiting_for,
        "regions": regions,
    })
}

/// The status without what is others': their conversations, what agents ask them, who asked for what; and without where the
/// gateway lies, and what is in the way of a restart, which names both.
pub fn for_guests(mut status: Status) -> Status {
    status.home.clear();
    status.blockers.clear();
    for agent in &mut status.agents {
        agent.turns.iter_mut().for_each(|turn| turn.conversation.clear());
        for asked in &mut agent.permissions {
            asked.conversation.clear();
            asked.title.clear();
        }
    }
    for record in &mut status.handoffs {
        record.requested_by.clear();
        record.requested_via.clear();
        record.reason = None;
    }
    if let Some(hold) = &mut status.update.held {
        hold.by.clear();
    }
    status
}

/// The status page. `told` is the answer to a form that was sent from it.
pub fn status(status: &Status, viewer: &Viewer<'_>, told: Option<Told<'_>>) -> String {
    let regions = regions(status);
    let region = |wanted: &str| {
        let found = regions.iter().find(|(id, _)| *id == wanted).map(|(_, markup)| markup);
        html! { div id=(wanted) data-region { @if let Some(markup) = found { (markup) } } }
    };
    let main = html! {
        (handoffs::definitions())
        section .hero aria-label="What runs" {
            (region("headline"))
            @if let Some(told) = told { (told.show()) }
            (underway(status))
            div role="status" { (region("result")) }
            (region("blockers"))
            @if viewer.is_admin { (actions(viewer)) }
            p #trouble .told.is-bad role="status" hidden { "Not connected. What stands here may be old; trying again." }
        }
        section .card aria-labelledby="handoffs-title" {
            h2 #handoffs-title { "Handoffs" }
            (region("handoffs"))
            (handoffs::legend())
            details { summary { "The same as a table" } div .scroll tabindex="0" role="region" aria-label="Handoffs as a table" { (region("handoff-table")) } }
        }
        div .columns {
            section .card aria-labelledby="platforms-title" { h2 #platforms-title { "Platforms" } (region("platforms")) }
            section .card aria-labelledby="agents-title" { h2 #agents-title { "Agents" } (region("agents")) }
            section .card aria-labelledby="queues-title" { h2 #queues-title { "Queues" } (region("queues")) }
            section .card aria-labelledby="updates-title" { h2 #updates-title { "Updates" } (region("updates")) }
        }
    };
    page("Status", Some(Place::Status), Some(viewer), &["live.js", "status.js"], &main)
}

/// The handoff under way, step by step.
fn underway(status: &Status) -> Markup {
    let is_under_way = status.phase != SERVING;
    let now = STEPS.iter().position(|step| step.as_str() == status.phase);
    let state = |index: usize| match now {
        Some(now) if index < now => "is-done",
        Some(now) if index == now => "is-now",
        _ => "",
    };
    html! {
        div #underway hidden[!is_under_way] {
            p role="status" {
                "A handoff is under way: " b #underway-phase { (status.phase) }
                span #underway-detail { @if let Some(what) = &status.waiting_for { ", waiting for " (what) } }
            }
            ol .steps aria-hidden="true" {
                @for (index, step) in STEPS.iter().enumerate() { li class=(state(index)) data-phase=(step) { (step) } }
            }
        }
    }
}

/// How the latest handoff ended, in one sentence.
fn result(status: &Status) -> Markup {
    let Some(last) = status.handoffs.first() else { return html! {} };
    let words = Language::En.words();
    let (class, text) = match HandoffEnd::of(&last.outcome) {
        None | Some(HandoffEnd::Committed) if last.phases_us.is_empty() => return html! {},
        None | Some(HandoffEnd::Committed) if last.generation == status.generation => {
            let done = Done {
                kind: &last.kind,
                from: &last.from_version,
                to: &last.to_version,
                pid: status.pid,
                turns: last.turns_carried,
                blackout_us: handoffs::blackout_us(last),
                is_dry_run: false,
            };
            ("result", words.handoff_done(&done))
        }
        Some(HandoffEnd::Failed | HandoffEnd::RolledBack) => {
            ("result is-bad", words.handoff_failed(&last.kind, &last.outcome, &status.image.version))
        }
        _ => return html! {},
    };
    // The sign before the sentence is for chats; here its kind has a colour and its words.
    html! { p class=(class) { (text.trim_start_matches(|c: char| !c.is_alphanumeric())) } }
}

/// What admins may ask for. Confirmed by opening it, so that it works without scripts and by keyboard.
fn actions(viewer: &Viewer<'_>) -> Markup {
    let csrf = || html! { input type="hidden" name=(CSRF_FIELD) value=(viewer.csrf); };
    html! {
        div .actions {
            details name="action" {
                summary .button { "Update" }
                form method="post" action="/api/update" data-action {
                    (csrf())
                    p { "The release is fetched, verified and tried first. Turns go on, the process stays the same." }
                    label for="version" { "Version" }
                    input #version type="text" name="version" placeholder="the newest" autocomplete="off" spellcheck="false" maxlength="64";
                    button .primary type="submit" { "Update now" }
                }
            }
            details name="action" {
                summary .button { "Restart" }
                form method="post" action="/api/restart" data-action {
                    (csrf())
                    p { "The running version replaces itself in the same process. Turns go on." }
                    button .primary type="submit" { "Restart now" }
                }
            }
            p #asked role="status" {}
        }
    }
}

#[cfg(test)]
#[path = "tests/status.rs"]
mod tests;
