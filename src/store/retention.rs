//! How long things are kept, and how many of them at the most.
//!
//! | what | how long | at the most |
//! |---|---|---|
//! | messages that are done, so that one that comes again is known | [`DONE_DAYS`] | [`DONE_MAX`] |
//! | deliveries that are over, as a ledger without texts | [`DONE_DAYS`] | [`DONE_MAX`] |
//! | chats where nobody can be reached, or that have moved | [`TARGET_DAYS`] | |
//! | what is needed to answer in a chat | [`SESSION_DAYS`] since its last message | |
//! | files in the answers to messages | as long as the message or its answer is known here | |
//! | files that came with messages (`daemon::attachments`) | as long as their messages | 4 GiB, looked at once a day |
//! | what was said on the platform `web` | [`TRANSCRIPT_DAYS`] | [`TRANSCRIPT_MAX`] messages |
//! | sessions of conversations | [`SESSION_DAYS`] since the last change | [`SESSIONS_MAX`] |
//!
//! **Invariant:** what is not over is kept. It is bounded by what makes it: platforms are not asked for more while
//! too much waits.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::{Store, StoreError};
use crate::clock::UnixMillis;
use crate::id::TurnId;

/// Old rows are looked for each time that so many messages were stored.
pub(super) const EVERY: i64 = 256;
/// Telegram keeps an update for a day; DingTalk and Weixin repeat within minutes.
const DONE_DAYS: i64 = 7;
const DONE_MAX: i64 = 1_000_000;
const TARGET_DAYS: i64 = 30;
const SESSION_DAYS: i64 = 365;
const SESSIONS_MAX: i64 = 100_000;
const TRANSCRIPT_DAYS: i64 = 30;
const TRANSCRIPT_MAX: i64 = 100_000;
/// Rows that one pass looks at in a table, so that no commit takes long: more than come between two passes.
const PASS: i64 = 4 * EVERY;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// Forgets what is too old or too much, some of the oldest.
pub(super) fn prune(db: &Connection, now: UnixMillis) -> rusqlite::Result<()> {
    let before = |days: i64| now.0.saturating_sub(days * DAY_MS);
    db.prepare_cached(
        "DELETE FROM inbox WHERE id IN (SELECT id FROM (SELECT id, state, received_ms FROM inbox ORDER BY id LIMIT ?1)
         WHERE state = 'done' AND (received_ms < ?2 OR id < (SELECT max(id) FROM inbox) - ?3))",
    )?
    .execute(params![PASS, before(DONE_DAYS), DONE_MAX])?;
    db.prepare_cached(
        "DELETE FROM outbox WHERE id IN (SELECT id FROM (SELECT id, state, updated_ms FROM outbox ORDER BY id LIMIT ?1)
         WHERE state NOT IN ('pending', 'attempting')
         AND (updated_ms < ?2 OR id < (SELECT max(id) FROM outbox) - ?3))",
    )?
    .execute(params![PASS, before(DONE_DAYS), DONE_MAX])?;
    db.prepare_cached("DELETE FROM targets WHERE since_ms < ?1")?.execute([before(TARGET_DAYS)])?;
    db.prepare_cached("DELETE FROM contexts WHERE updated_ms < ?1")?.execute([before(SESSION_DAYS)])?;
    db.prepare_cached(
        "DELETE FROM sessions WHERE updated_ms < ?1 OR rowid IN (
             SELECT rowid FROM sessions ORDER BY updated_ms LIMIT max(0, (SELECT count(*) FROM sessions) - ?2))",
    )?
    .execute([before(SESSION_DAYS), SESSIONS_MAX])?;
    db.prepare_cached(
        "DELETE FROM transcript WHERE number IN (
             SELECT number FROM (SELECT number, created_ms FROM transcript ORDER BY number LIMIT ?1)
             WHERE created_ms < ?2 OR number < (SELECT max(number) FROM transcript) - ?3)",
    )?
    .execute(params![PASS, before(TRANSCRIPT_DAYS), TRANSCRIPT_MAX])?;
    Ok(())
}

impl Store {
    /// Which of these turns something is known of, and whether the messages that they answer are dealt with. What was kept
    /// for the others is of no use.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn known_turns(&self, turns: Vec<TurnId>) -> Result<BTreeMap<TurnId, bool>, StoreError> {
        let asked = serde_json::json!(turns).to_string();
        self.writer
            .run("look for turns", move |db| {
                // One pass over the outbox, which has no index for this.
                let mut look = db.prepare_cached(
                    "WITH asked (turn) AS (SELECT value FROM json_each(?1)),
                     known (turn) AS (SELECT inbox.id FROM inbox WHERE inbox.id IN (SELECT asked.turn FROM asked)
                                      UNION SELECT outbox.turn FROM outbox
                                      WHERE outbox.turn IN (SELECT asked.turn FROM asked))
                     SELECT turn, coalesce((SELECT state = 'done' FROM inbox WHERE id = turn), TRUE) FROM known",
                )?;
                let rows = look.query_map([&asked], |row| Ok((TurnId(row.get(0)?), row.get(1)?)))?;
                rows.collect()
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;

    /// A database with one row of each kind, `days` old.
    fn with_rows(days: i64) -> Connection {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = schema::open(&dir.path().join("state.db")).expect("opens");
        let then = UnixMillis::now().0 - days * DAY_MS;
        db.execute_batch(&format!(
            "INSERT INTO inbox (platform, account, message_id, inbound, state, received_ms, updated_ms)
             VALUES ('p', 'a', 'done', '', 'done', {then}, {then}), ('p', 'a', 'open', '', 'queued', {then}, {then});
             INSERT INTO outbox (platform, conversation, state, created_ms, updated_ms)
             VALUES ('p', '', 'delivered', {then}, {then}), ('p', '', 'attempting', {then}, {then});
             INSERT INTO targets VALUES ('p', '1', NULL, '', {then});
             INSERT INTO sessions VALUES ('c', 'default', NULL, {then});
             INSERT INTO transcript (chat, body, created_ms) VALUES ('owner', '', {then});"
        ))
        .expect("inserts");
        db
    }

    fn counts(db: &Connection) -> [i64; 5] {
        ["inbox", "outbox", "targets", "sessions", "transcript"]
            .map(|table| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("counts"))
    }

    #[test]
    fn what_is_over_goes_when_its_time_has_come_and_what_is_open_stays() {
        for (days, left) in [(0, [2, 2, 1, 1, 1]), (8, [1, 1, 1, 1, 1]), (31, [1, 1, 0, 1, 0]), (366, [1, 1, 0, 0, 0])]
        {
            let db = with_rows(days);
            prune(&db, UnixMillis::now()).expect("prunes");
            assert_eq!(counts(&db), left, "after {days} days");
        }
    }
}
