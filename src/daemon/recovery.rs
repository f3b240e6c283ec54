//! Going on where a process that was killed stopped: from the fds that were kept for it, and the store.
//!
//! **Invariant:** a prompt that an agent may have is never asked again by itself (an agent would do the work twice);
//! one that no agent has is asked as if it had just come.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::mpsc;

use super::keeper::Keeper;
use super::outlet::Outlet;
use super::run::Daemon;
use super::specs::Specs;
use super::state::{agent_fds, agent_log_fd};
use crate::agent::{self, AgentCommand, AgentEvent, AgentFds, AgentHandle, RecoveredTurn};
use crate::chat::Conversation;
use crate::config::DEFAULT_AGENT;
use crate::handoff::Inherited;
use crate::id::{AgentName, TurnId};
use crate::report::Chain;
use crate::store::OpenTurn;

/// The agents whose processes outlived the gateway, with the turns that they had.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) agents: Vec<(AgentName, Outlet<AgentHandle>)>,
    turns: BTreeMap<TurnId, (AgentName, RecoveredTurn)>,
}

/// Takes up every agent whose fds are among `inherited`. What cannot be taken up is ended.
pub(super) fn agents(
    specs: Specs<'_>,
    inherited: &mut Inherited,
    events: &mpsc::Sender<AgentEvent>,
    keeper: &mut Keeper,
) -> Recovered {
    let mut recovered = Recovered::default();
    let pidfds = inherited.names().filter_map(|name| name.as_str().strip_prefix("agent.")?.strip_suffix(".pidfd"));
    let names: Vec<AgentName> = pidfds.map(AgentName::from).collect();
    for name in names {
        let [stdin, stdout, pidfd] = agent_fds(&name).map(|fd| inherited.take_fd(&fd));
        let log = inherited.take_fd(&agent_log_fd(&name));
        let (Some(stdin), Some(stdout), Some(pidfd)) = (stdin, stdout, pidfd) else { continue };
        let Ok(process) = pidfd.try_clone() else { continue };
        let fds = AgentFds { stdin, stdout, pidfd, log };
        keeper.keep_agent(&name, &fds);
        match agent::recover(specs.of(&name), fds, events.clone()) {
            Ok((handle, turns)) => {
                tracing::info!(agent = %name, turns = turns.len(), "an agent outlived the gateway, going on with it");
                recovered.turns.extend(turns.into_iter().map(|turn| (turn.turn, (name.clone(), turn))));
                recovered.agents.push((name, Outlet::new(handle)));
            }
            Err(error) => {
                tracing::error!(agent = %name, error = %Chain(&error), "cannot go on with an agent, ending it");
                keeper.forget_agent(&name);
                if let Err(error) = pidfd_send_signal(&process, Signal::KILL) {
                    tracing::warn!(agent = %name, %error, "cannot end it either");
                }
            }
        }
    }
    recovered
}

impl Daemon {
    /// Takes up what a process that was killed left in the store and with the agents.
    /// Returns the chats in which a turn has ended with that process.
    pub(super) async fn recover(&mut self, mut recovered: Recovered) -> BTreeSet<Conversation> {
        let open = match self.store.open_turns().await {
            Ok(open) => open,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "cannot read the open turns");
                return BTreeSet::new();
            }
        };
        let (mut effects, mut lost) = (Vec::new(), BTreeSet::new());
        self.learn(open.iter().map(|turn| turn.inbound.conversation.clone()).collect()).await;
        for turn in open {
            match recovered.turns.remove(&turn.turn) {
                Some((agent, said)) => self.gateway.take_up(turn, agent, said, &mut effects),
                None => {
                    let open = OpenTurn { running: turn.running && !self.knows_all_prompts(&turn), ..turn };
                    if open.running {
                        lost.insert(open.inbound.conversation.clone());
                    }
                    self.gateway.recover(open, &mut effects);
                }
            }
        }
        self.carry_out(effects).await;
        // Their replies are in the store, but their agents did not hear of it.
        for (turn, (agent, _)) in recovered.turns {
            if let Some(outlet) = self.agents.get_mut(&agent) {
                outlet.put(AgentCommand::Settled { turn });
            }
        }
        lost
    }

    /// Whether the agent of the turn's conversation has outlived the gateway: what its log does not have, it never got.
    fn knows_all_prompts(&self, turn: &OpenTurn) -> bool {
        let chosen = self.gateway.agent_of(&turn.inbound.conversation).cloned();
        // One that never had a session has chosen none.
        self.recovered_agents.contains(&chosen.unwrap_or_else(|| DEFAULT_AGENT.into()))
    }

    /// The reply to a turn is in the store as a whole: its agent need not remember it.
    pub(super) fn settle(&mut self, turn: TurnId) {
        match self.turn_agents.remove(&turn) {
            Some(agent) => {
                if let Some(outlet) = self.agents.get_mut(&agent) {
                    outlet.put(AgentCommand::Settled { turn });
                }
            }
            // Who carried the turn here did not say to whom it was given.
            None => self.agents.values_mut().for_each(|outlet| outlet.put(AgentCommand::Settled { turn })),
        }
    }
}
