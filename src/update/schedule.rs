//! What is to be done by itself, and when: a state machine without a clock, a disk or a network.
//!
//! [`Plan`] is what the configuration says, [`Agenda`] what is known and must outlive the process, [`Moment`] how things
//! are now. [`decide`] says what to do; whoever does it tells the agenda what came of it and asks again.
//!
//! **Invariants**
//! - An update is begun only in the window, while nothing holds it and nothing else is under way, and right after a look
//!   that still offers it: a publisher who takes a release back is heard.
//! - A version that failed is not begun again, and one whose attempts were cut short not more than [`TRIES_MAX`] times:
//!   again once it may be looked for, and from then on only hours later, later each time.
//! - Admins are told of a version once.
//! - Between two looks are at least [`LOOK_PAUSE`] by a clock that nobody can set. A wall clock that is set forward costs
//!   one look, and one that is set back none.
//! - Two installations look and update at different times, and each at the same time every day.

use std::time::Duration;

use jiff::tz::TimeZone;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::hold::Hold;
use super::rollout::spread;
use crate::clock::{MonoNanos, UnixMillis};
use crate::config::{AutoUpdate, UpdateConfig, Window};

/// The least time between two looks.
pub const LOOK_PAUSE: Duration = Duration::from_secs(30);
/// How old what is known of releases may be when one is installed.
pub const FRESH: Duration = Duration::from_secs(10 * 60);
/// How often a version is begun if nobody can say that it is at fault: its download broke off, the machine was too busy,
/// or the process was killed.
pub const TRIES_MAX: u32 = 4;
/// The pause after the second attempt that was cut short; each one more doubles it. After the first it is as after a look
/// that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(60 * 60);
/// Versions that were begun and are remembered; the oldest is forgotten first.
const ATTEMPTS_MAX: usize = 16;
/// The pause after a look that failed; each one more doubles it, up to the time between two looks.
const BACK_OFF: Duration = Duration::from_secs(60);
/// Looks are later by up to this part of the time between two.
const LOOK_SPREAD: u32 = 8;
/// Updates are later by up to half of the window, and not by more than this.
const APPLY_SPREAD: Duration = Duration::from_secs(60 * 60);

/// What the configuration says.
#[derive(Clone, Debug)]
pub struct Plan {
    auto: AutoUpdate,
    check_every: Duration,
    window: Option<Window>,
    zone: TimeZone,
    /// The name of this installation.
    installation: String,
    /// Which releases are looked at: what is known of others counts for nothing.
    source: String,
}

/// A release that may be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its version.
    pub version: Version,
    /// To how many of 100 installations it goes, if not to all.
    #[serde(default)]
    pub rollout: Option<u8>,
    /// Where its notes are.
    #[serde(default)]
    pub notes_url: Option<String>,
}

/// A version that was begun by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which.
    pub version: Version,
    /// How often.
    pub tries: u32,
    /// It is not begun again before this time.
    #[serde(default)]
    pub not_before: Option<UnixMillis>,
    /// Why it is not begun again.
    #[serde(default)]
    pub failed: Option<String>,
}

/// What is known, for the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Agenda {
    source: String,
    /// When releases were looked for last, whatever came of it.
    pub last_check_at: Option<UnixMillis>,
    /// Looks that failed since the last that did not.
    pub errors: u32,
    /// Why the last one failed.
    pub last_error: Option<String>,
    /// What may be installed by itself.
    pub offer: Option<Offer>,
    /// A newer release that is not rolled out to this installation yet.
    pub deferred: Option<Offer>,
    /// What admins were told of.
    pub notified: Option<Version>,
    /// What was begun, the latest at the end.
    attempts: Vec<Attempt>,
}

/// How things are.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// The wall clock.
    pub now: UnixMillis,
    /// The clock that nobody sets.
    pub mono: MonoNanos,
    /// When this image began to look after updates, by both.
    pub since: (UnixMillis, MonoNanos),
    /// When this image began its last look.
    pub looked: Option<MonoNanos>,
    /// A handoff or a look is under way, or an update on probation.
    pub is_busy: bool,
    /// Who holds updates.
    pub hold: Option<&'a Hold>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Look for releases.
    Look,
    /// Tell the admins of a release.
    Notify(Offer),
    /// Install it.
    Apply(Offer),
    /// Nothing before this time, unless something changes.
    WaitUntil(UnixMillis),
    /// Nothing.
    Nothing,
}

