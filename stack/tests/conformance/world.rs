//! Two hosts, driven in one thread.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use softrdma_stack::kernel::{KernelConfig, KernelEngine};
use softrdma_stack::memory_port::{Impairments, wire};
use softrdma_stack::sequential::{SequentialConfig, SequentialEngine};
use softrdma_stack::softrdma::{SoftrdmaConfig, SoftrdmaEngine};
use softrdma_stack::stream::{Engine, ListenerId, ResetReason, StreamEvent, StreamId, Transmitted};
use softrdma_stack::testing::{self, PairConfig};
use softrdma_stack::time::Instant;

use crate::upper::Upper;

/// Seeds that each test runs with.
const SEEDS: u64 = 8;
/// How long anything may take before it counts as never happening. Real time, whatever the engine's clock; ample, for
/// machines that do much else.
const PATIENCE: Duration = Duration::from_secs(300);

/// A host: an engine and what is above it.
pub(crate) struct Host {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) upper: Upper,
}

/// Two hosts that reach each other.
pub(crate) struct World {
    pub(crate) seed: u64,
    /// The client's and the server's.
    pub(crate) hosts: [Host; 2],
    /// Where the server may listen: an address of the second host, port 0.
    pub(crate) address: SocketAddr,
    /// Tells the time, and lets some pass.
    clock: Box<dyn FnMut() -> Instant>,
}

/// The host that connects.
pub(crate) const CLIENT: usize = 0;
/// The host that listens.
pub(crate) const SERVER: usize = 1;

/// Runs `test` with several seeds, and names the one that fails.
pub(crate) fn run(name: &str, make: impl Fn(u64, [usize; 2]) -> World, test: impl Fn(&dyn Fn([usize; 2]) -> World)) {
    for seed in 1..=SEEDS {
        let outcome = catch_unwind(AssertUnwindSafe(|| test(&|limits| make(seed, limits))));
        if let Err(panic) = outcome {
            eprintln!("{name} failed with seed {seed}");
            resume_unwind(panic);
        }
    }
}

impl World {
    /// Hosts with `engines`; the second has `address`.
    pub(crate) fn new(
        seed: u64,
        engines: [Box<dyn Engine>; 2],
        address: SocketAddr,
        clock: Box<dyn FnMut() -> Instant>,
    ) -> Self {
        let [client, server] = engines;
        let hosts = [
            Host { engine: client, upper: Upper::new(seed) },
            Host { engine: server, upper: Upper::new(seed.wrapping_add(1 << 32)) },
        ];
        Self { seed, hosts, address, clock }
    }

    pub(crate) fn kernel(address: &str, seed: u64, limits: [usize; 2]) -> Self {
        // Left alone, the system's own buffers grow to many megabytes for a peer that does not read.
        let config = KernelConfig {
            socket_receive_bytes: Some(128 << 10),
            socket_send_bytes: Some(128 << 10),
            ..KernelConfig::default()
        };
        Self::kernel_with(address, seed, limits, config)
    }

    pub(crate) fn kernel_with_scarce_buffers(seed: u64, limits: [usize; 2]) -> Self {
        let config = KernelConfig {
            receive_buffer_bytes: 64 << 10,
            receive_buffers: 1,
            transmit_stage_bytes: 64 << 10,
            transmit_stages: 1,
            receive_budget_bytes: 1,
            transmit_budget_bytes: 1,
            socket_receive_bytes: Some(16 << 10),
            socket_send_bytes: Some(16 << 10),
            ..KernelConfig::default()
        };
        Self::kernel_with("127.0.0.1", seed, limits, config)
    }

    fn kernel_with(address: &str, seed: u64, limits: [usize; 2], config: KernelConfig) -> Self {
        let engine = |limit| {
            let config = KernelConfig { max_connections: limit, ..config.clone() };
            Box::new(KernelEngine::new(config).expect("an engine")) as Box<dyn Engine>
        };
        let address = SocketAddr::new(address.parse().expect("an address"), 0);
        let start = std::time::Instant::now();
        let clock = move || Instant::from_nanoseconds(start.elapsed().as_nanos() as u64);
        Self::new(seed, limits.map(engine), address, Box::new(clock))
    }

    pub(crate) fn pair(seed: u64, limits: [usize; 2]) -> Self {
        let configs = limits.map(|limit| PairConfig { max_connections: limit, ..PairConfig::new(seed) });
        let (client, server) = testing::pair_of(configs);
        let address = SocketAddr::new(server.local_addresses()[0], 0);
        let mut now = Instant::ZERO;
        let clock = move || {
            now = now + Duration::from_micros(10);
            now
        };
        Self::new(seed, [Box::new(client), Box::new(server)], address, Box::new(clock))
    }

    /// Two engines with the addresses of `network` that end in 1 and 2, on a wire with `impairments`.
    pub(crate) fn sequential(network: (&str, u8), seed: u64, limits: [usize; 2], impairments: Impairments) -> Self {
        let (client, server, wire) = wire(seed, impairments);
        let address = |host: usize| format!("{}{}", network.0, host + 1).parse().expect("an address");
        let engine = |port, host: usize| {
            let config = SequentialConfig {
                addresses: vec![(address(host), network.1)],
                max_connections: limits[host],
                random_seed: seed + host as u64,
                ..SequentialConfig::default()
            };
            Box::new(SequentialEngine::new(port, config, Instant::ZERO).expect("an engine")) as Box<dyn Engine>
        };
        let engines = [engine(client, CLIENT), engine(server, SERVER)];
        let mut now = Instant::ZERO;
        let clock = move || {
            now = now + Duration::from_micros(10);
            wire.advance_to(now);
            now
        };
        Self::new(seed, engines, SocketAddr::new(address(SERVER), 0), Box::new(clock))
    }

