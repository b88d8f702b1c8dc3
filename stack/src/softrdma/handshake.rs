//! How connections begin: RFC 9293 §3.5 and §3.10.7.1 to §3.10.7.4, both ways and at once.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::Rng;

use super::cookies::{self, offer_of, timestamp_with};
use super::listeners::Listener;
use super::receive_half::PacketOf;
use super::receiver::Receiver;
use super::segment::{
    ACK, FIN, IPV4_HEADER, IPV6_HEADER, Options, RST, SYN, Segment, Stamp, SynOptions, TCP_HEADER, TIMESTAMPS_OPTION,
    clock_at,
};
use super::send_half::{Fin, SendFlow, SendPhase};
use super::sending::{Connection, Phase, Sending};
use super::shared::{Announcement, Installed, Owed, Report, SharedFlow, ToReceive};
use super::time_wait::Verdict;
use super::tuple::{Purpose, Tuple};
use crate::port::Port;
use crate::sequential::contains;
use crate::stream::{ConnectError, ListenError, ListenerId, ResetReason, StreamEvent, StreamId, Streams};
use crate::table::Name;
use crate::time::Instant;

/// RFC 6335 §6: ports that nobody is assigned.
const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;
/// RFC 9293 §3.7.1: what a peer takes that does not say.
const DEFAULT_SEGMENT_IPV4: u16 = 536;
const DEFAULT_SEGMENT_IPV6: u16 = 1220;
/// A peer that asks for smaller segments than this gets these: smaller ones are only good for wasting our time.
const SMALLEST_SEGMENT: u16 = 128;

impl<P: Port> Sending<P> {
    pub(super) fn begin_connection(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: Option<IpAddr>,
    ) -> Result<StreamId, ConnectError> {
        // Ports that have become free.
        self.time_wait.expire(now);
        let limit = self.limits.max_connections;
        if self.connections.is_full() {
            return Err(ConnectError::TooManyConnections { limit });
        }
        if remote.port() == 0 {
            return Err(ConnectError::System { remote, reason: "nobody can listen at port 0".into() });
        }
        let local = self.source_address(remote, local)?;
        let tuple = self.free_tuple(local, remote).ok_or_else(|| ConnectError::LocalAddress {
            local,
            reason: format!("all ports from {} are taken", EPHEMERAL_PORTS.start()),
        })?;
        self.time_wait.remove(&tuple);
        let (name, shared) =
            self.insert(tuple, Phase::SynSent, None).ok_or(ConnectError::TooManyConnections { limit })?;
        let offer = SynOptions {
            maximum_segment: Some(self.largest_segment(local)),
            window_shift: Some(self.limits.window_shift),
            sack: true,
            timestamps: self.limits.timestamps,
        };
        let initial = self.initial_sequence(now, &tuple);
        let mut flow = self.send.new_flow((tuple, shared), initial, SendPhase::SynSent, offer);
        flow.give_up = now + self.limits.connect_timeout;
        flow.clock_offset = self.clock_offset(&tuple);
        let window = u32::try_from(self.limits.receive_window).unwrap_or(u32::MAX);
        // The window in a SYN counts from the number behind the peer's SYN, whichever that will be.
        flow.shared.announce(Announcement { next: 0, edge: window }, 0);
        self.send.open(now, name, flow);
        Ok(name.into())
    }

    pub(super) fn add_listener(&mut self, local: SocketAddr, backlog: usize) -> Result<ListenerId, ListenError> {
        let limit = self.limits.max_listeners;
        if self.listeners.is_full() {
            return Err(ListenError::TooManyListeners { limit });
        }
        if !local.ip().is_unspecified() && !self.is_ours(local.ip()) {
            return Err(ListenError::AddressNotOurs { local });
        }
        let mut bound = local;
        if local.port() == 0 {
            let start = self.random.random_range(EPHEMERAL_PORTS);
            let mut ports = (start..=*EPHEMERAL_PORTS.end()).chain(*EPHEMERAL_PORTS.start()..start);
            let port = ports.find(|port| !self.listeners.is_port_taken(*port));
            bound.set_port(port.ok_or(ListenError::AddressInUse { local })?);
        }
        if self.listeners.is_bound(bound) {
            return Err(ListenError::AddressInUse { local });
        }
        let backlog = backlog.clamp(1, self.limits.max_backlog);
        self.listeners.add(Listener::new(bound, backlog)).ok_or(ListenError::TooManyListeners { limit })
    }

