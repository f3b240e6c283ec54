//! The conduit itself.
//!
//! **Invariants**
//! - A frame is held until it is acknowledged; from [`HELD_MAX`] on the WebSockets are not read, and DingTalk waits.
//! - There is one connection that is not going, or one is being opened, or a moment for that is set; unless the conduit
//!   is to close.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use reqwest::Client;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::open::{self, OpenError, WebSocket};
use super::packet::{PacketSocket, Received};
use super::socket::{Socket, SocketEvent, SocketId};
use super::wire::{Account, FromConduit, PIECE_BYTES_MAX, ToConduit, pack};
use crate::chat::LinkState;
use crate::platform::delivery::pace::back_off;
use crate::platform::link::retrying;
use crate::platform::pending::{outcome, under_way};
use crate::report::Chain;

/// Frames that may wait to be acknowledged.
const HELD_MAX: usize = 256;
/// And their bytes.
const HELD_BYTES_MAX: usize = 16 << 20;
/// A connection that lasted so long was a good one: the next is opened at once.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// Nobody is asked for tickets more often.
const OPEN_PERIOD: Duration = Duration::from_secs(1);
/// How soon an account that is refused is tried again.
const REFUSED_PERIOD: Duration = Duration::from_secs(600);
/// A conduit that nobody greets has no use.
const GREETING_DEADLINE: Duration = Duration::from_secs(60);

/// A frame that is not acknowledged.
struct Held {
    id: u64,
    socket: SocketId,
    text: String,
    /// How much of it was passed on, in bytes.
    passed: usize,
    done: bool,
}

struct Connection {
    socket: Socket,
    since: Instant,
    going: bool,
}

struct Conduit {
    gateway: PacketSocket,
    account: Option<Account>,
    client: Option<Client>,
    /// What is to be said, besides frames.
    words: VecDeque<Vec<u8>>,
    held: VecDeque<Held>,
    next_frame: u64,
    next_socket: u64,
    connections: Vec<Connection>,
    opening: Option<JoinHandle<Result<(Client, WebSocket), OpenError>>>,
    opened_at: Option<Instant>,
    /// When the next connection is opened, if one is wanted.
    open_at: Instant,
    failures: u32,
    link: LinkState,
    closing: bool,
    events: mpsc::Sender<SocketEvent>,
    heard: mpsc::Receiver<SocketEvent>,
}

/// Runs a conduit, whose gateway is at the other end of standard input: a socket of packets.
pub fn run() -> ExitCode {
    let outcome = io::stdin().as_fd().try_clone_to_owned().and_then(|gateway| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { Conduit::new(PacketSocket::new(gateway)?).serve().await })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "the conduit to DingTalk cannot go on");
            ExitCode::FAILURE
        }
    }
}

impl Conduit {
    fn new(gateway: PacketSocket) -> Self {
        let (events, heard) = mpsc::channel(1);
        Self {
            gateway,
            account: None,
            client: None,
            words: VecDeque::new(),
            held: VecDeque::new(),
            next_frame: 0,
            next_socket: 0,
            connections: Vec::new(),
            opening: None,
            opened_at: None,
            open_at: Instant::now(),
            failures: 0,
            link: LinkState::Connecting,
            closing: false,
            events,
            heard,
        }
    }

    async fn serve(&mut self) -> io::Result<()> {
        let greeting_deadline = Instant::now() + GREETING_DEADLINE;
        loop {
            self.open_if_due();
            self.pass_on()?;
            if self.closing && self.connections.is_empty() && self.opening.is_none() && self.held.is_empty() {
                return Ok(());
            }
            let is_wanted = self.is_wanted();
            let held_bytes: usize = self.held.iter().map(|held| held.text.len()).sum();
            let room = self.held.len() < HELD_MAX && held_bytes < HELD_BYTES_MAX;
            tokio::select! {
                received = self.gateway.receive() => match received? {
                    Received::Packet(packet) => self.told(&packet),
                    Received::End => {
                        if !self.held.is_empty() {
                            tracing::warn!(frames = self.held.len(), "the gateway is gone, and with it what it had not stored");
                        }
                        return Ok(());
                    }
                },
                sent = self.gateway.send_all(&mut self.words) => sent?,
                Some(event) = self.heard.recv(), if room => self.happened(event),
                opened = under_way(&mut self.opening) => {
                    self.opening = None;
                    self.opened(outcome(opened));
                }
                () = tokio::time::sleep_until(self.open_at), if is_wanted => {}
                () = tokio::time::sleep_until(greeting_deadline), if self.account.is_none() => return Ok(()),
            }
        }
    }

    /// Whether another connection should be there.
    fn is_wanted(&self) -> bool {
        let has_one = self.connections.iter().any(|connection| !connection.going);
        !self.closing && !has_one && self.opening.is_none() && self.account.is_some()
    }

    fn open_if_due(&mut self) {
        if !self.is_wanted() || self.open_at > Instant::now() {
            return;
        }
        let Some(account) = self.account.clone() else { return };
        let known = self.client.clone();
        self.opened_at = Some(Instant::now());
        self.opening = Some(tokio::spawn(async move {
            let client = match known {
                Some(client) => client,
                None => outcome(tokio::task::spawn_blocking(open::client).await)?,
            };
            let socket = open::open(client.clone(), account).await?;
            Ok((client, socket))
        }));
    }

