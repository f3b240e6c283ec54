//! What runs, and how it does: the parts of the status page beside the handoffs.

use maud::{Markup, html};

use super::text::{ago, lasting, until};
use crate::chat::LinkState;
use crate::clock::UnixMillis;
use crate::control::proto::{AgentStatus, PlatformStatus, Status};
use crate::units::{count, short_digest, size};

/// A state in one word. Its dot has a shape of its own, so that nothing is told by colour alone.
fn pill(state: &str) -> Markup {
    let class = match state {
        "running" | "connected" | "ready" => "pill is-good",
        "starting" | "connecting" | "draining" | "paused" => "pill is-open",
        _ => "pill is-bad",
    };
    html! { span class=(class) { (state) } }
}

pub(super) fn headline(status: &Status) -> Markup {
    let (image, now) = (&status.image, status.at);
    html! {
        h1 { "hermes " (image.version) " " (pill(&status.gateway_state)) }
        dl .facts {
            div { dt { "process" } dd { "PID " (status.pid) ", up " (lasting(status.started_at, now)) } }
            div { dt { "this image" } dd { "for " (lasting(status.image_started_at, now)) ", generation " (status.generation) } }
            // An image that has just begun to serve takes its digest beside that.
            @if !image.sha256.is_empty() {
                div { dt { "SHA-256" } dd { code title=(image.sha256) { (short_digest(&image.sha256)) "…" } } }
            }
            @if let Some(disk) = &status.on_disk {
                div { dt { "on disk" } dd {
                    (disk.version) " "
                    @match &disk.sha256 {
                        _ if image.sha256.is_empty() => {}
                        Some(sha256) if *sha256 == image.sha256 => { span .dim { "the same bytes" } }
                        Some(sha256) => { b { "other bytes than those that run" } ", " code title=(sha256) { (short_digest(sha256)) "…" } }
                        None => {}
                    }
                } }
            }
        }
    }
}

pub(super) fn blockers(status: &Status) -> Markup {
    html! {
        @if !status.blockers.is_empty() {
            ul .blockers {
                @for blocker in &status.blockers {
                    li class={ "blocker is-" (blocker.effect) } {
                        b { @match blocker.effect.as_str() {
                            "refuses" => "In the way of a restart:",
                            "delays" => "A restart would wait:",
                            _ => "At risk:",
                        } }
                        " " (blocker.what)
                        @if let Some(since) = blocker.since { ", for " (lasting(since, status.at)) }
                    }
                }
            }
        }
    }
}

pub(super) fn platforms(status: &Status) -> Markup {
    html! {
        @if status.platforms.is_empty() { p .dim { "No platform is configured." } }
        ul .rows { @for platform in &status.platforms { (platform_row(platform, status.at)) } }
    }
}

fn platform_row(platform: &PlatformStatus, now: UnixMillis) -> Markup {
    let state = match &platform.link {
        LinkState::Connecting => "connecting",
        LinkState::Connected => "connected",
        LinkState::Paused => "paused",
        LinkState::Retrying { .. } => "retrying",
        LinkState::Fatal { .. } => "given up",
    };
    html! {
        li {
            b .name { (platform.name) } " " (pill(state)) " " span .dim { "for " (lasting(platform.updated_at, now)) }
            @match &platform.link {
                LinkState::Retrying { error_code, error_message, next_attempt_at } => {
                    p .more { (error_message) " (" (error_code) "); tried again " (until(*next_attempt_at, now)) }
                }
                LinkState::Fatal { error_code, error_message } => { p .more { (error_message) " (" (error_code) ")" } }
                _ => @if let Some(error) = &platform.last_error {
                    p .more.dim { "last trouble " (ago(error.at, now)) ": " (error.message) " (" (error.code) ")" }
                }
            }
            @if platform.waiting + platform.sending > 0 {
                p .more {
                    (platform.waiting) " waiting to be sent, " (platform.sending) " in flight"
                    @if let Some(since) = platform.sending_since { " for " (lasting(since, now)) }
                }
            }
        }
    }
}

