//! The tables, and how a database of any earlier version comes to have them.
//!
//! **Invariant:** a step that only adds leaves SQLite's `user_version` as it is: that is the version that a reader must
//! know, so the previous image still reads what this one wrote. How many steps were taken is in `meta`.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::StoreError;

/// The schema that this image writes.
pub const SCHEMA_VERSION: i64 = 5;

/// How long SQLite waits for another process's lock: the preflight child and the CLI read while the gateway writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages in the write-ahead log after which they go into the database. Whoever opens the database first, and that is
/// every new image, reads the whole log: a quarter of SQLite's default keeps that under a millisecond.
const CHECKPOINT_PAGES: u32 = 250;

/// The key in `meta` of the last step that was taken.
const STEP_KEY: &str = "schema";

/// One version's change to the one before.
struct Step {
    version: i64,
    sql: &'static [&'static str],
    /// What a reader must know after it.
    read_by: i64,
}

/// All of them, in order. `tests/data` has a database of each.
const STEPS: &[Step] = &[
    Step { version: 1, sql: &[V1], read_by: 1 },
    Step { version: 2, sql: &[V2], read_by: 1 },
    Step { version: 3, sql: &[V3, PAIRINGS], read_by: 1 },
    Step { version: 4, sql: &[V4], read_by: 1 },
    Step { version: 5, sql: &[V5], read_by: 1 },
];

/// What there is after all steps.
const TABLES: &[&str] = &[
    "inbox",
    "sessions",
    "cursors",
    "meta",
    "handoffs",
    "outbox",
    "parts",
    "targets",
    "contexts",
    "pairings",
    "transcript",
];

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

const V2: &str = "
CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    turn         INTEGER UNIQUE,
    platform     TEXT NOT NULL,
    conversation TEXT NOT NULL,
    text         TEXT,
    ending       TEXT,
    state        TEXT NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    error        TEXT,
    created_ms   INTEGER NOT NULL,
    updated_ms   INTEGER NOT NULL
);
CREATE INDEX outbox_open ON outbox (platform) WHERE state IN ('pending', 'attempting');
CREATE TABLE parts (
    entry      INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
    number     INTEGER NOT NULL,
    start      INTEGER NOT NULL,
    marked     INTEGER NOT NULL,
    message_id TEXT,
    PRIMARY KEY (entry, number)
) WITHOUT ROWID;
CREATE TABLE targets (
    platform TEXT NOT NULL,
    chat     TEXT NOT NULL,
    moved_to TEXT,
    error    TEXT,
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (platform, chat)
) WITHOUT ROWID;
";

const V3: &str = "
ALTER TABLE parts ADD COLUMN length INTEGER;
ALTER TABLE outbox ADD COLUMN choices TEXT;
CREATE TABLE contexts (
    platform   TEXT NOT NULL,
    account    TEXT NOT NULL,
    chat       TEXT NOT NULL,
    value      TEXT NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (platform, account, chat)
) WITHOUT ROWID;
";

/// A part of version 3. Somebody who has a code has asked; somebody without was let in.
const PAIRINGS: &str = "
CREATE TABLE pairings (
    platform     TEXT NOT NULL,
    user         TEXT NOT NULL,
    name         TEXT NOT NULL,
    conversation TEXT NOT NULL,
    code         TEXT,
    since_ms     INTEGER NOT NULL,
    told_ms      INTEGER NOT NULL,
    PRIMARY KEY (platform, user)
) WITHOUT ROWID;
";

/// Files in answers.
const V4: &str = "
ALTER TABLE outbox ADD COLUMN files TEXT;
ALTER TABLE parts ADD COLUMN file INTEGER;
";

/// What chats say whose messages the gateway itself keeps.
const V5: &str = "
CREATE TABLE transcript (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    chat       TEXT NOT NULL,
    key        TEXT UNIQUE,
    body       TEXT NOT NULL,
    created_ms INTEGER NOT NULL
);
CREATE INDEX transcript_chat ON transcript (chat, number);
";

pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    // Made for its owner alone, whatever the umask; SQLite gives its log the same mode. What fails here fails there, too.
    drop(OpenOptions::new().append(true).create(true).mode(0o600).open(path));
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};"
        ))
        .map_err(failed)?;
    refuse_newer(path, read_by(&connection).map_err(failed)?)?;
    migrate(&mut connection).map_err(failed)?;
    Ok(connection)
}

/// Takes the steps that were not taken yet, all or none. What a later image has added stays.
fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let taken = step(connection)?;
    let missing = STEPS.iter().filter(|step| step.version > taken);
    let Some(last) = missing.clone().next_back() else { return Ok(()) };
    let migration = connection.transaction()?;
    missing.flat_map(|step| step.sql).try_for_each(|sql| migration.execute_batch(sql))?;
    migration
        .execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", (STEP_KEY, last.version.to_string()))?;
    migration.pragma_update(None, "user_version", last.read_by)?;
    migration.commit()
}

/// Opens a database that is to be left as it is; none if there is none.
pub(super) fn open_to_read(path: &Path) -> Result<Option<Connection>, StoreError> {
    if !path.exists() {
        return Ok(None);
    }
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    refuse_newer(path, read_by(&connection).map_err(failed)?)?;
    Ok(Some(connection))
}

/// What a reader of the database must know; 0 if there is none.
pub(super) fn inspect(path: &Path) -> Result<i64, StoreError> {
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    open_to_read(path)?.map_or(Ok(0), |connection| read_by(&connection).map_err(failed))
}

/// A table that should be there and is not.
pub(super) fn missing_table(connection: &Connection) -> rusqlite::Result<Option<&'static str>> {
    let mut query = connection.prepare("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1")?;
    for table in TABLES.iter().copied() {
        if query.query_row([table], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// What a reader must know.
fn read_by(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// The last step that was taken; 0 for a new database.
fn step(connection: &Connection) -> rusqlite::Result<i64> {
    let read_by = read_by(connection)?;
    if read_by == 0 {
        return Ok(0);
    }
    let query = "SELECT value FROM meta WHERE key = ?1";
    let kept: Option<String> = connection.query_row(query, [STEP_KEY], |row| row.get(0)).optional()?;
    // The first version did not write it down.
    Ok(kept.and_then(|value| value.parse().ok()).unwrap_or(1))
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
    fn what_people_say_is_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _open = open(&dir.path().join("state.db")).expect("a new database");
        for entry in std::fs::read_dir(dir.path()).expect("there").map(|entry| entry.expect("readable")) {
            assert_eq!(entry.metadata().expect("there").permissions().mode() & 0o777, 0o600, "{entry:?}");
        }
    }

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
    fn what_a_later_version_has_only_added_is_read_and_stays() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("state.db");
        let later = open(&path).expect("a new database");
        later.execute_batch("CREATE TABLE addition (n INTEGER); INSERT INTO addition VALUES (7);").expect("adds");
        let next = (SCHEMA_VERSION + 1).to_string();
        later.execute("UPDATE meta SET value = ?2 WHERE key = ?1", (STEP_KEY, &next)).expect("writes");
        drop(later);
        inspect(&path).expect("it can be read");
        let again = open(&path).expect("it can be opened");
        assert_eq!(step(&again), Ok(SCHEMA_VERSION + 1));
        assert_eq!(again.query_row("SELECT n FROM addition", [], |row| row.get::<_, i64>(0)), Ok(7));
    }

    #[test]
    fn the_first_version_becomes_this_one_and_its_readers_still_read_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("state.db");
        let first = Connection::open(&path).expect("opens");
        first.execute_batch(V1).expect("creates");
        first.pragma_update(None, "user_version", 1).expect("writes");
        drop(first);
        let now = open(&path).expect("it is brought to this version");
        assert_eq!((step(&now), read_by(&now)), (Ok(SCHEMA_VERSION), Ok(1)));
        assert_eq!(missing_table(&now), Ok(None));
        let count =
            |name: &str| STEPS.iter().flat_map(|step| step.sql).map(|sql| sql.matches(name).count()).sum::<usize>();
        assert_eq!(count("CREATE TABLE"), TABLES.len());
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
