//! What the gateway decides, recorded: all that comes of one event, or of many, in one transaction.
//!
//! **Invariant:** what is to be shown is in the outbox as soon as the store says that its cause is dealt with. So no
//! kill can come between the two.

use rusqlite::{Connection, params};

use super::{EntryId, Pairing, SessionRow, Store, StoreError, meta, pairings};
use crate::chat::{Attachment, Conversation, Notice, OutFile, ReplyEnd};
use crate::clock::UnixMillis;
use crate::id::{PlatformName, SessionId, TurnId};

/// One thing to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A turn is about to be given to an agent; a reply to it begins, in the outbox if its conversation is named.
    Start(TurnId, Option<Conversation>),
    /// A turn is over.
    Finish {
        /// The turn.
        turn: TurnId,
        /// Where its reply is, if that is in the outbox.
        conversation: Option<Conversation>,
        /// All of its text; none if what was said is lost.
        text: Option<String>,
        /// The files in it.
        files: Vec<OutFile>,
        /// How it ended.
        end: ReplyEnd,
    },
    /// A message is dealt with, without a reply: a command that was carried out, or one that is refused.
    Close(TurnId),
    /// A message waits that was dealt with already, with another text and other files: `/retry` becomes the question that
    /// it repeats.
    Requeue(TurnId, String, Vec<Attachment>),
    /// The agent and session of a conversation.
    Session(SessionRow),
    /// A notice is to be shown.
    Notice(Conversation, Notice),
    /// How far a pairing is.
    Pairing(Pairing),
    /// Somebody is forgotten, by platform and id.
    Unpair(PlatformName, String),
    /// A single value, by its key ([`Store::meta`]).
    Meta(&'static str, String),
}

impl Store {
    /// Records these changes, all or none. Returns for each the entry of the outbox that it has made or, for a turn that
    /// had begun before, found.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn change(&self, changes: Vec<Change>) -> Result<Vec<Option<EntryId>>, StoreError> {
        let now = UnixMillis::now();
        self.writer
            .run("record what was decided", move |db| {
                changes.into_iter().map(|change| apply(db, change, now)).collect()
            })
            .await
    }
}

fn apply(db: &Connection, change: Change, now: UnixMillis) -> rusqlite::Result<Option<EntryId>> {
    match change {
        Change::Start(turn, conversation) => {
            set_state(db, turn, "running", now)?;
            return conversation.map(|conversation| begin(db, turn, &conversation, now)).transpose();
        }
        Change::Finish { turn, conversation, text, files, end } => {
            set_state(db, turn, "done", now)?;
            let entry = conversation.map(|conversation| begin(db, turn, &conversation, now)).transpose()?;
            let end = serde_json::to_string(&end).expect("plain data serialises");
            let files = (!files.is_empty()).then(|| serde_json::to_string(&files).expect("plain data serialises"));
            db.prepare_cached(
                "UPDATE outbox SET text = ?2, ending = ?3, updated_ms = ?4, files = ?5
                 WHERE turn = ?1 AND state IN ('pending', 'attempting')",
            )?
            .execute(params![turn.0, text, end, now.0, files])?;
            return Ok(entry);
        }
        Change::Close(turn) => set_state(db, turn, "done", now)?,
        Change::Requeue(turn, text, attachments) => {
            let attachments = serde_json::to_string(&attachments).expect("plain data serialises");
            db.prepare_cached(
                "UPDATE inbox SET inbound = json_set(inbound, '$.text', ?2, '$.attachments', json(?4)),
                 state = 'queued', updated_ms = ?3 WHERE id = ?1",
            )?
            .execute(params![turn.0, text, now.0, attachments])?;
        }
        Change::Session(row) => {
            let key = serde_json::to_string(&row.conversation).expect("plain data serialises");
            db.prepare_cached(
                "INSERT OR REPLACE INTO sessions (conversation, agent, session_id, updated_ms) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                key,
                row.agent.as_str(),
                row.session.as_ref().map(SessionId::as_str),
                now.0
            ])?;
        }
        Change::Notice(conversation, Notice { text, choices }) => {
            let key = serde_json::to_string(&conversation).expect("plain data serialises");
            let choices =
                (!choices.is_empty()).then(|| serde_json::to_string(&choices).expect("plain data serialises"));
            db.prepare_cached(
                "INSERT INTO outbox (platform, conversation, text, choices, state, created_ms, updated_ms)
                 VALUES (?1, ?2, ?3, ?4, 'pending', ?5, ?5)",
            )?
            .execute(params![conversation.platform.as_str(), key, text, choices, now.0])?;
            return Ok(Some(EntryId(db.last_insert_rowid())));
        }
        Change::Pairing(pairing) => pairings::put(db, &pairing)?,
        Change::Unpair(platform, user) => pairings::remove(db, &platform, &user)?,
        Change::Meta(key, value) => meta::set(db, key, &value)?,
    }
    Ok(None)
}

fn set_state(db: &Connection, turn: TurnId, state: &str, now: UnixMillis) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE inbox SET state = ?2, updated_ms = ?3 WHERE id = ?1")?
        .execute(params![turn.0, state, now.0])?;
    Ok(())
}

/// Begins the reply to a turn, or finds the one that was begun.
fn begin(db: &Connection, turn: TurnId, conversation: &Conversation, now: UnixMillis) -> rusqlite::Result<EntryId> {
    let key = serde_json::to_string(conversation).expect("plain data serialises");
    db.prepare_cached(
        "INSERT INTO outbox (turn, platform, conversation, state, created_ms, updated_ms)
         VALUES (?1, ?2, ?3, 'pending', ?4, ?4)
         ON CONFLICT (turn) DO UPDATE SET updated_ms = ?4 RETURNING id",
    )?
    .query_row(params![turn.0, conversation.platform.as_str(), key, now.0], |row| Ok(EntryId(row.get(0)?)))
}
