//! What of an agent outlives a kill of the gateway: its recovery log, written and read.
//!
//! A record is a line of JSON, followed after a plain read by what it read of a line that has not ended. It says what
//! has come since the one before: text, sessions, endings, what is being written; and the whole state of the agent
//! whenever that changed other than by text. A record of a read has everything that the read has brought about.
//!
//! **Invariants**
//! - What is in no record was told to nobody: a record is written before its events are sent.
//! - Every record leads from one state that holds together to the next, wherever the log ends.
//! - A log that cannot be written is emptied and given up: it must not tell an old state to whoever finds it. The agent
//!   goes on without.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::snapshot::{State, StateRef};
use super::{AdoptError, AgentEvent, RecoveredTurn, TurnOutcome, TurnUpdate};
use crate::chat::OutFile;
use crate::id::{AgentName, SessionId, TurnId};
use crate::recovery::RecoveryLog;
use crate::report::Chain;

/// A log is written anew when it is longer than this and twice what it was when it was written anew last.
const COMPACT_BYTES: u64 = 1 << 20;
/// The most turns that have ended and are not settled. A gateway settles each once it is shown.
const UNSETTLED_MAX: usize = 1024;

/// One read of the agent's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Read {
    /// Counted from 1 for each process.
    pub(super) number: u64,
    /// What it took out of the stream.
    pub(super) bytes: usize,
    /// It held the end of a line: what is left of it takes the place of what was left before.
    pub(super) ended_line: bool,
}

/// What is in a record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
struct Record<S> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read: Option<Read>,
    /// In the place of all that was said before in these turns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    replaced: Vec<(TurnId, String)>,
    /// Added to that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    texts: Vec<(TurnId, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    files: Vec<(TurnId, OutFile)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sessions: Vec<(TurnId, SessionId)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ended: Vec<(TurnId, TurnOutcome)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    settled: Vec<TurnId>,
    /// So many bytes are about to be given to the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writing: Option<usize>,
    /// So many bytes were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<usize>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    state: Option<S>,
}

fn none<S>() -> Option<S> {
    None
}

impl<S> Default for Record<S> {
    fn default() -> Self {
        Self {
            read: None,
            replaced: Vec::new(),
            texts: Vec::new(),
            files: Vec::new(),
            sessions: Vec::new(),
            ended: Vec::new(),
            settled: Vec::new(),
            writing: None,
            written: None,
            state: None,
        }
    }
}

/// What was told of a turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    session: Option<SessionId>,
    text: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    files: Vec<OutFile>,
    outcome: Option<TurnOutcome>,
}

/// The turns that are not settled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Turns(BTreeMap<TurnId, Told>);

impl Turns {
    fn text(&mut self, turn: TurnId, text: &str) {
        self.0.entry(turn).or_default().text.push_str(text);
    }

    fn replace(&mut self, turn: TurnId, text: String) {
        self.0.entry(turn).or_default().text = text;
    }

    fn file(&mut self, turn: TurnId, file: OutFile) {
        self.0.entry(turn).or_default().files.push(file);
    }

    fn session(&mut self, turn: TurnId, session: SessionId) {
        self.0.entry(turn).or_default().session = Some(session);
    }

    /// Returns what was said in the turn.
    fn end(&mut self, turn: TurnId, outcome: TurnOutcome) -> (String, Vec<OutFile>) {
        let told = self.0.entry(turn).or_default();
        told.outcome = Some(outcome);
        let said = (told.text.clone(), told.files.clone());
        let ended = || self.0.iter().filter(|(_, told)| told.outcome.is_some());
        if ended().count() > UNSETTLED_MAX
            && let Some((oldest, _)) = ended().next()
        {
            let oldest = *oldest;
            self.0.remove(&oldest);
        }
        said
    }

    fn settle(&mut self, turn: TurnId) -> bool {
        let ended = self.0.get(&turn).is_some_and(|told| told.outcome.is_some());
        if ended {
            self.0.remove(&turn);
        }
        ended
    }
}

