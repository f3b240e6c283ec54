//! Messages as they were accepted, and how far their turns have come.

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::chat::Inbound;
use crate::clock::UnixMillis;
use crate::fault::{self, Point};
use crate::id::TurnId;

/// How long a message is kept once it is done, in milliseconds: for as long a platform may send it again and be told
/// that it is a duplicate.
const KEPT_MS: i64 = 7 * 24 * 3600 * 1000;
/// Old messages are looked for each time that so many were stored.
const PRUNE_EVERY: i64 = 256;

/// What became of a message that was offered to the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Stored under this id, for the first time.
    New(TurnId),
    /// The (platform, account, message id) was stored before: to be confirmed to the platform and dropped.
    Duplicate,
}

/// How far the turn of a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnState {
    /// Stored, and not yet given to an agent.
    Queued,
    /// Given to an agent.
    Running,
    /// Over: answered, refused, or a command that was carried out.
    Done,
}

impl TurnState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
        }
    }
}

/// A turn that was not over when the store was last written.
#[derive(Clone, Debug)]
pub struct OpenTurn {
    /// Its id.
    pub turn: TurnId,
    /// The message that asked for it.
    pub inbound: Inbound,
    /// Whether an agent had it already.
    pub running: bool,
    /// When it was stored.
    pub received_at: UnixMillis,
}

impl Store {
    /// Stores a message durably, unless it was stored before. After `Ok` the platform may be told that it arrived.
    ///
    /// # Errors
    /// Any [`StoreError`]; the message must then not be confirmed.
    pub async fn accept(&self, inbound: &Inbound) -> Result<Accepted, StoreError> {
        let inbound = inbound.clone();
        let now = UnixMillis::now();
        self.writer
            .run("accept a message", move |db| {
                let body = serde_json::to_string(&inbound).expect("plain data serialises");
                let mut insert = db.prepare_cached(
                    "INSERT INTO inbox (platform, account, message_id, inbound, state, received_ms, updated_ms)
                     VALUES (?1, ?2, ?3, ?4, 'queued', ?5, ?5) ON CONFLICT DO NOTHING RETURNING id",
                )?;
                let platform = inbound.conversation.platform.as_str();
                let id: Option<i64> = insert
                    .query_row(params![platform, inbound.account, inbound.message_id, body, now.0], |row| row.get(0))
                    .optional()?;
                if id.is_some_and(|id| id % PRUNE_EVERY == 0) {
                    prune(db, UnixMillis(now.0 - KEPT_MS))?;
                }
                Ok(id.map_or(Accepted::Duplicate, |id| Accepted::New(TurnId(id))))
            })
            .await
            .inspect(|_| fault::at(Point::Stored))
    }

    /// Records how far a turn has come.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn set_turn_state(&self, turn: TurnId, state: TurnState) -> Result<(), StoreError> {
        let now = UnixMillis::now();
        self.writer
            .run("record a turn's state", move |db| {
                db.prepare_cached("UPDATE inbox SET state = ?2, updated_ms = ?3 WHERE id = ?1")?.execute(params![
                    turn.0,
                    state.as_str(),
                    now.0
                ])?;
                Ok(())
            })
            .await
    }

    /// Makes a message wait that was dealt with already, and gives it another text: `/retry` becomes the question that
    /// it repeats.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn requeue(&self, turn: TurnId, text: String) -> Result<(), StoreError> {
        let now = UnixMillis::now();
        self.writer
            .run("record a turn's text", move |db| {
                db.execute(
                    "UPDATE inbox SET inbound = json_set(inbound, '$.text', ?2), state = 'queued', updated_ms = ?3
                     WHERE id = ?1",
                    params![turn.0, text, now.0],
                )?;
                Ok(())
            })
            .await
    }

    /// The turns that are not over, oldest first: what a gateway that was killed takes up again.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn open_turns(&self) -> Result<Vec<OpenTurn>, StoreError> {
        let rows: Vec<(i64, String, String, i64)> = self
            .writer
            .run("list the open turns", |db| {
                db.prepare(
                    "SELECT id, inbound, state, received_ms FROM inbox WHERE state IN ('queued', 'running') ORDER BY id",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
                .collect()
            })
            .await?;
        rows.into_iter()
            .map(|(id, body, state, received_ms)| {
                let inbound = serde_json::from_str(&body)
                    .map_err(|source| StoreError::Corrupt { what: "a stored message", source })?;
                let received_at = UnixMillis(received_ms);
                Ok(OpenTurn { turn: TurnId(id), inbound, running: state == "running", received_at })
            })
            .collect()
    }

    /// The message that asked for `turn`, if it is still kept.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn inbound(&self, turn: TurnId) -> Result<Option<Inbound>, StoreError> {
        let body: Option<String> = self
            .writer
            .run("read a message", move |db| {
                db.query_row("SELECT inbound FROM inbox WHERE id = ?1", [turn.0], |row| row.get(0)).optional()
            })
            .await?;
        body.map(|body| serde_json::from_str(&body))
            .transpose()
            .map_err(|source| StoreError::Corrupt { what: "a stored message", source })
    }

    /// Where a platform's intake stands, for example a Telegram offset.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn cursor(&self, platform: &str, account: &str) -> Result<Option<String>, StoreError> {
        let (platform, account) = (platform.to_owned(), account.to_owned());
        self.writer
            .run("read a cursor", move |db| {
                let query = "SELECT value FROM cursors WHERE platform = ?1 AND account = ?2";
                db.query_row(query, [platform, account], |row| row.get(0)).optional()
            })
            .await
    }

    /// Records where a platform's intake stands.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn set_cursor(&self, platform: &str, account: &str, value: &str) -> Result<(), StoreError> {
        let (platform, account, value) = (platform.to_owned(), account.to_owned(), value.to_owned());
        self.writer
            .run("record a cursor", move |db| {
                db.prepare_cached("INSERT OR REPLACE INTO cursors (platform, account, value) VALUES (?1, ?2, ?3)")?
                    .execute([platform, account, value])?;
                Ok(())
            })
            .await
    }
}

