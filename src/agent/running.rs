//! A process that runs: reading it, writing to it, and ending it step by step.

use std::io::ErrorKind;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::Limits;
use super::connection::Connection;
use super::journal::Journal;
use super::limits::after;
use super::process::Process;
use super::stream::READ_BYTES;
use crate::clock::MonoNanos;
use crate::fault::{self, Point};
use crate::jsonrpc::LineBuffer;
use crate::report::Chain;

/// Whether there is a process.
#[derive(Debug)]
pub(super) enum Life {
    /// There is none.
    Down {
        /// When the next is started.
        start_at: MonoNanos,
    },
    /// There is one.
    Up(Box<Running>),
}

/// Why a process is being ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cause {
    /// It was asked for.
    Stop,
    /// It broke the rules in this way.
    Fault(String),
}

/// What is done next to end a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EndingStep {
    /// SIGTERM to its group.
    Terminate,
    /// SIGKILL to its group.
    Kill,
    /// It cannot be ended (it hangs in the kernel): it is left behind.
    Abandon,
}

/// How the ending of a process goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ending {
    cause: Cause,
    next: EndingStep,
    at: MonoNanos,
}

impl Ending {
    /// Whether it was asked for.
    pub(super) fn was_asked_for(&self) -> bool {
        self.cause == Cause::Stop
    }

    /// Whoever asked for it is gone: the process is ended all the same, and another started.
    pub(super) fn forget_who_asked(&mut self) {
        if self.was_asked_for() {
            self.cause = Cause::Fault("the gateway was killed while it stopped the agent".to_owned());
        }
    }

    /// The fault that the process was signalled for. `None` if it ended before that: a process that exits closes its
    /// pipes a moment earlier, which is no fault.
    pub(super) fn into_fault(self) -> Option<String> {
        match self.cause {
            Cause::Fault(fault) if self.next != EndingStep::Terminate => Some(fault),
            Cause::Fault(_) | Cause::Stop => None,
        }
    }
}

/// A process and how far it has come.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) process: Process,
    pub(super) started: MonoNanos,
    pub(super) lines: LineBuffer,
    /// Where the next bytes are read to. Its memory is not touched before, or a hundred agents would cost a new image
    /// a hundred times as many page faults.
    buffer: Vec<u8>,
    /// It is being ended.
    pub(super) ending: Option<Ending>,
    /// How the ending goes on has changed since [`Running::take_changed`].
    changed: bool,
    /// No more output is wanted or to be had.
    pub(super) output_over: bool,
    /// It has ended, and its output is read until then at the longest.
    pub(super) drain_until: Option<MonoNanos>,
}

impl Running {
    pub(super) fn new(process: Process, started: MonoNanos, limits: &Limits) -> Self {
        let lines = LineBuffer::new(limits.line_bytes_max);
        let buffer = Vec::with_capacity(READ_BYTES);
        Self { process, started, lines, buffer, ending: None, changed: true, output_over: false, drain_until: None }
    }

    /// Whether nothing more is to come of it.
    pub(super) fn is_over(&self, now: MonoNanos) -> bool {
        let abandoned = matches!(&self.ending, Some(Ending { next: EndingStep::Abandon, at, .. }) if *at <= now);
        let drained = self.drain_until.is_some_and(|until| self.output_over || until <= now);
        abandoned || drained
    }

    /// Whether it has ended or is being ended.
    pub(super) fn is_leaving(&self) -> bool {
        self.ending.is_some() || self.drain_until.is_some()
    }

    /// Whether it is being ended because that was asked for.
    pub(super) fn is_stopping(&self) -> bool {
        self.ending.as_ref().is_some_and(Ending::was_asked_for)
    }

    /// When there is something to do.
    pub(super) fn next_deadline(&self) -> Option<MonoNanos> {
        // A process that has ended needs no signal.
        self.drain_until.or_else(|| self.ending.as_ref().map(|ending| ending.at))
    }

    /// Closes its stdin and ends it harder from `at` on.
    pub(super) fn stop(&mut self, at: MonoNanos) {
        self.process.end_input();
        self.changed = true;
        match &mut self.ending {
            Some(ending) => ending.cause = Cause::Stop,
            None => self.ending = Some(Ending { cause: Cause::Stop, next: EndingStep::Terminate, at }),
        }
    }

