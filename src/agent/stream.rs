//! The two streams of an agent process, and how its output is read without being lost or told twice.
//!
//! An agent of this image has a socket pair per stream; one that an image before it started has pipes, and is read
//! without the care below.
//!
//! ## Exactly once over SIGKILL
//!
//! Output is looked at (MSG_PEEK), recorded in the recovery log, and only then taken away. The log outlives the process
//! that writes it, and so does the queue of the socket. What neither says is whether the bytes of the last record are
//! still in the queue. The socket's SO_PEEK_OFF ([`peek`]) says it: before the record of read number *r* with *n* bytes
//! is written, it is set to `mark(r) + n`, and the kernel lowers it with the bytes that are taken away. `mark` differs
//! between two reads that follow each other, so that the number tells which of them it is about.
//!
//! | killed after step | SO_PEEK_OFF | last record | in front of the queue |
//! |---|---|---|---|
//! | at rest | `mark(r - 1)`, or -1 | r - 1 | nothing that is recorded |
//! | 1. the offset is switched off, n bytes are looked at | -1 | r - 1 | nothing that is recorded |
//! | 2. the offset is set to `mark(r) + n` | `mark(r) + n` | r - 1 | nothing that is recorded |
//! | 3. read r is recorded | `mark(r) + n` | r | n bytes that are recorded |
//! | (in the middle of 4) | `mark(r) + m` | r | m bytes that are recorded |
//! | 4. n bytes are taken away | `mark(r)` | r | nothing that is recorded |
//!
//! So with *r* the last recorded read: if SO_PEEK_OFF is from `mark(r)` to `mark(r) + n`, the difference to `mark(r)` is
//! what must be taken away unheard ([`Output::unconsumed`]); else nothing. Whoever takes that away moves the offset
//! along, so being killed meanwhile changes nothing. It needs no setting back: every read switches it off first.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;

use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, fstat};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, sockopt};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::sys::peek;

/// The most that is read at once, in bytes: what a pipe holds, and little enough that commands are taken often.
pub(super) const READ_BYTES: usize = 64 << 10;
/// Far enough apart that the bytes of a read fit in between.
const MARK: c_int = 1 << 20;

/// Our end of an agent's stdin.
#[derive(Debug)]
pub(super) enum Input {
    Pipe(pipe::Sender),
    Socket(UnixStream),
}

/// Our end of an agent's stdout.
#[derive(Debug)]
pub(super) enum Output {
    Pipe(pipe::Receiver),
    Socket(UnixStream),
}

impl Input {
    /// Takes over a pipe or an AF_UNIX stream socket.
    ///
    /// # Errors
    /// `InvalidInput` if it is neither.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        if is_pipe(&fd)? {
            return pipe::Sender::from_owned_fd(fd).map(Self::Pipe);
        }
        socket(fd).map(Self::Socket)
    }

    /// Waits until it takes something.
    pub(super) async fn writable(&self) {
        // What is wrong with it shows in the write that follows.
        match self {
            Self::Pipe(pipe) => drop(pipe.writable().await),
            Self::Socket(socket) => drop(socket.writable().await),
        }
    }

    /// Writes once.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.try_write(bytes),
            Self::Socket(socket) => socket.try_io(Interest::WRITABLE, || Ok(send(socket, bytes, SendFlags::NOSIGNAL)?)),
        }
    }

    /// The agent reads the end of its input, whoever else holds this socket. A pipe's end has to be closed for that.
    pub(super) fn end(self) {
        if let Self::Socket(socket) = self {
            // An agent that is gone needs no end.
            let _gone = rustix::net::shutdown(&socket, rustix::net::Shutdown::Write);
        }
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Pipe(pipe) => pipe.as_fd(),
            Self::Socket(socket) => socket.as_fd(),
        }
    }
}

