//! Queue pairs: where requests are posted, and what of them the host shares.

mod posted;
mod shared;

use std::sync::Arc;

use softrdma_mpa_ddp_rdmap::{MAX_INLINE, Operation, Payload, Segment, SegmentList, SendRequest, Stag};

pub(crate) use posted::Posted;
pub(crate) use shared::{QueuePairSettings, QueuePairShared};

use crate::completion_queue::CompletionQueue;
use crate::core::Command;
use crate::device::Device;
use crate::protection_domain::ProtectionDomain;
use crate::receive_queue::SharedReceiveQueue;

/// Most requests that [`QueuePair::post_send_many`] hands over at a time.
const BATCH: usize = 32;

/// What a queue pair is made from.
#[derive(Clone, Debug)]
pub struct QueuePairAttributes {
    /// Where send requests complete.
    pub send_completion_queue: CompletionQueue,
    /// Where receive requests complete.
    pub receive_completion_queue: CompletionQueue,
    /// Takes receives from here instead of a queue of its own.
    pub shared_receive_queue: Option<SharedReceiveQueue>,
    /// Most send requests posted and not completed.
    pub max_send: u32,
    /// Most receives posted and not completed (without a shared receive queue).
    pub max_receive: u32,
    /// Every send request reports success, whatever its flag says.
    pub signal_all: bool,
}

/// The states of a reliable connected queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum QueuePairState {
    /// Made; takes nothing.
    Reset = 0,
    /// Receives can be posted.
    Init = 1,
    /// A connection is being made.
    ReadyToReceive = 2,
    /// Connected: everything can be posted.
    ReadyToSend = 3,
    /// The connection is over: what is posted completes as flushed.
    Error = 4,
}

/// Why a state cannot be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("queue pair {number} cannot go from {from:?} to {to:?}; RTR and RTS are reached by connecting it")]
pub struct StateError {
    /// The queue pair.
    pub number: u32,
    /// Where it stands.
    pub from: QueuePairState,
    /// Where it was to go.
    pub to: QueuePairState,
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// As many requests as the queue holds are outstanding.
    #[error("the queue holds {depth} requests and all are outstanding; poll the completion queue, or make it deeper")]
    Full {
        /// Its depth.
        depth: u32,
    },
    /// Not in this state.
    #[error("queue pair {number} is in {state:?} and takes no such request")]
    State {
        /// The queue pair.
        number: u32,
        /// Its state.
        state: QueuePairState,
    },
    /// More than a message may hold.
    #[error("{length} bytes exceed the device's largest message of {limit} (`limits.max_message_bytes`)")]
    TooLong {
        /// Bytes of the request.
        length: u64,
        /// The device's limit.
        limit: u32,
    },
    /// More than travels inline.
    #[error("{length} bytes exceed the {MAX_INLINE} that travel inline; register the memory instead")]
    InlineTooLong {
        /// Bytes of the request.
        length: u64,
    },
    /// An atomic needs a sink of eight bytes.
    #[error("the sink of an atomic is {length} bytes long; it must be 8")]
    AtomicSink {
        /// Bytes of the sink.
        length: u32,
    },
    /// The connection was made without outstanding Reads.
    #[error("the connection allows no outstanding Reads (ORD 0); ask for some when connecting")]
    NoReads,
    /// Too many pieces of memory.
    #[error("{count} segments exceed the {limit} of one request")]
    TooManySegments {
        /// How many were given.
        count: usize,
        /// Most that a request takes.
        limit: usize,
    },
    /// The queue pair has a shared receive queue.
    #[error("queue pair {number} takes its receives from a shared receive queue; post there")]
    SharedReceiveQueue {
        /// The queue pair.
        number: u32,
    },
}

/// A reliable connected queue pair. Clones name the same one; dropping the last resets its connection, unless that was
/// disconnected: then what was posted before still leaves.
#[derive(Clone, Debug)]
pub struct QueuePair(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<QueuePairShared>,
    device: Device,
    domain: ProtectionDomain,
    attributes: QueuePairAttributes,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.handle_dropped();
        self.device.command(Command::Fail { queue_pair: self.shared.clone(), reply: None });
        self.device.forget_queue_pair(&self.shared);
    }
}

impl QueuePair {
    pub(crate) fn new(
        device: &Device,
        domain: &ProtectionDomain,
        attributes: &QueuePairAttributes,
        shared: Arc<QueuePairShared>,
    ) -> Self {
        let (device, domain, attributes) = (device.clone(), domain.clone(), attributes.clone());
        Self(Arc::new(Handle { shared, device, domain, attributes }))
    }

    pub(crate) fn is_on(&self, device: &Device) -> bool {
        self.0.device.is(device)
    }

    pub(crate) fn shared(&self) -> &Arc<QueuePairShared> {
        &self.0.shared
    }

    /// 24 bits that no other queue pair of the device has.
    pub fn number(&self) -> u32 {
        self.0.shared.number()
    }

    /// Where it stands.
    pub fn state(&self) -> QueuePairState {
        self.0.shared.state()
    }

    /// What it was made from.
    pub fn attributes(&self) -> &QueuePairAttributes {
        &self.0.attributes
    }

    /// Whose memory it reaches.
    pub fn protection_domain(&self) -> &ProtectionDomain {
        &self.0.domain
    }

    /// RESET to INIT: from now on receives can be posted. Of one that is in INIT already, nothing.
    pub fn modify_to_init(&self) -> Result<(), StateError> {
        self.0.shared.enter_init()
    }

