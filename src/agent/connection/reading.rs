//! Turns whose files are read before they are asked. The reading itself is somebody else's: it waits for a disk.
//!
//! **Invariant:** nothing of a file is in the connection but in what waits to be written to the agent.

use super::stage::Loading;
use super::{Call, Connection, Phase, Question, Stage, Turn, after};
use crate::agent::acp;
use crate::agent::connection::resume::Prompt;
use crate::agent::given::{self, Given, Takes};
use crate::chat::LocalFile;
use crate::clock::MonoNanos;
use crate::id::{SessionId, TurnId};

/// Files to be read.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::agent) struct Reading {
    pub(in crate::agent) turn: TurnId,
    pub(in crate::agent) files: Vec<LocalFile>,
    pub(in crate::agent) takes: Takes,
}

impl Connection {
    /// Asks, once the files are read.
    pub(super) fn put(&mut self, now: MonoNanos, turn: TurnId, session: SessionId, question: Question) {
        if question.files.is_empty() {
            return self.send_prompt(turn, session, question.text, Vec::new());
        }
        let deadline = after(now, self.limits.read_timeout);
        self.set_stage(turn, Stage::Loading(Loading { session, question, deadline }));
    }

    /// Files that somebody must read, each once.
    pub(in crate::agent) fn next_reading(&mut self) -> Option<Reading> {
        let Phase::Ready { takes, .. } = self.phase else { return None };
        let (turn, files) = self.turns.iter().find_map(|(id, turn)| match &turn.stage {
            Stage::Loading(loading) if !self.readings.contains(id) => Some((*id, loading.question.files.clone())),
            _ => None,
        })?;
        self.readings.insert(turn);
        Some(Reading { turn, files, takes })
    }

    /// The files of a turn were read: it is asked.
    pub(in crate::agent) fn read(&mut self, turn: TurnId, files: Vec<Given>) {
        self.readings.remove(&turn);
        let Some(Turn { stage: Stage::Loading(loading), .. }) = self.turns.get_mut(&turn) else { return };
        self.changed = true;
        let Loading { session, question, .. } = loading.clone();
        if self.leaving {
            // Nothing was sent, so the next process may have it.
            return self.set_stage(turn, Stage::Waiting { session: Some(session), question });
        }
        self.send_prompt(turn, session, question.text, files);
    }

    /// Whether a turn waits for its files: then it is asked without them.
    pub(super) fn give_up_reading(&mut self, turn: TurnId) -> bool {
        let Some(Turn { stage: Stage::Loading(loading), .. }) = self.turns.get(&turn) else { return false };
        let late = |file: &LocalFile| given::unread(file, "it took too long");
        let given = loading.question.files.iter().map(late).collect();
        self.read(turn, given);
        true
    }

    fn send_prompt(&mut self, turn: TurnId, session: SessionId, text: String, mut files: Vec<Given>) {
        let size: usize = files.iter().map(Given::inline_bytes).sum();
        // An agent that is slow to read is not ended for a picture: it gets the way to it.
        if self.outgoing.len() + text.len() + size > self.limits.outgoing_bytes_max / 4 * 3 {
            files = files.into_iter().map(Given::into_link).collect();
        }
        let is_alone = files.iter().all(|file| matches!(file, Given::Unread(_)));
        let params = acp::prompt_params(&session, text, files);
        let text = acp::last_text(&params);
        let prompt = if is_alone { Prompt::of(text) } else { Prompt::after_files(text) };
        self.set_stage(turn, Stage::Running { session, prompt });
        self.call(acp::SESSION_PROMPT, params, Call::Prompt { turn });
    }
}
