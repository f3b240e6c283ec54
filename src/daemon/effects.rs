//! Carrying out what the gateway decides: first all of it that is to be recorded, in one transaction, then in order.
//!
//! **Invariants**
//! - Nobody outside is told of anything before it is recorded, unless the store cannot: then it is told all the same,
//!   because those who wait for an answer are better served with one that a kill may repeat.
//! - A handoff is begun last: what comes of the same events is out of this image's hands by then.

use super::run::Daemon;
use super::state::Origin;
use crate::agent::AgentCommand;
use crate::chat::{Conversation, Inbound, Outbound, OutboundContent, ReplyStep};
use crate::control::proto::{self, HandoffKind};
use crate::control::{ClientId, ControlCommand};
use crate::fault::{self, Point};
use crate::gateway::{Effect, Requester, notice};
use crate::id::TurnId;
use crate::platform::local::PLATFORM as LOCAL;
use crate::platform::{Order, PlatformCommand};
use crate::report::Chain;
use crate::store::{Change, EntryId};

/// What recording an effect has brought.
#[derive(Clone, Copy, Debug, Default)]
struct Recorded {
    /// The store has it.
    is_durable: bool,
    entry: Option<EntryId>,
}

/// A handoff that was asked for in a chat.
struct Asked {
    kind: HandoffKind,
    force: bool,
    by: Requester,
}

impl Daemon {
    /// Messages that the store has accepted.
    pub(super) async fn messages(&mut self, messages: Vec<(TurnId, Inbound)>) {
        let unknown: Vec<Conversation> = messages
            .iter()
            .map(|(_, inbound)| &inbound.conversation)
            .filter(|c| !self.gateway.knows(c))
            .cloned()
            .collect();
        self.learn(unknown).await;
        let mut effects = Vec::new();
        for (turn, inbound) in messages {
            self.gateway.inbound(turn, inbound, &mut effects);
        }
        self.carry_out(effects).await;
    }

    /// Tells the gateway the stored sessions of conversations that it does not know.
    pub(super) async fn learn(&mut self, mut conversations: Vec<Conversation>) {
        if conversations.is_empty() {
            return;
        }
        conversations.sort_unstable();
        conversations.dedup();
        match self.store.sessions(conversations).await {
            Ok(rows) => rows.into_iter().for_each(|row| self.gateway.learn(row)),
            Err(error) => tracing::error!(error = %Chain(&error), "cannot look up sessions; new ones are made"),
        }
    }

    pub(super) async fn carry_out(&mut self, effects: Vec<Effect>) {
        let (mut effects, mut handoffs) = (effects, Vec::new());
        while !effects.is_empty() {
            let recorded = self.record_changes(&effects).await;
            let mut brought_about = Vec::new();
            for (effect, recorded) in effects.into_iter().zip(recorded) {
                self.carry_out_one(effect, recorded, &mut brought_about, &mut handoffs).await;
            }
            effects = brought_about;
        }
        for Asked { kind, force, by } in handoffs {
            let turn = by.turn;
            Box::pin(self.request_handoff(kind, force, None, Origin::Chat(by))).await;
            self.record_changes(&[Effect::Close(turn)]).await;
        }
    }

