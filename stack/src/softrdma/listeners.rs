//! The table of listeners: by name, and by port for a SYN that arrives.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::stream::ListenerId;
use crate::table::Table;
use crate::time::Instant;

/// One listener.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) local: SocketAddr,
    /// Half-open connections that it may have at a time.
    pub(super) backlog: usize,
    /// Connections that wait for the peer's confirmation.
    half_open: usize,
    /// Until when a cookie may come back that was given here.
    pub(super) cookies_until: Instant,
}

impl Listener {
    pub(super) const fn new(local: SocketAddr, backlog: usize) -> Self {
        Self { local, backlog, half_open: 0, cookies_until: Instant::ZERO }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.half_open >= self.backlog
    }

    /// A connection waits for the peer's confirmation.
    pub(super) const fn begin(&mut self) {
        self.half_open += 1;
    }

    /// One of them does not any more.
    pub(super) const fn end(&mut self) {
        self.half_open -= 1;
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
