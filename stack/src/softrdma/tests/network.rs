//! Hosts on a switch, on a virtual clock: engines with an application above, and whoever else is there.
//!
//! Every link has a rate and a delay, the switch drops what finds no room on a link, and a host takes time for every packet: while
//! it is at work it receives nothing. So whatever strangers send takes its share from the others, here as elsewhere.

pub(super) mod app;
pub(super) mod port;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::memory_port::{Impairments, MemoryPort, MemoryReceiveQueue, MemoryTransmitQueue, Wire, wire};
use crate::port::{Frame, Packet, Port, ReceiveQueue, TransmitOffload, TransmitQueue};
use crate::softrdma::{SoftrdmaConfig, SoftrdmaEngine};
use crate::stream::{Engine, Halves, StreamId, Transmitted};
use crate::time::Instant;
use app::{App, SERVICES};
use port::{Faults, FaultyPort};

/// The time that passes between two looks at everything, at least.
const STEP: Duration = Duration::from_nanos(500);
/// The time that a host takes for a packet.
const PACKET_TIME: Duration = Duration::from_nanos(300);
/// Polls in a row that do nothing and are asked for at once: the rest of one poll is left to the next, and no more.
const IDLE_POLLS: u32 = 3;

/// A host's engine, of one piece or of two.
pub(super) enum Stack {
    Whole(Box<SoftrdmaEngine<FaultyPort>>),
    Split(Halves),
}

/// A host.
pub(super) struct Host {
    pub(super) stack: Stack,
    pub(super) app: App,
    pub(super) address: IpAddr,
    pub(super) faults: Arc<Faults>,
    busy_until: Instant,
    /// Polls in a row that were asked for and did nothing.
    idle_polls: u32,
}

/// A link of the switch: its end there.
struct Link {
    wire: Wire,
    hardware: [u8; 6],
    receive: MemoryReceiveQueue,
    transmit: MemoryTransmitQueue,
}

/// See the [module](self).
pub(super) struct Network {
    pub(super) now: Instant,
    pub(super) hosts: Vec<Host>,
    links: Vec<Link>,
    /// Frames that found no room on a link.
    pub(super) dropped: u64,
}

/// Somebody at a port of the switch who does as it likes.
pub(super) trait Stranger {
    /// When it acts next.
    fn next(&self) -> Instant;

    /// It acts.
    fn act(&mut self, now: Instant);
}

/// Nobody.
pub(super) struct Nobody;

impl Stranger for Nobody {
    fn next(&self) -> Instant {
        Instant::from_nanoseconds(u64::MAX)
    }

    fn act(&mut self, _now: Instant) {}
}

impl Network {
    pub(super) fn new() -> Self {
        let now = Instant::ZERO + Duration::from_secs(1);
        Self { now, hosts: Vec::new(), links: Vec::new(), dropped: 0 }
    }

    /// The Ethernet address of the next port of the switch.
    fn next_hardware(&self) -> [u8; 6] {
        [2, 0, 0, 0, 1, self.links.len() as u8]
    }

    /// One more link; the far end of it.
    pub(super) fn plug(&mut self, seed: u64, impairments: Impairments) -> ([u8; 6], MemoryPort) {
        let hardware = self.next_hardware();
        let (far, mut near, wire) = wire(seed, impairments);
        wire.advance_to(self.now);
        let queues = (near.take_receive_queue(0), near.take_transmit_queue(0));
        let (Some(receive), Some(transmit)) = queues else { panic!("no queues") };
        self.links.push(Link { wire, hardware, receive, transmit });
        (hardware, far)
    }

    /// One more host, with all services. Hosts come before strangers.
    pub(super) fn add_host(&mut self, config: SoftrdmaConfig, impairments: Impairments, is_split: bool) {
        let address = config.addresses[0].0;
        let (hardware, inner) = self.plug(config.random_seed, impairments);
        let faults = Arc::<Faults>::default();
        let port = FaultyPort { inner, hardware, faults: Arc::clone(&faults) };
        let mut engine = Box::new(SoftrdmaEngine::new(port, config, self.now).expect("a good configuration"));
        for service in SERVICES {
            engine.listen(self.now, SocketAddr::new(address, service), 64).expect("a listener");
        }
        let stack = if is_split {
            Stack::Split(engine.split().expect("an engine of two halves"))
        } else {
            Stack::Whole(engine)
        };
        let app = App { now: self.now, ..App::default() };
        self.hosts.push(Host { stack, app, address, faults, busy_until: Instant::ZERO, idle_polls: 0 });
    }

    /// The first host connects to a service of the second.
    pub(super) fn connect(&mut self, service: u16) -> StreamId {
        let remote = SocketAddr::new(self.hosts[1].address, service);
        let host = &mut self.hosts[0];
        host.app.now = self.now;
        let stream = host.stack.engine().connect(self.now, remote, None).expect("connecting begins");
        host.stack.engine().flush(self.now);
        host.app.begin(stream, service);
        stream
    }

