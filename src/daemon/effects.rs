//! Carrying out what the gateway decides, in order.

use super::run::Daemon;
use super::state::Origin;
use crate::agent::AgentCommand;
use crate::chat::{Inbound, Outbound, OutboundContent, ReplyStep};
use crate::control::proto;
use crate::control::{ClientId, ControlCommand};
use crate::fault::{self, Point};
use crate::gateway::{Effect, notice};
use crate::id::{PlatformName, TurnId};
use crate::platform::PlatformCommand;
use crate::platform::local::PLATFORM as LOCAL;
use crate::report::Chain;
use crate::store::TurnState;

impl Daemon {
    /// A message that the store has accepted.
    pub(super) async fn message(&mut self, turn: TurnId, inbound: Inbound) {
        if !self.gateway.knows(&inbound.conversation) {
            match self.store.session(&inbound.conversation).await {
                Ok(Some(row)) => self.gateway.learn(row),
                Ok(None) => {}
                Err(error) => tracing::error!(error = %Chain(&error), "cannot look up a session; a new one is made"),
            }
        }
        let mut effects = Vec::new();
        self.gateway.inbound(turn, inbound, &mut effects);
        self.carry_out(effects).await;
    }

    pub(super) async fn carry_out(&mut self, effects: Vec<Effect>) {
        // What an effect brings about is put behind those that are there already.
        let mut queue = std::collections::VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Show(outbound) => self.show(outbound, &mut queue),
                Effect::Agent(agent, command) => match self.agents.get_mut(&agent) {
                    Some(outlet) => {
                        if let AgentCommand::Prompt { turn, .. } = &command {
                            self.turn_agents.insert(*turn, agent);
                        }
                        outlet.put(command);
                    }
                    // An agent that was removed has ended its turns, and there is nothing left to ask of it.
                    None => tracing::debug!(%agent, "a command for an agent that is gone is dropped"),
                },
                Effect::TurnState(turn, state) => match self.store.set_turn_state(turn, state).await {
                    Ok(()) if state == TurnState::Done => {
                        fault::at(Point::Done);
                        self.settle(turn);
                    }
                    Ok(()) => {}
                    Err(error) => tracing::error!(%turn, error = %Chain(&error), "cannot record a turn"),
                },
                Effect::Requeue(turn, text) => {
                    if let Err(error) = self.store.requeue(turn, text).await {
                        tracing::error!(%turn, error = %Chain(&error), "cannot record a turn");
                    }
                }
                Effect::Session(row) => {
                    if let Err(error) = self.store.put_session(row).await {
                        tracing::error!(error = %Chain(&error), "cannot record a session");
                    }
                }
                Effect::Handoff { kind, force, by } => {
                    Box::pin(self.request_handoff(kind, force, None, Origin::Chat(by))).await;
                }
                Effect::CheckUpdate(conversation) => Box::pin(self.check_for_chat(conversation)).await,
                Effect::Describe(conversation, what) => {
                    let text = self.describe(what);
                    queue.push_back(notice(&conversation, text));
                }
            }
        }
    }

    fn show(&mut self, outbound: Outbound, queue: &mut std::collections::VecDeque<Effect>) {
        if outbound.conversation.platform.as_str() == LOCAL {
            let ended = match &outbound.content {
                OutboundContent::Reply { turn, step: ReplyStep::End(_) } => Some(*turn),
                _ => None,
            };
            let told = self.local.deliver(outbound);
            self.notify_clients(told);
            if let Some(turn) = ended {
                let mut effects = Vec::new();
                self.gateway.reply_delivered(turn, &mut effects);
                queue.extend(effects);
            }
            return;
        }
        match self.platforms.get_mut(&outbound.conversation.platform) {
            Some(outlet) => outlet.put(PlatformCommand::Deliver(outbound)),
            None => {
                let platform: &PlatformName = &outbound.conversation.platform;
                tracing::warn!(%platform, "something to show on a platform that is not configured was dropped");
                if let OutboundContent::Reply { turn, step: ReplyStep::End(_) } = outbound.content {
                    // Nobody else would ever end it.
                    queue.push_back(Effect::TurnState(turn, TurnState::Done));
                }
            }
        }
    }

    pub(super) fn notify_clients(&mut self, told: Vec<(ClientId, serde_json::Value)>) {
        for (client, params) in told {
            self.control.put(ControlCommand::Notify { client, method: proto::CHAT_OUTPUT, params });
        }
    }
}
