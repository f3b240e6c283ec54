//! The server side of the control socket: one task for the listener and all clients.
//!
//! **Invariants**
//! - Events wait in `outbox` and nothing is read while they do, so a slow daemon slows its clients and the task never
//!   waits for the daemon without taking its commands: neither can block the other.
//! - Nothing touches a socket in `Phase::Frozen`; commands taken then only change what [`ControlCommand::Thaw`]
//!   will write, and are not in the snapshot.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::connection::{Connection, ConnectionState, UNSENT_BYTES_MAX, refusal_line};
use super::{ClientId, ControlCommand, ControlEvent, ControlSnapshot, Peer, proto};
use crate::report::Chain;

/// Clients served at a time; one more is told so and closed.
pub const CLIENTS_MAX: usize = 64;
/// Commands that may wait for the task.
const COMMANDS_MAX: usize = 256;
/// How long no connection is accepted after accept(2) failed, for example for want of fds.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The daemon's end of the control task. The task ends quietly when this is dropped.
#[derive(Debug)]
pub struct ControlHandle {
    commands: mpsc::Sender<ControlCommand>,
}

impl ControlHandle {
    /// Gives the task a command, and waits while its queue is full. A task that is gone needs no commands, so that
    /// is not an error.
    pub async fn send(&self, command: ControlCommand) {
        let _ = self.commands.send(command).await;
    }

    /// Gives the task a command without waiting.
    ///
    /// # Errors
    /// The command, if the queue is full. A task that is gone needs no commands, so that is not an error.
    pub fn try_send(&self, command: ControlCommand) -> Result<(), Box<ControlCommand>> {
        match self.commands.try_send(command) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(command)) => Err(Box::new(command)),
        }
    }

    /// Whether the task has ended and takes no command any more.
    pub fn is_over(&self) -> bool {
        self.commands.is_closed()
    }
}

