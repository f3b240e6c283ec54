//! From the text of a `gateway.toml` to a [`Config`].

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Url;
use toml::de::{DeTable, DeValue};

use super::environment::Environment;
use super::error::Problem;
use super::people::read_language;
use super::secret::{SecretContext, SecretKeys, read_secret};
use super::table::{Entry, Problems, Section, as_section};
use super::{AgentConfig, Config, GatewayConfig, TelegramConfig, UpdateConfig};
use crate::id::AgentName;

const TELEGRAM_API_URL: &str = "https://api.telegram.org";
const TELEGRAM_TOKEN: SecretKeys = SecretKeys { inline: "token", file: "token_file", credential: "token_credential" };

/// Platforms that are planned: naming one is a different mistake than a typing error.
const PLATFORMS_TO_COME: [&str; 3] = ["dingtalk", "weixin", "web"];

/// Telegram takes no more than the most of it, however it is paid.
const PER_SECOND: RangeInclusive<u32> = 1..=1000;

const DRAIN_MAX: (Duration, &str) = (Duration::from_secs(10 * 60), "10m");
/// A new image needs milliseconds; less than this is a typing error.
const HANDOFF_MIN: Duration = Duration::from_secs(1);
const PROBATION_MAX: (Duration, &str) = (Duration::from_secs(24 * 60 * 60), "24h");

/// The longest agent name: it becomes part of the names of fds, which systemd limits to 255 characters.
const AGENT_NAME_CHARS_MAX: usize = 64;

/// Reads the whole text, or tells every problem in it.
pub(super) fn parse(text: &str, path: &Path, env: &Environment) -> Result<Config, Vec<Problem>> {
    let mut problems = Problems::new(text);
    // Only the message of a syntax error is used: its `Display` quotes the line, and that may hold a token.
    let (root, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        problems.add(&error.span().unwrap_or_default(), error.message().to_owned());
    }
    let mut config = Config::defaults(env);
    // What a broken text seems to say is not judged, it would only hide the real mistake.
    if syntax.is_empty() {
        let base = path.parent().unwrap_or(Path::new(""));
        let mut file = Section::new("the file", 0..0, root.get_ref());
        read(&mut config, &mut file, &SecretContext { base, env }, &mut problems);
        file.finish("section", &mut problems);
    }
    let list = problems.into_list();
    if list.is_empty() { Ok(config) } else { Err(list) }
}

fn read(config: &mut Config, file: &mut Section<'_, '_>, context: &SecretContext<'_>, p: &mut Problems<'_>) {
    if let Some(section) = file.section("gateway", "[gateway]", p) {
        config.gateway = read_gateway(section, p);
    }
    if let Some(agents) = file.section("agents", "[agents]", p) {
        for entry in agents.entries() {
            if let Some((name, agent)) = read_agent(&entry, context.env, p) {
                config.agents.insert(name, agent);
            }
        }
    }
    if let Some(mut platforms) = file.section("platforms", "[platforms]", p) {
        if let Some(telegram) = platforms.section("telegram", "[platforms.telegram]", p) {
            config.telegram = read_telegram(telegram, context, p);
        }
        for name in PLATFORMS_TO_COME {
            if let Some(entry) = platforms.entry(name) {
                p.add(&entry.key_span, format!("the platform '{name}' is not in this version; remove the section"));
            }
        }
        platforms.finish("platform", p);
    }
    if let Some(section) = file.section("update", "[update]", p) {
        config.update = read_update(section, p);
    }
}

fn read_gateway(mut section: Section<'_, '_>, p: &mut Problems<'_>) -> GatewayConfig {
    let defaults = GatewayConfig::default();
    let drain = section.duration("restart_drain_timeout", "5s", DRAIN_MAX, p);
    let probation = section.duration("probation", "60s", PROBATION_MAX, p);
    let handoff_timeout = section.duration("handoff_timeout", "30s", DRAIN_MAX, p);
    let probe = section.string("probe", "say ok", p).map(|(text, _)| text.to_owned());
    section.finish("key", p);
    GatewayConfig {
        restart_drain_timeout: drain.unwrap_or(defaults.restart_drain_timeout),
        probation: probation.unwrap_or(defaults.probation),
        handoff_timeout: handoff_timeout.unwrap_or(defaults.handoff_timeout).max(HANDOFF_MIN),
        probe,
    }
}

fn read_agent(entry: &Entry<'_, '_>, env: &Environment, p: &mut Problems<'_>) -> Option<(AgentName, AgentConfig)> {
    let name = entry.key;
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > AGENT_NAME_CHARS_MAX || !name.chars().all(legal) {
        let message = format!(
            "'{}' cannot be the name of an agent; use up to {AGENT_NAME_CHARS_MAX} of a-z, A-Z, 0-9, - and _",
            name.escape_debug()
        );
        p.add(&entry.key_span, message);
        return None;
    }
    let mut section = as_section(entry, &format!("[agents.{name}]"), p)?;
    let command = read_command(&mut section, p);
    let cwd = read_cwd(&mut section, p).unwrap_or_else(|| env.user_home().to_owned());
    let env = read_env(&mut section, p);
    section.finish("key", p);
    Some((AgentName::from(name), AgentConfig { command: command?, cwd, env }))
}

