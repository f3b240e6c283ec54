//! What a soak does and in which order, as a pure function of its seed.
//!
//! Handoffs and kills come as cards of a deck that is shuffled: a deck has as many of each as were asked for, and when
//! it is used up another one follows. So a run that has to go on goes on with the same mixture.

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): any spread will do, as long as
/// it is the same for ever.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The one of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// An index of a slice with `length` elements, which is not 0.
    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).unwrap_or(u64::MAX))).unwrap_or(0)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// How a handoff is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Chat,
    CommandLine,
    /// SIGUSR1, which asks for a restart and for nothing else.
    Signal,
}

/// Which handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handoff {
    Restart,
    /// To the other one of the two versions.
    Swap,
}

/// Something that happens to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Handoff {
        handoff: Handoff,
        way: Way,
    },
    /// SIGKILL of the main process, whatever it does.
    Kill,
    /// The same, this many milliseconds after a handoff was asked for.
    KillInHandoff {
        handoff: Handoff,
        way: Way,
        after_ms: u64,
    },
    /// SIGKILL of an agent's process: of the one with this number, or else of the next one that runs.
    KillAgent(usize),
}

/// A message of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Say {
    /// The number of the chat.
    pub chat: usize,
    pub what: What,
}

/// What the agent is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The same text.
    Echo,
    /// So many pieces, one every so many milliseconds.
    Stream { chunks: usize, delay_ms: u64 },
}

/// One step: some messages, a pause, an act, and messages while it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub before: Vec<Say>,
    pub pause_ms: u64,
    pub act: Act,
    pub during: Vec<Say>,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    pub handoffs: usize,
    pub kills: usize,
    pub agent_kills: usize,
    pub chats: usize,
    pub agents: usize,
}

/// Steps without end.
pub struct Schedule {
    random: Random,
    amount: Amount,
    deck: Vec<Act>,
}

impl Schedule {
    /// The one of `seed`. Nothing but its arguments is in it.
    pub fn new(seed: u64, amount: Amount) -> Self {
        Self { random: Random::new(seed), amount, deck: Vec::new() }
    }

    fn shuffle_deck(&mut self) {
        let Amount { handoffs, kills, agent_kills, agents, .. } = self.amount;
        for _ in 0..handoffs.max(1) {
            let (handoff, way) = self.handoff();
            self.deck.push(Act::Handoff { handoff, way });
        }
        for _ in 0..kills {
            let act = if self.random.one_in(2) {
                let (handoff, way) = self.handoff();
                Act::KillInHandoff { handoff, way, after_ms: self.random.below(31) }
            } else {
                Act::Kill
            };
            self.deck.push(act);
        }
        for _ in 0..agent_kills {
            let agent = self.random.index(agents);
            self.deck.push(Act::KillAgent(agent));
        }
        // Fisher and Yates.
        for last in (1..self.deck.len()).rev() {
            let other = self.random.index(last + 1);
            self.deck.swap(last, other);
        }
    }

    fn handoff(&mut self) -> (Handoff, Way) {
        let handoff = if self.random.one_in(4) { Handoff::Swap } else { Handoff::Restart };
        let ways = match handoff {
            Handoff::Restart => &[Way::Chat, Way::CommandLine, Way::Signal][..],
            Handoff::Swap => &[Way::Chat, Way::CommandLine][..],
        };
        (handoff, ways[self.random.index(ways.len())])
    }

    fn says(&mut self, bound: u64) -> Vec<Say> {
        let count = self.random.below(bound);
        (0..count).map(|_| self.say()).collect()
    }

    fn say(&mut self) -> Say {
        let chat = self.random.index(self.amount.chats);
        let what = match self.random.below(20) {
            // More than fits into one message of Telegram.
            0 => What::Stream { chunks: 110, delay_ms: 20 + self.random.below(11) },
            1..=4 => What::Stream { chunks: 10 + self.random.index(40), delay_ms: 5 + self.random.below(36) },
            _ => What::Echo,
        };
        Say { chat, what }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.deck.is_empty() {
            self.shuffle_deck();
        }
        let act = self.deck.pop()?;
        let before = self.says(5);
        // Some at once, some when all is quiet again.
        let pause_ms = if self.random.one_in(4) { 0 } else { self.random.below(300) };
        let during = self.says(3);
        Some(Step { before, pause_ms, act, during })
    }
}
