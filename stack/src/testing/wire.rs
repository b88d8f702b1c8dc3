//! What lies between the two engines of a pair.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// Connections and listeners of both engines.
#[derive(Default)]
pub(super) struct Wire {
    links: BTreeMap<u64, Link>,
    next_link: u64,
    listeners: BTreeMap<SocketAddr, Waiting>,
    next_port: u16,
}

/// A listener, as its peers see it.
struct Waiting {
    backlog: usize,
    /// Links not yet accepted.
    links: VecDeque<u64>,
}

/// A connection.
pub(super) struct Link {
    /// Addresses of the end that connected and of the end that accepted.
    pub(super) addresses: [SocketAddr; 2],
    /// What each of them sends.
    pub(super) directions: [Direction; 2],
    /// Whether either end broke it.
    pub(super) is_reset: bool,
    attached: usize,
}

/// One direction of a link.
#[derive(Default)]
pub(super) struct Direction {
    /// Sent and not yet taken by the peer.
    pub(super) bytes: VecDeque<u8>,
    /// Bytes that the peer has taken, ever.
    pub(super) delivered: u64,
    /// Nothing follows `bytes`.
    pub(super) is_ended: bool,
}

impl Wire {
    /// A link to whoever listens at `remote`; `None`: nobody does, or too many wait there.
    pub(super) fn connect(&mut self, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
        let waiting = self.listeners.get_mut(&remote)?;
        if waiting.links.len() >= waiting.backlog {
            return None;
        }
        let key = self.next_link;
        self.next_link += 1;
        waiting.links.push_back(key);
        let directions = [Direction::default(), Direction::default()];
        self.links.insert(key, Link { addresses: [local, remote], directions, is_reset: false, attached: 2 });
        Some(key)
    }

    /// Whether `address` is free, and if so taken from now on.
    pub(super) fn listen(&mut self, address: SocketAddr, backlog: usize) -> bool {
        if self.listeners.contains_key(&address) {
            return false;
        }
        self.listeners.insert(address, Waiting { backlog: backlog.max(1), links: VecDeque::new() });
        true
    }

    /// Ends a listener, and what waits there.
    pub(super) fn close_listener(&mut self, address: SocketAddr) {
        let Some(waiting) = self.listeners.remove(&address) else { return };
        for key in waiting.links {
            self.reset(key);
        }
    }

    /// The next link that waits at `address`, with the peer's address.
    pub(super) fn accept(&mut self, address: SocketAddr) -> Option<(u64, SocketAddr)> {
        let key = self.listeners.get_mut(&address)?.links.pop_front()?;
        Some((key, self.links.get(&key)?.addresses[0]))
    }

    pub(super) fn link(&mut self, key: u64) -> Option<&mut Link> {
        self.links.get_mut(&key)
    }

    /// One end breaks the link and leaves it.
    pub(super) fn reset(&mut self, key: u64) {
        if let Some(link) = self.links.get_mut(&key) {
            link.is_reset = true;
        }
        self.detach(key);
    }

    /// One end leaves the link.
    pub(super) fn detach(&mut self, key: u64) {
        if let Some(link) = self.links.get_mut(&key) {
            link.attached -= 1;
            if link.attached == 0 {
                self.links.remove(&key);
            }
        }
    }

    pub(super) fn free_port(&mut self) -> u16 {
        // The range for private use (RFC 6335 §6).
        self.next_port = self.next_port.wrapping_add(1);
        49_152 + self.next_port % 16_384
    }
}
