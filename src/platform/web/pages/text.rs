//! Times, spans and sizes as pages show them.

use std::time::Duration;

use maud::{Markup, html};

use crate::clock::UnixMillis;

/// RFC 3339 in UTC, to the second. What no calendar has is the epoch.
pub(super) fn rfc3339(at: UnixMillis) -> String {
    let seconds = jiff::Timestamp::from_second(at.0.div_euclid(1000)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    seconds.to_string()
}

/// How long ago something was, which the script keeps up to date.
pub(super) fn ago(then: UnixMillis, now: UnixMillis) -> Markup {
    let at = rfc3339(then);
    html! { time datetime=(at) title=(at) data-ago { (span(now.since(then))) " ago" } }
}

/// How long something has lasted, which the script keeps up to date.
pub(super) fn lasting(since: UnixMillis, now: UnixMillis) -> Markup {
    let at = rfc3339(since);
    html! { time datetime=(at) title={ "since " (at) } data-for { (span(now.since(since))) } }
}

/// How long until something, which the script keeps up to date.
pub(super) fn until(then: UnixMillis, now: UnixMillis) -> Markup {
    let at = rfc3339(then);
    html! { time datetime=(at) title=(at) data-in { "in " (span(then.since(now))) } }
}

/// The longest unit that gives a whole number: `3 min`, `2 h`, `5 d`.
pub(super) fn span(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min", secs / 60),
        3600..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} d", secs / 86_400),
    }
}

/// What is measured in milliseconds, with two digits that mean something.
pub(super) fn fine(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..10_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        10_000..10_000_000 => format!("{} ms", us / 1000),
        _ => span(Duration::from_micros(us)),
    }
}

pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

/// `1 turn`, `3 turns`.
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// The first digits of a digest.
pub(super) fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_use_the_unit_that_fits() {
        let spans: Vec<String> = [0, 59, 60, 3599, 3600, 172_799, 172_800].map(Duration::from_secs).map(span).into();
        assert_eq!(spans, ["0 s", "59 s", "1 min", "59 min", "1 h", "47 h", "2 d"]);
        assert_eq!([1023, 1024, 1 << 20].map(size), ["1023 B", "1 KiB", "1 MiB"].map(str::to_owned));
        assert_eq!([999, 4120, 41_200, 10_000_000].map(fine), ["999 µs", "4.1 ms", "41 ms", "10 s"]);
    }

    #[test]
    fn a_time_says_when_and_how_long_ago() {
        let (then, now) = (UnixMillis(1_700_000_000_000), UnixMillis(1_700_000_180_500));
        assert_eq!(
            ago(then, now).into_string(),
            r#"<time datetime="2023-11-14T22:13:20Z" title="2023-11-14T22:13:20Z" data-ago>3 min ago</time>"#
        );
        assert_eq!(rfc3339(UnixMillis(i64::MAX)), "1970-01-01T00:00:00Z");
    }
}
