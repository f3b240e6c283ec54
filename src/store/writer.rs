//! The thread that owns the connection. Jobs that are queued together are committed together, so that durability
//! costs one fsync for many messages.

use std::path::PathBuf;

use rusqlite::{Connection, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use crate::fault::{self, Call};

/// Jobs that may wait; a caller beyond that waits for room.
const QUEUE: usize = 1024;
/// Jobs that share one commit at most, so that the first of them does not wait for long.
const BATCH: usize = 256;

/// Runs one job, unless the transaction was undone already, and returns what tells its caller how the commit went.
type Job = Box<dyn FnOnce(&Transaction<'_>, bool) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), String>) + Send>;

/// A database, and where a damaged one is whose place it takes.
type Opened = (Connection, Option<PathBuf>);

#[derive(Clone, Debug)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread, which first of all opens the database; the receiver is told how that went.
    pub(super) fn start(
        open: impl FnOnce() -> Result<Opened, StoreError> + Send + 'static,
    ) -> (Self, oneshot::Receiver<Result<Option<PathBuf>, StoreError>>) {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (tell, opened) = oneshot::channel();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let (outcome, connection) = match open() {
                    Ok((connection, aside)) => (Ok(aside), Some(connection)),
                    Err(error) => (Err(error), None),
                };
                drop(tell.send(outcome));
                if let Some(connection) = connection {
                    serve(connection, queue);
                }
            })
            .expect("a thread can be started at boot");
        (Self { jobs }, opened)
    }

    pub(super) fn is_over(&self) -> bool {
        self.jobs.is_closed()
    }

    /// Runs `job` on the writer thread and returns its result once that is committed.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let boxed: Job = Box::new(move |transaction, undone| {
            let outcome = (!undone).then(|| in_savepoint(transaction, job));
            Box::new(move |commit: Result<(), String>| {
                let told = match (outcome, commit) {
                    (Some(Ok(value)), Ok(())) => Ok(value),
                    (Some(Err(source)), _) => Err(StoreError::Sql { what, source }),
                    (Some(Ok(_)) | None, Err(reason)) => Err(StoreError::Commit { reason }),
                    (None, Ok(())) => unreachable!("a transaction that was undone is not committed"),
                };
                // A caller that no longer waits does not want to know.
                drop(reply.send(told));
            })
        });
        self.jobs.send(boxed).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }
}

/// A failing job undoes its own writes only, not those of the jobs it shares a commit with.
fn in_savepoint<T>(
    transaction: &Transaction<'_>,
    job: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let step = |sql| transaction.prepare_cached(sql)?.execute([]).map(drop);
    step("SAVEPOINT job")?;
    match job(transaction) {
        Ok(value) => {
            step("RELEASE job")?;
            Ok(value)
        }
        Err(error) => {
            step("ROLLBACK TO job")?;
            step("RELEASE job")?;
            Err(error)
        }
    }
}

fn serve(mut connection: Connection, mut queue: mpsc::Receiver<Job>) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(first) = queue.blocking_recv() {
        batch.push(first);
        while batch.len() < BATCH
            && let Ok(job) = queue.try_recv()
        {
            batch.push(job);
        }
        commit(&mut connection, batch.drain(..));
    }
}

fn commit(connection: &mut Connection, jobs: impl Iterator<Item = Job>) {
    let transaction = match connection.transaction() {
        Ok(transaction) => transaction,
        Err(error) => {
            // Dropping a job tells its caller `Stopped`; say here why.
            tracing::error!(%error, "the database does not begin a transaction");
            return;
        }
    };
    let mut answers: Vec<Answer> = Vec::with_capacity(BATCH);
    let mut undone = false;
    for job in jobs {
        answers.push(job(&transaction, undone));
        // SQLite may roll back the whole transaction for an error such as a full disk (lang_transaction.html). What
        // came after it in this batch would then be committed by itself and yet be told as failed.
        undone |= transaction.is_autocommit();
    }
    let outcome = match undone {
        true => Err("an earlier write of the same commit failed and undid it".to_owned()),
        false => fault::io(Call::StateDb)
            .map_err(|error| error.to_string())
            .and_then(|()| transaction.commit().map_err(|error| error.to_string())),
    };
    for answer in answers {
        answer(outcome.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_transaction_that_sqlite_undid_writes_nothing_and_all_its_jobs_are_told() {
        let connection = Connection::open_in_memory().expect("opens");
        connection.execute_batch("CREATE TABLE t (n INTEGER)").expect("creates");
        let (writer, _opened) = Writer::start(move || Ok((connection, None)));
        let insert = |n: i64| writer.run("insert", move |db| db.execute("INSERT INTO t VALUES (?1)", [n]));
        // As SQLite does it by itself when the disk is full.
        let undo = writer.run("undo", |db| -> rusqlite::Result<()> {
            db.execute_batch("ROLLBACK")?;
            Err(rusqlite::Error::InvalidQuery)
        });
        let hold = writer.run("hold", |_| Ok(()));
        let (_, before, undone, after) = tokio::join!(hold, insert(1), undo, insert(2));
        assert!(undone.is_err());
        let count = writer.run("count", |db| db.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, isize>(0)));
        let told = isize::from(before.is_ok()) + isize::from(after.is_ok());
        assert_eq!(count.await.expect("counts"), told, "told {before:?} and {after:?}");
    }
}
