//! Holds what a chat shows against what was asked in it: pure functions, so that tests can plant every kind of mistake.
//!
//! A chat shows texts in their order. Each is an answer or a part of one, possibly with the marker of a repeated
//! delivery before it and with a failure behind it, or it is a notice. An answer may stand in several messages, so what
//! is looked for is which part of which answer a text is.

use std::collections::BTreeMap;

/// Goes before an answer that may be in the chat already.
pub const MARKER: &str = "♻️ Recovered reply — the gateway restarted during delivery, so this may be a duplicate:\n";
/// Begins a failure, alone or behind what was said of the answer before.
const FAILURE: &str = "❌ ";
/// Notices which are not about a message that is lost.
const HARMLESS: [&str; 4] =
    ["Your message waits.", "it starts with an empty one.", "New session with agent", "The agent could not load"];
/// A request that was under way when the process was killed reached the server no longer than this before the kill...
const IN_FLIGHT_MS: u64 = 500;
/// ... or so much after it: what is in a socket's buffer is still read.
const BUFFERED_MS: u64 = 200;

/// A message of a user.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What was said.
    pub text: String,
    /// What must be answered.
    pub answer: String,
    /// When, in milliseconds.
    pub at_ms: u64,
}

/// A message of the gateway as it stands in the chat at last.
#[derive(Clone, Debug)]
pub struct Shown {
    pub text: String,
    /// When it was sent.
    pub at_ms: u64,
}

/// What was found in one chat, or in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub asked: usize,
    /// Whole.
    pub answered: usize,
    /// Not answered, and the chat says so.
    pub told: usize,
    /// Texts with the marker, and those of them which repeat what was there already.
    pub marked: usize,
    pub repeated: usize,
    /// Failures told about messages that are answered.
    pub needless: usize,
    /// The failures that were told, without their numbers, and how often each.
    pub reasons: BTreeMap<String, usize>,
    /// Everything that must not be.
    pub faults: Vec<Fault>,
}

/// A kind of mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Neither answered nor told about.
    Lost,
    /// Shown again without the marker.
    Doubled,
    /// Answered after a later message.
    Disordered,
    /// The marker where no process was killed with this in flight.
    Unfounded,
    /// A text that is nobody's answer.
    Strange,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Lost, Self::Doubled, Self::Disordered, Self::Unfounded, Self::Strange];

    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled without a word",
            Self::Disordered => "out of order",
            Self::Unfounded => "marked without a reason",
            Self::Strange => "nobody's answer",
        }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    /// The number of the chat, if that was said.
    pub chat: usize,
    /// For people: what was asked and what came.
    pub what: String,
    /// When it was asked or first shown.
    pub at_ms: u64,
}

impl Verdict {
    /// Takes another chat's in.
    pub fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.told += other.told;
        self.marked += other.marked;
        self.repeated += other.repeated;
        self.needless += other.needless;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        self.faults.extend(other.faults);
    }

    /// The mistakes of one kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Fault> {
        self.faults.iter().filter(move |fault| fault.kind == kind)
    }
}

/// How far an answer is shown.
#[derive(Clone, Default)]
struct Progress {
    /// Bytes from the start.
    shown: usize,
    /// Where the last part of it begins, and when that was sent.
    last_start: usize,
    last_at_ms: u64,
    /// A failure stands behind it.
    failed: bool,
}

/// Which part of which answer a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// What comes next of this one.
    Next(usize),
    /// What is there already, from this byte on.
    Again(usize, usize),
}

struct Judge<'a> {
    asked: &'a [Asked],
    kills: &'a [u64],
    progress: Vec<Progress>,
    /// The latest message whose answer has begun.
    newest: usize,
    /// When failures were told that stand behind nothing.
    bare: Vec<u64>,
    verdict: Verdict,
}

/// Judges one chat. `kills` is when the gateway's process was killed, in milliseconds.
pub fn judge(asked: &[Asked], shown: &[Shown], kills: &[u64]) -> Verdict {
    let progress = vec![Progress::default(); asked.len()];
    let verdict = Verdict { asked: asked.len(), ..Verdict::default() };
    let mut judge = Judge { asked, kills, progress, newest: 0, bare: Vec::new(), verdict };
    for shown in shown {
        judge.take(shown);
    }
    judge.finish()
}

