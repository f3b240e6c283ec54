//! Messages as they were accepted, and how far their turns have come.

use rusqlite::{Connection, OptionalExtension, params};

use super::{EntryId, Store, StoreError, retention};
use crate::chat::Inbound;
use crate::clock::UnixMillis;
use crate::fault::{self, Point};
use crate::id::TurnId;

/// What became of a message that was offered to the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Stored under this id, for the first time.
    New(TurnId),
    /// The (platform, account, message id) was stored before: to be confirmed to the platform and dropped.
    Duplicate,
}

/// A turn that was not over when the store was last written.
#[derive(Clone, Debug)]
pub struct OpenTurn {
    /// Its id.
    pub turn: TurnId,
    /// The message that asked for it.
    pub inbound: Inbound,
    /// Whether an agent had it already.
    pub running: bool,
    /// When it was stored.
    pub received_at: UnixMillis,
}

impl Store {
    /// Stores a message durably, unless it was stored before. After `Ok` the platform may be told that it arrived.
    ///
    /// # Errors
    /// Any [`StoreError`]; the message must then not be confirmed.
    pub async fn accept(&self, inbound: &Inbound) -> Result<Accepted, StoreError> {
        let inbound = inbound.clone();
        self.writer
            .run("accept a message", move |db| accept(db, &inbound, UnixMillis::now()))
            .await
            .inspect(|_| stored())
    }

    /// The turns that are not over, oldest first: what a gateway that was killed takes up again.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn open_turns(&self) -> Result<Vec<OpenTurn>, StoreError> {
        let rows: Vec<(i64, String, String, i64)> = self
            .writer
            .run("list the open turns", |db| {
                db.prepare(
                    "SELECT id, inbound, state, received_ms FROM inbox WHERE state IN ('queued', 'running') ORDER BY id",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
                .collect()
            })
            .await?;
        rows.into_iter()
            .map(|(id, body, state, received_ms)| {
                let inbound = serde_json::from_str(&body)
                    .map_err(|source| StoreError::Corrupt { what: "a stored message", source })?;
                let received_at = UnixMillis(received_ms);
                Ok(OpenTurn { turn: TurnId(id), inbound, running: state == "running", received_at })
            })
            .collect()
    }

    /// What came with the last message from `chat` that is needed to answer there ([`Inbound::context`]).
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn context(&self, platform: &str, account: &str, chat: &str) -> Result<Option<String>, StoreError> {
        let key = [platform, account, chat].map(str::to_owned);
        self.writer
            .run("read how a chat is answered", move |db| {
                db.prepare_cached("SELECT value FROM contexts WHERE platform = ?1 AND account = ?2 AND chat = ?3")?
                    .query_row(key, |row| row.get(0))
                    .optional()
            })
            .await
    }

    /// The platform's id of the message that an entry of the outbox replies to, if it does and that is still kept.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn question(&self, entry: EntryId) -> Result<Option<String>, StoreError> {
        self.writer
            .run("look up what is answered", move |db| {
                db.prepare_cached("SELECT message_id FROM inbox WHERE id = (SELECT turn FROM outbox WHERE id = ?1)")?
                    .query_row([entry.0], |row| row.get(0))
                    .optional()
            })
            .await
    }

    /// The message that asked for `turn`, if it is still kept.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn inbound(&self, turn: TurnId) -> Result<Option<Inbound>, StoreError> {
        let body: Option<String> = self
            .writer
            .run("read a message", move |db| {
                db.query_row("SELECT inbound FROM inbox WHERE id = ?1", [turn.0], |row| row.get(0)).optional()
            })
            .await?;
        body.map(|body| serde_json::from_str(&body))
            .transpose()
            .map_err(|source| StoreError::Corrupt { what: "a stored message", source })
    }

    /// Where a platform's intake stands, for example a Telegram offset.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn cursor(&self, platform: &str, account: &str) -> Result<Option<String>, StoreError> {
        let (platform, account) = (platform.to_owned(), account.to_owned());
        self.writer
            .run("read a cursor", move |db| {
                let query = "SELECT value FROM cursors WHERE platform = ?1 AND account = ?2";
                db.query_row(query, [platform, account], |row| row.get(0)).optional()
            })
            .await
    }

    /// Records where a platform's intake stands.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn set_cursor(&self, platform: &str, account: &str, value: &str) -> Result<(), StoreError> {
        let (platform, account, value) = (platform.to_owned(), account.to_owned(), value.to_owned());
        self.writer
            .run("record a cursor", move |db| {
                db.prepare_cached("INSERT OR REPLACE INTO cursors (platform, account, value) VALUES (?1, ?2, ?3)")?
                    .execute([platform, account, value])?;
                Ok(())
            })
            .await
    }
}

