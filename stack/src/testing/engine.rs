//! The engines of a pair.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::PairConfig;
use super::wire::Wire;
use crate::stream::{
    Abort, Activity, ConnectError, Engine, EngineStatistics, Halves, HalvesMail, ListenError, ListenerId,
    ReceiveEngine, ReceiveStreams, ResetReason, Source, StreamEvent, StreamId, Streams, Transmitted,
};
use crate::table::{Name, Table};
use crate::time::Instant;

/// Slices that received bytes are lent in, at most.
const MOST_PARTS: usize = 6;

/// Which half of an engine works. A whole one does both.
#[derive(Clone, Copy)]
struct Part {
    receives: bool,
    sends: bool,
}

/// One of two engines that [`super::pair`] made.
pub struct PairEngine {
    config: PairConfig,
    address: IpAddr,
    wire: Arc<Mutex<Wire>>,
    random: SmallRng,
    connections: Table<Connection>,
    listeners: Table<SocketAddr>,
    statistics: EngineStatistics,
}

struct Connection {
    /// `None`: the peer refused, and it was not yet said.
    link: Option<u64>,
    /// Which of the link's directions is ours.
    side: usize,
    local: SocketAddr,
    remote: SocketAddr,
    is_connecting: bool,
    outgoing: Outgoing,
    incoming: Incoming,
}

/// Our direction.
#[derive(Default)]
struct Outgoing {
    /// Bytes that the peer has.
    delivered: u64,
    /// Bytes acknowledged to the source.
    acknowledged: u64,
    /// Every byte behind them, as it was first written.
    unacknowledged: VecDeque<u8>,
    /// Those of them, at the end, that have not left.
    unflushed: usize,
    is_writable_owed: bool,
    is_closing: bool,
    /// The end was put on the wire.
    is_ended: bool,
}

/// The peer's direction.
#[derive(Default)]
struct Incoming {
    waiting: Vec<u8>,
    /// Bytes of `waiting` that the sink was offered.
    offered: usize,
    is_resumed: bool,
    is_discarding: bool,
    is_ended: bool,
    is_end_reported: bool,
    truncated_since: Option<Instant>,
}

impl PairEngine {
    pub(super) fn new(config: PairConfig, side: u8, wire: Arc<Mutex<Wire>>) -> Self {
        Self {
            config,
            address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1 + side)),
            wire,
            random: SmallRng::seed_from_u64(config.seed ^ (u64::from(side) << 63)),
            connections: Table::new(config.max_connections),
            listeners: Table::new(config.max_listeners),
            statistics: EngineStatistics::default(),
        }
    }

    fn accept(&mut self, streams: &mut dyn Streams, activity: &mut Activity) {
        for listener in self.listeners.names() {
            let Some(local) = self.listeners.get(listener).copied() else { continue };
            // The lock ends with each statement: the layer above is called in between.
            loop {
                let Some((key, remote)) = lock(&self.wire).accept(local) else { break };
                let connection = Connection::new(Some(key), 1, local, remote, false);
                let Some(stream) = self.connections.insert(connection) else {
                    self.statistics.refused_connections += 1;
                    lock(&self.wire).reset(key);
                    continue;
                };
                activity.events += 1;
                let (listener, stream) = (listener.into(), stream.into());
                streams.handle_event(StreamEvent::Incoming { listener, stream, local, remote });
            }
        }
    }

    /// Everything that may happen to `name` in one poll.
    fn serve(&mut self, part: Part, now: Instant, name: Name, streams: &mut dyn Streams, activity: &mut Activity) {
        let stream: StreamId = name.into();
        let Some(connection) = self.connections.get_mut(name) else { return };
        if connection.is_connecting && !part.receives {
            return;
        }
        if connection.is_connecting {
            // Now and then a handshake takes its time.
            if self.random.random_ratio(1, 4) {
                return;
            }
            connection.is_connecting = false;
            activity.events += 1;
            if connection.link.is_none() {
                self.connections.remove(name);
                return streams.handle_event(StreamEvent::ConnectFailed { stream, reason: ResetReason::Refused });
            }
            streams.handle_event(StreamEvent::Connected { stream, local: connection.local });
        }
        let mut turn = Turn { part, config: &self.config, random: &mut self.random, statistics: &mut self.statistics };
        let ending = connection.serve(&mut turn, &self.wire, now, stream, streams, activity);
        let event = match ending {
            None => return,
            Some(Ending::Closed) => StreamEvent::Closed { stream },
            Some(Ending::Reset(reason)) => StreamEvent::Reset { stream, reason },
        };
        self.leave(name, !matches!(event, StreamEvent::Closed { .. }));
        activity.events += 1;
        streams.handle_event(event);
    }

    fn leave(&mut self, name: Name, is_reset: bool) {
        let Some(link) = self.connections.remove(name).and_then(|connection| connection.link) else { return };
        let mut wire = lock(&self.wire);
        if is_reset { wire.reset(link) } else { wire.detach(link) }
    }

    fn poll_part(&mut self, part: Part, now: Instant, streams: &mut dyn Streams) -> Activity {
        let mut activity = Activity::default();
        if part.receives {
            self.accept(streams, &mut activity);
        }
        for name in self.connections.names() {
            self.serve(part, now, name, streams, &mut activity);
        }
        activity
    }

    fn is_ours(&self, address: IpAddr) -> bool {
        address == self.address
    }
}

