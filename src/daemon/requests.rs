//! Serving the control socket.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::pulse::Health;
use super::run::Daemon;
use super::state::{CheckFor, ControlRequest, Origin};
use super::swap::Step;
use crate::chat::Conversation;
use crate::control::proto::{self, ChatOpenParams, ChatSendParams, ChatSent, FailedBefore, HandoffParams, UpdateCheck};
use crate::control::{ClientId, ControlCommand};
use crate::gateway::notice;
use crate::jsonrpc::{ErrorObject, RequestId};
use crate::report::Chain;
use crate::store::Accepted;
use crate::update::{Check, UpdateError};
use crate::words::Found;

/// Handoffs that `status` tells.
const HISTORY: u32 = 10;

impl Daemon {
    /// Serves one request. It is answered here, or later by whatever it set going.
    pub(super) async fn control_request(&mut self, request: ControlRequest) {
        let ControlRequest { client, peer, id, method, params } = request;
        let outcome = match method.as_str() {
            proto::STATUS => {
                if !matches!(self.pulse.health(), Health::Hangs(_)) {
                    self.close_books().await;
                }
                to_value(Ok(self.status(HISTORY).await))
            }
            proto::HANDOFF => {
                let params: HandoffParams = match read(params) {
                    Ok(params) => params,
                    Err(error) => return self.respond(client, id, Err(error)),
                };
                let origin = Origin::Control { client, id, uid: peer.uid };
                return self.request_handoff(params.kind, params.force, params.reason, origin).await;
            }
            proto::STOP => {
                self.stopping = Some(format!("uid {} over the control socket", peer.uid));
                Ok(Value::Null)
            }
            proto::UPDATE_CHECK => return self.check(CheckFor::Client(client, id)).await,
            proto::PLATFORM_PAUSE | proto::PLATFORM_RESUME => match read(params) {
                Ok(params) => to_value(self.pause_for_client(params, method == proto::PLATFORM_PAUSE).await),
                Err(error) => Err(error),
            },
            proto::PAIRING_LIST => to_value(Ok(self.pairings())),
            proto::PAIRING_APPROVE => match read(params) {
                Ok(params) => to_value(self.approve(params).await),
                Err(error) => Err(error),
            },
            proto::PAIRING_REVOKE => match read(params) {
                Ok(params) => to_value(self.revoke(params).await),
                Err(error) => Err(error),
            },
            proto::CHAT_OPEN => {
                read(params).and_then(|params: ChatOpenParams| to_value(self.local.open(client, peer, params)))
            }
            proto::CHAT_SEND => return self.chat_send(client, peer, id, params).await,
            _ => Err(ErrorObject::new(ErrorObject::METHOD_NOT_FOUND, format!("there is no method '{method}'"))),
        };
        self.respond(client, id, outcome);
    }

    async fn chat_send(&mut self, client: ClientId, peer: crate::control::Peer, id: RequestId, params: Value) {
        let inbound = match read(params).and_then(|params: ChatSendParams| self.local.inbound(client, peer, params)) {
            Ok(inbound) => inbound,
            Err(error) => return self.respond(client, id, Err(error)),
        };
        let turn = match self.store.accept(&inbound).await {
            Ok(Accepted::New(turn)) => Some(turn),
            Ok(Accepted::Duplicate) => None,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "cannot store a message");
                let told = ErrorObject::new(ErrorObject::INTERNAL, format!("not accepted: {}", Chain(&error)));
                return self.respond(client, id, Err(told));
            }
        };
        let sent = serde_json::to_value(ChatSent { turn: turn.map(|turn| turn.0) }).expect("plain data serialises");
        self.respond(client, id, Ok(sent));
        if let Some(turn) = turn {
            self.messages(vec![(turn, inbound)]).await;
        }
    }

    pub(super) fn respond(&mut self, client: ClientId, id: RequestId, outcome: Result<Value, ErrorObject>) {
        self.control.put(ControlCommand::Respond { client, id, outcome });
    }

    pub(super) async fn check_for_chat(&mut self, conversation: Conversation) {
        self.check(CheckFor::Chat(conversation)).await;
    }

    /// Looks for newer releases beside the loop.
    pub(super) async fn check(&mut self, to: CheckFor) {
        self.checks.push(to.clone());
        let releases = match self.releases().await {
            Ok(releases) => releases,
            Err(error) => return self.update_checked(to, Err(error)).await,
        };
        let steps = self.steps.clone();
        tokio::spawn(async move {
            let outcome = releases.check().await;
            drop(steps.send(Step::UpdateChecked(to, outcome)).await);
        });
    }

    pub(super) async fn update_checked(&mut self, to: CheckFor, outcome: Result<Check, UpdateError>) {
        self.checks.retain(|check| *check != to);
        let running = self.image.id.version.clone();
        match to {
            CheckFor::Client(client, id) => {
                let outcome = match outcome {
                    Ok(check) => Ok(serde_json::to_value(found(running, check)).expect("plain data serialises")),
                    Err(error) => Err(ErrorObject::new(ErrorObject::INTERNAL, Chain(&error).to_string())),
                };
                self.respond(client, id, outcome);
            }
            CheckFor::Chat(conversation) => {
                let found = match outcome {
                    Ok(Check::Available { version, .. }) => Found::Newer(version.to_string()),
                    Ok(Check::FailedBefore { version, reason }) => Found::FailedBefore(version.to_string(), reason),
                    Ok(Check::UpToDate { .. }) => Found::Nothing,
                    Err(error) => Found::Unknown(Chain(&error).to_string()),
                };
                let told = self.gateway.words(&conversation).found(&found, &running);
                self.carry_out(vec![notice(&conversation, told)]).await;
            }
        }
    }
}

fn found(running: String, check: Check) -> UpdateCheck {
    let nothing = UpdateCheck { running, available: None, date: None, notes_url: None, failed_before: None };
    match check {
        Check::Available { version, date, notes_url } => {
            UpdateCheck { available: Some(version.to_string()), date, notes_url, ..nothing }
        }
        Check::FailedBefore { version, reason } => {
            let failed = FailedBefore { version: version.to_string(), reason };
            UpdateCheck { failed_before: Some(failed), ..nothing }
        }
        Check::UpToDate { .. } => nothing,
    }
}

fn to_value<T: Serialize>(answer: Result<T, ErrorObject>) -> Result<Value, ErrorObject> {
    answer.map(|answer| serde_json::to_value(answer).expect("plain data serialises"))
}

fn read<T: DeserializeOwned>(params: Value) -> Result<T, ErrorObject> {
    // No parameters at all mean the defaults.
    let params = if params.is_null() { Value::Object(serde_json::Map::new()) } else { params };
    serde_json::from_value(params)
        .map_err(|error| ErrorObject::new(ErrorObject::INVALID_PARAMS, format!("wrong parameters: {error}")))
}
