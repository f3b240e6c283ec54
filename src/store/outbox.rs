//! What is to be shown in chats, and how far that has come: the outbox and its ledger.
//!
//! An *entry* is one reply or notice, made in the transaction that makes it due ([`super::Change`]). A *part* is one
//! message of a platform in which a piece of it is shown. An entry is `pending` until its first part is tried,
//! `attempting` until the last one is shown, and then over: `delivered`, `failed` (its platform refuses it) or
//! `abandoned` (nobody can be reached, or it is too old).
//!
//! **Invariants**
//! - A part is recorded before it is sent, and with the id of its message after its platform has confirmed it. So
//!   whoever finds one without an id knows that it may have been shown, and only of such a one it is unknown.
//! - The text of an entry that is over is not kept, nor are the names of its files.

use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::chat::{Choice, Conversation, OutFile, ReplyEnd};
use crate::clock::UnixMillis;
use crate::id::TurnId;

/// Names an entry; later ones are higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryId(pub i64);

/// How an entry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was shown.
    Delivered,
    /// The platform refuses it, or a part of it.
    Failed,
    /// Nobody can be reached, or it could not be delivered for too long.
    Abandoned,
}

impl Outcome {
    /// As the ledger has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// An entry that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// The turn that is answered; none for a notice.
    pub turn: Option<TurnId>,
    /// Where it is to be shown.
    pub conversation: Conversation,
    /// All of its text; none while the turn runs, and of a turn whose answer was lost.
    pub text: Option<String>,
    /// The files in it, as far as its text is there.
    pub files: Vec<OutFile>,
    /// What may be answered to a notice by a press.
    pub choices: Vec<Choice>,
    /// How the reply ended; none while the turn runs, and for a notice, which is complete from the start.
    pub end: Option<ReplyEnd>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// Its parts so far, in order.
    pub parts: Vec<Part>,
}

/// One message of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Counted from 0.
    pub number: u32,
    /// Where in the entry's text it begins, in bytes.
    pub start: usize,
    /// How much of the text it shows for good, in bytes; none if it may still change.
    pub length: Option<usize>,
    /// It begins with the word that it may be a repeat.
    pub is_marked: bool,
    /// The platform's id of the message; none while nobody knows whether it is shown.
    pub message_id: Option<String>,
    /// The number of the file that it shows, in the place of text.
    pub file: Option<u32>,
}

/// A part that is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its entry.
    pub entry: EntryId,
    /// As in [`Part`].
    pub number: u32,
    /// As in [`Part`].
    pub start: usize,
    /// As in [`Part`].
    pub length: Option<usize>,
    /// As in [`Part`].
    pub is_marked: bool,
    /// As in [`Part`].
    pub file: Option<u32>,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The part is shown.
    Shown {
        /// The platform's id of the message.
        message_id: String,
    },
    /// The platform did not take it, so nobody has seen it.
    Refused,
}

/// What a platform has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An entry is over.
    Over {
        /// Which.
        entry: EntryId,
        /// How.
        outcome: Outcome,
        /// Why, if it was not delivered; without secrets.
        error: Option<String>,
    },
    /// Nobody can be reached in a chat.
    Unreachable {
        /// Which.
        chat: String,
        /// The platform's word; without secrets.
        error: String,
    },
    /// Somebody can be reached there again.
    Reachable {
        /// Which.
        chat: String,
    },
    /// A chat has another id.
    Moved {
        /// The id it had.
        chat: String,
        /// The id it has.
        to: String,
    },
}

/// A chat of which something is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nobody could be reached there.
    Unreachable(String),
    /// It has another id, the second.
    Moved(String, String),
}

/// What a platform has to go on with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    /// What is not over, oldest first.
    pub entries: Vec<Entry>,
    /// The last entry that was made by then, for any platform: none up to it is new.
    pub last: Option<EntryId>,
    /// What is remembered of chats.
    pub targets: Vec<Target>,
}