impl Engine for PairEngine {
    fn connect(&mut self, _now: Instant, remote: SocketAddr, local: Option<IpAddr>) -> Result<StreamId, ConnectError> {
        if let Some(local) = local.filter(|local| !self.is_ours(*local)) {
            return Err(ConnectError::LocalAddress { local, reason: format!("the address is {}", self.address) });
        }
        let too_many = ConnectError::TooManyConnections { limit: self.config.max_connections };
        if self.connections.is_full() {
            return Err(too_many);
        }
        let mut wire = lock(&self.wire);
        let local = SocketAddr::new(self.address, wire.free_port());
        let link = wire.connect(local, remote);
        let connection = Connection::new(link, 0, local, remote, true);
        self.connections.insert(connection).map(StreamId::from).ok_or(too_many)
    }

    fn listen(&mut self, _now: Instant, local: SocketAddr, backlog: usize) -> Result<ListenerId, ListenError> {
        let too_many = ListenError::TooManyListeners { limit: self.config.max_listeners };
        if self.listeners.is_full() {
            return Err(too_many);
        }
        if !local.ip().is_unspecified() && !self.is_ours(local.ip()) {
            return Err(ListenError::AddressNotOurs { local });
        }
        let mut wire = lock(&self.wire);
        let port = if local.port() == 0 { wire.free_port() } else { local.port() };
        let bound = SocketAddr::new(self.address, port);
        if !wire.listen(bound, backlog) {
            return Err(ListenError::AddressInUse { local });
        }
        self.listeners.insert(bound).map(ListenerId::from).ok_or(too_many)
    }

    fn listener_address(&self, listener: ListenerId) -> Option<SocketAddr> {
        self.listeners.get(listener.into()).copied()
    }

    fn close_listener(&mut self, _now: Instant, listener: ListenerId) {
        if let Some(address) = self.listeners.remove(listener.into()) {
            lock(&self.wire).close_listener(address);
        }
    }

    fn poll(&mut self, now: Instant, streams: &mut dyn Streams) -> Activity {
        self.poll_part(Part { receives: true, sends: true }, now, streams)
    }

    fn split(self: Box<Self>) -> Option<Halves> {
        let engine = Arc::new(Mutex::new(*self));
        let receive = Box::new(ReceiveHalf(engine.clone()));
        Some(Halves { receive, send: Box::new(SendHalf(engine)), mail: Arc::new(NoMail) })
    }

    fn transmit(&mut self, _now: Instant, stream: StreamId, source: &mut dyn Source) -> Transmitted {
        let Some(connection) = self.connections.get_mut(stream.into()) else { return Transmitted::Gone };
        let outgoing = &mut connection.outgoing;
        if outgoing.is_closing {
            return Transmitted::Gone;
        }
        loop {
            let is_full = outgoing.unacknowledged.len() + self.config.segment_size > self.config.window_bytes;
            if connection.is_connecting || is_full || self.random.random_ratio(1, 16) {
                outgoing.is_writable_owed = true;
                return Transmitted::Blocked;
            }
            let is_cramped = self.random.random_ratio(1, 8);
            let room = if is_cramped {
                self.random.random_range(1..=self.config.segment_size)
            } else {
                self.config.segment_size
            };
            let Some(record) = source.next(room) else {
                outgoing.is_writable_owed = is_cramped;
                return if is_cramped { Transmitted::Blocked } else { Transmitted::Drained };
            };
            let seed = self.config.seed;
            assert!(record.length as usize <= room, "seed {seed}: a record of {} in {room} bytes", record.length);
            assert!(record.length > 0, "seed {seed}: an empty record");
            let expected = outgoing.acknowledged + outgoing.unacknowledged.len() as u64;
            assert_eq!(record.start, expected, "seed {seed}: a gap between records");
            let mut bytes = vec![0; record.length as usize];
            let (front, back) = bytes.split_at_mut(self.random.random_range(0..record.length as usize));
            source.write(record.start + front.len() as u64, back);
            if !front.is_empty() {
                source.write(record.start, front);
            }
            outgoing.unacknowledged.extend(bytes);
            outgoing.unflushed += record.length as usize;
            self.statistics.transmitted_bytes += u64::from(record.length);
        }
    }