    /// A host ends a stream behind what was sent.
    pub(super) fn close(&mut self, host: usize, stream: StreamId) {
        let host = &mut self.hosts[host];
        host.app.stop(stream);
        host.stack.engine().close(self.now, stream);
        host.stack.engine().flush(self.now);
    }

    /// Buffers of the second host's receive pool that are not free.
    pub(super) fn buffers_in_use(&self) -> usize {
        self.links[1].transmit.buffers_in_use()
    }

    /// The wire between a host and the switch.
    pub(super) fn wire(&self, host: usize) -> &Wire {
        &self.links[host].wire
    }

    /// Lets `time` pass.
    pub(super) fn run(&mut self, time: Duration, stranger: &mut dyn Stranger) {
        let end = self.now + time;
        self.run_while(end, stranger, |_| true);
    }

    /// Lets time pass until `end`, or until it is not to go on.
    pub(super) fn run_while(&mut self, end: Instant, stranger: &mut dyn Stranger, goes_on: impl Fn(&Self) -> bool) {
        while self.now < end && goes_on(self) {
            if stranger.next() <= self.now {
                stranger.act(self.now);
            }
            self.forward();
            let mut next = end.min(stranger.next());
            for host in &mut self.hosts {
                next = next.min(host.turn(self.now));
            }
            let arrival = self.links.iter().filter_map(|link| link.wire.next_arrival()).min();
            next = next.min(arrival.unwrap_or(end));
            self.now = next.max(self.now + STEP);
            for link in &self.links {
                link.wire.advance_to(self.now);
            }
        }
    }

    /// The switch brings every frame to where its Ethernet address is.
    fn forward(&mut self) {
        let mut packets = Vec::new();
        for from in 0..self.links.len() {
            while self.links[from].receive.receive(&mut packets) > 0 {}
            for packet in packets.drain(..) {
                let bytes: Vec<u8> = packet.parts().flatten().copied().collect();
                for (to, link) in self.links.iter_mut().enumerate() {
                    let is_meant = bytes[0] & 1 != 0 || bytes[..6] == link.hardware;
                    if to != from && is_meant && !link.send(&bytes) {
                        self.dropped += 1;
                    }
                }
            }
        }
        for link in &mut self.links {
            link.transmit.flush();
        }
    }
}

impl Link {
    fn send(&mut self, bytes: &[u8]) -> bool {
        let Some(mut frame) = self.transmit.frame(bytes.len()) else { return false };
        frame.bytes_mut().copy_from_slice(bytes);
        self.transmit.send(frame, TransmitOffload::default()).is_ok()
    }
}

impl Stack {
    pub(super) fn engine(&mut self) -> &mut dyn Engine {
        match self {
            Self::Whole(engine) => engine.as_mut(),
            Self::Split(halves) => halves.send.as_mut(),
        }
    }

    /// Polls; packets that were received, and whether anything happened.
    pub(super) fn poll(&mut self, now: Instant, app: &mut App) -> (usize, bool) {
        let activity = match self {
            Self::Whole(engine) => engine.poll(now, app),
            Self::Split(halves) => {
                let mut activity = halves.receive.poll(now, app);
                activity.events += halves.send.poll(now, app).events;
                activity
            }
        };
        (activity.received, !activity.is_idle())
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        match self {
            Self::Whole(engine) => engine.next_deadline(now),
            Self::Split(halves) => {
                let deadlines = [halves.receive.next_deadline(now), halves.send.next_deadline(now)];
                deadlines.into_iter().flatten().min()
            }
        }
    }
}

impl Host {
    /// Works, unless it is still at work; when it has to be looked at next.
    fn turn(&mut self, now: Instant) -> Instant {
        if now < self.busy_until {
            return self.busy_until;
        }
        self.app.now = now;
        let (received, is_busy) = self.stack.poll(now, &mut self.app);
        let engine = self.stack.engine();
        let mut has_sent = false;
        for flow in self.app.sending() {
            has_sent = true;
            match engine.transmit(now, flow.stream, &mut flow.out) {
                Transmitted::Drained => {}
                Transmitted::Blocked | Transmitted::Gone => flow.set_blocked(),
            }
        }
        engine.flush(now);
        self.busy_until = now + PACKET_TIME * received as u32;
        let deadline = self.stack.next_deadline(now).unwrap_or(Instant::from_nanoseconds(u64::MAX));
        let is_vain = deadline <= now && !is_busy && !has_sent;
        self.idle_polls = if is_vain { self.idle_polls + 1 } else { 0 };
        assert!(self.idle_polls <= IDLE_POLLS, "polled over and over for nothing at {now:?}");
        deadline.max(self.busy_until)
    }
}
