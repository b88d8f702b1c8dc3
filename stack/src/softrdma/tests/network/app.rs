//! What is above the engines: services by port, which check every byte that they care for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::stream::{Abort, ReceiveStreams, Record, ResetReason, Source, StreamEvent, StreamId, Streams};
use crate::time::Instant;

/// Takes everything and checks it.
pub(in crate::softrdma::tests) const SINK: u16 = 1;
/// Sends without end.
pub(in crate::softrdma::tests) const WELL: u16 = 2;
/// Sends back what it gets.
pub(in crate::softrdma::tests) const ECHO: u16 = 3;
/// Takes everything, whatever it is.
pub(in crate::softrdma::tests) const DUMP: u16 = 4;
/// Takes nothing.
pub(in crate::softrdma::tests) const DEAF: u16 = 5;
pub(in crate::softrdma::tests) const SERVICES: [u16; 5] = [SINK, WELL, ECHO, DUMP, DEAF];

/// Bytes of a question of a client of [`ECHO`].
const QUESTION: u64 = 64;
/// More than any test moves.
const ENDLESS: u64 = 1 << 40;

/// The bytes of every stream, twice over.
const PERIOD: usize = 251;
const TABLE: [u8; 16 * PERIOD] = {
    let mut table = [0; 16 * PERIOD];
    let mut at = 0;
    while at < table.len() {
        table[at] = (at % PERIOD) as u8;
        at += 1;
    }
    table
};

/// Bytes of a stream from `start` on, at most so many as the table has.
fn pattern(start: u64, most: usize) -> &'static [u8] {
    let at = (start % PERIOD as u64) as usize;
    &TABLE[at..TABLE.len().min(at + most)]
}

/// What a flow sends.
#[derive(Debug, Default)]
pub(in crate::softrdma::tests) struct Outgoing {
    total: u64,
    committed: u64,
    pub(in crate::softrdma::tests) acknowledged: u64,
}

/// One stream.
#[derive(Debug)]
pub(in crate::softrdma::tests) struct Flow {
    pub(in crate::softrdma::tests) stream: StreamId,
    /// Of the service.
    pub(in crate::softrdma::tests) service: u16,
    is_client: bool,
    /// The client's.
    pub(in crate::softrdma::tests) port: u16,
    pub(in crate::softrdma::tests) out: Outgoing,
    is_blocked: bool,
    pub(in crate::softrdma::tests) received: u64,
    pub(in crate::softrdma::tests) begun: Instant,
    pub(in crate::softrdma::tests) connected: Option<Instant>,
    asked: Instant,
    /// How long each answer took.
    pub(in crate::softrdma::tests) answers: Vec<Duration>,
    pub(in crate::softrdma::tests) has_peer_closed: bool,
    pub(in crate::softrdma::tests) is_closed: bool,
    pub(in crate::softrdma::tests) failed: Option<ResetReason>,
}

/// The layer above one engine.
#[derive(Debug, Default)]
pub(in crate::softrdma::tests) struct App {
    pub(in crate::softrdma::tests) now: Instant,
    pub(in crate::softrdma::tests) flows: BTreeMap<u64, Flow>,
}

const fn key(stream: StreamId) -> u64 {
    (stream.generation as u64) << 32 | stream.index as u64
}

impl App {
    /// A client's stream has begun.
    pub(super) fn begin(&mut self, stream: StreamId, service: u16) {
        self.add(stream, service, true, 0);
    }

    fn add(&mut self, stream: StreamId, service: u16, is_client: bool, port: u16) {
        let now = self.now;
        let out = Outgoing { total: first_bytes(service, is_client), ..Outgoing::default() };
        let flow = Flow {
            stream,
            service,
            is_client,
            port,
            out,
            is_blocked: false,
            received: 0,
            begun: now,
            connected: (!is_client).then_some(now),
            asked: now,
            answers: Vec::new(),
            has_peer_closed: false,
            is_closed: false,
            failed: None,
        };
        self.flows.insert(key(stream), flow);
    }

    pub(in crate::softrdma::tests) fn flow(&mut self, stream: StreamId) -> &mut Flow {
        self.flows.get_mut(&key(stream)).expect("a flow")
    }

    /// The flow whose client has this port.
    pub(in crate::softrdma::tests) fn of_port(&self, port: u16) -> Option<&Flow> {
        self.flows.values().find(|flow| flow.port == port)
    }

    /// So many bytes are sent, and no more.
    pub(in crate::softrdma::tests) fn limit(&mut self, stream: StreamId, bytes: u64) {
        self.flow(stream).out.total = bytes;
    }

