//! The sending half: from posted requests, and requests of the peer, to FPDUs.
//!
//! [`Outbound::next`] commits to the boundaries of one FPDU, [`Outbound::write`] writes its bytes, as often as the engine
//! asks, and [`Outbound::handle_acknowledged`] ends its life. A CRC is always computed over the bytes written, never over
//! memory that the application may be changing.

mod commit;
mod encode;
mod places;
mod queue;
mod records;
mod turn;

use std::collections::VecDeque;

use crate::error::{OffendingSegment, ProtocolError, Violation};
use crate::framing::{Markers, mulpdu};
use crate::limits::{Limits, MAX_RETAINED_BYTES};
use crate::memory::{AccessError, Memory};
use crate::negotiated::{Negotiated, Role, RtrKind};
use crate::record::{PostError, Record, Retention};
use crate::statistics::OutboundStatistics;
use crate::terminate::{DdpHeader, Terminate, read_request_header};
use crate::types::{MessageSequenceNumber, QueueNumber};
use crate::wire::{RdmapOpcode, ReadRequestHeader, UntaggedHeader};
use crate::work::{MAX_INLINE, Operation, Payload, RemoteAddress, SendRequest, Status, ToInbound, ToOutbound, Upper};

use queue::SendQueue;
use records::{Records, Unwritable};
use turn::{Side, Turn};

/// The sending half of a connection.
#[derive(Debug)]
pub struct Outbound {
    crc: bool,
    markers: Option<Markers>,
    /// Largest ULPDU.
    mulpdu: usize,
    retention: Retention,
    limits: Limits,
    ord: u16,
    ending: Ending,
    /// The end is this side's doing.
    failed: bool,
    /// Whether FPDUs may be sent at all (RFC 5044 §7.1.2 rule 4).
    peer_ready: bool,
    rtr_due: Option<RtrKind>,
    queue: SendQueue,
    /// Requests of the peer to answer, oldest first.
    responses: VecDeque<Response>,
    /// Requests of ours that the peer has not answered, oldest first.
    awaited: VecDeque<Awaited>,
    records: Records,
    turn: Turn,
    /// A Write was begun and has not got its last segment yet.
    in_write: bool,
    next_send: MessageSequenceNumber,
    next_request: MessageSequenceNumber,
    next_atomic_response: MessageSequenceNumber,
    /// Number of the peer's request that the next [`ToOutbound`] answers.
    peer_request: MessageSequenceNumber,
    statistics: OutboundStatistics,
}

/// How far the end of the connection is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Open,
    /// A TERMINATE goes out next.
    Due(Terminate),
    /// It is committed, up to this offset.
    Sent(u64),
    /// Nothing more is sent, and no TERMINATE was.
    Silent,
}

/// A request of the peer.
#[derive(Clone, Copy, Debug)]
enum Response {
    Read {
        /// Number of the request.
        message: MessageSequenceNumber,
        /// Where the next segment goes, and comes from.
        sink: RemoteAddress,
        source: RemoteAddress,
        remaining: u32,
        begun: bool,
    },
    Atomic {
        request: u32,
        original: u64,
    },
}

/// Who waits for an answer of the peer.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    /// The ready-to-receive message.
    Rtr,
    /// The request with this position in the send queue.
    Request(u64),
}

impl MessageSequenceNumber {
    /// This number; steps to the next one. RFC 5041 §4.3: they wrap.
    fn take(&mut self) -> Self {
        let this = *self;
        self.0 = self.0.wrapping_add(1);
        this
    }
}

impl Outbound {
    /// The sending half of a connection whose handshake ended with `negotiated`. The first FPDU begins at offset `start` of
    /// the stream.
    pub fn new(negotiated: &Negotiated, limits: &Limits, start: u64, retention: Retention) -> Self {
        let initiator = negotiated.role == Role::Initiator;
        let markers = negotiated.send_markers.then_some(Markers { origin: start });
        Self {
            crc: negotiated.crc,
            markers,
            mulpdu: mulpdu(0, markers.is_some()),
            retention,
            limits: *limits,
            ord: negotiated.ord.min(limits.send_read_requests),
            ending: Ending::Open,
            failed: false,
            peer_ready: initiator,
            rtr_due: negotiated.rtr.filter(|_| initiator),
            queue: SendQueue::new(limits.send_queue_depth),
            // Both get their room when they need it: many connections never do.
            responses: VecDeque::new(),
            awaited: VecDeque::new(),
            records: Records::new(start),
            turn: Turn::default(),
            in_write: false,
            next_send: MessageSequenceNumber(1),
            next_request: MessageSequenceNumber(1),
            next_atomic_response: MessageSequenceNumber(1),
            peer_request: MessageSequenceNumber(1),
            statistics: OutboundStatistics::default(),
        }
    }

    /// Sets how many bytes travel in one segment; FPDUs committed from now on fit it (RFC 5044 §4.5).
    pub fn set_segment_size(&mut self, bytes: usize) {
        self.mulpdu = mulpdu(bytes, self.markers.is_some());
    }

