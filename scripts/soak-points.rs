//! The second form of a soak: one kill at each step of a message's path, and what the chat shows then.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hermes_gateway::control::proto::Status;
use hermes_gateway::fault::Point;

use crate::Args;
use crate::bed::{Bed, USER, agent_pid};
use crate::gateway::{expected_stream, stream_prompt};
use crate::judge::{MARKER, brief};
use crate::systemd::Systemd;
use crate::telegram::TelegramServer;
use crate::telegram::state::now_ms;
use crate::watch::Watch;

/// Where the message is said, and another one.
const CHAT: i64 = 7000;
const OTHER_CHAT: i64 = 7001;
const TEXT: &str = "How are you?";
/// One whose answer takes longer than a kill, and that answer.
const SLOW: (&str, &str) = ("sleep 500ms", "slept");
/// Said when all is over: what is before it in the chat is shown before it.
const LAST: &str = "Still there?";
/// The stream: so many pieces of so many bytes, one every so many milliseconds.
const CHUNKS: usize = 40;
const CHUNK_BYTES: usize = 50;
const DELAY_MS: u64 = 30;
/// The longest wait for anything.
const SETTLE: Duration = Duration::from_secs(20);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(10);
/// The time without service that the unit's RestartSec= and a start account for, on a machine that is busy.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// What the chat shows for one message.
struct Seen {
    point: Point,
    /// The texts.
    shown: Vec<String>,
    /// Whole answers without the marker, and with it.
    plain: usize,
    marked: usize,
    silence: Duration,
    violations: Vec<String>,
}

/// Prints the table. Returns whether it is as it should be.
pub async fn table(bed: &Bed<'_>, systemd: &Systemd, args: &Args) -> Result<bool> {
    if args.markdown {
        println!("| SIGKILL when | the chat shows | answers | marked as a possible duplicate | without service, ms |");
        println!("|---|---|---|---|---|");
    }
    let mut is_right = true;
    for point in Point::ALL.iter().filter(|point| point.phase() == "serving") {
        let start_ms = now_ms();
        let seen = Scene::play(bed, *point).await?;
        seen.print(args.markdown);
        if !seen.violations.is_empty() {
            is_right = false;
            if args.journal {
                eprintln!("{}", crate::journal(systemd, start_ms, now_ms()));
            }
        }
    }
    Ok(is_right)
}

struct Scene<'a> {
    bed: &'a Bed<'a>,
    point: Point,
    telegram: TelegramServer,
    answer: String,
    violations: Vec<String>,
}

impl<'a> Scene<'a> {
    async fn play(bed: &'a Bed<'a>, point: Point) -> Result<Seen> {
        let telegram = TelegramServer::start().await;
        bed.stop();
        Bed::clear()?;
        Bed::write_config(&crate::config(&telegram, 1, ""))?;
        bed.start();
        let answer = match point {
            Point::Streaming => expected_stream(CHUNKS, CHUNK_BYTES),
            Point::Confirmed => SLOW.1.to_owned(),
            _ => TEXT.to_owned(),
        };
        let mut scene = Self { bed, point, telegram, answer, violations: Vec::new() };
        let Some(before) = scene.until(|_, status| agent_pid(status).is_some()).await else {
            bail!("the unit does not start: {}", bed.journal());
        };
        let watch = Watch::start(crate::socket());
        scene.say().await?;
        let hit = scene.until(|scene, now| scene.bed.planned().is_empty() && now.pid != before.pid).await;
        if hit.is_none() {
            let missed = scene.bed.planned();
            scene.violations.push(format!("no kill and another process within {SETTLE:?}; still planned: {missed:?}"));
        }
        let silence = watch.longest();
        drop(watch);
        let shown = scene.shown().await;
        if bed.stop() {
            scene.violations.push("a stop leaves processes behind".to_owned());
        }
        let mut seen = Seen { point, plain: 0, marked: 0, silence, violations: scene.violations, shown };
        seen.judge(&scene.answer);
        Ok(seen)
    }

