//! When automatic updates may be applied: `"02:00-05:00"`, `"Sat,Sun 23:00-04:00"`, `"Mon-Fri 12:00-13:00"`.
//!
//! A window is in the local time of the machine. One that ends at or before the hour at which it begins ends on the day
//! after; its weekdays are those on which it begins.
//!
//! Where the clocks are put forward, a time that does not exist is the moment at which they are: a window that begins in the
//! skipped hour begins then, one that ends in it ends then, and one of nothing but such time is not there that day. Where they
//! are put back, a window begins with the first and ends with the first of the two hours of the same name.

use std::fmt;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};
use thiserror::Error;

use crate::clock::UnixMillis;

/// Weekdays as they are written, from Monday.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MINUTES_A_DAY: u16 = 24 * 60;
/// Days that are looked at for the next window: a week, one more because clocks are put forward, and the one before,
/// whose window may go past midnight.
const DAYS_AHEAD: i64 = 9;

/// Why a text is not a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WindowError {
    /// It is not of the form `[DAYS ]HH:MM-HH:MM`.
    #[error("it is not of the form [DAYS ]HH:MM-HH:MM")]
    Form,
    /// An hour or a minute that no clock shows.
    #[error("a time of day is from 00:00 to 23:59, and an end may be 24:00")]
    Time,
    /// A weekday that is none.
    #[error("a day is one of Mon, Tue, Wed, Thu, Fri, Sat and Sun")]
    Day,
    /// It begins when it ends.
    #[error("it begins when it ends; leave the window out if any time will do")]
    Empty,
}

/// A part of the day, on some days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// On which it begins, from Monday.
    days: [bool; 7],
    /// Minutes since midnight, less than a day.
    from: u16,
    /// Minutes since midnight, up to a whole day.
    to: u16,
}

/// One opening of a [`Window`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The first moment in it.
    pub from: UnixMillis,
    /// The first moment after it.
    pub until: UnixMillis,
}

impl Window {
    /// Reads a window.
    ///
    /// # Errors
    /// [`WindowError`] says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, WindowError> {
        let (days, hours) = match text.trim().rsplit_once(' ') {
            Some((days, hours)) => (parse_days(days)?, hours),
            None => ([true; 7], text.trim()),
        };
        let (from, to) = hours.split_once('-').ok_or(WindowError::Form)?;
        let (from, to) = (parse_time(from)?, parse_time(to)?);
        if from == MINUTES_A_DAY {
            return Err(WindowError::Time);
        }
        if from == to {
            return Err(WindowError::Empty);
        }
        Ok(Self { days, from, to })
    }

    /// The opening that `now` is in, or the next one. None where there is none within a week, which no calendar brings
    /// about but a clock that is far off may.
    pub fn opening(&self, now: UnixMillis, zone: &TimeZone) -> Option<Opening> {
        let today = zone.to_datetime(Timestamp::from_millisecond(now.0).ok()?).date();
        (-1..DAYS_AHEAD)
            .filter_map(|days| self.opening_of(today.checked_add(days.days()).ok()?, zone))
            .find(|opening| now < opening.until)
    }

    /// The one that begins on a day.
    fn opening_of(&self, day: Date, zone: &TimeZone) -> Option<Opening> {
        if !self.days[index(day.weekday())] {
            return None;
        }
        let last_day = if self.to <= self.from { day.tomorrow().ok()? } else { day };
        let (from, until) = (moment(day, self.from, zone)?, moment(last_day, self.to, zone)?);
        (from < until).then_some(Opening { from, until })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != [true; 7] {
            let named: Vec<&str> =
                DAYS.into_iter().zip(self.days).filter(|(_, is_in)| *is_in).map(|(d, _)| d).collect();
            write!(f, "{} ", named.join(","))?;
        }
        write!(f, "{:02}:{:02}-{:02}:{:02}", self.from / 60, self.from % 60, self.to / 60, self.to % 60)
    }
}

