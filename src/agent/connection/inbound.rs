//! What the agent says.

use serde_json::Value;

use super::{Call, Connection, Phase, Stage, Tool, Turn};
use crate::agent::acp::{self, Introduction, SessionEvent};
use crate::agent::{AgentEvent, TurnOutcome, TurnUpdate};
use crate::clock::MonoNanos;
use crate::id::{SessionId, TurnId};
use crate::jsonrpc::{ErrorObject, Message, RequestId};

impl Connection {
    /// Takes one line of the agent's output.
    pub(in crate::agent) fn line(&mut self, now: MonoNanos, line: &[u8]) {
        match Message::parse(line) {
            Ok(Message::Request { id, method, params }) => self.request(id, &method, &params),
            Ok(Message::Notification { method, params }) => self.notification(&method, &params),
            Ok(Message::Response { id, outcome }) => self.response(now, &id, outcome),
            Err(_) if line.iter().all(u8::is_ascii_whitespace) => {}
            Err(_) => self.skip("a line that is not JSON-RPC"),
        }
    }

    fn request(&mut self, id: RequestId, method: &str, params: &Value) {
        let refused = |code, message: &str| Err(ErrorObject::new(code, message));
        let outcome = if method == acp::REQUEST_PERMISSION {
            match acp::read_permission(params) {
                Some(ask) => return self.ask(id, ask),
                None => refused(ErrorObject::INVALID_PARAMS, "sessionId and options are required"),
            }
        } else {
            // Neither files nor terminals were offered in `initialize`.
            refused(ErrorObject::METHOD_NOT_FOUND, "method not found")
        };
        self.skip("a request that cannot be served");
        self.send(&Message::Response { id, outcome });
    }

    fn notification(&mut self, method: &str, params: &Value) {
        if method == acp::SESSION_UPDATE {
            if let Some((session, event)) = acp::read_update(params) {
                self.session_event(&session, event);
            }
        } else if method == acp::CANCEL_REQUEST
            && let Some(id) = params.get("requestId").and_then(|id| serde_json::from_value(id.clone()).ok())
        {
            self.withdraw(&id);
        }
    }

    fn session_event(&mut self, session: &SessionId, event: SessionEvent) {
        let of_session = |turn: &Turn| !matches!(turn.stage, Stage::Resuming(_)) && turn.session() == Some(session);
        let Some((turn, open)) = self.turns.iter_mut().find(|(_, turn)| of_session(turn)) else {
            return self.replayed(session, event);
        };
        let turn = *turn;
        let update = match event {
            SessionEvent::Text(text) => TurnUpdate::Text(text),
            SessionEvent::Thought(text) => TurnUpdate::Thought(text),
            SessionEvent::File(offer) => {
                let unkept = offer.unkept();
                self.offers.push_back(offer);
                TurnUpdate::File(unkept)
            }
            SessionEvent::Tool { id, title, status } => {
                let known = open.tools.get(&id);
                let tool = Tool {
                    title: title.or_else(|| known.map(|known| known.title.clone())).unwrap_or_else(|| id.clone()),
                    status: status
                        .or_else(|| known.map(|known| known.status.clone()))
                        .unwrap_or_else(|| "pending".to_owned()),
                };
                // Most updates of a tool call only add output, which is not shown.
                if known == Some(&tool) {
                    return;
                }
                self.changed = true;
                if known.is_some() || open.tools.len() < self.limits.tools_max {
                    open.tools.insert(id, tool.clone());
                }
                TurnUpdate::Tool { title: tool.title, status: tool.status }
            }
            SessionEvent::User(_) | SessionEvent::Other => return,
        };
        self.events.push_back(AgentEvent::Update { turn, update });
    }

