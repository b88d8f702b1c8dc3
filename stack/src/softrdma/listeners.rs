//! The table of listeners: by name, and by port for a SYN that arrives.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use crate::stream::ListenerId;
use crate::table::{Name, Table};

/// One listener.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) local: SocketAddr,
    /// Half-open connections that it may have at a time.
    pub(super) backlog: usize,
    /// Connections that wait for the peer's confirmation.
    half_open: usize,
    /// Their names, the oldest first, among names of some that do not wait any more.
    waiting: VecDeque<Name>,
}

impl Listener {
    pub(super) const fn new(local: SocketAddr, backlog: usize) -> Self {
        Self { local, backlog, half_open: 0, waiting: VecDeque::new() }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.half_open >= self.backlog
    }

    /// A connection waits for the peer's confirmation.
    pub(super) fn begin(&mut self, name: Name, still_waits: impl Fn(Name) -> bool) {
        if self.waiting.len() >= 2 * self.backlog {
            self.waiting.retain(|name| still_waits(*name));
        }
        self.half_open += 1;
        self.waiting.push_back(name);
    }

    /// One of them does not any more.
    pub(super) fn end(&mut self) {
        self.half_open -= 1;
        if self.half_open == 0 {
            self.waiting.clear();
        }
    }

    /// The one that has waited longest.
    pub(super) fn take_oldest(&mut self, still_waits: impl Fn(Name) -> bool) -> Option<Name> {
        while let Some(name) = self.waiting.pop_front() {
            if still_waits(name) {
                return Some(name);
            }
        }
        None
    }
}

/// Listeners by name and by port.
pub(super) struct Listeners {
    table: Table<Listener>,
    /// At one port there is at most one listener for each of our few addresses.
    by_port: HashMap<u16, Vec<ListenerId>>,
}

impl Listeners {
    pub(super) fn new(limit: usize) -> Self {
        Self { table: Table::new(limit), by_port: HashMap::new() }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.table.is_full()
    }

    /// Adds a listener; `None` when the limit is reached.
    pub(super) fn add(&mut self, listener: Listener) -> Option<ListenerId> {
        let port = listener.local.port();
        let id = ListenerId::from(self.table.insert(listener)?);
        self.by_port.entry(port).or_default().push(id);
        Some(id)
    }

    pub(super) fn remove(&mut self, id: ListenerId) {
        let Some(listener) = self.table.remove(id.into()) else { return };
        let port = listener.local.port();
        if let Some(ids) = self.by_port.get_mut(&port) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_port.remove(&port);
            }
        }
    }

    pub(super) fn get(&self, id: ListenerId) -> Option<&Listener> {
        self.table.get(id.into())
    }

    pub(super) fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.table.get_mut(id.into())
    }

    /// The listener that takes connections to `local`: one bound to that very address before one bound to any.
    pub(super) fn find(&self, local: SocketAddr) -> Option<ListenerId> {
        self.at_port(local.port())
            .filter(|(_, bound)| bound.ip() == local.ip() || is_wildcard_for(bound.ip(), local.ip()))
            .min_by_key(|(_, bound)| bound.ip().is_unspecified())
            .map(|(id, _)| id)
    }

    /// Whether `local` is bound already.
    pub(super) fn is_bound(&self, local: SocketAddr) -> bool {
        self.at_port(local.port()).any(|(_, bound)| bound == local)
    }

    /// Whether anybody listens at `port`.
    pub(super) fn is_port_taken(&self, port: u16) -> bool {
        self.by_port.contains_key(&port)
    }

    fn at_port(&self, port: u16) -> impl Iterator<Item = (ListenerId, SocketAddr)> {
        let ids = self.by_port.get(&port).map_or(&[][..], Vec::as_slice);
        ids.iter().filter_map(|id| self.table.get((*id).into()).map(|listener| (*id, listener.local)))
    }
}

/// `0.0.0.0` stands for every IPv4 address, `::` for every address.
fn is_wildcard_for(bound: IpAddr, local: IpAddr) -> bool {
    bound.is_unspecified() && (bound.is_ipv6() || local.is_ipv4())
}
