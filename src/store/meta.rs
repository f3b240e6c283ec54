//! Single values: the highest version ever accepted, and the like.

use rusqlite::{Connection, OptionalExtension};

use super::{Store, StoreError};

impl Store {
    /// The value kept under `key`.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn meta(&self, key: &'static str) -> Result<Option<String>, StoreError> {
        self.writer.run("read a value", move |db| get(db, key)).await
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
    }
}
