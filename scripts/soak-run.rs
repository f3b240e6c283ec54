//! The first form of a soak: plays a schedule against one unit, and judges every chat at the end.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hermes_gateway::control::proto::Status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bed::{ADMIN, Bed};
use crate::judge::{Kind, Verdict};
use crate::release::Publisher;
use crate::rows::{NEW, OLD};
use crate::schedule::{Act, Handoff, Schedule, Step, Way};
use crate::systemd::Systemd;
use crate::talk::{Talk, transcript};
use crate::telegram::TelegramServer;
use crate::telegram::state::now_ms;
use crate::unit::HOME;
use crate::watch::Watch;
use crate::{Args, agent};

/// The longest wait for a gateway that serves after a kill, or for the end of a handoff.
const SETTLE: Duration = Duration::from_secs(20);
/// The longest wait for the last answers. An agent that was killed often starts up to a minute later.
const ANSWERS: Duration = Duration::from_secs(75);
/// A run is given so long for each handoff and kill, and so long besides.
const EACH: Duration = Duration::from_secs(4);
const BESIDES: Duration = Duration::from_secs(60);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(10);
/// Said to whoever asks for a handoff while another is under way.
const NOT_NOW: &str = "⏳ Not now";
/// Mistakes of a kind that are shown.
const EXAMPLES: usize = 5;
/// What is shown of the journal before and after the first mistake.
const JOURNAL_BEFORE_MS: u64 = 1000;
const JOURNAL_AFTER_MS: u64 = 8000;

/// Plays the schedule of `seed`. Returns whether everything is as it should be.
pub async fn soak(bed: &Bed<'_>, systemd: &Systemd, args: &Args, seed: u64) -> Result<bool> {
    let telegram = TelegramServer::start().await;
    let publisher = publish(args)?;
    let update = format!(
        "[update]\nmanifest_url = \"file://{}\"\nverifying_keys = [\"{}\"]\n",
        publisher.path("manifest.json").display(),
        publisher.public_key()
    );
    Bed::write_config(&crate::config(&telegram, crate::AGENTS, &update))?;
    bed.start();
    let mut soak = Soak::new(bed, args, telegram);
    soak.status = soak.serving(|status| status.agents.iter().all(|agent| agent.state == "ready")).await;
    if soak.status.is_none() {
        bail!("the unit does not start: {}", bed.journal());
    }
    soak.choose_agents().await?;
    let watch = Watch::start(crate::socket());
    let start = Instant::now();
    soak.play(seed).await?;
    let verdict = soak.settle().await;
    let longest = watch.longest();
    drop(watch);
    soak.reap().await;
    Ok(soak.report(systemd, seed, &verdict, longest, start.elapsed()))
}

/// The two versions that are alternated between; the lower one runs already.
fn publish(args: &Args) -> Result<Publisher> {
    let publisher = Publisher::new();
    publisher.release(NEW, &fs::read(&args.binary).context("there is no binary")?);
    // The user `hermes` reads it.
    fs::set_permissions(publisher.dir.path(), fs::Permissions::from_mode(0o755))?;
    Ok(publisher)
}

struct Soak<'a> {
    bed: &'a Bed<'a>,
    args: &'a Args,
    telegram: TelegramServer,
    talk: Talk,
    /// The last status of a gateway that served.
    status: Option<Status>,
    /// When the gateway's process was killed, in milliseconds.
    kills: Vec<u64>,
    agent_kills: usize,
    /// Handoffs that the history has as committed: when they were asked for, and which.
    committed: BTreeSet<(i64, String)>,
    /// Handoffs that were refused for a good reason: another is under way, or the lower version counts as failed, because
    /// it was killed on probation.
    refused: usize,
    command_lines: Vec<Child>,
    /// What went wrong besides the answers, and when.
    violations: Vec<(u64, String)>,
    /// What was done, for people.
    acts: Vec<(u64, String)>,
}

impl<'a> Soak<'a> {
    fn new(bed: &'a Bed<'a>, args: &'a Args, telegram: TelegramServer) -> Self {
        Self {
            bed,
            args,
            telegram,
            talk: Talk::new(args.amount().chats),
            status: None,
            kills: Vec::new(),
            agent_kills: 0,
            committed: BTreeSet::new(),
            refused: 0,
            command_lines: Vec::new(),
            violations: Vec::new(),
            acts: Vec::new(),
        }
    }

