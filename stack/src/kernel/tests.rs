//! What is particular to kernel sockets; what all engines have in common is in `tests/conformance.rs`.

#![allow(clippy::disallowed_methods, reason = "the kernel's sockets live in real time")]

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{KernelConfig, KernelEngine};
use crate::stream::{Abort, Engine, Record, ResetReason, Source, StreamEvent, StreamId, Streams, Transmitted};
use crate::time::Instant;

mod ending;
mod limits;
mod transfer;

/// Writes down what it takes.
#[derive(Default)]
struct Recorder {
    received: HashMap<StreamId, Vec<u8>>,
    events: Vec<StreamEvent>,
    /// Takes nothing.
    is_sated: bool,
    offered: HashMap<StreamId, Vec<u8>>,
}

impl Recorder {
    fn reset_of(&self, stream: StreamId) -> Option<ResetReason> {
        self.events.iter().find_map(|event| match event {
            StreamEvent::Reset { stream: broken, reason } if *broken == stream => Some(*reason),
            _ => None,
        })
    }

    fn incoming(&self) -> Vec<StreamId> {
        let stream = |event: &StreamEvent| match event {
            StreamEvent::Incoming { stream, .. } => Some(*stream),
            _ => None,
        };
        self.events.iter().filter_map(stream).collect()
    }
}

impl Streams for Recorder {
    fn handle_bytes(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        if self.is_sated {
            self.offered.insert(stream, parts.concat());
            return Ok(0);
        }
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

impl Bytes {
    fn new(count: usize, record: usize) -> Self {
        let bytes = (0..count).map(|position| (position ^ (position >> 11)) as u8).collect();
        Self { bytes, sent: 0, record }
    }
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

/// An engine, with what is above it and a clock that can be put forward.
struct Host {
    engine: KernelEngine,
    upper: Recorder,
    start: std::time::Instant,
    ahead: Duration,
}

impl Host {
    fn new(config: KernelConfig) -> Self {
        let engine = KernelEngine::new(config).expect("an engine");
        Self { engine, upper: Recorder::default(), start: std::time::Instant::now(), ahead: Duration::ZERO }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed() + self.ahead
    }

    fn poll(&mut self) {
        let now = self.now();
        self.engine.poll(now, &mut self.upper);
    }

    fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let start = self.start.elapsed();
        loop {
            self.poll();
            if let Some(value) = done(self) {
                return value;
            }
            assert!(self.start.elapsed() - start < Duration::from_secs(30), "{what} did not happen");
        }
    }

    fn listen(&mut self) -> SocketAddr {
        let now = self.now();
        let listener = self.engine.listen(now, SocketAddr::from(([127, 0, 0, 1], 0)), 512).expect("a listener");
        self.engine.listener_address(listener).expect("its address")
    }

    /// A stream to a plain socket.
    fn with_peer(&mut self) -> (StreamId, TcpStream) {
        let address = self.listen();
        let peer = TcpStream::connect(address).expect("a connection");
        (self.until("a stream", |host| host.upper.incoming().pop()), peer)
    }

    fn transmit(&mut self, stream: StreamId, source: &mut Bytes) -> Transmitted {
        let now = self.now();
        let transmitted = self.engine.transmit(now, stream, source);
        self.engine.flush(now);
        transmitted
    }
}