impl Store {
    /// All that a platform has to deliver, and what is remembered of its chats. A reply that stopped growing without
    /// an end, because its turn is not one that runs, is ended here.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn outbox(&self, platform: &str) -> Result<Outbox, StoreError> {
        let platform = platform.to_owned();
        let (rows, last, targets) = self
            .writer
            .run("list what is to be delivered", move |db| {
                Ok((open_rows(db, &platform)?, last_entry(db)?, targets(db, &platform)?))
            })
            .await?;
        let entries = rows.into_iter().map(Row::read).collect::<Result<_, _>>()?;
        Ok(Outbox { entries, last, targets })
    }

    /// Records that a part is about to be sent.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn attempt(&self, attempt: Attempt) -> Result<(), StoreError> {
        let now = UnixMillis::now();
        self.writer
            .run("record an attempt to deliver", move |db| {
                let Attempt { entry, number, start, length, is_marked, file } = attempt;
                let bytes = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
                let (start, length) = (bytes(start), length.map(bytes));
                db.prepare_cached(
                    "INSERT INTO parts (entry, number, start, marked, length, file) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT DO UPDATE SET start = ?3, marked = ?4, length = ?5, file = ?6, message_id = NULL",
                )?
                .execute(params![entry.0, number, start, is_marked, length, file])?;
                db.prepare_cached(
                    "UPDATE outbox SET state = 'attempting', attempts = attempts + 1, updated_ms = ?2
                     WHERE id = ?1 AND state IN ('pending', 'attempting')",
                )?
                .execute(params![entry.0, now.0])?;
                Ok(())
            })
            .await
    }

    /// Records what became of an attempt, once that is known.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn attempted(&self, entry: EntryId, number: u32, seen: Seen) -> Result<(), StoreError> {
        self.writer
            .run("record a delivery", move |db| {
                match seen {
                    Seen::Shown { message_id } => {
                        db.prepare_cached("UPDATE parts SET message_id = ?3 WHERE entry = ?1 AND number = ?2")?
                            .execute(params![entry.0, number, message_id])?;
                    }
                    Seen::Refused => {
                        db.prepare_cached("DELETE FROM parts WHERE entry = ?1 AND number = ?2 AND marked = 0")?
                            .execute(params![entry.0, number])?;
                    }
                }
                Ok(())
            })
            .await
    }

    /// Records what a platform has found out.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn found(&self, platform: &str, findings: Vec<Finding>) -> Result<(), StoreError> {
        let (platform, now) = (platform.to_owned(), UnixMillis::now());
        self.writer
            .run("record how deliveries ended", move |db| {
                findings.iter().try_for_each(|finding| record(db, &platform, finding, now))
            })
            .await
    }
}

/// An entry as it is stored.
struct Row {
    id: i64,
    turn: Option<i64>,
    conversation: String,
    text: Option<String>,
    files: Option<String>,
    choices: Option<String>,
    end: Option<String>,
    created_ms: i64,
    parts: Vec<Part>,
}

impl Row {
    fn read(self) -> Result<Entry, StoreError> {
        let corrupt = |source| StoreError::Corrupt { what: "an entry of the outbox", source };
        Ok(Entry {
            id: EntryId(self.id),
            turn: self.turn.map(TurnId),
            conversation: serde_json::from_str(&self.conversation).map_err(corrupt)?,
            text: self.text,
            files: list(self.files).map_err(corrupt)?,
            choices: list(self.choices).map_err(corrupt)?,
            end: self.end.map(|end| serde_json::from_str(&end)).transpose().map_err(corrupt)?,
            created_at: UnixMillis(self.created_ms),
            parts: self.parts,
        })
    }
}

fn list<T: DeserializeOwned>(stored: Option<String>) -> Result<Vec<T>, serde_json::Error> {
    stored.map_or_else(|| Ok(Vec::new()), |stored| serde_json::from_str(&stored))
}

