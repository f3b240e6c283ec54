//! The keys of a platform that are about people: the same in each platform's section.

use super::table::{Problems, Section};
use crate::words::Language;

/// `language`: what is spoken in the platform's chats.
pub(super) fn read_language(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> Language {
    let Some((tag, span)) = section.string("language", Language::ZhCn.tag(), p) else { return Language::default() };
    Language::parse(tag).unwrap_or_else(|| {
        let known: Vec<String> = Language::ALL.map(|language| format!("\"{}\"", language.tag())).into();
        p.add(&span, format!("'language' must be one of {}", known.join(", ")));
        Language::default()
    })
}
