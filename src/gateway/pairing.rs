//! Letting people in one by one: somebody unknown gets a code, and whoever runs the gateway approves it.
//!
//! Plain data and no I/O: what changes is returned as what the store is to record.
//!
//! **Invariants**
//! - Somebody is let in only by [`Pairings::approve`] with a code that is open, and only to talk: never as an admin.
//! - A code is open for [`OPEN`] from when it was made, however often the clock is set; on a platform at most
//!   [`OPEN_MAX`] are, and no two are the same.
//! - [`WRONG_MAX`] wrong codes in a row lock approving on a platform for [`LOCK`]. A right code is refused then, too.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::chat::Inbound;
use crate::clock::UnixMillis;
use crate::id::PlatformName;
use crate::store::{Change, Pairing, Standing};

/// How long a code is good.
pub const OPEN: Duration = Duration::from_secs(3600);
/// Codes that are open on one platform at the most.
pub const OPEN_MAX: usize = 3;
/// How often somebody is told the code.
pub const TOLD_EVERY: Duration = Duration::from_secs(3600);
/// Wrong codes in a row after which approving is locked.
pub const WRONG_MAX: u32 = 5;
/// For how long.
pub const LOCK: Duration = Duration::from_secs(3600);
/// Characters of a code.
pub const CODE_CHARS: usize = 8;
/// The key in the store of the [`Wrong`] codes by platform.
pub const WRONG_KEY: &str = "pairing_wrong";

/// What codes are made of: nothing that looks like something else here. A power of two, so that no character is likelier
/// than another.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// Wrong codes in a row on one platform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrong {
    count: u32,
    last_at: UnixMillis,
}

/// Everyone who was let in, or has asked to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairings {
    rows: BTreeMap<(PlatformName, String), Pairing>,
    wrong: BTreeMap<PlatformName, Wrong>,
}

/// What somebody unknown gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knock {
    /// This code.
    Code(String),
    /// Nothing: they have the code.
    Told,
    /// Nothing: too many codes are open, or none can be made.
    Full,
}

/// Why a code was not approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// No such code is open.
    #[error("no such code is open; codes are good for an hour, and {tries_left} more may be wrong before a pause")]
    Wrong {
        /// How many more may be wrong.
        tries_left: u32,
    },
    /// Too many were wrong.
    #[error("too many codes were wrong; nothing is approved there for another {} min", left.as_secs().div_ceil(60))]
    Locked {
        /// For how long.
        left: Duration,
    },
}

