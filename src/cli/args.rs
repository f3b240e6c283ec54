//! What may be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::service::args::{InstallArgs, StartArgs, UninstallArgs};
use super::setup::args::SetupArgs;
use crate::agent::builtin::echo::EchoArgs;
use crate::agent::builtin::openai::OpenaiArgs;
use crate::config::parse_duration;
use crate::telemetry::LogFormat;

/// What `--help` and hermes(1) end with.
const AFTER_HELP: &str = "\
Exit codes:
   0  done; also when there is nothing newer to update to
   1  failed or refused; the reason is on standard error, or in 'error' with --json
   2  wrong command line
   3  of 'gateway status' alone: no gateway runs
  78  the configuration, or the home directory, must be changed first

Environment:
  HERMES_HOME  the home directory, as --home
  HERMES_LOG   what is logged: error, warn, info, debug, trace, or levels by crate
  NO_COLOR     no colours on a terminal

Files:
  ~/.hermes/gateway.toml             the configuration of a user's gateway
  /var/lib/hermes/gateway.toml       the configuration of the system service";

/// Joins chat platforms to AI agents, and replaces its own binary while it runs.
#[derive(Debug, Parser)]
#[command(name = "hermes", version = crate::version::version(), disable_help_subcommand = true, max_term_width = 100)]
#[command(after_long_help = AFTER_HELP)]
pub struct Cli {
    /// The gateway's home directory [env: HERMES_HOME] [default: ~/.hermes].
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Configure the gateway by questions and answers, and start it.
    Setup(SetupArgs),
    /// Run, watch and steer the gateway.
    #[command(subcommand)]
    Gateway(GatewayCommand),
    /// Update the gateway in place, or what it is started with next.
    #[command(visible_alias = "update")]
    SelfUpdate(SelfUpdateArgs),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Let people in by the codes that they were given in a chat.
    #[command(subcommand)]
    Pairing(PairingCommand),
    /// Log in to Weixin (WeChat).
    #[command(subcommand)]
    Weixin(WeixinCommand),
    /// Talk to the gateway's agent from this terminal.
    Chat(ChatArgs),
    /// Look for what is wrong, and say how to put it right.
    Doctor(DoctorArgs),
    /// Run a built-in ACP agent, for this gateway or any other ACP client.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Print completions for a shell.
    Completion {
        /// Which one.
        shell: clap_complete::Shell,
    },
    /// Say whether this program could take over the state on standard input.
    #[command(hide = true)]
    HandoffCheck(RunArgs),
    /// Put the image on standard input into the home.
    #[command(hide = true)]
    InstallImage,
    /// Say whether an archive is a release that its publisher has signed; for scripts/install.
    #[command(hide = true)]
    VerifyRelease(VerifyReleaseArgs),
    /// Hold the connection to DingTalk, for the gateway at standard input.
    #[command(hide = true)]
    Conduit,
    /// Measure what it costs to replace this image, for scripts/bench.
    #[command(hide = true)]
    ExecProbe(ExecProbeArgs),
}

impl Command {
    /// Whether a program reads the answer.
    pub fn json(&self) -> bool {
        match self {
            Self::Gateway(GatewayCommand::Run(_))
            | Self::Chat(_)
            | Self::Agent(_)
            | Self::HandoffCheck(_)
            | Self::InstallImage
            | Self::VerifyRelease(_)
            | Self::Conduit
            | Self::Completion { .. }
            | Self::ExecProbe(_) => false,
            Self::Gateway(
                GatewayCommand::Install(InstallArgs { json: JsonArgs { json }, .. })
                | GatewayCommand::Uninstall(UninstallArgs { json: JsonArgs { json }, .. })
                | GatewayCommand::Start(StartArgs { json: JsonArgs { json }, .. })
                | GatewayCommand::List(JsonArgs { json })
                | GatewayCommand::Adopt(JsonArgs { json })
                | GatewayCommand::Status(StatusArgs { json: JsonArgs { json }, .. })
                | GatewayCommand::History(HistoryArgs { json: JsonArgs { json }, .. })
                | GatewayCommand::Logs(LogsArgs { json: JsonArgs { json }, .. })
                | GatewayCommand::Restart(RestartArgs { json: JsonArgs { json }, .. })
                | GatewayCommand::Reload(JsonArgs { json })
                | GatewayCommand::Stop(JsonArgs { json })
                | GatewayCommand::Platform(
                    PlatformCommand::List(JsonArgs { json })
                    | PlatformCommand::Pause(PlatformArgs { json: JsonArgs { json }, .. })
                    | PlatformCommand::Resume(PlatformArgs { json: JsonArgs { json }, .. }),
                ),
            )
            | Self::Pairing(
                PairingCommand::List(JsonArgs { json })
                | PairingCommand::Approve(ApproveArgs { json: JsonArgs { json }, .. })
                | PairingCommand::Revoke(RevokeArgs { json: JsonArgs { json }, .. }),
            )
            | Self::Config(ConfigCommand::Check(ConfigCheckArgs { json: JsonArgs { json }, .. }))
            | Self::Weixin(WeixinCommand::Login(WeixinLoginArgs { json: JsonArgs { json }, .. }))
            | Self::Setup(SetupArgs { json: JsonArgs { json }, .. })
            | Self::SelfUpdate(SelfUpdateArgs { json: JsonArgs { json }, .. })
            | Self::Doctor(DoctorArgs { json: JsonArgs { json }, .. }) => *json,
        }
    }
}

