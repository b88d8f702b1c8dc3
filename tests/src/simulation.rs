//! Two hosts in one thread on a virtual clock, over a wire that loses, repeats, reorders and corrupts.
//!
//! A seed decides everything: the wire, the sizes, what is posted and when. After each run every byte of registered memory
//! equals a shadow copy, every signaled request has completed exactly once and in order, and both ends have closed.

mod end;
mod plan;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use softrdma_stack::memory_port::{MemoryPort, Wire, wire};
use softrdma_stack::sequential::{SequentialConfig, SequentialEngine};
use softrdma_stack::softrdma::{SoftrdmaConfig, SoftrdmaEngine};
use softrdma_stack::stream::Engine;
use softrdma_stack::time::Instant;
use softrdma_verbs::{CmEventKind, CmId, ConnectParameters, Device, DeviceConfig, EventChannel, Scheme};

use end::End;
pub use end::{Message, Transcript};
pub use plan::Plan;

/// How much virtual time a run may take: smoltcp backs off from one second, so bad wires are slow.
const LONGEST_RUN: Duration = Duration::from_secs(1800);

/// How many steps a run may take.
const MOST_STEPS: u64 = 3_000_000;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests that both ends posted.
    pub requests: u64,
    /// Virtual time of the run.
    pub virtual_time: Duration,
    /// What the application saw at each end: of the same seed the same, whatever carried it.
    pub transcripts: Vec<Transcript>,
}

/// Runs the scenario of `seed` with the engine of `scheme`; an error tells what did not hold.
pub fn run(seed: u64, scheme: Scheme) -> Result<Report, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let plan = Plan::new(&mut rng);
    let mut world = World::new(seed, &plan, scheme)?;
    let mut ends = world.connect(&plan, &mut rng)?;
    world.exchange(&mut ends, &plan, &mut rng)?;
    let requests = ends.iter().map(End::posted).sum();
    world.disconnect(&mut ends, &mut rng)?;
    for (index, end) in ends.iter().enumerate() {
        end.check_memory().map_err(|error| format!("end {index}: {error}"))?;
    }
    let mut transcripts = Vec::new();
    for pair in ends.chunks_exact(2) {
        transcripts.push(pair[0].transcript(&pair[1])?);
        transcripts.push(pair[1].transcript(&pair[0])?);
    }
    Ok(Report { requests, virtual_time: world.now.saturating_since(Instant::ZERO), transcripts })
}

/// Two devices and the wire between them.
struct World {
    wire: Wire,
    devices: [Device; 2],
    channels: [EventChannel; 2],
    now: Instant,
    steps: u64,
}

impl World {
    fn new(seed: u64, plan: &Plan, scheme: Scheme) -> Result<Self, String> {
        let (left, right, wire) = wire(seed, plan.impairments);
        let devices = [device(left, 1, seed, plan, scheme)?, device(right, 2, seed, plan, scheme)?];
        let channel = |device: &Device| EventChannel::new(device).map_err(|error| error.to_string());
        let channels = [channel(&devices[0])?, channel(&devices[1])?];
        Ok(Self { wire, devices, channels, now: Instant::ZERO, steps: 0 })
    }

    /// Lets both hosts work, then moves time to the next thing that can happen, at most `limit` ahead.
    fn step(&mut self, limit: Duration) -> Result<(), String> {
        self.steps += 1;
        let mut busy = false;
        for device in &self.devices {
            busy |= !device.drive(self.now).is_idle();
        }
        if busy {
            // Work takes time; without it a loop of work at one instant would never end.
            self.advance_to(self.now + Duration::from_nanos(500));
        } else {
            let next = self.devices.iter().filter_map(Device::next_deadline).chain(self.wire.next_arrival()).min();
            let latest = self.now + limit;
            let next = next.unwrap_or(latest).clamp(self.now + Duration::from_nanos(500), latest);
            self.advance_to(next);
        }
        if self.now.saturating_since(Instant::ZERO) > LONGEST_RUN || self.steps > MOST_STEPS {
            return Err(format!("not done after {:?} of virtual time and {} steps", self.now, self.steps));
        }
        Ok(())
    }

    fn advance_to(&mut self, now: Instant) {
        self.now = now;
        self.wire.advance_to(now);
    }

    fn connect(&mut self, plan: &Plan, rng: &mut StdRng) -> Result<Vec<End>, String> {
        let listener = CmId::new(&self.channels[1]);
        let address = listener.listen(SocketAddr::new(address(2), 0), Some(8)).map_err(|error| error.to_string())?;
        let mut ends = Vec::new();
        for _ in 0..plan.connections {
            let client = CmId::new(&self.channels[0]);
            client.resolve_address(address);
            let end = End::new(&self.devices[0], plan, rng)?;
            client.set_queue_pair(end.queue_pair());
            client.connect(&parameters(plan)).map_err(|error| error.to_string())?;
            ends.push(end.with_id(client));
            let server = loop {
                self.step(Duration::from_millis(100))?;
                self.skip_resolved();
                if let Some(event) = self.channels[1].try_get() {
                    match event.kind {
                        CmEventKind::ConnectRequest { .. } => break event.id,
                        other => return Err(format!("server expected a connect request, got {other:?}")),
                    }
                }
            };
            let end = End::new(&self.devices[1], plan, rng)?;
            server.set_queue_pair(end.queue_pair());
            server.accept(&parameters(plan)).map_err(|error| error.to_string())?;
            ends.push(end.with_id(server));
            self.await_established()?;
        }
        for pair in ends.chunks_exact_mut(2) {
            let (left, right) = pair.split_at_mut(1);
            left[0].learn_peer(&right[0]);
            right[0].learn_peer(&left[0]);
        }
        Ok(ends)
    }

