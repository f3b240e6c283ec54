//! Spans, sizes and counts as people read them, in English.

use std::time::Duration;

/// The longest unit that gives a whole number: `3 min`, `2 h`, `5 d`.
pub fn span(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min", secs / 60),
        3600..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} d", secs / 86_400),
    }
}

/// `3 KiB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{} GiB", bytes / 1_073_741_824),
    }
}

/// `1 turn`, `3 turns`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// The beginning of a digest, by which people know it again.
pub fn short_digest(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_use_the_unit_that_fits() {
        let spans: Vec<String> = [0, 59, 60, 3599, 3600, 172_799, 172_800].map(Duration::from_secs).map(span).into();
        assert_eq!(spans, ["0 s", "59 s", "1 min", "59 min", "1 h", "47 h", "2 d"]);
        assert_eq!([1023, 1024, 1 << 20, 1 << 30].map(size), ["1023 B", "1 KiB", "1 MiB", "1 GiB"]);
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|number| count(number, "turn")), ["0 turns", "1 turn", "2 turns"]);
    }
}
