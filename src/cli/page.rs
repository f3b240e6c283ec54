//! How a page for people is laid out: titles, rows in columns, colours where there is a terminal, and lines that are no
//! longer than it is wide.

use std::io::{self, IsTerminal};

use unicode_width::UnicodeWidthStr;

use crate::clock::UnixMillis;
use crate::units::span;

/// How wide a page is that nobody looks at: nothing is broken into lines.
const BOUNDLESS: usize = usize::MAX;
/// A terminal that is narrower is not laid out for.
const NARROWEST: usize = 24;
/// Between two columns.
const GAP: usize = 2;
/// Before every row, and before what is left of one.
const INDENT: usize = 2;
const INDENT_MORE: usize = 6;

/// Where a page is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    color: bool,
    /// In columns.
    pub(super) width: usize,
    /// In lines; boundless where there is no terminal.
    pub(super) height: usize,
}

impl Look {
    /// A file or a pipe.
    pub(super) const PLAIN: Self = Self { color: false, width: BOUNDLESS, height: BOUNDLESS };

    /// Standard output. Colours only on a terminal, and not with `NO_COLOR` (no-color.org) or `TERM=dumb`.
    pub(super) fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::PLAIN;
        }
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        let known = |cells: u16| if cells == 0 { BOUNDLESS } else { usize::from(cells) };
        let (width, height) = size.map_or((BOUNDLESS, BOUNDLESS), |size| (known(size.ws_col), known(size.ws_row)));
        Self { color: !set("NO_COLOR") && !is_dumb, width: width.max(NARROWEST), height }
    }

    /// Whether it is a terminal on which something can be drawn over.
    pub(super) fn is_terminal(self) -> bool {
        self.height != BOUNDLESS
    }

    #[cfg(test)]
    pub(super) fn narrow(width: usize, color: bool) -> Self {
        Self { color, width, height: BOUNDLESS }
    }
}

/// What a word means, where colours are shown. The word says it as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Title,
    Good,
    Doubtful,
    Bad,
    /// Of less interest.
    Faint,
}

impl Tone {
    /// Of a state that something is in.
    pub(super) fn of(state: &str) -> Self {
        match state {
            "running" | "connected" | "ready" | "committed" | "serving" | "ok" => Self::Good,
            "fatal" | "down" | "failed" | "startup_failed" | "refuses" | "fail" => Self::Bad,
            "degraded" | "retrying" | "draining" | "delays" | "risks" | "warn" | "rolled back" => Self::Doubtful,
            "paused" | "connecting" | "starting" | "note" => Self::Faint,
            _ => Self::Plain,
        }
    }

    /// SGR parameters (ECMA-48, 8.3.117).
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Title => "1",
            Self::Good => "32",
            Self::Doubtful => "33",
            Self::Bad => "31",
            Self::Faint => "2",
        }
    }
}

/// One field of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A word that means something.
    pub(super) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: clean(text.as_ref()), tone }
    }

    /// A state, in its tone.
    pub(super) fn state(state: &str) -> Self {
        Self::toned(state, Tone::of(state))
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// Fields side by side; the last one may be long and goes on below the row where there is no room.
pub(super) type Row = Vec<Cell>;

/// A row of a table.
macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$($crate::cli::page::Cell::from($cell)),*] };
}
pub(super) use row;

/// A page that is being written.
#[derive(Debug)]
pub(super) struct Page {
    look: Look,
    text: String,
}

impl Page {
    pub(super) fn new(look: Look) -> Self {
        Self { look, text: String::new() }
    }

    pub(super) fn text(self) -> String {
        self.text
    }

    /// A line that is not indented, of words that follow each other.
    pub(super) fn headline(&mut self, cells: &[Cell]) {
        let words: Vec<String> = cells.iter().map(|cell| self.paint(&cell.text, cell.tone)).collect();
        self.line(&words.join(" "));
    }

    /// Rows under a title, their columns aligned; nothing at all without rows.
    pub(super) fn table(&mut self, title: &str, rows: &[Row]) {
        if rows.is_empty() {
            return;
        }
        let title = self.paint(title, Tone::Title);
        self.line(&title);
        self.rows(rows);
    }

    /// Rows without a title.
    pub(super) fn rows(&mut self, rows: &[Row]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.width()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        rows.iter().for_each(|row| self.row(row, &widths));
    }

