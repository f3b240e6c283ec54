//! What must not be forgotten of an agent when the gateway is killed: its recovery log.
//!
//! The log is folded from its records: the latest whole state of the connection, what was said in each turn, how turns
//! ended. Text, by far the most, is appended alone; everything else that changes is a new whole state.
//!
//! **Invariants**
//! - A record is in the log before what it says is told to anyone.
//! - The bytes that wait to be written are in the log before they are written, and a record before each write says that
//!   it begins. After a kill in between nobody knows whether the agent has them: they are not written again, and a
//!   prompt among them ends its turn with a word.
//! - A turn stays in the log until its reply was delivered ([`super::AgentCommand::Settled`]).
//!
//! What is read from the pipe is recorded right after the read: a kill between the two loses that piece.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::connection::bytes_as_base64;
use super::{RecoveredTurn, TurnOutcome};
use crate::id::TurnId;
use crate::recovery::RecoveryLog;
use crate::report::Chain;

/// A log that is longer than this, and twice what was left the last time, is folded.
const FOLD_BYTES: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record<'a> {
    /// Everything but what was said.
    State(#[serde(borrow)] &'a RawValue),
    /// What waits is being written.
    Writing,
    /// Something was read: what is not a whole line yet, and what was said.
    Read {
        #[serde(with = "bytes_as_base64")]
        partial: Vec<u8>,
        texts: Vec<(TurnId, String)>,
    },
    /// More of a line that is not whole yet: a line of megabytes is not written anew with every read.
    More(#[serde(with = "bytes_as_base64")] Vec<u8>),
    /// A turn ended.
    Ended(TurnId, TurnOutcome),
    /// A turn's reply was delivered.
    Settled(TurnId),
}

/// What a log says.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// The latest state, as JSON.
    pub(super) state: Option<Box<RawValue>>,
    /// What was read since and is not a whole line.
    pub(super) partial: Option<Vec<u8>>,
    /// The last thing that happened was the beginning of a write.
    pub(super) writing: bool,
    turns: BTreeMap<TurnId, Said>,
}

#[derive(Debug, Default)]
struct Said {
    text: String,
    outcome: Option<TurnOutcome>,
}

impl Folded {
    /// The turns that were not settled.
    pub(super) fn turns(self) -> Vec<RecoveredTurn> {
        let turn = |(turn, Said { text, outcome }): (TurnId, Said)| RecoveredTurn { turn, text, outcome };
        self.turns.into_iter().map(turn).collect()
    }
}

/// The log of one agent. Without memory for one there is none, and nothing is recorded.
#[derive(Debug)]
pub(super) struct AgentLog {
    log: Option<RecoveryLog>,
    fold_at: u64,
}

impl AgentLog {
    /// A new one.
    pub(super) fn create() -> Self {
        let log = RecoveryLog::create("hermes-agent-log");
        Self::of(log)
    }

    /// One that was carried, or left behind.
    pub(super) fn open(fd: Option<OwnedFd>) -> Self {
        match fd {
            Some(fd) => Self::of(RecoveryLog::open(fd)),
            None => Self::create(),
        }
    }

    fn of(log: io::Result<RecoveryLog>) -> Self {
        let log = log.inspect_err(|error| {
            tracing::warn!(error = %Chain(error), "an agent has no recovery log: a kill of the gateway would cost its turns");
        });
        Self { log: log.ok(), fold_at: FOLD_BYTES }
    }

    /// A duplicate of its fd.
    pub(super) fn fd(&self) -> io::Result<Option<OwnedFd>> {
        self.log.as_ref().map(|log| log.as_fd().try_clone_to_owned()).transpose()
    }

    pub(super) fn state(&mut self, state: &RawValue) {
        self.append(&Record::State(state));
        self.fold();
    }

    pub(super) fn writing(&mut self) {
        self.append(&Record::Writing);
    }

    pub(super) fn read(&mut self, partial: &[u8], texts: Vec<(TurnId, String)>) {
        self.append(&Record::Read { partial: partial.to_vec(), texts });
    }

    pub(super) fn more(&mut self, bytes: &[u8]) {
        self.append(&Record::More(bytes.to_vec()));
    }

    pub(super) fn ended(&mut self, turn: TurnId, outcome: &TurnOutcome) {
        self.append(&Record::Ended(turn, outcome.clone()));
    }

    pub(super) fn settled(&mut self, turn: TurnId) {
        self.append(&Record::Settled(turn));
    }

