//! Devices over kernel sockets on loopback, in every threading model of this version.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use softrdma_verbs::{
    AccessFlags, AsyncEvent, CmEvent, CmEventKind, CmId, CompletionQueue, ConnectParameters, Device, DeviceConfig,
    EventChannel, MemoryRegion, Opcode, Operation, Payload, PostError, ProtectionDomain, QueuePair,
    QueuePairAttributes, QueuePairState, RemoteAddress, SegmentList, SendRequest, SharedReceiveQueue, Status,
    TaggedOffset, Threads, WorkCompletion,
};

const PATIENCE: Duration = Duration::from_secs(10);

struct Host {
    device: Device,
    channel: EventChannel,
    domain: ProtectionDomain,
    completions: CompletionQueue,
    region: MemoryRegion,
}

impl Host {
    fn new(threads: Threads) -> Self {
        Self::with(|config| config.threads = threads)
    }

    fn with(change: impl FnOnce(&mut DeviceConfig)) -> Self {
        let mut config = DeviceConfig::kernel_socket("test");
        change(&mut config);
        let device = Device::open(config).unwrap();
        let channel = EventChannel::new(&device).unwrap();
        let domain = device.allocate_protection_domain().unwrap();
        let completions = device.create_completion_queue(256, None).unwrap();
        let everything = AccessFlags::LOCAL_WRITE
            | AccessFlags::REMOTE_READ
            | AccessFlags::REMOTE_WRITE
            | AccessFlags::REMOTE_ATOMIC;
        let region = domain.allocate(1 << 20, everything).unwrap();
        Self { device, channel, domain, completions, region }
    }

    fn queue_pair(&self) -> QueuePair {
        self.device
            .create_queue_pair(
                &self.domain,
                &QueuePairAttributes {
                    send_completion_queue: self.completions.clone(),
                    receive_completion_queue: self.completions.clone(),
                    shared_receive_queue: None,
                    max_send: 64,
                    max_receive: 64,
                    signal_all: false,
                },
            )
            .unwrap()
    }

    /// One that takes its receives from `shared`.
    fn sharing_queue_pair(&self, shared: &SharedReceiveQueue) -> QueuePair {
        let attributes = QueuePairAttributes {
            send_completion_queue: self.completions.clone(),
            receive_completion_queue: self.completions.clone(),
            shared_receive_queue: Some(shared.clone()),
            max_send: 64,
            max_receive: 0,
            signal_all: false,
        };
        self.device.create_queue_pair(&self.domain, &attributes).unwrap()
    }

    fn event(&self) -> CmEvent {
        self.channel.get(PATIENCE).expect("an event within the time allowed")
    }

    fn completion(&self) -> WorkCompletion {
        let deadline = Instant::now() + PATIENCE;
        let mut completion = [WorkCompletion::default()];
        while self.completions.poll(&mut completion) == 0 {
            assert!(Instant::now() < deadline, "no completion in time; {:?}", self.device.statistics());
        }
        completion[0]
    }

    fn payload(&self, offset: usize, length: usize) -> Payload {
        Payload::Segments(SegmentList::new(&[self.region.segment(offset, length as u32)]).unwrap())
    }

    fn remote(&self, offset: usize) -> RemoteAddress {
        RemoteAddress { stag: self.region.rkey(), offset: TaggedOffset(self.region.address() + offset as u64) }
    }

    fn listen(&self) -> (CmId, SocketAddr) {
        let listener = CmId::new(&self.channel);
        let address = listener.listen("127.0.0.1:0".parse().unwrap(), Some(8)).unwrap();
        (listener, address)
    }
}

fn signaled(id: u64, operation: Operation) -> SendRequest {
    SendRequest { id, operation, signaled: true, solicited: false, fence: false }
}

struct Connection {
    client: Host,
    server: Host,
    client_id: CmId,
    server_id: CmId,
    _listener: CmId,
}

fn connect(client: Host, server: Host) -> Connection {
    let accepting = server.queue_pair();
    connect_to(client, server, accepting)
}

