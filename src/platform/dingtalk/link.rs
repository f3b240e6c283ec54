//! How messages come in: from conduits, of which one is in use and others are on their way out.
//!
//! **Invariants**
//! - A frame is acknowledged to its conduit only after the store has its message. If the store cannot, the conduit is
//!   greeted again later and tells everything that is open anew.
//! - A conduit is left only for one that is connected, unless the platform is paused or stopped.
//! - How a conduit is connected is heard also while no messages are taken in because too many wait to be answered: an
//!   update that comes then would never be found healthy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PLATFORM;
use super::conduit::handle::{Conduit, Said};
use super::conduit::wire::Account;
use super::frame::{self, BOT_MESSAGE, Frame, Kind};
use super::message;
use super::sender::DingTalkSender;
use crate::chat::{Inbound, LinkState};
use crate::clock::MonoNanos;
use crate::config::DingTalkConfig;
use crate::id::TurnId;
use crate::platform::delivery::pace::{after, back_off};
use crate::platform::link::{Kept, Link, NamedFd, Unsent, Way, retrying};
use crate::report::Chain;
use crate::store::{Accepted, Store};

/// Frames that are dealt with together.
const BATCH: usize = 64;
/// How long a fresh conduit may take to be connected; then the old one is kept.
const FRESH_DEADLINE: Duration = Duration::from_secs(60);
/// The names of a conduit's fds, with its number before.
const SOCKET: &str = "conduit";
const PIDFD: &str = "conduit.pidfd";

/// What the next image needs: which account it is. All else is with the conduits and in the store.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Saved {}

/// What [`DingTalkLink::heard`] brings.
pub(super) struct Heard {
    number: u64,
    said: Said,
}

/// See the module's documentation.
pub(super) struct DingTalkLink {
    /// What conduits run.
    program: PathBuf,
    account: Account,
    sender: DingTalkSender,
    /// By number; later ones are higher.
    conduits: BTreeMap<u64, Conduit>,
    next_number: u64,
    /// The one that takes over from the one before it, and until when it may do so.
    fresh: Option<(u64, MonoNanos)>,
    kept: Vec<Kept>,
    state: LinkState,
    /// Whether frames may be read.
    listens: bool,
    /// Whether nothing may be read at all.
    hushed: bool,
    /// Whether a connection is wanted.
    paused: bool,
    failures: u32,
    /// When a conduit is started, or greeted again.
    again_at: Option<MonoNanos>,
}

