//! What a message costs the processor: two hosts in one thread, on a wire that takes no time, each polled just when it has
//! something to do. What is left is the way from a posted request to placed bytes. For profiles: nothing here waits.
//!
//! With `--simulated` time hardly moves, so that what is counted (by callgrind, which is slow) is what happens at full speed.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use softrdma_stack::memory_port::{Impairments, MemoryPort, wire};
use softrdma_stack::softrdma::{SoftrdmaConfig, SoftrdmaEngine};
use softrdma_verbs::{
    AccessFlags, CmEventKind, CmId, CompletionQueue, ConnectParameters, Device, DeviceConfig, EventChannel,
    MemoryRegion, Operation, Payload, QueuePair, QueuePairAttributes, RemoteAddress, SegmentList, SendRequest, Status,
    TaggedOffset, Threads, WorkCompletion,
};

/// Measures the processor's part of a Write's way: two hosts of the softrdma engine in one thread, over memory.
///
/// Example: host_path --size 64 --threads c2
#[derive(Parser)]
struct Arguments {
    /// Bytes of a Write.
    #[arg(long, default_value_t = 64)]
    size: u32,
    /// Threading model.
    #[arg(long, value_enum, default_value_t = Model::C2)]
    threads: Model,
    /// Seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Instead of by the clock: so many Writes each way, on a clock that moves by 2 ms every 1024 of them.
    #[arg(long, value_name = "WRITES")]
    simulated: Option<u64>,
    /// Instead of one Write there and one back: Writes one way, so many with one doorbell, of which the last is signaled, and at most
    /// 64 outstanding.
    #[arg(long, value_name = "WRITES", value_parser = clap::value_parser!(u32).range(1..=64))]
    batch: Option<u32>,
    /// No CRC.
    #[arg(long)]
    without_crc: bool,
}

/// Requests that a queue takes.
const DEPTH: u32 = 64;

#[derive(Clone, Copy, ValueEnum)]
enum Model {
    C2,
    C3,
}

struct Host {
    completions: CompletionQueue,
    region: MemoryRegion,
    queue_pair: QueuePair,
    channel: EventChannel,
    reaped: Vec<WorkCompletion>,
    outstanding: u32,
    /// Requests of a doorbell.
    batch: u32,
    id: Option<CmId>,
    // Last: everything else is its.
    device: Device,
}

impl Host {
    fn new(index: u8, port: MemoryPort, arguments: &Arguments) -> Self {
        let mut config = DeviceConfig::kernel_socket(&format!("host{index}"));
        config.scheme = softrdma_verbs::Scheme::Softrdma;
        config.crc = !arguments.without_crc;
        config.busy_poll = true;
        config.threads = match arguments.threads {
            Model::C2 => Threads::C2,
            Model::C3 => Threads::C3,
        };
        let engine = SoftrdmaConfig {
            addresses: vec![(format!("192.0.2.{index}").parse().expect("an address"), 24)],
            random_seed: index.into(),
            ..SoftrdmaConfig::default()
        };
        let engine = SoftrdmaEngine::new(port, engine, softrdma_stack::time::Instant::ZERO).expect("an engine");
        let device = match arguments.simulated {
            Some(_) => Device::simulated(config, Box::new(engine)),
            None => Device::with_engine(config, Box::new(engine)),
        };
        let device = device.expect("a device");
        let channel = EventChannel::new(&device).expect("a channel");
        let domain = device.allocate_protection_domain().expect("a protection domain");
        let completions = device.create_completion_queue(1024, None).expect("a completion queue");
        let region = domain.allocate(1 << 20, AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE).expect("a region");
        let attributes = QueuePairAttributes {
            send_completion_queue: completions.clone(),
            receive_completion_queue: completions.clone(),
            shared_receive_queue: None,
            max_send: DEPTH,
            max_receive: DEPTH,
            signal_all: false,
        };
        let queue_pair = device.create_queue_pair(&domain, &attributes).expect("a queue pair");
        let reaped = vec![WorkCompletion::default(); 64];
        Self {
            completions,
            region,
            queue_pair,
            channel,
            reaped,
            outstanding: 0,
            batch: arguments.batch.unwrap_or(1),
            id: None,
            device,
        }
    }

    fn poll(&mut self) {
        let count = self.completions.poll(&mut self.reaped);
        for completion in &self.reaped[..count] {
            assert_eq!(completion.status, Status::Success, "{:?}", self.device.statistics());
        }
        // One completion for the requests of a doorbell.
        self.outstanding -= count as u32 * self.batch;
    }

    fn request(&self, size: u32, number: u64, remote: (softrdma_verbs::Stag, u64)) -> SendRequest {
        let operation = Operation::Write {
            payload: Payload::Segments(SegmentList::new(&[self.region.segment(0, size)]).expect("one segment")),
            target: RemoteAddress { stag: remote.0, offset: TaggedOffset(remote.1 + (512 << 10)) },
            immediate: None,
        };
        let signaled = number.is_multiple_of(self.batch.into());
        SendRequest { id: number, operation, signaled, solicited: false, fence: false }
    }

