//! Files that came with a message, on their way to the prompt.
//!
//! ```text
//! unfetched ──Effect::Fetch──► fetched | not to be had ──► the prompt
//! ```
//!
//! **Invariants**
//! - A message is asked only once it is known of each of its files what became of it. Its platform says so within a
//!   deadline of its own, so no message waits for ever.
//! - What this image has not asked its platform for is asked for again by whoever serves next: fetching twice does no harm.

use serde::{Deserialize, Serialize};

use super::conversation::Talk;
use super::{Effect, Gateway};
use crate::chat::{Attachment, Fetched, Inbound, LocalFile};
use crate::id::TurnId;

/// Files of one message that are fetched; what is more is named only.
const FILES_MAX: usize = 50;

/// The files of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Files {
    /// What was said beside them.
    said: String,
    files: Vec<File>,
    /// The turn that had them before, if this one repeats it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<TurnId>,
    /// This image has asked for them.
    #[serde(skip)]
    asked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    attachment: Attachment,
    #[serde(default)]
    state: State,
}

/// How far a file is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    #[default]
    Unfetched,
    Fetched(LocalFile),
    /// Not to be had, and why.
    Missing(String),
}

impl Files {
    /// Those of a message; `None` if it has none.
    pub(super) fn of(inbound: &Inbound) -> Option<Self> {
        (!inbound.attachments.is_empty()).then(|| Self::new(inbound.text.clone(), inbound.attachments.clone(), None))
    }

    /// The same for a turn that asks once more what `turn` has asked.
    pub(super) fn again(&self, turn: TurnId) -> Self {
        Self::new(self.said.clone(), self.attachments(), Some(turn))
    }

    fn new(said: String, attachments: Vec<Attachment>, of: Option<TurnId>) -> Self {
        let file = |(at, attachment)| {
            let surplus = || State::Missing("there are too many in one message".to_owned());
            File { attachment, state: if at < FILES_MAX { State::Unfetched } else { surplus() } }
        };
        Self { said, files: attachments.into_iter().enumerate().map(file).collect(), of, asked: false }
    }

    /// What was said beside them.
    pub(super) fn said(&self) -> &str {
        &self.said
    }

    /// All of them.
    pub(super) fn attachments(&self) -> Vec<Attachment> {
        self.files.iter().map(|file| file.attachment.clone()).collect()
    }

    /// Whether it is known of each what became of it.
    pub(super) fn are_known(&self) -> bool {
        self.files.iter().all(|file| file.state != State::Unfetched)
    }

    fn learn(&mut self, fetched: Vec<Fetched>) {
        let mut fetched = fetched.into_iter();
        for file in self.files.iter_mut().take(FILES_MAX) {
            file.state = match fetched.next() {
                Some(Ok(local)) => State::Fetched(local),
                Some(Err(why)) => State::Missing(why),
                None => State::Missing("nobody knows of it".to_owned()),
            };
        }
    }

    /// What an agent is asked: the text, with a line for each file that it is not given, and the others. A message is never
    /// without a word, since agents know their messages by the text.
    pub(super) fn question(&self) -> (String, Vec<LocalFile>) {
        let (mut lines, mut local) = (Vec::new(), Vec::new());
        for File { attachment, state } in &self.files {
            match state {
                State::Fetched(file) => local.push(file.clone()),
                State::Missing(why) => lines.push(line(attachment, Some(why))),
                State::Unfetched => lines.push(line(attachment, None)),
            }
        }
        if self.said.is_empty() && lines.is_empty() {
            lines = self.files.iter().map(|file| line(&file.attachment, None)).collect();
        }
        (with_lines(&self.said, lines), local)
    }
}

/// What is asked by an image that knows nothing of files: the text, and a line for each.
pub(super) fn with_attachments(inbound: &Inbound) -> String {
    with_lines(&inbound.text, inbound.attachments.iter().map(|attachment| line(attachment, None)))
}

fn with_lines(said: &str, lines: impl IntoIterator<Item = String>) -> String {
    let said = Some(said.to_owned()).filter(|said| !said.is_empty());
    said.into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

fn line(attachment: &Attachment, why: Option<&str>) -> String {
    let kind = attachment.kind.as_str();
    let name = attachment.name.as_deref().map(|name| format!(": {name}")).unwrap_or_default();
    let why = why.map(|why| format!(" (could not be fetched: {why})")).unwrap_or_default();
    format!("[{kind}{name}{why}]")
}

impl Gateway {
    /// Asks for the files of what waits, as far as this image has not.
    pub(super) fn ask_for_files(&mut self, effects: &mut Vec<Effect>) {
        self.talks.values_mut().for_each(|talk| ask(talk, effects));
    }

    /// What became of the files of a message, in their order.
    pub fn fetched(&mut self, turn: TurnId, fetched: Vec<Fetched>, effects: &mut Vec<Effect>) {
        let waits = |talk: &&mut Talk| talk.is_waiting(turn);
        let Some(talk) = self.talks.values_mut().find(waits) else { return };
        let waiting = talk.queue.iter_mut().find(|waiting| waiting.turn == turn);
        let Some(files) = waiting.and_then(|waiting| waiting.files.as_mut()) else { return };
        if !files.are_known() {
            files.learn(fetched);
        }
        let conversation = talk.conversation.clone();
        self.start(&conversation, effects);
    }
}

/// Asks for the files of what waits in a conversation, as far as this image has not.
pub(super) fn ask(talk: &mut Talk, effects: &mut Vec<Effect>) {
    for waiting in &mut talk.queue {
        let Some(files) = &mut waiting.files else { continue };
        if files.are_known() || std::mem::replace(&mut files.asked, true) {
            continue;
        }
        let (turn, conversation) = (waiting.turn, talk.conversation.clone());
        let mut attachments = files.attachments();
        attachments.truncate(FILES_MAX);
        effects.push(Effect::Fetch { turn, conversation, attachments, of: files.of });
    }
}
