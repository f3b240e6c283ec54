//! How often messages may be sent: in a chat, and in all chats together.
//!
//! Each limit is a bucket of tokens kept as one number, the time at which it is full again (the generic cell rate
//! algorithm, ITU-T I.371). A bucket of `burst` tokens refilled once a `period` lets through at most
//! `burst + window / period` messages in any window.
//!
//! The buckets are handed over to the next image; the rates are not: they are those of whoever runs
//! ([`Limiter::limited_to`]).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pace::after;
use crate::clock::MonoNanos;

/// `burst` messages at once, and one each `period` in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::platform) struct Rate {
    pub(in crate::platform) period: Duration,
    pub(in crate::platform) burst: u32,
}

/// The largest burst of the bot as a whole: it makes up for timers that fire some milliseconds late.
const BURST_MAX: u32 = 10;
/// Full buckets are forgotten beyond this many, and beyond twice as many as there were that are not full.
const CHATS_KEPT: usize = 256;

impl Rate {
    /// At most 2 at once, 1 a second in the long run.
    pub(in crate::platform) const CHAT: Self = Self { period: Duration::from_secs(1), burst: 2 };
    /// At most 5 + 60/4 = 20 in any minute.
    pub(in crate::platform) const GROUP: Self = Self { period: Duration::from_secs(4), burst: 5 };

    /// At most `per_second` in any second, 1 at the least. The more of them may come at once, the fewer are left for the
    /// long run, which has `per_second - burst` a second: 5 + 25 of 30, 10 + 990 of 1000.
    pub(in crate::platform) fn overall(per_second: u32) -> Self {
        let per_second = per_second.max(1);
        let burst = per_second.isqrt().min(BURST_MAX);
        // Of a single one a second none is left for the long run: the next goes when the second is over.
        let refills = (per_second - burst).max(1);
        Self { period: Duration::from_nanos(1_000_000_000u64.div_ceil(refills.into())), burst }
    }
}

/// What Telegram lets a bot send in all for free, which is modest enough for any platform.
impl Default for Rate {
    fn default() -> Self {
        Self::overall(30)
    }
}

/// When the bucket is full again.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Bucket(MonoNanos);

impl Bucket {
    fn has_one(self, rate: &Rate) -> MonoNanos {
        let others = rate.period * (rate.burst - 1);
        MonoNanos((self.0.0).saturating_sub(u64::try_from(others.as_nanos()).unwrap_or(u64::MAX)))
    }

    fn take(&mut self, rate: &Rate, now: MonoNanos) {
        self.0 = after(self.0.max(now), rate.period);
    }
}

/// What a message may use of a chat's bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// The last token too.
    Urgent,
    /// Only what overflows, so that an urgent message after it finds a token.
    Spare,
}

/// The buckets of all chats and the one of the bot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Limiter {
    #[serde(default)]
    global: Bucket,
    #[serde(skip)]
    overall: Rate,
    #[serde(skip, default = "one_for_all")]
    of_chat: fn(&str) -> Rate,
    #[serde(default)]
    chats: BTreeMap<String, Bucket>,
    /// Looking for full buckets at every message would make each one cost as much as there are chats.
    #[serde(skip)]
    forget_at: usize,
}

fn one_for_all() -> fn(&str) -> Rate {
    |_| Rate::CHAT
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            global: Bucket::default(),
            overall: Rate::default(),
            of_chat: one_for_all(),
            chats: BTreeMap::new(),
            forget_at: 0,
        }
    }
}

impl Limiter {
    /// From now on a chat takes as many messages as `of_chat` says of it, and all together `overall`.
    pub(super) fn limited_to(&mut self, of_chat: fn(&str) -> Rate, overall: Rate) {
        (self.of_chat, self.overall) = (of_chat, overall);
    }

    /// When a message may be sent to `chat`.
    pub(super) fn ready(&self, chat: &str, haste: Haste) -> MonoNanos {
        let bucket = self.chats.get(chat).copied().unwrap_or_default();
        let chat_ready = match haste {
            Haste::Urgent => bucket.has_one(&(self.of_chat)(chat)),
            Haste::Spare => bucket.0,
        };
        chat_ready.max(self.global_ready())
    }

    /// When a request that counts for no chat may be sent.
    pub(super) fn global_ready(&self) -> MonoNanos {
        self.global.has_one(&self.overall)
    }

    /// Counts a message to `chat`.
    pub(super) fn sent(&mut self, chat: &str, now: MonoNanos) {
        self.global.take(&self.overall, now);
        if self.chats.len() >= self.forget_at {
            self.chats.retain(|_, bucket| bucket.0 > now);
            self.forget_at = CHATS_KEPT.max(2 * self.chats.len());
        }
        let rate = (self.of_chat)(chat);
        self.chats.entry(chat.to_owned()).or_default().take(&rate, now);
    }

    /// Counts a request that counts for no chat.
    pub(super) fn sent_global(&mut self, now: MonoNanos) {
        self.global.take(&self.overall, now);
    }