/// Forgets messages that are done and were stored before `limit`, some of the oldest.
fn prune(db: &Connection, limit: UnixMillis) -> rusqlite::Result<()> {
    db.execute(
        "DELETE FROM inbox WHERE id IN (
             SELECT id FROM (SELECT id, state, received_ms FROM inbox ORDER BY id LIMIT ?1)
             WHERE state = 'done' AND received_ms < ?2)",
        params![4 * PRUNE_EVERY, limit.0],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Conversation, Sender};

    fn message(id: &str) -> Inbound {
        Inbound {
            conversation: Conversation::new("telegram", "7"),
            account: "bot".into(),
            message_id: id.into(),
            sender: Sender { id: "1".into(), name: "Ann".into() },
            sent_at: UnixMillis(5),
            text: "hello".into(),
        }
    }

    #[tokio::test]
    async fn a_message_is_accepted_once_also_by_a_store_opened_later() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("state.db");
        let store = Store::open(&path).expect("opens");
        let Accepted::New(turn) = store.accept(&message("1")).await.expect("accepts") else { panic!("a new message") };
        assert_eq!(store.accept(&message("1")).await.expect("accepts"), Accepted::Duplicate);
        let later = Store::open(&path).expect("opens again");
        assert_eq!(later.accept(&message("1")).await.expect("accepts"), Accepted::Duplicate);
        assert_eq!(later.inbound(turn).await.expect("reads"), Some(message("1")));
    }

    #[tokio::test]
    async fn open_turns_are_those_not_done_in_order_of_arrival() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        let mut turns = Vec::new();
        for id in ["a", "b", "c"] {
            let Accepted::New(turn) = store.accept(&message(id)).await.expect("accepts") else { panic!("new") };
            turns.push(turn);
        }
        store.set_turn_state(turns[0], TurnState::Done).await.expect("records");
        store.set_turn_state(turns[1], TurnState::Running).await.expect("records");
        let open: Vec<_> = store.open_turns().await.expect("lists").iter().map(|t| (t.turn, t.running)).collect();
        assert_eq!(open, [(turns[1], true), (turns[2], false)]);
        // `/retry` is a message of its own that becomes the question it repeats.
        store.requeue(turns[0], "again, with \"quotes\"".into()).await.expect("records");
        let open = store.open_turns().await.expect("lists");
        assert_eq!((open[0].turn, open[0].running), (turns[0], false));
        assert_eq!(open[0].inbound, Inbound { text: "again, with \"quotes\"".into(), ..message("a") });
    }

    #[tokio::test]
    async fn old_messages_that_are_done_are_forgotten() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        let mut turns = Vec::new();
        for id in ["done", "open"] {
            let Accepted::New(turn) = store.accept(&message(id)).await.expect("accepts") else { panic!("new") };
            turns.push(turn);
        }
        store.set_turn_state(turns[0], TurnState::Done).await.expect("records");
        for (limit, kept) in [(0, true), (UnixMillis::now().0 + 1, false)] {
            store.writer.run("prune", move |db| prune(db, UnixMillis(limit))).await.expect("prunes");
            assert_eq!(store.inbound(turns[0]).await.expect("reads").is_some(), kept);
            assert!(store.inbound(turns[1]).await.expect("reads").is_some(), "what is open is kept");
        }
        assert_eq!(store.accept(&message("open")).await.expect("accepts"), Accepted::Duplicate);
    }
}
