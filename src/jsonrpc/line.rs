//! Splitting a byte stream into lines without losing the part that has not ended yet.

use thiserror::Error;

/// Why a stream cannot be split any further.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LineError {
    /// The peer sent more than `limit` bytes without a newline.
    #[error("a line of more than {limit} bytes without an end")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
}

/// Bytes that were read and not yet taken out as lines.
#[derive(Debug, Clone)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    /// Everything before this was searched and holds no newline.
    searched: usize,
    limit: usize,
}

impl LineBuffer {
    /// An empty buffer that refuses a line of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self::with_partial(limit, Vec::new())
    }

    /// A buffer that goes on where another one stopped: `partial` is what its [`LineBuffer::partial`] returned.
    pub fn with_partial(limit: usize, partial: Vec<u8>) -> Self {
        Self { bytes: partial, searched: 0, limit }
    }

    /// Appends what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes out the next whole line, without its newline (and carriage return).
    ///
    /// # Errors
    /// [`LineError::TooLong`] once more than the limit is buffered without a newline; the buffer is then of no
    /// further use.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        let found = self.bytes[self.searched..].iter().position(|b| *b == b'\n');
        let Some(offset) = found else {
            self.searched = self.bytes.len();
            return if self.bytes.len() > self.limit {
                Err(LineError::TooLong { limit: self.limit })
            } else {
                Ok(None)
            };
        };
        let end = self.searched + offset;
        if end > self.limit {
            return Err(LineError::TooLong { limit: self.limit });
        }
        let rest = self.bytes.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.bytes, rest);
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        self.searched = 0;
        Ok(Some(line))
    }

    /// What was read and not taken out: to be carried.
    pub fn partial(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(buffer: &mut LineBuffer) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| buffer.next_line().expect("within the limit")).collect()
    }

    #[test]
    fn a_line_over_the_limit_is_refused_with_and_without_its_end() {
        let mut open = LineBuffer::new(4);
        open.push(b"12345");
        assert_eq!(open.next_line(), Err(LineError::TooLong { limit: 4 }));
        let mut ended = LineBuffer::new(4);
        ended.push(b"12345\n");
        assert_eq!(ended.next_line(), Err(LineError::TooLong { limit: 4 }));
    }

    proptest! {
        /// Whatever the cuts between reads, and wherever the buffer is carried over, the lines are those of the stream.
        #[test]
        fn cuts_and_carries_change_nothing(
            stream in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..400),
            cuts in prop::collection::vec(1usize..40, 1..40),
            carry_every in 1usize..5,
        ) {
            let mut whole = LineBuffer::new(1 << 20);
            whole.push(&stream);
            let expected = lines(&mut whole);

            let mut got = Vec::new();
            let mut buffer = LineBuffer::new(1 << 20);
            let mut rest = stream.as_slice();
            let mut step = 0;
            while !rest.is_empty() {
                let cut = cuts[step % cuts.len()].min(rest.len());
                let (now, later) = rest.split_at(cut);
                buffer.push(now);
                if step % carry_every == 0 {
                    buffer = LineBuffer::with_partial(1 << 20, buffer.partial().to_vec());
                }
                got.extend(lines(&mut buffer));
                rest = later;
                step += 1;
            }
            prop_assert_eq!(&got, &expected);
            prop_assert_eq!(buffer.partial(), whole.partial());
        }
    }
}
