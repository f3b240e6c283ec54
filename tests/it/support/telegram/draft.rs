//! `sendMessageDraft`: the preview of an answer that is being written
//! (<https://core.telegram.org/bots/api#sendmessagedraft>).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::entities;
use super::messages::{open_thread, reachable};
use super::methods::{Outcome, bad_request};
use super::params::Params;
use super::state::{State, Version, now_ms};

/// A preview is shown for so long after its last change.
const SHOWN_MS: u64 = 30_000;

/// A preview. It is no message: it has no id, and a message takes its place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Draft {
    /// The topic.
    pub thread: Option<i64>,
    /// The bot's name for it; another one begins anew.
    pub draft_id: i64,
    /// Every text it had, oldest first; never empty.
    pub versions: Vec<Version>,
}

/// Shows or changes the preview in a private chat.
pub(super) fn send_message_draft(state: &mut State, params: &Params) -> Outcome {
    let chat = reachable(state, params)?;
    if chat <= 0 {
        return Err(bad_request("message drafts can be sent only to private chats"));
    }
    let thread = open_thread(state, chat, params)?;
    let draft_id = params.number("draft_id").filter(|id| *id != 0);
    let draft_id = draft_id.ok_or_else(|| bad_request("draft_id must be a non-zero integer"))?;
    let (text, entities) = entities::formatted(params, "text", "entities")?;
    entities::fits(&text, entities::TEXT_UNITS_MAX)?;
    let version = Version { at_ms: now_ms(), text, entities };
    match state.drafts.get_mut(&chat) {
        Some(draft) if draft.draft_id == draft_id => draft.versions.push(version),
        _ => drop(state.drafts.insert(chat, Draft { thread, draft_id, versions: vec![version] })),
    }
    Ok(json!(true))
}

impl State {
    /// What the preview in a chat shows now.
    pub fn draft(&self, chat: i64) -> Option<&str> {
        let last = self.drafts.get(&chat)?.versions.last()?;
        (now_ms() < last.at_ms + SHOWN_MS).then_some(last.text.as_str())
    }

    /// As [`State::draft`], for the control endpoint.
    pub(super) fn draft_json(&self, chat: i64) -> Value {
        json!({ "text": self.draft(chat), "draft": self.drafts.get(&chat) })
    }
}
