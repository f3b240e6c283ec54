//! The history of handoffs: who, from where, why, from and to which version, how long each phase took, how it ended.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::clock::UnixMillis;

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
    /// `committed`, or what went wrong.
    pub outcome: String,
}

impl Store {
    /// Adds a handoff to the history.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn record_handoff(&self, record: &HandoffRecord) -> Result<(), StoreError> {
        let body = serde_json::to_string(record).expect("plain data serialises");
        let now = UnixMillis::now();
        self.writer
            .run("record a handoff", move |db| {
                db.execute("INSERT INTO handoffs (record, ended_ms) VALUES (?1, ?2)", params![body, now.0])?;
                db.execute("DELETE FROM handoffs WHERE id <= (SELECT MAX(id) FROM handoffs) - ?1", [KEPT])?;
                Ok(())
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
