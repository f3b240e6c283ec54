//! Messages at a fixed rate, put into a Telegram test server, and their answers.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Samples;
use super::telegram::state::State;
use super::telegram::{Shared, Told};

/// Chats, and users, have ids from here on.
pub const FIRST_CHAT: i64 = 100_000;
/// Messages that the server remembers: more than can be edited.
const REMEMBERED: usize = 10_000;
/// How often messages that are due are put, and answers counted.
const TICK: Duration = Duration::from_millis(1);
/// Without an answer for so long what is missing is lost.
const LOST_AFTER: Duration = Duration::from_secs(15);
/// Nothing is waited for longer than this.
const DRAIN_MAX: Duration = Duration::from_secs(300);
/// The bot's.
pub const TOKEN: &str = "4242:the-token-of-the-bench-bot";

/// Messages put into the test server, and what came back.
pub struct Load {
    shared: Shared,
    pub url: String,
    /// The thread of the server.
    pub server: u32,
    told: mpsc::Receiver<Told>,
    chats: u32,
    /// When each message was put.
    put: Vec<Instant>,
    /// Whether the answer to each has arrived.
    arrived: Vec<bool>,
    /// When answers arrived, and to which message.
    answered: Vec<(Instant, usize)>,
    /// How many messages in the chats show the answer to each.
    shown: Vec<u32>,
    pub other: Vec<String>,
    pub calls: BTreeMap<String, u64>,
    /// The latest that a message was put after it was due.
    pub late: Duration,
}

impl Load {
    /// Starts the server.
    pub fn start(chats: u32) -> Result<Self> {
        let (sender, told) = mpsc::channel();
        let shared = Shared::new(State::new(TOKEN)).tell(sender);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no free port")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let (ready, started) = mpsc::channel();
        let serving = shared.clone();
        std::thread::Builder::new().name("telegram-server".into()).spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            ready.send(nix::unistd::gettid().as_raw())?;
            // It ends with the process: a bench has few of them, and without clients they do nothing.
            runtime.block_on(async {
                serving.serve(tokio::net::TcpListener::from_std(listener)?).await;
                Ok(())
            })
        })?;
        let server = u32::try_from(started.recv().context("the server does not start")?)?;
        Ok(Self {
            shared,
            url,
            server,
            told,
            chats,
            put: Vec::new(),
            arrived: Vec::new(),
            answered: Vec::new(),
            shown: Vec::new(),
            other: Vec::new(),
            calls: BTreeMap::new(),
            late: Duration::ZERO,
        })
    }

    /// Puts `count` messages at `rate` in a second. `each_second` is called with the time since the first.
    pub fn offer(&mut self, rate: u32, count: u32, mut each_second: impl FnMut(Duration) -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        let due = |n: u32| Duration::from_nanos(u64::from(n) * 1_000_000_000 / u64::from(rate));
        let (mut offered, mut seconds) = (0, 0);
        self.late = Duration::ZERO;
        while offered < count || begun.elapsed() < due(count) {
            let now = begun.elapsed();
            let from = offered;
            while offered < count && due(offered) <= now {
                offered += 1;
            }
            if offered > from {
                self.late = self.late.max(now - due(from));
                self.say(offered - from);
            }
            self.listen();
            if now >= Duration::from_secs(seconds) {
                seconds += 1;
                each_second(now)?;
                self.count(REMEMBERED);
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// One message each in the next `count` chats.
    fn say(&mut self, count: u32) {
        let (shared, put, chats) = (self.shared.clone(), &mut self.put, self.chats);
        shared.change(|state| {
            for _ in 0..count {
                let number = put.len();
                let place = number % usize::try_from(chats).expect("few");
                let chat = FIRST_CHAT + i64::try_from(place).expect("few");
                put.push(Instant::now());
                state.say(chat, chat, None, &text(number));
            }
        });
        self.arrived.resize(self.put.len(), false);
        self.shown.resize(self.put.len(), 0);
    }

    /// Takes what the server has been told.
    fn listen(&mut self) {
        while let Ok(Told { at, method, text }) = self.told.try_recv() {
            if let Some(number) = text.as_deref().and_then(number)
                && let Some(arrived) = self.arrived.get_mut(number)
                && !std::mem::replace(arrived, true)
            {
                self.answered.push((at, number));
            }
            *self.calls.entry(method).or_default() += 1;
        }
    }

    /// Waits for the answers that are still to come.
    pub fn drain(&mut self) {
        let begun = Instant::now();
        let (mut missing, mut since) = (self.missing(), begun);
        while missing > 0 && since.elapsed() < LOST_AFTER && begun.elapsed() < DRAIN_MAX {
            std::thread::sleep(TICK);
            self.listen();
            if self.missing() < missing {
                (missing, since) = (self.missing(), Instant::now());
            }
        }
        // What comes twice may come late.
        std::thread::sleep(Duration::from_millis(500));
        self.listen();
        self.count(0);
    }

    /// Counts what all messages but the last `remembered` show, which are not looked at again.
    fn count(&mut self, remembered: usize) {
        for message in self.shared.lock().forget(remembered) {
            match number(message.text()).and_then(|number| self.shown.get_mut(number)) {
                Some(shown) => *shown += 1,
                None => self.other.push(message.text().to_owned()),
            }
        }
    }

    /// How many messages are not answered.
    pub fn missing(&self) -> usize {
        self.put.len() - self.answered.len()
    }

    /// How many messages were put.
    pub fn put(&self) -> usize {
        self.put.len()
    }

    /// How many messages' answers are in the chats never, and more than once.
    pub fn lost_and_doubled(&self) -> (usize, usize) {
        let count = |what: fn(u32) -> bool| self.shown.iter().filter(|shown| what(**shown)).count();
        (count(|shown| shown == 0), count(|shown| shown > 1))
    }

    /// When the last answer arrived.
    pub fn last_answer(&self) -> Option<Instant> {
        self.answered.iter().map(|(at, _)| *at).max()
    }

    /// Answers in a second.
    pub fn rate_between(&self, from: Instant, to: Instant) -> f64 {
        let answers = self.answered.iter().filter(|(at, _)| (from..to).contains(at)).count();
        f64::from(u32::try_from(answers).unwrap_or(u32::MAX)) / (to - from).as_secs_f64()
    }

    /// Of the messages from the `first` on.
    pub fn latency(&self, first: usize) -> Samples {
        let mut samples = Samples::default();
        for (at, number) in self.answered.iter().filter(|(_, number)| *number >= first) {
            samples.push(*at - self.put[*number]);
        }
        samples
    }
}

/// The full stop tells a whole answer from its beginning.
fn text(number: usize) -> String {
    format!("message {number}.")
}

/// Which message this is the answer to.
fn number(shown: &str) -> Option<usize> {
    shown.strip_prefix("message ")?.strip_suffix('.')?.parse().ok()
}