impl Output {
    /// As [`Input::new`].
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        if is_pipe(&fd)? {
            return pipe::Receiver::from_owned_fd(fd).map(Self::Pipe);
        }
        socket(fd).map(Self::Socket)
    }

    /// Waits until there is something to read.
    pub(super) async fn readable(&self) {
        match self {
            Self::Pipe(pipe) => drop(pipe.readable().await),
            Self::Socket(socket) => drop(socket.readable().await),
        }
    }

    /// Whether what was read can be found out after a kill.
    pub(super) fn keeps_what_was_read(&self) -> bool {
        matches!(self, Self::Socket(_))
    }

    /// Reads into what room `buffer` has. What it returns is gone from the queue.
    pub(super) fn try_read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.try_read_buf(buffer),
            Self::Socket(socket) => socket.try_read_buf(buffer),
        }
    }

    /// Step 1: looks at what a [`Output::try_read`] would return.
    pub(super) fn try_peek(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let socket = self.socket()?;
        peek::set_offset(socket.as_fd(), -1)?;
        socket.try_io(Interest::READABLE, || {
            let (count, _) = recv(socket, spare_capacity(buffer), RecvFlags::PEEK)?;
            Ok(count)
        })
    }

    /// Step 2: read number `read`, of `count` bytes, is about to be recorded.
    pub(super) fn mark(&self, read: u64, count: usize) -> io::Result<()> {
        let count = c_int::try_from(count).ok().filter(|count| *count < MARK).ok_or(io::ErrorKind::InvalidInput)?;
        peek::set_offset(self.socket()?.as_fd(), mark(read) + count)
    }

    /// Step 4: takes `count` bytes away, which are there.
    pub(super) fn consume(&self, mut count: usize, scratch: &mut [u8]) -> io::Result<()> {
        let socket = self.socket()?;
        while count > 0 {
            let room = scratch.len().min(count);
            let (taken, _) = recv(socket, &mut scratch[..room], RecvFlags::DONTWAIT)?;
            if taken == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            count -= taken;
        }
        Ok(())
    }

    /// How many bytes in front of the queue belong to read number `read`, the last that is recorded, of `count` bytes.
    pub(super) fn unconsumed(&self, read: u64, count: usize) -> io::Result<usize> {
        let left = peek::offset(self.socket()?.as_fd())? - mark(read);
        Ok(usize::try_from(left).ok().filter(|left| *left <= count).unwrap_or(0))
    }

    fn socket(&self) -> io::Result<&UnixStream> {
        match self {
            Self::Socket(socket) => Ok(socket),
            Self::Pipe(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Pipe(pipe) => pipe.as_fd(),
            Self::Socket(socket) => socket.as_fd(),
        }
    }
}

/// Where the numbers of a read begin: another place than those of the one before and the one after it.
fn mark(read: u64) -> c_int {
    if read.is_multiple_of(2) { MARK } else { 2 * MARK }
}

fn is_pipe(fd: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Fifo)
}

fn socket(fd: OwnedFd) -> io::Result<UnixStream> {
    let unix = sockopt::socket_domain(&fd)? == AddressFamily::UNIX;
    if !unix || sockopt::socket_type(&fd)? != SocketType::STREAM {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a pipe nor a stream socket"));
    }
    let socket = StdStream::from(fd);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The rows of the table in the module's documentation, for two reads of the same length.
    #[tokio::test]
    async fn what_is_recorded_and_still_there_is_known_after_every_step() {
        let (ours, mut theirs) = StdStream::pair().expect("a pair");
        let output = Output::new(ours.into()).expect("a socket");
        let unconsumed = |read| output.unconsumed(read, 5).expect("a socket");
        let mut buffer = Vec::with_capacity(READ_BYTES);
        for read in 1..8 {
            theirs.write_all(b"12345").expect("writes");
            assert_eq!(unconsumed(read - 1), 0, "at rest");
            output.readable().await;
            buffer.clear();
            assert_eq!(output.try_peek(&mut buffer).expect("it is there"), 5);
            assert_eq!(unconsumed(read - 1), 0, "looked at");
            output.mark(read, 5).expect("marks");
            assert_eq!(unconsumed(read - 1), 0, "marked and not recorded");
            assert_eq!(unconsumed(read), 5, "recorded");
            output.consume(2, &mut buffer.clone()).expect("it is there");
            assert_eq!(unconsumed(read), 3, "half taken away");
            output.consume(3, &mut buffer.clone()).expect("it is there");
            assert_eq!(unconsumed(read), 0, "taken away");
            // A look that is not followed by anything finds the same again.
            theirs.write_all(b"abc").expect("writes");
            for _ in 0..2 {
                output.readable().await;
                buffer.clear();
                output.try_peek(&mut buffer).expect("it is there");
                assert_eq!(buffer, b"abc");
            }
            output.consume(3, &mut buffer.clone()).expect("it is there");
        }
    }

    #[tokio::test]
    async fn what_is_neither_a_pipe_nor_a_stream_is_refused() {
        let file = || OwnedFd::from(tempfile::tempfile().expect("a file"));
        assert!(Output::new(file()).is_err() && Input::new(file()).is_err());
        let (datagrams, _other) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
        assert!(Output::new(datagrams.into()).is_err());
        let (read, write) = io::pipe().expect("a pipe");
        assert!(!Output::new(read.into()).expect("a pipe").keeps_what_was_read());
        assert!(Input::new(write.into()).is_ok());
    }
}
