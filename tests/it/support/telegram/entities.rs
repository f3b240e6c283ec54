//! Formatted text: a `MessageEntity` list, or marks by `parse_mode`
//! (<https://core.telegram.org/bots/api#formatting-options>).
//!
//! Stricter than Telegram, which passes over some entities that make no sense: here each is refused. Of the parse modes
//! there is HTML alone.

use serde_json::{Value, json};

use super::methods::{Refusal, bad_request};
use super::params::Params;

/// The longest text of a message, in UTF-16 code units.
pub const TEXT_UNITS_MAX: usize = 4096;
/// The longest caption of a file.
pub const CAPTION_UNITS_MAX: usize = 1024;
/// More are refused.
const ENTITIES_MAX: usize = 100;

/// Kinds that a bot may send; the others are found by Telegram itself.
const KINDS: &[&str] = &[
    "mention",
    "hashtag",
    "cashtag",
    "bot_command",
    "url",
    "email",
    "phone_number",
    "bold",
    "italic",
    "underline",
    "strikethrough",
    "spoiler",
    "blockquote",
    "expandable_blockquote",
    "code",
    "pre",
    "text_link",
    "text_mention",
    "custom_emoji",
];

/// The visible text of a call and its entities.
pub(super) fn formatted(params: &Params, text: &str, entities: &str) -> Result<(String, Vec<Value>), Refusal> {
    let sent = params.text(text);
    let (visible, entities) = match params.text("parse_mode").to_ascii_lowercase().as_str() {
        "" => match params.given(entities) {
            None => (sent, Vec::new()),
            Some(Some(Value::Array(entities))) => (sent, entities),
            Some(_) => return Err(bad_request("can't parse entities JSON object")),
        },
        "html" => html(&sent)?,
        _ => return Err(bad_request("unsupported parse_mode")),
    };
    check(&visible, &entities)?;
    Ok((visible, entities))
}

/// Whether a text that Telegram has trimmed is short enough.
pub(super) fn fits(text: &str, units_max: usize) -> Result<(), Refusal> {
    if text.trim().encode_utf16().count() > units_max {
        return Err(bad_request("message is too long"));
    }
    Ok(())
}

/// The text and its entities as they are shown: without white space at the ends.
pub(super) fn trimmed(text: &str, entities: &[Value]) -> (String, Vec<Value>) {
    let cut = text[..text.len() - text.trim_start().len()].encode_utf16().count();
    let shown = text.trim();
    let end = cut + shown.encode_utf16().count();
    let shift = |entity: &Value| {
        let (from, to) = range(entity)?;
        let (from, to) = (from.clamp(cut, end), to.clamp(cut, end));
        let mut entity = entity.clone();
        entity["offset"] = (from - cut).into();
        entity["length"] = (to - from).into();
        (to > from).then_some(entity)
    };
    (shown.to_owned(), entities.iter().filter_map(shift).collect())
}

fn range(entity: &Value) -> Option<(usize, usize)> {
    let number = |name: &str| entity.get(name)?.as_u64().and_then(|n| usize::try_from(n).ok());
    let (offset, length) = (number("offset")?, number("length")?);
    Some((offset, offset.checked_add(length)?))
}

/// Each entity is inside the text, of a known kind with what that needs, and no two overlap without one being in the
/// other.
fn check(text: &str, entities: &[Value]) -> Result<(), Refusal> {
    if entities.len() > ENTITIES_MAX {
        return Err(bad_request("too many entities"));
    }
    let units: Vec<u16> = text.encode_utf16().collect();
    let mut ranges = Vec::new();
    for entity in entities {
        let (from, to) = range(entity).ok_or_else(|| bad_request("can't parse MessageEntity: offset or length"))?;
        let splits = |at: usize| units.get(at).is_some_and(|unit| (0xDC00..0xE000).contains(unit));
        if from == to || to > units.len() {
            return Err(bad_request("ENTITY_BOUNDS_INVALID"));
        }
        if splits(from) || splits(to) {
            return Err(bad_request(&format!("entity begins or ends in a middle of a UTF-16 symbol: {from}..{to}")));
        }
        let kind = entity["type"].as_str().unwrap_or("");
        if !KINDS.contains(&kind) {
            return Err(bad_request("can't parse MessageEntity: unsupported type"));
        }
        if kind == "text_link" {
            let known = ["http://", "https://", "tg://", "mailto:"];
            let url = entity["url"].as_str().unwrap_or("");
            if !known.iter().any(|scheme| url.starts_with(scheme)) {
                return Err(bad_request("can't parse MessageEntity: URL of a text_link"));
            }
        }
        ranges.push((from, to));
    }
    let crosses = |a: &(usize, usize), b: &(usize, usize)| a.0 < b.0 && b.0 < a.1 && a.1 < b.1;
    if ranges.iter().any(|a| ranges.iter().any(|b| crosses(a, b))) {
        return Err(bad_request("entities overlap"));
    }
    Ok(())
}

/// Marks of HTML: the tags that Telegram knows, and its four named entities.
fn html(marked: &str) -> Result<(String, Vec<Value>), Refusal> {
    let wrong = |what: &str| bad_request(&format!("can't parse entities: {what}"));
    let (mut text, mut entities, mut open) = (String::new(), Vec::new(), Vec::<(String, usize, Option<String>)>::new());
    let mut rest = marked;
    while let Some(at) = rest.find('<') {
        text.push_str(&plain(&rest[..at]));
        let (tag, after) = rest[at + 1..].split_once('>').ok_or_else(|| wrong("unclosed start tag"))?;
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            let (opened, from, url) = open.pop().ok_or_else(|| wrong("unexpected end tag"))?;
            if opened != name {
                return Err(wrong("unmatched end tag"));
            }
            let length = text.encode_utf16().count() - from;
            let mut entity = json!({ "type": kind(name).ok_or_else(|| wrong("unsupported tag"))?, "offset": from, "length": length });
            if let Some(url) = url {
                entity["url"] = url.into();
            }
            if length > 0 {
                entities.push(entity);
            }
        } else {
            let name = tag.split_whitespace().next().unwrap_or("");
            kind(name).ok_or_else(|| wrong("unsupported start tag"))?;
            let url = tag.split("href=\"").nth(1).and_then(|rest| rest.split('"').next()).map(plain);
            open.push((name.to_owned(), text.encode_utf16().count(), url));
        }
    }
    text.push_str(&plain(rest));
    if !open.is_empty() {
        return Err(wrong("can't find end tag"));
    }
    Ok((text, entities))
}

fn kind(tag: &str) -> Option<&'static str> {
    Some(match tag {
        "b" | "strong" => "bold",
        "i" | "em" => "italic",
        "u" | "ins" => "underline",
        "s" | "strike" | "del" => "strikethrough",
        "a" => "text_link",
        "code" => "code",
        "pre" => "pre",
        "blockquote" => "blockquote",
        _ => return None,
    })
}

fn plain(escaped: &str) -> String {
    escaped.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}
