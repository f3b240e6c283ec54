//! `gateway.toml`: what the operator wrote, checked; and where everything of one gateway lies.
//!
//! - [`Environment`]: the process environment as a value, so that nothing below the command line reads it again.
//! - [`Home`]: the directory of one gateway and the paths in it.
//! - [`Config`]: the file with its defaults filled in and its secrets read.
//!
//! Durations are strings (`"30s"`). Every secret `x` may instead be `x_file = "path"`, `x_credential = "name"`
//! (systemd.exec(5), `LoadCredential=`) or `x_env = "NAME"`.
//!
//! **Invariants**
//! - A [`Config`] is whole and checked: nobody checks it again. Only where somebody else than the gateway reads it
//!   ([`Reader::Other`]), a secret may be one that is not known here.
//! - All problems of a file are told at once, each with line, column, key and the way to mend it.
//! - No message, log line or `Debug` output contains a secret, nor the text of the line that a problem is in.
//!
//! Deliberately absent: whether a program or a directory that the file names exists. That is asked where it is used,
//! because it may change while the gateway runs.

mod duration;
mod environment;
mod error;
mod file;
mod home;
mod platforms;
mod secret;
mod table;
mod update;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::id::AgentName;
use crate::words::Language;

pub use duration::{DurationError, parse_duration};
pub use environment::Environment;
pub use error::{ConfigError, Problem, Severity};
pub use home::{Home, HomeError, SOCKET_PATH_MAX, WEB_TOKEN_FILE};
pub use secret::{Reader, Secret};
pub use update::{AutoUpdate, Channel, UpdateConfig, is_loopback, verifying_key};
pub use window::{Opening, Window, WindowError};

/// The name of the agent that new conversations get.
pub const DEFAULT_AGENT: &str = "default";

/// The most bytes of `gateway.toml` that are read. A real one has a few hundred.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The whole configuration, with its defaults filled in and its secrets read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[gateway]`.
    pub gateway: GatewayConfig,
    /// `[agents.<name>]`; `default` is there even when the file names no agent (then it is `hermes agent echo`).
    pub agents: BTreeMap<AgentName, AgentConfig>,
    /// `[platforms.telegram]`.
    pub telegram: Option<TelegramConfig>,
    /// `[platforms.dingtalk]`.
    pub dingtalk: Option<DingTalkConfig>,
    /// `[platforms.weixin]`.
    pub weixin: Option<WeixinConfig>,
    /// `[platforms.web]`.
    pub web: Option<WebConfig>,
    /// `[update]`.
    pub update: UpdateConfig,
    /// `[telemetry]`.
    pub telemetry: TelemetryConfig,
    /// Variables of the environment that hold secrets: agents do not get them.
    pub secret_variables: BTreeSet<String>,
}

/// `[gateway]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The longest wait for sends in flight before a handoff. Default 5 s, at most 10 min.
    pub restart_drain_timeout: Duration,
    /// How long a new image is on probation. Default 60 s, at most 24 h.
    pub probation: Duration,
    /// How long a new image may take until it serves, and its event loop may stand still while it is on probation;
    /// then the previous image is back. Default 30 s, 1 s to 10 min.
    pub handoff_timeout: Duration,
    /// What the default agent is asked while a new image is on probation, by a process of its own. Default: nothing,
    /// it must answer `initialize` only.
    pub probe: Option<String>,
}

/// `[agents.<name>]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Working directory; absolute. Default: the home directory of the gateway's user.
    pub cwd: PathBuf,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
}

/// What every platform's section has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformAccess {
    /// Who may talk, by user id; empty means nobody. Contains everyone of `allow_admin_from`.
    pub allow_from: Vec<String>,
    /// Who may use the admin commands.
    pub allow_admin_from: Vec<String>,
    /// Whether chats are told about a restart. Default true.
    pub gateway_restart_notification: bool,
    /// What is spoken in the platform's chats. Default English.
    pub language: Language,
    /// Whether people who are not named are given codes, by which they can be let in. Default true.
    pub pairing: bool,
}

/// Nobody may talk unless let in by pairing, and chats are told about a restart.
impl Default for PlatformAccess {
    fn default() -> Self {
        Self {
            allow_from: Vec::new(),
            allow_admin_from: Vec::new(),
            gateway_restart_notification: true,
            language: Language::default(),
            pairing: true,
        }
    }
}