    /// A segment that belongs to no connection, RFC 9293 §3.10.7.1 and §3.10.7.2. Whether the rest of it counts, because it
    /// completed a handshake, and how many events there were.
    pub(super) fn handle_stranger(
        &mut self,
        now: Instant,
        segment: &Segment,
        options: SynOptions,
        streams: &mut dyn Streams,
    ) -> (bool, usize) {
        const NOTHING: (bool, usize) = (false, 0);
        let local = segment.tuple.local();
        let source = segment.tuple.remote();
        // RFC 1122 §4.2.3.10: nobody connects from or to a group.
        if !self.is_ours(local.ip()) || !is_host(source.ip()) || self.is_remembered(now, segment) || segment.has(RST) {
            return NOTHING;
        }
        let listener = self.listeners.find(local).filter(|_| source.port() != 0);
        match listener {
            Some(listener) if segment.flags & (SYN | ACK | FIN) == SYN => {
                self.begin_handshake(now, listener, segment, options);
                NOTHING
            }
            Some(listener) if segment.flags & (SYN | ACK) == ACK => self.take_cookie(now, listener, segment, streams),
            _ => {
                self.refuse(now, segment);
                NOTHING
            }
        }
    }

    /// Whether the connection is in TIME-WAIT, and what the segment asks for was done.
    fn is_remembered(&mut self, now: Instant, segment: &Segment) -> bool {
        let Some(remembered) = self.time_wait.get(&segment.tuple).copied() else { return false };
        match self.time_wait.handle_segment(now, segment, self.limits.time_wait) {
            Verdict::Ignore => true,
            Verdict::Acknowledge => {
                let clock = clock_at(now).wrapping_add(remembered.clock_offset);
                let options = match remembered.recent_timestamp {
                    Some(recent) => Options::Timestamps(clock, recent),
                    None => Options::None,
                };
                let (sequence, acknowledgement) = (remembered.sent, remembered.received);
                let stamp = Stamp { sequence, acknowledgement, flags: ACK, window: 0, options };
                self.send.send_answer(now, segment, &stamp);
                true
            }
            Verdict::Reopen => {
                self.time_wait.remove(&segment.tuple);
                false
            }
        }
    }

    /// A first SYN: the connection is half-open from now on, or the peer has to remember it for us.
    fn begin_handshake(&mut self, now: Instant, listener: ListenerId, segment: &Segment, options: SynOptions) {
        if self.connections.is_full() {
            self.refused_connections += 1;
            return self.refuse(now, segment);
        }
        // Of the places that are left in the table of connections, most are for those that have confirmed.
        let left = self.limits.max_connections - self.connections.len();
        let is_full = self.listeners.get(listener).is_some_and(Listener::is_full) || self.half_open > left / 2;
        if is_full {
            self.give_cookie(now, listener, segment, options);
        } else {
            self.accept_handshake(now, listener, segment, options);
        }
    }

    /// RFC 4987 §3.6: under a flood of SYNs those that have begun keep their places, and everybody else is answered without
    /// keeping anything. Those that mean it confirm, whatever the flood.
    fn give_cookie(&mut self, now: Instant, listener: ListenerId, segment: &Segment, options: SynOptions) {
        let tuple = &segment.tuple;
        // RFC 4987 §3.6: what timestamps do not bring back is not offered.
        let kept = if options.timestamps && self.limits.timestamps { options } else { SynOptions::default() };
        let offer = self.offer_to(tuple, &kept);
        let size = self.peer_segment(tuple.local().ip(), &options);
        let clock = clock_at(now).wrapping_add(self.clock_offset(tuple));
        let timestamps = (timestamp_with(clock, &options), segment.timestamps.map_or(0, |(value, _)| value));
        let stamp = Stamp {
            sequence: self.cookies.make(now, tuple, segment.sequence, size),
            acknowledgement: segment.sequence.wrapping_add(1),
            flags: SYN | ACK,
            // RFC 7323 §2.2: the window of a SYN is never scaled.
            window: self.limits.receive_window.min(0xffff) as u16,
            options: Options::Syn(&offer, timestamps),
        };
        self.send.send_answer(now, segment, &stamp);
        self.stateless_answers += 1;
        if let Some(entry) = self.listeners.get_mut(listener) {
            entry.cookies_until = now + cookies::LIFETIME;
        }
    }