    /// The pause between two messages to `chat` in the long run.
    pub(super) fn period(&self, chat: &str) -> Duration {
        (self.of_chat)(chat).period
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(t: u64) -> MonoNanos {
        MonoNanos(t * 1_000_000)
    }

    /// Sends as soon as is allowed from each of `wishes` on, and returns when, in nanoseconds.
    fn run(per_second: u32, chats: &[String], wishes: &[(u64, usize, bool)]) -> Vec<(u64, usize)> {
        let mut limiter = Limiter::default();
        limiter
            .limited_to(|chat| if chat.starts_with('-') { Rate::GROUP } else { Rate::CHAT }, Rate::overall(per_second));
        let mut now = MonoNanos(1_000_000_000_000);
        let mut sent = Vec::new();
        for &(pause, chat, urgent) in wishes {
            let chat = chat % chats.len();
            let haste = if urgent { Haste::Urgent } else { Haste::Spare };
            now = MonoNanos(now.0 + pause).max(limiter.ready(&chats[chat], haste));
            limiter.sent(&chats[chat], now);
            sent.push((now.0, chat));
        }
        sent
    }

    fn most_in_window(times: &[u64], millis: u64) -> usize {
        let end = |from: u64| from + millis * 1_000_000;
        (0..times.len()).map(|i| times[i..].partition_point(|&t| t < end(times[i]))).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_the_guidance(
            wishes in proptest::collection::vec((0u64..3_000_000_000, 0usize..8, any::<bool>()), 1..200)
        ) {
            let chats = ["1", "2", "3", "4", "5", "6", "7", "-8"].map(str::to_owned);
            let sent = run(30, &chats, &wishes);
            let all: Vec<u64> = sent.iter().map(|s| s.0).collect();
            prop_assert!(most_in_window(&all, 1000) <= 30);
            for (at, chat) in chats.iter().enumerate() {
                let times: Vec<u64> = sent.iter().filter(|s| s.1 == at).map(|s| s.0).collect();
                let (a_minute, a_second) = if chat.starts_with('-') { (20, 5) } else { (62, 3) };
                prop_assert!(most_in_window(&times, 60_000) <= a_minute);
                prop_assert!(most_in_window(&times, 1000) <= a_second);
            }
        }

        #[test]
        fn no_second_holds_more_than_is_configured(
            per_second in prop_oneof![Just(30u32), 1..40u32, 1..=1000u32],
            pauses in proptest::collection::vec(prop_oneof![9 => Just(0), 1 => 0u64..400_000_000], 1..2500)
        ) {
            // So many that no chat's own limit is met.
            let chats: Vec<String> = (0..pauses.len()).map(|chat| chat.to_string()).collect();
            let wishes: Vec<_> = pauses.into_iter().enumerate().map(|(chat, pause)| (pause, chat, true)).collect();
            let all: Vec<u64> = run(per_second, &chats, &wishes).iter().map(|s| s.0).collect();
            prop_assert!(most_in_window(&all, 1000) <= usize::try_from(per_second).expect("small"));
        }
    }

    #[test]
    fn nearly_all_that_is_configured_can_be_used() {
        for (per_second, in_a_minute) in [(1, 60), (2, 60), (30, 25 * 60), (500, 490 * 60), (1000, 990 * 60)] {
            let chats: Vec<String> = (0..70_000).map(|chat| chat.to_string()).collect();
            let wishes: Vec<_> = (0..chats.len()).map(|chat| (0, chat, true)).take(in_a_minute).collect();
            let last = run(per_second, &chats, &wishes).pop().expect("some are sent").0;
            assert!(last <= 1_060_000_000_000, "{per_second} a second");
        }
    }

    #[test]
    fn the_rate_is_not_carried_to_the_next_image() {
        let mut limiter = Limiter::default();
        limiter.limited_to(|_| Rate::CHAT, Rate::overall(1000));
        limiter.sent("1", millis(10_000));
        let carried = serde_json::to_value(&limiter).expect("plain data");
        let adopted: Limiter = serde_json::from_value(carried).expect("the same");
        assert_eq!(adopted.overall.period, Duration::from_millis(40), "free until the configuration says otherwise");
        assert_eq!(adopted.ready("1", Haste::Spare), millis(11_000));
    }

    #[test]
    fn a_spare_message_leaves_a_token_for_an_urgent_one() {
        let mut limiter = Limiter::default();
        limiter.sent("1", millis(10_000));
        assert_eq!(limiter.ready("1", Haste::Spare), millis(11_000));
        assert!(limiter.ready("1", Haste::Urgent) <= millis(10_000));
        limiter.sent("1", millis(10_000));
        assert_eq!(limiter.ready("1", Haste::Urgent), millis(11_000));
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let mut limiter = Limiter::default();
        for chat in 0..2000u64 {
            limiter.sent(&chat.to_string(), millis(10_000 * (chat + 1)));
        }
        assert!(limiter.chats.len() <= CHATS_KEPT);
        for chat in 0..2000u64 {
            limiter.sent(&chat.to_string(), millis(30_000_000 + chat));
        }
        assert!(limiter.chats.len() <= 2 * 1001, "those of the last second, and no more than as many again");
    }
}