/// The log of an agent's process and what is to go into it.
#[derive(Debug, Default)]
pub(super) struct Journal {
    log: Option<RecoveryLog>,
    turns: Turns,
    /// What the next record says besides the state.
    next: Record<()>,
    /// The number of the last read.
    reads: u64,
    /// The most that has waited to be written to the agent since the log was written anew.
    unsent_max: usize,
    /// How long the log was when it was written anew; `None` if it is a new one, which must be written as a whole.
    compacted_bytes: Option<u64>,
}

/// What the next image must know to go on with the log without reading it, which takes the longer the longer it is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct CarriedJournal {
    turns: Turns,
    reads: u64,
    compacted_bytes: Option<u64>,
}

/// What a log says.
pub(super) struct Found {
    pub(super) journal: Journal,
    pub(super) state: State,
    /// What it read last.
    pub(super) last: Option<Read>,
    /// The bytes of a write that was begun and whose end is not recorded.
    pub(super) writing: usize,
}

impl Journal {
    /// A process was started: a log of its own. Without one, for example for want of memory, the agent does not
    /// outlive a kill of the gateway.
    pub(super) fn begin(&mut self, agent: &AgentName) {
        self.end();
        match RecoveryLog::create(&format!("hermes-agent-{agent}")) {
            Ok(log) => self.log = Some(log),
            Err(error) => {
                tracing::warn!(%agent, %error, "no recovery log: a kill of the gateway will end this agent's turns");
            }
        }
    }

    /// The process is gone.
    pub(super) fn end(&mut self) {
        (self.log, self.reads, self.compacted_bytes, self.unsent_max) = (None, 0, None, 0);
        self.next = Record::default();
    }

    /// Whether there is a log.
    pub(super) fn is_kept(&self) -> bool {
        self.log.is_some()
    }

    /// The fd of the log for somebody else to keep.
    pub(super) fn duplicate(&self) -> io::Result<Option<OwnedFd>> {
        self.log.as_ref().map(|log| log.as_fd().try_clone_to_owned()).transpose()
    }

    /// The read that comes next.
    pub(super) fn next_read(&self, bytes: usize, ended_line: bool) -> Read {
        Read { number: self.reads + 1, bytes, ended_line }
    }

    /// Notes what the next record must say of an event, and adds to the end of a turn what was said in it.
    pub(super) fn note(&mut self, mut event: AgentEvent) -> AgentEvent {
        match &mut event {
            AgentEvent::Update { turn, update: TurnUpdate::Text(text) } => {
                self.turns.text(*turn, text);
                match self.next.texts.last_mut() {
                    Some((last, so_far)) if last == turn => so_far.push_str(text),
                    _ => self.next.texts.push((*turn, text.clone())),
                }
            }
            AgentEvent::Update { turn, update: TurnUpdate::SoFar(text) } => {
                self.turns.replace(*turn, text.clone());
                self.next.texts.retain(|(of, _)| of != turn);
                self.next.replaced.push((*turn, text.clone()));
            }
            AgentEvent::Update { turn, update: TurnUpdate::File(file) } => {
                self.turns.file(*turn, file.clone());
                self.next.files.push((*turn, file.clone()));
            }
            AgentEvent::Session { turn, session, .. } => {
                self.turns.session(*turn, session.clone());
                self.next.sessions.push((*turn, session.clone()));
            }
            AgentEvent::TurnEnded { turn, outcome, text, files } => {
                (*text, *files) = self.turns.end(*turn, outcome.clone());
                self.next.ended.push((*turn, outcome.clone()));
            }
            _ => {}
        }
        event
    }

    /// What was said in a turn that is not settled.
    pub(super) fn said(&self, turn: TurnId) -> String {
        self.turns.0.get(&turn).map(|told| told.text.clone()).unwrap_or_default()
    }

    /// How much was said in a turn, in bytes, and the files in it.
    pub(super) fn place(&self, turn: TurnId) -> (usize, &[OutFile]) {
        self.turns.0.get(&turn).map_or((0, &[]), |told| (told.text.len(), &told.files))
    }

    /// The whole reply of an ended turn is in the store.
    pub(super) fn settle(&mut self, turn: TurnId) {
        if self.turns.settle(turn) {
            self.next.settled.push(turn);
        }
    }

    /// Whether there is something that no record says.
    pub(super) fn has_news(&self) -> bool {
        let Record { replaced, texts, files, sessions, ended, settled, .. } = &self.next;
        !(replaced.is_empty()
            && texts.is_empty()
            && files.is_empty()
            && sessions.is_empty()
            && ended.is_empty()
            && settled.is_empty())
    }