fn connect_to(client: Host, server: Host, accepting: QueuePair) -> Connection {
    let (listener, address) = server.listen();
    let client_id = CmId::new(&client.channel);
    client_id.resolve_address(address);
    assert_eq!(client.event().kind, CmEventKind::AddressResolved);
    client_id.resolve_route();
    assert_eq!(client.event().kind, CmEventKind::RouteResolved);
    client_id.set_queue_pair(client.queue_pair());
    let parameters = ConnectParameters { private_data: b"hello".to_vec(), ..Default::default() };
    client_id.connect(&parameters).unwrap();
    let request = server.event();
    assert!(matches!(request.kind, CmEventKind::ConnectRequest { .. }), "{request:?}");
    assert_eq!(request.private_data(), b"hello");
    assert_eq!(request.listener.as_ref(), Some(&listener));
    request.id.set_queue_pair(accepting);
    request.id.accept(&ConnectParameters { private_data: b"welcome".to_vec(), ..Default::default() }).unwrap();
    assert!(matches!(server.event().kind, CmEventKind::Established { .. }));
    let established = client.event();
    assert!(matches!(established.kind, CmEventKind::Established { .. }), "{established:?}");
    assert_eq!(established.private_data(), b"welcome");
    Connection { client, server, client_id, server_id: request.id, _listener: listener }
}

fn models() -> [Threads; 2] {
    [Threads::C1, Threads::C2]
}

#[test]
fn sends_writes_reads_and_atomics_carry_the_right_bytes() {
    for threads in models() {
        let Connection { client, server, client_id, server_id, _listener } =
            connect(Host::new(threads), Host::new(threads));
        let (ours, theirs) = (client_id.queue_pair().unwrap(), server_id.queue_pair().unwrap());
        let pattern: Vec<u8> = (0..200_000_u32).map(|index| (index * 7 + index / 256) as u8).collect();
        client.region.write(0, &pattern).unwrap();

        theirs.post_receive(7, &[server.region.segment(0, 200_000)]).unwrap();
        ours.post_send(signaled(1, Operation::Send { payload: client.payload(0, 200_000), invalidate: None })).unwrap();
        let sent = client.completion();
        assert_eq!((sent.id, sent.status, sent.opcode), (1, Status::Success, Opcode::Send));
        let received = server.completion();
        assert_eq!((received.id, received.status, received.length), (7, Status::Success, 200_000));
        assert_eq!(read(&server.region, 0, 200_000), pattern);

        let payload = client.payload(100, 50_000);
        let write = Operation::Write { payload, target: server.remote(400_000), immediate: None };
        ours.post_send(signaled(2, write)).unwrap();
        let sinks = SegmentList::new(&[client.region.segment(300_000, 20_000), client.region.segment(500_000, 30_000)]);
        let operation = Operation::Read { sinks: sinks.unwrap(), source: server.remote(400_000), invalidate: None };
        ours.post_send(signaled(3, operation)).unwrap();
        assert_eq!(client.completion().id, 2);
        let done = client.completion();
        assert_eq!((done.id, done.status, done.opcode, done.length), (3, Status::Success, Opcode::Read, 50_000));
        assert_eq!(read(&server.region, 400_000, 50_000), pattern[100..50_100]);
        assert_eq!(read(&client.region, 300_000, 20_000), pattern[100..20_100]);
        assert_eq!(read(&client.region, 500_000, 30_000), pattern[20_100..50_100]);

        client_id.disconnect();
        client_id.disconnect();
        assert_eq!(client.event().kind, CmEventKind::Disconnected);
        assert_eq!(server.event().kind, CmEventKind::Disconnected);
        assert_eq!(ours.state(), QueuePairState::Error);
    }
}

#[test]
fn a_rejected_client_gets_the_private_data() {
    let (client, server) = (Host::new(Threads::C2), Host::new(Threads::C1));
    let (_listener, address) = server.listen();
    let id = CmId::new(&client.channel);
    id.resolve_address(address);
    client.event();
    id.set_queue_pair(client.queue_pair());
    id.connect(&ConnectParameters::default()).unwrap();
    let request = server.event();
    request.id.reject(b"no room").unwrap();
    assert_eq!(client.event().kind, CmEventKind::Rejected { private_data: b"no room".to_vec() });
}

#[test]
fn nobody_listening_is_unreachable() {
    let client = Host::new(Threads::C2);
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let id = CmId::new(&client.channel);
    id.resolve_address(unused);
    client.event();
    id.set_queue_pair(client.queue_pair());
    id.connect(&ConnectParameters::default()).unwrap();
    assert!(matches!(client.event().kind, CmEventKind::Unreachable { .. }));
}

