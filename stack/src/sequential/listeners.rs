//! The table of listeners. A listener is an entry here, not a socket: a socket is made when a SYN arrives.

use std::net::{IpAddr, SocketAddr};

use crate::stream::ListenerId;

/// One listener.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) local: SocketAddr,
    pub(super) backlog: usize,
    /// Connections that wait for the peer's confirmation.
    pub(super) half_open: usize,
}

/// Listeners by name and by address.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    entries: Vec<Entry>,
    count: usize,
}

#[derive(Debug, Default)]
struct Entry {
    generation: u32,
    listener: Option<Listener>,
}

impl Listeners {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn add(&mut self, listener: Listener) -> ListenerId {
        let index = self.entries.iter().position(|entry| entry.listener.is_none()).unwrap_or_else(|| {
            self.entries.push(Entry::default());
            self.entries.len() - 1
        });
        self.entries[index].listener = Some(listener);
        self.count += 1;
        ListenerId { index: index as u32, generation: self.entries[index].generation }
    }

    pub(super) fn remove(&mut self, id: ListenerId) {
        if self.get(id).is_some() {
            let entry = &mut self.entries[id.index as usize];
            entry.listener = None;
            entry.generation = entry.generation.wrapping_add(1);
            self.count -= 1;
        }
    }

    pub(super) fn get(&self, id: ListenerId) -> Option<&Listener> {
        let entry = self.entries.get(id.index as usize)?;
        entry.listener.as_ref().filter(|_| entry.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        let entry = self.entries.get_mut(id.index as usize)?;
        entry.listener.as_mut().filter(|_| entry.generation == id.generation)
    }

    /// The listener that takes connections to `local`: one bound to that very address before one bound to any.
    pub(super) fn find(&self, local: SocketAddr) -> Option<ListenerId> {
        let accepts = |bound: SocketAddr| {
            bound.port() == local.port() && (bound.ip() == local.ip() || is_wildcard_for(bound.ip(), local.ip()))
        };
        self.named()
            .filter(|(_, listener)| accepts(listener.local))
            .min_by_key(|(_, listener)| listener.local.ip().is_unspecified())
            .map(|(id, _)| id)
    }

    /// Whether `local` is bound already.
    pub(super) fn is_bound(&self, local: SocketAddr) -> bool {
        self.named().any(|(_, listener)| listener.local == local)
    }

    /// Whether anybody listens at `port`.
    pub(super) fn is_port_taken(&self, port: u16) -> bool {
        self.named().any(|(_, listener)| listener.local.port() == port)
    }

    fn named(&self) -> impl Iterator<Item = (ListenerId, &Listener)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let id = ListenerId { index: index as u32, generation: entry.generation };
            entry.listener.as_ref().map(|listener| (id, listener))
        })
    }
}

/// `0.0.0.0` stands for every IPv4 address, `::` for every address.
fn is_wildcard_for(bound: IpAddr, local: IpAddr) -> bool {
    bound.is_unspecified() && (bound.is_ipv6() || local.is_ipv4())
}
