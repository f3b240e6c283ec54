//! What the gateway wants done. The daemon carries effects out in the order in which they were pushed.

use serde::{Deserialize, Serialize};

use crate::agent::AgentCommand;
use crate::chat::{Conversation, Outbound, Sender};
use crate::control::proto::HandoffKind;
use crate::id::{AgentName, TurnId};
use crate::store::{SessionRow, TurnState};

/// One thing to do.
#[derive(Debug)]
pub enum Effect {
    /// Show something in a chat.
    Show(Outbound),
    /// Ask something of an agent.
    Agent(AgentName, AgentCommand),
    /// Record how far a turn has come.
    TurnState(TurnId, TurnState),
    /// Record that a message is to be asked as if it had this text, and waits.
    Requeue(TurnId, String),
    /// Record the session of a conversation.
    Session(SessionRow),
    /// Replace the image.
    Handoff {
        /// By what.
        kind: HandoffKind,
        /// Without waiting for sends in flight.
        force: bool,
        /// Who asked.
        by: Requester,
    },
    /// Look for a newer release and tell the conversation.
    CheckUpdate(Conversation),
    /// Tell the conversation something that only the daemon knows.
    Describe(Conversation, Describe),
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Describe {
    /// Everything in short.
    Status,
    /// The version that runs.
    Version,
    /// The agents.
    Agents,
    /// The platforms.
    Platforms,
}

/// Who asked for a handoff in a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// Where; told how it went.
    pub conversation: Conversation,
    /// The message that asked.
    pub turn: TurnId,
    /// Who.
    pub sender: Sender,
}