    /// Ends it because of `fault`, from `step` on, at `at`. It is not ended twice.
    pub(super) fn end(&mut self, step: EndingStep, at: MonoNanos, fault: String) {
        if self.ending.is_none() {
            self.changed = true;
            self.ending = Some(Ending { cause: Cause::Fault(fault), next: step, at });
        }
    }

    /// Takes the next step of its ending if that is due.
    pub(super) fn advance_ending(&mut self, now: MonoNanos, limits: &Limits) {
        let Some(ending) = &mut self.ending else { return };
        if ending.at > now || self.drain_until.is_some() {
            return;
        }
        self.changed = true;
        (ending.next, ending.at) = match ending.next {
            EndingStep::Terminate => {
                self.process.signal(Signal::TERM);
                (EndingStep::Kill, after(now, limits.stop_grace))
            }
            EndingStep::Kill => {
                self.process.signal(Signal::KILL);
                (EndingStep::Abandon, after(now, limits.stop_grace))
            }
            EndingStep::Abandon => (EndingStep::Abandon, ending.at),
        };
    }

    /// Whether its ending has gone on since the last time.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Reads once and passes the whole lines on. If `keep`, what was read stays in the queue, until it is recorded and
    /// [`Running::consume`] takes it away. `None` if nothing came.
    pub(super) fn read(
        &mut self,
        now: MonoNanos,
        limits: &Limits,
        connection: &mut Connection,
        keep: bool,
    ) -> Option<Heard> {
        self.buffer.clear();
        let stdout = &self.process.stdout;
        let read = if keep { stdout.try_peek(&mut self.buffer) } else { stdout.try_read(&mut self.buffer) };
        match read {
            Ok(0) => self.end_of_output(now, limits),
            Ok(bytes) => {
                fault::at(Point::Streaming);
                self.lines.push(&self.buffer[..bytes]);
                self.take_lines(now, limits, connection);
                let line_end = self.buffer[..bytes].iter().rposition(|byte| *byte == b'\n');
                return Some(Heard { bytes, line_end });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot read an agent's output");
                self.end_of_output(now, limits);
            }
        }
        None
    }

    /// What a read has left of a line that has not ended.
    pub(super) fn rest(&self, heard: Heard) -> &[u8] {
        &self.buffer[heard.line_end.map_or(0, |end| end + 1)..heard.bytes]
    }

    /// Takes what was read and kept out of the queue.
    pub(super) fn consume(&mut self, now: MonoNanos, limits: &Limits, bytes: usize) {
        if let Err(error) = self.process.stdout.consume(bytes, &mut self.buffer) {
            // Reading on would tell it twice.
            tracing::error!(error = %Chain(&error), "cannot take an agent's output out of its socket");
            self.end_of_output(now, limits);
        }
    }

    /// Without its output an agent is of no use; mostly it is about to exit.
    fn end_of_output(&mut self, now: MonoNanos, limits: &Limits) {
        self.output_over = true;
        if self.drain_until.is_none() {
            self.end(EndingStep::Terminate, after(now, limits.stop_grace), "it closed its output".to_owned());
        }
    }

    fn take_lines(&mut self, now: MonoNanos, limits: &Limits, connection: &mut Connection) {
        loop {
            match self.lines.next_line() {
                Ok(Some(line)) => connection.line(now, &line),
                Ok(None) => return,
                Err(error) => {
                    // Nothing after it can be understood, and the memory is wanted back at once.
                    self.lines = LineBuffer::new(limits.line_bytes_max);
                    self.output_over = true;
                    return self.end(EndingStep::Kill, now, format!("it sent {error}"));
                }
            }
        }
    }

    /// Writes once. Before and after it the log says so.
    pub(super) fn write(
        &mut self,
        now: MonoNanos,
        limits: &Limits,
        connection: &mut Connection,
        journal: &mut Journal,
    ) {
        let Some(stdin) = &self.process.stdin else { return };
        let front = connection.outgoing.front();
        journal.writing(front.len());
        let written = stdin.try_write(front);
        journal.written(*written.as_ref().unwrap_or(&0));
        match written {
            Ok(count) => connection.outgoing.written(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // Its output may still hold the end of a turn.
            Err(_) => self.end(EndingStep::Terminate, after(now, limits.stop_grace), "it closed its input".to_owned()),
        }
    }
}

/// One read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    /// How much it was.
    pub(super) bytes: usize,
    /// Where in it the last line ends.
    pub(super) line_end: Option<usize>,
}
