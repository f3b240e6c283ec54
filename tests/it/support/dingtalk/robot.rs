//! What the bot says, by session webhooks and without being asked, and files that people have sent
//! (<https://open.dingtalk.com/document/orgapp/robot-overview>).

use serde_json::{Value, json};

use super::methods::{Answer, good, refuse};
use super::state::{Sent, State, now_ms};

const USERS_MAX: usize = 20;
const PARAM_BYTES_MAX: usize = 15_000;
const MINUTE_MS: u64 = 60_000;

/// What a message says.
struct Said {
    format: &'static str,
    title: String,
    text: String,
}

/// `POST /robot/sendBySession`: HTTP 200 also where it is refused.
pub fn send_by_session(state: &mut State, query: &str, body: &Value) -> Answer {
    let no = |errcode: i64, errmsg: &str| good(json!({ "errcode": errcode, "errmsg": errmsg }));
    let session = query.strip_prefix("session=").unwrap_or_default();
    let chat = match state.webhooks.get(session) {
        Some(webhook) if webhook.until_ms > now_ms() => webhook.chat.clone(),
        _ => return no(300_001, "the session is unknown or too old"),
    };
    let text = |of: &Value, name: &str| of[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let said = match body["msgtype"].as_str() {
        Some("text") => text(&body["text"], "content").map(|text| Said { format: "text", title: String::new(), text }),
        Some("markdown") => {
            let markdown = &body["markdown"];
            let parts = text(markdown, "title").zip(text(markdown, "text"));
            parts.map(|(title, text)| Said { format: "markdown", title, text })
        }
        _ => return no(400_105, "there is no such msgtype"),
    };
    let Some(said) = said else { return no(40_035, "a parameter is missing") };
    if let Some(too_many) = too_many(state, &chat) {
        return no(130_101, too_many);
    }
    let at = body["at"]["atUserIds"].as_array().into_iter().flatten();
    let at = at.filter_map(|user| user.as_str().map(str::to_owned)).collect();
    show(state, "session", chat, said, at);
    good(json!({ "errcode": 0, "errmsg": "ok" }))
}

/// `POST /v1.0/robot/oToMessages/batchSend`.
pub fn send_single(state: &mut State, body: &Value) -> Answer {
    let said = match checked(state, body) {
        Ok(said) => said,
        Err(refusal) => return refusal,
    };
    let users: Vec<String> = match body["userIds"].as_array() {
        Some(users) => users.iter().filter_map(|user| user.as_str().map(str::to_owned)).collect(),
        None => Vec::new(),
    };
    if users.is_empty() {
        return refuse(400, "invalidParameter.userIds.empty", "userIds is empty");
    }
    if users.len() > USERS_MAX {
        return refuse(400, "invalidParameter.userIds.overMax", "userIds has more than 20");
    }
    let named = |list: &std::collections::BTreeSet<String>| -> Vec<&String> {
        users.iter().filter(|user| list.contains(*user)).collect()
    };
    let (invalid, flow_controlled) = (named(&state.invalid_staff), named(&state.flow_controlled));
    let key = state.pushes.len() + state.sent.len() + 1;
    let answer = json!({
        "processQueryKey": format!("query-{key}"),
        "invalidStaffIdList": invalid,
        "flowControlledStaffIdList": flow_controlled,
    });
    let reached = |user: &&String| !state.invalid_staff.contains(*user) && !state.flow_controlled.contains(*user);
    let reached: Vec<String> = users.iter().filter(reached).cloned().collect();
    for user in reached {
        let said = Said { format: said.format, title: said.title.clone(), text: said.text.clone() };
        show(state, "single", State::direct_chat(&user), said, Vec::new());
    }
    good(answer)
}

/// `POST /v1.0/robot/groupMessages/send`.
pub fn send_group(state: &mut State, body: &Value) -> Answer {
    let said = match checked(state, body) {
        Ok(said) => said,
        Err(refusal) => return refusal,
    };
    let chat = body["openConversationId"].as_str().unwrap_or_default().to_owned();
    if chat.is_empty() || state.unknown_groups.contains(&chat) {
        return refuse(400, "invalidParameter.openConversationId.invalid", "there is no such group");
    }
    if let Some(too_many) = too_many(state, &chat) {
        return refuse(429, "Throttling.Api", too_many);
    }
    show(state, "group", chat, said, Vec::new());
    good(json!({ "processQueryKey": format!("query-{}", state.sent.len()) }))
}

/// What both ways without a webhook have in common.
fn checked(state: &State, body: &Value) -> Result<Said, Answer> {
    if body["robotCode"] != state.client_id {
        return Err(refuse(400, "invalidParameter.robotCode.auth", "the robot is of another app"));
    }
    let bad_param = || refuse(400, "invalidParameter.msgParam.invalid", "msgParam is not what msgKey wants");
    let param = body["msgParam"].as_str().ok_or_else(bad_param)?;
    if param.len() > PARAM_BYTES_MAX {
        return Err(bad_param());
    }
    let param: Value = serde_json::from_str(param).map_err(|_| bad_param())?;
    let text =
        |name: &str| param[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned).ok_or_else(bad_param);
    match body["msgKey"].as_str() {
        Some("sampleText") => Ok(Said { format: "text", title: String::new(), text: text("content")? }),
        Some("sampleMarkdown") => Ok(Said { format: "markdown", title: text("title")?, text: text("text")? }),
        Some("sampleImageMsg") => {
            let of = text("photoURL")?;
            let is_known = of.starts_with("http") || state.media.contains_key(&of);
            is_known.then(|| Said { format: "picture", title: String::new(), text: of }).ok_or_else(bad_param)
        }
        _ => Err(refuse(400, "invalidParameter.msgKey.invalid", "there is no such msgKey")),
    }
}

fn too_many(state: &State, chat: &str) -> Option<&'static str> {
    let limit = state.group_per_minute?;
    let since = now_ms().saturating_sub(MINUTE_MS);
    let sent = state.sent.iter().filter(|sent| sent.chat == chat && sent.at_ms >= since).count();
    (sent >= limit).then_some("send too fast, exceed 20 times per minute")
}

fn show(state: &mut State, way: &str, chat: String, said: Said, at: Vec<String>) {
    let Said { format, title, text } = said;
    let (way, format) = (way.to_owned(), format.to_owned());
    state.sent.push(Sent { at_ms: now_ms(), way, chat, format, title, text, at });
}

/// `POST /v1.0/robot/messageFiles/download`.
pub fn download(state: &mut State, body: &Value) -> Answer {
    if body["robotCode"] != state.client_id {
        return refuse(400, "invalidParameter.robotCode.auth", "the robot is of another app");
    }
    let code = body["downloadCode"].as_str().unwrap_or_default().to_owned();
    if !state.files.contains_key(&code) {
        return refuse(400, "invalidParameter.downloadCode.invalid", "there is no such file");
    }
    let link = format!("link-{}", state.fresh());
    let url = format!("{}/files/{link}?Signature=of-the-link", state.base);
    state.links.insert(link, code);
    good(json!({ "downloadUrl": url }))
}