/// `[platforms.dingtalk]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DingTalkConfig {
    /// The app's `clientId` (AppKey).
    pub client_id: String,
    /// Its `clientSecret` (AppSecret).
    pub client_secret: Secret,
    /// Base of the API, without a slash at the end.
    pub api_url: String,
    /// Base of the older API, which takes uploads; without a slash at the end.
    pub oapi_url: String,
    /// Hosts besides those of `api_url` and `oapi_url` that a message's webhook may have.
    pub webhook_hosts: Vec<String>,
    /// The card template in which replies are streamed; without one they come in messages of whole paragraphs.
    pub card_template_id: Option<String>,
    /// Who may do what.
    pub access: PlatformAccess,
}

impl DingTalkConfig {
    /// The default of `api_url`.
    pub const API_URL: &str = "https://api.dingtalk.com";
}

/// `[platforms.weixin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeixinConfig {
    /// The bot token, as `hermes weixin login` got it.
    pub token: Secret,
    /// The bot's own id.
    pub account_id: String,
    /// Base of the API, without a slash at the end.
    pub base_url: String,
    /// Base of the content network that has pictures and files, without a slash at the end.
    pub cdn_url: String,
    /// Who may do what.
    pub access: PlatformAccess,
}

impl WeixinConfig {
    /// The default of `base_url`, where every login begins.
    pub const BASE_URL: &str = "https://ilinkai.weixin.qq.com";
    /// The default of `cdn_url`.
    pub const CDN_URL: &str = "https://novac2c.cdn.weixin.qq.com/c2c";
}

/// `[platforms.telegram]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelegramConfig {
    /// The bot token.
    pub token: Secret,
    /// Base of the Bot API, without a slash at the end.
    pub api_url: String,
    /// Who may do what.
    pub access: PlatformAccess,
    /// The most messages that the bot sends in a second, in all its chats together: 1 to 1000, default 30.
    ///
    /// Telegram lets a bot send about 30 messages a second for free. Beyond [`TelegramConfig::FREE_PER_SECOND`] it
    /// takes messages only as paid broadcasts, so each one then carries `allow_paid_broadcast: true` and may be
    /// charged for in Telegram Stars, from the bot's balance
    /// (<https://core.telegram.org/bots/api#sendmessage>).
    pub messages_per_second: u32,
    /// Where Telegram posts updates to; without it they are polled for.
    pub webhook: Option<WebhookConfig>,
}

/// The keys `webhook_*` of `[platforms.telegram]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Where Telegram finds the gateway: https, or http on the loopback. Not for logs: it may hold a secret.
    pub url: Secret,
    /// What Telegram proves itself by, 1 to 256 of `A-Za-z0-9_-`; without it the gateway makes one.
    pub secret: Option<Secret>,
    /// Where the gateway listens, for a proxy that speaks TLS. A socket that systemd passes by the name `telegram-webhook` must
    /// be there (`dist/hermes-gateway-webhook.socket`).
    pub listen: SocketAddr,
    /// How often Telegram is asked whether it still knows the webhook and can post. No key: [`WebhookConfig::LOOK_EVERY`],
    /// and shorter in tests.
    pub look_every: Duration,
}

impl WebhookConfig {
    /// How often Telegram is asked by default.
    pub const LOOK_EVERY: Duration = Duration::from_secs(300);
    /// Where the gateway listens by default.
    pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);
}

/// `[platforms.web]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebConfig {
    /// Where the gateway listens. A socket that systemd passes by the name `web` must be there
    /// (`dist/hermes-gateway-web.socket`).
    pub listen: SocketAddr,
    /// Names by which browsers may call the gateway, besides those of the loopback and the address that it listens on.
    pub hosts: Vec<String>,
    /// Who has it is the user [`WebConfig::OWNER`]; without it the gateway makes one.
    pub token: Option<Secret>,
    /// Who has it is the user [`WebConfig::GUEST`].
    pub guest_token: Option<Secret>,
    /// Who may do what: it follows from the tokens.
    pub access: PlatformAccess,
}

impl WebConfig {
    /// Where the gateway listens by default.
    pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8787);
    /// Whoever has `token`: may talk, and is an admin.
    pub const OWNER: &str = "owner";
    /// Whoever has `guest_token`: may talk.
    pub const GUEST: &str = "guest";

    /// Who may do what, with a guest or without.
    pub fn access(has_guest: bool, gateway_restart_notification: bool, language: Language) -> PlatformAccess {
        let owner = Self::OWNER.to_owned();
        let guest = has_guest.then(|| Self::GUEST.to_owned());
        PlatformAccess {
            allow_from: std::iter::once(owner.clone()).chain(guest).collect(),
            allow_admin_from: vec![owner],
            gateway_restart_notification,
            language,
            pairing: false,
        }
    }
}

