//! The engine for tests finds what it is there to find.

use super::{PairConfig, PairEngine, pair};
use crate::stream::{Abort, Engine, Record, Source, StreamEvent, StreamId, Streams, Transmitted};
use crate::time::Instant;

/// A source of `total` bytes in records of at most 100, wrong in one way or another.
struct Faulty {
    total: u64,
    sent: u64,
    acknowledged: u64,
    fault: Fault,
    writes: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Writes something else each time.
    ChangesItsMind,
    /// Leaves a byte out between records.
    SkipsBytes,
    /// Takes more room than there is.
    IgnoresRoom,
}

impl Source for Faulty {
    fn next(&mut self, room: usize) -> Option<Record> {
        let left = self.total - self.sent;
        let length = if self.fault == Fault::IgnoresRoom { left } else { left.min(100).min(room as u64) };
        if length == 0 {
            return None;
        }
        let gap = u64::from(self.fault == Fault::SkipsBytes && self.sent > 0);
        let record = Record { start: self.sent + gap, length: length as u32 };
        self.sent += length;
        Some(record)
    }

    fn write(&mut self, start: u64, out: &mut [u8]) {
        self.writes = self.writes.wrapping_add(1);
        let change = if self.fault == Fault::ChangesItsMind { self.writes } else { 0 };
        for (position, byte) in out.iter_mut().enumerate() {
            *byte = (start as u8).wrapping_add(position as u8) ^ change;
        }
    }

    fn handle_acknowledged(&mut self, through: u64) {
        self.acknowledged = through;
    }
}

/// Takes all; has one source.
struct Above {
    source: Faulty,
    stream: Option<StreamId>,
    received: Vec<u8>,
    largest_part_count: usize,
}

impl Above {
    fn new(fault: Fault) -> Self {
        let source = Faulty { total: 20_000, sent: 0, acknowledged: 0, fault, writes: 0 };
        Self { source, stream: None, received: Vec::new(), largest_part_count: 0 }
    }
}

impl Streams for Above {
    fn handle_bytes(&mut self, _stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        self.largest_part_count = self.largest_part_count.max(parts.len());
        let before = self.received.len();
        self.received.extend(parts.concat());
        Ok(self.received.len() - before)
    }

    fn with_source(&mut self, _stream: StreamId, use_source: &mut dyn FnMut(&mut dyn Source)) {
        use_source(&mut self.source);
    }

    fn handle_event(&mut self, event: StreamEvent) {
        if let StreamEvent::Connected { stream, .. } | StreamEvent::Incoming { stream, .. } = event {
            self.stream = Some(stream);
        }
    }
}

/// Sends all that a source with `fault` has, until it is acknowledged.
fn transfer(seed: u64, fault: Fault) -> (Above, Above, PairEngine) {
    let (mut client, mut server) = pair(PairConfig::new(seed));
    let (mut sender, mut receiver) = (Above::new(fault), Above::new(Fault::None));
    let now = Instant::ZERO;
    let listener = server.listen(now, "192.0.2.2:7000".parse().expect("an address"), 1).expect("a listener");
    let address = server.listener_address(listener).expect("its address");
    client.connect(now, address, None).expect("a beginning");
    for _ in 0..100_000 {
        client.poll(now, &mut sender);
        server.poll(now, &mut receiver);
        if let Some(stream) = sender.stream {
            assert_ne!(client.transmit(now, stream, &mut sender.source), Transmitted::Gone);
            client.flush(now);
        }
        if sender.source.acknowledged == sender.source.total {
            return (sender, receiver, client);
        }
    }
    panic!("seed {seed}: the transfer does not end");
}

#[test]
fn a_source_that_keeps_its_word_is_asked_again_and_passes() {
    for seed in 0..50 {
        let (_, receiver, client) = transfer(seed, Fault::None);
        assert!(receiver.received.iter().enumerate().all(|(position, byte)| *byte == position as u8), "seed {seed}");
        assert!(client.statistics().retransmitted_segments > 0, "seed {seed}: nothing was asked for again");
        assert!(receiver.largest_part_count > 1, "seed {seed}: nothing was cut");
    }
}

#[test]
fn one_seed_is_one_run() {
    let run = || {
        let (_, receiver, client) = transfer(7, Fault::None);
        (receiver.largest_part_count, client.statistics())
    };
    assert_eq!(run(), run());
}

#[test]
#[should_panic(expected = "differ from what was first sent")]
fn a_source_that_changes_its_mind_is_caught() {
    transfer(1, Fault::ChangesItsMind);
}

#[test]
#[should_panic(expected = "a gap between records")]
fn a_source_that_skips_bytes_is_caught() {
    transfer(1, Fault::SkipsBytes);
}

#[test]
#[should_panic(expected = "a record of 20000 in")]
fn a_source_that_ignores_the_room_is_caught() {
    transfer(1, Fault::IgnoresRoom);
}
