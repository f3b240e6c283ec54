//! `[platforms.<name>]`.

use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};

use reqwest::Url;
use toml::de::DeValue;

use super::secret::{SecretContext, SecretKeys, read_secret};
use super::table::{Problems, Section};
use super::update::is_loopback;
use super::{Config, DingTalkConfig, PlatformAccess, Secret, TelegramConfig, WebConfig, WebhookConfig, WeixinConfig};
use crate::words::Language;

const TELEGRAM_API_URL: &str = "https://api.telegram.org";
const TELEGRAM_TOKEN: SecretKeys =
    SecretKeys { inline: "token", file: "token_file", credential: "token_credential", variable: "token_env" };
const TELEGRAM_WEBHOOK: SecretKeys = SecretKeys {
    inline: "webhook_secret",
    file: "webhook_secret_file",
    credential: "webhook_secret_credential",
    variable: "webhook_secret_env",
};

const DINGTALK_OAPI_URL: &str = "https://oapi.dingtalk.com";
const DINGTALK_SECRET: SecretKeys = SecretKeys {
    inline: "client_secret",
    file: "client_secret_file",
    credential: "client_secret_credential",
    variable: "client_secret_env",
};

const WEB_TOKEN: SecretKeys = TELEGRAM_TOKEN;
const WEB_GUEST_TOKEN: SecretKeys = SecretKeys {
    inline: "guest_token",
    file: "guest_token_file",
    credential: "guest_token_credential",
    variable: "guest_token_env",
};
/// What nobody guesses, even by trying for as long as the limit of failed logins lets them.
const WEB_TOKEN_CHARS_MIN: usize = 16;

/// Telegram takes no more than the most of it, however it is paid.
const PER_SECOND: RangeInclusive<u32> = 1..=1000;

/// What a platform's user ids look like.
#[derive(Clone, Copy)]
enum UserIds {
    /// Whole numbers.
    Numbers,
    /// Any word.
    Words {
        /// One of them.
        example: &'static str,
    },
}

/// Reads `[platforms]` into `config`.
pub(super) fn read(
    config: &mut Config,
    mut platforms: Section<'_, '_>,
    context: &SecretContext<'_>,
    p: &mut Problems<'_>,
) {
    if let Some(section) = platforms.section("telegram", "[platforms.telegram]", p) {
        config.telegram = telegram(section, context, p);
    }
    if let Some(section) = platforms.section("dingtalk", "[platforms.dingtalk]", p) {
        config.dingtalk = dingtalk(section, context, p);
    }
    if let Some(section) = platforms.section("weixin", "[platforms.weixin]", p) {
        config.weixin = weixin(section, context, p);
    }
    if let Some(section) = platforms.section("web", "[platforms.web]", p) {
        config.web = Some(web(section, context, p));
    }
    platforms.finish("platform", p);
}

fn telegram(mut section: Section<'_, '_>, context: &SecretContext<'_>, p: &mut Problems<'_>) -> Option<TelegramConfig> {
    let token = read_secret(&mut section, &TELEGRAM_TOKEN, context, p);
    let api_url = base_url(&mut section, "api_url", TELEGRAM_API_URL, p);
    let access = access(&mut section, UserIds::Numbers, p);
    let per_second = section.integer("messages_per_second", TelegramConfig::FREE_PER_SECOND, PER_SECOND, p);
    let webhook = webhook(&mut section, context, p);
    section.finish("key", p);
    Some(TelegramConfig {
        token: token?,
        api_url,
        access,
        messages_per_second: per_second.unwrap_or(TelegramConfig::FREE_PER_SECOND),
        webhook,
    })
}

