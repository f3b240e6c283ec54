//! What `scripts/bench messages` runs: messages at a fixed rate through the gateway and the echo agent and back.
//!
//! The load is an open loop: the k-th message is due at k / rate, whether or not those before it are answered, so a
//! gateway that stands still meets what came meanwhile. Each message is unique, and so is its answer.
//!
//! An answer has arrived with the first request that shows all of it, be it an edit of a message that showed its
//! beginning. What was lost or came twice is seen in the messages that the chats have in the end.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::gateway::Gateway;
use super::load::{FIRST_CHAT, Load, TOKEN};
use super::processes::{Cpu, Written, resident_kb, slope, sync_to};
use super::{Machine, Samples};

/// What the gateway is told that it may send in a second: the most that can be configured.
const LIMIT: u32 = 1000;
/// Of the time of the load, in per cent, what is left out at its beginning for the achieved rate.
const SETTLING: u32 = 25;

/// Measures messages.
#[derive(clap::Args)]
pub struct Args {
    /// The binary to measure.
    binary: PathBuf,
    /// Messages in a second.
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 500],
          value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMIT)))]
    rate: Vec<u32>,
    /// For how many seconds they come.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=86_400))]
    seconds: u32,
    /// In how many chats.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=9000))]
    chats: u32,
    /// Look for the highest rate that is kept up as well.
    #[arg(long)]
    ceiling: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    binary_bytes: u64,
    server: &'static str,
    /// A block of 4 KiB written and synced to where the gateways have their homes: what one commit takes at the least.
    sync: Latency,
    runs: Vec<Run>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ceiling: Option<Ceiling>,
}

/// The highest rate that is kept up, and how it was found.
#[derive(Serialize)]
struct Ceiling {
    per_second: u32,
    tries: Vec<Run>,
}

/// One gateway under one load.
#[derive(Serialize)]
struct Run {
    offered_per_second: u32,
    seconds: u32,
    chats: u32,
    /// Answers in a second, without the beginning of the load.
    achieved_per_second: f64,
    /// From being put into the server to the answer's arrival there.
    latency: Latency,
    lost: usize,
    doubled: usize,
    /// What is no answer to any message: notices, for example.
    other_texts: Vec<String>,
    /// From the last message to the last answer.
    drained_after_s: f64,
    /// The latest that a message was put after it was due.
    put_late_ms: f64,
    /// Calls of each method while messages came.
    calls: BTreeMap<String, u64>,
    resident: Resident,
    /// Seconds of CPU while messages came, of user and system together.
    cpu_s: CpuShares,
    written: Written,
}

