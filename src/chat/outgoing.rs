//! Files in the answers of agents.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ReplyStep;

/// A file in the reply to a turn, and its place there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutFile {
    /// Counted from 0 in its turn.
    pub number: u32,
    /// How much of the reply's text stands before it, in bytes.
    pub at: usize,
    /// Its name, for people; without a path.
    pub name: String,
    /// Its media type (RFC 6838), where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
    /// What there is of it.
    pub content: Content,
}

/// What there is of an [`OutFile`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A copy of it, which stays as it was when the agent gave it.
    Kept {
        /// Where; absolute.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Nothing: people are told of it.
    Missing {
        /// Why.
        why: NotSent,
        /// What the agent gave in its place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        link: Option<String>,
    },
}

/// Why people get a line of text in the place of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotSent {
    /// It is larger than is sent.
    TooLarge {
        /// The largest size.
        bytes_max: u64,
    },
    /// The turn has sent as much as a turn may.
    TooMany,
    /// It lies outside of the agent's working directory, or is no regular file there.
    Outside,
    /// It cannot be read, or what was sent of it is no file.
    Unreadable,
    /// The platform has no way to send such a file.
    Unsupported,
    /// The platform does not take it; in its words.
    Refused(String),
}

/// The steps that show what is missing of a reply, of which this has been said so far, whatever was shown before.
pub fn so_far(text: &str, files: &[OutFile]) -> Vec<ReplyStep> {
    let mut steps = Vec::with_capacity(2 * files.len() + 1);
    for file in files {
        steps.push(ReplyStep::SoFar(text[..text.floor_char_boundary(file.at)].to_owned()));
        steps.push(ReplyStep::File(file.clone()));
    }
    steps.push(ReplyStep::SoFar(text.to_owned()));
    steps
}