/// `hermes gateway …`.
#[derive(Debug, Subcommand)]
pub enum GatewayCommand {
    /// Run the gateway in the foreground.
    Run(RunArgs),
    /// Show what runs, how it is, and what happened lately.
    Status(StatusArgs),
    /// Show the handoffs: when, who, why, from and to which version, and how they ended.
    History(HistoryArgs),
    /// Show the gateway's log, from the journal.
    Logs(LogsArgs),
    /// Start the gateway's program anew in the same process; running turns go on.
    Restart(RestartArgs),
    /// Read the configuration anew; running turns go on.
    Reload(JsonArgs),
    /// Stop the gateway.
    Stop(JsonArgs),
    /// Install the gateway as a systemd service and start it, or refresh what is installed.
    Install(InstallArgs),
    /// Stop the service and remove it; data stay without --purge.
    Uninstall(UninstallArgs),
    /// Start the installed service.
    Start(StartArgs),
    /// Show the installed services and what runs.
    List(JsonArgs),
    /// Let the gateway become this program, in place; what a package does after an upgrade.
    Adopt(JsonArgs),
    /// Hold a chat platform back, or let it go on.
    #[command(subcommand)]
    Platform(PlatformCommand),
}

/// `hermes gateway platform …`.
#[derive(Debug, Subcommand)]
pub enum PlatformCommand {
    /// Show the platforms and how their links are.
    List(JsonArgs),
    /// Take in nothing and send nothing, until it is resumed; also over restarts.
    Pause(PlatformArgs),
    /// Go on.
    Resume(PlatformArgs),
}

/// `hermes gateway platform pause|resume`.
#[derive(Debug, Args)]
pub struct PlatformArgs {
    /// The platform, as its section of gateway.toml is named.
    pub name: String,
    /// See [`JsonArgs`].
    #[command(flatten)]
    pub json: JsonArgs,
}

/// `hermes pairing …`.
#[derive(Debug, Subcommand)]
pub enum PairingCommand {
    /// Show who was let in, and who has asked to be.
    List(JsonArgs),
    /// Let somebody in who has shown you their code.
    Approve(ApproveArgs),
    /// Take back that somebody was let in.
    Revoke(RevokeArgs),
}

/// `hermes pairing approve`.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// The platform, as its section of gateway.toml is named.
    pub platform: String,
    /// The code that the person was given.
    pub code: String,
    /// See [`JsonArgs`].
    #[command(flatten)]
    pub json: JsonArgs,
}

/// `hermes pairing revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The platform, as its section of gateway.toml is named.
    pub platform: String,
    /// The person's id, as the list shows it.
    pub user: String,
    /// See [`JsonArgs`].
    #[command(flatten)]
    pub json: JsonArgs,
}

/// `hermes weixin …`.
#[derive(Debug, Subcommand)]
pub enum WeixinCommand {
    /// Get a bot account by a QR code that you scan with your phone, and write it into gateway.toml.
    Login(WeixinLoginArgs),
}

/// `hermes weixin login`.
#[derive(Debug, Args)]
pub struct WeixinLoginArgs {
    /// Another service than Weixin's, for tests.
    #[arg(long, value_name = "URL", hide = true)]
    pub base_url: Option<String>,
    /// How long to wait for the login.
    #[arg(long, value_name = "TIME", hide = true, default_value = "8m", value_parser = parse_duration)]
    pub within: Duration,
    /// See [`JsonArgs`].
    #[command(flatten)]
    pub json: JsonArgs,
}

/// `--json`.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct JsonArgs {
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// `hermes gateway run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration [default: gateway.toml in the home directory].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How to log [default: the journal under systemd, else text].
    #[arg(long, value_name = "text|json|journal")]
    pub log_format: Option<LogFormat>,
}

