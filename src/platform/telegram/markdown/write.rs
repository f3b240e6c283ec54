//! Writes the visible text and keeps count of where entities begin.

use super::Entity;
use super::table::Table;

/// Deeper lists are not moved further to the right.
const INDENT_MAX: usize = 8;

/// What an open mark makes of the text in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bold,
    Italic,
    Strike,
    Quote,
    /// A block of code in a language.
    Pre(String),
    /// A link or a picture. One that is not safe is shown beside its text.
    Link {
        is_safe: bool,
        address: String,
    },
}

/// A mark that is open.
#[derive(Debug)]
struct Open {
    kind: Kind,
    /// Where it begins, or goes on behind code; in UTF-16 code units.
    from: usize,
    /// Where it begins, in bytes.
    start: usize,
    /// It adds nothing to the marks around it.
    is_idle: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: String,
    /// Length of `out` in UTF-16 code units.
    units: usize,
    entities: Vec<Entity>,
    open: Vec<Open>,
    /// The next number of each list that is open; none for bullets.
    lists: Vec<Option<u64>>,
    /// The next block goes on in this line: a bullet stands there, or a quote begins.
    stays: bool,
    table: Option<Table>,
}

impl Writer {
    pub(super) fn text(&mut self, text: &str) {
        if let Some(table) = &mut self.table {
            return table.text(text);
        }
        self.out.push_str(text);
        self.units += text.encode_utf16().count();
        self.stays &= text.is_empty();
    }

    /// Begins a block: behind a blank line, or in a list in a line of its own.
    pub(super) fn block(&mut self) {
        self.gap(if self.lists.is_empty() { 2 } else { 1 });
    }

    fn gap(&mut self, newlines: usize) {
        if self.stays || self.out.is_empty() {
            return;
        }
        let there = self.out.len() - self.out.trim_end_matches('\n').len();
        self.text(&"\n".repeat(newlines.saturating_sub(there)));
    }

    /// The next block goes on in this line.
    pub(super) fn stay(&mut self) {
        self.stays = true;
    }

    /// It does not, whatever stands in it.
    pub(super) fn go_on(&mut self) {
        self.stays = false;
    }

    pub(super) fn begin_list(&mut self, first: Option<u64>) {
        self.block();
        self.lists.push(first);
    }

    pub(super) fn end_list(&mut self) {
        self.lists.pop();
        self.go_on();
    }

    pub(super) fn item(&mut self) {
        self.gap(1);
        let indent = "  ".repeat(self.lists.len().saturating_sub(1).min(INDENT_MAX));
        let bullet = match self.lists.last_mut() {
            Some(Some(number)) => {
                let bullet = format!("{number}. ");
                *number = number.saturating_add(1);
                bullet
            }
            _ => "• ".to_owned(),
        };
        self.text(&format!("{indent}{bullet}"));
        self.stay();
    }

    pub(super) fn open(&mut self, kind: Kind) {
        let same = |open: &Open| std::mem::discriminant(&open.kind) == std::mem::discriminant(&kind);
        // The formats of a cell are not shown, nor is anything but its text of a picture in a link.
        let is_idle = self.table.is_some() || self.open.iter().any(same);
        self.open.push(Open { kind, from: self.units, start: self.out.len(), is_idle });
    }

    /// Closes what was opened last.
    pub(super) fn close(&mut self) {
        let Some(open) = self.open.pop() else { return };
        if let Kind::Link { is_safe, address } = &open.kind {
            let is_bare = self.table.is_none() && self.out.len() <= open.start;
            let shown = self.out.get(open.start..).unwrap_or("");
            let is_hidden = open.is_idle || !is_safe;
            if is_bare {
                self.text(address);
            } else if is_hidden && !address.is_empty() && shown != address {
                self.text(&format!(" ({address})"));
            }
        }
        if !open.is_idle {
            self.mark(open.kind, open.from, self.units);
        }
    }

    /// The newline before a closing fence is not part of the code.
    pub(super) fn close_pre(&mut self) {
        let start = self.open.last().map_or(0, |open| open.start);
        if self.out.len() > start && self.out.ends_with('\n') {
            self.out.pop();
            self.units -= 1;
        }
        self.close();
        self.go_on();
    }

    /// Code in a line. Telegram shows no other format in it, so those around it end before and go on behind.
    pub(super) fn code(&mut self, text: &str) {
        let is_in_link = self.open.iter().any(|open| matches!(open.kind, Kind::Link { .. }));
        if self.table.is_some() || is_in_link {
            return self.text(text);
        }
        let from = self.units;
        let ended: Vec<(Kind, usize)> = self.open.iter().rev().filter(|open| open.is_split()).map(Open::part).collect();
        for (kind, begun) in ended {
            self.mark(kind, begun, from);
        }
        self.text(text);
        self.entity("code", from, self.units, None, None);
        let units = self.units;
        self.open.iter_mut().filter(|open| open.is_split()).for_each(|open| open.from = units);
    }

    pub(super) fn begin_table(&mut self) {
        self.block();
        self.table = Some(Table::default());
    }

    pub(super) fn end_cell(&mut self) {
        if let Some(table) = &mut self.table {
            table.end_cell();
        }
    }

    pub(super) fn end_row(&mut self) {
        if let Some(table) = &mut self.table {
            table.end_row();
        }
    }

    pub(super) fn end_table(&mut self) {
        let Some(table) = self.table.take() else { return };
        let from = self.units;
        self.text(&table.into_text());
        self.entity("pre", from, self.units, None, None);
        self.go_on();
    }

    fn mark(&mut self, kind: Kind, from: usize, to: usize) {
        match kind {
            Kind::Bold => self.entity("bold", from, to, None, None),
            Kind::Italic => self.entity("italic", from, to, None, None),
            Kind::Strike => self.entity("strikethrough", from, to, None, None),
            Kind::Quote => self.entity("blockquote", from, to, None, None),
            Kind::Pre(language) => {
                let language = (!language.is_empty()).then_some(language);
                self.entity("pre", from, to, None, language);
            }
            Kind::Link { is_safe: true, address } => self.entity("text_link", from, to, Some(address), None),
            Kind::Link { is_safe: false, .. } => {}
        }
    }

    fn entity(&mut self, kind: &'static str, from: usize, to: usize, url: Option<String>, language: Option<String>) {
        if to > from {
            self.entities.push(Entity { kind, offset: from, length: to - from, url, language });
        }
    }

    /// The text, and its entities by where they begin.
    pub(super) fn finish(mut self) -> (String, Vec<Entity>) {
        while !self.open.is_empty() {
            self.close();
        }
        self.entities.sort_by_key(|entity| (entity.offset, std::cmp::Reverse(entity.length)));
        (self.out, self.entities)
    }
}

impl Open {
    fn is_split(&self) -> bool {
        !self.is_idle && matches!(self.kind, Kind::Bold | Kind::Italic | Kind::Strike)
    }

    fn part(&self) -> (Kind, usize) {
        (self.kind.clone(), self.from)
    }
}