#[test]
fn a_deadline_of_an_application_that_wakes_a_device_from_a_long_idle_time_is_kept() {
    // Nobody accepts, and where no more can wait for it the kernel drops requests.
    let full = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = full.local_addr().unwrap();
    let waiting: Vec<_> =
        std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok())
            .collect();
    assert!(!waiting.is_empty());
    let host = Host::with(|config| {
        config.threads = Threads::C2;
        config.timing.connect_timeout_ms = 50;
    });
    // Long enough for its thread to sleep as long as nothing wakes it.
    std::thread::sleep(Duration::from_millis(300));
    let id = CmId::new(&host.channel);
    id.resolve_address(address);
    assert_eq!(host.event().kind, CmEventKind::AddressResolved);
    id.resolve_route();
    assert_eq!(host.event().kind, CmEventKind::RouteResolved);
    std::thread::sleep(Duration::from_millis(300));
    id.set_queue_pair(host.queue_pair());
    let begun = Instant::now();
    id.connect(&ConnectParameters::default()).unwrap();
    let mut waiting = [rustix::event::PollFd::from_borrowed_fd(host.channel.as_fd(), rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut waiting, Some(&limit)), Ok(1));
    let after = begun.elapsed();
    assert!((50..500).contains(&after.as_millis()), "{after:?}");
    assert!(matches!(host.event().kind, CmEventKind::Unreachable { .. }));
}

#[test]
fn an_unspecified_address_listens_where_the_configuration_says() {
    let unspecified: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let by_default = Host::new(Threads::C2);
    let bound = CmId::new(&by_default.channel).listen(unspecified, None).unwrap();
    assert!(bound.ip().is_loopback() && bound.port() != 0, "{bound}");
    let refused = CmId::new(&by_default.channel).listen("[::]:0".parse().unwrap(), None).unwrap_err().to_string();
    assert!(refused.contains("[::]:0") && refused.contains("listen_addresses"), "{refused}");

    let both = ["127.0.0.2", "127.0.0.3"].map(|address| address.parse().unwrap());
    let host = Host::with(|config| config.listen_addresses = both.to_vec());
    let listener = CmId::new(&host.channel);
    let port = listener.listen(unspecified, None).unwrap().port();
    let reachable = |address: &str| std::net::TcpStream::connect((address, port)).is_ok();
    assert!(reachable("127.0.0.2") && reachable("127.0.0.3") && !reachable("127.0.0.1"));
    drop(listener);
    // The stack's thread hears of it a moment later.
    let deadline = Instant::now() + PATIENCE;
    while reachable("127.0.0.2") || reachable("127.0.0.3") {
        assert!(Instant::now() < deadline, "both listeners end with their id");
    }

    let everywhere = Host::with(|config| config.listen_addresses.clear());
    assert!(CmId::new(&everywhere.channel).listen(unspecified, None).unwrap().ip().is_unspecified());
}

#[test]
fn a_shared_receive_queue_that_runs_low_says_so_by_its_number() {
    for threads in models() {
        let server = Host::new(threads);
        let _first = server.domain.create_shared_receive_queue(1).unwrap();
        let shared = server.domain.create_shared_receive_queue(8).unwrap();
        for id in 0..4 {
            shared.post_receive(id, &[server.region.segment(id as usize * 100, 100)]).unwrap();
        }
        shared.arm_limit(3);
        let accepting = server.sharing_queue_pair(&shared);
        let Connection { client, server, client_id, server_id: _server_id, _listener } =
            connect_to(Host::new(threads), server, accepting);
        for id in 0..2 {
            let send = Operation::Send { payload: client.payload(0, 100), invalidate: None };
            client_id.queue_pair().unwrap().post_send(signaled(id, send)).unwrap();
            assert_eq!((client.completion().status, server.completion().id), (Status::Success, id));
        }
        let reached = AsyncEvent::ReceiveLimitReached { shared_receive_queue: shared.number() };
        // The completion may be seen before the event is.
        let deadline = Instant::now() + PATIENCE;
        let event = std::iter::repeat_with(|| server.device.try_get_async_event());
        let event = event.take_while(|_| Instant::now() < deadline).find_map(|event| event);
        assert_eq!(event, Some(reached));
        assert_eq!(server.device.try_get_async_event(), None, "it comes once");
    }
}

#[test]
fn a_limit_above_what_is_posted_is_told_of_at_once() {
    for threads in models() {
        let host = Host::new(threads);
        let shared = host.domain.create_shared_receive_queue(8).unwrap();
        shared.arm_limit(1);
        let reached = AsyncEvent::ReceiveLimitReached { shared_receive_queue: shared.number() };
        assert_eq!(host.device.try_get_async_event(), Some(reached));
        assert_eq!(host.device.try_get_async_event(), None, "it comes once");
    }
}

