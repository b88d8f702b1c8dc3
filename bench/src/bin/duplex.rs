//! What a second core brings: one host that talks to itself, Writes both ways over a wire in memory, with its receive half on one
//! core and its send half on another (c3 with `stack_cpu`), against both on one core, in turns; c2 on one core beside them.
//!
//! The wire costs nearly nothing, and every frame that the send half makes the receive half takes: with the halves on two cores
//! at most twice as much moves as with both on one.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use core_affinity::CoreId;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use softrdma_stack::memory_port::{Impairments, mirror};
use softrdma_stack::softrdma::{SoftrdmaConfig, SoftrdmaEngine};
use softrdma_verbs::{
    AccessFlags, CmEvent, CmEventKind, CmId, CompletionQueue, ConnectParameters, Device, DeviceConfig, EventChannel,
    MemoryRegion, Operation, Payload, PostError, QueuePair, QueuePairAttributes, RemoteAddress, SegmentList,
    SendRequest, Status, TaggedOffset, Threads, WorkCompletion,
};

/// Measures c3 with its two halves on two cores, full duplex over a wire in memory, against both on one core.
///
/// One device holds both ends of two connected queue pairs, and each Writes to the other. The sum of both directions counts.
///
/// Example: duplex --size 65536 --mtu 9000 --rounds 5
#[derive(Parser)]
struct Arguments {
    /// Bytes of a Write.
    #[arg(long, default_value_t = 64 << 10, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
    /// Largest IP packet of the wire.
    #[arg(long, default_value_t = 9000, value_parser = clap::value_parser!(u16).range(576..=65_000))]
    mtu: u16,
    /// Writes of each direction that are outstanding.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    depth: u32,
    /// Rounds; in each every contender runs once, and the medians count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Milliseconds of each measurement.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    milliseconds: u64,
    /// The receive half's CPU, and that of everything where there is one; else the first. Not one whose sibling thread is the other.
    #[arg(long)]
    receive_cpu: Option<usize>,
    /// The send half's CPU; else the second.
    #[arg(long)]
    send_cpu: Option<usize>,
    /// No CRC.
    #[arg(long)]
    without_crc: bool,
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Fails if the bar is missed.
    #[arg(long)]
    strict: bool,
}

/// Throughput of two cores over that of one.
const GOAL: f64 = 1.5;

/// So long each contender runs before it is measured, while the congestion windows open.
const WARM_UP: Duration = Duration::from_millis(50);

const PATIENCE: Duration = Duration::from_secs(10);

/// Who runs the stack, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    /// c3: a thread that receives on one CPU, the application, which sends, on the other.
    TwoCores,
    /// c2 on one CPU: the application alone, run to completion.
    OneCore,
    /// c3 on one CPU: the application's polls receive, its posts send.
    HalvesOnOneCore,
}

impl Contender {
    const ALL: [Self; 3] = [Self::TwoCores, Self::OneCore, Self::HalvesOnOneCore];

    const fn name(self) -> &'static str {
        match self {
            Self::TwoCores => "c3, its halves on two cores",
            Self::OneCore => "c2, one core",
            Self::HalvesOnOneCore => "c3, both halves on one core",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::TwoCores => "c3_two_cores",
            Self::OneCore => "c2_one_core",
            Self::HalvesOnOneCore => "c3_one_core",
        }
    }
}

/// What one run brought.
#[derive(Clone, Copy)]
struct Figures {
    /// Both directions.
    gbps: f64,
    /// CPU seconds of a second, of the application's thread and of the stack's.
    application_cpu: f64,
    stack_cpu: f64,
}

/// A device on a mirror, and what it Writes to itself: direction 0 from queue pair 0 to queue pair 1, direction 1 back.
struct Host {
    completions: CompletionQueue,
    channel: EventChannel,
    region: MemoryRegion,
    queue_pairs: [QueuePair; 2],
    /// Posted and completed, of each direction.
    posted: [u64; 2],
    completed: [u64; 2],
    size: u32,
    depth: u32,
    ids: Vec<CmId>,
    // Last: everything else is its.
    device: Device,
}

