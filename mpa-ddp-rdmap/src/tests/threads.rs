//! The two halves of each end on threads of their own: what they tell each other travels through channels.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::testing::*;
use crate::*;

const REQUESTS: u64 = 400;
const SLOT: u64 = 3000;
const PATIENCE: Duration = Duration::from_secs(60);
const NAP: Duration = Duration::from_millis(1);

/// What a half sees of its owner.
struct Owner {
    stag: Stag,
    receives: u64,
    to_outbound: Sender<ToOutbound>,
    to_inbound: Sender<ToInbound>,
    completed: Sender<Completion>,
}

impl Upper for Owner {
    /// Message `n` of the peer goes to slot `n` of the second half of the region.
    fn take_receive(&mut self) -> Option<ReceiveRequest> {
        let id = self.receives;
        self.receives += 1;
        Some(ReceiveRequest { id, segments: one(self.stag, (REQUESTS + id) * SLOT, SLOT as u32) })
    }

    fn complete_receive(&mut self, completion: Completion) {
        self.completed.send(completion).unwrap();
    }

    fn complete_send(&mut self, completion: Completion) {
        self.completed.send(completion).unwrap();
    }

    // The peer half ends first at the end of the test; what is told then does not matter.
    fn tell_outbound(&mut self, message: ToOutbound) {
        let _ = self.to_outbound.send(message);
    }

    fn tell_inbound(&mut self, message: ToInbound) {
        let _ = self.to_inbound.send(message);
    }
}

fn receiving_half(
    mut inbound: Inbound,
    memory: Arc<TestMemory>,
    mut owner: Owner,
    stream: Receiver<Vec<u8>>,
    messages: Receiver<ToInbound>,
) {
    let mut pending = Vec::new();
    // The stream ends when the peer's sending half does.
    while let Ok(bytes) = stream.recv() {
        pending.extend(bytes);
        // What the other half told before the request left is here before the answer is.
        messages.try_iter().for_each(|message| inbound.handle(message));
        let parts: Vec<&[u8]> = pending.chunks(777).collect();
        let consumed = inbound.handle_bytes(&parts, &*memory, &mut owner).expect("the peer does nothing wrong");
        pending.drain(..consumed);
    }
    inbound.handle_end_of_stream().unwrap();
}

fn sending_half(
    mut outbound: Outbound,
    memory: Arc<TestMemory>,
    mut owner: Owner,
    stream: Sender<Vec<u8>>,
    messages: Receiver<ToOutbound>,
    requests: Vec<SendRequest>,
    unfinished: Arc<AtomicUsize>,
) {
    let mut requests = requests.into_iter().peekable();
    let mut done = false;
    while unfinished.load(Ordering::SeqCst) > 0 {
        while let Some(request) = requests.peek() {
            match outbound.post(request.clone()) {
                Ok(()) => requests.next(),
                Err(PostError::QueueFull { .. }) => break,
                Err(error) => panic!("{error}"),
            };
        }
        while let Some(record) = outbound.next(MAX_FPDU, &*memory, &mut owner) {
            let mut bytes = vec![0; record.length as usize];
            outbound.write(record.start, &mut bytes, &*memory);
            stream.send(bytes).unwrap();
            outbound.handle_acknowledged(record.end(), &*memory, &mut owner);
        }
        if !done && requests.peek().is_none() && outbound.is_idle() {
            done = true;
            unfinished.fetch_sub(1, Ordering::SeqCst);
        }
        match messages.recv_timeout(NAP) {
            Ok(message) => outbound.handle(message, &*memory, &mut owner),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("the receiving half ended too early"),
        }
    }
}

/// Request `id`: what it reads comes from slot `id` of the first half of either region, what it writes goes to the same slot of the
/// peer's, or, for a Read, to the same slot of the second region.
fn operation(id: u64, source: Stag, sink: Stag, theirs: Stag, counter: Stag) -> Operation {
    let length = (id * 37 % (SLOT + 1)) as u32;
    let payload = Payload::Segments(one(source, id * SLOT, length));
    match id % 5 {
        0 => Operation::Send { payload, invalidate: None },
        1 => Operation::Write { payload, target: address(sink, id * SLOT), immediate: None },
        2 => Operation::Read {
            sinks: one(sink, id * SLOT, length),
            source: address(theirs, id * SLOT),
            invalidate: None,
        },
        3 => Operation::Atomic {
            sink: segment(sink, id * SLOT, 8),
            target: address(counter, 0),
            operation: AtomicOperation::FetchAdd { add: 1, mask: 0 },
        },
        _ => Operation::Write { payload, target: address(sink, id * SLOT), immediate: Some(id.to_be_bytes()) },
    }
}

