//! The thread that owns the connection. Jobs that are queued together are committed together, so that durability
//! costs one fsync for many messages.

use rusqlite::{Connection, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// Jobs that may wait; a caller beyond that waits for room.
const QUEUE: usize = 1024;
/// Jobs that share one commit at most, so that the first of them does not wait for long.
const BATCH: usize = 256;

/// Runs one job, and returns what tells its caller how the commit went.
type Job = Box<dyn FnOnce(&Transaction<'_>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), String>) + Send>;

#[derive(Clone, Debug)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread, which first of all opens the database; the receiver is told how that went.
    pub(super) fn start(
        open: impl FnOnce() -> Result<Connection, StoreError> + Send + 'static,
    ) -> (Self, oneshot::Receiver<Result<(), StoreError>>) {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (tell, opened) = oneshot::channel();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let (outcome, connection) = match open() {
                    Ok(connection) => (Ok(()), Some(connection)),
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

    /// Runs `job` on the writer thread and returns its result once that is committed.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let boxed: Job = Box::new(move |transaction| {
            let outcome = in_savepoint(transaction, job);
            Box::new(move |commit: Result<(), String>| {
                let told = match (outcome, commit) {
                    (Ok(value), Ok(())) => Ok(value),
                    (Err(source), _) => Err(StoreError::Sql { what, source }),
                    (Ok(_), Err(reason)) => Err(StoreError::Commit { reason }),
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
    transaction.execute_batch("SAVEPOINT job")?;
    match job(transaction) {
        Ok(value) => {
            transaction.execute_batch("RELEASE job")?;
            Ok(value)
        }
        Err(error) => {
            transaction.execute_batch("ROLLBACK TO job; RELEASE job")?;
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
    let answers: Vec<Answer> = jobs.map(|job| job(&transaction)).collect();
    let outcome = transaction.commit().map_err(|error| error.to_string());
    for answer in answers {
        answer(outcome.clone());
    }
}
