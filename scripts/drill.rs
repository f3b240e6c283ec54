//! What `scripts/drill` runs inside of a boot: row after row, and a table of what came of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use hermes_gateway::control::proto::Status;

#[path = "drill-bed.rs"]
mod bed;
#[path = "../tests/it/support/gateway.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod gateway;
#[path = "drill-judge.rs"]
mod judge;
#[path = "drill-load.rs"]
mod load;
#[path = "drill-power.rs"]
mod power;
#[path = "../tests/it/support/release.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod release;
#[path = "drill-releases.rs"]
mod releases;
#[path = "drill-rows.rs"]
mod rows;
#[path = "../tests/it/support/systemd.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod systemd;
#[path = "../tests/it/support/telegram/mod.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod telegram;
#[path = "../tests/it/support/unit.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod unit;
#[path = "drill-watch.rs"]
mod watch;

use bed::{ADMIN, Bed, agent_pid, update_by_name};
use judge::Seen;
use load::Load;
use rows::{Ask, Image, NEW, Row, Trouble};
use telegram::TelegramServer;
use telegram::faults::Fault;
use watch::Watch;

/// The second chat in which an admin asks.
const OTHER_CHAT: i64 = 5001;
/// The longest wait for what must come of a row.
const SETTLE: Duration = Duration::from_secs(10);
/// The same where a deadline comes first: that of the preflight, or of the trial of an agent and of its end.
const SETTLE_LATE: Duration = Duration::from_secs(25);
/// The longest wait for a last word once everything else is done.
const SETTLE_TOLD: Duration = Duration::from_secs(2);
/// The longest wait for the start of a unit.
const START: Duration = Duration::from_secs(20);
/// How often a row is played that is as it should be but for the time.
const TRIES: u32 = 5;
/// As long as something fails that fails for a moment.
const MOMENT: Duration = Duration::from_millis(100);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(25);

/// Drills one unit.
#[derive(Parser)]
struct Args {
    /// The binary, built with the feature `fault-points`, and the launcher beside it.
    #[arg(long)]
    binary: PathBuf,
    /// `Restart=` of the unit.
    #[arg(long)]
    restart: String,
    /// Only rows whose name contains this.
    #[arg(long)]
    row: Vec<String>,
    /// Only part I of N of the rows, from 0; each part has some of every kind.
    #[arg(long, value_name = "I/N", value_parser = part)]
    part: Option<(usize, usize)>,
    /// SIGKILLs in the row for that.
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// Print the end of the unit's journal after each row that is not as it should be.
    #[arg(long)]
    journal: bool,
    /// Print the names of the rows.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match drill(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("drill: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn part(text: &str) -> Result<(usize, usize)> {
    let (part, parts) = text.split_once('/').context("it is like 0/3")?;
    let (part, parts): (usize, usize) = (part.parse()?, parts.parse()?);
    ensure!(part < parts, "the parts of {parts} are 0 to {}", parts.saturating_sub(1));
    Ok((part, parts))
}

fn drill(args: &Args) -> Result<bool> {
    let wanted = |row: &Row| args.row.is_empty() || args.row.iter().any(|part| row.name.contains(part.as_str()));
    // The rows of a step come one after the other, each with another signal: no part has all of one signal.
    let is_in_part = |at: usize| args.part.is_none_or(|(part, parts)| (at + at / parts) % parts == part);
    let rows = rows::all().into_iter().filter(wanted).enumerate().filter(|(at, _)| is_in_part(*at));
    let rows: Vec<Row> = rows.map(|(_, row)| row).collect();
    ensure!(args.part.is_some() || !rows.is_empty(), "no row has such a name");
    if args.list {
        rows.iter().for_each(|row| println!("{}", row.name));
        return Ok(true);
    }
    let systemd = systemd::inside("drill", START).context("start it with scripts/drill")?;
    let releases = releases::Releases::publish(&args.binary, rows.iter().map(|row| row.image))?;
    let bed = Bed::install(&systemd, &args.binary, &args.restart, releases)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut failed = 0;
    for row in &rows {
        let start = Instant::now();
        let play = || runtime.block_on(Scene::run(&bed, row, args.kills)).with_context(|| row.name.clone());
        let mut seen = play()?;
        // Whatever else the machine does takes time, too: five times in a row that is no excuse.
        for _ in 1..TRIES {
            if !seen.was_only_slow() {
                break;
            }
            eprintln!("slow {:48} {} ms without service; once more", row.name, seen.time());
            seen = play()?;
        }
        println!("{}", seen.markdown(row, &bed.restart));
        eprintln!("{}", seen.line(row, start.elapsed()));
        if args.journal && !seen.violations.is_empty() {
            eprintln!("{}", bed.journal());
        }
        failed += usize::from(!seen.violations.is_empty());
    }
    eprintln!("{} rows, {failed} not as they should be", rows.len());
    Ok(failed == 0)
}

/// A row that is being played.
struct Scene<'a> {
    bed: &'a Bed<'a>,
    row: &'a Row,
    telegram: TelegramServer,
    load: Load,
    violations: Vec<String>,
    /// Whether the unit had to be started by hand.
    was_dead: bool,
}

