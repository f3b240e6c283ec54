//! One WebSocket: a task that reads its frames and writes the answers.
//!
//! It answers what is about the connection itself (`ping`), and tells the rest. Frames are read only as they are taken.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::open::WebSocket;
use crate::platform::dingtalk::frame::{self, Frame, Kind};
use crate::report::Chain;

/// How often the other end is asked for a sign of life.
const PING_PERIOD: Duration = Duration::from_secs(30);
/// Without a sign of life for so long it is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// How long the other end may take to close: DingTalk's own time.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a write may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Answers that may wait to be written.
const ANSWERS: usize = 512;

/// Which connection; later ones are higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SocketId(pub(super) u64);

/// What happens on a connection.
#[derive(Debug)]
pub(super) enum SocketEvent {
    /// A frame that is not about the connection, as it came, with what to answer.
    Frame {
        /// Where.
        socket: SocketId,
        /// What an answer must repeat; none if no answer is wanted.
        message_id: Option<String>,
        /// The text.
        text: String,
    },
    /// DingTalk is going to close it.
    Going(SocketId),
    /// It is over.
    Over(SocketId),
}

/// What is wanted of a connection.
#[derive(Debug)]
enum Order {
    Answer(String),
    Close,
}

/// The way to a connection's task, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) id: SocketId,
    orders: mpsc::Sender<Order>,
}

impl Socket {
    /// Starts the task of an open connection.
    pub(super) fn start(id: SocketId, stream: WebSocket, events: mpsc::Sender<SocketEvent>) -> Self {
        let (orders, queue) = mpsc::channel(ANSWERS);
        tokio::spawn(async move {
            Task { id, stream, events: events.clone(), orders: queue, heard_at: Instant::now() }.run().await;
            let _nobody = events.send(SocketEvent::Over(id)).await;
        });
        Self { id, orders }
    }

    /// Answers a frame. One that cannot be told is nobody's loss: DingTalk uses the answers to bot messages for
    /// diagnosis only.
    pub(super) fn answer(&self, reply: String) {
        if self.orders.try_send(Order::Answer(reply)).is_err() {
            tracing::debug!("an answer to DingTalk came too late");
        }
    }

    /// Closes it; what is still on the way is told before it is over.
    pub(super) fn close(&self) {
        if self.orders.try_send(Order::Close).is_err() {
            tracing::debug!("a connection that is over already cannot be closed");
        }
    }
}

struct Task {
    id: SocketId,
    stream: WebSocket,
    events: mpsc::Sender<SocketEvent>,
    orders: mpsc::Receiver<Order>,
    heard_at: Instant,
}

impl Task {
    async fn run(mut self) {
        let mut pings = interval(PING_PERIOD);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closing: Option<Instant> = None;
        let events = self.events.clone();
        // Room for what may come: without it nothing is read.
        let mut room: Option<mpsc::Permit<'_, SocketEvent>> = None;
        loop {
            let deadline = closing.unwrap_or(self.heard_at + SILENCE_MAX);
            let is_watched = closing.is_some() || room.is_some();
            let going_on = tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Answer(reply)) => self.write(Message::text(reply)).await,
                    Some(Order::Close) | None if closing.is_some() => true,
                    Some(Order::Close) | None => {
                        closing = Some(Instant::now() + CLOSE_DEADLINE);
                        self.write(Message::Close(None)).await
                    }
                },
                permit = events.reserve(), if room.is_none() => {
                    self.heard_at = Instant::now();
                    room = permit.ok();
                    room.is_some()
                }
                message = self.stream.next(), if room.is_some() => match message {
                    Some(Ok(message)) => {
                        self.heard_at = Instant::now();
                        match self.told(message) {
                            Told::Event(event) => {
                                if let Some(room) = room.take() {
                                    room.send(event);
                                }
                                true
                            }
                            Told::Answer(reply) => self.write(Message::text(reply)).await,
                            Told::Nothing => true,
                        }
                    }
                    Some(Err(error)) => {
                        told_off(&error);
                        false
                    }
                    None => false,
                },
                _ = pings.tick(), if closing.is_none() => self.write(Message::Ping(Bytes::new())).await,
                () = tokio::time::sleep_until(deadline), if is_watched => {
                    tracing::warn!(closing = closing.is_some(), "a connection to DingTalk gives no sign of life and is left");
                    false
                }
            };
            if !going_on {
                return;
            }
        }
    }

    /// What a message is to be dealt with as.
    fn told(&self, message: Message) -> Told {
        let Message::Text(text) = message else { return Told::Nothing };
        match Frame::parse(&text) {
            Ok(Frame { kind: Kind::System, topic, message_id, data }) => match (topic.as_str(), message_id) {
                ("disconnect", _) => Told::Event(SocketEvent::Going(self.id)),
                (_, Some(id)) => Told::Answer(frame::reply(&id, frame::OK, &data)),
                (_, None) => Told::Nothing,
            },
            Ok(frame) => Told::Event(SocketEvent::Frame {
                socket: self.id,
                message_id: frame.message_id,
                text: text.as_str().to_owned(),
            }),
            Err(error) => {
                tracing::warn!(size_bytes = text.len(), %error, "something that is no frame is skipped");
                Told::Nothing
            }
        }
    }

    async fn write(&mut self, message: Message) -> bool {
        match tokio::time::timeout(WRITE_DEADLINE, self.stream.send(message)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                told_off(&error);
                // What was sent before it broke may still be read.
                matches!(error, Error::AlreadyClosed | Error::ConnectionClosed | Error::Protocol(_))
            }
            Err(_) => {
                tracing::warn!("DingTalk does not read what is written to it");
                false
            }
        }
    }
}

/// What a message is.
enum Told {
    Event(SocketEvent),
    Answer(String),
    Nothing,
}

fn told_off(error: &Error) {
    tracing::info!(error = %Chain(error), "a connection to DingTalk has ended");
}
