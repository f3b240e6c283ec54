//! What the answers make of gateway.toml.
//!
//! **Invariant:** nothing but the keys that were asked for is changed: comments, order and other sections stay.

use toml_edit::{Array, DocumentMut, Item, Table, value};

use crate::config::Secret;

/// Changes to one section.
#[derive(Debug, Default)]
pub(super) struct Section {
    /// Its path, such as `platforms`, `telegram`.
    pub(super) path: [&'static str; 2],
    /// Keys and what they become.
    pub(super) set: Vec<(&'static str, Item)>,
    /// Keys that go, because a new one is in their place.
    pub(super) unset: &'static [&'static str],
}

/// Everything that is to be written.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) sections: Vec<Section>,
    /// Files of secrets, by their names in the home.
    pub(super) secrets: Vec<(&'static str, Secret)>,
}

/// A list of texts.
pub(super) fn list<'a>(items: impl IntoIterator<Item = &'a str>) -> Item {
    value(items.into_iter().collect::<Array>())
}

/// The text with the changes in it.
///
/// # Errors
/// The text is no TOML, or a section is something else. The reason quotes no line, for that could hold a secret.
pub(super) fn edit(present: &str, plan: &Plan) -> Result<String, String> {
    let mut document: DocumentMut =
        present.parse().map_err(|error: toml_edit::TomlError| error.message().to_owned())?;
    for section in &plan.sections {
        let mut at = document.as_table_mut();
        for name in section.path {
            let is_last = name == section.path[1];
            let item = at.entry(name).or_insert_with(|| {
                let mut table = Table::new();
                // `[platforms]` alone says nothing.
                table.set_implicit(!is_last);
                Item::Table(table)
            });
            if let Some(inline) = item.as_inline_table() {
                *item = Item::Table(inline.clone().into_table());
            }
            at = item.as_table_mut().ok_or_else(|| format!("'{name}' is not a section"))?;
        }
        for key in section.unset {
            at.remove(key);
        }
        for (key, new) in &section.set {
            // The comment behind a value stays with its key.
            match at.get_mut(key) {
                Some(old) => {
                    let decor = old.as_value().map(|old| old.decor().clone());
                    *old = new.clone();
                    if let (Some(decor), Some(new)) = (decor, old.as_value_mut()) {
                        *new.decor_mut() = decor;
                    }
                }
                None => {
                    at.insert(key, new.clone());
                }
            }
        }
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(user: &str) -> Plan {
        let set = vec![("token_file", value("telegram-token")), ("allow_from", list([user]))];
        let telegram = Section { path: ["platforms", "telegram"], set, unset: &["token"] };
        let agent = Section {
            path: ["agents", "default"],
            set: vec![("command", list(["hermes", "agent", "echo"]))],
            unset: &[],
        };
        Plan { sections: vec![telegram, agent], secrets: Vec::new() }
    }

    #[test]
    fn a_new_file_has_what_was_asked_for() {
        insta::assert_snapshot!(edit("", &plan("7")).expect("edits"), @r#"
        [platforms.telegram]
        token_file = "telegram-token"
        allow_from = ["7"]

        [agents.default]
        command = ["hermes", "agent", "echo"]
        "#);
    }

    #[test]
    fn what_is_there_stays_with_its_comments() {
        let present = "# mine\n[gateway]\nprobation = \"5s\" # short\n\n[platforms.telegram]\ntoken = \"x\" # secret\n\
                       allow_from = [\"1\"]   # me\npairing = false\n";
        insta::assert_snapshot!(edit(present, &plan("7")).expect("edits"), @r#"
        # mine
        [gateway]
        probation = "5s" # short

        [platforms.telegram]
        allow_from = ["7"]   # me
        pairing = false
        token_file = "telegram-token"

        [agents.default]
        command = ["hermes", "agent", "echo"]
        "#);
    }

    #[test]
    fn sections_in_one_line_are_edited_and_other_things_are_refused() {
        let edited = edit("platforms = { telegram = { token = 'x', pairing = false } }", &plan("7")).expect("edits");
        let table: toml::Table = edited.parse().expect("TOML");
        assert_eq!(table["platforms"]["telegram"]["pairing"].as_bool(), Some(false));
        assert!(table["platforms"]["telegram"].get("token").is_none());
        assert_eq!(edit("agents = 7", &plan("7")), Err("'agents' is not a section".to_owned()));
        let told = edit("token = hidden-value", &plan("7")).expect_err("no TOML");
        assert!(!told.contains("hidden"), "{told}");
    }

    proptest! {
        #[test]
        fn doing_it_twice_changes_nothing(user in "[^\\p{Cc}]{0,20}") {
            let once = edit("# c\n", &plan(&user)).expect("edits");
            prop_assert_eq!(&edit(&once, &plan(&user)).expect("edits"), &once);
            let table: toml::Table = once.parse().expect("TOML");
            prop_assert_eq!(table["platforms"]["telegram"]["allow_from"][0].as_str(), Some(user.as_str()));
        }
    }
}