/// Why a snapshot could not be taken over.
#[derive(Debug, Error)]
pub enum AdoptError {
    /// The state is not what an image writes.
    #[error("the state of the control socket cannot be read")]
    State(#[source] serde_json::Error),
    /// A later image wrote it.
    #[error("the state of the control socket has version {found}, and this image reads up to {highest}")]
    Version {
        /// Its version.
        found: u32,
        /// The highest that is read.
        highest: u32,
    },
    /// The listening socket cannot be used.
    #[error("the control socket cannot be taken over")]
    Listener(#[source] io::Error),
}

/// Serves `listener` in a new task.
///
/// # Errors
/// The listener cannot be registered with the runtime (epoll_ctl(2)).
pub fn spawn(
    listener: std::os::unix::net::UnixListener,
    events: mpsc::Sender<ControlEvent>,
) -> io::Result<ControlHandle> {
    Ok(Task::start(into_tokio(listener)?, ClientId(1), BTreeMap::new(), VecDeque::new(), events))
}

/// Goes on where the task stopped that sent [`ControlEvent::Frozen`], in this image or the one before.
///
/// A client whose socket is missing or unusable is logged and reported with [`ControlEvent::Gone`].
///
/// # Errors
/// See [`AdoptError`]; the clients are then disconnected.
pub fn adopt(snapshot: ControlSnapshot, events: mpsc::Sender<ControlEvent>) -> Result<ControlHandle, AdoptError> {
    let state: State = serde_json::from_value(snapshot.state).map_err(AdoptError::State)?;
    if state.version > ControlSnapshot::VERSION {
        return Err(AdoptError::Version { found: state.version, highest: ControlSnapshot::VERSION });
    }
    let listener = into_tokio(snapshot.listener.into()).map_err(AdoptError::Listener)?;
    let mut fds: BTreeMap<ClientId, _> = snapshot.clients.into_iter().collect();
    let (mut clients, mut outbox) = (BTreeMap::new(), VecDeque::new());
    for client in state.clients {
        let id = client.id;
        let restored = fds.remove(&id).ok_or_else(|| "its socket was not handed over".to_owned()).and_then(|fd| {
            let stream = std::os::unix::net::UnixStream::from(fd);
            stream.set_nonblocking(true).map_err(|error| error.to_string())?;
            let stream = UnixStream::from_std(stream).map_err(|error| error.to_string())?;
            Connection::restore(stream, client).map_err(|error| error.to_string())
        });
        match restored {
            Ok(connection) => drop(clients.insert(id, connection)),
            Err(reason) => {
                warn!(client = %id, reason, "a control client could not be taken over");
                outbox.push_back(ControlEvent::Gone { client: id });
            }
        }
    }
    for id in fds.keys() {
        warn!(client = %id, "a control socket came without its state and is closed");
    }
    Ok(Task::start(listener, state.next_client, clients, outbox, events))
}

fn into_tokio(listener: std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Whether this image understands the state of the control socket, for the preflight child.
///
/// # Errors
/// What is not understood.
pub fn check_state(state: &serde_json::Value) -> Result<(), serde_json::Error> {
    State::deserialize(state).map(drop)
}

/// [`ControlSnapshot::state`].
#[derive(Debug, Serialize, Deserialize)]
struct State {
    version: u32,
    next_client: ClientId,
    clients: Vec<ConnectionState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Frozen,
    Stopping { deadline: Instant },
}

/// Which side of a client's socket is ready.
#[derive(Clone, Copy, Debug)]
enum Side {
    Read,
    Write,
}

struct Task {
    listener: UnixListener,
    /// No connection is accepted before this.
    accept_pause: Option<Instant>,
    clients: BTreeMap<ClientId, Connection>,
    next_client: ClientId,
    commands: mpsc::Receiver<ControlCommand>,
    events: mpsc::Sender<ControlEvent>,
    outbox: VecDeque<ControlEvent>,
    phase: Phase,
}

impl Task {
    fn start(
        listener: UnixListener,
        next_client: ClientId,
        clients: BTreeMap<ClientId, Connection>,
        outbox: VecDeque<ControlEvent>,
        events: mpsc::Sender<ControlEvent>,
    ) -> ControlHandle {
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let phase = Phase::Serving;
        let mut task = Self { listener, accept_pause: None, clients, next_client, commands, events, outbox, phase };
        task.settle_all();
        tokio::spawn(task.run());
        ControlHandle { commands: sender }
    }

    async fn run(mut self) {
        loop {
            let serving = self.phase == Phase::Serving;
            let intake = serving && self.outbox.is_empty();
            let writes = self.phase != Phase::Frozen;
            let deadline = if let Phase::Stopping { deadline } = self.phase { Some(deadline) } else { None };
            if deadline.is_some() && self.outbox.is_empty() && self.clients.values().all(|c| c.unsent_bytes() == 0) {
                break;
            }
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                told = tell(&self.events, &mut self.outbox), if !self.outbox.is_empty() => if told.is_err() {
                    return;
                },
                accepted = self.listener.accept(), if intake && self.accept_pause.is_none() => {
                    self.accepted(accepted.map(|(stream, _)| stream));
                }
                ready = poll_fn(|cx| poll_clients(&self.clients, cx, intake, writes)) => self.transfer(&ready),
                () = at(self.accept_pause) => self.accept_pause = None,
                () = at(deadline) => {
                    warn!("control clients did not read their answers before the gateway stopped");
                    break;
                }
            }
        }
        self.clients.clear();
        self.outbox.push_back(ControlEvent::Stopped);
        for event in self.outbox {
            let _ = self.events.send(event).await;
        }
    }

    fn command(&mut self, command: ControlCommand) {
        match command {
            ControlCommand::Respond { client, id, outcome } => {
                if let Some(connection) = self.clients.get_mut(&client) {
                    if !connection.respond(id.clone(), outcome) {
                        warn!(%client, ?id, "an answer to no unanswered request is dropped");
                    }
                    self.settle(client);
                }
            }
            ControlCommand::Notify { client, method, params } => {
                if let Some(connection) = self.clients.get_mut(&client) {
                    connection.notify(method, params);
                    self.settle(client);
                }
            }
            ControlCommand::Freeze | ControlCommand::Thaw if matches!(self.phase, Phase::Stopping { .. }) => {
                warn!("a stop of the control socket is not taken back");
            }
            ControlCommand::Freeze => self.freeze(),
            ControlCommand::Thaw => {
                self.phase = Phase::Serving;
                self.settle_all();
            }
            ControlCommand::Stop { drain } => self.phase = Phase::Stopping { deadline: Instant::now() + drain },
        }
    }

    fn freeze(&mut self) {
        match self.snapshot() {
            Ok(snapshot) => {
                self.phase = Phase::Frozen;
                self.outbox.push_back(ControlEvent::Frozen(snapshot));
            }
            Err(error) => {
                self.outbox.push_back(ControlEvent::FreezeFailed(error));
            }
        }
    }

    fn snapshot(&self) -> io::Result<ControlSnapshot> {
        let listener = self.listener.as_fd().try_clone_to_owned()?;
        let clients = self
            .clients
            .iter()
            .map(|(id, connection)| Ok((*id, connection.duplicate_fd()?)))
            .collect::<io::Result<_>>()?;
        let state = State {
            version: ControlSnapshot::VERSION,
            next_client: self.next_client,
            clients: self.clients.iter().map(|(id, connection)| connection.save(*id)).collect(),
        };
        let state = serde_json::to_value(state).expect("plain data serialises");
        Ok(ControlSnapshot { state, listener, clients })
    }

    fn accepted(&mut self, accepted: io::Result<UnixStream>) {
        let admitted = accepted.and_then(|stream| Ok((peer_of(&stream)?, stream)));
        let (peer, stream) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                warn!(error = %Chain(&error), "cannot accept a control client for a moment");
                self.accept_pause = Some(Instant::now() + ACCEPT_PAUSE);
                return;
            }
        };
        if !may_use(peer.uid, rustix::process::geteuid().as_raw()) {
            warn!(uid = peer.uid, pid = peer.pid, "a control client of another user is refused");
            refuse(&stream, proto::FORBIDDEN, "only the gateway's own user and root may control it");
        } else if self.clients.len() >= CLIENTS_MAX {
            warn!(uid = peer.uid, pid = peer.pid, "a control client too many is refused");
            refuse(&stream, proto::OVERLOADED, "too many clients are connected; try again later");
        } else {
            let id = self.next_client;
            self.next_client = ClientId(id.0 + 1);
            debug!(client = %id, uid = peer.uid, pid = peer.pid, "a control client connected");
            self.clients.insert(id, Connection::new(stream, peer));
        }
    }