impl<'a> Scene<'a> {
    async fn run(bed: &'a Bed<'a>, row: &'a Row, kills: u32) -> Result<Seen> {
        let telegram = TelegramServer::start().await;
        bed.reset(row, &telegram)?;
        let mut scene = Self { bed, row, telegram, load: Load::default(), violations: Vec::new(), was_dead: false };
        let mut seen = scene.play(kills).await?;
        // While it still can reach its platform.
        if bed.stop() {
            seen.violations.push("a stop leaves processes behind".to_owned());
        }
        Ok(seen)
    }

    async fn play(&mut self, kills: u32) -> Result<Seen> {
        let Self { bed, row, .. } = *self;
        let scene = self;
        if row.ask == Ask::Start {
            bed.plan(&row.faults)?;
        }
        bed.start();
        if row.ask == Ask::Start {
            return Ok(scene.started().await);
        }
        let before = scene.until(START, |status| agent_pid(status).is_some()).await;
        let Some(before) = before else {
            scene.violations.push("the unit does not start".to_owned());
            return Ok(scene.judge(None, None, None).await);
        };
        scene.load.begin(&scene.telegram, !matches!(row.ask, Ask::Kills | Ask::PowerCuts)).await;
        let watch = Watch::start(Path::new(unit::SOCKET));
        let after = match row.ask {
            Ask::Kills => scene.kills(kills).await?,
            Ask::PowerCuts => scene.power_cuts().await?,
            _ => {
                scene.act(&before).await?;
                scene.settle(&before).await?
            }
        };
        let longest = watch.longest();
        drop(watch);
        Ok(scene.judge(Some(before), after, Some(longest)).await)
    }

    /// A unit that had faults in its start.
    async fn started(&mut self) -> Seen {
        let start = Instant::now();
        let mut after = None;
        while after.is_none() && start.elapsed() < START {
            tokio::time::sleep(LOOK).await;
            // What serves before the fault is hit is about to end.
            if self.bed.planned().is_empty() {
                after = self.bed.status().await.filter(|status| agent_pid(status).is_some());
            }
            if after.is_none() {
                self.revive();
            }
        }
        let missed = self.bed.planned();
        if !missed.is_empty() {
            self.violations.push(format!("nothing came to the fault points {missed:?}"));
        }
        let took = after.is_some().then(|| start.elapsed());
        self.load.begin(&self.telegram, false).await;
        self.judge(after.clone(), after, took).await
    }

    /// Does what the row is about.
    async fn act(&mut self, before: &Status) -> Result<()> {
        let Self { bed, row, telegram, .. } = self;
        bed.plan(&row.faults)?;
        match row.trouble {
            Trouble::SilentAgent => bed.configure(row, telegram, true)?,
            Trouble::NoMaps | Trouble::NoMapsForAMoment => bed::forbid_maps(before.pid)?,
            Trouble::None | Trouble::ReadOnly | Trouble::Outage => {}
        }
        match row.ask {
            Ask::Update => drop(telegram.say(ADMIN, ADMIN, "/update")),
            Ask::Twice => {
                telegram.say(ADMIN, ADMIN, "/update");
                telegram.say(ADMIN, OTHER_CHAT, "/update");
            }
            Ask::Redelivered => drop(telegram.say(ADMIN, ADMIN, "/restart")),
            Ask::Agent => bed.let_agent_ask()?,
            Ask::Start | Ask::Kills | Ask::PowerCuts => {}
        }
        if row.trouble == Trouble::NoMapsForAMoment {
            tokio::time::sleep(MOMENT).await;
            // It may have died of it.
            let _gone = bed::allow_maps(before.pid);
        }
        if row.trouble == Trouble::Outage {
            let start = Instant::now();
            // The request comes through.
            while telegram.texts(ADMIN).is_empty() && start.elapsed() < SETTLE {
                tokio::time::sleep(LOOK).await;
            }
            telegram.fault("*", u32::MAX, Fault::Html { code: 502 });
        }
        if row.ask == Ask::Redelivered {
            let again = telegram.look(|state| state.updates.back().cloned());
            self.await_told(SETTLE).await;
            // The same message: only the update has another number, as a server gives it that lost the confirmation.
            if let Some(mut update) = again {
                if let Some(update) = update.as_object_mut() {
                    update.remove("update_id");
                }
                self.telegram.inject(update);
            }
        }
        Ok(())
    }

    /// Waits until it is as it should be, or for as long as that may take, with messages all the while.
    async fn settle(&mut self, before: &Status) -> Result<Option<Status>> {
        let start = Instant::now();
        let is_slow = self.row.image == Image::Hang || self.row.trouble == Trouble::SilentAgent;
        let deadline = if is_slow { SETTLE_LATE } else { SETTLE };
        let mut last = None;
        while start.elapsed() < deadline {
            tokio::time::sleep(LOOK).await;
            self.load.tick(&self.telegram);
            let status = self.bed.status().await;
            let done =
                self.bed.planned().is_empty() && status.as_ref().is_some_and(|status| self.is_settled(before, status));
            if status.is_none() {
                self.revive();
            }
            last = status;
            if done {
                break;
            }
        }
        let missed = self.bed.planned();
        if !missed.is_empty() {
            self.violations.push(format!("nothing came to the fault points {missed:?}"));
        }
        self.bed.plan(&[])?;
        self.telegram.change(|state| state.faults.clear());
        Ok(last)
    }