    /// What it says.
    ///
    /// # Errors
    /// Records that cannot be read.
    pub(super) fn folded(&self) -> io::Result<Folded> {
        let mut folded = Folded::default();
        let Some(log) = &self.log else { return Ok(folded) };
        for record in log.records()? {
            let record: Record<'_> = serde_json::from_slice(&record)?;
            folded.writing = matches!(record, Record::Writing);
            match record {
                Record::State(state) => {
                    folded.state = Some(state.to_owned());
                    folded.partial = None;
                }
                Record::Writing => {}
                Record::Read { partial, texts } => {
                    folded.partial = Some(partial);
                    for (turn, text) in texts {
                        folded.turns.entry(turn).or_default().text.push_str(&text);
                    }
                }
                Record::More(bytes) => folded.partial.get_or_insert_default().extend(bytes),
                Record::Ended(turn, outcome) => folded.turns.entry(turn).or_default().outcome = Some(outcome),
                Record::Settled(turn) => drop(folded.turns.remove(&turn)),
            }
        }
        Ok(folded)
    }

    fn append(&mut self, record: &Record<'_>) {
        let Some(log) = &mut self.log else { return };
        let bytes = serde_json::to_vec(record).expect("plain data serialises");
        if let Err(error) = log.append(&bytes) {
            tracing::warn!(error = %Chain(&error), "an agent's recovery log cannot be written and is given up");
            self.log = None;
        }
    }

    /// Keeps it short. Called right after a whole state was written.
    fn fold(&mut self) {
        if self.log.as_ref().is_none_or(|log| log.len_bytes() < self.fold_at) {
            return;
        }
        let folded = match self.folded() {
            Ok(folded) => folded,
            Err(error) => return tracing::warn!(error = %Chain(&error), "an agent's recovery log cannot be folded"),
        };
        let mut records = Vec::new();
        for (turn, Said { text, outcome }) in &folded.turns {
            records.push(Record::Read { partial: Vec::new(), texts: vec![(*turn, text.clone())] });
            records.extend(outcome.clone().map(|outcome| Record::Ended(*turn, outcome)));
        }
        // Last, because what is before it says nothing of the partial line.
        records.extend(folded.state.as_deref().map(Record::State));
        let bytes: Vec<Vec<u8>> =
            records.iter().map(|record| serde_json::to_vec(record).expect("plain data serialises")).collect();
        let Some(log) = &mut self.log else { return };
        if let Err(error) = log.replace(bytes.iter().map(Vec::as_slice)) {
            tracing::warn!(error = %Chain(&error), "an agent's recovery log cannot be folded");
        }
        self.fold_at = FOLD_BYTES.max(log.len_bytes() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("JSON")
    }

    #[test]
    fn a_log_is_taken_over_as_it_was_left_and_folding_changes_nothing() {
        let mut log = AgentLog::create();
        log.state(&raw(r#"{"n":1}"#));
        log.read(b"{\"half", vec![(TurnId(1), "one ".into())]);
        log.ended(TurnId(2), &TurnOutcome::Cancelled);
        log.settled(TurnId(2));
        log.read(b"", vec![(TurnId(1), "two".into()), (TurnId(3), "three".into())]);
        log.ended(TurnId(3), &TurnOutcome::Ended { stop_reason: "end_turn".into() });
        log.state(&raw(r#"{"n":2}"#));
        log.read(b"rest", Vec::new());
        let look = |log: &AgentLog| {
            let folded = log.folded().expect("reads");
            let state = folded.state.as_ref().map(|state| state.get().to_owned());
            (state, folded.partial.clone(), folded.writing, folded.turns())
        };
        let (state, partial, writing, turns) = look(&log);
        assert_eq!((state.as_deref(), partial.as_deref(), writing), (Some(r#"{"n":2}"#), Some(&b"rest"[..]), false));
        let texts: Vec<_> = turns.iter().map(|turn| (turn.turn, turn.text.as_str(), turn.outcome.is_some())).collect();
        assert_eq!(texts, [(TurnId(1), "one two", false), (TurnId(3), "three", true)]);
        log.state(&raw(r#"{"n":3}"#));
        log.writing();
        assert!(look(&log).2, "a write had begun");
        log.state(&raw(r#"{"n":4}"#));
        let before = look(&log);
        log.fold_at = 0;
        log.fold();
        assert_eq!(look(&log), before);
        let taken_over = AgentLog::open(log.fd().expect("duplicates"));
        assert_eq!(look(&taken_over), before);
    }

    #[test]
    fn what_is_no_log_costs_only_the_net() {
        let null = std::fs::File::open("/dev/null").expect("opens");
        let mut log = AgentLog::open(Some(null.into()));
        log.state(&raw("{}"));
        assert!(log.folded().expect("nothing").state.is_none());
        assert!(log.fd().expect("nothing").is_none());
    }
}
