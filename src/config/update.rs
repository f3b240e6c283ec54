//! `[update]`: where releases come from, and what happens by itself.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use zipsign_api::{PUBLIC_KEY_LENGTH, VerifyingKey};

use super::file::text;
use super::table::{Problems, Section};
use super::window::Window;

/// The least and the most of `check_every`: a release server is not to be asked every second, and who asks every other
/// month means `auto = "off"`.
const CHECK_EVERY: [(Duration, &str); 2] =
    [(Duration::from_secs(60), "1m"), (Duration::from_secs(30 * 24 * 60 * 60), "30d")];

/// `[update]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateConfig {
    /// Where releases are listed: https, http on loopback, or file. That of `github`, if that is set.
    pub manifest_url: Option<String>,
    /// Base64 ed25519 public keys, added to the one built in.
    pub verifying_keys: Vec<String>,
    /// What happens by itself. Default: nothing.
    pub auto: AutoUpdate,
    /// How often releases are looked for by itself: 1 min to 30 days, default 6 h.
    pub check_every: Duration,
    /// When updates are applied by itself; without one at any time.
    pub window: Option<Window>,
    /// Which releases are taken unless one is named.
    pub channel: Channel,
}

/// What happens by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoUpdate {
    /// Nothing, not even a look.
    #[default]
    Off,
    /// Releases are looked for, and admins are told.
    Notify,
    /// Releases are looked for and applied, and admins are told how that went.
    Apply,
}

/// A stream of releases; each has also what is in the ones before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Releases for everyone.
    #[default]
    Stable,
    /// Releases that are to become stable.
    Beta,
    /// Whatever was built last.
    Nightly,
}

impl AutoUpdate {
    const ALL: [Self; 3] = [Self::Off, Self::Notify, Self::Apply];

    /// As the configuration names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Notify => "notify",
            Self::Apply => "apply",
        }
    }
}

impl Channel {
    /// All of them, the most stable first.
    pub const ALL: [Self; 3] = [Self::Stable, Self::Beta, Self::Nightly];

    /// As the configuration and the manifest name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Beta => "beta",
            Self::Nightly => "nightly",
        }
    }

    /// The channel of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.as_str() == name)
    }
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            manifest_url: None,
            verifying_keys: Vec::new(),
            auto: AutoUpdate::default(),
            check_every: Duration::from_secs(6 * 60 * 60),
            window: None,
            channel: Channel::default(),
        }
    }
}

pub(super) fn read(mut section: Section<'_, '_>, p: &mut Problems<'_>) -> UpdateConfig {
    let defaults = UpdateConfig::default();
    let manifest_url = read_source(&mut section, p);
    let verifying_keys = read_verifying_keys(&mut section, p);
    let auto = one_of(&mut section, "auto", &AutoUpdate::ALL, AutoUpdate::as_str, p);
    let auto_span = section.entry("auto").map(|entry| entry.value.span());
    let has_source =
        manifest_url.is_some() || ["manifest_url", "github"].iter().any(|key| section.entry(key).is_some());
    if let Some(span) = auto_span.filter(|_| !matches!(auto, None | Some(AutoUpdate::Off)) && !has_source) {
        p.add(&span, "'auto' needs a place to look at: set 'manifest_url' or 'github', too".to_owned());
    }
    let check_every = read_check_every(&mut section, p);
    let window = read_window(&mut section, p);
    let channel = one_of(&mut section, "channel", &Channel::ALL, Channel::as_str, p);
    section.finish("key", p);
    UpdateConfig {
        manifest_url,
        verifying_keys,
        auto: auto.unwrap_or_default(),
        check_every: check_every.unwrap_or(defaults.check_every),
        window,
        channel: channel.unwrap_or_default(),
    }
}

fn one_of<T: Copy>(
    section: &mut Section<'_, '_>,
    key: &'static str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
    p: &mut Problems<'_>,
) -> Option<T> {
    let (text, span) = section.string(key, name(*all.first()?), p)?;
    let found = all.iter().copied().find(|one| name(*one) == text);
    if found.is_none() {
        let names: Vec<String> = all.iter().map(|one| format!("\"{}\"", name(*one))).collect();
        p.add(&span, format!("'{key}' must be one of {}", names.join(", ")));
    }
    found
}

/// `manifest_url`, or the one that `github` stands for.
fn read_source(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> Option<String> {
    let manifest_url = read_manifest_url(section, p);
    let Some((repository, span)) = section.string("github", "owner/repo", p) else { return manifest_url };
    if section.entry("manifest_url").is_some() {
        p.add(&span, "'manifest_url' and 'github' are both set in [update]; keep one of them".to_owned());
        return manifest_url;
    }
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with('.')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    match repository.split_once('/') {
        Some((owner, name)) if is_name(owner) && is_name(name) => {
            Some(format!("https://github.com/{owner}/{name}/releases/latest/download/manifest.json"))
        }
        _ => {
            p.add(
                &span,
                "'github' must be the owner and the name of a repository; for example github = \"owner/repo\""
                    .to_owned(),
            );
            None
        }
    }
}

fn read_manifest_url(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> Option<String> {
    let (text, span) = section.string("manifest_url", "https://example.org/hermes/manifest.json", p)?;
    let allowed = |url: &Url| match url.scheme() {
        "https" => true,
        "http" => url.host_str().is_some_and(is_loopback),
        "file" => url.to_file_path().is_ok(),
        _ => false,
    };
    if !Url::parse(text).is_ok_and(|url| allowed(&url)) {
        let message = "'manifest_url' must be an https or file address (http only on this machine); \
                       for example manifest_url = \"https://example.org/hermes/manifest.json\"";
        p.add(&span, message.to_owned());
        return None;
    }
    Some(text.to_owned())
}

/// Whether a host of a URL is this machine.
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Reads a verifying key: an ed25519 public key in base64.
pub fn verifying_key(text: &str) -> Option<VerifyingKey> {
    let bytes: [u8; PUBLIC_KEY_LENGTH] = BASE64.decode(text.trim()).ok()?.try_into().ok()?;
    VerifyingKey::from_bytes(&bytes).ok()
}

fn read_verifying_keys(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> Vec<String> {
    let example = ("base64 ed25519 public keys", r#"["<44 characters>"]"#);
    let keys = section.list("verifying_keys", example, text, p).unwrap_or_default();
    for (key, span) in &keys {
        if verifying_key(key).is_some() {
            continue;
        }
        p.add(
            span,
            "this is not an ed25519 public key: 32 bytes as base64, 44 characters with the '=' at the end".to_owned(),
        );
    }
    keys.into_iter().map(|(key, _)| key).collect()
}

fn read_check_every(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> Option<Duration> {
    let [(least, least_text), most] = CHECK_EVERY;
    let every = section.duration("check_every", "6h", most, p)?;
    if every < least {
        let span = section.entry("check_every")?.value.span();
        p.add(&span, format!("'check_every' is less than {least_text}; for example check_every = \"6h\""));
    }
    Some(every)
}

fn read_window(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> Option<Window> {
    const EXAMPLE: &str = "Sat,Sun 02:00-05:00";
    let (text, span) = section.string("window", EXAMPLE, p)?;
    Window::parse(text)
        .map_err(|error| p.add(&span, format!("'window' is not a window: {error}; for example window = \"{EXAMPLE}\"")))
        .ok()
}