    /// Records what was noted, the new state if it changed, and the read that brought it about, with what it left of a
    /// line that has not ended.
    pub(super) fn record(&mut self, read: Option<(Read, &[u8])>, state: Option<StateRef<'_>>) {
        let Record { replaced, texts, files, sessions, ended, settled, .. } = std::mem::take(&mut self.next);
        if self.log.is_none() {
            return;
        }
        let whole = state.is_some();
        let (read, rest) = read.map_or((None, &[][..]), |(read, rest)| (Some(read), rest));
        self.reads = read.map_or(self.reads, |read| read.number);
        let record = Record { read, replaced, texts, files, sessions, ended, settled, state, ..Record::default() };
        // The state has the rest of the line itself.
        self.append(&record, if whole { &[] } else { rest });
    }

    /// So many bytes are about to be given to the agent.
    pub(super) fn writing(&mut self, bytes: usize) {
        self.append(&Record::<()> { writing: Some(bytes), ..Record::default() }, &[]);
    }

    /// So many bytes were.
    pub(super) fn written(&mut self, bytes: usize) {
        self.append(&Record::<()> { written: Some(bytes), ..Record::default() }, &[]);
    }

    /// Whether the log is to be written anew: it has grown much, does not say what was before it, or has what was written
    /// to the agent since. `unsent` bytes wait to be.
    pub(super) fn wants_compaction(&mut self, unsent: usize) -> bool {
        self.unsent_max = self.unsent_max.max(unsent);
        if self.log.is_some() && unsent == 0 && self.unsent_max as u64 > COMPACT_BYTES {
            return true;
        }
        let long = |log: &RecoveryLog| match self.compacted_bytes {
            Some(compacted) => log.len_bytes() > COMPACT_BYTES.max(compacted.saturating_mul(2)),
            None => true,
        };
        self.log.as_ref().is_some_and(long)
    }

    /// Writes the log anew: what it says stays, how it came about goes.
    pub(super) fn compact(&mut self, state: StateRef<'_>) {
        let Some(log) = &mut self.log else { return };
        self.unsent_max = 0;
        // It is in the turns already.
        self.next = Record::default();
        // The bytes of the last read are not in the queue any more.
        let read = Read { number: self.reads, bytes: 0, ended_line: false };
        let mut records = vec![encode(&Record { read: Some(read), state: Some(state), ..Record::default() }, &[])];
        for (turn, told) in &self.turns.0 {
            let Told { session, text, files, outcome } = told;
            let record = Record::<()> {
                texts: vec![(*turn, text.clone())],
                files: files.iter().map(|file| (*turn, file.clone())).collect(),
                sessions: session.iter().map(|session| (*turn, session.clone())).collect(),
                ended: outcome.iter().map(|outcome| (*turn, outcome.clone())).collect(),
                ..Record::default()
            };
            records.push(encode(&record, &[]));
        }
        match log.replace(records.iter().map(Vec::as_slice)) {
            Ok(()) => self.compacted_bytes = Some(log.len_bytes()),
            Err(error) => self.give_up(&error),
        }
    }

    fn append<S: Serialize>(&mut self, record: &Record<S>, rest: &[u8]) {
        if let Some(log) = &mut self.log
            && let Err(error) = log.append(&encode(record, rest))
        {
            self.give_up(&error);
        }
    }

    /// Goes on without a log: one that is not written any more would tell old things.
    pub(super) fn give_up(&mut self, error: &io::Error) {
        let Some(mut log) = self.log.take() else { return };
        tracing::warn!(error = %Chain(error), "a recovery log is given up: a kill of the gateway will end an agent's turns");
        if let Err(error) = log.replace([]) {
            tracing::error!(error = %Chain(&error), "a recovery log that is given up cannot be emptied");
        }
    }

    /// For the next image.
    pub(super) fn carried(&self) -> CarriedJournal {
        CarriedJournal { turns: self.turns.clone(), reads: self.reads, compacted_bytes: self.compacted_bytes }
    }

