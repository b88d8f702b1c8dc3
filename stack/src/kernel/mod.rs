//! Streams over the kernel's TCP sockets.
//!
//! The one module of this crate that does IO; even here time is an argument.
//!
//! - Receiving: one `recv` (or `readv`, when bytes were left over) into a ring that belongs to the connection only while
//!   the sink leaves bytes in it. The kernel's copy is the only one before the sink's.
//! - Sending: records are gathered in a stage, one `send` for all of them, and acknowledged as soon as they are in it.
//! - Waiting: level-triggered epoll. Sockets that brought something lately are read without asking it.
//!
//! From the top down: `KernelEngine` here; `receive` and `transmit`, its two directions; `lifecycle`, how connections begin
//! and end; `connection`, `buffer`, `poller`, `socket`: what they stand on.

mod buffer;
mod config;
mod connection;
mod lifecycle;
mod poller;
mod receive;
mod socket;
#[cfg(test)]
mod tests;
mod transmit;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use socket2::Socket;

use self::buffer::Pool;
pub use self::config::{KeepAlive, KernelConfig};
use self::connection::{Connection, Phase};
use self::poller::{EventFlags, Poller, Target};
use self::receive::Recent;
use crate::stream::{
    Activity, ConnectError, Engine, EngineStatistics, ListenError, ListenerId, Source, StreamEvent, StreamId, Streams,
    Transmitted,
};
use crate::table::{Name, Table};
use crate::time::Instant;

/// Connections with leftover work, and expired timers, that one poll serves at most.
const SERVED_PER_POLL: usize = 64;

/// An [`Engine`] over non-blocking kernel TCP sockets, IPv4 and IPv6.
///
/// The descriptor of [`Engine::readiness`] is an epoll instance: wait on it with poll(2), epoll or the like, for reading.
/// It becomes readable, too, when [`Engine::resume`], [`Engine::close`] or [`Engine::transmit`] leave an event to report.
pub struct KernelEngine {
    config: KernelConfig,
    poller: Poller,
    connections: Table<Connection>,
    listeners: Table<Listener>,
    /// Rings of connections whose sink left bytes.
    rings: Pool,
    /// Stages of connections with records to write.
    stages: Pool,
    /// Connections to serve at the next poll though their sockets may be silent.
    ready: VecDeque<Name>,
    /// Connections with a stage to write at the next flush.
    dirty: Vec<Name>,
    deadlines: BTreeSet<(Instant, Target)>,
    recent: Recent,
    statistics: EngineStatistics,
}

struct Listener {
    socket: Socket,
    local: SocketAddr,
}

/// What is handed down through one poll.
struct Turn<'a> {
    now: Instant,
    streams: &'a mut dyn Streams,
    activity: Activity,
    /// Bytes that may still be received.
    budget: usize,
}

impl Turn<'_> {
    fn report(&mut self, event: StreamEvent) {
        self.activity.events += 1;
        self.streams.handle_event(event);
    }
}

impl KernelEngine {
    /// An engine without connections.
    ///
    /// # Errors
    /// A value in `config` is not accepted (`InvalidInput`, naming it), or the system has no descriptors left.
    pub fn new(config: KernelConfig) -> io::Result<Self> {
        config.validate()?;
        Ok(Self {
            poller: Poller::new()?,
            connections: Table::new(config.max_connections),
            listeners: Table::new(config.max_listeners),
            rings: Pool::new(config.receive_buffer_bytes, config.receive_buffers),
            stages: Pool::new(config.transmit_stage_bytes, config.transmit_stages),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            deadlines: BTreeSet::new(),
            recent: Recent::default(),
            statistics: EngineStatistics::default(),
            config,
        })
    }

