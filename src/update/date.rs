//! Dates as release metadata writes them.

use crate::clock::UnixMillis;

/// Reads an RFC 3339 date-time, such as `2027-01-31T00:00:00Z` or `2027-01-31t01:00:00.5+01:00`.
///
/// A leap second reads as the second after it. Anything else, a bare date too, is `None`.
pub fn parse_rfc3339(text: &str) -> Option<UnixMillis> {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = bytes.get(range)?;
        part.iter().all(u8::is_ascii_digit).then(|| part.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0')))
    };
    let at = |index: usize, wanted: &[u8]| bytes.get(index).is_some_and(|byte| wanted.contains(byte));
    if !(at(4, b"-") && at(7, b"-") && at(10, b"Tt") && at(13, b":") && at(16, b":")) {
        return None;
    }
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    let day_is_there = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    if !day_is_there || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let fraction_len = match bytes.get(19) {
        Some(b'.') => bytes[20..].iter().take_while(|byte| byte.is_ascii_digit()).count() + 1,
        _ => 0,
    };
    if fraction_len == 1 {
        return None;
    }
    let millis = (0..3).fold(0, |n, place| {
        let digit = (place + 1 < fraction_len).then(|| i64::from(bytes[20 + place] - b'0'));
        n * 10 + digit.unwrap_or(0)
    });
    let offset_minutes = offset(&bytes[19 + fraction_len..])?;
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(UnixMillis((seconds - offset_minutes * 60) * 1000 + millis))
}

/// Reads `Z`, `+hh:mm` or `-hh:mm`, in minutes east of UTC.
fn offset(text: &[u8]) -> Option<i64> {
    match *text {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(u8::is_ascii_digit) => {
            let hours = i64::from(h1 - b'0') * 10 + i64::from(h2 - b'0');
            let minutes = i64::from(m1 - b'0') * 10 + i64::from(m2 - b'0');
            let east = if sign == b'+' { 1 } else { -1 };
            (hours <= 23 && minutes <= 59).then_some(east * (hours * 60 + minutes))
        }
        _ => None,
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap_year(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap_year(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let before_year = |y: i64| 365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400);
    let whole_years = before_year(year - 1) - before_year(1969);
    let whole_months: i64 = (1..month).map(|earlier| days_in_month(year, earlier)).sum();
    whole_years + whole_months + day - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_with_known_seconds() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56Z", 951_827_696_000),
            ("2026-11-25T02:30:06Z", 1_795_573_806_000),
            ("2026-11-25T03:30:06.25+01:00", 1_795_573_806_250),
            ("1969-12-31t19:00:00.0005-05:00", 0),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("0000-03-01T00:00:00Z", -62_162_035_200_000),
        ] {
            assert_eq!(parse_rfc3339(text), Some(UnixMillis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_time_is_refused() {
        for text in [
            "",
            "2026-11-25",
            "2026-11-25T02:30:06",
            "2026-11-25 02:30:06Z",
            "2026-02-29T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+0100",
            "2026-01-01T00:00:00Zx",
            "+026-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*|[0-9tTzZ:+.-]{0,40}") {
            let _ = parse_rfc3339(&text);
        }

        #[test]
        fn a_later_day_is_a_day_later(year in 1i64..9999, month in 1i64..=12, day in 1i64..=27) {
            let read = |day: i64| parse_rfc3339(&format!("{year:04}-{month:02}-{day:02}T00:00:00Z")).unwrap().0;
            prop_assert_eq!(read(day + 1) - read(day), 86_400_000);
        }
    }
}