/// `hermes agent …`.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Answer with what was said; streams, asks and crashes on request.
    Echo(EchoArgs),
    /// Answer with a model behind an OpenAI-compatible chat completions API.
    Openai(OpenaiArgs),
}

/// `hermes gateway status`.
#[derive(Clone, Copy, Debug, Args)]
pub struct StatusArgs {
    /// Go on showing it, until Ctrl-C.
    #[arg(long, short)]
    pub watch: bool,
    /// Show everything: each phase of the handoffs, whole digests, totals.
    #[arg(long, visible_alias = "deep")]
    pub full: bool,
    /// See [`JsonArgs`].
    #[command(flatten)]
    pub json: JsonArgs,
}

/// `hermes gateway history`.
#[derive(Clone, Copy, Debug, Args)]
pub struct HistoryArgs {
    /// How many handoffs to show, the newest first.
    #[arg(short, long = "lines", value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub number: u32,
    /// See [`JsonArgs`].
    #[command(flatten)]
    pub json: JsonArgs,
}

/// `hermes gateway logs`.
#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// Go on showing what comes.
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the latest lines to show.
    #[arg(short, long = "lines", value_name = "N", default_value_t = 100)]
    pub number: u32,
    /// Only what is not older: a time as of journalctl(1), such as "10 min ago" or "2026-11-27 03:00".
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only starts, stops and handoffs.
    #[arg(long)]
    pub handoffs: bool,
    /// Print one JSON document for each line.
    #[command(flatten)]
    pub json: JsonArgs,
}

/// `hermes doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// The configuration [default: gateway.toml in the home directory].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Ask nobody outside of this machine.
    #[arg(long)]
    pub offline: bool,
    /// What root has seen of the unit, for the child that looks as the owner of the home.
    #[arg(long, value_name = "JSON", hide = true)]
    pub seen: Option<String>,
    /// See [`JsonArgs`].
    #[command(flatten)]
    pub json: JsonArgs,
}

/// `hermes gateway restart`.
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// Do not wait for messages that are being sent.
    #[arg(long)]
    pub force: bool,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// See [`JsonArgs`].
    #[command(flatten)]
    pub json: JsonArgs,
}

/// `hermes self-update`.
#[derive(Debug, Args)]
pub struct SelfUpdateArgs {
    /// Only say whether there is a newer release.
    #[arg(long, conflicts_with_all = ["version", "yes", "dry_run", "revert", "hold", "unhold"])]
    pub check: bool,
    /// Update to this version instead of the newest.
    #[arg(long, value_name = "V")]
    pub version: Option<String>,
    /// Go back to the version that served before, which needs no network.
    #[arg(long, conflicts_with = "version")]
    pub revert: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Get, verify and try the version, but do not switch to it or keep it.
    #[arg(long)]
    pub dry_run: bool,
    /// Let nothing be updated by itself, for a time (7d), until a date (2026-12-24), or until --unhold.
    #[arg(long, value_name = "TIME|DATE", num_args = 0..=1, conflicts_with_all = ["version", "yes", "dry_run", "revert", "unhold"])]
    pub hold: Option<Option<String>>,
    /// Let it be updated by itself again.
    #[arg(long, conflicts_with_all = ["version", "yes", "dry_run", "revert"])]
    pub unhold: bool,
    /// The configuration of a gateway that does not run [default: gateway.toml in the home directory].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// See [`JsonArgs`].
    #[command(flatten)]
    pub json: JsonArgs,
}

/// `hermes config …`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say everything that is wrong with a configuration, as the gateway would; 78 if it would be refused.
    Check(ConfigCheckArgs),
}

/// `hermes config check`.
#[derive(Debug, Args)]
pub struct ConfigCheckArgs {
    /// The configuration [default: gateway.toml in the home directory].
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// See [`JsonArgs`].
    #[command(flatten)]
    pub json: JsonArgs,
}

/// `hermes chat`.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// The chat to join; everyone in a chat sees the same.
    #[arg(long, value_name = "NAME", default_value = crate::platform::local::DEFAULT_CHAT)]
    pub chat: String,
    /// Send this one message, print the answer and exit.
    #[arg(long, value_name = "TEXT")]
    pub once: Option<String>,
}

/// `hermes verify-release`.
#[derive(Clone, Debug, Args)]
pub struct VerifyReleaseArgs {
    /// The publisher's public key, as base64.
    #[arg(long, value_name = "KEY", required = true)]
    pub key: Vec<String>,
    /// The archive, under the name that it was published by.
    pub archive: PathBuf,
}

/// `hermes exec-probe`.
#[derive(Clone, Copy, Debug, Args)]
pub struct ExecProbeArgs {
    /// How many samples to take.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub count: u16,
}
