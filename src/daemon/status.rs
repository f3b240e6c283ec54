//! The answer to `status`: everything that is to be seen of a gateway that runs.
//!
//! **Invariant:** it is made promptly whatever the database does; without an answer from it the history is empty.

use std::time::Duration;

use super::pulse::Health;
use super::run::Daemon;
use crate::chat::LinkState;
use crate::clock::UnixMillis;
use crate::control::proto::{
    AgentStatus, HandoffTotal, LinkError, PermissionStatus, PlatformStatus, Queues, Status, TurnStatus,
};
use crate::gateway::{AgentNow, AgentView};
use crate::report::Chain;
use crate::store::{Glance, HandoffRecord, HandoffTotals, Store};

/// How long the database may take to tell the history.
const GLANCE: Duration = Duration::from_secs(2);

/// What is known of a platform's link.
#[derive(Clone, Debug)]
pub(super) struct LinkView {
    pub(super) state: LinkState,
    /// When it last changed.
    pub(super) updated_at: UnixMillis,
    /// The last trouble, also of the images before.
    pub(super) last_error: Option<LinkError>,
}

impl LinkView {
    /// A link that is made anew after this trouble.
    pub(super) fn anew(last_error: Option<LinkError>) -> Self {
        Self { state: LinkState::Connecting, updated_at: UnixMillis::now(), last_error }
    }

    pub(super) fn becomes(&mut self, state: LinkState) {
        let at = UnixMillis::now();
        if let LinkState::Retrying { error_code, error_message, .. } | LinkState::Fatal { error_code, error_message } =
            &state
        {
            self.last_error = Some(LinkError { code: error_code.clone(), message: error_message.clone(), at });
        }
        (self.state, self.updated_at) = (state, at);
    }
}

/// The handoffs: the last ones, and how many there were.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    handoffs: Vec<HandoffRecord>,
    totals: HandoffTotals,
}

impl From<Glance> for History {
    fn from(Glance { handoffs, totals, .. }: Glance) -> Self {
        Self { handoffs, totals }
    }
}

impl Daemon {
    /// With so many handoffs.
    pub(super) async fn status(&mut self, history: u32) -> Status {
        let glance = match self.pulse.health() {
            Health::Hangs(_) => None,
            _ => glance(&self.store, history).await,
        };
        let outbox = glance.as_ref().map(|glance| glance.outbox);
        self.status_with(outbox, glance.map(History::from).unwrap_or_default())
    }

    /// With what the database has told.
    pub(super) fn status_with(&mut self, outbox: Option<usize>, History { handoffs, totals }: History) -> Status {
        let stash = self.stash.messages.len() + self.stash.requests.len();
        let queued_turns = self.gateway.turns_queued();
        Status {
            gateway_state: self.gateway_state().to_string(),
            image: self.image.id.clone(),
            pid: std::process::id(),
            generation: self.generation.0,
            started_at: self.process_started_at,
            image_started_at: self.image_started_at,
            phase: self.phase(),
            waiting_for: self.waiting_for().map(|wait| wait.to_string()),
            home: self.home.path().display().to_string(),
            platforms: self.platform_statuses(),
            agents: self.agent_statuses(),
            queued_turns,
            handoffs,
            at: UnixMillis::now(),
            on_disk: self.image_on_disk(),
            queues: Queues { inbox: queued_turns + self.stash.messages.len(), outbox, stash },
            handoff_totals: totals
                .into_iter()
                .map(|((kind, end), count)| HandoffTotal { kind, outcome: end.as_str().to_owned(), count })
                .collect(),
            blockers: self.blockers(),
            update: self.update_status(),
        }
    }

    pub(super) fn platform_statuses(&self) -> Vec<PlatformStatus> {
        let of = |(name, link): (&crate::id::PlatformName, &LinkView)| {
            let load = self.platforms.get(name).map(|outlet| outlet.inlet().load()).unwrap_or_default();
            PlatformStatus {
                name: name.to_string(),
                link: link.state.clone(),
                updated_at: link.updated_at,
                last_error: link.last_error.clone(),
                waiting: load.waiting,
                sending: load.sending,
                sending_since: load.sending_since,
            }
        };
        self.links.iter().map(of).collect()
    }

    pub(super) fn agent_statuses(&self) -> Vec<AgentStatus> {
        self.gateway.agents().map(|agent| self.agent_status(agent)).collect()
    }

    fn agent_status(&self, agent: AgentNow<'_>) -> AgentStatus {
        let shared = AgentStatus {
            name: agent.name.to_string(),
            turns: agent
                .turns
                .into_iter()
                .map(|turn| TurnStatus {
                    turn: turn.turn.0,
                    conversation: turn.conversation.to_string(),
                    started_at: turn.started_at,
                    answer_bytes: turn.answer_bytes,
                })
                .collect(),
            since: Some(agent.since),
            permissions: self
                .gateway
                .open_asks()
                .filter(|ask| ask.agent == agent.name)
                .map(|ask| PermissionStatus {
                    number: ask.number,
                    conversation: ask.conversation.to_string(),
                    title: ask.title.to_owned(),
                    asked_at: ask.asked_at,
                })
                .collect(),
            ..AgentStatus::default()
        };
        match agent.view {
            AgentView::Starting => AgentStatus { state: "starting".to_owned(), ..shared },
            AgentView::Ready { pid, title } => {
                AgentStatus { state: "ready".to_owned(), pid: Some(*pid), title: title.clone(), ..shared }
            }
            AgentView::Down { reason, until } => AgentStatus {
                state: "down".to_owned(),
                error: Some(reason.clone()),
                next_attempt_at: Some(*until),
                ..shared
            },
        }
    }
}

/// What the database tells with so many handoffs; nothing if it does not in time, which the pulse tells of.
pub(super) async fn glance(store: &Store, handoffs: u32) -> Option<Glance> {
    let glance = tokio::time::timeout(GLANCE, store.glance(handoffs)).await.ok()?;
    glance.inspect_err(|error| tracing::error!(error = %Chain(error), "cannot read the history")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_trouble_of_a_link_stays_when_it_is_over() {
        let mut link = LinkView::anew(None);
        link.becomes(LinkState::Connected);
        assert_eq!(link.last_error, None);
        let (error_code, error_message) = ("502".to_owned(), "bad gateway".to_owned());
        link.becomes(LinkState::Retrying { error_code, error_message, next_attempt_at: UnixMillis(1) });
        link.becomes(LinkState::Connected);
        assert_eq!(link.state, LinkState::Connected);
        let last = link.last_error.expect("it is kept");
        assert_eq!((last.code.as_str(), last.message.as_str()), ("502", "bad gateway"));
    }
}