    /// A segment that may bring a cookie back: then its connection is established. See [`Self::handle_stranger`].
    fn take_cookie(
        &mut self,
        now: Instant,
        listener: ListenerId,
        segment: &Segment,
        streams: &mut dyn Streams,
    ) -> (bool, usize) {
        let Some(size) = self.cookie_size(now, listener, segment) else {
            self.refuse(now, segment);
            return (false, 0);
        };
        let initials = initials_of(segment);
        let echo = segment.timestamps.filter(|_| self.limits.timestamps).map(|(_, echo)| echo);
        let options = offer_of(size, echo);
        let Some((name, flow)) = self.half_open(now, listener, segment, initials, &options) else {
            self.refused_connections += 1;
            self.refuse(now, segment);
            return (false, 0);
        };
        // So much the peer was told: by the cookie.
        flow.shared.set_told(flow.shared.announcement());
        self.send.adopt(name, flow, segment.hardware_source);
        (true, self.establish(now, name, segment, streams))
    }

    /// The segment size that the cookie says which `segment` brings back; `None`: it brings none.
    fn cookie_size(&self, now: Instant, listener: ListenerId, segment: &Segment) -> Option<u16> {
        // RFC 4987 appendix A: without a flood not long ago there are none, and nobody needs to guess.
        self.listeners.get(listener).filter(|entry| now < entry.cookies_until)?;
        let (peer_initial, initial) = initials_of(segment);
        self.cookies.read(now, &segment.tuple, peer_initial, initial)
    }

    /// RFC 9293 §3.10.7.1: what fits no connection is answered with a reset that its sender believes.
    pub(super) fn refuse(&mut self, now: Instant, segment: &Segment) {
        let (sequence, acknowledgement, flags) = if segment.has(ACK) {
            (segment.acknowledgement, 0, RST)
        } else {
            (0, segment.sequence.wrapping_add(segment.sequence_length()), RST | ACK)
        };
        let stamp = Stamp { sequence, acknowledgement, flags, window: 0, options: Options::None };
        self.send.send_answer(now, segment, &stamp);
    }

    /// Answers a first SYN, and waits for the peer's confirmation.
    fn accept_handshake(&mut self, now: Instant, listener: ListenerId, segment: &Segment, options: SynOptions) {
        let initial = self.initial_sequence(now, &segment.tuple);
        if let Some((name, flow)) = self.half_open(now, listener, segment, (segment.sequence, initial), &options) {
            self.send.open(now, name, flow);
        }
    }

    /// A half-open connection for `listener`, and how it sends: between the initial sequence numbers of the peer and of us, with
    /// what the peer's SYN offered. `None`: there is no room.
    fn half_open(
        &mut self,
        now: Instant,
        listener: ListenerId,
        segment: &Segment,
        (peer_initial, initial): (u32, u32),
        options: &SynOptions,
    ) -> Option<(Name, SendFlow)> {
        let tuple = segment.tuple;
        let offer = self.offer_to(&tuple, options);
        let window = self.window_for(options);
        let receiver = Receiver::new(peer_initial, window, recent_timestamp(segment, &offer));
        let (name, shared) = self.insert(tuple, Phase::SynReceived(Some(listener)), Some(receiver))?;
        self.half_open += 1;
        if let Some(entry) = self.listeners.get_mut(listener) {
            entry.begin();
        }
        let mut flow = self.send.new_flow((tuple, shared), initial, SendPhase::SynReceived, offer);
        flow.give_up = now + self.limits.half_open_timeout;
        flow.clock_offset = self.clock_offset(&tuple);
        flow.is_scaled = options.window_shift.is_some();
        flow.peer_shift = options.window_shift.unwrap_or(0);
        flow.has_timestamps = offer.timestamps;
        flow.segment_size = self.segment_size_for(tuple.local().ip(), options, offer.timestamps);
        self.announce(name);
        Some((name, flow))
    }

