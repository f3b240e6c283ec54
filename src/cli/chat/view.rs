//! How a chat looks: answers byte for byte on standard output, all the rest on standard error or on lines of its own.

use std::io::{self, IsTerminal, Write};

use super::talk::Show;
use crate::chat::ReplyEnd;
use crate::cli::error::CliError;
use crate::cli::screen::complain;

/// What standard output is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A conversation: replies, and notices on lines of their own.
    Conversation,
    /// The one answer: a reply, or the notice that answers a command.
    Answer {
        /// Whether a command was sent.
        command: bool,
    },
}

/// Where a chat is shown.
#[derive(Debug)]
pub(super) struct View {
    mode: Mode,
    stdin_is_terminal: bool,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
    /// True while the last byte on standard output ended a line, or there is none.
    at_line_start: bool,
    /// True while the prompt is the last thing on the terminal.
    prompted: bool,
}

impl View {
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            mode,
            stdin_is_terminal: io::stdin().is_terminal(),
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
            at_line_start: true,
            prompted: false,
        }
    }

    /// Shows one thing.
    ///
    /// # Errors
    /// Standard output cannot be written to.
    pub(super) fn show(&mut self, show: Show) -> Result<(), CliError> {
        match show {
            Show::Begin => self.start_line(),
            Show::Text(text) => self.write(&text),
            Show::Activity(title) => {
                self.activity(&title);
                Ok(())
            }
            Show::Notice(text) => self.notice(&text),
            Show::End(end) => self.end(&end),
            Show::Rejected(reason) => {
                self.aside(&format!("error: not sent: {reason}"));
                Ok(())
            }
        }
    }

    /// Asks for the next line, where somebody types.
    pub(super) fn prompt(&mut self) {
        let somebody_types = self.stdin_is_terminal && self.stderr_is_terminal;
        if self.mode == Mode::Conversation && somebody_types && !self.prompted {
            let _ = io::stderr().write_all(b"> ");
            self.prompted = true;
        }
    }

    /// Notes that a line was typed, so that the cursor is below the prompt.
    pub(super) fn typed(&mut self) {
        self.prompted = false;
    }

    /// Takes the prompt away before something else is shown in its place.
    fn unprompt(&mut self) {
        if std::mem::take(&mut self.prompted) {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }

    /// Leaves the terminal's cursor at the start of a line; a file or pipe keeps the answer's bytes as they are.
    ///
    /// # Errors
    /// Standard output cannot be written to.
    pub(super) fn finish(&mut self) -> Result<(), CliError> {
        self.unprompt();
        if self.stdout_is_terminal { self.start_line() } else { Ok(()) }
    }

    /// Writes a line to standard error that does not run into an answer on the same terminal.
    pub(super) fn aside(&mut self, line: &str) {
        self.unprompt();
        if self.stdout_is_terminal && !self.at_line_start {
            complain("");
            self.at_line_start = true;
        }
        complain(line);
    }

    fn notice(&mut self, text: &str) -> Result<(), CliError> {
        match self.mode {
            Mode::Conversation => {
                self.start_line()?;
                self.write(text)?;
                self.start_line()
            }
            Mode::Answer { command: true } => self.write(text),
            Mode::Answer { command: false } => {
                self.aside(text);
                Ok(())
            }
        }
    }

    fn activity(&mut self, title: &str) {
        if self.stderr_is_terminal {
            let title = title.replace(char::is_control, " ");
            self.aside(&format!("\x1b[2m· {title}\x1b[0m"));
        }
    }

    fn end(&mut self, end: &ReplyEnd) -> Result<(), CliError> {
        self.finish()?;
        // With one answer the reason is told as the command's error.
        if self.mode == Mode::Conversation {
            match end {
                ReplyEnd::Complete => {}
                ReplyEnd::Stopped => self.aside("(stopped)"),
                ReplyEnd::Failed(reason) => self.aside(&format!("error: {reason}")),
            }
        }
        Ok(())
    }

    fn start_line(&mut self) -> Result<(), CliError> {
        if self.at_line_start { Ok(()) } else { self.write("\n") }
    }

    fn write(&mut self, text: &str) -> Result<(), CliError> {
        self.unprompt();
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::stdout)?;
        if let Some(last) = text.bytes().last() {
            self.at_line_start = last == b'\n';
        }
        Ok(())
    }
}
