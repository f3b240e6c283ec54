//! How a handoff under way is shown, on standard error.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::screen;
use crate::control::proto::Progress;

/// Shows the steps of a handoff.
#[derive(Debug)]
pub(super) enum ProgressView {
    /// Nowhere: a program reads the answer.
    Quiet,
    /// A line for each phase: standard error is a file or a journal.
    Lines {
        /// The phase shown last.
        phase: String,
    },
    /// One line that changes.
    Bar(ProgressBar),
}

impl ProgressView {
    /// The fitting one for where standard error goes.
    pub(super) fn new(json: bool) -> Self {
        if json {
            Self::Quiet
        } else if io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(100));
            Self::Bar(bar)
        } else {
            Self::Lines { phase: String::new() }
        }
    }

    /// Shows the step.
    pub(super) fn show(&mut self, progress: &Progress) {
        match self {
            Self::Quiet => {}
            Self::Lines { phase } if *phase == progress.phase => {}
            Self::Lines { phase } => {
                screen::complain(&format!("{}: {}", progress.phase, progress.message));
                phase.clone_from(&progress.phase);
            }
            Self::Bar(bar) => {
                bar.set_message(format!("{}: {}", progress.phase, progress.message));
                bar.set_style(style(progress.total_bytes.is_some()));
                if let Some(total) = progress.total_bytes {
                    bar.set_length(total);
                }
                bar.set_position(progress.done_bytes.unwrap_or(0));
            }
        }
    }

    /// Shows something that belongs to no phase.
    pub(super) fn note(&self, line: &str) {
        match self {
            Self::Quiet => {}
            Self::Lines { .. } => screen::complain(line),
            Self::Bar(bar) => bar.println(line),
        }
    }

    /// Leaves the terminal as if nothing had been shown.
    pub(super) fn finish(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn style(with_bytes: bool) -> ProgressStyle {
    let template = if with_bytes { "{spinner} {msg} {bar:30} {bytes}/{total_bytes}" } else { "{spinner} {msg}" };
    ProgressStyle::with_template(template).expect("the template is well formed")
}