    /// Queues a request.
    pub fn post(&mut self, mut request: SendRequest) -> Result<(), PostError> {
        self.post_from(&mut request)
    }

    /// As [`Self::post`]. Of a request that was taken nothing is left that counts.
    #[inline]
    pub fn post_from(&mut self, request: &mut SendRequest) -> Result<(), PostError> {
        if self.ending != Ending::Open {
            return Err(PostError::Ended);
        }
        if self.queue.is_full() {
            return Err(PostError::QueueFull { depth: self.limits.send_queue_depth });
        }
        let length = match &request.operation {
            Operation::Send { payload, .. } | Operation::Write { payload, .. } => {
                if let Payload::Inline(bytes) = payload
                    && bytes.len() > MAX_INLINE
                {
                    return Err(PostError::InlineTooLong { length: bytes.len(), limit: MAX_INLINE });
                }
                payload.length()
            }
            Operation::Read { .. } | Operation::Atomic { .. } if self.ord == 0 => return Err(PostError::NoReads),
            Operation::Read { sinks, .. } => sinks.length(),
            Operation::Atomic { sink, .. } if sink.length != 8 => {
                return Err(PostError::AtomicSink { length: sink.length });
            }
            Operation::Atomic { .. } | Operation::Immediate { .. } => 8,
            Operation::LocalInvalidate { .. } => 0,
        };
        if length > u64::from(self.limits.max_message_length) {
            return Err(PostError::TooLong { length, limit: self.limits.max_message_length });
        }
        self.queue.push(request, length as u32);
        Ok(())
    }

    /// A message from the other half.
    pub fn handle<M: Memory + ?Sized, U: Upper + ?Sized>(&mut self, message: ToOutbound, memory: &M, upper: &mut U) {
        match message {
            // RFC 5040 §5.4: nothing is answered behind a TERMINATE.
            ToOutbound::ReadRequest { .. } | ToOutbound::AtomicResult { .. } if self.is_ending() => {}
            ToOutbound::ReadRequest { sink, source, length } => {
                if length > 0 {
                    memory.hold(source.stag);
                }
                let message = self.peer_request.take();
                self.responses.push_back(Response::Read { message, sink, source, remaining: length, begun: false });
            }
            ToOutbound::AtomicResult { request, original } => {
                self.peer_request.take();
                self.responses.push_back(Response::Atomic { request, original });
            }
            ToOutbound::Answered { status } => {
                if let Some(Awaited::Request(position)) = self.awaited.pop_front() {
                    self.queue.answered(position, status);
                }
                self.complete(memory, upper);
            }
            ToOutbound::PeerReady => self.peer_ready = true,
            ToOutbound::PeerTerminated { status, blamed } => {
                self.queue.blame(blamed, status);
                if matches!(self.ending, Ending::Open | Ending::Due(_)) {
                    self.ending = Ending::Silent;
                }
            }
        }
    }

    /// Ends the connection: `terminate` goes out next, and nothing behind it. The first call counts (RFC 5040 §7.1 case 4).
    /// A responder that has not received an FPDU yet may not send one, not even this (RFC 5044 §7.1.2 rule 4).
    pub fn terminate(&mut self, terminate: Terminate) {
        if self.ending == Ending::Open {
            self.failed = true;
            self.ending = if self.peer_ready { Ending::Due(terminate) } else { Ending::Silent };
        }
    }