#[test]
fn a_request_that_nobody_decides_ends_in_time() {
    for threads in models() {
        let client = Host::new(threads);
        let server = Host::with(|config| {
            config.threads = threads;
            config.timing.accept_timeout_ms = 100;
        });
        let (_listener, address) = server.listen();
        let id = CmId::new(&client.channel);
        id.resolve_address(address);
        client.event();
        id.set_queue_pair(client.queue_pair());
        let begun = Instant::now();
        id.connect(&ConnectParameters::default()).unwrap();
        let request = server.event();
        assert!(matches!(request.kind, CmEventKind::ConnectRequest { .. }), "{request:?}");
        let end = client.event();
        assert!(matches!(end.kind, CmEventKind::Unreachable { .. } | CmEventKind::ConnectError { .. }), "{end:?}");
        assert!(begun.elapsed() < Duration::from_secs(4), "sooner than the client's own patience of 5 s");
    }
}

#[test]
fn a_peer_that_is_gone_flushes_what_is_posted() {
    for threads in models() {
        let Connection { client, server, client_id, server_id, _listener } =
            connect(Host::new(threads), Host::new(threads));
        let ours = client_id.queue_pair().unwrap();
        for id in 0..10 {
            ours.post_receive(id, &[client.region.segment(0, 100)]).unwrap();
        }
        drop(server_id);
        drop(server);
        assert_eq!(client.event().kind, CmEventKind::Disconnected);
        for id in 0..10 {
            let completion = client.completion();
            assert_eq!((completion.id, completion.status), (id, Status::Flushed));
        }
        // Later posts are flushed as well.
        ours.post_receive(77, &[client.region.segment(0, 100)]).unwrap();
        let completion = client.completion();
        assert_eq!((completion.id, completion.status), (77, Status::Flushed));
        ours.post_send(signaled(78, Operation::Send { payload: client.payload(0, 8), invalidate: None })).unwrap();
        let completion = client.completion();
        assert_eq!((completion.id, completion.status), (78, Status::Flushed));
    }
}

#[test]
fn what_is_posted_after_the_end_is_flushed_when_an_error_is_asked_for() {
    for threads in models() {
        let Connection { client, server, client_id, server_id, _listener } =
            connect(Host::new(threads), Host::new(threads));
        let queue_pair = client_id.queue_pair().unwrap();
        drop((server_id, server));
        assert_eq!(client.event().kind, CmEventKind::Disconnected);
        for id in 0..1000 {
            queue_pair
                .post_send(signaled(id, Operation::Send { payload: client.payload(0, 8), invalidate: None }))
                .unwrap();
            queue_pair.modify_to_reset().unwrap();
            let mut done = [WorkCompletion::default(); 2];
            assert_eq!(client.completions.poll(&mut done), 1, "{threads:?}: request {id}");
            assert_eq!((done[0].id, done[0].status), (id, Status::Flushed));
            queue_pair.modify_to_init().unwrap();
            queue_pair.modify_to_error();
        }
    }
}

#[test]
fn receives_posted_in_error_need_no_more_doorbells_than_there_are_queue_pairs() {
    for threads in [Threads::C1, Threads::C2] {
        let host = Host::with(|config| {
            config.threads = threads;
            config.limits.max_queue_pairs = 2;
        });
        let queue_pairs = [host.queue_pair(), host.queue_pair()];
        for queue_pair in &queue_pairs {
            queue_pair.modify_to_error();
        }
        std::thread::scope(|scope| {
            for queue_pair in &queue_pairs {
                let segment = host.region.segment(0, 8);
                scope.spawn(move || (0..64).for_each(|id| queue_pair.post_receive(id, &[segment]).unwrap()));
            }
        });
        for _ in 0..128 {
            assert_eq!(host.completion().status, Status::Flushed, "{threads:?}");
        }
    }
}

#[test]
fn sends_that_completed_arrive_though_everything_is_dropped_behind_them() {
    const LENGTH: usize = 200_000;
    for threads in models() {
        let Connection { client, server, client_id, server_id, _listener } =
            connect(Host::new(threads), Host::new(threads));
        let ours = client_id.queue_pair().unwrap();
        let theirs = server_id.queue_pair().unwrap();
        client.region.write(0, &[7; LENGTH]).unwrap();
        // Without a receive the peer takes nothing, so most of it is still on our side when it has completed.
        ours.post_send(signaled(1, Operation::Send { payload: client.payload(0, LENGTH), invalidate: None })).unwrap();
        assert_eq!(client.completion().status, Status::Success);
        client_id.disconnect();
        assert_eq!(client.event().kind, CmEventKind::Disconnected);
        drop((ours, client_id, _listener));
        std::thread::sleep(Duration::from_millis(20));
        theirs.post_receive(1, &[server.region.segment(0, LENGTH as u32)]).unwrap();
        let received = server.completion();
        assert_eq!((received.status, received.length as usize), (Status::Success, LENGTH), "{threads:?}");
        assert_eq!(server.event().kind, CmEventKind::Disconnected);
    }
}

