//! An agent's Markdown as Telegram shows it: the visible text, and entities that say what is bold, code or a link
//! (<https://core.telegram.org/bots/api#messageentity>).
//!
//! A reply is split over messages on its Markdown, so a page may begin or end inside a fenced block of code, and the page of
//! a growing reply may end anywhere.
//!
//! **Invariants**
//! - Any text is rendered. Every entity is inside the visible text, not empty, and begins and ends between characters; two of
//!   them are nested or disjoint; `code` and `pre` hold no other.
//! - Only marks are taken away: what is no mark is shown, if need be as it was written (HTML, links to nowhere, the
//!   definitions of links).
//! - The visible text is at most [`MESSAGE_UNITS_MAX`] long if the Markdown is; where numbers and bullets make it longer, or
//!   nothing visible is left, the Markdown itself is shown.

mod table;
mod write;

use pulldown_cmark::{CodeBlockKind, CowStr, Event, LinkType, Options, Parser, Tag, TagEnd};
use serde::{Deserialize, Serialize};

use crate::platform::delivery::split::MESSAGE_UNITS_MAX;
use write::{Kind, Writer};

/// Telegram passes over the entities of a message beyond these.
const ENTITIES_MAX: usize = 100;
/// How often definitions of links are looked for. Each round makes all that it finds plain text.
const ROUNDS_MAX: usize = 4;

/// A part of a text that looks or acts otherwise than plain text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Entity {
    /// What it is.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// Where it begins, in UTF-16 code units.
    pub(super) offset: usize,
    /// How long it is, in UTF-16 code units.
    pub(super) length: usize,
    /// Of a `text_link`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    /// Of a `pre`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) language: Option<String>,
}

/// A fence of a block of code that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fence {
    /// Three or more backticks or tildes.
    pub(super) mark: String,
    /// The word behind them; may be empty.
    pub(super) language: String,
}

/// What is shown of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    /// The visible text.
    pub(super) text: String,
    /// By where they begin, those that hold others first.
    pub(super) entities: Vec<Entity>,
    /// The fence that is open at its end: the next page begins in this block.
    pub(super) open: Option<Fence>,
}

/// Renders a page of at most [`MESSAGE_UNITS_MAX`] UTF-16 code units; `open` is the fence that the page before left open.
pub(super) fn render(markdown: &str, open: Option<&Fence>) -> Rendered {
    let mut source = match open {
        Some(Fence { mark, language }) => format!("{mark}{language}\n{markdown}"),
        None => markdown.to_owned(),
    };
    let plain = |open| Rendered { text: markdown.to_owned(), entities: Vec::new(), open };
    if !show_definitions(&mut source) {
        return plain(None);
    }
    let (mut writer, mut open) = (Writer::default(), None);
    for (event, range) in Parser::new_ext(&source, options()).into_offset_iter() {
        if let Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) = &event {
            open = unclosed(&source, &source[range], info);
        }
        take(&mut writer, event);
    }
    let (mut text, mut entities) = writer.finish();
    // Telegram cuts it off, and the pages of a reply, joined, are still the reply.
    if text.trim_end() == text {
        text.push_str(&markdown[markdown.trim_end().len()..]);
    }
    if text.trim().is_empty() || text.encode_utf16().count() > MESSAGE_UNITS_MAX {
        return plain(open);
    }
    entities.truncate(ENTITIES_MAX);
    Rendered { text, entities, open }
}

fn options() -> Options {
    Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS
}

/// A definition (`[name]: address`) would vanish, so its bracket is made plain. False if that does not end.
fn show_definitions(source: &mut String) -> bool {
    for _ in 0..ROUNDS_MAX {
        let parser = Parser::new_ext(source, options());
        let found = parser.reference_definitions().iter().map(|(_, definition)| definition.span.start);
        let mut starts: Vec<usize> = found.collect();
        if starts.is_empty() {
            return true;
        }
        starts.sort_unstable();
        for start in starts.into_iter().rev() {
            source.insert(source.floor_char_boundary(start), '\\');
        }
    }
    false
}