    fn transfer(&mut self, ready: &[(ClientId, Side)]) {
        for (id, side) in ready {
            let Some(connection) = self.clients.get_mut(id) else { continue };
            let done = match side {
                Side::Read => connection.read(),
                Side::Write => connection.write(),
            };
            match done {
                Ok(()) => self.settle(*id),
                Err(error) => {
                    debug!(client = %id, error = %Chain(&error), "a control client's connection broke");
                    self.close(*id);
                }
            }
        }
    }

    fn settle_all(&mut self) {
        let ids: Vec<ClientId> = self.clients.keys().copied().collect();
        for id in ids {
            self.settle(id);
        }
    }

    /// Does what a change of a client calls for: tells its new requests, and closes it when it is finished or too
    /// slow. Frozen, nothing is told; [`ControlCommand::Thaw`] settles everybody.
    fn settle(&mut self, id: ClientId) {
        let Some(connection) = self.clients.get_mut(&id) else { return };
        if self.phase == Phase::Frozen {
            return;
        }
        if self.phase == Phase::Serving {
            let peer = connection.peer();
            while let Some(call) = connection.next_call() {
                let (method, params) = (call.method, call.params);
                self.outbox.push_back(ControlEvent::Request { client: id, peer, id: call.id, method, params });
            }
        }
        if connection.unsent_bytes() > UNSENT_BYTES_MAX {
            warn!(client = %id, limit_bytes = UNSENT_BYTES_MAX, "a control client does not read and is disconnected");
            self.close(id);
        } else if connection.is_finished() {
            self.close(id);
        }
    }

