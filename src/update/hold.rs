//! A hold: nothing is updated by itself until it is lifted, or until its time is over. What a person asks for is done.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::date::parse_rfc3339;
use crate::clock::UnixMillis;
use crate::config::parse_duration;

/// Nothing is updated by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Since when.
    pub since: UnixMillis,
    /// Until when; without an end until it is lifted.
    #[serde(default)]
    pub until: Option<UnixMillis>,
    /// Who asked for it, for people.
    #[serde(default)]
    pub by: String,
}

/// Why a text does not say until when.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HoldError {
    /// It is neither.
    #[error("'{0}' is neither a time like 12h or 7d nor a date like 2026-12-24 or 2026-12-24T18:00:00Z")]
    Unreadable(String),
    /// It has been.
    #[error("{0} is over already")]
    Past(String),
}

impl Hold {
    /// Whether nothing is updated by itself at `now`.
    pub fn holds(&self, now: UnixMillis) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// As the store has it.
    pub fn stored(hold: Option<&Self>) -> String {
        hold.map_or_else(String::new, |hold| serde_json::to_string(hold).expect("plain data serialises"))
    }
}

/// Reads until when: a duration from `now` on, a day, which begins in `zone`, or an RFC 3339 time.
///
/// # Errors
/// [`HoldError`].
pub fn parse_until(text: &str, now: UnixMillis, zone: &TimeZone) -> Result<UnixMillis, HoldError> {
    let text = text.trim();
    let after = |time: std::time::Duration| now.0.checked_add(i64::try_from(time.as_millis()).ok()?).map(UnixMillis);
    let until = parse_duration(text).ok().and_then(after);
    let until = until.or_else(|| parse_rfc3339(text)).or_else(|| midnight(text, zone));
    match until {
        Some(until) if until > now => Ok(until),
        Some(_) => Err(HoldError::Past(text.to_owned())),
        None => Err(HoldError::Unreadable(text.to_owned())),
    }
}

/// When a day begins.
fn midnight(text: &str, zone: &TimeZone) -> Option<UnixMillis> {
    // A date is also the beginning of longer texts, which are not to be cut.
    let is_day = text.len() == "2026-12-24".len();
    let day = text.parse::<Date>().ok().filter(|_| is_day)?;
    let begins = day.to_datetime(Time::midnight()).to_zoned_datetime(zone.clone()).ok()?;
    Some(UnixMillis(begins.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_ends_after_a_time_or_on_a_day() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a rule");
        // 2026-11-27T00:00:00Z
        let now = UnixMillis(1_795_737_600_000);
        let until =
            |text: &str| parse_until(text, now, &zone).map(|at| at.0 - now.0).map_err(|error| error.to_string());
        assert_eq!(until("12h"), Ok(12 * 3_600_000));
        assert_eq!(until(" 7d "), Ok(7 * 86_400_000));
        assert_eq!(until("2026-11-28"), Ok(23 * 3_600_000), "midnight in Berlin");
        assert_eq!(until("2026-11-28T00:00:00Z"), Ok(24 * 3_600_000));
        assert_eq!(until("2026-11-26"), Err("2026-11-26 is over already".to_owned()));
        assert_eq!(until("0s"), Err("0s is over already".to_owned()));
        for text in ["", "soon", "7", "2026-13-01", "2026-11-28 or so", "99999999999999d"] {
            assert!(until(text).expect_err("unreadable").contains("is neither a time"), "{text:?}");
        }
    }

    #[test]
    fn a_hold_without_an_end_lasts() {
        let hold = |until| Hold { since: UnixMillis(1), until, by: String::new() };
        assert!(hold(None).holds(UnixMillis(i64::MAX)));
        assert!(hold(Some(UnixMillis(5))).holds(UnixMillis(4)) && !hold(Some(UnixMillis(5))).holds(UnixMillis(5)));
    }
}
