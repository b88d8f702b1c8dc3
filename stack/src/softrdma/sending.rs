//! Everything but receiving: connections as a whole, what they send, when their time is over.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use super::capture::Capture;
use super::config::SoftrdmaConfig;
use super::cookies::Cookies;
use super::interface::Services;
use super::listeners::Listeners;
use super::receive_half::PacketOf;
use super::receiver::Receiver;
use super::segment::Checksums;
use super::send_half::{Expired, SendHalf, SendSettings};
use super::sender::SenderConfig;
use super::shared::{Outbox, PeerEnd, ReceiveCounters, SharedFlow, ToReceive, ToSend, counted};
use super::time_wait::TimeWait;
use super::tuple::{Secret, Tuple, TupleHash};
use crate::port::Port;
use crate::stream::{EngineStatistics, ListenerId, ResetReason, Source, StreamEvent, StreamId, Streams, Transmitted};
use crate::table::{Name, Table};
use crate::time::Instant;

/// How soon to try again to hand frames to a port that takes none.
const BLOCKED_RETRY: Duration = Duration::from_micros(50);

/// See the [module](self).
pub(super) struct Sending<P: Port> {
    port: P,
    pub(super) send: SendHalf<P>,
    pub(super) connections: Table<Connection<PacketOf<P>>>,
    pub(super) tuples: HashMap<Tuple, Name, TupleHash>,
    pub(super) to_receive: Outbox<ToReceive<PacketOf<P>>>,
    pub(super) listeners: Listeners,
    pub(super) time_wait: TimeWait,
    pub(super) services: Services,
    pub(super) limits: Limits,
    pub(super) addresses: Vec<(IpAddr, u8)>,
    pub(super) random: StdRng,
    /// RFC 6528 §3: what makes initial sequence numbers unguessable.
    pub(super) secret: Secret,
    /// Connections that wait for the peer's confirmation, of all listeners.
    pub(super) half_open: usize,
    pub(super) cookies: Cookies,
    pub(super) refused_connections: u64,
    pub(super) stateless_answers: u64,
    pub(super) malformed_packets: u64,
    counters: Arc<ReceiveCounters>,
}

/// One connection.
pub(super) struct Connection<K> {
    pub(super) tuple: Tuple,
    pub(super) phase: Phase,
    /// Until the connection is synchronised: then the receive half has it.
    pub(super) receiver: Option<Receiver<K>>,
    pub(super) shared: Arc<SharedFlow>,
    /// The peer's direction has ended, and the layer above was told.
    pub(super) peer_end: Option<PeerEnd>,
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Our SYN has no answer.
    SynSent,
    /// The peer's SYN was answered; whoever listened for it.
    SynReceived(Option<ListenerId>),
    /// Done.
    Synchronised,
}

/// Limits and times from the configuration.
pub(super) struct Limits {
    pub(super) mtu: usize,
    pub(super) max_connections: usize,
    pub(super) max_listeners: usize,
    pub(super) max_backlog: usize,
    pub(super) receive_window: usize,
    pub(super) window_shift: u8,
    pub(super) timestamps: bool,
    pub(super) connect_timeout: Duration,
    pub(super) half_open_timeout: Duration,
    pub(super) time_wait: Duration,
}

/// What an engine stands on.
pub(super) struct Outside<P: Port> {
    pub(super) port: P,
    pub(super) transmit: P::Transmit,
    pub(super) capture: Option<Capture>,
    pub(super) counters: Arc<ReceiveCounters>,
}