    /// Gives each chat one of the agents.
    async fn choose_agents(&mut self) -> Result<()> {
        let chats = self.args.amount().chats;
        for chat in 0..chats {
            let name = agent(chat % crate::AGENTS);
            self.telegram.say(crate::USER, Talk::id(chat), &format!("/new {name}"));
        }
        let start = Instant::now();
        while (0..chats).any(|chat| self.telegram.texts(Talk::id(chat)).is_empty()) {
            if start.elapsed() > ANSWERS {
                bail!("not every chat has an agent: {}", self.bed.journal());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn play(&mut self, seed: u64) -> Result<()> {
        let amount = self.args.amount();
        let demanded = u32::try_from(amount.handoffs + amount.kills)?;
        let wanted = self.args.duration.unwrap_or_default();
        let deadline = wanted.max(EACH * demanded) + BESIDES;
        let start = Instant::now();
        for step in Schedule::new(seed, amount) {
            let enough = self.committed.len() >= amount.handoffs && self.kills.len() >= amount.kills;
            if enough && start.elapsed() >= wanted {
                break;
            }
            if start.elapsed() > deadline {
                self.violate(format!("not enough was done within {deadline:?}"));
                break;
            }
            if self.status.is_none() {
                self.violate("it does not serve any more".to_owned());
                break;
            }
            self.step(&step).await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        let committed = self.committed.len();
        let pid = self.status.as_ref().map_or(0, |status| status.pid);
        step.before.iter().for_each(|say| self.talk.say(&self.telegram, *say));
        // The pace of the schedule, not a wait for anything.
        tokio::time::sleep(Duration::from_millis(step.pause_ms)).await;
        self.acts.push((now_ms(), format!("{:?}", step.act)));
        match step.act {
            Act::Handoff { handoff, way } => {
                let told = self.telegram.texts(ADMIN).len();
                self.ask(handoff, way)?;
                step.during.iter().for_each(|say| self.talk.say(&self.telegram, *say));
                self.await_handoff(handoff, way, committed, told).await;
            }
            Act::Kill => {
                self.kill(pid)?;
                step.during.iter().for_each(|say| self.talk.say(&self.telegram, *say));
                self.await_other(pid).await;
            }
            Act::KillInHandoff { handoff, way, after_ms } => {
                self.ask(handoff, way)?;
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                self.kill(pid)?;
                step.during.iter().for_each(|say| self.talk.say(&self.telegram, *say));
                self.await_other(pid).await;
            }
            Act::KillAgent(number) => {
                self.kill_agent(number);
                step.during.iter().for_each(|say| self.talk.say(&self.telegram, *say));
                self.status = self.serving(|_| true).await;
            }
        }
        Ok(())
    }

    /// Asks for a handoff and does not wait for anything.
    fn ask(&mut self, handoff: Handoff, way: Way) -> Result<()> {
        let status = self.status.as_ref().context("nothing serves")?;
        let is_up = status.image.version == OLD;
        match (way, handoff) {
            (Way::Signal, _) => kill(Pid::from_raw(i32::try_from(status.pid)?), Signal::SIGUSR1)?,
            (Way::Chat, handoff) => {
                let up = format!("/update {NEW}");
                let command = match handoff {
                    Handoff::Restart => "/restart",
                    Handoff::Swap if is_up => &up,
                    Handoff::Swap => "/update revert",
                };
                self.telegram.say(ADMIN, ADMIN, command);
            }
            (Way::CommandLine, handoff) => {
                let arguments: &[&str] = match handoff {
                    Handoff::Restart => &["gateway", "restart"],
                    Handoff::Swap if is_up => &["self-update", "--yes", "--version", NEW],
                    Handoff::Swap => &["self-update", "--yes", "--revert"],
                };
                let mut command = Command::new(&self.args.binary);
                command.args(arguments).env("HERMES_HOME", HOME);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
                self.command_lines.push(command.spawn().context("cannot run the command line")?);
            }
        }
        Ok(())
    }

    fn kill(&mut self, pid: u32) -> Result<()> {
        // Before, so that nothing that it cut off seems to be earlier.
        self.kills.push(now_ms());
        // It may have failed by itself, which shows otherwise.
        let _gone = kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL);
        Ok(())
    }

    /// Kills an agent's process: the one with this number, or the next one that runs.
    fn kill_agent(&mut self, number: usize) {
        let Some(status) = &self.status else { return };
        let names = (0..crate::AGENTS).map(|next| agent((number + next) % crate::AGENTS));
        let pid = |name: String| status.agents.iter().find(|agent| agent.name == name && agent.state == "ready")?.pid;
        if let Some(pid) = names.into_iter().find_map(pid)
            && kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()
        {
            self.agent_kills += 1;
        }
    }

    async fn await_handoff(&mut self, handoff: Handoff, way: Way, committed: usize, told: usize) {
        let is_down = self.status.as_ref().is_some_and(|status| status.image.version == NEW);
        let start = Instant::now();
        loop {
            self.status = self.serving(|_| true).await;
            if self.status.is_none() || self.committed.len() > committed {
                return;
            }
            let is_refusal = |text: &String| text.contains('❌') || text.contains(NOT_NOW);
            let refused = self.telegram.texts(ADMIN).into_iter().skip(told).find(is_refusal);
            let own = self.command_lines.last_mut().filter(|_| way == Way::CommandLine);
            let refused_here = own.and_then(refusal);
            if let Some(why) = refused_here.or(refused) {
                // One that was asked for before a kill, and delivered after it, is under way.
                let is_overtaken = why.contains(NOT_NOW) || why.contains("is under way");
                if is_overtaken || (handoff == Handoff::Swap && is_down) {
                    self.refused += 1;
                } else {
                    self.violate(format!("a handoff was refused: {why}"));
                }
                return;
            }
            if start.elapsed() > SETTLE {
                return self.violate(format!("no handoff within {SETTLE:?}"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn await_other(&mut self, pid: u32) {
        self.status = self.serving(|status| status.pid != pid).await;
        // A kill takes the connections of the command line along.
        self.command_lines.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
    }

    /// Waits for a gateway that serves and is as wanted, and reads its history.
    async fn serving(&mut self, wanted: impl Fn(&Status) -> bool) -> Option<Status> {
        let start = Instant::now();
        while start.elapsed() < SETTLE {
            if let Some(status) = self.bed.status().await {
                let committed = status.handoffs.iter().filter(|record| record.outcome == "committed");
                self.committed.extend(committed.map(|record| (record.started_at.0, record.kind.clone())));
                if status.phase == "serving" && wanted(&status) {
                    return Some(status);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }

    /// Says a last thing in every chat and waits for what is still to come.
    async fn settle(&mut self) -> Verdict {
        self.talk.say_last(&self.telegram);
        let start = Instant::now();
        loop {
            let verdict = self.talk.judge(&self.telegram, &self.kills);
            let status = self.bed.status().await;
            let is_idle = status.is_some_and(|status| {
                status.queued_turns == 0 && status.agents.iter().all(|agent| agent.turns.is_empty())
            });
            if (verdict.of(Kind::Lost).count() == 0 && is_idle) || start.elapsed() > ANSWERS {
                return verdict;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The command lines that were waiting must have ended.
    async fn reap(&mut self) {
        let start = Instant::now();
        let mut left = std::mem::take(&mut self.command_lines);
        while !left.is_empty() && start.elapsed() < SETTLE {
            left.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            tokio::time::sleep(LOOK).await;
        }
        for mut child in left {
            self.violate("a command line waits for ever".to_owned());
            let _gone = child.kill().and_then(|()| child.wait());
        }
    }

    fn violate(&mut self, what: String) {
        self.violations.push((now_ms(), what));
    }

    fn report(&self, systemd: &Systemd, seed: u64, verdict: &Verdict, longest: Duration, took: Duration) -> bool {
        println!(
            "seed {seed}: {} handoffs, {} kills, {} agent kills in {:.0} s",
            self.committed.len(),
            self.kills.len(),
            self.agent_kills,
            took.as_secs_f64()
        );
        println!(
            "{} messages in {} chats: {} answered, {} told honestly, {} marked ({} of them duplicates); \
             longest silence {} ms",
            verdict.asked,
            self.args.chats,
            verdict.answered,
            verdict.told,
            verdict.marked,
            verdict.repeated,
            longest.as_millis()
        );
        if self.refused + verdict.needless > 0 {
            println!(
                "besides: {} handoffs refused, {} failures told of answered messages",
                self.refused, verdict.needless
            );
        }
        verdict.reasons.iter().for_each(|(reason, count)| println!("    {count} times told: {reason}"));
        for kind in Kind::ALL {
            let count = verdict.of(kind).count();
            if count > 0 {
                println!("{count} {}:", kind.name());
                verdict.of(kind).take(EXAMPLES).for_each(|fault| println!("    {}", fault.what));
            }
        }
        self.violations.iter().for_each(|(_, what)| println!("besides: {what}"));
        let faults = verdict.faults.iter().map(|fault| fault.at_ms);
        let first = faults.chain(self.violations.iter().map(|(at_ms, _)| *at_ms)).min();
        if let Some(at_ms) = first
            && self.args.journal
        {
            let (from, to) = (at_ms.saturating_sub(JOURNAL_BEFORE_MS), at_ms + JOURNAL_AFTER_MS);
            for (at_ms, act) in self.acts.iter().filter(|(at_ms, _)| (from..to).contains(at_ms)) {
                println!("    {at_ms} {act}");
            }
            if let Some(fault) = verdict.faults.iter().min_by_key(|fault| fault.at_ms) {
                print!("chat {} shows:\n{}", fault.chat + 1, transcript(&self.telegram, fault.chat));
            }
            println!("the first mistake is at {at_ms}:\n{}", crate::journal(systemd, from, to));
        }
        first.is_none()
    }
}

/// What a command line that has failed said.
fn refusal(child: &mut Child) -> Option<String> {
    let code = child.try_wait().ok()?.filter(|code| !code.success())?;
    let mut said = String::new();
    // It has ended, so this does not wait.
    drop(child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said)));
    Some(format!("{code}: {said}"))
}
