//! The wire does what it is told, and the same again with the same seed.

use std::time::Duration;

use super::{
    Impairments, MemoryPacket, MemoryReceiveQueue, MemoryTransmitQueue, TRANSMIT_QUEUE_FRAMES, Wire, mirror, wire,
};
use crate::port::{BURST, Frame, LinkState, Packet, Port, ReceiveQueue, TransmitOffload, TransmitQueue};
use crate::time::Instant;

struct Ends {
    transmit: MemoryTransmitQueue,
    receive: MemoryReceiveQueue,
    wire: Wire,
}

impl Ends {
    fn new(seed: u64, impairments: Impairments) -> Self {
        let (mut a, mut b, wire) = wire(seed, impairments);
        let transmit = a.take_transmit_queue(0).expect("a transmit queue");
        let receive = b.take_receive_queue(0).expect("a receive queue");
        Self { transmit, receive, wire }
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        let Some(mut frame) = self.transmit.frame(bytes.len()) else { return false };
        frame.bytes_mut().copy_from_slice(bytes);
        self.transmit.send(frame, TransmitOffload::default()).is_ok()
    }

    fn receive(&mut self) -> Vec<MemoryPacket> {
        let mut packets = Vec::new();
        while self.receive.receive(&mut packets) > 0 {}
        packets
    }
}

fn bytes(packet: &MemoryPacket) -> Vec<u8> {
    packet.parts().flatten().copied().collect()
}

/// Sends 500 numbered frames and returns what arrives, in order.
fn arrivals(seed: u64, impairments: Impairments) -> (Vec<Vec<u8>>, Wire) {
    let mut ends = Ends::new(seed, impairments);
    let mut arrived = Vec::new();
    for number in 0..500_u32 {
        assert!(ends.send(&number.to_be_bytes().repeat(25)));
        ends.transmit.flush();
        ends.wire.advance_to(ends.wire.now() + Duration::from_micros(1));
        arrived.extend(ends.receive().iter().map(bytes));
    }
    while let Some(next) = ends.wire.next_arrival() {
        ends.wire.advance_to(next);
        arrived.extend(ends.receive().iter().map(bytes));
    }
    (arrived, ends.wire)
}

fn numbers(arrived: &[Vec<u8>]) -> Vec<u32> {
    arrived.iter().map(|frame| u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]])).collect()
}

#[test]
fn a_perfect_wire_delivers_everything_at_once_and_in_order() {
    let (arrived, wire) = arrivals(1, Impairments::default());
    assert_eq!(numbers(&arrived), (0..500).collect::<Vec<_>>());
    assert_eq!(wire.statistics(), super::WireStatistics::default());
}

#[test]
fn a_mirror_gives_back_what_it_is_sent() {
    let (mut port, wire) = mirror(1, Impairments::default());
    let transmit = port.take_transmit_queue(0).expect("a transmit queue");
    let receive = port.take_receive_queue(0).expect("a receive queue");
    let mut ends = Ends { transmit, receive, wire };
    for number in 0..3 {
        assert!(ends.send(&[number; 60]));
    }
    ends.transmit.flush();
    let arrived: Vec<_> = ends.receive().iter().map(|packet| bytes(packet)[0]).collect();
    assert_eq!(arrived, [0, 1, 2]);
    let statistics = port.statistics();
    assert_eq!((statistics.transmitted_packets, statistics.received_packets), (3, 3));
}

#[test]
fn a_long_train_leaves_a_burst_at_a_time_without_a_flush() {
    let mut ends = Ends::new(1, Impairments::default());
    for number in 1..=2 * BURST + 1 {
        assert!(ends.send(&[0; 60]));
        let expected = if number % BURST == 0 { BURST } else { 0 };
        assert_eq!(ends.receive().len(), expected);
    }
    ends.transmit.flush();
    assert_eq!(ends.receive().len(), 1);
}

#[test]
fn loss_duplication_reordering_and_corruption_happen_about_as_often_as_asked() {
    let about = |count: u64| (70..=130).contains(&count);
    let some = 0.2;
    let (arrived, wire) = arrivals(2, Impairments { loss: some, ..Impairments::default() });
    assert!(about(wire.statistics().lost) && arrived.len() as u64 == 500 - wire.statistics().lost);

    let (arrived, wire) = arrivals(3, Impairments { duplicate: some, ..Impairments::default() });
    assert!(about(wire.statistics().duplicated) && arrived.len() as u64 == 500 + wire.statistics().duplicated);

    let delay = Duration::from_micros(20);
    let (arrived, wire) = arrivals(4, Impairments { reorder: some, delay, ..Impairments::default() });
    let order = numbers(&arrived);
    assert!(about(wire.statistics().reordered) && !order.is_sorted());
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..500).collect::<Vec<_>>());
    let behind = order.iter().enumerate().map(|(place, &number)| (place as i64 - i64::from(number)).abs()).max();
    assert!(behind <= Some(4 * super::REORDER_DEPTH as i64), "{behind:?}");

    let (arrived, wire) = arrivals(5, Impairments { corrupt: some, ..Impairments::default() });
    let flipped = |(number, frame): (usize, &Vec<u8>)| -> u32 {
        let good = (number as u32).to_be_bytes().repeat(25);
        frame.iter().zip(good).map(|(is, was)| (is ^ was).count_ones()).sum()
    };
    let flips: Vec<u32> = arrived.iter().enumerate().map(flipped).filter(|bits| *bits > 0).collect();
    assert!(about(wire.statistics().corrupted) && flips.len() as u64 == wire.statistics().corrupted);
    assert!(flips.iter().all(|bits| *bits == 1));
}

