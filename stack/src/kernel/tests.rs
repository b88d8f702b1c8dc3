//! What is particular to kernel sockets; what all engines have in common is in `tests/conformance.rs`.

#![allow(clippy::disallowed_methods, reason = "the kernel's sockets live in real time")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{KernelConfig, KernelEngine};
use crate::stream::{Abort, Engine, Record, Source, StreamEvent, StreamId, Streams, Transmitted};
use crate::time::Instant;

/// Takes everything and writes it down.
#[derive(Default)]
struct Recorder {
    received: HashMap<StreamId, Vec<u8>>,
    events: Vec<StreamEvent>,
}

impl Streams for Recorder {
    fn handle_bytes(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        let received = self.received.entry(stream).or_default();
        let before = received.len();
        parts.iter().for_each(|part| received.extend_from_slice(part));
        Ok(received.len() - before)
    }

    fn with_source(&mut self, _stream: StreamId, _use_source: &mut dyn FnMut(&mut dyn Source)) {}

    fn handle_event(&mut self, event: StreamEvent) {
        self.events.push(event);
    }
}

/// Bytes to send, cut into records of at most `record` bytes.
struct Bytes {
    bytes: Vec<u8>,
    sent: usize,
    record: usize,
}

impl Source for Bytes {
    fn next(&mut self, room: usize) -> Option<Record> {
        let length = self.record.min(self.bytes.len() - self.sent);
        if length == 0 || length > room {
            return None;
        }
        let start = self.sent as u64;
        self.sent += length;
        Some(Record { start, length: length as u32 })
    }

    fn write(&mut self, start: u64, out: &mut [u8]) {
        let start = start as usize;
        out.copy_from_slice(&self.bytes[start..start + out.len()]);
    }

    fn handle_acknowledged(&mut self, through: u64) {
        assert_eq!(through, self.sent as u64);
    }
}

/// Two engines in one thread.
struct Pair {
    left: (KernelEngine, Recorder),
    right: (KernelEngine, Recorder),
    clock: std::time::Instant,
}

impl Pair {
    fn new(config: &KernelConfig) -> Self {
        let side = || (KernelEngine::new(config.clone()).expect("an engine"), Recorder::default());
        Self { left: side(), right: side(), clock: std::time::Instant::now() }
    }

    fn now(&self) -> Instant {
        Instant::from_nanoseconds(self.clock.elapsed().as_nanos() as u64)
    }

    fn poll(&mut self) {
        let now = self.now();
        self.left.0.poll(now, &mut self.left.1);
        self.right.0.poll(now, &mut self.right.1);
    }

    fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let start = self.clock.elapsed();
        loop {
            self.poll();
            if let Some(value) = done(self) {
                return value;
            }
            assert!(self.clock.elapsed() - start < Duration::from_secs(20), "{what} did not happen");
        }
    }

    fn connected(&mut self) -> (StreamId, StreamId) {
        let loopback: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let now = self.now();
        let listener = self.right.0.listen(now, loopback, 8).expect("a listener");
        let address = self.right.0.listener_address(listener).expect("its address");
        let left = self.left.0.connect(now, address, None).expect("a beginning");
        let right = self.until("a connection", |pair| {
            pair.left
                .1
                .events
                .iter()
                .find(|event| matches!(event, StreamEvent::Connected { stream, .. } if *stream == left))?;
            pair.right.1.events.iter().find_map(|event| match event {
                StreamEvent::Incoming { stream, .. } => Some(*stream),
                _ => None,
            })
        });
        (left, right)
    }
}

#[test]
fn a_large_transfer_arrives_unchanged_without_a_copy_of_ours() {
    let mut pair = Pair::new(&KernelConfig::default());
    let (left, right) = pair.connected();
    let bytes: Vec<u8> = (0..20_000_000u32).map(|position| (position ^ (position >> 11)) as u8).collect();
    let mut source = Bytes { bytes: bytes.clone(), sent: 0, record: 30_000 };
    pair.until("the transfer", |pair| {
        let now = pair.now();
        assert_ne!(pair.left.0.transmit(now, left, &mut source), Transmitted::Gone);
        pair.left.0.flush(now);
        (pair.right.1.received.get(&right).map_or(0, Vec::len) == bytes.len()).then_some(())
    });
    assert!(pair.right.1.received[&right] == bytes);
    assert_eq!(pair.right.0.statistics().receive_copied_bytes, 0);
    assert_eq!(pair.right.0.statistics().received_bytes, bytes.len() as u64);
    assert_eq!(pair.left.0.statistics().transmitted_bytes, bytes.len() as u64);
}
