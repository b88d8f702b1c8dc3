//! How connections begin and end.

use std::net::{IpAddr, SocketAddr};

use rand::Rng;
use smoltcp::socket::tcp;
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};

use super::config::contains;
use super::headers::{IPV4_HEADER, IPV6_HEADER, TCP_HEADER};
use super::listeners::Listener;
use super::slots::Role;
use super::{LINGER_TIME, SequentialEngine, smoltcp_duration};
use crate::port::Port;
use crate::stream::{ConnectError, ListenError, ListenerId, StreamId};
use crate::time::Instant;

/// RFC 6335 §6: ports that nobody is assigned.
const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

impl<P: Port> SequentialEngine<P> {
    pub(super) fn begin_connection(
        &mut self,
        remote: SocketAddr,
        local: Option<IpAddr>,
    ) -> Result<StreamId, ConnectError> {
        let limit = self.limits.max_connections;
        if self.slots.connections() >= limit {
            return Err(ConnectError::TooManyConnections { limit });
        }
        let local = self.source_address(remote, local)?;
        let port = self.ephemeral_port().ok_or_else(|| ConnectError::LocalAddress {
            local,
            reason: format!("all ports from {} are taken", EPHEMERAL_PORTS.start()),
        })?;
        let mut socket = self.new_socket(self.limits.connect_timeout);
        let endpoint = IpListenEndpoint { addr: Some(local.into()), port };
        socket.connect(self.interface.context(), IpEndpoint::from(remote), endpoint).map_err(|error| {
            // Only a remote port of zero is left to be refused.
            ConnectError::System { remote, reason: error.to_string() }
        })?;
        let ends = (SocketAddr::new(local, port), remote);
        let index = self.slots.add(Role::Connecting, ends, self.largest_segment(local));
        self.sockets.put(index, socket);
        self.ready.insert(index);
        Ok(self.slots.name(index))
    }

    pub(super) fn add_listener(&mut self, local: SocketAddr, backlog: usize) -> Result<ListenerId, ListenError> {
        let limit = self.limits.max_listeners;
        if self.listeners.count() >= limit {
            return Err(ListenError::TooManyListeners { limit });
        }
        if !local.ip().is_unspecified() && !self.is_ours(local.ip()) {
            return Err(ListenError::AddressNotOurs { local });
        }
        let mut bound = local;
        if local.port() == 0 {
            bound.set_port(self.ephemeral_port().ok_or(ListenError::AddressInUse { local })?);
        }
        if self.listeners.is_bound(bound) {
            return Err(ListenError::AddressInUse { local });
        }
        let backlog = backlog.clamp(1, self.limits.max_backlog);
        Ok(self.listeners.add(Listener { local: bound, backlog, half_open: 0 }))
    }

    pub(super) fn close_stream(&mut self, stream: StreamId) {
        let Some(index) = self.slots.of_stream(stream) else { return };
        let slot = self.slots.get_mut(index);
        slot.closing = true;
        // A stream that is not connected yet is closed once it is.
        if slot.role == Role::Open {
            self.sockets.get_mut(index).close();
            self.sockets.mark(index);
            self.ready.insert(index);
        }
    }

    pub(super) fn abort_stream(&mut self, now: Instant, stream: StreamId) {
        let Some(index) = self.slots.of_stream(stream) else { return };
        self.reset(now, index);
    }

    /// Sends a RST and forgets the connection once it has left.
    pub(super) fn reset(&mut self, now: Instant, index: usize) {
        self.sockets.get_mut(index).abort();
        self.sockets.mark(index);
        self.retire(now, index);
    }

    /// Takes the name from a connection; its slot is free at once or when the socket has said its last.
    pub(super) fn retire(&mut self, now: Instant, index: usize) {
        let socket = self.sockets.get_mut(index);
        if is_silent(socket) {
            return self.free_slot(index);
        }
        let waker = self.ready.waker(index);
        socket.register_recv_waker(waker);
        socket.register_send_waker(waker);
        self.slots.set_role(index, Role::Lingering);
        self.slots.get_mut(index).stage = Vec::new();
        self.lingering.push_back((self.slots.name(index), now + LINGER_TIME));
        if self.lingering.len() > self.limits.max_time_wait {
            self.forget_oldest();
        }
    }

