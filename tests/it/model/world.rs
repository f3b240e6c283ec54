//! The state of the model: what outlives the gateway's process, and what does not.

/// The most messages of a [`Setting`](super::Setting).
pub const MESSAGES: usize = 3;
/// The most chats of one.
pub const CHATS: usize = 2;

/// A message, by its place in the order in which people wrote.
pub type Id = usize;

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An answer of the agent.
    Prompt,
    /// A word of the gateway itself.
    Command,
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub server: Server,
    pub store: Store,
    pub agent: Agent,
    /// What is gone with the process; `None` between a kill and the next start.
    pub gateway: Option<Gateway>,
    /// What may still go wrong.
    pub left: Faults,
    pub history: History,
}

/// How often each thing may go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    pub crashes: u8,
    pub handoffs: u8,
    /// Of the agent's process.
    pub deaths: u8,
    /// Messages that the server delivers although they were confirmed.
    pub repeats: u8,
    /// Answers to sends that do not arrive.
    pub lost_answers: u8,
    /// Of all these together.
    pub in_all: u8,
}

/// The platform's server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    /// The messages before this one are confirmed.
    pub confirmed: Id,
    /// What each chat shows.
    pub shown: [Vec<Shown>; CHATS],
}

/// A message that a chat shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shown {
    /// Which message it answers.
    pub message: Id,
    /// Which part of the answer it is.
    pub part: usize,
    pub piece: Piece,
    /// It says of itself that it may be there already.
    pub marked: bool,
}

/// The text of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Piece {
    /// What the agent said.
    Chunk(u8),
    /// The answer to a command.
    Answer,
    /// The honest word: the turn ended otherwise than by its agent, or the command was not carried out.
    Word,
}

/// `state.db`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    pub inbox: [Row; MESSAGES],
    /// In the order of their ids.
    pub outbox: Vec<Entry>,
}

/// How far a message has come; its key is its [`Id`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Row {
    #[default]
    Absent,
    Queued,
    Running,
    Done,
}

/// What answers a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub message: Id,
    /// Its parts are all there.
    pub complete: bool,
    pub parts: Vec<Part>,
}

/// One message of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    pub piece: Piece,
    pub state: Delivery,
}

/// How far a part has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    Pending,
    Attempting,
    Delivered,
}

/// The agent with what outlives the gateway of its connection: the sockets and the recovery log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Agent {
    pub alive: bool,
    /// The prompts that this process has, and how much it said to each.
    pub work: [Option<u8>; MESSAGES],
    /// What it said and nobody took.
    pub socket: Vec<(Id, Said)>,
    /// The first of that is in the log: the socket's peek offset says so.
    pub recorded: bool,
    /// Sockets and log of a process that died are gone: another start does not find them either.
    pub forgotten: bool,
    pub log: [Option<Logged>; MESSAGES],
}

/// What an agent writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Said {
    Chunk(u8),
    End,
}

/// A turn in the recovery log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Logged {
    pub prompt: Prompt,
    pub text: Vec<Piece>,
    pub end: Option<End>,
}

/// How far a prompt has come on its way to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prompt {
    /// It is to be written.
    Noted,
    /// It is being written: after a kill nobody knows.
    Writing,
    Written,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// By the agent.
    Whole,
    /// Otherwise: its chat gets the honest word.
    Failed,
}

/// What the gateway's process has in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gateway {
    /// Confirmed and not stored, which is a bug.
    pub received: Option<Id>,
    /// What the next `getUpdates` confirms.
    pub offset: Id,
    /// Stored, and not begun with.
    pub waiting: Vec<Id>,
    /// The turns in flight.
    pub turns: [Option<Turn>; MESSAGES],
    /// Found at the start: what has to end with the honest word.
    pub interrupted: [bool; MESSAGES],
    /// One request per chat.
    pub flights: [Option<Flight>; CHATS],
    /// Taken out of the socket and not recorded, which is a bug.
    pub in_hand: Option<(Id, Said)>,
    /// Done, and not complete in the outbox, which is a bug.
    pub half_done: Option<(Id, Vec<Piece>)>,
}

/// A turn in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Turn {
    /// Its prompt is on the way to the agent's part: the log does not have it yet.
    pub asked: bool,
    /// The store does not know that it runs, which is a bug.
    pub unrecorded: bool,
    pub text: Vec<Piece>,
    pub end: Option<End>,
}

/// A send whose answer has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flight {
    pub shown: Shown,
    /// The server has done it.
    pub executed: bool,
}

/// What properties must know of the past. Nothing else looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// How often each prompt was written to an agent.
    pub given: [u8; MESSAGES],
    /// How often a send of each part ended without an answer.
    pub doubts: [[u8; 4]; MESSAGES],
    /// A turn was taken up from the log.
    pub taken_up: bool,
}

impl World {
    /// The entry of a message, made if there is none.
    pub fn entry(&mut self, message: Id) -> &mut Entry {
        let outbox = &mut self.store.outbox;
        let at = outbox.iter().position(|entry| entry.message == message).unwrap_or_else(|| {
            outbox.push(Entry { message, complete: false, parts: Vec::new() });
            outbox.len() - 1
        });
        &mut outbox[at]
    }

    /// The sends in flight end without an answer, and nobody knows whether they were executed.
    pub fn doubt(&mut self, chats: impl IntoIterator<Item = usize>) {
        let Some(gateway) = &mut self.gateway else { return };
        for chat in chats {
            if let Some(Flight { shown, .. }) = gateway.flights[chat].take() {
                self.history.doubts[shown.message][shown.part] += 1;
            }
        }
    }
}

impl Entry {
    /// Its whole text is known now. What was sent while it grew stays.
    pub fn finish(&mut self, text: impl IntoIterator<Item = Piece>) {
        let known = self.parts.len();
        let rest = text.into_iter().skip(known).map(|piece| Part { piece, state: Delivery::Pending });
        self.parts.extend(rest);
        self.complete = true;
    }

    /// It ends where it is, with the honest word.
    pub fn interrupt(&mut self) {
        if !self.complete {
            self.parts.push(Part { piece: Piece::Word, state: Delivery::Pending });
            self.complete = true;
        }
    }
}
