//! The test bed: two hosts, a wire, a clock, and an application on each host that sends a pattern and checks one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::memory_port::{Impairments, MemoryPort, Wire, wire};
use crate::sequential::{SequentialConfig, SequentialEngine};
use crate::stream::{Abort, Engine, ListenerId, Record, Sink, Source, StreamEvent, StreamId, Streams, Transmitted};
use crate::time::Instant;

/// A configuration with these addresses, as `10.0.0.1/24`.
pub(super) fn config(addresses: &[&str], seed: u64) -> SequentialConfig {
    let parse = |text: &&str| {
        let (address, prefix) = text.split_once('/').expect("address/prefix");
        (address.parse().expect("an address"), prefix.parse().expect("a prefix length"))
    };
    SequentialConfig {
        addresses: addresses.iter().map(parse).collect(),
        socket_buffer_bytes: 64 * 1024,
        random_seed: seed,
        ..SequentialConfig::default()
    }
}

/// The seeds of a test that runs `usual` of them, or as many as `SOFTRDMA_SEEDS` says.
pub(super) fn seeds(usual: u64) -> std::ops::Range<u64> {
    0..std::env::var("SOFTRDMA_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Byte `offset` of the stream that a side sends. Its period is no power of two, so that a shift shows.
pub(super) fn pattern(side: usize, offset: u64) -> u8 {
    (offset % 251) as u8 ^ (offset / 251) as u8 ^ (side as u8) << 7
}

/// One stream of a test application.
pub(super) struct TestStream {
    side: usize,
    random: SmallRng,
    /// Bytes that it sends in all.
    pub(super) to_send: u64,
    committed: u64,
    acknowledged: u64,
    pub(super) received: u64,
    /// Bytes that it receives in all.
    expected: u64,
    /// The sink takes bytes in pieces of this size, whole or not at all, as FPDUs are.
    piece: usize,
    /// The sink takes nothing.
    pub(super) paused: bool,
    /// The sink fails at this offset.
    pub(super) abort_at: Option<u64>,
    blocked: bool,
    /// Close once everything is sent.
    pub(super) closes: bool,
    close_called: bool,
    pub(super) peer_closed: bool,
}

impl TestStream {
    pub(super) fn is_sent(&self) -> bool {
        self.committed == self.to_send
    }
}

impl Sink for TestStream {
    fn handle_bytes(&mut self, parts: &[&[u8]]) -> Result<usize, Abort> {
        let bytes: Vec<u8> = parts.concat();
        assert!(!bytes.is_empty(), "an empty offer");
        assert!(!self.peer_closed, "bytes behind the end of the stream");
        if self.abort_at.is_some_and(|at| at <= self.received) {
            return Err(Abort);
        }
        if self.paused {
            return Ok(0);
        }
        let mut taken = 0;
        while bytes.len() - taken >= self.piece {
            for &byte in &bytes[taken..taken + self.piece] {
                let expected = pattern(1 - self.side, self.received);
                assert_eq!(byte, expected, "byte {} received by side {}", self.received, self.side);
                self.received += 1;
            }
            taken += self.piece;
            let left = self.expected.saturating_sub(self.received).max(1);
            self.piece = self.random.random_range(1..3000).min(left) as usize;
        }
        Ok(taken)
    }
}

impl Source for TestStream {
    fn next(&mut self, room: usize) -> Option<Record> {
        let left = self.to_send - self.committed;
        let length = (self.random.random_range(1..1400) as u64).min(left).min(room as u64);
        let record = Record { start: self.committed, length: length as u32 };
        self.committed += length;
        (length > 0).then_some(record)
    }

    fn write(&mut self, start: u64, out: &mut [u8]) {
        assert!(start >= self.acknowledged && start + out.len() as u64 <= self.committed, "an uncommitted range");
        out.iter_mut().enumerate().for_each(|(index, byte)| *byte = pattern(self.side, start + index as u64));
    }

    fn handle_acknowledged(&mut self, through: u64) {
        assert!(through > self.acknowledged && through <= self.committed);
        self.acknowledged = through;
    }
}

/// What new streams of a host do.
#[derive(Clone, Copy, Default)]
pub(super) struct Plan {
    pub(super) to_send: u64,
    pub(super) expected: u64,
    pub(super) closes: bool,
    pub(super) paused: bool,
    pub(super) abort_at: Option<u64>,
}

/// The application of one host.
pub(super) struct Application {
    side: usize,
    seed: u64,
    pub(super) plan: Plan,
    pub(super) streams: HashMap<StreamId, TestStream>,
    pub(super) events: Vec<StreamEvent>,
    /// Streams in the order of their beginning.
    pub(super) order: Vec<StreamId>,
}

impl Application {
    pub(super) fn begin(&mut self, stream: StreamId) {
        self.seed += 1;
        let Plan { to_send, expected, closes, paused, abort_at } = self.plan;
        let state = TestStream {
            side: self.side,
            random: SmallRng::seed_from_u64(self.seed),
            to_send,
            committed: 0,
            acknowledged: 0,
            received: 0,
            expected,
            piece: 1,
            paused,
            abort_at,
            blocked: false,
            closes,
            close_called: false,
            peer_closed: false,
        };
        assert!(self.streams.insert(stream, state).is_none(), "a name given twice");
        self.order.push(stream);
    }

    pub(super) fn has(&self, wanted: impl Fn(&StreamEvent) -> bool) -> bool {
        self.events.iter().any(wanted)
    }
}

impl Streams for Application {
    fn handle_bytes(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        self.streams.get_mut(&stream).expect("bytes of a stream that is known").handle_bytes(parts)
    }

    fn with_source(&mut self, stream: StreamId, use_source: &mut dyn FnMut(&mut dyn Source)) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            use_source(stream);
        }
    }

    fn handle_event(&mut self, event: StreamEvent) {
        match &event {
            StreamEvent::Incoming { stream, .. } => self.begin(*stream),
            StreamEvent::Writable { stream } => {
                let stream = self.streams.get_mut(stream).expect("a known stream");
                assert!(std::mem::take(&mut stream.blocked), "Writable that nobody waits for");
            }
            StreamEvent::PeerClosed { stream } => {
                let stream = self.streams.get_mut(stream).expect("a known stream");
                assert!(!std::mem::replace(&mut stream.peer_closed, true), "PeerClosed twice");
            }
            StreamEvent::Connected { stream, .. }
            | StreamEvent::ConnectFailed { stream, .. }
            | StreamEvent::Closed { stream }
            | StreamEvent::Reset { stream, .. } => assert!(self.streams.contains_key(stream), "an unknown stream"),
        }
        self.events.push(event);
    }
}

