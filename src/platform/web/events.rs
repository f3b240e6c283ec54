//! Event streams (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! **Invariants**
//! - A stream holds one event at a time: the next is made when the one before is taken. So a reader that is slow costs
//!   nothing, and one that does not read at all is cut off by its connection.
//! - An event's id is where its reader is once it has it.

use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::board::Board;
use super::reader::{Cursor, Reader};
use super::shown::{Audience, Shown};
use crate::report::Chain;

/// How soon a browser comes again.
const RETRY_MS: u32 = 100;
/// A word from time to time, so that a connection that is gone is found out by either end.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Between two events with the status.
const STATUS_PERIOD: Duration = Duration::from_millis(250);

/// Where the reader of a stream is: `<cursor>~<step>`, where either may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EventId {
    chat: Option<Cursor>,
    step: Option<i64>,
}

impl FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (chat, step) = text.split_once('~').ok_or(())?;
        let chat = if chat.is_empty() { None } else { Some(chat.parse()?) };
        let step = if step.is_empty() { None } else { Some(step.parse().map_err(drop)?) };
        Ok(Self { chat, step })
    }
}

/// What a stream is to tell.
pub(super) struct Wanted {
    /// This chat.
    pub(super) chat: Option<String>,
    /// The status as these may know it, and the steps of handoffs.
    pub(super) status: Option<Audience>,
    /// What the reader has.
    pub(super) after: EventId,
}

/// A stream of events.
pub(super) struct Events {
    board: Arc<Board>,
    changes: watch::Receiver<u64>,
    shown: watch::Receiver<Arc<Shown>>,
    reader: Option<Reader>,
    status: Option<StatusReader>,
    is_new: bool,
    leave: watch::Receiver<()>,
}

struct StatusReader {
    audience: Audience,
    revision: u64,
    step: i64,
    /// The next status not before.
    not_before: Instant,
}

impl Events {
    /// `leave` is told when the stream is to end.
    pub(super) fn new(
        wanted: Wanted,
        board: Arc<Board>,
        shown: watch::Receiver<Arc<Shown>>,
        leave: watch::Receiver<()>,
    ) -> Self {
        let Wanted { chat, status, after } = wanted;
        let status = status.map(|audience| StatusReader {
            audience,
            revision: 0,
            step: after.step.unwrap_or_else(|| shown.borrow().last_step()),
            not_before: Instant::now(),
        });
        let reader = chat.map(|chat| Reader::new(chat, after.chat));
        Self { changes: board.changes(), board, shown, reader, status, is_new: true, leave }
    }

    fn id(&self) -> String {
        let mut id = String::new();
        if let Some(reader) = &self.reader {
            let _infallible = write!(id, "{}", reader.cursor());
        }
        id.push('~');
        if let Some(status) = &self.status {
            let _infallible = write!(id, "{}", status.step);
        }
        id
    }

    /// The next piece of the stream; nothing at its end. Cancel-safe: what is not returned is told later.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.is_new) {
            return Some(format!("retry: {RETRY_MS}\n\n").into());
        }
        let keep_alive = Instant::now() + KEEP_ALIVE;
        loop {
            // In order: a browser takes a connection that just breaks off for an error.
            if self.leave.has_changed().unwrap_or(true) {
                return None;
            }
            self.changes.mark_unchanged();
            self.shown.mark_unchanged();
            if let Some(event) = self.ready().await? {
                return Some(event);
            }
            let wake = self.status_due().map_or(keep_alive, |due| due.min(keep_alive));
            tokio::select! {
                changed = self.changes.changed(), if self.reader.is_some() => changed.ok()?,
                changed = self.shown.changed(), if self.status.is_some() => changed.ok()?,
                _ = self.leave.changed() => return None,
                () = tokio::time::sleep_until(wake) => {
                    if wake == keep_alive {
                        return Some(Bytes::from_static(b":\n\n"));
                    }
                }
            }
        }
    }

    /// When a status that waits may be told.
    fn status_due(&self) -> Option<Instant> {
        let status = self.status.as_ref()?;
        self.shown.borrow().is_newer(status.revision).then_some(status.not_before)
    }

    /// An event that can be told now.
    async fn ready(&mut self) -> Option<Option<Bytes>> {
        if let Some(reader) = &mut self.reader {
            match reader.next(&self.board).await {
                Ok(Some(told)) => return Some(Some(self.event(told.event, &told.data.to_string()))),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "what was said cannot be read");
                    return None;
                }
            }
        }
        let shown = Arc::clone(&self.shown.borrow());
        if let Some(status) = &mut self.status {
            while let Some(step) = shown.step_behind(status.step) {
                status.step = step.seq;
                if !step.is_for(status.audience) {
                    continue;
                }
                let data = serde_json::to_string(&**step).expect("plain data serialises");
                return Some(Some(self.event("progress", &data)));
            }
            if status.not_before <= Instant::now()
                && let Some(live) = shown.live(status.audience, &mut status.revision)
            {
                status.not_before = Instant::now() + STATUS_PERIOD;
                return Some(Some(self.event("status", live)));
            }
        }
        Some(None)
    }

    /// JSON has no line breaks, so it is one line of data.
    fn event(&self, event: &str, data: &str) -> Bytes {
        format!("id: {}\nevent: {event}\ndata: {data}\n\n", self.id()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proto::Status;
    use crate::store::Store;

    #[test]
    fn an_id_is_read_as_it_was_told() {
        for id in ["~", "17~", "~5", "17.15-1043-0a1b2c3d~1790000000000"] {
            let read: EventId = id.parse().expect("an id");
            let chat = read.chat.map(|cursor| cursor.to_string()).unwrap_or_default();
            let step = read.step.map(|step| step.to_string()).unwrap_or_default();
            assert_eq!(format!("{chat}~{step}"), id);
        }
        for no in ["", "17", "x~", "~x", "17.15~", "17.15-1-g~", "17.1-2-3-4~"] {
            assert_eq!(no.parse::<EventId>(), Err(()), "{no}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_is_told_at_once_and_then_a_few_times_a_second_with_every_step() {
        let dir = tempfile::tempdir().expect("a directory");
        let board = Arc::new(Board::new(Store::open(&dir.path().join("state.db")).expect("opens")));
        let (sender, shown) = watch::channel(Arc::new(Shown::default()));
        let change = |generation| {
            sender.send_modify(|shown| {
                Arc::make_mut(shown).take_status(Status { generation, ..Status::default() });
            });
        };
        change(1);
        let wanted = Wanted { chat: None, status: Some(Audience::Admins), after: EventId::default() };
        let leave = watch::Sender::default();
        let mut events = Events::new(wanted, board, shown, leave.subscribe());
        let mut next = async || String::from_utf8(events.next().await.expect("a piece").to_vec()).expect("text");
        assert_eq!(next().await, "retry: 100\n\n");
        assert!(next().await.contains("event: status\n"));
        let start = Instant::now();
        change(2);
        sender.send_modify(|shown| {
            for phase in ["preflight", "drain"] {
                Arc::make_mut(shown).push_step(phase, String::new(), (None, None));
            }
        });
        change(3);
        assert!(next().await.contains("\"phase\":\"preflight\""));
        assert!(next().await.contains("\"phase\":\"drain\""));
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(next().await.contains("\"generation\":3"));
        assert_eq!(start.elapsed(), STATUS_PERIOD);
        assert_eq!(next().await, ":\n\n", "and nothing more");
    }
}
