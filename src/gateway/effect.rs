//! What the gateway wants done. Of the effects that come together the daemon records first all that is to be recorded,
//! in one transaction; then it carries them out in the order in which they were pushed.

use serde::{Deserialize, Serialize};

use crate::agent::AgentCommand;
use crate::chat::{Attachment, Conversation, Notice, OutFile, Outbound, ReplyEnd, Sender};
use crate::clock::UnixMillis;
use crate::control::proto::HandoffKind;
use crate::id::{AgentName, PlatformName, TurnId};
use crate::store::{Change, SessionRow};

/// One thing to do.
#[derive(Debug)]
pub enum Effect {
    /// Show something in a chat that a kill may cost: a piece of a reply, which comes again with the whole.
    Show(Outbound),
    /// Show a message of its own, which no kill may cost.
    Notice(Conversation, Notice),
    /// Record that a turn is given to an agent, and begin the reply to it.
    Start(TurnId, Conversation),
    /// Record that a turn is over, and end the reply to it.
    Finish {
        /// The turn.
        turn: TurnId,
        /// Where its reply is.
        conversation: Conversation,
        /// When the agent got it, if it did.
        started_at: Option<UnixMillis>,
        /// All that was said in it; none if nobody knows.
        text: Option<String>,
        /// The files in it.
        files: Vec<OutFile>,
        /// How it ended.
        end: ReplyEnd,
    },
    /// Record that a message is dealt with and gets no reply.
    Close(TurnId),
    /// Ask something of an agent.
    Agent(AgentName, AgentCommand),
    /// Record that a message is to be asked as if it had this text and these files, and waits.
    Requeue(TurnId, String, Vec<Attachment>),
    /// Fetch the files of a message that waits, and tell the gateway what became of each ([`super::Gateway::fetched`]).
    Fetch {
        /// The message.
        turn: TurnId,
        /// Where it was said.
        conversation: Conversation,
        /// Its files.
        attachments: Vec<Attachment>,
        /// The turn that may have fetched the same files before.
        of: Option<TurnId>,
    },
    /// Record the session of a conversation.
    Session(SessionRow),
    /// Record something else.
    Record(Change),
    /// Hold a platform back, or let it go on. The message that asked for it is dealt with after that.
    Pause {
        /// Which.
        platform: PlatformName,
        /// Whether it is held back.
        pause: bool,
        /// Even if it is the one on which this is asked.
        here: bool,
        /// Who asked.
        by: Requester,
    },
    /// Replace the image. The message that asked for it is dealt with once that is noted: after a kill between the two
    /// nobody would tell how it ended.
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

/// Who asked for something in a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// Where; told what came of it.
    pub conversation: Conversation,
    /// The message that asked.
    pub turn: TurnId,
    /// Who.
    pub sender: Sender,
}
