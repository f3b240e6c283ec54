//! The bot's messages: sent, changed, deleted.

use serde_json::{Value, json};

use super::entities::{self, TEXT_UNITS_MAX};
use super::keyboard::keyboard;
use super::methods::{Outcome, Refusal, bad_request, refuse};
use super::params::Params;
use super::state::{Message, Reach, State, Version, now_ms};

/// What is told of a change that changes nothing.
pub(super) const NOT_MODIFIED: &str = "message is not modified: specified new message content and reply markup are \
     exactly the same as a current content and reply markup of the message";

/// The chat of a call, if the bot can write to it.
pub(super) fn reachable(state: &State, params: &Params) -> Result<i64, Refusal> {
    if params.text("chat_id").is_empty() {
        return Err(bad_request("chat_id is empty"));
    }
    let chat = params.number("chat_id").ok_or_else(|| bad_request("chat not found"))?;
    match state.reach.get(&chat) {
        None | Some(Reach::Open) => Ok(chat),
        Some(Reach::Blocked) => Err(refuse(403, "Forbidden: bot was blocked by the user")),
        Some(Reach::NotFound) => Err(bad_request("chat not found")),
        Some(Reach::Moved(new)) => Err(Refusal {
            parameters: Some(json!({ "migrate_to_chat_id": new })),
            ..bad_request("group chat was upgraded to a supergroup chat")
        }),
    }
}

/// The topic of a call, if it is there.
pub(super) fn open_thread(state: &State, chat: i64, params: &Params) -> Result<Option<i64>, Refusal> {
    let thread = params.number("message_thread_id");
    if thread.is_some_and(|thread| state.gone_threads.contains(&(chat, thread))) {
        return Err(bad_request("message thread not found"));
    }
    Ok(thread)
}

/// The message that a call answers; none if it is gone and that is said not to matter.
pub(super) fn reply_to(state: &State, chat: i64, params: &Params) -> Result<Option<i64>, Refusal> {
    let Some(reply) = params.given("reply_parameters") else { return Ok(None) };
    let id = reply.as_ref().and_then(|reply| reply["message_id"].as_i64());
    let id = id.ok_or_else(|| bad_request("can't parse reply parameters JSON object"))?;
    let is_optional = reply.is_some_and(|reply| reply["allow_sending_without_reply"] == true);
    match state.has_message(chat, id) {
        true => Ok(Some(id)),
        false if is_optional => Ok(None),
        false => Err(bad_request("message to be replied not found")),
    }
}

/// The bot's message that a call names.
pub(super) fn own_message<'a>(
    state: &'a mut State,
    params: &Params,
    missing: &str,
) -> Result<&'a mut Message, Refusal> {
    let chat = reachable(state, params)?;
    let id = params.number("message_id");
    let own = |message: &&mut Message| message.chat == chat && Some(message.message_id) == id && !message.deleted;
    state.messages.iter_mut().rfind(own).ok_or_else(|| bad_request(missing))
}

/// The text of a call with its entities.
fn text(params: &Params) -> Result<Version, Refusal> {
    let (text, entities) = entities::formatted(params, "text", "entities")?;
    if text.trim().is_empty() {
        return Err(bad_request("message text is empty"));
    }
    entities::fits(&text, TEXT_UNITS_MAX)?;
    Ok(Version { at_ms: now_ms(), text, entities })
}

/// A message takes the place of the preview in its chat.
pub(super) fn push(state: &mut State, message: Message) {
    state.drafts.remove(&message.chat);
    state.messages.push(message);
}

pub(super) fn send_message(state: &mut State, params: &Params) -> Outcome {
    let chat = reachable(state, params)?;
    let thread = open_thread(state, chat, params)?;
    let reply_to = reply_to(state, chat, params)?;
    let keyboard = keyboard(params)?;
    let version = text(params)?;
    let message = Message {
        chat,
        thread,
        message_id: state.new_message_id(chat),
        versions: vec![version],
        deleted: false,
        reply_to,
        keyboard,
        attached: None,
    };
    let shown = as_message(state, &message);
    push(state, message);
    Ok(shown)
}

/// Without `reply_markup` the keyboard is taken away.
pub(super) fn edit_message_text(state: &mut State, params: &Params) -> Outcome {
    let keyboard = keyboard(params)?;
    let version = text(params);
    let message = own_message(state, params, "message to edit not found")?;
    let version = version?;
    let shown = |version: &Version| entities::trimmed(&version.text, &version.entities);
    if shown(message.last()) == shown(&version) && message.keyboard == keyboard {
        return Err(bad_request(NOT_MODIFIED));
    }
    message.versions.push(version);
    message.keyboard = keyboard;
    let message = message.clone();
    Ok(as_message(state, &message))
}

pub(super) fn delete_message(state: &mut State, params: &Params) -> Outcome {
    own_message(state, params, "message to delete not found")?.deleted = true;
    Ok(json!(true))
}

/// A message as a `Message`.
pub(super) fn as_message(state: &State, message: &Message) -> Value {
    let first = message.versions.first().expect("a message has a text");
    let mut shown = json!({
        "message_id": message.message_id,
        "date": first.at_ms / 1000,
        "chat": State::chat(message.chat),
        "from": state.bot(),
    });
    let (text, entities) = entities::trimmed(message.text(), &message.last().entities);
    let (text_name, entities_name) = match &message.attached {
        None => ("text", "entities"),
        Some(_) => ("caption", "caption_entities"),
    };
    if message.attached.is_none() || !text.is_empty() {
        shown[text_name] = text.into();
    }
    if !entities.is_empty() {
        shown[entities_name] = entities.into();
    }
    if let Some(attached) = &message.attached {
        let id = &attached.file_id;
        let file = json!({ "file_id": id, "file_unique_id": format!("u{id}"), "file_size": state.files[id].size });
        shown[&attached.kind] = match attached.kind.as_str() {
            "photo" => {
                let mut size = file;
                size["width"] = 640.into();
                size["height"] = 480.into();
                json!([size])
            }
            _ => {
                let mut document = file;
                document["file_name"] = json!(state.files[id].name);
                document
            }
        };
    }
    if let Some(thread) = message.thread {
        shown["message_thread_id"] = thread.into();
        shown["is_topic_message"] = true.into();
    }
    if let Some(reply_to) = message.reply_to {
        let date = first.at_ms / 1000;
        shown["reply_to_message"] = json!({ "message_id": reply_to, "date": date, "chat": State::chat(message.chat) });
    }
    if let Some(keyboard) = &message.keyboard {
        shown["reply_markup"] = keyboard.clone();
    }
    if let [_, .., last] = &message.versions[..] {
        shown["edit_date"] = (last.at_ms / 1000).into();
    }
    shown
}