impl TelegramConfig {
    /// The most messages in a second that Telegram takes for free, and the default.
    pub const FREE_PER_SECOND: u32 = 30;

    /// Whether messages are sent as paid broadcasts.
    pub fn is_paid(&self) -> bool {
        self.messages_per_second > Self::FREE_PER_SECOND
    }
}

/// `[telemetry]`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TelemetryConfig {
    /// The collector to which spans of handoffs and turns are sent, over OTLP/HTTP; without `/v1/traces` and without a slash
    /// at the end.
    pub otlp_endpoint: Option<String>,
}

impl Config {
    /// What all configured platforms have in common, by their names.
    pub fn platforms(&self) -> impl Iterator<Item = (&'static str, &PlatformAccess)> {
        let telegram = self.telegram.as_ref().map(|telegram| ("telegram", &telegram.access));
        let dingtalk = self.dingtalk.as_ref().map(|dingtalk| ("dingtalk", &dingtalk.access));
        let weixin = self.weixin.as_ref().map(|weixin| ("weixin", &weixin.access));
        let web = self.web.as_ref().map(|web| ("web", &web.access));
        telegram.into_iter().chain(dingtalk).chain(weixin).chain(web)
    }

    /// Whether all secrets of a platform are known here.
    pub fn is_known(&self, platform: &str) -> bool {
        let web = self.web.as_ref().map(|web| [&web.token, &web.guest_token]);
        let secrets = match platform {
            "telegram" => vec![self.telegram.as_ref().map(|telegram| &telegram.token)],
            "dingtalk" => vec![self.dingtalk.as_ref().map(|dingtalk| &dingtalk.client_secret)],
            "weixin" => vec![self.weixin.as_ref().map(|weixin| &weixin.token)],
            _ => web.into_iter().flatten().map(Option::as_ref).collect(),
        };
        secrets.into_iter().flatten().all(Secret::is_known)
    }

    /// Reads `gateway.toml` and the secrets it names, and logs its warnings. A missing file means all defaults, and says
    /// so once in the log.
    ///
    /// # Errors
    /// [`ConfigError::Read`] if the file is there but cannot be read, [`ConfigError::Invalid`] with every problem in
    /// it.
    pub fn load(path: &Path, env: &Environment) -> Result<Self, ConfigError> {
        let (config, warnings) = Self::check(path, env, Reader::Gateway)?;
        for Problem { line, column, message, .. } in warnings {
            tracing::warn!("{}:{line}:{column}: {message}", path.display());
        }
        Ok(config)
    }

    /// As [`Config::load`], but for `reader`, and returns the warnings.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn check(path: &Path, env: &Environment, reader: Reader) -> Result<(Self, Vec<Problem>), ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::info!(path = %path.display(), "no configuration file, using the defaults");
                return Ok((Self::defaults(env), Vec::new()));
            }
            Err(error) => return Err(read(error)),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(ConfigError::TooLong { path: path.to_owned(), bytes_max: FILE_BYTES_MAX });
        }
        let text = String::from_utf8(bytes).map_err(|_| ConfigError::NotText { path: path.to_owned() })?;
        Self::check_text(&text, path, env, reader)
    }

    /// Checks the text of a `gateway.toml` that lies at `path`: relative secret files are looked for beside it.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn from_text(text: &str, path: &Path, env: &Environment, reader: Reader) -> Result<Self, ConfigError> {
        Self::check_text(text, path, env, reader).map(|(config, _)| config)
    }

    fn check_text(
        text: &str,
        path: &Path,
        env: &Environment,
        reader: Reader,
    ) -> Result<(Self, Vec<Problem>), ConfigError> {
        file::parse(text, path, env, reader)
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// What holds without any file.
    pub fn defaults(env: &Environment) -> Self {
        Self {
            gateway: GatewayConfig::default(),
            agents: BTreeMap::from([(AgentName::from(DEFAULT_AGENT), AgentConfig::echo(env))]),
            telegram: None,
            dingtalk: None,
            weixin: None,
            web: None,
            update: UpdateConfig::default(),
            telemetry: TelemetryConfig::default(),
            secret_variables: BTreeSet::new(),
        }
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            restart_drain_timeout: Duration::from_secs(5),
            probation: Duration::from_secs(60),
            handoff_timeout: Duration::from_secs(30),
            probe: None,
        }
    }
}

impl AgentConfig {
    /// The built-in agent: it answers with what it was told.
    fn echo(env: &Environment) -> Self {
        Self {
            command: ["hermes", "agent", "echo"].map(str::to_owned).to_vec(),
            cwd: env.user_home().to_owned(),
            env: BTreeMap::new(),
        }
    }
}
