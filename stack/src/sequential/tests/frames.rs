//! Frames that no good peer sends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use smoltcp::wire::{EthernetProtocol, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::bare::{Bare, ITS, segment};
use super::world::{Plan, World, config, seeds};
use crate::memory_port::Impairments;
use crate::pcap::{FrameDirection, FrameSink};
use crate::stream::{Engine, Record, Source, StreamEvent};
use crate::time::Instant;

/// Collects what is received.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Vec<u8>>>>);

impl FrameSink for Collector {
    fn handle_frame(&mut self, _now: Instant, direction: FrameDirection, parts: &[&[u8]]) {
        if direction == FrameDirection::Received {
            self.0.lock().expect("a whole list").push(parts.concat());
        }
    }
}

/// What a host receives in the course of a normal exchange, by IPv4 and IPv6.
fn good_frames() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (first, second) in [("10.0.0.1/24", "10.0.0.2/24"), ("fd00::1/64", "fd00::2/64")] {
        let collector = Collector::default();
        let mut receiver = config(&[second], 2);
        receiver.capture = Some(Box::new(collector.clone()));
        let mut world = World::new(1, Impairments::default(), [config(&[first], 1), receiver]);
        for host in &mut world.hosts {
            host.application.plan = Plan { to_send: 20_000, expected: 20_000, closes: true, ..Plan::default() };
        }
        let local = if second.contains(':') { "[fd00::2]:7" } else { "10.0.0.2:7" };
        world.hosts[1].listen(local, 1);
        world.hosts[0].connect(Instant::ZERO, local);
        world.expect("an exchange", Duration::from_secs(60), |hosts| {
            hosts[1].application.has(|event| matches!(event, StreamEvent::Closed { .. }))
        });
        all.append(&mut collector.0.lock().expect("a whole list"));
    }
    all
}

/// Cuts, stretches and flips; leaves the Ethernet header mostly alone, so that the frame gets somewhere.
fn spoil(random: &mut SmallRng, frame: &mut Vec<u8>) {
    for _ in 0..random.random_range(1..6) {
        let from = if random.random_bool(0.05) { 0 } else { 14 };
        match random.random_range(0..10) {
            0 => frame.truncate(random.random_range(0..=frame.len())),
            1 => frame.extend(std::iter::repeat_n(random.random::<u8>(), random.random_range(0..100))),
            _ if frame.len() > from => {
                let at = random.random_range(from..(from + 80).min(frame.len()));
                let flipped = frame[at] ^ (1 << random.random_range(0..8));
                frame[at] = if random.random_bool(0.3) { random.random() } else { flipped };
            }
            _ => {}
        }
    }
}

#[test]
fn spoiled_frames_break_nothing() {
    let good = good_frames();
    for seed in seeds(60) {
        println!("seed {seed}"); // Shown if it fails.
        let mut random = SmallRng::seed_from_u64(seed);
        let mut configuration = config(&["10.0.0.2/24", "fd00::2/64"], seed);
        // Without checksums nothing protects what lies behind them.
        configuration.checksum = false;
        (configuration.max_backlog, configuration.max_connections, configuration.max_time_wait) = (8, 16, 4);
        let mut bare = Bare::new(configuration, Impairments { cut: 0.1, ..Impairments::default() });
        bare.engine.listen(Instant::ZERO, "[::]:7".parse().expect("an address"), 8).expect("a listener");
        for _ in 0..1500 {
            let mut bytes = good[random.random_range(0..good.len())].clone();
            if random.random_bool(0.8) {
                spoil(&mut random, &mut bytes);
            }
            bare.send_frame(&bytes);
            bare.now = bare.now + Duration::from_millis(random.random_range(0..50));
            bare.turn();
            bare.sent();
            let connections = bare.engine.statistics().connections;
            assert!(connections <= 16, "{connections} connections");
        }
    }
}

#[test]
fn fragments_and_empty_frames_are_dropped_and_counted() {
    let mut bare = Bare::new(config(&["10.0.0.2/24"], 1), Impairments::default());
    let mut packet = [0; 40];
    (packet[0], packet[3], packet[6]) = (0x45, 40, 0x20); // More fragments follow.
    bare.send(ITS, EthernetProtocol::Ipv4, &packet);
    bare.send_frame(&[]);
    bare.turn();
    assert_eq!(bare.engine.statistics().malformed_packets, 2);
}