#[test]
fn a_passive_side_answers_reads_while_its_application_sleeps() {
    for threads in models() {
        let Connection { client, server, client_id, server_id, _listener } =
            connect(Host::new(threads), Host::new(threads));
        let ours = client_id.queue_pair().unwrap();
        server.region.write(0, &[42; 4096]).unwrap();
        // The server's application polls for a while, then never again.
        let mut none = [WorkCompletion::default()];
        for _ in 0..1000 {
            assert_eq!(server.completions.poll(&mut none), 0);
        }
        let mut slowest = Duration::ZERO;
        for id in 0..200 {
            let sinks = SegmentList::new(&[client.region.segment(0, 4096)]).unwrap();
            let start = Instant::now();
            ours.post_send(signaled(id, Operation::Read { sinks, source: server.remote(0), invalidate: None }))
                .unwrap();
            assert_eq!(client.completion().status, Status::Success);
            slowest = slowest.max(start.elapsed());
        }
        assert_eq!(read(&client.region, 0, 4096), [42; 4096]);
        assert!(slowest < Duration::from_secs(1), "{threads:?}: {slowest:?}");
        drop(server_id);
    }
}

#[test]
fn a_message_waits_for_a_receive_within_the_grace() {
    let Connection { client, server, client_id, server_id, _listener } =
        connect(Host::new(Threads::C2), Host::new(Threads::C1));
    let (ours, theirs) = (client_id.queue_pair().unwrap(), server_id.queue_pair().unwrap());
    client.region.write(0, b"late").unwrap();
    ours.post_send(signaled(1, Operation::Send { payload: client.payload(0, 4), invalidate: None })).unwrap();
    assert_eq!(client.completion().status, Status::Success);
    std::thread::sleep(Duration::from_millis(50));
    theirs.post_receive(1, &[server.region.segment(0, 4)]).unwrap();
    assert_eq!(server.completion().length, 4);
    assert_eq!(read(&server.region, 0, 4), b"late");
}

#[test]
fn a_message_that_never_finds_a_receive_ends_the_connection() {
    let patient = Host::with(|config| config.timing.receive_wait_ms = 50);
    let Connection { client, server, client_id, server_id, _listener } = connect(Host::new(Threads::C2), patient);
    let ours = client_id.queue_pair().unwrap();
    ours.post_send(signaled(1, Operation::Send { payload: client.payload(0, 4), invalidate: None })).unwrap();
    assert_eq!(client.completion().status, Status::Success);
    assert_eq!(server.event().kind, CmEventKind::Disconnected);
    assert_eq!(client.event().kind, CmEventKind::Disconnected);
    assert_eq!(server.device.statistics().host.unwrap().terminates_sent, 1);
    assert_eq!(client.device.statistics().host.unwrap().terminates_received, 1);
    drop(server_id);
}

#[test]
fn a_write_beyond_the_region_is_answered_with_a_terminate() {
    let Connection { client, server, client_id, server_id, _listener } =
        connect(Host::new(Threads::C1), Host::new(Threads::C2));
    let ours = client_id.queue_pair().unwrap();
    let write =
        Operation::Write { payload: client.payload(0, 64), target: server.remote((1 << 20) - 8), immediate: None };
    ours.post_send(signaled(1, write)).unwrap();
    assert_eq!(client.event().kind, CmEventKind::Disconnected);
    assert_eq!(server.event().kind, CmEventKind::Disconnected);
    assert_eq!(server.device.statistics().host.unwrap().terminates_sent, 1);
    assert_eq!(read(&server.region, (1 << 20) - 64, 64), [0; 64]);
    drop(server_id);
}

#[test]
fn a_full_send_queue_says_so() {
    let Connection { client, client_id, server, server_id, _listener } =
        connect(Host::new(Threads::C1), Host::new(Threads::C1));
    let ours = client_id.queue_pair().unwrap();
    let source = server.remote(0);
    let mut refused = None;
    for id in 0..10_000 {
        let sinks = SegmentList::new(&[client.region.segment(0, 100_000)]).unwrap();
        if let Err(error) = ours.post_send(signaled(id, Operation::Read { sinks, source, invalidate: None })) {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused, Some(PostError::Full { depth: 64 }));
    drop(server_id);
}

fn read(region: &MemoryRegion, offset: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    region.read(offset, &mut bytes).unwrap();
    bytes
}
