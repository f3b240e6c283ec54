//! What a login leaves: the token in a file of its own, and a section of gateway.toml that names it.
//!
//! **Invariants**
//! - Files are replaced as a whole, and the token's is for its owner alone from the start.
//! - A section that is there already is never changed, and nothing else of gateway.toml ever is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::error::CliError;
use crate::cli::files::{self, ConfigFile, make_home, replace};
use crate::cli::home::Home;
use crate::config::Secret;
use crate::platform::weixin::login::Credentials;

/// The token's file in the home directory.
const TOKEN_FILE: &str = "weixin-token";
/// The token for its owner alone.
const TOKEN_MODE: u32 = 0o600;

/// What became of gateway.toml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It has a new section.
    Appended,
    /// It has these lines already.
    None,
    /// It has a section with other lines, or cannot be read: somebody has to see to it.
    ByHand,
}

impl Change {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Appended => "appended",
            Self::None => "unchanged",
            Self::ByHand => "by_hand",
        }
    }
}

/// What a login has left.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) token_file: PathBuf,
    pub(super) config_file: PathBuf,
    pub(super) change: Change,
    /// The section.
    pub(super) lines: String,
}

/// The token of an earlier login, which the service wants to know of.
pub(super) fn known_token(home: &Path) -> Option<Secret> {
    let bytes = files::read(home, &home.join(TOKEN_FILE)).ok().flatten()?;
    let text = String::from_utf8(bytes).ok()?;
    let token = text.trim();
    (!token.is_empty()).then(|| Secret::new(token))
}

/// Keeps the credentials.
///
/// # Errors
/// [`CliError::Io`]; then nothing was changed, or only the token's file was.
pub(super) fn keep(home: &Home, credentials: &Credentials, base_url: &str) -> Result<Kept, CliError> {
    let failed = |what: &'static str| move |source: io::Error| CliError::Io { what, source };
    make_home(&home.path).map_err(failed("make the home directory"))?;
    let owner = fs::metadata(&home.path).map_err(failed("look at the home directory"))?;
    let token_file = home.path.join(TOKEN_FILE);
    let token = format!("{}\n", credentials.token.expose());
    replace(&token_file, token.as_bytes(), TOKEN_MODE, &owner).map_err(failed("write the token's file"))?;

    let config_file = ConfigFile::of(&home.path)?;
    let lines = section(credentials, base_url);
    let change = match judge(&config_file.text, &lines) {
        Judged::Append(text) => {
            config_file.replace(&text, &owner)?;
            Change::Appended
        }
        Judged::Same => Change::None,
        Judged::Other => Change::ByHand,
    };
    Ok(Kept { token_file, config_file: config_file.path, change, lines })
}

/// The section for these credentials.
fn section(credentials: &Credentials, base_url: &str) -> String {
    // A text of JSON without control characters is one of TOML.
    let text = |value: &str| serde_json::to_string(value).expect("a text serialises");
    let allowed = credentials.scanner.as_deref().map(text).unwrap_or_default();
    format!(
        "[platforms.weixin]\ntoken_file = {}\naccount_id = {}\nbase_url = {}\nallow_from = [{allowed}]\n",
        text(TOKEN_FILE),
        text(&credentials.account),
        text(base_url),
    )
}

enum Judged {
    /// The whole new text.
    Append(String),
    Same,
    Other,
}

/// What to do with a gateway.toml that should have this section.
fn judge(present: &str, section: &str) -> Judged {
    let read = |text: &str| text.parse::<toml::Table>().ok();
    let weixin = |table: &toml::Table| table.get("platforms")?.get("weixin").cloned();
    let wanted = read(section).and_then(|table| weixin(&table));
    let Some(table) = read(present) else { return Judged::Other };
    match (weixin(&table), wanted) {
        (None, Some(wanted)) => {
            let gap = match present {
                "" => "",
                text if text.ends_with('\n') => "\n",
                _ => "\n\n",
            };
            let whole = format!("{present}{gap}{section}");
            // Platforms that are written in one line cannot be added to.
            match read(&whole).and_then(|table| weixin(&table)) {
                Some(read) if read == wanted => Judged::Append(whole),
                _ => Judged::Other,
            }
        }
        (Some(present), Some(wanted)) => {
            // Who may talk is the operator's business.
            let same = |key: &str| present.get(key) == wanted.get(key);
            if ["token_file", "account_id", "base_url"].into_iter().all(same) { Judged::Same } else { Judged::Other }
        }
        (_, None) => Judged::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn credentials(account: &str) -> Credentials {
        let (base_url, scanner) = (None, Some("ann@im.wechat".to_owned()));
        Credentials { token: Secret::new("t"), account: account.to_owned(), base_url, scanner }
    }

    fn change(present: &str) -> Option<String> {
        match judge(present, &section(&credentials("me@im.bot"), "https://x.weixin.qq.com")) {
            Judged::Append(text) => Some(text),
            Judged::Same => Some("same".to_owned()),
            Judged::Other => None,
        }
    }

    #[test]
    fn a_section_is_added_and_never_changed() {
        insta::assert_snapshot!(change("[gateway]\nprobation = \"5s\"").expect("added"), @r#"
        [gateway]
        probation = "5s"

        [platforms.weixin]
        token_file = "weixin-token"
        account_id = "me@im.bot"
        base_url = "https://x.weixin.qq.com"
        allow_from = ["ann@im.wechat"]
        "#);
        let fresh = change("").expect("added");
        assert_eq!(change(&fresh).as_deref(), Some("same"));
        assert_eq!(change(&fresh.replace("ann@", "bob@")).as_deref(), Some("same"));
        for other in
            [&fresh.replace("me@", "you@"), "platforms = { telegram = { token = 'x' } }", "[platforms", "x = 1\nx = 2"]
        {
            assert_eq!(change(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_account_is_written_so_that_it_is_read(account in "[^\\p{Cc}]{1,20}") {
            let text = section(&credentials(&account), "https://x.weixin.qq.com");
            let table: toml::Table = text.parse().expect("TOML");
            prop_assert_eq!(table["platforms"]["weixin"]["account_id"].as_str(), Some(account.as_str()));
        }
    }
}
