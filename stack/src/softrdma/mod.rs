//! The softrdma engine: TCP made for RDMA, over a packet port, with one copy from the packet into memory.
//!
//! Where things happen, from the first byte of a segment to the last:
//!
//! - **A segment is born** in `send_half`, `SendHalf::transmit`: the source above says which bytes travel together, writes them
//!   straight into a frame of the port, and `segment::HeaderTemplate::stamp` puts the headers in front.
//! - **It is placed** in `receiver`, `Receiver::offer`: the parts of received packets are lent to the layer above where they
//!   lie; what it leaves stays in its packets (`reassembly`) and is lent again with what follows. Before that
//!   `receive_half`, `ReceiveHalf::handle_segment`, judges the segment.
//! - **It is acknowledged** in `send_half`, `SendHalf::send_owed`, at most once for each connection and burst, unless data leaves
//!   that carries the acknowledgement.
//! - **It is sent again** in `send_half`, `SendHalf::pump`, when `sender` finds it lost; the source writes the same bytes again.
//!
//! The engine is two values that could run on two threads: the receive half and the send half. What they share is in
//! `shared`, and nothing else. Handshakes and ends of connections concern both and are handled here, between them: `handshake`,
//! `ending`, `time_wait`, `listeners`. Frames that are not TCP go to smoltcp (`interface`), which also brings the wire
//! formats of ARP, NDP and ICMP; the table of neighbours is ours (`neighbours`).
//!
//! [`Engine::poll`] receives and offers; what there is to send, acknowledgements included, leaves with [`Engine::flush`], so
//! that an answer carries its acknowledgement. Without a flush it leaves at the beginning of the next poll.

mod config;
mod ending;
mod handshake;
mod ingress;
mod interface;
mod listeners;
mod neighbours;
mod reassembly;
mod receive_half;
mod receiver;
mod segment;
mod send_half;
mod sender;
mod shared;
mod sum;
mod time_wait;
mod timer_wheel;
mod tuple;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::port::Port;
use crate::stream::{
    Activity, ConnectError, Engine, EngineStatistics, ListenError, ListenerId, Source, StreamEvent, StreamId, Streams,
    Transmitted,
};
use crate::table::Name;
use crate::time::Instant;
pub use config::{
    CongestionControl, MAX_ADDRESSES, MAX_CONNECTIONS, MAX_MTU, MAX_RECEIVE_WINDOW, MIN_MTU_IPV4, MIN_MTU_IPV6,
    MIN_RECEIVE_WINDOW, SoftrdmaConfig, SoftrdmaError,
};
use interface::Services;
use listeners::Listeners;
use receive_half::{Phase, ReceiveHalf};
use segment::Checksums;
use send_half::{Expired, SendHalf, SendSettings};
use sender::SenderConfig;
use shared::{Message, SharedFlow};
use time_wait::TimeWait;
use tuple::TupleHash;

/// How soon to try again to hand frames to a port that takes none.
const BLOCKED_RETRY: Duration = Duration::from_micros(50);

/// One-copy TCP over a port. See the [module](self).
pub struct SoftrdmaEngine<P: Port> {
    port: P,
    receive: ReceiveHalf<P>,
    send: SendHalf<P>,
    /// By slot.
    shared: Vec<SharedFlow>,
    /// From the receive half to the send half; empty between calls.
    messages: Vec<Message>,
    /// Connections being served; a field to keep its memory.
    serving: Vec<Name>,
    listeners: Listeners,
    time_wait: TimeWait,
    services: Services,
    limits: Limits,
    hardware: [u8; 6],
    addresses: Vec<(IpAddr, u8)>,
    random: StdRng,
    /// RFC 6528 §3: what makes initial sequence numbers unguessable.
    secret: [u64; 2],
    refused_connections: u64,
    malformed_packets: u64,
}

/// Limits and times from the configuration.
struct Limits {
    mtu: usize,
    max_connections: usize,
    max_listeners: usize,
    max_backlog: usize,
    receive_window: usize,
    window_shift: u8,
    timestamps: bool,
    /// Checksums of received packets count.
    verifies: bool,
    connect_timeout: Duration,
    half_open_timeout: Duration,
    time_wait: Duration,
}