    /// The same with engines of our own TCP.
    pub(crate) fn softrdma(network: (&str, u8), seed: u64, limits: [usize; 2], impairments: Impairments) -> Self {
        let (client, server, wire) = wire(seed, impairments);
        let address = |host: usize| format!("{}{}", network.0, host + 1).parse().expect("an address");
        let engine = |port, host: usize| {
            let config = SoftrdmaConfig {
                addresses: vec![(address(host), network.1)],
                max_connections: limits[host],
                random_seed: seed + host as u64,
                ..SoftrdmaConfig::default()
            };
            Box::new(SoftrdmaEngine::new(port, config, Instant::ZERO).expect("an engine")) as Box<dyn Engine>
        };
        let engines = [engine(client, CLIENT), engine(server, SERVER)];
        let mut now = Instant::ZERO;
        let clock = move || {
            now = now + Duration::from_micros(10);
            wire.advance_to(now);
            now
        };
        Self::new(seed, engines, SocketAddr::new(address(SERVER), 0), Box::new(clock))
    }

    pub(crate) fn now(&mut self) -> Instant {
        (self.clock)()
    }

    /// Each host polls, transmits what it may, flushes.
    pub(crate) fn step(&mut self) {
        for host in 0..self.hosts.len() {
            self.step_one(host);
        }
    }

    pub(crate) fn step_one(&mut self, host: usize) {
        let now = self.now();
        let Host { engine, upper } = &mut self.hosts[host];
        engine.poll(now, upper);
        for stream in upper.resumptions() {
            engine.resume(stream);
        }
        for (stream, source) in upper.sources_to_serve() {
            match engine.transmit(now, stream, &mut source.source) {
                Transmitted::Drained => source.is_waiting = false,
                Transmitted::Blocked => source.is_waiting = true,
                Transmitted::Gone => source.is_gone = true,
            }
        }
        engine.flush(now);
    }

    /// Steps until `done` gives something.
    pub(crate) fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let start = std::time::Instant::now();
        loop {
            self.step();
            if let Some(value) = done(self) {
                return value;
            }
            if start.elapsed() > PATIENCE {
                let state = [self.hosts[0].upper.describe(), self.hosts[1].upper.describe()];
                panic!("seed {}: {what} did not happen\nclient: {}\nserver: {}", self.seed, state[0], state[1]);
            }
        }
    }

    /// Steps until nothing has moved for a while.
    pub(crate) fn until_quiet(&mut self) {
        let mut quiet = 0;
        let mut last = (0, 0);
        self.until("silence", |world| {
            let now = (world.hosts[CLIENT].upper.progress(), world.hosts[SERVER].upper.progress());
            quiet = if now == last { quiet + 1 } else { 0 };
            last = now;
            // Acknowledgements and window updates are on their way while the hosts seem to rest.
            (quiet > 2_000).then_some(())
        });
    }

    pub(crate) fn listen(&mut self, backlog: usize) -> (ListenerId, SocketAddr) {
        let (now, address) = (self.now(), self.address);
        let listener = self.hosts[SERVER].engine.listen(now, address, backlog).expect("a listener");
        let address = self.hosts[SERVER].engine.listener_address(listener).expect("its address");
        assert_ne!(address.port(), 0);
        (listener, address)
    }

    /// The outcome of connecting to `address`: the client's name of the stream, or why there is none.
    pub(crate) fn connect(&mut self, address: SocketAddr) -> Result<StreamId, ResetReason> {
        let now = self.now();
        let stream = self.hosts[CLIENT].engine.connect(now, address, None).expect("connecting begins");
        self.until("the end of connecting", |world| {
            world.hosts[CLIENT].upper.events.iter().find_map(|event| match event {
                StreamEvent::Connected { stream: connected, .. } if *connected == stream => Some(Ok(stream)),
                StreamEvent::ConnectFailed { stream: failed, reason } if *failed == stream => Some(Err(*reason)),
                _ => None,
            })
        })
    }

    /// A connection to `address`, as both ends name it.
    pub(crate) fn connected(&mut self, address: SocketAddr) -> [StreamId; 2] {
        let known = self.hosts[SERVER].upper.incoming().len();
        let client = self.connect(address).expect("a connection");
        let server = self.until("the server's end", |world| world.hosts[SERVER].upper.incoming().get(known).copied());
        [client, server]
    }

    /// A listener and a connection to it.
    pub(crate) fn one_connection(&mut self) -> [StreamId; 2] {
        let (_, address) = self.listen(8);
        self.connected(address)
    }

    pub(crate) fn close(&mut self, host: usize, stream: StreamId) {
        let now = self.now();
        self.hosts[host].engine.close(now, stream);
    }

    pub(crate) fn abort(&mut self, host: usize, stream: StreamId) {
        let now = self.now();
        self.hosts[host].engine.abort(now, stream);
    }

    /// Steps until `host` has reported `event`.
    pub(crate) fn until_event(&mut self, host: usize, event: &StreamEvent) {
        self.until(&format!("{event:?}"), |world| world.hosts[host].upper.has(event).then_some(()));
    }

    /// Steps until `host` has received `count` bytes of `stream`, and checks them all.
    pub(crate) fn until_received(&mut self, host: usize, stream: StreamId, count: u64) {
        self.until(&format!("the arrival of {count} bytes"), |world| {
            (world.hosts[host].upper.received(stream) >= count).then_some(())
        });
        assert_eq!(self.hosts[host].upper.received(stream), count, "more arrived than was sent");
    }
}