    /// What the answer to a SYN offers whose sender offered `peer`.
    fn offer_to(&self, tuple: &Tuple, peer: &SynOptions) -> SynOptions {
        SynOptions {
            maximum_segment: Some(self.largest_segment(tuple.local().ip())),
            window_shift: peer.window_shift.map(|_| self.limits.window_shift),
            sack: peer.sack,
            timestamps: peer.timestamps && self.limits.timestamps,
        }
    }

    fn insert(
        &mut self,
        tuple: Tuple,
        phase: Phase,
        receiver: Option<Receiver<PacketOf<P>>>,
    ) -> Option<(Name, Arc<SharedFlow>)> {
        let shared = Arc::default();
        let connection = Connection { tuple, phase, receiver, shared: Arc::clone(&shared), peer_end: None };
        let name = self.connections.insert(connection)?;
        self.tuples.insert(tuple, name);
        Some((name, shared))
    }

    /// A segment for a connection whose handshake is not done. Whether the rest of the segment counts, and how many
    /// events there were.
    pub(super) fn handle_handshake(
        &mut self,
        now: Instant,
        name: Name,
        segment: &Segment,
        options: SynOptions,
        streams: &mut dyn Streams,
    ) -> (bool, usize) {
        match self.connections.get(name).map(|connection| connection.phase) {
            Some(Phase::SynSent) => (false, self.handle_syn_sent(now, name, segment, options, streams)),
            Some(Phase::SynReceived(listener)) => self.handle_syn_received(now, name, listener, segment, streams),
            _ => (false, 0),
        }
    }

    /// RFC 9293 §3.10.7.3.
    fn handle_syn_sent(
        &mut self,
        now: Instant,
        name: Name,
        segment: &Segment,
        options: SynOptions,
        streams: &mut dyn Streams,
    ) -> usize {
        let Some(flow) = self.send.flow(name.index) else { return 0 };
        let acknowledges = segment.has(ACK);
        if acknowledges && segment.acknowledgement != flow.initial.wrapping_add(1) {
            if !segment.has(RST) {
                self.refuse(now, segment);
            }
            return 0;
        }
        if segment.has(RST) {
            if !acknowledges {
                return 0;
            }
            self.forget(name);
            let stream = name.into();
            streams.handle_event(StreamEvent::ConnectFailed { stream, reason: ResetReason::Refused });
            return 1;
        }
        if !segment.has(SYN) {
            return 0;
        }
        self.learn_peer(name, segment, options);
        if acknowledges {
            return self.establish(now, name, segment, streams);
        }
        // Both sides connect to each other: RFC 9293 §3.5, figure 8.
        if let Some(connection) = self.connections.get_mut(name) {
            connection.phase = Phase::SynReceived(None);
        }
        if let Some(flow) = self.send.flow_mut(name.index) {
            flow.phase = SendPhase::SynReceived;
            flow.offer.sack &= options.sack;
            flow.offer.timestamps &= options.timestamps;
            if options.window_shift.is_none() {
                flow.offer.window_shift = None;
            }
        }
        self.send.repeat_handshake(now, name.index);
        0
    }

    /// Takes over what the peer's SYN says.
    fn learn_peer(&mut self, name: Name, segment: &Segment, options: SynOptions) {
        let window = self.window_for(&options);
        let Some(flow) = self.send.flow(name.index) else { return };
        let has_timestamps = flow.offer.timestamps && options.timestamps;
        let segment_size = self.segment_size_for(flow.tuple.local().ip(), &options, has_timestamps);
        let Some(flow) = self.send.flow_mut(name.index) else { return };
        flow.has_timestamps = has_timestamps;
        flow.is_scaled = options.window_shift.is_some();
        flow.peer_shift = options.window_shift.unwrap_or(0);
        flow.segment_size = segment_size;
        flow.offer.sack &= options.sack;
        let recent = segment.timestamps.filter(|_| has_timestamps).map(|(value, _)| value);
        if let Some(connection) = self.connections.get_mut(name) {
            connection.receiver = Some(Receiver::new(segment.sequence, window, recent));
        }
        self.announce(name);
    }