fn read_command(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> Option<Vec<String>> {
    const EXAMPLE: &str = r#"["hermes", "agent", "echo"]"#;
    let Some(entry) = section.entry("command") else {
        p.add(&section.span, format!("{} needs 'command'; for example command = {EXAMPLE}", section.name));
        return None;
    };
    let words = section.list("command", ("strings", EXAMPLE), text, p)?;
    let broken = words.iter().find(|(word, _)| word.contains('\0'));
    if let Some((_, span)) = broken {
        p.add(span, "'command' has a NUL character, and no program can be given one".to_owned());
        return None;
    }
    if words.first().is_none_or(|(program, _)| program.is_empty()) {
        p.add(&entry.value.span(), format!("'command' names no program; for example command = {EXAMPLE}"));
        return None;
    }
    Some(words.into_iter().map(|(word, _)| word).collect())
}

fn read_cwd(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> Option<PathBuf> {
    let (text, span) = section.string("cwd", "/srv/work", p)?;
    if !Path::new(text).is_absolute() || text.contains('\0') {
        p.add(&span, "'cwd' must be an absolute path; for example cwd = \"/srv/work\"".to_owned());
        return None;
    }
    Some(PathBuf::from(text))
}

fn read_env(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> BTreeMap<String, String> {
    const EXAMPLE: &str = r#"{ NAME = "value" }"#;
    let mut env = BTreeMap::new();
    let Some(entry) = section.entry("env") else { return env };
    let Some(table) = entry.value.get_ref().as_table() else {
        p.add(&entry.value.span(), format!("'env' must be a table; for example env = {EXAMPLE}"));
        return env;
    };
    for variable in Section::new("env", entry.key_span.clone(), table).entries() {
        let name = variable.key;
        if name.is_empty() || name.contains(['=', '\0']) {
            p.add(&variable.key_span, format!("'{}' cannot be the name of a variable", name.escape_debug()));
            continue;
        }
        match variable.value.get_ref().as_str() {
            Some(value) if !value.contains('\0') => {
                env.insert(name.to_owned(), value.to_owned());
            }
            _ => p.add(&variable.value.span(), format!("'{name}' must be a string; for example env = {EXAMPLE}")),
        }
    }
    env
}

fn read_telegram(
    mut section: Section<'_, '_>,
    context: &SecretContext<'_>,
    p: &mut Problems<'_>,
) -> Option<TelegramConfig> {
    let token = read_secret(&mut section, &TELEGRAM_TOKEN, context, p);
    let api_url = read_api_url(&mut section, p);
    let mut allow_from = read_users(&mut section, "allow_from", p);
    let allow_admin_from = read_users(&mut section, "allow_admin_from", p);
    let notification = section.boolean("gateway_restart_notification", p);
    let language = read_language(&mut section, p);
    let per_second = section.integer("messages_per_second", TelegramConfig::FREE_PER_SECOND, PER_SECOND, p);
    section.finish("key", p);
    // Whoever may restart the gateway may also talk to it.
    for admin in &allow_admin_from {
        if !allow_from.contains(admin) {
            allow_from.push(admin.clone());
        }
    }
    Some(TelegramConfig {
        token: token?,
        api_url: api_url.unwrap_or_else(|| TELEGRAM_API_URL.to_owned()),
        allow_from,
        allow_admin_from,
        gateway_restart_notification: notification.unwrap_or(true),
        language,
        messages_per_second: per_second.unwrap_or(TelegramConfig::FREE_PER_SECOND),
    })
}

fn read_api_url(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> Option<String> {
    let (text, span) = section.string("api_url", TELEGRAM_API_URL, p)?;
    let is_base =
        |url: &Url| matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
    if !Url::parse(text).is_ok_and(|url| is_base(&url)) {
        let message = format!(
            "'api_url' must be an http or https address without '?' and '#'; for example api_url = \"{TELEGRAM_API_URL}\""
        );
        p.add(&span, message);
        return None;
    }
    Some(text.trim_end_matches('/').to_owned())
}

/// User ids as strings or integers; in the configuration they are strings.
fn read_users(section: &mut Section<'_, '_>, key: &'static str, p: &mut Problems<'_>) -> Vec<String> {
    const EXAMPLE: &str = r#"["1001"]"#;
    let id = |value: &DeValue<'_>| match value {
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        other => text(other),
    };
    let items = section.list(key, ("user ids", EXAMPLE), id, p).unwrap_or_default();
    let mut users = Vec::with_capacity(items.len());
    for (item, span) in items {
        match item.trim().parse::<i64>() {
            Ok(id) => users.push(id.to_string()),
            Err(_) => p.add(
                &span,
                format!("'{key}' takes numeric user ids, not names (the bot answers /whoami with it); for example {key} = {EXAMPLE}"),
            ),
        }
    }
    users
}

fn read_update(mut section: Section<'_, '_>, p: &mut Problems<'_>) -> UpdateConfig {
    let manifest_url = read_manifest_url(&mut section, p);
    let verifying_keys = read_verifying_keys(&mut section, p);
    if let Some((auto, span)) = section.string("auto", "off", p)
        && auto != "off"
    {
        p.add(&span, "'auto' can only be \"off\" in this version".to_owned());
    }
    if let Some(entry) = section.entry("github") {
        p.add(&entry.key_span, "'github' is not in this version; use manifest_url".to_owned());
    }
    section.finish("key", p);
    UpdateConfig { manifest_url, verifying_keys }
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

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn read_verifying_keys(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> Vec<String> {
    let example = ("base64 ed25519 public keys", r#"["<44 characters>"]"#);
    let keys = section.list("verifying_keys", example, text, p).unwrap_or_default();
    for (key, span) in &keys {
        if BASE64.decode(key).is_ok_and(|bytes| bytes.len() == 32) {
            continue;
        }
        p.add(
            span,
            "this is not an ed25519 public key: 32 bytes as base64, 44 characters with the '=' at the end".to_owned(),
        );
    }
    keys.into_iter().map(|(key, _)| key).collect()
}

fn text(value: &DeValue<'_>) -> Option<String> {
    value.as_str().map(str::to_owned)
}