impl Host {
    fn new(contender: Contender, receive_cpu: usize, arguments: &Arguments) -> Self {
        let mut config = DeviceConfig::kernel_socket("mirror");
        config.scheme = softrdma_verbs::Scheme::Softrdma;
        config.crc = !arguments.without_crc;
        config.busy_poll = true;
        (config.threads, config.stack_cpu) = match contender {
            Contender::TwoCores => (Threads::C3, Some(receive_cpu)),
            Contender::OneCore => (Threads::C2, Some(receive_cpu)),
            // Told of a CPU the stack's thread would not share its work. It runs where this thread does.
            Contender::HalvesOnOneCore => (Threads::C3, None),
        };
        let (port, _) = mirror(1, Impairments { mtu: arguments.mtu.into(), ..Impairments::default() });
        let engine = SoftrdmaConfig {
            addresses: vec![("192.0.2.1".parse().expect("an address"), 24)],
            ..SoftrdmaConfig::default()
        };
        let engine = SoftrdmaEngine::new(port, engine, softrdma_stack::time::Instant::ZERO).expect("an engine");
        let device = Device::with_engine(config, Box::new(engine)).expect("a device");
        let channel = EventChannel::new(&device).expect("a channel");
        let domain = device.allocate_protection_domain().expect("a protection domain");
        let completions =
            device.create_completion_queue(4 * arguments.depth as usize, None).expect("a completion queue");
        let access = AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE;
        let bytes = 4 * arguments.size as usize * arguments.depth as usize;
        let region = domain.allocate(bytes, access).expect("a region");
        let attributes = QueuePairAttributes {
            send_completion_queue: completions.clone(),
            receive_completion_queue: completions.clone(),
            shared_receive_queue: None,
            max_send: arguments.depth,
            max_receive: 1,
            signal_all: true,
        };
        let queue_pairs = [0, 1].map(|_| device.create_queue_pair(&domain, &attributes).expect("a queue pair"));
        Self {
            completions,
            channel,
            region,
            queue_pairs,
            posted: [0; 2],
            completed: [0; 2],
            size: arguments.size,
            depth: arguments.depth,
            ids: Vec::new(),
            device,
        }
    }

    fn expect(&self, what: impl Fn(&CmEventKind) -> bool) -> CmEvent {
        let event = self.channel.get(PATIENCE).expect("an event within the time allowed");
        assert!(what(&event.kind), "{event:?}");
        event
    }

    /// Connects the queue pairs to each other.
    fn connect(&mut self) {
        let listener = CmId::new(&self.channel);
        let address = listener.listen("192.0.2.1:4420".parse().expect("an address"), None).expect("a listener");
        let id = CmId::new(&self.channel);
        id.resolve_address(address);
        self.expect(|kind| *kind == CmEventKind::AddressResolved);
        id.resolve_route();
        self.expect(|kind| *kind == CmEventKind::RouteResolved);
        id.set_queue_pair(self.queue_pairs[0].clone());
        id.connect(&ConnectParameters::default()).expect("connect");
        let request = self.expect(|kind| matches!(kind, CmEventKind::ConnectRequest { .. }));
        request.id.set_queue_pair(self.queue_pairs[1].clone());
        request.id.accept(&ConnectParameters::default()).expect("accept");
        for _ in 0..2 {
            self.expect(|kind| matches!(kind, CmEventKind::Established { .. }));
        }
        self.ids = vec![id, request.id];
    }

    /// Where in the region a direction's Write of this number comes from, and where it goes.
    fn places(&self, direction: usize, number: u64) -> (usize, usize) {
        let (size, depth) = (self.size as usize, self.depth as usize);
        let place = (number % u64::from(self.depth)) as usize;
        (((2 * direction) * depth + place) * size, ((2 * direction + 1) * depth + place) * size)
    }

