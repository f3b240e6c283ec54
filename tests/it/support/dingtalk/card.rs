//! Cards, which grow (<https://open.dingtalk.com/document/orgapp/create-and-deliver-cards>).
//!
//! It is not known what DingTalk does with an `outTrackId` that is used twice. Here it is the same card, which is shown once,
//! and [`Card::repeats`] counts it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::methods::{Answer, good, refuse};
use super::state::{Sent, State, now_ms};

/// One card.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Card {
    /// `cardTemplateId`.
    pub template: String,
    /// `callbackType`.
    pub callback: String,
    /// Where it is shown; none before it is delivered.
    pub space: Option<String>,
    /// `cardParamMap`.
    pub params: BTreeMap<String, String>,
    /// The texts that it has shown, oldest first.
    pub versions: Vec<String>,
    /// Under which key of the template they were shown.
    pub key: String,
    /// `guid` of each streaming call.
    pub guids: BTreeSet<String>,
    /// No more comes.
    pub is_final: bool,
    /// It shows that something went wrong.
    pub is_error: bool,
    /// How often it was created again.
    pub repeats: u32,
}

impl Card {
    /// What it shows.
    pub fn text(&self) -> &str {
        self.versions.last().map_or("", String::as_str)
    }
}

fn done() -> Answer {
    good(json!({ "success": true, "result": true }))
}

fn bad(what: &str) -> Answer {
    refuse(400, "param.error", what)
}

fn named<'a>(body: &'a Value, name: &str) -> Result<&'a str, Answer> {
    body[name].as_str().filter(|text| !text.is_empty()).ok_or_else(|| bad(&format!("{name} is missing")))
}

/// `cardParamMap`, whose values are all texts.
fn params(body: &Value) -> Result<BTreeMap<String, String>, Answer> {
    let params = body["cardData"]["cardParamMap"].clone();
    serde_json::from_value(params).map_err(|_| bad("cardParamMap is no map of texts"))
}

/// `POST /v1.0/card/instances`.
pub fn create(state: &mut State, body: &Value) -> Answer {
    match make(state, body) {
        Ok(track) => good(json!({ "success": true, "result": track })),
        Err(refusal) => refusal,
    }
}

fn make(state: &mut State, body: &Value) -> Result<String, Answer> {
    let (template, track) = (named(body, "cardTemplateId")?, named(body, "outTrackId")?);
    let params = params(body)?;
    if !matches!(body["callbackType"].as_str(), Some("STREAM" | "HTTP")) {
        return Err(bad("callbackType is neither STREAM nor HTTP"));
    }
    match state.cards.get_mut(track) {
        Some(card) => card.repeats += 1,
        None => {
            let (template, callback) =
                (template.to_owned(), body["callbackType"].as_str().unwrap_or_default().to_owned());
            state.cards.insert(track.to_owned(), Card { template, callback, params, ..Card::default() });
        }
    }
    Ok(track.to_owned())
}

/// `POST /v1.0/card/instances/deliver`.
pub fn deliver(state: &mut State, body: &Value) -> Answer {
    match bring(state, body) {
        Ok(result) => good(json!({ "success": true, "result": [result] })),
        Err(refusal) => refusal,
    }
}

/// `POST /v1.0/card/instances/createAndDeliver`. A space that is not reached is told with HTTP 200.
pub fn create_and_deliver(state: &mut State, body: &Value) -> Answer {
    let track = match make(state, body) {
        Ok(track) => track,
        Err(refusal) => return refusal,
    };
    let is_group = body["openSpaceId"].as_str().is_some_and(|space| space.contains("IM_GROUP"));
    let model = if is_group { "imGroupOpenSpaceModel" } else { "imRobotOpenSpaceModel" };
    if !body[model].is_object() {
        return bad(&format!("{model} is missing"));
    }
    match bring(state, body) {
        Ok(result) => good(json!({ "success": true, "result": { "outTrackId": track, "deliverResults": [result] } })),
        Err(refusal) => refusal,
    }
}

/// Shows a card somewhere. Returns how that went.
fn bring(state: &mut State, body: &Value) -> Result<Value, Answer> {
    let (track, space) = (named(body, "outTrackId")?, named(body, "openSpaceId")?);
    let no_space = || bad("openSpaceId is none that is known");
    let (kind, id) = space.strip_prefix("dtv1.card//").and_then(|rest| rest.split_once('.')).ok_or_else(no_space)?;
    let (chat, is_reached) = match kind {
        "IM_GROUP" => {
            named(&body["imGroupOpenDeliverModel"], "robotCode")?;
            (id.to_owned(), !state.unknown_groups.contains(id))
        }
        "IM_ROBOT" => {
            if body["imRobotOpenDeliverModel"]["spaceType"] != "IM_ROBOT" {
                return Err(bad("spaceType is not IM_ROBOT"));
            }
            (State::direct_chat(id), !state.invalid_staff.contains(id))
        }
        _ => return Err(no_space()),
    };
    let card = state.cards.get_mut(track).ok_or_else(|| bad("there is no such card"))?;
    let mut result = json!({ "spaceId": id, "spaceType": kind, "success": is_reached });
    if !is_reached {
        result["errorMsg"] = "there is nobody".into();
    } else if card.space.is_none() {
        card.space = Some(space.to_owned());
        let (way, format) = ("card".to_owned(), track.to_owned());
        let (title, text, at) = (String::new(), String::new(), Vec::new());
        state.sent.push(Sent { at_ms: now_ms(), way, chat, format, title, text, at });
    }
    Ok(result)
}

/// `PUT /v1.0/card/instances`.
pub fn update(state: &mut State, body: &Value) -> Answer {
    let change = |state: &mut State| -> Result<(), Answer> {
        let (track, params) = (named(body, "outTrackId")?, params(body)?);
        let card = state.cards.get_mut(track).ok_or_else(|| bad("there is no such card"))?;
        card.is_final |= params.get("flowStatus").is_some_and(|status| status == "3");
        card.params.extend(params);
        Ok(())
    };
    change(state).map_or_else(|refusal| refusal, |()| done())
}

/// `PUT /v1.0/card/streaming`.
pub fn stream(state: &mut State, body: &Value) -> Answer {
    let change = |state: &mut State| -> Result<(), Answer> {
        let (track, guid, key) = (named(body, "outTrackId")?, named(body, "guid")?, named(body, "key")?);
        let content = body["content"].as_str().ok_or_else(|| bad("content is no text"))?;
        let flag = |name: &str| body[name].as_bool().ok_or_else(|| bad(&format!("{name} is no yes or no")));
        let (is_full, is_final, is_error) = (flag("isFull")?, flag("isFinalize")?, flag("isError")?);
        let card = state.cards.get_mut(track).ok_or_else(|| bad("there is no such card"))?;
        if !card.guids.insert(guid.to_owned()) {
            state.complain(format!("the guid {guid} is used twice"));
            return Ok(());
        }
        if card.is_final {
            return Err(bad("the card is finished"));
        }
        let text = if is_full { content.to_owned() } else { format!("{}{content}", card.text()) };
        card.key = key.to_owned();
        card.versions.push(text);
        (card.is_final, card.is_error) = (is_final, is_error);
        Ok(())
    };
    change(state).map_or_else(|refusal| refusal, |()| done())
}