impl<P: Port> SoftrdmaEngine<P> {
    /// An engine with the addresses of `config` on queue 0 of `port`.
    pub fn new(mut port: P, config: SoftrdmaConfig, now: Instant) -> Result<Self, SoftrdmaError> {
        let capabilities = port.capabilities();
        let mtu = config.validate(capabilities.mtu)?;
        let hardware = port.hardware_address();
        if hardware[0] & 1 != 0 || hardware == [0; 6] {
            return Err(SoftrdmaError::HardwareAddress { address: hardware });
        }
        let receive = port.take_receive_queue(0).ok_or(SoftrdmaError::QueueTaken)?;
        let transmit = port.take_transmit_queue(0).ok_or(SoftrdmaError::QueueTaken)?;
        let mut random = StdRng::seed_from_u64(config.random_seed);
        let hash = TupleHash { key: [random.random(), random.random()] };
        let checksums = match (config.checksum, capabilities.transmit_checksum) {
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
        Ok(Self {
            port,
            receive: ReceiveHalf::new(receive, config.max_connections, config.max_held_packets, hash),
            send: SendHalf::new(transmit, settings, config.capture, now),
            shared: Vec::new(),
            messages: Vec::new(),
            serving: Vec::new(),
            listeners: Listeners::new(config.max_listeners),
            time_wait: TimeWait::new(config.max_time_wait, hash),
            services: Services::new(hardware, &config.addresses, mtu, random.random(), now),
            limits,
            hardware,
            addresses: config.addresses,
            secret: [random.random(), random.random()],
            random,
            refused_connections: 0,
            malformed_packets: 0,
        })
    }

    /// Tells the send half what the receive half heard; how many events there were.
    fn serve_messages(&mut self, now: Instant, streams: &mut dyn Streams) -> usize {
        let mut events = 0;
        let mut messages = std::mem::take(&mut self.messages);
        for message in messages.drain(..) {
            match message {
                Message::Owed(name, owed) => {
                    if self.receive.flows.get(name).is_some() {
                        self.send.handle_owed(now, name.index, owed);
                    }
                }
                Message::Acknowledged(name, said) => {
                    if self.receive.flows.get(name).is_none() {
                        continue;
                    }
                    let shared = &mut self.shared[name.index as usize];
                    let has_room = self.send.handle_acknowledgement(now, name, &said, shared, streams);
                    events += self.tell_writable(name, has_room, streams) + self.finish(now, name, streams);
                }
            }
        }
        self.messages = messages;
        events
    }

    /// Offers what arrived; how many events there were.
    fn serve_touched(&mut self, now: Instant, streams: &mut dyn Streams) -> usize {
        if self.receive.touched.is_empty() {
            return 0;
        }
        let mut events = 0;
        let mut touched = std::mem::replace(&mut self.receive.touched, std::mem::take(&mut self.serving));
        for name in touched.drain(..) {
            events += self.serve_one(now, name, streams);
        }
        self.serving = touched;
        events
    }

    fn serve_one(&mut self, now: Instant, name: Name, streams: &mut dyn Streams) -> usize {
        let Some(shared) = self.shared.get_mut(name.index as usize) else { return 0 };
        let has_ended = self.receive.serve(name, shared, streams, &mut self.messages);
        let mut events = self.serve_messages(now, streams);
        if has_ended {
            streams.handle_event(StreamEvent::PeerClosed { stream: name.into() });
            events += 1 + self.finish(now, name, streams);
        }
        events
    }

    fn tell_writable(&mut self, name: Name, has_room: bool, streams: &mut dyn Streams) -> usize {
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
        self.time_wait.expire(now);
        let Some(expired) = self.send.take_expired(now) else { return 0 };
        let mut events = 0;
        for &index in &expired {
            let Some(name) = self.receive.flows.name_at(index) else { continue };
            let shared = &mut self.shared[index as usize];
            let (outcome, has_room) = self.send.handle_deadline(now, name, shared, streams);
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
            let Some(name) = self.receive.flows.name_at(index) else { continue };
            let has_room = self.send.retry(now, name, &mut self.shared[index as usize], streams);
            events += self.tell_writable(name, has_room, streams);
        }
        self.send.give_back(starved);
        events
    }

    fn is_ours(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|&(ours, _)| ours == address)
    }