    /// The Writes behind `number`, with one doorbell, if there is room for them; how many. Otherwise polls.
    fn write_batch(&mut self, size: u32, number: u64, remote: (softrdma_verbs::Stag, u64)) -> u64 {
        if self.outstanding + self.batch > DEPTH {
            self.poll();
            return 0;
        }
        let numbers = number + 1..=number + u64::from(self.batch);
        let requests = numbers.map(|number| self.request(size, number, remote));
        self.queue_pair.post_send_many(requests).expect("room in the send queue");
        self.outstanding += self.batch;
        self.batch.into()
    }

    fn write(&mut self, size: u32, number: u64, remote: (softrdma_verbs::Stag, u64)) {
        let last = (size - 1) as usize;
        self.region.write(last, &[number as u8]).expect("within the region");
        let request = self.request(size, number, remote);
        while let Err(error) = self.queue_pair.post_send(request.clone()) {
            assert!(self.outstanding > 0, "{error}");
            self.poll();
        }
        self.outstanding += 1;
    }

    /// Polls until the peer's Write is here; how often.
    fn await_write(&mut self, size: u32, number: u64) -> u32 {
        let at = (512 << 10) + (size - 1) as usize;
        let mut byte = [0];
        for polls in 1.. {
            self.poll();
            self.region.read(at, &mut byte).expect("within the region");
            if byte[0] == number as u8 {
                return polls;
            }
        }
        unreachable!("polls do not end")
    }

    /// The next event. A simulated host does nothing by itself.
    fn expect(&self, peer: &Host, what: impl Fn(&CmEventKind) -> bool) -> softrdma_verbs::CmEvent {
        for turn in 0..1000 {
            let now = softrdma_stack::time::Instant::from_nanoseconds(turn * 10_000);
            self.device.drive(now);
            peer.device.drive(now);
            if let Some(event) = self.channel.get(Duration::from_millis(5)) {
                assert!(what(&event.kind), "{event:?}");
                return event;
            }
        }
        panic!("no event in 5 s");
    }
}

fn connect(client: &mut Host, server: &mut Host) {
    let listener = CmId::new(&server.channel);
    let address = listener.listen("192.0.2.2:4420".parse().expect("an address"), Some(8)).expect("a listener");
    let id = CmId::new(&client.channel);
    id.resolve_address(address);
    client.expect(server, |kind| *kind == CmEventKind::AddressResolved);
    id.resolve_route();
    client.expect(server, |kind| *kind == CmEventKind::RouteResolved);
    id.set_queue_pair(client.queue_pair.clone());
    id.connect(&ConnectParameters::default()).expect("connect");
    let request = server.expect(client, |kind| matches!(kind, CmEventKind::ConnectRequest { .. }));
    request.id.set_queue_pair(server.queue_pair.clone());
    request.id.accept(&ConnectParameters::default()).expect("accept");
    server.expect(client, |kind| matches!(kind, CmEventKind::Established { .. }));
    client.expect(server, |kind| matches!(kind, CmEventKind::Established { .. }));
    (client.id, server.id) = (Some(id), Some(request.id));
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !(1..=256 << 10).contains(&arguments.size) {
        eprintln!("host_path: --size {}: accepted: 1 to 262144", arguments.size);
        return ExitCode::from(2);
    }
    let (first, second, _) = wire(1, Impairments::default());
    let mut client = Host::new(1, first, &arguments);
    let mut server = Host::new(2, second, &arguments);
    connect(&mut client, &mut server);
    let keys = [&client, &server].map(|host| (host.region.rkey(), host.region.address()));
    let (mut rounds, mut polls, mut written) = (0_u64, 0_u64, 0_u64);
    let begin = Instant::now();
    let end = Duration::from_secs_f64(arguments.seconds);
    while rounds % 1024 != 0 || arguments.simulated.map_or(begin.elapsed() < end, |writes| rounds < writes) {
        rounds += 1;
        if rounds % 1024 == 0 && arguments.simulated.is_some() {
            let now = softrdma_stack::time::Instant::from_nanoseconds(1_000_000_000 + rounds * 2_000_000 / 1024);
            client.device.drive(now);
            server.device.drive(now);
        }
        if arguments.batch.is_some() {
            written += client.write_batch(arguments.size, written, keys[1]);
            server.poll();
            continue;
        }
        client.write(arguments.size, rounds, keys[1]);
        polls += u64::from(server.await_write(arguments.size, rounds));
        server.write(arguments.size, rounds, keys[0]);
        polls += u64::from(client.await_write(arguments.size, rounds));
    }
    if arguments.batch.is_some() {
        let nanoseconds = begin.elapsed().as_nanos() as f64 / written as f64;
        println!("{} B: {nanoseconds:.0} ns a Write, {:.2} polls", arguments.size, rounds as f64 / written as f64);
        return ExitCode::SUCCESS;
    }
    let nanoseconds = begin.elapsed().as_nanos() as f64 / rounds as f64 / 2.0;
    println!("{} B: {nanoseconds:.0} ns a Write, {:.2} polls", arguments.size, polls as f64 / rounds as f64 / 2.0);
    ExitCode::SUCCESS
}