pub(super) fn agents(status: &Status) -> Markup {
    html! {
        @if status.agents.is_empty() { p .dim { "No agent is configured." } }
        ul .rows { @for agent in &status.agents { (agent_row(agent, status.at)) } }
    }
}

/// Where something is; guests are not told.
fn place(conversation: &str) -> Markup {
    html! { @if !conversation.is_empty() { " in " b { (conversation) } } }
}

fn agent_row(agent: &AgentStatus, now: UnixMillis) -> Markup {
    html! {
        li {
            b .name { (agent.name) } " " (pill(&agent.state))
            @if let Some(since) = agent.since { " " span .dim { "for " (lasting(since, now)) } }
            @if let Some(pid) = agent.pid { " " span .dim.whole { "PID " (pid) } }
            @if let Some(title) = &agent.title { p .more.dim { (title) } }
            @if let Some(error) = &agent.error {
                p .more { (error) @if let Some(next) = agent.next_attempt_at { "; started again " (until(next, now)) } }
            }
            @if !agent.turns.is_empty() || !agent.permissions.is_empty() {
                ul .turns {
                    @for turn in &agent.turns {
                        li { "turn " (turn.turn) (place(&turn.conversation)) ", " (lasting(turn.started_at, now)) ", " (size(turn.answer_bytes)) " so far" }
                    }
                    @for asked in &agent.permissions {
                        li {
                            "asks" (place(&asked.conversation)) " " (ago(asked.asked_at, now))
                            @if !asked.title.is_empty() { ": " (asked.title) }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn queues(status: &Status) -> Markup {
    let queues = &status.queues;
    let row = |name: &str, what: &str, number: Option<usize>| {
        html! { div { dt { (name) } dd { b { @match number { Some(number) => (number), None => "unknown" } } " " span .dim { (what) } } } }
    };
    html! {
        dl .facts {
            (row("inbox", "messages whose turn has not begun", Some(queues.inbox)))
            (row("turns", "wait for an agent", Some(status.queued_turns)))
            (row("outbox", "replies and notices on their way", queues.outbox))
            (row("stash", "arrived while everything was held", Some(queues.stash)))
        }
        p .dim.more { (totals(status)) "." }
    }
}

/// What happens with updates by itself.
pub(super) fn updates(status: &Status) -> Markup {
    let (update, now) = (&status.update, status.at);
    let window = update.window.as_ref().map(|window| format!(" ({window})")).unwrap_or_default();
    html! {
        p { @match update.auto.as_str() {
            "apply" => { "Releases are installed by themselves" (window) "." }
            "notify" => "Admins are told of releases.",
            _ => "Nothing is updated by itself.",
        } }
        @if let Some(version) = &update.available {
            p .more {
                b { (version) } " is available"
                @if let Some(rollout) = update.deferred { "; so far to " (rollout.percent) " % of installations and not to this one" }
                @if let Some(at) = update.apply_at { "; installed " (until(at, now)) }
            }
        }
        @if let Some(hold) = &update.held {
            p .more {
                "Held" @if !hold.by.is_empty() { " by " (hold.by) } " for " (lasting(hold.since, now))
                @if let Some(end) = hold.until { "; goes on " (until(end, now)) }
            }
        }
        @if let Some(failed) = &update.failed { p .more { (failed.version) " failed here: " (failed.reason) } }
        @if let Some(error) = &update.last_error { p .more { "The last look failed: " (error) } }
        @if update.last_check_at.is_some() || update.next_check_at.is_some() {
            p .more.dim {
                @if let Some(at) = update.last_check_at { "looked " (ago(at, now)) }
                @if let (Some(_), Some(_)) = (update.last_check_at, update.next_check_at) { "; " }
                @if let Some(at) = update.next_check_at { "next look " (until(at, now)) }
            }
        }
    }
}

fn totals(status: &Status) -> String {
    let sum = |outcome: Option<&str>| {
        let counted = status.handoff_totals.iter().filter(|total| outcome.is_none_or(|wanted| total.outcome == wanted));
        usize::try_from(counted.map(|total| total.count).sum::<u64>()).unwrap_or(usize::MAX)
    };
    format!("{} since the database was made, {} of them committed", count(sum(None), "handoff"), sum(Some("committed")))
}
