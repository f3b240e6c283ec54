//! The state of a test server, which its handlers change and a test looks at and waits for.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

/// How long [`Shared::until`] waits.
const DEADLINE: Duration = Duration::from_secs(30);

/// The state, and a signal for each change of it.
pub struct Shared<S> {
    state: Arc<Mutex<S>>,
    changes: watch::Sender<u64>,
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), changes: self.changes.clone() }
    }
}

impl<S> Shared<S> {
    /// Serves `state`.
    pub fn new(state: S) -> Self {
        Self { state: Arc::new(Mutex::new(state)), changes: watch::Sender::new(0) }
    }

    /// Looks at the state or changes it. Not across an await.
    pub fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock().expect("no handler panics with the state locked")
    }

    /// Changes the state and tells everyone who waits.
    pub fn change<R>(&self, change: impl FnOnce(&mut S) -> R) -> R {
        let result = change(&mut self.lock());
        self.changes.send_modify(|n| *n += 1);
        result
    }

    /// Sees every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl<S: Serialize> Shared<S> {
    /// Waits until `look` finds what it looks for.
    ///
    /// # Panics
    /// After 30 s, with `what` and the state.
    pub async fn until<R>(&self, what: &str, mut look: impl FnMut(&S) -> Option<R>) -> R {
        let mut changes = self.subscribe();
        let wait = async {
            loop {
                if let Some(found) = look(&self.lock()) {
                    return found;
                }
                changes.changed().await.expect("the sender is here");
            }
        };
        match tokio::time::timeout(DEADLINE, wait).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain: {what}\n{:#}", json!(*self.lock())),
        }
    }
}
