//! What a hostile packet costs does not depend on how many connections there are.

#![allow(clippy::disallowed_methods, reason = "what is measured is real time")]

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::forged::Forged;
use super::network::Stack;
use super::network::app::{App, SINK};
use super::network::port::{Faults, FaultyPort};
use crate::memory_port::{Impairments, MemoryReceiveQueue, MemoryTransmitQueue, wire};
use crate::port::{BURST, Frame, Packet, Port, ReceiveQueue, TransmitOffload, TransmitQueue};
use crate::softrdma::segment::{ACK, PSH, Parsed, RST, SYN, parse};
use crate::softrdma::{SoftrdmaConfig, SoftrdmaEngine};
use crate::stream::Engine;
use crate::time::Instant;

const FEW: u32 = 10;
const MANY: u32 = 10_000;
/// So much longer may a packet take with a thousand times as many connections. Memory that is not in a cache and a machine that is
/// busy elsewhere are well below; one look at each connection would be well above.
const MOST: f64 = 30.0;
const PACKETS: usize = 4000;
const ROUNDS: usize = 3;

const PEER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const HOST: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// An engine, and somebody who makes segments for it.
struct Bench {
    stack: Stack,
    app: App,
    now: Instant,
    receive: MemoryReceiveQueue,
    transmit: MemoryTransmitQueue,
    connections: u32,
}

/// The far end of connection `number`.
fn peer(number: u32) -> SocketAddr {
    let [_, high, low, _] = (number << 8).to_be_bytes();
    SocketAddr::new([10, 1, high, low].into(), 5000)
}

fn segment(source: SocketAddr, port: u16, flags: u8) -> Forged {
    Forged {
        hardware_source: PEER,
        hardware_target: HOST,
        source,
        target: SocketAddr::new([10, 0, 0, 2].into(), port),
        flags,
        sequence: 100,
        acknowledgement: 0,
        window: 1000,
        options: Vec::new(),
        payload: Vec::new(),
    }
}

impl Bench {
    fn new(connections: u32) -> Self {
        let (mut near, inner, _) = wire(1, Impairments::default());
        let now = Instant::ZERO + Duration::from_secs(1);
        let port = FaultyPort { inner, hardware: HOST, faults: std::sync::Arc::<Faults>::default() };
        let config = SoftrdmaConfig {
            addresses: vec![([10, 0, 0, 2].into(), 8)],
            max_connections: 2 * MANY as usize,
            ..SoftrdmaConfig::default()
        };
        let mut engine = Box::new(SoftrdmaEngine::new(port, config, now).expect("a good configuration"));
        engine.listen(now, SocketAddr::new([10, 0, 0, 2].into(), SINK), 1).expect("a listener");
        let queues = (near.take_receive_queue(0), near.take_transmit_queue(0));
        let (Some(receive), Some(transmit)) = queues else { panic!("no queues") };
        let mut bench = Self { stack: Stack::Whole(engine), app: App::default(), now, receive, transmit, connections };
        // One that never confirms: from here on the others bring their cookies.
        bench.send(&[segment(SocketAddr::new([10, 2, 0, 1].into(), 5000), SINK, SYN)]);
        for number in 0..connections {
            bench.connect(number);
        }
        assert_eq!(bench.stack.engine().statistics().connections, u64::from(connections) + 1);
        bench
    }

    fn connect(&mut self, number: u32) {
        let answers = self.send(&[segment(peer(number), SINK, SYN)]);
        let initial = answers.last().expect("an answer").sequence;
        let mut last = segment(peer(number), SINK, ACK);
        (last.sequence, last.acknowledgement) = (101, initial.wrapping_add(1));
        self.send(&[last]);
    }

    /// Has the engine handle a burst; the segments that it answers.
    fn send(&mut self, burst: &[Forged]) -> Vec<crate::softrdma::segment::Segment> {
        for forged in burst {
            let bytes = forged.frame();
            let mut frame = self.transmit.frame(bytes.len()).expect("a frame");
            frame.bytes_mut().copy_from_slice(&bytes);
            self.transmit.send(frame, TransmitOffload::default()).expect("room on the wire");
        }
        self.transmit.flush();
        for _ in 0..2 {
            self.now = self.now + Duration::from_micros(1);
            self.app.now = self.now;
            self.stack.poll(self.now, &mut self.app);
            self.stack.engine().flush(self.now);
            self.stack.engine().next_deadline(self.now);
        }
        let mut packets = Vec::new();
        while self.receive.receive(&mut packets) > 0 {}
        let read = |bytes: Vec<u8>| match parse(&bytes, bytes.len()) {
            Parsed::Tcp(segment) => Some(segment),
            _ => None,
        };
        packets.iter().filter_map(|packet| read(packet.parts().flatten().copied().collect())).collect()
    }

    /// The shortest time that many packets of a kind took.
    fn measure(&mut self, kind: Kind) -> Duration {
        let mut random = SmallRng::seed_from_u64(7);
        let mut shortest = Duration::MAX;
        for _ in 0..ROUNDS {
            let packets: Vec<Forged> = (0..PACKETS).map(|_| kind(&mut random, self.connections)).collect();
            let start = std::time::Instant::now();
            for burst in packets.chunks(BURST) {
                self.send(burst);
            }
            shortest = shortest.min(start.elapsed());
        }
        shortest
    }
}

/// Makes a hostile segment, for an engine with so many connections.
type Kind = fn(&mut SmallRng, u32) -> Forged;

/// A segment of one of the connections, all that has to be known guessed.
fn guess(random: &mut SmallRng, connections: u32, flags: u8) -> Forged {
    let mut guess = segment(peer(random.random_range(0..connections)), SINK, flags);
    (guess.sequence, guess.acknowledgement) = (random.random(), random.random());
    guess
}

fn stranger(random: &mut SmallRng) -> SocketAddr {
    SocketAddr::new([10, 3, random.random(), random.random()].into(), random.random_range(1..9999))
}

const KINDS: [(&str, Kind); 6] = [
    ("a SYN for a listener", |random, _| segment(stranger(random), SINK, SYN)),
    ("a SYN for nobody", |random, _| segment(stranger(random), 99, SYN)),
    ("an acknowledgement that is no cookie", |random, _| segment(stranger(random), SINK, ACK)),
    ("a guessed RST", |random, connections| guess(random, connections, RST)),
    ("a guessed SYN", |random, connections| guess(random, connections, SYN)),
    ("guessed data", |random, connections| Forged { payload: vec![0; 10], ..guess(random, connections, ACK | PSH) }),
];

#[test]
fn a_hostile_packet_costs_as_much_with_many_connections_as_with_few() {
    let (mut few, mut many) = (Bench::new(FEW), Bench::new(MANY));
    for (name, kind) in KINDS {
        let (with_few, with_many) = (few.measure(kind), many.measure(kind));
        let ratio = with_many.as_secs_f64() / with_few.as_secs_f64();
        println!("{name}: {with_few:?} with few connections, {with_many:?} with many, {ratio:.1} times");
        assert!(ratio < MOST, "{name}: {with_few:?} with few connections, {with_many:?} with many");
    }
    assert_eq!(many.stack.engine().statistics().connections, u64::from(MANY) + 1, "and nobody was harmed");
}
