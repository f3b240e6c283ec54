//! Events with their fields to journald, over its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).
//!
//! A datagram holds the fields of one entry. Fields are written in the form that takes any value:
//!
//! ```text
//! NAME '\n'  length: u64 little endian  value  '\n'
//! ```
//!
//! An entry has `MESSAGE` (the phrase, then all fields as `name=value`, for people), each field once more as
//! `HERMES_<NAME>` (for programs), those of the spans around it and of the [`context`], and for a lifecycle event its
//! `MESSAGE_ID`. The
//! existing tracing layer for journald has neither: it sends the bare phrase, which tells a reader of `journalctl -u`
//! that an agent died but not which and why, and it puts its prefix before `MESSAGE_ID` too.

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::{context, lifecycle};

const SOCKET: &str = "/run/systemd/journal/socket";
const IDENTIFIER: &str = "hermes";
const PREFIX: &str = "HERMES_";

/// The most bytes of one value. A whole entry so stays below the send buffer of a socket (212992, unix(7)), which
/// bounds a datagram.
const VALUE_BYTES_MAX: usize = 8 * 1024;

/// The most fields of an entry, with those of its spans; further ones are left out.
const FIELDS_MAX: usize = 20;

/// How long journald may take to accept an entry. It is slow when the disk is, and then the gateway must not be.
const SEND_TIMEOUT: Duration = Duration::from_millis(50);

/// Whether stderr is the stream that systemd connected to the journal and told in `JOURNAL_STREAM` as
/// `device:inode`. It is not when the output was redirected.
pub(super) fn is_stderr(journal_stream: Option<&str>) -> bool {
    let told = journal_stream.and_then(|told| told.split_once(':'));
    let told = told.and_then(|(device, inode)| Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?)));
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else { return false };
    told == Some((stat.st_dev, stat.st_ino))
}

/// Sends events to journald.
pub(super) struct JournalLayer {
    socket: UnixDatagram,
    dropped: AtomicU64,
}

impl JournalLayer {
    /// # Errors
    /// The kernel's reason when nobody listens on journald's socket.
    pub(super) fn new() -> io::Result<Self> {
        // Shows whether there is a journald, without waking it up: on a busy machine that could cost milliseconds here.
        // The socket for events is another, because a connected one would not find a journald that was restarted.
        UnixDatagram::unbound()?.connect(SOCKET)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self { socket, dropped: AtomicU64::new(0) })
    }
}

impl<S> Layer<S> for JournalLayer
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.inherit(outer);
            }
        }
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            fields.add("dropped_events", dropped.to_string());
        }
        let entry = encode(event, &fields, context::fields());
        if self.socket.send_to(&entry, SOCKET).is_err() {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
        }
    }
}

/// The fields of an event or a span, as text.
#[derive(Default)]
struct Fields {
    message: String,
    list: Vec<(&'static str, String)>,
}

impl Fields {
    fn add(&mut self, name: &'static str, value: String) {
        let value = cut(value);
        if name == "message" {
            self.message = value;
        } else if let Some(field) = self.list.iter_mut().find(|(known, _)| *known == name) {
            field.1 = value;
        } else if self.list.len() < FIELDS_MAX {
            self.list.push((name, value));
        }
    }

    /// Adds the fields of a span around it. What is nearer to the event counts.
    fn inherit(&mut self, outer: &Self) {
        for (name, value) in &outer.list {
            if self.list.len() < FIELDS_MAX && !self.list.iter().any(|(known, _)| known == name) {
                self.list.push((name, value.clone()));
            }
        }
    }

    /// The phrase with all fields, for people.
    fn line(&self) -> String {
        let mut line = self.message.clone();
        for (name, value) in &self.list {
            // Writing to a String cannot fail.
            let _ = write!(line, " {name}={value}");
        }
        cut(line)
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), format!("{value:?}"));
    }
}

fn encode(event: &Event<'_>, fields: &Fields, context: impl Iterator<Item = (&'static str, Value)>) -> Vec<u8> {
    let metadata = event.metadata();
    let mut entry = Vec::with_capacity(512);
    put(&mut entry, "MESSAGE", &fields.line());
    put(&mut entry, "PRIORITY", priority(*metadata.level()));
    put(&mut entry, "SYSLOG_IDENTIFIER", IDENTIFIER);
    put(&mut entry, "TARGET", metadata.target());
    if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
        put(&mut entry, "CODE_FILE", file);
        put(&mut entry, "CODE_LINE", &line.to_string());
    }
    if let Some(id) = lifecycle::message_id(metadata.name()) {
        put(&mut entry, "MESSAGE_ID", id);
    }
    for (name, value) in &fields.list {
        put(&mut entry, &field_name(name), value);
    }
    for (name, value) in context.filter(|(name, _)| !fields.list.iter().any(|(known, _)| known == name)) {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        put(&mut entry, &field_name(name), &text);
    }
    entry
}

fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// Journal field names have A-Z, 0-9 and `_` only, and at most 64 bytes (systemd.journal-fields(7)).
fn field_name(name: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    PREFIX.chars().chain(name.chars().map(legal)).take(64).collect()
}

/// The priorities of syslog(3).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

fn cut(mut value: String) -> String {
    if value.len() > VALUE_BYTES_MAX {
        value.truncate(value.floor_char_boundary(VALUE_BYTES_MAX - '…'.len_utf8()));
        value.push('…');
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_cut_between_characters() {
        let cut = cut("é".repeat(VALUE_BYTES_MAX));
        assert!(cut.len() <= VALUE_BYTES_MAX && cut.ends_with("é…"));
    }

    #[test]
    fn the_nearest_field_counts_and_the_line_has_all() {
        let mut fields = Fields::default();
        fields.add("message", "agent died".to_owned());
        fields.add("agent", "inner".to_owned());
        let mut outer = Fields::default();
        outer.add("agent", "outer".to_owned());
        outer.add("turn", "7".to_owned());
        fields.inherit(&outer);
        assert_eq!(fields.line(), "agent died agent=inner turn=7");
    }

    #[test]
    fn fields_are_encoded_with_their_length() {
        let mut entry = Vec::new();
        put(&mut entry, &field_name("elapsed.ms-x"), "a\nb");
        assert_eq!(entry, b"HERMES_ELAPSED_MS_X\n\x03\0\0\0\0\0\0\0a\nb\n");
    }

    #[test]
    fn only_the_stream_of_systemd_is_the_journal() {
        assert!(!is_stderr(None));
        assert!(!is_stderr(Some("")));
        assert!(!is_stderr(Some("1:2")));
        let stat = rustix::fs::fstat(io::stderr()).expect("stderr is open");
        assert!(is_stderr(Some(&format!("{}:{}", stat.st_dev, stat.st_ino))));
    }
}