    /// Nothing more is sent.
    pub(super) fn stop(&mut self, stream: StreamId) {
        let out = &mut self.flow(stream).out;
        out.total = out.committed;
    }

    /// Flows that have something to send, and room.
    pub(super) fn sending(&mut self) -> impl Iterator<Item = &mut Flow> {
        self.flows.values_mut().filter(|flow| {
            let is_open = flow.connected.is_some() && !flow.is_closed && flow.failed.is_none();
            is_open && !flow.is_blocked && flow.out.has_more()
        })
    }

    fn take(&mut self, stream: StreamId, parts: &[&[u8]]) -> usize {
        let now = self.now;
        // What was received before a stream was aborted may still be offered.
        let Some(flow) = self.flows.get_mut(&key(stream)) else { return parts.iter().map(|part| part.len()).sum() };
        if flow.service == DEAF && !flow.is_client {
            return 0;
        }
        let before = flow.received;
        for part in parts {
            flow.take_part(part);
        }
        let taken = flow.received - before;
        if flow.service == ECHO {
            flow.handle_echo(now, taken);
        }
        taken as usize
    }

    fn note(&mut self, event: StreamEvent) {
        let now = self.now;
        match event {
            StreamEvent::Incoming { stream, local, remote, .. } => {
                self.add(stream, local.port(), false, remote.port());
            }
            StreamEvent::Connected { stream, local } => {
                let flow = self.flow(stream);
                flow.connected = Some(now);
                flow.asked = now;
                flow.port = local.port();
            }
            StreamEvent::ConnectFailed { stream, reason } | StreamEvent::Reset { stream, reason } => {
                self.flow(stream).failed = Some(reason);
            }
            StreamEvent::Writable { stream } => self.flow(stream).is_blocked = false,
            StreamEvent::PeerClosed { stream } => self.flow(stream).has_peer_closed = true,
            StreamEvent::Closed { stream } => self.flow(stream).is_closed = true,
        }
    }
}

const fn first_bytes(service: u16, is_client: bool) -> u64 {
    match (service, is_client) {
        (SINK, true) | (WELL, false) => ENDLESS,
        (ECHO, true) => QUESTION,
        _ => 0,
    }
}

impl Flow {
    pub(super) fn set_blocked(&mut self) {
        self.is_blocked = true;
    }

    fn take_part(&mut self, part: &[u8]) {
        let mut left = part;
        while !left.is_empty() {
            let expected = pattern(self.received, left.len());
            let (bytes, rest) = left.split_at(expected.len());
            assert!(self.service == DUMP || bytes == expected, "other bytes at {} of {self:?}", self.received);
            self.received += bytes.len() as u64;
            left = rest;
        }
    }

    /// A client has its answer when all of it is there, and asks again; a server answers.
    fn handle_echo(&mut self, now: Instant, taken: u64) {
        if !self.is_client {
            self.out.total += taken;
        } else if self.received == self.out.total {
            self.answers.push(now.saturating_since(self.asked));
            self.asked = now;
            self.out.total += QUESTION;
        }
    }
}

impl Outgoing {
    fn has_more(&self) -> bool {
        self.committed < self.total
    }
}

impl Source for Outgoing {
    fn next(&mut self, room: usize) -> Option<Record> {
        let length = (self.total - self.committed).min(room as u64);
        let record = Record { start: self.committed, length: length as u32 };
        self.committed += length;
        (length > 0).then_some(record)
    }

    fn has_more(&self) -> bool {
        Self::has_more(self)
    }

    fn write(&mut self, start: u64, out: &mut [u8]) {
        assert!(start >= self.acknowledged && start + out.len() as u64 <= self.committed, "{start} {}", out.len());
        out.copy_from_slice(pattern(start, out.len()));
    }

    fn handle_acknowledged(&mut self, through: u64) {
        assert!(through > self.acknowledged && through <= self.committed);
        self.acknowledged = through;
    }
}

impl Streams for App {
    fn handle_bytes(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        Ok(self.take(stream, parts))
    }

    fn with_source(&mut self, stream: StreamId, use_source: &mut dyn FnMut(&mut dyn Source)) {
        if let Some(flow) = self.flows.get_mut(&key(stream)) {
            use_source(&mut flow.out);
        }
    }

    fn handle_event(&mut self, event: StreamEvent) {
        self.note(event);
    }
}

impl ReceiveStreams for App {
    fn handle_burst(&mut self) {}

    fn handle_bytes(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        Ok(self.take(stream, parts))
    }

    fn handle_event(&mut self, event: StreamEvent) {
        self.note(event);
    }
}