fn moment(day: Date, minutes: u16, zone: &TimeZone) -> Option<UnixMillis> {
    let (day, minutes) = if minutes == MINUTES_A_DAY { (day.tomorrow().ok()?, 0) } else { (day, minutes) };
    let (hour, minute) = (i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?);
    let time = Time::new(hour, minute, 0, 0).ok()?;
    let time = day.to_datetime(time);
    let at = match zone.to_ambiguous_timestamp(time).offset() {
        // By the offset that holds after it, a time that is skipped is before the clocks are put forward.
        AmbiguousOffset::Gap { after, .. } => {
            zone.following(after.to_timestamp(time).ok()?).next().map(|moment| moment.timestamp())?
        }
        AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
            offset.to_timestamp(time).ok()?
        }
    };
    Some(UnixMillis(at.as_millisecond()))
}

fn index(day: Weekday) -> usize {
    usize::try_from(day.to_monday_zero_offset()).expect("a weekday is from 0 to 6")
}

/// `Sat,Sun`, `Mon-Fri`, `Fri-Mon,Wed`.
fn parse_days(text: &str) -> Result<[bool; 7], WindowError> {
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (parse_day(first)?, parse_day(last)?);
        days[day] = true;
        while day != last {
            day = (day + 1) % 7;
            days[day] = true;
        }
    }
    Ok(days)
}

fn parse_day(text: &str) -> Result<usize, WindowError> {
    DAYS.iter().position(|day| day.eq_ignore_ascii_case(text.trim())).ok_or(WindowError::Day)
}