/// A message is stored, and whoever sent it does not know.
pub(super) fn stored() {
    fault::at(Point::Stored);
}

/// Stores a message, unless it was stored before.
pub(super) fn accept(db: &Connection, inbound: &Inbound, now: UnixMillis) -> rusqlite::Result<Accepted> {
    let body = serde_json::to_string(inbound).expect("plain data serialises");
    let mut insert = db.prepare_cached(
        "INSERT INTO inbox (platform, account, message_id, inbound, state, received_ms, updated_ms)
         VALUES (?1, ?2, ?3, ?4, 'queued', ?5, ?5) ON CONFLICT DO NOTHING RETURNING id",
    )?;
    let platform = inbound.conversation.platform.as_str();
    let id: Option<i64> = insert
        .query_row(params![platform, inbound.account, inbound.message_id, body, now.0], |row| row.get(0))
        .optional()?;
    if id.is_some_and(|id| id % retention::EVERY == 0) {
        retention::prune(db, now)?;
    }
    if let (Some(_), Some(context)) = (id, &inbound.context) {
        let (account, chat) = (&inbound.account, &inbound.conversation.chat);
        db.prepare_cached(
            "INSERT OR REPLACE INTO contexts (platform, account, chat, value, updated_ms)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![platform, account, chat, context, now.0])?;
    }
    Ok(id.map_or(Accepted::Duplicate, |id| Accepted::New(TurnId(id))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Attachment, AttachmentKind, Conversation, Sender};
    use crate::store::Change;

    fn message(id: &str) -> Inbound {
        Inbound {
            conversation: Conversation::new("telegram", "7"),
            account: "bot".into(),
            message_id: id.into(),
            sender: Sender { id: "1".into(), name: "Ann".into() },
            sent_at: UnixMillis(5),
            text: "hello".into(),
            is_direct: true,
            attachments: Vec::new(),
            context: None,
        }
    }

    #[tokio::test]
    async fn a_message_is_accepted_once_also_by_a_store_opened_later() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("state.db");
        let store = Store::open(&path).expect("opens");
        let Accepted::New(turn) = store.accept(&message("1")).await.expect("accepts") else { panic!("a new message") };
        assert_eq!(store.accept(&message("1")).await.expect("accepts"), Accepted::Duplicate);
        let later = Store::open(&path).expect("opens again");
        assert_eq!(later.accept(&message("1")).await.expect("accepts"), Accepted::Duplicate);
        assert_eq!(later.inbound(turn).await.expect("reads"), Some(message("1")));
    }

    #[tokio::test]
    async fn open_turns_are_those_not_done_in_order_of_arrival() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        let mut turns = Vec::new();
        for id in ["a", "b", "c"] {
            let Accepted::New(turn) = store.accept(&message(id)).await.expect("accepts") else { panic!("new") };
            turns.push(turn);
        }
        store.change(vec![Change::Close(turns[0]), Change::Start(turns[1], None)]).await.expect("records");
        let open: Vec<_> = store.open_turns().await.expect("lists").iter().map(|t| (t.turn, t.running)).collect();
        assert_eq!(open, [(turns[1], true), (turns[2], false)]);
        // `/retry` is a message of its own that becomes the question it repeats.
        let attachments = vec![Attachment {
            kind: AttachmentKind::Image,
            name: Some("a \"b\".png".into()),
            mime: None,
            size_bytes: Some(7),
            source: "s".into(),
        }];
        let retry = Change::Requeue(turns[0], "again, with \"quotes\"".into(), attachments.clone());
        store.change(vec![retry]).await.expect("records");
        let open = store.open_turns().await.expect("lists");
        assert_eq!((open[0].turn, open[0].running), (turns[0], false));
        let text = "again, with \"quotes\"".into();
        assert_eq!(open[0].inbound, Inbound { text, attachments, ..message("a") });
    }
}