    /// Commits to the next FPDU, of at most `room` bytes. `None` if there is nothing to send, if it does not fit, or if
    /// [`crate::MAX_UNACKNOWLEDGED_RECORDS`] wait for their acknowledgement. As long as anything is unacknowledged, a message is not
    /// cut smaller than the segment size only because `room` is smaller: more room is coming.
    pub fn next<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        room: usize,
        memory: &M,
        upper: &mut U,
    ) -> Option<Record> {
        if self.records.is_full() {
            return None;
        }
        if self.queue.front_is_invalidation() {
            // All before it is done: nothing else would complete it.
            self.complete(memory, upper);
        }
        if self.ending == Ending::Open && self.peer_ready {
            if let Some(kind) = self.rtr_due {
                return self.commit_rtr(kind, room, upper);
            }
            let record = match self.turn.choose(self.queue_is_ready(), self.responses_are_ready())? {
                Side::Queue => self.commit_request(room, memory, upper),
                Side::Responses => self.commit_response(room, memory, upper),
            };
            if record.is_some() {
                return record;
            }
        }
        // What was to be committed may have failed: then this is next.
        match self.ending {
            Ending::Due(terminate) => self.commit_terminate(&terminate, room),
            _ => None,
        }
    }

    /// Writes the bytes from `start` on, which were committed and are not acknowledged, into `out`: the same bytes for the
    /// same range, as long as the application leaves its buffers alone, and FPDUs with a valid CRC even if it does not.
    pub fn write<M: Memory + ?Sized>(&mut self, start: u64, out: &mut [u8], memory: &M) {
        let encoder = encode::Encoder { queue: &self.queue, crc: self.crc, markers: self.markers, memory };
        if let Err(Unwritable { request }) = self.records.write(start, out, &encoder, &mut self.statistics) {
            // Memory that the FPDU refers to is gone. It was made so that every peer refuses it, and nothing may follow but
            // the reason.
            request.into_iter().for_each(|position| self.queue.fail(position, Status::LocalProtection));
            self.terminate(Terminate::LOCAL_CATASTROPHIC);
        }
    }

    /// Everything before `through` has arrived: forgets it, and completes what thereby is done.
    pub fn handle_acknowledged<M: Memory + ?Sized, U: Upper + ?Sized>(
        &mut self,
        through: u64,
        memory: &M,
        upper: &mut U,
    ) {
        self.records.acknowledge(through, memory);
        self.complete(memory, upper);
    }

    /// The connection is gone, and nothing calls [`Self::write`] any more: every request completes, in order, those that are not
    /// done with [`Status::Flushed`].
    pub fn flush<M: Memory + ?Sized, U: Upper + ?Sized>(&mut self, memory: &M, upper: &mut U) {
        if !matches!(self.ending, Ending::Sent(_)) {
            self.ending = Ending::Silent;
        }
        let through = self.records.acknowledged();
        self.records.drop_all(memory);
        self.drop_responses(memory);
        self.awaited.clear();
        self.queue.flush(through, memory, upper);
    }

    /// Nothing is queued and nothing unacknowledged.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.responses.is_empty()
            && self.records.is_empty()
            && self.rtr_due.is_none()
            && !matches!(self.ending, Ending::Due(_))
    }

    /// Whether [`Self::write`] can still be asked for something: FPDUs are committed that the peer has not acknowledged.
    pub fn has_unacknowledged(&self) -> bool {
        !self.records.is_empty()
    }

    /// Whether [`Self::next`] would give something, or complete something, room permitting.
    pub fn has_work(&self) -> bool {
        !self.records.is_full()
            && match self.ending {
                Ending::Open => {
                    self.peer_ready
                        && (self.rtr_due.is_some()
                            || self.queue.front_is_invalidation()
                            || self.queue_is_ready()
                            || self.responses_are_ready())
                }
                Ending::Due(_) => true,
                Ending::Sent(_) | Ending::Silent => false,
            }
    }

    /// Whether the connection is ending: a TERMINATE is due or sent, or the peer sent one, or requests were flushed.
    pub fn is_ending(&self) -> bool {
        self.ending != Ending::Open
    }

    /// Whether the connection is ending because of something on this side: [`Self::terminate`] was called, or a request of ours or
    /// the answer to one of the peer's failed, which is told by nothing else. The owner stops receiving then, and closes the
    /// stream once [`Self::is_terminated`].
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether the TERMINATE was acknowledged, or none can be sent: the stream may be closed.
    pub fn is_terminated(&self) -> bool {
        match self.ending {
            Ending::Open | Ending::Due(_) => false,
            Ending::Sent(end) => self.records.acknowledged() >= end,
            Ending::Silent => true,
        }
    }

    /// Counters.
    pub fn statistics(&self) -> OutboundStatistics {
        OutboundStatistics { retained_bytes: self.records.retained() as u64, ..self.statistics }
    }

    /// RFC 5040 §5.4: behind a TERMINATE nothing is answered.
    fn drop_responses<M: Memory + ?Sized>(&mut self, memory: &M) {
        for response in self.responses.drain(..) {
            if let Response::Read { source, remaining: 1.., .. } = response {
                memory.release(source.stag);
            }
        }
    }

    /// Completes all that is done, in order, up to the first that is not.
    fn complete<M: Memory + ?Sized, U: Upper + ?Sized>(&mut self, memory: &M, upper: &mut U) {
        if self.queue.complete(self.records.acknowledged(), memory, upper).is_err() && self.ending == Ending::Open {
            self.terminate(Terminate::LOCAL_CATASTROPHIC);
        }
    }

    /// Whether the send queue may put something into the stream now.
    fn queue_is_ready(&self) -> bool {
        let Some(entry) = self.queue.current() else { return false };
        let request = entry.request();
        if !entry.is_begun() && request.fence && !self.awaited.is_empty() {
            return false;
        }
        match request.operation {
            Operation::Read { .. } | Operation::Atomic { .. } => self.awaited.len() < usize::from(self.ord),
            // Peers keep track of one tagged message at a time: a Write waits for the end of a Read response that has begun.
            Operation::Write { .. } => entry.is_fully_placed() || !self.is_in_response(),
            Operation::LocalInvalidate { .. } => false,
            Operation::Send { .. } | Operation::Immediate { .. } => true,
        }
    }

    /// Whether a response may go into the stream now.
    fn responses_are_ready(&self) -> bool {
        match self.responses.front() {
            None => false,
            Some(Response::Atomic { .. }) => true,
            Some(Response::Read { .. }) => !self.in_write && self.records.retained() < MAX_RETAINED_BYTES,
        }
    }

    fn is_in_response(&self) -> bool {
        matches!(self.responses.front(), Some(Response::Read { begun: true, .. }))
    }
}
