//! What is said in chats whose messages no other server keeps: those of the platform `web`.
//!
//! **Invariants**
//! - What somebody says is here as soon as it is in the inbox: one transaction.
//! - A line that is put again under its key takes the place of the one before, under the same number.
//!
//! Deliberately absent: what a line says. That is its platform's.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Accepted, Store, StoreError, inbox};
use crate::chat::Inbound;
use crate::clock::UnixMillis;

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Names it; later ones are higher, in all chats together.
    pub number: i64,
    /// The chat.
    pub chat: String,
    /// What its platform makes of it.
    pub body: String,
}

/// Which lines of a chat are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The last ones before this number.
    Before(i64),
    /// The first ones behind this number.
    Behind(i64),
}

impl Store {
    /// Stores a message as [`Store::accept`] does, with the line that shows it, whose key is made of it. Returns the
    /// number of the line, also if both were stored before.
    ///
    /// # Errors
    /// Any [`StoreError`]; the message must then not be confirmed.
    pub async fn accept_line(&self, inbound: &Inbound, body: String) -> Result<(Accepted, i64), StoreError> {
        let inbound = inbound.clone();
        self.writer
            .run("accept a message", move |db| {
                let now = UnixMillis::now();
                let accepted = inbox::accept(db, &inbound, now)?;
                let key = format!("in:{}:{}", inbound.account, inbound.message_id);
                let chat = &inbound.conversation.chat;
                if let Accepted::Duplicate = accepted
                    && let Some(number) = db
                        .prepare_cached("SELECT number FROM transcript WHERE key = ?1")?
                        .query_row([&key], |row| row.get(0))
                        .optional()?
                {
                    return Ok((accepted, number));
                }
                Ok((accepted, put(db, chat, Some(&key), &body, now)?))
            })
            .await
            .inspect(|_| inbox::stored())
    }

    /// Stores a line, in the place of the one that has its key, if one has. Returns its number.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn put_line(&self, chat: &str, key: Option<String>, body: String) -> Result<i64, StoreError> {
        let chat = chat.to_owned();
        self.writer.run("keep what is said", move |db| put(db, &chat, key.as_deref(), &body, UnixMillis::now())).await
    }

    /// Changes what a line says. One that is forgotten stays so.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn change_line(&self, number: i64, body: String) -> Result<(), StoreError> {
        self.writer
            .run("keep what is said", move |db| {
                db.prepare_cached("UPDATE transcript SET body = ?2 WHERE number = ?1")?
                    .execute(params![number, body])?;
                Ok(())
            })
            .await
    }

    /// Lines of a chat in order, `limit` at the most.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn lines(&self, chat: &str, span: Span, limit: u32) -> Result<Vec<Line>, StoreError> {
        let chat = chat.to_owned();
        self.writer
            .run("read what was said", move |db| match span {
                Span::Before(number) => {
                    let query = "SELECT number, chat, body FROM transcript WHERE chat = ?1 AND number < ?2
                                 ORDER BY number DESC LIMIT ?3";
                    let mut look = db.prepare_cached(query)?;
                    let mut lines: Vec<Line> =
                        look.query_map(params![chat, number, limit], line)?.collect::<rusqlite::Result<_>>()?;
                    lines.reverse();
                    Ok(lines)
                }
                Span::Behind(number) => {
                    let query = "SELECT number, chat, body FROM transcript WHERE chat = ?1 AND number > ?2
                                 ORDER BY number LIMIT ?3";
                    db.prepare_cached(query)?.query_map(params![chat, number, limit], line)?.collect()
                }
            })
            .await
    }

    /// The line of a number, if it is still kept.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn line(&self, number: i64) -> Result<Option<Line>, StoreError> {
        self.writer
            .run("read what was said", move |db| {
                db.prepare_cached("SELECT number, chat, body FROM transcript WHERE number = ?1")?
                    .query_row([number], line)
                    .optional()
            })
            .await
    }
}

fn put(db: &Connection, chat: &str, key: Option<&str>, body: &str, now: UnixMillis) -> rusqlite::Result<i64> {
    db.prepare_cached(
        "INSERT INTO transcript (chat, key, body, created_ms) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (key) DO UPDATE SET body = ?3 RETURNING number",
    )?
    .query_row(params![chat, key, body, now.0], |row| row.get(0))
}

fn line(row: &Row<'_>) -> rusqlite::Result<Line> {
    Ok(Line { number: row.get(0)?, chat: row.get(1)?, body: row.get(2)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Conversation, Sender};

    fn open() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        (dir, store)
    }

    fn said(id: &str) -> Inbound {
        Inbound {
            conversation: Conversation::new("web", "owner"),
            account: "owner".into(),
            message_id: id.into(),
            sender: Sender { id: "owner".into(), name: "owner".into() },
            sent_at: UnixMillis(5),
            text: "hello".into(),
            is_direct: true,
            attachments: Vec::new(),
            context: None,
        }
    }

    async fn bodies(store: &Store, span: Span, limit: u32) -> Vec<String> {
        let lines = store.lines("owner", span, limit).await.expect("reads");
        lines.into_iter().map(|line| line.body).collect()
    }

    #[tokio::test]
    async fn a_message_and_its_line_are_stored_once_together() {
        let (_dir, store) = open();
        let (first, number) = store.accept_line(&said("a"), "one".into()).await.expect("stores");
        assert!(matches!(first, Accepted::New(_)));
        let again = store.accept_line(&said("a"), "other".into()).await.expect("knows");
        assert_eq!(again, (Accepted::Duplicate, number));
        // One that another part of the gateway has accepted still gets its line.
        store.accept(&said("b")).await.expect("stores");
        let (known, behind) = store.accept_line(&said("b"), "two".into()).await.expect("stores");
        assert_eq!(known, Accepted::Duplicate);
        assert!(behind > number);
        assert_eq!(bodies(&store, Span::Behind(0), 9).await, ["one", "two"]);
    }

    #[tokio::test]
    async fn a_line_is_replaced_by_its_key_and_read_in_order() {
        let (_dir, store) = open();
        let put = |key: Option<&str>, body: &str| store.put_line("owner", key.map(str::to_owned), body.to_owned());
        let first = put(Some("1.0"), "a").await.expect("stores");
        let second = put(None, "b").await.expect("stores");
        let third = put(None, "c").await.expect("stores");
        assert_eq!(put(Some("1.0"), "A").await.expect("replaces"), first);
        store.change_line(third, "C".into()).await.expect("changes");
        store.put_line("guest", None, "elsewhere".into()).await.expect("stores");
        assert_eq!(bodies(&store, Span::Behind(0), 9).await, ["A", "b", "C"]);
        assert_eq!(bodies(&store, Span::Behind(first), 1).await, ["b"]);
        assert_eq!(bodies(&store, Span::Before(i64::MAX), 2).await, ["b", "C"]);
        assert_eq!(bodies(&store, Span::Before(second), 2).await, ["A"]);
        assert_eq!(store.line(second).await.expect("reads").map(|line| line.chat), Some("owner".into()));
        assert_eq!(store.line(99).await.expect("reads"), None);
    }
}