    /// RFC 9293 §3.10.7.4, for SYN-RECEIVED.
    fn handle_syn_received(
        &mut self,
        now: Instant,
        name: Name,
        listener: Option<ListenerId>,
        segment: &Segment,
        streams: &mut dyn Streams,
    ) -> (bool, usize) {
        let connection = self.connections.get(name).and_then(|connection| connection.receiver.as_ref());
        let (Some(receiver), Some(sending)) = (connection, self.send.flow(name.index)) else {
            return (false, 0);
        };
        let expected = sending.initial.wrapping_add(1);
        if segment.flags & (SYN | ACK | RST) == SYN && receiver.distance(segment.sequence) == -1 {
            // The same SYN again: our answer was lost.
            self.send.repeat_handshake(now, name.index);
            return (false, 0);
        }
        if !receiver.is_acceptable(segment.sequence, segment.sequence_length()) {
            if !segment.has(RST) {
                self.send.send_acknowledgement(now, name.index);
            }
            return (false, 0);
        }
        if segment.has(RST) {
            // RFC 5961 §3: only the very number that is expected.
            if receiver.distance(segment.sequence) != 0 {
                self.send.send_acknowledgement(now, name.index);
                return (false, 0);
            }
            self.forget(name);
            if listener.is_none() {
                let reason = ResetReason::Refused;
                streams.handle_event(StreamEvent::ConnectFailed { stream: name.into(), reason });
            }
            return (false, usize::from(listener.is_none()));
        }
        if segment.has(SYN) {
            self.send.send_acknowledgement(now, name.index);
            return (false, 0);
        }
        if !segment.has(ACK) {
            return (false, 0);
        }
        if segment.acknowledgement != expected {
            if let Some(listener) = listener
                && self.cookie_size(now, listener, segment).is_some()
            {
                // The peer confirms a cookie that it was given before, when there was no place for it: that is the answer it knows.
                self.forget(name);
                return self.take_cookie(now, listener, segment, streams);
            }
            self.refuse(now, segment);
            return (false, 0);
        }
        if let Some(listener) = listener
            && self.listeners.get(listener).is_none()
        {
            // The listener was closed meanwhile.
            self.send.send_reset(now, name.index);
            self.forget(name);
            return (false, 0);
        }
        (true, self.establish(now, name, segment, streams))
    }

    /// Both SYNs are acknowledged.
    fn establish(&mut self, now: Instant, name: Name, segment: &Segment, streams: &mut dyn Streams) -> usize {
        let index = name.index;
        let Some(flow) = self.send.flow(index) else { return 0 };
        let (options, segment_size) = (flow.offer, flow.segment_size);
        let Some(connection) = self.connections.get_mut(name) else { return 0 };
        let Some(mut receiver) = connection.receiver.take() else { return 0 };
        let (phase, tuple) = (connection.phase, connection.tuple);
        connection.phase = Phase::Synchronised;
        receiver.segment_size = segment_size;
        let installed = Installed { name, tuple, receiver, shared: connection.shared.clone() };
        self.send.establish(now, index, (options, segment_size), segment.window);
        let stream = StreamId::from(name);
        let (local, remote) = (tuple.local(), tuple.remote());
        match phase {
            Phase::SynReceived(Some(listener)) => {
                self.end_half_open(listener);
                streams.handle_event(StreamEvent::Incoming { listener, stream, local, remote });
            }
            _ => {
                self.send.handle_owed(now, index, Owed::Now, Report::default());
                streams.handle_event(StreamEvent::Connected { stream, local });
            }
        }
        // The layer above knows the stream; its bytes may come.
        self.to_receive.push(ToReceive::Install(Box::new(installed)));
        let mut events = 1;
        let is_closing = self.send.flow(index).is_some_and(|flow| flow.fin == Fin::Due);
        let has_room = self.send.retry(now, name, streams);
        if !is_closing {
            events += self.tell_writable(name, has_room, streams);
        }
        events
    }

    /// RFC 7323 §2.2: without a scale the window is what 16 bits can say.
    fn window_for(&self, peer: &SynOptions) -> usize {
        let window = self.limits.receive_window;
        if peer.window_shift.is_some() { window } else { window.min(0xffff) }
    }

    /// Publishes what the receiver announces.
    fn announce(&mut self, name: Name) {
        if let Some(connection) = self.connections.get_mut(name)
            && let Some(receiver) = &mut connection.receiver
        {
            let (announcement, _) = receiver.announce();
            connection.shared.announce(announcement, receiver.recent_timestamp.unwrap_or(0));
        }
    }

