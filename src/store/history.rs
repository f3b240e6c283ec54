//! The history of handoffs: who, from where, why, from and to which version, how long each phase took, how it ended.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::outbox::open_entries;
use super::{Store, StoreError, meta, schema};
use crate::clock::UnixMillis;
use crate::id::TraceId;

/// Handoffs kept; older ones are dropped as new ones are recorded.
const KEPT: i64 = 1000;

/// The key in `meta` of those that were dropped: how many of each kind and end, as JSON.
const DROPPED_KEY: &str = "handoffs_dropped";

/// How many handoffs of a kind, by [`HandoffRecord::kind`], ended in one way.
pub type HandoffTotals = BTreeMap<(String, HandoffEnd), u64>;

/// The ways in which a handoff ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HandoffEnd {
    /// The new image has proven itself.
    Committed,
    /// It did not, and the one before runs again.
    RolledBack,
    /// The gateway was stopped or replaced before that was known.
    Unproven,
    /// It did not come about.
    Failed,
}

impl HandoffEnd {
    const ALL: [Self; 4] = [Self::Committed, Self::RolledBack, Self::Unproven, Self::Failed];

    /// As programs are told of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::RolledBack => "rolled_back",
            Self::Unproven => "unproven",
            Self::Failed => "failed",
        }
    }

    /// By [`HandoffRecord::outcome`]; none as long as it is not over.
    pub fn of(outcome: &str) -> Option<Self> {
        match outcome {
            "serving" => None,
            "committed" => Some(Self::Committed),
            _ if outcome.starts_with("rolled back") => Some(Self::RolledBack),
            _ if outcome.starts_with("replaced before") || outcome.starts_with("the gateway was stopped") => {
                Some(Self::Unproven)
            }
            _ => Some(Self::Failed),
        }
    }
}

/// What the store says of how the gateway does, read together.
#[derive(Clone, Debug)]
pub struct Glance {
    /// The latest handoffs, newest first.
    pub handoffs: Vec<HandoffRecord>,
    /// All handoffs that are over, also those that the history has dropped.
    pub totals: HandoffTotals,
    /// Entries of the outbox that are not over.
    pub outbox: usize,
}

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
                keep_count(db, row - KEPT)?;
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
        let bodies = self.writer.run("list the handoffs", move |db| latest(db, limit)).await?;
        read(&bodies)
    }

    /// What `status` tells of the store, with `limit` handoffs.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn glance(&self, limit: u32) -> Result<Glance, StoreError> {
        let (bodies, totals, outbox) = self
            .writer
            .run("look at the history", move |db| Ok((latest(db, limit)?, totals(db)?, open_entries(db)?)))
            .await?;
        Ok(Glance { handoffs: read(&bodies)?, totals, outbox })
    }

    /// The history of a gateway that does not run, newest first, without writing to its database.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Sql`], [`StoreError::Corrupt`].
    pub fn read_handoffs(path: &Path, limit: u32) -> Result<Vec<HandoffRecord>, StoreError> {
        let db = schema::open_to_read(path)?;
        let bodies = latest(&db, limit).map_err(|source| StoreError::Sql { what: "list the handoffs", source })?;
        read(&bodies)
    }
}

fn latest(db: &Connection, limit: u32) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached("SELECT record FROM handoffs ORDER BY id DESC LIMIT ?1")?
        .query_map([limit], |row| row.get(0))?
        .collect()
}

fn read(bodies: &[String]) -> Result<Vec<HandoffRecord>, StoreError> {
    let records = bodies.iter().map(|body| serde_json::from_str(body)).collect::<Result<_, _>>();
    records.map_err(|source| StoreError::Corrupt { what: "a handoff record", source })
}

/// Those in the history, up to this row, and those that were dropped from it.
fn count(db: &Connection, up_to: i64) -> rusqlite::Result<HandoffTotals> {
    let mut totals = dropped(db)?;
    let mut rows = db.prepare_cached(
        "SELECT json_extract(record, '$.kind'), json_extract(record, '$.outcome'), count(*) FROM handoffs
         WHERE id <= ?1 GROUP BY 1, 2",
    )?;
    let mut rows = rows.query([up_to])?;
    while let Some(row) = rows.next()? {
        let Some(end) = HandoffEnd::of(&row.get::<_, String>(1)?) else { continue };
        *totals.entry((row.get(0)?, end)).or_default() += u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0);
    }
    Ok(totals)
}

fn totals(db: &Connection) -> rusqlite::Result<HandoffTotals> {
    count(db, i64::MAX)
}

/// Counts those up to this row, which are about to be dropped.
fn keep_count(db: &Connection, up_to: i64) -> rusqlite::Result<()> {
    if up_to <= 0 {
        return Ok(());
    }
    let counted: Vec<_> =
        count(db, up_to)?.into_iter().map(|((kind, end), count)| (kind, end.as_str(), count)).collect();
    meta::set(db, DROPPED_KEY, &serde_json::to_string(&counted).expect("plain data serialises"))
}

/// A value that cannot be read counts as none.
fn dropped(db: &Connection) -> rusqlite::Result<HandoffTotals> {
    let stored = meta::get(db, DROPPED_KEY)?.unwrap_or_default();
    let counted: Vec<(String, String, u64)> = serde_json::from_str(&stored).unwrap_or_default();
    let known = |(kind, end, count): (String, String, u64)| {
        let end = HandoffEnd::ALL.into_iter().find(|known| known.as_str() == end)?;
        Some(((kind, end), count))
    };
    Ok(counted.into_iter().filter_map(known).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(generation: u64) -> HandoffRecord {
        HandoffRecord {
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
        }
    }

    #[tokio::test]
    async fn totals_count_what_the_history_has_dropped() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("state.db");
        let store = Store::open(&path).expect("opens");
        let kept = u64::try_from(KEPT).expect("not negative");
        for number in 0..kept + 7 {
            let outcome = if number % 2 == 0 { "committed" } else { "failed in preflight: no" };
            let one = HandoffRecord { outcome: outcome.into(), ..record(number) };
            store.record_handoff(&one).await.expect("records");
        }
        store.record_handoff(&record(0)).await.expect("records");
        let glance = store.glance(2).await.expect("reads");
        assert_eq!(glance.handoffs.len(), 2);
        let totals = |end| ("restart".to_owned(), end);
        let half = (kept + 7) / 2;
        let expected = [(totals(HandoffEnd::Committed), half + 1), (totals(HandoffEnd::Failed), half)];
        assert_eq!(glance.totals, expected.into(), "one that is not over is not counted");
        let all = Store::read_handoffs(&path, u32::MAX).expect("reads");
        assert_eq!(all.len() as u64, kept);
        assert_eq!(all[0], record(0));
    }

    #[test]
    fn each_outcome_is_an_end_of_its_kind() {
        for (outcome, end) in [
            ("serving", None),
            ("committed", Some(HandoffEnd::Committed)),
            ("rolled back: agent does not start", Some(HandoffEnd::RolledBack)),
            ("replaced before it was healthy", Some(HandoffEnd::Unproven)),
            ("the gateway was stopped before it was committed", Some(HandoffEnd::Unproven)),
            ("failed in preflight: it hangs", Some(HandoffEnd::Failed)),
        ] {
            assert_eq!(HandoffEnd::of(outcome), end, "{outcome}");
        }
    }

    #[tokio::test]
    async fn the_history_is_newest_first_and_an_outcome_can_be_added() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
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