#[test]
fn both_halves_of_both_ends_run_on_threads_of_their_own() {
    let unfinished = Arc::new(AtomicUsize::new(2));
    let data: Vec<u8> = (0..REQUESTS * SLOT).map(|index| (index * 13 % 251) as u8).collect();
    let limits = Limits { send_queue_depth: 32, ..Limits::default() };
    let (to_responder, from_initiator) = channel();
    let (to_initiator, from_responder) = channel();
    let streams = Mutex::new(vec![(to_responder, from_responder), (to_initiator, from_initiator)]);
    let mut ends = Vec::new();
    for role in [Role::Initiator, Role::Responder] {
        let (stream_out, stream_in) = streams.lock().unwrap().remove(0);
        let memory = Arc::new(TestMemory::new());
        let source = memory.register(0, (REQUESTS * SLOT) as usize);
        let sink = memory.register(0, (2 * REQUESTS * SLOT) as usize);
        let counter = memory.register(0, 8);
        memory.write(source, 0, &data);
        // Both ends register in the same order, so their tags are the same.
        let requests = (0..REQUESTS).map(|id| request(id, operation(id, source, sink, source, counter))).collect();
        let (to_outbound, outbound_messages) = channel();
        let (to_inbound, inbound_messages) = channel();
        let (completed, receive_completions) = channel();
        let (sent, send_completions) = channel();
        let owner = |completed| Owner {
            stag: sink,
            receives: 0,
            to_outbound: to_outbound.clone(),
            to_inbound: to_inbound.clone(),
            completed,
        };
        let (receiver_owner, sender_owner) = (owner(completed), owner(sent));
        let inbound = Inbound::new(&agreed(role), &limits);
        let mut outbound = Outbound::new(&agreed(role), &limits, START, Retention::None);
        outbound.set_segment_size(1460);
        let threads = [
            thread::spawn({
                let memory = memory.clone();
                move || receiving_half(inbound, memory, receiver_owner, stream_in, inbound_messages)
            }),
            thread::spawn({
                let (memory, unfinished) = (memory.clone(), unfinished.clone());
                move || {
                    sending_half(outbound, memory, sender_owner, stream_out, outbound_messages, requests, unfinished);
                }
            }),
        ];
        ends.push((memory, sink, counter, send_completions, receive_completions, threads));
    }

    for (memory, sink, counter, sent, received, threads) in ends {
        check_completions(&memory, sink, &data, &sent, &received);
        for thread in threads {
            thread.join().unwrap();
        }
        check_memory(&memory, sink, counter, &data);
    }
}

fn check_completions(
    memory: &TestMemory,
    sink: Stag,
    data: &[u8],
    sent: &Receiver<Completion>,
    received: &Receiver<Completion>,
) {
    for id in 0..REQUESTS {
        let completion = sent.recv_timeout(PATIENCE).expect("no queue is stuck");
        assert_eq!((completion.id, completion.status), (id, Status::Success));
    }
    let messages: Vec<u64> = (0..REQUESTS).filter(|id| matches!(id % 5, 0 | 4)).collect();
    for (index, &id) in messages.iter().enumerate() {
        let completion = received.recv_timeout(PATIENCE).expect("no message is lost");
        assert_eq!((completion.id, completion.status), (index as u64, Status::Success));
        assert_eq!(completion.immediate, (id % 5 == 4).then_some(id.to_be_bytes()));
        assert_eq!(u64::from(completion.length), id * 37 % (SLOT + 1));
        if id % 5 == 0 {
            let length = completion.length as usize;
            let landed = memory.read(sink, (REQUESTS + index as u64) * SLOT, length);
            assert_eq!(landed, data[(id * SLOT) as usize..][..length], "message {id}");
        }
    }
}

fn check_memory(memory: &TestMemory, sink: Stag, counter: Stag, data: &[u8]) {
    for id in (0..REQUESTS).filter(|id| matches!(id % 5, 1 | 2 | 4)) {
        let length = (id * 37 % (SLOT + 1)) as usize;
        let landed = memory.read(sink, id * SLOT, length);
        assert_eq!(landed, data[(id * SLOT) as usize..][..length], "request {id}");
    }
    for (count, id) in (0..REQUESTS).filter(|id| id % 5 == 3).enumerate() {
        assert_eq!(memory.read(sink, id * SLOT, 8), (count as u64).to_ne_bytes());
    }
    assert_eq!(memory.read(counter, 0, 8), (REQUESTS / 5).to_ne_bytes());
    assert_eq!(memory.holds(), 0);
}
