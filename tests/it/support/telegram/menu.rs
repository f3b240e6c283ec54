//! The menu of commands, by scope and language (<https://core.telegram.org/bots/api#setmycommands>).

use serde_json::{Value, json};

use super::methods::{Outcome, Refusal, bad_request};
use super::params::Params;
use super::state::State;

const COMMANDS_MAX: usize = 100;
const NAME_CHARS: std::ops::RangeInclusive<usize> = 1..=32;
const DESCRIPTION_CHARS: std::ops::RangeInclusive<usize> = 1..=256;

/// Under what a menu is kept: `<scope>/<language>`; without a language `default/`.
fn place(params: &Params) -> Result<String, Refusal> {
    let kind = match params.given("scope") {
        None => "default".to_owned(),
        Some(scope) => {
            let kind = scope.as_ref().and_then(|scope| scope["type"].as_str()).unwrap_or("");
            let known = ["default", "all_private_chats", "all_group_chats", "all_chat_administrators", "chat"];
            if !known.contains(&kind) {
                return Err(bad_request("can't parse BotCommandScope"));
            }
            kind.to_owned()
        }
    };
    let language = params.text("language_code");
    if !(language.is_empty() || language.len() == 2 && language.bytes().all(|byte| byte.is_ascii_lowercase())) {
        return Err(bad_request("invalid language code specified"));
    }
    Ok(format!("{kind}/{language}"))
}

pub(super) fn set_my_commands(state: &mut State, params: &Params) -> Outcome {
    let place = place(params)?;
    let Some(Value::Array(commands)) = params.json("commands") else {
        return Err(bad_request("can't parse commands JSON object"));
    };
    if commands.len() > COMMANDS_MAX {
        return Err(bad_request("BOT_COMMANDS_TOO_MUCH"));
    }
    for command in &commands {
        let name = command["command"].as_str().unwrap_or("").trim_start_matches('/');
        let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !NAME_CHARS.contains(&name.len()) || !is_plain {
            return Err(bad_request("BOT_COMMAND_INVALID"));
        }
        if !DESCRIPTION_CHARS.contains(&command["description"].as_str().unwrap_or("").chars().count()) {
            return Err(bad_request("BOT_COMMAND_DESCRIPTION_INVALID"));
        }
    }
    state.commands.insert(place, commands.into());
    Ok(json!(true))
}

pub(super) fn get_my_commands(state: &State, params: &Params) -> Outcome {
    Ok(state.commands.get(&place(params)?).cloned().unwrap_or_else(|| json!([])))
}

pub(super) fn delete_my_commands(state: &mut State, params: &Params) -> Outcome {
    state.commands.remove(&place(params)?);
    Ok(json!(true))
}
