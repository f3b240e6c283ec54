//! How far a turn has come, and how that is stored.

use serde::{Deserialize, Serialize};

use super::resume::{Prompt, Resume};
use crate::clock::MonoNanos;
use crate::id::SessionId;

/// How far a turn has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub(super) enum Stage {
    /// For the process to be ready.
    Waiting { session: Option<SessionId>, text: String },
    /// For its session.
    Opening { text: String },
    /// For the answer to `session/prompt`.
    Running { session: SessionId, prompt: Prompt },
    /// For the same, after `session/cancel`.
    Cancelling { session: SessionId, deadline: MonoNanos },
    /// Its process died while it was running: for what the next process has kept of it.
    Resuming(Resume),
}

/// The stored form.
///
/// An image that knows nothing of [`Stage::Resuming`] finds a turn that was cancelled, in a session that no agent
/// speaks of, and ends it at its deadline; what is replayed of its session is not taken for an answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    Waiting {
        session: Option<SessionId>,
        text: String,
    },
    Opening {
        text: String,
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
    },
}

impl From<Stage> for Stored {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Waiting { session, text } => Self::Waiting { session, text },
            Stage::Opening { text } => Self::Opening { text },
            Stage::Running { session, prompt } => Self::Running { session, prompt },
            Stage::Cancelling { session, deadline } => Self::Cancelling { session, deadline, resume: None },
            Stage::Resuming(resume) => {
                let deadline = resume.deadline();
                Self::Cancelling { session: "".into(), deadline, resume: Some(resume) }
            }
        }
    }
}

impl From<Stored> for Stage {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Waiting { session, text } => Self::Waiting { session, text },
            Stored::Opening { text } => Self::Opening { text },
            Stored::Running { session, prompt } => Self::Running { session, prompt },
            Stored::Cancelling { resume: Some(resume), .. } => Self::Resuming(resume),
            Stored::Cancelling { session, deadline, resume: None } => Self::Cancelling { session, deadline },
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
    fn a_running_turn_of_an_image_that_kept_no_prompt_is_read() {
        let read: Stage = serde_json::from_value(json!({"running": {"session": "s"}})).expect("reads");
        assert_eq!(read, Stage::Running { session: "s".into(), prompt: Prompt::default() });
    }
}