    fn flush(&mut self, _now: Instant) {
        let mut wire = lock(&self.wire);
        for name in self.connections.names() {
            if let Some(connection) = self.connections.get_mut(name) {
                connection.flush(&mut wire);
            }
        }
    }

    fn resume(&mut self, stream: StreamId) {
        if let Some(connection) = self.connections.get_mut(stream.into()) {
            connection.incoming.is_resumed = true;
        }
    }

    fn segment_size(&self, stream: StreamId) -> usize {
        self.connections.get(stream.into()).map_or(0, |_| self.config.segment_size)
    }

    fn addresses(&self, stream: StreamId) -> Option<(SocketAddr, SocketAddr)> {
        self.connections.get(stream.into()).map(|connection| (connection.local, connection.remote))
    }

    fn local_addresses(&self) -> Vec<IpAddr> {
        vec![self.address]
    }

    fn close(&mut self, _now: Instant, stream: StreamId) {
        if let Some(connection) = self.connections.get_mut(stream.into()) {
            connection.outgoing.is_closing = true;
            connection.outgoing.is_writable_owed = false;
        }
    }

    fn abort(&mut self, _now: Instant, stream: StreamId) {
        self.leave(stream.into(), true);
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        // There is no descriptor to sleep on, and acknowledgements come by chance.
        Some(now)
    }

    fn readiness(&self) -> Option<Arc<OwnedFd>> {
        None
    }

    fn statistics(&self) -> EngineStatistics {
        EngineStatistics { connections: self.connections.len() as u64, ..self.statistics.clone() }
    }
}

/// What a connection needs of its engine.
struct Turn<'a> {
    part: Part,
    config: &'a PairConfig,
    random: &'a mut SmallRng,
    statistics: &'a mut EngineStatistics,
}

/// How a stream ended.
enum Ending {
    Closed,
    Reset(ResetReason),
}

impl Connection {
    fn new(link: Option<u64>, side: usize, local: SocketAddr, remote: SocketAddr, is_connecting: bool) -> Self {
        let (outgoing, incoming) = (Outgoing::default(), Incoming::default());
        Self { link, side, local, remote, is_connecting, outgoing, incoming }
    }

    fn serve(
        &mut self,
        turn: &mut Turn<'_>,
        wire: &Mutex<Wire>,
        now: Instant,
        stream: StreamId,
        streams: &mut dyn Streams,
        activity: &mut Activity,
    ) -> Option<Ending> {
        let part = turn.part;
        if part.receives {
            let fresh = match self.take(turn, &mut lock(wire))? {
                Ok(fresh) => fresh,
                Err(reason) => return Some(Ending::Reset(reason)),
            };
            if !part.sends {
                self.offer(turn, fresh, stream, streams, activity);
                return self.end(turn, now, stream, streams, activity);
            }
            self.acknowledge(turn, stream, streams);
            self.write_again(turn, stream, streams);
            self.offer(turn, fresh, stream, streams, activity);
        } else {
            self.acknowledge(turn, stream, streams);
            self.write_again(turn, stream, streams);
        }
        if self.outgoing.is_writable_owed
            && self.outgoing.unacknowledged.len() <= turn.config.window_bytes / 2
            && turn.random.random_bool(0.5)
        {
            self.outgoing.is_writable_owed = false;
            activity.events += 1;
            streams.handle_event(StreamEvent::Writable { stream });
        }
        if part.receives { self.end(turn, now, stream, streams, activity) } else { None }
    }

    fn offer(
        &mut self,
        turn: &mut Turn<'_>,
        fresh: usize,
        stream: StreamId,
        streams: &mut dyn Streams,
        activity: &mut Activity,
    ) {
        if fresh > 0 {
            activity.received += 1;
        }
        let is_resumed = std::mem::take(&mut self.incoming.is_resumed);
        if fresh > 0 || is_resumed {
            self.incoming.offer(turn, stream, streams);
        }
    }