    /// To ERROR: the connection is reset, every outstanding request completes as flushed. All of them are in their completion
    /// queues, and nothing refers to their memory any more, when this returns.
    pub fn modify_to_error(&self) {
        let queue_pair = self.0.shared.clone();
        let _ = self.0.device.ask(|reply| Command::Fail { queue_pair, reply: Some(reply) });
    }

    /// ERROR to RESET, for another connection. What was posted until now is flushed, and nothing refers to its memory any more.
    pub fn modify_to_reset(&self) -> Result<(), StateError> {
        self.modify_to_error();
        let queue_pair = self.0.shared.clone();
        let from = queue_pair.state();
        let gone = StateError { number: self.number(), from, to: QueuePairState::Reset };
        self.0.device.ask(|reply| Command::Reset { queue_pair, reply }).unwrap_or(Err(gone))
    }

    /// Posts a request. It completes in order with the others.
    pub fn post_send(&self, mut request: SendRequest) -> Result<(), PostError> {
        self.check(&request)?;
        self.0.shared.admit_send(&mut request)?;
        self.0.device.post(&self.0.shared, Posted::one(&mut request));
        Ok(())
    }

    /// Posts several requests, up to 32 with one doorbell and at most as many as the queue holds; tells how many were taken before the
    /// first that was not, and why.
    pub fn post_send_many(&self, requests: impl IntoIterator<Item = SendRequest>) -> Result<usize, (usize, PostError)> {
        let mut requests = requests.into_iter();
        let most = self.0.shared.max_send() as usize;
        let mut count = 0;
        loop {
            let mut batch = Batch { queue_pair: self, requests: [const { None }; BATCH], filled: 0 };
            let result = batch.fill(&mut requests, most - count);
            count += batch.filled;
            result.map_err(|error| (count, error))?;
            if batch.filled < BATCH {
                return Ok(count);
            }
        }
    }

    /// Posts a receive: the next message goes to `segments`.
    pub fn post_receive(&self, id: u64, segments: &[Segment]) -> Result<(), PostError> {
        let list = SegmentList::new(segments)
            .ok_or(PostError::TooManySegments { count: segments.len(), limit: softrdma_mpa_ddp_rdmap::MAX_SEGMENTS })?;
        self.0.shared.push_receive(id, list)?;
        if self.state() == QueuePairState::Error {
            let rings = self.0.shared.ring();
            self.0.device.ring_doorbell(&self.0.shared, rings);
        } else {
            self.0.device.ring_for_receive();
        }
        Ok(())
    }

    fn check(&self, request: &SendRequest) -> Result<(), PostError> {
        let limit = self.0.device.config().limits.max_message_bytes;
        let length = match &request.operation {
            Operation::Send { payload, .. } | Operation::Write { payload, .. } => {
                if let Payload::Inline(bytes) = payload
                    && bytes.len() > MAX_INLINE
                {
                    return Err(PostError::InlineTooLong { length: bytes.len() as u64 });
                }
                payload.length()
            }
            Operation::Read { sinks, .. } => sinks.length(),
            Operation::Atomic { sink, .. } if sink.length != 8 => {
                return Err(PostError::AtomicSink { length: sink.length });
            }
            Operation::Atomic { .. } | Operation::Immediate { .. } | Operation::LocalInvalidate { .. } => 0,
        };
        if length > u64::from(limit) {
            return Err(PostError::TooLong { length, limit });
        }
        if self.0.shared.ord() == Some(0)
            && matches!(request.operation, Operation::Read { .. } | Operation::Atomic { .. })
        {
            return Err(PostError::NoReads);
        }
        Ok(())
    }
}

impl PartialEq for QueuePair {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for QueuePair {}

/// Makes a list of segments for a request; more than fit is the caller's mistake, reported when posting.
pub fn segments(segments: &[Segment]) -> Result<SegmentList, PostError> {
    SegmentList::new(segments)
        .ok_or(PostError::TooManySegments { count: segments.len(), limit: softrdma_mpa_ddp_rdmap::MAX_SEGMENTS })
}

/// A tag that a peer may use.
pub type RemoteKey = Stag;

/// Requests on their way, gathered because the iterator that they come from may do anything: nothing that is the device's is held
/// meanwhile. What was admitted leaves when this is dropped, also if the iterator panics.
struct Batch<'a> {
    queue_pair: &'a QueuePair,
    requests: [Option<SendRequest>; BATCH],
    filled: usize,
}

impl Batch<'_> {
    /// Admits requests until it is full; why one was not. There may be no more than `room` of them: those that left with earlier
    /// batches may be complete, in error at once, and the application cannot poll before the call is over.
    fn fill(&mut self, requests: &mut impl Iterator<Item = SendRequest>, room: usize) -> Result<(), PostError> {
        let shared = &self.queue_pair.0.shared;
        // The places first: a request is not taken from the iterator if there is none for it.
        for (place, mut request) in self.requests.iter_mut().zip(requests) {
            if self.filled == room {
                return Err(PostError::Full { depth: shared.max_send() });
            }
            self.queue_pair.check(&request)?;
            shared.admit_send(&mut request)?;
            *place = Some(request);
            self.filled += 1;
        }
        Ok(())
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.filled > 0 {
            let inner = &self.queue_pair.0;
            inner.device.post(&inner.shared, Posted::several(&mut self.requests[..self.filled]));
        }
    }
}