impl Plan {
    /// What `config` says for the installation of this name, in the time zone of the machine.
    pub fn new(config: &UpdateConfig, zone: TimeZone, installation: String) -> Self {
        let UpdateConfig { auto, check_every, window, channel, manifest_url, .. } = config;
        let source = format!("{} {}", channel.as_str(), manifest_url.as_deref().unwrap_or_default());
        Self { auto: *auto, check_every: *check_every, window: *window, zone, installation, source }
    }

    /// The time zone of its window.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The name of the installation.
    pub fn installation(&self) -> &str {
        &self.installation
    }

    /// When releases are to be looked for; none if they are not.
    pub fn next_check(&self, agenda: &Agenda, since: UnixMillis) -> Option<UnixMillis> {
        if self.auto == AutoUpdate::Off {
            return None;
        }
        let (from, every) = match agenda.last_check_at {
            Some(at) => (at, self.pause(agenda.errors)),
            None => (since, Duration::ZERO),
        };
        let shift = if agenda.errors > 0 { every } else { self.check_every };
        let spread = spread(&self.installation, "check", shift / LOOK_SPREAD);
        Some(after(from, every + spread))
    }

    fn pause(&self, errors: u32) -> Duration {
        match errors {
            0 => self.check_every,
            1.. => BACK_OFF.saturating_mul(2u32.saturating_pow(errors - 1)).min(self.check_every),
        }
    }

    /// When what is offered is to be installed: a time that is over if that is now. None if it is not.
    pub fn next_apply(&self, agenda: &Agenda, hold: Option<&Hold>, now: UnixMillis) -> Option<UnixMillis> {
        let offer = agenda.offer.as_ref().filter(|_| self.auto == AutoUpdate::Apply)?;
        if !agenda.may_begin(&offer.version) {
            return None;
        }
        let from = match hold.filter(|hold| hold.holds(now)) {
            Some(hold) => hold.until?,
            None => now,
        };
        let from = agenda.not_before(&offer.version).map_or(from, |at| at.max(from));
        let Some(window) = &self.window else { return Some(from) };
        let opening = window.opening(from, &self.zone)?;
        let length = Duration::from_millis(u64::try_from(opening.until.0 - opening.from.0).unwrap_or(0));
        let later = spread(&self.installation, "apply", APPLY_SPREAD.min(length / 2));
        Some(after(opening.from, later).max(from))
    }
}

impl Agenda {
    /// What has become untrue: since another version runs, releases of another place are wanted, or the clock was set
    /// back. Says whether anything has.
    pub fn amend(&mut self, plan: &Plan, running: &Version, now: UnixMillis) -> bool {
        let before = self.clone();
        if self.source != plan.source {
            let attempts = std::mem::take(&mut self.attempts);
            *self = Self { source: plan.source.clone(), attempts, ..Self::default() };
        }
        if self.last_check_at.is_some_and(|at| at > now) {
            self.last_check_at = Some(now);
        }
        let is_newer = |version: &Version| version.cmp_precedence(running).is_gt();
        self.offer.take_if(|offer| !is_newer(&offer.version));
        self.deferred.take_if(|offer| !is_newer(&offer.version));
        self.attempts.retain(|attempt| is_newer(&attempt.version));
        for attempt in &mut self.attempts {
            attempt.not_before = attempt.not_before.map(|at| at.min(after(now, retry_pause(attempt.tries))));
        }
        *self != before
    }

    /// Releases were looked for.
    pub fn looked(&mut self, now: UnixMillis, found: Result<(Option<Offer>, Option<Offer>), String>) {
        self.last_check_at = Some(now);
        match found {
            Ok((offer, deferred)) => {
                (self.errors, self.last_error) = (0, None);
                (self.offer, self.deferred) = (offer, deferred);
            }
            Err(reason) => {
                self.errors = self.errors.saturating_add(1);
                self.last_error = Some(reason);
            }
        }
    }

    /// Admins are told of a version.
    pub fn told(&mut self, version: &Version) {
        self.notified = Some(version.clone());
    }