    /// Takes from the wire what came, and tells how much; `None` while the link is unknown.
    fn take(&mut self, turn: &mut Turn<'_>, wire: &mut Wire) -> Option<Result<usize, ResetReason>> {
        // What was closed goes out without a flush: nobody may call one for a stream that has ended.
        if self.outgoing.is_closing {
            self.flush(wire);
        }
        let link = wire.link(self.link?)?;
        if link.is_reset {
            return Some(Err(ResetReason::ByPeer));
        }
        self.outgoing.delivered = link.directions[self.side].delivered;
        let direction = &mut link.directions[1 - self.side];
        let room = turn.config.receive_bytes.saturating_sub(self.incoming.waiting.len());
        let most = direction.bytes.len().min(room);
        let bytes = if turn.random.random_ratio(1, 4) { turn.random.random_range(0..=most) } else { most };
        self.incoming.waiting.extend(direction.bytes.drain(..bytes));
        direction.delivered += bytes as u64;
        self.incoming.is_ended = direction.is_ended && direction.bytes.is_empty();
        Some(Ok(bytes))
    }

    /// Tells the source of some of what the peer has, or of all.
    fn acknowledge(&mut self, turn: &mut Turn<'_>, stream: StreamId, streams: &mut dyn Streams) {
        let news = self.outgoing.delivered - self.outgoing.acknowledged;
        if news == 0 || turn.random.random_bool(0.5) {
            return;
        }
        let count = if turn.random.random_bool(0.5) { turn.random.random_range(1..=news) } else { news };
        self.outgoing.acknowledged += count;
        self.outgoing.unacknowledged.drain(..count as usize);
        let through = self.outgoing.acknowledged;
        streams.with_source(stream, &mut |source| source.handle_acknowledged(through));
    }

    /// Has the source write some unacknowledged range again.
    fn write_again(&mut self, turn: &mut Turn<'_>, stream: StreamId, streams: &mut dyn Streams) {
        let held = self.outgoing.unacknowledged.len();
        if held == 0 || !turn.random.random_ratio(1, 4) {
            return;
        }
        let first = turn.random.random_range(0..held);
        let length = turn.random.random_range(1..=(held - first).min(2 * turn.config.segment_size));
        let start = self.outgoing.acknowledged + first as u64;
        let mut again = vec![0; length];
        let mut is_known = false;
        streams.with_source(stream, &mut |source| {
            is_known = true;
            source.write(start, &mut again);
        });
        if !is_known {
            return;
        }
        turn.statistics.retransmitted_segments += 1;
        let seed = turn.config.seed;
        let is_same = self.outgoing.unacknowledged.range(first..first + length).eq(&again);
        assert!(
            is_same || !turn.config.checks_rewrites,
            "seed {seed}: {length} bytes from {start} differ from what was first sent"
        );
    }

    fn flush(&mut self, wire: &mut Wire) {
        let Some(link) = self.link.and_then(|key| wire.link(key)) else { return };
        let direction = &mut link.directions[self.side];
        let left = self.outgoing.unacknowledged.len() - self.outgoing.unflushed;
        direction.bytes.extend(self.outgoing.unacknowledged.range(left..));
        self.outgoing.unflushed = 0;
        if self.outgoing.is_closing {
            direction.is_ended = true;
            self.outgoing.is_ended = true;
        }
    }

    fn end(
        &mut self,
        turn: &Turn<'_>,
        now: Instant,
        stream: StreamId,
        streams: &mut dyn Streams,
        activity: &mut Activity,
    ) -> Option<Ending> {
        let incoming = &mut self.incoming;
        if incoming.is_ended && !incoming.waiting.is_empty() {
            let since = *incoming.truncated_since.get_or_insert(now);
            return (now - since >= turn.config.truncation_timeout).then_some(Ending::Reset(ResetReason::TimedOut));
        }
        incoming.truncated_since = None;
        if incoming.is_ended && !std::mem::replace(&mut incoming.is_end_reported, true) {
            activity.events += 1;
            streams.handle_event(StreamEvent::PeerClosed { stream });
        }
        let is_over = incoming.is_end_reported && self.outgoing.is_ended && self.outgoing.unacknowledged.is_empty();
        is_over.then_some(Ending::Closed)
    }
}

impl Incoming {
    fn offer(&mut self, turn: &mut Turn<'_>, stream: StreamId, streams: &mut dyn Streams) {
        if self.is_discarding {
            self.waiting.clear();
        }
        if self.waiting.is_empty() {
            return;
        }
        turn.statistics.received_bytes += (self.waiting.len() - self.offered) as u64;
        let parts = cut(&self.waiting, turn.random);
        match streams.handle_bytes(stream, &parts) {
            Ok(count) => {
                let (seed, length) = (turn.config.seed, self.waiting.len());
                assert!(count <= length, "seed {seed}: a sink consumed {count} of {length} bytes");
                self.waiting.drain(..count);
            }
            Err(Abort) => {
                self.is_discarding = true;
                self.waiting.clear();
            }
        }
        self.offered = self.waiting.len();
    }
}

