//! What `scripts/bench` runs: handoffs beside the bare execve that each of them contains, and messages.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use hermes_gateway::chat::{OutboundContent, ReplyStep};
use hermes_gateway::control::client::{Client, ClientError};
use hermes_gateway::control::proto::{self, HandoffKind, HandoffParams, HandoffReport};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

#[path = "../tests/it/support/gateway.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod gateway;

#[path = "bench-load.rs"]
mod load;
#[path = "bench-messages.rs"]
mod messages;
#[path = "bench-processes.rs"]
mod processes;
#[path = "../tests/it/support/telegram/mod.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod telegram;

use gateway::{Chat, Gateway, SOON, stream_prompt};
use processes::resident_kb;

/// Handoffs before the first that counts: caches fill, and allocations reach their size.
const WARM_UP: usize = 5;
/// From one handoff to the next, so that each finds the gateway at rest.
const PAUSE: Duration = Duration::from_millis(20);
/// How often the other client asks.
const PROBE_PERIOD: Duration = Duration::from_millis(1);

/// Measures a gateway.
#[derive(Parser)]
enum What {
    /// Measures handoffs.
    Handoff(Args),
    /// Measures messages.
    Messages(messages::Args),
}

#[derive(clap::Args)]
struct Args {
    /// The binary to measure.
    binary: PathBuf,
    /// How many agents the gateways have.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100])]
    agents: Vec<u16>,
    /// How many samples of each are taken.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Everything that was measured.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    binary_bytes: u64,
    bare_execve: Samples,
    handoffs: Vec<Handoffs>,
}

#[derive(Serialize)]
struct Machine {
    kernel: String,
    cores: usize,
    cpu: String,
}

/// The handoffs of one gateway.
#[derive(Serialize)]
struct Handoffs {
    agents: u16,
    /// Resident memory of the gateway before the first and after the last.
    resident_kb: [u64; 2],
    /// From the request to READY=1.
    ready: Samples,
    /// From the last moment the old image served to READY=1.
    blackout: Samples,
    phases: BTreeMap<String, Samples>,
    /// From the request to its answer, for the client that asks.
    answered: Samples,
    /// The longest wait of another client around each handoff.
    longest_wait: Samples,
}

/// Measured times in nanoseconds, in the order in which they were taken.
#[derive(Default)]
struct Samples(Vec<u64>);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match What::parse() {
        What::Handoff(args) => measure_handoffs(&args, &runtime),
        What::Messages(args) => messages::run(&args, &runtime),
    }
}

fn measure_handoffs(args: &Args, runtime: &tokio::runtime::Runtime) -> Result<()> {
    let report = Report {
        machine: Machine::this()?,
        binary_bytes: std::fs::metadata(&args.binary).context("there is no binary")?.len(),
        bare_execve: bare_execve(&args.binary, args.count)?,
        handoffs: args
            .agents
            .iter()
            .map(|agents| runtime.block_on(handoffs(&args.binary, *agents, usize::from(args.count))))
            .collect::<Result<_>>()?,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", table(&report, args.count));
    }
    Ok(())
}

