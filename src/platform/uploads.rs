//! Files that are held in memory while they are sent.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::delivery::Attached;
use super::link::Unsent;
use crate::chat::NotSent;

/// Files of one platform that are held at a time.
const MAX: usize = 2;

/// The files of one platform.
#[derive(Clone)]
pub(super) struct Uploads(Arc<Semaphore>);

/// A file in memory.
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    /// Others wait for this.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Uploads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX)))
    }
}

impl Uploads {
    /// Reads a file, once there is room for it: whoever holds one has a deadline.
    ///
    /// # Errors
    /// It is gone, or larger than this.
    pub(super) async fn hold(&self, file: &Attached, bytes_max: u64) -> Result<Held, Unsent> {
        let unreadable = || Unsent::no_file(NotSent::Unreadable);
        if file.bytes().await.ok_or_else(unreadable)? > bytes_max {
            return Err(Unsent::no_file(NotSent::TooLarge { bytes_max }));
        }
        // It is never closed.
        let permit = Arc::clone(&self.0).acquire_owned().await.ok();
        let bytes = tokio::fs::read(&file.path).await.map_err(|_| unreadable())?;
        Ok(Held { bytes, _permit: permit })
    }
}