    fn skip_resolved(&self) {
        while let Some(event) = self.channels[0].try_get() {
            assert!(matches!(event.kind, CmEventKind::AddressResolved), "early event {:?}", event.kind);
        }
    }

    fn await_established(&mut self) -> Result<(), String> {
        let mut missing = [true, true];
        while missing.iter().any(|&missing| missing) {
            self.step(Duration::from_millis(100))?;
            for (channel, missing) in self.channels.iter().zip(&mut missing) {
                while let Some(event) = channel.try_get() {
                    match event.kind {
                        CmEventKind::Established { .. } => *missing = false,
                        CmEventKind::AddressResolved => {}
                        other => return Err(format!("expected Established, got {other:?}")),
                    }
                }
            }
        }
        Ok(())
    }

    /// Posts what the plan has and drives until all of it has completed and is checked.
    fn exchange(&mut self, ends: &mut [End], plan: &Plan, rng: &mut StdRng) -> Result<(), String> {
        loop {
            let mut done = true;
            for pair in ends.chunks_exact_mut(2) {
                let (left, right) = pair.split_at_mut(1);
                left[0].post(&mut right[0], plan, rng)?;
                right[0].post(&mut left[0], plan, rng)?;
                left[0].poll(&right[0])?;
                right[0].poll(&left[0])?;
                done &= left[0].is_done(plan) && right[0].is_done(plan);
            }
            if done {
                return Ok(());
            }
            self.step_undisturbed(Duration::from_millis(rng.random_range(1..50))).map_err(|error| {
                let ends: Vec<String> = ends.iter().map(|end| format!("\n  {end:?}")).collect();
                let devices = self.devices.each_ref().map(Device::statistics);
                format!("{error}{}\n  {devices:#?}\n  {plan:?}", ends.concat())
            })?;
        }
    }

    /// As [`Self::step`], in which nothing may happen to the connections.
    fn step_undisturbed(&mut self, limit: Duration) -> Result<(), String> {
        self.step(limit)?;
        for channel in &self.channels {
            if let Some(event) = channel.try_get() {
                return Err(format!("unexpected event in the middle, at {:?}: {:?}", self.now, event.kind));
            }
        }
        Ok(())
    }

    fn disconnect(&mut self, ends: &mut [End], rng: &mut StdRng) -> Result<(), String> {
        for pair in ends.chunks_exact(2) {
            for end in pair {
                if rng.random_bool(0.6) {
                    end.disconnect();
                }
            }
            pair[0].disconnect(); // A second time is harmless.
        }
        let mut left = ends.len();
        while left > 0 {
            self.step(Duration::from_millis(200))?;
            for channel in &self.channels {
                while let Some(event) = channel.try_get() {
                    match event.kind {
                        CmEventKind::Disconnected => left -= 1,
                        other => return Err(format!("expected Disconnected, got {other:?}")),
                    }
                }
            }
        }
        for end in ends {
            end.check_flushed()?;
        }
        Ok(())
    }
}

fn parameters(plan: &Plan) -> ConnectParameters {
    ConnectParameters { private_data: plan.private_data.clone(), ird: Some(plan.reads), ord: Some(plan.reads) }
}

fn address(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, host))
}

fn device(port: MemoryPort, host: u8, seed: u64, plan: &Plan, scheme: Scheme) -> Result<Device, String> {
    let engine: Box<dyn Engine> = match scheme {
        Scheme::Softrdma => Box::new(softrdma(port, host, seed, plan)?),
        _ => Box::new(sequential(port, host, seed, plan)?),
    };
    let mut config = DeviceConfig::kernel_socket(&format!("host{host}"));
    config.scheme = scheme;
    config.crc = plan.crc;
    config.timing.handshake_timeout_ms = 1_000_000;
    config.timing.connect_timeout_ms = 1_000_000;
    config.timing.receive_wait_ms = 600_000;
    config.timing.close_timeout_ms = 600_000;
    config.timing.terminate_timeout_ms = 600_000;
    // smoltcp repeats a segment after 1, 2, 4 ... seconds: in the midst of an FPDU that is a stall (seed 4946).
    config.timing.stall_timeout_ms = 600_000;
    Device::simulated(config, engine).map_err(|error| error.to_string())
}

fn softrdma(port: MemoryPort, host: u8, seed: u64, plan: &Plan) -> Result<SoftrdmaEngine<MemoryPort>, String> {
    SoftrdmaEngine::new(
        port,
        SoftrdmaConfig {
            addresses: vec![(address(host), 24)],
            random_seed: seed.wrapping_mul(2).wrapping_add(host.into()),
            receive_window_bytes: plan.socket_buffer_bytes,
            max_connections: 64,
            // The wire must not end connections by itself, however bad it is.
            user_timeout: LONGEST_RUN,
            connect_timeout: LONGEST_RUN,
            half_open_timeout: LONGEST_RUN,
            ..SoftrdmaConfig::default()
        },
        Instant::ZERO,
    )
    .map_err(|error| error.to_string())
}

fn sequential(port: MemoryPort, host: u8, seed: u64, plan: &Plan) -> Result<SequentialEngine<MemoryPort>, String> {
    SequentialEngine::new(
        port,
        SequentialConfig {
            addresses: vec![(address(host), 24)],
            random_seed: seed.wrapping_mul(2).wrapping_add(host.into()),
            socket_buffer_bytes: plan.socket_buffer_bytes,
            max_connections: 64,
            // The wire must not end connections by itself, however bad it is.
            user_timeout: LONGEST_RUN,
            connect_timeout: LONGEST_RUN,
            half_open_timeout: LONGEST_RUN,
            ..SequentialConfig::default()
        },
        Instant::ZERO,
    )
    .map_err(|error| error.to_string())
}
