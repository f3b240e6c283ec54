//! The gateway's end of a conduit.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::packet::{PacketSocket, Received};
use super::wire::{Account, FromConduit, ToConduit, pack};
use crate::chat::LinkState;
use crate::handoff::reexec;
use crate::sys::child::{self, Child, SpawnError};

/// Words that may wait for a conduit that does not read. One that lets so many pile up is of no use.
const WORDS_MAX: usize = 1024;

/// A conduit that runs.
#[derive(Debug)]
pub(in crate::platform::dingtalk) struct Conduit {
    child: Child,
    socket: PacketSocket,
    words: VecDeque<Vec<u8>>,
    /// It has answered the greeting: what comes from here on begins at the beginning.
    welcomed: bool,
    /// The pieces of a frame so far.
    partial: String,
    link: LinkState,
    closing: bool,
}

/// What comes from a conduit.
#[derive(Debug)]
pub(in crate::platform::dingtalk) enum Said {
    /// A frame, to be acknowledged.
    Frame {
        /// Its number.
        id: u64,
        /// Its text.
        text: String,
    },
    /// Something about the conduit changed.
    Changed,
    /// Its process has ended, how, or is of no use any more.
    Gone(String),
}

impl Conduit {
    /// Starts one: `program` with the argument `conduit`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel's reason.
    pub(in crate::platform::dingtalk) fn spawn(program: &Path, account: Account) -> io::Result<Self> {
        let (ours, theirs) = PacketSocket::pair()?;
        let mut command = Command::new(program);
        command.arg0("hermes").arg("conduit").current_dir("/").stdin(theirs).stdout(Stdio::null());
        command.stderr(Stdio::inherit());
        reexec::keep_to_ourselves(&mut command);
        let child = Child::spawn(&mut command).map_err(|error| match error {
            SpawnError::Start(error) | SpawnError::Watch(error) => error,
        })?;
        // It holds the conduit's end.
        drop(command);
        Ok(Self::greet(child, PacketSocket::new(ours)?, account))
    }

    /// Takes over one that another image has started, from its socket and its pidfd. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// They are not those of a process that runs.
    pub(in crate::platform::dingtalk) fn adopt(socket: OwnedFd, pidfd: OwnedFd, account: Account) -> io::Result<Self> {
        let pid = child::watched_process(&pidfd)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self::greet(Child::adopt(pid, pidfd)?, PacketSocket::new(socket)?, account))
    }

    fn greet(child: Child, socket: PacketSocket, account: Account) -> Self {
        let mut conduit = Self {
            child,
            socket,
            words: VecDeque::new(),
            welcomed: false,
            partial: String::new(),
            link: LinkState::Connecting,
            closing: false,
        };
        conduit.say(&ToConduit::Hello(account));
        conduit
    }

    /// How its connection is.
    pub(in crate::platform::dingtalk) fn link(&self) -> &LinkState {
        &self.link
    }

    /// Whether it was told to close.
    pub(in crate::platform::dingtalk) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether it has answered the greeting.
    pub(in crate::platform::dingtalk) fn is_welcome(&self) -> bool {
        self.welcomed
    }

    /// Duplicates of its socket and its pidfd.
    ///
    /// # Errors
    /// No free fd.
    pub(in crate::platform::dingtalk) fn fds(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        Ok((self.socket.as_fd().try_clone_to_owned()?, self.child.pidfd().try_clone()?))
    }

    /// Has everything that is not acknowledged told anew.
    pub(in crate::platform::dingtalk) fn greet_again(&mut self, account: Account) {
        self.welcomed = false;
        self.partial.clear();
        self.say(&ToConduit::Hello(account));
    }

    /// The frame is durable.
    pub(in crate::platform::dingtalk) fn acknowledge(&mut self, id: u64, reply: String) {
        self.say(&ToConduit::Ack { id, reply });
    }

    /// Takes in nothing more, and ends once everything is acknowledged.
    pub(in crate::platform::dingtalk) fn close(&mut self) {
        if !std::mem::replace(&mut self.closing, true) {
            self.say(&ToConduit::Close);
        }
    }

    fn say(&mut self, word: &ToConduit) {
        if self.words.len() < WORDS_MAX {
            self.words.push_back(pack(word));
        }
        // What does not go now goes with the next wait.
        while let Some(packet) = self.words.front() {
            match self.socket.try_send(packet) {
                Ok(true) => drop(self.words.pop_front()),
                Ok(false) | Err(_) => return,
            }
        }
    }

    /// Waits for what it says next. Cancel-safe: a packet is dealt with or stays where it is.
    pub(in crate::platform::dingtalk) async fn hear(&mut self) -> Said {
        loop {
            tokio::select! {
                received = self.socket.receive() => match received {
                    Ok(Received::Packet(packet)) => {
                        if let Some(said) = self.read(&packet) {
                            return said;
                        }
                    }
                    Ok(Received::End) => return Said::Gone("it has closed its socket".to_owned()),
                    Err(error) => return Said::Gone(error.to_string()),
                },
                sent = self.socket.send_all(&mut self.words) => {
                    if let Err(error) = sent {
                        return Said::Gone(error.to_string());
                    }
                }
            }
        }
    }

    /// What it has said already; none if there is nothing.
    pub(in crate::platform::dingtalk) fn hear_more(&mut self) -> Option<Said> {
        loop {
            match self.socket.try_receive().ok()?? {
                Received::Packet(packet) => {
                    if let Some(said) = self.read(&packet) {
                        return Some(said);
                    }
                }
                Received::End => return Some(Said::Gone("it has closed its socket".to_owned())),
            }
        }
    }

    fn read(&mut self, packet: &[u8]) -> Option<Said> {
        let word = match serde_json::from_slice(packet) {
            Ok(word) => word,
            // The text of the error could quote what is in it.
            Err(error) => {
                tracing::warn!(problem = ?error.classify(), "a word of the conduit is not understood");
                return None;
            }
        };
        match word {
            FromConduit::Welcome { closing, link, .. } => {
                self.welcomed = true;
                self.partial.clear();
                self.closing |= closing;
                self.link = link;
                Some(Said::Changed)
            }
            // Said before the greeting was heard: it comes again.
            _ if !self.welcomed => None,
            FromConduit::Link { link } => {
                self.link = link;
                Some(Said::Changed)
            }
            FromConduit::Frame { id, more, text } => {
                self.partial.push_str(&text);
                (!more).then(|| Said::Frame { id, text: std::mem::take(&mut self.partial) })
            }
            FromConduit::Unknown => None,
        }
    }

    /// Ends what is left of its process, and says how it ended.
    pub(in crate::platform::dingtalk) fn reap(self) -> String {
        child::describe(self.child.reap())
    }
}