impl<P: Port> Sending<P> {
    pub(super) fn new(
        outside: Outside<P>,
        config: SoftrdmaConfig,
        mtu: usize,
        (hash, mut random): (TupleHash, StdRng),
        now: Instant,
    ) -> Self {
        let Outside { port, transmit, capture, counters } = outside;
        let hardware = port.hardware_address();
        let checksums = match (config.checksum, port.capabilities().transmit_checksum) {
            (false, _) => Checksums::Off,
            (true, false) => Checksums::Here,
            (true, true) => Checksums::Port,
        };
        let limits = Limits::new(&config, mtu);
        let settings = SendSettings {
            hardware,
            addresses: config.addresses.clone(),
            gateways: config.gateways,
            checksums,
            sender: SenderConfig {
                congestion_control: config.congestion_control,
                min_retransmission_timeout: config.min_retransmission_timeout,
                user_timeout: config.user_timeout,
            },
            window_shift: limits.window_shift,
            acknowledgement_delay: config.acknowledgement_delay,
            keep_alive_interval: config.keep_alive_interval,
            user_timeout: config.user_timeout,
        };
        let services = Services::new(hardware, &config.addresses, mtu, random.random(), now);
        let secret = Secret([random.random(), random.random()]);
        Self {
            send: SendHalf::new(transmit, settings, capture, now),
            connections: Table::new(config.max_connections),
            tuples: HashMap::with_hasher(hash),
            to_receive: Outbox::new(),
            listeners: Listeners::new(config.max_listeners),
            time_wait: TimeWait::new(config.max_time_wait, hash),
            services,
            limits,
            addresses: config.addresses,
            secret,
            half_open: 0,
            cookies: Cookies { secret },
            random,
            refused_connections: 0,
            stateless_answers: 0,
            malformed_packets: 0,
            counters,
            port,
        }
    }

    /// What the receive half has to say; how many events there were.
    pub(super) fn handle_message(
        &mut self,
        now: Instant,
        message: ToSend<PacketOf<P>>,
        streams: &mut dyn Streams,
    ) -> usize {
        match message {
            ToSend::Acknowledged(name, said) if self.connections.get(name).is_some() => {
                let has_room = self.send.handle_acknowledgement(now, name, &said, streams);
                self.tell_writable(name, has_room, streams) + self.finish(now, name, streams)
            }
            ToSend::Owed(name, owed, report) if self.connections.get(name).is_some() => {
                self.send.handle_owed(now, name.index, owed, report);
                0
            }
            ToSend::Ended(name, end) => {
                if let Some(connection) = self.connections.get_mut(name) {
                    connection.peer_end = Some(end);
                }
                self.finish(now, name, streams)
            }
            ToSend::Reset(name) if self.connections.get(name).is_some() => {
                self.forget(name);
                streams.handle_event(StreamEvent::Reset { stream: name.into(), reason: ResetReason::ByPeer });
                1
            }
            ToSend::Stray(packet) => self.handle_stray(now, packet, streams),
            // Of a connection that is no more.
            ToSend::Acknowledged(..) | ToSend::Owed(..) | ToSend::Reset(_) => 0,
        }
    }

    /// Sends what was left for now and serves deadlines; how many events there were.
    pub(super) fn poll(&mut self, now: Instant, streams: &mut dyn Streams) -> usize {
        self.send.send_owed(now, true);
        self.time_wait.expire(now);
        self.serve_deadlines(now, streams) + self.serve_starved(now, streams)
    }

    pub(super) fn flush(&mut self, now: Instant) {
        self.send.send_owed(now, false);
        self.flush_frames();
    }

    /// Hands all frames to the port; what else has to be seen to comes behind that.
    #[inline]
    pub(super) fn flush_frames(&mut self) {
        self.send.output.flush();
        self.send.settle();
    }

    pub(super) fn transmit(&mut self, now: Instant, stream: StreamId, source: &mut dyn Source) -> Transmitted {
        match self.of_stream(stream) {
            Some(name) => self.send.transmit(now, name.index, source),
            None => Transmitted::Gone,
        }
    }

    pub(super) fn tell_writable(&mut self, name: Name, has_room: bool, streams: &mut dyn Streams) -> usize {
        if !has_room {
            return 0;
        }
        let was_blocked = self.send.flow_mut(name.index).is_some_and(|flow| std::mem::take(&mut flow.is_blocked));
        if was_blocked {
            streams.handle_event(StreamEvent::Writable { stream: name.into() });
        }
        usize::from(was_blocked)
    }