    fn row(&mut self, row: &Row, widths: &[usize]) {
        let used = row.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |last| last + 1);
        let (mut line, mut at) = (" ".repeat(INDENT), INDENT);
        for (column, cell) in row.iter().take(used).enumerate() {
            // What has no room goes below, unless it is the first.
            if column > 0 && cell.text.width() > self.look.width.saturating_sub(at) {
                self.line_unless_blank(&line);
                (line, at) = (" ".repeat(INDENT_MORE), INDENT_MORE);
            }
            let mut pieces = wrap(&cell.text, self.look.width.saturating_sub(at));
            let last = pieces.pop().unwrap_or_default();
            for piece in pieces {
                line.push_str(&self.paint(&piece, cell.tone));
                self.line_unless_blank(&line);
                (line, at) = (" ".repeat(INDENT_MORE), INDENT_MORE);
            }
            line.push_str(&self.paint(&last, cell.tone));
            if column + 1 < used {
                let pad = widths[column].saturating_sub(last.width()) + GAP;
                line.push_str(&" ".repeat(pad));
                at += last.width() + pad;
            }
        }
        self.line(line.trim_end());
    }

    fn line_unless_blank(&mut self, line: &str) {
        let line = line.trim_end();
        if !line.is_empty() {
            self.line(line);
        }
    }

    /// A paragraph, indented.
    pub(super) fn paragraph(&mut self, text: &str) {
        for piece in wrap(&clean(text), self.look.width.saturating_sub(INDENT).max(1)) {
            self.line(&format!("{}{piece}", " ".repeat(INDENT)));
        }
    }

    pub(super) fn blank(&mut self) {
        self.line("");
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn paint(&self, text: &str, tone: Tone) -> String {
        if !self.look.color || tone == Tone::Plain || text.is_empty() {
            return text.to_owned();
        }
        format!("\u{1b}[{}m{text}\u{1b}[0m", tone.code())
    }
}

/// Breaks a text into lines at spaces; a word that is longer than a line stays whole.
fn wrap(text: &str, width: usize) -> Vec<String> {
    if text.width() <= width {
        return vec![text.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one from the start");
        if !line.is_empty() && line.width() + 1 + word.width() > width {
            lines.push(word.to_owned());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines
}

/// A text from elsewhere, by which a terminal must not be steered.
pub(super) fn clean(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// `3 min ago`.
pub(super) fn ago(then: UnixMillis, now: UnixMillis) -> String {
    format!("{} ago", span(now.since(then)))
}

/// `980 µs`, `84 ms`, `12 s`.
pub(super) fn fine(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..10_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{} s", micros / 1_000_000),
    }
}

/// Date and time where the user is: `2026-11-27 03:55:12`.
pub(super) fn local_time(at: UnixMillis) -> String {
    let Ok(at) = jiff::Timestamp::from_millisecond(at.0) else { return "?".to_owned() };
    at.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(look: Look, rows: &[Row]) -> String {
        let mut page = Page::new(look);
        page.table("things", rows);
        page.text()
    }

    #[test]
    fn columns_are_aligned_by_what_a_terminal_shows() {
        let rows = [row!["名前", "x", "one"], row!["a", Cell::state("ready"), ""], row!["", "", ""]];
        insta::assert_snapshot!(page(Look::PLAIN, &rows), @r"
        things
          名前  x      one
          a     ready

        ");
    }

    #[test]
    fn what_has_no_room_goes_below() {
        let rows = [row!["telegram", "retrying", "for 25 h", "bad gateway (502); next try in 8 s"]];
        insta::assert_snapshot!(page(Look::narrow(40, false), &rows), @r"
        things
          telegram  retrying  for 25 h
              bad gateway (502); next try in 8 s
        ");
        insta::assert_snapshot!(page(Look::narrow(24, false), &rows), @r"
        things
          telegram  retrying
              for 25 h
              bad gateway (502);
              next try in 8 s
        ");
    }

    #[test]
    fn colours_are_where_they_are_wanted_only() {
        let rows = [row![Cell::state("connected"), Cell::state("fatal"), Cell::state("other")]];
        assert!(!page(Look::PLAIN, &rows).contains('\u{1b}'));
        let shown = page(Look::narrow(80, true), &rows);
        assert_eq!(
            shown,
            "\u{1b}[1mthings\u{1b}[0m\n  \u{1b}[32mconnected\u{1b}[0m  \u{1b}[31mfatal\u{1b}[0m  other\n"
        );
    }

    #[test]
    fn short_times_are_whole() {
        assert_eq!([999, 1000, 10_000_000].map(fine), ["999 µs", "1 ms", "10 s"]);
    }

    proptest! {
        #[test]
        fn no_text_steers_the_terminal_and_lines_are_short(
            cells in proptest::collection::vec("[a-z \\x00-\\x1f]{0,30}", 1..5), width in 24_usize..90,
        ) {
            let row: Row = cells.iter().map(Cell::from).collect();
            let shown = page(Look::narrow(width, false), &[row]);
            prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'));
            let longest = cells.iter().flat_map(|cell| clean(cell).split(' ').map(str::len).collect::<Vec<_>>()).max();
            let bound = width.max(longest.unwrap_or(0) + INDENT_MORE);
            prop_assert!(shown.lines().all(|line| line.width() <= bound), "{shown}");
        }
    }
}
