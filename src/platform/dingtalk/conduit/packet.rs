//! A socket of packets (SOCK_SEQPACKET, unix(7)) in a runtime: a packet is read as a whole or not at all, so that nobody
//! who takes the socket over begins in the middle of one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use tokio::io::unix::AsyncFd;

use super::wire::PACKET_BYTES_MAX;
use crate::sys::readiness;

/// One end of a pair.
#[derive(Debug)]
pub(super) struct PacketSocket {
    fd: AsyncFd<OwnedFd>,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// A packet.
    Packet(Vec<u8>),
    /// The other end is closed.
    End,
}

impl PacketSocket {
    /// A pair; both ends are close-on-exec.
    ///
    /// # Errors
    /// The kernel's reason, for example no free fd.
    pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
        Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
    }

    /// Takes an end. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel's reason, for example something that is no socket.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        let flags = rustix::fs::fcntl_getfl(&fd)? | rustix::fs::OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(&fd, flags)?;
        Ok(Self { fd: readiness::both_ways(fd)? })
    }

    /// A packet, if there is one now.
    pub(super) fn try_receive(&self) -> io::Result<Option<Received>> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        match recv(self.fd.get_ref(), buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => Ok(Some(Received::End)),
            Ok((length, _)) => {
                buffer.truncate(length);
                Ok(Some(Received::Packet(buffer)))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a packet. Cancel-safe: a packet is returned or stays where it is.
    pub(super) async fn receive(&self) -> io::Result<Received> {
        loop {
            let mut ready = self.fd.readable().await?;
            match self.try_receive()? {
                Some(received) => return Ok(received),
                None => ready.clear_ready(),
            }
        }
    }

    /// Sends a packet if there is room; false if there is none. A closed other end takes everything.
    pub(super) fn try_send(&self, packet: &[u8]) -> io::Result<bool> {
        match send(self.fd.get_ref(), packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends packets from the front of `waiting` as long as there is room, and waits for room if there is none. Cancel-safe:
    /// what was sent is not in it any more. For ever if there is nothing to send.
    pub(super) async fn send_all(&self, waiting: &mut std::collections::VecDeque<Vec<u8>>) -> io::Result<()> {
        loop {
            let Some(packet) = waiting.front() else { return std::future::pending().await };
            let mut ready = self.fd.writable().await?;
            if self.try_send(packet)? {
                waiting.pop_front();
                if waiting.is_empty() {
                    return Ok(());
                }
            } else {
                ready.clear_ready();
            }
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[tokio::test]
    async fn packets_keep_their_borders_and_their_order_and_an_end_is_seen() {
        let (a, b) = PacketSocket::pair().expect("a pair");
        let (a, b) = (PacketSocket::new(a).expect("a socket"), PacketSocket::new(b).expect("a socket"));
        let mut waiting: VecDeque<Vec<u8>> = (0..3000u32).map(|n| vec![b'x'; 1 + n as usize % 999]).collect();
        let lengths: Vec<usize> = waiting.iter().map(Vec::len).collect();
        let mut got = Vec::new();
        while got.len() < lengths.len() {
            tokio::select! {
                sent = a.send_all(&mut waiting) => sent.expect("sends"),
                received = b.receive() => match received.expect("receives") {
                    Received::Packet(packet) => got.push(packet.len()),
                    Received::End => panic!("not the end"),
                },
            }
        }
        assert_eq!(got, lengths);
        assert_eq!(b.try_receive().expect("receives"), None);
        drop(a);
        assert_eq!(b.receive().await.expect("receives"), Received::End);
        assert!(b.try_send(b"to nobody").expect("nobody minds"));
    }
}
