//! What `scripts/soak` runs inside of a boot: one gateway that is replaced and killed again and again while many chats
//! talk to it, or one that is killed once at each step of a message's path.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Parser;

#[path = "drill-bed.rs"]
#[expect(dead_code, reason = "the drill uses more of it")]
mod bed;
#[path = "../tests/it/support/gateway.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod gateway;
#[path = "soak-judge.rs"]
mod judge;
#[path = "soak-points.rs"]
mod points;
#[path = "../tests/it/support/release.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod release;
#[path = "drill-releases.rs"]
mod releases;
#[path = "drill-rows.rs"]
#[expect(dead_code, reason = "the drill uses more of it")]
mod rows;
#[path = "soak-run.rs"]
mod run;
#[path = "soak-schedule.rs"]
mod schedule;
#[path = "../tests/it/support/systemd.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod systemd;
#[path = "soak-talk.rs"]
mod talk;
#[path = "../tests/it/support/telegram/mod.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod telegram;
#[path = "../tests/it/support/unit.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod unit;
#[path = "drill-watch.rs"]
mod watch;

use bed::{ADMIN, Bed, USER};
use schedule::Amount;
use telegram::TelegramServer;

/// The longest wait for the boot.
const START: Duration = Duration::from_secs(20);
/// Each is killed seldom enough that none waits long for its next start.
const AGENTS: usize = 6;
/// Kills of agents for as many handoffs and kills of the gateway.
const AGENT_KILLS: (usize, usize) = (15, 100);

/// Soaks one unit.
#[derive(Clone, Parser)]
struct Args {
    /// The binary, built with the feature `fault-points`, and the launcher beside it.
    #[arg(long)]
    binary: PathBuf,
    /// What happens, and in which order.
    #[arg(long)]
    seed: Option<u64>,
    /// Handoffs that must have been completed.
    #[arg(long, default_value_t = 50)]
    handoffs: usize,
    /// SIGKILLs of the gateway.
    #[arg(long, default_value_t = 50)]
    kills: usize,
    /// SIGKILLs of agents meanwhile.
    #[arg(long)]
    agent_kills: Option<usize>,
    /// Go on for so long.
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// How many chats.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    chats: u32,
    /// Print the unit's journal around the first mistake.
    #[arg(long)]
    journal: bool,
    /// Kill it once at each step of a message's path.
    #[arg(long)]
    points: bool,
    /// Print the table in Markdown.
    #[arg(long)]
    markdown: bool,
}

impl Args {
    fn amount(&self) -> Amount {
        let (kills, of) = AGENT_KILLS;
        let agent_kills = self.agent_kills.unwrap_or((self.handoffs + self.kills) * kills / of);
        let chats = usize::try_from(self.chats).unwrap_or(usize::MAX);
        Amount { handoffs: self.handoffs, kills: self.kills, agent_kills, chats, agents: AGENTS }
    }

    /// What does the same again.
    fn command(&self, seed: u64) -> String {
        let Amount { handoffs, kills, agent_kills, chats, .. } = self.amount();
        let duration = self.duration.map_or_else(String::new, |time| format!(" --duration {}s", time.as_secs()));
        format!(
            "scripts/soak --seed {seed} --handoffs {handoffs} --kills {kills} --agent-kills {agent_kills} \
             --chats {chats}{duration} --journal"
        )
    }
}

fn main() -> ExitCode {
    match soak(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn soak(args: &Args) -> Result<bool> {
    let systemd = systemd::inside("soak", START).context("start it with scripts/soak")?;
    let bed = Bed::install(&systemd, &args.binary, "always", releases::Releases::publish(&args.binary, [])?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if args.points {
        return runtime.block_on(points::table(&bed, &systemd, args));
    }
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
    let seed = args.seed.unwrap_or(u64::try_from(clock)?);
    eprintln!("seed {seed}");
    let is_right = runtime.block_on(run::soak(&bed, &systemd, args, seed))?;
    if !is_right {
        eprintln!("the same again: {}", args.command(seed));
    }
    Ok(is_right)
}

/// Several agents of the same kind: the first is `default`.
fn agent(index: usize) -> String {
    if index == 0 { "default".to_owned() } else { format!("agent{index}") }
}

/// gateway.toml, with this many agents and this under `[update]`.
fn config(telegram: &TelegramServer, agents: usize, update: &str) -> String {
    let agents: String = (0..agents)
        .map(|index| {
            let (name, cwd) = (agent(index), unit::HOME);
            format!("[agents.{name}]\ncommand = [\"hermes\", \"agent\", \"echo\"]\ncwd = \"{cwd}\"\n")
        })
        .collect();
    format!(
        "[gateway]\nrestart_drain_timeout = \"1s\"\nprobation = \"300ms\"\n{agents}\
         [platforms.telegram]\ntoken = \"{}\"\napi_url = \"{}\"\nallow_from = [{USER}]\nallow_admin_from = [{ADMIN}]\n\
         gateway_restart_notification = false\n{update}",
        telegram.token(),
        telegram.url(),
    )
}

/// The unit's journal from `from_ms` to `to_ms`, in milliseconds since 1970.
fn journal(systemd: &systemd::Systemd, from_ms: u64, to_ms: u64) -> String {
    let (since, until) = (format!("@{}", from_ms / 1000), format!("@{}", to_ms / 1000 + 1));
    let wanted = ["--unit", unit::UNIT, "--since", &since, "--until", &until];
    systemd.journalctl(&[&wanted[..], &["--output", "short-precise", "--no-hostname"]].concat())
}

/// A time like 90s, 30m or 1h.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600)];
    let read = units.iter().find_map(|(unit, seconds)| Some(text.strip_suffix(*unit)?.parse::<u64>().ok()? * seconds));
    read.map(Duration::from_secs).ok_or_else(|| "a time is like 90s, 30m or 1h".to_owned())
}

/// The control socket of the unit.
fn socket() -> &'static Path {
    Path::new(unit::SOCKET)
}
