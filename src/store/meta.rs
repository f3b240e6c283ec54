//! Single values: the highest version ever accepted, and the like.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::{Store, StoreError, schema};

impl Store {
    /// The value kept under `key`.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn meta(&self, key: &'static str) -> Result<Option<String>, StoreError> {
        self.writer.run("read a value", move |db| get(db, key)).await
    }

    /// The values kept under `keys`; those that are there.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn metas(&self, keys: &'static [&'static str]) -> Result<BTreeMap<&'static str, String>, StoreError> {
        self.writer.run("read values", move |db| read(db, keys)).await
    }

    /// The values kept under `keys` in a database that nothing here writes to; none if there is no database.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::TooNew`], [`StoreError::Sql`].
    pub fn peek(path: &Path, keys: &'static [&'static str]) -> Result<BTreeMap<&'static str, String>, StoreError> {
        let Some(db) = schema::open_to_read(path)? else { return Ok(BTreeMap::new()) };
        read(&db, keys).map_err(|source| StoreError::Sql { what: "read values", source })
    }

    /// The value kept under `key`; `value` from now on, if there is none.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn meta_or(&self, key: &'static str, value: String) -> Result<String, StoreError> {
        self.writer
            .run("read or record a value", move |db| {
                db.execute("INSERT OR IGNORE INTO meta (key, value) VALUES (?1, ?2)", [key, &value])?;
                db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
            })
            .await
    }

    /// Keeps `value` under `key`.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn set_meta(&self, key: &'static str, value: String) -> Result<(), StoreError> {
        self.writer.run("record a value", move |db| set(db, key, &value)).await
    }
}

fn read(db: &Connection, keys: &'static [&'static str]) -> rusqlite::Result<BTreeMap<&'static str, String>> {
    let mut values = BTreeMap::new();
    for key in keys {
        if let Some(value) = get(db, key)? {
            values.insert(*key, value);
        }
    }
    Ok(values)
}

pub(super) fn get(db: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

pub(super) fn set(db: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?.execute([key, value])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_is_kept_and_replaced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        assert_eq!(store.meta("k").await.expect("reads"), None);
        for value in ["1", "2"] {
            store.set_meta("k", value.into()).await.expect("writes");
            assert_eq!(store.meta("k").await.expect("reads").as_deref(), Some(value));
        }
        for (key, kept) in [("k", "2"), ("new", "3"), ("new", "3")] {
            let other = if kept == "3" { "3" } else { "other" };
            assert_eq!(store.meta_or(key, other.into()).await.expect("reads"), kept);
        }
        let expected = BTreeMap::from([("k", "2".to_owned()), ("new", "3".to_owned())]);
        const KEYS: &[&str] = &["k", "new", "missing"];
        assert_eq!(store.metas(KEYS).await.expect("reads"), expected);
        let path = dir.path().join("state.db");
        assert_eq!(Store::peek(&path, KEYS).expect("reads beside the writer"), expected);
        drop(store);
        assert_eq!(Store::peek(&path, KEYS).expect("reads"), expected);
        assert_eq!(Store::peek(&dir.path().join("none"), KEYS).expect("reads"), BTreeMap::new());
        assert!(!dir.path().join("none").exists(), "it is not made by looking");
    }
}