    fn is_settled(&self, before: &Status, now: &Status) -> bool {
        let expect = &self.row.expect;
        let version = expect.serves.allows(&now.image.version);
        let process = expect.process.allows(now.pid == before.pid);
        // What is told in an outage comes later.
        let told = self.row.trouble == Trouble::Outage || expect.is_told(&self.told());
        let asked = self.row.ask != Ask::Agent || self.bed.agent_was_told().is_some();
        version && process && told && asked && now.phase == "serving" && agent_pid(now).is_some()
    }

    /// Starts a unit that nothing starts any more, as an operator would.
    fn revive(&mut self) {
        if !matches!(self.bed.active().as_str(), "failed" | "inactive") {
            return;
        }
        if !self.row.expect.process.may_stay_dead(&self.bed.restart) && !self.was_dead {
            self.violations.push("nothing starts the unit again".to_owned());
        }
        self.was_dead = true;
        self.bed.start();
    }

    /// What the asking chats show.
    fn told(&self) -> String {
        let mut texts = self.telegram.texts(ADMIN);
        texts.extend(self.telegram.texts(OTHER_CHAT));
        texts.extend(self.bed.agent_was_told());
        texts.join(judge::THEN)
    }

    async fn await_told(&self, deadline: Duration) {
        let start = Instant::now();
        while !self.row.expect.is_told(&self.told()) && start.elapsed() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn until(&self, deadline: Duration, reached: impl Fn(&Status) -> bool) -> Option<Status> {
        let start = Instant::now();
        while start.elapsed() < deadline {
            match self.bed.status().await {
                Some(status) if reached(&status) => return Some(status),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
        None
    }

    /// Kills the main process at moments that nobody chose, under load and with restarts between.
    async fn kills(&mut self, count: u32) -> Result<Option<Status>> {
        let mut last = self.until(START, |status| agent_pid(status).is_some()).await;
        let mut seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
        for number in 0..count {
            let Some(pid) = last.as_ref().map(|status| status.pid) else {
                self.violations.push(format!("it does not serve after {number} kills"));
                break;
            };
            // Knuth's MMIX generator: any spread will do.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let wait_ms = u64::try_from((seed >> 40) % 400)?;
            self.load.tick(&self.telegram);
            if number % 4 == 0 {
                self.telegram.say(ADMIN, ADMIN, "/restart");
            }
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            self.load.tick(&self.telegram);
            let pid_to_kill = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
            let _gone = nix::sys::signal::kill(pid_to_kill, nix::sys::signal::Signal::SIGKILL);
            let start = Instant::now();
            last = None;
            while last.is_none() && start.elapsed() < SETTLE {
                tokio::time::sleep(LOOK).await;
                last = self.bed.status().await.filter(|status| status.pid != pid);
                if last.is_none() {
                    self.revive();
                }
            }
        }
        Ok(self.until(SETTLE, |status| status.phase == "serving" && agent_pid(status).is_some()).await)
    }

    /// Starts the unit with every disk that a power cut may leave.
    async fn power_cuts(&mut self) -> Result<Option<Status>> {
        let committed = |status: &Status| status.image.version == NEW && status.phase == "serving";
        self.telegram.say(ADMIN, ADMIN, "/update");
        if self.until(SETTLE, committed).await.is_none() {
            self.violations.push("the update is not committed".to_owned());
        }
        let mut last = None;
        for disk in power::cuts()? {
            self.bed.stop();
            disk.put(&self.bed.versions())?;
            self.bed.start();
            self.load.tick(&self.telegram);
            last = self.until(START, |status| agent_pid(status).is_some()).await;
            if last.is_none() {
                self.violations.push(format!("it does not start after a power cut in the switch {}", disk.when));
            }
        }
        Ok(last)
    }

    /// Waits for what is still to come and holds it against what must be.
    async fn judge(&mut self, before: Option<Status>, after: Option<Status>, longest: Option<Duration>) -> Seen {
        let answers = self.load.finish(&self.telegram).await;
        self.await_told(SETTLE_TOLD).await;
        let mut seen = Seen {
            before,
            after,
            without_service: longest,
            answers,
            told: self.told(),
            was_dead: self.was_dead,
            violations: std::mem::take(&mut self.violations),
        };
        seen.judge(self.row);
        if seen.violations.is_empty() && self.row.expect.again {
            self.telegram.say(ADMIN, ADMIN, &update_by_name());
            let again = self.until(SETTLE, |status| status.image.version == NEW && status.phase == "serving").await;
            if again.is_none() {
                seen.violations.push(format!("the next update does not work: {}", self.told()));
            }
        }
        seen
    }
}