    /// A version is begun.
    pub fn begun(&mut self, version: &Version) {
        let attempt = self.attempt(version);
        attempt.tries = attempt.tries.saturating_add(1);
    }

    /// A version that was begun did not come about for a reason that may pass. Says whether it is tried again.
    pub fn cut_short(&mut self, version: &Version, now: UnixMillis, reason: &str) -> bool {
        self.looked(now, Err(reason.to_owned()));
        let attempt = self.attempt(version);
        attempt.not_before = Some(after(now, retry_pause(attempt.tries)));
        let again = self.may_begin(version);
        if !again {
            self.failed(version, reason);
        }
        again
    }

    /// A version has failed.
    pub fn failed(&mut self, version: &Version, reason: &str) {
        self.attempt(version).failed = Some(reason.to_owned());
    }

    /// The version that failed last, and why.
    pub fn last_failure(&self) -> Option<(&Version, &str)> {
        self.attempts.iter().rev().find_map(|attempt| Some((&attempt.version, attempt.failed.as_deref()?)))
    }

    /// What is known of the attempts at a version, which is the latest from now on.
    fn attempt(&mut self, version: &Version) -> &mut Attempt {
        let known = self.attempts.iter().position(|attempt| attempt.version == *version);
        let known = known.map(|at| self.attempts.remove(at));
        let none = || Attempt { version: version.clone(), tries: 0, not_before: None, failed: None };
        if self.attempts.len() >= ATTEMPTS_MAX {
            self.attempts.remove(0);
        }
        self.attempts.push_mut(known.unwrap_or_else(none))
    }

    fn may_begin(&self, version: &Version) -> bool {
        let mut of_it = self.attempts.iter().filter(|attempt| attempt.version == *version);
        of_it.all(|attempt| attempt.failed.is_none() && attempt.tries < TRIES_MAX)
    }

    fn not_before(&self, version: &Version) -> Option<UnixMillis> {
        self.attempts.iter().find(|attempt| attempt.version == *version)?.not_before
    }

    fn is_fresh(&self, now: UnixMillis) -> bool {
        self.errors == 0 && self.last_check_at.is_some_and(|at| at <= now && now.since(at) < FRESH)
    }
}

/// Says what to do at this moment.
pub fn decide(plan: &Plan, agenda: &Agenda, moment: Moment<'_>) -> Decision {
    let Moment { now, mono, since, looked, is_busy, hold } = moment;
    let Some(mut look_at) = plan.next_check(agenda, since.0) else { return Decision::Nothing };
    if is_busy {
        return Decision::WaitUntil(after(now, Duration::from_secs(1)));
    }
    let is_held = hold.is_some_and(|hold| hold.holds(now));
    if plan.auto == AutoUpdate::Notify
        && let Some(offer) =
            agenda.offer.as_ref().filter(|offer| !is_held && agenda.notified.as_ref() != Some(&offer.version))
    {
        return Decision::Notify(offer.clone());
    }
    // A clock that is set back while nothing was looked at yet would let that wait for as long.
    if agenda.last_check_at.is_none() && since.0 > now {
        look_at = now;
    }
    let apply_at = plan.next_apply(agenda, hold, now);
    if let (Some(at), Some(offer)) = (apply_at, &agenda.offer)
        && at <= now
    {
        if agenda.is_fresh(now) {
            return Decision::Apply(offer.clone());
        }
        if agenda.errors == 0 {
            look_at = now;
        }
    }
    let paused = looked.map_or(Duration::ZERO, |looked| LOOK_PAUSE.saturating_sub(mono.since(looked)));
    if look_at <= now && paused.is_zero() {
        return Decision::Look;
    }
    let look_at = look_at.max(after(now, paused));
    Decision::WaitUntil(apply_at.filter(|at| *at > now).map_or(look_at, |at| at.min(look_at)))
}

/// The pause after so many attempts that were cut short.
fn retry_pause(tries: u32) -> Duration {
    match tries {
        0 | 1 => Duration::ZERO,
        2.. => RETRY_PAUSE.saturating_mul(2u32.saturating_pow(tries - 2)),
    }
}

fn after(from: UnixMillis, time: Duration) -> UnixMillis {
    UnixMillis(from.0.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests;
