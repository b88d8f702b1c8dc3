//! A server whose application is blocked in a system call answers Reads all the same, and soon.

#![forbid(unsafe_code)]

use softrdma_verbs::{
    AccessFlags, CmEventKind, CmId, CompletionQueue, ConnectParameters, Device, DeviceConfig, EventChannel,
    MemoryRegion, Operation, QueuePairAttributes, RemoteAddress, SegmentList, SendRequest, Stag, Status, TaggedOffset,
    Threads, WorkCompletion,
};
use std::io::{Read, pipe};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const READS: usize = 1000;
const READ_BYTES: u32 = 4096;
const PATIENCE: Duration = Duration::from_secs(10);
/// The promise.
const SOON: Duration = Duration::from_millis(1);
/// Whatever else runs on the machine can only make a run slower: the best of a few is what the software does.
const ATTEMPTS: usize = 5;
/// Set where nothing else runs (`make interop`): the promise then holds for 99 of 100 Reads. On a machine that is busy
/// with other things the slow ones are those that were not scheduled, and it holds for half of them.
const QUIET: &str = "SOFTRDMA_QUIET_MACHINE";

/// One end: the objects that a connection needs.
struct End {
    channel: EventChannel,
    completions: CompletionQueue,
    region: MemoryRegion,
    queue_pair: softrdma_verbs::QueuePair,
    _device: Device,
}

impl End {
    fn new(threads: Threads) -> Self {
        let device = Device::open(DeviceConfig { threads, ..DeviceConfig::kernel_socket("passive") }).expect("open");
        let channel = EventChannel::new(&device).expect("an event channel");
        let domain = device.allocate_protection_domain().expect("a protection domain");
        let completions = device.create_completion_queue(16, None).expect("a completion queue");
        let access = AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_READ;
        let region = domain.allocate(READ_BYTES as usize, access).expect("a region");
        let attributes = QueuePairAttributes {
            send_completion_queue: completions.clone(),
            receive_completion_queue: completions.clone(),
            shared_receive_queue: None,
            max_send: 16,
            max_receive: 16,
            signal_all: true,
        };
        let queue_pair = device.create_queue_pair(&domain, &attributes).expect("a queue pair");
        End { channel, completions, region, queue_pair, _device: device }
    }

    /// The id of the next event that is `wanted`.
    fn await_event(&self, wanted: impl Fn(&CmEventKind) -> bool) -> CmId {
        loop {
            let event = self.channel.get(PATIENCE).expect("an event in time");
            if wanted(&event.kind) {
                return event.id;
            }
        }
    }
}

/// Where a client finds the server's memory.
type Offer = (SocketAddr, Stag, u64);

/// Accepts one connection, then blocks in read(2) until the other end of `blocked_on` is closed.
fn serve(threads: Threads, offer: &mpsc::Sender<Offer>, mut blocked_on: impl Read) {
    let end = End::new(threads);
    end.region.write(0, &[42; READ_BYTES as usize]).expect("fill the region");
    let listener = CmId::new(&end.channel);
    let address = listener.listen("127.0.0.1:0".parse().expect("an address"), None).expect("listen");
    offer.send((address, end.region.rkey(), end.region.address())).expect("the client waits");
    let id = end.await_event(|kind| matches!(kind, CmEventKind::ConnectRequest { .. }));
    id.set_queue_pair(end.queue_pair.clone());
    id.accept(&ConnectParameters::default()).expect("accept");
    end.await_event(|kind| matches!(kind, CmEventKind::Established { .. }));
    let _ = blocked_on.read(&mut [0]).expect("read from the pipe");
}

/// Times of Reads from a server that `threads` runs, shortest first.
fn read_from_blocked_server(threads: Threads) -> Vec<Duration> {
    let (reader, writer) = pipe().expect("a pipe");
    let (offer, offered) = mpsc::channel();
    let server = thread::spawn(move || serve(threads, &offer, reader));
    let (address, stag, offset) = offered.recv_timeout(PATIENCE).expect("the server offers");
    let client = End::new(Threads::C2);
    let id = CmId::new(&client.channel);
    id.resolve_address(address);
    client.await_event(|kind| *kind == CmEventKind::AddressResolved);
    id.set_queue_pair(client.queue_pair.clone());
    id.connect(&ConnectParameters::default()).expect("connect");
    client.await_event(|kind| matches!(kind, CmEventKind::Established { .. }));

    let source = RemoteAddress { stag, offset: TaggedOffset(offset) };
    let mut times: Vec<Duration> = (0..READS).map(|_| read_once(&client, source)).collect();
    let mut bytes = [0; READ_BYTES as usize];
    client.region.read(0, &mut bytes).expect("look at the region");
    assert_eq!(bytes, [42; READ_BYTES as usize]);
    drop(writer);
    server.join().expect("the server ends well");
    times.sort();
    times
}

/// One Read after a pause in which the server's stack may fall asleep as well.
fn read_once(client: &End, source: RemoteAddress) -> Duration {
    thread::sleep(Duration::from_micros(500));
    let sinks = SegmentList::new(&[client.region.segment(0, READ_BYTES)]).expect("one segment");
    let operation = Operation::Read { sinks, source, invalidate: None };
    let start = Instant::now();
    client
        .queue_pair
        .post_send(SendRequest { id: 1, operation, signaled: true, solicited: false, fence: false })
        .expect("post");
    let mut completion = [WorkCompletion::default()];
    while client.completions.poll(&mut completion) == 0 {
        assert!(start.elapsed() < PATIENCE, "no answer to a Read");
    }
    assert_eq!(completion[0].status, Status::Success);
    start.elapsed()
}

#[test]
fn a_server_blocked_in_a_system_call_answers_reads_within_a_millisecond() {
    let percent = if std::env::var_os(QUIET).is_some() { 99 } else { 50 };
    for threads in [Threads::C1, Threads::C2] {
        let mut best = Duration::MAX;
        for _ in 0..ATTEMPTS {
            let times = read_from_blocked_server(threads);
            let [p50, p99] = [50, 99].map(|percent| times[READS * percent / 100]);
            println!("{}: p50 {p50:?}, p99 {p99:?}, max {:?}", threads.name(), times[READS - 1]);
            best = best.min(times[READS * percent / 100]);
            if best < SOON {
                break;
            }
        }
        assert!(best < SOON, "{}: {percent} of 100 Reads within {best:?}, not {SOON:?}", threads.name());
    }
}