/// The fence of a block, if the block goes on behind the end of the source.
fn unclosed(source: &str, block: &str, info: &str) -> Option<Fence> {
    let is_last = source.ends_with(block) || source.trim_end().ends_with(block.trim_end());
    let mut lines = block.lines();
    let first = lines.next()?.trim_start();
    let mark: String = first.chars().take_while(|c| first.starts_with(*c)).collect();
    let closes = |line: &str| {
        let bare = line.trim_start_matches(['>', ' ', '\t']).trim_end();
        bare.len() >= mark.len() && bare.chars().all(|c| mark.starts_with(c))
    };
    let is_open = is_last && !lines.next_back().is_some_and(closes);
    is_open.then(|| Fence { mark, language: language(info) })
}

/// The first word behind a fence.
fn language(info: &str) -> String {
    info.split_whitespace().next().unwrap_or("").chars().filter(|c| *c != '`').take(32).collect()
}

fn take(writer: &mut Writer, event: Event<'_>) {
    match event {
        Event::Start(tag) => start(writer, tag),
        Event::End(tag) => end(writer, tag),
        Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => writer.text(&text),
        Event::Code(text) => writer.code(&text),
        Event::SoftBreak | Event::HardBreak => writer.text("\n"),
        Event::Rule => {
            writer.block();
            writer.text("———");
        }
        Event::TaskListMarker(is_done) => writer.text(if is_done { "☑ " } else { "☐ " }),
        // What is not enabled in `options`.
        Event::InlineMath(text) | Event::DisplayMath(text) | Event::FootnoteReference(text) => writer.text(&text),
    }
}

fn start(writer: &mut Writer, tag: Tag<'_>) {
    match tag {
        Tag::Heading { .. } => {
            writer.block();
            writer.open(Kind::Bold);
        }
        Tag::BlockQuote(_) => {
            writer.block();
            writer.open(Kind::Quote);
            writer.stay();
        }
        Tag::CodeBlock(kind) => {
            writer.block();
            let language = match kind {
                CodeBlockKind::Fenced(info) => language(&info),
                CodeBlockKind::Indented => String::new(),
            };
            writer.open(Kind::Pre(language));
        }
        Tag::List(first) => writer.begin_list(first),
        Tag::Item => writer.item(),
        Tag::Table(_) => writer.begin_table(),
        Tag::Emphasis => writer.open(Kind::Italic),
        Tag::Strong => writer.open(Kind::Bold),
        Tag::Strikethrough => writer.open(Kind::Strike),
        Tag::Link { link_type, dest_url, .. } => writer.open(link(link_type, dest_url)),
        Tag::Image { dest_url, .. } => writer.open(link(LinkType::Inline, dest_url)),
        Tag::Paragraph | Tag::HtmlBlock => writer.block(),
        _ => {}
    }
}

fn end(writer: &mut Writer, tag: TagEnd) {
    match tag {
        TagEnd::CodeBlock => writer.close_pre(),
        TagEnd::Heading(_)
        | TagEnd::Emphasis
        | TagEnd::Strong
        | TagEnd::Strikethrough
        | TagEnd::Link
        | TagEnd::Image => {
            writer.close();
        }
        TagEnd::BlockQuote(_) => {
            writer.close();
            writer.go_on();
        }
        TagEnd::Item => writer.go_on(),
        TagEnd::List(_) => writer.end_list(),
        TagEnd::TableCell => writer.end_cell(),
        TagEnd::TableHead | TagEnd::TableRow => writer.end_row(),
        TagEnd::Table => writer.end_table(),
        _ => {}
    }
}

/// A link, if Telegram opens such an address.
fn link(link_type: LinkType, address: CowStr<'_>) -> Kind {
    let address = match link_type {
        LinkType::Email => format!("mailto:{address}"),
        _ => address.into_string(),
    };
    let lower = address.to_ascii_lowercase();
    let is_safe = ["http://", "https://", "tg://", "mailto:"].iter().any(|scheme| lower.starts_with(scheme));
    let is_plain = !address.chars().any(|c| c.is_control() || c.is_whitespace());
    Kind::Link { is_safe: is_safe && is_plain, address }
}

#[cfg(test)]
#[path = "markdown/tests.rs"]
mod tests;