/// One host.
pub(super) struct Host {
    pub(super) engine: SequentialEngine<MemoryPort>,
    pub(super) application: Application,
}

impl Host {
    fn new(side: usize, port: MemoryPort, config: SequentialConfig) -> Self {
        let seed = config.random_seed;
        let engine = SequentialEngine::new(port, config, Instant::ZERO).expect("a good configuration");
        let (streams, events, order) = (HashMap::new(), Vec::new(), Vec::new());
        let application = Application { side, seed, plan: Plan::default(), streams, events, order };
        Self { engine, application }
    }

    pub(super) fn listen(&mut self, local: &str, backlog: usize) -> ListenerId {
        let local = local.parse().expect("an address with a port");
        self.engine.listen(Instant::ZERO, local, backlog).expect("listening")
    }

    pub(super) fn connect(&mut self, now: Instant, remote: &str) -> StreamId {
        let remote: SocketAddr = remote.parse().expect("an address with a port");
        let stream = self.engine.connect(now, remote, None).expect("a connection that can begin");
        self.application.begin(stream);
        stream
    }

    /// One round: poll, transmit, flush.
    pub(super) fn turn(&mut self, now: Instant) -> bool {
        let idle = self.engine.poll(now, &mut self.application).is_idle();
        for (&name, stream) in &mut self.application.streams {
            let established = !stream.blocked && !stream.close_called;
            if established && !stream.is_sent() && self.engine.transmit(now, name, stream) == Transmitted::Blocked {
                stream.blocked = true;
            }
            if stream.closes && stream.is_sent() && !stream.close_called {
                stream.close_called = true;
                self.engine.close(now, name);
            }
        }
        self.engine.flush(now);
        !idle
    }
}

/// Two hosts on a wire.
pub(super) struct World {
    pub(super) hosts: [Host; 2],
    pub(super) wire: Wire,
}

impl World {
    pub(super) fn new(seed: u64, impairments: Impairments, configs: [SequentialConfig; 2]) -> Self {
        let (a, b, wire) = wire(seed, impairments);
        let [first, second] = configs;
        Self { hosts: [Host::new(0, a, first), Host::new(1, b, second)], wire }
    }

    /// Two hosts on 10.0.0.0/24.
    pub(super) fn simple(seed: u64, impairments: Impairments) -> Self {
        Self::new(seed, impairments, [config(&["10.0.0.1/24"], seed), config(&["10.0.0.2/24"], seed + 1)])
    }

    /// Jumps from event to event until `done` or until `limit` of virtual time has passed; whether it was done.
    pub(super) fn run(&mut self, limit: Duration, done: impl Fn(&[Host; 2]) -> bool) -> bool {
        let end = self.wire.now() + limit;
        let mut rounds_at_this_time = 0;
        loop {
            let now = self.wire.now();
            let turns = self.hosts.each_mut().map(|host| host.turn(now));
            let busy = turns != [false, false];
            if done(&self.hosts) {
                return true;
            }
            let deadlines = self.hosts.iter_mut().filter_map(|host| host.engine.next_deadline(now));
            let next = deadlines.chain(self.wire.next_arrival()).min();
            let Some(next) = next.filter(|next| *next < end) else {
                if busy {
                    continue;
                }
                self.wire.advance_to(end);
                return false;
            };
            rounds_at_this_time = if next > now { 0 } else { rounds_at_this_time + 1 };
            assert!(rounds_at_this_time < 100_000, "time stands still at {now:?}");
            self.wire.advance_to(next);
        }
    }

    /// [`Self::run`], and it has to be done.
    pub(super) fn expect(&mut self, what: &str, limit: Duration, done: impl Fn(&[Host; 2]) -> bool) {
        let done = self.run(limit, done);
        let events = [0, 1].map(|side| &self.hosts[side].application.events);
        assert!(done, "{what}: not within {limit:?} of virtual time; events so far: {events:?}");
    }

    /// Host 0 connects to host 1 at 10.0.0.2:7; both names of the stream.
    pub(super) fn connect(&mut self) -> (StreamId, StreamId) {
        self.hosts[1].listen("10.0.0.2:7", 8);
        let now = self.wire.now();
        let ours = self.hosts[0].connect(now, "10.0.0.2:7");
        self.expect("connecting", Duration::from_secs(30), |hosts| {
            hosts[0].application.has(|event| matches!(event, StreamEvent::Connected { .. }))
                && !hosts[1].application.order.is_empty()
        });
        (ours, self.hosts[1].application.order[0])
    }
}