/// Makes a code of random bytes.
pub fn code(random: [u8; CODE_CHARS]) -> String {
    random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

impl Pairings {
    /// As the store has them; `wrong` is the value of [`WRONG_KEY`].
    pub fn new(rows: impl IntoIterator<Item = Pairing>, wrong: Option<&str>) -> Self {
        let rows = rows.into_iter().map(|row| ((row.platform().clone(), row.user.clone()), row)).collect();
        let wrong = wrong.filter(|text| !text.is_empty()).map(serde_json::from_str).transpose();
        let wrong = wrong.unwrap_or_else(|error| {
            tracing::error!(%error, "the count of wrong codes is not readable");
            None
        });
        Self { rows, wrong: wrong.unwrap_or_default() }
    }

    /// Whether somebody was let in.
    pub fn is_approved(&self, platform: &PlatformName, user: &str) -> bool {
        let row = self.rows.get(&(platform.clone(), user.to_owned()));
        row.is_some_and(|row| matches!(row.standing, Standing::Approved { .. }))
    }

    /// Those who were let in and those whose code is open, by platform.
    pub fn list(&self, now: UnixMillis) -> impl Iterator<Item = &Pairing> {
        self.rows.values().filter(move |row| !has_expired(row, now))
    }

    /// Somebody who may not talk says something in a direct chat. `make` makes a code; none if there is no way to. What
    /// is to be recorded is added to `changes`.
    pub fn knock(
        &mut self,
        inbound: &Inbound,
        now: UnixMillis,
        make: impl FnMut() -> Option<String>,
        changes: &mut Vec<Change>,
    ) -> Knock {
        let platform = &inbound.conversation.platform;
        changes.extend(self.forget_expired(platform, now));
        let key = (platform.clone(), inbound.sender.id.clone());
        if let Some(Pairing { standing: Standing::Asked { code, told_at, .. }, .. }) = self.rows.get_mut(&key) {
            if is_within(*told_at, now, TOLD_EVERY) {
                return Knock::Told;
            }
            *told_at = now;
            let code = code.clone();
            changes.push(Change::Pairing(self.rows[&key].clone()));
            return Knock::Code(code);
        }
        let open: Vec<&str> = self.open(platform).map(|(_, code)| code).collect();
        if open.len() >= OPEN_MAX {
            return Knock::Full;
        }
        let made = std::iter::repeat_with(make).take(OPEN_MAX + 1).flatten();
        let Some(code) = made.into_iter().find(|code| !open.contains(&code.as_str())) else { return Knock::Full };
        let pairing = Pairing {
            user: inbound.sender.id.clone(),
            name: inbound.sender.name.clone(),
            conversation: inbound.conversation.clone(),
            standing: Standing::Asked { code: code.clone(), asked_at: now, told_at: now },
        };
        changes.push(Change::Pairing(pairing.clone()));
        self.rows.insert(key, pairing);
        Knock::Code(code)
    }

    /// Lets in whom a code was given to. Returns who that is. What is to be recorded is added to `changes` also if this
    /// is refused.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn approve(
        &mut self,
        platform: &PlatformName,
        code: &str,
        now: UnixMillis,
        changes: &mut Vec<Change>,
    ) -> Result<Pairing, Refused> {
        changes.extend(self.forget_expired(platform, now));
        let wrong = self.wrong.get(platform).copied().filter(|wrong| is_within(wrong.last_at, now, LOCK));
        let count = wrong.map_or(0, |wrong| wrong.count);
        if let Some(Wrong { last_at, .. }) = wrong.filter(|wrong| wrong.count >= WRONG_MAX) {
            return Err(Refused::Locked { left: LOCK.saturating_sub(now.since(last_at)) });
        }
        let meant: String = code.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_uppercase();
        let Some(key) = self.open(platform).find(|(_, open)| *open == meant).map(|(key, _)| key.clone()) else {
            self.wrong.insert(platform.clone(), Wrong { count: count + 1, last_at: now });
            changes.push(self.wrong_codes());
            let tries_left = WRONG_MAX - (count + 1);
            return Err(if tries_left == 0 { Refused::Locked { left: LOCK } } else { Refused::Wrong { tries_left } });
        };
        if self.wrong.remove(platform).is_some() {
            changes.push(self.wrong_codes());
        }
        let row = self.rows.get_mut(&key).expect("it was just found");
        row.standing = Standing::Approved { at: now };
        changes.push(Change::Pairing(row.clone()));
        Ok(row.clone())
    }

    /// Takes back that somebody was let in, or their code. Returns who that is; none if nobody is known by that id.
    pub fn revoke(&mut self, platform: &PlatformName, user: &str, changes: &mut Vec<Change>) -> Option<Pairing> {
        let row = self.rows.remove(&(platform.clone(), user.to_owned()))?;
        changes.push(Change::Unpair(platform.clone(), user.to_owned()));
        Some(row)
    }

    fn open(&self, platform: &PlatformName) -> impl Iterator<Item = (&(PlatformName, String), &str)> {
        self.rows.iter().filter(move |(key, _)| key.0 == *platform).filter_map(|(key, row)| match &row.standing {
            Standing::Asked { code, .. } => Some((key, code.as_str())),
            Standing::Approved { .. } => None,
        })
    }

    fn forget_expired(&mut self, platform: &PlatformName, now: UnixMillis) -> Vec<Change> {
        let expired = self.rows.extract_if(.., |key, row| key.0 == *platform && has_expired(row, now));
        expired.map(|((platform, user), _)| Change::Unpair(platform, user)).collect()
    }

    fn wrong_codes(&self) -> Change {
        Change::Meta(WRONG_KEY, serde_json::to_string(&self.wrong).expect("plain data serialises"))
    }
}

fn has_expired(row: &Pairing, now: UnixMillis) -> bool {
    matches!(row.standing, Standing::Asked { asked_at, .. } if !is_within(asked_at, now, OPEN))
}

/// Whether `then` was less than `time` ago. What a clock that was set back says of the future is long ago.
fn is_within(then: UnixMillis, now: UnixMillis, time: Duration) -> bool {
    then <= now && now.since(then) < time
}

#[cfg(test)]
#[path = "pairing_tests.rs"]
mod tests;
