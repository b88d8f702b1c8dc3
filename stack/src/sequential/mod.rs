//! The sequential engine: smoltcp 0.14, whole and as released, over a packet port.
//!
//! smoltcp brings Ethernet, ARP, NDP, IPv4, IPv6, ICMP echo and TCP; this module brings what it leaves to its user:
//!
//! - a device over the queues of a port (`device`), which lends received frames in place, builds sent ones in the port's
//!   memory, and leaves checksums to the port where it computes them;
//! - names, limits and events of connections (`slots`, `connections`);
//! - listeners with a backlog (`listeners`): smoltcp has none, so a socket is made for each first SYN, and a SYN of a known
//!   connection never reaches it;
//! - attention only where there is something to do (`ready`): smoltcp's wakers set a bit for each socket;
//! - the face of streams (`receive`, `transmit`): received bytes are lent out of the socket's ring, with a short copy only
//!   where the ring's end cuts them; records are written straight into the socket's ring;
//! - sockets in sets of their own (`sockets`): smoltcp matches a packet against every socket that it is shown, so it is
//!   shown the right one.
//!
//! What it cannot do is smoltcp's doing: retransmission waits a second at least, segment boundaries are not ours, and every
//! byte is copied twice.
//!
//! [`Engine::poll`] receives and offers; what there is to send, acknowledgements included, leaves with [`Engine::flush`],
//! so that an answer carries its acknowledgement. Without a flush it leaves at the beginning of the next poll.

pub(crate) mod checksum;
mod config;
mod connections;
mod device;
mod headers;
mod ingress;
mod listeners;
mod ready;
mod receive;
mod slots;
mod sockets;
#[cfg(test)]
mod tests;
mod transmit;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use crate::port::Port;
use crate::stream::{
    Activity, ConnectError, Engine, EngineStatistics, ListenError, ListenerId, Source, StreamId, Streams, Transmitted,
};
use crate::time::Instant;
pub use config::{
    CongestionControl, MAX_ADDRESSES, MAX_MTU, MAX_SOCKET_BUFFER, MIN_MTU_IPV4, MIN_MTU_IPV6, MIN_SOCKET_BUFFER,
    SequentialConfig, SequentialError,
};
pub(crate) use config::{contains, is_host_address};
use device::PortDevice;
use listeners::Listeners;
use ready::ReadySet;
use slots::{Role, Slots, Tuple};
use sockets::Sockets;

/// Largest `max_connections`: every connection that we begin needs an ephemeral port of its own.
pub const MAX_CONNECTIONS: usize = 16_384;

/// One round of sending stops after so many frames; the rest follows with the next.
const EGRESS_FRAMES: u64 = 256;

/// smoltcp's timers count in seconds; while we poll all the time it is enough to look at them this often.
const TIMER_TICK: Duration = Duration::from_millis(1);

/// How soon to try again to hand frames to a port that takes none.
const BLOCKED_RETRY: Duration = Duration::from_micros(50);

/// An aborted connection whose RST cannot leave is forgotten after so long, and so is one in TIME-WAIT.
const LINGER_TIME: Duration = Duration::from_secs(15);

/// smoltcp over a port. See the [module](self).
pub struct SequentialEngine<P: Port> {
    port: P,
    device: PortDevice<P>,
    interface: Interface,
    /// Every socket that has a peer, by slot.
    sockets: Sockets,
    /// No socket, for packets that belong to none.
    nobody: SocketSet<'static>,
    /// At most one socket, in LISTEN, for the SYN that is being handled.
    listening: SocketSet<'static>,
    spare: Option<SocketHandle>,
    slots: Slots,
    listeners: Listeners,
    ready: ReadySet,
    /// Slots being served; a field to keep its memory.
    serving: Vec<u32>,
    /// Lingering slots with the time at which they are forgotten, the oldest first.
    lingering: VecDeque<(StreamId, Instant)>,
    /// Records that do not fit in front of the end of a transmit ring are written here first.
    record: Vec<u8>,
    random: StdRng,
    limits: Limits,
    addresses: Vec<(IpAddr, u8)>,
    gateways: Vec<IpAddr>,
    mtu: usize,
    /// Frames wait in the port's queue or for it.
    egress_due: bool,
    last_tick: Instant,
    /// When smoltcp wants to see a socket again, as it was when the next deadline was asked for.
    timer: Option<Instant>,
    statistics: EngineStatistics,
}

