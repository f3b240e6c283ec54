//! Addresses for servers whose address must be known before they listen.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

/// An address on the loopback that no other test has.
pub fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 16 + (high & 15), middle, low.max(1));
    SocketAddr::new(ip.into(), 20_000 + u16::from(NEXT.fetch_add(1, Ordering::Relaxed)))
}
