//! Receiving and sending at the same time (c3), over engines in memory that were split: two devices, each with its RX thread
//! and the application's. Once over streams that cannot fail, and over the softrdma engine on wires good and bad.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use softrdma_stack::kernel::{KernelConfig, KernelEngine};
use softrdma_stack::memory_port::{Impairments, wire};
use softrdma_stack::softrdma::{SoftrdmaConfig, SoftrdmaEngine};
use softrdma_stack::stream::Engine;
use softrdma_stack::testing::{PairConfig, pair};
use softrdma_verbs::device::OpenError;
use softrdma_verbs::{
    AccessFlags, CmEventKind, CmId, CompletionQueue, ConnectParameters, Device, DeviceConfig, EventChannel,
    MemoryRegion, Opcode, Operation, Payload, PostError, ProtectionDomain, QueuePair, QueuePairAttributes,
    RemoteAddress, SegmentList, SendRequest, Status, TaggedOffset, Threads, WorkCompletion,
};

const PATIENCE: Duration = Duration::from_secs(30);
const DEPTH: u32 = 16;
const BLOCK: usize = 4096;

struct End {
    device: Device,
    channel: EventChannel,
    domain: ProtectionDomain,
    completions: CompletionQueue,
    region: MemoryRegion,
    queue_pair: QueuePair,
    id: Option<CmId>,
}

fn config(name: &str, own_core: bool) -> DeviceConfig {
    let mut config = DeviceConfig::kernel_socket(name);
    config.threads = Threads::C3;
    config.stack_cpu = own_core.then_some(0);
    config
}

impl End {
    fn new(name: &str, engine: Box<dyn Engine>, own_core: bool) -> Self {
        let device = Device::with_engine(config(name, own_core), engine).unwrap();
        let channel = EventChannel::new(&device).unwrap();
        let domain = device.allocate_protection_domain().unwrap();
        let completions = device.create_completion_queue(1024, None).unwrap();
        let access = AccessFlags::LOCAL_WRITE
            | AccessFlags::REMOTE_READ
            | AccessFlags::REMOTE_WRITE
            | AccessFlags::REMOTE_ATOMIC;
        let region = domain.allocate(1 << 20, access).unwrap();
        let attributes = QueuePairAttributes {
            send_completion_queue: completions.clone(),
            receive_completion_queue: completions.clone(),
            shared_receive_queue: None,
            max_send: DEPTH,
            max_receive: 64,
            signal_all: true,
        };
        let queue_pair = device.create_queue_pair(&domain, &attributes).unwrap();
        Self { device, channel, domain, completions, region, queue_pair, id: None }
    }

    fn expect(&self, what: impl Fn(&CmEventKind) -> bool) -> softrdma_verbs::CmEvent {
        let event = self.channel.get(PATIENCE).expect("an event within the time allowed");
        assert!(what(&event.kind), "{event:?}");
        event
    }

    fn completion(&self) -> WorkCompletion {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(completion) = self.completions.poll_one() {
                return completion;
            }
            assert!(Instant::now() < deadline, "no completion in time; {:?}", self.device.statistics());
        }
    }

    fn key(&self) -> (softrdma_verbs::Stag, u64) {
        (self.region.rkey(), self.region.address())
    }
}

/// What joins the two devices.
#[derive(Clone, Copy, Debug)]
enum Over {
    /// Streams that cannot fail.
    Streams,
    /// Own TCP on a wire that loses, repeats and reorders so many frames of a thousand, each.
    Softrdma(u32),
}

impl Over {
    const ALL: [Self; 3] = [Self::Streams, Self::Softrdma(0), Self::Softrdma(10)];