fn webhook(section: &mut Section<'_, '_>, context: &SecretContext<'_>, p: &mut Problems<'_>) -> Option<WebhookConfig> {
    let url = section.string("webhook_url", "https://example.org/telegram", p);
    let (key_span, secret) = optional_secret(section, &TELEGRAM_WEBHOOK, context, p).unzip();
    let secret = secret.flatten();
    let (listen_span, listen) = address(section, "webhook_listen", "127.0.0.1:8443", p).unzip();
    let listen = listen.flatten().unwrap_or(WebhookConfig::LISTEN);
    let Some((url, span)) = url else {
        if let Some(span) = key_span.or(listen_span) {
            p.add(&span, "this is of use with 'webhook_url' only".to_owned());
        }
        return None;
    };
    if !is_hook(url) {
        p.add(&span, "'webhook_url' must be an https address that Telegram can reach".to_owned());
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if let (Some(secret), Some(key_span)) = (&secret, key_span)
        && (secret.expose().len() > 256 || !secret.expose().chars().all(is_plain))
    {
        p.add(&key_span, "the secret of the webhook has 1 to 256 of A-Z, a-z, 0-9, '_' and '-'".to_owned());
    }
    Some(WebhookConfig { url: Secret::new(url), secret, listen, look_every: WebhookConfig::LOOK_EVERY })
}

/// Telegram posts to https alone; a test server on the loopback needs none.
fn is_hook(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    url.scheme() == "https" || url.scheme() == "http" && url.host_str().is_some_and(is_loopback)
}

fn dingtalk(mut section: Section<'_, '_>, context: &SecretContext<'_>, p: &mut Problems<'_>) -> Option<DingTalkConfig> {
    let client_id = required(&mut section, "client_id", "dingabcdef", p);
    let client_secret = read_secret(&mut section, &DINGTALK_SECRET, context, p);
    let api_url = base_url(&mut section, "api_url", DingTalkConfig::API_URL, p);
    let oapi_url = base_url(&mut section, "oapi_url", DINGTALK_OAPI_URL, p);
    let hosts = ("host names", r#"["proxy.example.org"]"#);
    let webhook_hosts = section.list("webhook_hosts", hosts, super::file::text, p).unwrap_or_default();
    let card_template_id = section.string("card_template_id", "abc.schema", p).map(|(text, _)| text.to_owned());
    let access = access(&mut section, UserIds::Words { example: "manager4711" }, p);
    section.finish("key", p);
    Some(DingTalkConfig {
        client_id: client_id?,
        client_secret: client_secret?,
        api_url,
        oapi_url,
        webhook_hosts: webhook_hosts.into_iter().map(|(host, _)| host).collect(),
        card_template_id,
        access,
    })
}

fn weixin(mut section: Section<'_, '_>, context: &SecretContext<'_>, p: &mut Problems<'_>) -> Option<WeixinConfig> {
    let token = read_secret(&mut section, &TELEGRAM_TOKEN, context, p);
    let account_id = required(&mut section, "account_id", "1a2b3c@im.bot", p);
    let base_url_ = base_url(&mut section, "base_url", WeixinConfig::BASE_URL, p);
    let cdn_url = base_url(&mut section, "cdn_url", WeixinConfig::CDN_URL, p);
    let access = access(&mut section, UserIds::Words { example: "o9cq80@im.wechat" }, p);
    section.finish("key", p);
    Some(WeixinConfig { token: token?, account_id: account_id?, base_url: base_url_, cdn_url, access })
}

fn web(mut section: Section<'_, '_>, context: &SecretContext<'_>, p: &mut Problems<'_>) -> WebConfig {
    let mut token = |keys, p: &mut Problems<'_>| {
        let (span, token) = optional_secret(&mut section, keys, context, p)?;
        let token: Secret = token?;
        if token.is_known() && token.expose().chars().count() < WEB_TOKEN_CHARS_MIN {
            let message = format!(
                "'{}' has fewer than {WEB_TOKEN_CHARS_MIN} characters and could be guessed; `openssl rand -hex 32` makes one",
                keys.inline
            );
            p.add(&span, message);
        }
        Some((span, token))
    };
    let (owner, guest) = (token(&WEB_TOKEN, p), token(&WEB_GUEST_TOKEN, p));
    if let (Some((_, owner)), Some((span, guest))) = (&owner, &guest)
        && owner == guest
        && owner.is_known()
    {
        p.add(span, "'guest_token' is the same as 'token', and must be another".to_owned());
    }
    let (listen_span, listen) = address(&mut section, "listen", "127.0.0.1:8787", p).unzip();
    let listen = listen.flatten().unwrap_or(WebConfig::LISTEN);
    let allow_remote = section.boolean("allow_remote", p).unwrap_or(false);
    if let Some(span) = listen_span
        && !listen.ip().is_loopback()
        && !allow_remote
    {
        let message = "'listen' is no loopback address, so others could read what is typed here, the token too; put a proxy \
                       with TLS before the gateway and let it listen on 127.0.0.1, or set allow_remote = true";
        p.add(&span, message.to_owned());
    }
    let hosts = ("host names", r#"["hermes.example.org"]"#);
    let hosts = section.list("hosts", hosts, super::file::text, p).unwrap_or_default();
    for (host, span) in &hosts {
        if host.is_empty() || host.contains([':', '/', ' ']) {
            p.add(span, "a host is named without 'https://', port and path; for example hermes.example.org".to_owned());
        }
    }
    let (gateway_restart_notification, language) = manners(&mut section, p);
    section.finish("key", p);
    WebConfig {
        listen,
        hosts: hosts.into_iter().map(|(host, _)| host.to_ascii_lowercase()).collect(),
        token: owner.map(|(_, token)| token),
        access: WebConfig::access(guest.is_some(), gateway_restart_notification, language),
        guest_token: guest.map(|(_, token)| token),
    }
}

/// A secret that need not be there, with the place of its key.
fn optional_secret(
    section: &mut Section<'_, '_>,
    keys: &SecretKeys,
    context: &SecretContext<'_>,
    p: &mut Problems<'_>,
) -> Option<(Range<usize>, Option<Secret>)> {
    // All of them are known keys, whichever is there.
    let spans = keys.all().map(|key| section.entry(key).map(|entry| entry.key_span));
    let span = spans.into_iter().flatten().next()?;
    Some((span, read_secret(section, keys, context, p)))
}

/// Where to listen, with the place of the value; nothing beside it if it is no address.
fn address(
    section: &mut Section<'_, '_>,
    key: &'static str,
    example: &'static str,
    p: &mut Problems<'_>,
) -> Option<(Range<usize>, Option<SocketAddr>)> {
    let (text, span) = section.string(key, example, p)?;
    let address = text.parse().ok();
    if address.is_none() {
        p.add(&span, format!("'{key}' must be an address and a port, like {example}"));
    }
    Some((span, address))
}

/// A text that must be there.
fn required(
    section: &mut Section<'_, '_>,
    key: &'static str,
    example: &'static str,
    p: &mut Problems<'_>,
) -> Option<String> {
    if section.entry(key).is_none() {
        p.add(&section.span, format!("{} needs '{key}'; for example {key} = \"{example}\"", section.name));
        return None;
    }
    let (text, span) = section.string(key, example, p)?;
    if text.trim().is_empty() {
        p.add(&span, format!("'{key}' is empty; for example {key} = \"{example}\""));
        return None;
    }
    Some(text.trim().to_owned())
}

/// An address that others are made of, without a slash at its end; `default` also where it is wrong.
pub(super) fn base_url(
    section: &mut Section<'_, '_>,
    key: &'static str,
    default: &'static str,
    p: &mut Problems<'_>,
) -> String {
    let Some((text, span)) = section.string(key, default, p) else { return default.to_owned() };
    let is_base =
        |url: &Url| matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
    if !Url::parse(text).is_ok_and(|url| is_base(&url)) {
        let message =
            format!("'{key}' must be an http or https address without '?' and '#'; for example {key} = \"{default}\"");
        p.add(&span, message);
    }
    text.trim_end_matches('/').to_owned()
}

/// The keys that every platform has.
fn access(section: &mut Section<'_, '_>, ids: UserIds, p: &mut Problems<'_>) -> PlatformAccess {
    let mut allow_from = users(section, "allow_from", ids, p);
    let allow_admin_from = users(section, "allow_admin_from", ids, p);
    let (gateway_restart_notification, language) = manners(section, p);
    let pairing = section.boolean("pairing", p);
    // Whoever may restart the gateway may also talk to it.
    for admin in &allow_admin_from {
        if !allow_from.contains(admin) {
            allow_from.push(admin.clone());
        }
    }
    PlatformAccess {
        allow_from,
        allow_admin_from,
        gateway_restart_notification,
        language,
        pairing: pairing.unwrap_or(true),
    }
}

/// How a platform talks.
fn manners(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> (bool, Language) {
    let notification = section.boolean("gateway_restart_notification", p);
    (notification.unwrap_or(true), language(section, p))
}

fn language(section: &mut Section<'_, '_>, p: &mut Problems<'_>) -> Language {
    let Some((tag, span)) = section.string("language", Language::ZhCn.tag(), p) else { return Language::default() };
    Language::parse(tag).unwrap_or_else(|| {
        let known: Vec<String> = Language::ALL.map(|language| format!("\"{}\"", language.tag())).into();
        p.add(&span, format!("'language' must be one of {}", known.join(", ")));
        Language::default()
    })
}

/// User ids as strings or integers; in the configuration they are strings.
fn users(section: &mut Section<'_, '_>, key: &'static str, ids: UserIds, p: &mut Problems<'_>) -> Vec<String> {
    let example = match ids {
        UserIds::Numbers => r#"["1001"]"#.to_owned(),
        UserIds::Words { example } => format!("[\"{example}\"]"),
    };
    let id = |value: &DeValue<'_>| match value {
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        other => super::file::text(other),
    };
    let items = section.list(key, ("user ids", &example), id, p).unwrap_or_default();
    let mut users = Vec::with_capacity(items.len());
    for (item, span) in items {
        let item = item.trim();
        if item == "*" {
            let message = format!(
                "'{key}' names people, and '*' for everyone is not supported; leave it out, and `pairing` lets people \
                 in one by one; for example {key} = {example}"
            );
            p.add(&span, message);
            continue;
        }
        match ids {
            UserIds::Numbers => match item.parse::<i64>() {
                Ok(id) => users.push(id.to_string()),
                Err(_) => p.add(
                    &span,
                    format!("'{key}' takes numeric user ids, not names (the bot answers /whoami with it); for example {key} = {example}"),
                ),
            },
            UserIds::Words { .. } if item.is_empty() => {
                p.add(&span, format!("'{key}' takes user ids (the bot answers /whoami with it); for example {key} = {example}"));
            }
            UserIds::Words { .. } => users.push(item.to_owned()),
        }
    }
    users
}
