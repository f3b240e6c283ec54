//! How often messages may be sent: about one a second in a chat, 20 a minute in a group, 30 a second in all
//! (<https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this>).
//!
//! Each limit is a bucket of tokens kept as one number, the time at which it is full again (the generic cell rate
//! algorithm, ITU-T I.371). A bucket of `burst` tokens refilled once a `period` lets through at most
//! `burst + window / period` messages in any window.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pace::after;
use crate::clock::MonoNanos;

struct Rate {
    period: Duration,
    burst: u32,
}

/// At most 2 at once, 1 a second in the long run.
const CHAT: Rate = Rate { period: Duration::from_secs(1), burst: 2 };
/// At most 5 + 60/4 = 20 in any minute.
const GROUP: Rate = Rate { period: Duration::from_secs(4), burst: 5 };
/// At most 5 + 1000/40 = 30 in any second.
const GLOBAL: Rate = Rate { period: Duration::from_millis(40), burst: 5 };
/// Full buckets are forgotten beyond this many.
const CHATS_KEPT: usize = 256;

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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Limiter {
    #[serde(default)]
    global: Bucket,
    #[serde(default)]
    chats: BTreeMap<String, Bucket>,
}

impl Limiter {
    /// When a message may be sent to `chat`.
    pub(super) fn ready(&self, chat: &str, haste: Haste) -> MonoNanos {
        let bucket = self.chats.get(chat).copied().unwrap_or_default();
        let chat_ready = match haste {
            Haste::Urgent => bucket.has_one(rate(chat)),
            Haste::Spare => bucket.0,
        };
        chat_ready.max(self.global_ready())
    }

    /// When a request that counts for no chat may be sent.
    pub(super) fn global_ready(&self) -> MonoNanos {
        self.global.has_one(&GLOBAL)
    }

    /// Counts a message to `chat`.
    pub(super) fn sent(&mut self, chat: &str, now: MonoNanos) {
        self.global.take(&GLOBAL, now);
        if self.chats.len() >= CHATS_KEPT {
            self.chats.retain(|_, bucket| bucket.0 > now);
        }
        self.chats.entry(chat.to_owned()).or_default().take(rate(chat), now);
    }

    /// Counts a request that counts for no chat.
    pub(super) fn sent_global(&mut self, now: MonoNanos) {
        self.global.take(&GLOBAL, now);
    }

    /// The pause between two messages to `chat` in the long run.
    pub(super) fn period(chat: &str) -> Duration {
        rate(chat).period
    }
}

/// Groups, supergroups and channels have negative ids.
fn rate(chat: &str) -> &'static Rate {
    if chat.starts_with('-') { &GROUP } else { &CHAT }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(t: u64) -> MonoNanos {
        MonoNanos(t * 1_000_000)
    }

    /// Sends as soon as is allowed from each of `wishes` on, and returns when, in milliseconds.
    fn run(chats: &[&str], wishes: &[(u64, usize, bool)]) -> Vec<(u64, usize)> {
        let mut limiter = Limiter::default();
        let mut now = 1_000_000;
        let mut sent = Vec::new();
        for &(pause, chat, urgent) in wishes {
            let chat = chat % chats.len();
            let haste = if urgent { Haste::Urgent } else { Haste::Spare };
            now = (now + pause).max(limiter.ready(chats[chat], haste).0.div_ceil(1_000_000));
            limiter.sent(chats[chat], millis(now));
            sent.push((now, chat));
        }
        sent
    }

    fn most_in_window(times: &[u64], window: u64) -> usize {
        (0..times.len()).map(|i| times[i..].iter().take_while(|&&t| t < times[i] + window).count()).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_the_guidance(
            wishes in proptest::collection::vec((0u64..3000, 0usize..8, any::<bool>()), 1..200)
        ) {
            let chats = ["1", "2", "3", "4", "5", "6", "7", "-8"];
            let sent = run(&chats, &wishes);
            let all: Vec<u64> = sent.iter().map(|s| s.0).collect();
            prop_assert!(most_in_window(&all, 1000) <= 30);
            for (at, chat) in chats.iter().enumerate() {
                let times: Vec<u64> = sent.iter().filter(|s| s.1 == at).map(|s| s.0).collect();
                let (a_minute, a_second) = if chat.starts_with('-') { (20, 5) } else { (62, 3) };
                prop_assert!(most_in_window(&times, 60_000) <= a_minute);
                prop_assert!(most_in_window(&times, 1000) <= a_second);
            }
        }
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
    }
}