    fn engines(self, seed: u64) -> [Box<dyn Engine>; 2] {
        match self {
            Self::Streams => {
                // An application may change its buffer while that is being sent.
                let (first, second) = pair(PairConfig { checks_rewrites: false, ..PairConfig::new(seed) });
                [Box::new(first), Box::new(second)]
            }
            Self::Softrdma(of_thousand) => {
                let bad = f64::from(of_thousand) / 1000.0;
                let impairments = Impairments { loss: bad, duplicate: bad, reorder: bad, ..Impairments::default() };
                let (first, second, _) = wire(seed, impairments);
                let now = softrdma_stack::time::Instant::ZERO;
                let mut host = 0u8;
                [first, second].map(|port| {
                    host += 1;
                    let address = format!("192.0.2.{host}").parse().unwrap();
                    let config = SoftrdmaConfig {
                        addresses: vec![(address, 24)],
                        random_seed: seed + u64::from(host),
                        ..SoftrdmaConfig::default()
                    };
                    Box::new(SoftrdmaEngine::new(port, config, now).unwrap()) as Box<dyn Engine>
                })
            }
        }
    }
}

fn connect(over: Over, seed: u64, own_core: bool) -> [End; 2] {
    let [first, second] = over.engines(seed);
    let mut client = End::new("client", first, own_core);
    let mut server = End::new("server", second, own_core);
    let listener = CmId::new(&server.channel);
    let address: SocketAddr = listener.listen("192.0.2.2:4420".parse().unwrap(), Some(8)).unwrap();
    let id = CmId::new(&client.channel);
    id.resolve_address(address);
    client.expect(|kind| *kind == CmEventKind::AddressResolved);
    id.resolve_route();
    client.expect(|kind| *kind == CmEventKind::RouteResolved);
    id.set_queue_pair(client.queue_pair.clone());
    id.connect(&ConnectParameters::default()).unwrap();
    let request = server.expect(|kind| matches!(kind, CmEventKind::ConnectRequest { .. }));
    request.id.set_queue_pair(server.queue_pair.clone());
    request.id.accept(&ConnectParameters::default()).unwrap();
    server.expect(|kind| matches!(kind, CmEventKind::Established { .. }));
    client.expect(|kind| matches!(kind, CmEventKind::Established { .. }));
    (client.id, server.id) = (Some(id), Some(request.id));
    [client, server]
}

