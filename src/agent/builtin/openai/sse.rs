//! Server-sent events, as far as a client of the chat completions API needs them
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>).
//!
//! Event names, ids and retry times are skipped; a line ends with LF or CR LF, as every server writes them.

use crate::jsonrpc::{LineBuffer, LineError};

/// The longest line of a stream, in bytes.
const LINE_BYTES_MAX: usize = 4 << 20;

/// Takes a stream in pieces and gives its events out.
pub(super) struct Events {
    lines: LineBuffer,
    /// The data of the event that has not ended yet.
    data: Option<String>,
}

impl Events {
    pub(super) fn new() -> Self {
        Self { lines: LineBuffer::new(LINE_BYTES_MAX), data: None }
    }

    /// Takes what was received.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.lines.push(bytes);
    }

    /// The data of the next whole event.
    ///
    /// # Errors
    /// A line is too long; the stream is of no further use.
    pub(super) fn next(&mut self) -> Result<Option<String>, LineError> {
        while let Some(line) = self.lines.next_line()? {
            if line.is_empty() {
                if let Some(data) = self.data.take() {
                    return Ok(Some(data));
                }
            } else {
                self.field(&line);
            }
        }
        Ok(None)
    }

    /// The stream has ended: ends its last event, too. The standard drops an event without its empty line; some servers
    /// rely on the client not doing so.
    pub(super) fn finish(&mut self) {
        self.lines.push(b"\n\n");
    }

    fn field(&mut self, line: &[u8]) {
        let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        let Some(value) = line.strip_prefix(b"data").filter(|rest| rest.is_empty() || rest[0] == b':') else { return };
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match &mut self.data {
            Some(data) => {
                data.push('\n');
                data.push_str(&value);
            }
            None => self.data = Some(value.into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]]) -> Vec<String> {
        let mut events = Events::new();
        let mut all = Vec::new();
        for piece in pieces {
            events.push(piece);
            all.extend(std::iter::from_fn(|| events.next().expect("short lines")));
        }
        events.finish();
        all.extend(std::iter::from_fn(|| events.next().expect("short lines")));
        all
    }

    #[test]
    fn comments_names_and_line_ends_are_as_in_the_standard() {
        let stream =
            b"\xef\xbb\xbfdata: a\r\n\r\n: ping\n\nevent: x\nid: 1\ndata:b\ndata\ndata:  c\n\ndatax: no\n\ndata: end";
        assert_eq!(all(&[stream]), ["a", "b\n\n c", "end"]);
        assert!(all(&[b""]).is_empty());
    }

    proptest! {
        /// Whatever the cuts, even within a character, the events are those that were written.
        #[test]
        fn cuts_change_nothing(
            texts in prop::collection::vec("[^\r\n\u{feff}]{1,12}", 1..8),
            cuts in prop::collection::vec(1usize..9, 1..20),
            crlf in any::<bool>(),
        ) {
            let end = if crlf { "\r\n" } else { "\n" };
            let stream: String = texts.iter().map(|text| format!(": c{end}data: {text}{end}{end}")).collect();
            let mut rest = stream.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, later) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = later;
            }
            prop_assert_eq!(all(&pieces), texts);
        }

        #[test]
        fn no_stream_panics(stream in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = all(&[&stream]);
        }
    }
}
