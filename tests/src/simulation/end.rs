//! One end of a simulated connection: what it posts, what it expects, and its shadow memory.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use softrdma_verbs::{
    AccessFlags, AtomicOperation, CmId, CompletionQueue, Device, MemoryRegion, Opcode, Operation, Payload, QueuePair,
    QueuePairAttributes, RemoteAddress, Segment, SegmentList, SendRequest, Status, TaggedOffset, WorkCompletion,
};

use super::plan::Plan;

/// Bytes that never change after the start: sources of Sends and Writes, and of the peer's Reads.
const STATIC: usize = 64 << 10;
/// Counters of the peer's atomics, behind the static bytes.
const COUNTERS: usize = 256;
/// Where the zone begins from which every request gets memory of its own.
const ZONE: usize = STATIC + COUNTERS;

/// One end.
pub(super) struct End {
    id: Option<CmId>,
    /// Decides what is posted, and nothing of when: whatever carries it, it is the same.
    choices: StdRng,
    /// What each request brought about: whose memory it is in, and where.
    outcomes: Vec<Outcome>,
    /// What each receive got.
    received: Vec<Message>,
    queue_pair: QueuePair,
    send_completions: CompletionQueue,
    receive_completions: CompletionQueue,
    region: MemoryRegion,
    /// What the region has to hold when all is done.
    shadow: Vec<u8>,
    /// First free byte of the zone.
    free: usize,
    peer: Peer,
    posted: u32,
    /// Requests in order, completed ones gone.
    expected: VecDeque<Expected>,
    /// Receives in order.
    receives: VecDeque<Receive>,
    receives_posted: u32,
    /// Messages that the peer has posted and we have not received.
    incoming: VecDeque<Message>,
    messages_from_peer: u32,
}

#[derive(Clone, Copy, Default)]
struct Peer {
    key: softrdma_verbs::Stag,
    base: u64,
    counter: u64,
}

struct Expected {
    id: u64,
    signaled: bool,
    opcode: Opcode,
    length: u32,
    /// A Read's or atomic's sink, and what it holds then.
    sink: Option<(usize, Vec<u8>)>,
}

struct Receive {
    id: u64,
    offset: usize,
    capacity: usize,
}

/// What a message brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Bytes.
    Send(Vec<u8>),
    /// The immediate data of a Write.
    Immediate([u8; 8]),
}

/// Where the outcome of a request is.
#[derive(Clone, Copy)]
struct Outcome {
    opcode: Opcode,
    /// In the memory of the peer, or our own.
    is_at_peer: bool,
    offset: usize,
    length: usize,
}

/// What an application saw of a run, whenever that was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// What each request was, and the bytes that it brought about, in order.
    pub requests: Vec<(Opcode, Vec<u8>)>,
    /// What was received, in order.
    pub received: Vec<Message>,
}

impl std::fmt::Debug for End {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let next = self.expected.front().map(|next| (next.id, next.opcode));
        write!(
            formatter,
            "end {:?}: posted {}, expects {} (next {next:?}), receives {}, incoming {}",
            self.queue_pair.state(),
            self.posted,
            self.expected.len(),
            self.receives.len(),
            self.incoming.len()
        )
    }
}

