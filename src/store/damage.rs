//! A database that is damaged is set aside, so that the gateway serves: what waited in it is lost, and is there to be
//! looked into (sqlite3's `.recover`).
//!
//! **Invariant:** nothing is deleted. What is set aside keeps its write-ahead log beside it, under the same name.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use super::{StoreError, schema};
use crate::clock::UnixMillis;

/// How long the check may hold up a start. A check of what a bot in daily use has takes a tenth of it.
const CHECK_MAX: Duration = Duration::from_secs(2);

/// Opens the database after checking it as a whole, or a new one in the place of a damaged one. Returns with it where
/// the damaged one is.
///
/// # Errors
/// As [`super::Store::open`]; also if a damaged database cannot be renamed.
pub(super) fn open(path: &Path) -> Result<(Connection, Option<PathBuf>), StoreError> {
    let damaged = match schema::open(path).and_then(|connection| check(path, connection)) {
        Ok(connection) => return Ok((connection, None)),
        Err(error) if is_damage(&error) => error,
        Err(error) => return Err(error),
    };
    let aside = set_aside(path).map_err(|source| StoreError::SetAside { path: path.to_owned(), source })?;
    tracing::error!(error = %crate::report::Chain(&damaged), aside = %aside.display(), "the database is damaged and was set aside");
    Ok((schema::open(path)?, Some(aside)))
}

/// Checks a database as a whole without writing to it, and without a bound: for somebody who asks. None is not damaged.
///
/// # Errors
/// [`StoreError::Damaged`], [`StoreError::Open`], [`StoreError::TooNew`].
pub(super) fn look(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    let Some(connection) = schema::open_to_read(path)? else { return Ok(()) };
    let word: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if word != "ok" {
        return Err(StoreError::Damaged { path: path.to_owned(), problem: word });
    }
    match schema::missing_table(&connection).map_err(failed)? {
        Some(table) => Err(StoreError::Damaged { path: path.to_owned(), problem: format!("it has no table {table}") }),
        None => Ok(()),
    }
}

fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Damaged { .. } => true,
        StoreError::Open { source, .. } => {
            matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        }
        _ => false,
    }
}

/// PRAGMA quick_check: everything but whether indices match their tables.
fn check(path: &Path, connection: Connection) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    let interrupt = connection.get_interrupt_handle();
    let (done, is_done) = channel::<()>();
    let watch = std::thread::spawn(move || {
        if is_done.recv_timeout(CHECK_MAX) == Err(RecvTimeoutError::Timeout) {
            interrupt.interrupt();
        }
    });
    let found: rusqlite::Result<String> = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    drop(done);
    // It has nothing left to wait for. It panics only if the handle does.
    drop(watch.join());
    match found {
        Ok(word) if word == "ok" => {}
        Ok(problem) => return Err(StoreError::Damaged { path: path.to_owned(), problem }),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            tracing::warn!(
                limit_ms = CHECK_MAX.as_millis(),
                "the database is too large to be checked as a whole at a start"
            );
        }
        Err(error) => return Err(failed(error)),
    }
    match schema::missing_table(&connection).map_err(failed)? {
        None => Ok(connection),
        Some(table) => {
            let problem = format!("it has no table '{table}'");
            Err(StoreError::Damaged { path: path.to_owned(), problem })
        }
    }
}

fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let with = |path: &Path, end: &str| {
        let mut name = OsString::from(path);
        name.push(end);
        PathBuf::from(name)
    };
    let mut aside = with(path, &format!(".damaged-{}", UnixMillis::now().0 / 1000));
    while aside.exists() {
        aside = with(&aside, "+");
    }
    for end in ["-wal", "-shm", ""] {
        match std::fs::rename(with(path, end), with(&aside, end)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A database of a few hundred pages.
    fn database(dir: &Path) -> PathBuf {
        let path = dir.join("state.db");
        let db = schema::open(&path).expect("a new database");
        for n in 0..200 {
            let filler = "x".repeat(4000);
            db.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", (n.to_string(), filler)).expect("inserts");
        }
        path
    }

    fn damage(path: &Path, offset: u64) {
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("opens");
        file.write_all_at(&[0xa5; 8192], offset).expect("writes");
    }

    #[test]
    fn a_sound_database_is_opened_as_it_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = database(dir.path());
        let (db, aside) = open(&path).expect("opens");
        assert_eq!(aside, None);
        assert_eq!(db.query_row("SELECT count(*) FROM meta WHERE key < ':'", [], |row| row.get(0)), Ok(200));
    }

    #[test]
    fn whatever_is_damaged_is_set_aside_and_the_place_is_taken_by_a_new_one() {
        let garbage: fn(&Path) = |path| std::fs::write(path, vec![b'x'; 8192]).expect("writes");
        let header: fn(&Path) = |path| damage(path, 0);
        let middle: fn(&Path) = |path| damage(path, 100 * 4096);
        let table: fn(&Path) = |path| {
            let db = Connection::open(path).expect("opens");
            db.execute_batch("DROP TABLE outbox").expect("drops");
        };
        for (what, damage) in [("garbage", garbage), ("header", header), ("middle", middle), ("table", table)] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let path = database(dir.path());
            damage(&path);
            let was = std::fs::read(&path).expect("reads");
            let (db, aside) = open(&path).unwrap_or_else(|error| panic!("{what}: {error:?}"));
            let aside = aside.unwrap_or_else(|| panic!("{what} was not seen"));
            assert_eq!(std::fs::read(&aside).expect("it is there"), was, "{what}");
            assert!(aside.to_string_lossy().contains("state.db.damaged-"));
            assert_eq!(schema::missing_table(&db), Ok(None), "{what}");
        }
    }

    #[test]
    fn a_second_damage_within_a_second_takes_no_place_of_the_first() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("state.db");
        let mut asides: Vec<PathBuf> = (0..2)
            .map(|_| {
                std::fs::write(&path, vec![b'x'; 8192]).expect("writes");
                open(&path).expect("opens").1.expect("set aside")
            })
            .collect();
        asides.dedup();
        assert_eq!(asides.len(), 2);
    }
}
