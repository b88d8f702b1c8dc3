//! Work requests and completions: what the layer above asks for and gets back, and the messages between the halves.

use crate::memory::AtomicOperation;
use crate::terminate::Blamed;
use crate::types::{Stag, TaggedOffset};

/// Most segments of local memory in one request.
pub const MAX_SEGMENTS: usize = 8;

/// Most bytes that travel inline in a request.
pub const MAX_INLINE: usize = 256;

/// A piece of local memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The region.
    pub stag: Stag,
    /// Where it starts (its virtual address).
    pub offset: TaggedOffset,
    /// Bytes.
    pub length: u32,
}

/// At most [`MAX_SEGMENTS`] pieces of local memory, in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct SegmentList {
    count: u8,
    segments: [Segment; MAX_SEGMENTS],
}

impl SegmentList {
    /// A list of `segments`; `None` if there are more than [`MAX_SEGMENTS`].
    pub fn new(segments: &[Segment]) -> Option<Self> {
        let mut list = Self { count: u8::try_from(segments.len()).ok()?, ..Self::default() };
        list.segments.get_mut(..segments.len())?.copy_from_slice(segments);
        Some(list)
    }

    /// The pieces.
    pub fn as_slice(&self) -> &[Segment] {
        &self.segments[..usize::from(self.count)]
    }

    /// Becomes a copy of `other`, of no more places than that uses.
    #[inline]
    fn assign(&mut self, other: &Self) {
        self.count = other.count;
        match other.as_slice() {
            [only] => self.segments[0] = *only,
            several => self.segments[..several.len()].copy_from_slice(several),
        }
    }

    /// Bytes in all pieces.
    pub fn length(&self) -> u64 {
        self.as_slice().iter().map(|segment| u64::from(segment.length)).sum()
    }
}

/// Where the payload of a Send or Write comes from.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Registered memory, read when the bytes leave, and again for a retransmission.
    Segments(SegmentList),
    /// Bytes copied into the request when it was posted, at most [`MAX_INLINE`].
    Inline(Box<[u8]>),
}

impl Payload {
    /// Bytes in it.
    pub fn length(&self) -> u64 {
        match self {
            Self::Segments(list) => list.length(),
            Self::Inline(bytes) => bytes.len() as u64,
        }
    }
}

impl Default for Payload {
    /// No bytes.
    fn default() -> Self {
        Self::Segments(SegmentList::default())
    }
}

impl Payload {
    /// Becomes what `other` is, which may lose its bytes.
    #[inline]
    fn take_over(&mut self, other: &mut Self) {
        match (self, other) {
            (Self::Segments(list), Self::Segments(other)) => list.assign(other),
            (payload, other) => *payload = std::mem::take(other),
        }
    }
}

/// Memory of the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteAddress {
    /// The peer's tag.
    pub stag: Stag,
    /// The peer's offset.
    pub offset: TaggedOffset,
}

/// What a send request does.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Send; with `invalidate` the peer's region of that tag is invalidated on arrival.
    Send {
        /// The message.
        payload: Payload,
        /// Tag of the peer to invalidate.
        invalidate: Option<Stag>,
    },
    /// RDMA Write.
    Write {
        /// The bytes.
        payload: Payload,
        /// Where they go.
        target: RemoteAddress,
        /// Eight bytes that complete a receive of the peer once the data is placed (RFC 7306 Immediate Data).
        immediate: Option<[u8; 8]>,
    },
    /// Immediate Data alone.
    Immediate {
        /// The data.
        data: [u8; 8],
    },
    /// RDMA Read. Several sinks become several Read Requests, one completion.
    Read {
        /// Where the bytes go.
        sinks: SegmentList,
        /// Where they come from.
        source: RemoteAddress,
        /// Tag of ours to invalidate when the Read is done (read with invalidate).
        invalidate: Option<Stag>,
    },
    /// FetchAdd or CmpSwap; the original value goes to `sink` in the host's byte order.
    Atomic {
        /// Eight bytes of local memory.
        sink: Segment,
        /// Eight bytes of the peer.
        target: RemoteAddress,
        /// What to do there.
        operation: AtomicOperation,
    },
    /// Invalidates a region of ours, in order with the other requests.
    LocalInvalidate {
        /// Its tag.
        stag: Stag,
    },
}

/// A request for the send queue.
#[derive(Clone, Debug)]
pub struct SendRequest {
    /// The caller's name for it, given back in the completion.
    pub id: u64,
    /// What to do.
    pub operation: Operation,
    /// Whether success is reported (failure always is).
    pub signaled: bool,
    /// The peer's completion wakes who waits for solicited ones only.
    pub solicited: bool,
    /// Starts only when all earlier Reads and atomics are done.
    pub fence: bool,
}

impl Default for SendRequest {
    /// Immediate Data of zeros.
    fn default() -> Self {
        let operation = Operation::Immediate { data: [0; 8] };
        Self { id: 0, operation, signaled: false, solicited: false, fence: false }
    }
}

