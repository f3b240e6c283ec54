//! Whether the gateway is alive as a whole, for the watchdog of the service manager (sd_watchdog_enabled(3)).
//!
//! That the loop turns shows itself: it asks here. That the database goes on is shown by its writer, which answers a
//! job that does nothing. Without it no message can be accepted, so a gateway whose writer hangs must not look alive.
//! One that answers with an error, as on a full disk, does: a new process would find the same disk, and this one has
//! turns to lose.
//!
//! **Invariants**
//! - The loop never waits for the database here.
//! - One question is under way at a time, so that they do not pile up in the writer's queue.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::report::Chain;
use crate::store::{Store, StoreError};

/// After this long without an answer the writer is named in the log. A disk that is slow for a moment is not.
const SLOW: Duration = Duration::from_secs(5);

/// Within this time the writer answers, if it is not very busy.
const PROMPT: Duration = Duration::from_secs(1);

/// The question to the database's writer that is under way.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    asked: Option<JoinHandle<bool>>,
    asked_at: Option<Instant>,
    /// What the last answer was. At first nobody has been asked, and a start is not a failure.
    failed: bool,
}

impl Pulse {
    /// Whether the database can be asked now.
    pub(super) fn health(&self) -> Health {
        match (&self.asked, self.asked_at) {
            (Some(asked), Some(at)) if !asked.is_finished() && at.elapsed() >= PROMPT => Health::Hangs(at.elapsed()),
            _ if self.failed => Health::Broken,
            _ => Health::Fine,
        }
    }

    /// Whether everything has made progress since the last call. To be called at every tick of the loop, within the
    /// tokio runtime; asks the writer for the next time.
    pub(super) fn beat(&mut self, store: &Store) -> bool {
        if self.asked.as_ref().is_some_and(|asked| !asked.is_finished()) {
            return false;
        }
        if let Some(mut asked) = self.asked.take() {
            // Finished, so it is there at once.
            let answer = futures_util::FutureExt::now_or_never(&mut asked);
            self.failed = !matches!(answer, Some(Ok(true)));
        }
        self.asked = Some(tokio::spawn(ask(store.clone())));
        self.asked_at = Some(Instant::now());
        !self.failed
    }
}

/// How the database does, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Fine,
    /// It has not answered for so long.
    Hangs(Duration),
    /// It answered that it does not work.
    Broken,
}

/// Also logs when the answer takes too long: the loop itself may be waiting for the writer by then.
async fn ask(store: Store) -> bool {
    let flush = store.flush();
    tokio::pin!(flush);
    let answer = match tokio::time::timeout(SLOW, &mut flush).await {
        Ok(answer) => answer,
        Err(_) => {
            tracing::error!(
                after_s = SLOW.as_secs(),
                "the database writer does not answer; the watchdog is not told that the gateway lives until it does"
            );
            // The watchdog is the deadline.
            let answer = flush.await;
            if answer.is_ok() {
                tracing::warn!("the database writer answers again");
            }
            answer
        }
    };
    match answer {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "the database does not work");
            !matches!(error, StoreError::Stopped)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn store(dir: &tempfile::TempDir) -> Store {
        Store::open(&dir.path().join("state.db")).expect("opens")
    }

    async fn answered(pulse: &mut Pulse) {
        let asked = pulse.asked.as_mut().expect("the writer was asked");
        tokio::time::timeout(Duration::from_secs(30), asked).await.expect("in time").expect("no panic");
        // What was awaited cannot be looked at again.
        pulse.asked = None;
    }

    #[tokio::test]
    async fn a_writer_that_hangs_stops_the_pulse_until_it_goes_on() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = store(&dir);
        let mut pulse = Pulse::default();
        assert!(pulse.beat(&store));
        answered(&mut pulse).await;
        assert!(pulse.beat(&store));
        answered(&mut pulse).await;

        let go_on = store.hang().await;
        assert!(pulse.beat(&store), "as of the last answer");
        for _ in 0..3 {
            tokio::task::yield_now().await;
            assert!(!pulse.beat(&store), "there is no answer");
        }
        drop(go_on);
        answered(&mut pulse).await;
        assert!(pulse.beat(&store));
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panicked").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Time is stopped and goes on by itself when nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn a_writer_that_hangs_is_named_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = store(&dir);
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let go_on = store.hang().await;
        let mut pulse = Pulse::default();
        pulse.beat(&store);
        for _ in 0..4 {
            tokio::time::sleep(SLOW).await;
            assert!(!pulse.beat(&store));
        }
        tokio::time::resume();
        drop(go_on);
        answered(&mut pulse).await;
        let log = String::from_utf8(log.0.lock().expect("nobody panicked").clone()).expect("text");
        assert_eq!(log.matches("the database writer does not answer").count(), 1, "{log}");
        assert_eq!(log.matches("answers again").count(), 1, "{log}");
    }

    #[tokio::test]
    async fn a_writer_that_is_gone_is_no_sign_of_life() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (store, opening) = Store::open_beside(dir.path(), false);
        opening.done().await.expect_err("a directory is no database");
        let mut pulse = Pulse::default();
        pulse.beat(&store);
        let asked = pulse.asked.as_mut().expect("asked");
        let alive = tokio::time::timeout(Duration::from_secs(30), asked).await.expect("in time").expect("no panic");
        assert!(!alive);
    }
}
