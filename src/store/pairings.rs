//! Who was let in by pairing, and who has asked to be.
//!
//! **Invariant:** who was let in stays so until they are taken out: a code does not take the place of an approval, whatever
//! an image that could not read this believes.

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::chat::Conversation;
use crate::clock::UnixMillis;
use crate::id::PlatformName;

/// One person on one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairing {
    /// The platform's id of the person.
    pub user: String,
    /// A display name, for people only.
    pub name: String,
    /// The direct chat in which the person asked.
    pub conversation: Conversation,
    /// How far it is.
    pub standing: Standing,
}

/// How far a pairing is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Standing {
    /// The person was given a code.
    Asked {
        /// The code.
        code: String,
        /// When it was made.
        asked_at: UnixMillis,
        /// When the person was told of it last.
        told_at: UnixMillis,
    },
    /// The person may talk.
    Approved {
        /// Since when.
        at: UnixMillis,
    },
}

impl Pairing {
    /// The platform.
    pub fn platform(&self) -> &PlatformName {
        &self.conversation.platform
    }
}

impl Store {
    /// All pairings. One that cannot be read is left out, with a line in the log: nobody is let in by it.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn pairings(&self) -> Result<Vec<Pairing>, StoreError> {
        self.writer
            .run("list the pairings", |db| {
                let mut query = db.prepare_cached(
                    "SELECT user, name, conversation, code, since_ms, told_ms FROM pairings ORDER BY platform, since_ms",
                )?;
                let rows = query.query_map([], read)?.collect::<rusqlite::Result<Vec<_>>>()?;
                Ok(rows.into_iter().flatten().collect())
            })
            .await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Option<Pairing>> {
    let (user, key): (String, String) = (row.get(0)?, row.get(2)?);
    let Ok(conversation) = serde_json::from_str(&key) else {
        tracing::error!(user, "a stored pairing is not readable");
        return Ok(None);
    };
    let since = UnixMillis(row.get(4)?);
    let standing = match row.get(3)? {
        Some(code) => Standing::Asked { code, asked_at: since, told_at: UnixMillis(row.get(5)?) },
        None => Standing::Approved { at: since },
    };
    Ok(Some(Pairing { user, name: row.get(1)?, conversation, standing }))
}

pub(super) fn put(db: &Connection, pairing: &Pairing) -> rusqlite::Result<()> {
    let Pairing { user, name, conversation, standing } = pairing;
    let key = serde_json::to_string(conversation).expect("plain data serialises");
    let (code, since, told) = match standing {
        Standing::Asked { code, asked_at, told_at } => (Some(code), asked_at, told_at),
        Standing::Approved { at } => (None, at, at),
    };
    db.prepare_cached(
        "INSERT INTO pairings (platform, user, name, conversation, code, since_ms, told_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET name = ?3, conversation = ?4, code = ?5, since_ms = ?6, told_ms = ?7
         WHERE pairings.code IS NOT NULL",
    )?
    .execute(params![conversation.platform.as_str(), user, name, key, code, since.0, told.0])?;
    Ok(())
}

pub(super) fn remove(db: &Connection, platform: &PlatformName, user: &str) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM pairings WHERE platform = ?1 AND user = ?2")?
        .execute(params![platform.as_str(), user])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Change;

    #[tokio::test]
    async fn a_pairing_is_kept_replaced_and_taken_away() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("state.db");
        let store = Store::open(&path).expect("opens");
        let conversation = Conversation::new("telegram", "7");
        let standing = Standing::Asked { code: "ABCD2345".into(), asked_at: UnixMillis(5), told_at: UnixMillis(6) };
        let asked = Pairing { user: "7".into(), name: "Ann".into(), conversation, standing };
        let approved = Pairing { standing: Standing::Approved { at: UnixMillis(9) }, ..asked.clone() };
        let again = asked.clone();
        for pairing in [asked, approved] {
            store.change(vec![Change::Pairing(pairing.clone())]).await.expect("records");
            let later = Store::open(&path).expect("opens");
            for store in [&store, &later] {
                assert_eq!(store.pairings().await.expect("lists"), std::slice::from_ref(&pairing));
            }
        }
        store.change(vec![Change::Pairing(again)]).await.expect("changes nothing");
        assert!(matches!(store.pairings().await.expect("lists")[0].standing, Standing::Approved { .. }));
        store.change(vec![Change::Unpair("telegram".into(), "7".into())]).await.expect("records");
        assert_eq!(store.pairings().await.expect("lists"), []);
    }
}