/// `bytes` in slices cut anywhere.
fn cut<'a>(bytes: &'a [u8], random: &mut SmallRng) -> Vec<&'a [u8]> {
    let mut parts = Vec::with_capacity(MOST_PARTS);
    let mut rest = bytes;
    while rest.len() > 1 && parts.len() + 1 < MOST_PARTS && random.random_bool(0.6) {
        // Cuts near the front meet headers; cuts anywhere meet everything else.
        let most = if random.random_bool(0.5) { rest.len().min(32) } else { rest.len() };
        let (front, back) = rest.split_at(random.random_range(1..most.max(2)));
        parts.push(front);
        rest = back;
    }
    parts.push(rest);
    parts
}

fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    // A test that panicked says so itself.
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The halves of an engine that was split. Both are the same engine behind a lock: how two threads use an engine is what can be
/// tested with them, not how fast.
struct ReceiveHalf(Arc<Mutex<PairEngine>>);

struct SendHalf(Arc<Mutex<PairEngine>>);

/// Both halves have to be polled all the time anyway, and say so by their deadlines.
struct NoMail;

impl HalvesMail for NoMail {
    fn is_for_receive(&self) -> bool {
        false
    }

    fn is_for_send(&self) -> bool {
        false
    }
}

/// A receiving half calls less of what is above it.
struct Receiving<'a>(&'a mut dyn ReceiveStreams);

impl Streams for Receiving<'_> {
    fn handle_bytes(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        // Whatever lies here was taken from the wire before.
        self.0.handle_burst();
        self.0.handle_bytes(stream, parts)
    }

    fn with_source(&mut self, _stream: StreamId, _use_source: &mut dyn FnMut(&mut dyn Source)) {
        unreachable!("a receiving half writes nothing");
    }

    fn handle_event(&mut self, event: StreamEvent) {
        self.0.handle_event(event);
    }
}

impl ReceiveHalf {
    fn engine(&self) -> MutexGuard<'_, PairEngine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SendHalf {
    fn engine(&self) -> MutexGuard<'_, PairEngine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReceiveEngine for ReceiveHalf {
    fn poll(&mut self, now: Instant, streams: &mut dyn ReceiveStreams) -> Activity {
        self.engine().poll_part(Part { receives: true, sends: false }, now, &mut Receiving(streams))
    }

    fn resume(&mut self, stream: StreamId) {
        self.engine().resume(stream);
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        Some(now)
    }
}

impl Engine for SendHalf {
    fn connect(&mut self, now: Instant, remote: SocketAddr, local: Option<IpAddr>) -> Result<StreamId, ConnectError> {
        self.engine().connect(now, remote, local)
    }

    fn listen(&mut self, now: Instant, local: SocketAddr, backlog: usize) -> Result<ListenerId, ListenError> {
        self.engine().listen(now, local, backlog)
    }

    fn listener_address(&self, listener: ListenerId) -> Option<SocketAddr> {
        self.engine().listener_address(listener)
    }

    fn close_listener(&mut self, now: Instant, listener: ListenerId) {
        self.engine().close_listener(now, listener);
    }

    fn poll(&mut self, now: Instant, streams: &mut dyn Streams) -> Activity {
        self.engine().poll_part(Part { receives: false, sends: true }, now, streams)
    }

    fn transmit(&mut self, now: Instant, stream: StreamId, source: &mut dyn Source) -> Transmitted {
        self.engine().transmit(now, stream, source)
    }

    fn flush(&mut self, now: Instant) {
        self.engine().flush(now);
    }

    fn resume(&mut self, _stream: StreamId) {}

    fn segment_size(&self, stream: StreamId) -> usize {
        self.engine().segment_size(stream)
    }

    fn addresses(&self, stream: StreamId) -> Option<(SocketAddr, SocketAddr)> {
        self.engine().addresses(stream)
    }

    fn local_addresses(&self) -> Vec<IpAddr> {
        self.engine().local_addresses()
    }

    fn close(&mut self, now: Instant, stream: StreamId) {
        self.engine().close(now, stream);
    }

    fn abort(&mut self, now: Instant, stream: StreamId) {
        self.engine().abort(now, stream);
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        Some(now)
    }

    fn readiness(&self) -> Option<Arc<OwnedFd>> {
        None
    }

    fn statistics(&self) -> EngineStatistics {
        self.engine().statistics()
    }
}