fn open_rows(db: &Connection, platform: &str) -> rusqlite::Result<Vec<Row>> {
    // The gateway ends every turn that was running. What else has no end is of a turn that is over without its word.
    db.prepare_cached(
        "UPDATE outbox SET ending = '\"complete\"' WHERE state IN ('pending', 'attempting') AND platform = ?1
         AND turn IS NOT NULL AND ending IS NULL
         AND NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.id = outbox.turn AND inbox.state = 'running')",
    )?
    .execute([platform])?;
    let mut rows: Vec<Row> = db
        .prepare_cached(
            "SELECT id, turn, conversation, text, choices, ending, created_ms, files FROM outbox
             WHERE state IN ('pending', 'attempting') AND platform = ?1 ORDER BY id",
        )?
        .query_map([platform], |row| {
            Ok(Row {
                id: row.get(0)?,
                turn: row.get(1)?,
                conversation: row.get(2)?,
                text: row.get(3)?,
                choices: row.get(4)?,
                end: row.get(5)?,
                created_ms: row.get(6)?,
                files: row.get(7)?,
                parts: Vec::new(),
            })
        })?
        .collect::<Result<_, _>>()?;
    let mut parts = db.prepare_cached(
        "SELECT number, start, marked, message_id, length, file FROM parts WHERE entry = ?1 ORDER BY number",
    )?;
    for row in &mut rows {
        row.parts = parts
            .query_map([row.id], |part| {
                Ok(Part {
                    number: part.get(0)?,
                    start: usize::try_from(part.get::<_, i64>(1)?).unwrap_or(0),
                    is_marked: part.get(2)?,
                    message_id: part.get(3)?,
                    length: part.get::<_, Option<i64>>(4)?.and_then(|length| usize::try_from(length).ok()),
                    file: part.get(5)?,
                })
            })?
            .collect::<Result<_, _>>()?;
    }
    Ok(rows)
}

/// How many entries are not over, on all platforms.
pub(super) fn open_entries(db: &Connection) -> rusqlite::Result<usize> {
    db.prepare_cached("SELECT count(*) FROM outbox WHERE state IN ('pending', 'attempting')")?
        .query_row([], |row| Ok(usize::try_from(row.get::<_, i64>(0)?).unwrap_or(0)))
}

fn last_entry(db: &Connection) -> rusqlite::Result<Option<EntryId>> {
    // Not max(id): the newest may be gone already, and its number is not given again.
    db.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")?
        .query_row([], |row| Ok(EntryId(row.get(0)?)))
        .optional()
}

fn targets(db: &Connection, platform: &str) -> rusqlite::Result<Vec<Target>> {
    db.prepare_cached("SELECT chat, moved_to FROM targets WHERE platform = ?1 ORDER BY since_ms")?
        .query_map([platform], |row| {
            let chat: String = row.get(0)?;
            Ok(match row.get(1)? {
                Some(to) => Target::Moved(chat, to),
                None => Target::Unreachable(chat),
            })
        })?
        .collect()
}

