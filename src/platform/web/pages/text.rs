//! Times, spans and sizes as pages show them.

use std::time::Duration;

use maud::{Markup, html};

use crate::clock::UnixMillis;
use crate::units::span;

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

/// What is measured in milliseconds, with two digits that mean something.
pub(super) fn fine(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..10_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        10_000..10_000_000 => format!("{} ms", us / 1000),
        _ => span(Duration::from_micros(us)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_have_two_digits_that_mean_something() {
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
