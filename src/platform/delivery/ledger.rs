//! The task's dealings with the outbox: what was there at its start, and what was found out since.
//!
//! **Invariants**
//! - Nothing is sent and no command is taken before it is known what the outbox has, or that it cannot be read.
//! - What was found out is recorded in order; what cannot be is tried again until it can.

use std::pin::Pin;
use std::time::Duration;

use super::pace::after;
use crate::clock::MonoNanos;
use crate::platform::pending::under_way;
use crate::report::Chain;
use crate::store::{Finding, Outbox, Store, StoreError};

/// From one attempt to the next while the store cannot.
const AGAIN: Duration = Duration::from_secs(1);

/// Nothing, or why what is to be recorded was not.
type Written = Result<(), (Vec<Finding>, StoreError)>;
type Job<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// See the module's documentation.
pub(in crate::platform) struct Ledger {
    store: Store,
    platform: &'static str,
    reading: Option<Job<Result<Outbox, StoreError>>>,
    /// The outbox was read, or could not be for the first time.
    is_open: bool,
    /// When it is read again.
    read_at: Option<MonoNanos>,
    waiting: Vec<Finding>,
    writing: Option<Job<Written>>,
    /// Nothing is written before.
    write_at: MonoNanos,
}

/// What a job has brought.
pub(in crate::platform) enum Booked {
    /// What the outbox has.
    Read(Box<Outbox>),
    /// Nothing to act on.
    Other,
}

impl Ledger {
    /// A ledger that begins to read.
    pub(in crate::platform) fn open(store: Store, platform: &'static str) -> Self {
        let mut ledger = Self {
            store,
            platform,
            reading: None,
            is_open: false,
            read_at: None,
            waiting: Vec::new(),
            writing: None,
            write_at: MonoNanos::default(),
        };
        ledger.read();
        ledger
    }

    fn read(&mut self) {
        let (store, platform) = (self.store.clone(), self.platform);
        self.reading = Some(Box::pin(async move { store.outbox(platform).await }));
    }

    /// Whether anything may be sent, and commands be taken.
    pub(in crate::platform) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether everything that was found out is recorded.
    pub(in crate::platform) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.writing.is_none()
    }

    /// Starts what is due; says when something else is.
    pub(in crate::platform) fn advance(&mut self, found: Vec<Finding>, now: MonoNanos) -> Option<MonoNanos> {
        self.waiting.extend(found);
        if self.reading.is_none() && self.read_at.is_some_and(|at| at <= now) {
            self.read_at = None;
            self.read();
        }
        if self.writing.is_none() && !self.waiting.is_empty() && self.write_at <= now {
            let (store, platform, findings) = (self.store.clone(), self.platform, std::mem::take(&mut self.waiting));
            self.writing = Some(Box::pin(async move {
                store.found(platform, findings.clone()).await.map_err(|error| (findings, error))
            }));
        }
        let write_at = (self.writing.is_none() && !self.waiting.is_empty()).then_some(self.write_at);
        [self.read_at, write_at].into_iter().flatten().min()
    }

    /// Waits for a job to end; for ever if there is none.
    pub(in crate::platform) async fn booked(&mut self) -> Booked {
        tokio::select! {
            outcome = under_way(&mut self.reading) => {
                self.reading = None;
                self.is_open = true;
                match outcome {
                    Ok(outbox) => Booked::Read(Box::new(outbox)),
                    Err(error) => {
                        tracing::error!(error = %Chain(&error), "what is to be delivered cannot be read");
                        self.read_at = Some(after(MonoNanos::now(), AGAIN));
                        Booked::Other
                    }
                }
            }
            outcome = under_way(&mut self.writing) => {
                self.writing = None;
                if let Err((findings, error)) = outcome {
                    tracing::error!(error = %Chain(&error), "how deliveries ended cannot be recorded");
                    self.waiting.splice(..0, findings);
                    self.write_at = after(MonoNanos::now(), AGAIN);
                }
                Booked::Other
            }
        }
    }
}
