//! Permission requests of the agent that wait for an answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Connection, Stage};
use crate::agent::acp::{self, PermissionAsk};
use crate::agent::{AgentEvent, PermissionOption, RecoveredPermission};
use crate::id::{SessionId, TurnId};
use crate::jsonrpc::{Message, RequestId};

/// One request. The agent's JSON-RPC id names it: a tool call may ask more than once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    id: RequestId,
    turn: TurnId,
    /// What it is about, to be shown again.
    #[serde(default)]
    title: String,
    #[serde(default)]
    options: Vec<PermissionOption>,
}

/// All of them, by the number that the gateway knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Permissions {
    /// Never goes back, so that an old answer cannot meet a new request.
    #[serde(default)]
    last: u64,
    #[serde(default)]
    asked: BTreeMap<u64, Asked>,
}

impl Permissions {
    pub(super) fn clear(&mut self) {
        self.asked.clear();
    }
}

impl Connection {
    /// Answers a permission request; one that is gone is ignored.
    pub(in crate::agent) fn answer(&mut self, request: u64, option: Option<String>) {
        if let Some(asked) = self.permissions.asked.remove(&request) {
            self.answer_agent(asked.id, option);
        }
    }

    /// The agent asks: passes it on if it belongs to a turn that still wants to know.
    pub(super) fn ask(&mut self, id: RequestId, ask: PermissionAsk) {
        let Some(turn) = self.running_turn(&ask.session) else { return self.answer_agent(id, None) };
        if self.permissions.asked.len() >= self.limits.permissions_max {
            tracing::warn!(agent = %self.agent, "too many permission requests at once");
            return self.answer_agent(id, None);
        }
        self.permissions.last += 1;
        let request = self.permissions.last;
        let title = self.title_of(turn, &ask);
        let options: Vec<PermissionOption> = ask.options;
        let asked = Asked { id, turn, title: title.clone(), options: options.clone() };
        self.permissions.asked.insert(request, asked);
        self.changed = true;
        self.events.push_back(AgentEvent::Permission { turn, request, title, options });
    }

    /// Takes back what the agent no longer wants to know.
    pub(super) fn withdraw(&mut self, id: &RequestId) {
        let found = self.permissions.asked.iter().find(|(_, asked)| asked.id == *id).map(|(request, _)| *request);
        if let Some(request) = found {
            self.answer(request, None);
        }
    }

    /// Answers all requests of a turn `cancelled`, as ACP demands when it is cancelled.
    pub(super) fn cancel_permissions(&mut self, turn: TurnId) {
        let of_turn = self.permissions.asked.extract_if(.., |_, asked| asked.turn == turn);
        for (_, asked) in of_turn.collect::<Vec<_>>() {
            self.answer_agent(asked.id, None);
        }
    }

    /// The requests of a turn that wait for an answer.
    pub(super) fn asked(&self, turn: TurnId) -> Vec<RecoveredPermission> {
        let of_turn = self.permissions.asked.iter().filter(|(_, asked)| asked.turn == turn);
        let shown = of_turn.map(|(request, asked)| RecoveredPermission {
            request: *request,
            title: asked.title.clone(),
            options: asked.options.clone(),
        });
        shown.collect()
    }

    fn running_turn(&self, session: &SessionId) -> Option<TurnId> {
        let running = |stage: &Stage| matches!(stage, Stage::Running { session: of, .. } if of == session);
        self.turns.iter().find(|(_, turn)| running(&turn.stage)).map(|(id, _)| *id)
    }

    fn title_of(&self, turn: TurnId, ask: &PermissionAsk) -> String {
        let known = || {
            let tool = self.turns.get(&turn)?.tools.get(ask.tool.as_deref()?)?;
            Some(tool.title.clone())
        };
        ask.title.clone().or_else(known).unwrap_or_else(|| "a tool call".to_owned())
    }

    fn answer_agent(&mut self, id: RequestId, option: Option<String>) {
        self.send(&Message::Response { id, outcome: Ok(acp::permission_result(option)) });
    }
}