impl End {
    pub(super) fn new(device: &Device, plan: &Plan, rng: &mut StdRng) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let domain = device.allocate_protection_domain().map_err(|error| text(&error))?;
        // Room for everything that both ends can post, each at its longest.
        let length = ZONE + (plan.longest + 8) * (plan.requests as usize * 4 + 64);
        let access = AccessFlags::LOCAL_WRITE
            | AccessFlags::REMOTE_READ
            | AccessFlags::REMOTE_WRITE
            | AccessFlags::REMOTE_ATOMIC;
        let region = domain.allocate(length, access).map_err(|error| text(&error))?;
        let mut shadow = vec![0; length];
        rng.fill(&mut shadow[..STATIC]);
        let choices = StdRng::seed_from_u64(rng.random());
        region.write(0, &shadow[..STATIC]).map_err(|error| text(&error))?;
        let queue = || device.create_completion_queue(1024, None).map_err(|error| text(&error));
        let (send_completions, receive_completions) = (queue()?, queue()?);
        let queue_pair = device
            .create_queue_pair(
                &domain,
                &QueuePairAttributes {
                    send_completion_queue: send_completions.clone(),
                    receive_completion_queue: receive_completions.clone(),
                    shared_receive_queue: None,
                    max_send: plan.depth,
                    max_receive: plan.depth,
                    signal_all: false,
                },
            )
            .map_err(|error| text(&error))?;
        Ok(Self {
            id: None,
            choices,
            outcomes: Vec::new(),
            received: Vec::new(),
            queue_pair,
            send_completions,
            receive_completions,
            region,
            shadow,
            free: ZONE,
            peer: Peer::default(),
            posted: 0,
            expected: VecDeque::new(),
            receives: VecDeque::new(),
            receives_posted: 0,
            incoming: VecDeque::new(),
            messages_from_peer: 0,
        })
    }

    pub(super) fn queue_pair(&self) -> QueuePair {
        self.queue_pair.clone()
    }

    pub(super) fn with_id(mut self, id: CmId) -> Self {
        self.id = Some(id);
        self
    }

    pub(super) fn learn_peer(&mut self, peer: &End) {
        self.peer = Peer { key: peer.region.rkey(), base: peer.region.address(), counter: 0 };
    }

    pub(super) fn posted(&self) -> u64 {
        self.posted.into()
    }

    pub(super) fn disconnect(&self) {
        if let Some(id) = &self.id {
            id.disconnect();
        }
    }

    pub(super) fn is_done(&self, plan: &Plan) -> bool {
        self.posted == plan.requests && self.expected.is_empty() && self.incoming.is_empty()
    }

    fn take(&mut self, length: usize) -> usize {
        let offset = self.free;
        // A gap of a few bytes behind each piece: a byte too many shows.
        self.free += length + 3;
        assert!(self.free <= self.shadow.len(), "the zone is too small for the plan");
        offset
    }

    fn remote(&self, offset: usize) -> RemoteAddress {
        RemoteAddress { stag: self.peer.key, offset: TaggedOffset(self.peer.base + offset as u64) }
    }

    /// Cuts `length` bytes at `offset` into a few segments.
    fn pieces(&self, offset: usize, length: usize, rng: &mut StdRng) -> SegmentList {
        let mut segments: Vec<Segment> = Vec::new();
        let mut done = 0;
        for _ in 0..rng.random_range(0..3) {
            let piece = rng.random_range(0..=length - done);
            segments.push(self.region.segment(offset + done, piece as u32));
            done += piece;
        }
        segments.push(self.region.segment(offset + done, (length - done) as u32));
        SegmentList::new(&segments).expect("at most three segments")
    }

    /// Posts receives and requests, as many as chance and the queues allow.
    pub(super) fn post(&mut self, peer: &mut End, plan: &Plan, rng: &mut StdRng) -> Result<(), String> {
        while self.receives.len() < plan.depth as usize
            && self.receives_posted < plan.requests + plan.depth
            && rng.random_bool(plan.receive_eagerness)
        {
            self.post_receive(plan)?;
        }
        while self.posted < plan.requests && self.expected.len() < plan.depth as usize && rng.random_bool(0.6) {
            let mut choices = self.choices.clone();
            self.post_request(peer, plan, &mut choices)?;
            self.choices = choices;
        }
        Ok(())
    }

    fn post_receive(&mut self, plan: &Plan) -> Result<(), String> {
        let capacity = plan.longest;
        let offset = self.take(capacity);
        let id = u64::from(self.receives_posted);
        self.queue_pair
            .post_receive(id, &[self.region.segment(offset, capacity as u32)])
            .map_err(|error| format!("posting a receive: {error}"))?;
        self.receives.push_back(Receive { id, offset, capacity });
        self.receives_posted += 1;
        Ok(())
    }

    fn post_request(&mut self, peer: &mut End, plan: &Plan, rng: &mut StdRng) -> Result<(), String> {
        let id = u64::from(self.posted);
        // The last one is signaled, or nobody would know when all are done.
        // So is one before the queue fills up with unsignaled ones, whose ends nobody would see.
        let all_silent = !self.expected.iter().any(|expected| expected.signaled);
        let signaled = rng.random_bool(0.7)
            || self.posted + 1 == plan.requests
            || (all_silent && self.expected.len() + 1 >= plan.depth as usize);
        // The last one is a Read: its answer comes when all Writes before it are placed, so that closing loses nothing.
        let kind = if self.posted + 1 == plan.requests { 4 } else { rng.random_range(0..6) };
        let (operation, opcode, length, sink) = self.operation(kind, peer, plan, rng);
        let request =
            SendRequest { id, operation, signaled, solicited: rng.random_bool(0.2), fence: rng.random_bool(0.1) };
        self.queue_pair.post_send(request).map_err(|error| format!("posting request {id}: {error}"))?;
        self.posted += 1;
        self.expected.push_back(Expected { id, signaled, opcode, length: length as u32, sink });
        Ok(())
    }

    #[allow(clippy::type_complexity)]
    fn operation(
        &mut self,
        kind: u32,
        peer: &mut End,
        plan: &Plan,
        rng: &mut StdRng,
    ) -> (Operation, Opcode, usize, Option<(usize, Vec<u8>)>) {
        let length = if rng.random_bool(0.1) { 0 } else { rng.random_range(0..=plan.longest) };
        let source = rng.random_range(0..STATIC - plan.longest);
        match kind {
            0 | 1 => {
                let bytes = self.shadow[source..source + length].to_vec();
                let payload = self.payload(source, length, rng);
                self.outcomes.push(Outcome { opcode: Opcode::Send, is_at_peer: false, offset: 0, length: 0 });
                peer.incoming.push_back(Message::Send(bytes));
                peer.messages_from_peer += 1;
                (Operation::Send { payload, invalidate: None }, Opcode::Send, length, None)
            }
            2 | 3 => {
                let payload = self.payload(source, length, rng);
                let target = peer.take(length);
                self.outcomes.push(Outcome { opcode: Opcode::Write, is_at_peer: true, offset: target, length });
                let bytes = self.shadow[source..source + length].to_vec();
                peer.shadow[target..target + length].copy_from_slice(&bytes);
                let immediate = rng.random_bool(0.3).then(|| rng.random::<u64>().to_be_bytes());
                if let Some(data) = immediate {
                    peer.incoming.push_back(Message::Immediate(data));
                    peer.messages_from_peer += 1;
                }
                let target = self.remote(target);
                (Operation::Write { payload, target, immediate }, Opcode::Write, length, None)
            }
            4 => {
                let sink = self.take(length);
                self.outcomes.push(Outcome { opcode: Opcode::Read, is_at_peer: false, offset: sink, length });
                let bytes = peer.shadow[source..source + length].to_vec();
                self.shadow[sink..sink + length].copy_from_slice(&bytes);
                let sinks = self.pieces(sink, length, rng);
                let source = self.remote(source);
                (Operation::Read { sinks, source, invalidate: None }, Opcode::Read, length, Some((sink, bytes)))
            }
            _ => self.atomic(peer, rng),
        }
    }

    fn atomic(&mut self, peer: &mut End, rng: &mut StdRng) -> (Operation, Opcode, usize, Option<(usize, Vec<u8>)>) {
        self.free = self.free.next_multiple_of(8);
        let sink = self.take(8);
        let original = self.peer.counter;
        let (operation, opcode) = if rng.random_bool(0.5) {
            (AtomicOperation::FetchAdd { add: rng.random_range(1..1000), mask: 0 }, Opcode::FetchAdd)
        } else {
            let compare = if rng.random_bool(0.5) { original } else { original.wrapping_add(1) };
            let full = u64::MAX;
            let swap = rng.random();
            (AtomicOperation::CompareSwap { compare, compare_mask: full, swap, swap_mask: full }, Opcode::CompareSwap)
        };
        self.outcomes.push(Outcome { opcode, is_at_peer: false, offset: sink, length: 8 });
        self.peer.counter = operation.apply(original);
        peer.shadow[STATIC..STATIC + 8].copy_from_slice(&self.peer.counter.to_ne_bytes());
        let bytes = original.to_ne_bytes().to_vec();
        self.shadow[sink..sink + 8].copy_from_slice(&bytes);
        let (segment, target) = (self.region.segment(sink, 8), self.remote(STATIC));
        (Operation::Atomic { sink: segment, target, operation }, opcode, 8, Some((sink, bytes)))
    }

    fn payload(&self, source: usize, length: usize, rng: &mut StdRng) -> Payload {
        if length <= 64 && rng.random_bool(0.3) {
            return Payload::Inline(self.shadow[source..source + length].into());
        }
        Payload::Segments(self.pieces(source, length, rng))
    }

    /// Takes completions and checks each against what is expected.
    pub(super) fn poll(&mut self, _peer: &End) -> Result<(), String> {
        let mut completions = [WorkCompletion::default(); 16];
        let count = self.send_completions.poll(&mut completions);
        for completion in &completions[..count] {
            self.check_send(completion)?;
        }
        let count = self.receive_completions.poll(&mut completions);
        for completion in &completions[..count] {
            self.check_receive(completion)?;
        }
        Ok(())
    }

    fn check_send(&mut self, completion: &WorkCompletion) -> Result<(), String> {
        loop {
            let expected =
                self.expected.pop_front().ok_or_else(|| format!("nothing is outstanding, got {completion:?}"))?;
            if expected.id != completion.id {
                if expected.signaled {
                    return Err(format!("request {} must complete before {completion:?}", expected.id));
                }
                continue;
            }
            if !expected.signaled {
                return Err(format!("unsignaled request completed: {completion:?}"));
            }
            if completion.status != Status::Success
                || completion.opcode != expected.opcode
                || completion.length != expected.length
            {
                return Err(format!(
                    "request {}: expected {:?} of {} bytes, got {completion:?}",
                    expected.id, expected.opcode, expected.length
                ));
            }
            if let Some((offset, bytes)) = expected.sink {
                self.check_bytes(offset, &bytes, "sink of a Read or atomic")?;
            }
            return Ok(());
        }
    }

    fn check_receive(&mut self, completion: &WorkCompletion) -> Result<(), String> {
        let receive = self.receives.pop_front().ok_or_else(|| format!("no receive is posted, got {completion:?}"))?;
        let message = self.incoming.pop_front().ok_or_else(|| format!("no message was sent, got {completion:?}"))?;
        if completion.status != Status::Success || completion.id != receive.id {
            return Err(format!("receive {}: got {completion:?}", receive.id));
        }
        self.received.push(message.clone());
        match message {
            Message::Send(bytes) => {
                if completion.opcode != Opcode::Receive || completion.length as usize != bytes.len() {
                    return Err(format!("expected a Send of {} bytes, got {completion:?}", bytes.len()));
                }
                assert!(bytes.len() <= receive.capacity);
                self.shadow[receive.offset..receive.offset + bytes.len()].copy_from_slice(&bytes);
                self.check_bytes(receive.offset, &bytes, "received Send")
            }
            Message::Immediate(data) => {
                if completion.opcode != Opcode::ReceiveImmediate || completion.immediate != Some(data) {
                    return Err(format!("expected immediate {data:?}, got {completion:?}"));
                }
                Ok(())
            }
        }
    }

    fn check_bytes(&self, offset: usize, expected: &[u8], what: &str) -> Result<(), String> {
        let mut bytes = vec![0; expected.len()];
        self.region.read(offset, &mut bytes).map_err(|error| error.to_string())?;
        match bytes.iter().zip(expected).position(|(left, right)| left != right) {
            None => Ok(()),
            Some(index) => Err(format!(
                "{what}: byte {index} of {} at {offset} is {:?}, has to be {:?}",
                expected.len(),
                &bytes[index..bytes.len().min(index + 8)],
                &expected[index..expected.len().min(index + 8)]
            )),
        }
    }

    /// Every byte of the region is what it has to be, touched or not.
    pub(super) fn check_memory(&self) -> Result<(), String> {
        self.check_bytes(0, &self.shadow, "registered memory")
    }

    /// What the application at this end saw, from the memory that it is in.
    pub(super) fn transcript(&self, peer: &End) -> Result<Transcript, String> {
        let mut requests = Vec::with_capacity(self.outcomes.len());
        for outcome in &self.outcomes {
            let region = if outcome.is_at_peer { &peer.region } else { &self.region };
            let mut bytes = vec![0; outcome.length];
            region.read(outcome.offset, &mut bytes).map_err(|error| error.to_string())?;
            requests.push((outcome.opcode, bytes));
        }
        Ok(Transcript { requests, received: self.received.clone() })
    }

    /// After the end: receives that were left are flushed, once each and in order; nothing else completes.
    pub(super) fn check_flushed(&mut self) -> Result<(), String> {
        let mut completions = [WorkCompletion::default(); 16];
        loop {
            let count = self.receive_completions.poll(&mut completions);
            if count == 0 {
                break;
            }
            for completion in &completions[..count] {
                let receive = self.receives.pop_front().ok_or_else(|| format!("flushed twice? {completion:?}"))?;
                if completion.status != Status::Flushed || completion.id != receive.id {
                    return Err(format!("receive {}: expected to be flushed, got {completion:?}", receive.id));
                }
            }
        }
        if !self.receives.is_empty() {
            return Err(format!("{} receives were never flushed", self.receives.len()));
        }
        match self.send_completions.poll(&mut completions) {
            0 => Ok(()),
            _ => Err(format!("nothing was outstanding, got {:?}", completions[0])),
        }
    }
}
