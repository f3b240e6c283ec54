//! `hermes setup`: each question has a flag, so that a script can answer it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::args::JsonArgs;
use crate::cli::service::args::ScopeArgs;

/// Where the gateway talks to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlatformChoice {
    /// A Telegram bot.
    Telegram,
    /// A DingTalk robot.
    Dingtalk,
    /// A Weixin (WeChat) account, by a QR code.
    Weixin,
    /// A page in the browser, on this machine.
    Web,
    /// The terminal alone: `hermes chat`.
    None,
}

/// `hermes setup`.
#[derive(Clone, Debug, Args)]
pub struct SetupArgs {
    /// Where the gateway talks to people.
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<PlatformChoice>,
    /// File with the bot's token (Telegram) or the app's secret (DingTalk); `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// DingTalk: the app's AppKey.
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// Another server than the platform's.
    #[arg(long, value_name = "URL")]
    pub api_url: Option<String>,
    /// Who may talk, by user id; may be given several times.
    #[arg(long, value_name = "ID")]
    pub allow: Vec<String>,
    /// Who may use admin commands, too, by user id; may be given several times.
    #[arg(long, value_name = "ID")]
    pub admin: Vec<String>,
    /// Who answers: `echo`, `openai`, `keep` for the one that is configured, or the command of an ACP agent.
    #[arg(long, value_name = "AGENT")]
    pub agent: Option<String>,
    /// openai: address of the API, up to and with its version.
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// openai: name of the model.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// openai: file with the API key.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Install the gateway as a service of systemd.
    #[arg(long, conflicts_with = "no_install")]
    pub install: bool,
    /// Do not install it.
    #[arg(long)]
    pub no_install: bool,
    /// See [`ScopeArgs`].
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Do not try the token at the platform.
    #[arg(long)]
    pub no_check: bool,
    /// Ask nothing: what has no flag gets its default.
    #[arg(long, short)]
    pub yes: bool,
    /// See [`JsonArgs`].
    #[command(flatten)]
    pub json: JsonArgs,
}