    /// Says the message, with the kill planned so that it is hit while that is on its way.
    async fn say(&mut self) -> Result<()> {
        let plan = [format!("{} kill", self.point.name())];
        match self.point {
            Point::Streaming => {
                self.telegram.say(USER, CHAT, &stream_prompt(CHUNKS, CHUNK_BYTES, DELAY_MS));
                let streams =
                    |now: &Status| now.agents.iter().flat_map(|agent| &agent.turns).any(|turn| turn.answer_bytes > 0);
                self.until(|_, now| streams(now)).await;
                self.bed.plan(&plan)?;
            }
            Point::Confirmed => {
                self.bed.plan(&plan)?;
                // Not answered yet when the other message comes.
                self.telegram.say(USER, CHAT, SLOW.0);
                let confirmed = |scene: &Self| scene.telegram.look(|state| state.updates.is_empty());
                self.until(|scene, _| confirmed(scene)).await;
                // Only when something comes is the platform's answer read.
                self.telegram.say(USER, OTHER_CHAT, TEXT);
            }
            _ => {
                self.bed.plan(&plan)?;
                self.telegram.say(USER, CHAT, TEXT);
            }
        }
        Ok(())
    }

    /// What the chat shows of the message, once nothing more comes of it.
    async fn shown(&mut self) -> Vec<String> {
        let whole = |scene: &Self, chat, answer: &str| {
            let texts = scene.telegram.texts(chat);
            texts.iter().any(|text| text.strip_prefix(MARKER).unwrap_or(text) == answer)
        };
        let told = |scene: &Self| scene.telegram.texts(CHAT).iter().any(|text| text.contains(['⚠', '❌']));
        self.until(|scene, _| whole(scene, CHAT, &scene.answer) || told(scene)).await;
        self.telegram.say(USER, CHAT, LAST);
        if self.until(|scene, _| whole(scene, CHAT, LAST)).await.is_none() {
            self.violations.push("it does not answer afterwards".to_owned());
        }
        let other = self.point == Point::Confirmed;
        if other && self.until(|scene, _| whole(scene, OTHER_CHAT, TEXT)).await.is_none() {
            self.violations.push("the message in the other chat is lost".to_owned());
        }
        let mut shown = self.telegram.texts(CHAT);
        if shown.pop().is_none_or(|last| last != LAST) {
            self.violations.push("something comes after the last answer".to_owned());
        }
        shown
    }

    async fn until(&self, reached: impl Fn(&Self, &Status) -> bool) -> Option<Status> {
        let start = Instant::now();
        while start.elapsed() < SETTLE {
            match self.bed.status().await {
                Some(status) if reached(self, &status) => return Some(status),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
        None
    }
}

impl Seen {
    fn judge(&mut self, answer: &str) {
        let count = |shown: &dyn Fn(&str) -> bool| self.shown.iter().filter(|text| shown(text)).count();
        self.plain = count(&|text| text == answer);
        self.marked = count(&|text| text.strip_prefix(MARKER) == Some(answer));
        let others = self.shown.len() - self.plain - self.marked;
        let is_expected = match (self.point, self.plain, self.marked) {
            // Nobody knows whether it arrived.
            (Point::Sending, plain, marked) => plain + marked == 1,
            // It did, and nobody knows.
            (Point::Acknowledged, plain, marked) => (plain, marked) == (1, 1),
            (_, plain, marked) => (plain, marked) == (1, 0),
        };
        if !is_expected {
            let (plain, marked) = (self.plain, self.marked);
            self.violations.push(format!("{plain} answers without the marker and {marked} with it"));
        }
        if others > 0 {
            self.violations.push(format!("{others} texts that are no answer"));
        }
        if self.silence > SILENCE_MAX {
            self.violations.push(format!("{} ms without service", self.silence.as_millis()));
        }
    }

    fn print(&self, markdown: bool) {
        let shown: Vec<String> =
            self.shown.iter().map(|text| format!("“{}”", brief(text).replace('\n', " ⏎ "))).collect();
        let (shown, answers, ms) = (shown.join(", then "), self.plain + self.marked, self.silence.as_millis());
        let point = self.point.name();
        if markdown {
            println!("| {point} | {shown} | {answers} | {} | {ms} |", self.marked);
        }
        let verdict = if self.violations.is_empty() { "ok  " } else { "FAIL" };
        eprintln!("{verdict} {point:13} {answers} answers, {} marked, {ms} ms without service: {shown}", self.marked);
        self.violations.iter().for_each(|what| eprintln!("     {what}"));
    }
}