#[test]
fn short_frames_are_spared_from_corruption() {
    let mut ends = Ends::new(6, Impairments { corrupt: 1.0, ..Impairments::default() });
    ends.send(&[0; 42]);
    ends.send(&[0; 43]);
    ends.transmit.flush();
    let arrived: Vec<bool> = ends.receive().iter().map(|packet| bytes(packet).iter().all(|byte| *byte == 0)).collect();
    assert_eq!(arrived, [true, false]);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_another() {
    let impairments = Impairments {
        loss: 0.1,
        duplicate: 0.1,
        reorder: 0.1,
        corrupt: 0.1,
        delay: Duration::from_micros(10),
        jitter: Duration::from_micros(7),
        ..Impairments::default()
    };
    assert_eq!(arrivals(7, impairments).0, arrivals(7, impairments).0);
    assert_ne!(arrivals(7, impairments).0, arrivals(8, impairments).0);
}

#[test]
fn delay_jitter_and_rate_decide_the_arrival() {
    let at = |impairments| {
        let mut ends = Ends::new(9, impairments);
        ends.wire.advance_to(Instant::from_nanoseconds(1000));
        for _ in 0..2 {
            ends.send(&[0; 100]);
        }
        ends.transmit.flush();
        let mut times = Vec::new();
        while let Some(next) = ends.wire.next_arrival() {
            assert!(next == ends.wire.now() || ends.receive().is_empty(), "not before its time");
            ends.wire.advance_to(next);
            times.extend(ends.receive().iter().map(|_| next.as_nanoseconds()));
        }
        times
    };
    let delay = Duration::from_nanos(500);
    assert_eq!(at(Impairments { delay, ..Impairments::default() }), [1500, 1500]);
    let rate = Some(1_000_000_000);
    assert_eq!(at(Impairments { delay, rate_bits_per_second: rate, ..Impairments::default() }), [2300, 3100]);
    let jitter = Duration::from_nanos(100);
    let times = at(Impairments { delay, jitter, ..Impairments::default() });
    assert!(times.iter().all(|time| (1500..=1600).contains(time)) && times.is_sorted(), "{times:?}");
}

#[test]
fn cut_frames_are_the_same_bytes_in_several_parts() {
    let mut ends = Ends::new(10, Impairments { cut: 1.0, ..Impairments::default() });
    let mut parts_seen = [0; 4];
    for _ in 0..100 {
        let sent: Vec<u8> = (0..200).collect();
        ends.send(&sent);
        ends.transmit.flush();
        for packet in ends.receive() {
            assert_eq!((bytes(&packet), packet.length()), (sent.clone(), 200));
            parts_seen[packet.parts().count()] += 1;
        }
    }
    assert!(parts_seen[3] > 50 && parts_seen[0] == 0, "{parts_seen:?}");
}

#[test]
fn a_full_wire_holds_back_and_loses_nothing() {
    let mut ends = Ends::new(11, Impairments { in_flight_frames: 10, ..Impairments::default() });
    let mut sent = 0_u32;
    while ends.send(&sent.to_be_bytes()) {
        sent += 1;
    }
    assert_eq!(sent as usize, 10 + TRANSMIT_QUEUE_FRAMES, "as many as fit on the wire and in the queue");
    assert_eq!(ends.transmit.flush(), TRANSMIT_QUEUE_FRAMES);
    let mut arrived = Vec::new();
    while arrived.len() < sent as usize {
        arrived.extend(ends.receive().iter().map(bytes));
        ends.transmit.flush();
    }
    assert_eq!(numbers(&arrived), (0..sent).collect::<Vec<_>>());
}

#[test]
fn frames_come_from_a_bounded_pool_and_go_back_to_it() {
    let mut ends = Ends::new(12, Impairments { in_flight_frames: 10, ..Impairments::default() });
    assert!(ends.transmit.frame(1515).is_none(), "longer than the MTU allows");
    for _ in 0..10_000 {
        assert!(ends.send(&[1; 60]), "a frame of the pool");
        ends.transmit.flush();
        ends.receive();
    }
    let mut frames = Vec::new();
    while let Some(frame) = ends.transmit.frame(60) {
        frames.push(frame);
    }
    assert_eq!(frames.len(), 2 * (10 + TRANSMIT_QUEUE_FRAMES + BURST));
    assert_eq!(ends.transmit.buffers_in_use(), frames.len());
    frames.clear();
    assert_eq!(ends.transmit.buffers_in_use(), 0);
    assert!(ends.transmit.frame(60).is_some());
}

#[test]
fn a_link_that_is_down_loses_everything() {
    let (mut a, mut b, wire) = wire(13, Impairments::default());
    let (Some(mut transmit), Some(mut receive)) = (a.take_transmit_queue(0), b.take_receive_queue(0)) else {
        panic!("no queues")
    };
    wire.set_link(LinkState::Down);
    assert_eq!((a.link_state(), b.link_state()), (LinkState::Down, LinkState::Down));
    let frame = transmit.frame(60).expect("a frame");
    transmit.send(frame, TransmitOffload::default()).expect("room in the queue");
    transmit.flush();
    wire.set_link(LinkState::Up);
    assert_eq!(receive.receive(&mut Vec::new()), 0);
    assert_eq!((wire.statistics().lost, a.statistics().transmitted_packets), (1, 1));
}

#[test]
fn queues_are_taken_once() {
    let (mut a, ..) = wire(14, Impairments { transmit_queues: 2, ..Impairments::default() });
    assert!(a.take_receive_queue(1).is_none());
    assert!(a.take_receive_queue(0).is_some() && a.take_receive_queue(0).is_none());
    assert!(a.take_transmit_queue(0).is_some() && a.take_transmit_queue(1).is_some());
    assert!(a.take_transmit_queue(1).is_none() && a.take_transmit_queue(2).is_none());
}
