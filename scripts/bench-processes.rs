//! What the kernel tells of processes and threads in `/proc` (proc(5)), and how fast the disk is.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::Samples;

/// Seconds of CPU, of user and system together, that each side has used.
pub struct Cpu {
    /// Each thread of the gateway by its name; those of the same name together.
    pub gateway: BTreeMap<String, f64>,
    /// Seconds in which the gateway's threads could have run, but others had the CPUs.
    pub waited: f64,
    pub agent: f64,
    pub server: f64,
    /// The main thread of this process.
    pub load: f64,
}

impl Cpu {
    /// Looks at the processes `gateway` and `agent`, the thread `server` of this process, and its main thread.
    pub fn now(gateway: u32, agent: u32, server: u32) -> Result<Self> {
        let mut threads = BTreeMap::new();
        let mut waited = 0.0;
        for thread in std::fs::read_dir(format!("/proc/{gateway}/task"))? {
            // One that has ended meanwhile is left out.
            let path = thread?.path();
            if let Ok((name, seconds)) = used(&path) {
                *threads.entry(name).or_default() += seconds;
                waited += kept_waiting(&path)?;
            }
        }
        let own = std::process::id();
        let seconds = |path: String| used(Path::new(&path)).map(|(_, seconds)| seconds);
        Ok(Self {
            gateway: threads,
            waited,
            agent: seconds(format!("/proc/{agent}"))?,
            server: seconds(format!("/proc/{own}/task/{server}"))?,
            load: seconds(format!("/proc/{own}/task/{own}"))?,
        })
    }

    /// What was used since.
    pub fn since(self, earlier: &Self) -> Self {
        let thread = |(name, seconds): (String, f64)| {
            let before = earlier.gateway.get(&name).copied().unwrap_or_default();
            (name, (seconds - before).max(0.0))
        };
        Self {
            gateway: self.gateway.into_iter().map(thread).collect(),
            waited: (self.waited - earlier.waited).max(0.0),
            agent: self.agent - earlier.agent,
            server: self.server - earlier.server,
            load: self.load - earlier.load,
        }
    }
}

/// The name of a process or thread, and the seconds of CPU it has used.
fn used(directory: &Path) -> Result<(String, f64)> {
    let stat = std::fs::read_to_string(directory.join("stat"))?;
    // The name is in parentheses and may have some itself.
    let (head, tail) = stat.rsplit_once(')').context("no name")?;
    let name = head.split_once('(').context("no name")?.1;
    let ticks = tail.split_whitespace().skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok((name.to_owned(), f64::from(ticks) / f64::from(u32::try_from(per_second)?)))
}

/// Seconds for which a thread was ready to run and did not.
fn kept_waiting(directory: &Path) -> Result<f64> {
    let stat = std::fs::read_to_string(directory.join("schedstat"))?;
    let nanos = stat.split_whitespace().nth(1).context("no waiting time")?.parse()?;
    Ok(Duration::from_nanos(nanos).as_secs_f64())
}

/// What a process has written.
#[derive(Serialize)]
pub struct Written {
    /// Calls of write and its kin, to anything.
    calls: u64,
    /// Bytes that went to storage.
    bytes: u64,
}

impl Written {
    pub fn by(pid: u32) -> Result<Self> {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
        let value = |name: &str| -> Result<u64> {
            let line = io.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
            Ok(line.trim().parse()?)
        };
        Ok(Self { calls: value("syscw:")?, bytes: value("write_bytes:")? })
    }

    /// What was written since.
    pub fn since(&self, earlier: &Self) -> Self {
        Self { calls: self.calls - earlier.calls, bytes: self.bytes - earlier.bytes }
    }

    /// Calls and bytes.
    pub fn values(&self) -> (u64, u64) {
        (self.calls, self.bytes)
    }
}

/// How long it takes to write 4 KiB and sync them to the disk of `directory`.
pub fn sync_to(directory: &Path) -> Result<Samples> {
    let mut file = tempfile::tempfile_in(directory).context("cannot write beside the homes")?;
    let mut samples = Samples::default();
    for _ in 0..200 {
        let begun = Instant::now();
        file.write_all(&[b'x'; 4096])?;
        file.sync_data()?;
        samples.push(begun.elapsed());
    }
    Ok(samples)
}

/// The resident memory of a process, in KiB.
pub fn resident_kb(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// How much the line through these points rises (least squares); 0 for less than two.
pub fn slope(points: &[(f64, u64)]) -> f64 {
    let points = || points.iter().map(|(x, y)| (*x, f64::from(u32::try_from(*y).unwrap_or(u32::MAX))));
    let count = points().map(|_| 1.0).sum::<f64>();
    let (sum_x, sum_y) = points().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (above, below) = points()
        .fold((0.0, 0.0), |(above, below), (x, y)| (above + (x - mean_x) * (y - mean_y), below + (x - mean_x).powi(2)));
    if below > 0.0 { above / below } else { 0.0 }
}