    /// Goes on without a process: it had no log to go on with.
    pub(super) fn without_log(carried: CarriedJournal) -> Self {
        Self { turns: carried.turns, ..Self::default() }
    }

    /// Goes on with the log of a process that the previous image handed over, which need not have said what is in it;
    /// without it, if it cannot be read: then nobody else can read it either.
    pub(super) fn adopt(log: OwnedFd, carried: Option<CarriedJournal>) -> Self {
        let adopted = match carried {
            Some(CarriedJournal { turns, reads, compacted_bytes }) => RecoveryLog::open(log)
                .map(|log| Self { log: Some(log), turns, reads, compacted_bytes, ..Self::default() })
                .map_err(AdoptError::Log),
            None => Self::find(log).map(|found| found.journal),
        };
        adopted.unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "an agent goes on without its recovery log");
            Self::default()
        })
    }

    /// Reads a log.
    ///
    /// # Errors
    /// [`AdoptError::Log`], [`AdoptError::LogEmpty`].
    pub(super) fn find(log: OwnedFd) -> Result<Found, AdoptError> {
        let log = RecoveryLog::open(log).map_err(AdoptError::Log)?;
        let mut fold = Fold::default();
        for record in log.records().map_err(AdoptError::Log)? {
            fold.add(&record).map_err(AdoptError::State)?;
        }
        let Fold { state, turns, last, writing } = fold;
        let state = state.ok_or(AdoptError::LogEmpty)?;
        let reads = last.map_or(0, |read| read.number);
        let journal = Self { log: Some(log), turns, reads, compacted_bytes: Some(0), ..Self::default() };
        Ok(Found { journal, state, last, writing: writing.unwrap_or(0) })
    }

    /// What whoever recovers the agent must know of its turns.
    pub(super) fn recovered(&self, connection: &Connection) -> Vec<RecoveredTurn> {
        let mut turns: BTreeMap<TurnId, RecoveredTurn> = BTreeMap::new();
        for (turn, told) in &self.turns.0 {
            let Told { session, text, files, outcome } = told.clone();
            turns.insert(*turn, RecoveredTurn { turn: *turn, session, text, files, outcome, permissions: Vec::new() });
        }
        for (turn, session, permissions) in connection.open_turns() {
            let recovered = turns.entry(turn).or_insert_with(|| RecoveredTurn::new(turn));
            recovered.session = recovered.session.take().or(session);
            recovered.permissions = permissions;
        }
        turns.into_values().collect()
    }
}

/// Records, one after the other.
#[derive(Default)]
struct Fold {
    state: Option<State>,
    turns: Turns,
    last: Option<Read>,
    writing: Option<usize>,
}

impl Fold {
    fn add(&mut self, record: &[u8]) -> Result<(), serde_json::Error> {
        let end = record.iter().position(|byte| *byte == b'\n').unwrap_or(record.len());
        let (line, rest) = (&record[..end], record.get(end + 1..).unwrap_or_default());
        let Record { read, replaced, texts, files, sessions, ended, settled, writing, written, state } =
            serde_json::from_slice(line)?;
        replaced.into_iter().for_each(|(turn, text)| self.turns.replace(turn, text));
        texts.iter().for_each(|(turn, text)| self.turns.text(*turn, text));
        files.into_iter().for_each(|(turn, file)| self.turns.file(turn, file));
        sessions.into_iter().for_each(|(turn, session)| self.turns.session(turn, session));
        ended.into_iter().for_each(|(turn, outcome)| drop(self.turns.end(turn, outcome)));
        for turn in settled {
            self.turns.settle(turn);
        }
        self.writing = writing.or(self.writing);
        self.last = read.or(self.last);
        match (state, &mut self.state) {
            (Some(state), _) => self.state = Some(state),
            (None, Some(state)) => {
                if let Some(bytes) = written {
                    state.written(bytes);
                    self.writing = None;
                }
                if let Some(read) = read {
                    state.push_partial(rest, read.ended_line);
                }
            }
            (None, None) => {}
        }
        Ok(())
    }
}

fn encode<S: Serialize>(record: &Record<S>, rest: &[u8]) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(record).expect("records are plain data with text as keys");
    if !rest.is_empty() {
        bytes.push(b'\n');
        bytes.extend_from_slice(rest);
    }
    bytes
}