    fn close(&mut self, id: ClientId) {
        if self.clients.remove(&id).is_some() {
            self.outbox.push_back(ControlEvent::Gone { client: id });
        }
    }
}

/// Sends the first event once the daemon has room for it. Cancelled before that, it has done nothing.
async fn tell(
    events: &mpsc::Sender<ControlEvent>,
    outbox: &mut VecDeque<ControlEvent>,
) -> Result<(), mpsc::error::SendError<()>> {
    let permit = events.reserve().await?;
    if let Some(event) = outbox.pop_front() {
        permit.send(event);
    }
    Ok(())
}

/// Waits for any side of any client, and returns all that are ready, so that each has its turn.
fn poll_clients(
    clients: &BTreeMap<ClientId, Connection>,
    cx: &mut Context<'_>,
    reads: bool,
    writes: bool,
) -> Poll<Vec<(ClientId, Side)>> {
    let mut ready = Vec::new();
    for (id, connection) in clients {
        // An error of the readiness itself comes up again in the read or write that follows.
        if writes && connection.poll_writable(cx).is_ready() {
            ready.push((*id, Side::Write));
        }
        if reads && connection.poll_readable(cx).is_ready() {
            ready.push((*id, Side::Read));
        }
    }
    if ready.is_empty() { Poll::Pending } else { Poll::Ready(ready) }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

fn peer_of(stream: &UnixStream) -> io::Result<Peer> {
    let cred = stream.peer_cred()?;
    Ok(Peer { uid: cred.uid(), gid: cred.gid(), pid: cred.pid().unwrap_or(0) })
}

/// Who may use the socket: root, who may do everything anyway, and the user the gateway runs as.
fn may_use(peer_uid: u32, own_uid: u32) -> bool {
    peer_uid == 0 || peer_uid == own_uid
}

/// Says why and closes. The socket is new, so its buffer takes the line, and a peer that does not read loses only
/// the reason.
fn refuse(stream: &UnixStream, code: i64, message: &str) {
    let _ = rustix::net::send(stream, &refusal_line(code, message), rustix::net::SendFlags::NOSIGNAL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_own_user_may_use_the_socket() {
        for (peer, own, may) in [(0, 0, true), (0, 1000, true), (1000, 1000, true), (1000, 0, false), (1, 2, false)] {
            assert_eq!(may_use(peer, own), may, "peer {peer}, own {own}");
        }
    }

    #[tokio::test]
    async fn a_state_of_a_later_version_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).expect("binds");
        let (events, _keep) = mpsc::channel(1);
        let state = serde_json::json!({ "version": 2, "next_client": 1, "clients": [] });
        let snapshot = ControlSnapshot { state, listener: listener.into(), clients: Vec::new() };
        let error = adopt(snapshot, events).expect_err("too new");
        assert!(matches!(error, AdoptError::Version { found: 2, highest: 1 }), "{error}");
    }
    #[tokio::test]
    async fn a_failed_accept_is_not_tried_again_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).expect("binds");
        let (_keep, commands) = mpsc::channel(1);
        let (events, _events) = mpsc::channel(1);
        let mut task = Task {
            listener: into_tokio(listener).expect("registers"),
            accept_pause: None,
            clients: BTreeMap::new(),
            next_client: ClientId(1),
            commands,
            events,
            outbox: VecDeque::new(),
            phase: Phase::Serving,
        };
        task.accepted(Err(rustix::io::Errno::MFILE.into()));
        assert!(task.accept_pause.is_some_and(|until| until > Instant::now()));
        assert!(task.outbox.is_empty());
    }
}
