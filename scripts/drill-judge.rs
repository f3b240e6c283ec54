//! What was seen of a row, held against what must come of it, and how that is told.

use std::time::Duration;

use hermes_gateway::control::proto::Status;

use crate::bed::agent_pid;
use crate::load::{Answers, Stream};
use crate::rows::{Ask, Expect, NEW, OLD, Process, Row, Serves};

/// systemd waits so long before it starts a unit again, and it may take a second more until it serves.
const BACK_AFTER_KILL: Duration = Duration::from_millis(1200);
/// The violation of that.
const TOO_LONG: &str = "it took too long until it served again";
/// What is shown of what a chat was told.
const TOLD_CHARS_MAX: usize = 120;
/// Between two messages in what was told.
pub const THEN: &str = " / ";

/// What was seen.
pub struct Seen {
    pub before: Option<Status>,
    pub after: Option<Status>,
    /// The longest time without an answer, if one came in the end.
    pub without_service: Option<Duration>,
    pub answers: Answers,
    pub told: String,
    /// Whether the unit had to be started by hand.
    pub was_dead: bool,
    /// What was wrong on the way.
    pub violations: Vec<String>,
}

impl Serves {
    /// Whether this version may serve in the end.
    pub fn allows(self, version: &str) -> bool {
        match self {
            Self::Old => version == OLD,
            Self::New => version == NEW,
            Self::Either => true,
        }
    }
}

impl Process {
    /// Whether this may have become of the process.
    pub fn allows(self, is_kept: bool) -> bool {
        match self {
            Self::Stays => is_kept,
            Self::Ends | Self::Stops => !is_kept,
            Self::Either => true,
        }
    }

    /// Whether nobody starts the unit again.
    pub fn may_stay_dead(self, restart: &str) -> bool {
        match self {
            Self::Stays => false,
            Self::Ends | Self::Either => restart == "no",
            Self::Stops => restart != "always",
        }
    }
}

impl Expect {
    /// Whether the chat was told.
    pub fn is_told(&self, told: &str) -> bool {
        self.told.is_empty() || self.told.iter().any(|part| told.contains(part))
    }
}

impl Seen {
    /// Adds what is not as the row says.
    pub fn judge(&mut self, row: &Row) {
        let mut wrong = Vec::new();
        let mut must = |is_so: bool, what: &str| {
            if !is_so {
                wrong.push(what.to_owned());
            }
        };
        let Answers { lost, examples, twice, stream } = &self.answers;
        must(*lost == 0, &format!("{lost} messages lost: {examples}"));
        must(*twice == 0, &format!("{twice} messages answered twice without a word about it"));
        must(*stream != Stream::Lost, "the streaming turn is lost without a word");
        must(row.expect.is_told(&self.told), "the chat was not told");
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => {
                must(after.phase == "serving", &format!("it stays in phase {}", after.phase));
                must(row.expect.serves.allows(&after.image.version), &format!("{} serves", after.image.version));
                if row.ask != Ask::Start {
                    self.judge_process(row, before, after, &mut must);
                }
            }
            _ => must(false, "it does not serve"),
        }
        self.violations.append(&mut wrong);
    }

    fn judge_process(&self, row: &Row, before: &Status, after: &Status, must: &mut impl FnMut(bool, &str)) {
        let expect = &row.expect;
        must(expect.process.allows(before.pid == after.pid), "the process is another one, or the same");
        if self.was_dead {
            return;
        }
        if expect.agent_kept {
            must(agent_pid(before) == agent_pid(after), "the agent is another one");
            must(self.answers.stream != Stream::Told, "the streaming turn was given up");
        }
        if expect.process == Process::Ends && row.ask != Ask::Kills {
            let in_time = self.without_service.is_some_and(|time| time <= BACK_AFTER_KILL);
            must(in_time, TOO_LONG);
        }
        if row.ask == Ask::Redelivered || row.ask == Ask::Agent {
            must(after.generation == before.generation + 1, &format!("{} handoffs", after.generation));
        }
    }

    /// Whether it was as it should be but for the time.
    pub fn was_only_slow(&self) -> bool {
        self.violations == [TOO_LONG]
    }

    fn pid(&self, row: &Row) -> &'static str {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) if row.ask != Ask::Start => {
                if before.pid == after.pid {
                    "kept"
                } else {
                    "new"
                }
            }
            _ => "–",
        }
    }

    fn outcome(&self, row: &Row) -> String {
        let (Some(before), Some(after)) = (&self.before, &self.after) else { return "dead".to_owned() };
        let version = &after.image.version;
        match (self.was_dead, before.pid == after.pid) {
            (true, _) => format!("dead until it was started by hand; {version} serves"),
            (false, _) if matches!(row.ask, Ask::Start | Ask::PowerCuts) => format!("{version} serves"),
            (false, false) => format!("started anew by systemd; {version} serves"),
            (false, true) if before.image.version != *version => "updated".to_owned(),
            (false, true) if self.told.contains("serves again") => format!("back to {version} in the same process"),
            (false, true) if before.generation == after.generation => format!("refused; {version} serves on"),
            (false, true) => format!("restarted; {version} serves"),
        }
    }

    fn agent(&self) -> &'static str {
        let pid = |status: &Option<Status>| status.as_ref().and_then(agent_pid);
        let is_kept = pid(&self.before).is_some() && pid(&self.before) == pid(&self.after);
        match (is_kept, &self.answers.stream) {
            (_, Stream::None) => "–",
            (_, Stream::Lost) => "turn LOST",
            (true, Stream::Whole) => "kept, whole",
            (true, Stream::Told) => "kept, turn given up and told",
            (false, Stream::Whole) => "new, whole",
            (false, Stream::Told) => "new, turn given up and told",
        }
    }

    /// One row of a Markdown table.
    pub fn markdown(&self, row: &Row, restart: &str) -> String {
        let last = self.told.rsplit(THEN).next().unwrap_or_default();
        let told: String = last.replace('|', "/").replace('\n', " ").chars().take(TOLD_CHARS_MAX).collect();
        let pid = self.pid(row);
        format!(
            "| {} | {restart} | {} | {} | {pid} | {} | {} | {told} |",
            row.name,
            self.outcome(row),
            self.time(),
            self.agent(),
            self.answers.lost
        )
    }

    /// One line for people, and one for each thing that is wrong.
    pub fn line(&self, row: &Row, took: Duration) -> String {
        let word = if self.violations.is_empty() { "ok  " } else { "FAIL" };
        let pid = self.pid(row);
        let mut line = format!(
            "{word} {:48} {}; {} ms without service, PID {pid}, agent {}, {} lost, {:.1} s",
            row.name,
            self.outcome(row),
            self.time(),
            self.agent(),
            self.answers.lost,
            took.as_secs_f64()
        );
        for violation in &self.violations {
            line.push_str(&format!("\n       ! {violation}"));
        }
        if !self.violations.is_empty() {
            line.push_str(&format!("\n       told: {}", self.told.replace('\n', " ")));
        }
        line
    }

    /// How long nobody was served, in milliseconds.
    pub fn time(&self) -> String {
        self.without_service.map_or_else(|| "–".to_owned(), |time| time.as_millis().to_string())
    }
}