    fn response(&mut self, now: MonoNanos, id: &RequestId, outcome: Result<Value, ErrorObject>) {
        self.changed = true;
        let call = match id {
            RequestId::Number(id) => self.calls.remove(id),
            RequestId::Text(_) => None,
        };
        match call {
            Some(Call::Initialize { .. }) => self.initialized(now, outcome),
            Some(Call::NewSession { turn, kept, .. }) => self.session_made(now, turn, kept, outcome),
            Some(Call::LoadSession { turn, session, replayed, .. }) => {
                self.session_loaded(now, turn, session, replayed, outcome);
            }
            Some(Call::Prompt { turn }) => self.prompt_answered(turn, outcome),
            None => self.skip("an answer to nothing that was asked"),
        }
    }

    fn initialized(&mut self, now: MonoNanos, outcome: Result<Value, ErrorObject>) {
        let read = outcome.map_err(|error| acp::error_text(&error, &[])).and_then(acp::read_initialize);
        match read {
            Ok(introduction) => {
                let Introduction { can_load, takes, title, auth_methods } = introduction;
                self.phase = Phase::Ready { can_load, title, takes };
                self.auth_methods = auth_methods;
                self.tell_ready();
                for turn in self.turns.keys().copied().collect::<Vec<_>>() {
                    self.resume(now, turn);
                    self.open(now, turn);
                }
            }
            Err(reason) => self.fault = Some(reason),
        }
    }

    fn session_made(&mut self, now: MonoNanos, turn: TurnId, kept: bool, outcome: Result<Value, ErrorObject>) {
        let session = outcome.map_err(|error| acp::error_text(&error, &self.auth_methods)).and_then(|result| {
            acp::read_session_id(&result).ok_or_else(|| "the agent made a session without an id".to_owned())
        });
        match session {
            Ok(session) => self.opened(now, turn, session, kept),
            Err(reason) => self.end_turn(turn, TurnOutcome::Failed { reason }),
        }
    }

    /// An unknown session is an error with some agents and an empty success with others.
    fn session_loaded(
        &mut self,
        now: MonoNanos,
        turn: TurnId,
        session: SessionId,
        replayed: bool,
        outcome: Result<Value, ErrorObject>,
    ) {
        if matches!(self.turns.get(&turn), Some(Turn { stage: Stage::Resuming(_), .. })) {
            return self.resumed(now, turn, session, replayed, outcome);
        }
        match outcome {
            Ok(result) if replayed || !acp::is_empty_result(&result) => self.opened(now, turn, session, true),
            Err(error) if error.code == acp::AUTH_REQUIRED => {
                let reason = acp::error_text(&error, &self.auth_methods);
                self.end_turn(turn, TurnOutcome::Failed { reason });
            }
            Ok(_) | Err(_) => {
                tracing::info!(agent = %self.agent, %session, "the agent does not know the session any more");
                if self.turns.contains_key(&turn) {
                    self.new_session(now, turn, false);
                }
            }
        }
    }

    fn prompt_answered(&mut self, turn: TurnId, outcome: Result<Value, ErrorObject>) {
        let Some(open) = self.turns.get(&turn) else { return };
        let outcome = match outcome {
            Ok(result) => match acp::read_stop_reason(&result) {
                Some("cancelled") => TurnOutcome::Cancelled,
                // An answer without a reason still says that the turn is over.
                reason => TurnOutcome::Ended { stop_reason: reason.unwrap_or("end_turn").to_owned() },
            },
            // Some agents answer a cancelled turn with an error.
            Err(_) if matches!(open.stage, Stage::Cancelling { .. }) => TurnOutcome::Cancelled,
            Err(error) => {
                if error.code == acp::NOT_FOUND
                    && let Some(session) = open.session().cloned()
                {
                    self.sessions.remove(&session);
                }
                TurnOutcome::Failed { reason: acp::error_text(&error, &self.auth_methods) }
            }
        };
        self.end_turn(turn, outcome);
    }

    /// Notes something that is no use. Only every doubling is logged: the agent decides how often it happens.
    fn skip(&mut self, what: &str) {
        self.skipped += 1;
        if self.skipped.is_power_of_two() {
            tracing::warn!(agent = %self.agent, total = self.skipped, "the agent sent {what}");
        }
    }
}
