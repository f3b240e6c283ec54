//! The history of handoffs: who, from where, why, from and to which version, how long each phase took, how it ended.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::clock::UnixMillis;
use crate::id::TraceId;

/// Handoffs kept; older ones are dropped as new ones are recorded.
const KEPT: i64 = 1000;

/// One handoff that is over, as the history table and `status` tell it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandoffRecord {
    /// `restart`, `reload` or `update`.
    pub kind: String,
    /// Who asked, for people: a name and platform id, a uid, a signal.
    pub requested_by: String,
    /// Over which way it was asked: `telegram:1001`, `control`, `signal`.
    pub requested_via: String,
    /// The reason the requester gave, if any.
    #[serde(default)]
    pub reason: Option<String>,
    /// The version that ran before.
    pub from_version: String,
    /// SHA-256 of the image that ran before, lower-case hex.
    pub from_sha256: String,
    /// The version asked for.
    pub to_version: String,
    /// SHA-256 of the image asked for, lower-case hex.
    pub to_sha256: String,
    /// The generation that runs now.
    pub generation: u64,
    /// Running turns that were carried over.
    pub turns_carried: usize,
    /// Agents that were carried over.
    pub agents_carried: usize,
    /// When it was asked for.
    pub started_at: UnixMillis,
    /// Each phase that was passed and how long it took, in microseconds, in order.
    pub phases_us: Vec<(String, u64)>,
    /// `serving` while on probation, `committed`, or what went wrong.
    pub outcome: String,
    /// The trace under which the journal and exported spans have it.
    #[serde(default)]
    pub trace_id: Option<TraceId>,
}

impl Store {
    /// Adds a handoff to the history and returns its row.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn record_handoff(&self, record: &HandoffRecord) -> Result<i64, StoreError> {
        let body = serde_json::to_string(record).expect("plain data serialises");
        let now = UnixMillis::now();
        self.writer
            .run("record a handoff", move |db| {
                db.execute("INSERT INTO handoffs (record, ended_ms) VALUES (?1, ?2)", params![body, now.0])?;
                let row = db.last_insert_rowid();
                db.execute("DELETE FROM handoffs WHERE id <= ?1 - ?2", [row, KEPT])?;
                Ok(row)
            })
            .await
    }

    /// Changes how a recorded handoff ended, for example from `serving` to `committed`.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn set_handoff_outcome(&self, row: i64, outcome: &str) -> Result<(), StoreError> {
        let outcome = outcome.to_owned();
        self.writer
            .run("record how a handoff ended", move |db| {
                db.execute(
                    "UPDATE handoffs SET record = json_set(record, '$.outcome', ?2) WHERE id = ?1",
                    params![row, outcome],
                )?;
                Ok(())
            })
            .await
    }

    /// Gives every handoff that is recorded as `serving` this outcome: the process that served is gone. Returns how many
    /// there were.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn close_handoffs(&self, outcome: String) -> Result<usize, StoreError> {
        self.writer
            .run("record how a handoff ended", move |db| {
                db.execute(
                    "UPDATE handoffs SET record = json_set(record, '$.outcome', ?1)
                     WHERE json_extract(record, '$.outcome') = 'serving'",
                    [outcome],
                )
            })
            .await
    }

    /// The latest handoffs, newest first.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn handoffs(&self, limit: u32) -> Result<Vec<HandoffRecord>, StoreError> {
        let bodies: Vec<String> = self
            .writer
            .run("list the handoffs", move |db| {
                db.prepare("SELECT record FROM handoffs ORDER BY id DESC LIMIT ?1")?
                    .query_map([limit], |row| row.get(0))?
                    .collect()
            })
            .await?;
        bodies
            .iter()
            .map(|body| serde_json::from_str(body))
            .collect::<Result<_, _>>()
            .map_err(|source| StoreError::Corrupt { what: "a handoff record", source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_history_is_newest_first_and_an_outcome_can_be_added() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        let record = |generation| HandoffRecord {
            kind: "restart".into(),
            requested_by: "Ann".into(),
            requested_via: "telegram:1".into(),
            reason: None,
            from_version: "1.0.0".into(),
            from_sha256: "aa".into(),
            to_version: "1.0.0".into(),
            to_sha256: "aa".into(),
            generation,
            turns_carried: 1,
            agents_carried: 1,
            started_at: UnixMillis(1),
            phases_us: vec![("preflight".into(), 3)],
            outcome: "serving".into(),
            trace_id: None,
        };
        let first = store.record_handoff(&record(1)).await.expect("records");
        store.record_handoff(&record(2)).await.expect("records");
        store.set_handoff_outcome(first, "committed").await.expect("records");
        let committed = HandoffRecord { outcome: "committed".into(), ..record(1) };
        assert_eq!(store.handoffs(10).await.expect("lists"), [record(2), committed]);
        assert_eq!(store.handoffs(1).await.expect("lists"), [record(2)]);
        store.close_handoffs("stopped".into()).await.expect("records");
        let outcomes: Vec<_> = store.handoffs(2).await.expect("lists").into_iter().map(|h| h.outcome).collect();
        assert_eq!(outcomes, ["stopped", "committed"]);
    }
}
