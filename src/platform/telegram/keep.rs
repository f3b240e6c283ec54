//! The state kept for the case of a kill, in a recovery log that the service manager holds as well.
//!
//! **Invariants**
//! - The log has one record, the latest state, as [`Saved`](super::saved::Saved) writes it.
//! - Whatever is wrong with the log costs what would be gone without one, and nothing else.

use std::io;
use std::os::fd::OwnedFd;

use serde::Serialize;
use serde_json::Value;

use crate::chat::{Outbound, OutboundContent, ReplyStep};
use crate::recovery::RecoveryLog;

/// For people who look into /proc.
const NAME: &str = "telegram-recovery";

/// The log; nothing where the kernel has none to give.
#[derive(Debug)]
pub(super) struct Keep {
    log: Option<RecoveryLog>,
    /// It was told in the log of the gateway that it cannot be written.
    failed: bool,
}

impl Keep {
    /// Goes on with the log of an earlier process, or begins one. Returns with it the state that was kept.
    pub(super) fn open(left: Option<OwnedFd>) -> (Self, Option<Value>) {
        let earlier = left.and_then(|fd| match RecoveryLog::open(fd) {
            Ok(log) => Some(log),
            Err(error) => {
                tracing::error!(%error, "what the process before kept cannot be read: replies in delivery are lost");
                None
            }
        });
        let state = earlier.as_ref().and_then(|log| {
            latest(log).unwrap_or_else(|error| {
                tracing::error!(%error, "what the process before kept cannot be read: replies in delivery are lost");
                None
            })
        });
        let log = earlier.map_or_else(|| RecoveryLog::create(NAME), Ok);
        let log =
            log.inspect_err(|error| tracing::warn!(%error, "a kill of the gateway would cost undelivered replies"));
        (Self { log: log.ok(), failed: false }, state)
    }

    /// A duplicate of the log's fd, for the service manager and the next image.
    pub(super) fn fd(&self) -> Option<OwnedFd> {
        let fd = self.log.as_ref()?.as_fd().try_clone_to_owned();
        fd.inspect_err(|error| tracing::warn!(%error, "a kill of the gateway would cost undelivered replies")).ok()
    }

    /// Keeps this state in the place of the one before.
    pub(super) fn put(&mut self, state: &impl Serialize) {
        let Some(log) = &mut self.log else { return };
        let record = serde_json::to_vec(state).expect("plain data with text keys serialises");
        match log.replace([record.as_slice()]) {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                tracing::error!(%error, "the state cannot be kept: a kill of the gateway would repeat or cost replies");
                self.failed = true;
            }
            Err(_) => {}
        }
    }
}

/// Whether nobody else would remember it. The text of a reply comes again as [`ReplyStep::SoFar`].
pub(super) fn must_be_kept(outbound: &Outbound) -> bool {
    match &outbound.content {
        OutboundContent::Notice { .. } => true,
        OutboundContent::Reply { step, .. } => matches!(step, ReplyStep::Begin | ReplyStep::End(_)),
    }
}

fn latest(log: &RecoveryLog) -> io::Result<Option<Value>> {
    let record = log.records()?.pop();
    // The error's own text could quote a reply.
    let read = |record: Vec<u8>| serde_json::from_slice(&record).map_err(|_| io::ErrorKind::InvalidData.into());
    record.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_latest_state_comes_back() {
        let (mut keep, state) = Keep::open(None);
        assert_eq!(state, None);
        let (_, state) = Keep::open(keep.fd());
        assert_eq!(state, None, "nothing was kept yet");
        for n in 0..3 {
            keep.put(&json!({ "n": n, "text": "x".repeat(10_000) }));
        }
        let (mut next, state) = Keep::open(keep.fd());
        assert_eq!(state.expect("kept")["n"], 2);
        next.put(&json!(3));
        assert_eq!(Keep::open(keep.fd()).1, Some(json!(3)));
    }

    #[test]
    fn what_is_no_log_is_replaced_by_one() {
        let null = std::fs::File::open("/dev/null").expect("opens").into();
        let (mut keep, state) = Keep::open(Some(null));
        assert_eq!(state, None);
        keep.put(&json!(1));
        assert_eq!(Keep::open(keep.fd()).1, Some(json!(1)));
    }

    #[test]
    fn a_record_that_is_no_state_is_dropped() {
        let mut log = RecoveryLog::create("test").expect("creates");
        log.append(b"{").expect("appends");
        let (keep, state) = Keep::open(log.as_fd().try_clone_to_owned().ok());
        assert_eq!(state, None);
        assert!(keep.fd().is_some());
    }
}