#[test]
fn a_first_flight_larger_than_the_buffer_overruns_nothing() {
    let mut configuration = config(&["10.0.0.2/24"], 1);
    configuration.socket_buffer_bytes = 100_000;
    let mut bare = Bare::new(configuration, Impairments { mtu: 9000, ..Impairments::default() });
    bare.nobody.refuses = true;
    bare.engine.listen(Instant::ZERO, "10.0.0.2:7".parse().expect("an address"), 1).expect("a listener");
    bare.introduce();
    bare.send_segment(&segment(1000, TcpControl::Syn, 99));
    let answers = bare.answers();
    let acknowledged = TcpPacket::new_checked(&answers[0][34..]).expect("a SYN-ACK").seq_number() + 1;
    // All in one burst, before the engine has announced any window but that of its SYN.
    let payload = [0xa5; 8900];
    for number in 0..31 {
        let mut data = segment(1000, TcpControl::None, 100 + number * 8900);
        (data.ack_number, data.payload) = (Some(acknowledged), &payload);
        bare.send_segment(&data);
    }
    let answers = bare.answers();
    let last = TcpPacket::new_checked(&answers.last().expect("an answer")[34..]).expect("TCP");
    let taken = last.ack_number() - TcpSeqNumber(100);
    assert!((8900 * 10..=131_071).contains(&taken), "{taken} bytes acknowledged");
    assert_eq!(bare.engine.statistics().connections, 1);
}

/// Zeros without end.
struct Zeros {
    committed: u64,
    end: u64,
}

impl Source for Zeros {
    fn next(&mut self, room: usize) -> Option<Record> {
        let length = (self.end - self.committed).min(room as u64).min(1000);
        let record = Record { start: self.committed, length: length as u32 };
        self.committed += length;
        (length > 0).then_some(record)
    }

    fn write(&mut self, _start: u64, out: &mut [u8]) {
        out.fill(0);
    }

    fn handle_acknowledged(&mut self, _through: u64) {}
}

#[test]
fn an_acknowledgement_from_far_outside_the_window_releases_nothing() {
    const SENT: usize = 5000;
    /// The engine repeats its acknowledgement no more often than once a second.
    const PAUSE: Duration = Duration::from_secs(2);
    let mut bare = Bare::new(config(&["10.0.0.2/24"], 1), Impairments::default());
    bare.engine.listen(Instant::ZERO, "10.0.0.2:7".parse().expect("an address"), 1).expect("a listener");
    bare.introduce();
    bare.send_segment(&segment(1000, TcpControl::Syn, 99));
    let answers = bare.answers();
    let first = TcpPacket::new_checked(&answers[0][34..]).expect("a SYN-ACK").seq_number() + 1;
    bare.send_segment(&TcpRepr { ack_number: Some(first), ..segment(1000, TcpControl::None, 100) });
    bare.answers();
    let [StreamEvent::Incoming { stream, .. }] = bare.nobody.events[..] else { panic!("{:?}", bare.nobody.events) };
    bare.engine.transmit(bare.now, stream, &mut Zeros { committed: 0, end: SENT as u64 });
    bare.answers();
    // They expect 100. The whole of what was sent is acknowledged, by a segment that begins elsewhere.
    let mut unacknowledged_after = |sequence: i32| {
        bare.now = bare.now + PAUSE;
        let mut blind = segment(1000, TcpControl::Psh, sequence);
        (blind.ack_number, blind.payload) = (Some(first + SENT), &[7; 50]);
        bare.send_segment(&blind);
        bare.answers();
        bare.engine.sockets.get(stream.index as usize).send_queue()
    };
    for sequence in [100 + (1 << 30), 100 + 200_000, 100 - 200_000, 100 - (1 << 30), i32::MIN] {
        assert_eq!(unacknowledged_after(sequence), SENT, "sequence number {sequence}");
    }
    // A repetition of what they have had: see the losses of both sides in `transfer`.
    assert_eq!(unacknowledged_after(50), 0);
}