impl DingTalkLink {
    pub(super) fn new(config: &DingTalkConfig, program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            account: Account::of(config),
            sender: DingTalkSender::new(config),
            conduits: BTreeMap::new(),
            next_number: 1,
            fresh: None,
            kept: Vec::new(),
            state: LinkState::Connecting,
            listens: false,
            hushed: false,
            paused: false,
            failures: 0,
            again_at: None,
        }
    }

    /// The conduit in use: the one that is not closing, and of two the older, until the fresh one has taken over.
    fn current(&self) -> Option<u64> {
        self.conduits.iter().find(|(_, conduit)| !conduit.is_closing()).map(|(number, _)| *number)
    }

    fn start(&mut self) -> Option<u64> {
        match Conduit::spawn(&self.program, self.account.clone()) {
            Ok(conduit) => {
                let number = self.next_number;
                self.next_number += 1;
                if let Ok((socket, pidfd)) = conduit.fds() {
                    self.kept.push(Kept { name: format!("{number}.{SOCKET}"), fd: Some(socket) });
                    self.kept.push(Kept { name: format!("{number}.{PIDFD}"), fd: Some(pidfd) });
                }
                self.conduits.insert(number, conduit);
                Some(number)
            }
            Err(error) => {
                self.failed("conduit", format!("the process for the connection cannot be started: {error}"));
                None
            }
        }
    }

    fn failed(&mut self, code: &str, message: String) {
        self.failures = self.failures.saturating_add(1);
        let wait = back_off(self.failures);
        self.again_at = Some(after(MonoNanos::now(), wait));
        tracing::warn!(code, error = message, "DingTalk is in trouble and is tried again");
        self.state = retrying(code, message, wait);
    }

    fn forget(&mut self, number: u64, why: &str) {
        let Some(conduit) = self.conduits.remove(&number) else { return };
        for what in [SOCKET, PIDFD] {
            self.kept.push(Kept { name: format!("{number}.{what}"), fd: None });
        }
        let (closing, how) = (conduit.is_closing(), conduit.reap());
        if self.fresh.is_some_and(|(fresh, _)| fresh == number) {
            self.fresh = None;
        }
        if closing {
            tracing::info!(number, "a connection that was taken over is closed");
        } else if self.current().is_none() {
            self.failed("conduit", format!("the process of the connection has ended ({how}): {why}"));
        }
    }

    /// Takes the state of the conduit in use, and lets a fresh one take over that is connected.
    fn changed(&mut self) {
        if let Some((number, _)) = self.fresh
            && self.conduits.get(&number).is_some_and(|fresh| *fresh.link() == LinkState::Connected)
        {
            tracing::info!(number, "a fresh connection takes over");
            self.fresh = None;
            for (_, old) in self.conduits.iter_mut().filter(|(other, _)| **other < number) {
                old.close();
            }
        }
        if let Some(current) = self.current().and_then(|number| self.conduits.get(&number))
            && current.is_welcome()
            && self.again_at.is_none()
        {
            self.state = current.link().clone();
            if self.state == LinkState::Connected {
                self.failures = 0;
            }
        }
    }

    /// Stores the messages in these frames, and acknowledges what is stored.
    async fn take_frames(&mut self, number: u64, frames: Vec<(u64, String)>, store: &Store) -> Vec<(TurnId, Inbound)> {
        let read: Vec<(u64, Push)> = frames.into_iter().map(|(id, text)| (id, self.read(&text))).collect();
        // Queued in order, waited for together: they share a commit.
        let accepts = read.iter().map(|(_, push)| async move {
            match &push.inbound {
                Some(inbound) => store.accept(inbound).await.map(Some),
                None => Ok(None),
            }
        });
        let accepted = futures_util::future::join_all(accepts).await;
        let (mut new, mut failure) = (Vec::new(), None);
        for ((id, Push { inbound, reply }), outcome) in read.into_iter().zip(accepted) {
            match (outcome, inbound) {
                (Ok(Some(Accepted::New(turn))), Some(inbound)) => new.push((turn, *inbound)),
                (Ok(Some(Accepted::Duplicate)), _) => tracing::debug!("a message came again and is dropped"),
                (Ok(_), _) => {}
                (Err(error), _) => {
                    failure = Some(error);
                    continue;
                }
            }
            if let Some(conduit) = self.conduits.get_mut(&number) {
                conduit.acknowledge(id, reply);
            }
        }
        if let Some(error) = failure {
            // Once there is room again, messages must not wait for long.
            self.failures = 0;
            self.failed("store", Chain(&error).to_string());
        }
        new
    }

    fn read(&self, text: &str) -> Push {
        // It was one before it was passed on.
        let Ok(frame) = Frame::parse(text) else { return Push { inbound: None, reply: String::new() } };
        let id = frame.message_id.as_deref().unwrap_or_default();
        let (inbound, code, data) = match (frame.kind, frame.topic.as_str()) {
            (Kind::Callback, BOT_MESSAGE) => {
                (message::read(&frame.data, &self.account.client_id), frame::OK, r#"{"response":null}"#)
            }
            (Kind::Callback, _) => (None, frame::NO_SUCH_TOPIC, "{}"),
            (Kind::Event, _) => (None, frame::OK, r#"{"status":"SUCCESS"}"#),
            (Kind::System | Kind::Other, _) => (None, frame::OK, ""),
        };
        Push { inbound: inbound.map(Box::new), reply: frame::reply(id, code, data) }
    }

    /// Waits for any conduit that `counts` to say something.
    async fn any_said(&mut self, counts: impl Fn(&Conduit) -> bool) -> Heard {
        let counted = self.conduits.iter_mut().filter(|(_, conduit)| counts(conduit));
        let saying = counted.map(|(number, conduit)| {
            let number = *number;
            Box::pin(async move { Heard { number, said: conduit.hear().await } })
        });
        let saying: Vec<_> = saying.collect();
        if saying.is_empty() {
            return std::future::pending().await;
        }
        futures_util::future::select_all(saying).await.0
    }
}

/// What is in a frame.
struct Push {
    /// A message for the bot.
    inbound: Option<Box<Inbound>>,
    /// What DingTalk is answered once it is durable.
    reply: String,
}

impl Link for DingTalkLink {
    const PLATFORM: &'static str = PLATFORM;
    type Heard = Heard;
    type Sender = DingTalkSender;
    type Saved = Saved;

    fn account(&self) -> &str {
        &self.account.client_id
    }

    fn restore(&mut self, _saved: Saved, fds: Vec<NamedFd>) {
        let mut fds: BTreeMap<String, _> = fds.into_iter().collect();
        let numbers: Vec<u64> =
            fds.keys().filter_map(|name| name.strip_suffix(&format!(".{SOCKET}"))?.parse().ok()).collect();
        for number in numbers {
            self.next_number = self.next_number.max(number + 1);
            let [socket, pidfd] = [SOCKET, PIDFD].map(|what| fds.remove(&format!("{number}.{what}")));
            let adopted = socket.zip(pidfd).map(|(socket, pidfd)| Conduit::adopt(socket, pidfd, self.account.clone()));
            match adopted {
                Some(Ok(conduit)) => drop(self.conduits.insert(number, conduit)),
                Some(Err(error)) => {
                    tracing::warn!(number, %error, "a connection that was left cannot be taken over");
                    for what in [SOCKET, PIDFD] {
                        self.kept.push(Kept { name: format!("{number}.{what}"), fd: None });
                    }
                }
                None => {}
            }
        }
        // Of two that are open the newer is the fresh one.
        let open: Vec<u64> = self.conduits.keys().copied().collect();
        if let [_, .., newest] = open[..] {
            self.fresh = Some((newest, after(MonoNanos::now(), FRESH_DEADLINE)));
        }
    }

    async fn load(&mut self, _store: &Store) {}

    fn advance(&mut self, now: MonoNanos, may_hear: bool) -> Option<MonoNanos> {
        self.listens = may_hear;
        if may_hear {
            (self.hushed, self.paused) = (false, false);
        }
        if let Some((number, until)) = self.fresh
            && until <= now
        {
            tracing::warn!("a fresh connection did not come up: the one before it is kept");
            self.fresh = None;
            if let Some(late) = self.conduits.get_mut(&number).filter(|late| *late.link() != LinkState::Connected) {
                late.close();
            }
        }
        if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
            // The store may take again what it could not.
            for conduit in self.conduits.values_mut() {
                conduit.greet_again(self.account.clone());
            }
        }
        if self.current().is_none() && !self.paused && self.again_at.is_none() {
            self.start();
        }
        self.again_at.into_iter().chain(self.fresh.map(|(_, until)| until)).min()
    }

    async fn heard(&mut self) -> Heard {
        match (self.listens, self.hushed) {
            (true, _) => self.any_said(|_| true).await,
            // Frames come after the word that there is a connection; a batch of them may come with it.
            (false, false) => self.any_said(|conduit| *conduit.link() != LinkState::Connected).await,
            (false, true) => std::future::pending().await,
        }
    }

    async fn take(&mut self, Heard { number, said }: Heard, store: &Store) -> Vec<(TurnId, Inbound)> {
        let (mut frames, mut gone, mut next) = (Vec::new(), None, Some(said));
        while let Some(said) = next.take() {
            match said {
                Said::Frame { id, text } => frames.push((id, text)),
                Said::Changed => {}
                Said::Gone(why) => gone = Some(why),
            }
            if gone.is_none() && frames.len() < BATCH {
                next = self.conduits.get_mut(&number).and_then(Conduit::hear_more);
            }
        }
        let new = if frames.is_empty() { Vec::new() } else { self.take_frames(number, frames, store).await };
        if let Some(why) = gone {
            self.forget(number, &why);
        }
        self.changed();
        new
    }

    fn hush(&mut self) {
        (self.listens, self.hushed) = (false, true);
    }

    fn way(&self) -> Way<DingTalkSender> {
        Way::Open(self.sender.clone())
    }

    fn refused(&mut self, why: &Unsent) {
        tracing::error!(error = why.why, "DingTalk refuses the account");
        self.state = LinkState::Fatal {
            error_code: why.code.clone(),
            error_message: format!(
                "{}; check client_id and client_secret in [platforms.dingtalk], then reload",
                why.why
            ),
        };
    }

    fn state(&self) -> &LinkState {
        &self.state
    }

    fn save(&self) -> Saved {
        Saved {}
    }

    fn fds(&self) -> std::io::Result<Vec<NamedFd>> {
        let mut fds = Vec::new();
        for (number, conduit) in &self.conduits {
            let (socket, pidfd) = conduit.fds()?;
            fds.push((format!("{number}.{SOCKET}"), socket));
            fds.push((format!("{number}.{PIDFD}"), pidfd));
        }
        Ok(fds)
    }

    fn take_kept(&mut self) -> Vec<Kept> {
        std::mem::take(&mut self.kept)
    }

    /// The connection is still of the image before: one of this image takes over.
    fn proven(&mut self) {
        if self.fresh.is_none() && self.current().is_some() {
            self.fresh = self.start().map(|number| (number, after(MonoNanos::now(), FRESH_DEADLINE)));
        }
    }

    fn pause(&mut self) {
        self.hush();
        self.paused = true;
        // What it is afterwards is not known yet.
        self.state = LinkState::Connecting;
        self.conduits.values_mut().for_each(Conduit::close);
    }

    /// What is on its way is stored; whoever serves next answers it.
    async fn leave(&mut self, store: &Store) {
        self.conduits.values_mut().for_each(Conduit::close);
        while !self.conduits.is_empty() {
            let heard = self.any_said(|_| true).await;
            let _stored = self.take(heard, store).await;
        }
    }
}