/// How long a process takes at the least to become `binary`.
fn bare_execve(binary: &Path, count: u16) -> Result<Samples> {
    #[derive(Deserialize)]
    struct Probe {
        exec_ns: Vec<u64>,
    }
    let output = Command::new(binary).args(["exec-probe", "--count", &count.to_string()]).output()?;
    ensure!(output.status.success(), "the probe failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Samples(serde_json::from_slice::<Probe>(&output.stdout)?.exec_ns))
}

async fn handoffs(binary: &Path, agents: u16, count: usize) -> Result<Handoffs> {
    let mut config = String::new();
    for index in 0..agents {
        let name = if index == 0 { "default".to_owned() } else { format!("a{index}") };
        writeln!(config, "[agents.{name}]\ncommand = [\"hermes\", \"agent\", \"echo\"]")?;
    }
    let gateway = Gateway::start(binary, &config).await;
    let reader = read_stream(gateway.chat("bench").await).await;
    let prober = Prober::start(gateway.client().await);
    let mut client = gateway.client().await;
    let mut found = Handoffs {
        agents,
        resident_kb: [resident_kb(gateway.pid())?; 2],
        ready: Samples::default(),
        blackout: Samples::default(),
        phases: BTreeMap::new(),
        answered: Samples::default(),
        longest_wait: Samples::default(),
    };
    let mut spans = Vec::new();
    for round in 0..WARM_UP + count {
        tokio::time::sleep(PAUSE).await;
        let asked = Instant::now();
        let params = HandoffParams { kind: HandoffKind::Restart, force: false, reason: None };
        let report: HandoffReport = client.request(proto::HANDOFF, &params, SOON, |_, _| {}).await?;
        let answered = Instant::now();
        ensure!(report.turns_carried == 1 && report.agents_carried == usize::from(agents), "{report:?}");
        if round == WARM_UP {
            found.resident_kb[0] = resident_kb(gateway.pid())?;
        }
        if round >= WARM_UP {
            found.add(&report, answered - asked);
            spans.push((asked, answered));
        }
    }
    tokio::time::sleep(PAUSE).await;
    found.resident_kb[1] = resident_kb(gateway.pid())?;
    let waits = prober.finish().await?;
    for (asked, answered) in spans {
        let around = waits.iter().filter(|(from, to)| *from <= answered && *to >= asked);
        found.longest_wait.push(around.map(|(from, to)| *to - *from).max().context("the other client did not ask")?);
    }
    reader.abort();
    Ok(found)
}

impl Handoffs {
    fn add(&mut self, report: &HandoffReport, answered: Duration) {
        self.ready.push(Duration::from_micros(report.duration_us));
        self.blackout.push(Duration::from_micros(report.blackout_us));
        for (phase, us) in &report.phases_us {
            self.phases.entry(phase.clone()).or_default().push(Duration::from_micros(*us));
        }
        self.answered.push(answered);
    }
}

/// Opens a turn that streams until the gateway ends, and reads it beside everything else.
async fn read_stream(mut chat: Chat) -> JoinHandle<()> {
    chat.say(&stream_prompt(usize::from(u16::MAX), 64, 10)).await;
    let mut begun = false;
    while !begun {
        begun = matches!(chat.next().await, OutboundContent::Reply { step: ReplyStep::Delta(_), .. });
    }
    tokio::spawn(async move {
        loop {
            chat.next().await;
        }
    })
}

/// A client that asks for something cheap every so often, and remembers when it asked and when it was answered.
struct Prober {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Vec<(Instant, Instant)>>>,
}

impl Prober {
    fn start(mut client: Client) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut waits = Vec::new();
            let mut ticks = tokio::time::interval(PROBE_PERIOD);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            while stopped.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty) {
                ticks.tick().await;
                let asked = Instant::now();
                // A method that is not there is refused by the gateway's own loop, without any work.
                match client.request::<Value>("no-such-method", &(), SOON, |_, _| {}).await {
                    Err(ClientError::Rpc(_)) => waits.push((asked, Instant::now())),
                    other => anyhow::bail!("not the answer expected: {other:?}"),
                }
            }
            Ok(waits)
        });
        Self { stop, task }
    }

    async fn finish(self) -> Result<Vec<(Instant, Instant)>> {
        drop(self.stop);
        self.task.await?
    }
}

impl Machine {
    fn this() -> Result<Self> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
        Ok(Self {
            kernel: release.trim().to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            cpu: model.trim_start_matches(['\t', ' ', ':']).to_owned(),
        })
    }
}

impl Samples {
    fn push(&mut self, time: Duration) {
        self.0.push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The smallest sample that at least `percent` of all do not exceed (nearest rank).
    fn percentile(&self, percent: usize) -> u64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// Median, p99, smallest and largest.
    fn summary(&self) -> [u64; 4] {
        [self.percentile(50), self.percentile(99), self.percentile(0), self.percentile(100)]
    }
}

impl Serialize for Samples {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let [median_ns, p99_ns, min_ns, max_ns] = self.summary();
        let summary = serde_json::json!({
            "count": self.0.len(), "median_ns": median_ns, "p99_ns": p99_ns, "min_ns": min_ns, "max_ns": max_ns,
            "samples_ns": self.0,
        });
        summary.serialize(serializer)
    }
}

fn table(report: &Report, count: u16) -> String {
    let machine = &report.machine;
    let bare = report.bare_execve.percentile(50);
    let mut text = format!(
        "{count} samples of each; {} cores, {}, Linux {}; binary {}\n\n",
        machine.cores,
        machine.cpu,
        machine.kernel,
        megabytes(report.binary_bytes)
    );
    let mut line = |what: &str, samples: &Samples| {
        let [median, p99, min, max] = samples.summary().map(millis);
        let ratio = times(samples.percentile(50), bare);
        let _infallible = writeln!(text, "{what:34} {median:>9} {p99:>9} {min:>9} {max:>9} {ratio:>8}");
    };
    line("bare execve", &report.bare_execve);
    for handoffs in &report.handoffs {
        let agents = handoffs.agents;
        let of = |what: &str| format!("{agents} agents: {what}");
        line(&of("request to READY=1"), &handoffs.ready);
        for phase in ["preflight", "drain", "quiesce", "seal", "exec", "adopt"] {
            if let Some(samples) = handoffs.phases.get(phase) {
                line(&format!("    {phase}"), samples);
            }
        }
        line(&of("blackout"), &handoffs.blackout);
        line(&of("request to answer"), &handoffs.answered);
        line(&of("longest wait of another"), &handoffs.longest_wait);
    }
    let heading = format!("{:34} {:>9} {:>9} {:>9} {:>9} {:>8}\n", "ms", "median", "p99", "min", "max", "× bare");
    let at = text.find("\n\n").map_or(0, |end| end + 2);
    text.insert_str(at, &heading);
    for Handoffs { agents, resident_kb: [first, last], .. } in &report.handoffs {
        let (first, last) = (megabytes(first * 1024), megabytes(last * 1024));
        let _infallible = writeln!(text, "resident memory with {agents} agents: {first} at first, {last} at last");
    }
    text
}

fn millis(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000, ns / 1000 % 1000)
}

/// `a / b` with one digit after the point.
fn times(a: u64, b: u64) -> String {
    let tenths = a.saturating_mul(10) / b.max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}
