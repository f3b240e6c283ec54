//! What every request must look like, whatever it asks for. What does not is refused with the rule that it breaks.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::state::State;

const BOT_AGENT_BYTES_MAX: usize = 256;

/// A rule that is broken.
pub type Broken = String;

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The headers that every request has. Returns the client's version.
fn common(headers: &HeaderMap) -> Result<u32, Broken> {
    if header(headers, "ilink-app-id") != "bot" {
        return Err("iLink-App-Id is not bot".to_owned());
    }
    let version = header(headers, "ilink-app-clientversion");
    match version.parse::<u32>() {
        Ok(number) if number >> 16 > 0 && number.to_string() == version => Ok(number),
        _ => Err(format!("iLink-App-ClientVersion is no encoded version: {version:?}")),
    }
}

/// A GET has the common headers, and none that tell who asks.
pub fn get(headers: &HeaderMap) -> Result<(), Broken> {
    common(headers)?;
    let personal = ["authorization", "authorizationtype", "x-wechat-uin"];
    match personal.into_iter().find(|name| headers.contains_key(*name)) {
        Some(name) => Err(format!("a GET has the header {name}")),
        None => Ok(()),
    }
}

/// A POST of `method`. Remembers what may come only once.
pub fn post(state: &mut State, method: &str, headers: &HeaderMap, body: &Value) -> Result<(), Broken> {
    let version = common(headers)?;
    if !header(headers, "content-type").starts_with("application/json") {
        return Err("Content-Type is not application/json".to_owned());
    }
    if header(headers, "authorizationtype") != "ilink_bot_token" {
        return Err("AuthorizationType is not ilink_bot_token".to_owned());
    }
    let uin = header(headers, "x-wechat-uin");
    if !is_uin(uin) {
        return Err(format!("X-WECHAT-UIN is not the base64 of a decimal uint32: {uin:?}"));
    }
    if !state.uins.insert(uin.to_owned()) {
        return Err("X-WECHAT-UIN was used before".to_owned());
    }
    if !body.is_object() {
        return Err("the body is no JSON object".to_owned());
    }
    if method == "get_bot_qrcode" {
        return local_tokens(body);
    }
    if !header(headers, "authorization").starts_with("Bearer ") {
        return Err("there is no bearer token".to_owned());
    }
    base_info(&body["base_info"], version)
}

/// Whether the bearer token is the bot's.
pub fn is_known(state: &State, headers: &HeaderMap) -> bool {
    header(headers, "authorization").strip_prefix("Bearer ") == Some(&state.token)
}

fn is_uin(uin: &str) -> bool {
    let Ok(bytes) = STANDARD.decode(uin) else { return false };
    let Ok(text) = String::from_utf8(bytes) else { return false };
    text.parse::<u32>().is_ok_and(|number| number.to_string() == text)
}

fn local_tokens(body: &Value) -> Result<(), Broken> {
    match body["local_token_list"].as_array() {
        Some(tokens) if tokens.len() <= 10 && tokens.iter().all(Value::is_string) => Ok(()),
        _ => Err("local_token_list is no list of at most 10 tokens".to_owned()),
    }
}

fn base_info(info: &Value, version: u32) -> Result<(), Broken> {
    let channel = info["channel_version"].as_str().ok_or("base_info has no channel_version")?;
    let numbers: Vec<u32> = channel.split('.').filter_map(|part| part.parse().ok()).collect();
    let [major, minor, patch] = numbers[..] else {
        return Err(format!("channel_version is not of three numbers: {channel:?}"));
    };
    if (major << 16) | (minor << 8) | patch != version {
        return Err("iLink-App-ClientVersion is not channel_version".to_owned());
    }
    match info.get("bot_agent") {
        None => Ok(()),
        Some(Value::String(agent)) if agent.is_ascii() && agent.len() <= BOT_AGENT_BYTES_MAX => Ok(()),
        Some(_) => Err("bot_agent is not up to 256 bytes of ASCII".to_owned()),
    }
}
