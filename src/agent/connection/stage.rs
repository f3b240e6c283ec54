//! How far a turn has come, and how that is stored.

use serde::{Deserialize, Serialize};

use super::resume::{Prompt, Resume};
use crate::chat::LocalFile;
use crate::clock::MonoNanos;
use crate::id::SessionId;

/// How far a turn has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub(super) enum Stage {
    /// For the process to be ready.
    Waiting { session: Option<SessionId>, question: Question },
    /// For its session.
    Opening { question: Question },
    /// For its files to be read.
    Loading(Loading),
    /// For the answer to `session/prompt`.
    Running { session: SessionId, prompt: Prompt },
    /// For the same, after `session/cancel`.
    Cancelling { session: SessionId, deadline: MonoNanos },
    /// Its process died while it was running: for what the next process has kept of it.
    Resuming(Resume),
}

/// What a turn asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent) struct Question {
    pub(in crate::agent) text: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::agent) files: Vec<LocalFile>,
}

impl<T: Into<String>> From<T> for Question {
    fn from(text: T) -> Self {
        Self { text: text.into(), files: Vec::new() }
    }
}

/// A turn whose files are being read. Whoever goes on with it reads them again: nothing of them is in the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Loading {
    pub(super) session: SessionId,
    #[serde(flatten)]
    pub(super) question: Question,
    /// It is asked without them from then on.
    pub(super) deadline: MonoNanos,
}

/// The stored form.
///
/// An image that knows nothing of [`Stage::Resuming`] and [`Stage::Loading`] finds a turn that was cancelled, in a session that no agent
/// speaks of, and ends it at its deadline; what is replayed of its session is not taken for an answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    Waiting {
        session: Option<SessionId>,
        #[serde(flatten)]
        question: Question,
    },
    Opening {
        #[serde(flatten)]
        question: Question,
    },
    Running {
        session: SessionId,
        #[serde(default)]
        prompt: Prompt,
    },
    Cancelling {
        session: SessionId,
        deadline: MonoNanos,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume: Option<Resume>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loading: Option<Box<Loading>>,
    },
}

impl From<Stage> for Stored {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Waiting { session, question } => Self::Waiting { session, question },
            Stage::Opening { question } => Self::Opening { question },
            Stage::Loading(loading) => {
                let deadline = loading.deadline;
                Self::Cancelling { session: "".into(), deadline, resume: None, loading: Some(Box::new(loading)) }
            }
            Stage::Running { session, prompt } => Self::Running { session, prompt },
            Stage::Cancelling { session, deadline } => {
                Self::Cancelling { session, deadline, resume: None, loading: None }
            }
            Stage::Resuming(resume) => {
                let deadline = resume.deadline();
                Self::Cancelling { session: "".into(), deadline, resume: Some(resume), loading: None }
            }
        }
    }
}

impl From<Stored> for Stage {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Waiting { session, question } => Self::Waiting { session, question },
            Stored::Opening { question } => Self::Opening { question },
            Stored::Running { session, prompt } => Self::Running { session, prompt },
            Stored::Cancelling { resume: Some(resume), .. } => Self::Resuming(resume),
            Stored::Cancelling { loading: Some(loading), .. } => Self::Loading(*loading),
            Stored::Cancelling { session, deadline, resume: None, loading: None } => {
                Self::Cancelling { session, deadline }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_image_that_cannot_take_a_turn_up_ends_it_at_its_deadline() {
        let deadline = MonoNanos(7);
        let resume = Resume::new("s".into(), Prompt::of("hi"), "so far".into(), "exit code 1", deadline);
        let stored = serde_json::to_value(Stage::Resuming(resume.clone())).expect("plain data");
        // As it reads it: fields that it does not know are passed over.
        let cancelling =
            json!({"session": stored["cancelling"]["session"], "deadline": stored["cancelling"]["deadline"]});
        let known: Stage = serde_json::from_value(json!({"cancelling": cancelling})).expect("reads");
        assert_eq!(known, Stage::Cancelling { session: "".into(), deadline });
        assert_eq!(serde_json::from_value::<Stage>(stored).expect("reads"), Stage::Resuming(resume));
    }

    #[test]
    fn a_turn_whose_files_are_read_is_read_back_and_ended_by_an_image_that_knows_nothing_of_it() {
        let loading = Loading { session: "s".into(), question: "hi".into(), deadline: MonoNanos(7) };
        let stored = serde_json::to_value(Stage::Loading(loading.clone())).expect("plain data");
        assert_eq!((&stored["cancelling"]["session"], &stored["cancelling"]["deadline"]), (&json!(""), &json!(7)));
        assert_eq!(serde_json::from_value::<Stage>(stored).expect("reads"), Stage::Loading(loading));
        let old: Stage = serde_json::from_value(json!({"opening": {"text": "hi"}})).expect("reads");
        assert_eq!(old, Stage::Opening { question: "hi".into() });
    }

    #[test]
    fn a_running_turn_of_an_image_that_kept_no_prompt_is_read() {
        let read: Stage = serde_json::from_value(json!({"running": {"session": "s"}})).expect("reads");
        assert_eq!(read, Stage::Running { session: "s".into(), prompt: Prompt::default() });
    }
}
