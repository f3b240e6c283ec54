//! What a message says, as `sendMessage` and its like take it.

use serde_json::{Value, json};

use super::markdown::{Entity, Fence, Rendered, render};
use crate::chat::Choice;
use crate::platform::delivery::{Format, Post};

/// The longest label of a button; longer ones are cut, because nobody can read them.
const LABEL_CHARS_MAX: usize = 60;

/// A text with its entities and buttons.
#[derive(Clone, Debug, Default)]
pub struct Words {
    text: String,
    entities: Vec<Entity>,
    choices: Vec<Choice>,
    reply_to: Option<i64>,
}

impl From<&str> for Words {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }
}

impl Words {
    /// What a post says, whose page begins within `before`, and the fence that is open at its end.
    pub(super) fn of(post: &Post, before: Option<&Fence>) -> (Self, Option<Fence>) {
        let choices = post.choices.clone();
        match post.format {
            Format::Plain => (Self { choices, ..Self::from(post.text.as_str()) }, None),
            Format::Markdown => {
                let Rendered { text, entities, open } = render(&post.text, before);
                (Self { text, entities, choices, reply_to: None }, open)
            }
        }
    }

    /// The same as an answer to a message, if that is still there.
    pub(super) fn answering(self, message: Option<i64>) -> Self {
        Self { reply_to: message, ..self }
    }

    /// Whether some of it is more than plain text.
    pub(super) fn is_marked(&self) -> bool {
        !self.entities.is_empty()
    }

    /// The same without entities.
    pub(super) fn plain(self) -> Self {
        Self { entities: Vec::new(), ..self }
    }

    /// Adds it to the parameters of a call.
    pub(super) fn put(&self, params: &mut Value) {
        params["text"] = self.text.as_str().into();
        if self.is_marked() {
            params["entities"] = json!(self.entities);
        }
        if let Some(message) = self.reply_to {
            params["reply_parameters"] = json!({ "message_id": message, "allow_sending_without_reply": true });
        }
        if let Some(keyboard) = self.keyboard() {
            params["reply_markup"] = keyboard;
        }
    }

    /// A button below the other; a command that Telegram could not carry has none.
    fn keyboard(&self) -> Option<Value> {
        let fits = |choice: &&Choice| (1..=Choice::COMMAND_BYTES_MAX).contains(&choice.command.len());
        let row = |choice: &Choice| {
            let label: String = choice.label.chars().take(LABEL_CHARS_MAX).collect();
            let text = if label.trim().is_empty() { choice.command.clone() } else { label };
            json!([{ "text": text, "callback_data": choice.command }])
        };
        let rows: Vec<Value> = self.choices.iter().filter(fits).map(row).collect();
        (!rows.is_empty()).then(|| json!({ "inline_keyboard": rows }))
    }
}