fn record(db: &Connection, platform: &str, finding: &Finding, now: UnixMillis) -> rusqlite::Result<()> {
    match finding {
        Finding::Over { entry, outcome, error } => {
            db.prepare_cached(
                "UPDATE outbox SET state = ?2, error = ?3, text = NULL, files = NULL, updated_ms = ?4
                 WHERE id = ?1 AND state IN ('pending', 'attempting')",
            )?
            .execute(params![entry.0, outcome.as_str(), error, now.0])?;
            db.prepare_cached("DELETE FROM parts WHERE entry = ?1")?.execute([entry.0])?;
        }
        Finding::Unreachable { chat, error } => {
            db.prepare_cached(
                "INSERT OR REPLACE INTO targets (platform, chat, moved_to, error, since_ms) VALUES (?1, ?2, NULL, ?3, ?4)",
            )?
            .execute(params![platform, chat, error, now.0])?;
        }
        Finding::Reachable { chat } => {
            db.prepare_cached("DELETE FROM targets WHERE platform = ?1 AND chat = ?2 AND moved_to IS NULL")?
                .execute([platform, chat])?;
        }
        Finding::Moved { chat, to } => {
            db.prepare_cached(
                "INSERT OR REPLACE INTO targets (platform, chat, moved_to, error, since_ms) VALUES (?1, ?2, ?3, NULL, ?4)",
            )?
            .execute(params![platform, chat, to, now.0])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Inbound, Sender};
    use crate::store::{Accepted, Change};

    const CHAT: &str = "7";

    fn conversation() -> Conversation {
        Conversation::new("telegram", CHAT)
    }

    fn open() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("state.db")).expect("opens");
        (dir, store)
    }

    async fn asked(store: &Store, id: &str) -> TurnId {
        let inbound = Inbound {
            conversation: conversation(),
            account: "bot".into(),
            message_id: id.into(),
            sender: Sender { id: "1".into(), name: "Ann".into() },
            sent_at: UnixMillis(5),
            text: "hello".into(),
            is_direct: true,
            attachments: Vec::new(),
            context: None,
        };
        let Accepted::New(turn) = store.accept(&inbound).await.expect("accepts") else { panic!("a new message") };
        turn
    }

    async fn entries(store: &Store) -> Vec<Entry> {
        store.outbox("telegram").await.expect("reads").entries
    }

    /// How many entries are in each state of the ledger.
    async fn ledger(store: &Store) -> Vec<(String, i64)> {
        let query = "SELECT state, count(*) FROM outbox GROUP BY state ORDER BY state";
        let count = |db: &Connection| {
            db.prepare(query)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()
        };
        store.writer.run("count", count).await.expect("counts")
    }

    fn attempt(entry: EntryId, number: u32, start: usize) -> Attempt {
        Attempt { entry, number, start, length: None, is_marked: false, file: None }
    }

    fn over(entry: EntryId, outcome: Outcome) -> Vec<Finding> {
        vec![Finding::Over { entry, outcome, error: None }]
    }

    #[tokio::test]
    async fn a_reply_goes_from_its_start_over_its_parts_to_its_end() {
        let (_dir, store) = open();
        let turn = asked(&store, "1").await;
        let begun = store.change(vec![Change::Start(turn, Some(conversation()))]).await.expect("records");
        let id = begun[0].expect("an entry");
        let again = store.change(vec![Change::Start(turn, Some(conversation()))]).await.expect("records");
        assert_eq!(again, begun, "a turn has one reply");
        store.attempt(attempt(id, 0, 0)).await.expect("records");
        store.attempted(id, 0, Seen::Shown { message_id: "90".into() }).await.expect("records");
        store.attempt(attempt(id, 1, 4000)).await.expect("records");
        let [entry] = entries(&store).await.try_into().expect("one");
        assert_eq!((entry.turn, &entry.text, &entry.end), (Some(turn), &None, &None));
        let parts: Vec<_> = entry.parts.iter().map(|part| (part.start, part.message_id.as_deref())).collect();
        assert_eq!(parts, [(0, Some("90")), (4000, None)]);
        let end = ReplyEnd::Complete;
        let finish =
            Change::Finish { turn, conversation: None, text: Some("all".into()), files: Vec::new(), end: end.clone() };
        store.change(vec![finish]).await.expect("records");
        let [entry] = entries(&store).await.try_into().expect("one");
        assert_eq!((entry.text.as_deref(), entry.end), (Some("all"), Some(end)));
        assert!(store.open_turns().await.expect("lists").is_empty());
        store.found("telegram", over(id, Outcome::Delivered)).await.expect("records");
        assert_eq!(entries(&store).await, []);
        assert_eq!(ledger(&store).await, [("delivered".to_owned(), 1)]);
        assert!(store.outbox("telegram").await.expect("reads").last >= Some(id), "what is over counts");
    }

    #[tokio::test]
    async fn the_files_of_a_reply_and_the_part_that_shows_one_are_kept_until_it_is_over() {
        let (_dir, store) = open();
        let turn = asked(&store, "1").await;
        let id = store.change(vec![Change::Start(turn, Some(conversation()))]).await.expect("records")[0];
        let id = id.expect("an entry");
        store.attempt(Attempt { length: Some(0), file: Some(3), ..attempt(id, 0, 5) }).await.expect("records");
        let content = crate::chat::Content::Kept { path: "/out/1/3-a".into(), bytes: 9 };
        let files = vec![OutFile { number: 3, at: 5, name: "a".into(), mime: Some("image/png".into()), content }];
        let finish = Change::Finish {
            turn,
            conversation: None,
            text: Some("words".into()),
            files: files.clone(),
            end: ReplyEnd::Complete,
        };
        store.change(vec![finish]).await.expect("records");
        let [entry] = entries(&store).await.try_into().expect("one");
        assert_eq!((&entry.files, entry.parts[0].file, entry.parts[0].length), (&files, Some(3), Some(0)));
        store.found("telegram", over(id, Outcome::Delivered)).await.expect("records");
        let count = |db: &Connection| {
            db.query_row("SELECT count(*) FROM outbox WHERE files IS NOT NULL", [], |row| row.get::<_, i64>(0))
        };
        assert_eq!(store.writer.run("count", count).await.expect("counts"), 0);
    }

    #[tokio::test]
    async fn what_was_refused_was_not_shown_and_what_is_over_stays_over() {
        let (_dir, store) = open();
        let notice = Change::Notice(conversation(), "word".into());
        let id = store.change(vec![notice]).await.expect("records")[0].expect("an entry");
        store.attempt(attempt(id, 0, 0)).await.expect("records");
        store.attempted(id, 0, Seen::Refused).await.expect("records");
        assert_eq!(entries(&store).await[0].parts, []);
        store.attempt(Attempt { is_marked: true, ..attempt(id, 0, 0) }).await.expect("records");
        store.attempted(id, 0, Seen::Refused).await.expect("records");
        assert!(entries(&store).await[0].parts[0].is_marked, "what may have been shown before still may");
        store.found("telegram", over(id, Outcome::Abandoned)).await.expect("records");
        store.found("telegram", over(id, Outcome::Delivered)).await.expect("records");
        assert_eq!(ledger(&store).await, [("abandoned".to_owned(), 1)]);
    }

    #[tokio::test]
    async fn a_reply_whose_turn_is_over_without_a_word_is_ended() {
        let (_dir, store) = open();
        let turn = asked(&store, "1").await;
        let start = Change::Start(turn, Some(conversation()));
        store.change(vec![start, Change::Close(turn)]).await.expect("records");
        assert_eq!(entries(&store).await[0].end, Some(ReplyEnd::Complete));
    }

    #[tokio::test]
    async fn all_changes_are_recorded_or_none() {
        let (_dir, store) = open();
        let turn = asked(&store, "1").await;
        store.attempt(attempt(EntryId(99), 0, 0)).await.expect_err("there is no such entry");
        store.writer.run("break", |db| db.execute_batch("DROP TABLE parts; DROP TABLE outbox")).await.expect("drops");
        let changes = vec![Change::Close(turn), Change::Notice(conversation(), "word".into())];
        store.change(changes).await.expect_err("there is no outbox");
        assert_eq!(store.open_turns().await.expect("lists").len(), 1, "the message is not dealt with");
    }

    #[tokio::test]
    async fn what_is_known_of_a_chat_is_kept_until_it_is_healed() {
        let (_dir, store) = open();
        let unreachable = Finding::Unreachable { chat: CHAT.into(), error: "blocked".into() };
        let moved = Finding::Moved { chat: "-1".into(), to: "-100".into() };
        store.found("telegram", vec![unreachable, moved]).await.expect("records");
        let moved = Target::Moved("-1".into(), "-100".into());
        let targets = store.outbox("telegram").await.expect("reads").targets;
        assert!(targets.len() == 2 && targets.contains(&moved) && targets.contains(&Target::Unreachable(CHAT.into())));
        let healed = ["-1", CHAT].map(|chat| Finding::Reachable { chat: chat.into() });
        store.found("telegram", healed.into()).await.expect("records");
        assert_eq!(store.outbox("telegram").await.expect("reads").targets, [moved], "where it moved stays known");
    }
}