#[derive(Serialize)]
struct Latency {
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Latency {
    fn of(samples: &Samples) -> Self {
        let [p50_ms, p90_ms, p99_ms, max_ms] =
            [50, 90, 99, 100].map(|percent| Duration::from_nanos(samples.percentile(percent)).as_secs_f64() * 1000.0);
        Self { p50_ms, p90_ms, p99_ms, max_ms }
    }
}

/// The gateway's resident memory.
#[derive(Serialize)]
struct Resident {
    start_kb: u64,
    /// When every chat had its first answer.
    warm_kb: u64,
    end_kb: u64,
    /// Of a line through a sample each second of the second half of the load: at first the database's cache fills.
    slope_kb_per_s: f64,
}

#[derive(Serialize)]
struct CpuShares {
    gateway: f64,
    gateway_threads: BTreeMap<String, f64>,
    /// In which the gateway's threads could have run, but others had the CPUs.
    gateway_waited: f64,
    echo_agent: f64,
    test_server: f64,
    load: f64,
}

/// Measures, prints, and fails if anything was lost or came twice.
pub fn run(args: &Args, runtime: &tokio::runtime::Runtime) -> Result<()> {
    let highest = args.rate.iter().max().copied().unwrap_or_default();
    let may = "a chat may get one message a second";
    ensure!(highest <= args.chats, "{may}: {highest} messages in a second need as many --chats");
    let one = |rate: u32| runtime.block_on(measure(args, rate));
    let runs = args.rate.iter().map(|rate| one(*rate)).collect::<Result<Vec<_>>>()?;
    let report = Report {
        machine: Machine::this()?,
        binary_bytes: std::fs::metadata(&args.binary).context("there is no binary")?.len(),
        server: "a thread of its own in the process that makes the load",
        sync: Latency::of(&sync_to(&std::env::temp_dir())?),
        runs,
        ceiling: if args.ceiling { Some(find_ceiling(LIMIT.min(args.chats), one)?) } else { None },
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", table(&report));
    }
    let tries = report.ceiling.iter().flat_map(|ceiling| &ceiling.tries);
    let broken = report.runs.iter().chain(tries).filter(|run| run.lost > 0 || run.doubled > 0).count();
    ensure!(broken == 0, "in {broken} runs answers were lost or came twice");
    Ok(())
}

/// Halves the range between a rate that is kept up and one that is not, down to 5 % of it.
fn find_ceiling(highest: u32, one: impl Fn(u32) -> Result<Run>) -> Result<Ceiling> {
    let (mut kept_up, mut too_much, mut next) = (0, highest + 1, highest);
    let mut tries = Vec::new();
    while too_much - kept_up > 1 + kept_up / 20 {
        let run = one(next)?;
        *(if run.is_kept_up() { &mut kept_up } else { &mut too_much }) = next;
        tries.push(run);
        next = u32::midpoint(kept_up, too_much);
    }
    Ok(Ceiling { per_second: kept_up, tries })
}

impl Run {
    fn is_kept_up(&self) -> bool {
        let enough = self.achieved_per_second >= 0.98 * f64::from(self.offered_per_second);
        enough && self.latency.p99_ms < 1000.0 && self.lost == 0 && self.doubled == 0
    }
}

async fn measure(args: &Args, rate: u32) -> Result<Run> {
    let mut load = Load::start(args.chats)?;
    let gateway = Gateway::start(&args.binary, &config(&load.url, args.chats)).await;
    let start_kb = resident_kb(gateway.pid())?;
    let agent = u32::try_from(gateway.agent_pid("default").await)?;
    // Each chat's first message makes its session.
    load.offer((rate / 2).max(1), args.chats, |_| Ok(()))?;
    load.drain();
    ensure!(load.missing() == 0, "{} of the first messages are not answered\n{}", load.missing(), gateway.log());

    let first = load.put();
    let warm_kb = resident_kb(gateway.pid())?;
    load.calls.clear();
    let cpu = Cpu::now(gateway.pid(), agent, load.server)?;
    let written = Written::by(gateway.pid())?;
    let mut resident = Vec::new();
    let begun = Instant::now();
    load.offer(rate, rate * args.seconds, |at| {
        resident.push((at.as_secs_f64(), resident_kb(gateway.pid())?));
        Ok(())
    })?;
    let offered = Instant::now();
    let cpu = Cpu::now(gateway.pid(), agent, load.server)?.since(&cpu);
    let written = Written::by(gateway.pid())?.since(&written);
    let calls = std::mem::take(&mut load.calls);
    load.drain();

    let settled = begun + (offered - begun) * SETTLING / 100;
    let last = load.last_answer().unwrap_or(offered);
    let (lost, doubled) = load.lost_and_doubled();
    Ok(Run {
        offered_per_second: rate,
        seconds: args.seconds,
        chats: args.chats,
        achieved_per_second: load.rate_between(settled, offered),
        latency: Latency::of(&load.latency(first)),
        lost,
        doubled,
        other_texts: std::mem::take(&mut load.other),
        drained_after_s: last.saturating_duration_since(offered).as_secs_f64(),
        put_late_ms: load.late.as_secs_f64() * 1000.0,
        calls,
        resident: Resident {
            start_kb,
            warm_kb,
            end_kb: resident_kb(gateway.pid())?,
            slope_kb_per_s: slope(&resident[resident.len() / 2..]),
        },
        cpu_s: CpuShares {
            gateway: cpu.gateway.values().sum(),
            gateway_threads: cpu.gateway,
            gateway_waited: cpu.waited,
            echo_agent: cpu.agent,
            test_server: cpu.server,
            load: cpu.load,
        },
        written,
    })
}

fn config(url: &str, chats: u32) -> String {
    let users: Vec<String> = (0..chats).map(|chat| format!("\"{}\"", FIRST_CHAT + i64::from(chat))).collect();
    format!(
        "[agents.default]\ncommand = [\"hermes\", \"agent\", \"echo\"]\n\
         [platforms.telegram]\ntoken = \"{TOKEN}\"\napi_url = \"{url}\"\nmessages_per_second = {LIMIT}\n\
         allow_from = [{}]\n",
        users.join(", ")
    )
}

fn table(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "{} cores, {}, Linux {}; binary {}; the test server is {}\n\
         4 KiB synced to the disk of the homes: p50 {:.2} ms, p99 {:.2} ms\n\n{:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>5} {:>7} {:>7}\n",
        machine.cores,
        machine.cpu,
        machine.kernel,
        super::megabytes(report.binary_bytes),
        report.server,
        report.sync.p50_ms,
        report.sync.p99_ms,
        "offered",
        "answers",
        "p50",
        "p90",
        "p99",
        "max",
        "lost",
        "doubled",
        "drained"
    );
    let tries = report.ceiling.iter().flat_map(|ceiling| &ceiling.tries);
    for run in report.runs.iter().chain(tries) {
        let Latency { p50_ms, p90_ms, p99_ms, max_ms } = &run.latency;
        let _infallible = writeln!(
            text,
            "{:>5}/s {:>6.1}/s {p50_ms:>5.1} ms {p90_ms:>5.1} ms {p99_ms:>5.1} ms {max_ms:>5.1} ms {:>5} {:>7} {:>5.2} s",
            run.offered_per_second, run.achieved_per_second, run.lost, run.doubled, run.drained_after_s
        );
    }
    for run in &report.runs {
        details(&mut text, run);
    }
    if let Some(ceiling) = &report.ceiling {
        let _infallible = writeln!(text, "\nkept up: {}/s", ceiling.per_second);
    }
    text
}