/// Limits and times from the configuration.
struct Limits {
    max_connections: usize,
    max_listeners: usize,
    max_backlog: usize,
    max_time_wait: usize,
    socket_buffer_bytes: usize,
    congestion_control: tcp::CongestionControl,
    connect_timeout: Duration,
    half_open_timeout: Duration,
    user_timeout: Duration,
    keep_alive_interval: Duration,
}

impl<P: Port> SequentialEngine<P> {
    /// An engine with the addresses of `config` on queue 0 of `port`.
    pub fn new(mut port: P, config: SequentialConfig, now: Instant) -> Result<Self, SequentialError> {
        let capabilities = port.capabilities();
        let mtu = config.validate(capabilities.mtu)?;
        let address = port.hardware_address();
        let hardware_address = EthernetAddress(address);
        if !hardware_address.is_unicast() {
            return Err(SequentialError::HardwareAddress { address });
        }
        let receive = port.take_receive_queue(0).ok_or(SequentialError::QueueTaken)?;
        let transmit = port.take_transmit_queue(0).ok_or(SequentialError::QueueTaken)?;
        let limits = Limits::new(&config);
        let mut device = PortDevice::new(receive, transmit, capabilities, mtu, config.checksum, config.capture);
        let mut interface_config = Config::new(HardwareAddress::Ethernet(hardware_address));
        interface_config.random_seed = config.random_seed;
        let mut interface = Interface::new(interface_config, &mut device, smoltcp_time(now));
        interface.update_ip_addrs(|addresses| {
            // The configuration holds at most as many as fit.
            addresses.extend(config.addresses.iter().map(|&(address, prefix)| IpCidr::new(address.into(), prefix)));
        });
        for gateway in &config.gateways {
            let _ = match *gateway {
                IpAddr::V4(gateway) => interface.routes_mut().add_default_ipv4_route(gateway),
                IpAddr::V6(gateway) => interface.routes_mut().add_default_ipv6_route(gateway),
            };
        }
        Ok(Self {
            port,
            device,
            interface,
            sockets: Sockets::default(),
            nobody: SocketSet::new(Vec::new()),
            listening: SocketSet::new(Vec::new()),
            spare: None,
            slots: Slots::new(config.random_seed),
            listeners: Listeners::default(),
            // Lingering sockets are one too many for the moment in which the oldest is chosen.
            ready: ReadySet::new(limits.max_connections + limits.max_time_wait + 1),
            serving: Vec::new(),
            lingering: VecDeque::new(),
            record: Vec::new(),
            random: StdRng::seed_from_u64(config.random_seed),
            limits,
            addresses: config.addresses,
            gateways: config.gateways,
            mtu,
            egress_due: false,
            last_tick: now,
            timer: None,
            statistics: EngineStatistics::default(),
        })
    }

    /// Lets smoltcp send what it has, a bounded amount, and hands it to the port.
    fn egress(&mut self, now: Instant) {
        let before = self.device.transmit_side().sent_frames();
        self.device.transmit_side().set_now(now);
        self.device.transmit_side().watch_handshakes(self.slots.shaking_hands() > 0);
        if self.is_timer_due(now) {
            self.sockets.mark_expired(now);
            self.last_tick = now;
            self.timer = None;
        }
        while self.sockets.is_any_due() && self.device.transmit_side().sent_frames() - before < EGRESS_FRAMES {
            self.sockets.send_one_each(now, &mut self.interface, &mut self.device);
            if self.device.transmit_side().is_blocked() {
                break;
            }
        }
        self.device.transmit_side().flush();
        self.egress_due = self.device.transmit_side().is_blocked();
        self.note_handshakes();
        self.note_expired();
    }

    /// Remembers where the connections begin whose SYN has left. Those without know no next hop.
    fn note_handshakes(&mut self) {
        for handshake in self.device.transmit_side().take_sent_handshakes() {
            if let Some(index) = self.slots.find(&Tuple::new(handshake.source, handshake.destination)) {
                self.slots.get_mut(index).send_start = Some(handshake.sequence.wrapping_add(1));
            }
        }
    }

    /// A socket that closed while sending gave up on its peer; one that closed while receiving was told to.
    fn note_expired(&mut self) {
        if self.ready.is_empty() {
            return;
        }
        self.serving.clear();
        self.ready.drain(&mut self.serving);
        for &index in &self.serving {
            let slot = self.slots.get_mut(index as usize);
            if !matches!(slot.role, Role::Free | Role::Lingering) {
                slot.expired |= self.sockets.get(index as usize).state() == tcp::State::Closed;
            }
            self.ready.insert(index as usize);
        }
    }

