//! What goes on while something goes wrong: a turn that streams, and messages, each in a chat of its own.

use std::time::{Duration, Instant};

use crate::bed::USER;
use crate::gateway::{expected_stream, stream_prompt};
use crate::telegram::TelegramServer;

const STREAM_CHAT: i64 = 7000;
/// The first of the chats with one message each.
const CHATS: i64 = 100_000;
/// The stream: so many pieces of so many bytes, one every so many milliseconds.
const CHUNKS: usize = 60;
const CHUNK_BYTES: usize = 50;
const DELAY_MS: u64 = 20;
/// From one message to the next.
const PERIOD: Duration = Duration::from_millis(100);
/// The most messages of a row: it may wait for long.
const MESSAGES_MAX: i64 = 60;
/// The longest wait for answers once everything is over.
const ANSWERS: Duration = Duration::from_secs(8);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(20);

/// What was asked so far.
#[derive(Default)]
pub struct Load {
    streams: bool,
    messages: i64,
    said: Option<Instant>,
}

/// What became of the turn that streamed.
#[derive(Debug, PartialEq, Eq)]
pub enum Stream {
    /// There was none.
    None,
    /// Every byte is as the agent said it.
    Whole,
    /// It is not, and the chat was told so.
    Told,
    Lost,
}

/// What became of everything.
pub struct Answers {
    pub lost: usize,
    /// Which of them.
    pub examples: String,
    /// Answered more than once, without a word about it.
    pub twice: usize,
    pub stream: Stream,
}

impl Load {
    /// Lets a turn stream, if that is wanted, and says the first things.
    pub async fn begin(&mut self, telegram: &TelegramServer, streams: bool) {
        self.streams = streams;
        if streams {
            telegram.say(USER, STREAM_CHAT, &stream_prompt(CHUNKS, CHUNK_BYTES, DELAY_MS));
            let start = Instant::now();
            while telegram.texts(STREAM_CHAT).is_empty() && start.elapsed() < ANSWERS {
                tokio::time::sleep(LOOK).await;
            }
        }
        self.say(telegram);
        self.say(telegram);
    }

    /// Says something if it is time.
    pub fn tick(&mut self, telegram: &TelegramServer) {
        if self.messages < MESSAGES_MAX && self.said.is_none_or(|said| said.elapsed() >= PERIOD) {
            self.say(telegram);
        }
    }

    fn say(&mut self, telegram: &TelegramServer) {
        telegram.say(USER, CHATS + self.messages, &text(self.messages));
        self.messages += 1;
        self.said = Some(Instant::now());
    }

    /// Says a last thing and waits for what is still to come.
    pub async fn finish(&mut self, telegram: &TelegramServer) -> Answers {
        self.say(telegram);
        let start = Instant::now();
        let mut answers = self.look(telegram);
        while (answers.lost > 0 || answers.stream == Stream::Lost) && start.elapsed() < ANSWERS {
            tokio::time::sleep(LOOK).await;
            answers = self.look(telegram);
        }
        answers
    }

    fn look(&self, telegram: &TelegramServer) -> Answers {
        let mut answers = Answers { lost: 0, examples: String::new(), twice: 0, stream: self.stream(telegram) };
        for number in 0..self.messages {
            let texts = telegram.texts(CHATS + number);
            // A reply that may have been delivered already says so before it.
            if !texts.iter().any(|shown| shown.ends_with(&text(number))) && !is_told(&texts) {
                answers.lost += 1;
                answers.examples = format!("'{}' is answered by {texts:?}", text(number));
            }
            answers.twice += usize::from(texts.iter().filter(|shown| **shown == text(number)).count() > 1);
        }
        answers
    }

    fn stream(&self, telegram: &TelegramServer) -> Stream {
        let texts = telegram.texts(STREAM_CHAT);
        match () {
            () if !self.streams => Stream::None,
            () if texts.concat() == expected_stream(CHUNKS, CHUNK_BYTES) => Stream::Whole,
            () if is_told(&texts) => Stream::Told,
            () => Stream::Lost,
        }
    }
}

/// Whether a chat was told that its answer is not what it should be.
fn is_told(texts: &[String]) -> bool {
    texts.iter().any(|text| text.contains('⚠') || text.contains('❌'))
}

fn text(number: i64) -> String {
    format!("message {number}")
}