    /// The connection that the layer above names.
    fn of_stream(&self, stream: StreamId) -> Option<Name> {
        let name = Name::from(stream);
        let flow = self.receive.flows.get(name)?;
        (!matches!(flow.phase, Phase::SynReceived(Some(_)))).then_some(name)
    }
}

impl<P: Port> Engine for SoftrdmaEngine<P> {
    fn connect(&mut self, now: Instant, remote: SocketAddr, local: Option<IpAddr>) -> Result<StreamId, ConnectError> {
        self.begin_connection(now, remote, local)
    }

    fn listen(&mut self, _now: Instant, local: SocketAddr, backlog: usize) -> Result<ListenerId, ListenError> {
        self.add_listener(local, backlog)
    }

    fn listener_address(&self, listener: ListenerId) -> Option<SocketAddr> {
        self.listeners.get(listener).map(|listener| listener.local)
    }

    fn close_listener(&mut self, _now: Instant, listener: ListenerId) {
        // Its half-open connections are reset when they are confirmed, or time out.
        self.listeners.remove(listener);
    }

    fn poll(&mut self, now: Instant, streams: &mut dyn Streams) -> Activity {
        self.send.send_owed(now, &mut self.shared, true);
        let mut events = self.serve_deadlines(now, streams);
        events += self.serve_starved(now, streams);
        let (received, ended) = self.ingress(now, streams);
        events += ended + self.serve_messages(now, streams);
        events += self.serve_touched(now, streams);
        self.send.output.flush();
        Activity { received, events }
    }

    fn transmit(&mut self, now: Instant, stream: StreamId, source: &mut dyn Source) -> Transmitted {
        match self.of_stream(stream) {
            Some(name) => self.send.transmit(now, name.index, &mut self.shared[name.index as usize], source),
            None => Transmitted::Gone,
        }
    }

    fn flush(&mut self, now: Instant) {
        self.send.send_owed(now, &mut self.shared, false);
        self.send.output.flush();
    }

    fn resume(&mut self, stream: StreamId) {
        if let Some(name) = self.of_stream(stream) {
            self.receive.resume(name);
        }
    }

    fn segment_size(&self, stream: StreamId) -> usize {
        let flow = self.of_stream(stream).and_then(|name| self.send.flow(name.index));
        flow.map_or(0, |flow| flow.segment_size)
    }

    fn addresses(&self, stream: StreamId) -> Option<(SocketAddr, SocketAddr)> {
        let flow = self.receive.flows.get(self.of_stream(stream)?)?;
        Some((flow.tuple.local(), flow.tuple.remote()))
    }

    fn local_addresses(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(|&(address, _)| address).collect()
    }

    fn close(&mut self, now: Instant, stream: StreamId) {
        self.close_stream(now, stream);
    }

    fn abort(&mut self, now: Instant, stream: StreamId) {
        self.abort_stream(now, stream);
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        if !self.receive.touched.is_empty() {
            return Some(now);
        }
        let retry = (self.send.output.is_waiting() || self.send.is_starved()).then(|| now + BLOCKED_RETRY);
        [retry, self.send.owed_deadline(now), self.send.next_deadline()].into_iter().flatten().min()
    }

    fn readiness(&self) -> Option<Arc<OwnedFd>> {
        self.port.readiness()
    }

    fn statistics(&self) -> EngineStatistics {
        EngineStatistics {
            received_bytes: self.receive.received_bytes,
            receive_copied_bytes: self.receive.copied_bytes,
            transmitted_bytes: self.send.transmitted_bytes,
            connections: self.receive.flows.len() as u64,
            refused_connections: self.refused_connections,
            retransmitted_segments: self.send.all_retransmitted(),
            malformed_packets: self.malformed_packets,
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
            verifies: config.checksum,
            connect_timeout: config.connect_timeout,
            half_open_timeout: config.half_open_timeout,
            time_wait: config.time_wait,
        }
    }
}
