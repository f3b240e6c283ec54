//! Durations as people write them: `"30s"`, `"500ms"`, `"1h30m"`.

use std::time::Duration;

use thiserror::Error;

/// The units from longest to shortest, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    /// Nothing was written.
    #[error("it is empty")]
    Empty,
    /// A number is missing where one must be.
    #[error("a number is missing")]
    NumberMissing,
    /// A number has no unit, or one that is not known.
    #[error("a number needs one of the units ms, s, m, h, d")]
    UnitUnknown,
    /// `"5s1h"`, `"1s1s"`.
    #[error("units must go from long to short, each once")]
    OutOfOrder,
    /// More than 2^64 ms.
    #[error("it is too long")]
    TooLong,
}

/// Reads a duration: whole numbers with the units `d`, `h`, `m`, `s`, `ms`, from long to short, each at most once, without
/// spaces. `"0s"` is allowed, a number without a unit is not, because nobody can tell what it means.
///
/// # Errors
/// [`DurationError`] says what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    let mut total_ms: u64 = 0;
    let mut next_unit = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = split_at_first(rest, |c| !c.is_ascii_digit());
        if number.is_empty() {
            return Err(DurationError::NumberMissing);
        }
        let (unit, after) = split_at_first(after, |c| c.is_ascii_digit());
        let index = UNITS.iter().position(|&(name, _)| name == unit).ok_or(DurationError::UnitUnknown)?;
        if index < next_unit {
            return Err(DurationError::OutOfOrder);
        }
        next_unit = index + 1;
        let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
        let part_ms = number.checked_mul(UNITS[index].1).ok_or(DurationError::TooLong)?;
        total_ms = total_ms.checked_add(part_ms).ok_or(DurationError::TooLong)?;
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

fn split_at_first(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_write() {
        let cases = [
            ("30s", Ok(30_000)),
            ("500ms", Ok(500)),
            ("5m", Ok(300_000)),
            ("1h30m", Ok(5_400_000)),
            ("1h2m3s4ms", Ok(3_723_004)),
            ("2d12h", Ok(216_000_000)),
            ("0s", Ok(0)),
            ("", Err(DurationError::Empty)),
            ("s", Err(DurationError::NumberMissing)),
            ("-5s", Err(DurationError::NumberMissing)),
            ("5", Err(DurationError::UnitUnknown)),
            ("5 s", Err(DurationError::UnitUnknown)),
            ("1.5s", Err(DurationError::UnitUnknown)),
            ("5sec", Err(DurationError::UnitUnknown)),
            ("1s1h", Err(DurationError::OutOfOrder)),
            ("1s1s", Err(DurationError::OutOfOrder)),
            ("99999999999999999999s", Err(DurationError::TooLong)),
            ("18446744073709551615h", Err(DurationError::TooLong)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_a_panic(text in ".*") {
            let _ = parse_duration(&text);
        }

        #[test]
        fn what_was_written_is_what_is_read(h in 0u64..1000, m in 0u64..1000, s in 0u64..1000, ms in 0u64..100_000) {
            let expected = Duration::from_millis(h * 3_600_000 + m * 60_000 + s * 1000 + ms);
            prop_assert_eq!(parse_duration(&format!("{h}h{m}m{s}s{ms}ms")), Ok(expected));
        }
    }
}