fn details(text: &mut String, run: &Run) {
    let Resident { start_kb, warm_kb, end_kb, slope_kb_per_s } = &run.resident;
    let cpu = &run.cpu_s;
    let share = |seconds: f64| format!("{seconds:.2} s ({:.0} %)", 100.0 * seconds / f64::from(run.seconds));
    let threads: Vec<String> =
        cpu.gateway_threads.iter().filter(|(_, s)| **s >= 0.01).map(|(name, s)| format!("{name} {s:.2}")).collect();
    let calls: Vec<String> = run.calls.iter().map(|(method, count)| format!("{method} {count}")).collect();
    let (written, bytes) = run.written.values();
    let _infallible = write!(
        text,
        "\n{}/s for {} s in {} chats, put at most {:.1} ms late\n  \
           gateway memory: {start_kb} kB at first, {warm_kb} kB warm, {end_kb} kB at last; {slope_kb_per_s:+.1} kB/s\n  \
           CPU: gateway {} [{}; waited for one {:.2}], echo agent {}, test server {}, load {}\n  \
           calls: {}; gateway: {written} writes, {} to storage\n",
        run.offered_per_second,
        run.seconds,
        run.chats,
        run.put_late_ms,
        share(cpu.gateway),
        threads.join(", "),
        cpu.gateway_waited,
        share(cpu.echo_agent),
        share(cpu.test_server),
        share(cpu.load),
        calls.join(", "),
        super::megabytes(bytes),
    );
    if let Some(other) = run.other_texts.first() {
        let _infallible = writeln!(text, "  {} texts that answer no message, as: {other}", run.other_texts.len());
    }
}