fn parse_time(text: &str) -> Result<u16, WindowError> {
    let (hours, minutes) = text.trim().split_once(':').ok_or(WindowError::Form)?;
    let number = |text: &str| match text.len() {
        1 | 2 if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<u16>().map_err(|_| WindowError::Form),
        _ => Err(WindowError::Form),
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let time = hours * 60 + minutes;
    if minutes > 59 || time > MINUTES_A_DAY {
        return Err(WindowError::Time);
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> UnixMillis {
        UnixMillis(text.parse::<Timestamp>().expect("a time").as_millisecond())
    }

    fn shown(at: UnixMillis) -> String {
        Timestamp::from_millisecond(at.0).expect("in range").to_string()
    }

    fn opening(window: &str, now: &str, zone: &TimeZone) -> (String, String) {
        let window = Window::parse(window).expect("a window");
        let Opening { from, until } = window.opening(at(now), zone).expect("one comes");
        (shown(from), shown(until))
    }

    fn berlin() -> TimeZone {
        // The rule of the European Union, without a database.
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a rule")
    }

    #[test]
    fn what_people_write() {
        for (text, shown) in [
            ("02:00-05:00", Ok("02:00-05:00")),
            ("2:00-5:30", Ok("02:00-05:30")),
            ("23:00-24:00", Ok("23:00-24:00")),
            ("sat,SUN 22:00-04:00", Ok("Sat,Sun 22:00-04:00")),
            ("Fri-Mon 12:00-13:00", Ok("Mon,Fri,Sat,Sun 12:00-13:00")),
            ("Mon-Sun 12:00-13:00", Ok("12:00-13:00")),
            ("", Err(WindowError::Form)),
            ("02:00", Err(WindowError::Form)),
            ("02-05", Err(WindowError::Form)),
            ("02:00-05:+1", Err(WindowError::Form)),
            ("24:00-05:00", Err(WindowError::Time)),
            ("02:60-05:00", Err(WindowError::Time)),
            ("02:00-25:00", Err(WindowError::Time)),
            ("Caturday 02:00-05:00", Err(WindowError::Day)),
            ("02:00-02:00", Err(WindowError::Empty)),
        ] {
            assert_eq!(Window::parse(text).map(|window| window.to_string()), shown.map(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn a_window_is_local_time_and_may_pass_midnight() {
        let told = |from: &str, until: &str| (from.to_owned(), until.to_owned());
        let zone = berlin();
        let night = told("2026-11-27T01:00:00Z", "2026-11-27T04:00:00Z");
        for now in ["2026-11-26T04:00:00Z", "2026-11-27T01:00:00Z", "2026-11-27T03:59:59.999Z"] {
            assert_eq!(opening("02:00-05:00", now, &zone), night, "{now}");
        }
        let late = told("2026-11-28T22:00:00Z", "2026-11-29T03:00:00Z");
        // A Saturday's, also on the Sunday.
        for now in ["2026-11-23T12:00:00Z", "2026-11-28T22:00:00Z", "2026-11-29T02:00:00Z"] {
            assert_eq!(opening("Sat 23:00-04:00", now, &zone), late, "{now}");
        }
        assert_eq!(opening("Sat 23:00-04:00", "2026-11-29T03:00:00Z", &zone).0, "2026-12-05T22:00:00Z");
    }

    #[test]
    fn an_hour_that_is_skipped_or_comes_twice() {
        let zone = berlin();
        let spring = "2026-03-29T00:00:00Z";
        assert_eq!(opening("02:00-05:00", spring, &zone).0, "2026-03-29T01:00:00Z", "03:00 by the new time");
        assert_eq!(opening("02:30-05:00", spring, &zone).0, "2026-03-29T01:00:00Z", "the first moment that exists");
        assert_eq!(opening("02:15-02:45", spring, &zone).0, "2026-03-30T00:15:00Z", "nor such times");
        let told = |from: &str, until: &str| (from.to_owned(), until.to_owned());
        let short = told("2026-03-29T01:00:00Z", "2026-03-29T01:15:00Z");
        assert_eq!(opening("02:30-03:15", spring, &zone), short);
        assert_eq!(opening("01:30-02:30", spring, &zone), told("2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"));
        assert_eq!(opening("02:00-03:00", spring, &zone).0, "2026-03-30T00:00:00Z", "there is no such time that day");
        let (from, until) = opening("02:00-05:00", "2026-10-25T00:00:00Z", &zone);
        assert_eq!((from.as_str(), until.as_str()), ("2026-10-25T00:00:00Z", "2026-10-25T04:00:00Z"));
        let first = told("2026-10-25T00:15:00Z", "2026-10-25T00:45:00Z");
        assert_eq!(opening("02:15-02:45", "2026-10-25T00:00:00Z", &zone), first, "in the first of the two hours");
    }

    pub(crate) fn zones() -> impl Strategy<Value = TimeZone> {
        prop::sample::select(vec![
            "UTC0",
            "CET-1CEST,M3.5.0,M10.5.0/3",
            "EST5EDT,M3.2.0,M11.1.0",
            "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
            "<-04>4<-03>,M9.1.6/24,M4.1.6/24",
        ])
        .prop_map(|rule| TimeZone::posix(rule).expect("a rule"))
    }

    prop_compose! {
        fn window()(days in 1u8..128, from in 0u16..1440, length in 1u16..1440) -> Window {
            let days = std::array::from_fn(|day| days & (1 << day) != 0);
            Window { days, from, to: (from + length) % MINUTES_A_DAY }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_a_panic(text in ".*") {
            let _judged = Window::parse(&text);
        }

        #[test]
        fn what_is_shown_is_read_again(window in window()) {
            prop_assert_eq!(Window::parse(&window.to_string()), Ok(window));
        }

        /// Whatever the clocks do: an opening has not ended, is one piece of at most a day and an hour, and begins by
        /// the clock when it should or where the clock jumps over that.
        #[test]
        fn an_opening_is_where_the_window_says(window in window(), zone in zones(), now in 0i64..4_102_444_800_000) {
            let Some(Opening { from, until }) = window.opening(UnixMillis(now), &zone) else {
                return Err(TestCaseError::fail("there is none within a week"));
            };
            prop_assert!(from < until && now < until.0 && until.0 - from.0 <= 25 * 3_600_000);
            let local = zone.to_datetime(Timestamp::from_millisecond(from.0).expect("in range"));
            let begins = u16::try_from(local.hour()).expect("an hour") * 60 + u16::try_from(local.minute()).expect("a minute");
            let is_skipped = (60..=60 * 3).any(|back| {
                let earlier = zone.to_datetime(Timestamp::from_millisecond(from.0 - back * 60_000).expect("in range"));
                earlier.date() == local.date() && i64::from(local.hour()) * 60 + i64::from(local.minute())
                    - i64::from(earlier.hour()) * 60 - i64::from(earlier.minute()) != back
            });
            prop_assert!(begins == window.from || is_skipped || begins < 120, "begins at {local}");
            prop_assert!(window.days[index(local.date().weekday())] || is_skipped || begins < 120);
        }
    }
}