    /// Largest segment that we take: what we announce.
    fn largest_segment(&self, local: IpAddr) -> u16 {
        let headers = TCP_HEADER + if local.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
        (self.limits.mtu - headers).min(0xffff) as u16
    }

    /// Largest segment that the peer takes.
    fn peer_segment(&self, local: IpAddr, peer: &SynOptions) -> u16 {
        let default = if local.is_ipv4() { DEFAULT_SEGMENT_IPV4 } else { DEFAULT_SEGMENT_IPV6 };
        peer.maximum_segment.unwrap_or(default).max(SMALLEST_SEGMENT)
    }

    /// Bytes of payload in the largest segment that we send. RFC 6691 §2: options count on top of what the peer says.
    fn segment_size_for(&self, local: IpAddr, peer: &SynOptions, timestamps: bool) -> usize {
        let peer = self.peer_segment(local, peer);
        let options = if timestamps { TIMESTAMPS_OPTION } else { 0 };
        usize::from(peer.min(self.largest_segment(local))) - options
    }

    /// RFC 6528 §3: a clock of 4 us, and a function of the connection that nobody else can compute.
    fn initial_sequence(&self, now: Instant, tuple: &Tuple) -> u32 {
        self.secret.number(tuple, Purpose::InitialSequence).wrapping_add((now.as_nanoseconds() / 4_000) as u32)
    }

    /// RFC 7323 §7.1: nobody learns our clock.
    fn clock_offset(&self, tuple: &Tuple) -> u32 {
        self.secret.number(tuple, Purpose::Clock)
    }

    /// The address that a connection to `remote` comes from.
    fn source_address(&self, remote: SocketAddr, asked: Option<IpAddr>) -> Result<IpAddr, ConnectError> {
        let target = remote.ip();
        let asked = asked.filter(|local| !local.is_unspecified());
        if let Some(local) = asked {
            let refuse = |reason: &str| Err(ConnectError::LocalAddress { local, reason: reason.into() });
            if !self.is_ours(local) {
                return refuse("it is not an address of this device");
            }
            if local.is_ipv4() != target.is_ipv4() {
                return refuse("it is of another family than the remote address");
            }
        }
        let no_route = ConnectError::NoRoute { remote };
        if !is_host(target) || self.send.next_hop(target).is_none() {
            return Err(no_route);
        }
        let of_family = || self.addresses.iter().filter(|(address, _)| address.is_ipv4() == target.is_ipv4());
        let on_link = of_family().find(|(address, prefix)| contains(*address, *prefix, target));
        let chosen = on_link.or_else(|| of_family().next()).map(|(address, _)| *address);
        asked.or(chosen).ok_or(no_route)
    }

    /// The ends of a new connection, from a port that leads nowhere else; RFC 6056 §3.3.1. One in TIME-WAIT is taken only
    /// when there is no other: its sequence numbers lie behind those of the new connection (RFC 6528, RFC 6191).
    fn free_tuple(&mut self, local: IpAddr, remote: SocketAddr) -> Option<Tuple> {
        let start = self.random.random_range(EPHEMERAL_PORTS);
        let ports = || (start..=*EPHEMERAL_PORTS.end()).chain(*EPHEMERAL_PORTS.start()..start);
        let free = |port: &u16| !self.listeners.is_port_taken(*port);
        let tuple = |port: u16| Tuple::new(SocketAddr::new(local, port), remote);
        let mut tuples = ports().filter(free).map(tuple).filter(|tuple| !self.tuples.contains_key(tuple));
        let rested = tuples.find(|tuple| self.time_wait.get(tuple).is_none());
        rested.or_else(|| ports().filter(free).map(tuple).find(|tuple| !self.tuples.contains_key(tuple)))
    }
}

fn recent_timestamp(segment: &Segment, offer: &SynOptions) -> Option<u32> {
    segment.timestamps.filter(|_| offer.timestamps).map(|(value, _)| value)
}

/// An address that a host can have.
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast(),
        IpAddr::V6(address) => !address.is_unspecified() && !address.is_multicast(),
    }
}

/// The numbers of both SYNs, the peer's first, by what the third segment of a handshake says, or the first with data if that was
/// lost.
const fn initials_of(segment: &Segment) -> (u32, u32) {
    (segment.sequence.wrapping_sub(1), segment.acknowledgement.wrapping_sub(1))
}
