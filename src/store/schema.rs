//! The tables, and how a database of any earlier version comes to have them.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;

/// The schema this image writes; kept in SQLite's `user_version`.
pub const SCHEMA_VERSION: i64 = 1;

/// How long SQLite waits for another process's lock: the preflight child and the CLI read while the gateway writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages in the write-ahead log after which they go into the database. Whoever opens the database first, and that is
/// every new image, reads the whole log: a quarter of SQLite's default keeps that under a millisecond.
const CHECKPOINT_PAGES: u32 = 250;

const V1: &str = "
CREATE TABLE inbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    platform     TEXT NOT NULL,
    account      TEXT NOT NULL,
    message_id   TEXT NOT NULL,
    inbound      TEXT NOT NULL,
    state        TEXT NOT NULL,
    received_ms  INTEGER NOT NULL,
    updated_ms   INTEGER NOT NULL,
    UNIQUE (platform, account, message_id)
);
CREATE INDEX inbox_open ON inbox (state) WHERE state IN ('queued', 'running');
CREATE TABLE sessions (
    conversation TEXT PRIMARY KEY,
    agent        TEXT NOT NULL,
    session_id   TEXT,
    updated_ms   INTEGER NOT NULL
);
CREATE TABLE cursors (
    platform TEXT NOT NULL,
    account  TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (platform, account)
);
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
CREATE TABLE handoffs (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    record    TEXT NOT NULL,
    ended_ms  INTEGER NOT NULL
);
";

pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};"
        ))
        .map_err(failed)?;
    let found = version(&connection).map_err(failed)?;
    refuse_newer(path, found)?;
    if found < SCHEMA_VERSION {
        let migration = connection.transaction().map_err(failed)?;
        if found < 1 {
            migration.execute_batch(V1).map_err(failed)?;
        }
        migration.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)?;
        migration.commit().map_err(failed)?;
    }
    Ok(connection)
}

pub(super) fn inspect(path: &Path) -> Result<i64, StoreError> {
    if !path.exists() {
        return Ok(0);
    }
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    let found = version(&connection).map_err(failed)?;
    refuse_newer(path, found)?;
    Ok(found)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn refuse_newer(path: &Path, found: i64) -> Result<(), StoreError> {
    if found > SCHEMA_VERSION {
        return Err(StoreError::TooNew { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_schema_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("state.db");
        drop(open(&path).expect("a new database"));
        let later = Connection::open(&path).expect("opens");
        later.pragma_update(None, "user_version", SCHEMA_VERSION + 1).expect("writes");
        drop(later);
        assert!(matches!(open(&path), Err(StoreError::TooNew { found, .. }) if found == SCHEMA_VERSION + 1));
        assert!(matches!(inspect(&path), Err(StoreError::TooNew { .. })));
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("state.db");
        std::fs::write(&path, vec![b'x'; 8192]).expect("writes");
        assert!(matches!(open(&path), Err(StoreError::Open { .. })));
        assert!(matches!(inspect(&path), Err(StoreError::Open { .. })));
    }
}
