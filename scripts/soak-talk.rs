//! The chats of a soak: what was said in them, and what became of it.

use crate::bed::USER;
use crate::gateway::{expected_stream, stream_prompt};
use crate::judge::{Asked, Shown, Verdict, judge};
use crate::schedule::{Say, What};
use crate::telegram::TelegramServer;
use crate::telegram::state::{Message, Version, now_ms};

/// The id of the first chat.
const CHATS: i64 = 7000;
/// The least size of a piece of a stream. Each stream of a chat has another, so that no two are the same.
const CHUNK_BYTES: usize = 40;
const CHUNK_SIZES: usize = 60;

/// Everything that was said.
pub struct Talk {
    chats: Vec<Chat>,
}

#[derive(Default)]
struct Chat {
    asked: Vec<Asked>,
    streams: usize,
}

impl Talk {
    pub fn new(chats: usize) -> Self {
        Self { chats: (0..chats).map(|_| Chat::default()).collect() }
    }

    /// The id of a chat.
    pub fn id(chat: usize) -> i64 {
        CHATS + i64::try_from(chat).unwrap_or_default()
    }

    /// Says one more thing.
    pub fn say(&mut self, telegram: &TelegramServer, say: Say) {
        let chat = &mut self.chats[say.chat];
        let (text, answer) = match say.what {
            What::Echo => {
                let text = format!("message {} in chat {}", chat.asked.len() + 1, say.chat + 1);
                (text.clone(), text)
            }
            What::Stream { chunks, delay_ms } => {
                let bytes = CHUNK_BYTES + chat.streams % CHUNK_SIZES;
                // Also when all sizes were there.
                let chunks = chunks + chat.streams / CHUNK_SIZES;
                chat.streams += 1;
                (stream_prompt(chunks, bytes, delay_ms), expected_stream(chunks, bytes))
            }
        };
        chat.asked.push(Asked { text: text.clone(), answer, at_ms: now_ms() });
        telegram.say(USER, Self::id(say.chat), &text);
    }

    /// A last message in every chat: what is before it is answered before it.
    pub fn say_last(&mut self, telegram: &TelegramServer) {
        for chat in 0..self.chats.len() {
            self.say(telegram, Say { chat, what: What::Echo });
        }
    }

    /// What became of everything so far.
    pub fn judge(&self, telegram: &TelegramServer, kills: &[u64]) -> Verdict {
        let mut all = Verdict::default();
        for (number, chat) in self.chats.iter().enumerate() {
            let mut verdict = judge(&chat.asked, &shown(telegram, Self::id(number)), kills);
            for fault in &mut verdict.faults {
                fault.chat = number;
                fault.what = format!("chat {}: {}", number + 1, fault.what);
            }
            all.add(verdict);
        }
        all
    }
}

/// What a chat shows, for people: when each message came and was last edited, its length, and how it begins and ends.
pub fn transcript(telegram: &TelegramServer, chat: usize) -> String {
    const CHARS: usize = 40;
    telegram.look(|state| {
        let line = |message: &Message| {
            let (text, times) = (message.text(), &message.versions);
            let at = |version: Option<&Version>| version.map_or(0, |version| version.at_ms);
            let start: String = text.chars().take(CHARS).collect();
            let end: String = text.chars().skip(text.chars().count().saturating_sub(CHARS).max(CHARS)).collect();
            format!("    {}..{} {} bytes {start:?} … {end:?}\n", at(times.first()), at(times.last()), text.len())
        };
        state.in_chat(Talk::id(chat)).map(line).collect()
    })
}

/// What a chat shows.
pub fn shown(telegram: &TelegramServer, chat: i64) -> Vec<Shown> {
    telegram.look(|state| {
        let shown = state.in_chat(chat).map(|message| Shown {
            text: message.text().to_owned(),
            at_ms: message.versions.first().map_or(0, |version| version.at_ms),
        });
        shown.collect()
    })
}
