//! Hosts on an engine that does what a test says, on a virtual clock, in one turn and in two.
//!
//! The test is the network and the peer: it looks at what a stream sent, acknowledges it when it likes, and says what arrives.

mod asynchronous;
mod endings;
mod engine;
mod listening;
mod memory_given_up;
mod other_devices;
mod own_errors;
mod peer;
mod queue_pairs;

use std::sync::Mutex;
use std::time::Duration;

use softrdma_stack::time::Instant;
use softrdma_verbs::{
    AccessFlags, CmEvent, CmEventKind, CmId, CompletionQueue, ConnectParameters, Device, DeviceConfig, EventChannel,
    MemoryRegion, Operation, Payload, ProtectionDomain, QueuePair, QueuePairAttributes, Scheme, Segment, SegmentList,
    SendRequest, Threads, WorkCompletion,
};

pub(crate) use engine::Wire;
pub(crate) use peer::Peer;

/// Both ways of driving: one turn for both sides, or one each.
pub(crate) const MODELS: [Threads; 2] = [Threads::C2, Threads::C3];

/// A device on a scripted engine, with one of everything.
pub(crate) struct Host {
    pub(crate) device: Device,
    pub(crate) wire: Wire,
    pub(crate) channel: EventChannel,
    pub(crate) domain: ProtectionDomain,
    pub(crate) completions: CompletionQueue,
    pub(crate) region: MemoryRegion,
    now: Mutex<Instant>,
}

impl Host {
    /// On an engine that keeps nothing and acknowledges when the test says so.
    pub(crate) fn new(threads: Threads) -> Self {
        Self::with(threads, |_| {})
    }

    pub(crate) fn with(threads: Threads, change: impl FnOnce(&mut DeviceConfig)) -> Self {
        let mut config = DeviceConfig { scheme: Scheme::Softrdma, threads, ..DeviceConfig::kernel_socket("scripted") };
        // The first message is the application's.
        config.handshake.ready_to_receive.clear();
        change(&mut config);
        let (engine, wire) = engine::scripted();
        let device = Device::simulated(config, Box::new(engine)).unwrap();
        let channel = EventChannel::new(&device).unwrap();
        let domain = device.allocate_protection_domain().unwrap();
        let completions = device.create_completion_queue(256, None).unwrap();
        let everything = AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_READ | AccessFlags::REMOTE_WRITE;
        let region = domain.allocate(1 << 20, everything).unwrap();
        let now = Mutex::new(Instant::ZERO);
        Self { device, wire, channel, domain, completions, region, now }
    }

    /// Enough passes for everything that is under way to come to rest. Time stands still.
    pub(crate) fn drive(&self) {
        for _ in 0..8 {
            self.device.drive(*self.now.lock().unwrap());
        }
    }

    /// Lets time pass.
    pub(crate) fn wait(&self, duration: Duration) {
        let mut now = self.now.lock().unwrap();
        *now = *now + duration;
        drop(now);
        self.drive();
    }

    pub(crate) fn queue_pair(&self) -> QueuePair {
        let attributes = QueuePairAttributes {
            send_completion_queue: self.completions.clone(),
            receive_completion_queue: self.completions.clone(),
            shared_receive_queue: None,
            max_send: 64,
            max_receive: 64,
            signal_all: true,
        };
        self.device.create_queue_pair(&self.domain, &attributes).unwrap()
    }

    /// All events that there are.
    pub(crate) fn events(&self) -> Vec<CmEvent> {
        std::iter::from_fn(|| self.channel.try_get()).collect()
    }

    /// All completions that there are.
    pub(crate) fn completed(&self) -> Vec<WorkCompletion> {
        std::iter::from_fn(|| self.completions.poll_one()).collect()
    }

    pub(crate) fn payload(&self, offset: usize, length: usize) -> Payload {
        Payload::Segments(SegmentList::new(&[self.region.segment(offset, length as u32)]).unwrap())
    }

    /// Connects to a peer, as the initiator.
    pub(crate) fn connect(&self) -> (CmId, Peer) {
        let id = CmId::new(&self.channel);
        id.resolve_address("192.0.2.2:4420".parse().unwrap());
        id.set_queue_pair(self.queue_pair());
        let peer = self.connect_as(&id);
        (id, peer)
    }

    /// As [`Self::connect`], with an id that has everything it needs.
    pub(crate) fn connect_as(&self, id: &CmId) -> Peer {
        id.connect(&ConnectParameters::default()).unwrap();
        let stream = self.wire.newest();
        self.drive();
        let peer = Peer::accept(&self.wire, stream);
        self.wire.acknowledge(stream);
        self.drive();
        let events = self.events();
        assert!(matches!(events.last().unwrap().kind, CmEventKind::Established { .. }), "{events:?}");
        peer
    }

    /// Has a peer connect, as the initiator, and accepts it. The last is the listener.
    pub(crate) fn accept(&self) -> (CmId, Peer, CmId) {
        let (id, mut peer, listener) = self.request();
        id.set_queue_pair(self.queue_pair());
        id.accept(&ConnectParameters::default()).unwrap();
        self.drive();
        peer.finish_request();
        self.wire.acknowledge(peer.stream());
        self.drive();
        assert!(matches!(self.events().pop().unwrap().kind, CmEventKind::Established { .. }));
        (id, peer, listener)
    }

    /// Has a peer connect, as the initiator: its id is to be accepted. The last is the listener.
    pub(crate) fn request(&self) -> (CmId, Peer, CmId) {
        let listener = CmId::new(&self.channel);
        listener.listen("192.0.2.1:4420".parse().unwrap(), Some(4)).unwrap();
        let peer = Peer::request(&self.wire, &[]);
        self.drive();
        (self.events().pop().expect("a connect request").id, peer, listener)
    }
}

pub(crate) fn request(id: u64, operation: Operation) -> SendRequest {
    SendRequest { id, operation, signaled: true, solicited: false, fence: false }
}

pub(crate) fn send(id: u64, payload: Payload) -> SendRequest {
    request(id, Operation::Send { payload, invalidate: None })
}

pub(crate) fn list(segments: &[Segment]) -> SegmentList {
    SegmentList::new(segments).unwrap()
}

#[test]
fn events_can_be_waited_for_for_ever() {
    let host = Host::new(Threads::C2);
    let id = CmId::new(&host.channel);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| host.channel.get(Duration::MAX).map(|event| event.kind));
        id.resolve_address("192.0.2.2:4420".parse().unwrap());
        assert_eq!(waiting.join().unwrap(), Some(CmEventKind::AddressResolved));
    });
}
