//! Reads tables of a TOML document and collects every problem on the way.
//!
//! **Invariant:** a key is known because it was asked for: [`Section::finish`] reports all others, and names the
//! nearest of the known ones.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::duration::parse_duration;
use super::error::Problem;

/// How alike two keys must be (0 to 1, Jaro-Winkler) before one is offered for the other.
const SIMILARITY_MIN: f64 = 0.75;

/// The problems found so far.
pub(super) struct Problems<'a> {
    text: &'a str,
    found: Vec<(usize, String)>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, found: Vec::new() }
    }

    /// Notes a problem at a byte offset of the text.
    pub(super) fn add(&mut self, span: &Range<usize>, message: String) {
        self.found.push((span.start, message));
    }

    /// All problems in the order of the text; empty if there are none.
    pub(super) fn into_list(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|&(offset, _)| offset);
        let text = self.text;
        let place = |(offset, message)| {
            let before = text.get(..offset).unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            let line = before.matches('\n').count() + 1;
            let column = before[line_start..].chars().count() + 1;
            Problem { line, column, message }
        };
        self.found.into_iter().map(place).collect()
    }
}

/// A value with the place of its key and a name for messages.
pub(super) struct Entry<'t, 'i> {
    /// Where the key stands.
    pub(super) key_span: Range<usize>,
    /// The key as written.
    pub(super) key: &'t str,
    /// What it is set to.
    pub(super) value: &'t Spanned<DeValue<'i>>,
}

impl Entry<'_, '_> {
    fn wants(&self, problems: &mut Problems<'_>, what: &str, example: &str) {
        let message = format!(
            "'{}' must be {what}, not {}; for example {} = {example}",
            self.key,
            with_article(self.value.get_ref().type_str()),
            self.key,
        );
        problems.add(&self.value.span(), message);
    }
}

/// One table of the document.
pub(super) struct Section<'t, 'i> {
    /// How messages name it: `[gateway]`, or `the file` at the top.
    pub(super) name: String,
    /// Where it begins.
    pub(super) span: Range<usize>,
    table: &'t DeTable<'i>,
    known: Vec<&'static str>,
}

impl<'t, 'i> Section<'t, 'i> {
    pub(super) fn new(name: impl Into<String>, span: Range<usize>, table: &'t DeTable<'i>) -> Self {
        Self { name: name.into(), span, table, known: Vec::new() }
    }

    /// The value of a key, if it is there. From now on the key is known.
    pub(super) fn entry(&mut self, key: &'static str) -> Option<Entry<'t, 'i>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let (written, value) = self.table.get_key_value(key)?;
        Some(Entry { key_span: written.span(), key: written.get_ref(), value })
    }

    /// All entries, for a table whose keys are names.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'t, 'i>> {
        self.table.iter().map(|(key, value)| Entry { key_span: key.span(), key: key.get_ref(), value })
    }

    /// A table below this one, with the name it has in messages.
    pub(super) fn section(&mut self, key: &'static str, name: &str, p: &mut Problems<'_>) -> Option<Self> {
        let entry = self.entry(key)?;
        as_section(&entry, name, p)
    }

    /// A string and where it stands.
    pub(super) fn string(
        &mut self,
        key: &'static str,
        example: &str,
        p: &mut Problems<'_>,
    ) -> Option<(&'t str, Range<usize>)> {
        let entry = self.entry(key)?;
        let text = entry.value.get_ref().as_str();
        if text.is_none() {
            entry.wants(p, "a string", &quoted(example));
        }
        Some((text?, entry.value.span()))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str, p: &mut Problems<'_>) -> Option<bool> {
        let entry = self.entry(key)?;
        let value = entry.value.get_ref().as_bool();
        if value.is_none() {
            entry.wants(p, "true or false", "true");
        }
        value
    }

    /// A whole number in `range`.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        example: u32,
        range: RangeInclusive<u32>,
        p: &mut Problems<'_>,
    ) -> Option<u32> {
        let entry = self.entry(key)?;
        let whole = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = entry.value.get_ref() else {
            entry.wants(p, &whole, &example.to_string());
            return None;
        };
        let value = u32::from_str_radix(number.as_str(), number.radix()).ok().filter(|value| range.contains(value));
        if value.is_none() {
            let message = format!("'{key}' is {number}, and must be {whole}; for example {key} = {example}");
            p.add(&entry.value.span(), message);
        }
        value
    }

    /// A duration of at most `max`.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        example: &str,
        max: (Duration, &str),
        p: &mut Problems<'_>,
    ) -> Option<Duration> {
        let entry = self.entry(key)?;
        let Some(text) = entry.value.get_ref().as_str() else {
            entry.wants(p, "a duration in quotes", &quoted(example));
            return None;
        };
        let mended = format!("for example {key} = {}", quoted(example));
        let problem = match parse_duration(text) {
            Ok(duration) if duration <= max.0 => return Some(duration),
            Ok(_) => format!("'{key}' is {text}, and the most is {}; {mended}", max.1),
            Err(error) => format!("'{key}' is not a duration: {error}; {mended}"),
        };
        p.add(&entry.value.span(), problem);
        None
    }

    /// A list whose items `read` understands; it is told what to write instead when `read` gives nothing.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        (items, example): (&str, &str),
        read: impl Fn(&'t DeValue<'i>) -> Option<T>,
        p: &mut Problems<'_>,
    ) -> Option<Vec<(T, Range<usize>)>> {
        let entry = self.entry(key)?;
        let Some(array) = entry.value.get_ref().as_array() else {
            entry.wants(p, &format!("a list of {items}"), example);
            return None;
        };
        let mut list = Vec::with_capacity(array.len());
        for item in array {
            let Some(value) = read(item.get_ref()) else {
                let is = with_article(item.get_ref().type_str());
                p.add(
                    &item.span(),
                    format!("'{key}' is a list of {items}, and this is {is}; for example {key} = {example}"),
                );
                return None;
            };
            list.push((value, item.span()));
        }
        Some(list)
    }

    /// Reports the keys that nobody asked for. `noun` is what such a key is called: `key`, `platform`.
    pub(super) fn finish(self, noun: &str, p: &mut Problems<'_>) {
        for entry in self.entries() {
            if !self.known.contains(&entry.key) {
                let hint = match nearest(entry.key, &self.known) {
                    Some(known) => format!("did you mean '{known}'?"),
                    None => format!("known are {}", self.known.join(", ")),
                };
                p.add(&entry.key_span, format!("unknown {noun} '{}' in {}; {hint}", entry.key, self.name));
            }
        }
    }
}

/// The table that an entry must be.
pub(super) fn as_section<'t, 'i>(entry: &Entry<'t, 'i>, name: &str, p: &mut Problems<'_>) -> Option<Section<'t, 'i>> {
    let table = entry.value.get_ref().as_table();
    if table.is_none() {
        let is = with_article(entry.value.get_ref().type_str());
        p.add(
            &entry.value.span(),
            format!("'{}' must be a section, not {is}; write {name} on its own line", entry.key),
        );
    }
    Some(Section::new(name, entry.key_span.clone(), table?))
}

/// The known key that was most likely meant.
fn nearest(written: &str, known: &[&'static str]) -> Option<&'static str> {
    let likeness = |key: &str| strsim::jaro_winkler(&written.to_ascii_lowercase(), key);
    known
        .iter()
        .map(|&key| (key, likeness(key)))
        .filter(|&(_, likeness)| likeness >= SIMILARITY_MIN)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(key, _)| key)
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}
