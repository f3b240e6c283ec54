//! Waiting, in a `select!`, for what may not be under way.

use tokio::task::JoinError;

/// Waits for what is under way; for ever if nothing is. Cancel-safe: it stays where it is, also once it is over, so whoever
/// gets the output takes it out.
pub(super) async fn under_way<F: Future + Unpin>(slot: &mut Option<F>) -> F::Output {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// What a task has come to. A panic in it goes on here.
pub(super) fn outcome<T>(joined: Result<T, JoinError>) -> T {
    match joined {
        Ok(outcome) => outcome,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