    fn opened(&mut self, outcome: Result<(Client, WebSocket), OpenError>) {
        match outcome {
            Ok((client, stream)) => {
                self.client = Some(client);
                self.failures = 0;
                self.next_socket += 1;
                let socket = Socket::start(SocketId(self.next_socket), stream, self.events.clone());
                self.connections.push(Connection { socket, since: Instant::now(), going: false });
                // The old ones only now, so that there is always one to push to.
                self.connections.iter().filter(|connection| connection.going).for_each(|c| c.socket.close());
                self.say_link(LinkState::Connected);
                if self.closing {
                    self.close();
                }
            }
            Err(error) => {
                let (code, why) = (error.code(), Chain(&error).to_string());
                if error.is_fatal() {
                    tracing::error!(code, error = why, "DingTalk refuses the account");
                    self.open_at = Instant::now() + REFUSED_PERIOD;
                    let error_message =
                        format!("{why}; check client_id and client_secret in [platforms.dingtalk], then reload");
                    return self.say_link(LinkState::Fatal { error_code: code, error_message });
                }
                self.failed(&code, why);
            }
        }
    }

    fn failed(&mut self, code: &str, why: String) {
        self.failures = self.failures.saturating_add(1);
        let wait = back_off(self.failures);
        self.open_at = Instant::now() + wait;
        tracing::warn!(code, error = why, failures = self.failures, "no connection to DingTalk, trying again");
        self.say_link(retrying(code, why, wait));
    }

    fn happened(&mut self, event: SocketEvent) {
        match event {
            SocketEvent::Frame { socket, message_id, text } => {
                if message_id.is_some() {
                    self.next_frame += 1;
                    self.held.push_back(Held { id: self.next_frame, socket, text, passed: 0, done: false });
                }
            }
            SocketEvent::Going(id) => {
                if let Some(connection) = self.connections.iter_mut().find(|c| c.socket.id == id) {
                    connection.going = true;
                }
                self.open_soon();
            }
            SocketEvent::Over(id) => {
                let Some(at) = self.connections.iter().position(|c| c.socket.id == id) else { return };
                let over = self.connections.remove(at);
                if over.going || self.closing {
                    return;
                }
                if over.since.elapsed() >= GOOD_FOR {
                    self.open_soon();
                    self.say_link(LinkState::Connecting);
                } else {
                    self.failed("closed", "DingTalk has closed the connection".to_owned());
                }
            }
        }
    }

    /// At once, unless that was just done.
    fn open_soon(&mut self) {
        let now = Instant::now();
        self.open_at = self.opened_at.map_or(now, |at| at + OPEN_PERIOD).max(now);
    }

    fn told(&mut self, packet: &[u8]) {
        match serde_json::from_slice(packet) {
            Ok(ToConduit::Hello(account)) => {
                if self.account.as_ref() != Some(&account) {
                    // A secret that is wrong now was not for the connection that is open.
                    self.open_at = Instant::now();
                    self.account = Some(account);
                }
                self.words.clear();
                for held in &mut self.held {
                    (held.passed, held.done) = (0, false);
                }
                let (version, pid) = (crate::version::version().to_owned(), std::process::id().cast_signed());
                let welcome = FromConduit::Welcome { version, pid, closing: self.closing, link: self.link.clone() };
                self.words.push_back(pack(&welcome));
            }
            Ok(ToConduit::Ack { id, reply }) => {
                if let Some(at) = self.held.iter().position(|held| held.id == id) {
                    let held = self.held.remove(at).expect("it was found there");
                    if let Some(connection) = self.connections.iter().find(|c| c.socket.id == held.socket) {
                        connection.socket.answer(reply);
                    }
                }
            }
            Ok(ToConduit::Close) => self.close(),
            Ok(ToConduit::Unknown) => {}
            // The text of the error could quote what is in it.
            Err(error) => tracing::warn!(problem = ?error.classify(), "a word of the gateway is not understood"),
        }
    }

    fn close(&mut self) {
        self.closing = true;
        self.connections.iter().for_each(|connection| connection.socket.close());
    }

    fn say_link(&mut self, link: LinkState) {
        if self.link != link {
            self.link = link.clone();
            self.words.push_back(pack(&FromConduit::Link { link }));
        }
    }

    /// Passes frames on, in order, as long as there is room and somebody listens.
    fn pass_on(&mut self) -> io::Result<()> {
        if !self.words.is_empty() || self.account.is_none() {
            return Ok(());
        }
        for held in self.held.iter_mut().filter(|held| !held.done) {
            while !held.done {
                let end = held.text.floor_char_boundary(held.passed + PIECE_BYTES_MAX);
                let more = end < held.text.len();
                let piece = FromConduit::Frame { id: held.id, more, text: held.text[held.passed..end].to_owned() };
                let packet = pack(&piece);
                if !self.gateway.try_send(&packet)? {
                    // Whoever makes room for a word makes it for frames.
                    self.words.push_back(packet);
                    (held.passed, held.done) = (end, !more);
                    return Ok(());
                }
                (held.passed, held.done) = (end, !more);
            }
        }
        Ok(())
    }
}