    /// Something may have to be sent.
    fn is_egress_due(&self) -> bool {
        self.egress_due || self.sockets.is_any_due()
    }

    fn is_timer_due(&self, now: Instant) -> bool {
        now.saturating_since(self.last_tick) >= TIMER_TICK || self.timer.is_some_and(|timer| timer <= now)
    }
}

impl<P: Port> Engine for SequentialEngine<P> {
    fn connect(&mut self, _now: Instant, remote: SocketAddr, local: Option<IpAddr>) -> Result<StreamId, ConnectError> {
        self.begin_connection(remote, local)
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
        if self.is_egress_due() || self.is_timer_due(now) {
            self.egress(now);
        }
        let received = self.ingress(now);
        let events = self.serve_ready(now, streams);
        self.forget_lingering(now);
        Activity { received, events }
    }

    fn transmit(&mut self, _now: Instant, stream: StreamId, source: &mut dyn Source) -> Transmitted {
        self.take_records(stream, source)
    }

    fn flush(&mut self, now: Instant) {
        if self.is_egress_due() {
            self.egress(now);
        }
    }

    fn resume(&mut self, stream: StreamId) {
        if let Some(index) = self.slots.of_stream(stream) {
            self.ready.insert(index);
        }
    }

    fn segment_size(&self, stream: StreamId) -> usize {
        self.slots.of_stream(stream).map_or(0, |index| self.slots.get(index).segment_size)
    }

    fn addresses(&self, stream: StreamId) -> Option<(SocketAddr, SocketAddr)> {
        let slot = self.slots.get(self.slots.of_stream(stream)?);
        Some((slot.local, slot.remote))
    }

    fn local_addresses(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(|&(address, _)| address).collect()
    }

    fn close(&mut self, _now: Instant, stream: StreamId) {
        self.close_stream(stream);
    }

    fn abort(&mut self, now: Instant, stream: StreamId) {
        self.abort_stream(now, stream);
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.device.transmit_side().is_blocked() {
            return Some(now + BLOCKED_RETRY);
        }
        if self.is_egress_due() || !self.ready.is_empty() {
            return Some(now);
        }
        self.timer = self.sockets.earliest_timer();
        if self.device.transmit_side().is_holding() {
            self.timer = Some(self.timer.map_or(now + TIMER_TICK, |timer| timer.min(now + TIMER_TICK)));
        }
        let forgotten = self.lingering.front().map(|&(_, at)| at);
        self.timer.into_iter().chain(forgotten).min()
    }

    fn readiness(&self) -> Option<Arc<OwnedFd>> {
        self.port.readiness()
    }

    fn statistics(&self) -> EngineStatistics {
        let device = self.device.statistics();
        let mut statistics = self.statistics.clone();
        statistics.connections = self.slots.connections() as u64;
        statistics.malformed_packets = device.malformed_packets;
        statistics.receive_copied_bytes += device.linearised_bytes;
        let mut port = self.port.statistics();
        port.transmit_errors += device.dropped_frames;
        statistics.port = Some(port);
        statistics
    }
}

impl Limits {
    fn new(config: &SequentialConfig) -> Self {
        Self {
            max_connections: config.max_connections,
            max_listeners: config.max_listeners,
            max_backlog: config.max_backlog,
            max_time_wait: config.max_time_wait,
            socket_buffer_bytes: ring_bytes(config.socket_buffer_bytes),
            congestion_control: match config.congestion_control {
                CongestionControl::Off => tcp::CongestionControl::None,
                CongestionControl::Reno => tcp::CongestionControl::Reno,
                CongestionControl::Cubic => tcp::CongestionControl::Cubic,
            },
            connect_timeout: config.connect_timeout,
            half_open_timeout: config.half_open_timeout,
            user_timeout: config.user_timeout,
            keep_alive_interval: config.keep_alive_interval,
        }
    }
}

/// The size of a ring: one less than a power of two.
///
/// smoltcp announces a window of at most 65,535 bytes in SYN, remembers it as if it were scaled, and accepts data up to
/// there until it has announced the next. With a scale of `bits(capacity) - 16` that remembered window is larger than the
/// ring for every capacity but these: a peer that ignores our window could then make it overrun the ring, which panics.
fn ring_bytes(wanted: usize) -> usize {
    wanted.next_power_of_two() - 1
}

fn smoltcp_time(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(i64::try_from(now.as_nanoseconds() / 1000).unwrap_or(i64::MAX))
}

fn smoltcp_duration(duration: Duration) -> smoltcp::time::Duration {
    smoltcp::time::Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