impl SendRequest {
    /// Becomes what `other` is, of which nothing is left that counts. A request is large, and mostly one like the last in its place:
    /// what of it says nothing is not copied.
    #[inline]
    pub(crate) fn take_over(&mut self, other: &mut Self) {
        (self.id, self.signaled, self.solicited, self.fence) = (other.id, other.signaled, other.solicited, other.fence);
        match (&mut self.operation, &mut other.operation) {
            (
                Operation::Write { payload, target, immediate },
                Operation::Write { payload: new, target: new_target, immediate: new_immediate },
            ) => {
                payload.take_over(new);
                (*target, *immediate) = (*new_target, *new_immediate);
            }
            (Operation::Send { payload, invalidate }, Operation::Send { payload: new, invalidate: new_invalidate }) => {
                payload.take_over(new);
                *invalidate = *new_invalidate;
            }
            (operation, new) => *operation = std::mem::replace(new, Operation::Immediate { data: [0; 8] }),
        }
    }

    /// Lets go of bytes that travelled inline.
    pub(crate) fn drop_inline(&mut self) {
        if let Operation::Send { payload: Payload::Inline(bytes), .. }
        | Operation::Write { payload: Payload::Inline(bytes), .. } = &mut self.operation
        {
            *bytes = Box::default();
        }
    }
}

/// A buffer for an incoming Send or Immediate Data.
#[derive(Clone, Debug)]
pub struct ReceiveRequest {
    /// The caller's name for it, given back in the completion.
    pub id: u64,
    /// Where the message goes.
    pub segments: SegmentList,
}

/// How a request ended; the names of verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Done.
    Success,
    /// The message was longer than the receive buffer, or a request's length is not allowed.
    LocalLength,
    /// Local memory does not allow the access.
    LocalProtection,
    /// The queue pair went to the error state before the request was done.
    Flushed,
    /// The peer's memory does not allow the access.
    RemoteAccess,
    /// The peer found the request invalid.
    RemoteInvalidRequest,
    /// The peer failed while doing it.
    RemoteOperation,
    /// The local queue pair cannot do it.
    LocalOperation,
    /// Anything fatal that has no name of its own.
    Fatal,
}

/// Kind of a completion; the names of verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// A Send left.
    Send,
    /// A Write left.
    Write,
    /// A Read's data is placed.
    Read,
    /// A compare-and-swap's original value is placed.
    CompareSwap,
    /// A fetch-and-add's original value is placed.
    FetchAdd,
    /// A local invalidation is done.
    LocalInvalidate,
    /// A message arrived.
    Receive,
    /// Immediate data arrived (alone, or behind a Write).
    ReceiveImmediate,
}

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The request's name.
    pub id: u64,
    /// How it ended.
    pub status: Status,
    /// What it was.
    pub opcode: Opcode,
    /// Bytes received or read; bytes sent for Sends and Writes.
    pub length: u32,
    /// Immediate data, for [`Opcode::ReceiveImmediate`].
    pub immediate: Option<[u8; 8]>,
    /// Tag of ours that the peer invalidated with this message.
    pub invalidated: Option<Stag>,
    /// Receives: the peer asked for a solicited event.
    pub solicited: bool,
    /// Sends: success was to be reported. An unsignaled success still arrives here, so that its slot can be given back.
    pub signaled: bool,
}

/// What the halves need from their owner.
pub trait Upper {
    /// Takes the next posted receive of the queue pair or its shared receive queue.
    fn take_receive(&mut self) -> Option<ReceiveRequest>;

    /// A receive ended.
    fn complete_receive(&mut self, completion: Completion);

    /// A send request ended. Called in the order of posting, exactly once each.
    fn complete_send(&mut self, completion: Completion);

    /// Carries a message to the other half, in order. The channel holds as many as [`crate::Limits`] allows to be outstanding,
    /// so it never fills.
    fn tell_outbound(&mut self, message: ToOutbound);

    /// Carries a message to the other half, in order.
    fn tell_inbound(&mut self, message: ToInbound);
}

/// From Inbound to Outbound.
#[derive(Clone, Debug)]
pub enum ToOutbound {
    /// The peer's Read Request, checked; to be answered in order with the other requests of the peer.
    ReadRequest {
        /// The peer's sink.
        sink: RemoteAddress,
        /// Our source.
        source: RemoteAddress,
        /// Bytes.
        length: u32,
    },
    /// The peer's atomic was executed; its result is to be sent.
    AtomicResult {
        /// The request's identifier.
        request: u32,
        /// The value before.
        original: u64,
    },
    /// The oldest Read Request or atomic of ours is answered; the response is placed (or, with an error status, was not).
    Answered {
        /// How it ended.
        status: Status,
    },
    /// The first FPDU of the peer arrived: a responder may send from now on (RFC 5044 §7.1.2).
    PeerReady,
    /// The peer sent a TERMINATE, which blames the request that its headers name.
    PeerTerminated {
        /// How that request ends.
        status: Status,
        /// The request.
        blamed: Blamed,
    },
}

/// From Outbound to Inbound: what answers to expect, and which the peer gets. Sent before the bytes themselves leave, so it
/// must reach Inbound before any byte that the peer sends in return.
#[derive(Clone, Copy, Debug)]
pub enum ToInbound {
    /// A Read Request.
    Read {
        /// Where the response must go, all of it.
        sink: Segment,
    },
    /// An atomic request.
    Atomic {
        /// The request's identifier.
        request: u32,
        /// Where the original value goes.
        sink: Segment,
        /// Compare-and-swap or fetch-and-add, for the completion.
        compare_swap: bool,
    },
    /// The response to the peer's oldest Read Request or atomic is committed to the stream: the peer may send another one
    /// as soon as it has it (RFC 5040 §5.2.2). Sent before the last byte of the response leaves.
    Responded,
}