    /// Frees the slot of a lingering socket that has said its last.
    pub(super) fn serve_lingering(&mut self, index: usize) {
        let socket = self.sockets.get_mut(index);
        if is_silent(socket) {
            return self.free_slot(index);
        }
        let waker = self.ready.waker(index);
        socket.register_recv_waker(waker);
        socket.register_send_waker(waker);
    }

    pub(super) fn forget_lingering(&mut self, now: Instant) {
        while self.lingering.front().is_some_and(|&(_, at)| at <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((name, _)) = self.lingering.pop_front() else { return };
        let index = name.index as usize;
        if self.slots.name(index) == name && self.slots.get(index).role == Role::Lingering {
            self.free_slot(index);
        }
    }

    pub(super) fn free_slot(&mut self, index: usize) {
        if let Role::HalfOpen(listener) = self.slots.get(index).role
            && let Some(listener) = self.listeners.get_mut(listener)
        {
            listener.half_open -= 1;
        }
        self.sockets.remove(index);
        self.slots.remove(index);
    }

    /// A closed socket with the configured buffers and options, and `timeout` until it is established.
    ///
    /// Sockets are never used twice: smoltcp leaves traces of the last connection in them. The rings are fresh zeroed
    /// memory, which costs nothing before it is touched.
    pub(super) fn new_socket(&self, timeout: std::time::Duration) -> tcp::Socket<'static> {
        let ring = || tcp::SocketBuffer::new(vec![0; self.limits.socket_buffer_bytes]);
        let mut socket = tcp::Socket::new(ring(), ring());
        // Acknowledgements leave once a burst, with the answer if there is one. Delaying them further only costs time.
        socket.set_ack_delay(None);
        // Records are sent when they are posted; what is posted in one burst is one stretch of bytes anyway.
        socket.set_nagle_enabled(false);
        socket.set_congestion_control(self.limits.congestion_control);
        socket.set_timeout(Some(smoltcp_duration(timeout)));
        socket
    }

    /// Puts an established connection under the timeouts of established ones.
    pub(super) fn establish(&mut self, index: usize) {
        self.sockets.mark(index);
        let socket = self.sockets.get_mut(index);
        socket.set_timeout(Some(smoltcp_duration(self.limits.user_timeout)));
        socket.set_keep_alive(Some(smoltcp_duration(self.limits.keep_alive_interval)));
    }

    /// Largest TCP payload of one packet from `local`.
    pub(super) fn largest_segment(&self, local: IpAddr) -> usize {
        self.mtu - TCP_HEADER - if local.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER }
    }

    pub(super) fn is_ours(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|&(ours, _)| ours == address)
    }

    /// The address that a connection to `remote` comes from.
    fn source_address(&self, remote: SocketAddr, asked: Option<IpAddr>) -> Result<IpAddr, ConnectError> {
        let no_route = ConnectError::NoRoute { remote };
        let target = remote.ip();
        if let Some(local) = asked.filter(|local| !local.is_unspecified()) {
            let refuse = |reason: &str| Err(ConnectError::LocalAddress { local, reason: reason.into() });
            if !self.is_ours(local) {
                return refuse("it is not an address of this device");
            }
            if local.is_ipv4() != target.is_ipv4() {
                return refuse("it is of another family than the remote address");
            }
        }
        let on_link = self.addresses.iter().any(|&(address, prefix)| contains(address, prefix, target));
        let routed = self.gateways.iter().any(|gateway| gateway.is_ipv4() == target.is_ipv4());
        // Our own address is answered for by a port that receives what it sends; on any other the connection times out.
        if target.is_unspecified() || target.is_multicast() || !(on_link || routed) {
            return Err(no_route);
        }
        if let Some(local) = asked.filter(|local| !local.is_unspecified()) {
            return Ok(local);
        }
        let chosen = self.interface.get_source_address(&target.into()).map(IpAddr::from);
        chosen.filter(|address| self.is_ours(*address)).ok_or(no_route)
    }

    /// A port that no connection or listener of ours uses, from a random place on.
    fn ephemeral_port(&mut self) -> Option<u16> {
        let start = self.random.random_range(EPHEMERAL_PORTS);
        let ports = (start..=*EPHEMERAL_PORTS.end()).chain(*EPHEMERAL_PORTS.start()..start);
        ports.into_iter().find(|&port| !self.slots.is_port_taken(port) && !self.listeners.is_port_taken(port))
    }
}

/// The socket has nobody to say anything to.
fn is_silent(socket: &tcp::Socket<'_>) -> bool {
    socket.state() == tcp::State::Closed && socket.remote_endpoint().is_none()
}