    /// Serves connections whose deadlines have come; how many events there were.
    fn serve_deadlines(&mut self, now: Instant, streams: &mut dyn Streams) -> usize {
        let Some(expired) = self.send.take_expired(now) else { return 0 };
        let mut events = 0;
        for &index in &expired {
            let Some(name) = self.connections.name_at(index) else { continue };
            let (outcome, has_room) = self.send.handle_deadline(now, name, streams);
            events += match outcome {
                Expired::Served => self.tell_writable(name, has_room, streams),
                Expired::GaveUp { unreachable } => self.give_up(now, name, unreachable, streams),
            };
        }
        self.send.give_back(expired);
        events
    }

    /// Tries connections again that waited for a frame or for a neighbour.
    fn serve_starved(&mut self, now: Instant, streams: &mut dyn Streams) -> usize {
        let Some(starved) = self.send.take_starved() else { return 0 };
        let mut events = 0;
        for &index in &starved {
            let Some(name) = self.connections.name_at(index) else { continue };
            let has_room = self.send.retry(now, name, streams);
            events += self.tell_writable(name, has_room, streams);
        }
        self.send.give_back(starved);
        events
    }

    pub(super) fn is_ours(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|&(ours, _)| ours == address)
    }

    /// The connection that the layer above names.
    pub(super) fn of_stream(&self, stream: StreamId) -> Option<Name> {
        let name = Name::from(stream);
        let connection = self.connections.get(name)?;
        (!matches!(connection.phase, Phase::SynReceived(Some(_)))).then_some(name)
    }

    pub(super) fn listener_address(&self, listener: ListenerId) -> Option<SocketAddr> {
        self.listeners.get(listener).map(|listener| listener.local)
    }

    pub(super) fn close_listener(&mut self, listener: ListenerId) {
        // Its half-open connections are reset when they are confirmed, or time out.
        self.listeners.remove(listener);
    }

    pub(super) fn segment_size(&self, stream: StreamId) -> usize {
        let flow = self.of_stream(stream).and_then(|name| self.send.flow(name.index));
        flow.map_or(0, |flow| flow.segment_size)
    }

    pub(super) fn addresses(&self, stream: StreamId) -> Option<(SocketAddr, SocketAddr)> {
        let connection = self.connections.get(self.of_stream(stream)?)?;
        Some((connection.tuple.local(), connection.tuple.remote()))
    }

    pub(super) fn local_addresses(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(|&(address, _)| address).collect()
    }

    pub(super) fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        self.send.settle();
        if self.send.has_neighbour_news() {
            return Some(now);
        }
        let retry = now + BLOCKED_RETRY;
        let blocked = (self.send.output.is_waiting() || self.send.is_starved()).then_some(retry);
        let due = [blocked, self.send.owed_deadline(now), self.send.next_deadline()].into_iter().flatten().min()?;
        // What is due and cannot leave is not due over and over.
        Some(if self.send.output.is_stuck() { due.max(retry) } else { due })
    }

    pub(super) fn readiness(&self) -> Option<Arc<OwnedFd>> {
        self.port.readiness()
    }

    pub(super) fn statistics(&self) -> EngineStatistics {
        EngineStatistics {
            received_bytes: counted(&self.counters.bytes),
            receive_copied_bytes: counted(&self.counters.copied_bytes),
            transmitted_bytes: self.send.transmitted_bytes,
            connections: self.connections.len() as u64,
            refused_connections: self.refused_connections + counted(&self.counters.dropped_strays),
            stateless_answers: self.stateless_answers,
            retransmitted_segments: self.send.all_retransmitted(),
            malformed_packets: self.malformed_packets + counted(&self.counters.malformed),
            port: Some(self.port.statistics()),
        }
    }
}

impl Limits {
    fn new(config: &SoftrdmaConfig, mtu: usize) -> Self {
        // RFC 7323 §2.3: as far as needed to say the window in 16 bits.
        let bits = usize::BITS - config.receive_window_bytes.leading_zeros();
        Self {
            mtu,
            max_connections: config.max_connections,
            max_listeners: config.max_listeners,
            max_backlog: config.max_backlog,
            receive_window: config.receive_window_bytes,
            window_shift: bits.saturating_sub(16).min(14) as u8,
            timestamps: config.timestamps,
            connect_timeout: config.connect_timeout,
            half_open_timeout: config.half_open_timeout,
            time_wait: config.time_wait,
        }
    }
}