/// Writes, Reads and FetchAdds in turn, each block to a place of its own; what is read is what the peer had there.
fn exchange(end: &End, (stag, base): (softrdma_verbs::Stag, u64), count: u64) {
    let remote = |offset: usize| RemoteAddress { stag, offset: TaggedOffset(base + offset as u64) };
    let local = |offset: usize, length: usize| SegmentList::new(&[end.region.segment(offset, length as u32)]).unwrap();
    let (mut posted, mut completed) = (0, 0);
    while completed < count {
        while posted < count {
            let place = (posted % 16) as usize * BLOCK;
            let operation = match posted % 3 {
                0 => Operation::Write {
                    payload: Payload::Segments(local(0, BLOCK)),
                    target: remote((64 << 10) + place),
                    immediate: None,
                },
                1 => Operation::Read { sinks: local((128 << 10) + place, BLOCK), source: remote(0), invalidate: None },
                _ => Operation::Atomic {
                    sink: end.region.segment(256 << 10, 8),
                    target: remote(512 << 10),
                    operation: softrdma_verbs::AtomicOperation::FetchAdd { add: 1, mask: 0 },
                },
            };
            let request = SendRequest { id: posted, operation, signaled: true, solicited: false, fence: false };
            match end.queue_pair.post_send(request) {
                Ok(()) => posted += 1,
                Err(PostError::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let completion = end.completion();
        assert_eq!((completion.id, completion.status), (completed, Status::Success), "in order and well");
        completed += 1;
    }
}

fn bytes(end: &End, offset: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    end.region.read(offset, &mut bytes).unwrap();
    bytes
}

fn traffic_both_ways(own_core: bool) {
    const COUNT: u64 = 600;
    for (over, seed) in Over::ALL.into_iter().flat_map(|over| (1..=3).map(move |seed| (over, seed))) {
        println!("{over:?}, seed {seed}"); // Shown if it fails.
        let ends = connect(over, seed, own_core);
        ends[0].region.write(0, &[0xa5; BLOCK]).unwrap();
        ends[1].region.write(0, &[0x5a; BLOCK]).unwrap();
        let keys = [ends[1].key(), ends[0].key()];
        std::thread::scope(|scope| {
            for (end, key) in ends.iter().zip(keys) {
                scope.spawn(move || exchange(end, key, COUNT));
            }
        });
        for (end, peers) in [(&ends[0], 0x5a), (&ends[1], 0xa5)] {
            // A Write is done when its bytes are in the peer's hands; a Read behind it shows that they are placed.
            assert!(bytes(end, 128 << 10, 16 * BLOCK).iter().all(|&byte| byte == peers), "seed {seed}: read");
            assert!(bytes(end, 64 << 10, 16 * BLOCK).iter().all(|&byte| byte == peers), "seed {seed}: written");
            assert_eq!(bytes(end, 512 << 10, 8), (COUNT / 3).to_ne_bytes(), "seed {seed}: every atomic once");
        }
    }
}

#[test]
fn both_directions_carry_the_right_bytes_with_the_receive_turn_as_a_token() {
    traffic_both_ways(false);
}

#[test]
fn both_directions_carry_the_right_bytes_with_a_receive_thread_of_its_own() {
    traffic_both_ways(true);
}

#[test]
fn after_an_error_everything_is_flushed_once_and_nothing_is_placed_any_more() {
    for (over, seed) in Over::ALL.into_iter().flat_map(|over| (1..=6).map(move |seed| (over, seed))) {
        println!("{over:?}, seed {seed}"); // Shown if it fails.
        let [writer, target] = connect(over, seed, seed % 2 == 0);
        let (stag, base) = target.key();
        let source = SegmentList::new(&[writer.region.segment(0, BLOCK as u32)]).unwrap();
        let written = std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                let mut posted = 0;
                let mut completed = 0;
                for id in 0.. {
                    writer.region.write(0, &[id as u8; BLOCK]).unwrap();
                    let operation = Operation::Write {
                        payload: Payload::Segments(source),
                        target: RemoteAddress { stag, offset: TaggedOffset(base) },
                        immediate: None,
                    };
                    let request = SendRequest { id, operation, signaled: true, solicited: false, fence: false };
                    match writer.queue_pair.post_send(request) {
                        Ok(()) => posted += 1,
                        Err(PostError::Full { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    while let Some(completion) = writer.completions.poll_one() {
                        completed += 1;
                        if completion.status == Status::Flushed {
                            return (posted, completed);
                        }
                    }
                }
                unreachable!("ids do not end")
            });
            std::thread::sleep(Duration::from_millis(5));
            for id in 0..20 {
                target.queue_pair.post_receive(id, &[target.region.segment(1024, 64)]).unwrap();
            }
            target.queue_pair.modify_to_error();
            // All of them are there when it returns, and no byte is placed after it.
            for id in 0..20 {
                let flushed = target.completions.poll_one().expect("a flushed receive, at once");
                assert_eq!((flushed.id, flushed.status, flushed.opcode), (id, Status::Flushed, Opcode::Receive));
            }
            target.region.write(0, &[0xee; BLOCK]).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            assert!(bytes(&target, 0, BLOCK).iter().all(|&byte| byte == 0xee), "seed {seed}: placed after the flush");
            writing.join().unwrap()
        });
        let (posted, mut completed) = written;
        while completed < posted {
            writer.completion();
            completed += 1;
        }
        assert!(writer.completions.poll_one().is_none(), "seed {seed}: completed twice");
        drop(target.domain);
    }
}

#[test]
fn an_end_that_disconnects_is_seen_by_the_other() {
    for over in Over::ALL {
        let [client, server] = connect(over, 7, false);
        client.id.as_ref().unwrap().disconnect();
        server.expect(|kind| *kind == CmEventKind::Disconnected);
        client.expect(|kind| *kind == CmEventKind::Disconnected);
    }
}

#[test]
fn an_engine_of_one_piece_is_refused() {
    let engine = KernelEngine::new(KernelConfig::default()).unwrap();
    let refused = Device::with_engine(config("whole", false), Box::new(engine));
    assert!(matches!(refused, Err(OpenError::OfOnePiece { scheme: "kernel-socket" })), "{refused:?}");
}