    /// Fills up the send queues.
    fn post(&mut self) {
        for direction in 0..2 {
            while self.posted[direction] - self.completed[direction] < u64::from(self.depth) {
                let (from, to) = self.places(direction, self.posted[direction]);
                let segments = SegmentList::new(&[self.region.segment(from, self.size)]).expect("one segment");
                let offset = TaggedOffset(self.region.address() + to as u64);
                let operation = Operation::Write {
                    payload: Payload::Segments(segments),
                    target: RemoteAddress { stag: self.region.rkey(), offset },
                    immediate: None,
                };
                let request =
                    SendRequest { id: direction as u64, operation, signaled: true, solicited: false, fence: false };
                match self.queue_pairs[direction].post_send(request) {
                    Ok(()) => self.posted[direction] += 1,
                    Err(PostError::Full { .. }) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Takes completions; all of them have to be good.
    fn poll(&mut self, reaped: &mut [WorkCompletion]) {
        let count = self.completions.poll(reaped);
        for completion in &reaped[..count] {
            assert_eq!(completion.status, Status::Success, "{:?}", self.device.statistics());
            self.completed[completion.id as usize] += 1;
        }
    }

    /// Writes both ways for so long; bits that were acknowledged, and in how many seconds.
    fn run(&mut self, time: Duration, reaped: &mut [WorkCompletion]) -> (f64, f64) {
        let before: u64 = self.completed.iter().sum();
        let begin = Instant::now();
        while begin.elapsed() < time {
            for _ in 0..16 {
                self.post();
                self.poll(reaped);
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        let writes = self.completed.iter().sum::<u64>() - before;
        (writes as f64 * f64::from(self.size) * 8.0, seconds)
    }

    /// Waits for what is outstanding.
    fn drain(&mut self, reaped: &mut [WorkCompletion]) {
        let begin = Instant::now();
        while self.posted != self.completed {
            self.poll(reaped);
            assert!(begin.elapsed() < PATIENCE, "Writes without completion: {:?}", self.device.statistics());
        }
    }

    /// Gives every place of the region bytes of its own, those of targets zero, and counts from the beginning. While nothing is
    /// outstanding.
    fn fill(&mut self) {
        (self.posted, self.completed) = ([0; 2], [0; 2]);
        for direction in 0..2 {
            for number in 0..u64::from(self.depth) {
                let (from, to) = self.places(direction, number);
                self.region.write(from, &pattern(direction, number, self.size)).expect("within the region");
                self.region.write(to, &vec![0; self.size as usize]).expect("within the region");
            }
        }
    }

    /// Whether every place that was written to holds what was sent there.
    fn is_intact(&self) -> bool {
        let mut bytes = vec![0; self.size as usize];
        (0..2).all(|direction| {
            (0..u64::from(self.depth).min(self.completed[direction])).all(|number| {
                let (_, to) = self.places(direction, number);
                self.region.read(to, &mut bytes).expect("within the region");
                bytes == pattern(direction, number, self.size)
            })
        })
    }
}

/// The bytes of a place: never zero, and its neighbours have others.
fn pattern(direction: usize, number: u64, size: u32) -> Vec<u8> {
    let salt = 2 * number + direction as u64 + 1;
    (0..u64::from(size)).map(|at| ((at + 1).wrapping_mul(salt) % 251) as u8 + 1).collect()
}

/// CPU seconds that `clock` has counted.
fn cpu_seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// One run of a contender, on the thread that is to be the application's.
fn measure(contender: Contender, [receive_cpu, send_cpu]: [usize; 2], arguments: &Arguments) -> Figures {
    let cpu = if contender == Contender::TwoCores { send_cpu } else { receive_cpu };
    assert!(core_affinity::set_for_current(CoreId { id: cpu }), "cannot run on CPU {cpu}");
    let mut host = Host::new(contender, receive_cpu, arguments);
    host.connect();
    let mut reaped = vec![WorkCompletion::default(); 2 * arguments.depth as usize];
    host.run(WARM_UP, &mut reaped);
    let clocks = || [ClockId::ThreadCPUTime, ClockId::ProcessCPUTime].map(cpu_seconds);
    host.drain(&mut reaped);
    host.fill();
    let [thread, process] = clocks();
    let (bits, seconds) = host.run(Duration::from_millis(arguments.milliseconds), &mut reaped);
    let [thread, process] = [clocks()[0] - thread, clocks()[1] - process];
    host.drain(&mut reaped);
    assert!(host.is_intact(), "other bytes arrived than were sent");
    Figures {
        gbps: bits / seconds / 1e9,
        application_cpu: thread / seconds,
        // Nobody else runs meanwhile.
        stack_cpu: (process - thread).max(0.0) / seconds,
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// Prints what the rounds brought; whether the bar holds.
fn report(arguments: &Arguments, rounds: &[[Figures; 3]]) -> bool {
    // The ratio of each round, for the machine's pace changes between them.
    let against = |one: Contender| -> Vec<f64> {
        rounds.iter().map(|round| round[Contender::TwoCores as usize].gbps / round[one as usize].gbps).collect()
    };
    let ratios = against(Contender::HalvesOnOneCore);
    let ratio = median(ratios.iter().copied());
    let whole_ratio = median(against(Contender::OneCore).into_iter());
    let holds = ratio >= GOAL;
    let medians = Contender::ALL.map(|contender| {
        let of = |what: fn(&Figures) -> f64| median(rounds.iter().map(|round| what(&round[contender as usize])));
        (contender, of(|figures| figures.gbps), of(|figures| figures.application_cpu), of(|figures| figures.stack_cpu))
    });
    if arguments.json {
        let mut line = json!({
            "what": "c3 full duplex, halves on two cores / both on one", "bar": format!("at least {GOAL}"),
            "figure": ratio, "ours": medians[0].1, "theirs": medians[2].1, "holds": holds, "rounds": ratios,
            "against_c2_one_core": whole_ratio, "size": arguments.size, "mtu": arguments.mtu,
            "depth": arguments.depth, "crc": !arguments.without_crc,
        });
        for (contender, gbps, application, stack) in medians {
            line[contender.key()] =
                json!({ "throughput_gbps": gbps, "application_cpu": application, "stack_cpu": stack });
        }
        println!("{line}");
        return holds;
    }
    println!("{:<30} {:>8} {:>16} {:>10}", "", "Gbit/s", "application CPU", "stack CPU");
    for (contender, gbps, application, stack) in medians {
        println!("{:<30} {gbps:>8.2} {application:>16.2} {stack:>10.2}", contender.name());
    }
    let verdict = if holds { "" } else { "   MISSED" };
    println!("c3, its halves on two cores / c3, both halves on one core: {ratio:.2}, at least {GOAL}{verdict}");
    println!("c3, its halves on two cores / c2, one core: {whole_ratio:.2}");
    holds
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    let ours = |index: usize| cpus.get(index).map_or(index, |cpu| cpu.id);
    let wanted = [arguments.receive_cpu.unwrap_or(ours(0)), arguments.send_cpu.unwrap_or(ours(1))];
    if wanted[0] == wanted[1] || !wanted.iter().all(|&id| cpus.contains(&CoreId { id })) {
        let [receive_cpu, send_cpu] = wanted;
        eprintln!("duplex: --receive-cpu {receive_cpu} --send-cpu {send_cpu}: give two CPUs that this process may use");
        return ExitCode::from(2);
    }
    let mut rounds = Vec::new();
    for _ in 0..arguments.rounds {
        // Each on a thread of its own, which is pinned and has a clock that begins there.
        rounds.push(Contender::ALL.map(|contender| {
            let run = || measure(contender, wanted, &arguments);
            std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }));
    }
    if !report(&arguments, &rounds) && arguments.strict { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