impl Judge<'_> {
    fn take(&mut self, shown: &Shown) {
        // As Telegram shows it: a failure that did not fit leaves blank lines at the end of what is before it.
        let (marked, text) = match shown.text.trim_end().strip_prefix(MARKER) {
            Some(text) => (true, text),
            None => (false, shown.text.trim_end()),
        };
        self.verdict.marked += usize::from(marked);
        let (body, failed) = match text.split_once(&format!("\n\n{FAILURE}")) {
            Some((body, reason)) if !is_notice(body) => {
                self.told(&format!("{FAILURE}{reason}"));
                (body, true)
            }
            _ => (text, false),
        };
        if is_notice(body) {
            // Several notices may stand in one message.
            for loss in body.split("\n\n").filter(|part| is_notice(part) && !is_harmless(part)) {
                self.bare.push(shown.at_ms);
                self.told(loss);
            }
            return;
        }
        let Some(place) = self.place(body) else {
            return self.fault(Kind::Strange, shown.at_ms, format!("{:?}", brief(&shown.text)));
        };
        let index = match place {
            Place::Next(index) => {
                self.next(index, body, marked, shown);
                index
            }
            Place::Again(index, start) => {
                self.again(index, start, body, marked, shown);
                index
            }
        };
        self.progress[index].failed |= failed;
    }

    /// Whole answers are unique, so they go first; then the one that is under way; then one that begins; and then what
    /// is there already.
    fn place(&self, body: &str) -> Option<Place> {
        let answers = || self.asked.iter().zip(&self.progress).enumerate();
        let whole = || answers().filter(|(_, (asked, _))| asked.answer == body);
        let fresh = whole().find(|(_, (_, progress))| progress.shown == 0);
        if let Some((index, _)) = fresh {
            return Some(Place::Next(index));
        }
        if let Some((index, _)) = whole().next_back() {
            return Some(Place::Again(index, 0));
        }
        let goes_on = |asked: &Asked, progress: &Progress| {
            asked.answer[progress.shown..].starts_with(body) && progress.shown < asked.answer.len()
        };
        let mut open = answers().filter(|(_, (_, progress))| progress.shown > 0);
        if let Some((index, _)) = open.find(|(_, (asked, progress))| goes_on(asked, progress)) {
            return Some(Place::Next(index));
        }
        let again = |asked: &Asked, progress: &Progress| {
            let starts = [progress.last_start, 0].into_iter();
            let start = starts.clone().find(|start| asked.answer[*start..].starts_with(body));
            start.filter(|_| progress.shown > 0)
        };
        let again = answers().rev().find_map(|(index, (asked, progress))| Some((index, again(asked, progress)?)));
        let begins = answers().find(|(_, (asked, progress))| progress.shown == 0 && goes_on(asked, progress));
        match (begins, again) {
            // An answer that is under way is repeated before the next one begins.
            (_, Some((index, start))) if self.progress[index].shown < self.asked[index].answer.len() => {
                Some(Place::Again(index, start))
            }
            (Some((index, _)), _) => Some(Place::Next(index)),
            (None, Some((index, start))) => Some(Place::Again(index, start)),
            (None, None) => None,
        }
    }

    fn next(&mut self, index: usize, body: &str, marked: bool, shown: &Shown) {
        let asked = &self.asked[index];
        if index < self.newest {
            let after = &self.asked[self.newest].text;
            self.fault(Kind::Disordered, shown.at_ms, format!("'{}' is answered after '{after}'", asked.text));
        }
        if marked && !self.kills.iter().any(|kill| (asked.at_ms..=shown.at_ms).contains(kill)) {
            self.fault(Kind::Unfounded, shown.at_ms, format!("'{}' was not under way at any kill", asked.text));
        }
        self.newest = self.newest.max(index);
        let progress = &mut self.progress[index];
        progress.last_start = progress.shown;
        progress.last_at_ms = shown.at_ms;
        progress.shown += body.len();
    }

    fn again(&mut self, index: usize, start: usize, body: &str, marked: bool, shown: &Shown) {
        let asked = &self.asked[index];
        let before_ms = self.progress[index].last_at_ms;
        let in_flight = |kill: u64| before_ms <= kill + BUFFERED_MS && kill <= before_ms + IN_FLIGHT_MS;
        if !marked {
            let later = shown.at_ms.saturating_sub(before_ms);
            self.fault(Kind::Doubled, before_ms, format!("'{}' is answered again {later} ms later", asked.text));
        } else if !self.kills.iter().any(|kill| in_flight(*kill) && *kill <= shown.at_ms) {
            let what = format!("'{}' is repeated, and was in flight at no kill", asked.text);
            self.fault(Kind::Unfounded, shown.at_ms, what);
        }
        self.verdict.repeated += usize::from(marked);
        let progress = &mut self.progress[index];
        progress.last_start = start;
        progress.last_at_ms = shown.at_ms;
        progress.shown = progress.shown.max(start + body.len());
    }

    fn finish(mut self) -> Verdict {
        for index in 0..self.asked.len() {
            let (asked, progress) = (&self.asked[index], &self.progress[index]);
            if progress.shown == asked.answer.len() {
                self.verdict.answered += 1;
                continue;
            }
            if !progress.failed {
                let Some(bare) = self.bare.iter().position(|at_ms| *at_ms >= asked.at_ms) else {
                    let (shown, all) = (progress.shown, asked.answer.len());
                    let what = format!("'{}': {shown} of {all} bytes of the answer, and no word", asked.text);
                    self.fault(Kind::Lost, asked.at_ms, what);
                    continue;
                };
                self.bare.remove(bare);
            }
            self.verdict.told += 1;
        }
        self.verdict.needless = self.bare.len();
        self.verdict
    }

    fn told(&mut self, failure: &str) {
        let reason = brief(failure).replace(|c: char| c.is_ascii_digit(), "");
        *self.verdict.reasons.entry(reason).or_default() += 1;
    }

    fn fault(&mut self, kind: Kind, at_ms: u64, what: String) {
        self.verdict.faults.push(Fault { kind, chat: 0, what, at_ms });
    }
}

fn is_notice(text: &str) -> bool {
    text.contains(['⚠', '❌']) || HARMLESS.iter().any(|part| text.contains(part)) || is_refusal(text)
}

fn is_harmless(text: &str) -> bool {
    HARMLESS.iter().any(|part| text.contains(part))
}

/// The chat has too much to do.
fn is_refusal(text: &str) -> bool {
    text.contains("this one was not taken")
}

/// The start of a long text.
pub fn brief(text: &str) -> String {
    const CHARS: usize = 100;
    let start: String = text.chars().take(CHARS).collect();
    if start.len() < text.len() { format!("{start}… ({} bytes)", text.len()) } else { start }
}
