//! Inline keyboards: `reply_markup`, and queries of the buttons that were pressed
//! (<https://core.telegram.org/bots/api#inlinekeyboardbutton>).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::messages::{NOT_MODIFIED, as_message, own_message};
use super::methods::{Outcome, Refusal, bad_request};
use super::params::Params;
use super::state::State;

const DATA_BYTES_MAX: usize = 64;
const ANSWER_CHARS_MAX: usize = 200;

/// A button that was pressed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Press {
    /// `callback_data` of the button.
    pub data: String,
    /// The parameters of `answerCallbackQuery`; the user's client shows a progress bar until then.
    pub answer: Option<Value>,
}

/// The keyboard of a call; an empty one is none.
pub(super) fn keyboard(params: &Params) -> Result<Option<Value>, Refusal> {
    let Some(markup) = params.given("reply_markup") else { return Ok(None) };
    let markup = markup.ok_or_else(|| bad_request("can't parse reply keyboard markup JSON object"))?;
    let Some(rows) = markup.get("inline_keyboard").and_then(Value::as_array) else {
        return Err(bad_request("object expected as reply markup"));
    };
    for row in rows {
        let row = row.as_array().ok_or_else(|| bad_request("field \"inline_keyboard\" must be an Array of Arrays"))?;
        row.iter().try_for_each(button)?;
    }
    let has_buttons = rows.iter().any(|row| row.as_array().is_some_and(|row| !row.is_empty()));
    Ok(has_buttons.then_some(markup))
}

fn button(button: &Value) -> Result<(), Refusal> {
    if button["text"].as_str().is_none_or(|text| text.trim().is_empty()) {
        return Err(bad_request("inline keyboard button text must be non-empty"));
    }
    match (button.get("callback_data"), button.get("url")) {
        (Some(Value::String(data)), None) if (1..=DATA_BYTES_MAX).contains(&data.len()) => Ok(()),
        (Some(_), None) => Err(bad_request("BUTTON_DATA_INVALID")),
        (None, Some(Value::String(url))) if url.starts_with("http") || url.starts_with("tg:") => Ok(()),
        (None, Some(_)) => Err(bad_request("BUTTON_URL_INVALID")),
        _ => Err(bad_request("can't parse inline keyboard button: text buttons are unallowed in the inline keyboard")),
    }
}

/// `editMessageReplyMarkup`: puts another keyboard on a message of the bot, or takes it away.
pub(super) fn edit_message_reply_markup(state: &mut State, params: &Params) -> Outcome {
    let keyboard = keyboard(params)?;
    let message = own_message(state, params, "message to edit not found")?;
    if message.keyboard == keyboard {
        return Err(bad_request(NOT_MODIFIED));
    }
    message.keyboard = keyboard;
    let message = message.clone();
    Ok(as_message(state, &message))
}

/// `answerCallbackQuery`: each query once.
pub(super) fn answer_callback_query(state: &mut State, params: &Params) -> Outcome {
    let press = state.presses.get_mut(&params.text("callback_query_id")).filter(|press| press.answer.is_none());
    let told = "query is too old and response timeout expired or query ID is invalid";
    let press = press.ok_or_else(|| bad_request(told))?;
    if params.text("text").chars().count() > ANSWER_CHARS_MAX {
        return Err(bad_request("MESSAGE_TOO_LONG"));
    }
    press.answer = Some(Value::Object(params.fields.clone()));
    Ok(json!(true))
}