    /// Has `name` served at the next poll, and wakes whoever sleeps on the descriptor.
    fn enqueue(&mut self, name: Name) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        if !connection.is_queued {
            connection.is_queued = true;
            self.ready.push_back(name);
            self.poller.signal();
        }
    }

    fn serve_ready(&mut self, turn: &mut Turn<'_>) {
        if self.ready.is_empty() {
            return;
        }
        for _ in 0..self.ready.len().min(SERVED_PER_POLL) {
            let Some(name) = self.ready.pop_front() else { break };
            self.serve(turn, name);
        }
        if self.ready.is_empty() {
            self.poller.quiet();
        }
    }

    fn serve_events(&mut self, turn: &mut Turn<'_>) {
        let is_crowd = self.poller.refill() > Recent::MOST;
        if is_crowd {
            // Asking epoll once is cheaper than asking many sockets.
            self.recent.clear();
        }
        while turn.budget > 0 {
            let Some((target, flags)) = self.poller.next_event() else { break };
            match target {
                Target::Listener(name) => {
                    self.recent.lose_patience();
                    self.accept(turn, name);
                }
                Target::Stream(name) => {
                    if !self.handle_readiness(turn, name, flags) {
                        self.recent.lose_patience();
                    } else if !is_crowd {
                        self.recent.note(name);
                    }
                }
            }
        }
    }

    /// Tells whether bytes came.
    fn handle_readiness(&mut self, turn: &mut Turn<'_>, name: Name, flags: EventFlags) -> bool {
        let ring_bytes = self.rings.size();
        let Some(connection) = self.connections.get_mut(name) else { return false };
        match connection.phase {
            Phase::Answered(_) => return false,
            Phase::Connecting => {
                self.finish_connecting(turn, name);
                return false;
            }
            Phase::Open => {}
        }
        let is_broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        if connection.is_blocked && (is_broken || flags.contains(EventFlags::OUT)) {
            self.handle_room(turn, name);
        }
        let Some(connection) = self.connections.get_mut(name) else { return false };
        if connection.wants_read(ring_bytes) {
            return (is_broken || flags.contains(EventFlags::IN)) && self.receive(turn, name) == receive::Read::Some;
        }
        if flags.contains(EventFlags::ERR) {
            let reason = socket::take_error(&connection.socket).unwrap_or(crate::stream::ResetReason::ByPeer);
            self.fail(turn, name, reason);
        } else if flags.contains(EventFlags::HUP) {
            // Both directions have ended, and the sink does not take what is left. epoll would say so again and again.
            let _ = self.poller.delete(&connection.socket);
            connection.interest = None;
        }
        false
    }
}

impl Engine for KernelEngine {
    fn connect(&mut self, now: Instant, remote: SocketAddr, local: Option<IpAddr>) -> Result<StreamId, ConnectError> {
        self.begin_connecting(now, remote, local)
    }

    fn listen(&mut self, _now: Instant, local: SocketAddr, backlog: usize) -> Result<ListenerId, ListenError> {
        self.begin_listening(local, backlog)
    }

    fn listener_address(&self, listener: ListenerId) -> Option<SocketAddr> {
        Some(self.listeners.get(listener.into())?.local)
    }

    fn close_listener(&mut self, _now: Instant, listener: ListenerId) {
        self.listeners.remove(listener.into());
    }

    fn poll(&mut self, now: Instant, streams: &mut dyn Streams) -> Activity {
        let budget = self.config.receive_budget_bytes;
        let mut turn = Turn { now, streams, activity: Activity::default(), budget };
        self.run_deadlines(&mut turn);
        self.serve_ready(&mut turn);
        self.receive_recent(&mut turn);
        if self.recent.is_wait_due(now) || self.poller.has_events() {
            self.serve_events(&mut turn);
        }
        turn.activity
    }

    fn transmit(&mut self, _now: Instant, stream: StreamId, source: &mut dyn Source) -> Transmitted {
        self.take_records(stream.into(), source)
    }

    fn flush(&mut self, _now: Instant) {
        self.write_dirty();
    }

    fn resume(&mut self, stream: StreamId) {
        let name = stream.into();
        let Some(connection) = self.connections.get_mut(name) else { return };
        if connection.has_unconsumed() {
            connection.is_resumed = true;
            self.enqueue(name);
        }
    }

    fn segment_size(&self, stream: StreamId) -> usize {
        self.connections.get(stream.into()).map_or(0, |connection| connection.segment_size)
    }

    fn addresses(&self, stream: StreamId) -> Option<(SocketAddr, SocketAddr)> {
        let connection = self.connections.get(stream.into())?;
        Some((connection.local, connection.remote))
    }

    fn local_addresses(&self) -> Vec<IpAddr> {
        Vec::new()
    }

    fn close(&mut self, now: Instant, stream: StreamId) {
        self.begin_closing(now, stream.into());
    }

    fn abort(&mut self, _now: Instant, stream: StreamId) {
        if let Some(connection) = self.forget(stream.into()) {
            socket::reset(connection);
        }
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        if !self.ready.is_empty() || self.poller.has_events() {
            return Some(now);
        }
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    fn readiness(&self) -> Option<Arc<OwnedFd>> {
        Some(self.poller.descriptor())
    }

    fn statistics(&self) -> EngineStatistics {
        EngineStatistics { connections: self.connections.len() as u64, ..self.statistics.clone() }
    }
}