    /// Records what is to be recorded of these effects.
    async fn record_changes(&self, effects: &[Effect]) -> Vec<Recorded> {
        let mut recorded = vec![Recorded::default(); effects.len()];
        let changes = effects.iter().enumerate().filter_map(|(at, effect)| Some((at, self.change_of(effect)?)));
        let (places, changes): (Vec<usize>, Vec<Change>) = changes.unzip();
        if changes.is_empty() {
            return recorded;
        }
        match self.store.change(changes).await {
            Ok(entries) => {
                for (at, entry) in places.into_iter().zip(entries) {
                    recorded[at] = Recorded { is_durable: true, entry };
                }
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "what was decided cannot be recorded: a kill may repeat it or cost it");
            }
        }
        recorded
    }

    fn change_of(&self, effect: &Effect) -> Option<Change> {
        Some(match effect {
            Effect::Notice(conversation, notice) => {
                return self.has_outbox(conversation).then(|| Change::Notice(conversation.clone(), notice.clone()));
            }
            Effect::Start(turn, conversation) => {
                Change::Start(*turn, self.has_outbox(conversation).then(|| conversation.clone()))
            }
            Effect::Finish { turn, conversation, text, files, end, .. } => Change::Finish {
                turn: *turn,
                conversation: self.has_outbox(conversation).then(|| conversation.clone()),
                text: text.clone(),
                files: files.clone(),
                end: end.clone(),
            },
            Effect::Close(turn) => Change::Close(*turn),
            Effect::Requeue(turn, text, files) => Change::Requeue(*turn, text.clone(), files.clone()),
            Effect::Session(row) => Change::Session(row.clone()),
            Effect::Record(change) => change.clone(),
            Effect::Show(_)
            | Effect::Fetch { .. }
            | Effect::Agent(..)
            | Effect::Handoff { .. }
            | Effect::Pause { .. }
            | Effect::CheckUpdate(_)
            | Effect::Describe(..) => return None,
        })
    }

    /// Whether what is to be shown there is kept until it is. A terminal shows it at once or has a backlog, and a platform
    /// that is not configured never would.
    fn has_outbox(&self, conversation: &Conversation) -> bool {
        self.platforms.contains_key(&conversation.platform)
    }

    async fn carry_out_one(
        &mut self,
        effect: Effect,
        recorded: Recorded,
        brought_about: &mut Vec<Effect>,
        handoffs: &mut Vec<Asked>,
    ) {
        match effect {
            Effect::Show(outbound) => self.show(outbound, None),
            Effect::Notice(conversation, notice) => {
                self.show(Outbound { conversation, content: OutboundContent::Notice(notice) }, recorded.entry);
            }
            Effect::Start(turn, conversation) => {
                self.show(Outbound::reply(conversation, turn, ReplyStep::Begin), recorded.entry);
            }
            Effect::Finish { turn, conversation, started_at, end, .. } => {
                self.trace_turn(turn, &conversation, started_at, &end);
                if recorded.is_durable {
                    fault::at(Point::Done);
                    self.settle(turn);
                }
                self.show(Outbound::reply(conversation, turn, ReplyStep::End(end)), recorded.entry);
            }
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
            Effect::Close(_) | Effect::Requeue(..) | Effect::Session(_) | Effect::Record(_) => {}
            Effect::Fetch { turn, conversation, attachments, of } => {
                let order = Order { turn, chat: conversation.chat, attachments, of, root: self.home.attachments() };
                match self.platforms.get_mut(&conversation.platform) {
                    Some(outlet) => outlet.put(PlatformCommand::Fetch(Box::new(order))),
                    None => {
                        let gone = |_| Err("its platform is no longer configured".to_owned());
                        self.gateway.fetched(turn, order.attachments.iter().map(gone).collect(), brought_about);
                    }
                }
            }
            Effect::Handoff { kind, force, by } => handoffs.push(Asked { kind, force, by }),
            Effect::Pause { platform, pause, here, by } => {
                self.pause_for_chat(platform, pause, here, &by, brought_about).await;
            }
            Effect::CheckUpdate(conversation) => Box::pin(self.check_for_chat(conversation)).await,
            Effect::Describe(conversation, what) => {
                brought_about.push(notice(&conversation, self.describe(what, &conversation)))
            }
        }
    }

    fn show(&mut self, outbound: Outbound, entry: Option<EntryId>) {
        if outbound.conversation.platform.as_str() == LOCAL {
            let told = self.local.deliver(outbound);
            return self.notify_clients(told);
        }
        match self.platforms.get_mut(&outbound.conversation.platform) {
            Some(outlet) => outlet.put(PlatformCommand::Deliver { outbound: Box::new(outbound), entry }),
            None => {
                let platform = &outbound.conversation.platform;
                tracing::warn!(%platform, "something to show on a platform that is not configured was dropped");
            }
        }
    }

    pub(super) fn notify_clients(&mut self, told: Vec<(ClientId, serde_json::Value)>) {
        for (client, params) in told {
            self.control.put(ControlCommand::Notify { client, method: proto::CHAT_OUTPUT, params });
        }
    }
}
